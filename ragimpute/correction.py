"""Apply a copying model's residual to the probabilities that are in doubt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragimpute.copying import CopyingParameters, Window
from ragimpute.evidence import collect_evidence, empty_tokens, in_doubt
from ragimpute.evidence_copying import copy_with_evidence
from ragimpute.pair_network import PairNetwork


def doubts(
    network: PairNetwork,
    window: Window,
    alleles: np.ndarray,
    prob: np.ndarray,
) -> np.ndarray:
    """The pairs that the network is asked about.

    Parameters
    ----------
    network
        Its config says from which posterior on.
    window
        The panel's window.
    alleles
        Shape (T, n), int8: observed alleles, negative where missing.
    prob
        Shape (n, core sites), float32: P(ALT).

    Returns
    -------
    Shape (pairs, 2), int64: haplotype and core site, sorted.
    """
    return in_doubt(window, alleles, prob, doubt=network.config.model.copying.doubt)


def read_pairs(
    network: PairNetwork,
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    pairs: np.ndarray,
    *,
    states: Callable[[int], np.ndarray],
    quality: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the network reads of pairs in doubt: evidence (N, F), and tokens (N, S, C) or None.

    See :func:`ragimpute.evidence.collect_evidence`.
    """
    tokens = empty_tokens(len(pairs), network.num_tokens) if network.num_tokens else None
    evidence = collect_evidence(
        window, alleles, parameters, pairs,
        states=states, quality=quality, tokens=tokens, threads=network.threads,
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
        Of a copying model.
    window
        The panel's window; its core's sites are those of ``prob``.
    pairs
        Shape (pairs, 2), int64: haplotype and core site, sorted.
    evidence, tokens
        See :func:`read_pairs`.
    prob
        Shape (n, core sites), float32, P(ALT); where the residual is 0 it stays as it is.
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


def copy_and_correct(
    network: PairNetwork,
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: Callable[[int], np.ndarray],
    quality: np.ndarray,
    lap: Callable[[str], None],
) -> np.ndarray:
    """Copy targets that are not in the panel, and let the network move what is in doubt.

    Parameters
    ----------
    network
        Of a copying model.
    window, alleles, parameters, states
        See :func:`ragimpute.copying.copy_haplotypes`.
    quality
        See :func:`ragimpute.evidence.collect_evidence`.
    lap
        Told "copy" and "network" at the end of either stage.

    Returns
    -------
    Shape (n, core sites), float32, P(ALT).
    """
    prob, described = copy_with_evidence(
        window, alleles, parameters,
        states=states, quality=quality, doubt=network.config.model.copying.doubt,
        num_tokens=network.num_tokens, threads=network.threads,
    )  # fmt: skip
    for some in described:
        lap("copy")
        correct(network, window, some.pairs, some.evidence, prob, tokens=some.tokens)
        lap("network")
    lap("copy")
    return prob
