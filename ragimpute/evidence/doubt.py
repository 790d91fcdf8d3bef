"""Find the few pairs (haplotype, site) in doubt among all probabilities.

A pair is in doubt if neither allele has a probability of at least 1 - ``doubt``.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying.parameters import DOUBT
from ragimpute.copying.window import Window
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel

INTERVAL, LANE, SITE, PLACE = range(4)

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
def end_of_group(p, pairs):
    """The number of the first pair after p that has another interval or target than pair p."""
    stop = p + 1
    while (
        stop < pairs.shape[0]
        and pairs[stop, INTERVAL] == pairs[p, INTERVAL]
        and pairs[stop, LANE] == pairs[p, LANE]
    ):
        stop += 1
    return stop


@inlined
def find_pairs(t, lane, column, bounds, core, prob, known, limits, before, num, pairs, found):
    """Append the sites of interval t that are in doubt for one target to ``pairs``.

    ``prob`` (core sites,) is the target's P(ALT): a site is in doubt if it is strictly between the
    two ``limits``, unless it is the typed site ``known``. ``num`` pairs are already in ``pairs``,
    and ``before`` pairs of earlier intervals were taken out of it. Where ``found`` has room, it
    gets ``column`` and core site of each pair too. Returns the new length of ``pairs``.
    """
    for u in range(bounds[t + 1], bounds[t + 2]):
        p = prob[u - core]
        if p > limits[0] and p < limits[1] and u != known:
            place = before + num
            pairs[num, INTERVAL], pairs[num, LANE], pairs[num, SITE] = t, lane, u
            pairs[num, PLACE] = place
            if place < found.shape[0]:
                found[place, 0], found[place, 1] = column, u - core
            num += 1
    return num
