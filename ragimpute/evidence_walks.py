"""Walks along the typed sites that stop where a target has sites in doubt, and measure there.

Kernels hold only loops. Pairs come as columns of an array, in the order of the walk: from the last
interval between typed sites to the first, within an interval by target. Columns: interval (-1 is
before the first typed site), target within the block, site, place in the output.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying_kernel import (
    WORD,
    backward_states,
    forward_pass,
    forward_rows,
    mismatch_words,
    same_slots,
    set_slots,
)
from ragimpute.evidence_kernel import (
    NUM_TOP,
    describe_interval,
    describe_site,
    is_carrier,
    padded,
)
from ragimpute.evidence_tokens import fill_tokens, rank_table, token_scratch
from ragimpute.kernels import inlined, kernel
from ragimpute.lanes import LANES, rows_of_lanes
from ragimpute.lanes_kernel import (
    STEP,
    backward_site,
    forward_lanes,
    forward_segment,
    list_carriers,
    step_rows,
    uniform_row,
)

INTERVAL, LANE, SITE, PLACE = range(4)


def measuring_scratch(num_states: int, num_lanes: int) -> tuple[np.ndarray, ...]:
    """Buffers of what is measured.

    Posterior masses, a few rows of lanes, the most probable states and their ranks, their table,
    sums, other numbers, stamps, listed carriers, ends of matches, scales, lanes, ranks.
    """
    return (
        rows_of_lanes(num_lanes, padded(num_states) // LANES).reshape(num_lanes, -1),
        rows_of_lanes(4),
        np.empty(num_states, np.int64),
        np.empty(num_states, np.int64),
        np.zeros((NUM_TOP, 6)),
        np.zeros(4),
        np.zeros((5, 4)),
        np.empty(num_states, np.int64),
        np.empty(num_states, np.int32),
        np.empty((num_lanes, num_states, 4), np.int32),
        np.empty(3, np.float32),
        np.zeros(num_lanes, np.int64),
        token_scratch(),
    )


@inlined
def _clear(measuring, num_typed):
    """Forget what was measured of other targets."""
    measuring[0][:, :] = np.float32(-1.0)
    measuring[7][:] = -1
    measuring[9][:, :, :] = num_typed


@inlined
def _measure(
    p, stop, t, key, f, b, lane, sum_f, sum_b, right_sum, num_states, states, rows, target,
    observed, own, near, typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs,
    measuring, out, tokens,
):  # fmt: skip
    """Features of the pairs [p, stop), which are of one target and one interval.

    ``key`` (padded K,): masses f b of the interval's states; ``measuring``: see
    :func:`measuring_scratch`; ``tokens`` (pairs, S, C), or (0, S, C) where none are wanted.
    """
    _, few, top, ranks, table, whole, work, stamp, listed, ends, scales, _, order = measuring
    scales[1] = np.float32(1.0) / sum_f
    scales[2] = np.float32(1.0) / sum_b
    scales[0] = scales[1] * scales[2] * num_states
    num_top = describe_interval(
        t, key, scales[0], states, rows, target, observed, typed_cm, signature, few, top, ranks,
        ends[lane], table, whole,
    )  # fmt: skip
    # The states that retrieval brings in have no backward mass, so that all of it may be less.
    whole[3] = right_sum
    stamp_id = np.int64(p) * NUM_TOP
    for i in range(num_top):
        stamp[top[i]] = stamp_id + i
    if tokens.shape[0] > 0:
        rank_table(ranks, num_top, order)
    offsets, carriers, row, bits = compact
    for q in range(p, stop):
        u = pairs[q, SITE]
        count = num_minor[u]
        outside = slot_of.shape[0]
        for h in own:
            if h >= 0:
                outside -= 1
                if is_carrier(u, h, offsets, carriers, row, bits):
                    count -= 1
        num = 0
        if row[u] >= 0 and 4 * states.shape[1] < slot_of.shape[0]:  # few of many are states
            here = states[max(t, 0) // WORD if states.shape[0] > 1 else 0]
            for s in range(here.shape[0]):
                word = bits[row[u], here[s] >> 6]
                if (word >> np.uint64(here[s] & 63)) & np.uint64(1):
                    listed[num] = s
                    num += 1
        else:
            num = list_carriers(u, compact, slot_of, states.shape[1], listed)
        describe_site(
            u, position_cm[u], t, near[0][u], near[1][u], key, f, b, lane, scales, num_states,
            num_top, table, whole, top, stamp, stamp_id, states, rows, target, observed, typed_cm,
            ends[lane], compact, count / outside, listed, num, work, out[pairs[q, PLACE]],
        )  # fmt: skip
        if tokens.shape[0] > 0:
            fill_tokens(
                position_cm[u], t, near[0][u], near[1][u], key, f, b, lane, scales, num_states,
                num_top, table, whole, top, stamp, stamp_id, signature, states, rows, target,
                observed, typed_cm, ends[lane], listed, num, work[4], order,
                tokens[pairs[q, PLACE]],
            )  # fmt: skip


@inlined
def _end_of_group(p, pairs):
    """The end of the pairs that have pair p's interval and target."""
    stop = p + 1
    while (
        stop < pairs.shape[0]
        and pairs[stop, INTERVAL] == pairs[p, INTERVAL]
        and pairs[stop, LANE] == pairs[p, LANE]
    ):
        stop += 1
    return stop


