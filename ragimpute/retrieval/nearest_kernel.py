"""Find the rows of each window that have the fewest mismatches with 32 target haplotypes.

Kernels hold only loops; ``nearest`` makes the arrays that they read. The mismatches of a window's
row are those of its two halves added up, and the halves are windows themselves. So a row costs one
addition of 32 counts, however long the window is.
"""

from __future__ import annotations

from typing import NamedTuple

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

# Columns of the table of windows. FIRST_ROW, NUM_ROWS: the window's rows. LEFT, RIGHT, OWN: where
# in ``tables`` the counts of its halves and its own counts begin; -1 if a half is not a window.
# WORDS_LOW, WORDS_HIGH: the words that are in neither half; FIRST_WORD: where their rows begin in
# ``words``. LOW, HIGH: all words of the window. NUM_HITS, FIRST_HIT: how many hits are taken from
# it, and the place of the first among all hits. NUMBER: the window's number.
(
    FIRST_ROW, NUM_ROWS, LEFT, RIGHT, OWN, WORDS_LOW, WORDS_HIGH, FIRST_WORD, LOW, HIGH, NUM_HITS,
    FIRST_HIT, NUMBER,
) = range(13)  # fmt: skip
NUM_COLUMNS = 13
# When so many candidates for each wanted hit have been collected, all but the nearest are dropped.
CANDIDATES_PER_HIT = 4
# The rows are divided into so many groups for each wanted hit. The groups' smallest mismatches show
# that the farthest hit has at most a certain number: rows with more are skipped.
GROUPS_PER_HIT = 2
_MOST = np.uint16(65535)


class WindowRows(NamedTuple):
    """The distinct rows of all windows.

    Attributes
    ----------
    windows
        Shape (n, NUM_COLUMNS), int64: the table of windows, in which the halves of a window come
        before it.
    halves
        Shape (rows, 2), int32: for each row of a window the rows of its halves.
    words
        Uint32: for each row of a window in turn the words that are in neither half.
    offsets
        Shape (rows + n,), int32: for each window in turn where the haplotypes that have each of
        its rows begin in ``members``, and the end.
    members
        Shape (n, H), uint16 or int32: the haplotypes of each window, those with equal rows
        together.
    """

    windows: np.ndarray
    halves: np.ndarray
    words: np.ndarray
    offsets: np.ndarray
    members: np.ndarray


class SearchBuffers(NamedTuple):
    """What a search works with, see :func:`make_buffers`.

    Attributes
    ----------
    tables
        Shape (rows, 32), uint16: mismatches of each row with each target, see ``OWN``.
    minima
        Shape (groups, 32), uint16: the smallest mismatches in each group of rows.
    limit
        Shape (2, 32), uint16: row 0, the mismatches from which on rows are skipped, for each
        target; row 1 is used to find them.
    candidates, sizes
        Shape (32, n, 2), int32: rows that may be hits, and their mismatches; and shape (32,),
        int64: how many each target has.
    rows
        Shape (hits,), int64: the rows of a target's hits, nearest first.
    histogram
        Shape (mismatches + 1,), int32: zeros between uses.
    """

    tables: np.ndarray
    minima: np.ndarray
    limit: np.ndarray
    candidates: np.ndarray
    sizes: np.ndarray
    rows: np.ndarray
    histogram: np.ndarray


@inlined
def _drop_farther(candidates, size, most, histogram):
    """Keep the ``most`` nearest candidates (size, 2) in their order; drop the others.

    Of candidates with equal mismatches the first are kept. Returns the mismatches of the farthest
    that is kept. ``histogram``: a buffer of zeros.
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
    """Write the rows of the ``most`` nearest candidates (size, 2), sorted; returns how many.

    Candidates with equal mismatches stay in their order. No candidate has more mismatches than
    ``farthest``. ``histogram``: a buffer of zeros.
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
def _mix_alleles(words):
    """A hash of a target's ``words`` (n,)."""
    mix = np.uint64(0x9E3779B97F4A7C15)
    for word in words:
        mix = (mix ^ np.uint64(word)) * np.uint64(0x100000001B3)
    return mix ^ (mix >> np.uint64(32))


