"""The Snakemake workflow imputes the example in parts, and a second run does nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from vcf_tools import bcftools, write_program

from ragimpute import example
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.read.genotypes import read_dosages

WORKFLOW = Path(__file__).resolve().parents[1] / "workflow"
SCRIPTS = Path(sys.executable).parent


def snakemake(folder, *options):
    """Run the workflow in a folder that holds config.yaml; its messages."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    write_program(programs)
    path = os.pathsep.join([str(programs), str(SCRIPTS), os.environ["PATH"]])
    done = subprocess.run(
        [SCRIPTS / "snakemake", "--snakefile", WORKFLOW / "Snakefile", "--configfile",
         "config.yaml", "--cores", "2", "--nocolor", *options],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": path, "XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the example and settings that ask for several chunks and batches; run once."""
    folder = tmp_path_factory.mktemp("workflow")
    for name in example.NAMES:
        shutil.copy(example.path(name), folder)
    settings = {
        "target": "target.vcf.gz",
        "truth": "truth.bcf",
        "panels": {"20": {"vcf": "panel.bcf", "map": "chr20.b37.gmap.gz"}},
        "chunk_cm": 1.5,
        "samples_per_batch": 30,
        "threads": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    snakemake(folder)
    return folder


def test_parts_are_joined_to_what_one_run_gives(folder, tmp_path):
    whole = tmp_path / "whole.bcf"
    impute(folder / "target.vcf.gz", folder / "results/20/panel.h5", whole)
    joined, expected = read_dosages(folder / "results/20.vcf.gz"), read_dosages(whole)
    plan = json.loads((folder / "results/20/plan.json").read_text())
    assert len(plan["regions"]) == 2
    assert [len(batch["samples"]) for batch in plan["batches"]] == [25, 25]
    assert joined.samples == expected.samples
    assert joined.sites.keys() == expected.sites.keys()
    assert (joined.typed == expected.typed).all()
    # A chunk's parameters are chosen on its own part of the panel, and its buffer ends.
    assert np.abs(joined.dosage - expected.dosage).mean() < 0.005
    untyped = ~joined.typed
    assert np.corrcoef(joined.dr2[untyped], expected.dr2[untyped])[0, 1] > 0.98


def test_joined_file_has_an_index_and_figures(folder):
    results = folder / "results"
    assert bcftools("index", "--nrecords", results / "20.vcf.gz") == "6127\n"
    (figures,) = json.loads((results / "20.accuracy.json").read_text()).values()
    assert figures["overall"]["r2"] > 0.8
    assert "<svg" in (results / "20.accuracy.html").read_text()
    assert len(list(results.glob("20/parts/*/batch-*.html"))) == 4


def test_second_run_does_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*")}
    assert "Nothing to be done" in snakemake(folder)
    after = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*")}
    assert after == before


def test_a_run_of_one_batch_skips_merge(folder):
    planned = snakemake(folder, "--dry-run", "--config", "samples_per_batch=null", "out=other")
    assert "rule merge" not in planned
    assert "checkpoint plan" in planned


def test_packaged_settings_are_complete():
    settings = yaml.safe_load((WORKFLOW / "config.yaml").read_text())
    text = (WORKFLOW / "Snakefile").read_text()
    for name in settings:
        assert f'config["{name}"]' in text or f"config['{name}']" in text or name == "target", name
    assert 'of_contig("target")' in text
