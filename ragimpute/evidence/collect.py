"""Compute the features of given pairs (target haplotype, site) in doubt, for a network to read.

For each pair, the forward and backward masses of the copying model are computed once more, and the
states that matter there are measured: how far each matches the target to either side, exactly and
with one mismatch. These are the most probable states and, where the minor allele is rare, its
carriers. No other haplotype of the panel is looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.copying.shared_states import SharedStates
from ragimpute.copying.sliding_kernel import begin_walk, states_scratch
from ragimpute.copying.window import Window, pack_words
from ragimpute.evidence.describe_kernel import measuring_scratch
from ragimpute.evidence.features import _MAF, _MISSING_HETS, COPYING_FEATURES
from ragimpute.evidence.other_haplotype import homolog_features
from ragimpute.evidence.shared_kernel import evidence_lanes, nothing_copied
from ragimpute.evidence.site_quality import SiteRows
from ragimpute.evidence.sliding_kernel import evidence_haplotype
from ragimpute.evidence.state_set import empty_tokens
from ragimpute.kernels.simd_floats import LANES
from ragimpute.runtime.threads import run_parts


def collect_evidence(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    pairs: np.ndarray,
    *,
    states: Callable[[int], np.ndarray],
    quality: SiteRows,
    homolog_prob: np.ndarray | None = None,
    own: Callable[[int], np.ndarray] | None = None,
    tokens: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Compute the features of pairs in doubt, and describe the states that matter there as tokens.

    Parameters
    ----------
    window, alleles, parameters, states, threads
        As for :func:`ragimpute.copying.copy.copy_haplotypes`.
    pairs
        Shape (pairs, 2), int64: column of ``alleles`` and core site, sorted.
    quality
        Features of the window's M sites, as :func:`ragimpute.evidence.site_quality.measure_sites`
        gives them: an array of shape (M, len(SITE_FEATURES)), float32, or an object that returns
        its rows.
    homolog_prob
        Shape (pairs,), float32: P(ALT) on the sample's other haplotype, NaN if it has none, see
        :func:`ragimpute.evidence.other_haplotype.homolog_probs`. None: all targets are haploid.
    own
        For target haplotype i, the panel haplotypes of its own sample, if targets are left-out
        haplotypes of the panel. They are not counted in the minor allele's frequency, which would
        give the answer away. None: no target is in the panel.
    tokens
        An array from :func:`ragimpute.evidence.state_set.empty_tokens`, which is filled. None: no
        tokens are wanted.

    Returns
    -------
    Shape (pairs, len(FEATURES)), float32, finite. All features are about the site's minor allele.

    Raises
    ------
    ValueError
        If ``tokens`` has not as many entries as ``pairs``.
    """
    if tokens is None:
        tokens = empty_tokens(0, 2)
    elif len(tokens) != len(pairs):
        raise ValueError(f"tokens of {len(tokens)} pairs cannot be those of {len(pairs)}")
    out = np.empty((len(pairs), len(COPYING_FEATURES)), dtype=np.float32)
    if homolog_prob is None:
        homolog_prob = np.full(len(pairs), np.nan, np.float32)
    if len(pairs):
        work = Walks(window, alleles, parameters)
        given = _Pairs(window, alleles.shape[1], pairs, own)
        shared = SharedStates.find(states, alleles.shape[1], window.typed.num_haplotypes)
        if shared is None:
            _with_own_states(work, given, states, threads, out, tokens)
        else:
            _with_shared_states(work, given, shared, alleles, threads, out, tokens)
    return with_sites(window, pairs, out, homolog_prob, quality)


def with_sites(
    window: Window,
    pairs: np.ndarray,
    copied: np.ndarray,
    homolog_prob: np.ndarray,
    quality: SiteRows,
) -> np.ndarray:
    """Join the features of pairs: from copying, from the other haplotype, and of the site.

    Parameters
    ----------
    window, pairs, homolog_prob, quality
        As for :func:`collect_evidence`.
    copied
        Shape (pairs, len(COPYING_FEATURES)), float32.

    Returns
    -------
    Shape (pairs, len(FEATURES)), float32.
    """
    site = pairs[:, 1] + window.core[0]
    of_site = quality[site]
    minor = np.where(window.haplotypes.alt_is_minor[site], homolog_prob, 1 - homolog_prob)
    beside = homolog_features(minor, copied[:, _MAF], of_site[:, _MISSING_HETS])
    return np.concatenate([copied, beside, of_site], axis=1)


