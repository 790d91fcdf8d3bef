"""What is measured of one target haplotype between two typed sites, and at a site in doubt there.

Kernels hold only loops; ``evidence`` says what each feature means and checks what goes in. The
walks along the typed sites are in ``evidence_walks``.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying_kernel import WORD, leading_zeros, trailing_zeros
from ragimpute.kernels import inlined
from ragimpute.lanes import LANES, larger, load, reached, splat, store

NUM_TOP = 24
LOGIT_LIMIT = 9.0
# Posterior masses that differ by less than this share are equal: float32 sums know no better.
TIE = 1e-4


@inlined
def logit(p):
    """Logit of a probability, kept within the limits."""
    p = min(max(p, 1e-6), 1.0 - 1e-6)
    return min(max(np.log(p / (1.0 - p)), -LOGIT_LIMIT), LOGIT_LIMIT)


# States share 32 groups, whose maxima bound the masses of the most probable NUM_TOP from below.
_GROUPS = 2 * LANES
# Columns of a table of the most probable states: posterior mass, whether it is a carrier, how far
# the match reaches (see find_reach), ln(1 + typed sites) of the match to the left and to the right.
_MASS, CARRIER, REACH, _LOGS = 0, 1, 2, 10
TABLE_COLUMNS = 12
# A room of more cM than this is as good as any.
MOST_ROOM_CM = 2.0


def padded(num_states: int) -> int:
    """The length of an array of masses: whole groups of 16 lanes."""
    return -(-num_states // _GROUPS) * _GROUPS


@inlined
def _group_maxima(key, few):
    """Largest masses of 32 groups of states into ``few`` rows 0 and 1; returns sum and effective K.

    ``key`` (padded K,), -1 where there is no state. The effective number is 1 / sum p^2.
    """
    rows = key.reshape(-1, LANES)
    zero = splat(np.float32(0.0))
    even, odd = zero, zero
    total, squares = zero, zero
    for i in range(0, rows.shape[0], 2):
        x = load(rows, i)
        y = load(rows, i + 1)
        even = larger(even, x)
        odd = larger(odd, y)
        x = larger(x, zero)
        y = larger(y, zero)
        total = total + (x + y)
        squares = squares + (x * x + y * y)
    store(few, 0, total)
    store(few, 1, squares)
    sum_1 = 0.0
    sum_2 = 0.0
    for lane in range(LANES):
        sum_1 += few[0, lane]
        sum_2 += few[1, lane]
    store(few, 0, even)
    store(few, 1, odd)
    return sum_1, sum_1 * sum_1 / max(sum_2, 1e-37)


@inlined
def _least_top_mass(num_states, few):
    """A mass that NUM_TOP states reach at least, or 0, from the maxima of 32 groups."""
    if num_states <= 4 * LANES:
        return np.float32(0.0)
    # NUM_TOP of the groups have maxima of at least the (32 - NUM_TOP + 1)th smallest.
    least = few[2]
    limit = _GROUPS - NUM_TOP + 1
    size = 0
    for i in range(_GROUPS):
        v = few[i // LANES, i % LANES]
        if size == limit:
            if v >= least[size - 1]:
                continue
            size -= 1
        at = size
        while at > 0 and least[at - 1] > v:
            least[at] = least[at - 1]
            at -= 1
        least[at] = v
        size += 1
    return least[size - 1]


@inlined
def _keep_largest(ranks, states, size, kept):
    """Move the ``kept`` largest of the first ``size`` ranks, with their states, to the front."""
    low = 0
    high = size - 1
    while low < high:
        pivot = ranks[(low + high) >> 1]
        i = low
        j = high
        while i <= j:
            while ranks[i] > pivot:
                i += 1
            while ranks[j] < pivot:
                j -= 1
            if i <= j:
                ranks[i], ranks[j] = ranks[j], ranks[i]
                states[i], states[j] = states[j], states[i]
                i += 1
                j -= 1
        if kept <= j:
            high = j
        elif kept > i:
            low = i
        else:
            return


@inlined
def _top_states(key, here, signature, few, top, ranks):
    """The states with most posterior mass, first in ``top`` (K,); returns how many.

    ``key`` (padded K,) are the masses, -1 where there is no state. Masses are compared without
    their last ten bits (a share of 1e-4), and equal ones by the haplotypes' signatures, so that
    neither rounding nor the haplotypes' order decides: the two make one number.
    """
    rows = key.reshape(-1, LANES)
    least = few[3]
    least[0] = _least_top_mass(here.shape[0], few)
    least.view(np.int32)[0] &= ~np.int32(1023)
    bound = splat(least[0])
    mass = key.view(np.int32)
    size = 0
    for i in range(rows.shape[0]):
        candidates = reached(load(rows, i), bound)
        while candidates != np.uint64(0):
            s = i * LANES + np.int64(trailing_zeros(candidates))
            candidates &= candidates - np.uint64(1)
            top[size] = s
            ranks[size] = (np.int64(mass[s] >> 10) << 42) | np.int64(
                signature[here[s]] >> np.uint64(22)
            )
            size += 1
    if size > NUM_TOP:
        _keep_largest(ranks, top, size, NUM_TOP)
        size = NUM_TOP
    return size


@inlined
def _find_ends(s, t, states, rows, target, observed, num_typed, ends):
    """Typed sites that end a state's match around the interval right of typed site t.

    ``ends`` (4,): the first and the second mismatch to the left, -1 if there is none, and to the
    right, ``num_typed`` if there is none. ``rows`` (H, W) are the panel's words by haplotype. A
    state that came to its slot or left it ends there.
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
    """How far a state's match reaches around the interval right of typed site t, into ``reach``.

    cM from the typed site on the left to the first and the second mismatch on the left, and from
    the one on the right to those on the right; then the typed sites up to each of the four.
    ``ends`` (4,) keeps them: as long as the first to the left is not passed, all four stay what
    they are.
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
    """Measure the most probable states between typed sites t and t + 1; returns how many.

    ``key`` (padded K,) times ``scale``: posterior masses f b, -1 where there is no state. ``table``
    (NUM_TOP, TABLE_COLUMNS) gets a row for each of the most probable; ``whole`` the sum of the
    masses, the effective number of states, the typed sites per cM around. ``ends`` (K, 4): see
    find_reach.
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
    """Let a state's match, ``left_cm`` and ``right_cm`` past the typed sites beside, count."""
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
    """Masses f b, f and b of the carriers listed, and how many the target may copy."""
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
    """Fill the features of one pair. ``listed`` (count,): the slots of the site's carriers.

    Where these are bits, they need not be listed: ``carried`` is what :func:`sum_carriers` gives.
    Column ``lane`` of ``f`` are the masses of the left; times ``scales`` (3,) f b is what it is in
    the table, those of f sum to 1, and those of b to ``whole[3]``. A hidden state has no mass.
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
    # Longest matches of carriers (0) and others (1): both sides added, the shorter side; the same
    # past one mismatch; then the posterior-weighted mean log length to each side.
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
    if num_carriers > 0:  # equally probable states come in no order that means anything
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
