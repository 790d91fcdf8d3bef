"""Correct the probabilities that copying leaves in doubt by the network's residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from threading import Lock
from typing import NamedTuple, Protocol

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import BlockStates
from ragimpute.copying.window import Window
from ragimpute.copying_model.pair_network import PairNetwork
from ragimpute.evidence.collect import collect_evidence
from ragimpute.evidence.kernel_arrays import empty_tokens
from ragimpute.evidence.site_quality import SiteRows
from ragimpute.evidence.while_copying import Described, Wanted, copy_with_evidence
from ragimpute.runtime.timing import SharedTimes

# With this limit of doubt no pair is in doubt, as no number is between 0.5 and 1 - 0.5. It is used
# if there is no network.
_SURE = 0.5


def read_pairs(
    network: PairNetwork,
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    pairs: np.ndarray,
    *,
    states: Callable[[int], np.ndarray],
    quality: SiteRows,
    homolog_prob: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Compute what the network reads of N pairs in doubt.

    Returns evidence (N, F), and tokens (N, S, C), or None if the network reads none; see
    :func:`ragimpute.evidence.collect.collect_evidence`.
    """
    tokens = empty_tokens(len(pairs), network.num_tokens) if network.num_tokens else None
    evidence = collect_evidence(
        window, alleles, parameters, pairs,
        states=states, quality=quality, homolog_prob=homolog_prob, tokens=tokens,
        threads=network.threads,
    )  # fmt: skip
    return evidence, tokens


def correct(
    network: PairNetwork,
    window: Window,
    pairs: np.ndarray,
    evidence: np.ndarray,
    prob: np.ndarray,
    *,
    tokens: np.ndarray | None = None,
) -> None:
    """Add the network's residual to the logits of pairs in doubt, in place.

    Parameters
    ----------
    network
        The network of a copying model.
    window
        The panel's window; the sites of its core are the columns of ``prob``.
    pairs
        Shape (pairs, 2), int64: haplotype and core site, sorted.
    evidence, tokens
        See :func:`read_pairs`.
    prob
        Shape (n, core sites), float32: P(ALT). A probability whose residual is 0 is not changed.
    """
    if len(pairs) == 0:
        return
    change = network.change(window, pairs, evidence, tokens)
    h, u = pairs[:, 0], pairs[:, 1]
    minor = window.haplotypes.alt_is_minor[window.core[0] : window.core[1]][u]
    change = np.where(minor, change, -change).astype(np.float64)
    p = prob[h, u].astype(np.float64)
    moved = p / (p + (1 - p) * np.exp(-change))
    prob[h, u] = np.where(change == 0, prob[h, u], moved.astype(np.float32))


class Copy(Protocol):
    """Copies targets as an engine does that was told its threads and memory."""

    def __call__(
        self, window: Window, alleles: np.ndarray, parameters: CopyingParameters, *,
        states: BlockStates, wanted: Wanted, take: Callable[[Iterator[Described]], None],
        all_sites: bool,
    ) -> None:  # fmt: skip
        """See :meth:`ragimpute.copying_model.engine.Engine.copy`."""
        ...


class Output(NamedTuple):
    """Where probabilities go, and how long all that takes.

    Attributes
    ----------
    put
        Called with the first target and the first core site of a block, and its P(ALT), shape
        (b, m), float32. Each target and site is handed over once; calls come from all threads.
    times
        Gets the time of the stages "copy", "network" and "dosages" (which is ``put``).
    """

    put: Callable[[int, int, np.ndarray], None]
    times: SharedTimes


def wanted_by(network: PairNetwork | None, quality: SiteRows, homolog: np.ndarray | None) -> Wanted:
    """The pairs in doubt that a network wants described, and by what; None wants none.

    ``quality`` and ``homolog``: see :class:`ragimpute.evidence.while_copying.Wanted`.
    """
    if network is None:
        return Wanted(quality, _SURE, homolog)
    return Wanted(quality, network.config.model.copying.doubt, homolog, network.num_tokens)


def copy_and_correct(
    network: PairNetwork | None,
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: BlockStates,
    wanted: Wanted,
    output: Output,
    copy: Copy = copy_with_evidence,
) -> None:
    """Copy targets that are not in the panel, and let the network correct the pairs in doubt.

    Parameters
    ----------
    network
        The network of a copying model. None: probabilities stay as copying gives them.
    window, alleles, parameters, states
        See :func:`ragimpute.evidence.while_copying.copy_with_evidence`.
    wanted
        What :func:`wanted_by` says of the network.
    output
        Gets the probabilities.
    copy
        What copies, with its threads and the memory that it may take.
    """
    put, times = output
    # A network in which sites in doubt see each other must get all sites of a target at once: how
    # they were cut into parts, which depends on the memory, would change its result.
    all_sites = network is not None and not network.can_be_tuned
    one_by_one = Lock() if network is not None and network.residual is not None else nullcontext()
    if network is not None and not network.residual is not None:
        network = replace(network, threads=1)

    def take(parts: Iterator[Described]) -> None:
        times.begin()
        for part in parts:
            times.lap("copy")
            if network is not None:
                first = window.core[0] + part.site
                here = window.with_core((first, first + part.prob.shape[1]))
                with one_by_one:
                    correct(network, here, part.pairs, part.evidence, part.prob, tokens=part.tokens)
                times.lap("network")
            put(part.target, part.site, part.prob)
            times.lap("dosages")

    copy(window, alleles, parameters, states=states, wanted=wanted, take=take, all_sites=all_sites)
