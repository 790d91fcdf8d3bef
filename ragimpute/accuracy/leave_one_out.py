"""Typed sites imputed as if they were not typed: left-out dosages and empirical R2."""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel


def leave_one_out(
    prob: np.ndarray, observed: np.ndarray, mismatch_prob: float | np.ndarray
) -> np.ndarray:
    """P(ALT) at typed sites without what was observed there.

    Copying gives the posterior mass of the panel haplotypes that carry ALT. The observed allele of
    the site itself is one factor of each haplotype's mass: 1 - ``mismatch_prob`` if the haplotype
    carries it, else ``mismatch_prob``. Division by that factor leaves the observation out, exactly.

    Parameters
    ----------
    prob
        Shape (m, n), float, in [0, 1]: P(ALT) by copying, given all typed sites.
    observed
        Shape (m, n), int8: 0, 1, or negative where nothing was observed, and ``prob`` stays.
    mismatch_prob
        In (0, 0.5): of all sites, or of each, shape (m,), or of each haplotype there, (m, n).

    Returns
    -------
    Shape (m, n), float32, in [0, 1].
    """
    # A column for all haplotypes, or one for each.
    mismatch = np.array(mismatch_prob, np.float64)
    if mismatch.ndim < 2:
        mismatch = np.full((len(prob), 1), mismatch.reshape(-1, 1))
    if not ((mismatch > 0) & (mismatch < 0.5)).all():
        raise ValueError(f"mismatch_prob must be in (0, 0.5), found {mismatch_prob}")
    if mismatch.shape not in ((len(prob), 1), prob.shape):
        raise ValueError(f"mismatch_prob is {mismatch.shape}, prob {prob.shape}")
    out = np.empty(prob.shape, np.float32)
    _divide(
        np.ascontiguousarray(prob, np.float32), np.ascontiguousarray(observed, np.int8),
        np.ascontiguousarray(mismatch), out,
    )  # fmt: skip
    return out


@kernel
def _divide(prob, observed, mismatch, out):
    """See :func:`leave_one_out`; ``mismatch`` (m, n), or (m, 1) for all haplotypes."""
    step = 1 if mismatch.shape[1] > 1 else 0
    for i in range(prob.shape[0]):
        for j in range(prob.shape[1]):
            differ = mismatch[i, j * step]
            agree = 1.0 - differ
            seen = observed[i, j]
            # Each share is to be divided by its own factor. As only their ratio matters, each is
            # multiplied by the other's factor instead.
            alt = np.float64(prob[i, j]) * (differ if seen == 1 else agree)
            ref = (1.0 - np.float64(prob[i, j])) * (differ if seen == 0 else agree)
            out[i, j] = alt / (alt + ref) if seen >= 0 else prob[i, j]


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
    out = np.empty(len(left_out))
    _correlate(
        np.ascontiguousarray(left_out, np.float32), np.ascontiguousarray(observed, np.int8), out
    )
    return out


@kernel
def _correlate(left_out, observed, out):
    """See :func:`correlation`."""
    for i in range(left_out.shape[0]):
        n, sum_x, sum_y = 0, 0.0, 0.0
        for j in range(left_out.shape[1]):
            if observed[i, j] >= 0:
                n += 1
                sum_x += left_out[i, j]
                sum_y += observed[i, j]
        mean_x, mean_y = sum_x / max(n, 1), sum_y / max(n, 1)
        xx, yy, xy = 0.0, 0.0, 0.0
        for j in range(left_out.shape[1]):
            if observed[i, j] >= 0:
                x, y = left_out[i, j] - mean_x, observed[i, j] - mean_y
                xx += x * x
                yy += y * y
                xy += x * y
        varies = xx > 1e-10 and yy > 0.0
        out[i] = min(max(xy / np.sqrt(xx * yy), -1.0), 1.0) if varies else np.nan
