"""Keep P(ALT) of the sites of one locus to what a haplotype can have: 1 in all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.io.vcf.write.sample_text import SCALE
from ragimpute.panel.loci import Loci
from ragimpute.sites import Sites
from ragimpute.symbolic import is_symbolic

_VALUES_AT_ONCE = 2**22


@dataclass(frozen=True)
class OtherCarriers:
    """Target haplotypes that carry ALTs which the panel lacks, at sites that the panel has.

    Attributes
    ----------
    site
        Shape (k,), int64, ascending: panel sites of the same position and REF.
    carries
        Shape (k, N, 2), bool.
    """

    site: np.ndarray
    carries: np.ndarray

    @classmethod
    def of(cls, panel_sites: Sites, sites: Sites, alleles: np.ndarray) -> OtherCarriers:
        """Those of records ``sites`` of the target, whose ``alleles`` (m, N, 2) are as read.

        A substitution and an insertion or deletion of one position and REF may be on one haplotype.
        """
        at = panel_sites.position_bp
        found: dict[int, np.ndarray] = {}
        for row in np.flatnonzero(np.isin(sites.position_bp, at)).tolist():
            if is_symbolic(sites.alt[row]):
                continue
            position, ref = sites.position_bp[row], sites.ref[row].upper()
            carries, is_indel = alleles[row] == 1, len(sites.alt[row]) != len(ref)
            first, stop = np.searchsorted(at, [position, position + 1]).tolist()
            for site in range(first, stop) if carries.any() else ():
                same_kind = (len(panel_sites.alt[site]) != len(ref)) == is_indel
                same_kind &= not is_symbolic(panel_sites.alt[site])
                if panel_sites.ref[site] == ref and same_kind:
                    found[site] = found[site] | carries if site in found else carries
        order = sorted(found)
        none = np.zeros((0, *alleles.shape[1:]), bool)
        return cls(
            np.array(order, np.int64), np.stack([found[site] for site in order]) if order else none
        )

    def exclude(
        self, prob: np.ndarray, called: np.ndarray, first: int, present: np.ndarray
    ) -> None:
        """Make P(ALT) of untyped alleles 0 on these haplotypes; in place.

        ``prob`` and ``called`` (m, n) are of the panel sites from ``first`` on, and of the
        haplotypes that are ``present`` (N, 2).
        """
        low, high = np.searchsorted(self.site, [first, first + len(prob)]).tolist()
        for i in range(low, high):
            row = self.site[i] - first
            excluded = self.carries[i][present] & (called[row] < 0) & ~np.isnan(prob[row])
            prob[row, excluded] = 0


def exclude_alleles(prob: np.ndarray, called: np.ndarray, loci: Loci) -> None:
    """Make the ALTs of each locus exclude each other on every haplotype; in place.

    Where one ALT was observed, P of the others is 0. Elsewhere the P(ALT) of a locus are divided by
    their sum if it exceeds 1. Sums close to 1 or above are rounded together to thousandths, as
    these are written: each rounded alone, they could exceed 1.

    Parameters
    ----------
    prob
        Shape (m, n), float32, in [0, 1]; NaN where a haplotype does not exist.
    called
        Shape (m, n), int8: 0 or 1 where observed, else negative.
    loci
        Groups of the m sites.
    """
    for groups in loci.by_size():
        size = groups.shape[1]
        step = max(1, _VALUES_AT_ONCE // max(1, size * prob.shape[1]))
        for first in range(0, len(groups), step):
            rows = groups[first : first + step]  # (g, k)
            seen = called[rows] == 1  # (g, k, n)
            found = np.where(seen.any(axis=1)[:, None] & ~seen, np.float32(0), prob[rows])
            total = found.sum(axis=1, dtype=np.float64)  # (g, n)
            at, column = np.nonzero(total > 1 - size / (2 * SCALE))
            found[at, :, column] = _rounded(found[at, :, column], total[at, column], SCALE)
            prob[rows] = found


def round_loci(prob: np.ndarray, locus: np.ndarray, digits: int) -> np.ndarray:
    """Round the P(ALT) of each locus together where each alone could come to more than 1 in all.

    :func:`exclude_alleles` does so for the usual number of decimals; this is for fewer.

    Parameters
    ----------
    prob
        Shape (m, N, 2), float32, in [0, 1], as :func:`exclude_alleles` left it; NaN where a
        haplotype does not exist.
    locus
        Shape (m,), int: rows of one number >= 0 exclude each other.
    digits
        Decimals that are written.

    Returns
    -------
    A copy of ``prob``, or ``prob`` itself if there is no locus.
    """
    numbers = np.unique(locus[locus >= 0])
    if not len(numbers):
        return prob
    scale, out = 10**digits, prob.copy()
    for number in numbers.tolist():
        rows = np.flatnonzero(locus == number)
        found = out[rows].reshape(len(rows), -1)  # (k, 2 N)
        total = found.sum(axis=0, dtype=np.float64)
        at = np.flatnonzero(total > 1 - len(rows) / (2 * scale))
        found[:, at] = _rounded(found[:, at].T, total[at], scale).T
        out[rows] = found.reshape(len(rows), *out.shape[1:])
    return out


def _rounded(prob: np.ndarray, total: np.ndarray, scale: int) -> np.ndarray:
    """Round rows (s, k) to 1 / scale; they add up to their ``total`` (s,), or 1 if it is more."""
    want = np.minimum(scale, np.rint(total * scale)).astype(np.int64)
    exact = prob * (scale * np.minimum(1, 1 / total))[:, None]
    whole = np.floor(exact + 1e-6).astype(np.int64)
    # What is left goes to the largest remainders.
    rank = np.argsort(np.argsort(whole - exact, axis=1, kind="stable"), axis=1)
    whole += rank < (want - whole.sum(axis=1))[:, None]
    out: np.ndarray = (whole / scale).astype(np.float32)
    return out
