"""Li-Stephens forward-backward over panel haplotypes, carried from typed to untyped sites.

A target haplotype is a mosaic of panel haplotypes (states). At typed sites the copied haplotype's
allele is observed with a small mismatch probability; between them the copied haplotype changes
with a probability that grows with genetic distance. At an untyped site the posterior probability
of an allele is the posterior mass of the states that carry it, so only carriers cost anything.

Typed sites are packed 32 to a word, so that one XOR gives a state's mismatches over a word. The
states of a word are either all haplotypes of the panel, or those that retrieval chose for the word.
In the second case states stand in *slots*. From one word to the next, a state that keeps its slot
keeps its mass; a state that is new in a slot starts with no mass, and gains it by recombination.

References
----------
Li & Stephens 2003 (the model); Browning & Browning 2016 (the transition 1 - exp(-4 ne d / H)).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np

from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.copying.shared_kernel import copy_lanes
from ragimpute.copying.shared_states import SharedStates, block_edges
from ragimpute.copying.sliding_kernel import begin_walk, copy_slots, sites_scratch, states_scratch
from ragimpute.copying.window import Window, pack_words
from ragimpute.runtime.threads import run_parts


def copy_haplotypes(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: Callable[[int], np.ndarray],
    threads: int = 1,
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
        Returns for target haplotype i the panel haplotypes that it may copy: shape (1, K) if they
        are the same at all words, else (ceil(T / 32), K); int32, without repeats within a row.
    threads
        Number of threads that the targets are divided among; the result does not depend on it.

    Returns
    -------
    Shape (n, core sites), float32, in [0, 1].

    Raises
    ------
    ValueError
        If the window has no typed site.

    Notes
    -----
    Targets that all copy the same panel haplotypes, apart from a few of their own sample, are
    copied 16 at a time, in SIMD lanes.
    """
    if window.typed.num_typed == 0:
        raise ValueError("a window without typed sites has nothing to copy by")
    n = alleles.shape[1]
    start, stop = window.core
    shared = SharedStates.find(states, n, window.typed.num_haplotypes)
    if shared is None:
        out = np.empty((n, stop - start), dtype=np.float32)
        _copy_own_states(window, alleles, parameters, states, threads, out)
        return out
    out = np.empty((stop - start, n), dtype=np.float32)
    _copy_shared_states(window, alleles, parameters, shared, threads, out)
    return out.T


def _copy_shared_states(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    shared: SharedStates,
    threads: int,
    out: np.ndarray,
) -> None:
    """Copy targets that share their states, 16 at a time, into ``out`` (core sites, n)."""
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

    run_parts(run, len(blocks), threads)


def _copy_own_states(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    states: Callable[[int], np.ndarray],
    threads: int,
    out: np.ndarray,
) -> None:
    """Copy targets that have states of their own into ``out`` (n, core sites)."""
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
                # Take as many targets as have states of the same shape: the kernel needs one array.
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
                first, lists = last, lists[len(here) :]

    run_parts(run, len(edges) - 1, threads)


def _run_length(shapes: list[tuple[int, ...]]) -> int:
    """How many shapes at the start of the list are equal to the first."""
    return len(list(next(groupby(shapes))[1]))