@inlined
def _list_haplotypes(rows, offsets, members, mix, out):
    """Write the haplotypes that have the ``rows``, nearest first, until ``out`` is full.

    ``mix``: a hash of the target's alleles.
    """
    num = 0
    for row in rows:
        if num == out.shape[0]:
            break
        first = offsets[row]
        count = offsets[row + 1] - first
        if count == 1:
            out[num] = members[first]
            num += 1
            continue
        # All haplotypes with the same row are equally near, and there may be room for only some.
        # Begin at a place that depends on the target's alleles, not on the haplotypes' numbers or
        # on the other targets in the search.
        shift = np.int64((mix + np.uint64(row) * np.uint64(104729)) % np.uint64(count))
        for m in range(min(count, out.shape[0] - num)):
            at = shift + m
            out[num] = members[first + (at if at < count else at - count)]
            num += 1


@inlined
def _count_own(word, query, counts):
    """Add to ``counts`` (32,) the mismatches between a word and the words of 32 targets."""
    for lane in range(COUNTS):
        counts[lane] += np.uint16(num_set(word ^ query[lane]))


@inlined
def _measure(window, queries, halves, words, tables, minima):
    """Count the mismatches of all rows of a window, and find each group's smallest count.

    Returns the number of groups.
    """
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
    """Write the ``most``-th smallest of the groups' minima, plus 1, to row 0 of ``limit`` (2, 32).

    No minimum is larger than ``longest``. With fewer groups than ``most``, there is no limit.
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
def search_windows(queries, width, panel, buffers, out, lists):
    """Write the nearest haplotypes of ``width`` targets in all windows to ``out`` (width, hits).

    ``queries`` (W, 32), uint32: the targets' words; ``panel``: a ``WindowRows``; ``buffers``: a
    ``SearchBuffers``. If it is not to list haplotypes (``lists``), the nearest rows are written.
    """
    tables, minima, limit, candidates, sizes, rows, histogram = buffers
    active = (np.uint64(1) << np.uint64(width)) - np.uint64(1)
    for n in range(panel.windows.shape[0]):
        window = panel.windows[n]
        num_rows, most = window[NUM_ROWS], window[NUM_HITS]
        groups = _measure(window, queries, panel.halves, panel.words, tables, minima)
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
            here = out[i, window[FIRST_HIT] : window[FIRST_HIT] + most]
            if lists:
                _list_haplotypes(
                    rows[:size], panel.offsets[first : first + num_rows + 1], panel.members[number],
                    _mix_alleles(queries[window[LOW] : window[HIGH], i]), here,
                )  # fmt: skip
            else:
                for k in range(size):
                    here[k] = rows[k]


@kernel
def list_hits(queries, rows, panel, out):
    """Write the haplotypes that have the nearest rows of n targets in all windows to ``out``.

    ``queries`` (n, W), uint32: the targets' words. ``rows`` (n, hits), int32: for each window its
    nearest rows, nearest first, padded with -1. ``out`` (n, hits) has -1 where nothing is written.
    """
    for k in range(panel.windows.shape[0]):
        window = panel.windows[k]
        first, number = window[FIRST_ROW] + window[NUMBER], window[NUMBER]
        low, high = window[FIRST_HIT], window[FIRST_HIT] + window[NUM_HITS]
        offsets = panel.offsets[first : first + window[NUM_ROWS] + 1]
        for i in range(rows.shape[0]):
            here = rows[i, low:high]
            size = 0
            while size < here.shape[0] and here[size] >= 0:
                size += 1
            _list_haplotypes(
                here[:size], offsets, panel.members[number],
                _mix_alleles(queries[i, window[LOW] : window[HIGH]]), out[i, low:high],
            )  # fmt: skip


def make_buffers(num_tables: int, most: int, longest: int) -> SearchBuffers:
    """Allocate what :func:`search_windows` works with.

    Parameters
    ----------
    num_tables
        Rows of ``tables``.
    most
        The largest number of hits taken from a window.
    longest
        The largest number of words in a window.
    """
    return SearchBuffers(
        np.empty((num_tables, COUNTS), np.uint16),
        np.empty((GROUPS_PER_HIT * most, COUNTS), np.uint16),
        np.empty((2, COUNTS), np.uint16),
        np.empty((COUNTS, CANDIDATES_PER_HIT * most, 2), np.int32),
        np.empty(COUNTS, np.int64),
        np.empty(most, np.int64),
        np.zeros(longest * WORD + 1, np.int32),
    )
