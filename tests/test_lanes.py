"""Rows of 16 float32 in kernels: what they compute, and where they lie in memory."""

from __future__ import annotations

import numpy as np
from numba import njit

from ragimpute.lanes import LANES, clamp, load, rows_of_lanes, splat, store


@njit
def _combine(a, b, out):
    for i in range(a.shape[0]):
        x, y = load(a, i), load(b, i)
        store(out, 6 * i, x + y)
        store(out, 6 * i + 1, x - y)
        store(out, 6 * i + 2, x * y)
        store(out, 6 * i + 3, x / y)
        store(out, 6 * i + 4, clamp(x))
        store(out, 6 * i + 5, splat(a[i, 3]))


def test_operators_are_those_of_numpy():
    rng = np.random.default_rng(1)
    a, b = (rng.normal(0, 2, (5, LANES)).astype(np.float32) for _ in range(2))
    out = rows_of_lanes(30)
    _combine(a, b, out)
    expected = [a + b, a - b, a * b, a / b, np.clip(a, 0, 1), np.repeat(a[:, 3:4], LANES, axis=1)]
    np.testing.assert_array_equal(out.reshape(5, 6, LANES), np.stack(expected, axis=1))
    assert (np.clip(a, 0, 1) == 0).any()
    assert (np.clip(a, 0, 1) == 1).any()


@njit
def _sum(rows):
    total = splat(np.float32(0.0))
    for i in range(rows.shape[0]):
        total = total + load(rows, i)
    return total


@njit
def _sum_into(rows, out):
    store(out, 0, _sum(rows))


def test_lanes_pass_through_functions_and_do_not_mix():
    rows = np.random.default_rng(2).random((300, LANES)).astype(np.float32)
    out = rows_of_lanes(1)
    _sum_into(rows, out)
    expected = np.zeros(LANES, np.float32)
    for row in rows:
        expected += row
    np.testing.assert_array_equal(out[0], expected)
    _sum_into(np.ascontiguousarray(rows[:, ::-1]), out)
    np.testing.assert_array_equal(out[0], expected[::-1])


def test_rows_start_on_cache_lines():
    for shape in [(1,), (3, 5), (2, 3, 4)]:
        rows = rows_of_lanes(*shape)
        assert rows.shape == (*shape, LANES)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        assert not rows.any()
        assert rows.ctypes.data % 64 == 0
