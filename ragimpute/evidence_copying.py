"""Copying that describes what it leaves in doubt, where it comes past.

:func:`ragimpute.evidence.collect_evidence` walks along the typed sites once more, to pairs that
were chosen from what copying found. Where all pairs in doubt are wanted, what copying knows between
two typed sites is what describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby, pairwise

import numpy as np

from ragimpute.copying import CopyingParameters, Window, run_parts
from ragimpute.copying_blocks import Block, SharedStates, block_edges
from ragimpute.evidence import (
    COPYING_FEATURES,
    Walks,
    collect_evidence,
    doubt_limits,
    empty_tokens,
    in_doubt,
)
from ragimpute.evidence_slots import copy_and_describe
from ragimpute.evidence_walks import evidence_lanes, measuring_scratch
from ragimpute.lanes import LANES, rows_of_lanes
from ragimpute.slots_kernel import sites_scratch, states_scratch

# Pairs that are described before they are given away: their evidence then takes 30 MB. Where a
# few targets have more, they are walked once more, one by one.
_PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class Described:
    """All pairs in doubt of some targets.

    Attributes
    ----------
    pairs
        Shape (pairs, 2), int64: target haplotype and core site, sorted.
    evidence, tokens
        Of the pairs, see :func:`ragimpute.evidence.collect_evidence`.
    """

    pairs: np.ndarray
    evidence: np.ndarray
    tokens: np.ndarray | None


def copy_with_evidence(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: Callable[[int], np.ndarray],
    quality: np.ndarray,
    doubt: float,
    num_tokens: int = 0,
    threads: int = 1,
) -> tuple[np.ndarray, Iterator[Described]]:
    """Copy targets, and describe the pairs in doubt.

    Parameters
    ----------
    window, alleles, parameters, states, threads
        As for :func:`ragimpute.copying.copy_haplotypes`; no target is in the panel.
    quality
        As for :func:`ragimpute.evidence.collect_evidence`.
    doubt
        See :func:`ragimpute.evidence.pairs_in_doubt`.
    num_tokens
        Tokens of each pair, see :func:`ragimpute.evidence.empty_tokens`; 0: none.

    Returns
    -------
    What ``copy_haplotypes`` returns, but empty, and its pairs in doubt, some targets at a time: a
    target's row is there as soon as its pairs are, and may then be changed. All are there when no
    more pairs come.
    """
    if window.typed.num_typed == 0:
        raise ValueError("a window without typed sites has nothing to copy by")
    n, size = alleles.shape[1], window.core[1] - window.core[0]
    shared = SharedStates.find(states, n, window.typed.num_haplotypes)
    walk: _Walk
    if shared is None:
        prob = out = np.empty((n, size), np.float32)
        walk = _OwnStates(window, alleles, parameters, doubt, num_tokens, states, out, threads)
    else:
        out = np.empty((size, n), np.float32)
        prob = out.T
        walk = _Shared(window, alleles, parameters, doubt, num_tokens, shared, out, threads)

    def described() -> Iterator[Described]:
        rooms = [
            _Room(walk, max(1, _PAIRS_AT_ONCE // threads))
            for _ in range(min(threads, len(walk.blocks)))
        ]
        for begin in range(0, len(walk.blocks), len(rooms)):
            blocks = walk.blocks[begin : begin + len(rooms)]
            counts = [0] * len(blocks)

            def run(part: range, blocks: list[range] = blocks, counts: list[int] = counts) -> None:
                for i in part:
                    counts[i] = walk.describe(blocks[i], rooms[i])

            run_parts(run, len(blocks), threads)
            for block, room, count in zip(blocks, rooms, counts, strict=False):
                if count <= len(room.found):
                    yield room.described(count, quality, window.core[0])
                    continue
                for i in block:
                    mine = states(i)
                    pairs = in_doubt(window, alleles[:, i : i + 1], prob[i : i + 1], doubt=doubt)
                    tokens = empty_tokens(len(pairs), num_tokens) if num_tokens else None
                    evidence = collect_evidence(
                        window, alleles[:, i : i + 1], parameters, pairs,
                        states=partial(_same, mine), quality=quality, tokens=tokens,
                    )  # fmt: skip
                    yield Described(pairs + np.array([i, 0]), evidence, tokens)

    return prob, described()


def _same(states: np.ndarray, target: int) -> np.ndarray:
    """The states of any target."""
    return states


class _Walk:
    """What all blocks of targets share."""

    blocks: list[range]

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        doubt: float,
        num_tokens: int,
    ) -> None:
        self.window, self.num_tokens = window, num_tokens
        self.work = Walks(window, alleles, parameters)
        self.bounds = window.bounds()
        self.limits = doubt_limits(doubt)
        self.flip = ~window.haplotypes.alt_is_minor
        self.most_sites = int(np.diff(self.bounds).max())

    def own(self, block: range) -> np.ndarray:
        """Panel haplotypes of the targets' samples: there are none."""
        return np.full((len(block), 1), -1, np.int32)

    def scratch(self) -> tuple:
        """Buffers of one thread."""
        raise NotImplementedError

    def describe(self, block: range, room: _Room) -> int:
        """Copy a block of targets; their pairs go where there is room; returns how many."""
        raise NotImplementedError


