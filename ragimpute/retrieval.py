"""Which panel haplotypes a target may copy, word by word, in panels too large to copy all.

What counts is to find the haplotypes that share a *long* match with the target around a place, at
every scale. FAISS searches overlapping windows of 64 to 1,024 typed sites; the hits of all windows
over a word of 32 typed sites, nearest first, join a fixed background sample of the panel until the
word's slots are full. Only the distinct rows of a window are indexed, with lists of the haplotypes
that have them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import faiss
import numpy as np

from ragimpute.distinct_rows import join_halves, list_members, mix_words, number_members
from ragimpute.faiss_threads import threads_for
from ragimpute.kernels import kernel

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

WORD = 32
# (typed sites in a window, hits taken from it): DESIGN's best scheme on 4,508 haplotypes.
SCALES = ((64, 15), (128, 25), (256, 35), (512, 50), (1024, 50))
NUM_BACKGROUND = 128
NUM_SLOTS = 448


@dataclass(frozen=True)
class _Scale:
    """The windows of one length: word ranges, indexes over distinct rows, and members."""

    ranges: np.ndarray  # (windows, 2) words
    num_hits: int
    indexes: list[faiss.IndexBinaryFlat]
    members: list[tuple[np.ndarray, np.ndarray]]  # offsets (rows + 1,), haplotypes (H,)


class Retriever:
    """Distinct rows of overlapping windows of typed sites, ready to be searched.

    Parameters
    ----------
    words
        Shape (W, H), uint32: the panel at typed sites, 32 to a word (see ``copying``).
    num_slots, num_background
        States of a word; those of them that are the same fixed random haplotypes everywhere.
    seed
        Draws the background and the order of equally near haplotypes.
    threads
        Windows and targets are shared out over so many; what is found does not depend on it.
    """

    def __init__(
        self,
        words: np.ndarray,
        *,
        num_slots: int = NUM_SLOTS,
        num_background: int = NUM_BACKGROUND,
        seed: int = 1,
        threads: int = 1,
    ) -> None:
        self._threads = threads
        self.num_words, self.num_haplotypes = words.shape
        rng = np.random.default_rng(seed)
        self.num_slots = min(num_slots, self.num_haplotypes)
        self.background = rng.permutation(self.num_haplotypes)[
            : min(num_background, self.num_slots)
        ].astype(np.int32)
        self._shuffle = rng.permutation(self.num_haplotypes).astype(np.int32)
        self._row_of = np.argsort(self._shuffle).astype(np.int32)
        shuffled = words[:, self._shuffle]  # (W, H)
        self._scales: list[_Scale] = []
        for num_typed, num_hits in SCALES:
            length = num_typed // WORD
            if self._scales and length >= 2 * self.num_words:
                break
            self._scales.append(self._build_scale(shuffled, length, num_hits))

    @property
    def hit_bytes(self) -> int:
        """Size of what :meth:`search` finds for a target."""
        windows = sum(len(scale.ranges) for scale in self._scales)
        return 4 * windows * max(scale.num_hits for scale in self._scales)

    def _build_scale(self, words: np.ndarray, length: int, num_hits: int) -> _Scale:
        """Index the distinct rows of half-overlapping windows of ``length`` words.

        ``words`` (W, H) are shuffled.
        """
        step = max(1, length // 2)
        starts = np.arange(0, max(1, self.num_words - length + step), step)
        ranges = np.stack([starts, np.minimum(starts + length, self.num_words)], axis=1)

        def build(
            window: np.ndarray,
        ) -> tuple[faiss.IndexBinaryFlat, tuple[np.ndarray, np.ndarray]]:
            low, high = (int(edge) for edge in window)
            middle = low + step
            distinct, which = join_halves(
                self._numbers(words, low, middle), self._numbers(words, middle, high)
            )
            # In an order that their alleles make: it must not depend on that of the haplotypes.
            order = np.argsort(mix_words(words[low:high], distinct))
            index = faiss.IndexBinaryFlat(32 * (high - low))
            index.use_heap = False  # type: ignore[attr-defined]
            rows = np.ascontiguousarray(words[low:high, distinct[order]].T)
            index.add(rows.view(np.uint8))
            place = np.empty(len(order), np.int64)
            place[order] = np.arange(len(order))
            offsets = np.zeros(len(order) + 1, np.int32)
            haplotypes = np.empty(self.num_haplotypes, np.int32)
            list_members(which, place, self._shuffle, offsets, haplotypes)
            return index, (offsets, haplotypes)

        built = self._share(build, ranges)
        return _Scale(ranges, num_hits, [index for index, _ in built], [m for _, m in built])

    def _numbers(self, words: np.ndarray, low: int, high: int) -> np.ndarray:
        """A number for each row (H,), uint32, the same where its words [low, high) are."""
        if high <= low:
            return np.zeros(self.num_haplotypes, np.uint32)
        if high == low + 1:
            return words[low]
        if self._scales:
            shorter = self._scales[-1]
            at = int(np.searchsorted(shorter.ranges[:, 0], low))
            if at < len(shorter.ranges) and (shorter.ranges[at] == (low, high)).all():
                out = np.empty(self.num_haplotypes, np.uint32)
                number_members(*shorter.members[at], self._row_of, out)
                return out
        middle = (low + high) // 2  # where the panel ends, shorter windows may end earlier
        return join_halves(self._numbers(words, low, middle), self._numbers(words, middle, high))[1]

    def _share(self, make: Callable[[_Item], _Made], items: Iterable[_Item]) -> list[_Made]:
        """Make something of each item, in as many threads as there may be."""

        def alone(item: _Item) -> _Made:
            with threads_for(0):  # many of ours search at once: FAISS's own would spin
                return make(item)

        if self._threads == 1:
            return [alone(item) for item in items]
        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(alone, items))

    def states(self, target: np.ndarray, exclude: np.ndarray | None = None) -> np.ndarray:
        """States of target haplotypes at every word.

        Parameters
        ----------
        target
            Shape (n, W), uint32: the targets' ALT bits at the same words (unobserved: 0).
        exclude
            Shape (n, e), int32: haplotypes that target i must not copy, padded with -1; or None.

        Returns
        -------
        Shape (n, W, K), int32, haplotype ids, none twice in a word; a haplotype keeps its slot
        from word to word for as long as it is among them. K is the number of slots.
        """
        return self.states_of(self.search(target), exclude)

    def search(self, target: np.ndarray) -> np.ndarray:
        """The nearest haplotypes in each window: what :meth:`states_of` makes states of.

        More targets at a time take less time each: their states are 5 times as large as this.

        Parameters
        ----------
        target
            As for :meth:`states`.

        Returns
        -------
        Shape (n, windows, hits), int32: haplotype ids, nearest first, padded with -1.
        """

        def search(window: tuple[int, int]) -> np.ndarray:
            scale = self._scales[window[0]]
            low, high = scale.ranges[window[1]]
            index, (offsets, haplotypes) = scale.indexes[window[1]], scale.members[window[1]]
            query = np.ascontiguousarray(target[:, low:high])
            num_hits = min(scale.num_hits, index.ntotal)
            _, found = index.search(query.view(np.uint8), num_hits)
            out = np.full((len(query), scale.num_hits), -1, np.int32)
            _expand(query, found, offsets, haplotypes, out)
            return out

        windows = [(s, i) for s, scale in enumerate(self._scales) for i in range(len(scale.ranges))]
        most = max(s.num_hits for s in self._scales)
        hits = np.full((len(target), len(windows), most), -1, np.int32)
        for i, found in enumerate(self._share(search, windows)):
            hits[:, i, : found.shape[1]] = found
        return hits

    def states_of(self, hits: np.ndarray, exclude: np.ndarray | None = None) -> np.ndarray:
        """States at every word from the hits in each window; see :meth:`states`."""
        n = len(hits)
        starts = np.cumsum([0, *(len(s.ranges) for s in self._scales)]).astype(np.int64)
        none = np.full((n, 1), -1, np.int32) if exclude is None else exclude.astype(np.int32)
        spare = none.shape[1] if exclude is not None else 0
        num_slots = min(self.num_slots, self.num_haplotypes - spare)
        out = np.empty((n, self.num_words, num_slots), np.int32)
        covers = np.stack([_windows_over(s.ranges, self.num_words) for s in self._scales])

        def fill(i: int) -> None:
            _fill_slots(
                hits[i],
                starts,
                covers,
                self.background,
                self._shuffle,
                none[i],
                np.full(self.num_haplotypes, -1, np.int32),
                np.full(self.num_haplotypes, -1, np.int32),
                np.empty(num_slots, np.int32),
                np.empty(num_slots, np.int64),
                out[i],
            )

        self._share(fill, range(n))
        return out


def _windows_over(ranges: np.ndarray, num_words: int) -> np.ndarray:
    """The one or two windows over each word, shape (W, 2), -1 where there is no second.

    ``ranges`` (windows, 2), ascending: each begins where the one before has its middle.
    """
    word = np.arange(num_words)
    last = np.searchsorted(ranges[:, 0], word, side="right") - 1
    before = np.maximum(last - 1, 0)
    two = (last > 0) & (ranges[before, 1] > word)
    return np.where(two[:, None], np.stack([before, last], 1), np.stack([last, last * 0 - 1], 1))


@kernel
def _expand(query, found, offsets, haplotypes, out):
    """Haplotypes of the rows found, nearest row first, into ``out`` (n, hits), all -1."""
    n, k = found.shape
    num_hits = out.shape[1]
    for i in range(n):
        mix = np.uint64(0x9E3779B97F4A7C15)
        for word in query[i]:
            mix = (mix ^ np.uint64(word)) * np.uint64(0x100000001B3)
        mix ^= mix >> np.uint64(32)
        size = 0
        for j in range(k):
            row = found[i, j]
            if row < 0 or size == num_hits:
                break
            count = offsets[row + 1] - offsets[row]
            # Ties: begin at a place that depends on the query's alleles, neither on the haplotypes'
            # numbers nor on which other targets are searched for.
            shift = np.int64((mix + np.uint64(row) * np.uint64(104729)) % np.uint64(count))
            for m in range(min(count, num_hits - size)):
                out[i, size] = haplotypes[offsets[row] + (shift + m) % count]
                size += 1


@kernel
def _fill_slots(hits, starts, covers, background, filler, exclude, slot, wanted, chosen, free, out):
    """Choose each word's haplotypes and keep each in its slot while it stays chosen."""
    num_words, num_slots = out.shape
    num_scales = covers.shape[0]
    width = hits.shape[1]
    for w in range(num_words):
        size = 0
        for h in exclude:
            if h >= 0:
                wanted[h] = w  # as if it were chosen already
        for h in background:
            if size < num_slots and wanted[h] != w:
                wanted[h] = w
                chosen[size] = h
                size += 1
        for rank in range(width):
            for c in range(2):
                for s in range(num_scales):
                    window = covers[s, w, c]
                    if window < 0 or size == num_slots:
                        continue
                    h = hits[starts[s] + window, rank]
                    if h < 0 or wanted[h] == w:
                        continue
                    wanted[h] = w
                    chosen[size] = h
                    size += 1
        for h in filler:
            if size == num_slots:
                break
            if wanted[h] != w:
                wanted[h] = w
                chosen[size] = h
                size += 1
        if w == 0:
            for s in range(num_slots):
                out[0, s] = chosen[s]
                slot[chosen[s]] = s
            continue
        num_free = 0
        for s in range(num_slots):
            h = out[w - 1, s]
            if wanted[h] == w:
                out[w, s] = h
            else:
                slot[h] = -1
                free[num_free] = s
                num_free += 1
        at = 0
        for i in range(num_slots):
            h = chosen[i]
            if slot[h] < 0:
                s = free[at]
                at += 1
                out[w, s] = h
                slot[h] = s
