"""Linear layers in which a row is the same whatever rows come with it."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.kernels.linear import linear_rows


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_equals_a_product(num, columns, size, seed):
    x, weight, bias = numbers(seed, num, columns), numbers(1, size, columns), numbers(2, size)
    found = linear_rows(x, weight, bias)
    assert found.shape == (num, size)
    assert found.dtype == np.float32
    expected = x.astype(np.float64) @ weight.astype(np.float64).T + bias
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 100))
def test_a_row_does_not_depend_on_the_others(data, num):
    x, weight, bias = numbers(3, num, 51), numbers(4, 64, 51), numbers(5, 64)
    whole = linear_rows(x, weight, bias)
    some = np.array(data.draw(st.lists(st.integers(0, num - 1), max_size=30)), np.int64)
    np.testing.assert_array_equal(linear_rows(x[some], weight, bias), whole[some])


@pytest.mark.parametrize("core", ["Haswell", "SkylakeX", "Nehalem"])
def test_the_network_does_not_depend_on_the_blas(core):
    """With OpenBLAS's kernels for AVX2 a row's sum depends on where it lies."""
    code = (
        "import numpy as np\n"
        "from ragimpute.model.folder import open_folder\n"
        "from ragimpute.copying_model.pair_network import PairNetwork\n"
        "net = PairNetwork.of_folder(open_folder('default')).site\n"
        "x = np.random.default_rng(1).normal(size=(999, len(net.mean))).astype(np.float32)\n"
        "whole = net.residual(x)\n"
        "for low in range(1, 40):\n"
        "    assert (net.residual(x[low:]) == whole[low:]).all(), low\n"
        "print(whole.tobytes().hex())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "OPENBLAS_CORETYPE": core},
    )  # fmt: skip
    known = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"},
    )  # fmt: skip
    assert run.stdout == known.stdout
