"""Kernel functions that measure how far a state matches a target on either side of a site."""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.bits import WORD, leading_zeros, trailing_zeros
from ragimpute.kernels.compile import inlined


@inlined
def _find_ends(s, t, states, rows, target, observed, num_typed, ends):
    """Find the typed sites where a state's match with the target ends, to either side.

    The search starts in the interval between typed sites t and t + 1. It writes four typed sites
    into ``ends`` (4,): the first and second mismatch to the left, or -1 if there is none, and the
    first and second mismatch to the right, or ``num_typed`` if there is none. ``rows`` (H, W) has
    the panel's words by haplotype. Where states change from word to word, the match also ends at
    the word in which slot ``s`` has another haplotype.
    """
    word = max(t, 0) // WORD
    slides = states.shape[0] > 1
    h = states[word if slides else 0, s]
    row = rows[h]
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
def find_reach(s, t, states, rows, target, observed, typed_cm, ends, reach):
    """Measure how far a state's match with the target reaches around an interval, into ``reach``.

    The interval is the one between typed sites t and t + 1. ``reach`` gets four distances in cM:
    from typed site t to the first and second mismatch on the left, and from t + 1 to the first and
    second mismatch on the right; then the number of typed sites up to each of these four.

    ``ends`` (4,) keeps the mismatches that were found. The walk goes from right to left, and all
    four stay the same until it passes the first mismatch on the left: only then are they looked for
    again.
    """
    last = typed_cm.shape[0] - 1
    if ends[0] > t:
        _find_ends(s, t, states, rows, target, observed, typed_cm.shape[0], ends)
    left = typed_cm[max(t, 0)]
    right = typed_cm[min(t + 1, last)]
    reach[0] = left - typed_cm[max(ends[0], 0)]
    reach[1] = left - typed_cm[max(ends[1], 0)]
    reach[2] = typed_cm[min(ends[2], last)] - right
    reach[3] = typed_cm[min(ends[3], last)] - right
    reach[4] = t - ends[0]
    reach[5] = t - ends[1]
    reach[6] = ends[2] - t - 1
    reach[7] = ends[3] - t - 1
