"""What the panel's left-out samples say of the r2 that a site's dosages will have.

It stands in for an estimate from the targets where these are too few: the variance of dosages over
one sample, or over a few that are all alike, says nothing of how good dosages are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.evidence.features import QUALITY_FEATURES
from ragimpute.evidence.rare_excess import LeftOutR2

_R2, _ALLELES = (QUALITY_FEATURES.index(name) for name in ("quality_r2", "quality_alleles"))
# The mean r2 is a curve over the logarithm of the copies of the minor allele that can be copied,
# with so many points for each doubling. Each point is blended with its neighbours, and with the
# mean of all sites, which weighs as much as so many sites.
_POINTS, _NEIGHBOUR, _PRIOR_SITES = 2, 0.25, 3.0
# A site's own r2 is blended with the curve, which weighs as much as so many minor alleles among the
# left-out samples. On chr20 of Europeans, 2 to 4 have the least error, and 0 and 8 a larger one.
_PRIOR_ALLELES = 3.0
_LEAST_SITES = 20  # from fewer sites no curve is made


class LeftOutSays(NamedTuple):
    """What the panel's left-out samples say of m sites, from which their DR2 follows.

    Attributes
    ----------
    r2
        Shape (m,), float32, in [0, 1]: :func:`expected_r2`; None: not known.
    copies
        Shape (m,), >= 0: copies of the minor allele in the panel.
    rare_excess
        See :class:`ragimpute.evidence.rare_excess.LeftOutR2`.
    left_out_r2
        What it was computed from; None if it was read from a file.
    """

    r2: np.ndarray | None
    copies: np.ndarray
    rare_excess: float
    left_out_r2: LeftOutR2 | None


class WindowSays(NamedTuple):
    """What imputing a window tells about its results.

    Attributes
    ----------
    mismatch_prob
        Mismatch probability at the T typed sites of the window: shape (T,), or (T, n) if the n
        haplotypes differ. None where P(ALT) at typed sites is not a posterior from which what was
        observed there can be divided out (see
        :func:`ragimpute.accuracy.leave_one_out.leave_one_out`).
    left_out
        What left-out samples of the panel say of the core sites; None where none were left out.
    phase
        Shape (k, N), int8: how the haplotypes of each sample differ at the last k sites of the
        window with its buffer, by which the next window's are put in order; None where the
        target's own phase does that.
    """

    mismatch_prob: np.ndarray | None = None
    left_out: LeftOutSays | None = None
    phase: np.ndarray | None = None


def expected_r2(
    measured: np.ndarray, minor_count: np.ndarray, typed_index: np.ndarray
) -> np.ndarray | None:
    """Expected squared correlation of imputed dosage and truth.

    Parameters
    ----------
    measured
        Shape (M, F), float: of each site first ``QUALITY_FEATURES``, as
        :func:`ragimpute.evidence.site_quality.measure_sites` measures them.
    minor_count
        Shape (M,), >= 0: copies of the minor allele in the panel.
    typed_index
        Shape (T,), int: the typed sites, from which nothing is learnt, as they are copied with what
        was observed there.

    Returns
    -------
    Shape (M,), float32, in [0, 1]; 0 where the panel has no minor allele. None where too few
    untyped sites have minor alleles among the left-out samples.
    """
    r2 = np.clip(measured[:, _R2].astype(np.float64), 0, 1)
    alleles = np.expm1(measured[:, _ALLELES].astype(np.float64))
    untyped = np.ones(len(r2), bool)
    untyped[typed_index] = False
    # A left-out sample's own allele cannot be copied: r2 was measured with one copy less.
    left = minor_count - 1.0
    seen = untyped & (alleles >= 0.5) & (left >= 1)
    if seen.sum() < _LEAST_SITES:
        return None
    curve = _mean_by_count(r2[seen], left[seen], max(float(minor_count.max()), 2.0))
    known = np.interp(_place(minor_count), np.arange(len(curve)), curve)
    gain = known - np.interp(_place(left), np.arange(len(curve)), curve)
    own = np.clip(r2 + gain, 0, 1)
    weight = np.where((alleles >= 0.5) & (left >= 1), alleles, 0.0)
    blended = (weight * own + _PRIOR_ALLELES * known) / (weight + _PRIOR_ALLELES)
    return np.where(minor_count > 0, blended, 0.0).astype(np.float32)


def _place(count: np.ndarray) -> np.ndarray:
    """Where numbers of copies lie on the curve, in points."""
    out: np.ndarray = np.log2(np.maximum(count, 1)) * _POINTS
    return out


def _mean_by_count(r2: np.ndarray, count: np.ndarray, most: float) -> np.ndarray:
    """The mean of ``r2`` at each point of the curve up to ``most`` copies."""
    num = int(np.ceil(np.log2(most) * _POINTS)) + 2
    place = _place(count)
    low = np.floor(place).astype(np.int64)
    total, sites = np.zeros(num), np.zeros(num)
    for point, weight in ((low, 1 - (place - low)), (low + 1, place - low)):
        total += np.bincount(point, weight * r2, minlength=num)[:num]
        sites += np.bincount(point, weight, minlength=num)[:num]
    near = np.array([_NEIGHBOUR, 1.0, _NEIGHBOUR])
    total, sites = np.convolve(total, near, "same"), np.convolve(sites, near, "same")
    out: np.ndarray = (total + _PRIOR_SITES * r2.mean()) / (sites + _PRIOR_SITES)
    return out