class _Room:
    """One thread's room for pairs in doubt, and its buffers."""

    def __init__(self, walk: _Walk, num_pairs: int) -> None:
        self.found = np.empty((num_pairs, 2), np.int64)
        self.out = np.empty((num_pairs, len(COPYING_FEATURES)), np.float32)
        self.tokens = empty_tokens(num_pairs if walk.num_tokens else 0, walk.num_tokens or 2)
        self.pairs = np.empty((max(1, LANES * walk.most_sites), 4), np.int64)
        self.kept = rows_of_lanes(max(1, walk.most_sites), 4)
        self._walk = walk

    @cached_property
    def scratch(self) -> tuple:
        return self._walk.scratch()

    def described(self, num: int, quality: np.ndarray, core: int) -> Described:
        """The first ``num`` pairs, sorted; a copy."""
        order = np.lexsort((self.found[:num, 1], self.found[:num, 0]))
        pairs = self.found[order]
        evidence = np.concatenate([self.out[order], quality[pairs[:, 1] + core]], axis=1)
        return Described(pairs, evidence, self.tokens[order] if self._walk.num_tokens else None)


class _Shared(_Walk):
    """Targets that copy the same states, 16 at once."""

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        doubt: float,
        num_tokens: int,
        shared: SharedStates,
        out: np.ndarray,
        threads: int,
    ) -> None:
        super().__init__(window, alleles, parameters, doubt, num_tokens)
        self._shared, self._out = shared, out
        self._panel = shared.alleles(self.work.words, len(self.work.rho))
        self._slot_of = shared.slots(self.work.num_haplotypes)
        self._of_first: dict[int, Block] = {b.first: b for b in shared.blocks(alleles, threads)}
        self.blocks = [range(b.first, b.first + b.width) for b in self._of_first.values()]

    def scratch(self) -> tuple:
        masses, _ = self._shared.scratch(len(self.work.rho))
        return masses, measuring_scratch(len(self._shared.states), LANES)

    def describe(self, block: range, room: _Room) -> int:
        work, lanes = self.work, self._of_first[block.start]
        targets = slice(block.start, block.stop)
        copied = (
            lanes.is_hidden, self.bounds, self.window.typed_index, self.flip, self.limits,
            self.window.core[0], lanes.first, lanes.width, room.kept, self._out,
        )  # fmt: skip
        return evidence_lanes(
            self._panel, lanes.target, work.rho, work.err, lanes.num_states, lanes.hidden,
            self._shared.states[None], work.rows, work.target[targets], work.observed[targets],
            self.own(block), work.near, *work.cm, work.compact, work.num_minor, work.signature,
            self._slot_of, room.pairs, *room.scratch, room.out, room.tokens, copied, room.found,
        )  # fmt: skip


class _OwnStates(_Walk):
    """Targets that have states of their own."""

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        doubt: float,
        num_tokens: int,
        states: Callable[[int], np.ndarray],
        out: np.ndarray,
        threads: int,
    ) -> None:
        super().__init__(window, alleles, parameters, doubt, num_tokens)
        self._states, self._out = states, out
        self.blocks = []
        for first, stop in pairwise(block_edges(alleles.shape[1], threads)):
            # As many at once as have states of one shape.
            for _, alike in groupby(range(first, stop), key=lambda i: states(i).shape):
                here = list(alike)
                self.blocks.append(range(here[0], here[-1] + 1))

    def scratch(self) -> tuple:
        return ({},)

    def describe(self, block: range, room: _Room) -> int:
        work, minor = self.work, self.window.minor_alleles
        here = np.stack([self._states(i) for i in block])
        k = here.shape[2]
        kept = room.scratch[0]
        if (len(block), k) not in kept:
            kept.clear()
            kept[len(block), k] = (
                states_scratch(len(work.words), k, len(block)), sites_scratch(minor, k),
                measuring_scratch(k, len(block)), np.full(work.num_haplotypes, k, np.int32),
            )  # fmt: skip
        masses, carried, measuring, slot_of = kept[len(block), k]
        targets = slice(block.start, block.stop)
        return copy_and_describe(
            work.words, here, work.target[targets], work.observed[targets], work.rho, work.err,
            self.bounds, minor.arrays(), self.flip, carried, work.rows, self.own(block), work.near,
            *work.cm, self.window.typed_index, work.compact, work.num_minor, work.signature,
            slot_of, self.limits, block.start, room.pairs, masses, measuring, self._out[targets],
            room.out, room.tokens, room.found,
        )  # fmt: skip
