"""Nextflow modules: their scripts run as shell commands and write what they declare.

Nextflow itself is not needed. What stands in for it knows the two forms of ``def`` lines that the
modules use, and fails on any other, so that nothing is passed over in silence.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from vcf_fixtures import bcftools

from ragimpute import __version__, example
from ragimpute.cli.describe import describe
from ragimpute.extras import EXTRAS

FOLDER = Path(__file__).resolve().parents[1] / "workflow" / "nextflow"
MODULES = FOLDER / "modules" / "ragimpute"
NAMES = ("prepare", "index", "impute")


def section(text, name):
    """The lines of a section of a process, up to the next."""
    found = re.search(rf"^    {name}:\n(.*?)(?=^    [a-z]+:\n|^}})", text, re.DOTALL | re.MULTILINE)
    assert found, name
    return found[1]


def substitute(text, values):
    """A Groovy string with its variables filled in, escapes undone."""
    text = re.sub(r"(?<!\\)\$\{([\w.]+)\}", lambda found: str(values[found[1]]), text)
    return text.replace("\\\\", "\\").replace("\\$", "$")


def evaluate(name, part, values):
    """The shell command of a module's script or stub, with inputs and settings filled in."""
    text = section((MODULES / name / "main.nf").read_text(), part)
    head, command = re.fullmatch(r'(.*?)    """\n(.*?)\n    """\n\n?', text, re.DOTALL).groups()
    values = dict(values)
    for line in head.splitlines():
        default = re.fullmatch(r'    def (\w+) = task\.ext\.(\w+) \?: "(.*)"', line)
        choice = re.fullmatch(r'    def (\w+) = (\w+) \? "(.*)" : ""', line)
        if default:
            variable, key, fallback = default.groups()
            values[variable] = values.get(f"task.ext.{key}") or substitute(fallback, values)
        else:
            assert choice, f"this test cannot read: {line}"
            variable, condition, given = choice.groups()
            values[variable] = substitute(given, values) if values[condition] else ""
    return re.sub("^    ", "", substitute(command, values), flags=re.MULTILINE)


def declared(name):
    """Patterns of the outputs, whether each is optional, by emitted name."""
    text = section((MODULES / name / "main.nf").read_text(), "output")
    found = {}
    for line in text.splitlines():
        if line.strip():
            pattern, emitted = re.search(r'path\("?(.*?)"?\), emit: (\w+)|$', line).groups()
            if pattern is None:
                pattern, emitted = re.search(r'path "(.*?)", emit: (\w+)', line).groups()
            found[emitted] = (pattern, "optional: true" in line)
    return found


def matches(pattern, name):
    """Whether a file is one of a glob with braces."""
    start, _, rest = pattern.partition("{")
    inner, _, end = rest.partition("}")
    return any(fnmatch(name, start + word + end) for word in inner.split(","))


def run(name, part, folder, inputs, **ext):
    """Run a module in a folder of its own, with links to its inputs; the files of each output."""
    folder.mkdir()
    values = {"meta.id": "chr20", "task.cpus": 2, "task.process": f"RAGIMPUTE_{name.upper()}"}
    values |= {f"task.ext.{key}": value for key, value in ext.items()}
    for key, value in inputs.items():
        if isinstance(value, Path):
            (folder / value.name).symlink_to(value)
            value = value.name
        values[key] = value
    before = {path.name for path in folder.iterdir()}
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", evaluate(name, part, values)],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = {path.name for path in folder.iterdir()} - before
    outputs = {}
    for emitted, (pattern, optional) in declared(name).items():
        outputs[emitted] = sorted(folder / file for file in made if matches(pattern, file))
        assert outputs[emitted] or optional, f"{name}: nothing matches {pattern} of {made}"
    assert made == {path.name for paths in outputs.values() for path in paths}
    versions = yaml.safe_load((folder / "versions.yml").read_text())
    assert versions == {f"RAGIMPUTE_{name.upper()}": {"ragimpute": __version__}}
    return outputs


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """What the module prepare makes of the example."""
    folder = tmp_path_factory.mktemp("modules") / "prepare"
    inputs = {
        "vcf": example.path("panel.bcf"),
        "vcf_index": example.path("panel.bcf.csi"),
        "map": example.path("chr20.b37.gmap.gz"),
        "populations": "",
    }
    (made,) = run("prepare", "script", folder, inputs, args="--window-cm 0.5")["panel"]
    return made


