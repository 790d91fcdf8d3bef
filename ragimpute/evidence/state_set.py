"""Describe the states that matter at a site in doubt one by one, for networks that read sets.

The features of ``describe_kernel`` summarise these states. Here each state becomes a *token*, a row
of numbers of its own. Half of a pair's tokens describe the most probable carriers of the minor
allele, the other half the most probable states with the other allele. Both are taken from the
NUM_TOP most probable states. If too few of these are carriers, less probable carriers fill the
first half. Kernels hold only loops.
"""

from __future__ import annotations

import numpy as np

from ragimpute.evidence.features import MAX_TOKENS, NUM_TOP, TOKEN_FEATURES
from ragimpute.evidence.likely_states_kernel import CARRIER, REACH
from ragimpute.evidence.match_lengths_kernel import find_reach
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined


def token_scratch() -> np.ndarray:
    """Allocate the buffer that :func:`rank_table` and :func:`fill_tokens` share.

    Row 0 gets the rows of the table of most probable states, ordered by rank; rows 1 and 2 get the
    ranks and slots of states while they are sorted.
    """
    return np.empty((3, NUM_TOP), np.int64)


@inlined
def _insert(rank, slot, size, limit, ranks, slots):
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
def rank_table(ranks, num_top, scratch):
    """Write into row 0 of ``scratch`` the table's row numbers, the most probable state first."""
    size = 0
    for i in range(num_top):
        size = _insert(ranks[i], i, size, NUM_TOP, scratch[1], scratch[0])


@inlined
def _whole(x):
    """Convert a number to a token's whole units (TOKEN_UNIT, 1 / 1024)."""
    return np.int16(np.rint(np.float32(1024.0) * np.float32(x)))


@inlined
def _fill(mass, mass_left, mass_right, reach, left_cm, right_cm, out):
    """Fill one token. ``reach`` is as :func:`find_reach` measures it, from the typed sites beside.

    ``left_cm`` and ``right_cm`` are the distances from these typed sites to the site itself.
    """
    out[0] = 1024
    out[1] = _whole(np.log(np.float32(mass + 1e-6)))
    out[2] = _whole(np.log(np.float32(mass_left + 1e-6)))
    out[3] = _whole(np.log(np.float32(mass_right + 1e-6)))
    for i in range(2):
        out[4 + 2 * i] = _whole(np.log(np.float32(max(reach[i] + left_cm, 0.0) + 1e-3)))
        out[5 + 2 * i] = _whole(np.log(np.float32(max(reach[2 + i] + right_cm, 0.0) + 1e-3)))


@inlined
def fill_tokens(
    cm, t, near_left, near_right, key, f, b, lane, scales, num_states, num_top, table, whole, top,
    stamp, stamp_id, signature, states, rows, target, observed, typed_cm, ends, listed, count,
    reach, scratch, out,
):  # fmt: skip
    """Fill the tokens (S, C) of one pair.

    Call it right after :func:`describe_site` for the same pair and with the same arguments: it
    reads the column CARRIER that this has set in ``table``. ``scratch`` is the buffer of
    :func:`token_scratch` that :func:`rank_table` has filled.
    """
    out[:, :] = 0
    half = out.shape[0] // 2
    last = typed_cm.shape[0] - 1
    left_cm = cm - typed_cm[max(t, 0)]
    right_cm = typed_cm[min(t + 1, last)] - cm
    # Weights for the posterior of one state: the same formula as for the site in describe_site.
    stay = (1.0 - near_left) * (1.0 - near_right)
    from_left = (1.0 - near_left) * near_right
    from_right = near_left * (1.0 - near_right)
    both = near_left * near_right
    total = stay * whole[0] + from_left + from_right * whole[3] + both
    w_fb, w_f = stay * scales[0] / total, from_left * scales[1] / total
    w_b = from_right * scales[2] / total
    w_1 = both / (num_states * total)
    scale_b = scales[2] / max(whole[3], 1e-30)
    carriers, others = 0, half
    for i in range(num_top):
        r = scratch[0, i]
        s = top[r]
        x, y = f[s, lane], b[s, lane]
        if x <= np.float32(0.0):
            continue
        if table[r, CARRIER] > 0.0:
            if carriers == half:
                continue
            place = carriers
            carriers += 1
        else:
            if others == 2 * half:
                continue
            place = others
            others += 1
        _fill(w_fb * (x * y) + w_f * x + w_b * y + w_1, x * scales[1], y * scale_b,
              table[r, REACH:], left_cm, right_cm, out[place])  # fmt: skip
    if carriers == half:
        return
    here = states[max(t, 0) // WORD if states.shape[0] > 1 else 0]
    mass = key.view(np.int32)
    size = 0
    for i in range(count):
        s = listed[i]
        if stamp[s] >= stamp_id or f[s, lane] <= np.float32(0.0):
            continue
        rank = (np.int64(mass[s] >> 10) << 42) | np.int64(signature[here[s]] >> np.uint64(22))
        size = _insert(rank, s, size, half - carriers, scratch[1], scratch[2])
    for i in range(size):
        s = scratch[2, i]
        x, y = f[s, lane], b[s, lane]
        find_reach(s, t, states, rows, target, observed, typed_cm, ends[s], reach)
        _fill(w_fb * (x * y) + w_f * x + w_b * y + w_1, x * scales[1], y * scale_b, reach,
              left_cm, right_cm, out[carriers + i])  # fmt: skip


def empty_tokens(num_pairs: int, num_tokens: int) -> np.ndarray:
    """Allocate the tokens of pairs in doubt, for :func:`collect_evidence` to fill.

    Parameters
    ----------
    num_pairs
        Pairs, >= 0.
    num_tokens
        Tokens of each pair, S: an even number in [2, MAX_TOKENS].

    Returns
    -------
    Shape (pairs, S, len(TOKEN_FEATURES)), int16, in multiples of TOKEN_UNIT, not initialised. The
    first S / 2 tokens are for carriers of the minor allele, the others for states with the other
    allele, the most probable first in either half.

    Raises
    ------
    ValueError
        If ``num_tokens`` is odd or outside [2, MAX_TOKENS].
    """
    if num_tokens % 2 or not 2 <= num_tokens <= MAX_TOKENS:
        raise ValueError(f"{num_tokens} tokens: an even number in [2, {MAX_TOKENS}] was expected")
    return np.empty((num_pairs, num_tokens, len(TOKEN_FEATURES)), np.int16)
