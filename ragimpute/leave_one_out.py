"""Typed sites imputed as if they were not typed: left-out dosages and empirical R2."""

from __future__ import annotations

import numpy as np


def leave_one_out(
    prob: np.ndarray, observed: np.ndarray, mismatch_prob: float | np.ndarray
) -> np.ndarray:
    """P(ALT) at typed sites without what was observed there.

    Copying gives the posterior mass of the panel haplotypes that carry ALT, in which the site's own
    allele is one factor: 1 - ``mismatch_prob`` for the haplotypes that carry it, ``mismatch_prob``
    for the others. Dividing by that factor leaves it out, exactly.

    Parameters
    ----------
    prob
        Any shape, float, in [0, 1]: P(ALT) by copying, given all typed sites.
    observed
        Same shape, int8: 0, 1, or negative where nothing was observed, and ``prob`` stays.
    mismatch_prob
        In (0, 0.5): of all, or an array that broadcasts.

    Returns
    -------
    Same shape, float32, in [0, 1].
    """
    mismatch = np.asarray(mismatch_prob, np.float64)
    if not ((mismatch > 0) & (mismatch < 0.5)).all():
        raise ValueError(f"mismatch_prob must be in (0, 0.5), found {mismatch_prob}")
    given = np.asarray(prob, np.float64)
    agree, differ = 1 - mismatch, mismatch
    alt = given / np.where(observed == 1, agree, differ)
    ref = (1 - given) / np.where(observed == 0, agree, differ)
    left_out = np.where(observed >= 0, alt / (alt + ref), given)
    return left_out.astype(np.float32)


def correlation(left_out: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Correlation of left-out dosages with what was observed, over haplotypes.

    Parameters
    ----------
    left_out
        Shape (m, n), in [0, 1].
    observed
        Shape (m, n), int8: 0, 1, or negative where nothing was observed: such pairs do not count.

    Returns
    -------
    Shape (m,), float64, in [-1, 1]; NaN where either is constant. Its square is INFO/ER2.

    References
    ----------
    EmpRsq of Minimac (Howie et al. 2012), which has the same definition.
    """
    known = observed >= 0
    n = np.maximum(known.sum(axis=1), 1)
    x = np.where(known, left_out, 0.0).astype(np.float64)
    y = np.where(known, observed, 0).astype(np.float64)
    x -= np.where(known, (x.sum(axis=1) / n)[:, None], 0)
    y -= np.where(known, (y.sum(axis=1) / n)[:, None], 0)
    xx, yy, xy = (x * x).sum(axis=1), (y * y).sum(axis=1), (x * y).sum(axis=1)
    varies = (xx > 1e-10) & (yy > 0)
    r = np.divide(xy, np.sqrt(xx * yy), out=np.full(len(x), np.nan), where=varies)
    return np.clip(r, -1, 1)
