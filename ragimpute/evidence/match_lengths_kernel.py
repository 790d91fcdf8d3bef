"""Kernel functions that measure how far a state matches a target on either side of a site."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.bits import WORD, leading_zeros, trailing_zeros
from ragimpute.kernels.compile import inlined


class Matched(NamedTuple):
    """One target, and the panel haplotypes that it is compared with.

    Attributes
    ----------
    states
        Shape (W or 1, K), int32: the target's states at each word, or at all words.
    target, observed
        Shape (W,), uint32: the target's alleles, and which of them were observed.
    rows
        Shape (H, W), uint32: the panel's words by haplotype.
    typed_cm
        Shape (T,), float64: positions of the typed sites.
    ends
        Shape (K, 4), int32: where the match of each slot's state ends, see :func:`find_reach`.
    kin
        Shape (K,), float32: how alike each state is to the target in the window, as a weight; or
        (1,), where all states have the same.
    """

    states: np.ndarray
    target: np.ndarray
    observed: np.ndarray
    rows: np.ndarray
    typed_cm: np.ndarray
    ends: np.ndarray
    kin: np.ndarray


class Reach(NamedTuple):
    """How far a state's match with the target reaches to both sides of an interval: columns.

    First the cM from the typed site beside the interval to the first and to the second mismatch
    (``_1``), then the number of typed sites up to there.
    """

    cm_left: int
    cm_left_1: int
    cm_right: int
    cm_right_1: int
    sites_left: int
    sites_left_1: int
    sites_right: int
    sites_right_1: int


REACH = Reach(*range(len(Reach._fields)))


@inlined
def list_at(t, states):
    """Which of the lists of states holds in the interval that follows typed site t."""
    return max(t, 0) // WORD if states.shape[0] > 1 else 0


@inlined
def kin_of(s, one):
    """The weight of how alike the state in slot ``s`` and the target are."""
    return one.kin[s] if one.kin.shape[0] > 1 else one.kin[0]


@inlined
def _find_ends(s, t, one, ends):
    """Find the typed sites where a state's match with the target ends, to either side.

    The search starts in the interval between typed sites t and t + 1. It writes four typed sites
    into ``ends`` (4,): the first and second mismatch to the left, or -1 if there is none, and the
    first and second mismatch to the right, or T if there is none. Where states change from word to
    word, the match also ends at the word in which slot ``s`` has another haplotype. ``one``:
    Matched.
    """
    states, target, observed = one.states, one.target, one.observed
    num_typed = one.typed_cm.shape[0]
    word = max(t, 0) // WORD
    slides = states.shape[0] > 1
    h = states[word if slides else 0, s]
    row = one.rows[h]
    # To the left, from the bit of t on.
    bits = np.uint32(0)
    if t >= 0:
        bits = (row[word] ^ target[word]) & observed[word]
        bits &= np.uint32(0xFFFFFFFF >> (31 - t % WORD))
    ends[0], ends[1] = -1, -1
    found = 0
    w = word
    while True:
        while bits != np.uint32(0) and found < 2:
            bit = 31 - np.int64(leading_zeros(bits))
            bits &= ~(np.uint32(1) << np.uint32(bit))
            ends[found] = w * WORD + bit
            found += 1
        if found == 2 or w == 0 or t < 0:
            break
        if slides and states[w - 1, s] != h:
            for i in range(found, 2):
                ends[i] = w * WORD - 1
            break
        w -= 1
        bits = (row[w] ^ target[w]) & observed[w]
    # To the right, from the bit after t on.
    w = word
    after = np.uint64((row[w] ^ target[w]) & observed[w])
    if t >= 0:
        seen = np.uint64(t % WORD + 1)
        after = (after >> seen) << seen
    ends[2], ends[3] = num_typed, num_typed
    found = 0
    while True:
        while after != np.uint64(0) and found < 2:
            ends[2 + found] = w * WORD + np.int64(trailing_zeros(after))
            after &= after - np.uint64(1)
            found += 1
        if found == 2 or (w + 1) * WORD >= num_typed:
            break
        w += 1
        if slides and states[w, s] != h:
            for i in range(found, 2):
                ends[2 + i] = w * WORD
            break
        after = np.uint64((row[w] ^ target[w]) & observed[w])


@inlined
def find_reach(s, t, one, reach):
    """Measure how far a state's match with the target reaches around an interval, into ``reach``.

    The interval is the one between typed sites t and t + 1. ``reach`` gets the numbers of
    :class:`Reach`. ``one.ends[s]`` keeps the mismatches that were found. The walk goes from right
    to left, and all four stay the same until it passes the first mismatch on the left: only then
    are they looked for again.
    """
    typed_cm, ends = one.typed_cm, one.ends[s]
    last = typed_cm.shape[0] - 1
    if ends[0] > t:
        _find_ends(s, t, one, ends)
    left = typed_cm[max(t, 0)]
    right = typed_cm[min(t + 1, last)]
    reach[REACH.cm_left] = left - typed_cm[max(ends[0], 0)]
    reach[REACH.cm_left_1] = left - typed_cm[max(ends[1], 0)]
    reach[REACH.cm_right] = typed_cm[min(ends[2], last)] - right
    reach[REACH.cm_right_1] = typed_cm[min(ends[3], last)] - right
    reach[REACH.sites_left] = t - ends[0]
    reach[REACH.sites_left_1] = t - ends[1]
    reach[REACH.sites_right] = ends[2] - t - 1
    reach[REACH.sites_right_1] = ends[3] - t - 1
