"""The loops that find the few pairs in doubt among all probabilities."""

from __future__ import annotations

import numpy as np

from ragimpute.copying.parameters import DOUBT
from ragimpute.copying.window import Window
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel

INTERVAL, LANE, SITE, PLACE = range(4)

_AT_ONCE = 64


@inlined_reordered
def count_open(row, low, high):
    """How many of a row are between ``low`` and ``high``."""
    num = 0
    for u in range(row.shape[0]):
        num += (row[u] > low) & (row[u] < high)
    return num


@kernel
def count_between(prob, low, high):
    """How many of an array (n, m) are between ``low`` and ``high``."""
    num = 0
    for i in range(prob.shape[0]):
        num += count_open(prob[i], low, high)
    return num


@kernel
def list_between(prob, known, low, high, out):
    """Rows and columns of those, but for the ``known`` (n, m), into ``out``; returns their number.

    Few are: most stretches of a row are passed over by counting.
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
    """Shape (2,), float32: probabilities strictly between these are in doubt."""
    return np.array([doubt, 1 - doubt], np.float32)


def pairs_in_doubt(prob: np.ndarray, typed: np.ndarray, *, doubt: float = DOUBT) -> np.ndarray:
    """Pairs (haplotype, site) whose allele the copying leaves open.

    Parameters
    ----------
    prob
        Shape (n, m), float32: Li-Stephens probability of ALT.
    typed
        Shape (n, m), bool: observed alleles, which are never in doubt.
    doubt
        Least probability of the less likely allele, in (0, 0.5).

    Returns
    -------
    Shape (pairs, 2), int64: haplotype and site, by haplotype and then site.
    """
    low, high = doubt_limits(doubt)
    prob = np.ascontiguousarray(prob)
    pairs = np.empty((int(count_between(prob, low, high)), 2), np.int64)
    return pairs[: list_between(prob, typed, low, high, pairs)]


def in_doubt(
    window: Window, alleles: np.ndarray, prob: np.ndarray, *, doubt: float = DOUBT
) -> np.ndarray:
    """The pairs of targets that :func:`pairs_in_doubt` gives.

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
    """
    start, stop = window.core
    typed = np.zeros(prob.shape, bool)
    inside = (window.typed_index >= start) & (window.typed_index < stop)
    typed[:, window.typed_index[inside] - start] = (alleles[inside] >= 0).T
    return pairs_in_doubt(prob, typed, doubt=doubt)


@inlined
def end_of_group(p, pairs):
    """The end of the pairs that have pair p's interval and target."""
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
    """List the sites of interval t that ``prob`` (core sites,) of a target leaves open.

    They come after ``num`` that are listed, and after ``before`` of other intervals; returns how
    many are listed then. What is not between the ``limits`` (2,) is sure, as is the site ``known``.
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
