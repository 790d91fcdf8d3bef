"""How far the network's residual is to be trusted on a panel, by the frequency of the allele.

A network that corrects Li-Stephens on most panels may make it worse on one that is unlike all that
it has learned from, and most of all at alleles of one frequency. Samples that were left out of the
panel tell. The residual is multiplied by a number for each class of minor allele frequency: the one
that makes the left-out samples' alleles most probable, shrunk to 1 where these say little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.model.site_net import sigmoid

#: The classes end at these frequencies of the minor allele.
EDGES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# How far the numbers of panels are from 1, and those of classes from the panel's: standard
# deviations of the priors.
_SPREAD, _SPREAD_OF_CLASS = 0.2, 0.1
_MOST = 1.2
_STEPS = 25
# The pairs of one sample are alike: together they count less than as many independent ones, by
# the design effect of a cluster sample, which few samples would show too small.
_LEAST_DESIGN_EFFECT = 5.0
_MOST_OF_SAMPLE = 100  # and a sample's pairs never count more than so many independent ones


@dataclass(frozen=True)
class Trust:
    """What residuals are multiplied by.

    Attributes
    ----------
    share
        Shape (len(EDGES) + 1,), float32, in [0, 1.2]: by class of minor allele frequency.
    """

    share: np.ndarray

    def of(self, maf_logit: np.ndarray) -> np.ndarray:
        """The number of each pair, shape (N,), by the logit of its minor allele's frequency."""
        out: np.ndarray = self.share[classes_of(maf_logit)]
        return out


def classes_of(maf_logit: np.ndarray) -> np.ndarray:
    """Each pair's class, shape (N,), int64, by the logit of its minor allele's frequency."""
    edges = np.log(np.array(EDGES) / (1 - np.array(EDGES))).astype(np.float32)
    return np.searchsorted(edges, maf_logit)


def fit_trust(
    offset: np.ndarray,
    residual: np.ndarray,
    y: np.ndarray,
    maf_logit: np.ndarray,
    sample: np.ndarray,
) -> Trust:
    """Find by how much residuals are to be multiplied, from pairs that were not learned from.

    Parameters
    ----------
    offset, residual
        Shape (N,), float32: the Li-Stephens logit, and what the network adds to it.
    y
        Shape (N,), float32: whether the haplotype has the minor allele.
    maf_logit
        Shape (N,), float32: logit of the minor allele's frequency.
    sample
        Shape (N,), int64: which sample each pair is of.

    Returns
    -------
    All shares are 1 if N is 0.
    """
    offset, residual, y = (x.astype(np.float64) for x in (offset, residual, y))
    of_class = classes_of(maf_logit)
    everywhere = _best_share(offset, residual, y, sample, 1.0, _SPREAD)
    share = np.full(len(EDGES) + 1, everywhere, np.float32)
    for c in np.unique(of_class):
        k = of_class == c
        share[c] = _best_share(
            offset[k], residual[k], y[k], sample[k], everywhere, _SPREAD_OF_CLASS
        )
    return Trust(share)


def _best_share(
    offset: np.ndarray,
    residual: np.ndarray,
    y: np.ndarray,
    sample: np.ndarray,
    usual: float,
    spread: float,
) -> float:
    """The share of the residual of highest posterior probability, in [0, 1.2], by Newton's method.

    The prior is normal, around ``usual`` with standard deviation ``spread``.
    """
    if len(y) == 0:
        return usual
    _, of = np.unique(sample, return_inverse=True)
    best = _newton(offset, residual, y, 1 / _LEAST_DESIGN_EFFECT, usual, spread)
    slope = residual * (y - sigmoid(offset + best * residual))
    by_sample = np.bincount(of, slope - slope.mean())
    effect = float((by_sample**2).sum() / max(float((slope**2).sum()), 1e-12))
    # A few samples cannot show how alike their pairs are.
    effect = max(effect, _LEAST_DESIGN_EFFECT, len(y) / (_MOST_OF_SAMPLE * len(by_sample)))
    weight = 1 / effect
    return _newton(offset, residual, y, weight, usual, spread)


def _newton(
    offset: np.ndarray,
    residual: np.ndarray,
    y: np.ndarray,
    weight: float,
    usual: float,
    spread: float,
) -> float:
    """The best share if each pair counts ``weight``; see :func:`_best_share`."""
    s = usual
    for _ in range(_STEPS):
        p = sigmoid(offset + s * residual)
        gradient = weight * float((residual * (y - p)).sum()) - (s - usual) / spread**2
        curve = weight * float((residual**2 * p * (1 - p)).sum()) + 1 / spread**2
        step = gradient / curve
        s = min(max(s + min(max(step, -0.3), 0.3), 0.0), _MOST)
        if abs(step) < 1e-6:
            break
    return s
