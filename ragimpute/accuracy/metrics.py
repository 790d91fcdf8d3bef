"""Accuracy of imputed dosages and calls, overall and by minor allele frequency, as streamed sums.

Everything here is sums of numpy arrays: memory does not grow with the number of sites, parts of a
run may be added up in any order, and several processes may share the work. Dosages are counted in
the allele that is minor in the panel, so that sites where ALT is the major allele do not inflate
r2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAF_BINS = (0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
# A variance below this share of the mean square is nothing but rounding error of the sums.
_CONSTANT = 1e-12
NUM_SUMS = 6  # n, x, y, xx, yy, xy


@dataclass(frozen=True)
class BinnedR2:
    """Squared correlation by MAF bin.

    Attributes
    ----------
    edges
        Bin i holds ``edges[i] < maf <= edges[i + 1]``.
    r2
        Shape (bins,), float64, in [0, 1]; NaN where a bin is empty or one side is constant.
    num_sites, num_pairs
        Shape (bins,), int64: sites (as given to ``update``) and pairs (site, sample) in each bin.
    all
        Over all sites, those of MAF 0 included; NaN where undefined.
    num_sites_all, num_pairs_all
        Sites and pairs behind ``all``.
    """

    edges: tuple[float, ...]
    r2: np.ndarray
    num_sites: np.ndarray
    num_pairs: np.ndarray
    all: float
    num_sites_all: int
    num_pairs_all: int

    def labels(self) -> list[str]:
        """A short name for each bin: "<=0.002"."""
        return [f"<={edge:g}" for edge in self.edges[1:]]

    def as_dict(self) -> dict[str, float | None]:
        """r2 by bin label and "all"; None where undefined, so that it can be written as JSON."""
        values = zip([*self.labels(), "all"], [*self.r2.tolist(), self.all], strict=True)
        return {label: None if np.isnan(value) else value for label, value in values}


def maf_bin(maf: np.ndarray, *, bins: Sequence[float] = MAF_BINS) -> np.ndarray:
    """The bin of each site.

    Parameters
    ----------
    maf
        Any shape, minor allele frequency in the panel, in [0, 0.5]. It is rounded to 7 digits
        first, so that 3 / 600 and 1 - 597 / 600 fall into the same bin, and so do 25 / 500 in
        float32 and in float64.
    bins
        Ascending edges; bin i is ``(bins[i], bins[i + 1]]``.

    Returns
    -------
    Same shape, int64; -1 for a MAF in no bin (0 among them).
    """
    edges = np.asarray(bins, dtype=np.float64)
    found = np.searchsorted(edges, np.round(np.asarray(maf, np.float64), 7), side="left") - 1
    return np.where(found < len(edges) - 1, found, -1)


def count_minor(dosage: np.ndarray, alt_is_minor: np.ndarray, ploidy: np.ndarray) -> np.ndarray:
    """Dosage of the panel's minor allele from the dosage of ALT.

    Parameters
    ----------
    dosage
        Shape (M, N), ALT dosage in [0, ploidy], or true ALT count; NaN where missing.
    alt_is_minor
        Shape (M,), bool.
    ploidy
        Shape (N,) or (M, N), 1 or 2.

    Returns
    -------
    Shape (M, N).
    """
    return np.where(alt_is_minor[:, None], dosage, ploidy - dosage)


class R2Accumulator:
    """Sums n, x, y, xx, yy, xy by MAF bin, from which the pooled squared correlation follows.

    Parameters
    ----------
    bins
        Ascending MAF edges.

    References
    ----------
    "Aggregate r2" as in Browning & Browning 2016 and Rubinacci et al. 2020.
    """

    def __init__(self, bins: Sequence[float] = MAF_BINS) -> None:
        self.edges = tuple(float(edge) for edge in bins)
        # One row more, the last, holds sites that are in no bin.
        self._sums = np.zeros((len(self.edges), NUM_SUMS))
        self._num_sites = np.zeros(len(self.edges), dtype=np.int64)
        self._site_r2_sum = 0.0
        self._site_r2_count = 0

    def update(self, dosage: np.ndarray, truth: np.ndarray, maf: np.ndarray) -> None:
        """Add sites.

        Parameters
        ----------
        dosage, truth
            Shape (m, N), counted in the minor allele; pairs where either is NaN do not count.
        maf
            Shape (m,), in [0, 0.5].

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        x, y = np.asarray(dosage, np.float64), np.asarray(truth, np.float64)
        if x.shape != y.shape or x.ndim != 2 or len(maf) != len(x):
            raise ValueError(f"shapes {x.shape}, {y.shape} and {np.shape(maf)} do not fit")
        sums = pair_sums(x, y, axis=1)  # (m, 6)
        group = maf_bin(maf, bins=self.edges)
        np.add.at(self._sums, group, sums)
        np.add.at(self._num_sites, group, 1)
        varies = _varies(sums[:, 0], sums[:, 2], sums[:, 4])
        site = np.nan_to_num(r2_of_sums(sums[varies]))
        self._site_r2_sum += float(site.sum())
        self._site_r2_count += len(site)

    def update_pairs(self, dosage: np.ndarray, truth: np.ndarray, maf: np.ndarray) -> None:
        """Add pairs (site, sample), all of shape (n,); here each pair counts as a site."""
        x, y = np.asarray(dosage, np.float64), np.asarray(truth, np.float64)
        if x.ndim != 1 or not x.shape == y.shape == np.shape(maf):
            raise ValueError(f"shapes {x.shape}, {y.shape} and {np.shape(maf)} do not fit")
        group = maf_bin(maf, bins=self.edges)
        group[group < 0] = len(self.edges) - 1
        columns = (np.ones_like(x), x, y, x * x, y * y, x * y)
        for column, values in enumerate(columns):
            self._sums[:, column] += np.bincount(group, values, minlength=len(self.edges))
        self._num_sites += np.bincount(group, minlength=len(self.edges))

    def state(self) -> np.ndarray:
        """Everything as one float64 vector, to be added up over processes."""
        tail = [self._site_r2_sum, float(self._site_r2_count)]
        return np.concatenate([self._sums.ravel(), self._num_sites, tail])

    def load_state(self, state: np.ndarray) -> None:
        """Take over a (summed) vector that :meth:`state` made."""
        size = self._sums.size
        self._sums = state[:size].reshape(self._sums.shape).astype(np.float64)
        self._num_sites = np.rint(state[size : size + len(self.edges)]).astype(np.int64)
        self._site_r2_sum, self._site_r2_count = float(state[-2]), round(float(state[-1]))

    def merge(self, other: R2Accumulator) -> None:
        """Add the sums of another accumulator with the same bins."""
        if other.edges != self.edges:
            raise ValueError(f"bins {other.edges} and {self.edges} differ")
        self.load_state(self.state() + other.state())

    def result(self) -> BinnedR2:
        """The squared correlations of what was added so far."""
        pairs = self._sums[:, 0].astype(np.int64)
        return BinnedR2(
            edges=self.edges,
            r2=r2_of_sums(self._sums[:-1]),
            num_sites=self._num_sites[:-1].copy(),
            num_pairs=pairs[:-1],
            all=float(r2_of_sums(self._sums.sum(axis=0))),
            num_sites_all=int(self._num_sites.sum()),
            num_pairs_all=int(pairs.sum()),
        )

    def r2_up_to(self, maf: float) -> float:
        """Squared correlation over the bins whose upper edge is at most ``maf``; NaN if none."""
        within = np.asarray(self.edges[1:]) <= maf + 1e-9
        return float(r2_of_sums(self._sums[:-1][within].sum(axis=0)))

    def site_mean_r2(self) -> float:
        """Mean r2 over sites whose truth varies; one that is imputed as constant counts 0."""
        if self._site_r2_count == 0:
            return float("nan")
        return self._site_r2_sum / self._site_r2_count


