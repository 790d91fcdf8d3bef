"""Which panel haplotypes a target most probably copies at each site, and how well they match it.

Token models that retrieve by site read these. A haplotype that is among the most probable ones of
neighbouring intervals keeps its place, so that each place holds long stretches of real haplotypes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window, pack_words
from ragimpute.evidence.match_lengths_kernel import REACH, Matched
from ragimpute.evidence.site_states_kernel import (
    STATE_FEATURES,
    NamedStates,
    NamingBuffers,
    SitesToName,
    name_states,
)
from ragimpute.runtime.threads import run_parts

# A target's candidates in a large panel: half of them the nearest in the whole window, the others
# the nearest in stretches of so many words of typed sites.
_STRETCH = 8


class SiteStates(NamedTuple):
    """The most probable states of n targets at m sites, K each.

    Attributes
    ----------
    ids
        Shape (n, K, m), int32: panel haplotypes; -1 where there are fewer.
    features
        Shape (n, K, m, F), float32: see
        :class:`ragimpute.evidence.site_states_kernel.StateFeatures`; 0 where there is no state.
    num_states
        Shape (n, m), float32, >= 1: the effective number of states at the site.
    """

    ids: np.ndarray
    features: np.ndarray
    num_states: np.ndarray


def find_site_states(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: list[np.ndarray],
    num: int,
    num_carriers: int = 0,
    threads: int = 1,
) -> SiteStates:
    """Name the most probable states at a window's core sites by Li-Stephens copying.

    Parameters
    ----------
    window
        The panel at T >= 1 typed sites and m core sites.
    alleles
        Shape (T, n), int8: the targets' alleles, negative where not observed.
    parameters
        Switch rate and mismatch probability.
    states
        For each target the panel haplotypes that it may copy, shape (S,), int32, without repeats.
    num
        K, in [1, 32].
    num_carriers
        At sites whose minor allele is so rare that the panel lists its carriers, so many of the K
        are the most probable carriers that are not among the others. In [0, K).
    threads
        Threads that the targets are divided among; the result does not depend on it.

    Raises
    ------
    ValueError
        If the window has no typed site, or a number is out of range.
    """
    if window.typed.num_typed == 0:
        raise ValueError("a window without typed sites has nothing to copy by")
    if not 1 <= num <= 32 or not 0 <= num_carriers < num:
        raise ValueError(f"{num} states, of which {num_carriers} carriers")
    steps = window.steps(parameters)
    panel = SitesToName(
        words=window.typed.words, rho=steps.rho, err=steps.err, position_cm=window.position_cm,
        bounds=window.bounds(), near=steps.near, minor=window.carriers(),
        signature=window.signature,
    )  # fmt: skip
    target, observed = pack_words(alleles)
    n, m = alleles.shape[1], window.core[1] - window.core[0]
    out = SiteStates(
        np.full((n, num, m), -1, np.int32),
        np.zeros((n, num, m, len(STATE_FEATURES)), np.float32),
        np.ones((n, m), np.float32),
    )
    most = max((len(x) for x in states), default=0)

    def run(part: range) -> None:
        buffers = _buffers(window, most, num)
        best = np.zeros((2, max(1, num_carriers)), np.int64)
        ends = np.empty((most, 4), np.int32)
        kin = np.ones(1, np.float32)
        for i in part:
            size = len(states[i])
            one = Matched(
                np.ascontiguousarray(states[i], np.int32)[None], target[i], observed[i],
                window.typed.rows, window.typed.position_cm, ends[:size], kin,
            )  # fmt: skip
            mine = buffers._replace(
                forward=buffers.forward[: size * len(steps.rho)].reshape(-1, size),
                **{name: getattr(buffers, name)[:size] for name in _OF_STATES},
            )
            named = NamedStates(
                out.ids[i], out.features[i], out.num_states[i], num_carriers, window.core[0]
            )
            name_states(one, panel, mine, best[0], best[1], named)

    run_parts(run, n, threads)
    return out


_OF_STATES = ("mass", "backward", "key", "mismatch", "stamp")


def _buffers(window: Window, num_states: int, num: int) -> NamingBuffers:
    """Memory for targets with up to ``num_states`` states; ``forward`` is flat."""
    mass, backward, key = (np.empty(num_states, np.float32) for _ in range(3))
    return NamingBuffers(
        forward=np.empty(num_states * window.typed.num_typed, np.float32),
        mass=mass, backward=backward, key=key,
        mismatch=np.empty(num_states, np.uint32),
        slot_of=np.full(window.typed.num_haplotypes, -1, np.int32),
        stamp=np.empty(num_states, np.int64),
        ranks=np.empty(num, np.int64),
        top=np.empty(num, np.int64),
        held=np.empty(num, np.int64),
        reach=np.zeros(len(REACH)),
    )  # fmt: skip


def candidate_states(
    window: Window, alleles: np.ndarray, allowed: np.ndarray, own: np.ndarray, most: int
) -> list[np.ndarray]:
    """The haplotypes among which each target's states are sought.

    Parameters
    ----------
    window
        The panel at T typed sites.
    alleles
        Shape (T, n), int8: the targets' alleles, negative where not observed.
    allowed
        Shape (a,), int32, ascending: haplotypes that may be copied.
    own
        Shape (n, k), int: haplotypes that each target must not copy; -1: none.
    most
        If more are allowed, so many are taken: half of them those with the fewest mismatches in
        the window, the others those with the fewest in stretches of it. Equal ones are taken by
        their signatures.

    Returns
    -------
    For each target shape (S,), int32, ascending.
    """
    out = []
    target, observed = pack_words(alleles)
    rows, tie = window.typed.rows[allowed], window.signature[allowed]
    for i in range(alleles.shape[1]):
        able = ~np.isin(allowed, own[i])
        if able.sum() > most:
            wrong = np.bitwise_count((rows ^ target[i]) & observed[i]).astype(np.int64)  # (a, W)
            able = able & _nearest(wrong, able, tie, most)
        out.append(allowed[able])
    return out


def _nearest(wrong: np.ndarray, able: np.ndarray, tie: np.ndarray, most: int) -> np.ndarray:
    """Of haplotypes with these mismatches by word (a, W), ``most`` able ones: bool (a,)."""

    def first(words: slice, num: int, able: np.ndarray) -> np.ndarray:
        number = np.where(able, wrong[:, words].sum(axis=1), np.iinfo(np.int64).max)
        return np.lexsort((tie, number))[:num]

    num_words = wrong.shape[1]
    stretches = [slice(w, w + _STRETCH) for w in range(0, num_words, _STRETCH)]
    taken = np.zeros(len(able), bool)
    taken[first(slice(None), most // 2, able)] = True
    each = (most - most // 2) // len(stretches)
    for words in stretches:
        taken[first(words, each, able & ~taken)] = True
    taken[first(slice(None), most - int(taken.sum()), able & ~taken)] = True
    return taken
