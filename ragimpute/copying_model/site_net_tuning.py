"""Train the per-site network for a few passes on one panel, in numpy.

Weights that serve any panel are a compromise. With pairs from the panel at hand, at the target's
own typed sites, they are moved part of the way to what suits this panel best. Some ten thousand
pairs are enough for that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ragimpute.kernels.linear import linear_rows
from ragimpute.model.site_net import SiteNet, sigmoid
from ragimpute.runtime.stages import tracked

# About 200,000 pairs are read in all: fewer pairs are passed several times, but at most four times.
_MOST_EPOCHS, _PAIRS_READ = 4, 200_000
_BATCH = 1024
_LEARNING_RATE = 1e-3
_WARM_UP = 20
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's
_CLIP = 1.0
# The share of the way from the old weights to the trained ones that the weights are moved. Part of
# the way is on average as good as all of it, and hardly ever worse than the old weights (Wortsman
# et al. 2022).
SHARE = 0.8


def loss_gradient(
    layers: list[tuple[np.ndarray, np.ndarray]], x: np.ndarray, offset: np.ndarray, y: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Gradient of the mean cross-entropy of ``offset`` + residual.

    Parameters
    ----------
    layers
        Weights (D, K) and biases (D,).
    x
        Shape (N, K), float32: standardised features.
    offset
        Shape (N,), float32: what the residual is added to.
    y
        Shape (N,), float32, 0 or 1.

    Returns
    -------
    Gradients in the shapes of the layers.
    """
    inputs, slopes = [x], []
    for weight, bias in layers[:-1]:
        z = linear_rows(inputs[-1], weight, bias)
        s = sigmoid(z)
        inputs.append(z * s)
        slopes.append(s * (1 + z * (1 - s)))
    weight, bias = layers[-1]
    logit = offset + linear_rows(inputs[-1], weight, bias)[:, 0]
    back = ((sigmoid(logit) - y) / np.float32(len(y)))[:, None]  # (N, D)
    gradients = []
    for i in range(len(layers) - 1, -1, -1):
        gradients.append((_product(back.T, inputs[i]), back.sum(axis=0)))
        if i > 0:
            back = _product(back, layers[i][0]) * slopes[i - 1]
    return gradients[::-1]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The matrix product of (N, K) and (K, D), float32.

    No BLAS is used: it sums in an order that depends on the processor, and so would dosages.
    """
    return linear_rows(a, b.T, np.zeros(b.shape[1], np.float32))


def fine_tune(
    net: SiteNet, x: np.ndarray, offset: np.ndarray, y: np.ndarray, *, seed: int = 1
) -> SiteNet:
    """Move a network's weights part of the way to what training on one panel's pairs gives.

    Parameters
    ----------
    net
        The network to start from.
    x, offset, y
        See :func:`loss_gradient`: pairs in doubt, N >= 1.
    seed
        Seed for the order in which pairs are read.

    Returns
    -------
    A network of the same shapes. It depends on the order of the given pairs, too.
    """
    rng = np.random.default_rng(seed)
    batch = min(_BATCH, len(x))
    per_epoch = len(x) // batch
    epochs = int(np.clip(_PAIRS_READ / len(x), 1, _MOST_EPOCHS))
    num_steps = epochs * per_epoch
    flat = [part.copy() for layer in net.layers for part in layer]
    first = [np.zeros_like(part) for part in flat]
    second = [np.zeros_like(part) for part in flat]
    for step in tracked("fit network", range(num_steps)):
        if step % per_epoch == 0:
            order = rng.permutation(len(x))
        rows = order[(step % per_epoch) * batch :][:batch]
        layers = list(zip(flat[::2], flat[1::2], strict=True))
        gradients = [g for layer in loss_gradient(layers, x[rows], offset[rows], y[rows])
                     for g in layer]  # fmt: skip
        norm = float(np.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in gradients)))
        shrink = min(1.0, _CLIP / (norm + 1e-12))
        rate = _LEARNING_RATE * min(1.0, (step + 1) / _WARM_UP)
        rate *= 0.5 * (1 + np.cos(np.pi * step / num_steps))
        rate *= np.sqrt(1 - _BETA_2 ** (step + 1)) / (1 - _BETA_1 ** (step + 1))
        for part, g, m, v in zip(flat, gradients, first, second, strict=True):
            m *= _BETA_1
            m += (1 - _BETA_1) * shrink * g
            v *= _BETA_2
            v += (1 - _BETA_2) * (shrink * g) ** 2
            part -= rate * m / (np.sqrt(v) + _EPSILON)
    layers = [
        (w + np.float32(SHARE) * (u - w), b + np.float32(SHARE) * (c - b))
        for (w, b), u, c in zip(net.layers, flat[::2], flat[1::2], strict=True)
    ]
    return replace(net, layers=tuple(layers))
