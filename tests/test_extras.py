"""Without an extra: what needs it says so in one line, and everything else runs as ever."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import zstandard
from plink_fixtures import write_pgen

from ragimpute import example, extras
from ragimpute.errors import MissingPackageError
from ragimpute.extras import EXTRAS, explain_import, installed_faiss, one_faiss, require
from ragimpute.io.vcf.header import read_header
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.panel.reader import Panel
from ragimpute.presets import models_dir
from ragimpute.token_model.build_index import build_index
from tests.model_configs import config_of
from tests.test_layers import OWNERS, TREES, at_import, closure, everywhere, imported, own_modules

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = {name for names in EXTRAS.values() for name in names}
REGION = "20:2000000-2040000"


def requirements(extra):
    """Names of the distributions that an extra brings, by way of other extras too."""
    found = set()
    for line in PROJECT["optional-dependencies"][extra]:
        name, others = re.match(r"([\w-]+)(?:\[([\w,]+)\])?", line).groups()
        if name == PROJECT["name"]:
            found = found.union(*(requirements(other) for other in others.split(",")))
        else:
            found.add(name)
    return found


def test_the_table_is_that_of_the_project():
    base = {re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]}
    for extra, names in EXTRAS.items():
        assert set(names.values()) == requirements(extra)
        assert not base & requirements(extra)
    assert requirements("all") == set().union(*map(requirements, EXTRAS))
    assert requirements("all") <= requirements("dev")


def test_each_way_of_installing_has_one_faiss():
    assert requirements("gpu") == requirements("all") - {"faiss-cpu"} | {"faiss-gpu"}
    for extra in PROJECT["optional-dependencies"]:
        assert len({name for name in requirements(extra) if name.startswith("faiss")}) <= 1
    shown = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "workflow").rglob("*.md")]
    for page in shown:
        for names in re.findall(r"(?:ragimpute|\.)\[([\w,]+)\]", page.read_text()):
            brought = set().union(*map(requirements, names.split(",")))
            assert len({name for name in brought if name.startswith("faiss")}) <= 1, page


def test_hints_are_commands_that_pip_takes():
    """Of what is installed here nothing is left to install, so that no index is asked."""
    wanted = [f"ragimpute[{extra}]" for extra in EXTRAS]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-index", "--dry-run", *wanted],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stderr
    assert "Would install" not in done.stdout


def pairs():
    """Every extra with each of its packages."""
    return [(extra, name) for extra, names in EXTRAS.items() for name in names]


@pytest.mark.parametrize(("extra", "name"), pairs())
def test_each_package_is_asked_for(extra, name, monkeypatch):
    require(extra, "x")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError) as caught:
        require(extra, "ragimpute x")
    package = EXTRAS[extra][name]
    assert caught.value.message == f"ragimpute x needs {package}, which is not installed"
    assert caught.value.hint == f"pip install 'ragimpute[{extra}]'"
    others = [other for other in EXTRAS[extra] if other != name]
    require(extra, "x", packages=others or None) if others else None


def test_all_that_is_absent_is_named(monkeypatch):
    for name in ("torch", "faiss", "accelerate"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match="needs torch, faiss-cpu and accelerate, which "):
        require("train", "x")


# --- commands ------------------------------------------------------------------------------------


def without(hidden, *commands):
    """Run commands where packages are hidden: (exit code, stdout, stderr) of each."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("without_packages.py"),
         json.dumps(sorted(hidden)), words],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "160"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, panel_h5):
    """An index, and models with the weights that they begin with, which need torch."""
    made = tmp_path_factory.mktemp("extras")
    build_index(panel_h5, made / "panel.index")
    kinds = (("tokens", "v10-small"), ("by_site", "v10-rag-small"), ("states", "states"))
    for folder_name, kind in kinds:
        config = config_of(kind)
        save_model(made / folder_name, build(config.model), config, {})
    for name in ("plain", "packed"):
        write_pgen(made / name, [("20", 2_000_000, ".", "A", "C")], [[[0, 1]]], ["a"])
    pvar = made / "packed.pvar"
    (made / "packed.pvar.zst").write_bytes(zstandard.compress(pvar.read_bytes()))
    pvar.unlink()
    (made / "plain").mkdir()
    (made / "plain" / "config.yaml").write_text(
        (models_dir() / "default" / "config.yaml").read_text()
    )
    return made


