"""A network's linear layers in float32, whose result for a row depends on that row alone.

A BLAS does not promise that: with AVX2, OpenBLAS sums a row in another order if the row has another
place in its batch. Dosages would then depend on how targets are divided among threads.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel
from ragimpute.kernels.simd_floats import LANES, load, rows_of_lanes, splat, store

_ROWS = 8  # rows that are multiplied together


def linear_rows(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Multiply rows by a weight, and add a bias.

    Parameters
    ----------
    x
        Shape (N, K), float32.
    weight, bias
        Shape (D, K) and (D,), float32.

    Returns
    -------
    Shape (N, D), float32: ``x @ weight.T + bias``, where products are added to the bias in the
    order of K.
    """
    size, columns = weight.shape
    groups = -(-size // LANES)
    of_lanes = rows_of_lanes(columns + 1, groups)
    flat = of_lanes.reshape(columns + 1, groups * LANES)
    flat[:columns, :size] = weight.T
    flat[columns, :size] = bias
    out = rows_of_lanes(len(x), groups)
    if len(x):
        _multiply(np.ascontiguousarray(x), of_lanes.reshape(-1, LANES), out.reshape(-1, LANES))
    return out.reshape(len(x), groups * LANES)[:, :size]


@kernel
def _multiply(x, weight, out):
    """See :func:`linear_rows`; ``weight`` ((K + 1) G, 16), the bias last; ``out`` (N G, 16)."""
    num, columns = x.shape
    groups = weight.shape[0] // (columns + 1)
    last = num - 1
    for first in range(0, num, _ROWS):
        # If fewer rows are left, the last one is computed several times over, so that all rows are
        # computed in the same way.
        b = min(first + 1, last)
        c = min(first + 2, last)
        d = min(first + 3, last)
        e = min(first + 4, last)
        f = min(first + 5, last)
        g = min(first + 6, last)
        h = min(first + 7, last)
        for i in range(groups):
            sum_a = load(weight, columns * groups + i)
            sum_b, sum_c, sum_d = sum_a, sum_a, sum_a
            sum_e, sum_f, sum_g, sum_h = sum_a, sum_a, sum_a, sum_a
            for k in range(columns):
                w = load(weight, k * groups + i)
                sum_a = sum_a + splat(x[first, k]) * w
                sum_b = sum_b + splat(x[b, k]) * w
                sum_c = sum_c + splat(x[c, k]) * w
                sum_d = sum_d + splat(x[d, k]) * w
                sum_e = sum_e + splat(x[e, k]) * w
                sum_f = sum_f + splat(x[f, k]) * w
                sum_g = sum_g + splat(x[g, k]) * w
                sum_h = sum_h + splat(x[h, k]) * w
            store(out, first * groups + i, sum_a)
            store(out, b * groups + i, sum_b)
            store(out, c * groups + i, sum_c)
            store(out, d * groups + i, sum_d)
            store(out, e * groups + i, sum_e)
            store(out, f * groups + i, sum_f)
            store(out, g * groups + i, sum_g)
            store(out, h * groups + i, sum_h)
