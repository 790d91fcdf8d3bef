"""What a compiled kernel's key holds: all code that is part of it, and signatures as text."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import typeof, types
from package_copies import copy_package

from ragimpute.kernels.code import code_digest, parts_of, signature_of, signature_text
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.store import find_kernel, foreseen

PACKAGE = Path(__file__).resolve().parents[2] / "ragimpute"
KERNELS = sorted({entry.kernel for entry in foreseen()})


class Pair(NamedTuple):
    """A named tuple of arrays, as kernels take them."""

    low: np.ndarray
    high: np.ndarray


def called_names(kernel: str) -> set[str]:
    """Modules whose functions a kernel calls by way of any others, read from the source alone.

    For each function: the names in its body; of those that its module imports from another module
    of the package, that module; of those that it defines, the same again.
    """
    found: set[str] = set()
    todo = [tuple(kernel.split(":"))]
    seen = set()
    while todo:
        module, name = todo.pop()
        if (module, name) in seen:
            continue
        seen.add((module, name))
        found.add(module)
        tree = ast.parse((PACKAGE.parent / (module.replace(".", "/") + ".py")).read_text())
        imported = {
            alias.asname or alias.name: (node.module, alias.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ragimpute.")
            for alias in node.names
        }
        here = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        values = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        body = here.get(name) or values.get(name)
        for part in ast.walk(body) if body is not None else ():
            if isinstance(part, ast.Name):
                if part.id in here or part.id in values:
                    todo.append((module, part.id))
                elif part.id in imported and imported[part.id][1][0] != "_":
                    other, inner = imported[part.id]
                    if inner.islower():  # a function or an intrinsic; constants are keyed by value
                        # Intrinsics are declared in one module, and defined in another.
                        code = f"{other}_code"
                        defined = PACKAGE.parent / f"{code.replace('.', '/')}.py"
                        found.add(code) if defined.is_file() else todo.append((other, inner))
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_file_that_a_kernel_takes_code_from_is_found(kernel):
    files, _ = parts_of(find_kernel(kernel).py_func)
    # The decorators only name the options, which "with_numba" has.
    assert called_names(kernel) - {"ragimpute.kernels.compile"} <= set(files)
    assert "ragimpute.kernels.with_numba" in files
    assert all(path.is_file() for path in files.values())


def test_some_kernels_take_code_from_several_files():
    files, _ = parts_of(find_kernel("ragimpute.evidence.shared_kernel:describe_shared").py_func)
    assert {
        "ragimpute.evidence.describe_kernel",
        "ragimpute.kernels.simd_floats_code",
        "ragimpute.kernels.simd_code",
    } <= set(files)


def digests(root: Path) -> dict[str, str]:
    """The digest of every foreseen kernel of a copy of the package."""
    code = (
        "import json\n"
        "from ragimpute.kernels.code import code_digest\n"
        "from ragimpute.kernels.store import find_kernel, foreseen\n"
        "names = {entry.kernel for entry in foreseen()}\n"
        "print(json.dumps({n: code_digest(find_kernel(n).py_func) for n in names}))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


def test_a_change_of_an_inlined_function_changes_the_kernels_that_hold_it(tmp_path):
    root = copy_package(tmp_path)
    before = digests(root)
    for module in (
        "evidence.describe_kernel", "kernels.simd_code", "kernels.bit_transpose",
        "kernels.with_numba",
    ):  # fmt: skip
        path = root / "ragimpute" / f"{module.replace('.', '/')}.py"
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        after = digests(root)
        path.write_text(text)
        for name in KERNELS:
            holds = f"ragimpute.{module}" in parts_of(find_kernel(name).py_func)[0]
            assert (before[name] != after[name]) == holds, (module, name)
    assert digests(root) == before  # by content: times do not count


def test_a_constant_of_another_file_is_part_of_the_key(tmp_path, monkeypatch):
    (tmp_path / "sizes_for_kernels.py").write_text("STEP = 3\nNAMES = ('a', 'b')\n")
    (tmp_path / "stepping.py").write_text(
        "import numpy as np\n"
        "from sizes_for_kernels import NAMES, STEP\n"
        "from ragimpute.kernels.compile import kernel\n"
        "@kernel\n"
        "def step(x):\n"
        "    return x[0] + STEP + len(NAMES)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import sizes_for_kernels
    import stepping

    before = code_digest(stepping.step.py_func)
    monkeypatch.setattr(stepping, "STEP", 4)
    changed = code_digest(stepping.step.py_func)
    assert changed != before
    monkeypatch.setattr(stepping, "STEP", sizes_for_kernels.STEP)
    assert code_digest(stepping.step.py_func) == before
    monkeypatch.setattr(stepping, "NAMES", ("a", "c"))
    assert code_digest(stepping.step.py_func) != before


def test_the_names_of_a_named_tuple_are_part_of_the_key():
    def with_columns(*names):
        columns = namedtuple("Columns", names)(*range(len(names)))

        @kernel
        def first(x):
            return x[columns.left]

        return first.py_func

    keys = {code_digest(with_columns(*names)) for names in (("left", "right"), ("right", "left"))}
    assert len(keys) == 2


def test_each_of_several_functions_of_one_name_is_part_of_the_key():
    """Functions that one factory makes differ in nothing but what they enclose."""

    def adder(step):
        @inlined
        def add(x):
            return x[0] + step

        return add

    def digest(first, second):
        one, two = adder(first), adder(second)

        @kernel
        def both(x):
            return one(x) + two(x)

        return code_digest(both.py_func)

    found = [digest(*steps) for steps in ((1, 2), (3, 2), (1, 3))]
    assert len(set(found)) == 3
    assert digest(1, 2) == found[0]


NUMBERS = [types.float32, types.float64, types.int8, types.int64, types.uint16, types.boolean]
ARRAYS = st.builds(
    lambda dtype, ndim, layout, readonly, aligned: types.Array(
        dtype, ndim, layout, readonly=readonly, aligned=aligned
    ),
    st.sampled_from(NUMBERS), st.integers(1, 3), st.sampled_from("CFA"), st.booleans(),
    st.booleans(),
)  # fmt: skip
TYPES = st.recursive(
    st.sampled_from(NUMBERS) | ARRAYS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(types.Tuple)
        | st.tuples(inner, inner).map(lambda parts: types.BaseTuple.from_types(parts, Pair))
    ),
    max_leaves=6,
)


@given(st.lists(TYPES, max_size=5).map(tuple))
def test_signatures_come_back_from_their_text(signature):
    assert signature_of(signature_text(signature)) == signature


@pytest.mark.parametrize(
    "value", [Pair(np.zeros(2), np.zeros(3)), Pair(np.zeros(2), np.zeros(3, int))]
)
def test_a_named_tuples_type_is_the_one_that_a_call_has(value):
    """Else a kernel that was compiled ahead would be loaded again at every call."""
    kind = typeof(value)
    assert signature_of(signature_text((kind,))) == (kind,)


def test_a_named_tuple_whose_fields_have_changed_is_refused():
    array = types.float32[::1]
    text = signature_text((types.BaseTuple.from_types((array, array), Pair),))
    with pytest.raises(ValueError, match="has the fields"):
        signature_of(text.replace("'low', 'high'", "'high', 'low'"))
