"""Li-Stephens forward-backward over panel haplotypes, carried from typed to untyped sites.

A target haplotype is a mosaic of panel haplotypes (states). At typed sites the copied haplotype's
allele is observed with a small mismatch probability; between them the copied haplotype changes
with a probability that grows with genetic distance. At an untyped site the posterior probability
of an allele is the posterior mass of the states that carry it, so only carriers cost anything.

Typed sites are packed 32 to a word, so that a state's mismatches over a word are one XOR. A state
list belongs to each word: all haplotypes, or the ones that retrieval chose ("sliding slots"). A
state that stays in its slot keeps its mass; a newcomer enters by recombination only.

References
----------
Li & Stephens 2003 (the model); Browning & Browning 2016 (the transition 1 - exp(-4 ne d / H)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

import numpy as np

from ragimpute.copying_blocks import SharedStates, block_edges
from ragimpute.copying_kernel import WORD
from ragimpute.lanes_kernel import copy_lanes
from ragimpute.minor_alleles import MinorAlleles, pack_typed
from ragimpute.panel import Haplotypes
from ragimpute.signatures import signatures_of
from ragimpute.slots_kernel import begin_walk, copy_slots, sites_scratch, states_scratch
from ragimpute.threads import run_parts

# Panels up to this size are copied whole: retrieval would cost more accuracy than it saves time.
COPY_ALL_UP_TO = 6000
# An allele is in doubt where the less probable one has more than this.
DOUBT = 0.01
# What a window works out that does not depend on its core.
_OF_ALL_SITES = ("signature", "num_minor", "_flanks")


@dataclass(frozen=True)
class CopyingParameters:
    """What the copying model needs to know of a panel and an array.

    Attributes
    ----------
    switch_rate
        Changes of the copied haplotype per cM, > 0: ``4 * ne / (100 * num_haplotypes)``.
    mismatch_prob
        Probability that a typed allele differs from the copied one, in (0, 0.5).
    site_mismatch_prob
        Shape (T,), float32, in (0, 0.5): the same of each typed site of one window, or None: of
        all alike.
    """

    switch_rate: float
    mismatch_prob: float
    site_mismatch_prob: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.switch_rate > 0 or not 0 < self.mismatch_prob < 0.5:
            raise ValueError(
                f"switch_rate {self.switch_rate} must be > 0 and mismatch_prob "
                f"{self.mismatch_prob} in (0, 0.5)"
            )

    @classmethod
    def from_ne(cls, ne: float, mismatch_prob: float, num_haplotypes: int) -> CopyingParameters:
        """Parameters from an effective diploid population size and the full panel's size."""
        return cls(4 * ne / (100 * num_haplotypes), mismatch_prob)

    def mismatch_probs(self, num_typed: int) -> np.ndarray:
        """The mismatch probability of each typed site: shape (T,), float32."""
        each = self.site_mismatch_prob
        if each is None:
            return np.full(num_typed, self.mismatch_prob, np.float32)
        if each.shape != (num_typed,):
            raise ValueError(f"{len(each)} mismatch probabilities for {num_typed} typed sites")
        return np.ascontiguousarray(each, np.float32)

    def ne(self, num_haplotypes: int) -> float:
        """The effective population size that this switch rate stands for."""
        return self.switch_rate * 100 * num_haplotypes / 4


@dataclass(frozen=True)
class TypedSites:
    """The panel at the typed sites of a window, packed for comparison with targets.

    Attributes
    ----------
    words
        Shape (ceil(T / 32), H), uint32: bit j of word w is the ALT allele at typed site 32 w + j.
    position_cm
        Shape (T,), float64, cM, non-decreasing.
    """

    words: np.ndarray
    position_cm: np.ndarray

    @classmethod
    def pack(cls, alleles: np.ndarray, position_cm: np.ndarray) -> TypedSites:
        """Pack panel alleles, shape (T, H), int8, 0 or 1."""
        words, _ = pack_words(alleles)
        return cls(np.ascontiguousarray(words.T), np.asarray(position_cm, np.float64))

    @property
    def num_haplotypes(self) -> int:
        return self.words.shape[1]

    @property
    def num_typed(self) -> int:
        return len(self.position_cm)

    @cached_property
    def rows(self) -> np.ndarray:
        """Shape (H, W), uint32: the words, those of a haplotype side by side."""
        return np.ascontiguousarray(self.words.T)