def test_prepare(panel):
    assert panel.name == "chr20.h5"
    rows = dict(describe(panel))
    assert any("6,127" in value for value in rows.values()), rows


def test_index_and_impute(panel, tmp_path):
    (index,) = run("index", "script", tmp_path / "index", {"panel": panel, "sites": ""})["index"]
    assert (index / "manifest.json").is_file()
    samples = tmp_path / "samples.txt"
    samples.write_text("NA20821\nHG00102\n")
    inputs = {
        "target_vcf": example.path("target.vcf.gz"),
        "target_index": example.path("target.vcf.gz.tbi"),
        "samples_file": samples,
        "panel": panel,
        "panel_index": index,
        "region": "20:2000001-2300000",
    }
    made = run("impute", "script", tmp_path / "impute", inputs, suffix="bcf", args="--format DS")
    (imputed,) = made["vcf"]
    assert imputed.name == "chr20.imputed.bcf"
    assert [path.suffix for path in made["index"]] == [".csi"]
    assert "<svg" in made["report"][0].read_text()
    assert sorted(bcftools("query", "--list-samples", imputed).split()) == ["HG00102", "NA20821"]


@pytest.mark.parametrize("name", NAMES)
def test_stub_writes_the_declared_outputs(name, tmp_path):
    assert all(run(name, "stub", tmp_path / name, {}).values())


@pytest.mark.parametrize("name", NAMES)
def test_meta_names_the_inputs_and_outputs(name):
    meta = yaml.safe_load((MODULES / name / "meta.yml").read_text())
    text = (MODULES / name / "main.nf").read_text()
    assert meta["name"] == f"ragimpute_{name}"
    assert f"process RAGIMPUTE_{name.upper()} {{" in text
    given = re.findall(r"(?:val|path)\((\w+)\)", section(text, "input"))
    (listed,) = meta["input"]
    assert [key for item in listed for key in item] == given
    assert list(meta["output"]) == [key for key in declared(name)]


@pytest.mark.parametrize("name", NAMES)
def test_versions_are_this_one(name):
    environment = yaml.safe_load((MODULES / name / "environment.yml").read_text())
    first, *more = environment["dependencies"]
    assert first == f"bioconda::ragimpute={__version__}"
    # What the module's options need beside the package.
    extra = {"index": "index", "impute": "report"}.get(name)
    text = (MODULES / name / "main.nf").read_text()
    assert (extra == "report") == ("--report ${prefix}.html" in text)
    wanted = set(EXTRAS[extra]) if extra else set()
    conda = {"faiss-cpu": "faiss", "matplotlib-base": "matplotlib", "jinja2": "jinja2"}
    assert {conda[re.match(r"conda-forge::([\w-]+)>=", line)[1]] for line in more} == wanted
    assert f"container 'ragimpute:{__version__}'" in (MODULES / name / "main.nf").read_text()


def test_workflow_calls_each_module_with_its_inputs():
    text = (FOLDER / "main.nf").read_text()
    for name in NAMES:
        path = re.search(rf"include {{ RAGIMPUTE_{name.upper()}\s*}} from '(.*)'", text)[1]
        assert (FOLDER / f"{path}.nf").is_file()
        assert f"RAGIMPUTE_{name.upper()}(" in text
    # The braces and brackets of every file close: what can be said of Groovy without Groovy.
    for file in FOLDER.rglob("*.nf"):
        plain = re.sub(
            r'""".*?"""|\'[^\']*\'|"[^"\n]*"|//.*|/\[.*?\]/', "", file.read_text(), flags=re.S
        )
        for left, right in ("{}", "[]", "()"):
            assert plain.count(left) == plain.count(right), file


@pytest.mark.needs_program("nextflow")
def test_nextflow_runs_the_stubs(tmp_path):
    """The whole workflow, without its work; the modules' scripts are run without Nextflow above."""
    sheet = tmp_path / "sheet.csv"
    files = [example.path(name) for name in ("target.vcf.gz", "target.vcf.gz.tbi", "panel.bcf",
                                             "panel.bcf.csi", "chr20.b37.gmap.gz")]  # fmt: skip
    head = "contig,target,target_index,panel,panel_index,map,region\n"
    sheet.write_text(head + ",".join(["20", *map(str, files), "20:2000001-2300000"]) + "\n")
    done = subprocess.run(
        ["nextflow", "run", FOLDER, "-stub-run", "--sheet", sheet, "--outdir", "results"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "results").glob("*.vcf.gz"))
