"""The Snakemake workflow imputes the example in parts, and a second run does nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from vcf_tools import bcftools, write_program

from ragimpute import __version__, example
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
        "out": "my results",  # names of folders may have spaces
        "chunk_cm": 1.5,
        "samples_per_batch": 30,
        "threads": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    snakemake(folder)
    return folder


def test_parts_are_joined_to_what_one_run_gives(folder, tmp_path):
    whole = tmp_path / "whole.bcf"
    impute(folder / "target.vcf.gz", folder / "my results/20/panel.h5", whole)
    joined, expected = read_dosages(folder / "my results/20.vcf.gz"), read_dosages(whole)
    plan = json.loads((folder / "my results/20/plan.json").read_text())
    assert len(plan["regions"]) == 2
    assert len(list((folder / "my results/20/index").glob("*.index/arrays/*/window_*"))) == 2
    for page in (folder / "my results/20/parts").rglob("batch-*.json"):
        assert '"index": "array target.vcf.gz, ' in page.read_text()
    assert [len(batch["samples"]) for batch in plan["batches"]] == [25, 25]
    assert joined.samples == expected.samples
    assert joined.sites.keys() == expected.sites.keys()
    assert (joined.typed == expected.typed).all()
    # Here the buffers of each chunk reach the ends of the panel, so that it sees all of it. What
    # is merged comes from sums of six digits, as workflow/README.md says.
    np.testing.assert_array_equal(joined.dosage, expected.dosage)
    moved = np.abs(joined.dr2 - expected.dr2)
    assert 0 < np.count_nonzero(moved > 1e-6) <= 10
    assert moved.max() < 1.01e-4


def test_joined_file_has_an_index_and_figures(folder):
    results = folder / "my results"
    assert bcftools("index", "--nrecords", results / "20.vcf.gz") == "6127\n"
    (figures,) = json.loads((results / "20.accuracy.json").read_text()).values()
    assert figures["overall"]["r2"] > 0.8
    assert "<svg" in (results / "20.accuracy.html").read_text()
    assert len(list(results.glob("20/parts/*/batch-*.html"))) == 4


def test_second_run_does_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in (folder / "my results").rglob("*")}
    assert "Nothing to be done" in snakemake(folder)
    after = {path: path.stat().st_mtime_ns for path in (folder / "my results").rglob("*")}
    assert after == before


def test_a_run_of_one_batch_skips_merge(folder):
    planned = snakemake(
        folder, "--dry-run", "--printshellcmds", "--config", "samples_per_batch=null", "out=other",
        "truth=null",
    )  # fmt: skip
    assert "--samples-per-batch" not in planned
    assert "rule evaluate" not in planned
    assert "rule merge" not in planned
    assert "checkpoint plan" in planned


def test_jobs_ask_for_what_the_plan_says_and_for_more_when_they_failed(folder):
    plan = json.loads((folder / "my results/20/plan.json").read_text())
    planned = snakemake(folder, "--dry-run", "--forcerun", "impute")
    (asked,) = {
        int(found)
        for job in re.findall(r"^rule impute:\n(?:    .*\n)+", planned, re.MULTILINE)
        for found in re.findall(r"mem_mb=(\d+)", job)
    }
    assert asked in {region["memory_mb"] for region in plan["regions"]}
    text = (WORKFLOW / "Snakefile").read_text()
    rules = re.findall(r"^(?:rule|checkpoint) (\w+):\n((?:(?: .*)?\n)+)", text, re.MULTILINE)
    assert [name for name, body in rules if name != "all" and "mem_mb=" not in body] == []
    assert [name for name, body in rules if name != "all" and "runtime=" not in body] == []
    assert text.count("* attempt") == 3


def test_chunks_by_length_in_mb(folder):
    planned = snakemake(
        folder, "--dry-run", "--printshellcmds", "--config", "chunk_cm=null", "chunk_mb=0.4",
        "out=by_length",
    )  # fmt: skip
    assert " --chunk-mb 0.4 " in planned
    assert "--chunk-cm" not in planned


def test_low_coverage_is_imputed_from_likelihoods_without_an_index(folder):
    """A target of PL without GT goes through all rules."""
    text = bcftools("view", folder / "target.vcf.gz")
    lines = []
    pl = {"0|0": "0,30,60", "0|1": "40,0,40", "1|0": "40,0,40", "1|1": "60,30,0"}
    for line in text.splitlines():
        if line.startswith("##"):
            lines.append(line.replace("ID=GT,Number=1,Type=String", "ID=PL,Number=G,Type=Integer"))
        else:
            cells = line.split("\t")
            if not line.startswith("#"):
                cells[8:] = ["PL", *(pl.get(cell[:3], "0,0,0") for cell in cells[9:])]
            lines.append("\t".join(cells))
    (folder / "reads.vcf").write_text("\n".join(lines) + "\n")
    bcftools("view", "-Oz", "-o", folder / "reads.vcf.gz", folder / "reads.vcf")
    bcftools("index", "-f", folder / "reads.vcf.gz")
    said = snakemake(
        folder, "--printshellcmds", "--config", "low_coverage=true", "target=reads.vcf.gz",
        "out=low", "samples_per_batch=25",
    )  # fmt: skip
    assert "rule index" not in said
    assert "--likelihoods always" in said
    joined = read_dosages(folder / "low/20.vcf.gz")
    assert len(joined.samples) == 50
    assert not joined.typed.any()
    (figures,) = json.loads((folder / "low/20.accuracy.json").read_text()).values()
    assert figures["overall"]["r2"] > 0.8


def test_snakemake_has_nothing_to_say_against_the_workflow(folder):
    assert "good condition" in snakemake(folder, "--lint")


def test_slurm_profile_plans_the_same_jobs(folder):
    """The profile names its plugin, and Snakemake with that plugin takes every setting of it."""
    profile = WORKFLOW / "profiles" / "slurm"
    planned = snakemake(
        folder,
        "--dry-run",
        "--profile",
        profile,
        "--config",
        "out=on_slurm",
        "samples_per_batch=30",
    )
    assert "checkpoint plan" in planned
    assert "runtime=120" in planned
    text = (profile / "config.yaml").read_text()
    assert yaml.safe_load(text)["executor"] == "slurm"
    assert "pip install snakemake-executor-plugin-slurm" in text


def test_environment_of_the_rules_is_of_this_version():
    text = (WORKFLOW / "Snakefile").read_text()
    rules = re.findall(r"^(?:rule|checkpoint) (\w+):", text, re.MULTILINE)
    assert text.count('"envs/ragimpute.yaml"') == len(rules) - 1  # all but the rule "all"
    environment = yaml.safe_load((WORKFLOW / "envs" / "ragimpute.yaml").read_text())
    assert f"bioconda::ragimpute={__version__}" in environment["dependencies"]


def test_packaged_settings_are_complete():
    settings = yaml.safe_load((WORKFLOW / "config.yaml").read_text())
    text = (WORKFLOW / "Snakefile").read_text()
    for name in settings:
        named = f'config["{name}"]' in text or f"config['{name}']" in text
        assert named or name in ("target", "chunk_cm", "chunk_mb"), name
    assert 'of_contig("target")' in text
