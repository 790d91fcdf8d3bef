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

import numpy as np
import pytest
import yaml
from vcf_fixtures import bcftools

from ragimpute import __version__, example
from ragimpute.cli.describe import describe
from ragimpute.extras import EXTRAS
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.read.genotypes import read_dosages

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "workflow" / "nextflow"
MODULES = FOLDER / "modules" / "ragimpute"
NAMES = ("prepare", "index", "plan", "impute", "merge", "concat")
WITH_SUFFIX = ("impute", "merge", "concat")  # what they write is a VCF.gz or a BCF
EDAM = re.compile(r"http://edamontology\.org/(format|data)_\d{4}")


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
        if line.strip() and "topic: versions" not in line:
            pattern, emitted = re.search(r'path\("(.*?)"\), emit: (\w+)', line).groups()
            found[emitted] = (pattern, "optional: true" in line)
    return found


def versions(name):
    """The commands that print the versions of a module's programs, by program."""
    text = section((MODULES / name / "main.nf").read_text(), "output")
    return dict(
        re.findall(
            r"^    tuple val\(\"\$\{task\.process\}\"\), val\('(\w+)'\), eval\('(.*)'\), "
            r"topic: versions, emit: versions_\1$",
            text, re.MULTILINE,
        )
    )  # fmt: skip


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
        paths = value if isinstance(value, list) else [value]
        for path in paths:
            if isinstance(path, Path):
                (folder / path.name).symlink_to(path)
        values[key] = " ".join(getattr(path, "name", path) for path in paths)
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
    inputs = {
        "panel": panel,
        "sites": example.path("target.vcf.gz"),
        "sites_index": example.path("target.vcf.gz.tbi"),
        "region": "20:2000001-2300000",
    }
    (index,) = run("index", "script", tmp_path / "index", inputs)["index"]
    assert len(list(index.glob("arrays/*/window_*"))) == 1
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
        "suffix": "bcf",
    }
    made = run("impute", "script", tmp_path / "impute", inputs, args="--format DS")
    (imputed,) = made["vcf"]
    assert imputed.name == "chr20.imputed.bcf"
    assert [path.suffix for path in made["index"]] == [".csi"]
    assert "<svg" in made["report"][0].read_text()
    assert sorted(bcftools("query", "--list-samples", imputed).split()) == ["HG00102", "NA20821"]


def test_chunks_and_batches_are_joined_to_what_one_run_gives(panel, tmp_path):
    """What the workflow does, module by module; it is Nextflow that hands the files on."""
    target = example.path("target.vcf.gz")
    index = example.path("target.vcf.gz.tbi")
    inputs = {"panel": panel, "target_vcf": target, "target_index": index}
    args = "--chunk-mb 0.5 --samples-per-batch 30"
    made = run("plan", "script", tmp_path / "plan", inputs, args=args)
    header, *rows = (line.split("\t") for line in made["jobs"][0].read_text().splitlines())
    jobs = [dict(zip(header, row, strict=True)) for row in rows]
    parts = {}
    for job in jobs:
        at = (job["region"], int(job["batch"]))
        inputs = {
            "target_vcf": target,
            "target_index": index,
            "samples_file": made["batches"][0] / f"{job['batch']}.txt",
            "panel": panel,
            "panel_index": "",
            "region": job["region"],
            "suffix": "vcf.gz",
        }
        words = {"prefix": f"part_{len(parts)}"}
        (parts[at],) = run("impute", "script", tmp_path / f"{len(parts)}", inputs, **words)["vcf"]
    regions = list(dict.fromkeys(job["region"] for job in jobs))
    assert len(parts) == 4 == 2 * len(regions)
    merged = []
    for number, region in enumerate(regions):
        inputs = {"vcfs": [parts[region, 1], parts[region, 2]], "suffix": "vcf.gz"}
        words = {"prefix": f"chunk_{number}"}
        merged += run("merge", "script", tmp_path / f"m{number}", inputs, **words)["vcf"]
    inputs = {"vcfs": merged, "suffix": "vcf.gz"}
    (joined,) = run("concat", "script", tmp_path / "concat", inputs)["vcf"]
    impute(target, panel, tmp_path / "whole.bcf")
    found, expected = read_dosages(joined), read_dosages(tmp_path / "whole.bcf")
    assert found.samples == expected.samples
    assert found.sites.keys() == expected.sites.keys()
    np.testing.assert_array_equal(found.dosage, expected.dosage)


