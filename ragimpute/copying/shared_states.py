"""Group target haplotypes that copy the same states into blocks of 16, one for each SIMD lane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from ragimpute.copying.shared_kernel import SharedMasses, SharedTargets, shared_masses
from ragimpute.copying.window import Steps, Window
from ragimpute.kernels.simd_floats import LANES

# A state that is hidden from a target still costs time. If more than this share of states would be
# hidden, targets are copied with states of their own instead.
_MAX_HIDDEN_SHARE = 0.125


def block_edges(
    n: int, threads: int, at_once: int = LANES, homolog: np.ndarray | None = None
) -> list[int]:
    """Divide n targets into blocks of up to ``at_once`` (> 1) targets.

    Returns the edges: block i has the targets [edges[i], edges[i + 1]). The number of blocks is a
    multiple of ``threads`` if there are enough targets, so that all threads have equal work.
    ``homolog`` (n,) gives for each target the other haplotype of its sample, which is the target
    before or after it, or -1. The two are kept in one block, which may need one more block.
    """
    num = -(-n // at_once)
    num = max(1, min(n, -(-num // threads) * threads))
    while True:
        edges = [n * i // num for i in range(num + 1)]
        if homolog is not None:
            edges = sorted({e - 1 if 0 < e < n and homolog[e] == e - 1 else e for e in edges})
        if max(b - a for a, b in pairwise(edges)) <= at_once:
            return edges
        num += 1


@dataclass(frozen=True)
class Block:
    """Up to 16 target haplotypes: [first, first + width), in the form that kernels read."""

    first: int
    width: int
    targets: SharedTargets


@dataclass(frozen=True)
class SharedStates:
    """States that all targets of a window copy, except for a few that are hidden from some targets.

    Attributes
    ----------
    states
        Shape (K,), int32: panel haplotypes, ascending.
    lists
        For each target the states that it may copy, shape (K_i,), int32.
    """

    states: np.ndarray
    lists: list[np.ndarray]

    @classmethod
    def find(
        cls, states: Callable[[int], np.ndarray], n: int, num_haplotypes: int
    ) -> SharedStates | None:
        """The states that targets [0, n) share, or None if each should have states of its own.

        ``states(i)``: the states of target i. The result has every state that any target may copy,
        whatever its block, so that sums depend neither on blocks nor on threads.
        """
        lists: list[np.ndarray] = []
        seen = np.zeros(num_haplotypes, bool)
        before: np.ndarray | None = None
        for i in range(n):
            mine = states(i)
            if len(mine) != 1:
                return None
            if mine is not before:  # most often all targets have one list
                seen[mine[0]] = True
            before = mine
            lists.append(mine[0])
        union = np.flatnonzero(seen).astype(np.int32)
        num_hidden = sum(len(union) - len(mine) for mine in lists)
        if num_hidden > _MAX_HIDDEN_SHARE * len(union) * n:
            return None
        return cls(union, lists)

    @cached_property
    def _hidden(self) -> list[list[int]]:
        """For each target the places of the states that it may not copy."""
        out: list[list[int]] = []
        for mine in self.lists:
            missing = np.ones(len(self.states), bool)
            if len(mine) < len(self.states):
                missing[np.searchsorted(self.states, mine)] = False
                out.append(np.flatnonzero(missing).tolist())
            else:
                out.append([])
        return out

    def slots(self, num_haplotypes: int) -> np.ndarray:
        """For each panel haplotype its place among the states, or K if it is none: (H,), int32."""
        out = np.full(num_haplotypes, len(self.states), np.int32)
        out[self.states] = np.arange(len(self.states), dtype=np.int32)
        return out

    def masses(self, num_typed: int) -> SharedMasses:
        """Allocate the buffers of one thread."""
        return shared_masses(num_typed, len(self.states))

    def blocks(
        self,
        window: Window,
        alleles: np.ndarray,
        steps: Steps,
        threads: int,
        homolog: np.ndarray | None = None,
    ) -> list[Block]:
        """Divide the targets, alleles (T, n), int8, into blocks; see :func:`block_edges`.

        A block with fewer than 16 targets takes as much time as a full one.
        """
        edges = block_edges(alleles.shape[1], threads, homolog=homolog)
        panel = self._alleles(window.typed.words, window.typed.num_typed)
        return [
            Block(first, stop - first, self._targets(panel, alleles[:, first:stop], steps, first))
            for first, stop in pairwise(edges)
        ]

    def _alleles(self, words: np.ndarray, num_typed: int) -> np.ndarray:
        """Shape (T, K), uint8: alleles of the states, from words of shape (W, H), uint32.

        The result for the last ``words`` is kept.
        """
        if self._unpacked and self._unpacked[0][0] is words:
            return self._unpacked[0][1]
        chosen = np.ascontiguousarray(words[:, self.states].T)  # (K, W)
        bits = np.unpackbits(chosen.view(np.uint8), axis=1, count=num_typed, bitorder="little")
        self._unpacked[:] = [(words, np.ascontiguousarray(bits.T))]
        return self._unpacked[0][1]

    @cached_property
    def _unpacked(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return []

    def _targets(
        self, panel: np.ndarray, alleles: np.ndarray, steps: Steps, first: int
    ) -> SharedTargets:
        """The block of the targets from ``first`` on, whose ``alleles`` are given."""
        num_targets = alleles.shape[1]
        target = np.full((len(alleles), LANES), -1, np.int8)
        target[:, :num_targets] = alleles
        num_states = np.full(LANES, len(self.states), np.float32)
        pairs = []
        for lane, missing in enumerate(self._hidden[first : first + num_targets]):
            num_states[lane] -= len(missing)
            pairs += [(s, lane) for s in missing]
        hidden = np.array(pairs, np.int64).reshape(-1, 2)
        is_hidden = np.zeros(len(self.states), bool)
        is_hidden[hidden[:, 0]] = True
        return SharedTargets(panel, target, steps.rho, steps.err, num_states, hidden, is_hidden)
