"""Rows that are mostly 0: packed, and put into columns again."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.kernels.sparse_rows import WORD, pack_rows, unpack_rows


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.integers(1, 9),
    width=st.integers(1, 300),
    low=st.integers(0, 20),
    share=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_rows_come_back_as_columns(seed, num, width, low, share):
    rng = np.random.default_rng(seed)
    rows = rng.random((num, low + width + 5), np.float32)
    rows[rng.random(rows.shape) >= share] = 0
    rows[:, low] = 1e-45  # the smallest number there is
    masks = np.empty((num, -(-width // WORD)), np.uint64)
    counts, values = np.empty(num, np.int64), np.empty(num * width, np.float32)
    found = pack_rows(rows, low, low + width, masks, counts, values)
    part = rows[:, low : low + width]
    assert found == counts.sum() == np.count_nonzero(part)
    np.testing.assert_array_equal(values[:found], part[part > 0])
    out = np.zeros((width + 3, num + 2), np.float32)
    unpack_rows(masks, counts, values, np.empty(num, np.int64), 2, 1, out)
    np.testing.assert_array_equal(out[2 : 2 + width, 1 : 1 + num], part.T)
    out[2 : 2 + width, 1 : 1 + num] = 0
    assert not out.any()
