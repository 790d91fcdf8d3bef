"""What mypy's configuration leaves out: only functions that numba compiles lack annotations."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPILED = {"kernel", "inlined", "inlined_reordered", "overload"}  # the last is numba's


def unannotated(tree: ast.Module) -> list[tuple[str, bool]]:
    """Functions that lack an annotation, with whether numba compiles them.

    It compiles those that one of :data:`COMPILED` decorates or that make an intrinsic, and what is
    defined within these.
    """
    found = []

    def visit(node: ast.AST, compiled: bool, method: bool) -> None:
        for child in ast.iter_child_nodes(node):
            here = compiled
            if isinstance(child, ast.FunctionDef):
                bare = [x.func if isinstance(x, ast.Call) else x for x in child.decorator_list]
                names = {x.id for x in bare if isinstance(x, ast.Name)}
                arguments = child.args.posonlyargs + child.args.args + child.args.kwonlyargs
                own = method and "staticmethod" not in names
                here |= bool(names & COMPILED) or (not own and takes_typing_context(arguments))
                if child.returns is None or any(x.annotation is None for x in arguments[own:]):
                    found.append((child.name, here))
            visit(child, here, isinstance(child, ast.ClassDef))

    visit(tree, False, False)
    return found


def takes_typing_context(arguments: list[ast.arg]) -> bool:
    """Whether arguments are those of a definition that numba.extending.intrinsic takes."""
    return bool(arguments) and arguments[0].arg == "typing_context"


def listed() -> list[str]:
    """Modules in which mypy allows functions without annotations."""
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    (modules,) = (x["module"] for x in overrides if "disallow_untyped_defs" in x)
    return modules


def found_in(module: str) -> list[tuple[str, bool]]:
    path = ROOT / f"{module.replace('.', '/')}.py"
    return unannotated(ast.parse(path.read_text()))


@pytest.mark.parametrize("module", listed())
def test_only_compiled_functions_lack_annotations(module):
    found = found_in(module)
    assert found, f"{module} needs no place in the list of pyproject.toml"
    assert not [name for name, compiled in found if not compiled]


def test_a_plain_function_without_annotations_is_found():
    tree = ast.parse(
        "@kernel\ndef a(x): pass\n"
        "@overload(add)\ndef o(x): pass\n"
        "def b(x: int): pass\n"
        "def c(x) -> int: pass\n"
        "def d(x: int) -> int: pass\n"
        "def e(typing_context, x):\n    def f(y): pass\n"
        "class G:\n    def h(self) -> None: pass\n    def i(self, x) -> None: pass\n"
    )
    assert unannotated(tree) == [
        ("a", True), ("o", True), ("b", False), ("c", False), ("e", True), ("f", True), ("i", False)
    ]  # fmt: skip
