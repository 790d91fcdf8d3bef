"""Rows of 16 float32 in kernels: what they compute, and where they lie in memory."""

from __future__ import annotations

import numpy as np
from numba import njit

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
)


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


@njit
def _choose(a, b, bits, out, flags, sums):
    for i in range(a.shape[0]):
        store(out, 2 * i, larger(load(a, i), load(b, i)))
        store(out, 2 * i + 1, masked(load(a, i), bits[i]))
        flags[i] = reached(load(a, i), load(b, i))
        sums[i] = total(load(a, i))


def test_lanes_are_chosen_by_size_and_by_bits():
    rng = np.random.default_rng(3)
    a, b = (rng.integers(-3, 4, (40, LANES)).astype(np.float32) for _ in range(2))
    bits = rng.integers(0, 2**63, 40, dtype=np.uint64)
    out, flags, sums = rows_of_lanes(80), np.zeros(40, np.uint64), np.zeros(40, np.float32)
    _choose(a, b, bits, out, flags, sums)
    place = np.arange(LANES, dtype=np.uint64)
    chosen = (bits[:, None] >> place) & np.uint64(1) == 1
    np.testing.assert_array_equal(out[0::2], np.maximum(a, b))
    np.testing.assert_array_equal(out[1::2], np.where(chosen, a, 0))
    np.testing.assert_array_equal(flags, ((a >= b).astype(np.uint64) << place).sum(axis=1))
    np.testing.assert_array_equal(sums, a.sum(axis=1))


def test_rows_start_on_cache_lines():
    for shape in [(1,), (3, 5), (2, 3, 4)]:
        rows = rows_of_lanes(*shape)
        assert rows.shape == (*shape, LANES)
        assert rows.dtype == np.float32
        assert rows.flags.c_contiguous
        assert not rows.any()
        assert rows.ctypes.data % 64 == 0
