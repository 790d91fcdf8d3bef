"""The walk along the typed sites that stops where targets have sites in doubt, and measures there.

Here 16 targets that copy the same states walk together; those with states of their own do in
``evidence_slots``. Kernels hold only loops. Pairs come as columns of an array, in the order of the
walk: from the last interval between typed sites to the first, within an interval by target.
Columns: interval (-1 is before the first typed site), target within the block, site, place in the
output.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying_kernel import WORD
from ragimpute.evidence_kernel import (
    NUM_TOP,
    TABLE_COLUMNS,
    describe_interval,
    describe_site,
    is_carrier,
    padded,
    sum_carriers,
)
from ragimpute.evidence_tokens import fill_tokens, rank_table, token_scratch
from ragimpute.kernels import inlined, kernel
from ragimpute.lanes import LANES, load, rows_of_lanes, store, turn
from ragimpute.lanes_kernel import (
    STEP,
    backward_site,
    carry_lanes,
    forward_lanes,
    forward_segment,
    list_carriers,
    set_sides,
    step_rows,
    uniform_row,
)

INTERVAL, LANE, SITE, PLACE = range(4)


def measuring_scratch(num_states: int, num_lanes: int) -> tuple[np.ndarray, ...]:
    """Buffers of what is measured.

    Posterior masses, a few rows of lanes, the most probable states and their ranks, their table,
    sums, other numbers, stamps, listed carriers, ends of matches, scales, lanes, ranks, a
    square of lanes.
    """
    return (
        rows_of_lanes(num_lanes, padded(num_states) // LANES).reshape(num_lanes, -1),
        rows_of_lanes(4),
        np.empty(num_states, np.int64),
        np.empty(num_states, np.int64),
        np.zeros((NUM_TOP, TABLE_COLUMNS)),
        np.zeros(4),
        np.zeros((5, 8)),
        np.empty(num_states, np.int64),
        np.empty(num_states, np.int32),
        np.empty((num_lanes, num_states, 4), np.int32),
        np.empty(3, np.float32),
        np.zeros(num_lanes, np.int64),
        token_scratch(),
        rows_of_lanes(LANES),
    )


def nothing_copied() -> tuple:
    """What :func:`evidence_lanes` takes as ``copied`` where pairs are given."""
    index, none = np.zeros(0, np.int64), np.zeros(0, bool)
    limits, prob = np.zeros(2, np.float32), np.zeros((0, 0), np.float32)
    return none, index, index, none, limits, 0, 0, 0, rows_of_lanes(0, 4), prob


@inlined
def clear(measuring, num_typed):
    """Forget what was measured of other targets."""
    measuring[0][:, :] = np.float32(-1.0)
    measuring[7][:] = -1
    measuring[9][:, :, :] = num_typed


@inlined
def _list_slots(u, t, states, compact, slot_of, listed):
    """States that have the minor allele of site u in interval t; returns how many."""
    _, _, row, bits = compact
    if row[u] < 0 or 4 * states.shape[1] >= slot_of.shape[0]:
        return list_carriers(u, compact, slot_of, states.shape[1], listed)
    num = 0  # few of many are states
    here = states[max(t, 0) // WORD if states.shape[0] > 1 else 0]
    for s in range(here.shape[0]):
        word = bits[row[u], here[s] >> 6]
        if (word >> np.uint64(here[s] & 63)) & np.uint64(1):
            listed[num] = s
            num += 1
    return num


@inlined
def measure(
    p, stop, t, key, f, b, lane, ends, sum_f, sum_b, right_sum, num_states, states, rows, target,
    observed, own, near, typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs,
    before, first_site, kept, measuring, out, tokens,
):  # fmt: skip
    """Features of the pairs [p, stop), which are of one target and one interval.

    ``before``: how many pairs were measured before those of ``pairs``. ``key`` (padded K,): masses
    f b of the interval's states, whose two sides are columns ``lane``; ``ends`` (K, 4): see
    :func:`find_reach`; ``measuring``: see :func:`measuring_scratch`; ``tokens`` (pairs, S, C), or
    (0, S, C) where none are wanted. ``kept`` is what copying kept of the interval's sites, which
    begin with ``first_site`` (see :func:`ragimpute.lanes_kernel.carry_lanes`), or has no room.
    """
    _, few, top, ranks, table, whole, work, stamp, listed, _, scales, _, order, _ = measuring
    scales[1] = np.float32(1.0) / sum_f
    scales[2] = np.float32(1.0) / sum_b
    scales[0] = scales[1] * scales[2] * num_states
    num_top = describe_interval(
        t, key, scales[0], states, rows, target, observed, typed_cm, signature, few, top, ranks,
        ends, table, whole,
    )  # fmt: skip
    # The states that retrieval brings in have no backward mass, so that all of it may be less.
    whole[3] = right_sum
    stamp_id = np.int64(before + p) * NUM_TOP
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
        if kept.shape[0] > 0 and row[u] >= 0 and tokens.shape[0] == 0:
            sums = kept[u - first_site]
            carried = (sums[0, lane], sums[1, lane], sums[2, lane], np.int64(sums[3, lane]))
        else:
            num = _list_slots(u, t, states, compact, slot_of, listed)
            carried = sum_carriers(listed, num, f, b, lane)
        describe_site(
            u, position_cm[u], t, near[0][u], near[1][u], key, f, lane, scales, num_states,
            num_top, table, whole, top, stamp, stamp_id, states, rows, target, observed, typed_cm,
            ends, compact, count / outside, listed, num, carried, work, out[pairs[q, PLACE]],
        )  # fmt: skip
        if tokens.shape[0] > 0:
            fill_tokens(
                position_cm[u], t, near[0][u], near[1][u], key, f, b, lane, scales, num_states,
                num_top, table, whole, top, stamp, stamp_id, signature, states, rows, target,
                observed, typed_cm, ends, listed, num, work[4], order,
                tokens[pairs[q, PLACE]],
            )  # fmt: skip


@inlined
def end_of_group(p, pairs):
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
def _lane_masses(p, f, b, hidden, pairs, lanes, square, keys):
    """Masses f b of the lanes that pair p's interval asks for, each lane's in a row of ``keys``.

    They are not scaled, and -1 for hidden states. Returns the number of lanes, and
    ``lanes`` lists them. 16 states of all lanes are turned at once in ``square`` (16, 16).
    """
    num = 0
    q = p
    while q < pairs.shape[0] and pairs[q, INTERVAL] == pairs[p, INTERVAL]:
        if q == p or pairs[q, LANE] != pairs[q - 1, LANE]:
            lanes[num] = pairs[q, LANE]
            num += 1
        q += 1
    full = f.shape[0] // LANES
    rows = keys.reshape(keys.shape[0], -1, LANES)
    for g in range(full):
        for j in range(LANES):
            store(square, j, load(f, g * LANES + j) * load(b, g * LANES + j))
        turn(square)
        for i in range(num):
            store(rows[i], g, load(square, lanes[i]))
    for s in range(full * LANES, f.shape[0]):
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
    typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs, before, first_site, kept,
    measuring, out, tokens,
):  # fmt: skip
    """Features of the pairs of interval t, from pair p on; returns the first pair of another."""
    if p == pairs.shape[0] or pairs[p, INTERVAL] != t:
        return p
    num = _lane_masses(p, f, b, hidden, pairs, measuring[11], measuring[13], measuring[0])
    for i in range(num):
        lane = pairs[p, LANE]
        stop = end_of_group(p, pairs)
        measure(
            p, stop, t, measuring[0][i], f, b, lane, measuring[9][lane], sum_f[lane], sum_b[lane],
            1.0, num_states[lane], states, rows, bits[lane], observed[lane], own[lane], near,
            typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs, before,
            first_site, kept, measuring, out, tokens,
        )  # fmt: skip
        p = stop
    return p


@inlined
def find_pairs(t, lane, column, bounds, core, prob, known, limits, before, num, pairs, found):
    """List the sites of interval t that ``prob`` (core sites,) of a target leaves open.

    They come after ``num`` that are listed, and after ``before`` of other intervals; returns how
    many are listed then. What is not between the ``limits`` (2,) is sure, as is the site ``known``.
    """
    for u in range(bounds[t + 1], bounds[t + 2]):
        p = prob[u - core]
        if p > limits[0] and p < limits[1] and u != known:
            place = before + num
            pairs[num, INTERVAL], pairs[num, LANE], pairs[num, SITE] = t, lane, u
            pairs[num, PLACE] = place
            if place < found.shape[0]:
                found[place, 0], found[place, 1] = column, u - core
            num += 1
    return num


@kernel
def evidence_lanes(
    alleles, target, rho, err, num_states, hidden, states, rows, bits, observed, own, near,
    typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs, scratch, measuring, out,
    tokens, copied, found,
):  # fmt: skip
    """Features of a block of targets at their ``pairs``, and their tokens; returns how many.

    Where there is room in ``found`` (n, 2), the pairs in doubt are found on the way: ``copied`` is
    what copying fills and asks for, ``pairs`` has room for those of an interval, and ``found`` gets
    column and site. Those for which there is no room are counted.

    ``alleles``, ``target``, ``num_states``, ``hidden`` and ``scratch`` as for
    :func:`ragimpute.lanes_kernel.copy_lanes`; ``states`` (1, K); ``rows`` (H, W), the panel's
    words; ``bits`` and ``observed`` (n, W) those of the targets; ``own`` (n, e), padded with -1.
    """
    starts, checkpoints, step, b, sums, single = scratch
    num_typed = rho.shape[0]
    clear(measuring, rho.shape[0])
    forward_lanes(alleles, target, rho, err, num_states, hidden, starts, checkpoints, step, b,
                  sums, single)  # fmt: skip
    backward_sum, sides = single[4:5], single[8:13]
    for lane in range(LANES):
        backward_sum[0, lane] = num_states[lane]
    p = 0
    finds = found.shape[0] > 0
    wanted = pairs[:0] if finds else pairs
    is_hidden, bounds, typed_index, flip, limits, core, column, width, kept, prob = copied
    num, first_site = 0, 0
    for segment in range(starts.shape[0] - 2, -1, -1):
        begin = segment * checkpoints.shape[0] * STEP
        end = min(num_typed, begin + checkpoints.shape[0] * STEP)
        if segment < starts.shape[0] - 2:
            forward_segment(segment, alleles, target, rho, err, num_states, hidden, starts,
                            checkpoints, step, sums, single)  # fmt: skip
        # Step -1 is what lies before the first typed site.
        for i in range((end - begin - 1) // STEP, -1 if segment else -2, -1):
            if not finds and p == pairs.shape[0]:
                return p
            first = begin + i * STEP if i >= 0 else -1
            last = min(end, first + STEP) if i >= 0 else 0
            if i < 0:
                uniform_row(step[0], num_states, hidden)
            elif finds or pairs[p, INTERVAL] >= first:  # rows only where a pair needs them
                step_rows(first, last, checkpoints[i], alleles, target, rho, err, num_states,
                          hidden, step, sums, single)  # fmt: skip
            for t in range(last - 1, first - 1, -1):
                row = step[t - first]
                if finds:
                    num += wanted.shape[0]
                    p, wanted = 0, pairs[:0]
                    if bounds[t + 1] < bounds[t + 2]:
                        gap = rho[t + 1] if 0 <= t < num_typed - 1 else np.float32(1.0)
                        set_sides(row, b, gap, sums[t + 1], backward_sum[0], num_states, sides)
                        carry_lanes(
                            bounds[t + 1], bounds[t + 2], row, b, sides, near, compact, slot_of,
                            hidden, is_hidden, single[5:6], measuring[8], flip, core, column,
                            width, kept, prob,
                        )  # fmt: skip
                        first_site = bounds[t + 1]
                        here = 0
                        for lane in range(width):
                            known = typed_index[t] if t >= 0 and target[t, lane] >= 0 else -1
                            here = find_pairs(
                                t, lane, column + lane, bounds, core, prob[:, column + lane],
                                known, limits, num, here, pairs, found,
                            )  # fmt: skip
                        wanted = pairs[:here]
                    if num + wanted.shape[0] > found.shape[0]:
                        p = wanted.shape[0]
                p = _measure_lanes(
                    p, t, row, b, sums[t + 1], backward_sum[0], num_states, hidden,
                    states, rows, bits, observed, own, near, typed_cm, position_cm, compact,
                    num_minor, signature, slot_of, wanted, num, first_site, kept, measuring, out,
                    tokens,
                )  # fmt: skip
                if i >= 0:
                    backward_site(t, b, alleles, target, rho, err, num_states, hidden,
                                  backward_sum, single)  # fmt: skip
    return num + wanted.shape[0]
