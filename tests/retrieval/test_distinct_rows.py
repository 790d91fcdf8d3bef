"""Distinct rows of windows, joined from halves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ragimpute.retrieval.distinct_rows import (
    join_buffers,
    join_halves,
    list_members,
    mix_words,
    number_members,
)


def some_words():
    """Six words of 300 rows (6, 300), few of which are distinct in short windows."""
    rng = np.random.default_rng(12)
    return rng.integers(0, 3, (6, 300)).astype(np.uint32) * np.uint32(0x80000001)


def test_distinct_rows_are_numbered_as_they_come():
    words = some_words()
    first, size, which = join_halves(words[2], words[3])
    part = words[2:4].T
    assert len(first) == len(np.unique(part, axis=0))
    np.testing.assert_array_equal(part[first][which], part)
    np.testing.assert_array_equal(np.unique(which, return_index=True)[1], first)
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(np.bincount(which), size)


def test_halves_are_joined_by_their_numbers():
    words = some_words()
    halves = [join_halves(words[w], words[w + 1])[2] for w in (0, 2)]
    first, _, which = join_halves(*halves)
    part = words[:4].T
    assert len(first) == len(np.unique(part, axis=0))
    np.testing.assert_array_equal(part[first][which], part)


def test_mixes_tell_rows_apart():
    words = some_words()
    rows = np.arange(300, dtype=np.int32)
    mixes = mix_words(words, rows)
    same = (words[:, :, None] == words[:, None]).all(axis=0)
    np.testing.assert_array_equal(mixes[:, None] == mixes[None], same)
    np.testing.assert_array_equal(mix_words(words, rows[::-1]), mixes[::-1])


def test_buffers_serve_again():
    words = some_words()
    buffers = join_buffers(300)
    for w in range(5):
        found = [part.copy() for part in join_halves(words[w], words[w + 1], buffers)]
        for one, other in zip(found, join_halves(words[w], words[w + 1]), strict=True):
            np.testing.assert_array_equal(one, other)
    assert (buffers.table == -1).all()


def test_members_give_back_the_numbers():
    words = some_words()
    rng = np.random.default_rng(3)
    first, size, which = join_halves(words[0], words[1])
    order = rng.permutation(len(first))
    place = np.argsort(order)
    offsets, members = np.concatenate([[0], np.cumsum(size[order])]), np.empty(300, np.int32)
    offsets = offsets.astype(np.int32)
    list_members(which, offsets[:-1][place], members)
    np.testing.assert_array_equal(np.sort(members), np.arange(300))
    for low, high in pairwise(offsets.tolist()):
        assert (np.diff(members[low:high]) > 0).all()
    out = np.empty(300, np.uint32)
    number_members(offsets, members, out)
    np.testing.assert_array_equal(out, place[which])
