"""Li-Stephens copying of target haplotypes from states of their own, which change by word.

Kernels hold only loops; the functions that call them check the arguments. Notation: T typed sites
in W words of 32, K states (slots) of a word, M sites of a window. All masses are float32, in rows
whose length is rounded up to a multiple of 64 slots.

Which states have the minor allele is looked up once for a word, for all of its sites: rare sites
get a list of slots, common sites a mask with a bit for each slot. Several targets walk back
together, word by word, so that the parts of the panel that they look up stay in the cache.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying.carriers import MinorAlleles
from ragimpute.copying.forward_backward import (
    backward_states,
    forward_rows,
    forward_word,
    mismatch_words,
    same_slots,
)
from ragimpute.kernels.bit_transpose import SQUARE, turn_squares
from ragimpute.kernels.bits import WORD, trailing_zeros
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel
from ragimpute.kernels.simd_floats import LANES, load, masked, rows_of_lanes, splat, total


def padded_slots(num_states: int) -> int:
    """The length of a row of masses: ``num_states`` rounded up to a multiple of 64."""
    return -(-num_states // SQUARE) * SQUARE


def states_scratch(num_words: int, num_states: int, num_targets: int = 1) -> tuple[np.ndarray, ...]:
    """Allocate the buffers of the forward and backward passes of some haplotypes.

    In this order: forward masses at the starts of words, for each target; one word's forward rows,
    and their sums; backward masses, and their sums, for each target; mismatches of each state.
    """
    lanes = padded_slots(num_states) // LANES
    return (
        rows_of_lanes(num_targets, num_words + 1, lanes).reshape(num_targets, num_words + 1, -1),
        rows_of_lanes(WORD, lanes).reshape(WORD, -1),
        np.empty(WORD, np.float32),
        rows_of_lanes(num_targets, lanes).reshape(num_targets, -1),
        np.empty(num_targets, np.float32),
        np.empty(num_states, np.uint32),
    )


def sites_scratch(minor: MinorAlleles, num_states: int) -> tuple[np.ndarray, ...]:
    """Allocate the buffers for which states of a word have the minor allele.

    In this order: products f b of each slot; for each site the head of its linked list of slots;
    slots and links of all lists; which sites have a list, as bits; for each common site a mask of
    slots; the slots whose states have the minor allele of a rare site.
    """
    squares = 2 + int(np.diff(minor.common_edges).max(initial=0)) // SQUARE
    return (
        rows_of_lanes(padded_slots(num_states) // LANES).reshape(-1),
        np.empty(minor.most_sites, np.int32),
        np.empty((max(1, minor.longest * num_states), 2), np.int32),
        np.empty(minor.most_sites // SQUARE + 1, np.uint64),
        np.zeros((squares * SQUARE, padded_slots(num_states) // SQUARE), np.uint64),
        np.empty(num_states, np.int32),
    )


@inlined
def _look_up(w, here, num_haplotypes, minor, head, links, listed, masks, some):
    """Find which states have the minor allele at word w's sites, as lists and masks of slots."""
    edges, offsets, sites, _, common_edges, bits = minor
    num_states = here.shape[0]
    for i in range(edges[w + 1] - edges[w]):
        head[i] = -1
    for i in range((edges[w + 1] - edges[w]) // SQUARE + 1):
        listed[i] = np.uint64(0)
    # Most states have no rare minor allele in a word: first pick out those that do.
    num = 0
    for s in range(num_states):
        k = w * num_haplotypes + np.int64(here[s])
        some[num] = s
        num += offsets[k + 1] > offsets[k]
    at = 0
    for n in range(num):
        s = some[n]
        k = w * num_haplotypes + np.int64(here[s])
        for i in range(offsets[k], offsets[k + 1]):
            u = sites[i] - edges[w]
            links[at, 0] = s
            links[at, 1] = head[u]
            head[u] = at
            listed[u // SQUARE] |= np.uint64(1) << np.uint64(u % SQUARE)
            at += 1
    if common_edges[w] == common_edges[w + 1]:
        return
    first = common_edges[w] // SQUARE
    for j in range(first, (common_edges[w + 1] - 1) // SQUARE + 1):
        rows = masks[(j - first) * SQUARE : (j - first + 1) * SQUARE]
        row = bits[j]
        for g in range(masks.shape[1]):
            low = g * SQUARE
            stop = min(SQUARE, num_states - low)
            for i in range(stop):
                rows[i, g] = row[np.uint32(here[low + i])]
            for i in range(stop, SQUARE):
                rows[i, g] = np.uint64(0)
        turn_squares(rows.reshape(-1), masks.shape[1])


@inlined_reordered
def _products(f, b, num_states, product):
    """Write the products f b into ``product``; returns their sum and the sum of ``b``."""
    sum_fb = np.float32(0.0)
    sum_b = np.float32(0.0)
    for s in range(num_states):
        fb = f[s] * b[s]
        product[s] = fb
        sum_fb += fb
        sum_b += b[s]
    return sum_fb, sum_b


@inlined
def _weighed(at, weights, product, f, b):
    """both * product + left * f + right * b + each, for the 16 slots of row ``at``."""
    both, left, right, each = weights
    return (both * load(product, at) + left * load(f, at)) + (right * load(b, at) + each)


@inlined
def _masked_sum(mask, both, left, right, each, product, f, b):
    """Sum both * product + left * f + right * b + each over the slots of a mask."""
    weights = (splat(both), splat(left), splat(right), splat(each))
    even = splat(np.float32(0.0))
    odd = splat(np.float32(0.0))
    for g in range(mask.shape[0]):
        word = mask[g]
        if word == np.uint64(0):
            continue
        for i in range(0, SQUARE // LANES, 2):
            at = (g * SQUARE) // LANES + i
            x = _weighed(at, weights, product, f, b)
            even = even + masked(x, word >> np.uint64(i * LANES))
            y = _weighed(at + 1, weights, product, f, b)
            odd = odd + masked(y, word >> np.uint64((i + 1) * LANES))
    return total(even + odd)


@inlined
def carry_interval(
    start, stop, w, common, f, b, total_f, total_b, num_states, near, minor, product, head,
    links, listed, masks, flip, first_site, out,
):  # fmt: skip
    """Compute P(ALT) at the sites [start, stop) of one interval between two typed sites.

    Only sites at which some state has the minor allele are written; :func:`nobody_carries` has set
    the others. ``f`` divided by ``total_f`` sums to 1. ``b`` divided by ``total_b`` sums to 1, or
    to less if states have changed at a word's edge and their masses were dropped.

    ``common`` counts the common sites before ``stop``; the number before ``start`` is returned.
    """
    edges, _, _, common_sites, common_edges, _ = minor
    first_mask = common_edges[w] // SQUARE * SQUARE
    one = np.float32(1.0)
    share = one / np.float32(num_states)
    scale_f = one / total_f
    scale_b = one / total_b
    scale = scale_f * scale_b * np.float32(num_states)
    scales = (scale, scale_f, scale_b)
    sum_fb, sum_b = _products(f, b, num_states, product)
    sums = (sum_fb * scale, sum_b * scale_b)
    while common > common_edges[w] and common_sites[common - 1] >= start:
        common -= 1
        u = common_sites[common]
        both, left, right, each, whole = _weights(u, near, scales, sums, share)
        p = _masked_sum(masks[common - first_mask], both, left, right, each, product, f, b)
        _put(p / whole, u, flip, first_site, out)
    low = start - edges[w]
    high = stop - edges[w]
    for i in range(low // SQUARE, (high - 1) // SQUARE + 1):
        word = listed[i]
        if i == low // SQUARE:
            word = (word >> np.uint64(low % SQUARE)) << np.uint64(low % SQUARE)
        if i == high // SQUARE:
            word &= (np.uint64(1) << np.uint64(high % SQUARE)) - np.uint64(1)
        while word != np.uint64(0):
            site = i * SQUARE + np.int64(trailing_zeros(word))
            word &= word - np.uint64(1)
            u = edges[w] + site
            both, left, right, each, whole = _weights(u, near, scales, sums, share)
            p = np.float32(0.0)
            k = head[site]
            while k >= 0:
                s = links[k, 0]
                p += both * product[s] + left * f[s] + right * b[s] + each
                k = links[k, 1]
            _put(p / whole, u, flip, first_site, out)
    return common


@inlined
def _weights(u, near, scales, sums, share):
    """The weights of f b, f, b and a constant in a state's posterior at site u.

    They belong to the four cases of a switch on neither side of the site, on the right side only,
    on the left side only, and on both sides. ``scales``: factors that normalise f b, f and b;
    ``sums``: the normalised sums of f b and of b over all states. Also returns the sum of the
    posterior over all states, to divide by.
    """
    one = np.float32(1.0)
    l = near[0][u]  # noqa: E741
    r = near[1][u]
    both = (one - l) * (one - r)
    left = (one - l) * r
    right = l * (one - r)
    whole = both * sums[0] + left + right * sums[1] + l * r
    return both * scales[0], left * scales[1], right * scales[2], l * r * share, whole


@inlined
def _put(p, u, flip, first_site, out):
    """Write P(ALT) of site u, given the probability of the minor allele."""
    p = min(max(p, np.float32(0.0)), np.float32(1.0))
    out[u - first_site] = np.float32(1.0) - p if flip[u] else p


@kernel
def begin_walk(words, states, target, observed, rho, err, scratch):
    """Walk n targets forward over all words, and set the masses to walk back with.

    The targets walk together, word by word, so that the parts of the panel that they look up stay
    in the cache. ``states`` (n, 1 or W, K); ``target`` and ``observed`` (n, W).
    """
    checkpoints, _, _, backward, totals, mismatch = scratch
    num, _, n = states.shape
    num_words = words.shape[0]
    for i in range(num):
        checkpoints[i, num_words, :] = np.float32(1.0) / np.float32(n)
        totals[i] = np.float32(1.0)
    for w in range(num_words):
        for i in range(num):
            totals[i] = forward_word(
                w, totals[i], words, states[i], target[i], observed[i], rho, err, checkpoints[i],
                mismatch,
            )  # fmt: skip
    for i in range(num):
        for s in range(n):
            checkpoints[i, num_words, s] *= totals[i]
        backward[i, :] = np.float32(1.0)
        totals[i] = np.float32(n)


@inlined
def nobody_carries(first_site, flip, out):
    """Set P(ALT) as if no state had the minor allele, at the sites from ``first_site`` on."""
    for i in range(out.shape[0]):
        here = out[i]
        for u in range(out.shape[1]):
            here[u] = np.float32(1.0) if flip[first_site + u] else np.float32(0.0)


@inlined
def begin_word(
    w, i, first, last, words, states, target, observed, rho, err, bounds, minor, scratch, carried
):
    """Prepare the buffers for target i at word w, whose typed sites are [first, last)."""
    checkpoints, rows, sums, backward, _, mismatch = scratch
    _, head, links, listed, masks, some = carried
    num_words, num_haplotypes = words.shape
    num_lists = states.shape[1]
    here = states[i, min(w, num_lists - 1)]
    start = checkpoints[i, w]
    if num_lists > 1:
        if w < num_words - 1:
            same_slots(states[i, w + 1], here, backward[i], np.float32(0.0))
        if w > 0:
            same_slots(states[i, w - 1], here, start, np.float32(0.0))
    mismatch_words(words[w], here, target[i, w], observed[i, w], mismatch)
    if bounds[first + 1 if w else 0] < bounds[last + 1]:
        forward_rows(start, mismatch, first, last, rho, err, rows, sums)
        _look_up(w, here, num_haplotypes, minor, head, links, listed, masks, some)


@inlined
def step_back(i, t, first, rho, err, scratch):
    """Move target i's backward masses from typed site t + 1 to t; its word begins at ``first``."""
    _, _, _, backward, totals, mismatch = scratch
    gap = rho[t + 1] if t + 1 < rho.shape[0] else np.float32(0.0)
    totals[i] = backward_states(backward[i], mismatch, t - first, gap, totals[i], err[t])


@inlined
def before_typed(num_states, rows, sums):
    """Set the forward row for sites before the first typed site: all states are equally likely."""
    rows[0, :num_states] = np.float32(1.0) / np.float32(num_states)
    sums[0] = np.float32(1.0)


@kernel
def copy_slots(
    words, states, target, observed, rho, err, bounds, near, minor, flip, low, high, scratch,
    carried, out,
):  # fmt: skip
    """Write P(ALT) of n haplotypes at the core sites of words [low, high) to ``out`` (n, sites).

    Call :func:`begin_walk` first, then this from the last words to the first: each call goes on
    from the word ``high`` at which the call before ended. ``states`` (n, 1 or W, K); ``target`` and
    ``observed`` (n, W).
    """
    _, rows, sums, backward, totals, _ = scratch
    product, head, links, listed, masks, _ = carried
    n = states.shape[2]
    first_site = minor[0][low]
    nobody_carries(first_site, flip, out)
    for w in range(high - 1, low - 1, -1):
        first = w * WORD
        last = min(rho.shape[0], first + WORD)
        for i in range(states.shape[0]):
            begin_word(w, i, first, last, words, states, target, observed, rho, err, bounds, minor,
                       scratch, carried)  # fmt: skip
            common = minor[4][w + 1]
            for t in range(last - 1, first - 1 if w else -2, -1):
                if t < 0:
                    before_typed(n, rows, sums)
                if bounds[t + 1] < bounds[t + 2]:
                    j = max(t, 0) - first
                    common = carry_interval(
                        bounds[t + 1], bounds[t + 2], w, common, rows[j], backward[i], sums[j],
                        totals[i], n, near, minor, product, head, links, listed, masks, flip,
                        first_site, out[i],
                    )  # fmt: skip
                if t >= 0:
                    step_back(i, t, first, rho, err, scratch)
