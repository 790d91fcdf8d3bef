"""The forward and backward steps of Li-Stephens copying over typed sites.

Kernels hold only loops; the functions that call them check the arguments. Notation: T typed sites
in W words of 32, K states (slots) of a word, M sites of a window. All masses are float32.
``mismatch`` holds for each state the typed sites of a word at which it differs from the target, as
bits of a uint32, so that loops over states are compiled to instructions on 32-bit lanes. numba
makes a uint64 of an operation on two uint32: hence the casts back to uint32.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined, inlined_reordered


@inlined_reordered
def mismatch_words(panel_word, states, target, observed, out):
    """Write for each state the typed sites of one word at which it differs from the target."""
    for s in range(states.shape[0]):
        out[s] = (panel_word[np.uint32(states[s])] ^ target) & observed


@inlined_reordered
def forward_site(f, mismatch, j, rho, scale, err):
    """Move forward masses ``f`` to the word's typed site j, in place; returns their new sum.

    Before the step, ``f`` times ``scale`` sums to 1.
    """
    n = mismatch.shape[0]
    keep = np.float32((np.float32(1.0) - rho) * scale)
    enter = np.float32(rho / np.float32(n))
    hit = np.float32(1.0) - err
    bit = np.uint32(1) << np.uint32(j)
    total = np.float32(0.0)
    for s in range(n):
        e = err if np.uint32(mismatch[s] & bit) != np.uint32(0) else hit
        v = (f[s] * keep + enter) * e
        f[s] = v
        total += v
    return total


@inlined_reordered
def forward_rows(start, mismatch, first, last, rho, err, rows, sums):
    """Compute the forward masses at a word's sites [first, last), one row for each.

    ``start`` is the row before the first, and sums to 1. Rows are not scaled; their sums are kept
    in ``sums``, and each step divides by the sum of the row before.
    """
    n = mismatch.shape[0]
    total = np.float32(1.0)
    for t in range(first, last):
        j = t - first
        bit = np.uint32(1) << np.uint32(j)
        miss = err[t]
        hit = np.float32(1.0) - miss
        keep = (np.float32(1.0) - rho[t]) / total
        enter = np.float32(rho[t] / np.float32(n))
        before = start if j == 0 else rows[j - 1]
        row = rows[j]
        total = np.float32(0.0)
        for s in range(n):
            e = miss if np.uint32(mismatch[s] & bit) != np.uint32(0) else hit
            v = (before[s] * keep + enter) * e
            row[s] = v
            total += v
        sums[j] = total


@inlined_reordered
def backward_states(b, mismatch, j, gap, total, err):
    """Move backward masses ``b`` from the next typed site to site j, in place.

    ``total`` is the sum of ``b`` before the step; the new sum is returned. ``gap`` is the switch
    probability between the two sites. The masses include the emission at their own site.
    """
    n = mismatch.shape[0]
    hit = np.float32(1.0) - err
    bit = np.uint32(1) << np.uint32(j)
    keep = (np.float32(1.0) - gap) * np.float32(n) / total
    total = np.float32(0.0)
    for s in range(n):
        e = err if np.uint32(mismatch[s] & bit) != np.uint32(0) else hit
        v = (b[s] * keep + gap) * e
        b[s] = v
        total += v
    return total


@inlined
def same_slots(before, after, mass, fill):
    """Set the mass of each slot to ``fill`` whose haplotype differs between two words."""
    for s in range(before.shape[0]):
        if before[s] != after[s]:
            mass[s] = fill


@inlined_reordered
def forward_word(i, w, targets, masses):
    """Walk the forward masses of target i over the typed sites of word ``w``.

    ``masses.starts[i]`` (W + 1, K) has the current masses in its last row. Times
    ``masses.totals[i]`` they sum to 1, before the word and after it. Row w gets the masses before
    the word's first site, scaled to sum 1, in the slots of word w - 1.
    """
    starts, states, rho, err = masses.starts[i], targets.states[i], targets.rho, targets.err
    f = starts[targets.words.shape[0]]
    here = states[min(w, states.shape[0] - 1)]
    scale = masses.totals[i]
    for s in range(here.shape[0]):
        f[s] *= scale
        starts[w, s] = f[s]
    scale = np.float32(1.0)
    if w > 0 and states.shape[0] > 1:
        same_slots(states[w - 1], here, f, np.float32(0.0))
    mismatch = masses.mismatch
    mismatch_words(targets.words[w], here, targets.target[i, w], targets.observed[i, w], mismatch)
    for t in range(w * WORD, min(rho.shape[0], (w + 1) * WORD)):
        total = forward_site(f, mismatch, t - w * WORD, rho[t], scale, err[t])
        scale = np.float32(1.0) / total
    masses.totals[i] = scale


@inlined
def any_of(flags, start, stop):
    """Whether one of the flags [start, stop) is set."""
    found = False
    for i in range(start, stop):
        found = found or flags[i]
    return found


@inlined
def set_slots(slot_of, states, fill):
    """Set ``slot_of`` of each state's haplotype to its slot, or to ``fill`` if that is >= 0."""
    for s in range(states.shape[0]):
        slot_of[states[s]] = s if fill < 0 else fill
