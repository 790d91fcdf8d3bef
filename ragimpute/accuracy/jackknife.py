"""How much of an aggregate r2 is chance: the delete-one-sample jackknife.

Sites of one sample are not independent of each other, but samples are nearly so. A sample is left
out, the r2 of the others is computed, and the spread of these tells the standard error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragimpute.accuracy.metrics import MAF_BINS, NUM_SUMS, maf_bin, pair_sums, r2_of_sums


class SampleSums:
    """Sums by MAF bin and sample, from which the r2 without each sample follows.

    Parameters
    ----------
    num_samples
        N, >= 1.
    bins
        Ascending MAF edges.
    """

    def __init__(self, num_samples: int, bins: Sequence[float] = MAF_BINS) -> None:
        self.edges = tuple(float(edge) for edge in bins)
        # One row more, the last, holds sites that are in no bin.
        self._sums = np.zeros((len(self.edges), num_samples, NUM_SUMS))

    def update(self, dosage: np.ndarray, truth: np.ndarray, maf: np.ndarray) -> None:
        """Add sites.

        Parameters
        ----------
        dosage, truth
            Shape (m, N), counted in the minor allele; pairs where either is NaN do not count.
        maf
            Shape (m,), in [0, 0.5].
        """
        x, y = np.asarray(dosage, np.float64), np.asarray(truth, np.float64)
        group = maf_bin(maf, bins=self.edges)
        for row in np.unique(group):
            here = group == row
            self._sums[row] += pair_sums(x[here], y[here], axis=0)

    def r2_without(self) -> np.ndarray:
        """The aggregate r2 of all samples but one.

        Returns
        -------
        Shape (N, bins + 1), float64: row i without sample i, in [0, 1], the last column over all
        sites; NaN where undefined.
        """
        by_bin = self._sums.sum(axis=1, keepdims=True) - self._sums
        all_sites = by_bin.sum(axis=0, keepdims=True)
        return r2_of_sums(np.concatenate([by_bin[:-1], all_sites])).T


def standard_error(without: np.ndarray) -> np.ndarray:
    """Standard error of a figure, or of a difference of two figures.

    Parameters
    ----------
    without
        Shape (N, ...): the figure without each of the N samples. The difference of two tools on
        the same samples is that of their arrays.

    Returns
    -------
    Shape (...,), float64, >= 0; NaN where any of the figures is undefined, or N < 2.

    References
    ----------
    Efron & Stein 1981, the delete-one jackknife: (N - 1) / N times the sum of squares.
    """
    number = len(without)
    if number < 2:
        return np.full(without.shape[1:], np.nan)
    squares = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    out: np.ndarray = np.sqrt(squares * (number - 1) / number)
    return out
