"""Find the distinct rows of a window from the distinct rows of its two halves.

The rows of each half are numbered so that equal rows have equal numbers. Two rows of the window are
then equal if both their numbers are, so a row costs one look-up, however long the window is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.compile import kernel


class JoinBuffers(NamedTuple):
    """What joining halves works with, see :func:`join_buffers`.

    New memory takes the system as long to clear as joining takes: buffers are used again.

    Attributes
    ----------
    table
        A hash table, shape (a power of 2 that is at least 2 H,), int32: -1 between uses.
    keys, slot, first, size
        Shape (H,), uint64 and int32: of each distinct row its halves' numbers, its place in
        ``table``, the first row that is like it, and how many are.
    left, right, which
        Shape (H,), uint32: numbers of rows.
    """

    table: np.ndarray
    keys: np.ndarray
    slot: np.ndarray
    first: np.ndarray
    size: np.ndarray
    left: np.ndarray
    right: np.ndarray
    which: np.ndarray


def join_buffers(num_rows: int) -> JoinBuffers:
    """Allocate what :func:`join_halves` works with for ``num_rows`` rows."""
    table = np.full(1 << max(4, int(2 * num_rows).bit_length()), -1, np.int32)
    slot, first, size = (np.empty(num_rows, np.int32) for _ in range(3))
    left, right, which = (np.empty(num_rows, np.uint32) for _ in range(3))
    keys = np.empty(num_rows, np.uint64)
    return JoinBuffers(table, keys, slot, first, size, left, right, which)


def join_halves(
    left: np.ndarray, right: np.ndarray, buffers: JoinBuffers | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the distinct rows of a window, in the order in which they first occur.

    Parameters
    ----------
    left, right
        Shape (H,), uint32: each row's number within the left and right half of the window; if a
        half is one word long, the word itself may serve as the number.
    buffers
        What to work with; None: new ones.

    Returns
    -------
    For each number the first row that has it, shape (distinct,), int32, ascending; how many rows
    have it, shape (distinct,), int32; and for each row its number, shape (H,), uint32. All are
    parts of the buffers.
    """
    if buffers is None:
        buffers = join_buffers(len(left))
    table, keys, slot, first, size, _, _, which = buffers
    num = _join(left, right, table, keys, slot, first, size, which)
    return first[:num], size[:num], which


def mix_words(words: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Hash some rows, so that they can be sorted in an order that depends on their alleles only.

    Parameters
    ----------
    words
        Shape (L, H), uint32: the words of a window; each column is the row of one haplotype.
    rows
        Shape (n,), int32: the columns to hash.

    Returns
    -------
    Shape (n,), uint64: the hashes.
    """
    out = np.full(len(rows), 0x9E3779B97F4A7C15, np.uint64)
    _mix(words, rows, out)
    return out


@kernel
def _join(left, right, table, keys, slot, first, size, which):
    """Do the work of :func:`join_halves`; returns the number of distinct rows.

    The others are the arrays of a :class:`JoinBuffers`.
    """
    last = np.uint64(table.shape[0] - 1)
    num = 0
    for h in range(left.shape[0]):
        key = (np.uint64(left[h]) << np.uint64(32)) | np.uint64(right[h])
        mix = (key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        at = np.int64((mix ^ (mix >> np.uint64(32))) & last)
        while table[at] >= 0 and keys[table[at]] != key:
            at = np.int64(np.uint64(at + 1) & last)
        k = table[at]
        if k < 0:
            k = num
            table[at] = num
            keys[num] = key
            slot[num] = at
            first[num] = h
            size[num] = 0
            num += 1
        size[k] += 1
        which[h] = k
    for k in range(num):
        table[slot[k]] = -1
    return num


@kernel
def _mix(words, rows, out):
    """Do the work of :func:`mix_words`; ``out`` (n,) has the hashes' initial value."""
    for w in range(words.shape[0]):
        for i in range(rows.shape[0]):
            mix = (out[i] ^ np.uint64(words[w, rows[i]])) * np.uint64(0xBF58476D1CE4E5B9)
            out[i] = mix ^ (mix >> np.uint64(29))


@kernel
def list_members(which, begin, members):
    """List in ``members`` (H,) the rows that have each number, in their order.

    Those of number k go to ``begin[k]`` and the places after it; this moves on to their end.
    """
    for h in range(which.shape[0]):
        k = which[h]
        members[begin[k]] = h
        begin[k] += 1


@kernel
def number_members(offsets, members, out):
    """Write each row's number into ``out`` (H,), given the lists of rows with each number."""
    for number in range(offsets.shape[0] - 1):
        for i in range(offsets[number], offsets[number + 1]):
            out[members[i]] = number
