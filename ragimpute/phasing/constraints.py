"""What is known of a target's phase before it is phased: phased genotypes and phase sets.

The phased genotypes of a sample form *blocks*: one for each phase set (FORMAT/PS), and one of all
that have no phase set. Within a block it is known which alleles are on the same haplotype, and
phasing keeps that. A block as a whole may have its two haplotypes exchanged.

Sites that exclude each other, as the ALTs of one record do, are *tied*: where a sample is
heterozygous at two of them, it has one ALT on each haplotype.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ragimpute.io.vcf.read.phase_sets import NO_SET
from ragimpute.panel.loci import Loci
from ragimpute.phasing.kernel import FLIP, SWAP_AFTER, SWAP_WITH


@dataclass(frozen=True)
class FreePhase:
    """Which parts of one sample's phase are not known, and so may be chosen.

    Attributes
    ----------
    het
        Shape (k,), int64: rows of the heterozygous sites, ascending.
    moves
        Shape (k,), uint8: the moves that are allowed at each of them on the way from the
        chromosome's start, as bits of ``kernel.FLIP``, ``SWAP_WITH`` and ``SWAP_AFTER``; 0 where
        the phase is fixed.
    follows
        Shape (k,), int64: the place in ``het`` of the site before in the same block, or -1.
    """

    het: np.ndarray
    moves: np.ndarray
    follows: np.ndarray

    def moves_back(self) -> np.ndarray:
        """``moves`` on the way from the chromosome's end."""
        ahead, behind = self.moves & SWAP_WITH, self.moves & SWAP_AFTER
        back = np.where(ahead, SWAP_AFTER, 0) | np.where(behind, SWAP_WITH, 0)
        return (self.moves & FLIP | back).astype(np.uint8)


class Tied(NamedTuple):
    """One sample's genotypes with its ties.

    Attributes
    ----------
    alleles, phased, phase_set
        Shapes (T, 2), (T,) and (T,): as given, with a phase set for each tied pair of genotypes.
    hidden, follows
        Shape (h,), int64: rows that are not phased themselves, and the row whose opposite each is;
        a row that follows a hidden one comes after it.
    """

    alleles: np.ndarray
    phased: np.ndarray
    phase_set: np.ndarray | None
    hidden: np.ndarray
    follows: np.ndarray

    def copy_phase(self, haplotypes: np.ndarray) -> None:
        """Set the hidden genotypes of ``haplotypes`` (2, T) by those that they follow."""
        for row, other in zip(self.hidden.tolist(), self.follows.tolist(), strict=True):
            haplotypes[:, row] = haplotypes[::-1, other]


def tie_alleles(
    alleles: np.ndarray, phased: np.ndarray, phase_set: np.ndarray | None, ties: Loci
) -> Tied:
    """Put the ALTs of tied genotypes of one sample on different haplotypes.

    An unphased genotype joins the phase set of the one that it is tied to, or both form a new one.
    A new set that lies within another one could not be turned, since sets keep their order where
    they overlap (see :func:`free_phase`): there only the first genotype is phased, and the second
    is hidden and follows it.

    Parameters
    ----------
    alleles, phased, phase_set
        As for :func:`free_phase`; unphased genotypes have REF first.
    ties
        Rows that exclude each other.
    """
    none = np.zeros(0, np.int64)
    nothing = Tied(alleles, phased, phase_set, none, none)
    if not len(ties):
        return nothing
    het = (alleles[:, 0] != alleles[:, 1]) & (alleles >= 0).all(axis=1)
    loose = het & ~phased
    # Of each group, those with two heterozygous genotypes or more, of which one is unphased.
    num_het, num_loose = (
        np.add.reduceat(which[ties.site].astype(np.int64), ties.offsets[:-1])
        for which in (het, loose)
    )
    found = np.flatnonzero((num_het >= 2) & (num_loose >= 1)).tolist()
    if not found:
        return nothing
    alleles, phased = alleles.copy(), phased.copy()
    sets = np.full(len(alleles), NO_SET, np.int64) if phase_set is None else phase_set.copy()
    spanned = _spanned(het & phased, sets)
    leader: dict[int, int] = {}
    new = int(sets.max(initial=0)) + 1
    for group in found:
        rows = ties.site[ties.offsets[group] : ties.offsets[group + 1]]
        one, other = rows[het[rows]][:2].tolist()
        if phased[one] and phased[other]:
            continue  # both were tied to a third one
        if phased[other] or other in leader:
            one, other = other, one
        if other in leader:
            continue
        alleles[other] = alleles[one, ::-1]
        if one in leader or (not phased[one] and spanned[one]):
            leader[other] = one
            continue
        if not phased[one]:
            sets[one], phased[one] = new, True
            new += 1
        sets[other], phased[other] = sets[one], True
    hidden, follows = (np.array(list(rows), np.int64) for rows in (leader, leader.values()))
    return Tied(alleles, phased, sets, hidden, follows)


