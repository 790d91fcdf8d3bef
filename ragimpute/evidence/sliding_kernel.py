"""Compute evidence features for targets of which each has states of its own, which change by word.

``shared_kernel`` does the same for targets that share their states. Kernels hold only loops: the
functions that call them check the arguments.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying.forward_backward import (
    backward_states,
    forward_rows,
    mismatch_words,
    same_slots,
    set_slots,
)
from ragimpute.copying.sliding_kernel import (
    before_typed,
    begin_word,
    carry_interval,
    nobody_carries,
    step_back,
)
from ragimpute.evidence.describe_kernel import clear, measure
from ragimpute.evidence.doubt import INTERVAL, count_open, end_of_group, find_pairs
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined, kernel


@inlined
def _multiply(num_states, f, b, key):
    """Write the products f b of the states into ``key``; returns the sum of ``b``."""
    right_sum = 0.0
    for s in range(num_states):
        key[s] = f[s] * b[s]
        right_sum += b[s]
    return right_sum


@inlined
def _forget_moved(after, here, num_typed, ends):
    """Forget the ends of matches of slots whose state differs between two neighbouring words."""
    for s in range(here.shape[0]):
        if after[s] != here[s]:
            ends[s, :] = num_typed


@kernel
def evidence_haplotype(
    words, states, target, observed, rho, err, rows, own, near, typed_cm, position_cm, compact,
    num_minor, signature, slot_of, pairs, scratch, measuring, out, tokens,
):  # fmt: skip
    """Compute the features and tokens of given ``pairs`` of one haplotype.

    ``begin_walk`` must have been called just before, with this haplotype alone: it has left the
    forward masses at the start of each word in ``scratch``. From there the walk goes back to the
    first pair of the window, and stops to measure in each interval that has pairs.
    """
    checkpoints, row_of, sums, b, totals, mismatch = scratch
    checkpoints, b, total_b = checkpoints[0], b[0], totals[0]
    num_typed = rho.shape[0]
    num_words = words.shape[0]
    n = states.shape[1]
    clear(measuring, rho.shape[0])
    p = 0
    for w in range(num_words - 1, -2, -1):
        if p == pairs.shape[0]:
            break
        first = w * WORD if w >= 0 else -1
        last = min(num_typed, first + WORD) if w >= 0 else 0
        here = states[min(max(w, 0), states.shape[0] - 1)]
        wanted = pairs[p, INTERVAL] >= first
        if wanted:
            set_slots(slot_of, here, -1)
        if w >= 0:
            start = checkpoints[w]
            if states.shape[0] > 1:
                if w < num_words - 1:
                    same_slots(states[w + 1], here, b, np.float32(0.0))
                    _forget_moved(states[w + 1], here, num_typed, measuring[9][0])
                if w > 0:
                    same_slots(states[w - 1], here, start, np.float32(0.0))
            mismatch_words(words[w], here, target[w], observed[w], mismatch)
            if wanted:
                forward_rows(start, mismatch, first, last, rho, err, row_of, sums)
        else:
            row_of[0, :n] = np.float32(1.0) / np.float32(n)
            sums[0] = np.float32(1.0)
        for t in range(last - 1, first - 1, -1):
            if p < pairs.shape[0] and pairs[p, INTERVAL] == t:
                stop = end_of_group(p, pairs)
                f = row_of[t - first]
                right_sum = _multiply(n, f, b, measuring[0][0])
                measure(
                    p, stop, t, measuring[0][0], f.reshape(-1, 1), b.reshape(-1, 1), 0,
                    measuring[9][0], sums[t - first], total_b, right_sum / total_b, np.float32(n),
                    states, rows, target, observed, own, near, typed_cm, position_cm, compact,
                    num_minor, signature, slot_of, pairs, 0, 0, scratch[0][:0], measuring, out,
                    tokens,
                )  # fmt: skip
                p = stop
            if w >= 0:
                gap = rho[t + 1] if t + 1 < num_typed else np.float32(0.0)
                total_b = backward_states(b, mismatch, t - first, gap, total_b, err[t])
        if wanted:
            set_slots(slot_of, here, n)


@kernel
def copy_and_describe(
    words, states, target, observed, rho, err, bounds, minor, flip, carried, rows, own, near,
    typed_cm, position_cm, typed_index, compact, num_minor, signature, slot_of, limits, low, high,
    pairs, scratch, measuring, prob, out, tokens, found,
):  # fmt: skip
    """Compute P(ALT) of n haplotypes as ``copy_slots`` does, and the features of pairs in doubt.

    Returns the number of pairs. Row and column of ``prob`` (n, sites) of each pair are written into
    ``found`` (room, 2); pairs beyond its room are only counted, not described. ``pairs`` is a
    buffer that holds the pairs of one interval.
    """
    _, row_of, sums, backward, totals, _ = scratch
    product, head, links, listed, masks, _ = carried
    num_typed = rho.shape[0]
    n = states.shape[2]
    clear(measuring, num_typed)
    first_site = minor[0][low]
    nobody_carries(first_site, flip, prob)
    num = 0
    for w in range(high - 1, low - 1, -1):
        first = w * WORD
        last = min(num_typed, first + WORD)
        for i in range(states.shape[0]):
            begin_word(w, i, first, last, words, states, target, observed, rho, err, bounds, minor,
                       scratch, carried)  # fmt: skip
            here = states[i, min(w, states.shape[1] - 1)]
            if states.shape[1] > 1 and w < words.shape[0] - 1:
                _forget_moved(states[i, w + 1], here, num_typed, measuring[9][i])
            b = backward[i]
            placed = False
            common = minor[4][w + 1]
            for t in range(last - 1, first - 1 if w else -2, -1):
                if t < 0:
                    before_typed(n, row_of, sums)
                if bounds[t + 1] < bounds[t + 2]:
                    j = max(t, 0) - first
                    f = row_of[j]
                    common = carry_interval(
                        bounds[t + 1], bounds[t + 2], w, common, f, b, sums[j], totals[i], n, near,
                        minor, product, head, links, listed, masks, flip, first_site, prob[i],
                    )  # fmt: skip
                    seen = t >= 0 and (observed[i, w] >> np.uint32(j)) & np.uint32(1)
                    alt = prob[i, bounds[t + 1] - first_site : bounds[t + 2] - first_site]
                    stop = 0
                    if count_open(alt, limits[0], limits[1]) > 0:
                        stop = find_pairs(
                            t, 0, i, bounds, first_site, prob[i],
                            typed_index[t] if seen else -1, limits, num, 0, pairs, found,
                        )  # fmt: skip
                    if stop and num + stop <= found.shape[0]:
                        if not placed:
                            set_slots(slot_of, here, -1)
                            placed = True
                        right_sum = _multiply(n, f, b, measuring[0][0])
                        measure(
                            0, stop, t, measuring[0][0], f.reshape(-1, 1), b.reshape(-1, 1), 0,
                            measuring[9][i], sums[j], totals[i], right_sum / totals[i],
                            np.float32(n), states[i], rows, target[i], observed[i], own[i], near,
                            typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs,
                            num, 0, scratch[0][:0], measuring, out, tokens,
                        )  # fmt: skip
                    num += stop
                if t >= 0:
                    step_back(i, t, first, rho, err, scratch)
            if placed:
                set_slots(slot_of, here, n)
    return num
