"""How far the network's residual is to be trusted on a panel, by the frequency of the allele.

A network that corrects Li-Stephens on most panels may make it worse on one that is unlike all that
it has learned from, and most of all at alleles of one frequency. Samples that were left out of the
panel tell. The residual is multiplied by a number for each class of minor allele frequency: the one
that makes the left-out samples' alleles most probable, shrunk to that of the panel as a whole, and
this to 1.

How strongly a class is shrunk is decided by the panel itself (a meta-analysis with random effects):
little if its classes differ by more than the errors of their numbers, strongly if they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ragimpute.model.site_net import sigmoid, softmax

# Derivatives of the log likelihood at a number: see _slope_and_curve.
_Slope = Callable[[float], tuple[np.ndarray, float]]

#: The classes end at these frequencies of the minor allele.
EDGES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
# The same as logits. float32, as evidence is: a frequency on an edge belongs to the class it ends.
_EDGE_LOGITS = np.log(np.array(EDGES) / (1 - np.array(EDGES))).astype(np.float32)
# Standard deviation of the numbers of panels around 1. On real and simulated panels of people,
# livestock, fish, lines and insects they are .4 apart.
_SPREAD = 0.3
# Standard deviations that the numbers of a panel's classes may have around the panel's own; beyond
# _USUAL_SPREAD they are less and less likely before the panel is seen (half-Cauchy).
_CLASS_SPREADS = np.array([0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8])
_USUAL_SPREAD = 0.1
_MOST = 1.2
_STEPS = 25
# The confidence that panels want is spread around 1 as Student's t with two degrees of freedom and
# this scale: most want about 1, which few samples show to no better than .05, and some, such as
# livestock at .1x, 1.25. On 27 panels, GP of other people in another stretch at .1x, said to be .03
# to .3 or .7 to .97, was off by .026 (root of the mean square), or .019 by such a confidence.
_CONFIDENCE_SCALE, _CONFIDENCES = 0.05, np.linspace(0.3, 2.0, 341)
# Genotypes tell of it of which none is likelier than this: others are hardly changed by it, and
# those that are wrong all the same would decide alone.
_UNSURE = 0.97
# The search for a class's likeliest number is held near 1 by a prior of this standard deviation.
# It is believed to be at most _FARTHEST from 1.
_SEARCHED, _FARTHEST = 1.0, 2.0
# The pairs of one sample are alike: together they count less than as many independent ones. The
# design effect of a cluster sample says by how much. A few samples cannot show it; before they are
# seen, it is taken to be _DESIGN_EFFECT + _CORRELATION times the pairs of a sample, in all classes,
# as a sample that is unusual is so in all of them. This counts for as much as _USUAL_SAMPLES.
_DESIGN_EFFECT, _CORRELATION, _USUAL_SAMPLES = 3.0, 0.01, 10


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
    return np.searchsorted(_EDGE_LOGITS, maf_logit)


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

    References
    ----------
    Random effects, averaged over their standard deviation: Gelman et al., Bayesian Data Analysis,
    section 5.4.
    """
    offset, residual, y = (x.astype(np.float64) for x in (offset, residual, y))

    def of_rows(k: np.ndarray) -> _Slope:
        return lambda s: _slope_and_curve(offset[k], residual[k], y[k], s)

    return _fit(of_rows, maf_logit, sample)


def fit_genotype_trust(
    logits: np.ndarray,
    change: np.ndarray,
    y: np.ndarray,
    maf_logit: np.ndarray,
    sample: np.ndarray,
) -> Trust:
    """As :func:`fit_trust`, where there may be more than two outcomes.

    Parameters
    ----------
    logits, change
        Shape (N, G), float64: the logits of G outcomes, and what the network adds to them.
    y
        Shape (N,), int: the outcome, in [0, G).
    maf_logit, sample
        As for :func:`fit_trust`.
    """

    def of_rows(k: np.ndarray) -> _Slope:
        return lambda s: _genotype_slope(logits[k], change[k], y[k], s)

    return _fit(of_rows, maf_logit, sample)


def fit_confidence(
    logits: np.ndarray, reads: np.ndarray, y: np.ndarray, sample: np.ndarray
) -> float:
    """By which number logits of genotypes are to be multiplied to be as sure as they are right.

    It is what the genotypes in doubt let one expect, drawn to 1 if they are few.

    Parameters
    ----------
    logits, reads
        Shape (N, G), float64: logits of G genotypes, which are multiplied, and ln P(reads | each).
    y
        Shape (N,), int: the genotype, in [0, G).
    sample
        Shape (N,), int64: which sample each is of.

    Returns
    -------
    In (0.3, 2); 1 if none is in doubt.
    """
    unsure = np.flatnonzero(softmax(logits + reads).max(axis=1) < _UNSURE)
    if not len(unsure):
        return 1.0
    logits, reads, y, sample = (x[unsure] for x in (logits, reads, y, sample))
    usual = _usual_effect(sample)
    found, precision = _likeliest(lambda s: _genotype_slope(reads, logits, y, s), sample, usual)
    log = -1.5 * np.log1p(((_CONFIDENCES - 1) / _CONFIDENCE_SCALE) ** 2 / 2)
    log -= precision * (_CONFIDENCES - found) ** 2 / 2
    chance = np.exp(log - log.max())
    return float(chance @ _CONFIDENCES / chance.sum())


