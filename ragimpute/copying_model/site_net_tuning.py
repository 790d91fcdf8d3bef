"""A few passes of training of the per-site network on one panel, in numpy.

Weights that carry over to any panel are a compromise. The panel at hand says by how much it differs
from those that the network learned from, at the target's own typed sites; some ten thousand pairs
are enough to follow it part of the way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ragimpute.kernels.linear import linear_rows
from ragimpute.model.site_net import SiteNet, sigmoid

# Few pairs are passed four times; more do not make it longer.
_MOST_EPOCHS, _PAIRS_READ = 4, 200_000
_BATCH = 1024
_LEARNING_RATE = 1e-3
_WARM_UP = 20
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's
_CLIP = 1.0
# How far the weights go from where they were to where training takes them. Part of the way is as
# good on average as all of it, and next to never worse than not to go (Wortsman et al. 2022).
SHARE = 0.6


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

    Not by a BLAS: each processor's sums in another order, and dosages would depend on it.
    """
    return linear_rows(a, b.T, np.zeros(b.shape[1], np.float32))


def fine_tune(
    net: SiteNet, x: np.ndarray, offset: np.ndarray, y: np.ndarray, *, seed: int = 1
) -> SiteNet:
    """Train a network some way towards what one panel says.

    Parameters
    ----------
    net
        Where to start.
    x, offset, y
        See :func:`loss_gradient`: pairs in doubt, N >= 1.
    seed
        Of the order of the pairs.

    Returns
    -------
    A network of the same kind; it is not the same for other orders of the same pairs.
    """
    rng = np.random.default_rng(seed)
    batch = min(_BATCH, len(x))
    per_epoch = len(x) // batch
    epochs = int(np.clip(_PAIRS_READ / len(x), 1, _MOST_EPOCHS))
    num_steps = epochs * per_epoch
    flat = [part.copy() for layer in net.layers for part in layer]
    first = [np.zeros_like(part) for part in flat]
    second = [np.zeros_like(part) for part in flat]
    for step in range(num_steps):
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
