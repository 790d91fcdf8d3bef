"""The table of docs/architecture.md against the imports that the syntax trees hold."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ragimpute"
HEAVY = {"torch", "faiss", "numba", "llvmlite", "matplotlib", "jinja2", "cyvcf2", "h5py",
         "accelerate", "safetensors", "torchmetrics", "scipy", "pandas"}  # fmt: skip


def module_name(path: Path) -> str:
    """ "model.fusion" of ragimpute/model/fusion.py; a package's name of its __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_name(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
FOLDERS = {module_name(path) for path in PACKAGE.rglob("__init__.py")} - {""}


def wing_of(name: str) -> str:
    """The wing of a module: the folder below ragimpute/, or the module itself where it has none."""
    return name.split(".")[0]


def read_table() -> tuple[dict[str, int], dict[str, set[str]]]:
    """Each wing's row, and the modules and wings that may import each library."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \|.*\|(?: (.*) |) ?\|$", text, flags=re.MULTILINE)
    row_of: dict[str, int] = {}
    owners: dict[str, set[str]] = {}
    for number, wings, libraries in rows:
        names = re.findall(r"`(\w+)/?`", wings)
        for name in names:
            assert name not in row_of, f"{name} stands in the table twice"
            row_of[name] = int(number)
        for library, only in re.findall(r"`(\w+)`(?: \(([\w/, ]+)\))?", libraries):
            modules = {name.replace("/", ".") for name in only.split(", ") if name}
            if len(names) == 1:  # the modules of a wing are named without it
                modules = {f"{names[0]}.{name}" for name in modules}
            owners.setdefault(library, set()).update(modules or names)
    return row_of, owners


ROW_OF, OWNERS = read_table()


def imported(nodes: list[ast.AST]) -> Iterator[str]:
    """Names of what import statements import; "ragimpute.x" where it may be a module of ours."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            within = (node.module or "").removeprefix("ragimpute").removeprefix(".")
            if node.module == "ragimpute" or within in FOLDERS:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module or ""


def own_modules(names: Iterator[str]) -> set[str]:
    """Those of the names that are modules of ours."""
    found = {name.removeprefix("ragimpute.") for name in names if name.startswith("ragimpute.")}
    return {name for name in found if name in TREES}


def everywhere(tree: ast.Module) -> list[ast.AST]:
    """All nodes."""
    return list(ast.walk(tree))


def at_import(tree: ast.AST) -> list[ast.AST]:
    """Nodes that run when a module is imported: not in functions, not for type checkers only."""
    out: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            out += [x for child in node.orelse for x in (child, *at_import(child))]
            continue
        out += [node, *at_import(node)]
    return out


MODULES = sorted(set(TREES) - {""})


def test_the_table_is_read():
    assert ROW_OF["errors"] == 0
    assert ROW_OF["cli"] > ROW_OF["imputation"] > ROW_OF["copying"] > ROW_OF["panel"]
    of_tests = {"pandas", "torchmetrics"}
    assert set(OWNERS) >= HEAVY - of_tests | {"typer", "rich"}
    assert {wing_of(name) for name in MODULES} == set(ROW_OF)


def imports_between_wings() -> Iterator[tuple[str, str]]:
    """Each module, and each module of another wing that it imports, anywhere in it."""
    for name in MODULES:
        for other in own_modules(imported(everywhere(TREES[name]))):
            if wing_of(other) != wing_of(name):
                yield name, other


def test_wings_import_only_from_rows_above():
    wrong = [
        f"{name} (row {ROW_OF[wing_of(name)]}) imports {other} (row {ROW_OF[wing_of(other)]})"
        for name, other in imports_between_wings()
        if ROW_OF[wing_of(other)] > ROW_OF[wing_of(name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_house_has_twelve_floors():
    """A wing stands one floor above the highest of those that it imports from."""
    below: dict[str, set[str]] = {wing: set() for wing in ROW_OF}
    for name, other in imports_between_wings():
        below[wing_of(name)].add(wing_of(other))
    del below["__main__"]  # the program's door
    floor: dict[str, int] = {}
    while len(floor) < len(below):
        ready = [wing for wing in below if wing not in floor and below[wing] <= set(floor)]
        assert ready, f"wings import each other: {sorted(set(below) - set(floor))}"
        floor |= {wing: 1 + max((floor[x] for x in below[wing]), default=0) for wing in ready}
    assert max(floor.values()) <= 12, floor


def test_libraries_have_owners():
    wrong = []
    for name in MODULES:
        for library in {x.split(".")[0] for x in imported(everywhere(TREES[name]))} & set(OWNERS):
            if not {name, wing_of(name)} & OWNERS[library]:
                wrong.append(f"{name} imports {library}, of {sorted(OWNERS[library])}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_by_way_of_others():
    direct = {name: own_modules(imported(at_import(tree))) for name, tree in TREES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in sorted(direct.get(name, ())):
                visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def closure(name: str) -> set[str]:
    """Libraries that importing a module imports, by way of ours."""
    libraries: set[str] = set()
    todo, seen = [name], set()
    while todo:
        here = todo.pop()
        if here in seen or here not in TREES:
            continue
        seen.add(here)
        names = list(imported(at_import(TREES[here])))
        libraries |= {x.split(".")[0] for x in names}
        todo += own_modules(iter(names))
    return libraries


LIGHT = (
    "", "errors", "sites", "arguments", "config", "example", "preparation.genetic_map",
    "training.schedule", "preparation.prepare", "cli.main",
)  # fmt: skip
# What a run of ``impute`` imports; numba would take .15 s, torch 1.5 s.
RUNS = ("imputation.impute", "imputation.options", "phasing.phase_target", "target.inputs")


def test_runs_import_no_compiler():
    for name in RUNS:
        assert not closure(name) & {"numba", "torch", "pydantic", "faiss"}, name


def test_light_modules_stay_light():
    heavy = {name: closure(name) & HEAVY for name in LIGHT}
    assert heavy == {name: set() for name in LIGHT}


def test_the_closure_sees_through_modules():
    assert "numba" in closure("kernels.simd_floats_code")
    assert {"faiss", "cyvcf2", "h5py"} <= closure("token_model.build_index")
