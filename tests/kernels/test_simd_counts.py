"""Rows of 32 uint16 in kernels: what they compute."""

from __future__ import annotations

import numpy as np
from numba import njit

from ragimpute.kernels.bits import num_set
from ragimpute.kernels.simd_counts import (
    COUNTS,
    added,
    below,
    if_below,
    load_counts,
    one_if_below,
    repeated,
    smaller,
    store_counts,
)


@njit
def _combine(a, b, out, bits):
    for i in range(a.shape[0]):
        x, y = load_counts(a, i), load_counts(b, i)
        store_counts(out, 5 * i, added(x, y))
        store_counts(out, 5 * i + 1, smaller(x, y))
        store_counts(out, 5 * i + 2, one_if_below(x, y))
        store_counts(out, 5 * i + 3, if_below(x, y, y, x))
        store_counts(out, 5 * i + 4, repeated(a[i, 3]))
        bits[i] = below(x, y)


@njit
def _bits_set(words):
    total = 0
    for word in words:
        total += num_set(word)
    return total


def test_operations_are_those_of_numpy():
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 65536, (5, COUNTS)).astype(np.uint16) for _ in range(2))
    b[:, ::4] = a[:, ::4]
    out, bits = np.zeros((25, COUNTS), np.uint16), np.zeros(5, np.uint64)
    _combine(a, b, out, bits)
    expected = [a + b, np.minimum(a, b), a < b, np.maximum(a, b), np.repeat(a[:, 3:4], COUNTS, 1)]
    np.testing.assert_array_equal(out.reshape(5, 5, COUNTS), np.stack(expected, axis=1))
    for i in range(5):
        assert int(bits[i]) == sum(1 << j for j in range(COUNTS) if a[i, j] < b[i, j])


def test_set_bits_are_counted():
    words = np.random.default_rng(2).integers(0, 2**32, 50).astype(np.uint32)
    assert _bits_set(words) == int(np.bitwise_count(words).sum())
