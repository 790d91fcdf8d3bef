"""The per-site network of copying models: from the features of a pair in doubt to its residual.

The formula is written once, for torch's tensors in training and numpy's arrays in imputation. So
the default model corrects dosages without torch, whose import takes longer than the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ragimpute.kernels.linear import linear_rows
from ragimpute.runtime.threads import share

if TYPE_CHECKING:
    from torch import Tensor

    Numbers = TypeVar("Numbers", np.ndarray, Tensor)

# Rows are multiplied so many at a time, so that intermediate results stay in the cache.
ROWS_AT_ONCE = 4096


def linear(x: Numbers, weight: Numbers, bias: Numbers) -> Numbers:
    """A linear map: (..., K) -> (..., D), by a weight of shape (D, K)."""
    out: Numbers = x @ weight.T + bias
    return out


def hidden_layer(
    x: Numbers,
    weight: Numbers,
    bias: Numbers,
    sigmoid: Callable[[Numbers], Numbers],
    linear: Callable[[Numbers, Numbers, Numbers], Numbers] = linear,
) -> Numbers:
    """SiLU of a linear map: (..., K) -> (..., D), by a weight of shape (D, K)."""
    y = linear(x, weight, bias)
    out: Numbers = y * sigmoid(y)
    return out


def site_residual(
    x: Numbers,
    layers: Sequence[tuple[Numbers, Numbers]],
    sigmoid: Callable[[Numbers], Numbers],
    linear: Callable[[Numbers, Numbers, Numbers], Numbers] = linear,
) -> Numbers:
    """The residual of each row.

    Parameters
    ----------
    x
        Shape (..., K): standardised features.
    layers
        Weights (D, K) and biases (D,), from the first to the last, whose D is 1.
    sigmoid
        The logistic function.
    linear
        As :func:`linear`.

    Returns
    -------
    Shape (...).
    """
    for weight, bias in layers[:-1]:
        x = hidden_layer(x, weight, bias, sigmoid, linear)
    return linear(x, *layers[-1])[..., 0]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, elementwise."""
    with np.errstate(over="ignore"):
        out: np.ndarray = 1 / (1 + np.exp(-x))
        return out


def softmax(x: np.ndarray) -> np.ndarray:
    """The probabilities of logits (n, G), by row."""
    weight = np.exp(x - x.max(axis=1, keepdims=True))
    out: np.ndarray = weight / weight.sum(axis=1, keepdims=True)
    return out


@dataclass(frozen=True)
class SiteNet:
    """The network's numbers.

    Attributes
    ----------
    mean, scale
        Shape (F,), float32: the evidence's features are standardised by them.
    layers
        Weights (D, K) and biases (D,), float32; the first K is F or more: what the network reads
        beside the features follows them.
    """

    mean: np.ndarray
    scale: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    def standardise(self, evidence: np.ndarray) -> np.ndarray:
        """Shape (N, F) -> (N, F), float32."""
        out: np.ndarray = (evidence - self.mean) / self.scale
        return out

    def residual(self, x: np.ndarray, *, threads: int = 1) -> np.ndarray:
        """The residual of each row.

        Parameters
        ----------
        x
            Shape (N, K), float32: standardised features, and what follows them.
        threads
            Rows are shared out over so many; what comes out does not depend on it.

        Returns
        -------
        Shape (N,), float32.
        """
        out = np.empty(len(x), np.float32)

        def rows_from(first: int) -> None:
            rows = slice(first, first + ROWS_AT_ONCE)
            out[rows] = site_residual(x[rows], self.layers, sigmoid, linear_rows)

        share(rows_from, range(0, len(x), ROWS_AT_ONCE), threads)
        return out
