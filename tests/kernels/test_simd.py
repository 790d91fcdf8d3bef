"""Rows as vectors in kernels: what is loaded is what was stored, for both kinds of rows."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from ragimpute.kernels.simd_counts import COUNTS, load_counts, repeated, store_counts
from ragimpute.kernels.simd_floats import LANES, load, splat, store


@njit
def _turn_lanes(rows, out):
    for i in range(rows.shape[0]):
        store(out, i, load(rows, rows.shape[0] - 1 - i))
    store(out, rows.shape[0], splat(rows[0, 1]))


@njit
def _turn_counts(rows, out):
    for i in range(rows.shape[0]):
        store_counts(out, i, load_counts(rows, rows.shape[0] - 1 - i))
    store_counts(out, rows.shape[0], repeated(rows[0, 1]))


@pytest.mark.parametrize(
    ("turn", "width", "dtype"),
    [(_turn_lanes, LANES, np.float32), (_turn_counts, COUNTS, np.uint16)],
)
def test_rows_come_and_go_whole(turn, width, dtype):
    rows = np.random.default_rng(1).integers(0, 60_000, (5, width)).astype(dtype)
    out = np.full((7, width), 7, dtype)
    turn(rows, out)
    np.testing.assert_array_equal(out[:5], rows[::-1])
    np.testing.assert_array_equal(out[5], np.full(width, rows[0, 1]))
    np.testing.assert_array_equal(out[6], np.full(width, 7))
