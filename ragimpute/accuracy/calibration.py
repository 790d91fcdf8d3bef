"""Calibration: whether probabilities agree with observed shares, and estimated with true r2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragimpute.accuracy.metrics import MAF_BINS, maf_bin


class CalibrationAccumulator:
    """Compares the probabilities given for alleles with how often the alleles are there.

    Parameters
    ----------
    num_bins
        Equal intervals of the probability.
    """

    def __init__(self, num_bins: int = 20) -> None:
        self.sums = np.zeros((num_bins, 1, 3))  # by sample: n, sum of p, sum of the truth

    def update(self, allele_prob: np.ndarray, true: np.ndarray) -> None:
        """Add probabilities and what is true.

        Parameters
        ----------
        allele_prob, true
            Of one shape, (m,), or (m, N) for m sites of N samples, the same in each call:
            probabilities in [0, 1] and true alleles (0, 1); NaN and -1 are skipped.
        """
        p, y = np.asarray(allele_prob, np.float64), np.asarray(true, np.float64)
        num_bins = len(self.sums)
        if p.ndim == 1:  # taken for those of one sample
            p, y = p[:, None], y[:, None]
        num_samples = p.shape[1]
        if not self.sums.any():
            self.sums = np.zeros((num_bins, num_samples, 3))
        known = ~np.isnan(p) & (y >= 0)
        p, y, sample = p[known], y[known], np.nonzero(known)[1]
        group = np.clip((p * num_bins).astype(np.int64), 0, num_bins - 1)
        place, places = group * num_samples + sample, num_bins * num_samples
        for column, values in enumerate((np.ones_like(p), p, y)):
            counts = np.bincount(place, values, minlength=places)
            self.sums[:, :, column] += counts.reshape(num_bins, num_samples)

    def result(self) -> np.ndarray:
        """Shape (bins, 3): mean probability, observed share (NaN where empty), number of pairs."""
        sums = self.sums.sum(axis=1)
        n = sums[:, :1]
        means = np.divide(sums[:, 1:], n, out=np.full((len(n), 2), np.nan), where=n > 0)
        return np.hstack([means, n])

    def standard_error(self) -> np.ndarray:
        """Standard error of observed share minus mean probability, shape (bins,).

        Samples are taken to be independent, but not the sites of a sample, as neighbouring sites
        err together. It is that of a ratio (Cochran 1977, 6.4); NaN where fewer than two samples
        have any pair.
        """
        n, p, y = np.moveaxis(self.sums, 2, 0)
        total = n.sum(axis=1)
        num = n.shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            off = (y - p).sum(axis=1) / total
            rest = (y - p) - off[:, None] * n
            error = np.sqrt(num / max(1, num - 1) * (rest**2).sum(axis=1)) / total
        return np.where((n > 0).sum(axis=1) > 1, error, np.nan)

    def expected_error(self) -> float:
        """Mean absolute difference of probability and observed share, weighted by pairs (ECE)."""
        mean = self.result()
        total = mean[:, 2].sum()
        if total == 0:
            return float("nan")
        return float(np.nansum(np.abs(mean[:, 0] - mean[:, 1]) * mean[:, 2]) / total)


@dataclass(frozen=True)
class QualityCalibration:
    """Estimated against true r2 of sites, by MAF bin and (last) over all; NaN where undefined.

    Attributes
    ----------
    mean_estimated, mean_true
        Shape (bins + 1,), float64.
    correlation
        Shape (bins + 1,), float64, Pearson's over sites.
    num_sites
        Shape (bins + 1,), int64: sites whose truth varies.
    """

    edges: tuple[float, ...]
    mean_estimated: np.ndarray
    mean_true: np.ndarray
    correlation: np.ndarray
    num_sites: np.ndarray


def calibrate_quality(
    estimated: np.ndarray, true: np.ndarray, maf: np.ndarray, *, bins: Sequence[float] = MAF_BINS
) -> QualityCalibration:
    """Compare estimated with true r2 of sites (INFO/DR2 with
    :func:`ragimpute.accuracy.metrics.site_r2`).

    Parameters
    ----------
    estimated, true, maf
        Shape (M,); sites where either r2 is NaN do not count.
    bins
        Ascending MAF edges.
    """
    known = ~(np.isnan(estimated) | np.isnan(true))
    group = maf_bin(maf, bins=bins)
    rows = []
    for which in [*(group == i for i in range(len(bins) - 1)), np.ones(len(group), bool)]:
        x, y = estimated[which & known], true[which & known]
        if len(x) == 0:
            rows.append((np.nan, np.nan, np.nan, 0))
            continue
        defined = len(x) > 1 and np.std(x) > 0 and np.std(y) > 0
        correlation = float(np.corrcoef(x, y)[0, 1]) if defined else np.nan
        rows.append((float(np.mean(x)), float(np.mean(y)), correlation, len(x)))
    columns = np.array(rows, dtype=np.float64).T
    return QualityCalibration(
        edges=tuple(float(edge) for edge in bins),
        mean_estimated=columns[0],
        mean_true=columns[1],
        correlation=columns[2],
        num_sites=columns[3].astype(np.int64),
    )