class Walks:
    """The arrays that the kernels read and that are the same for all targets of a window."""

    def __init__(self, window: Window, alleles: np.ndarray, parameters: CopyingParameters) -> None:
        self.words = window.typed.words
        self.rows = window.typed.rows
        self.num_haplotypes = window.typed.num_haplotypes
        self.target, self.observed = pack_words(alleles)
        self.rho = switch_probs(window.typed.position_cm, switch_rate=parameters.switch_rate)
        self.err = parameters.mismatch_probs(window.typed.num_typed)
        self.near = window.flank_switch_probs(parameters.switch_rate)
        self.cm = (window.typed.position_cm, window.position_cm)
        self.compact = window.compact()
        self.num_minor = window.num_minor
        self.signature = window.signature


class _Pairs:
    """The given pairs in the order in which kernels need them, and the targets' own haplotypes."""

    def __init__(
        self,
        window: Window,
        num_targets: int,
        pairs: np.ndarray,
        own: Callable[[int], np.ndarray] | None,
    ) -> None:
        self._own = own
        # Kernels walk from the last interval to the first: see the columns in ``shared_kernel``.
        site = pairs[:, 1] + window.core[0]
        interval = np.searchsorted(window.typed_index, site, side="right") - 1
        self._pairs = np.stack([interval, pairs[:, 0], site, np.arange(len(pairs))], axis=1)
        self._edges = np.searchsorted(pairs[:, 0], np.arange(num_targets + 1))

    def of(self, first: int, stop: int) -> np.ndarray:
        """Pairs of the targets [first, stop), in the form and order of ``shared_kernel``."""
        part = self._pairs[self._edges[first] : self._edges[stop]] - [0, first, 0, 0]
        return np.ascontiguousarray(part[np.lexsort((part[:, 1], -part[:, 0]))])

    def own(self, targets: range) -> np.ndarray:
        """Shape (targets, e), int32: panel haplotypes of their own samples, padded with -1."""
        lists = [np.zeros(0, np.int32) if self._own is None else self._own(i) for i in targets]
        out = np.full((len(lists), max(len(x) for x in lists)), -1, np.int32)
        for row, x in zip(out, lists, strict=True):
            row[: len(x)] = x
        return out


def _with_shared_states(
    work: Walks,
    given: _Pairs,
    shared: SharedStates,
    alleles: np.ndarray,
    threads: int,
    out: np.ndarray,
    tokens: np.ndarray,
) -> None:
    """Compute the features of targets that share their states, 16 targets at once."""
    panel = shared.alleles(work.words, len(work.rho))
    slot_of = shared.slots(work.num_haplotypes)
    blocks = shared.blocks(alleles, threads)
    nothing, no_room = nothing_copied(), np.empty((0, 2), np.int64)

    def run(part: range) -> None:
        scratch, _ = shared.scratch(len(work.rho))
        measuring = measuring_scratch(len(shared.states), LANES)
        for i in part:
            block = blocks[i]
            targets = range(block.first, block.first + block.width)
            pairs = given.of(targets.start, targets.stop)
            if len(pairs) == 0:
                continue
            evidence_lanes(
                panel, block.target, work.rho, work.err, block.num_states, block.hidden,
                shared.states[None], work.rows, work.target[targets.start : targets.stop],
                work.observed[targets.start : targets.stop], given.own(targets), work.near,
                *work.cm, work.compact, work.num_minor, work.signature, slot_of, pairs, scratch,
                measuring, out, tokens, nothing, no_room,
            )  # fmt: skip

    run_parts(run, len(blocks), threads)


def _with_own_states(
    work: Walks,
    given: _Pairs,
    states: Callable[[int], np.ndarray],
    threads: int,
    out: np.ndarray,
    tokens: np.ndarray,
) -> None:
    """Compute the features of targets one by one, each with states of its own."""

    def run(part: range) -> None:
        k = -1
        for i in part:
            pairs = given.of(i, i + 1)
            if len(pairs) == 0:
                continue
            state = states(i)
            if state.shape[1] != k:
                k = state.shape[1]
                scratch = states_scratch(len(work.words), k)
                measuring = measuring_scratch(k, 1)
                slot_of = np.full(work.num_haplotypes, k, dtype=np.int32)
            one = slice(i, i + 1)
            begin_walk(
                work.words, state[None], work.target[one], work.observed[one], work.rho, work.err,
                scratch,
            )  # fmt: skip
            evidence_haplotype(
                work.words, state, work.target[i], work.observed[i], work.rho, work.err, work.rows,
                given.own(range(i, i + 1))[0], work.near, *work.cm, work.compact, work.num_minor,
                work.signature, slot_of, pairs, scratch, measuring, out,
                tokens,
            )  # fmt: skip

    run_parts(run, len(work.target), threads)
