"""Compute the evidence features of one target haplotype at its sites in doubt.

:func:`describe_interval` measures the most probable states between two typed sites, once for all
sites in doubt there; :func:`describe_site` then fills the features of one site; :func:`measure`
calls both. The walks along the typed sites, which call :func:`measure`, are in ``shared_kernel``
and ``sliding_kernel``. ``features`` says what each feature means. Kernels hold only loops: the
arguments are checked in ``collect``.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying.shared_kernel import list_carriers
from ragimpute.evidence.doubt import PLACE, SITE
from ragimpute.evidence.features import NUM_TOP
from ragimpute.evidence.likely_states_kernel import (
    _LOGS,
    _MASS,
    CARRIER,
    REACH,
    TABLE_COLUMNS,
    TIE,
    _group_maxima,
    _top_states,
    padded,
)
from ragimpute.evidence.match_lengths_kernel import find_reach
from ragimpute.evidence.state_set import fill_tokens, rank_table, token_scratch
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined
from ragimpute.kernels.simd_floats import LANES, rows_of_lanes

LOGIT_LIMIT = 9.0


@inlined
def logit(p):
    """Logit of a probability, clipped to [-LOGIT_LIMIT, LOGIT_LIMIT]."""
    p = min(max(p, 1e-6), 1.0 - 1e-6)
    return min(max(np.log(p / (1.0 - p)), -LOGIT_LIMIT), LOGIT_LIMIT)


# "room_left" and "room_right" are the cM up to the window's first and last typed site, where all
# matches end. Beyond this many cM, more room makes no difference.
MOST_ROOM_CM = 2.0


@inlined
def is_carrier(site, haplotype, offsets, carriers, row, bits):
    """Whether a haplotype has the site's minor allele."""
    r = row[site]
    if r >= 0:
        return (bits[r, haplotype >> 6] >> np.uint64(haplotype & 63)) & np.uint64(1) != 0
    low, high = offsets[site], offsets[site + 1]
    while low < high:
        middle = (low + high) >> 1
        if carriers[middle] < haplotype:
            low = middle + 1
        else:
            high = middle
    return low < offsets[site + 1] and carriers[low] == haplotype


