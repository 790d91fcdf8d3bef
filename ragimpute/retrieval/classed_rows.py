"""Distinct rows of all windows of a very large panel, made of its distinct rows in a few of them.

A million haplotypes have a few thousand distinct rows over 256 typed sites. So their words are
joined in windows of eight words alone, one after the other, and each haplotype is told by the
number of its row there, its class. All shorter windows are made of classes, not of haplotypes, and
longer ones by joining classes. The rows are those that :mod:`ragimpute.retrieval.nearest` finds.
Which haplotypes have them is listed when it is asked for: for a few targets, window by window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ragimpute.kernels.compile import kernel
from ragimpute.retrieval.distinct_rows import JoinBuffers, join_buffers, join_halves, mix_words

# Words of a window of classes, and of its halves.
_LENGTH, _STEP = 8, 4


class SameHashError(Exception):
    """Two distinct rows of a window have the same hash, which sorts them."""


class _Classes(NamedTuple):
    """The distinct rows of a run of words.

    ``which`` (H,), uint16 or uint32: each haplotype's row. ``words`` (L, n), uint32: the rows.
    ``size`` (n,): how many haplotypes have each.
    """

    which: np.ndarray
    words: np.ndarray
    size: np.ndarray


class ClassedWords:
    """The words of all haplotypes, as classes: a tenth of the memory.

    Words are added in order, :data:`STEP` at a time.

    Parameters
    ----------
    num_haplotypes
        H, >= 1.

    Attributes
    ----------
    num_words
        Words that were added, W.
    """

    #: Words that are added at a time; fewer only at the end.
    STEP = _STEP

    def __init__(self, num_haplotypes: int) -> None:
        self.num_haplotypes, self.num_words = num_haplotypes, 0
        self._buffers = join_buffers(num_haplotypes)
        self._last: _Classes | None = None
        self._parts: list[_Classes] = []

    def add(self, words: Sequence[np.ndarray]) -> None:
        """Add the next words, each of shape (H,), uint32."""
        if not 0 < len(words) <= _STEP or self.num_words % _STEP:
            raise ValueError(f"{len(words)} words follow on {self.num_words}")
        buffers = self._buffers
        number, first, size = words[0], None, None
        for w in range(1, len(words)):
            first, size, which = join_halves(number, words[w], buffers)
            number = buffers.left
            number[:] = which
        if first is None or size is None:
            buffers.right[:] = 0
            first, size, which = join_halves(number, buffers.right, buffers)
        rows = np.stack([word[first] for word in words])
        made = _Classes(_narrow(which, len(first)), rows, size.copy())
        if self._last is None:
            self._parts.append(made)
        else:
            both = self._joined(self._last, made)
            if self.num_words == _STEP:
                self._parts[0] = both
            else:
                self._parts.append(both)
        self._last = made
        self.num_words += len(words)

    def _joined(self, left: _Classes, right: _Classes) -> _Classes:
        """The distinct rows of two runs of words that follow on each other."""
        buffers = self._buffers
        buffers.left[:], buffers.right[:] = left.which, right.which
        first, size, which = join_halves(buffers.left, buffers.right, buffers)
        rows = [part.words[:, part.which[first]] for part in (left, right)]
        return _Classes(_narrow(which, len(first)), np.concatenate(rows), size.copy())

    def at(self, columns: np.ndarray, low: int = 0, high: int | None = None) -> np.ndarray:
        """The words [low, high) of some haplotypes, (high - low, k), uint32."""
        high = self.num_words if high is None else high
        out = np.empty((high - low, len(columns)), np.uint32)
        for w in range(low, high):
            b = self.part_of(w, w + 1)
            part = self._parts[b]
            out[w - low] = part.words[w - _STEP * b][part.which[columns]]
        return out

    def part_of(self, low: int, high: int) -> int:
        """The number of a window of classes that has the words [low, high), or -1."""
        b = min(low // _STEP, len(self._parts) - 1)
        return b if high <= min(_STEP * b + _LENGTH, self.num_words) else -1

    def part(self, b: int) -> _Classes:
        """A window of classes."""
        return self._parts[b]

    @property
    def buffers(self) -> JoinBuffers:
        """What joining works with."""
        return self._buffers


def _narrow(which: np.ndarray, num: int) -> np.ndarray:
    """A copy of numbers below ``num``, in 16 bits if they fit."""
    return which.astype(np.uint16 if num <= 1 << 16 else np.uint32)


@dataclass(frozen=True)
class WindowClasses:
    """The distinct rows of a window, and which haplotypes have them.

    Attributes
    ----------
    which, row_of
        Haplotype h has row ``row_of[which[h]]``: (H,), uint16 or uint32, and (classes,), int32.
    hashes
        Shape (rows,), uint64, ascending: those of the rows.
    words
        Shape (L, rows), uint32: the rows.
    offsets
        Shape (rows + 1,), int32: how many haplotypes have the rows before.
    """

    which: np.ndarray
    row_of: np.ndarray
    hashes: np.ndarray
    words: np.ndarray
    offsets: np.ndarray

    def find(self, words: np.ndarray) -> np.ndarray:
        """The numbers of rows, given by their words (L, k): (k,), int32."""
        mixed = mix_words(words, np.arange(words.shape[1], dtype=np.int32))
        return np.searchsorted(self.hashes, mixed).astype(np.int32)

    def list_members(self, out: np.ndarray) -> None:
        """List in ``out`` (H,), uint16 or int32, the haplotypes that have each row, in order."""
        list_rows(self.which, self.row_of, self.offsets[:-1].copy(), out)


class ClassedWindows:
    """Makes the distinct rows of windows; each window's halves are asked for before it.

    Parameters
    ----------
    words
        The words of all haplotypes.
    """

    def __init__(self, words: ClassedWords) -> None:
        self._words = words
        self._known: dict[tuple[int, int], WindowClasses] = {}

    def window(self, low: int, middle: int, high: int) -> WindowClasses:
        """The distinct rows of the words [low, high), whose halves meet at ``middle``.

        Raises
        ------
        SameHashError
            If two of them have the same hash.
        """
        b = self._words.part_of(low, high)
        if b >= 0:
            part = self._words.part(b)
            rows = part.words[low - _STEP * b : high - _STEP * b]
            which, size = part.which, part.size
        else:
            buffers = self._words.buffers
            left, right = self._numbers(low, middle), self._numbers(middle, high)
            buffers.left[:], buffers.right[:] = left, right
            first, size, which = join_halves(buffers.left, buffers.right, buffers)
            which = _narrow(which, len(first))
            rows = self._words.at(first, low, high)
        mixed = mix_words(np.ascontiguousarray(rows), np.arange(rows.shape[1], dtype=np.int32))
        hashes, chosen, row_of = np.unique(mixed, return_index=True, return_inverse=True)
        distinct = np.ascontiguousarray(rows[:, chosen])
        if not np.array_equal(distinct[:, row_of], rows):
            raise SameHashError
        sizes = np.bincount(row_of, weights=size, minlength=len(hashes))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        found = WindowClasses(which, row_of.astype(np.int32), hashes, distinct, offsets)
        self._known[low, high] = found
        return found

    def known(self, low: int, high: int) -> WindowClasses:
        """A window that was made before."""
        return self._known[low, high]

    def _numbers(self, low: int, high: int) -> np.ndarray:
        """Number the rows so that rows with equal words [low, high) are equal: (H,)."""
        known = self._known.get((low, high))
        b = self._words.part_of(low, high)
        if known is None and b < 0:  # where the panel ends, shorter windows may end earlier
            middle = (low + high) // 2
            left, right = self._numbers(low, middle), self._numbers(middle, high)
            out: np.ndarray = join_halves(left.astype(np.uint32), right.astype(np.uint32))[2]
            return out
        if known is None:
            part = self._words.part(b)
            rows = part.words[low - _STEP * b : high - _STEP * b]
            _, number = np.unique(rows, axis=1, return_inverse=True)
            of_class: np.ndarray = number.reshape(-1).astype(np.uint32)
            return np.take(of_class, part.which)
        return np.take(known.row_of, known.which) if b >= 0 else known.which


@kernel
def list_rows(which, row_of, begin, members):
    """List in ``members`` (H,) the haplotypes that have each row, in their order.

    Haplotype h has row ``row_of[which[h]]``. Those of row k go to ``begin[k]`` and the places after
    it; this moves on to their end.
    """
    for h in range(which.shape[0]):
        k = row_of[which[h]]
        members[begin[k]] = h
        begin[k] += 1
