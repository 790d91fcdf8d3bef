"""What the decorators of kernels promise."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import NumbaError

from ragimpute import example
from ragimpute.kernels import simd_counts as count_lanes
from ragimpute.kernels import simd_floats as lanes
from ragimpute.kernels.bits import leading_zeros, num_set, trailing_zeros
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel
from ragimpute.kernels.simd_counts import COUNTS
from ragimpute.kernels.simd_floats import (
    LANES,
    clamp,
    larger,
    load,
    masked,
    reached,
    rows_of_lanes,
    splat,
    store,
    total,
    turn,
)


@inlined
def _twice(x, i):
    return x[i] + x[i]


@inlined_reordered
def _sum(x):
    total = np.float32(0.0)
    for i in range(x.shape[0]):
        total += x[i]
    return total


@kernel
def _fill(x, out):
    for i in range(x.shape[0]):
        out[i] = _twice(x[i:], 0)
    return _sum(x)


def test_kernels_call_what_is_inlined():
    x = np.arange(100, dtype=np.float32)
    out = np.empty_like(x)
    assert _fill(x, out) == pytest.approx(4950)
    np.testing.assert_array_equal(out, 2 * x)
    assert "NRT_incref" not in next(iter(_fill.inspect_llvm().values()))


def test_kernels_may_not_allocate():
    @kernel
    def allocate(x):
        x[1:] = x[:-1]  # through a copy, as the two overlap

    with pytest.raises(NumbaError) as caught:
        allocate(np.zeros(3))
    assert "NRT required but not enabled" in str(caught.value)


WORDS64, WORDS32 = st.integers(1, 2**64 - 1), st.integers(1, 2**32 - 1)


@njit
def _zeros_below(word):
    return trailing_zeros(word)


@njit
def _zeros_above(word):
    return leading_zeros(word)


@njit
def _count(word):
    return num_set(word)


@given(WORDS64, WORDS32)
def test_bits_are_counted_alike_in_python(word64, word32):
    wide, narrow = np.uint64(word64), np.uint32(word32)
    assert _zeros_below(wide) == trailing_zeros.python_form(wide)
    assert _zeros_above(narrow) == leading_zeros.python_form(narrow)
    assert _count(narrow) == num_set.python_form(narrow)


@njit
def _use_lanes(a, b, bits, out, flags, square):
    x, y = load(a, 0), load(b, 0)
    store(out, 0, clamp(x))
    store(out, 1, larger(x, y))
    store(out, 2, masked(x, bits))
    store(out, 3, splat(total(x)))
    flags[0] = reached(x, y)
    turn(square)


def in_python(name):
    """The Python form of an operation on lanes."""
    return getattr(lanes, name).python_form


ROWS = st.lists(st.floats(-4, 4, width=32), min_size=LANES, max_size=LANES)


@given(ROWS, ROWS, st.integers(0, 2**LANES - 1))
def test_lanes_do_the_same_in_python(a, b, bits):
    a, b = np.array([a], np.float32), np.array([b], np.float32)
    out, flags = rows_of_lanes(4), np.zeros(1, np.uint64)
    square = np.arange(LANES * LANES, dtype=np.float32).reshape(LANES, LANES)
    python_square = square.copy()
    _use_lanes(a, b, np.uint64(bits), out, flags, square)
    x, y = in_python("load")(a, 0), in_python("load")(b, 0)
    expected = [
        in_python("clamp")(x),
        in_python("larger")(x, y),
        in_python("masked")(x, np.uint64(bits)),
        in_python("splat")(in_python("total")(x)),
    ]
    np.testing.assert_array_equal(out, expected)
    assert flags[0] == in_python("reached")(x, y)
    in_python("turn")(python_square)
    np.testing.assert_array_equal(square, python_square)


COUNT_ROWS = st.lists(st.integers(0, 2**16 - 1), min_size=COUNTS, max_size=COUNTS)


@njit
def _use_counts(a, b, out, flags):
    x, y = count_lanes.load_counts(a, 0), count_lanes.load_counts(b, 0)
    count_lanes.store_counts(out, 0, count_lanes.added(x, y))
    count_lanes.store_counts(out, 1, count_lanes.smaller(x, y))
    count_lanes.store_counts(out, 2, count_lanes.one_if_below(x, y))
    count_lanes.store_counts(out, 3, count_lanes.if_below(x, y, y, x))
    flags[0] = count_lanes.below(x, y)


@given(COUNT_ROWS, COUNT_ROWS)
def test_counts_do_the_same_in_python(a, b):
    a, b = np.array([a], np.uint16), np.array([b], np.uint16)
    out, flags = np.zeros((4, COUNTS), np.uint16), np.zeros(1, np.uint64)
    _use_counts(a, b, out, flags)
    x, y = (count_lanes.load_counts.python_form(row, 0) for row in (a, b))
    expected = [
        count_lanes.added.python_form(x, y),
        count_lanes.smaller.python_form(x, y),
        count_lanes.one_if_below.python_form(x, y),
        count_lanes.if_below.python_form(x, y, y, x),
    ]
    np.testing.assert_array_equal(out, expected)
    assert flags[0] == count_lanes.below.python_form(x, y)


def test_a_row_in_python_is_a_value():
    row = in_python("splat")(np.float32(1.0))
    other = row
    row += row
    row *= row
    row -= other
    row /= in_python("splat")(np.float32(2.0))
    assert (row == 1.5).all()
    assert (other == 1.0).all()


def test_the_default_model_runs_as_python(tmp_path):
    """Every kernel as Python: GT the same, DS and GP within .001."""
    with pysam.VariantFile(str(example.path("panel.bcf"))) as panel:
        panel.subset_samples(list(panel.header.samples)[:40])
        with pysam.VariantFile(str(tmp_path / "panel.vcf.gz"), "w", header=panel.header) as out:
            for record in panel:
                if record.pos < 2_040_000:
                    out.write(record)
    with pysam.VariantFile(str(example.path("target.vcf.gz"))) as target:
        target.subset_samples(list(target.header.samples)[:2])
        with pysam.VariantFile(str(tmp_path / "target.vcf.gz"), "w", header=target.header) as out:
            for record in target:
                if record.pos < 2_040_000:
                    out.write(record)
    lines = []
    for disabled in ("0", "1"):
        command = [
            sys.executable, "-m", "ragimpute", "impute", "target.vcf.gz", "--panel", "panel.vcf.gz",
            "--map", str(example.path("chr20.b37.gmap.gz")), "-o", f"{disabled}.vcf", "--quiet",
        ]  # fmt: skip
        environment = os.environ | {"NUMBA_DISABLE_JIT": disabled}
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        text = (tmp_path / f"{disabled}.vcf").read_text()
        lines.append([line.split("\t") for line in text.splitlines() if line[0] != "#"])
    compiled, python = lines
    assert len(compiled) == len(python) > 200
    untyped = 0
    for one, other in zip(compiled, python, strict=True):
        assert one[:5] == other[:5]
        untyped += "IMP" in one[7]
        for cell, python_cell in zip(one[9:], other[9:], strict=True):
            (gt, *numbers), (python_gt, *python_numbers) = cell.split(":"), python_cell.split(":")
            assert gt == python_gt
            values, python_values = (
                [float(x) for x in ",".join(part).split(",")] for part in (numbers, python_numbers)
            )
            np.testing.assert_allclose(values, python_values, atol=1e-3)
    assert untyped > 100
