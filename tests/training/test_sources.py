"""Training on files that are no panel.h5: a scikit-allel HDF5, as the original's, and a VCF."""

from __future__ import annotations

import re
import shlex

import h5py
import numpy as np
import pytest

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import refuse_unused
from ragimpute.preparation.original_maps import export_maps
from ragimpute.preparation.prepare import PrepareOptions, prepare
from ragimpute.sites import Region

REGION = Region.parse("20:2000000-2060000")
MAP = example.path("chr20.b37.gmap.gz")
SHORT = ("data.max_sites=64", "data.windows_per_epoch=8", "model.encoder.dim=16", "train.epochs=1",
         "data.max_validation_samples=3", "train.batch_size=4", "train.max_steps=2")  # fmt: skip

KEPT = (".safetensors", ".yaml", ".json", ".csv")


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory):
    """A part of the packaged panel as allel.vcf_to_hdf5 writes it."""
    path = tmp_path_factory.mktemp("hdf5") / "train.h5"
    read = read_target(example.path("panel.bcf"), region=REGION)
    sites, text = read.sites, h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file["variants/POS"] = sites.position_bp
        file["variants/CHROM"] = np.array([b"20"] * len(sites.position_bp), dtype=text)
        file["variants/REF"] = np.array(sites.ref.tolist(), dtype=text)
        file["variants/ALT"] = np.array([[alt, "", ""] for alt in sites.alt.tolist()], dtype=text)
        file["calldata/GT"] = read.alleles
        file["samples"] = np.array(read.samples, dtype=text)
    return path


@pytest.fixture(scope="module")
def panel_h5(hdf5):
    """The panel that is made of it."""
    out = hdf5.with_name("panel.h5")
    prepare(hdf5, out, genetic_map=MAP)
    return out


def words_of(*panels, out, config="v10-small"):
    """A short training run."""
    settings = [word for setting in SHORT for word in ("--set", setting)]
    return ("train", *panels, "--config", config, "-o", out, "--device", "cpu", *settings)


def test_an_hdf5_is_trained_on_as_the_panel_that_is_made_of_it(
    hdf5, panel_h5, tmp_path, command_line, monkeypatch
):
    code, _, err = command_line(*words_of(panel_h5, out=tmp_path / "one"))
    assert code == 0, err
    code, _, err = command_line(*words_of(hdf5, out=tmp_path / "two"), "--map", MAP)
    assert code == 0, err
    for name in ("weights.safetensors", "config.yaml", "metrics.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert "has no phase flag" in err
    assert "was prepared for this run only" in err
    # The command that is named makes a panel that the run may be resumed with.
    (command,) = re.findall(r"to keep it: ragimpute (.*)", err)
    monkeypatch.chdir(tmp_path)
    prepared = shlex.split(command)
    assert command_line(*prepared, "-q")[0] == 0
    code, _, err = command_line(*words_of(prepared[-1], out=tmp_path / "two"), "--resume")
    assert code == 0, err


def test_equal_runs_leave_equal_files(panel_h5, tmp_path, command_line, monkeypatch):
    """All but TensorBoard's, which have the time in them."""
    found = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        code, _, err = command_line(*words_of(panel_h5, out="m"))
        assert code == 0, err
        files = [p for p in (tmp_path / folder / "m").iterdir() if p.suffix in KEPT]
        found.append({path.name: path.read_bytes() for path in files})
    assert {"weights.safetensors", "last.safetensors", "state.safetensors"} <= found[0].keys()
    assert {"config.yaml", "provenance.json", "metrics.csv"} <= found[0].keys()
    assert found[0] == found[1]


def test_maps_and_populations_are_those_of_the_original(hdf5, panel_h5, tmp_path, command_line):
    with Panel.open(panel_h5) as panel:
        samples = panel.samples
        export_maps(panel, tmp_path / "maps")
    table = tmp_path / "samples.panel"
    table.write_text("sample pop super_pop\n" + "".join(f"{s} X all\n" for s in samples))
    code, _, err = command_line(
        *words_of(hdf5, out=tmp_path / "m"), "--cm-per-mb", "1", "--populations", table,
        "--maps", tmp_path / "maps",
    )  # fmt: skip
    assert code == 0, err
    assert "--populations" in err  # of the command that keeps the panel
    assert "--maps" in err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--map", MAP, "a genetic map was given"),
        ("--cm-per-mb", "1", "a genetic map was given"),
        ("--populations", MAP, "a table of populations was given"),
        ("--maps", ".", "a folder of maps was given"),
        ("--region", "20", "a region was given"),
    ],
)
def test_options_that_a_panel_has_no_use_for(
    panel_h5, tmp_path, command_line, option, value, message
):
    code, _, err = command_line(*words_of(panel_h5, out=tmp_path / "m"), option, value)
    assert code == 1
    assert message in err
    assert f"hint: leave out {option}" in err or option == "--cm-per-mb"
    assert not (tmp_path / "m").exists()


def test_options_are_for_those_that_are_no_panel(hdf5, panel_h5):
    refuse_unused([panel_h5, hdf5], PrepareOptions(genetic_map=MAP))
    refuse_unused([panel_h5], PrepareOptions())
    with pytest.raises(InputError, match="a region was given"):
        refuse_unused([panel_h5], PrepareOptions(region=REGION))


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x89HDF\r\n\x1a\nbroken"])
def test_files_that_are_nothing_are_one_line(tmp_path, command_line, content):
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    code, _, err = command_line(*words_of(path, out=tmp_path / "m"), "--quiet")
    assert code == 1
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    assert not (tmp_path / "m").exists()


def test_a_vcf_is_trained_on(tmp_path, command_line):
    code, _, err = command_line(
        "train", example.path("panel.bcf"), "--map", MAP, "--region", str(REGION), "--config",
        "default", "-o", tmp_path / "m", "--device", "cpu", "--set", "data.num_arrays=1", "--set",
        "data.max_haplotypes=20", "--set", "data.typed_per_mb=[300,300]", "--set",
        "data.max_validation_samples=4", "--set", "train.epochs=1", "--set", "train.max_steps=1",
    )  # fmt: skip
    assert code == 0, err
    assert "was prepared for this run only" in err