def _spanned(bound: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Which rows lie within the span of a phase set with two genotypes or more, shape (T,)."""
    edge = np.zeros(len(bound) + 1, np.int64)
    rows = np.flatnonzero(bound)
    if len(rows):
        order = np.lexsort((rows, sets[rows]))
        rows, of = rows[order], sets[rows][order]
        again = of[1:] == of[:-1]
        np.add.at(edge, rows[:-1][again], 1)
        np.add.at(edge, rows[1:][again], -1)
    out: np.ndarray = np.cumsum(edge)[:-1] > 0
    return out


def free_phase(
    alleles: np.ndarray, phased: np.ndarray, phase_set: np.ndarray | None = None
) -> FreePhase:
    """Find which parts of a sample's phase are free.

    Unphased genotypes between those of a block may be turned one by one. So may those of a block
    that lies within the span of a larger one, or overlaps with it, while the masses are drawn;
    ``join_phase`` keeps the order within it all the same.

    Parameters
    ----------
    alleles
        Shape (T, 2), int8, negative where missing or haploid.
    phased
        Shape (T,), bool.
    phase_set
        Shape (T,), int: the phase set of each genotype, ``NO_SET`` where it has none; or None.
    """
    het = np.nonzero((alleles[:, 0] != alleles[:, 1]) & (alleles >= 0).all(axis=1))[0]
    k = len(het)
    moves = np.full(k, FLIP | SWAP_WITH | SWAP_AFTER, np.uint8)
    follows = np.full(k, -1, np.int64)
    bound = np.nonzero(phased[het])[0]
    if len(bound) < 2:
        return FreePhase(het, moves, follows)
    sets = np.full(len(bound), NO_SET) if phase_set is None else phase_set[het[bound]]
    order = np.lexsort((bound, sets))
    sites, sets = bound[order], sets[order]
    again = sets[1:] == sets[:-1]
    follows[sites[1:][again]] = sites[:-1][again]
    outer = _outer_blocks(sites, sets)
    again &= outer[1:]
    # No swap may happen in the gap before site i if a block has genotypes on both sides of it.
    edge = np.zeros(k + 1, np.int64)
    np.add.at(edge, sites[:-1][again] + 1, 1)
    np.add.at(edge, sites[1:][again] + 1, -1)
    closed = np.cumsum(edge) > 0  # (k + 1,)
    alone = np.ones(k, bool)
    alone[sites[1:][again]] = False
    alone[sites[:-1][again]] = False
    turns = np.where(alone, FLIP, 0) | np.where(closed[:-1], 0, SWAP_WITH)
    turns |= np.where(closed[1:], 0, SWAP_AFTER)
    # Beyond either end there is nothing that could change places.
    turns[0] &= ~SWAP_WITH
    turns[-1] &= ~SWAP_AFTER
    return FreePhase(het, turns.astype(np.uint8), follows)


def _outer_blocks(sites: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Which genotypes are of blocks that lie within, or overlap, no larger block that is kept.

    ``sites``, ``sets``: shape (b,), sorted by set, then site; returns shape (b,), bool.
    """
    _, first, size = np.unique(sets, return_index=True, return_counts=True)
    start, last = sites[first], sites[first + size - 1]
    out = np.zeros(len(sites), bool)
    kept: list[tuple[int, int]] = []  # spans, none of which overlap, ascending
    for i in np.lexsort((start, -size)).tolist():
        span = int(start[i]), int(last[i])
        place = bisect(kept, span)
        before, after = kept[place - 1 : place], kept[place : place + 1]
        if (before and before[0][1] > span[0]) or (after and after[0][0] < span[1]):
            continue
        kept.insert(place, span)
        out[first[i] : first[i] + size[i]] = True
    return out


def join_phase(free: FreePhase, given: np.ndarray, together: np.ndarray) -> np.ndarray:
    """Choose the phase of the heterozygous sites, one after the other.

    Parameters
    ----------
    free
        What may be chosen.
    given
        Shape (k,), int8: the first haplotype's alleles at ``free.het``, as they were given.
    together
        Shape (k,), float64: the probability that a site and the one before it have their ALT
        alleles on the same haplotype; NaN where it is not known, and the given order stays.

    Returns
    -------
    Shape (k,), int8: the first haplotype's alleles; the first site's is as given.
    """
    if len(given) == 0:
        return given.copy()
    same = np.where(np.isnan(together[1:]), given[1:] == given[:-1], together[1:] > 0.5)
    turned = np.concatenate([[0], np.cumsum(~same)])
    if (free.follows < 0).all():
        result: np.ndarray = ((given[0] + turned) % 2).astype(np.int8)
        return result
    out = given.copy()
    for i in range(1, len(out)):
        j = int(free.follows[i])
        if j >= 0:  # the order within a block is known
            out[i] = out[j] if given[i] == given[j] else 1 - out[j]
        else:
            out[i] = out[i - 1] if same[i - 1] else 1 - out[i - 1]
    return out
