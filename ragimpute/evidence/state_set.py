"""Describe the states that matter at a site in doubt one by one, for networks that read sets.

The features of ``describe_kernel`` summarise these states. Here each state becomes a *token*, a row
of numbers of its own. Half of a pair's tokens describe the most probable carriers of the minor
allele, the other half the most probable states with the other allele. Both are taken from the
NUM_TOP most probable states. If too few of these are carriers, less probable carriers fill the
first half. Kernels hold only loops.
"""

from __future__ import annotations

import numpy as np

from ragimpute.evidence.features import NUM_TOP, TOKEN
from ragimpute.evidence.likely_states_kernel import TABLE
from ragimpute.evidence.match_lengths_kernel import REACH, find_reach, list_at
from ragimpute.kernels.compile import inlined


@inlined
def insert_state(rank, slot, size, limit, ranks, slots):
    """Insert a state into a sorted list of up to ``limit`` states; returns the list's new size.

    The list is sorted by falling rank. If it is full, the state of lowest rank drops out.
    """
    if size == limit:
        if rank <= ranks[size - 1]:
            return size
        size -= 1
    at = size
    while at > 0 and ranks[at - 1] < rank:
        ranks[at] = ranks[at - 1]
        slots[at] = slots[at - 1]
        at -= 1
    ranks[at] = rank
    slots[at] = slot
    return size + 1


@inlined
def rank_table(ranks, num_top, order):
    """Write into row 0 of ``order`` the table's row numbers, the most probable state first."""
    size = 0
    for i in range(num_top):
        size = insert_state(ranks[i], i, size, NUM_TOP, order[1], order[0])


@inlined
def _whole(x):
    """Convert a number to a token's whole units (TOKEN_UNIT, 1 / 1024)."""
    return np.int16(np.rint(np.float32(1024.0) * np.float32(x)))


@inlined
def posterior_shares(near_left, near_right):
    """How much of a site's posterior comes of no switch, of one on either side, and of both.

    ``near_left`` and ``near_right`` are the switch probabilities to the typed sites beside it. The
    four weights belong to f b, to f, to b, and to all states alike.
    """
    stay = (1.0 - near_left) * (1.0 - near_right)
    from_left = (1.0 - near_left) * near_right
    from_right = near_left * (1.0 - near_right)
    both = near_left * near_right
    return stay, from_left, from_right, both


@inlined
def _fill(s, masses, weights, reach, gaps, out):
    """Fill the token of the state in slot ``s``.

    ``weights``: of f b, f, b and a constant in the state's posterior at the site, and the scale of
    b. ``reach`` is as :func:`find_reach` measures it, from the typed sites beside; ``gaps`` are the
    distances from these to the site itself.
    """
    w_fb, w_f, w_b, w_1, scale_b = weights
    x, y = masses.f[s, masses.lane], masses.b[s, masses.lane]
    out[TOKEN.there] = 1024
    out[TOKEN.mass] = _whole(np.log(np.float32(w_fb * (x * y) + w_f * x + w_b * y + w_1 + 1e-6)))
    out[TOKEN.mass_left] = _whole(np.log(np.float32(x * masses.scales[1] + 1e-6)))
    out[TOKEN.mass_right] = _whole(np.log(np.float32(y * scale_b + 1e-6)))
    out[TOKEN.left] = _match(reach[REACH.cm_left], gaps[0])
    out[TOKEN.right] = _match(reach[REACH.cm_right], gaps[1])
    out[TOKEN.left_1] = _match(reach[REACH.cm_left_1], gaps[0])
    out[TOKEN.right_1] = _match(reach[REACH.cm_right_1], gaps[1])


@inlined
def _match(reach_cm, gap_cm):
    """The number of a token for a match that reaches so far beyond the typed site beside."""
    return _whole(np.log(np.float32(max(reach_cm + gap_cm, 0.0) + 1e-3)))


@inlined
def fill_tokens(u, t, masses, interval, one, evidence, num, out):
    """Fill the tokens (S, C) of one pair.

    Call it right after the pair's features have been filled, with the same arguments: it reads
    the column ``carrier`` of the table, and the order that :func:`rank_table` has made.
    """
    out[:, :] = 0
    panel, measuring = evidence.panel, evidence.measuring
    table, order = measuring.table, measuring.order
    half = out.shape[0] // 2
    cm, typed_cm = panel.position_cm[u], panel.typed_cm
    right = typed_cm[min(t + 1, typed_cm.shape[0] - 1)]
    gaps = (cm - typed_cm[max(t, 0)], right - cm)
    stay, from_left, from_right, both = posterior_shares(panel.near.left[u], panel.near.right[u])
    total = stay * interval.total + from_left + from_right * masses.right_sum + both
    weights = (
        stay * masses.scales[0] / total, from_left * masses.scales[1] / total,
        from_right * masses.scales[2] / total, both / (masses.num_states * total),
        masses.scales[2] / max(masses.right_sum, 1e-30),
    )  # fmt: skip
    carriers, others = 0, half
    for i in range(interval.num_top):
        r = order[0, i]
        s = measuring.top[r]
        if masses.f[s, masses.lane] <= np.float32(0.0):
            continue
        if table[r, TABLE.carrier] > 0.0:
            if carriers == half:
                continue
            place = carriers
            carriers += 1
        else:
            if others == 2 * half:
                continue
            place = others
            others += 1
        _fill(s, masses, weights, table[r, TABLE.reach :], gaps, out[place])
    if carriers == half:
        return
    here = one.states[list_at(t, one.states)]
    mass = masses.key.view(np.int32)
    size = 0
    for i in range(num):
        s = measuring.listed[i]
        if measuring.stamp[s] >= interval.stamp or masses.f[s, masses.lane] <= np.float32(0.0):
            continue
        rank = (np.int64(mass[s] >> 10) << 42) | np.int64(panel.signature[here[s]] >> np.uint64(22))
        size = insert_state(rank, s, size, half - carriers, order[1], order[2])
    for i in range(size):
        s = order[2, i]
        find_reach(s, t, one, measuring.reach)
        _fill(s, masses, weights, measuring.reach, gaps, out[carriers + i])