@pytest.mark.parametrize("name", NAMES)
def test_stub_writes_the_declared_outputs(name, tmp_path):
    inputs = {"suffix": "vcf.gz"} if name in WITH_SUFFIX else {}
    assert all(run(name, "stub", tmp_path / name, inputs).values())


@pytest.mark.parametrize("name", NAMES)
def test_meta_names_the_inputs_and_outputs(name):
    meta = yaml.safe_load((MODULES / name / "meta.yml").read_text())
    text = (MODULES / name / "main.nf").read_text()
    assert meta["name"] == f"ragimpute_{name}"
    assert f"process RAGIMPUTE_{name.upper()} {{" in text
    given = re.findall(r"(?:val|path)\((\w+)\)", section(text, "input"))
    listed, *more = meta["input"]
    assert [key for item in listed for key in item] == given
    assert [key for item in more for key in item] == (["suffix"] if name in WITH_SUFFIX else [])
    assert ("    val suffix\n" in section(text, "input")) == (name in WITH_SUFFIX)
    versions_of = {f"versions_{program}": program for program in versions(name)}
    assert list(meta["output"]) == [*declared(name), *versions_of]
    for emitted, (pattern, _) in declared(name).items():
        (_, (item,)) = meta["output"][emitted][0][0], meta["output"][emitted][0][1:]
        assert list(item) == [pattern]
    for emitted, program in versions_of.items():
        (keys,) = meta["output"][emitted]
        assert [next(iter(item)) for item in keys] == [
            "${task.process}", program, versions(name)[program]
        ]  # fmt: skip
    assert meta["topics"] == {"versions": [meta["output"][each][0] for each in versions_of]}


def files_of(tree):
    """Every entry of a meta.yml that describes a file."""
    if isinstance(tree, list):
        return [found for item in tree for found in files_of(item)]
    if not isinstance(tree, dict):
        return []
    own = [tree] if tree.get("type") == "file" else []
    return own + [found for item in tree.values() for found in files_of(item)]


@pytest.mark.parametrize("name", NAMES)
def test_files_have_edam_terms(name):
    meta = yaml.safe_load((MODULES / name / "meta.yml").read_text())
    files = files_of([meta["input"], meta["output"]])
    assert files
    for file in files:
        terms = [term["edam"] for term in file["ontologies"]]
        assert terms
        assert all(EDAM.fullmatch(term) for term in terms), terms


@pytest.mark.parametrize("name", NAMES)
def test_versions_are_those_of_the_programs(name):
    scripts = Path(sys.executable).parent
    assert list(versions(name)) == (["bcftools"] if name == "concat" else ["ragimpute"])
    for program, command in versions(name).items():
        found = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, check=True,
            env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        ).stdout.strip()  # fmt: skip
        assert found == __version__ if program == "ragimpute" else re.match(r"\d+\.\d+", found)


@pytest.mark.parametrize("name", NAMES)
def test_each_module_has_tests_of_its_work_and_of_its_stub(name):
    """nf-test itself runs only where Nextflow is."""
    text = (MODULES / name / "tests" / "main.nf.test").read_text()
    assert f'process "RAGIMPUTE_{name.upper()}"' in text
    assert re.findall(r'^    test\("(.*)"\)', text, re.MULTILINE) == ["example", "example - stub"]
    assert 'options "-stub"' in text
    for emitted in re.findall(r"process\.out\.(\w+)", text):
        assert emitted in [*declared(name), *(f"versions_{x}" for x in versions(name))]
    for file in re.findall(r'file\("\$\{baseDir\}/(.*?)"', text):
        assert (FOLDER / file).is_file()
    for script in re.findall(r'script "(.*)"', text):
        assert (MODULES / name / "tests" / script).is_file()
    for file in re.findall(r"20:[\d-]+', '(\w+\.txt)'", text):
        assert (MODULES / name / "tests" / file).read_text().split()


