"""Which rows of a panel's windows are nearest to 32 target haplotypes, by numbers of mismatches.

Kernels hold only loops; ``nearest`` says what goes in. A window's mismatches are those of its
halves added up, and the halves are windows themselves: a row takes one sum of 32 counts, however
long it is.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.bits import WORD, num_set, trailing_zeros
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.simd_counts import (
    COUNTS,
    added,
    below,
    if_below,
    load_counts,
    one_if_below,
    repeated,
    smaller,
    store_counts,
)

# Columns of the table of windows: its rows; where in ``tables`` the counts of its halves and its
# own are, -1 where a half is no window; its words that no half has, and where their rows begin; all
# its words; its hits, and the first of them among all; its number.
(
    FIRST_ROW, NUM_ROWS, LEFT, RIGHT, OWN, WORDS_LOW, WORDS_HIGH, FIRST_WORD, LOW, HIGH, NUM_HITS,
    FIRST_HIT, NUMBER,
) = range(13)  # fmt: skip
NUM_COLUMNS = 13
# Rows that are kept as candidates for each hit before most of them are dropped.
CANDIDATES_PER_HIT = 4
# Groups of rows for each hit, whose minima bound the mismatches of the farthest hit from above.
GROUPS_PER_HIT = 2
_MOST = np.uint16(65535)


@inlined
def _drop_farther(candidates, size, most, histogram):
    """Keep the ``most`` nearest candidates (size, 2), the first of equals, in their order.

    Returns the mismatches of the farthest. ``histogram``: a buffer of zeros.
    """
    for c in range(size):
        histogram[candidates[c, 1]] += 1
    farthest = 0
    room = most
    while histogram[farthest] < room:
        room -= histogram[farthest]
        farthest += 1
    for c in range(size):
        histogram[candidates[c, 1]] = 0
    kept = 0
    for c in range(size):
        mismatches = candidates[c, 1]
        if mismatches > farthest:
            continue
        if mismatches == farthest:
            if room == 0:
                continue
            room -= 1
        candidates[kept, 0] = candidates[c, 0]
        candidates[kept, 1] = mismatches
        kept += 1
    return farthest


@inlined
def _sort_nearest(candidates, size, most, farthest, histogram, rows):
    """Rows of the ``most`` nearest candidates (size, 2), the first of equals; returns how many.

    None has more mismatches than ``farthest``. ``histogram``: a buffer of zeros.
    """
    for c in range(size):
        histogram[candidates[c, 1]] += 1
    place = 0
    for mismatches in range(farthest + 1):
        count = histogram[mismatches]
        histogram[mismatches] = place
        place += count
    for c in range(size):
        mismatches = candidates[c, 1]
        at = histogram[mismatches]
        histogram[mismatches] = at + 1
        if at < most:
            rows[at] = candidates[c, 0]
    histogram[: farthest + 1] = 0
    return min(size, most)


@inlined
def _list_haplotypes(queries, lane, low, high, rows, size, offsets, members, out):
    """Haplotypes of ``rows`` (size,), nearest first, as many as ``out`` has room for.

    ``queries`` (W, 32): bits of the targets.
    """
    mix = np.uint64(0x9E3779B97F4A7C15)
    for w in range(low, high):
        mix = (mix ^ np.uint64(queries[w, lane])) * np.uint64(0x100000001B3)
    mix ^= mix >> np.uint64(32)
    num = 0
    for c in range(size):
        row = rows[c]
        if num == out.shape[0]:
            break
        first = offsets[row]
        count = offsets[row + 1] - first
        if count == 1:
            out[num] = members[first]
            num += 1
            continue
        # Ties: begin at a place that depends on the query's alleles, neither on the haplotypes'
        # numbers nor on which other targets are searched for.
        shift = np.int64((mix + np.uint64(row) * np.uint64(104729)) % np.uint64(count))
        for m in range(min(count, out.shape[0] - num)):
            at = shift + m
            out[num] = members[first + (at if at < count else at - count)]
            num += 1


@inlined
def _count_own(word, query, counts):
    """Add mismatches of a word with those of 32 targets (32,) to ``counts`` (32,)."""
    for lane in range(COUNTS):
        counts[lane] += np.uint16(num_set(word ^ query[lane]))


@inlined
def _measure(window, queries, halves, words, tables, minima):
    """Mismatches of the rows of a window, and the minima of groups of them; returns how many."""
    num_rows = window[NUM_ROWS]
    left, right = tables[max(window[LEFT], 0) :], tables[max(window[RIGHT], 0) :]
    own = tables[window[OWN] :]
    row_of = halves[window[FIRST_ROW] :]
    low, high = window[WORDS_LOW], window[WORDS_HIGH]
    groups = min(num_rows, GROUPS_PER_HIT * window[NUM_HITS])
    minima[:groups] = _MOST
    group = 0
    for i in range(num_rows):
        if low == high:
            counts = added(load_counts(left, np.int64(row_of[i, 0])),
                           load_counts(right, np.int64(row_of[i, 1])))  # fmt: skip
            store_counts(own, i, counts)
        else:
            if window[LEFT] >= 0:
                store_counts(own, i, load_counts(left, np.int64(row_of[i, 0])))
            else:
                store_counts(own, i, repeated(np.uint16(0)))
            for w in range(low, high):
                word = words[window[FIRST_WORD] + i * (high - low) + w - low]
                _count_own(word, queries[w], own[i])
            counts = load_counts(own, i)
        store_counts(minima, group, smaller(load_counts(minima, group), counts))
        group = group + 1 if group + 1 < groups else 0
    return groups


@inlined
def _bound(minima, groups, most, longest, limit):
    """The ``most``-th smallest of the minima, plus 1, into row 0 of ``limit`` (2, 32).

    None is more than ``longest``.
    """
    if groups < most:
        store_counts(limit, 0, repeated(_MOST))
        return
    wanted = repeated(np.uint16(most))
    store_counts(limit, 0, repeated(np.uint16(0)))
    step = 1
    while 2 * step <= longest:
        step *= 2
    while step > 0:  # to the largest number that fewer of them are below
        bound = load_counts(limit, 0)
        higher = added(bound, repeated(np.uint16(step)))
        step //= 2
        store_counts(limit, 1, repeated(np.uint16(0)))
        count = load_counts(limit, 1)
        for g in range(groups):
            count = added(count, one_if_below(load_counts(minima, g), higher))
        store_counts(limit, 0, if_below(count, wanted, higher, bound))
    store_counts(limit, 0, added(load_counts(limit, 0), repeated(np.uint16(1))))


@kernel
def search_windows(
    queries, width, windows, halves, words, offsets, members, tables, buffers, out
):  # fmt: skip
    """Nearest haplotypes of ``width`` targets in all windows, into ``out`` (width, hits).

    ``queries`` (W, 32) uint32; ``windows`` (n, NUM_COLUMNS) in an order in which halves come first;
    ``halves`` (rows, 2): the rows of the halves; ``words``: rows of words that no half has;
    ``offsets`` (rows + n,) and ``members`` (n, H): haplotypes of each row; ``tables`` (rows, 32)
    uint16 and ``buffers``: see :func:`search_buffers`.
    """
    minima, limit, candidates, sizes, rows, histogram = buffers
    active = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    for n in range(windows.shape[0]):
        window = windows[n]
        num_rows, most = window[NUM_ROWS], window[NUM_HITS]
        groups = _measure(window, queries, halves, words, tables, minima)
        longest = (window[HIGH] - window[LOW]) * WORD
        _bound(minima, groups, most, longest, limit)
        own = tables[window[OWN] :]
        full = CANDIDATES_PER_HIT * most
        sizes[:] = 0
        bound = load_counts(limit, 0)
        for r in range(num_rows):
            near = below(load_counts(own, r), bound) & active
            while near != np.uint64(0):
                lane = np.int64(trailing_zeros(near))
                near &= near - np.uint64(1)
                size = sizes[lane]
                candidates[lane, size, 0] = r
                candidates[lane, size, 1] = own[r, lane]
                sizes[lane] = size + 1
                if size + 1 == full:
                    limit[0, lane] = _drop_farther(candidates[lane], full, most, histogram)
                    sizes[lane] = most
                    bound = load_counts(limit, 0)
        first, number = window[FIRST_ROW] + window[NUMBER], window[NUMBER]
        for i in range(width):
            farthest = min(np.int64(limit[0, i]), longest)
            size = _sort_nearest(candidates[i], sizes[i], most, farthest, histogram, rows)
            _list_haplotypes(
                queries, i, window[LOW], window[HIGH], rows, size,
                offsets[first : first + num_rows + 1], members[number],
                out[i, window[FIRST_HIT] : window[FIRST_HIT] + most],
            )  # fmt: skip


def search_buffers(
    num_tables: int, most: int, longest: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """``tables`` and ``buffers`` of :func:`search_windows`.

    So many rows of tables; at most so many hits of a window, and words in it.
    """
    return np.empty((num_tables, COUNTS), np.uint16), (
        np.empty((GROUPS_PER_HIT * most, COUNTS), np.uint16),
        np.empty((2, COUNTS), np.uint16),
        np.empty((COUNTS, CANDIDATES_PER_HIT * most, 2), np.int32),
        np.empty(COUNTS, np.int64),
        np.empty(most, np.int64),
        np.zeros(longest * WORD + 1, np.int32),
    )
