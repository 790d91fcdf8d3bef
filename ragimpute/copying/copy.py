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

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_kernel import SharedSites, copy_shared
from ragimpute.copying.shared_states import SharedStates, block_edges
from ragimpute.copying.sliding_kernel import (
    SlidingSites,
    SlidingTargets,
    begin_walk,
    copy_sliding,
    sliding_masses,
    slot_lists,
)
from ragimpute.copying.window import Steps, Window, pack_words
from ragimpute.kernels.simd_floats import rows_of_lanes
from ragimpute.runtime.stages import count
from ragimpute.runtime.threads import run_parts


def copy_haplotypes(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: Callable[[int], np.ndarray] | SharedStates,
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
        are the same at all words, else (ceil(T / 32), K); int32, without repeats within a row. Or
        what :meth:`SharedStates.find` made of that for these targets, or more of them.
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
    if not isinstance(states, SharedStates):
        shared = SharedStates.find(states, n, window.typed.num_haplotypes)
        if shared is None:
            own = np.empty((n, stop - start), dtype=np.float32)
            _copy_own_states(window, alleles, parameters, states, threads, own)
            return own
        states = shared
    out = np.empty((stop - start, n), dtype=np.float32)
    _copy_shared_states(window, alleles, parameters, states, threads, out)
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
    steps = window.steps(parameters)
    wanted = window.with_core_sites()
    blocks = shared.blocks(window, alleles, steps, threads)
    sites = SharedSites(
        bounds=window.bounds(), near=steps.near, minor=window.carriers(),
        flip=~window.haplotypes.alt_is_minor, slot_of=shared.slots(window.typed.num_haplotypes),
        listed=np.empty(0, np.int32), kept=rows_of_lanes(0, 4), first_site=window.core[0],
        first=0, width=0, prob=out,
    )  # fmt: skip

    def run(part: range) -> None:
        masses = shared.masses(len(steps.rho))
        listed = np.empty(len(shared.states), np.int32)
        for i in part:
            block = blocks[i]
            here = sites._replace(listed=listed, first=block.first, width=block.width)
            copy_shared(block.targets, masses, wanted, here)
            count("haplotypes", block.width)

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
    steps = window.steps(parameters)
    words, wanted = window.typed.words, window.with_core_sites()

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
                masses = sliding_masses(len(words), here.shape[2], len(here))
                targets = SlidingTargets(
                    words, here, target[first:last], observed[first:last], steps.rho, steps.err
                )
                sites = sliding_sites(window, steps, here.shape[2], out[first:last])
                begin_walk(targets, masses)
                copy_sliding(targets, masses, (0, len(words)), wanted, sites)
                count("haplotypes", len(here))
                first, lists = last, lists[len(here) :]

    run_parts(run, len(edges) - 1, threads)


def copy_in_parts(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    states: np.ndarray,
    *,
    max_sites: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Copy targets as :func:`copy_haplotypes` does, some sites at a time.

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
    steps = window.steps(parameters)
    minor, wanted = window.minor_alleles, window.with_core_sites()
    targets = SlidingTargets(window.typed.words, states, *pack_words(alleles), steps.rho, steps.err)
    masses = sliding_masses(len(targets.words), states.shape[2], len(states))
    begin_walk(targets, masses)
    parts = minor.parts(max_sites)
    most = max(int(minor.edges[high] - minor.edges[low]) for low, high in parts)
    room = np.empty(len(states) * most, np.float32)
    sites = sliding_sites(window, steps, states.shape[2], room[:0].reshape(len(states), 0))
    for low, high in parts:
        first, stop = int(minor.edges[low]), int(minor.edges[high])
        prob = room[: len(states) * (stop - first)].reshape(len(states), stop - first)
        here = sites._replace(first_site=first, prob=prob)
        copy_sliding(targets, masses, (low, high), wanted, here)
        yield first - window.core[0], prob


def sliding_sites(window: Window, steps: Steps, num_states: int, prob: np.ndarray) -> SlidingSites:
    """What ``copy_sliding`` needs to know of a window's sites, for targets with K states.

    ``prob`` (n, core sites), float32, gets P(ALT).
    """
    minor = window.minor_alleles
    return SlidingSites(
        bounds=window.bounds(), near=steps.near, flip=~window.haplotypes.alt_is_minor,
        minor=minor.for_kernels(), lists=slot_lists(minor, num_states),
        common=np.zeros(1, np.int64), first_site=window.core[0], prob=prob,
    )  # fmt: skip


def _run_length(shapes: list[tuple[int, ...]]) -> int:
    """How many shapes at the start of the list are equal to the first."""
    return len(list(next(groupby(shapes))[1]))
