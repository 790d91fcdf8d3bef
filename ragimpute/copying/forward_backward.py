"""The loops of Li-Stephens copying: forward and backward over typed sites, and to untyped sites.

Kernels hold only loops; ``copying`` checks what goes in. Notation: T typed sites in W words of 32,
K states (slots) of a word, M sites of a window. All masses are float32; ``mismatch`` holds a word's
mismatching typed sites as bits of uint32, so that loops over states run in 32-bit lanes: what is
made of two of them is uint64 to numba until it is made uint32 again.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined, inlined_reordered


@inlined_reordered
def mismatch_words(panel_word, states, target, observed, out):
    """Mismatching typed sites of each state over one word, as bits."""
    for s in range(states.shape[0]):
        out[s] = (panel_word[np.uint32(states[s])] ^ target) & observed


@inlined_reordered
def forward_site(f, mismatch, j, rho, scale, err):
    """One forward step in place; ``f`` times ``scale`` sums to 1; returns the new sum of ``f``."""
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
    """Forward rows of a word's sites [first, last) from the row before, which sums to 1.

    Rows are kept as they come, and what they sum to in ``sums``, by which the next one divides.
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
    """``b`` of the site after site j, which sums to ``total``, becomes that of site j.

    ``gap`` is the switch probability between the two; b includes the emission of its own site.
    Returns the new sum.
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
    """Where a slot's haplotype changed from one word to the next, its mass becomes ``fill``."""
    for s in range(before.shape[0]):
        if before[s] != after[s]:
            mass[s] = fill


@inlined_reordered
def forward_word(
    w, scale, words, states, target, observed, rho, err, checkpoints, mismatch
):  # fmt: skip
    """Walk forward past word ``w``, with the masses that the last row of ``checkpoints`` holds.

    Times ``scale`` they sum to 1; returns what makes them do so after the word. ``checkpoints``
    (W + 1, K): row w becomes the masses before word w's first site, scaled to sum 1, in the slots
    of word w - 1.
    """
    f = checkpoints[words.shape[0]]
    here = states[min(w, states.shape[0] - 1)]
    for s in range(here.shape[0]):
        f[s] *= scale
        checkpoints[w, s] = f[s]
    scale = np.float32(1.0)
    if w > 0 and states.shape[0] > 1:
        same_slots(states[w - 1], here, f, np.float32(0.0))
    mismatch_words(words[w], here, target[w], observed[w], mismatch)
    for t in range(w * WORD, min(rho.shape[0], (w + 1) * WORD)):
        total = forward_site(f, mismatch, t - w * WORD, rho[t], scale, err[t])
        scale = np.float32(1.0) / total
    return scale


@inlined
def set_slots(slot_of, states, fill):
    """Point each haplotype of ``states`` at its slot, or all at ``fill`` where ``fill`` >= 0."""
    for s in range(states.shape[0]):
        slot_of[states[s]] = s if fill < 0 else fill