def _usual_effect(sample: np.ndarray) -> float:
    """The design effect before the samples are seen, of pairs of samples, shape (N,)."""
    return _DESIGN_EFFECT + _CORRELATION * len(sample) / max(len(np.unique(sample)), 1)


def _fit(
    of_rows: Callable[[np.ndarray], _Slope], maf_logit: np.ndarray, sample: np.ndarray
) -> Trust:
    """The trust in each class; ``of_rows`` gives the derivatives of chosen rows, by the number."""
    of_class = classes_of(maf_logit)
    likeliest, precision = np.ones(len(EDGES) + 1), np.zeros(len(EDGES) + 1)
    usual = _usual_effect(sample)
    for c in np.unique(of_class):
        k = of_class == c
        likeliest[c], precision[c] = _likeliest(of_rows(k), sample[k], usual)
    share = np.clip(_shrunk(likeliest, precision), 0, _MOST)
    return Trust(share.astype(np.float32))


def _likeliest(derivatives: _Slope, sample: np.ndarray, usual: float) -> tuple[float, float]:
    """The likeliest number for the pairs of a class by Newton's method, and 1 / its variance.

    ``usual``: the design effect before the samples are seen.
    """
    s = 1.0
    for _ in range(_STEPS):
        slope, curve = derivatives(s)
        step = (slope.sum() / usual - (s - 1) / _SEARCHED**2) / (curve / usual + 1 / _SEARCHED**2)
        s += min(max(step, -0.5), 0.5)
        if abs(step) < 1e-6:
            break
    slope, curve = derivatives(s)
    samples, of = np.unique(sample, return_inverse=True)
    num = len(samples)
    by_sample = np.bincount(of, slope - slope.mean())
    among = float((by_sample**2).sum()) * num / max(num - 1, 1)
    found = among / max(float((slope**2).sum()), 1e-12)
    effect = max((num * found + _USUAL_SAMPLES * usual) / (num + _USUAL_SAMPLES), 1.0)
    # One more step, without the prior. Pairs that would have it farther away hardly know.
    alone = s + float(slope.sum()) / curve
    return min(max(alone, 1 - _FARTHEST), 1 + _FARTHEST), curve / effect


def _slope_and_curve(
    offset: np.ndarray, residual: np.ndarray, y: np.ndarray, s: float
) -> tuple[np.ndarray, float]:
    """Derivatives of the log likelihood at s: the first by pair, the negative second in all."""
    p = sigmoid(offset + s * residual)
    return residual * (y - p), max(float((residual**2 * p * (1 - p)).sum()), 1e-12)


def _genotype_slope(
    logits: np.ndarray, change: np.ndarray, y: np.ndarray, s: float
) -> tuple[np.ndarray, float]:
    """The same for any number of outcomes."""
    p = softmax(logits + s * change)
    expected = (p * change).sum(axis=1)
    curve = float((p * (change - expected[:, None]) ** 2).sum())
    return change[np.arange(len(y)), y] - expected, max(curve, 1e-12)


def _shrunk(likeliest: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """What is expected of the classes' numbers, shape (C,), all classes of the panel considered.

    ``likeliest``, ``precision``: shape (C,), of each class alone; a precision of 0 says nothing.
    """
    spread = _CLASS_SPREADS[:, None]  # (S, 1)
    weight = precision / (1 + precision * spread**2)  # (S, C): 1 / (spread^2 + 1 / precision)
    total = weight.sum(axis=1) + 1 / _SPREAD**2
    panel = ((weight * likeliest).sum(axis=1) + 1 / _SPREAD**2) / total
    # How probable the classes' numbers are by each spread, up to a common factor; a class that says
    # nothing adds nothing.
    log = -0.5 * (np.log1p(precision * spread**2).sum(axis=1) + np.log(total))
    log -= 0.5 * ((weight * (likeliest - 1) ** 2).sum(axis=1) - total * (panel - 1) ** 2)
    log += np.log(np.gradient(_CLASS_SPREADS) / (1 + (_CLASS_SPREADS / _USUAL_SPREAD) ** 2))
    chance = np.exp(log - log.max())
    own = weight * spread**2
    each = own * likeliest + (1 - own) * panel[:, None]  # (S, C)
    out: np.ndarray = chance @ each / chance.sum()
    return out
