"""What the decorators of kernels promise."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core.errors import NumbaError

from ragimpute.kernels import inlined, inlined_reordered, kernel


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