@pytest.mark.parametrize("name", NAMES)
def test_versions_are_this_one(name):
    environment = yaml.safe_load((MODULES / name / "environment.yml").read_text())
    text = (MODULES / name / "main.nf").read_text()
    pins = dict(re.findall(r"^([\w-]+)==(.*)$", (ROOT / "constraints.txt").read_text(), re.M))
    needed = [line.split("::")[1].split("=") for line in environment["dependencies"]]
    if name == "concat":
        assert [package for package, _ in needed] == ["bcftools"]
    else:
        # What the module's options need beside the package, of the versions that the tests use.
        assert needed[0] == ["ragimpute", __version__]
        extra = {"index": "index", "impute": "report"}.get(name)
        assert (extra == "report") == ("--report ${prefix}.html" in text)
        conda = {"faiss-cpu": "faiss", "matplotlib-base": "matplotlib", "jinja2": "jinja2"}
        wanted = set(EXTRAS[extra]) if extra else set()
        assert {conda[package] for package, _ in needed[1:]} == wanted
        pypi = {"matplotlib-base": "matplotlib", "jinja2": "Jinja2"}
        assert all(pins[pypi.get(package, package)] == pin for package, pin in needed[1:])
    assert f"'ragimpute:{__version__}'" in text
    assert f"'docker-daemon://ragimpute:{__version__}'" in text


def test_workflow_calls_each_module_with_its_inputs():
    text = (FOLDER / "main.nf").read_text()
    for name in NAMES:
        path = re.search(rf"include {{ RAGIMPUTE_{name.upper()}\s*}} from '(.*)'", text)[1]
        assert (FOLDER / f"{path}.nf").is_file()
        call = re.search(rf"RAGIMPUTE_{name.upper()}\((.*)\)$", text, re.MULTILINE)[1]
        assert call.endswith(", params.suffix") == (name in WITH_SUFFIX)
    # The braces and brackets of every file close: what can be said of Groovy without Groovy.
    for file in [*FOLDER.rglob("*.nf"), *FOLDER.rglob("*.nf.test"), *FOLDER.rglob("*.config")]:
        plain = re.sub(
            r'""".*?"""|^ *//[^\n]*|\'[^\'\n]*\'|"[^"]*"', "", file.read_text(), flags=re.S | re.M
        )
        for left, right in ("{}", "[]", "()"):
            assert plain.count(left) == plain.count(right), file


def test_low_coverage_makes_no_index_and_takes_likelihoods():
    text = (FOLDER / "main.nf").read_text()
    assert "def with_index = params.index && !params.low_coverage" in text
    assert not re.search(r"if \(params\.index\)|params\.index \?", text)
    settings = (FOLDER / "nextflow.config").read_text()
    assert "ext.args   = { params.low_coverage ? '--likelihoods always' : '' }" in settings
    assert "    low_coverage      = false\n" in settings


@pytest.mark.needs_program("nextflow")
def test_nextflow_runs_the_stubs(tmp_path):
    """The whole workflow, without its work; the modules' scripts are run without Nextflow above."""
    sheet = tmp_path / "sheet.csv"
    files = [example.path(name) for name in ("target.vcf.gz", "target.vcf.gz.tbi", "panel.bcf",
                                             "panel.bcf.csi", "chr20.b37.gmap.gz")]  # fmt: skip
    head = "contig,target,target_index,panel,panel_index,map\n"
    sheet.write_text(head + ",".join(["20", *map(str, files)]) + "\n")
    done = subprocess.run(
        ["nextflow", "run", FOLDER, "-stub-run", "--sheet", sheet, "--outdir", "results"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list((tmp_path / "results").glob("*.vcf.gz"))
