"""Copy targets on a device, by torch, and describe their pairs in doubt by kernels on the CPU.

The device gives P(ALT), and for the pairs in doubt the masses of their intervals. To describe a
pair by them costs the CPU what it costs in the kernels' own walk, without the walk itself.
Describing is not done in torch: it follows the matches of a few states from bit to bit, which is
no work for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_states import block_edges
from ragimpute.copying.states import BlockStates
from ragimpute.copying.window import Window
from ragimpute.evidence.doubt import BEFORE, INTERVAL, LANE, PLACE, SITE, doubt_limits
from ragimpute.evidence.kernel_arrays import Measuring, measuring_scratch
from ragimpute.evidence.kinship import kin_weights
from ragimpute.evidence.masses_kernel import GivenMasses, describe_given_masses
from ragimpute.evidence.while_copying import (
    PAIRS_AT_ONCE,
    Described,
    Room,
    Walk,
    Wanted,
    run_walk,
)
from ragimpute.kernels.simd_floats import rows_of_lanes

if TYPE_CHECKING:
    from ragimpute.copying.torch_copying import CopiedWord, Doubtful

# Bytes that the states of all blocks at work may take on the host, and the most targets of a block:
# with a few hundred a GPU is busy.
_STATE_BYTES = 256 * 2**20
_MOST_AT_ONCE = 1024
# A block may have so many times the targets whose probabilities fit into memory, as those of a part
# of the sites are held at a time. So less memory for a run means less on the device, too.
_BLOCKS_OF_PAIRS = 4
# A part of a block has room for the pairs in doubt if no more than one in so many is.
_ONE_IN = 8


def copy_on_device(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: BlockStates,
    wanted: Wanted,
    take: Callable[[Iterator[Described]], None],
    device: str,
    threads: int = 1,
    max_pairs: int = 1 << 24,
    all_sites: bool = False,
) -> None:
    """Copy targets as :func:`ragimpute.evidence.while_copying.copy_with_evidence` does, by torch.

    Parameters
    ----------
    window, alleles, parameters, states, wanted, take, threads, max_pairs, all_sites
        See there. While one thread's targets are copied on the device, another describes pairs.
    device
        Where targets are copied, as torch calls it: "cuda:0".

    Raises
    ------
    ValueError
        If the window has no typed site.
    """
    walk = _OnDevice(
        window, alleles, parameters, states, wanted, device,
        threads=threads, max_pairs=max_pairs, all_sites=all_sites,
    )  # fmt: skip
    run_walk(walk, take, threads)


class _Scratch(NamedTuple):
    """The buffers of one thread: the states of its targets, and those of the kernel."""

    states: np.ndarray
    measuring: Measuring
    slot_of: np.ndarray


class _OnDevice(Walk):
    """Targets that torch copies, a few hundred at a time."""

    def __init__(
        self, window: Window, alleles: np.ndarray, parameters: CopyingParameters,
        states: BlockStates, wanted: Wanted, device: str,
        *, threads: int, max_pairs: int, all_sites: bool,
    ) -> None:  # fmt: skip
        from ragimpute.copying.torch_copying import targets_at_once, word_edges

        super().__init__(window, alleles, parameters, states, wanted)
        self._device, self._threads = device, threads
        if states.by_word:
            window.minor_alleles  # noqa: B018  before threads ask
        self._edges = word_edges(window)
        num_words, size = len(window.typed.words), window.core[1] - window.core[0]
        at_once = min(
            _MOST_AT_ONCE,
            targets_at_once(
                num_words, states.num_states, device, own_states=states.by_word, walks=threads
            ),
            _STATE_BYTES // (4 * threads * states.num_states * (num_words + 4)),
        )
        fits = max_pairs // (max(1, size) * threads)
        at_once = min(at_once, fits if all_sites else _BLOCKS_OF_PAIRS * fits)
        # At least the two haplotypes of a sample.
        edges = block_edges(alleles.shape[1], threads, max(2, at_once), self.homolog)
        self.blocks = [range(first, stop) for first, stop in pairwise(edges)]
        most = max(map(len, self.blocks))
        max_sites = min(max_pairs, _ONE_IN * PAIRS_AT_ONCE) // (most * threads)
        self._parts = self._cut(size if all_sites else max(1, max_sites))

    def _cut(self, max_sites: int) -> list[tuple[int, int]]:
        """Runs of words of at most so many sites, the last run first; at least one word each."""
        edges, stops = self._edges, [len(self._edges) - 1]
        lowest = int(np.searchsorted(edges, edges[0], side="right")) - 1
        while stops[-1] > lowest:
            low = int(np.searchsorted(edges, edges[stops[-1]] - max_sites))
            stops.append(max(lowest, min(low, stops[-1] - 1)))
        return [(low, high) for high, low in pairwise(stops)]

    def scratch(self) -> _Scratch:
        most, k = max(map(len, self.blocks)), self.states.num_states
        num_words, num_haplotypes = self.window.typed.words.shape
        own = self.states.by_word
        return _Scratch(
            states=np.empty((most, num_words, k) if own else (0, 0, 0), np.int32),
            measuring=measuring_scratch(k, most),
            slot_of=np.full(num_haplotypes, k, np.int32)
            if own
            else np.arange(num_haplotypes, dtype=np.int32),
        )

    def room_for_sums(self) -> np.ndarray:
        return rows_of_lanes(0, 4)

    def _kin(self, here: slice, states: np.ndarray) -> np.ndarray:
        """How alike states are to the targets, if these share them and some pair is described."""
        target, observed = self.target[here], self.observed[here]
        if self.states.by_word or self.wanted.doubt >= 0.5:
            return np.ones((len(target), 1), np.float32)
        lists = [states[0, 0]] * len(target)
        return kin_weights(self.panel.rows, states[0, 0], target, observed, lists)

    def copied(self, block: range, room: Room) -> Iterator[tuple[int, np.ndarray, int]]:
        from ragimpute.copying.torch_copying import TorchCopying

        scratch, here = room.scratch, slice(block.start, block.stop)
        own = self.states.by_word
        states = self.states.find(block, scratch.states if own else None)
        if not own:
            states = states[None]
        kin = self._kin(here, states)
        copying = TorchCopying(
            self.window, self.steps, states if own else None, self.target[here],
            self.observed[here], self._device, walks=self._threads,
        )  # fmt: skip
        copying.forward()
        limits = doubt_limits(self.wanted.doubt)
        k, none = self.states.num_states, np.empty(0, np.float32)
        given = GivenMasses(
            states, self.target[here], self.observed[here], kin, row=np.empty(0, np.int64),
            masses=(none.reshape(0, k), none.reshape(0, k)), totals=(none, none),
            sums=none.reshape(0, 0, 4, 1), first_site=0,
        )  # fmt: skip
        for low, high in self._parts:
            first, stop = int(self._edges[low]), int(self._edges[high])
            prob = room.prob(len(block), stop - first)
            self._begin(room)
            for w in range(high - 1, low - 1, -1):
                word = copying.back(w)
                at = word.first_site - first
                prob[:, at : at + word.prob.shape[1]] = word.prob.cpu().numpy()
                if limits[0] < limits[1]:
                    doubtful = word.doubtful(float(limits[0]), float(limits[1]))
                    self._describe(w, word, doubtful, given, at, room)
            yield first - self.window.core[0], prob, int(room.at[BEFORE])

    def _begin(self, room: Room) -> None:
        """Reset the buffers that would carry results over from the targets before."""
        measuring = room.scratch.measuring
        measuring.keys[:] = -1.0
        measuring.stamp[:] = -1
        measuring.ends[:] = self.window.typed.num_typed
        room.at[:] = 0

    def _describe(
        self, w: int, word: CopiedWord, doubtful: Doubtful | None, given: GivenMasses, at: int,
        room: Room,
    ) -> None:  # fmt: skip
        """Describe the pairs of a word, if there is room for them; else they are only counted.

        ``at``: the column of the word's first site in the part at hand.
        """
        num = 0 if doubtful is None else len(doubtful.pairs)
        before = int(room.at[BEFORE])
        if before + num > len(room.found):
            room.at[BEFORE] += num
            return
        pairs = np.empty((num, 4), np.int64)
        if doubtful is not None:
            target, site = doubtful.pairs.T
            order = np.lexsort((site, -doubtful.interval, target))
            pairs[:, INTERVAL], pairs[:, LANE] = doubtful.interval[order], target[order]
            pairs[:, SITE] = site[order] + word.first_site
            pairs[:, PLACE] = before + np.arange(num)
            room.found[before : before + num, 0] = target[order]
            room.found[before : before + num, 1] = site[order] + at
            given = given._replace(
                row=doubtful.row[order], masses=(doubtful.left, doubtful.right),
                totals=(doubtful.left_total, doubtful.right_total), first_site=word.first_site,
            )  # fmt: skip
            if self.wanted.num_tokens == 0:
                given = given._replace(sums=word.sums_by_target())
        scratch = room.scratch
        evidence = self.evidence(room, scratch.measuring, scratch.slot_of)._replace(pairs=pairs)
        describe_given_masses(w, given, evidence)
