"""Li-Stephens copying of target haplotypes from states of their own, which change by word.

Kernels hold only loops; the functions that call them check the arguments. Notation: T typed sites
in W words of 32, K states (slots) of a word, M sites of a window. All masses are float32, in rows
whose length is rounded up to a multiple of 64 slots.

Which states have the minor allele is looked up once for a word, for all of its sites: rare sites
get a list of slots, common sites a mask with a bit for each slot. Several targets walk back
together, word by word, so that the parts of the panel that they look up stay in the cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.carriers import HaplotypeSites, MinorAlleles
from ragimpute.copying.forward_backward import (
    any_of,
    backward_states,
    forward_rows,
    forward_word,
    mismatch_words,
    same_slots,
)
from ragimpute.copying.window import Flanks
from ragimpute.kernels.bit_transpose import SQUARE, turn_squares
from ragimpute.kernels.bits import WORD, trailing_zeros
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel
from ragimpute.kernels.shapes import reshaped
from ragimpute.kernels.simd_floats import LANES, load, masked, rows_of_lanes, splat, total


def padded_slots(num_states: int) -> int:
    """The length of a row of masses: ``num_states`` rounded up to a multiple of 64."""
    return -(-num_states // SQUARE) * SQUARE


class SlidingTargets(NamedTuple):
    """Targets of which each copies states of its own, and the panel.

    Attributes
    ----------
    words
        Shape (W, H), uint32: the panel's typed alleles, see TypedSites.
    states
        Shape (n, W or 1, K), int32: the states of each target at each word, or at all words.
    target, observed
        Shape (n, W), uint32: the targets' alleles, and which of them were observed.
    rho, err
        Shape (T,), float32: switch probability from the site before, mismatch probability.
    """

    words: np.ndarray
    states: np.ndarray
    target: np.ndarray
    observed: np.ndarray
    rho: np.ndarray
    err: np.ndarray


class SlidingMasses(NamedTuple):
    """The buffers of the forward and backward passes of n targets.

    Attributes
    ----------
    starts
        Shape (n, W + 1, K'): forward masses at the starts of words, and the current ones.
    rows, sums
        One word's forward rows, shape (32, K'), and their sums, shape (32,).
    backward, totals
        Backward masses, shape (n, K'), and their sums, shape (n,).
    mismatch
        Shape (K,), uint32: the typed sites of a word at which each state differs from the target.
    """

    starts: np.ndarray
    rows: np.ndarray
    sums: np.ndarray
    backward: np.ndarray
    totals: np.ndarray
    mismatch: np.ndarray


class SlotLists(NamedTuple):
    """The buffers for which slots of one word have the minor allele of which of its sites.

    Attributes
    ----------
    product
        Shape (K',): f b of each slot.
    head, links
        Shape (sites of a word,), int32: where each site's linked list begins, or -1; shape (n, 2),
        int32: slot and next link of all lists.
    listed
        Which sites have a list, as bits of uint64.
    masks
        Shape (common sites, K' / 64), uint64: for each common site a bit for each slot.
    rare
        Shape (K,), int32: the slots whose states have the minor allele of a rare site.
    """

    product: np.ndarray
    head: np.ndarray
    links: np.ndarray
    listed: np.ndarray
    masks: np.ndarray
    rare: np.ndarray


class SlidingSites(NamedTuple):
    """Where P(ALT) of n targets is computed, from what, and where it is written.

    Attributes
    ----------
    bounds, near, flip
        As in :class:`ragimpute.copying.shared_kernel.SharedSites`.
    minor
        The minor alleles by haplotype.
    lists
        Buffers for one word.
    common
        Shape (1,), int64: common sites of the window that are still to come, on the way back.
    first_site
        The site of column 0 of ``prob``.
    prob
        Shape (n, sites), float32.
    """

    bounds: np.ndarray
    near: Flanks
    flip: np.ndarray
    minor: HaplotypeSites
    lists: SlotLists
    common: np.ndarray
    first_site: int
    prob: np.ndarray


def sliding_masses(num_words: int, num_states: int, num_targets: int = 1) -> SlidingMasses:
    """Allocate the buffers for the walks of ``num_targets`` targets with K states each."""
    lanes = padded_slots(num_states) // LANES
    return SlidingMasses(
        starts=rows_of_lanes(num_targets, num_words + 1, lanes).reshape(
            num_targets, num_words + 1, -1
        ),
        rows=rows_of_lanes(WORD, lanes).reshape(WORD, -1),
        sums=np.empty(WORD, np.float32),
        backward=rows_of_lanes(num_targets, lanes).reshape(num_targets, -1),
        totals=np.empty(num_targets, np.float32),
        mismatch=np.empty(num_states, np.uint32),
    )


def slot_lists(minor: MinorAlleles, num_states: int) -> SlotLists:
    """Allocate the buffers for the sites of a word."""
    squares = 2 + int(np.diff(minor.common_edges).max(initial=0)) // SQUARE
    return SlotLists(
        product=rows_of_lanes(padded_slots(num_states) // LANES).reshape(-1),
        head=np.empty(minor.most_sites, np.int32),
        links=np.empty((max(1, minor.longest * num_states), 2), np.int32),
        listed=np.empty(minor.most_sites // SQUARE + 1, np.uint64),
        masks=np.zeros((squares * SQUARE, padded_slots(num_states) // SQUARE), np.uint64),
        rare=np.empty(num_states, np.int32),
    )


@inlined
def _look_up(w, here, num_haplotypes, minor, lists):
    """Find which states have the minor allele at word w's sites, as lists and masks of slots."""
    edges, offsets, links, head = minor.edges, minor.offsets, lists.links, lists.head
    num_states = here.shape[0]
    for i in range(edges[w + 1] - edges[w]):
        head[i] = -1
    for i in range((edges[w + 1] - edges[w]) // SQUARE + 1):
        lists.listed[i] = np.uint64(0)
    # Most states have no rare minor allele in a word: first pick out those that do.
    num = 0
    for s in range(num_states):
        k = w * num_haplotypes + np.int64(here[s])
        lists.rare[num] = s
        num += offsets[k + 1] > offsets[k]
    at = 0
    for n in range(num):
        s = lists.rare[n]
        k = w * num_haplotypes + np.int64(here[s])
        for i in range(offsets[k], offsets[k + 1]):
            u = minor.sites[i] - edges[w]
            links[at, 0] = s
            links[at, 1] = head[u]
            head[u] = at
            lists.listed[u // SQUARE] |= np.uint64(1) << np.uint64(u % SQUARE)
            at += 1
    _turn_masks(w, here, minor, lists.masks)


@inlined
def _turn_masks(w, here, minor, masks):
    """Make a mask of slots for each common site of word w."""
    common_edges = minor.common_edges
    if common_edges[w] == common_edges[w + 1]:
        return
    first = common_edges[w] // SQUARE
    for j in range(first, (common_edges[w + 1] - 1) // SQUARE + 1):
        rows = masks[(j - first) * SQUARE : (j - first + 1) * SQUARE]
        row = minor.bits[j]
        for g in range(masks.shape[1]):
            low = g * SQUARE
            stop = min(SQUARE, here.shape[0] - low)
            for i in range(stop):
                rows[i, g] = row[np.uint32(here[low + i])]
            for i in range(stop, SQUARE):
                rows[i, g] = np.uint64(0)
        turn_squares(reshaped(rows, (rows.size,)), masks.shape[1])


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
def copy_slots(i, w, t, targets, masses, sites):
    """Write P(ALT) of target i at the sites of one interval into ``sites.prob``.

    The interval follows typed site t of word w, or is before the first typed site if t is -1. Only
    sites at which some state has the minor allele are written; :func:`nobody_carries` has set the
    others. The forward masses divided by their sum are 1 in all. So are the backward masses, or
    less if states have changed at a word's edge and their masses were dropped.
    """
    lists, minor, near = sites.lists, sites.minor, sites.near
    edges, common_edges, product = minor.edges, minor.common_edges, lists.product
    start, stop = sites.bounds[t + 1], sites.bounds[t + 2]
    num_states = targets.states.shape[2]
    j = max(t, 0) - w * WORD
    f, b = masses.rows[j], masses.backward[i]
    out = sites.prob[i]
    first_mask = common_edges[w] // SQUARE * SQUARE
    one = np.float32(1.0)
    share = one / np.float32(num_states)
    scale_f = one / masses.sums[j]
    scale_b = one / masses.totals[i]
    scale = scale_f * scale_b * np.float32(num_states)
    scales = (scale, scale_f, scale_b)
    sum_fb, sum_b = _products(f, b, num_states, product)
    sums = (sum_fb * scale, sum_b * scale_b)
    common = sites.common[0]
    while common > common_edges[w] and minor.common[common - 1] >= start:
        common -= 1
        u = minor.common[common]
        both, left, right, each, whole = _weights(u, near, scales, sums, share)
        p = _masked_sum(lists.masks[common - first_mask], both, left, right, each, product, f, b)
        _put(p / whole, u, sites.flip, sites.first_site, out)
    sites.common[0] = common
    low = start - edges[w]
    high = stop - edges[w]
    for i in range(low // SQUARE, (high - 1) // SQUARE + 1):
        word = lists.listed[i]
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
            k = lists.head[site]
            while k >= 0:
                s = lists.links[k, 0]
                p += both * product[s] + left * f[s] + right * b[s] + each
                k = lists.links[k, 1]
            _put(p / whole, u, sites.flip, sites.first_site, out)


@inlined
def _weights(u, near, scales, sums, share):
    """The weights of f b, f, b and a constant in a state's posterior at site u.

    They belong to the four cases of a switch on neither side of the site, on the right side only,
    on the left side only, and on both sides. ``scales``: factors that normalise f b, f and b;
    ``sums``: the normalised sums of f b and of b over all states. Also returns the sum of the
    posterior over all states, to divide by.
    """
    one = np.float32(1.0)
    l = near.left[u]  # noqa: E741
    r = near.right[u]
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
def begin_walk(targets, masses):
    """Walk n targets forward over all words, and set the masses to walk back with.

    The targets walk together, word by word, so that the parts of the panel that they look up stay
    in the cache. ``targets``: SlidingTargets; ``masses``: SlidingMasses.
    """
    num, _, n = targets.states.shape
    num_words = targets.words.shape[0]
    for i in range(num):
        masses.starts[i, num_words, :] = np.float32(1.0) / np.float32(n)
        masses.totals[i] = np.float32(1.0)
    for w in range(num_words):
        for i in range(num):
            forward_word(i, w, targets, masses)
    for i in range(num):
        for s in range(n):
            masses.starts[i, num_words, s] *= masses.totals[i]
        masses.backward[i, :] = np.float32(1.0)
        masses.totals[i] = np.float32(n)


@inlined
def nobody_carries(sites):
    """Set P(ALT) as if no state had the minor allele, at all sites of ``sites.prob``."""
    prob = sites.prob
    for i in range(prob.shape[0]):
        here = prob[i]
        for u in range(prob.shape[1]):
            here[u] = np.float32(1.0) if sites.flip[sites.first_site + u] else np.float32(0.0)


@inlined
def _begin_word(i, w, is_wanted, targets, masses):
    """Turn target i's masses to the slots of word w, and compute its forward rows if wanted."""
    states, rho = targets.states, targets.rho
    num_words, num_lists = targets.words.shape[0], states.shape[1]
    here = states[i, min(w, num_lists - 1)]
    start = masses.starts[i, w]
    if num_lists > 1:
        if w < num_words - 1:
            same_slots(states[i, w + 1], here, masses.backward[i], np.float32(0.0))
        if w > 0:
            same_slots(states[i, w - 1], here, start, np.float32(0.0))
    mismatch = masses.mismatch
    mismatch_words(targets.words[w], here, targets.target[i, w], targets.observed[i, w], mismatch)
    if is_wanted:
        first = w * WORD
        last = min(rho.shape[0], first + WORD)
        forward_rows(start, mismatch, first, last, rho, targets.err, masses.rows, masses.sums)


@inlined
def _step_back(i, t, w, targets, masses):
    """Move target i's backward masses from typed site t + 1 to t, which is in word w."""
    rho = targets.rho
    gap = rho[t + 1] if t + 1 < rho.shape[0] else np.float32(0.0)
    masses.totals[i] = backward_states(
        masses.backward[i], masses.mismatch, t - w * WORD, gap, masses.totals[i], targets.err[t]
    )


@inlined
def walk_sliding(targets, masses, words, wanted, begin, visit, given):
    """Walk n targets back over the words [low, high), and visit their intervals, the last first.

    Call :func:`begin_walk` first, then this from the last words to the first: each walk goes on
    from the word at which the walk before ended. ``words`` is (low, high); ``wanted``: see
    :func:`ragimpute.copying.shared_kernel.walk_shared`. For each word and target the walk calls
    ``begin(i, w, is_wanted, targets, given)``, where ``is_wanted`` says whether intervals of the
    word will be visited, and in each wanted interval ``visit(i, w, t, targets, masses, given)``.
    The forward masses are then in row max(t, 0) - 32 w of ``masses.rows``, and their sum in
    ``masses.sums``.
    """
    low, high = words
    num_states = targets.states.shape[2]
    for w in range(high - 1, low - 1, -1):
        first = w * WORD if w else -1
        last = min(targets.rho.shape[0], (w + 1) * WORD)
        is_wanted = any_of(wanted, first + 1, last + 1)
        for i in range(targets.states.shape[0]):
            _begin_word(i, w, is_wanted, targets, masses)
            begin(i, w, is_wanted, targets, given)
            for t in range(last - 1, first - 1, -1):
                if t < 0:  # before the first typed site all states are equally likely
                    masses.rows[0, :num_states] = np.float32(1.0) / np.float32(num_states)
                    masses.sums[0] = np.float32(1.0)
                if wanted[t + 1]:
                    visit(i, w, t, targets, masses, given)
                if t >= 0:
                    _step_back(i, t, w, targets, masses)


@inlined
def look_up_slots(i, w, is_wanted, targets, sites):
    """Find out which slots of target i have the minor alleles of word w, if that is wanted."""
    if is_wanted:
        here = targets.states[i, min(w, targets.states.shape[1] - 1)]
        _look_up(w, here, targets.words.shape[1], sites.minor, sites.lists)
    sites.common[0] = sites.minor.common_edges[w + 1]


@kernel
def copy_sliding(targets, masses, words, wanted, sites):
    """Write P(ALT) of n targets at the sites of the words [low, high) into ``sites.prob``.

    The arguments are those of :func:`walk_sliding`, and SlidingSites.
    """
    nobody_carries(sites)
    walk_sliding(targets, masses, words, wanted, look_up_slots, copy_slots, sites)
