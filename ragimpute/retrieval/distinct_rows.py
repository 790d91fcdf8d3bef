"""Find the distinct rows of a window from the distinct rows of its two halves.

The rows of each half are numbered so that equal rows have equal numbers. Two rows of the window are
then equal if both their numbers are, so a row costs one look-up, however long the window is.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel


def join_halves(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows of a window, in the order in which they first occur.

    Parameters
    ----------
    left, right
        Shape (H,), uint32: each row's number within the left and right half of the window; if a
        half is one word long, the word itself may serve as the number.

    Returns
    -------
    For each number the first row that has it, shape (distinct,), int32, ascending; and for each row
    its number, shape (H,), uint32.
    """
    num_rows = len(left)
    table = np.full(1 << max(4, int(2 * num_rows).bit_length()), -1, np.int32)
    first, which = np.empty(num_rows, np.int32), np.empty(num_rows, np.uint32)
    num = _join(left, right, table, np.empty(num_rows, np.uint64), first, which)
    return first[:num], which


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
def _join(left, right, table, keys, first, which):
    """Do the work of :func:`join_halves`; returns the number of distinct rows.

    ``keys`` (H,) is a buffer. ``table`` is an empty hash table: all entries are -1, and its length
    is a power of 2 that is at least twice the number of rows.
    """
    last = np.uint64(table.shape[0] - 1)
    num = 0
    for h in range(left.shape[0]):
        key = (np.uint64(left[h]) << np.uint64(32)) | np.uint64(right[h])
        mix = (key ^ (key >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        at = np.int64((mix ^ (mix >> np.uint64(32))) & last)
        while table[at] >= 0 and keys[table[at]] != key:
            at = np.int64(np.uint64(at + 1) & last)
        if table[at] < 0:
            table[at] = num
            keys[num] = key
            first[num] = h
            num += 1
        which[h] = table[at]
    return num


@kernel
def _mix(words, rows, out):
    """Do the work of :func:`mix_words`; ``out`` (n,) has the hashes' initial value."""
    for w in range(words.shape[0]):
        for i in range(rows.shape[0]):
            mix = (out[i] ^ np.uint64(words[w, rows[i]])) * np.uint64(0xBF58476D1CE4E5B9)
            out[i] = mix ^ (mix >> np.uint64(29))


@kernel
def list_members(which, place, order, offsets, members):
    """List in ``members`` the rows that have each number; ``offsets`` (all 0 before) delimits them.

    Number k comes at place ``place[k]``. Rows with the same number are in the order of ``order``
    (H,), which has each row once.
    """
    for h in range(which.shape[0]):
        offsets[place[which[h]] + 1] += 1
    for i in range(1, offsets.shape[0]):
        offsets[i] += offsets[i - 1]
    for h in order:
        i = place[which[h]]
        members[offsets[i]] = h
        offsets[i] += 1
    for i in range(offsets.shape[0] - 1, 0, -1):
        offsets[i] = offsets[i - 1]
    offsets[0] = 0


@kernel
def number_members(offsets, members, out):
    """Write each row's number into ``out`` (H,), given the lists of rows with each number."""
    for number in range(offsets.shape[0] - 1):
        for i in range(offsets[number], offsets[number + 1]):
            out[members[i]] = number
