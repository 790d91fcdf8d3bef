"""Choose the haplotypes that a target may copy at each word, in panels too large to copy whole.

The aim is to find, for each word of 32 typed sites, the haplotypes that share a *long* match with
the target around it. For this the nearest haplotypes are looked up in overlapping windows of 64 to
4,096 typed sites. A word's states are a fixed random sample of the panel, the background, and the
hits of all windows that contain the word, nearest first, until its slots are full.

A haplotype whose match ends soon after the word is not near in any window around the word, as it
differs in the rest of the window. Therefore the windows that end just before the word and that
begin just after it give some hits too.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.retrieval.classed_rows import ClassedWords
from ragimpute.retrieval.mapped_arrays import Getter
from ragimpute.retrieval.nearest import NearestRows, Search, SearchTables, member_type
from ragimpute.retrieval.nearest_kernel import NUM_COLUMNS, WindowRows
from ragimpute.runtime.threads import share

# (typed sites in a window, hits taken from it). With 20,000 haplotypes the two longest scales raise
# r2 by .0001, and by .002 at rare sites; so do the windows beside a word.
SCALES = ((64, 30), (128, 50), (256, 70), (512, 50), (1024, 50), (2048, 50), (4096, 50))
NUM_BESIDE = 16  # hits taken from a window beside a word
NUM_BACKGROUND = 32
# With the windows beside a word, 256 slots are as accurate as 512 and as the whole panel.
NUM_SLOTS = 256


class _NearWindows(NamedTuple):
    """The windows from which each word takes hits: those that contain it, then those beside it."""

    first: np.ndarray  # (W, m) int64: place of each window's first hit, -1 if there is no window
    num_hits: np.ndarray  # (m,) int64: hits to take from each; the first m / 2 contain the word


class Retriever:
    """Distinct rows of overlapping windows of typed sites, ready to be searched.

    Parameters
    ----------
    words
        Shape (W, H), uint32: the panel at typed sites, 32 to a word (see ``copying``). Of a very
        large panel as classes, whose haplotypes come in the order :func:`search_order`.
    num_slots, num_background
        Number of states at each word, and how many of them are the background: random haplotypes
        that are the same at all words.
    seed
        Seed for drawing the background and the order of equally near haplotypes.
    threads
        Number of threads that windows are divided among; the result does not depend on it.
    """

    def __init__(
        self,
        words: np.ndarray | ClassedWords,
        *,
        num_slots: int = NUM_SLOTS,
        num_background: int = NUM_BACKGROUND,
        seed: int = 1,
        threads: int = 1,
    ) -> None:
        self.num_words, self.num_haplotypes = (
            (words.num_words, words.num_haplotypes)
            if isinstance(words, ClassedWords)
            else words.shape
        )
        self.num_slots = min(num_slots, self.num_haplotypes)
        drawn, self._shuffle = _two_orders(self.num_haplotypes, seed)
        self.background = drawn[: min(num_background, self.num_slots)]
        if isinstance(words, ClassedWords):
            self._nearest = NearestRows.of_classes(words, SCALES)
        else:
            # Haplotypes that are alike are listed in this order. The tables are made of the columns
            # one after the other: so they are put in order once.
            ordered = np.take(words, self._shuffle, axis=1)
            self._nearest = NearestRows(ordered, SCALES, threads=threads)
        self._refuse: Callable[[str], PanelError] | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was made of the panel, by name: what :meth:`of_arrays` takes."""
        rows, num_tables = self._nearest.tables
        return {
            "background": self.background, "shuffle": self._shuffle, "windows": rows.windows,
            "halves": rows.halves, "row_words": rows.words, "members_of_rows": rows.offsets,
            "members": rows.members, "num_tables": np.array([num_tables], np.int64),
        }  # fmt: skip

    @classmethod
    def of_arrays(
        cls,
        get: Getter,
        num_words: int,
        num_haplotypes: int,
        *,
        num_slots: int = NUM_SLOTS,
        refuse: Callable[[str], PanelError] | None = None,
    ) -> Retriever:
        """Make it of the :meth:`arrays` of another one.

        Parameters
        ----------
        get
            Returns an array, by its name, type and shape. The numbers that are used as places are
            asked for ``checked``.
        num_words, num_haplotypes
            W and H of the words that the other one was made of.
        num_slots
            Number of states at each word.
        refuse
            Makes the error for members that are out of range. They are then read and checked when
            they are found; None: all are, now.
        """
        made = cls.__new__(cls)
        made.num_words, made.num_haplotypes = num_words, num_haplotypes
        made.num_slots = min(num_slots, num_haplotypes)
        made.background = get("background", np.int32, (None,), checked=True)
        made._shuffle = get("shuffle", np.int32, (num_haplotypes,), checked=True)
        windows = get("windows", np.int64, (None, NUM_COLUMNS), checked=True)
        rows = WindowRows(
            windows,
            get("halves", np.int32, (None, 2), checked=True),
            get("row_words", np.uint32, (None,)),
            get("members_of_rows", np.int32, (None,), checked=True),
            get("members", member_type(num_haplotypes), (len(windows), num_haplotypes),
                checked=refuse is None),
        )  # fmt: skip
        made._refuse = refuse
        num_tables = int(get("num_tables", np.int64, (1,), checked=True)[0])
        made._nearest = NearestRows.of_tables(num_words, SCALES, SearchTables(rows, num_tables))
        return made

    @property
    def nearest(self) -> NearestRows:
        """The windows that are searched."""
        return self._nearest

    def states(
        self,
        target: np.ndarray,
        exclude: np.ndarray | None = None,
        *,
        threads: int = 1,
        room: np.ndarray | None = None,
        search: Search | None = None,
    ) -> np.ndarray:
        """States of target haplotypes at every word.

        Parameters
        ----------
        target
            Shape (n, W), uint32: the targets' ALT bits at the same words (unobserved: 0). As many
            as the search takes at once take little longer than one.
        exclude
            Shape (n, e), int32: haplotypes that target i must not copy, padded with -1; or None.
        threads
            Number of threads that targets are divided among; the result does not depend on it.
        room
            Shape (>= n, W, K), int32: an array to put the states into, or None.
        search
            What searches :attr:`nearest`. None: its kernels.

        Returns
        -------
        Shape (n, W, K), int32: numbers of haplotypes, none twice in a word. K is the number of
        slots. A haplotype that is chosen for several words in a row keeps its slot.
        """
        n = len(target)
        ranges = self._nearest.ranges
        none = np.full((n, 1), -1, np.int32) if exclude is None else exclude.astype(np.int32)
        spare = none.shape[1] if exclude is not None else 0
        num_slots = min(self.num_slots, self.num_haplotypes - spare)
        if room is None:
            room = np.empty((n, self.num_words, num_slots), np.int32)
        out = room[:n]
        near = np.stack([_windows_near(r, self.num_words) for r in ranges])  # (scales, W, 4)
        before = np.cumsum([0, *(len(r) for r in ranges[:-1])])
        first = self._nearest.first_hits[np.maximum(near, 0) + before[:, None, None]]
        # The windows of each word in the order in which hits are taken from them: (W, 4 scales).
        first = np.where(near >= 0, first, -1).transpose(1, 2, 0).reshape(self.num_words, -1)
        of_over = np.tile(self._nearest.hits_of, 2).astype(np.int64)
        windows = _NearWindows(first, np.concatenate([of_over, np.minimum(of_over, NUM_BESIDE)]))

        chosen = self._nearest if search is None else search

        def find(few: range) -> None:
            hits = np.empty((min(len(few), chosen.at_once), self._nearest.num_hits), np.int32)
            seen = np.empty((self.num_haplotypes, 2), np.int32)
            buffers = np.empty((3, num_slots + 1), np.int32)
            for start in range(few.start, few.stop, chosen.at_once):
                some = slice(start, min(start + chosen.at_once, few.stop))
                here = hits[: some.stop - start]
                chosen.search(target[some], here)
                if self._refuse is not None and here.max(initial=-1) >= self.num_haplotypes:
                    raise self._refuse("its lists of haplotypes are out of range")
                _fill_slots(
                    here, windows, self.background, self._shuffle, none[some], seen, buffers,
                    out[some],
                )  # fmt: skip

        edges = np.linspace(0, n, max(1, min(threads, n)) + 1).astype(int).tolist()
        share(find, [range(low, high) for low, high in pairwise(edges)], threads)
        return out


