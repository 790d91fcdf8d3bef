"""Kernels that are called without numba: what they are given, and what they give."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import typeof

from ragimpute import example
from ragimpute.kernels import compile as kernel_compile
from ragimpute.kernels.code import signature_text
from ragimpute.kernels.compile import Kernel, kernel
from ragimpute.kernels.loader import _NEVER_CALLED, UnknownKind, type_text
from ragimpute.kernels.store import (
    Named,
    find_kernel,
    foreseen,
    read_folders,
    read_machine_code,
)


class Inner(NamedTuple):
    """Two things."""

    left: object
    right: object


class Outer(NamedTuple):
    """Things of several types."""

    inner: object
    number: object
    flags: object


DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
          "float32", "float64"]  # fmt: skip


@st.composite
def arrays(draw):
    """Arrays of all layouts, some of them read-only, not aligned, or without numbers."""
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    raw = np.zeros(int(np.prod(shape)) * dtype.itemsize + 1, np.uint8)
    first = draw(st.integers(0, 1))
    array = raw[first : first + len(raw) - 1].view(dtype).reshape(shape)
    array = array.transpose(draw(st.permutations(range(len(shape)))))
    array = array[draw(st.sampled_from([slice(None), slice(None, None, 2), slice(1, None)]))]
    array.flags.writeable = draw(st.booleans())
    return array


scalars = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.none(),
    st.sampled_from([np.dtype(name).type(1) for name in DTYPES]),
    st.just("text"),
)
arguments = st.recursive(
    scalars | arrays(),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(tuple)
        | st.builds(Inner, inner, inner)
        | st.builds(Outer, inner, inner, inner)
    ),
    max_leaves=5,
)


@given(st.lists(arguments, max_size=4).map(tuple))
def test_types_are_those_that_numba_finds(args):
    try:
        text = type_text(args)
    except UnknownKind:
        return  # numba looks at them, or refuses them
    if any(type(arg) is int and not -(2**63) <= arg < 2**63 for arg in _flat(args)):
        return  # told apart before the text is asked for
    assert text == signature_text(tuple(map(typeof, args)))


def _flat(args):
    for arg in args:
        yield from _flat(arg) if isinstance(arg, tuple) else (arg,)


@kernel
def _mix(outer, more, scale, count, yes, nothing):
    total = 0.0
    for i in range(outer.inner.left.shape[0]):
        for j in range(outer.inner.left.shape[1]):
            outer.inner.right[i, j] = outer.inner.left[i, j] * scale + count
            total += outer.inner.right[i, j]
    for i in range(more[0].shape[0]):
        if outer.flags[i]:
            total += more[0][i] * more[1]
    if yes and nothing is None:
        total = -total
    return total + outer.number


@kernel
def _number(x):
    return x[0]


@kernel
def _quotient(x, by):
    return x[0] // by


def _cases():
    rng = np.random.default_rng(1)
    whole = rng.random((6, 8)).astype(np.float32)
    for left in (whole, whole[::2, 1:5], np.asfortranarray(whole), whole[:0]):
        for yes in (True, np.bool_(False)):
            flags = rng.random(7) < 0.5
            numbers = rng.integers(0, 9, 14).astype(np.int16)[::2]
            yield (
                Outer(Inner(left, np.zeros(left.shape)), np.uint8(200), flags),
                (numbers, 3),
                np.float32(1.5),
                -7,
                yes,
                None,
            )


@pytest.fixture
def without_numba(monkeypatch):
    """Make a kernel of the same function that finds what numba has compiled and kept.

    After many calls in the process, kernels would be called by numba.
    """
    monkeypatch.setattr(Kernel, "calls", 0)
    return lambda function: Kernel(function.py_func)


def test_results_are_those_of_numba(without_numba):
    other = without_numba(_mix)
    for case, same in zip(_cases(), _cases(), strict=True):
        expected = _mix.dispatcher(*case)
        assert other(*same) == expected
        np.testing.assert_array_equal(same[0].inner.right, case[0].inner.right)
    assert len(other.loaded) == 3  # bool and np.bool_ are one type; so are empty and full arrays
    assert "dispatcher" not in vars(other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_type_of_number_comes_back(dtype, without_numba):
    x = np.array([np.iinfo(dtype).max if dtype[-1].isdigit() and "int" in dtype else 1], dtype)
    expected = _number.dispatcher(x)
    found = without_numba(_number)(x)
    assert found == expected
    assert type(found) is type(expected)


def test_an_error_is_that_of_numba(without_numba):
    x = np.array([7])
    assert _quotient.dispatcher(x, 2) == 3
    other = without_numba(_quotient)
    assert other(x, 2) == 3
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        other(x, 0)
    assert other.loaded


def test_after_many_calls_numba_is_asked(monkeypatch, without_numba):
    _number.dispatcher(np.array([5]))
    other = without_numba(_number)
    monkeypatch.setattr(kernel_compile, "_CALLS_BEFORE_NUMBA", 0)
    assert other(np.array([5])) == 5
    assert "dispatcher" in vars(other)
    assert not other.loaded


def test_what_numba_alone_knows_is_left_to_it(without_numba):
    other = without_numba(_number)
    assert other(np.zeros(1, "S1")) == b""
    assert other(x=np.array([2.5])) == 2.5
    assert not other.loaded


def test_no_kernel_needs_more_of_numba():
    """A kernel that calls into numba's library, as by ``reshape``, would make a run import it."""
    num = 0
    for entry in foreseen():
        name = Named.of(find_kernel(entry.kernel).py_func, entry.signature).file_name()
        for folder in read_folders():
            code = read_machine_code(folder / name)
            if code is not None:
                asked = {need for need in code.needs if need.startswith(("numba_", "NRT_"))}
                assert asked <= _NEVER_CALLED, (entry.kernel, asked)
                assert "reload_init" not in code.needs
                num += 1
    assert num > 30, "compile the kernels: python -m ragimpute.kernels.build"


def test_a_run_imports_numba_only_to_compile(tmp_path):
    code = (
        "import sys\n"
        "from ragimpute.cli.main import main\n"
        "sys.argv = ['ragimpute', 'impute', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    print(end.code, 'numba' in sys.modules)\n"
    )
    words = [
        example.path("target.vcf.gz"), "--panel", example.path("panel.bcf"), "--map",
        example.path("chr20.b37.gmap.gz"), "-o", tmp_path / "out.vcf.gz", "--quiet",
        "--region", "20:2000000-2300000",
    ]  # fmt: skip
    command = [sys.executable, "-c", code, *map(str, words)]
    for _ in range(2):  # the first may compile
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "0 False\n", done.stderr


def test_settings_are_known_without_numba():
    code = (
        "from ragimpute.kernels.code import compiler\n"
        "before = compiler()\n"
        "import sys\n"
        "assert 'numba' not in sys.modules\n"
        "import numba\n"
        "assert compiler() == before, (compiler(), before)\n"
        "assert numba.__version__ in before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
