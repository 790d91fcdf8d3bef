"""Copy a window part by part, for targets that have states of their own.

The more targets are copied together, the less time each takes, as the parts of the panel that they
look up stay in the processor's cache. But the probabilities of many targets at all sites of a
window take much memory. So the targets walk back through the window together, and hand over their
probabilities after each part of the sites.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.copying.sliding_kernel import begin_walk, copy_slots, sites_scratch, states_scratch
from ragimpute.copying.window import Window, pack_words


def word_parts(edges: np.ndarray, max_sites: int) -> list[tuple[int, int]]:
    """Cut a window's words into runs of at most ``max_sites`` sites, but at least one word.

    Parameters
    ----------
    edges
        Shape (W + 1,), int64: the sites of word w are [edges[w], edges[w + 1]).
    max_sites
        > 0.

    Returns
    -------
    The words [low, high) of each run, the last run first.
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
    """Copy targets as :func:`ragimpute.copying.copy.copy_haplotypes` does, some sites at a time.

    Parameters
    ----------
    window, alleles, parameters
        As for ``copy_haplotypes``; all n targets are copied together.
    states
        Shape (n, W, K), int32: the panel haplotypes that each target may copy.
    max_sites
        Largest number of sites of a part, > 0; a part is at least one word of typed sites.

    Yields
    ------
    The first core site of a part, and P(ALT), shape (n, sites), float32, the last part first. The
    memory of P(ALT) is used again for the next part.
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
