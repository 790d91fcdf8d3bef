"""The demo, run as a user would; and what its trained token model says to bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from report_fixtures import Page, check_alone
from vcf_fixtures import bcftools, read_imputed, rows_of, view

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.model.checkpoint import load_model
from ragimpute.panel.reader import Panel


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "ragimpute", "demo", "-o", "out"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder / "out", done.stdout


def test_files_that_are_what_they_say(demo):
    out, _ = demo
    names = {path.name for path in out.iterdir()}
    assert names == {
        "panel.h5", "panel.index", "model", "imputed.vcf.gz", "imputed.vcf.gz.tbi", "report.html",
    }  # fmt: skip
    with Panel.open(out / "panel.h5") as panel:
        panel.verify()
        assert panel.num_sites == 6_127
        manifest = json.loads((out / "panel.index" / "manifest.json").read_text())
        assert manifest["panel_checksum"] == panel.checksum
    assert len(rows_of(view(out / "imputed.vcf.gz"))) == 6_127
    assert bcftools("index", "-n", out / "imputed.vcf.gz") == "6127\n"
    loaded = load_model(out / "model")
    assert loaded.trained
    assert loaded.config.name == "v10-small"
    assert len((out / "model" / "metrics.csv").read_text().splitlines()) == 1 + 2


def test_what_is_printed(demo):
    out, printed = demo
    for stage in ("prepare", "index", "train", "impute"):
        assert re.search(rf"^{stage} ", printed, re.MULTILINE)
    figures = evaluate(
        example.path("truth.bcf"), out / "imputed.vcf.gz", out / "panel.h5",
        typed=example.path("target.vcf.gz"),
    )  # fmt: skip
    assert figures.overall.r2 > 0.95
    assert figures.overall.num_sites == 6_127 - 689
    (last,) = (line for line in printed.splitlines() if re.match(r"\W*all\b", line))
    assert f"{figures.overall.r2:.5f}" in last
    assert "5,438" in last
    for _, value, *_ in figures.table()[1:]:
        assert value in printed
    assert "imputed VCF  out/imputed.vcf.gz\n" in printed
    assert "HTML report  out/report.html\n" in printed


def test_the_report_stands_alone(demo):
    out, _ = demo
    page = Page(out / "report.html")
    check_alone(page)
    assert [attrs["id"] for attrs in page.all("section")] == ["accuracy", "impute", "training"]
    assert len(page.all("svg")) >= 10


def test_a_folder_with_files_is_left_alone(demo, command_line):
    out, _ = demo
    before = sorted(path.name for path in out.iterdir())
    code, _, err = command_line("demo", "-o", out)
    assert code == 1
    assert err.startswith(f"Error: folder {out} is not empty\n  hint: ")
    assert sorted(path.name for path in out.iterdir()) == before


@pytest.fixture
def words(demo, tmp_path):
    """A command that imputes by the trained token model, and a copy of its inputs."""
    for name in ("panel.index", "model"):
        shutil.copytree(demo[0] / name, tmp_path / name)
    return ["impute", example.path("target.vcf.gz"), "-p", demo[0] / "panel.h5",
            "-m", tmp_path / "model", "-r", "20:2000000-2100000", "-o", tmp_path / "x.vcf",
            "--device", "cpu"]  # fmt: skip


def test_the_token_model_imputes(words, demo, tmp_path, command_line):
    code, _, err = command_line(*words, "--index", tmp_path / "panel.index")
    assert (code, err) == (0, "")
    found = read_imputed(tmp_path / "x.vcf")
    assert len(found.keys) > 500
    assert ((found.dosage >= 0) & (found.dosage <= 2)).all()
    by_default = read_imputed(demo[0] / "imputed.vcf.gz")
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