@inlined
def describe_interval(
    t, key, scale, states, rows, target, observed, typed_cm, signature, few, top, ranks, ends,
    table, whole,
):  # fmt: skip
    """Measure the most probable states between typed sites t and t + 1; returns their number.

    ``key`` (padded K,) holds the products f b, which times ``scale`` are posterior masses, and -1
    where there is no state. ``table`` (NUM_TOP, TABLE_COLUMNS) gets a row for each of the most
    probable states, whose slots go to ``top``. ``whole`` gets the sum of all masses, the effective
    number of states, and the typed sites per cM around the interval. ``ends`` (K, 4): see
    :func:`find_reach`.
    """
    here = states[max(t, 0) // WORD if states.shape[0] > 1 else 0]
    total, effective = _group_maxima(key, few)
    num_top = _top_states(key, here, signature, few, top, ranks)
    for i in range(num_top):
        s = top[i]
        table[i, _MASS] = key[s] * scale
        find_reach(s, t, states, rows, target, observed, typed_cm, ends[s], table[i, REACH:])
        for j in range(2):
            table[i, _LOGS + j] = np.log(np.float32(1.0 + table[i, REACH + 4 + 2 * j]))
    low = max(t - 5, 0)
    high = min(t + 6, typed_cm.shape[0] - 1)
    whole[0] = total * scale
    whole[1] = effective
    whole[2] = (high - low + 1) / (typed_cm[high] - typed_cm[low] + 1e-3)
    return num_top


@inlined
def _add_match(reach, left_cm, right_cm, log_left, log_right, mass, best, weighted):
    """Add one state's match with the target to the sums and maxima of the states of its allele.

    ``reach`` is measured from the typed sites beside; ``left_cm`` and ``right_cm`` are the
    distances from these to the site. ``best`` keeps the longest matches, ``weighted`` sums that are
    weighted by the states' posterior ``mass``.
    """
    left = max(reach[0] + left_cm, 0.0)
    right = max(reach[2] + right_cm, 0.0)
    left_1 = max(reach[1] + left_cm, 0.0)
    right_1 = max(reach[3] + right_cm, 0.0)
    best[0] = max(best[0], left + right)
    best[1] = max(best[1], min(left, right))
    best[2] = max(best[2], left_1 + right_1)
    best[3] = max(best[3], min(left_1, right_1))
    for i in range(2):
        best[4 + 2 * i] = max(best[4 + 2 * i], reach[4 + i] + reach[6 + i])
        best[5 + 2 * i] = max(best[5 + 2 * i], min(reach[4 + i], reach[6 + i]))
    weight = mass + 1e-12
    weighted[0] += weight
    weighted[1] += weight * np.log(np.float32(left + 1e-3))
    weighted[2] += weight * np.log(np.float32(right + 1e-3))
    weighted[3] += weight * log_left
    weighted[4] += weight * log_right


@inlined
def sum_carriers(listed, count, f, b, lane):
    """Sum f b, f and b over the carriers in ``listed``; count those that the target may copy."""
    fb, from_f, from_b = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    number = 0
    for i in range(count):
        s = listed[i]
        x = f[s, lane]
        y = b[s, lane]
        fb += x * y
        from_f += x
        from_b += y
        number += x > np.float32(0.0)
    return fb, from_f, from_b, number


@inlined
def describe_site(
    site, cm, t, near_left, near_right, key, f, lane, scales, num_states, num_top, table, whole,
    top, stamp, stamp_id, states, rows, target, observed, typed_cm, ends, compact, maf, listed,
    count, carried, work, out,
):  # fmt: skip
    """Fill the features of one pair.

    ``listed`` (count,) has the slots of the site's carriers. If the panel stores the site as bits,
    ``listed`` may be empty, as carriers are then looked up in the bits. ``carried`` is what
    :func:`sum_carriers` returns.

    Column ``lane`` of ``f`` holds the forward masses. The three ``scales`` are for products f b,
    for f and for b: scaled, the products are masses as in ``table``, f sums to 1 and b to
    ``whole[3]``. The mass of a state that is hidden from the target is 0.
    """
    _, _, row, bits = compact
    sum_fb = whole[0]
    fb, from_f, from_b, number = carried
    fb, from_f, from_b = fb * scales[0], from_f * scales[1], from_b * scales[2]
    share = number / num_states
    stay = (1.0 - near_left) * (1.0 - near_right)
    from_left = (1.0 - near_left) * near_right
    from_right = near_left * (1.0 - near_right)
    both = near_left * near_right
    out[0] = logit((stay * fb + from_left * from_f + from_right * from_b + both * share)
                    / (stay * sum_fb + from_left + from_right * whole[3] + both))  # fmt: skip
    out[1] = logit((1.0 - near_left) * from_f + near_left * share)
    out[2] = logit(((1.0 - near_right) * from_b + near_right * share)
                    / ((1.0 - near_right) * whole[3] + near_right))  # fmt: skip
    out[3] = logit(maf)
    out[4] = np.log1p(number)
    last = typed_cm.shape[0] - 1
    left_cm = cm - typed_cm[max(t, 0)]
    right_cm = typed_cm[min(t + 1, last)] - cm
    out[5] = np.log(max(left_cm, 0.0) + 1e-4)
    out[6] = np.log(max(right_cm, 0.0) + 1e-4)
    # Row 0 of ``best`` and ``weighted`` is for carriers, row 1 for the other states. ``best`` has
    # the longest match (both sides added), the longest shorter side, and the same two past one
    # mismatch. ``weighted`` has the sum of the states' posterior weights, and weighted sums of log
    # lengths to each side.
    work[:] = 0.0
    best, weighted, reach = work[0:2], work[2:4], work[4]
    here = states[max(t, 0) // WORD if states.shape[0] > 1 else 0]
    is_list = row[site] < 0
    if is_list:
        for i in range(num_top):
            table[i, CARRIER] = 0.0
        for i in range(count):
            s = listed[i]
            if stamp[s] >= stamp_id:
                table[stamp[s] - stamp_id, CARRIER] = 1.0
            elif f[s, lane] > np.float32(0.0):
                find_reach(s, t, states, rows, target, observed, typed_cm, ends[s], reach)
                log_left = np.log(np.float32(1.0 + reach[4]))
                log_right = np.log(np.float32(1.0 + reach[6]))
                _add_match(reach, left_cm, right_cm, log_left, log_right, key[s] * scales[0],
                           best[0], weighted[0])  # fmt: skip
    else:
        for i in range(num_top):
            h = here[top[i]]
            word = bits[row[site], h >> 6]
            table[i, CARRIER] = np.float64((word >> np.uint64(h & 63)) & np.uint64(1))
    num_carriers = 0
    best_mass = 0.0
    top_sum = 0.0
    most = 0.0
    for i in range(num_top):
        most = max(most, table[i, _MASS])
        side = 0 if table[i, CARRIER] > 0.0 else 1
        if side == 0:
            num_carriers += 1
            best_mass = max(best_mass, table[i, _MASS])
        top_sum += table[i, _MASS]
        _add_match(table[i, REACH:], left_cm, right_cm, table[i, _LOGS], table[i, _LOGS + 1],
                   table[i, _MASS], best[side], weighted[side])  # fmt: skip
    best_rank = NUM_TOP
    if num_carriers > 0:  # the order of equally probable states means nothing: they tie
        equal = best_mass * (1.0 + TIE)
        best_rank = 0
        for i in range(num_top):
            best_rank += table[i, _MASS] > equal
    for side in range(2):
        for i in range(4):
            out[7 + 4 * side + i] = np.log(np.float32(best[side, i] + 1e-3))
            out[28 + 4 * side + i] = np.log(np.float32(1.0 + best[side, 4 + i]))
        for i in range(2):
            known = weighted[side, 0] > 0.0
            out[15 + 2 * side + i] = (
                weighted[side, 1 + i] / weighted[side, 0] if known else np.log(1e-3)
            )
            out[36 + 2 * side + i] = weighted[side, 3 + i] / weighted[side, 0] if known else 0.0
    out[19] = np.log(max(whole[1], 1.0))
    out[20] = most / sum_fb
    out[21] = top_sum / sum_fb
    out[22] = num_carriers / num_top
    out[23] = np.log1p(best_rank)
    out[24] = np.log(num_states)
    out[25] = np.log(whole[2])
    out[26] = np.log(min(max(cm - typed_cm[0], 0.0), MOST_ROOM_CM) + 1e-3)
    out[27] = np.log(min(max(typed_cm[last] - cm, 0.0), MOST_ROOM_CM) + 1e-3)


def measuring_scratch(num_states: int, num_lanes: int) -> tuple[np.ndarray, ...]:
    """Allocate the buffers of :func:`measure` for blocks of up to ``num_lanes`` targets.

    In this order: posterior masses of each target; a few rows of 16 lanes; slots of the most
    probable states, and their ranks; the table of these states; sums over all states
    (``whole``); work space of :func:`describe_site`; for each slot a stamp that says in which row
    of the table it is; slots of a site's carriers; ends of matches of each target's states; the
    three scales; the lanes that have pairs; the buffer of tokens; a square of 16 by 16 masses.
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


@inlined
def clear(measuring, num_typed):
    """Reset the buffers that would carry results over from the targets before."""
    measuring[0][:, :] = np.float32(-1.0)
    measuring[7][:] = -1
    measuring[9][:, :, :] = num_typed


@inlined
def _list_slots(u, t, states, compact, slot_of, listed):
    """List the slots of states with the minor allele of site u, in interval t; returns how many."""
    _, _, row, bits = compact
    if row[u] < 0 or 4 * states.shape[1] >= slot_of.shape[0]:
        return list_carriers(u, compact, slot_of, states.shape[1], listed)
    num = 0  # the states are few of the panel's haplotypes: look up the bit of each
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
    """Compute the features of the pairs [p, stop), all of one target and one interval.

    ``before`` is the number of pairs that were measured earlier and are not in ``pairs``. ``key``
    (padded K,) has the products f b of the interval's states; f and b are the columns ``lane`` of
    the two arrays. ``ends`` (K, 4): see :func:`find_reach`. ``measuring``: see
    :func:`measuring_scratch`. ``tokens`` is (pairs, S, C), or (0, S, C) if none are wanted.

    ``kept`` has the sums over carriers that copying has already computed for the interval's sites,
    the first of which is ``first_site`` (see
    :func:`ragimpute.copying.shared_kernel.carry_lanes`). If ``kept`` is empty, they are computed
    here.
    """
    _, few, top, ranks, table, whole, work, stamp, listed, _, scales, _, order, _ = measuring
    scales[1] = np.float32(1.0) / sum_f
    scales[2] = np.float32(1.0) / sum_b
    scales[0] = scales[1] * scales[2] * num_states
    num_top = describe_interval(
        t, key, scales[0], states, rows, target, observed, typed_cm, signature, few, top, ranks,
        ends, table, whole,
    )  # fmt: skip
    # A state that has just come into its slot has no backward mass: the sum may be less than 1.
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
