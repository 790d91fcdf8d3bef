"""The walk that measures the evidence of one haplotype at its sites in doubt.

Kernels hold only loops; ``evidence`` says what each feature means and checks what goes in.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ragimpute.copying_kernel import (
    WORD,
    backward_site,
    carrier_mass,
    forward_pass,
    forward_rows,
    interval_masses,
    leading_zeros,
    mismatch_words,
    same_slots,
    set_slots,
    step_back,
    trailing_zeros,
)

NUM_TOP = 24
LOGIT_LIMIT = 9.0
# Posterior masses that differ by less than this share are equal: float32 sums know no better.
TIE = 1e-4


@njit(cache=True, nogil=True, inline="always")
def _logit(p):
    """Logit of a probability, kept within the limits."""
    p = min(max(p, 1e-6), 1.0 - 1e-6)
    return min(max(np.log(p / (1.0 - p)), -LOGIT_LIMIT), LOGIT_LIMIT)


@njit(cache=True, nogil=True)
def haplotype_signatures(num_haplotypes, offsets, carriers, row, bits):
    """A number for each haplotype that depends on its alleles alone, shape (H,), uint64."""
    out = np.zeros(num_haplotypes, np.uint64)
    for site in range(row.shape[0]):
        # splitmix64 of the site's number
        z = np.uint64(site + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        if row[site] < 0:
            for i in range(offsets[site], offsets[site + 1]):
                out[carriers[i]] ^= z
        else:
            for w in range(bits.shape[1]):
                word = bits[row[site], w]
                while word != np.uint64(0):
                    out[w * 64 + trailing_zeros(word)] ^= z
                    word &= word - np.uint64(1)
    return out


@njit(cache=True, nogil=True)
def _top_states(mass, here, signature, top, top_mass):
    """The states with most posterior mass, into ``top``, in falling order; returns how many.

    Masses are compared without their last ten bits (a share of 1e-4), and equal ones by the
    haplotypes' signatures, so that neither rounding nor the haplotypes' order decides.
    """
    size = 0
    limit = top.shape[0]
    coarse = mass[0].view(np.int32)
    for s in range(here.shape[0]):
        v = coarse[s] >> 10
        if size == limit and v < top_mass[size - 1]:
            continue
        mine = signature[here[s]]
        i = size if size < limit else limit
        while i > 0 and (
            top_mass[i - 1] < v or (top_mass[i - 1] == v and signature[here[top[i - 1]]] < mine)
        ):
            if i < limit:
                top_mass[i] = top_mass[i - 1]
                top[i] = top[i - 1]
            i -= 1
        if i < limit:
            top_mass[i] = v
            top[i] = s
            if size < limit:
                size += 1
    return size


@njit(cache=True, nogil=True)
def _left_mismatches(bits, j, first, last_1, last_2):
    """The last and the last but one mismatch at or before bit j; -1 if there is none."""
    low = bits & np.uint32(0xFFFFFFFF >> (31 - j))
    if low == np.uint32(0):
        return last_1, last_2
    a = 31 - np.int64(leading_zeros(low))
    low &= ~(np.uint32(1) << np.uint32(a))
    if low == np.uint32(0):
        return first + a, last_1
    return first + a, first + 31 - np.int64(leading_zeros(low))


@njit(cache=True, nogil=True)
def _right_mismatches(bits, j, first, next_1, next_2):
    """The first and second mismatch after bit j."""
    if j >= 31:
        return next_1, next_2
    high = np.uint64(bits >> np.uint32(j + 1))
    if high == np.uint64(0):
        return next_1, next_2
    a = np.int64(trailing_zeros(high))
    high &= high - np.uint64(1)
    if high == np.uint64(0):
        return first + j + 1 + a, next_1
    return first + j + 1 + a, first + j + 1 + np.int64(trailing_zeros(high))


@njit(cache=True, nogil=True)
def _is_carrier(site, haplotype, offsets, carriers, row, bits):
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


@njit(cache=True, nogil=True)
def _lengths(s, t, j, first, word_bits, last, following, typed_cm, cm, out):
    """A state's match around ``cm``: left, right, and both past one mismatch; in cM."""
    num_typed = typed_cm.shape[0]
    a1, a2 = last[s, 0], last[s, 1]
    b1, b2 = following[s, 0], following[s, 1]
    if j >= 0:
        a1, a2 = _left_mismatches(word_bits[s], j, first, a1, a2)
        b1, b2 = _right_mismatches(word_bits[s], j, first, b1, b2)
    out[0] = cm - typed_cm[max(a1, 0)]
    out[1] = typed_cm[min(b1, num_typed - 1)] - cm
    out[2] = cm - typed_cm[max(a2, 0)]
    out[3] = typed_cm[min(b2, num_typed - 1)] - cm
    for i in range(4):
        out[i] = max(out[i], 0.0)


