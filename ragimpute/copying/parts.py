"""Copying a window part by part, for targets that have states of their own.

More targets at once take less time each, as what they look up of the panel stays in the processor's
cache; but what is said of all sites of so many takes memory. So they walk back together, and what
they say of a part of the sites is taken from them before they go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.copying.sliding_kernel import begin_walk, copy_slots, sites_scratch, states_scratch
from ragimpute.copying.window import Window, pack_words


def word_parts(edges: np.ndarray, max_sites: int) -> list[tuple[int, int]]:
    """Cut a window's words into runs of up to so many sites, but of one word at least.

    Parameters
    ----------
    edges
        Shape (W + 1,), int64: the sites of word w are [edges[w], edges[w + 1]).
    max_sites
        > 0.

    Returns
    -------
    Words [low, high), the last run first.
    """
    stops = [len(edges) - 1]
    while stops[-1] > 0:
        low = int(np.searchsorted(edges, edges[stops[-1]] - max_sites))
        stops.append(min(low, stops[-1] - 1))
    return [(low, high) for high, low in pairwise(stops)]


def copy_in_parts(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    states: np.ndarray,
    *,
    max_sites: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """As :func:`ragimpute.copying.copy.copy_haplotypes`, some sites at a time.

    Parameters
    ----------
    window, alleles, parameters
        As there; all n targets are copied at once.
    states
        Shape (n, W, K), int32: the panel haplotypes that each target may copy.
    max_sites
        Sites of a part.

    Yields
    ------
    The first core site of a part, and P(ALT), shape (n, sites), float32, good until the next is
    asked for; the last part first.
    """
    target, observed = pack_words(alleles)
    rho = switch_probs(window.typed.position_cm, switch_rate=parameters.switch_rate)
    err = parameters.mismatch_probs(window.typed.num_typed)
    near = window.flank_switch_probs(parameters.switch_rate)
    words, minor, flip = window.typed.words, window.minor_alleles, ~window.haplotypes.alt_is_minor
    scratch = states_scratch(len(words), states.shape[2], len(states))
    carried = sites_scratch(minor, states.shape[2])
    given, bounds = (words, states, target, observed, rho, err), window.bounds()
    begin_walk(*given, scratch)
    parts = word_parts(minor.edges, max_sites)
    most = max(int(minor.edges[high] - minor.edges[low]) for low, high in parts)
    room = np.empty(len(states) * most, np.float32)
    for low, high in parts:
        num_sites = int(minor.edges[high] - minor.edges[low])
        out = room[: len(states) * num_sites].reshape(len(states), num_sites)
        copy_slots(*given, bounds, near, minor.arrays(), flip, low, high, scratch, carried, out)
        yield int(minor.edges[low]) - window.core[0], out
