"""What the copying says at each untyped site in doubt, as numbers for a network.

Only pairs (target haplotype, site) whose Li-Stephens posterior is in doubt are described. For each,
the forward and backward rows of the copying model are walked once more, and the states that matter
there (the most probable ones, and the carriers of the minor allele where they are few) are
measured: how far they match the target to each side, exactly and with one mismatch. No other
haplotype of the panel is touched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import njit

from ragimpute.copying import (
    WORD,
    CopyingParameters,
    Window,
    backward_site,
    carrier_mass,
    forward_pass,
    forward_rows,
    interval_masses,
    leading_zeros,
    mismatch_words,
    pack_words,
    run_parts,
    same_slots,
    set_slots,
    step_back,
    switch_probs,
    trailing_zeros,
)

DOUBT = 0.01
NUM_TOP = 24
LOGIT_LIMIT = 9.0
# Posterior masses that differ by less than this share are equal: float32 sums know no better.
TIE = 1e-4

#: Meaning and unit of each feature; "minor" is the allele that is rarer in the panel.
FEATURES = (
    "posterior",  # logit of the Li-Stephens probability of the minor allele, within +-9
    "posterior_left",  # the same from typed sites on the left alone
    "posterior_right",  # the same from typed sites on the right alone
    "maf",  # logit of the minor allele's frequency in the panel without the target's own sample
    "num_carriers",  # ln(1 + carriers among the states)
    "gap_left",  # ln of cM to the typed site on the left, + 1e-4
    "gap_right",  # the same on the right
    "carrier_match",  # ln of the longest match of a carrier, cM + 1e-3, both sides added
    "carrier_match_short",  # ln of the longest shorter side of a carrier's match
    "carrier_match_1",  # as carrier_match, past one mismatch on each side
    "carrier_match_short_1",  # as carrier_match_short, past one mismatch on each side
    "other_match",  # the same four of states that carry the other allele
    "other_match_short",
    "other_match_1",
    "other_match_short_1",
    "carrier_left",  # posterior-weighted mean ln length of carriers' matches to the left
    "carrier_right",
    "other_left",
    "other_right",
    "num_states",  # ln of the effective number of states, 1 / sum p^2
    "top_posterior",  # posterior of the most probable state, in (0, 1]
    "top_share",  # posterior of the most probable states together, in (0, 1]
    "top_carriers",  # share of the most probable states that are carriers, in [0, 1]
    "best_rank",  # ln(1 + states more probable than any carrier), NUM_TOP if none is among them
    "panel_size",  # ln of the number of states
    "density",  # ln of typed sites per cM around the site
)
NUM_FEATURES = len(FEATURES)


@njit(cache=True, nogil=True, inline="always")
def _logit(p):
    """Logit of a probability, kept within the limits."""
    p = min(max(p, 1e-6), 1.0 - 1e-6)
    return min(max(np.log(p / (1.0 - p)), -LOGIT_LIMIT), LOGIT_LIMIT)


@njit(cache=True, nogil=True)
def _top_states(mass, n, top, top_mass):
    """The states with most posterior mass, into ``top``, in falling order; returns how many."""
    size = 0
    limit = top.shape[0]
    for s in range(n):
        v = mass[s, 0]
        if size == limit and v <= top_mass[size - 1]:
            continue
        i = size if size < limit else limit - 1
        while i > 0 and top_mass[i - 1] < v:
            if i < limit:
                top_mass[i] = top_mass[i - 1]
                top[i] = top[i - 1]
            i -= 1
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
    best_rank = top.shape[0]
    for i in range(num_top):
        s = top[i]
        stamp[s] = stamp_id
        side = 0 if _is_carrier(site, here[s], offsets, carriers, row, bits) else 1
        if side == 0:
            num_carriers += 1
            best_rank = min(best_rank, i)
        _lengths(s, t, j, first, word_bits, last, following, typed_cm, cm, lengths)
        _longest(lengths, best[side])
        weight = mass[s, 0] + 1e-12
        weighted[side, 0] += weight
        weighted[side, 1] += weight * np.log(lengths[0] + 1e-3)
        weighted[side, 2] += weight * np.log(lengths[1] + 1e-3)
    if row[site] < 0:
        for i in range(offsets[site], offsets[site + 1]):
            s = slot_of[carriers[i]]
            if s < n and stamp[s] != stamp_id:
                _lengths(s, t, j, first, word_bits, last, following, typed_cm, cm, lengths)
                _longest(lengths, best[0])
                weight = mass[s, 0] + 1e-12
                weighted[0, 0] += weight
                weighted[0, 1] += weight * np.log(lengths[0] + 1e-3)
                weighted[0, 2] += weight * np.log(lengths[1] + 1e-3)
    if num_carriers > 0:  # equally probable states come in no order that means anything
        equal = mass[top[best_rank], 0] * (1.0 + TIE)
        while best_rank > 0 and mass[top[best_rank - 1], 0] <= equal:
            best_rank -= 1
    for side in range(2):
        for i in range(4):
            out[7 + 4 * side + i] = np.log(best[side, i] + 1e-3)
        for i in range(2):
            known = weighted[side, 0] > 0.0
            out[15 + 2 * side + i] = (
                weighted[side, 1 + i] / weighted[side, 0] if known else np.log(1e-3)
            )
    top_sum = 0.0
    for i in range(num_top):
        top_sum += mass[top[i], 0]
    out[19] = np.log(max(effective, 1.0))
    out[20] = mass[top[0], 0] / sum_fb
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
def _evidence_haplotype(
    words, states, target, observed, rho, err, near, compact, position_cm, typed_cm, interval,
    num_minor, own, sites, slot_of, scratch, out,
):  # fmt: skip
    """Features of one haplotype at ``sites`` (ascending), into ``out`` (num sites, F)."""
    checkpoints, rows, b, mismatch, mass, last_rows, following, stamp = scratch
    num_typed = rho.shape[0]
    num_words = words.shape[0]
    n = states.shape[1]
    sums = np.zeros(4, np.float32)
    top = np.zeros(NUM_TOP, np.int64)
    top_mass = np.zeros(NUM_TOP, np.float32)
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
                num_top = _top_states(mass, n, top, top_mass)
                squares = 0.0
                for s in range(n):
                    squares += np.float64(mass[s, 0]) * mass[s, 0]
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


def pairs_in_doubt(prob: np.ndarray, typed: np.ndarray, *, doubt: float = DOUBT) -> np.ndarray:
    """Pairs (haplotype, site) whose allele the copying leaves open.

    Parameters
    ----------
    prob
        Shape (n, m), float32: Li-Stephens probability of ALT.
    typed
        Shape (n, m), bool: observed alleles, which are never in doubt.
    doubt
        Least probability of the less likely allele, in (0, 0.5).

    Returns
    -------
    Shape (pairs, 2), int64: haplotype and site, by haplotype and then site.
    """
    return np.argwhere((prob > doubt) & (prob < 1 - doubt) & ~typed)


def collect_evidence(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    pairs: np.ndarray,
    *,
    states: Callable[[int], np.ndarray],
    own: Callable[[int], np.ndarray] | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Features of pairs in doubt.

    Parameters
    ----------
    window, alleles, parameters, states, threads
        As for :func:`ragimpute.copying.copy_haplotypes`.
    pairs
        Shape (pairs, 2), int64: column of ``alleles`` and core site, sorted.
    own
        For target haplotype i, the panel haplotypes of its own sample, which a left-out haplotype
        must not see: they do not count in the frequency either (it would give the answer away).
        None: no target is in the panel.

    Returns
    -------
    Shape (pairs, len(FEATURES)), float32; all are finite and about the minor allele.
    """
    out = np.empty((len(pairs), NUM_FEATURES), dtype=np.float32)
    if len(pairs) == 0:
        return out
    target, observed = pack_words(alleles)
    rho = switch_probs(window.typed.position_cm, switch_rate=parameters.switch_rate)
    near = window.flank_switch_probs(parameters.switch_rate)
    err = np.float32(parameters.mismatch_prob)
    words, compact = window.typed.words, window.compact()
    interval = np.searchsorted(window.typed_index, np.arange(window.num_sites), side="right") - 1
    num_minor = window.num_minor()
    nobody = np.zeros(0, np.int32)
    edges = np.searchsorted(pairs[:, 0], np.arange(alleles.shape[1] + 1))
    sites = np.ascontiguousarray(pairs[:, 1] + window.core[0])

    def run(part: range) -> None:
        scratch: tuple[np.ndarray, ...] | None = None
        for i in part:
            low, high = edges[i], edges[i + 1]
            if low == high:
                continue
            state = states(i)
            k = state.shape[1]
            if scratch is None or scratch[2].shape[0] != k:
                scratch = _scratch(len(words), k)
                slot_of = np.full(window.typed.num_haplotypes, k, dtype=np.int32)
            _evidence_haplotype(
                words, state, target[i], observed[i], rho, err, near, compact, window.position_cm,
                window.typed.position_cm, interval, num_minor,
                nobody if own is None else own(i), sites[low:high], slot_of, scratch,
                out[low:high],
            )  # fmt: skip

    run_parts(run, alleles.shape[1], threads)
    return out


def _scratch(num_words: int, k: int) -> tuple[np.ndarray, ...]:
    """Buffers of one haplotype's walk."""
    return (
        np.empty((num_words + 1, k), np.float32),
        np.empty((WORD, k), np.float32),
        np.empty(k, np.float32),
        np.empty(k, np.uint32),
        np.zeros((k + 1, 4), np.float32),
        np.empty((num_words + 1, k, 2), np.int32),
        np.empty((k, 2), np.int32),
        np.empty(k, np.int64),
    )