@njit(cache=True, nogil=True)
def _describe(
    site, cm, t, j, first, sums, masses, near_left, near_right, mass, top, num_top, effective, here,
    word_bits, last, following, typed_cm, compact, slot_of, maf, stamp, stamp_id, lengths, out,
):  # fmt: skip
    """Fill the features of one pair."""
    offsets, carriers, row, bits = compact
    sum_fb, sum_f, sum_b = masses
    n = here.shape[0]
    stay = (1.0 - near_left) * (1.0 - near_right)
    total = (
        stay * sum_fb
        + (1.0 - near_left) * near_right * sum_f
        + near_left * (1.0 - near_right) * sum_b
        + near_left * near_right
    )
    share = (
        stay * sums[0]
        + (1.0 - near_left) * near_right * sums[1]
        + near_left * (1.0 - near_right) * sums[2]
        + near_left * near_right * sums[3]
    )
    out[0] = _logit(share / total)
    out[1] = _logit(((1.0 - near_left) * sums[1] + near_left * sums[3])
                    / ((1.0 - near_left) * sum_f + near_left))  # fmt: skip
    out[2] = _logit(((1.0 - near_right) * sums[2] + near_right * sums[3])
                    / ((1.0 - near_right) * sum_b + near_right))  # fmt: skip
    out[3] = _logit(maf)
    out[4] = np.log1p(sums[3] * n)
    num_typed = typed_cm.shape[0]
    left_cm = typed_cm[max(t, 0)]
    right_cm = typed_cm[min(t + 1, num_typed - 1)]
    out[5] = np.log(max(cm - left_cm, 0.0) + 1e-4)
    out[6] = np.log(max(right_cm - cm, 0.0) + 1e-4)
    # Longest matches of carriers (0) and others (1): both sides added, the shorter side; the same
    # past one mismatch; then the posterior-weighted mean log length to each side.
    best = np.zeros((2, 4))
    weighted = np.zeros((2, 3))
    num_carriers = 0
    best_mass = np.float32(0.0)
    best_rank = top.shape[0]
    for i in range(num_top):
        s = top[i]
        stamp[s] = stamp_id
        side = 0 if _is_carrier(site, here[s], offsets, carriers, row, bits) else 1
        if side == 0:
            num_carriers += 1
            best_mass = max(best_mass, mass[0, s])
        _lengths(s, t, j, first, word_bits, last, following, typed_cm, cm, lengths)
        _longest(lengths, best[side])
        weight = mass[0, s] + 1e-12
        weighted[side, 0] += weight
        weighted[side, 1] += weight * np.log(lengths[0] + 1e-3)
        weighted[side, 2] += weight * np.log(lengths[1] + 1e-3)
    if row[site] < 0:
        for i in range(offsets[site], offsets[site + 1]):
            s = slot_of[carriers[i]]
            if s < n and stamp[s] != stamp_id:
                _lengths(s, t, j, first, word_bits, last, following, typed_cm, cm, lengths)
                _longest(lengths, best[0])
                weight = mass[0, s] + 1e-12
                weighted[0, 0] += weight
                weighted[0, 1] += weight * np.log(lengths[0] + 1e-3)
                weighted[0, 2] += weight * np.log(lengths[1] + 1e-3)
    if num_carriers > 0:  # equally probable states come in no order that means anything
        equal = np.float32(best_mass * (1.0 + TIE))
        best_rank = 0
        for i in range(num_top):
            best_rank += mass[0, top[i]] > equal
    for side in range(2):
        for i in range(4):
            out[7 + 4 * side + i] = np.log(best[side, i] + 1e-3)
        for i in range(2):
            known = weighted[side, 0] > 0.0
            out[15 + 2 * side + i] = (
                weighted[side, 1 + i] / weighted[side, 0] if known else np.log(1e-3)
            )
    top_sum = 0.0
    most = np.float32(0.0)
    for i in range(num_top):
        top_sum += mass[0, top[i]]
        most = max(most, mass[0, top[i]])
    out[19] = np.log(max(effective, 1.0))
    out[20] = most / sum_fb
    out[21] = top_sum / sum_fb
    out[22] = num_carriers / num_top
    out[23] = np.log1p(best_rank)
    out[24] = np.log(n)
    low = max(t - 5, 0)
    high = min(t + 6, num_typed - 1)
    out[25] = np.log((high - low + 1) / (typed_cm[high] - typed_cm[low] + 1e-3))


@njit(cache=True, nogil=True)
def _longest(lengths, best):
    """Raise the longest matches to a state's."""
    best[0] = max(best[0], lengths[0] + lengths[1])
    best[1] = max(best[1], min(lengths[0], lengths[1]))
    best[2] = max(best[2], lengths[2] + lengths[3])
    best[3] = max(best[3], min(lengths[2], lengths[3]))