def search_order(num_haplotypes: int, seed: int) -> np.ndarray:
    """The order in which haplotypes that are alike are found, of a retriever with this seed.

    Returns
    -------
    Shape (H,), int32: each haplotype once.
    """
    return _two_orders(num_haplotypes, seed)[1]


def _two_orders(num_haplotypes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Haplotypes in the order in which the background is drawn, and in :func:`search_order`."""
    rng = np.random.default_rng(seed)
    one, two = (rng.permutation(num_haplotypes).astype(np.int32) for _ in range(2))
    return one, two


def _windows_near(ranges: np.ndarray, num_words: int) -> np.ndarray:
    """The windows around each word and beside it, shape (W, 4), -1 where there is none.

    The first two columns are the one or two windows that contain the word, then come the window
    that ends before it and the window that begins after it. ``ranges`` (windows, 2), ascending:
    each window begins in the middle of the window before.
    """
    word = np.arange(num_words)
    last = np.searchsorted(ranges[:, 0], word, side="right") - 1
    two = (last > 0) & (ranges[np.maximum(last - 1, 0), 1] > word)
    first = last - two
    after = np.where(last + 1 < len(ranges), last + 1, -1)
    return np.stack([first, np.where(two, last, -1), first - 1, after], axis=1)


@inlined
def _choose(h, w, seen, kept, fresh, num_fresh):
    """Choose haplotype ``h`` for word ``w``, unless it is chosen already.

    If it was chosen for the word before, it keeps its slot; otherwise it is added to the list
    ``fresh``. Returns the new length of that list, and whether ``h`` was not chosen before this
    call. There are no branches: half of the calls are for haplotypes that are chosen already, which
    the processor could not predict.
    """
    last, slot = seen[h, 0], seen[h, 1]
    new = last < w
    seen[h, 0] = max(last, w)
    fresh[num_fresh] = h
    kept[slot if slot >= 0 else kept.shape[0] - 1] = w
    return num_fresh + (new & (slot < 0)), new


@kernel
def _fill_slots(hits, windows, background, filler, exclude, seen, buffers, out):
    """Choose the states of n targets at each word; a state keeps its slot while it stays chosen.

    ``hits`` (n, hits): hits of all windows, as places in ``filler``; they become haplotypes.
    ``windows``: a ``_NearWindows``; those that contain a word give at least as many hits as those
    beside it. ``filler`` (H,): all haplotypes, in the order in which they fill slots that are left.
    ``exclude`` (n, e): haplotypes that a target must not copy. ``seen`` (H, 2): a buffer for the
    last word that each haplotype was chosen for, and its slot, or -1. ``out`` (n, W, K) gets the
    states.
    """
    num_words, num_slots = out.shape[1:]
    fresh, kept, left = buffers
    num_hits = windows.num_hits
    num_near = num_hits.shape[0]
    width, beside = 0, 0
    for c in range(num_near):
        width = max(width, num_hits[c])
        beside = max(beside, num_hits[c] if c >= num_near // 2 else 0)
    always = num_words  # later than any word: as if it were chosen already
    seen[:] = -1
    for i in range(out.shape[0]):
        mine = hits[i]
        for k in range(mine.shape[0]):
            if mine[k] >= 0:
                mine[k] = filler[mine[k]]
        num_fillers = 0
        for h in exclude[i]:
            if h >= 0:
                seen[h, 0] = always
        fixed = 0
        for h in background:
            if fixed < num_slots and seen[h, 0] != always:
                seen[h, 0] = always
                out[i, :, fixed] = h
                fixed += 1
        kept[:] = -1
        for w in range(num_words):
            size = fixed
            num_fresh = 0
            near = windows.first[w]
            for rank in range(width):
                if size == num_slots:
                    break
                for c in range(num_near if rank < beside else num_near // 2):
                    if near[c] < 0 or rank >= num_hits[c]:
                        continue
                    h = mine[near[c] + rank]
                    if h < 0:
                        continue
                    num_fresh, new = _choose(np.uint32(h), w, seen, kept, fresh, num_fresh)
                    size += new
                    if size == num_slots:
                        break
            for k in range(filler.shape[0]):
                if size == num_slots:
                    break
                h = filler[k]
                num_fillers = max(num_fillers, k + 1)
                num_fresh, new = _choose(np.uint32(h), w, seen, kept, fresh, num_fresh)
                size += new
            here = out[i, w]
            if w > 0:
                num_left = 0
                before = out[i, w - 1]
                for s in range(fixed, num_slots):
                    here[s] = before[s]
                    left[num_left] = s
                    num_left += kept[s] != w
                for k in range(num_left):
                    seen[here[left[k]], 1] = -1
            for k in range(num_fresh):
                s = left[k] if w > 0 else fixed + k
                here[s] = fresh[k]
                seen[fresh[k], 1] = s
        # Only what was touched is cleared: in large panels that is a small part of all haplotypes.
        for h in exclude[i]:
            if h >= 0:
                seen[h] = -1
        for h in background:
            seen[h] = -1
        for h in mine:
            if h >= 0:
                seen[h] = -1
        for h in filler[:num_fillers]:
            seen[h] = -1
