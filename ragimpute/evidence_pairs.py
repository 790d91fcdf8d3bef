"""The loops that find the few pairs in doubt among all probabilities."""

from __future__ import annotations

from ragimpute.kernels import inlined_reordered, kernel

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