@njit(cache=True, nogil=True)
def _past_word(word_bits, first, last):
    """Move each state's last two mismatches past a word."""
    for s in range(word_bits.shape[0]):
        a, b = _left_mismatches(word_bits[s], 31, first, last[s, 0], last[s, 1])
        last[s, 0] = a
        last[s, 1] = b


@njit(cache=True, nogil=True)
def _before_word(word_bits, first, following):
    """Move each state's next two mismatches before a word."""
    for s in range(word_bits.shape[0]):
        high = np.uint64(word_bits[s])
        if high != np.uint64(0):
            a = first + np.int64(trailing_zeros(high))
            high &= high - np.uint64(1)
            if high != np.uint64(0):
                following[s, 1] = first + np.int64(trailing_zeros(high))
            else:
                following[s, 1] = following[s, 0]
            following[s, 0] = a


@njit(cache=True, nogil=True)
def evidence_haplotype(
    words, states, target, observed, rho, err, near, compact, position_cm, typed_cm, interval,
    num_minor, signature, own, sites, slot_of, scratch, out,
):  # fmt: skip
    """Features of one haplotype at ``sites`` (ascending), into ``out`` (num sites, F)."""
    checkpoints, rows, b, mismatch, mass, last_rows, following, stamp = scratch
    num_typed = rho.shape[0]
    num_words = words.shape[0]
    n = states.shape[1]
    sums = np.zeros(4, np.float32)
    top = np.zeros(NUM_TOP, np.int64)
    top_mass = np.zeros(NUM_TOP, np.int64)
    lengths = np.zeros(4)
    forward_pass(words, states, target, observed, rho, err, checkpoints, mismatch)
    last_rows[0] = -1
    for w in range(num_words):
        here = states[min(w, states.shape[0] - 1)]
        mismatch_words(words[w], here, target[w], observed[w], mismatch)
        last_rows[w + 1] = last_rows[w]
        if w + 1 < num_words:
            _past_word(mismatch, w * WORD, last_rows[w + 1])
            after = states[min(w + 1, states.shape[0] - 1)]
            for s in range(n):
                if after[s] != here[s]:
                    last_rows[w + 1, s, :] = (w + 1) * WORD - 1
    stamp[:] = -1
    following[:] = num_typed
    b[:] = np.float32(1.0)
    i = sites.shape[0] - 1
    for w in range(num_words - 1, -2, -1):
        if i < 0:
            break
        here = states[min(max(w, 0), states.shape[0] - 1)]
        first = w * WORD
        if w >= 0:
            start = checkpoints[w]
            if states.shape[0] > 1:
                if w < num_words - 1:
                    set_slots(slot_of, states[w + 1], n)
                    same_slots(states[w + 1], here, b, np.float32(0.0))
                    for s in range(n):
                        if states[w + 1, s] != here[s]:
                            following[s, :] = (w + 1) * WORD
                if w > 0:
                    same_slots(states[w - 1], here, start, np.float32(0.0))
            set_slots(slot_of, here, -1)
            mismatch_words(words[w], here, target[w], observed[w], mismatch)
            last = min(num_typed, first + WORD)
            forward_rows(start, mismatch, first, last, rho, err, rows)
        else:
            last = 0
            first = -1
            rows[0, :] = np.float32(1.0) / np.float32(n)
        for t in range(last - 1, first - 1, -1):
            if i >= 0 and interval[sites[i]] == t:
                masses = interval_masses(rows[t - first], b, mass)
                num_top = _top_states(mass, here, signature, top, top_mass)
                squares = 0.0
                for s in range(n):
                    squares += np.float64(mass[0, s]) * mass[0, s]
                effective = np.float64(masses[0]) * masses[0] / max(squares, 1e-30)
                while i >= 0 and interval[sites[i]] == t:
                    u = sites[i]
                    count = num_minor[u]
                    for h in own:
                        if _is_carrier(u, h, compact[0], compact[1], compact[2], compact[3]):
                            count -= 1
                    maf = count / (slot_of.shape[0] - own.shape[0])
                    carrier_mass(u, compact[0], compact[1], compact[2], compact[3], slot_of, mass,
                                 sums)  # fmt: skip
                    _describe(
                        u, position_cm[u], t, t - first if w >= 0 else -1, first, sums, masses,
                        near[0][u], near[1][u], mass, top, num_top, effective, here, mismatch,
                        last_rows[max(w, 0)], following, typed_cm, compact, slot_of, maf,
                        stamp, u, lengths, out[i],
                    )  # fmt: skip
                    i -= 1
            if w >= 0:
                if t + 1 < num_typed:
                    step_back(b, rho[t + 1])
                backward_site(b, mismatch, t - first, rho[t], err)
        if w >= 0:
            _before_word(mismatch, first, following)
    for w in range(states.shape[0]):
        set_slots(slot_of, states[w], n)
