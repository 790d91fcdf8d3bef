"""Kernel functions that find the most probable states in an interval between typed sites."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.evidence.features import AGES, NUM_TOP
from ragimpute.evidence.match_lengths_kernel import REACH
from ragimpute.kernels.bits import trailing_zeros
from ragimpute.kernels.compile import inlined
from ragimpute.kernels.shapes import reshaped
from ragimpute.kernels.simd_floats import LANES, larger, load, reached, splat, store

# Posterior masses that differ by less than this share count as equal: float32 sums are not exact
# enough to tell them apart.
TIE = 1e-4

# States are divided into 32 groups. The groups' maxima give a mass that at least NUM_TOP states
# reach, so that all states below it can be skipped.
GROUPS = 2 * LANES


class TableColumns(NamedTuple):
    """The columns of a table of the most probable states.

    ``mass``: posterior mass; ``carrier``: 1 if the state has the minor allele of the site at hand;
    ``log_left``, ``log_right``: ln(1 + typed sites) of the match to the left and to the right;
    ``root``: the square root of ``mass``; ``kin``: the weight of how alike it is to the target;
    ``younger``: the first of the parts of ``mass`` whose match is younger than each of AGES, or -1
    until they are needed;
    ``reach``: the first of the columns of :class:`Reach`.
    """

    mass: int
    carrier: int
    log_left: int
    log_right: int
    root: int
    kin: int
    younger: int
    reach: int


_NEXT = len(TableColumns._fields) - 1
TABLE = TableColumns._make([*range(_NEXT), _NEXT - 1 + len(AGES)])
TABLE_WIDTH = TABLE.reach + len(REACH)


@inlined
def group_maxima(key, few):
    """Write the largest mass of each of 32 groups of states into rows 0 and 1 of ``few``.

    ``key`` (padded K,) has the masses, and -1 where there is no state. Returns the sum of all
    masses, and the effective number of states, 1 / sum p^2.
    """
    rows = reshaped(key, (key.size // LANES, LANES))
    zero = splat(np.float32(0.0))
    even, odd = zero, zero
    total, squares = zero, zero
    for i in range(0, rows.shape[0], 2):
        x = load(rows, i)
        y = load(rows, i + 1)
        even = larger(even, x)
        odd = larger(odd, y)
        x = larger(x, zero)
        y = larger(y, zero)
        total = total + (x + y)
        squares = squares + (x * x + y * y)
    store(few, 0, total)
    store(few, 1, squares)
    sum_1 = 0.0
    sum_2 = 0.0
    for lane in range(LANES):
        sum_1 += few[0, lane]
        sum_2 += few[1, lane]
    store(few, 0, even)
    store(few, 1, odd)
    return sum_1, sum_1 * sum_1 / max(sum_2, 1e-37)


@inlined
def _least_top_mass(num_states, few):
    """A mass that at least NUM_TOP states reach, from the groups' maxima; 0 for few states."""
    if num_states <= 4 * LANES:
        return np.float32(0.0)
    # The (32 - NUM_TOP + 1)th smallest maximum is reached by the maxima of NUM_TOP groups.
    least = few[2]
    limit = GROUPS - NUM_TOP + 1
    size = 0
    for i in range(GROUPS):
        v = few[i // LANES, i % LANES]
        if size == limit:
            if v >= least[size - 1]:
                continue
            size -= 1
        at = size
        while at > 0 and least[at - 1] > v:
            least[at] = least[at - 1]
            at -= 1
        least[at] = v
        size += 1
    return least[size - 1]


@inlined
def _keep_largest(ranks, states, size, kept):
    """Move the ``kept`` largest of the first ``size`` ranks, with their states, to the front."""
    low = 0
    high = size - 1
    while low < high:
        pivot = ranks[(low + high) >> 1]
        i = low
        j = high
        while i <= j:
            while ranks[i] > pivot:
                i += 1
            while ranks[j] < pivot:
                j -= 1
            if i <= j:
                ranks[i], ranks[j] = ranks[j], ranks[i]
                states[i], states[j] = states[j], states[i]
                i += 1
                j -= 1
        if kept <= j:
            high = j
        elif kept > i:
            low = i
        else:
            return


@inlined
def top_states(key, here, signature, few, top, ranks):
    """Put the NUM_TOP states of largest posterior mass first in ``top`` (K,); returns their number.

    ``key`` (padded K,) has the masses, and -1 where there is no state. Masses are compared without
    their last ten bits (a relative difference of 1e-4). Among states that are then equal, the
    haplotypes' signatures decide, so that neither rounding nor the order of the panel's haplotypes
    has an influence. Both parts form one integer, the rank, which is written into ``ranks``.
    """
    rows = reshaped(key, (key.size // LANES, LANES))
    least = few[3]
    least[0] = _least_top_mass(here.shape[0], few)
    least.view(np.int32)[0] &= ~np.int32(1023)
    bound = splat(least[0])
    mass = key.view(np.int32)
    size = 0
    for i in range(rows.shape[0]):
        candidates = reached(load(rows, i), bound)
        while candidates != np.uint64(0):
            s = i * LANES + np.int64(trailing_zeros(candidates))
            candidates &= candidates - np.uint64(1)
            top[size] = s
            ranks[size] = (np.int64(mass[s] >> 10) << 42) | np.int64(
                signature[here[s]] >> np.uint64(22)
            )
            size += 1
    if size > NUM_TOP:
        _keep_largest(ranks, top, size, NUM_TOP)
        size = NUM_TOP
    return size
