"""The WDL workflow passes miniwdl's checks, and runs: without containers, on the example."""

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
from vcf_fixtures import bcftools

from ragimpute import __version__, example
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.header import read_header
from ragimpute.io.vcf.read.genotypes import read_dosages

FOLDER = Path(__file__).resolve().parents[1] / "workflow" / "wdl"
SCRIPTS = Path(sys.executable).parent
TARGET = example.path("target.vcf.gz")
TASKS = re.findall(
    r"^task (\w+) \{\n(.*?)^\}", (FOLDER / "tasks.wdl").read_text(), re.MULTILINE | re.DOTALL
)


def miniwdl(*words, folder):
    """Run miniwdl, tasks as processes of this machine; what it prints."""
    settings = {
        "MINIWDL__SCHEDULER__CONTAINER_BACKEND": "bare",
        "MINIWDL__CALL_CACHE__GET": "false",
        "MINIWDL__CALL_CACHE__PUT": "false",
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        [SCRIPTS / "miniwdl", *map(str, words)], cwd=folder, capture_output=True, text=True,
        check=False, env=os.environ | settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(folder, inputs, *words, document="impute.wdl"):
    """The outputs of a run, by their names without the workflow's."""
    (folder / "inputs.json").write_text(json.dumps(inputs))
    words = ("run", FOLDER / document, "-i", "inputs.json", "-d", "run/.", *words)
    outputs = json.loads(miniwdl(*words, folder=folder))["outputs"]
    return {name.split(".")[-1]: value for name, value in outputs.items()}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """What the workflow makes of the example in two chunks and two batches.

    The target lies in a folder with a space in its name, and has its index elsewhere.
    """
    folder = tmp_path_factory.mktemp("wdl")
    (folder / "my data").mkdir()
    shutil.copy(TARGET, folder / "my data")
    shutil.copy(example.path("target.vcf.gz.tbi"), folder)
    panel = {
        "contig": "20",
        "panel_vcf": str(example.path("panel.bcf")),
        "panel_vcf_index": str(example.path("panel.bcf.csi")),
        "genetic_map": str(example.path("chr20.b37.gmap.gz")),
    }
    inputs = {
        "panels": [panel],
        "target": "my data/target.vcf.gz",
        "target_index": "target.vcf.gz.tbi",
        "chunk_mb": 0.5,
        "samples_per_batch": 30,
    }
    return run(folder, inputs)


@pytest.mark.parametrize("name", ["impute.wdl", "tasks.wdl"])
def test_miniwdl_has_nothing_to_say_against_it(name, tmp_path):
    miniwdl("check", "--strict", FOLDER / name, folder=tmp_path)


def test_parts_are_joined_to_what_one_run_gives(outputs, tmp_path):
    (imputed,), (panel,) = outputs["imputed"], outputs["prepared_panels"]
    assert len(outputs["reports"]) == len(outputs["multiqc"]) == 4
    assert Path(imputed).name == "imputed.20.vcf.gz"
    assert Path(outputs["imputed_indexes"][0]).name == "imputed.20.vcf.gz.tbi"
    impute(TARGET, panel, tmp_path / "whole.bcf")
    joined, expected = read_dosages(imputed), read_dosages(tmp_path / "whole.bcf")
    assert joined.samples == expected.samples
    assert joined.sites.keys() == expected.sites.keys()
    np.testing.assert_array_equal(joined.dosage, expected.dosage)
    assert np.abs(joined.dr2 - expected.dr2).max() < 1.01e-4
    assert bcftools("query", "--list-samples", outputs["sites"][0]) == ""


def test_a_prepared_panel_and_one_batch(outputs, tmp_path):
    """The panel is not prepared again, and nothing is merged."""
    inputs = {
        "panels": [{"contig": "20", "panel_h5": outputs["prepared_panels"][0]}],
        "target": str(TARGET),
        "target_index": str(example.path("target.vcf.gz.tbi")),
        "name": "one",
        "format": "DS",
        "impute_options": "--no-fine-tune --min-r2 0.3",
    }
    made = run(tmp_path, inputs)
    calls = {path.name.split("-")[1] for path in (tmp_path / "run").glob("call-*")}
    assert "Concat" in calls
    assert not calls & {"Prepare", "Merge"}
    header = read_header(made["imputed"][0])
    assert set(header.formats) == {"DS"}
    assert "--min-r2 0.3" in header.text
    assert len(made["reports"]) == 1


def test_more_than_nine_batches_stay_in_the_order_of_the_samples(outputs, tmp_path):
    inputs = {
        "panel": outputs["prepared_panels"][0],
        "target": str(TARGET),
        "target_index": str(example.path("target.vcf.gz.tbi")),
        "samples_per_batch": 4,
        "chunk_mb": 0.3,
    }
    made = run(tmp_path, inputs, "--task", "Plan", document="tasks.wdl")
    assert len(made["batches"]) == 13
    names = [name for path in made["batches"] for name in Path(path).read_text().split()]
    assert names == read_header(TARGET).samples
    assert len(made["chunks"]) == 3
    assert all(region.startswith("20:") and int(mb) >= 512 for region, mb in made["chunks"])


@pytest.mark.parametrize(("name", "text"), TASKS)
def test_each_task_says_what_it_needs(name, text):
    assert f'docker = "ragimpute:{__version__}"' in text
    runtime = re.search(r"  runtime \{\n(.*?)  \}", text, re.DOTALL)[1]
    given = re.findall(r"^    (\w+):", runtime, re.MULTILINE)
    assert given == ["docker", "cpu", "memory", "disks", "preemptible", "maxRetries"], name


def test_the_workflow_is_of_this_version():
    text = (FOLDER / "impute.wdl").read_text()
    assert f'docker = "ragimpute:{__version__}"' in text
