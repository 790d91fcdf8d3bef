"""A token model on another panel than it learned: warned of, or refused on another contig."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
import torch
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel
from vcf_fixtures import write_genotypes

from ragimpute.config import load_config
from ragimpute.errors import ModelError
from ragimpute.imputation.arrays import Imputer
from ragimpute.imputation.impute import impute
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.model.folder import PROVENANCE, open_folder
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.token_model.learned_panel import init_warning, require_contig

SMALL = ("data.max_sites=32", "model.encoder.dim=8", "data.windows_per_epoch=4", "train.epochs=1",
         "train.max_steps=1", "train.batch_size=2", "model.encoder.num_layers=1")  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Panels: one that is learned, another of its contig, the same sites elsewhere, and targets."""
    folder = tmp_path_factory.mktemp("learned")
    for name, contig, seed in (("a", "20", 1), ("b", "20", 2), ("c", "21", 1), ("d", "chr20", 1)):
        alleles = mosaic_panel(np.random.default_rng(seed), 30, 16).reshape(30, 8, 2)
        batch = make_batch(alleles, contig=contig)
        write_panel(
            folder / f"{name}.h5", [batch], samples=names(8), genetic_map=FlatMap(),
            source=f"{name}.vcf",
        )  # fmt: skip
        with Panel.open(folder / f"{name}.h5") as panel:
            keys = panel.sites.keys()[::3]
        out = folder / f"{name}.target.vcf"
        write_genotypes(out, keys, alleles[::3, :2], names(2), contig=contig)
    return folder


@pytest.fixture(scope="module")
def token(places):
    """A token model that learned panel a, as train leaves it."""
    from ragimpute.training.trainer import train

    config = load_config("v2-small", overrides=SMALL)
    train([places / "a.h5"], config, places / "token", device="cpu")
    return places / "token"


def test_what_train_keeps_of_its_panel(places, token):
    (about,) = json.loads((token / PROVENANCE).read_text())["panels"]
    with Panel.open(places / "a.h5") as panel:
        assert about["checksum"] == panel.checksum
    assert (about["name"], about["source"], about["contig"]) == ("a.h5", "a.vcf", "20")


def test_its_own_panel_is_not_spoken_of(places, token, tmp_path):
    done = impute(places / "a.target.vcf", places / "a.h5", tmp_path / "x.vcf", model=token)
    assert not [line for line in done.warnings if "learned" in line]


@pytest.mark.parametrize("other", ["b", "d"])
def test_another_panel_of_its_contig_is_warned_of(places, token, tmp_path, other):
    """chr20 is 20."""
    target, panel = places / f"{other}.target.vcf", places / f"{other}.h5"
    done = impute(target, panel, tmp_path / "x.vcf", model=token)
    (line,) = [line for line in done.warnings if "learned" in line]
    assert "a.h5 (contig 20" in line
    assert f"{other}.h5 (contig {'20' if other == 'b' else 'chr20'}" in line
    with Imputer(panel, model=token) as imputer:
        assert line in imputer.impute(target).warnings


def test_another_contig_is_refused(places, token, tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target, panel = places / "c.target.vcf", places / "c.h5"
    code, out, err = command_line("impute", target, "-p", panel, "-m", token, "-o", "x.vcf")
    assert (code, out) == (1, "")
    message, hint = err.splitlines()[-2:]
    assert "a.h5 (contig 20" in message
    assert "c.h5 (contig 21" in message
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelError, match=r"a\.h5 .* and cannot impute from panel c\.h5"):
        Imputer(panel, model=token)
    # What the hint says works.
    (command,) = re.findall(r"ragimpute (train .*)", hint)
    code, _, err = command_line(*shlex.split(command), "--device", "cpu")
    assert code == 0, err
    for model in ("MODEL", "default"):
        code, _, err = command_line(
            "impute", target, "-p", panel, "-m", model, "-o", f"{model}.vcf", "--no-fine-tune"
        )
        assert code == 0, err
        assert "learned" not in err


def test_training_may_start_from_it(places, token, tmp_path, command_line):
    code, _, err = command_line(
        "train", places / "c.h5", "--config", token / "config.yaml", "--init", token,
        "-o", tmp_path / "m", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    assert "learned panel a.h5 (contig 20" in err
    assert "not panel c.h5 (contig 21" in err
    (about,) = json.loads((tmp_path / "m" / PROVENANCE).read_text())["panels"]
    assert about["name"] == "c.h5"


@pytest.mark.parametrize(
    "provenance",
    [{}, {"panels": []}, {"panels": "none"}, {"panels": [{"name": "x"}]}, {"panels": [3]}, []],
)
def test_models_that_do_not_say_what_they_learned(places, tmp_path, provenance):
    config = load_config("v2-small", overrides=SMALL)
    torch.manual_seed(1)
    save_model(tmp_path / "m", build(config.model), config, {})
    (tmp_path / "m" / PROVENANCE).write_text(json.dumps(provenance))
    with Panel.open(places / "c.h5") as panel:
        assert require_contig(open_folder(tmp_path / "m"), panel, "c.h5") is None
        assert init_warning(open_folder(tmp_path / "m"), panel, "c.h5") is None


def test_old_models_have_no_names_but_a_contig(places, tmp_path):
    config = load_config("v2-small", overrides=SMALL)
    save_model(
        tmp_path / "m", build(config.model), config,
        {"panels": [{"checksum": "12" * 16, "contig": "1"}]},
    )  # fmt: skip
    with (
        Panel.open(places / "c.h5") as panel,
        pytest.raises(ModelError, match=r"of an unknown name \(contig 1, checksum 121212121212\)"),
    ):
        require_contig(open_folder(tmp_path / "m"), panel, "c.h5")


def test_copying_models_suit_every_panel(places):
    with Panel.open(places / "c.h5") as panel:
        assert require_contig(open_folder("default"), panel, "c.h5") is None
