"""Training in numpy: torch's gradients, and a network that knows its panel better."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ragimpute.copying_model.site_net_tuning import SHARE, fine_tune, loss_gradient
from ragimpute.model.site_net import SiteNet, site_residual


def layers_of(rng, sizes):
    """Weights and biases of layers of so many inputs and outputs."""
    return [
        (
            (rng.normal(size=(d, k)) / np.sqrt(k)).astype(np.float32),
            rng.normal(size=d, scale=0.3).astype(np.float32),
        )
        for k, d in pairwise(sizes)
    ]


def net_of(seed=1, num_features=6, width=16):
    """A network whose residual is zero as yet."""
    layers = layers_of(np.random.default_rng(seed), (num_features, width, width, 1))
    layers[-1] = (np.zeros_like(layers[-1][0]), np.zeros_like(layers[-1][1]))
    mean, scale = np.zeros(num_features, np.float32), np.ones(num_features, np.float32)
    return SiteNet(mean, scale, tuple(layers))


def pairs_of(num, seed=1, num_features=6):
    """Pairs whose offset is wrong by what two of the features say: x, offset, y."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num, num_features)).astype(np.float32)
    offset = rng.normal(size=num).astype(np.float32)
    logit = offset + 2 * x[:, 0] - 1.5 * x[:, 1]
    y = (rng.random(num) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    return x, offset, y


def cross_entropy(net, x, offset, y):
    """Mean over pairs, in nats."""
    return float(np.mean(np.logaddexp(0, np.where(y > 0, -1, 1) * (offset + net.residual(x)))))


def flat(net):
    """All weights and biases as one row of numbers."""
    return np.concatenate([part.ravel() for layer in net.layers for part in layer])


@pytest.mark.parametrize("sizes", [(5, 1), (5, 8, 1), (5, 8, 7, 1)])
def test_gradient_is_torchs(sizes):
    rng = np.random.default_rng(len(sizes))
    layers = layers_of(rng, sizes)
    x, offset, y = pairs_of(300, num_features=5)
    tensors = [
        (torch.tensor(w, requires_grad=True), torch.tensor(b, requires_grad=True))
        for w, b in layers
    ]
    logit = torch.from_numpy(offset) + site_residual(torch.from_numpy(x), tensors, torch.sigmoid)
    F.binary_cross_entropy_with_logits(logit, torch.from_numpy(y)).backward()
    for found, of in zip(loss_gradient(layers, x, offset, y), tensors, strict=True):
        for gradient, tensor in zip(found, of, strict=True):
            expected = tensor.grad.numpy()
            assert gradient.shape == expected.shape
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(
                gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
            )


def test_what_is_learned_holds_for_other_pairs():
    net, held_out = net_of(), pairs_of(5_000, seed=2)
    tuned = fine_tune(net, *pairs_of(40_000))
    before, after = cross_entropy(net, *held_out), cross_entropy(tuned, *held_out)
    assert after < before - 0.02
    for (w, b), (u, c) in zip(net.layers, tuned.layers, strict=True):
        assert (w.shape, b.shape, w.dtype, b.dtype) == (u.shape, c.shape, u.dtype, c.dtype)


def test_the_seed_decides_and_nothing_is_changed():
    net, pairs = net_of(), pairs_of(3_000)
    kept = flat(net).copy(), [part.copy() for part in pairs]
    one = fine_tune(net, *pairs, seed=1)
    np.testing.assert_array_equal(flat(fine_tune(net, *pairs, seed=1)), flat(one))
    other = flat(fine_tune(net, *pairs, seed=2))
    assert (other != flat(one)).any()
    np.testing.assert_allclose(other, flat(one), atol=0.01)
    np.testing.assert_array_equal(flat(net), kept[0])
    for part, before in zip(pairs, kept[1], strict=True):
        np.testing.assert_array_equal(part, before)


def test_one_pair_and_a_few():
    net = net_of()
    for num in (1, 3, 200):
        pairs = pairs_of(num)
        tuned = fine_tune(net, *pairs)
        assert np.isfinite(flat(tuned)).all()
        assert (flat(tuned) != flat(net)).any()
        assert cross_entropy(tuned, *pairs) < cross_entropy(net, *pairs)


def test_part_of_the_change_is_kept(monkeypatch):
    net, pairs = net_of(), pairs_of(3_000)
    part = flat(fine_tune(net, *pairs)) - flat(net)
    monkeypatch.setattr("ragimpute.copying_model.site_net_tuning.SHARE", 1.0)
    whole = flat(fine_tune(net, *pairs)) - flat(net)
    assert np.abs(whole).max() > 3e-4
    np.testing.assert_allclose(part, SHARE * whole, atol=1e-6)


@pytest.mark.parametrize("core", ["Haswell", "SkylakeX", "Nehalem"])
def test_the_network_does_not_depend_on_the_processors_blas(core):
    code = (
        "import numpy as np\n"
        "from ragimpute.copying_model.site_net_tuning import fine_tune\n"
        "from ragimpute.model.site_net import SiteNet\n"
        "rng = np.random.default_rng(1)\n"
        "def some(*shape): return rng.normal(0, 0.3, shape).astype(np.float32)\n"
        "layers = ((some(33, 21), some(33)), (some(17, 33), some(17)), (some(1, 17), some(1)))\n"
        "net = SiteNet(some(21), np.ones(21, np.float32), layers)\n"
        "x, offset = some(3_000, 21), some(3_000)\n"
        "tuned = fine_tune(net, x, offset, (x[:, 0] + offset > 0).astype(np.float32))\n"
        "print(b''.join(part.tobytes() for layer in tuned.layers for part in layer).hex())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env=os.environ | {"OPENBLAS_CORETYPE": name},
        ).stdout
        for name in (core, "Zen")
    ]  # fmt: skip
    assert len(outputs[0]) > 1_000
    assert outputs[0] == outputs[1]
