"""Compute evidence features for 16 targets at once that copy the same states.

The walk goes back along the typed sites, and stops in each interval between two of them where a
target has a site in doubt, to describe it. ``sliding_kernel`` does the same for targets that have
states of their own. Kernels hold only loops.

Pairs are the rows of an array, in the order of the walk: from the last interval to the first, and
by target within an interval. Its columns are the interval (-1 is before the first typed site), the
target within the block (its lane), the site, and the row of the output.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ragimpute.copying.shared_kernel import (
    STEP,
    backward_site,
    carry_lanes,
    forward_lanes,
    forward_segment,
    set_sides,
    step_rows,
    uniform_row,
)
from ragimpute.evidence.describe_kernel import clear, measure
from ragimpute.evidence.doubt import INTERVAL, LANE, end_of_group, find_pairs
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.simd_floats import LANES, load, rows_of_lanes, store, turn


def nothing_copied() -> tuple[Any, ...]:
    """The empty ``copied`` that :func:`evidence_lanes` takes if the pairs are given to it."""
    index, none = np.zeros(0, np.int64), np.zeros(0, bool)
    limits, prob = np.zeros(2, np.float32), np.zeros((0, 0), np.float32)
    return none, index, index, none, limits, 0, 0, 0, rows_of_lanes(0, 4), prob


@inlined
def _lane_masses(p, f, b, hidden, pairs, lanes, square, keys):
    """Write f b of the lanes that have pairs in pair p's interval into rows of ``keys``.

    A row has the unscaled products of one lane, state by state, and -1 for states that are hidden
    from it. Returns the number of these lanes, which ``lanes`` lists. As f and b have a row for
    each state, 16 states of all 16 lanes are transposed at a time, in ``square`` (16, 16).
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
    """Compute the features of interval t's pairs, which begin with pair p.

    Returns the number of the first pair of another interval, or p if interval t has none.
    """
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


@kernel
def evidence_lanes(
    alleles, target, rho, err, num_states, hidden, states, rows, bits, observed, own, near,
    typed_cm, position_cm, compact, num_minor, signature, slot_of, pairs, scratch, measuring, out,
    tokens, copied, found,
):  # fmt: skip
    """Compute the features and tokens of a block's pairs; returns the number of pairs.

    It works in two ways. If ``found`` (room, 2) is empty, ``pairs`` lists the pairs to describe.
    Otherwise the kernel copies as well: it computes P(ALT) with the arrays in ``copied``, finds the
    pairs in doubt in each interval, using ``pairs`` as a buffer for those of one interval, and
    writes their column and site into ``found``. Pairs beyond its room are counted, not described.

    ``alleles``, ``target``, ``num_states``, ``hidden`` and ``scratch`` as for
    :func:`ragimpute.copying.shared_kernel.copy_lanes`; ``states`` (1, K); ``rows`` (H, W): the
    panel's words by haplotype; ``bits`` and ``observed`` (n, W): the targets' words; ``own``
    (n, e): panel haplotypes of each target's own sample, padded with -1.
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
        # Step -1 stands for the sites before the first typed site.
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
