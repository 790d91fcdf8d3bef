"""The per-site network in numpy: torch's numbers, whatever rows come in together."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ragimpute.copying_model.pair_network import PairNetwork
from ragimpute.model.checkpoint import load_model
from ragimpute.model.copying_net import CopyingResidual
from ragimpute.model.site_net import ROWS_AT_ONCE, SiteNet, sigmoid


@pytest.fixture(scope="module")
def shipped():
    """The default model with its weights."""
    return load_model("default")


@pytest.fixture(scope="module")
def net(shipped):
    return PairNetwork.of_model(shipped).site


def rows_of(net, num, seed=1):
    """Standardised features of rows, (num, F)."""
    return np.random.default_rng(seed).normal(size=(num, len(net.mean))).astype(np.float32)


@pytest.mark.parametrize("num", [1, 7, ROWS_AT_ONCE, ROWS_AT_ONCE + 1])
def test_equals_torch(shipped, net, num):
    evidence = rows_of(net, num, num) * net.scale + net.mean
    with torch.inference_mode():
        expected = shipped.model.residual(torch.from_numpy(evidence)).numpy()
    found = net.residual(net.standardise(evidence))
    assert found.shape == (num,)
    assert found.dtype == np.float32
    assert np.abs(found).mean() > 0.001
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_a_row_does_not_depend_on_the_others(net):
    x = rows_of(net, 2 * ROWS_AT_ONCE + 77)
    whole = net.residual(x)
    rng = np.random.default_rng(2)
    order = rng.permutation(len(x))
    np.testing.assert_array_equal(net.residual(x[order]), whole[order])
    for some in (slice(5, 6), slice(3, 90), slice(ROWS_AT_ONCE - 1, None, 3)):
        np.testing.assert_array_equal(net.residual(x[some]), whole[some])
    np.testing.assert_array_equal(net.residual(x, threads=3), whole)
    assert len(np.unique(whole)) > len(x) // 2


def test_no_rows(net):
    assert net.residual(rows_of(net, 0)).shape == (0,)


def test_large_numbers_are_no_warning(net):
    x = np.where(rows_of(net, 500) > 0, np.float32(1e4), np.float32(-1e4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(net.residual(x, threads=2)).all()
        np.testing.assert_array_equal(
            sigmoid(np.array([-1e4, 0, 1e4], np.float32)), np.array([0, 0.5, 1], np.float32)
        )


def test_a_last_layer_of_zeros_changes_nothing(net):
    torch.manual_seed(1)
    residual = CopyingResidual(
        num_features=len(net.mean), width=64, num_context_layers=0, num_heads=4
    )
    layers = tuple((w.detach().numpy(), b.detach().numpy()) for w, b in residual.site_layers())
    assert all(np.abs(weight).max() > 0 for weight, _ in layers[:-1])
    fresh = SiteNet(net.mean, net.scale, layers)
    np.testing.assert_array_equal(fresh.residual(rows_of(net, 300)), np.zeros(300, np.float32))
