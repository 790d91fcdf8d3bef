"""Impute the two haplotypes of a sample once if nothing tells them apart.

The haplotypes of an inbred line are alike, and so are those of any sample in a window in which it
is homozygous throughout. Copying depends on a haplotype's typed alleles alone: both get the same
probabilities, for which one walk is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ragimpute.evidence.other_haplotype import homologs_of

Put = Callable[[int, int, np.ndarray], None]
# So many haplotypes are handed over at a time, for which memory is needed a second time.
_AT_ONCE = 16


class Imputed(NamedTuple):
    """Haplotypes of a window of which each is imputed once.

    Attributes
    ----------
    alleles
        Shape (T, k), int8: their typed alleles.
    homolog
        Shape (k,), int64: for each the other haplotype of its sample, itself if it stands for both,
        or -1 if the sample has no other.
    copies
        Shape (k,), int64: how many haplotypes of the target each stands for, 1 or 2.
    """

    alleles: np.ndarray
    homolog: np.ndarray
    copies: np.ndarray

    @classmethod
    def of(cls, alleles: np.ndarray, sample: np.ndarray) -> Imputed:
        """Those of n haplotypes.

        Parameters
        ----------
        alleles
            Shape (T, n), int8: 0, 1, or -1 where missing.
        sample
            Shape (n,), int, ascending: the sample that each haplotype belongs to.
        """
        homolog = homologs_of(sample)
        second = np.flatnonzero((homolog >= 0) & (homolog < np.arange(len(sample))))
        same = second[(alleles[:, second] == alleles[:, second - 1]).all(axis=0)]
        if not len(same):
            return cls(alleles, homolog, np.ones(len(sample), np.int64))
        copies = np.ones(len(sample), np.int64)
        copies[same - 1] = 2
        kept = np.ones(len(sample), bool)
        kept[same] = False
        # The number of each haplotype among those that stay; of one that goes, that of its twin.
        number = np.cumsum(kept) - 1
        homolog = np.where(homolog >= 0, number[homolog], -1)[kept]
        return cls(np.ascontiguousarray(alleles[:, kept]), homolog, copies[kept])

    def take(self, where: np.ndarray) -> Imputed:
        """Those at the places ``where``, ascending, which have both haplotypes of a sample."""
        number = np.full(len(self.copies), -1, np.int64)
        number[where] = np.arange(len(where))
        other = self.homolog[where]
        homolog = np.where(other >= 0, number[other], -1)
        alleles = np.ascontiguousarray(self.alleles[:, where])
        return Imputed(alleles, homolog, self.copies[where])

    def all_of(self, put: Put) -> Put:
        """What takes the haplotypes that are imputed, and gives ``put`` all that they stand for.

        ``put`` is called with the number of the first haplotype, of the first site, and P(ALT),
        shape (b, m).
        """
        if (self.copies == 1).all():
            return put
        place = np.concatenate([[0], np.cumsum(self.copies)])

        def put_all(first: int, site: int, prob: np.ndarray) -> None:
            for start in range(0, len(prob), _AT_ONCE):
                rows = slice(start, start + _AT_ONCE)
                copies = self.copies[first : first + len(prob)][rows]
                put(int(place[first + start]), site, np.repeat(prob[rows], copies, axis=0))

        return put_all