def pair_sums(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """n, x, y, xx, yy, xy along ``axis``, without pairs that hold a NaN."""
    missing = np.isnan(x) | np.isnan(y)
    if missing.any():
        x, y = np.where(missing, 0.0, x), np.where(missing, 0.0, y)
    n = (~missing).sum(axis=axis, dtype=np.float64)
    parts = (x, y, x * x, y * y, x * y)
    return np.stack([n, *(part.sum(axis=axis) for part in parts)], axis=-1)


def _varies(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Whether values with these sums differ from each other by more than rounding."""
    out: np.ndarray = (n > 0) & (squares * n - total**2 > _CONSTANT * squares * n)
    return out


def r2_of_sums(sums: np.ndarray) -> np.ndarray:
    """Squared Pearson correlation from sums (..., 6); NaN where a side is constant."""
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    defined = _varies(n, x, xx) & _varies(n, y, yy)
    spread = (n * xx - x**2) * (n * yy - y**2)
    r2 = np.divide((n * xy - x * y) ** 2, spread, out=np.full(n.shape, np.nan), where=defined)
    out: np.ndarray = np.clip(r2, 0, 1)
    return out


def aggregate_r2(
    dosage: np.ndarray, truth: np.ndarray, maf: np.ndarray, *, bins: Sequence[float] = MAF_BINS
) -> BinnedR2:
    """Squared correlation of dosage with truth over all samples and sites of a MAF bin, pooled.

    Parameters
    ----------
    dosage, truth
        Shape (M, N), counted in the allele that is minor in the panel (:func:`count_minor`); NaN
        where missing.
    maf
        Shape (M,), the panel's, in [0, 0.5].
    bins
        Ascending edges; bin i is ``(bins[i], bins[i + 1]]``.

    Returns
    -------
    r2 by bin and over all.
    """
    accumulator = R2Accumulator(bins)
    accumulator.update(dosage, truth, maf)
    return accumulator.result()


def site_r2(dosage: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Squared correlation at each site.

    Parameters
    ----------
    dosage, truth
        Shape (M, N); NaN where missing.

    Returns
    -------
    Shape (M,), float64: NaN where the truth is constant, 0 where only the dosage is.
    """
    sums = pair_sums(np.asarray(dosage, np.float64), np.asarray(truth, np.float64), axis=1)
    r2 = np.nan_to_num(r2_of_sums(sums))
    return np.where(_varies(sums[:, 0], sums[:, 2], sums[:, 4]), r2, np.nan)


def carrier_concordance(dosage: np.ndarray, truth: np.ndarray) -> float:
    """Share of right best guesses among pairs that carry the minor allele, truly or as called.

    Parameters
    ----------
    dosage, truth
        Same shape, counted in the minor allele; NaN where missing.

    Returns
    -------
    In [0, 1]; NaN if nobody carries it.
    """
    best = np.rint(dosage)
    known = ~(np.isnan(best) | np.isnan(truth))
    carriers = known & ((best > 0) | (truth > 0))
    return float((best == truth)[carriers].mean()) if carriers.any() else float("nan")


@dataclass(frozen=True)
class CallScores:
    """Precision, recall and F1 by MAF bin and overall.

    Attributes
    ----------
    precision, recall, f1
        Shape (bins + 1,), float64, in [0, 1], the last entry over everything; NaN where undefined
        (nothing called, or nothing true).
    num_true
        Shape (bins + 1,), int64: true positives and false negatives.
    """

    edges: tuple[float, ...]
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    num_true: np.ndarray


class CallAccumulator:
    """True positives, false positives and false negatives of calls, by MAF bin.

    A haplotype's call is positive where it is the minor allele. A genotype's is positive where it
    carries the minor allele, and right only if the genotype is: a heterozygote called homozygous
    is both a false positive and a false negative.
    """

    def __init__(self, bins: Sequence[float] = MAF_BINS) -> None:
        self.edges = tuple(float(edge) for edge in bins)
        self.counts = np.zeros((len(self.edges), 3), dtype=np.float64)  # tp, fp, fn

    def update(self, called: np.ndarray, true: np.ndarray, maf: np.ndarray) -> None:
        """Add calls.

        Parameters
        ----------
        called, true
            Same shape, minor alleles counted: 0, 1 (haplotypes) or 0, 1, 2 (genotypes); pairs where
            either is NaN or negative do not count.
        maf
            Broadcast to the same shape, in [0, 0.5].
        """
        called, true = np.asarray(called), np.asarray(true)
        known = (called >= 0) & (true >= 0)
        group = np.broadcast_to(maf_bin(maf, bins=self.edges), called.shape)[known]
        called, true = called[known], true[known]
        group = np.where(group < 0, len(self.edges) - 1, group)
        right = called == true
        events = ((called > 0) & right, (called > 0) & ~right, (true > 0) & ~right)
        for column, event in enumerate(events):
            self.counts[:, column] += np.bincount(group[event], minlength=len(self.edges))

    def result(self) -> CallScores:
        """The scores of what was added so far."""
        counts = np.vstack([self.counts[:-1], self.counts.sum(axis=0)])
        tp, fp, fn = counts.T

        def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
            out: np.ndarray = np.divide(
                part, whole, out=np.full(len(part), np.nan), where=whole > 0
            )
            return out

        return CallScores(
            edges=self.edges,
            precision=share(tp, tp + fp),
            recall=share(tp, tp + fn),
            f1=share(2 * tp, 2 * tp + fp + fn),
            num_true=(tp + fn).astype(np.int64),
        )
