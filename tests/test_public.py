"""``import ragimpute as ri``: which names it gives, what their import costs, what they take."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

import ragimpute as ri
from ragimpute import example
from ragimpute.arguments import accepted
from ragimpute.errors import ConfigError, MissingPackageError, PanelError
from ragimpute.io.vcf.header import read_header
from ragimpute.target.inputs import TargetOptions

PACKAGE = Path(ri.__file__).parent
FUNCTIONS = ("evaluate", "impute", "index", "load_config", "merge", "phase", "prepare",
             "read_target", "train")  # fmt: skip
CLASSES = ("Imputer", "Panel", "Region")
TARGET = example.path("target.vcf.gz")
REGION = "20:2200000-2250000"


def in_a_fresh_process(code):
    """What Python prints, run where nothing is imported yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_import_alone_imports_nothing_heavy():
    code = "import sys; before = set(sys.modules); import ragimpute; dir(ragimpute)\n"
    added = in_a_fresh_process(f"{code}print(*sorted(set(sys.modules) - before))")
    assert "ragimpute" in added
    ours = [name for name in added if name.startswith("ragimpute")]
    assert ours == ["ragimpute"]
    others = {name.split(".")[0] for name in added} - {"ragimpute"}
    assert others <= sys.stdlib_module_names


def test_a_name_imports_what_it_needs_and_no_more():
    code = "import sys, ragimpute as ri; ri.Region; ri.load_config; ri.prepare\nprint(*sys.modules)"
    found = set(in_a_fresh_process(code))
    assert {"ragimpute.sites", "ragimpute.preparation.prepare"} <= found
    assert not found & {"torch", "faiss", "numba", "cyvcf2", "h5py", "matplotlib"}
    code = "import sys, ragimpute as ri; ri.Imputer\nprint(*sys.modules)"
    assert not set(in_a_fresh_process(code)) & {"torch", "faiss", "matplotlib"}


def test_names_are_listed_before_their_first_use():
    code = "import ragimpute; print(*dir(ragimpute))"
    assert {*FUNCTIONS, *CLASSES, "__version__"} <= set(in_a_fresh_process(code))
    assert sorted(ri.__all__) == sorted([*FUNCTIONS, *CLASSES])


def test_names_are_no_modules():
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert {"panel", "errors"} <= modules
    assert not {*FUNCTIONS, *CLASSES} & modules


def test_type_checkers_see_what_is_given():
    """The imports under TYPE_CHECKING are those of the first use."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    given = {
        name: (f"ragimpute.{module}", inner) for name, (module, inner, _) in ri._PUBLIC.items()
    }
    assert seen == given
    assert sorted(given) == sorted(ri.__all__)


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="module 'ragimpute' has no attribute 'imput'"):
        _ = ri.imput
    assert not hasattr(ri, "nothing")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_those_of_the_wings(name):
    function = getattr(ri, name)
    assert function is getattr(ri, name)
    inner = function.__wrapped__
    module, inner_name, _ = ri._PUBLIC[name]
    assert inner is vars(sys.modules[f"ragimpute.{module}"])[inner_name]
    assert inspect.signature(function) == inspect.signature(inner)
    assert set(get_type_hints(inner)) == {*inspect.signature(inner).parameters, "return"}
    assert "\n    Parameters\n" in function.__doc__


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_checked(name):
    """An object of a type that no argument has is refused in each of them."""
    function = getattr(ri, name)
    hints = accepted(function.__wrapped__)
    parameters = inspect.signature(function).parameters.items()
    needed = {p: _some(hints[p]) for p, x in parameters if p in hints and x.default is x.empty}
    assert len(hints) >= len(parameters) - 1  # all but ** keyword arguments
    for argument in hints:
        with pytest.raises(TypeError) as error:
            function(**{**needed, argument: complex(1, 2)})
        assert f"() argument {argument!r}: expected " in str(error.value)
        assert str(error.value).endswith("found complex: (1+2j)")


def _some(hint):
    """An argument of a type, such as the public functions need."""
    if "Sequence" in str(hint):
        return ["x"]
    return ri.load_config("default") if "RunConfig" in str(hint) else "x"


@pytest.mark.parametrize(("name", "package"), [("index", "faiss"), ("train", "torch")])
def test_a_function_whose_packages_are_absent_says_so(name, package, monkeypatch):
    monkeypatch.delitem(vars(ri), name, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"ragimpute\.{name} needs .*not installed"):
        getattr(ri, name)


def test_texts_stand_for_regions_and_fields(panel_h5, plain_copying, tmp_path):
    out = tmp_path / "x.vcf"
    ri.impute(TARGET, panel_h5, out, model=plain_copying, region=REGION, fields="GT,DS")
    assert read_header(out).formats == {"GT", "DS"}
    low, high = 2_200_000, 2_250_000
    for position in (
        [int(line.split("\t")[1]) for line in out.read_text().splitlines() if line[0] != "#"],
        ri.read_target(TARGET, region=REGION).sites.position_bp.tolist(),
    ):
        assert position
        assert low <= min(position) < max(position) <= high
    phased = tmp_path / "phased.vcf"
    assert ri.phase(TARGET, panel_h5, phased, region=REGION).num_sites > 0
    truth = example.path("truth.bcf")
    part = ri.evaluate(truth, out, panel_h5, region=REGION, typed=TARGET)
    assert 0 < part.counts["scored"] < ri.evaluate(truth, TARGET, panel_h5).counts["scored"]
    ri.prepare(example.path("panel.bcf"), tmp_path / "p.h5", region=REGION, cm_per_mb=1.0)
    with ri.Panel.open(tmp_path / "p.h5") as panel:
        assert low <= panel.sites.position_bp[0] < panel.sites.position_bp[-1] <= high
        assert ri.Imputer(panel, plain_copying).impute(TARGET).dosages.shape[1] == 50


def test_batches_are_merged(panel_h5, plain_copying, tmp_path):
    target = ri.read_target(TARGET, region=REGION)
    (tmp_path / "list").write_text("\n".join(target.samples[:20]))
    chosen = (
        TargetOptions(samples=tmp_path / "list"),
        TargetOptions(exclude_samples=tmp_path / "list"),
    )
    parts = [tmp_path / "a.vcf", tmp_path / "b.vcf"]
    for options, part in zip(chosen, parts, strict=True):
        ri.impute(
            TARGET, panel_h5, part, model=plain_copying, region=REGION, target_options=options,
            fields=np.array(["GT", "DS"]),
        )  # fmt: skip
    done = ri.merge((part for part in parts), tmp_path / "all.vcf")
    assert done.num_samples == len(target.samples) == 50


def test_errors_are_those_of_the_commands(tmp_path):
    with pytest.raises(PanelError, match="absent"):
        ri.Panel.open(tmp_path / "absent.h5")
    with pytest.raises(ConfigError, match="epoch"):
        ri.load_config("default", overrides=["train.epoch=3"])
