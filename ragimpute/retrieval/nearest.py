"""Find the panel haplotypes that are nearest to targets in overlapping windows of typed sites.

In each window only the distinct rows are compared with a target; lists tell which haplotypes have a
row. The windows of each scale are twice as long as those of the scale before, and the two halves of
a window are windows of that scale. So the distinct rows of a window are pairs of rows of its
halves, and its mismatches are sums of theirs. The result is exact, and takes a tenth to a twentieth
of the time of comparing all words of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, SimpleQueue
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np

from ragimpute.kernels.bits import WORD
from ragimpute.kernels.simd_counts import COUNTS
from ragimpute.retrieval.classed_rows import (
    ClassedWindows,
    ClassedWords,
    SameHashError,
    WindowClasses,
)
from ragimpute.retrieval.distinct_rows import (
    JoinBuffers,
    join_buffers,
    join_halves,
    list_members,
    mix_words,
    number_members,
)
from ragimpute.retrieval.nearest_kernel import (
    FIRST_HIT,
    FIRST_ROW,
    FIRST_WORD,
    HIGH,
    LEFT,
    LOW,
    NUM_COLUMNS,
    NUM_HITS,
    NUM_ROWS,
    NUMBER,
    OWN,
    RIGHT,
    WORDS_HIGH,
    WORDS_LOW,
    SearchBuffers,
    WindowRows,
    list_hits,
    make_buffers,
    search_windows,
)
from ragimpute.runtime.threads import share

# Targets that are compared at once.
AT_ONCE = COUNTS
# For so many searches of a very large panel members are listed anew; then they are kept.
_SEARCHES_UNLISTED = 1


class Search(Protocol):
    """Finds the nearest haplotypes of targets: kernels do (:class:`NearestRows`), or a device.

    Attributes
    ----------
    at_once
        The most targets that a search may be given.
    """

    at_once: int

    def search(self, target: np.ndarray, hits: np.ndarray) -> None:
        """See :meth:`NearestRows.search`."""
        ...


@dataclass(frozen=True)
class _Rows:
    """The distinct rows of a window, in an order that depends on their alleles only."""

    parts: tuple[int, int]  # the shorter windows that are its halves, -1 if a half is not a window
    halves: np.ndarray  # (rows, 2) int32: for each row, the rows of the halves that it consists of
    words: np.ndarray  # (rows, words) uint32: words at the window's end that are in neither half
    offsets: np.ndarray  # (rows + 1,) int32: where the haplotypes of each row begin in ``members``


@dataclass(frozen=True)
class _Scale:
    """The windows of one length."""

    ranges: np.ndarray  # (windows, 2) words
    rows: list[_Rows]
    members: np.ndarray  # (windows, H)

    def find(self, low: int, high: int) -> int:
        """The number of the window with exactly the words [low, high), or -1."""
        return self._number.get((low, high), -1)

    @cached_property
    def _number(self) -> dict[tuple[int, int], int]:
        return {(low, high): i for i, (low, high) in enumerate(self.ranges.tolist())}


class SearchTables(NamedTuple):
    """What :class:`NearestRows` makes of a panel.

    Attributes
    ----------
    rows
        The distinct rows of all windows.
    num_tables
        How many rows of counts a search keeps at a time.
    """

    rows: WindowRows
    num_tables: int


def member_type(num_haplotypes: int) -> type[np.uint16] | type[np.int32]:
    """The type of the numbers of haplotypes in ``WindowRows.members``."""
    return np.uint16 if num_haplotypes <= 1 << 16 else np.int32


class NearestRows:
    """Distinct rows of overlapping windows of typed sites, ready to be searched.

    Parameters
    ----------
    words
        Shape (W, H), uint32: the panel at typed sites, 32 to a word. Haplotypes that are alike in a
        window are listed in the order of its columns.
    scales
        (typed sites in a window, hits taken from it) of each scale, each with twice as many sites
        as the scale before.
    threads
        Number of threads that windows are divided among; the result does not depend on it.

    Attributes
    ----------
    num_hits
        Number of hits of all windows together.
    at_once
        Targets that are best searched for at once.
    """

    at_once = AT_ONCE

    def __init__(
        self, words: np.ndarray, scales: Sequence[tuple[int, int]], *, threads: int = 1
    ) -> None:
        self._num_words = len(words)
        self._lay_out(scales)
        self._joins: SimpleQueue[JoinBuffers] = SimpleQueue()
        number = member_type(words.shape[1])
        all_members = np.empty((sum(map(len, self.ranges)), words.shape[1]), number)
        built: list[_Scale] = []
        for ranges in self.ranges:
            shorter = built[-1] if built else None
            at = sum(len(scale.ranges) for scale in built)
            members = all_members[at : at + len(ranges)]
            built.append(self._build_scale(words, ranges, members, shorter, threads))
        windows, self._num_tables = self._table(built)
        all_rows = [rows for scale in built for rows in scale.rows]
        self._panel = WindowRows(
            windows,
            np.concatenate([rows.halves for rows in all_rows]),
            np.concatenate([rows.words.ravel() for rows in all_rows]),
            np.concatenate([rows.offsets for rows in all_rows]),
            all_members,
        )
        del self._joins

    @classmethod
    def of_classes(cls, words: ClassedWords, scales: Sequence[tuple[int, int]]) -> NearestRows:
        """The same of a very large panel, whose members are listed when they are asked for."""
        made = cls.__new__(cls)
        made._num_words = words.num_words
        made._lay_out(scales)
        windows = ClassedWindows(words)
        built: list[tuple[_Scale, list[WindowClasses]]] = []
        try:
            for ranges in made.ranges:
                built.append(_classed_scale(windows, ranges, built[-1] if built else None))
        except SameHashError:
            return cls(words.at(np.arange(words.num_haplotypes)), scales)
        table, made._num_tables = made._table([scale for scale, _ in built])
        all_rows = [rows for scale, _ in built for rows in scale.rows]
        none = np.empty((0, words.num_haplotypes), member_type(words.num_haplotypes))
        made._panel = WindowRows(
            table,
            np.concatenate([rows.halves for rows in all_rows]),
            np.concatenate([rows.words.ravel() for rows in all_rows]),
            np.concatenate([rows.offsets for rows in all_rows]),
            none,
        )
        made._unlisted = [window for _, classes in built for window in classes]
        return made

    @classmethod
    def of_tables(
        cls, num_words: int, scales: Sequence[tuple[int, int]], tables: SearchTables
    ) -> NearestRows:
        """Make it of the :attr:`tables` of another one, of the same words and scales."""
        made = cls.__new__(cls)
        made._num_words = num_words
        made._lay_out(scales)
        made._panel, made._num_tables = tables
        return made

    def _lay_out(self, scales: Sequence[tuple[int, int]]) -> None:
        """Set all that depends on the scales and the number of words alone."""
        lengths = [num_typed // WORD for num_typed, _ in scales]
        lengths = [x for i, x in enumerate(lengths) if i == 0 or x < 2 * self._num_words]
        self.ranges = [self._ranges(length) for length in lengths]
        self.hits_of = [num_hits for _, num_hits in scales[: len(lengths)]]
        self.num_hits = sum(
            len(ranges) * hits for ranges, hits in zip(self.ranges, self.hits_of, strict=True)
        )
        self._longest = max(int(np.diff(ranges).max()) for ranges in self.ranges)
        # Buffers of finished searches, to be used again: the system would take as long to clear new
        # memory as a search takes.
        self._buffers: SimpleQueue[SearchBuffers] = SimpleQueue()
        # Windows whose members are not listed yet; and what keeps two threads from listing them.
        self._unlisted: list[WindowClasses] | None = None
        self._num_searches, self._lock = 0, Lock()

    @property
    def tables(self) -> SearchTables:
        """What was made of the panel."""
        return SearchTables(self.panel, self._num_tables)

    @property
    def panel(self) -> WindowRows:
        """The distinct rows of all windows, as kernels read them."""
        with self._lock:
            if self._unlisted is not None:
                width = self._panel.members.shape[1]
                members = np.empty((len(self._unlisted), width), self._panel.members.dtype)
                for window, out in zip(self._unlisted, members, strict=True):
                    window.list_members(out)
                self._panel = self._panel._replace(members=members)
                self._unlisted = None
        return self._panel

    @property
    def num_words(self) -> int:
        """Words of the panel, W."""
        return self._num_words

    @property
    def first_hits(self) -> np.ndarray:
        """Shape (windows,), int64: where the hits of each window begin; scale after scale."""
        sizes = [hits for r, hits in zip(self.ranges, self.hits_of, strict=True) for _ in r]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def _ranges(self, length: int) -> np.ndarray:
        """Half-overlapping windows of ``length`` words, shape (windows, 2)."""
        step = max(1, length // 2)
        starts = np.arange(0, max(1, self._num_words - length + step), step)
        return np.stack([starts, np.minimum(starts + length, self._num_words)], axis=1)

    def _build_scale(
        self,
        words: np.ndarray,
        ranges: np.ndarray,
        members: np.ndarray,
        shorter: _Scale | None,
        threads: int,
    ) -> _Scale:
        """Find the distinct rows of windows, and fill ``members`` (windows, H)."""
        step = int(ranges[1, 0]) if len(ranges) > 1 else int(ranges[0, 1])
        if shorter is not None:
            step = int(shorter.ranges[0, 1])

        def build(i: int) -> _Rows:
            low, high = ranges[i].tolist()
            middle = low + step
            parts = (-1, -1)
            if shorter is not None:
                parts = (shorter.find(low, middle), shorter.find(middle, high))
            buffers = self._join_buffers(words.shape[1])
            left = self._numbers(words, shorter, (low, middle), buffers.left)
            right = self._numbers(words, shorter, (middle, high), buffers.right)
            distinct, size, which = join_halves(left, right, buffers)
            # Sorted by a hash of their alleles: hits must not depend on the order of the panel.
            order = np.argsort(mix_words(words[low:high], distinct))
            chosen = distinct[order]
            offsets = np.concatenate([[0], np.cumsum(size[order])]).astype(np.int32)
            begin = np.empty(len(order), np.int32)
            begin[order] = offsets[:-1]
            list_members(which, begin, members[i])
            first = low if parts[0] < 0 else middle if parts[1] < 0 else high
            halves = np.empty((len(chosen), 2), np.int32)
            halves[:, 0], halves[:, 1] = left.view(np.int32)[chosen], right.view(np.int32)[chosen]
            own = np.ascontiguousarray(words[first:high, chosen].T)
            self._joins.put(buffers)
            return _Rows(parts, halves, own, offsets)

        return _Scale(ranges, share(build, range(len(ranges)), threads), members)

    def _join_buffers(self, num_haplotypes: int) -> JoinBuffers:
        """Buffers that nobody uses."""
        try:
            return self._joins.get_nowait()
        except Empty:
            return join_buffers(num_haplotypes)

    def _numbers(
        self, words: np.ndarray, shorter: _Scale | None, ends: tuple[int, int], out: np.ndarray
    ) -> np.ndarray:
        """Number the rows so that rows with equal words [low, high), the ``ends``, are equal.

        ``out`` (H,), uint32, may be used for the result, which has this shape and type.
        """
        low, high = ends
        if high <= low:
            out[:] = 0
            return out
        if high == low + 1:
            given: np.ndarray = words[low]
            return given
        at = -1 if shorter is None else shorter.find(low, high)
        if shorter is not None and at >= 0:
            number_members(shorter.rows[at].offsets, shorter.members[at], out)
            return out
        middle = (low + high) // 2  # where the panel ends, shorter windows may end earlier
        left = self._numbers(words, shorter, (low, middle), np.empty_like(out))
        return join_halves(left, self._numbers(words, shorter, (middle, high), out))[2]

    def _table(self, scales: list[_Scale]) -> tuple[np.ndarray, int]:
        """The table of windows for the kernel, and the number of rows of counts that it needs.

        For each scale there is room for the counts of three windows at a time. Two are the halves
        of a longer window; the third is the window that overlaps both and comes between them.
        """
        rows_of = [rows for scale in scales for rows in scale.rows]
        table = np.full((len(rows_of), NUM_COLUMNS), -1, np.int64)
        sizes = np.array([len(rows.halves) for rows in rows_of])
        table[:, NUM_ROWS] = sizes
        table[:, FIRST_ROW] = np.cumsum(sizes) - sizes
        words = np.array([rows.words.size for rows in rows_of])
        table[:, FIRST_WORD] = np.cumsum(words) - words
        table[:, [LOW, HIGH]] = np.concatenate(self.ranges)
        table[:, WORDS_LOW] = table[:, HIGH] - [rows.words.shape[1] for rows in rows_of]
        table[:, WORDS_HIGH] = table[:, HIGH]
        table[:, NUM_HITS] = np.repeat(self.hits_of, [len(r) for r in self.ranges])
        table[:, FIRST_HIT] = self.first_hits
        table[:, NUMBER] = np.arange(len(table))
        first, at, before = 0, 0, table[:0]
        for scale in scales:
            here = table[at : at + len(scale.rows)]
            i = np.arange(len(here))
            most = int(here[:, NUM_ROWS].max())
            here[:, OWN] = first + most * np.where(i % 2, 2, i // 2 % 2)
            parts = np.array([rows.parts for rows in scale.rows])
            for column, part in ((LEFT, parts[:, 0]), (RIGHT, parts[:, 1])):
                here[part >= 0, column] = before[part[part >= 0], OWN]
            first, at, before = first + 3 * most, at + len(here), here
        # Sorted by end, as a half ends before its window or with it: halves then come first.
        return table[np.argsort(table[:, HIGH], kind="stable")], first

    def search(self, target: np.ndarray, hits: np.ndarray) -> None:
        """Find the nearest haplotypes in each window.

        Parameters
        ----------
        target
            Shape (n, W), uint32: the targets' bits at the same words, n <= ``AT_ONCE``, which take
            as long as one.
        hits
            Shape (n, num_hits), int32, to be filled: columns, nearest first in each window,
            padded with -1; of equally near rows the first in an order that depends on their alleles
            alone. See :attr:`first_hits`.
        """
        try:
            buffers = self._buffers.get_nowait()
        except Empty:
            buffers = make_buffers(self._num_tables, max(self.hits_of), self._longest)
        queries = np.zeros((self._num_words, AT_ONCE), np.uint32)
        queries[:, : len(target)] = target.T
        hits[:] = -1
        with self._lock:
            self._num_searches += 1
            unlisted = self._unlisted if self._num_searches <= _SEARCHES_UNLISTED else None
        if unlisted is None:
            search_windows(queries, len(target), self.panel, buffers, hits, True)
        else:
            search_windows(queries, len(target), self._panel, buffers, hits, False)
            _list_found(target, self._panel, unlisted, hits)
        self._buffers.put(buffers)


def _list_found(
    target: np.ndarray, panel: WindowRows, windows: Sequence[WindowClasses], hits: np.ndarray
) -> None:
    """Replace the rows that a search has found by haplotypes; members are listed for it alone."""
    rows = hits.copy()
    hits[:] = -1
    members = np.empty((1, panel.members.shape[1]), panel.members.dtype)
    target = np.ascontiguousarray(target)
    for window in panel.windows:
        number = int(window[NUMBER])
        windows[number].list_members(members[0])
        alone = window[None].copy()
        alone[0, NUMBER] = 0
        here = WindowRows(alone, panel.halves, panel.words, panel.offsets[number:], members)
        list_hits(target, rows, here, hits)


def _classed_scale(
    windows: ClassedWindows, ranges: np.ndarray, shorter: tuple[_Scale, list[WindowClasses]] | None
) -> tuple[_Scale, list[WindowClasses]]:
    """The windows of one length, and which haplotypes have their rows."""
    step = int(ranges[1, 0]) if len(ranges) > 1 else int(ranges[0, 1])
    if shorter is not None:
        step = int(shorter[0].ranges[0, 1])
    all_rows, classes = [], []
    for low, high in ranges.tolist():
        middle = low + step
        found = windows.window(low, min(middle, high), high)
        parts = (-1, -1)
        if shorter is not None:
            parts = (shorter[0].find(low, middle), shorter[0].find(middle, high))
        halves = np.zeros((len(found.hashes), 2), np.int32)
        for side, (part, ends) in enumerate(
            zip(parts, ((low, middle), (middle, high)), strict=True)
        ):
            if part >= 0:
                words = np.ascontiguousarray(found.words[ends[0] - low : ends[1] - low])
                halves[:, side] = windows.known(*ends).find(words)
        first = low if parts[0] < 0 else middle if parts[1] < 0 else high
        own = np.ascontiguousarray(found.words[first - low :].T)
        all_rows.append(_Rows(parts, halves, own, found.offsets))
        classes.append(found)
    return _Scale(ranges, all_rows, np.empty((0, 0), np.int32)), classes
