"""Copy targets and, in the same pass, compute the features of all pairs in doubt.

:func:`ragimpute.evidence.collect.collect_evidence` does it in two passes: pairs are chosen from
the finished probabilities, and the typed sites are walked again to describe them. Imputing wants
every pair in doubt. The masses that describe a pair are then at hand when its probability is
computed, so the second pass is saved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from ragimpute.copying.copy import sliding_sites
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_kernel import SharedMasses, SharedSites
from ragimpute.copying.shared_states import Block, SharedStates, block_edges
from ragimpute.copying.sliding_kernel import (
    SlidingMasses,
    SlidingSites,
    SlidingTargets,
    begin_walk,
    sliding_masses,
)
from ragimpute.copying.states import BlockStates
from ragimpute.copying.window import Window, pack_words
from ragimpute.evidence.collect import collect_evidence, evidence_panel, with_sites
from ragimpute.evidence.doubt import doubt_limits, in_doubt
from ragimpute.evidence.features import NUM_COPIED
from ragimpute.evidence.kernel_arrays import (
    Doubt,
    Evidence,
    Measuring,
    empty_tokens,
    measuring_scratch,
)
from ragimpute.evidence.kinship import kin_weights
from ragimpute.evidence.other_haplotype import homolog_probs
from ragimpute.evidence.shared_kernel import (
    SharedCopying,
    SharedEvidence,
    copy_and_describe_shared,
)
from ragimpute.evidence.site_quality import SiteRows
from ragimpute.evidence.sliding_kernel import (
    SlidingCopying,
    SlidingEvidence,
    copy_and_describe_sliding,
)
from ragimpute.kernels.simd_floats import LANES, rows_of_lanes
from ragimpute.runtime.memory import STATE_BYTES
from ragimpute.runtime.threads import share

# Room for the pairs of one block of targets: their evidence takes 30 MB. If a block has more pairs,
# its targets are walked again, one at a time, each with just the room that it needs.
PAIRS_AT_ONCE = 1 << 18
# If targets have states of their own: the largest number of targets in a block. With 16 targets in
# a block, each takes a third more time than with 128, with 50 it takes 3 % more than with 100.
_MOST_AT_ONCE = 128


@dataclass(frozen=True)
class Described:
    """P(ALT) of some targets at some sites, and the evidence on all their pairs in doubt.

    Attributes
    ----------
    target, site
        Number of the first target (row 0 of ``prob``), and of the first site (column 0), counted
        from the start of the core.
    prob
        Shape (b, m), float32, in [0, 1]: P(ALT). The memory is used again: read it before you ask
        the iterator for the next part.
    pairs
        Shape (pairs, 2), int64: row and column of ``prob``, sorted.
    evidence, tokens
        Features and tokens of the pairs, in the same order, see
        :func:`ragimpute.evidence.collect.collect_evidence`; ``tokens`` is None if none were asked
        for.
    """

    target: int
    site: int
    prob: np.ndarray
    pairs: np.ndarray
    evidence: np.ndarray
    tokens: np.ndarray | None


@dataclass(frozen=True)
class Wanted:
    """Which pairs are described, and by what.

    Attributes
    ----------
    quality
        As for :func:`ragimpute.evidence.collect.collect_evidence`.
    doubt
        See :func:`ragimpute.evidence.doubt.pairs_in_doubt`; from 0.5 on no pair is in doubt.
    homolog
        Shape (n,), int64: for each target the other haplotype of its sample, which must be the
        target before or after it, or -1 if there is none; see
        :func:`ragimpute.evidence.other_haplotype.homologs_of`. None: all targets are haploid.
    num_tokens
        Tokens for each pair, see :func:`ragimpute.evidence.kernel_arrays.empty_tokens`; 0: no
        tokens.
    """

    quality: SiteRows
    doubt: float
    homolog: np.ndarray | None = None
    num_tokens: int = 0

    def homolog_of(self, num_targets: int) -> np.ndarray:
        """``homolog`` of the targets, where None stands for -1."""
        return np.full(num_targets, -1, np.int64) if self.homolog is None else self.homolog


def copy_with_evidence(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: BlockStates,
    wanted: Wanted,
    take: Callable[[Iterator[Described]], None],
    threads: int = 1,
    max_pairs: int = 1 << 24,
    max_state_bytes: int = STATE_BYTES,
    all_sites: bool = False,
) -> None:
    """Copy target haplotypes, and compute the features of every pair in doubt.

    Parameters
    ----------
    window, alleles, parameters
        As for :func:`ragimpute.copying.copy.copy_haplotypes`; no target is in the panel.
    states
        The panel haplotypes that the targets may copy.
    wanted
        Which pairs are described, and by what.
    take
        Called once for each block of targets, with an iterator over the block's sites, one part
        after another. It must read the iterator to the end. Calls come from several threads at the
        same time; no two calls get the same target and site.
    threads
        Number of threads that the targets are divided among; results do not depend on it.
    max_pairs
        About how many probabilities (targets times sites) all threads together hold in memory.
    max_state_bytes
        For the states of the targets that all threads copy at the same time, where each has its
        own; see :func:`ragimpute.runtime.memory.state_bytes`.
    all_sites
        Whether ``take`` must get all core sites of a target in a single part.

    Raises
    ------
    ValueError
        If the window has no typed site.
    """
    walk: Walk
    if states.by_word:
        walk = _OwnStates(
            window, alleles, parameters, states, wanted, threads,
            max_pairs=max_pairs, max_state_bytes=max_state_bytes, all_sites=all_sites,
        )  # fmt: skip
    else:
        walk = _Shared(window, alleles, parameters, states, wanted, threads)
    run_walk(walk, take, threads)


def run_walk(walk: Walk, take: Callable[[Iterator[Described]], None], threads: int) -> None:
    """Copy and describe all blocks of a walk; see :func:`copy_with_evidence`."""
    workers = max(1, min(threads, len(walk.blocks)))
    rooms: SimpleQueue[Room] = SimpleQueue()
    for _ in range(workers):
        rooms.put(Room(walk, max(1, PAIRS_AT_ONCE // workers)))

    def run(block: range) -> None:
        room = rooms.get()
        try:
            take(walk.described(block, room))
        finally:
            rooms.put(room)

    share(run, walk.blocks, workers)


class Walk(ABC):
    """The arrays that all blocks of targets read, and how one block is copied and described."""

    blocks: list[range]

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        states: BlockStates,
        wanted: Wanted,
    ) -> None:
        if window.typed.num_typed == 0:
            raise ValueError("a window without typed sites has nothing to copy by")
        window.num_minor, window.signature, window.typed.rows  # noqa: B018  before threads ask
        self.window, self.alleles, self.parameters = window, alleles, parameters
        self.states, self.wanted = states, wanted
        self.homolog = wanted.homolog_of(alleles.shape[1])
        self.target, self.observed = pack_words(alleles)
        self.steps = window.steps(parameters)
        self.panel = evidence_panel(window, self.steps.near)
        self.intervals = window.with_core_sites()
        self.most_sites = int(np.diff(window.bounds()).max())

    @abstractmethod
    def scratch(self) -> Any:
        """Allocate the kernels' buffers for one thread."""

    @abstractmethod
    def copied(self, block: range, room: Room) -> Iterator[tuple[int, np.ndarray, int]]:
        """Copy a block of targets, part by part.

        Yields for each part its first core site, P(ALT), and the number of its pairs in doubt. The
        pairs and their features are written into ``room``, as many as fit; the number counts all.
        """

    @abstractmethod
    def room_for_sums(self) -> np.ndarray:
        """Allocate what keeps the sums over the carriers of an interval's sites, if any is kept."""

    def evidence(self, room: Room, measuring: Measuring, slot_of: np.ndarray) -> Evidence:
        """What the pairs of a block are described by, and where their features go."""
        return Evidence(
            panel=self.panel, measuring=measuring, slot_of=slot_of, pairs=room.pairs, at=room.at,
            kept=room.kept, out=room.out, tokens=room.tokens,
        )  # fmt: skip

    def doubt(self, room: Room) -> Doubt:
        """How the pairs of a block are found, and where they go."""
        return Doubt(doubt_limits(self.wanted.doubt), self.window.typed_index, room.found)

    def described(self, block: range, room: Room) -> Iterator[Described]:
        """Copy a block of targets and describe its pairs in doubt, part by part."""
        homolog = self.homolog[block.start : block.stop]
        homolog = np.where(homolog >= 0, homolog - block.start, -1)
        for site, prob, count in self.copied(block, room):
            first = self.window.core[0] + site
            here = self.window.with_core((first, first + prob.shape[1]))
            if count <= len(room.found):
                pairs, copied, tokens = room.first(count)
                beside = homolog_probs(prob, homolog, pairs)
                evidence = with_sites(here, pairs, copied, beside, self.wanted.quality)
                yield Described(block.start, site, prob, pairs, evidence, tokens)
                continue
            # Whoever takes a haplotype's probabilities may change them, and the sample's other
            # haplotype still needs them.
            before = prob.copy()
            for i, target in enumerate(block):
                other = before[homolog[i]] if homolog[i] >= 0 else None
                yield self._once_more(here, target, site, prob[i : i + 1], other)

    def _once_more(
        self,
        here: Window,
        target: int,
        site: int,
        prob: np.ndarray,
        other: np.ndarray | None,
    ) -> Described:
        """Describe the pairs of one target in a second walk, for a block with too many pairs.

        ``other``: P(ALT) of the other haplotype of the target's sample, or None.
        """
        alleles = self.alleles[:, [target]]
        found = self.states.find(range(target, target + 1), None)
        mine = found[0] if self.states.by_word else found
        pairs = in_doubt(here, alleles, prob, doubt=self.wanted.doubt)
        wanted = self.wanted
        tokens = empty_tokens(len(pairs), wanted.num_tokens) if wanted.num_tokens else None
        evidence = collect_evidence(
            here, alleles, self.parameters, pairs, states=lambda i: mine, quality=wanted.quality,
            homolog_prob=None if other is None else other[pairs[:, 1]], tokens=tokens,
        )  # fmt: skip
        return Described(target, site, prob, pairs, evidence, tokens)


