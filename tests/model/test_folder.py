"""Model folders without torch: what is wrong is found before the network is loaded."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ragimpute import example
from ragimpute.errors import ModelError
from ragimpute.imputation.impute import impute
from ragimpute.model.checkpoint import load_model
from ragimpute.model.folder import CONFIG, WEIGHTS, check_weights, open_folder
from ragimpute.presets import models_dir


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped default model."""
    made = tmp_path / "model"
    made.mkdir()
    for name in (CONFIG, WEIGHTS):
        (made / name).write_bytes((models_dir() / "default" / name).read_bytes())
    return made


def python(code, *arguments):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_what_a_folder_says_is_what_the_loaded_model_says():
    found, loaded = open_folder("default"), load_model("default")
    assert (found.name, found.trained, found.is_copying) == ("default", True, True)
    assert found.config == loaded.config
    assert found.provenance == loaded.provenance
    assert load_model(found).model.num_parameters() == loaded.model.num_parameters()


def test_weights_for_other_evidence_are_refused_before_they_are_read(folder):
    values = load_file(folder / WEIGHTS)
    save_file(values, folder / WEIGHTS, metadata={"format": "1", "input": "evidence-3-x"})
    with pytest.raises(ModelError, match=r"for input evidence-3-x; this is .* needs evidence-"):
        open_folder(folder)


def test_cut_weights_are_refused(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(ModelError, match="cannot be read"):
        check_weights(folder / WEIGHTS, open_folder("default").config)


def test_what_fails_in_the_background_is_the_runs_error(folder, panel_h5, tmp_path):
    with safe_open(folder / WEIGHTS, framework="numpy") as file:
        about = file.metadata()
    values = load_file(folder / WEIGHTS)
    values[next(iter(values))][:] = np.nan
    save_file(values, folder / WEIGHTS, metadata=about)
    with pytest.raises(ModelError, match="not finite"):
        impute(example.path("target.vcf.gz"), panel_h5, tmp_path / "x.bcf", model=folder)
    assert not list(tmp_path.glob("*.bcf"))


def test_torch_is_imported_neither_to_prepare_a_run_nor_without_weights(panel_h5, tmp_path):
    code = (
        "import sys\n"
        "import ragimpute.cli.main\n"
        "from ragimpute.imputation.impute import impute\n"
        "from ragimpute.imputation.imputer import make_imputer\n"
        "from ragimpute.panel.reader import Panel\n"
        "panel = Panel.open(sys.argv[1])\n"
        "made = make_imputer('default', panel, [0], index=None, ne=None, err=None, seed=1,\n"
        "                    device='auto', threads=1)\n"
        "print(made.settings['correction'], 'torch' in sys.modules)\n"
        "impute(sys.argv[2], sys.argv[1], sys.argv[4], model=sys.argv[3])\n"
        "print('torch' in sys.modules)\n"
    )
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / CONFIG).write_text("extends: default\nname: plain\n")
    arguments = (panel_h5, example.path("target.vcf.gz"), plain, tmp_path / "x.bcf")
    assert python(code, *arguments).split() == ["network", "False", "False"]
