"""A trained token model, used as a user would; and what the command line says to bad input."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from vcf_fixtures import read_imputed

import ragimpute as ri
from ragimpute import example
from ragimpute.config import load_config
from ragimpute.model.checkpoint import load_model
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.token_model.build_index import build_index
from ragimpute.training.trainer import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a panel, its index, and a token model trained for two short epochs."""
    folder = tmp_path_factory.mktemp("trained")
    panel, index = folder / "panel.h5", folder / "panel.index"
    prepare(example.path("panel.bcf"), panel, genetic_map=example.path("chr20.b37.gmap.gz"))
    build_index(panel, index)
    config = load_config("v10-small", overrides=["train.epochs=2", "data.windows_per_epoch=128"])
    train([panel], config, folder / "model", index=index, device="cpu", threads=1)
    return folder


@pytest.fixture
def words(trained, tmp_path):
    """A command that imputes by the trained token model, and a copy of its inputs."""
    for name in ("panel.index", "model"):
        shutil.copytree(trained / name, tmp_path / name)
    return ["impute", example.path("target.vcf.gz"), "-p", trained / "panel.h5",
            "-m", tmp_path / "model", "-r", "20:2000000-2100000", "-o", tmp_path / "x.vcf",
            "--device", "cpu"]  # fmt: skip


def test_training_writes_what_impute_reads(trained):
    loaded = load_model(trained / "model")
    assert loaded.trained
    assert loaded.config.name == "v10-small"
    assert len((trained / "model" / "metrics.csv").read_text().splitlines()) == 1 + 2
    manifest = json.loads((trained / "panel.index" / "manifest.json").read_text())
    with Panel.open(trained / "panel.h5") as panel:
        assert manifest["panel_checksum"] == panel.checksum


def test_the_token_model_imputes(words, trained, tmp_path, command_line):
    code, _, err = command_line(*words, "--index", tmp_path / "panel.index")
    assert (code, err) == (0, "")
    found = read_imputed(tmp_path / "x.vcf")
    assert len(found.keys) > 500
    assert ((found.dosage >= 0) & (found.dosage <= 2)).all()
    by_default = tmp_path / "default.vcf"
    ri.impute(
        example.path("target.vcf.gz"), trained / "panel.h5", by_default,
        region="20:2000000-2100000",
    )  # fmt: skip
    by_default = read_imputed(by_default)
    typed = np.flatnonzero(found.typed)
    assert len(typed) > 50
    first = by_default.keys.index(found.keys[0])
    np.testing.assert_array_equal(
        found.genotypes[typed], by_default.genotypes[first : first + len(found.keys)][typed]
    )
    os.rename(tmp_path / "x.vcf", tmp_path / "one.vcf")
    code, _, _ = command_line(*words, "--index", tmp_path / "panel.index", "-t", "2")
    assert code == 0
    assert (tmp_path / "x.vcf").read_bytes() == (tmp_path / "one.vcf").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "does not match its checksum"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_damaged_index(words, tmp_path, command_line, spoil, message):
    for path in (tmp_path / "panel.index").glob("window_*.faiss"):
        spoil(path)
    code, out, err = command_line(*words, "--index", tmp_path / "panel.index")
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0].startswith("Error: index ")
    assert message in lines[0]
    assert lines[1].startswith("  hint: make it again: ragimpute index")
    assert len(lines) == 2
    assert not list(tmp_path.glob("*x.vcf*"))


def test_weights_of_other_settings(words, tmp_path, command_line):
    config = tmp_path / "model" / "config.yaml"
    config.write_text("extends: v7-small\nname: x\n")
    code, _, err = command_line(*words)
    assert code == 1
    assert "do not fit their config" in err.splitlines()[0]
    assert not list(tmp_path.glob("*x.vcf*"))
