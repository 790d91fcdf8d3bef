"""Find the few pairs (haplotype, site) in doubt among all probabilities.

A pair is in doubt if neither allele has a probability of at least 1 - ``doubt``.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying.parameters import DOUBT
from ragimpute.copying.window import Window
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel

# Columns of an array of pairs: the interval, by the typed site before it, or -1; the target within
# its block; the site; the row of the output. See ``kernel_arrays.Evidence``.
INTERVAL, LANE, SITE, PLACE = range(4)
# Entries of ``kernel_arrays.Evidence.at``: pairs of earlier intervals, which are no longer in the
# array; the next pair of the array to describe.
BEFORE, NEXT = range(2)

_AT_ONCE = 64


@inlined_reordered
def count_open(row, low, high):
    """Count the numbers of a row that are strictly between ``low`` and ``high``."""
    num = 0
    for u in range(row.shape[0]):
        num += (row[u] > low) & (row[u] < high)
    return num


@kernel
def count_between(prob, low, high):
    """Count the numbers of an array (n, m) that are strictly between ``low`` and ``high``."""
    num = 0
    for i in range(prob.shape[0]):
        num += count_open(prob[i], low, high)
    return num


@kernel
def list_between(prob, known, low, high, out):
    """Write row and column of the numbers between ``low`` and ``high`` into ``out``.

    Entries that ``known`` (n, m) marks are left out. Returns how many there are. As few numbers are
    in between, they are first counted in stretches of 64, and a stretch with none is skipped.
    """
    num = 0
    for i in range(prob.shape[0]):
        for first in range(0, prob.shape[1], _AT_ONCE):
            stop = min(first + _AT_ONCE, prob.shape[1])
            if count_open(prob[i, first:stop], low, high) == 0:
                continue
            for u in range(first, stop):
                if prob[i, u] > low and prob[i, u] < high and not known[i, u]:
                    out[num, 0] = i
                    out[num, 1] = u
                    num += 1
    return num


def doubt_limits(doubt: float) -> np.ndarray:
    """The limits between which a probability is in doubt, exclusive: shape (2,), float32."""
    return np.array([doubt, 1 - doubt], np.float32)


def pairs_in_doubt(prob: np.ndarray, typed: np.ndarray, *, doubt: float = DOUBT) -> np.ndarray:
    """List the pairs (haplotype, site) of which copying leaves the allele in doubt.

    Parameters
    ----------
    prob
        Shape (n, m), float32: Li-Stephens probability of ALT.
    typed
        Shape (n, m), bool: whether the allele was observed; such pairs are never in doubt.
    doubt
        In (0, 0.5). A pair is in doubt if its less likely allele is more probable than this.

    Returns
    -------
    Shape (pairs, 2), int64: haplotype and site, sorted by haplotype, then site.
    """
    low, high = doubt_limits(doubt)
    prob = np.ascontiguousarray(prob)
    pairs = np.empty((int(count_between(prob, low, high)), 2), np.int64)
    return pairs[: list_between(prob, typed, low, high, pairs)]


def in_doubt(
    window: Window, alleles: np.ndarray, prob: np.ndarray, *, doubt: float = DOUBT
) -> np.ndarray:
    """List the pairs in doubt as :func:`pairs_in_doubt` does, from the targets' observed alleles.

    Parameters
    ----------
    window
        The panel's window.
    alleles
        Shape (T, n), int8: observed alleles, negative where missing.
    prob
        Shape (n, core sites), float32: P(ALT).
    doubt
        See :func:`pairs_in_doubt`.

    Returns
    -------
    Shape (pairs, 2), int64: haplotype and core site, sorted by haplotype, then site.
    """
    start, stop = window.core
    typed = np.zeros(prob.shape, bool)
    inside = (window.typed_index >= start) & (window.typed_index < stop)
    typed[:, window.typed_index[inside] - start] = (alleles[inside] >= 0).T
    return pairs_in_doubt(prob, typed, doubt=doubt)


@inlined
def end_of_group(p, num, pairs):
    """The first of the ``num`` pairs after p that has another interval or target than pair p."""
    stop = p + 1
    while (
        stop < num
        and pairs[stop, INTERVAL] == pairs[p, INTERVAL]
        and pairs[stop, LANE] == pairs[p, LANE]
    ):
        stop += 1
    return stop


@inlined
def find_pairs(t, lane, column, prob, known, sites, doubt, evidence, num):
    """Append the sites of interval t that are in doubt for one target to ``evidence.pairs``.

    ``prob`` (sites,) is the target's P(ALT) from ``sites.first_site`` on; the typed site ``known``
    is never in doubt. ``num`` pairs are already in ``evidence.pairs``, and ``evidence.at`` says how
    many of earlier intervals were taken out of it. Where ``doubt.found`` has room, it gets
    ``column`` and the site's place in ``prob`` of each pair too. Returns the new number of pairs.
    """
    pairs, found = evidence.pairs, doubt.found
    low, high = doubt.limits[0], doubt.limits[1]
    for u in range(sites.bounds[t + 1], sites.bounds[t + 2]):
        p = prob[u - sites.first_site]
        if p > low and p < high and u != known:
            place = evidence.at[BEFORE] + num
            pairs[num, INTERVAL], pairs[num, LANE], pairs[num, SITE] = t, lane, u
            pairs[num, PLACE] = place
            if place < found.shape[0]:
                found[place, 0], found[place, 1] = column, u - sites.first_site
            num += 1
    return num


@inlined
def next_interval(num, evidence):
    """Count the ``num`` pairs of an interval that has been described as pairs of earlier ones."""
    evidence.at[BEFORE] += num
    evidence.at[NEXT] = 0