@inlined
def _lane_masses(p, f, b, hidden, pairs, lanes, keys):
    """Masses f b of the lanes that pair p's interval asks for, each lane's in a row of ``keys``.

    They are not scaled, and -1 for hidden states. Returns the number of lanes, and
    ``lanes`` lists them. All at once, as a state's masses lie on one line of the cache.
    """
    num = 0
    q = p
    while q < pairs.shape[0] and pairs[q, INTERVAL] == pairs[p, INTERVAL]:
        if q == p or pairs[q, LANE] != pairs[q - 1, LANE]:
            lanes[num] = pairs[q, LANE]
            num += 1
        q += 1
    for s in range(f.shape[0]):
        for i in range(num):
            keys[i, s] = f[s, lanes[i]] * b[s, lanes[i]]
    for j in range(hidden.shape[0]):
        for i in range(num):
            if hidden[j, 1] == lanes[i]:
                keys[i, hidden[j, 0]] = np.float32(-1.0)
    return num


@inlined
def _measure_lanes(
    p, t, f, b, sum_f, sum_b, num_states, hidden, states, rows, bits, observed, own, near,
    typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs, measuring, out, tokens,
):  # fmt: skip
    """Features of the pairs of interval t, from pair p on; returns the first pair of another."""
    if p == pairs.shape[0] or pairs[p, INTERVAL] != t:
        return p
    num = _lane_masses(p, f, b, hidden, pairs, measuring[11], measuring[0])
    for i in range(num):
        lane = pairs[p, LANE]
        stop = _end_of_group(p, pairs)
        _measure(
            p, stop, t, measuring[0][i], f, b, lane, sum_f[lane], sum_b[lane], 1.0,
            num_states[lane], states, rows, bits[lane], observed[lane], own[lane], near, typed_cm,
            position_cm, compact, num_minor, signature, slot_of, pairs, measuring, out, tokens,
        )  # fmt: skip
        p = stop
    return p


@kernel
def evidence_lanes(
    alleles, target, rho, err, num_states, hidden, states, rows, bits, observed, own, near,
    typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs, scratch, measuring, out,
    tokens,
):  # fmt: skip
    """Features of a block of targets at their ``pairs``, and their tokens.

    ``alleles``, ``target``, ``num_states``, ``hidden`` and ``scratch`` as for
    :func:`ragimpute.lanes_kernel.copy_lanes`; ``states`` (1, K); ``rows`` (H, W), the panel's
    words; ``bits`` and ``observed`` (n, W) those of the targets; ``own`` (n, e), padded with -1.
    """
    starts, checkpoints, step, b, sums, single = scratch
    num_typed = rho.shape[0]
    _clear(measuring, rho.shape[0])
    forward_lanes(alleles, target, rho, err, num_states, hidden, starts, checkpoints, step, b,
                  sums, single)  # fmt: skip
    backward_sum = single[4:5]
    for lane in range(LANES):
        backward_sum[0, lane] = num_states[lane]
    p = 0
    for segment in range(starts.shape[0] - 2, -1, -1):
        begin = segment * checkpoints.shape[0] * STEP
        end = min(num_typed, begin + checkpoints.shape[0] * STEP)
        if segment < starts.shape[0] - 2:
            forward_segment(segment, alleles, target, rho, err, num_states, hidden, starts,
                            checkpoints, step, sums, single)  # fmt: skip
        # Step -1 is what lies before the first typed site.
        for i in range((end - begin - 1) // STEP, -1 if segment else -2, -1):
            if p == pairs.shape[0]:
                return
            first = begin + i * STEP if i >= 0 else -1
            last = min(end, first + STEP) if i >= 0 else 0
            if i < 0:
                uniform_row(step[0], num_states, hidden)
            elif pairs[p, INTERVAL] >= first:  # rows only where a pair needs them
                step_rows(first, last, checkpoints[i], alleles, target, rho, err, num_states,
                          hidden, step, sums, single)  # fmt: skip
            for t in range(last - 1, first - 1, -1):
                p = _measure_lanes(
                    p, t, step[t - first], b, sums[t + 1], backward_sum[0], num_states, hidden,
                    states, rows, bits, observed, own, near, typed_cm, position_cm, compact,
                    num_minor, signature, slot_of, pairs, measuring, out, tokens,
                )  # fmt: skip
                if i >= 0:
                    backward_site(t, b, alleles, target, rho, err, num_states, hidden,
                                  backward_sum, single)  # fmt: skip


@kernel
def evidence_haplotype(
    words, states, target, observed, rho, err, rows, own, near, typed_cm, position_cm, compact,
    num_minor, signature, slot_of, pairs, scratch, measuring, out, tokens,
):  # fmt: skip
    """Features of one haplotype, which has its own states by word, at its ``pairs``; tokens."""
    checkpoints, row_of, sums, b, _, mismatch = scratch
    checkpoints, b = checkpoints[0], b[0]
    num_typed = rho.shape[0]
    num_words = words.shape[0]
    n = states.shape[1]
    _clear(measuring, rho.shape[0])
    forward_pass(words, states, target, observed, rho, err, checkpoints, mismatch)
    b[:] = np.float32(1.0)
    total_b = np.float32(n)
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
                    for s in range(n):
                        if states[w + 1, s] != here[s]:
                            measuring[9][0, s, :] = num_typed
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
                stop = _end_of_group(p, pairs)
                f = row_of[t - first]
                right_sum = 0.0
                for s in range(n):
                    measuring[0][0, s] = f[s] * b[s]
                    right_sum += b[s]
                _measure(
                    p, stop, t, measuring[0][0], f.reshape(-1, 1), b.reshape(-1, 1), 0,
                    sums[t - first], total_b, right_sum / total_b, np.float32(n), states, rows,
                    target, observed, own, near, typed_cm, position_cm, compact, num_minor,
                    signature, slot_of, pairs, measuring, out, tokens,
                )  # fmt: skip
                p = stop
            if w >= 0:
                gap = rho[t + 1] if t + 1 < num_typed else np.float32(0.0)
                total_b = backward_states(b, mismatch, t - first, gap, total_b, err[t])
        if wanted:
            set_slots(slot_of, here, n)
