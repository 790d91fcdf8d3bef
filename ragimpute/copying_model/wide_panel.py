"""Read of a very large panel what is asked for: a draw to fit to, and what targets copy.

What is fitted to a panel (its parameters, the network, the quality of its sites) needs no more than
a few ten thousand haplotypes, and a target copies a few thousand. So of a panel with more than
:data:`ragimpute.panel.compact.COMPACT_ABOVE`, a fixed draw of its samples is fitted to; the typed
alleles of all haplotypes are searched for those that targets may copy; and of other alleles only
those of the haplotypes that were found are unpacked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ragimpute.copying.states import BlockStates, is_copied_whole
from ragimpute.copying.window import PanelCounts, TypedSites, Window, pack_words
from ragimpute.copying_model.target_mismatch import Group, at_places
from ragimpute.kernels.bits import WORD
from ragimpute.panel.compact import CompactHaplotypes, among_blank_sites, join_sites
from ragimpute.panel.reader import Panel
from ragimpute.retrieval.nearest import AT_ONCE
from ragimpute.retrieval.retriever import Retriever, search_order
from ragimpute.runtime.stages import Stage
from ragimpute.target.window import TargetWindow

# Targets are copied together as long as their states, and the haplotypes that these are, take no
# more bytes than this, or than this share of the memory that the run may use.
_PART_BYTES, _PART_SHARE = 3 << 27, 8


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


class SearchedSites(NamedTuple):
    """The typed sites of all haplotypes, and what finds states by them.

    Attributes
    ----------
    sites
        Panel sites [left, right) of the window.
    typed_index
        Shape (T,), int: those that are typed.
    typed
        The alleles there; the columns of its words come in the order of the retriever.
    column
        Shape (H,), int32: the column of each haplotype.
    retriever
        Finds states among all haplotypes.
    """

    sites: tuple[int, int]
    typed_index: np.ndarray
    typed: TypedSites
    column: np.ndarray
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
    sites: CompactHaplotypes
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
        typed = TypedSites(
            np.take(self.searched.typed.words, self.searched.column[kept], axis=1),
            window.typed.position_cm,
        )
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
        carriers = len(self.sites.carriers) / self.counts.num_haplotypes
        return rows / 4 + 16 * len(self.searched.typed.words) + 8 * carriers

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


def _search(
    panel: Panel, draw: np.ndarray, target: TargetWindow, *, seed: int, threads: int
) -> tuple[Window, SearchedSites, CompactHaplotypes]:
    """Read a window: for the haplotypes ``draw`` (k,), at typed sites for all, and its core."""
    left, right, (start, stop), typed_index = target[:4]
    num = panel.num_haplotypes
    if is_copied_whole(num):
        raise ValueError(f"a panel of {num} haplotypes is copied whole")
    words = np.zeros((-(-len(typed_index) // WORD), num), np.uint32)
    order = search_order(num, seed)
    few = []
    for low, high in ((left, start), (stop, right), (start, stop)):
        sites = panel.compact(low, high)
        few.append(sites.select(draw))
        first, last = np.searchsorted(typed_index, [low, high]).tolist()
        sites.pack_words(typed_index[first:last] - low, first, order, words)
    position_cm = panel.position_cm[left:right]
    haplotypes = join_sites([few[0], few[2], few[1]])
    core = (start - left, stop - left)
    drawn = Window.build(haplotypes, position_cm, typed_index - left, core)
    with Stage("find states"):
        retriever = Retriever(words, seed=seed, threads=threads, is_shuffled=True)
    typed = TypedSites(words, drawn.typed.position_cm)
    column = np.empty_like(order)
    column[order] = np.arange(num, dtype=np.int32)
    return drawn, SearchedSites((left, right), typed_index, typed, column, retriever), sites


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
