"""Read of a very large panel what is asked for: a draw to fit to, and what targets copy.

What is fitted to a panel (its parameters, the network, the quality of its sites) needs no more than
a few ten thousand haplotypes, and a target copies a few thousand. So of a panel with more than
:data:`ragimpute.panel.compact.COMPACT_ABOVE`, a fixed draw of its samples is fitted to; the typed
alleles of all haplotypes are searched for those that targets may copy; and of other alleles only
those of the haplotypes that were found are unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from ragimpute.copying.states import BlockStates, is_copied_whole
from ragimpute.copying.window import PanelCounts, TypedSites, Window, pack_words
from ragimpute.copying_model.haplotype_major import HaplotypeMajor
from ragimpute.copying_model.target_mismatch import Group, at_places
from ragimpute.errors import PanelError
from ragimpute.kernels.bits import WORD
from ragimpute.panel.compact import CompactHaplotypes, among_blank_sites, join_sites
from ragimpute.panel.haplotypes import Haplotypes
from ragimpute.panel.reader import Panel
from ragimpute.retrieval.classed_rows import ClassedWords
from ragimpute.retrieval.mapped_arrays import Getter, Later
from ragimpute.retrieval.nearest import AT_ONCE
from ragimpute.retrieval.retriever import Retriever, search_order
from ragimpute.runtime.stages import Stage
from ragimpute.target.window import TargetWindow

# Targets are copied together as long as their states, and the haplotypes that these are, take no
# more bytes than this, or than this share of the memory that the run may use.
_PART_BYTES, _PART_SHARE = 3 << 27, 8
# How the names of arrays of all haplotypes begin in an index; the others are of the draw.
_OF_ALL = "all_"


class Part(NamedTuple):
    """Targets that are copied together.

    Attributes
    ----------
    group
        The targets.
    window
        The panel's window with only those haplotypes that these targets copy.
    states
        Finds them.
    """

    group: Group
    window: Window
    states: BlockStates


class OrderedWords(NamedTuple):
    """The words of typed sites of all haplotypes, in the order of the search.

    Attributes
    ----------
    words
        The words.
    column
        Shape (H,), int32: where each haplotype is among them.
    """

    words: ClassedWords
    column: np.ndarray

    def of(self, kept: np.ndarray) -> np.ndarray:
        """The words of some haplotypes, (W, k)."""
        return self.words.at(self.column[kept])

    def by_haplotype(self) -> np.ndarray:
        """The words of all haplotypes, (H, W)."""
        out = np.empty((len(self.column), self.words.num_words), np.uint32)
        for w in range(self.words.num_words):
            out[:, w] = self.words.at(self.column, w, w + 1)[0]
        return out


class WordsByHaplotype(NamedTuple):
    """The words of typed sites of all haplotypes, mapped from an index; ``rows``: (H, W)."""

    rows: np.ndarray

    def of(self, kept: np.ndarray) -> np.ndarray:
        """See :meth:`OrderedWords.of`."""
        return np.ascontiguousarray(self.rows[kept].T)

    def by_haplotype(self) -> np.ndarray:
        """See :meth:`OrderedWords.by_haplotype`."""
        return self.rows


class SomeHaplotypes(Protocol):
    """Gives the alleles of some haplotypes: from memory, or from an index.

    Attributes
    ----------
    row
        Shape (m,), int32: not negative at sites that have a row of bits.
    num_carriers
        Minor alleles at the other sites.
    """

    @property
    def row(self) -> np.ndarray: ...

    @property
    def num_carriers(self) -> int: ...

    def select(self, kept: np.ndarray) -> Haplotypes:
        """See :meth:`ragimpute.panel.compact.CompactHaplotypes.select`."""
        ...


class SearchedSites(NamedTuple):
    """The typed sites of all haplotypes, and what finds states by them.

    Attributes
    ----------
    sites
        Panel sites [left, right) of the window.
    typed_index
        Shape (T,), int: those that are typed.
    words
        The alleles there.
    retriever
        Finds states among all haplotypes.
    """

    sites: tuple[int, int]
    typed_index: np.ndarray
    words: OrderedWords | WordsByHaplotype
    retriever: Retriever


@dataclass(frozen=True)
class WideWindow:
    """A window of a very large panel.

    Attributes
    ----------
    drawn
        The window with the haplotypes that are fitted to.
    searched
        The typed sites of all haplotypes.
    sites
        The core's alleles, compact.
    counts
        Counts of the whole panel; of the core's sites only.
    """

    drawn: Window
    searched: SearchedSites
    sites: SomeHaplotypes
    counts: PanelCounts

    @classmethod
    def read(
        cls,
        panel: Panel,
        draw: np.ndarray,
        target: TargetWindow,
        before: WideWindow | None = None,
        *,
        seed: int,
        threads: int,
    ) -> WideWindow:
        """Read the window of ``target`` from the panel, and index its typed sites.

        ``draw`` (k,): the haplotypes that are fitted to. ``before``: a window that may have the
        same sites, which are then not read and indexed again.
        """
        left, right, (start, stop), _ = target[:4]
        core = (start - left, stop - left)
        sites = None
        if before is None or not before._has(target):
            drawn, searched, sites = _search(panel, draw, target, seed=seed, threads=threads)
        else:
            drawn, searched = before.drawn.with_core(core), before.searched
        if sites is None:
            sites = panel.compact(start, stop)
        num_minor = np.zeros(right - left, np.int64)
        num_minor[slice(*core)] = _num_minor(panel, start, stop, sites)
        counts = PanelCounts(panel.num_haplotypes, num_minor)
        return cls(drawn, searched, sites, counts)

    def arrays(self) -> dict[str, np.ndarray | Later]:
        """All but what is drawn, by name: what :meth:`of_arrays` takes."""
        searched = self.searched
        if not isinstance(self.sites, CompactHaplotypes):
            raise ValueError("a window of an index is not written again")
        num, num_words = self.counts.num_haplotypes, searched.retriever.num_words
        rows = Later(np.uint32, (num, num_words), searched.words.by_haplotype)
        made = searched.retriever.arrays() | HaplotypeMajor.arrays_of(self.sites)
        made |= {"rows": rows, "num_minor": self.counts.num_minor}
        return {_OF_ALL + name: array for name, array in made.items()}

    @classmethod
    def of_arrays(
        cls,
        get: Getter,
        drawn: Window,
        alt_is_minor: np.ndarray,
        searched: tuple[tuple[int, int], np.ndarray],
        *,
        num_haplotypes: int,
        refuse: Callable[[str], PanelError],
    ) -> WideWindow:
        """Make it of its :meth:`arrays`, which stay in the file but for what is asked for.

        Parameters
        ----------
        get
            Returns an array by its name.
        drawn
            See the attributes.
        alt_is_minor
            Of the core's sites.
        searched
            Panel sites [left, right) of the window, and its typed sites.
        num_haplotypes
            H.
        refuse
            Makes the error for numbers that are out of range.
        """

        def of_all(
            name: str, dtype: Any, shape: tuple[int | None, ...], /, *, checked: bool = False
        ) -> np.ndarray:
            return get(_OF_ALL + name, dtype, shape, checked=checked)

        num_words = len(drawn.typed.words)
        retriever = Retriever.of_arrays(of_all, num_words, num_haplotypes, refuse=refuse)
        rows = of_all("rows", np.uint32, (num_haplotypes, num_words))
        num_minor = of_all("num_minor", np.int64, (drawn.num_sites,), checked=True)
        return cls(
            drawn, SearchedSites(*searched, WordsByHaplotype(rows), retriever),
            HaplotypeMajor.of_arrays(of_all, alt_is_minor, num_haplotypes, refuse),
            PanelCounts(num_haplotypes, num_minor),
        )  # fmt: skip

    def _has(self, target: TargetWindow) -> bool:
        """Whether a window has the same sites and typed sites as this one, perhaps another core."""
        same = (target.left, target.right) == self.searched.sites
        return same and np.array_equal(self.searched.typed_index, target.typed_index)

    def of(self, kept: np.ndarray) -> Window:
        """The window with only some of the haplotypes, ``kept`` (k,), ascending.

        In its buffers only typed alleles are known: untyped sites there have no carrier.
        """
        window = self.drawn
        sites = among_blank_sites(
            self.sites.select(kept), window.core[0], window.haplotypes.alt_is_minor
        )
        typed = TypedSites(self.searched.words.of(kept), window.typed.position_cm)
        return Window(
            typed, window.typed_index, sites, window.position_cm, window.core, self.counts
        )

    def parts(self, group: Group, max_memory: int | None = None) -> Iterator[Part]:
        """Divide targets so that what they copy fits into memory, of ``max_memory`` bytes in all.

        The probabilities that a target gets do not depend on the others in its part.
        """
        num = group.imputed.alleles.shape[1]
        target = pack_words(group.imputed.alleles)[0]
        each = self._bytes_of_haplotype()
        room = _PART_BYTES if max_memory is None else min(_PART_BYTES, max_memory // _PART_SHARE)
        asked = np.zeros(self.counts.num_haplotypes, bool)
        waiting: list[np.ndarray] = []
        first = start = 0
        while start < num:
            stop = min(start + AT_ONCE, num)
            # The two haplotypes of a sample stay together.
            stop += int(stop < num and group.imputed.homolog[stop] == stop - 1)
            states = self.searched.retriever.states(target[start:stop])
            before = asked.copy() if waiting else asked
            asked[states.ravel()] = True
            taken = each * np.count_nonzero(asked) + states.nbytes + sum(x.nbytes for x in waiting)
            if waiting and taken > room:
                yield self._part(group, range(first, start), waiting, before)
                first, waiting = start, []
                asked = np.zeros_like(asked)
                asked[states.ravel()] = True
            waiting.append(states)
            start = stop
        if waiting:
            yield self._part(group, range(first, num), waiting, asked)

    def _bytes_of_haplotype(self) -> float:
        """What a haplotype takes in :meth:`of`, and in the lists of its minor alleles."""
        rows = int((self.sites.row >= 0).sum())
        carriers = self.sites.num_carriers / self.counts.num_haplotypes
        return float(rows / 4 + 16 * self.searched.retriever.num_words + 8 * carriers)

    def _part(self, group: Group, of: range, states: list[np.ndarray], asked: np.ndarray) -> Part:
        """The targets ``of``, with their states in the numbers of this panel."""
        kept = np.flatnonzero(asked)
        number = np.zeros(len(asked), np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        found = np.concatenate([number[x] for x in states])

        def find(block: range, room: np.ndarray | None) -> np.ndarray:
            return found[block.start : block.stop]

        if len(of) < group.imputed.alleles.shape[1]:
            where = np.arange(of.start, of.stop)
            group = Group(group.imputed.take(where), group.parameters, at_places(where, group.put))
        return Part(group, self.of(kept), BlockStates(found.shape[2], True, find))


class _Packed(dict[int, np.ndarray]):
    """Words that are being packed, by number; those that are asked for first are 0."""

    def __init__(self, num_haplotypes: int) -> None:
        super().__init__()
        self._num = num_haplotypes

    def __missing__(self, word: int) -> np.ndarray:
        """A word of which nothing is known."""
        out = self[word] = np.zeros(self._num, np.uint32)
        return out

    def move(self, words: ClassedWords, stop: int, *, is_end: bool = False) -> None:
        """Move the words before ``stop`` to classes; ``is_end``: there are no others."""
        step = ClassedWords.STEP
        while words.num_words + step <= stop or (is_end and words.num_words < stop):
            here = range(words.num_words, min(words.num_words + step, stop))
            words.add([self[w] for w in here])
            for w in here:
                del self[w]


def _search(
    panel: Panel, draw: np.ndarray, target: TargetWindow, *, seed: int, threads: int
) -> tuple[Window, SearchedSites, CompactHaplotypes]:
    """Read a window: for the haplotypes ``draw`` (k,), at typed sites for all, and its core."""
    left, right, (start, stop), typed_index = target[:4]
    num = panel.num_haplotypes
    if is_copied_whole(num):
        raise ValueError(f"a panel of {num} haplotypes is copied whole")
    order = search_order(num, seed)
    column = np.empty_like(order)
    column[order] = np.arange(num, dtype=np.int32)
    packed, words = _Packed(num), ClassedWords(num)
    few = []
    for low, high in ((left, start), (stop, right), (start, stop)):
        sites = panel.compact(low, high)
        few.append(sites.select(draw))
        first, last = np.searchsorted(typed_index, [low, high]).tolist()
        # Words of the core, which comes last, make way for classes as soon as they are whole.
        at_once = WORD * ClassedWords.STEP
        edges = [first, *range(first // at_once * at_once + at_once, last, at_once), last]
        for begin, end in pairwise(edges):
            sites.pack_words(typed_index[begin:end] - low, begin, (order, column), packed)
            if (low, high) == (start, stop):
                packed.move(words, end // WORD)
    packed.move(words, -(-len(typed_index) // WORD), is_end=True)
    position_cm = panel.position_cm[left:right]
    haplotypes = join_sites([few[0], few[2], few[1]])
    core = (start - left, stop - left)
    drawn = Window.build(haplotypes, position_cm, typed_index - left, core)
    with Stage("find states"):
        retriever = Retriever(words, seed=seed, threads=threads)
    return (
        drawn,
        SearchedSites((left, right), typed_index, OrderedWords(words, column), retriever),
        sites,
    )


def _num_minor(panel: Panel, start: int, stop: int, sites: CompactHaplotypes) -> np.ndarray:
    """Carriers of the minor alleles of the sites [start, stop), which are at hand as ``sites``."""
    here = slice(start, stop)
    num = panel.haplotypes_at[here]
    if (num != panel.num_haplotypes).any():  # of a view, whose counts are those of the whole
        return sites.num_minor()
    out: np.ndarray = np.where(
        panel.alt_is_minor[here], panel.alt_count[here], num - panel.alt_count[here]
    )
    return out