def impute_words(panel_h5, out, *more):
    """A short run of impute."""
    target = example.path("target.vcf.gz")
    return ["impute", target, "-p", panel_h5, "-r", REGION, "-o", out, *more]


def refusals(panel_h5, folder):
    """Commands that need an extra: the words, what is named, the extra, packages that it needs."""
    out = folder / "refused.vcf"
    pgen, packed = folder / "plain.pgen", folder / "packed.pvar.zst"
    truth = ("evaluate", "--truth", example.path("truth.bcf"), "--panel", panel_h5)
    tokens = folder / "tokens"
    return {
        "index": (
            ("index", panel_h5, "-o", folder / "i"), "ragimpute index", "index", {"faiss"},
        ),
        "train": (
            ("train", panel_h5, "-c", "default", "-o", folder / "t"), "ragimpute train", "train",
            set(EXTRAS["train"]),
        ),
        "states": (  # before the panel is prepared, which would say so
            ("impute", example.path("target.vcf.gz"), "-p", example.path("panel.bcf"), "-o", out,
             "-m", folder / "states"),
            f"model {folder / 'states'}", "models", {"torch"},
        ),
        "device": (
            impute_words(panel_h5, out, "--device", "cuda"), "--device cuda", "models", {"torch"},
        ),
        "tokens": (
            impute_words(panel_h5, out, "-m", tokens), f"model {tokens}", "models",
            {"torch", "faiss"},
        ),
        "report": (
            impute_words(panel_h5, out, "--report", folder / "r.html"),
            f"--report {folder / 'r.html'}", "report", {"matplotlib", "jinja2"},
        ),
        "pgen": (
            impute_words(panel_h5, folder / "x.pgen"), f"the output {folder / 'x.pgen'}", "pgen",
            {"pgenlib", "zstandard"},
        ),
        "bgen": (
            impute_words(panel_h5, folder / "x.bgen", "--bgen-compression", "zstd"),
            "--bgen-compression zstd", "pgen", {"zstandard"},
        ),
        "html": (
            (*truth, "--imputed", example.path("truth.bcf"), "--html", folder / "e.html"),
            f"--html {folder / 'e.html'}", "report", {"matplotlib", "jinja2"},
        ),
        "pgen as target": (
            ("impute", pgen, "-p", panel_h5, "-o", out), str(pgen), "pgen", {"pgenlib"},
        ),
        "pvar.zst as target": (
            ("impute", folder / "packed", "-p", panel_h5, "-o", out), str(packed), "pgen",
            {"zstandard"},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("hidden", sorted(OPTIONAL))
def test_a_command_that_needs_a_package_says_so(hidden, panel_h5, folder):
    """One line and a hint, exit code 1, and nothing written, for each (command, package)."""
    cases = [x for x in refusals(panel_h5, folder).values() if hidden in x[3]]
    assert cases
    before = sorted(folder.rglob("*"))
    results = without({hidden}, *(words for words, *_ in cases))
    for (_, needed_by, extra, _), (code, out, err) in zip(cases, results, strict=True):
        package = EXTRAS[extra][hidden]
        assert (code, out) == (1, ""), err
        assert err.splitlines() == [
            f"Error: {needed_by} needs {package}, which is not installed",
            f"  hint: pip install 'ragimpute[{extra}]'",
        ]
    assert sorted(folder.rglob("*")) == before


def test_the_base_does_all_the_rest(panel_h5, folder, tmp_path):
    """With every extra hidden; imputed bytes are those of a full install."""
    target, truth = example.path("target.vcf.gz"), example.path("truth.bcf")
    here = tmp_path / "x.vcf.gz"
    part = tmp_path / "part.vcf.gz"
    some = tmp_path / "some.txt"
    some.write_text("\n".join(read_header(target).samples[:20]))
    words = impute_words(panel_h5, here)
    commands = [
        ["prepare", example.path("panel.bcf"), "--map", example.path("chr20.b37.gmap.gz"),
         "-o", tmp_path / "p.h5"],
        words,
        impute_words(panel_h5, part, "--index", folder / "panel.index", "--device", "cpu",
                     "--report", tmp_path / "r.json", "--report", tmp_path / "r_mqc.json"),
        impute_words(panel_h5, tmp_path / "plain.vcf", "-m", folder / "plain"),
        impute_words(panel_h5, tmp_path / "x.bgen"),
        ["impute", target, "-p", panel_h5, "--qc-only"],
        ["phase", target, "-p", panel_h5, "-r", REGION, "-o", tmp_path / "phased.vcf.gz"],
        ["evaluate", "--truth", truth, "--imputed", here, "--panel", panel_h5,
         "--json", tmp_path / "e.json"],
        impute_words(panel_h5, tmp_path / "a.vcf.gz", "--samples-file", some),
        impute_words(panel_h5, tmp_path / "b.vcf.gz", "--exclude-samples", some),
        ["merge", tmp_path / "a.vcf.gz", tmp_path / "b.vcf.gz", "-o", tmp_path / "merged.vcf.gz"],
        ["plan", panel_h5, target],
        ["info", panel_h5, folder / "panel.index", folder / "tokens", "default", target],
    ]  # fmt: skip
    for words_given, (code, _, err) in zip(commands, without(OPTIONAL, *commands), strict=True):
        assert code == 0, (words_given, err)
        assert "Error" not in err
        assert "not installed" not in err
    bare = hashlib.sha256(here.read_bytes()).hexdigest()
    here.unlink()
    # In a process of its own too: numpy's sums depend on variables that are read at its import.
    ((code, _, err),) = without(set(), words)
    assert code == 0, err
    assert hashlib.sha256(here.read_bytes()).hexdigest() == bare
    with Panel.open(panel_h5) as one, Panel.open(tmp_path / "p.h5") as other:
        assert one.checksum == other.checksum


def test_what_retrieves_by_site_needs_no_faiss(panel_h5, folder, tmp_path):
    """An index is checked, but not used, and a warning says so; a damaged one is refused."""
    model = ["-m", folder / "by_site", "--device", "cpu"]
    shutil.copytree(folder / "panel.index", tmp_path / "damaged")
    (tmp_path / "damaged" / "manifest.json").write_text("{}")
    commands = [
        impute_words(panel_h5, tmp_path / "one.vcf", *model),
        impute_words(panel_h5, tmp_path / "two.vcf", *model, "--index", folder / "panel.index"),
        impute_words(panel_h5, tmp_path / "three.vcf", *model, "--index", tmp_path / "damaged"),
    ]
    plain, given, damaged = without({"faiss"}, *commands)
    assert plain[0] == given[0] == 0, plain[2] + given[2]
    unused = f"index {folder / 'panel.index'} is not used: model {folder / 'by_site'} searches none"
    assert unused in given[2]
    assert "is not used" not in plain[2]
    one, two = ((tmp_path / f"{name}.vcf").read_text().splitlines() for name in ("one", "two"))
    assert [x for x in one if x[0] != "#"] == [x for x in two if x[0] != "#"]
    assert damaged[0] == 1
    assert "Error: index" in damaged[2]
    assert not (tmp_path / "three.vcf").exists()


@pytest.mark.parametrize(
    ("hidden", "left_out"),
    [(OPTIONAL, ("report",)), ({"torch"}, ())],
    ids=["all", "torch"],
)
def test_the_demo_leaves_out_what_it_cannot_do(hidden, left_out, tmp_path):
    ((code, out, err),) = without(hidden, ["demo", "-o", tmp_path / "demo"])
    assert code == 0, err
    assert not re.search("error|warning|Traceback", err, re.I)  # a slow machine shows progress
    lines = {step: f"{step:10}left out: this step needs " for step in ("report",)}
    for step, start in lines.items():
        said = [line for line in out.splitlines() if line.startswith(start)]
        assert len(said) == (step in left_out), out
        if said:
            assert said[0].endswith(f"; pip install 'ragimpute[{step}]'")
    assert "Accuracy at untyped sites" in out
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    assert made - {"report.html"} == {"panel.h5", "imputed.vcf.gz", "imputed.vcf.gz.tbi"}
    assert ("report.html" in made) == ("report" not in left_out)
    assert ("HTML report" in out) == ("report" not in left_out)


# --- what the code says of itself ----------------------------------------------------------------

#: Functions that import optional packages without asking, and what has asked before they run.
ASKED_BEFORE = {
    ("copying_model.engine", "TorchEngine.states"): "require_packages asks if a device needs it",
    ("copying_model.engine", "TorchEngine.copy"): "require_packages asks if a device needs it",
    ("copying_model.engine", "engine_of"): "require_packages asks if a device needs it",
    ("evidence.on_device", "_OnDevice.__init__"): "only TorchEngine calls it",
    ("evidence.on_device", "_OnDevice.copied"): "only TorchEngine calls it",
    (
        "copying_model.pair_network",
        "PairNetwork.of_folder",
    ): "make_imputer asks before it takes such a model",
    (
        "copying_model.pair_network",
        "PairNetwork._read",
    ): "only for networks that of_folder or training made",
    (
        "copying_model.pair_network",
        "PairNetwork._in_context",
    ): "only for networks that of_folder or training made",
    ("io.bgen.writer", "BgenWriter._compressor"): "its __init__ asks",
    ("io.pgen.writer", "PgenWriter._write_unphased"): "its __init__ asks",
    ("io.pgen.writer", "PgenWriter._opened"): "its __init__ asks",
    ("model.probability", "posterior_logit"): "it is given what torch made",
    ("model.probability", "calibration_terms"): "it is given what torch made",
    ("model.probability", "Probabilities.of"): "it is given what torch made",
    ("model.probability", "Probabilities._share"): "it is given what torch made",
    ("token_model.imputer", "_built"): "make_imputer asks before it takes such a model",
    ("training.data.batches", "make_batches"): "cli.train asks",
    ("training.data.token_batches", "_start_worker"): "cli.train asks",
    ("training.dr2_fit", "_imputer"): "cli.train asks",
    ("training.tracking", "TensorBoardTracker.__init__"): "cli.train asks",
    ("cli.watch", "Watch.epoch"): "cli.train asks",
}


def functions(tree):
    """(qualified name, function) of a module's functions and methods, outermost only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{name}", function) for name, function in functions(node))


def needed(names):
    """Optional packages that imports of these names import."""
    names = list(names)
    found = {name.split(".")[0] for name in names}
    for module in own_modules(iter(names)):
        found |= closure(module)
    return found & OPTIONAL


def test_every_late_import_of_an_optional_package_is_preceded_by_a_question():
    asked, seen = 0, set()
    for module, tree in TREES.items():
        here = closure(module) & OPTIONAL
        for name, function in functions(tree):
            imports = [node for node in at_import(function) if needed(imported([node])) - here]
            if not imports:
                continue
            if (module, name) in ASKED_BEFORE:
                seen.add((module, name))
                continue
            calls = [node for node in everywhere(function) if isinstance(node, ast.Call)]
            asks = ("require", "require_packages", "_can")
            questions = [x.lineno for x in calls if ast.unparse(x.func) in asks]
            first = min(node.lineno for node in imports)
            assert min(questions, default=first) < first, f"{module}.{name}, line {first}"
            asked += 1
    assert asked >= 6
    assert seen == set(ASKED_BEFORE)


def test_modules_of_the_base_import_nothing_optional():
    for name in (
        "cli.main", "preparation.prepare", "imputation.impute", "imputation.compare",
        "phasing.phase", "jobs.merge", "accuracy.evaluate", "cli.describe", "jobs.split",
        "cli.run_demo", "reports.by_file_name",
    ):  # fmt: skip
        assert name in TREES
        assert not closure(name) & OPTIONAL, name


def test_the_recipe_of_the_base_holds_what_owners_are_not_optional():
    base = {
        "cyvcf2", "h5py", "numba", "pydantic", "yaml", "typer", "rich", "safetensors", "deflate",
        "pyliftover",
    }  # fmt: skip
    assert base <= set(OWNERS)
    assert set(OWNERS) - base - {"llvmlite", "wandb", "mlflow"} <= OPTIONAL


# --- what is installed, and still cannot be imported ---------------------------------------------


def test_imports_that_fail(monkeypatch):
    broken = RuntimeError("faiss-gpu installed but nvidia-cuda-runtime-cu12 is missing")
    monkeypatch.setattr(extras, "installed_faiss", lambda: ["faiss-gpu"])
    said = explain_import(broken, "faiss")
    assert said.message == f"faiss is installed but cannot be imported: {broken}"
    assert said.hint == "pip install --force-reinstall faiss-gpu"
    monkeypatch.setattr(extras, "installed_faiss", lambda: ["faiss-cpu", "faiss-gpu"])
    assert explain_import(broken, "faiss").hint == (
        "pip uninstall -y faiss-cpu faiss-gpu && pip install faiss-gpu"
    )
    said = explain_import(ImportError("no"), "torch")
    assert said.hint == "pip install --force-reinstall torch"
    monkeypatch.setitem(sys.modules, "accelerate", None)
    said = explain_import(ModuleNotFoundError("no"), "accelerate")
    assert said.message == "this run needs accelerate, which is not installed"
    assert said.hint == "pip install 'ragimpute[train]'"


def test_a_package_that_breaks_late_ends_in_one_line(panel_h5, tmp_path, command_line, monkeypatch):
    """No traceback, though nothing is absent."""
    from ragimpute.token_model import build_index as module

    def broken(*args, **options):
        raise ImportError("undefined symbol: x", name="torch._C")

    monkeypatch.setattr(module, "build_index", broken)
    code, out, err = command_line("index", panel_h5, "-o", tmp_path / "x")
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "Error: torch is installed but cannot be imported: undefined symbol: x",
        "  hint: pip install --force-reinstall torch",
    ]


@pytest.mark.parametrize("raised", ["ImportError", "RuntimeError", "OSError"])
def test_a_faiss_that_fails_at_its_import(raised, panel_h5, tmp_path):
    """As faiss-gpu does without a library of CUDA; what it raises differs by the build."""
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text(f"raise {raised}('libcudart is missing')")
    done = subprocess.run(
        [sys.executable, "-m", "ragimpute", "index", panel_h5, "-o", tmp_path / "x"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "Error: faiss is installed but cannot be imported: libcudart is missing",
        "  hint: pip install --force-reinstall faiss-cpu",
    ]


def test_one_faiss():
    assert len(installed_faiss()) == 1
    assert one_faiss(["faiss-cpu", "faiss-gpu-cu12"]) == (
        "pip uninstall -y faiss-cpu faiss-gpu-cu12 && pip install faiss-gpu-cu12"
    )


@pytest.mark.parametrize("model", ["default", "plain"])
def test_a_gpu_that_is_not_there(model, panel_h5, folder, tmp_path, command_line):
    """Every model copies or computes on it, so that none goes on without it; the hint does."""
    name, out = model if model == "default" else folder / model, tmp_path / "out.vcf"
    words = impute_words(panel_h5, out, "-m", name, "--device", "cuda:99")
    code, _, err = command_line(*words)
    assert code == 1
    first, hint = err.splitlines()
    assert first.startswith("Error: device cuda:99 was asked for, but torch ")
    assert hint.startswith("  hint: use --device cpu")
    assert not out.exists()
    code, _, err = command_line(*words[:-1], "cpu")
    assert (code, err) == (0, "")
