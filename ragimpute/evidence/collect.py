"""Compute the features of given pairs (target haplotype, site) in doubt, for a network to read.

For each pair, the forward and backward masses of the copying model are computed once more, and the
states that matter there are measured: how far each matches the target to either side, exactly and
with one mismatch. These are the most probable states and, where the minor allele is rare, its
carriers. No other haplotype of the panel is looked at.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_states import SharedStates
from ragimpute.copying.sliding_kernel import SlidingTargets, begin_walk, sliding_masses
from ragimpute.copying.window import Flanks, Window, pack_words
from ragimpute.evidence.allele_age import age_features
from ragimpute.evidence.doubt import INTERVAL
from ragimpute.evidence.features import COPYING, MISSING_HETS, NUM_COPIED, YOUNGER
from ragimpute.evidence.kernel_arrays import (
    Evidence,
    EvidencePanel,
    Measuring,
    empty_tokens,
    measuring_scratch,
)
from ragimpute.evidence.kinship import kin_weights
from ragimpute.evidence.other_haplotype import homolog_features
from ragimpute.evidence.shared_kernel import SharedEvidence, describe_shared
from ragimpute.evidence.site_quality import SiteRows
from ragimpute.evidence.sliding_kernel import SlidingEvidence, describe_sliding
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.simd_floats import LANES, rows_of_lanes
from ragimpute.runtime.stages import count
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
    tokens
        An array from :func:`ragimpute.evidence.kernel_arrays.empty_tokens`, which is filled. None:
        no tokens are wanted.

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
    out = np.empty((len(pairs), NUM_COPIED), dtype=np.float32)
    if homolog_prob is None:
        homolog_prob = np.full(len(pairs), np.nan, np.float32)
    if len(pairs):
        given = _Given(window, alleles, parameters, pairs, out, tokens)
        shared = SharedStates.find(states, alleles.shape[1], window.typed.num_haplotypes)
        if shared is None:
            _with_own_states(given, states, threads)
        else:
            _with_shared_states(given, shared, threads)
    return with_sites(window, pairs, out, homolog_prob, quality)


def with_sites(
    window: Window,
    pairs: np.ndarray,
    copied: np.ndarray,
    homolog_prob: np.ndarray,
    quality: SiteRows,
) -> np.ndarray:
    """Join the features of pairs: from copying, the other haplotype, the ages, and of the site.

    Parameters
    ----------
    window, pairs, homolog_prob, quality
        As for :func:`collect_evidence`.
    copied
        Shape (pairs, NUM_COPIED), float32: what the kernels have written.

    Returns
    -------
    Shape (pairs, len(FEATURES)), float32.
    """
    site = pairs[:, 1] + window.core[0]
    of_site = quality[site]
    minor = np.where(window.haplotypes.alt_is_minor[site], homolog_prob, 1 - homolog_prob)
    beside = homolog_features(minor, copied[:, COPYING.maf], of_site[:, MISSING_HETS])
    ages = age_features(copied, of_site)
    return np.concatenate([copied[:, :YOUNGER], beside, ages, of_site], axis=1)


def evidence_panel(window: Window, near: Flanks) -> EvidencePanel:
    """A window of the panel, as the kernels that describe pairs read it."""
    return EvidencePanel(
        rows=window.typed.rows, typed_cm=window.typed.position_cm, position_cm=window.position_cm,
        near=near, minor=window.carriers(), num_minor=window.num_minor, signature=window.signature,
    )  # fmt: skip


class _Given:
    """Pairs to describe, in the order that kernels need, and what they are described by."""

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        pairs: np.ndarray,
        out: np.ndarray,
        tokens: np.ndarray,
    ) -> None:
        self.window, self.alleles = window, alleles
        self.target, self.observed = pack_words(alleles)
        self.steps = window.steps(parameters)
        self._panel = evidence_panel(window, self.steps.near)
        self._out, self._tokens = out, tokens
        # Kernels walk from the last interval to the first: see the columns of pairs in ``doubt``.
        site = pairs[:, 1] + window.core[0]
        interval = np.searchsorted(window.typed_index, site, side="right") - 1
        self._pairs = np.stack([interval, pairs[:, 0], site, np.arange(len(pairs))], axis=1)
        self._edges = np.searchsorted(pairs[:, 0], np.arange(alleles.shape[1] + 1))

    def of(self, first: int, stop: int) -> np.ndarray:
        """The pairs of the targets [first, stop), in the form and order that kernels need."""
        part = self._pairs[self._edges[first] : self._edges[stop]] - [0, first, 0, 0]
        return np.ascontiguousarray(part[np.lexsort((part[:, 1], -part[:, 0]))])

    def wanted(self, pairs: np.ndarray) -> np.ndarray:
        """Shape (T + 1,), bool: the intervals that have some of these pairs."""
        out = np.zeros(len(self.steps.rho) + 1, bool)
        out[pairs[:, INTERVAL] + 1] = True
        return out

    def evidence(self, pairs: np.ndarray, measuring: Measuring, slot_of: np.ndarray) -> Evidence:
        """What these pairs are described by, and where their features go."""
        return Evidence(
            panel=self._panel, measuring=measuring, slot_of=slot_of, pairs=pairs,
            at=np.zeros(2, np.int64), kept=rows_of_lanes(0, 4), out=self._out,
            tokens=self._tokens,
        )  # fmt: skip


def _with_shared_states(given: _Given, shared: SharedStates, threads: int) -> None:
    """Compute the features of targets that share their states, 16 targets at once."""
    slot_of = shared.slots(given.window.typed.num_haplotypes)
    blocks = shared.blocks(given.window, given.alleles, given.steps, threads)
    rows = given.window.typed.rows

    def run(part: range) -> None:
        masses = shared.masses(len(given.steps.rho))
        measuring = measuring_scratch(len(shared.states), LANES)
        for i in part:
            block = blocks[i]
            first, stop = block.first, block.first + block.width
            count("haplotypes", stop - first)
            pairs = given.of(first, stop)
            if len(pairs) == 0:
                continue
            target, observed = given.target[first:stop], given.observed[first:stop]
            kin = kin_weights(rows, shared.states, target, observed, shared.lists[first:stop])
            described = SharedEvidence(
                shared.states[None], target, observed, kin,
                given.evidence(pairs, measuring, slot_of),
            )  # fmt: skip
            describe_shared(block.targets, masses, given.wanted(pairs), described)

    run_parts(run, len(blocks), threads)


def _with_own_states(given: _Given, states: Callable[[int], np.ndarray], threads: int) -> None:
    """Compute the features of targets one by one, each with states of its own."""
    words = given.window.typed.words

    def run(part: range) -> None:
        k = -1
        for i in part:
            count("haplotypes", 1)
            pairs = given.of(i, i + 1)
            if len(pairs) == 0:
                continue
            state = states(i)
            if state.shape[1] != k:
                k = state.shape[1]
                masses = sliding_masses(len(words), k)
                measuring = measuring_scratch(k, 1)
                slot_of = np.full(given.window.num_haplotypes, k, dtype=np.int32)
            one = slice(i, i + 1)
            targets = SlidingTargets(
                words, state[None], given.target[one], given.observed[one], given.steps.rho,
                given.steps.err,
            )  # fmt: skip
            begin_walk(targets, masses)
            lowest = max(0, int(pairs[-1, INTERVAL])) // WORD
            kin = measuring.kin
            if len(state) == 1:
                kin = kin_weights(
                    given.window.typed.rows, state[0], targets.target, targets.observed, [state[0]]
                )[0]
            evidence = given.evidence(pairs, measuring._replace(kin=kin), slot_of)
            describe_sliding(
                targets, masses, (lowest, len(words)), given.wanted(pairs),
                SlidingEvidence(evidence, np.full(2, -1)),
            )  # fmt: skip

    run_parts(run, len(given.target), threads)