def pack_words(alleles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pack alleles 32 sites to a word, haplotype-major; negative alleles are unobserved.

    Parameters
    ----------
    alleles
        Shape (T, n), int8: 0, 1, or negative where nothing was observed.

    Returns
    -------
    ALT bits and observed bits, each of shape (n, ceil(T / 32)), uint32.
    """
    num_typed, n = alleles.shape
    num_words = -(-num_typed // WORD)
    packed = []
    for bits in (alleles == 1, alleles >= 0):
        padded = np.zeros((n, num_words * WORD), dtype=bool)
        padded[:, :num_typed] = bits.T
        packed.append(np.packbits(padded, axis=1, bitorder="little").view(np.uint32))
    return packed[0].reshape(n, num_words), packed[1].reshape(n, num_words)


def switch_probs(position_cm: np.ndarray, *, switch_rate: float) -> np.ndarray:
    """Probability that the copied haplotype changes before each typed site.

    Parameters
    ----------
    position_cm
        Shape (T,), float64, cM, non-decreasing.
    switch_rate
        Changes per cM, > 0.

    Returns
    -------
    Shape (T,), float32, in [0, 1]; entry 0 is 1: before the first site every state is alike.
    """
    gap = np.diff(position_cm)
    if (gap < 0).any():
        raise ValueError("position_cm decreases")
    # A floor of 1e-7 keeps states that share a position apart from a dead end after a mismatch.
    rho = np.maximum(-np.expm1(-switch_rate * gap), 1e-7)
    return np.concatenate([np.ones(min(1, len(position_cm))), rho]).astype(np.float32)


@dataclass(frozen=True)
class Window:
    """The panel of one window, ready to be copied from.

    Attributes
    ----------
    typed
        The T typed sites.
    typed_index
        Shape (T,), int64, ascending: where the typed sites stand among the window's sites.
    haplotypes
        All M sites of the window.
    position_cm
        Shape (M,), float64, cM, non-decreasing.
    core
        Half-open range of the sites that are imputed; those outside it are buffer, where only
        typed sites count.
    """

    typed: TypedSites
    typed_index: np.ndarray
    haplotypes: Haplotypes
    position_cm: np.ndarray
    core: tuple[int, int]

    @classmethod
    def build(
        cls,
        haplotypes: Haplotypes,
        position_cm: np.ndarray,
        typed_index: np.ndarray,
        core: tuple[int, int] | None = None,
    ) -> Window:
        """Pack the typed sites of a window; ``core`` None: all its sites."""
        typed_index = np.asarray(typed_index, np.int64)
        typed = TypedSites(pack_typed(haplotypes, typed_index), position_cm[typed_index])
        return cls(typed, typed_index, haplotypes, position_cm, core or (0, len(position_cm)))

    def with_core(self, core: tuple[int, int]) -> Window:
        """The same window, of whose sites others are imputed; what it has worked out is kept."""
        if core == self.core:
            return self
        out = replace(self, core=core)
        out.__dict__.update({k: v for k, v in self.__dict__.items() if k in _OF_ALL_SITES})
        return out

    @property
    def num_sites(self) -> int:
        return len(self.position_cm)

    def bounds(self) -> np.ndarray:
        """Shape (T + 2,), int64: core sites [bounds[t + 1], bounds[t + 2]) follow typed site t."""
        edges = np.concatenate([[0], self.typed_index, [self.num_sites]])
        return np.clip(edges, *self.core).astype(np.int64)

    def flank_switch_probs(self, switch_rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Switch probability from each site to the typed sites on its left and right, float32.

        Those of the rate that was asked for last are kept.
        """
        if switch_rate not in self._flanks:
            self._flanks.clear()
            self._flanks[switch_rate] = self._flanks_of(switch_rate)
        return self._flanks[switch_rate]

    @cached_property
    def _flanks(self) -> dict[float, tuple[np.ndarray, np.ndarray]]:
        return {}

    def _flanks_of(self, switch_rate: float) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`flank_switch_probs`."""
        interval = np.searchsorted(self.typed_index, np.arange(self.num_sites), side="right")
        typed_cm = self.typed.position_cm
        left = np.concatenate([[-np.inf], typed_cm])[interval]
        right = np.concatenate([typed_cm, [np.inf]])[interval]
        gaps = (self.position_cm - left, right - self.position_cm)
        rho = [-np.expm1(-switch_rate * np.maximum(gap, 0)) for gap in gaps]
        return rho[0].astype(np.float32), rho[1].astype(np.float32)

    @cached_property
    def signature(self) -> np.ndarray:
        """A number for each haplotype, see :func:`ragimpute.signatures.signatures_of`."""
        return signatures_of(self.haplotypes)

    @cached_property
    def num_minor(self) -> np.ndarray:
        """Minor-allele carriers of each site among all panel haplotypes, int64, shape (M,)."""
        h = self.haplotypes
        rare = np.diff(h.offsets)
        row = np.bitwise_count(h.bits).sum(axis=1, dtype=np.int64)
        return np.where(h.row >= 0, row[h.row] if len(row) else 0, rare)

    @cached_property
    def minor_alleles(self) -> MinorAlleles:
        """The core's minor alleles by haplotype; worked out once."""
        return MinorAlleles.build(self.haplotypes, self.bounds())

    def compact(self) -> tuple[np.ndarray, ...]:
        """The haplotypes' arrays in the order that the kernels take them."""
        h = self.haplotypes
        return h.offsets, h.carriers, h.row, h.bits


def all_states(num_haplotypes: int, exclude: np.ndarray | None = None) -> np.ndarray:
    """Every haplotype as a state at every word, shape (1, K), int32, without those excluded."""
    states = np.arange(num_haplotypes, dtype=np.int32)
    if exclude is not None:
        states = np.delete(states, exclude[exclude >= 0])
    return states[None]


def copy_haplotypes(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: Callable[[int], np.ndarray],
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Posterior probability of ALT at a window's core sites, by Li-Stephens copying.

    Parameters
    ----------
    window
        The panel at T typed and M sites.
    alleles
        Shape (T, n), int8: the target haplotypes' alleles, negative where not observed.
    parameters
        Switch rate and mismatch probability.
    states
        For target haplotype i, the panel haplotypes that it may copy: shape (1, K) for all words
        alike, or (ceil(T / 32), K), int32, without repeats within a row.
    threads
        Haplotypes are shared out over so many threads; the result does not depend on it.
    progress
        Called with the number of haplotypes that are newly done.

    Returns
    -------
    Shape (n, core sites), float32, in [0, 1].

    Notes
    -----
    Targets that copy the same panel haplotypes, but for a few of their own sample, are copied 16 at
    once.
    """
    if window.typed.num_typed == 0:
        raise ValueError("a window without typed sites has nothing to copy by")
    n = alleles.shape[1]
    start, stop = window.core
    shared = SharedStates.find(states, n, window.typed.num_haplotypes)
    if shared is None:
        out = np.empty((n, stop - start), dtype=np.float32)
        _copy_own_states(window, alleles, parameters, states, threads, progress, out)
        return out
    out = np.empty((stop - start, n), dtype=np.float32)
    _copy_shared_states(window, alleles, parameters, shared, threads, progress, out)
    return out.T


def _copy_shared_states(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    shared: SharedStates,
    threads: int,
    progress: Callable[[int], None] | None,
    out: np.ndarray,
) -> None:
    """Copy 16 targets at once, into ``out`` (core sites, n)."""
    rho = switch_probs(window.typed.position_cm, switch_rate=parameters.switch_rate)
    near = window.flank_switch_probs(parameters.switch_rate)
    err = parameters.mismatch_probs(window.typed.num_typed)
    bounds, compact = window.bounds(), window.compact()
    panel = shared.alleles(window.typed.words, window.typed.num_typed)
    slot_of = shared.slots(window.typed.num_haplotypes)
    flip = ~window.haplotypes.alt_is_minor
    blocks = shared.blocks(alleles, threads)

    def run(part: range) -> None:
        scratch, listed = shared.scratch(len(rho))
        for i in part:
            block = blocks[i]
            copy_lanes(
                panel, block.target, rho, err, block.num_states, block.hidden, block.is_hidden,
                bounds, near, compact, slot_of, flip, scratch, listed, window.core[0],
                block.first, block.width, out,
            )  # fmt: skip
            if progress is not None:
                progress(block.width)

    run_parts(run, len(blocks), threads)


def _copy_own_states(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    states: Callable[[int], np.ndarray],
    threads: int,
    progress: Callable[[int], None] | None,
    out: np.ndarray,
) -> None:
    """Copy targets, each from its own states, into ``out`` (n, core sites)."""
    target, observed = pack_words(alleles)
    rho = switch_probs(window.typed.position_cm, switch_rate=parameters.switch_rate)
    near = window.flank_switch_probs(parameters.switch_rate)
    err = parameters.mismatch_probs(window.typed.num_typed)
    words, bounds = window.typed.words, window.bounds()
    flip = ~window.haplotypes.alt_is_minor
    minor = window.minor_alleles

    n = alleles.shape[1]
    edges = block_edges(n, threads)

    def run(part: range) -> None:
        for block in part:
            first, stop = edges[block], edges[block + 1]
            lists = [states(i) for i in range(first, stop)]
            while first < stop:
                # As many as have states of one shape.
                shapes = [x.shape for x in lists]
                here = np.stack(lists[: _run_length(shapes)])
                last = first + len(here)
                scratch = states_scratch(len(words), here.shape[2], len(here))
                given = (words, here, target[first:last], observed[first:last], rho, err)
                begin_walk(*given, scratch)
                copy_slots(
                    *given, bounds, near, minor.arrays(), flip, 0, len(words), scratch,
                    sites_scratch(minor, here.shape[2]), out[first:last],
                )  # fmt: skip
                if progress is not None:
                    progress(len(here))
                first, lists = last, lists[len(here) :]

    run_parts(run, len(edges) - 1, threads)


def _run_length(shapes: list[tuple[int, ...]]) -> int:
    """How many of the first shapes are the same."""
    return len(list(next(groupby(shapes))[1]))