class Room:
    """The memory of one thread: pairs in doubt, their features and tokens, kernels' buffers."""

    def __init__(self, walk: Walk, num_pairs: int) -> None:
        self.found = np.empty((num_pairs, 2), np.int64)
        self.out = np.empty((num_pairs, NUM_COPIED), np.float32)
        num_tokens = walk.wanted.num_tokens
        self.tokens = empty_tokens(num_pairs if num_tokens else 0, num_tokens or 2)
        self.pairs = np.empty((max(1, LANES * walk.most_sites), 4), np.int64)
        self.at = np.zeros(2, np.int64)
        self.kept = walk.room_for_sums()
        self._walk = walk
        self._prob = np.empty(0, np.float32)

    @cached_property
    def scratch(self) -> Any:
        return self._walk.scratch()

    def prob(self, rows: int, columns: int) -> np.ndarray:
        """An array for P(ALT); every call returns the same memory, which grows where necessary."""
        if self._prob.size < rows * columns:
            self._prob = np.empty(rows * columns, np.float32)
        return self._prob[: rows * columns].reshape(rows, columns)

    def first(self, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Copies of the first ``num`` pairs, their features and tokens, sorted by row, column."""
        order = np.lexsort((self.found[:num, 1], self.found[:num, 0]))
        tokens = self.tokens[order] if self._walk.wanted.num_tokens else None
        return self.found[order], self.out[order], tokens


class _Shared(Walk):
    """Targets that all copy the same states: a block is up to 16 targets, one for each lane."""

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        states: BlockStates,
        wanted: Wanted,
        threads: int,
    ) -> None:
        super().__init__(window, alleles, parameters, states, wanted)
        n, num_haplotypes = alleles.shape[1], window.typed.num_haplotypes
        everyone = states.find(range(n), None)
        shared = SharedStates.find(lambda i: everyone, n, num_haplotypes)
        assert shared is not None
        self._shared = shared
        self._slot_of = shared.slots(num_haplotypes)
        self._of_first: dict[int, Block] = {
            b.first: b for b in shared.blocks(window, alleles, self.steps, threads, self.homolog)
        }
        self.blocks = [range(b.first, b.first + b.width) for b in self._of_first.values()]

    def scratch(self) -> tuple[SharedMasses, Measuring]:
        num_states = len(self._shared.states)
        return self._shared.masses(len(self.steps.rho)), measuring_scratch(num_states, LANES)

    def _kin(self, block: range) -> np.ndarray:
        """How alike states are to the targets of a block, if any pair is described by it."""
        if self.wanted.doubt >= 0.5:
            return np.ones((len(block), 1), np.float32)
        here = slice(block.start, block.stop)
        shared = self._shared
        return kin_weights(
            self.panel.rows, shared.states, self.target[here], self.observed[here],
            shared.lists[here],
        )  # fmt: skip

    def room_for_sums(self) -> np.ndarray:
        return rows_of_lanes(max(1, self.most_sites), 4)

    def copied(self, block: range, room: Room) -> Iterator[tuple[int, np.ndarray, int]]:
        core, window = self.window.core, self.window
        masses, measuring = room.scratch
        out = room.prob(core[1] - core[0], len(block))
        sites = SharedSites(
            bounds=window.bounds(), near=self.steps.near, minor=self.panel.minor,
            flip=~window.haplotypes.alt_is_minor, slot_of=self._slot_of, listed=measuring.listed,
            kept=room.kept, first_site=core[0], first=0, width=len(block), prob=out,
        )  # fmt: skip
        described = SharedEvidence(
            self._shared.states[None], self.target[block.start : block.stop],
            self.observed[block.start : block.stop],
            self._kin(block),
            self.evidence(room, measuring, self._slot_of),
        )  # fmt: skip
        count = copy_and_describe_shared(
            self._of_first[block.start].targets, masses, self.intervals,
            SharedCopying(sites, described, self.doubt(room)),
        )  # fmt: skip
        yield 0, out.T, count


class _OwnStates(Walk):
    """Targets of which each copies states of its own, which change from word to word."""

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        states: BlockStates,
        wanted: Wanted,
        threads: int,
        *,
        all_sites: bool,
        max_pairs: int,
        max_state_bytes: int,
    ) -> None:
        super().__init__(window, alleles, parameters, states, wanted)
        size = window.core[1] - window.core[0]
        # For each word and state of a target there are a mass and a state number, of 4 bytes each.
        fits = max_state_bytes // (8 * states.num_states * len(window.typed.words) * threads)
        if all_sites:
            fits = min(fits, max_pairs // (max(1, size) * threads))
        at_once = min(_MOST_AT_ONCE, max(LANES, fits // LANES * LANES))
        edges = block_edges(alleles.shape[1], threads, at_once, self.homolog)
        self.blocks = [range(first, stop) for first, stop in pairwise(edges)]
        at_once = max(len(block) for block in self.blocks)
        max_sites = size if all_sites else max_pairs // (at_once * threads)
        self._parts = window.minor_alleles.parts(max(1, max_sites))

    def scratch(self) -> _OwnScratch:
        most, k = max(map(len, self.blocks)), self.states.num_states
        words = self.window.typed.words
        return _OwnScratch(
            states=np.empty((most, len(words), k), np.int32),
            masses=sliding_masses(len(words), k, most),
            sites=sliding_sites(self.window, self.steps, k, np.empty((0, 0), np.float32)),
            measuring=measuring_scratch(k, most),
            slot_of=np.full(self.window.num_haplotypes, k, np.int32),
            placed=np.full(2, -1),
        )

    def room_for_sums(self) -> np.ndarray:
        return rows_of_lanes(0, 4)

    def copied(self, block: range, room: Room) -> Iterator[tuple[int, np.ndarray, int]]:
        scratch, edges = room.scratch, self.window.minor_alleles.edges
        here = slice(block.start, block.stop)
        targets = SlidingTargets(
            self.window.typed.words, self.states.find(block, scratch.states), self.target[here],
            self.observed[here], self.steps.rho, self.steps.err,
        )  # fmt: skip
        evidence = self.evidence(room, scratch.measuring, scratch.slot_of)
        described = SlidingEvidence(evidence, scratch.placed)
        begin_walk(targets, scratch.masses)
        for low, high in self._parts:
            first, stop = int(edges[low]), int(edges[high])
            prob = room.prob(len(block), stop - first)
            sites = scratch.sites._replace(first_site=first, prob=prob)
            count = copy_and_describe_sliding(
                targets, scratch.masses, (low, high), self.intervals,
                SlidingCopying(sites, described, self.doubt(room)),
            )  # fmt: skip
            yield first - self.window.core[0], prob, count


class _OwnScratch(NamedTuple):
    """The kernels' buffers for one thread, where targets have states of their own."""

    states: np.ndarray
    masses: SlidingMasses
    sites: SlidingSites
    measuring: Measuring
    slot_of: np.ndarray
    placed: np.ndarray
