"""Calls that must agree: of several records of one site, and of the ALTs of one locus."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.panel.loci import Loci

_ALLELES_AT_ONCE = 2**22


class Calls(NamedTuple):
    """Genotypes of N samples in m rows.

    Attributes
    ----------
    alleles
        Shape (m, N, 2), int8: 0 REF, 1 ALT, -1 missing, -2 haploid fill.
    phased
        Shape (m, N), bool: False where the order of two alleles matters and is not known.
    """

    alleles: np.ndarray
    phased: np.ndarray

    def turn(self, rows: np.ndarray) -> None:
        """Exchange REF and ALT in some rows, shape (m,), bool; in place."""
        given = self.alleles[rows]
        self.alleles[rows] = np.where(given >= 0, 1 - given, given)


def merge_calls(calls: Calls) -> tuple[Calls, np.ndarray, np.ndarray]:
    """Merge the calls of several records of one site.

    A genotype that is missing in one record is that of another. Genotypes with the same alleles in
    another order are kept as unphased where both are phased, and as the phased one says where one
    is. Genotypes that contradict each other become missing. A haploid call agrees with a homozygous
    one of the same allele.

    Parameters
    ----------
    calls
        Rows of one site, in file order; the ploidy of a missing genotype is that of the first row.

    Returns
    -------
    One row; shape (N,), int: the row that each genotype is of; shape (m,), int: in how many
    genotypes each row contradicts the rows before it.
    """
    alleles, phased = calls
    best, known_phase = alleles[0].copy(), phased[0].copy()
    source = np.zeros(len(best), np.int64)
    wrong = np.zeros(len(best), bool)
    counts = np.zeros(len(alleles), np.int64)
    for number in range(1, len(alleles)):
        more, sure = alleles[number], phased[number]
        has, adds = (best >= 0).any(axis=1), (more >= 0).any(axis=1) & ~wrong
        filled, agrees, crossed = _compare(best, more, known_phase & sure)
        bad = has & adds & ~agrees & ~crossed
        # The other genotype is taken where it says more: all, more alleles, or their order.
        num, num_more = (best >= 0).sum(axis=1), (more >= 0).sum(axis=1)
        richer = (num_more > num) | ((num_more == num) & sure & ~known_phase)
        replaced = adds & (~has | ((agrees | crossed) & richer))
        both = has & adds & agrees & known_phase & sure
        loose = has & adds & crossed & ~agrees & known_phase & sure
        best = np.where(both[:, None], filled, np.where(replaced[:, None], more, best))
        known_phase = np.where(replaced, sure, known_phase) & ~loose
        source = np.where(replaced, number, source)
        wrong |= bad
        counts[number] = int(bad.sum())
        best[bad] = np.where(best[bad] == -2, -2, -1)
        known_phase |= bad
    return Calls(best[None], known_phase[None]), source, counts


def _compare(
    one: np.ndarray, two: np.ndarray, ordered: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare genotypes (N, 2); ``ordered`` (N,): the order of both is known.

    Returns the genotypes that combine both, and where they agree as they stand, or crosswise.
    """
    haploid_one, haploid_two = one[:, 1] == -2, two[:, 1] == -2
    differ = haploid_one != haploid_two
    # Of a haploid and a diploid genotype, the haploid allele is compared with both others.
    first = np.where((differ & haploid_one)[:, None], one[:, :1], one)
    second = np.where((differ & haploid_two)[:, None], two[:, :1], two)

    def fits(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        out: np.ndarray = ((x == y) | (x == -1) | (y == -1)).all(axis=1)
        return out

    agrees = fits(first, second)
    filled = np.where(one == -1, np.where(differ[:, None], -1, two), one)
    crossed = fits(first, second[:, ::-1]) & ~haploid_one & ~haploid_two
    # Crosswise agreement of half-called genotypes says nothing where their order is known.
    crossed &= ~ordered | ((one >= 0).all(axis=1) & (two >= 0).all(axis=1))
    return filled, agrees, crossed


def settle_loci(calls: Calls, loci: Loci) -> int:
    """Make the ALTs of each locus exclude each other on every haplotype; in place.

    A haplotype that carries one ALT has not the others: missing alleles become 0 there. A genotype
    that has more ALTs than haplotypes, or two of them on one haplotype, contradicts itself and
    becomes missing at all sites of the locus.

    Parameters
    ----------
    calls
        Genotypes at m sites.
    loci
        Groups of these sites.

    Returns
    -------
    How many genotypes contradict themselves; one of a sample at a locus counts once.
    """
    alleles, phased = calls
    num_wrong = 0
    for groups in loci.by_size():
        step = max(1, _ALLELES_AT_ONCE // max(1, groups.shape[1] * alleles[0].size))
        for first in range(0, len(groups), step):
            rows = groups[first : first + step]  # (g, k)
            found = alleles[rows]  # (g, k, N, 2)
            slot = (found == 1).sum(axis=1)  # (g, N, 2)
            loose = (~phased[rows]).any(axis=1)  # (g, N)
            total = slot.sum(axis=2)
            wrong = np.where(loose, total > 2, (slot > 1).any(axis=2))
            taken = np.where(loose[:, :, None], (total == 2)[:, :, None], slot == 1)
            found = np.where(taken[:, None] & (found == -1), np.int8(0), found)
            found = np.where(wrong[:, None, :, None] & (found >= 0), np.int8(-1), found)
            alleles[rows] = found
            phased[rows] |= wrong[:, None] | (found == -1).all(axis=3)
            num_wrong += int(wrong.sum())
    return num_wrong


def exclude_filled(
    alleles: np.ndarray, observed: np.ndarray, loci: Loci, alt_count: np.ndarray
) -> None:
    """Leave each haplotype one ALT of a locus where missing alleles were filled in; in place.

    An observed ALT stays; of several that were filled in, the commoner one does.

    Parameters
    ----------
    alleles
        Shape (m, N, 2), int8, phased.
    observed
        Shape (m, N, 2), bool: alleles that were not filled in.
    loci
        Groups of the m sites.
    alt_count
        Shape (m,): how common each ALT is in the panel.
    """
    for rows in loci.by_size():
        found = alleles[rows]  # (g, k, N, 2)
        rank = 1 + np.argsort(np.argsort(alt_count[rows], axis=1), axis=1)  # (g, k)
        weight = (found == 1) * (rank[:, :, None, None] + rows.shape[1] * observed[rows])
        best = weight.argmax(axis=1)[:, None] == np.arange(rows.shape[1])[None, :, None, None]
        alleles[rows] = np.where((found == 1) & ~best, np.int8(0), found)


def complete_half_calls(calls: Calls, groups: Loci) -> None:
    """Complete genotypes such as 1/. of one ALT by ./1 of another one; in place.

    Programs that split a record write an allele as missing in the rows of the other ALTs. Where
    another row of the same position and REF has an ALT in that place, the allele is not this ALT.

    Parameters
    ----------
    calls
        Genotypes at m sites.
    groups
        The sites of one position and REF.
    """
    alleles = calls.alleles
    for group in groups:
        found = alleles[group]  # (k, N, 2)
        half = ((found == -1).any(axis=2) & (found >= 0).any(axis=2))[:, :, None]
        if half.any():
            taken = (found == 1).any(axis=0)
            found = np.where(half & (found == -1) & taken, np.int8(0), found)
            alleles[group] = found
            calls.phased[group] |= found[:, :, 0] == found[:, :, 1]
