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


def read_table() -> tuple[dict[str, int], dict[str, list[tuple[int, set[str]]]]]:
    """Each module's row, and each library's owners: rows, with the modules that may import it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.+?) \|(.*)\|$", text, flags=re.MULTILINE)
    row_of: dict[str, int] = {}
    owners: dict[str, list[tuple[int, set[str]]]] = {}
    for number, modules, libraries in rows:
        package = re.match(r"`(\w+)/`", modules)
        names = re.findall(r"`(\w+)`", modules)
        if package:
            names = [package[1], *(f"{package[1]}.{name}" for name in names)]
        for name in names:
            assert name not in row_of, f"{name} stands in the table twice"
            row_of[name] = int(number)
        for library, only in re.findall(r"`(\w+)`(?: \(([\w, ]+)\))?", libraries):
            which = set(only.split(", ")) if only else set(names)
            assert which <= set(names), f"{library} has an owner that is not in row {number}"
            owners.setdefault(library, []).append((int(number), which))
    return row_of, owners


ROW_OF, OWNERS = read_table()


def imported(nodes: list[ast.AST]) -> Iterator[str]:
    """Names of what import statements import; "ragimpute.x" where it may be a module of ours."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            if node.module == "ragimpute" or node.module in (f"ragimpute.{m}" for m in ("model",)):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield node.module or ""


def own_modules(names: Iterator[str]) -> set[str]:
    """Those of the names that are modules of ours."""
    found = {name.removeprefix("ragimpute.") for name in names if name.startswith("ragimpute.")}
    return {name for name in found if name in TREES or name in ROW_OF}


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
    assert ROW_OF["model.bert_rag"] == ROW_OF["model"] > ROW_OF["copying"] > ROW_OF["panel"]
    assert max(ROW_OF, key=lambda name: (ROW_OF[name], name)) in ("cli", "cli_app", "cli_plan")
    of_tests = {"scipy", "pandas", "torchmetrics"}
    assert set(OWNERS) >= HEAVY - of_tests | {"typer", "rich"}


def test_imports_from_rows_above_only():
    wrong = [
        f"{name} stands in no row of docs/architecture.md" for name in MODULES if name not in ROW_OF
    ]
    for name in set(MODULES) & set(ROW_OF):
        for other in own_modules(imported(everywhere(TREES[name]))):
            if other not in ROW_OF:
                wrong.append(f"{name} imports {other}, which stands in no row")
            elif ROW_OF[other] > ROW_OF[name]:
                wrong.append(f"{name} (row {ROW_OF[name]}) imports {other} (row {ROW_OF[other]})")
    assert not wrong, "\n".join(wrong)


def test_libraries_have_owners():
    wrong = []
    for name in MODULES:
        for library in {x.split(".")[0] for x in imported(everywhere(TREES[name]))} & set(OWNERS):
            allowed = set().union(*(which for _, which in OWNERS[library]))
            if not {name, name.rpartition(".")[2]} & allowed:
                wrong.append(f"{name} imports {library}, which belongs to {sorted(allowed)}")
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


LIGHT = ("errors", "sites", "config", "example", "genetic_map", "schedule", "prepare", "cli")


def test_light_modules_stay_light():
    heavy = {name: closure(name) & HEAVY for name in LIGHT}
    assert heavy == {name: set() for name in LIGHT}


def test_the_closure_sees_through_modules():
    assert "numba" in closure("likelihood")
    assert {"faiss", "cyvcf2", "h5py"} <= closure("index")
