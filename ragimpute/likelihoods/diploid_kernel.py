"""Exact forward and backward passes over pairs of copied states.

A sample's two haplotypes copy one state each, so that a pair of states is a state of the diploid
model. Transitions factorise: both haplotypes stay, one of them switches, or both do. All terms but
the first need only sums over rows, so that a step over K x K pairs takes O(K^2) time (Scheet &
Stephens 2006; Howie et al. 2009). Masses are symmetric, as the two haplotypes have no names. So
only the rows of 16 pairs on and right of the diagonal are kept.

A haplotype may also go on along another state that has the same alleles just here: the ancestor
that it copies is one that both states have inherited. Such exchanges take place within clusters of
states, at a few places; between two places they may be thought of as one.

States have prior weights, as one state may stand for many identical haplotypes. Masses are kept
divided by both weights: then what is added by switches is a sum of a number for each of the pair's
states, and the messages from the right obey the same rules as the masses from the left.

Shape letters here: T steps, K states (a multiple of 16), n = K / 16, A anchors, M sites.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.simd_floats import (
    LANES,
    load,
    masked,
    rows_of_lanes,
    splat,
    store,
    total,
    turn,
)

#: Every so many steps is an anchor: there the posterior of pairs is computed, and that of sites
#: between anchors is interpolated. With 8, 1 - r2 is 1 % higher than with 4.
EVERY = 4


class Exchanges(NamedTuple):
    """Where a haplotype may exchange its state for another one of the same cluster.

    Attributes
    ----------
    before
        Shape (T,), int32: the number of the exchange just before each step, -1 where there is none.
    prob
        Shape (E,), float32: the probability that a haplotype draws a state anew from its cluster.
    cluster
        Shape (E, K), int32: the cluster of each state, numbered from 0.
    num
        Shape (E,), int32: clusters.
    """

    before: np.ndarray
    prob: np.ndarray
    cluster: np.ndarray
    num: np.ndarray

    @classmethod
    def none(cls, num_steps: int, num_states: int) -> Exchanges:
        """No exchange at so many steps."""
        nothing = np.zeros(0, np.float32), np.zeros((0, num_states), np.int32)
        return cls(np.full(num_steps, -1, np.int32), *nothing, np.zeros(0, np.int32))


class Pairs(NamedTuple):
    """One sample's steps: the sites at which it has reads and its states differ.

    Attributes
    ----------
    alleles
        Shape (T, K), uint8: the states' alleles.
    bits
        Shape (T, n), uint64: the same as the lowest 16 bits of each number.
    emission
        Shape (T, 3), float32, > 0: P(reads | number of ALT alleles that are copied).
    rho
        Shape (T,), float32: probability that a haplotype switches before each step.
    prior
        Shape (K,), float32: weights of the states; they sum to 1.
    exchanges
        See :class:`Exchanges`.
    """

    alleles: np.ndarray
    bits: np.ndarray
    emission: np.ndarray
    rho: np.ndarray
    prior: np.ndarray
    exchanges: Exchanges


class PairScratch(NamedTuple):
    """Buffers of the passes.

    Attributes
    ----------
    mass
        Shape (K n, 16), float32: masses from the left or messages from the right.
    sums, enter
        Shape (K,), float32: weighted sums over rows; what is added to a row by switches.
    columns
        Shape (n, 16), float32.
    kept
        Shape (A of a block, K n, 16), float32: masses at the anchors.
    means, beside
        Shape (C n, 16), float32, for up to C clusters: means of a cluster's masses beside each
        state, and what a state gains by exchanges with a state of a cluster beside it.
    square
        Shape (16, 16), float32.
    weight
        Shape (C,), float32: weights of clusters.
    """

    mass: np.ndarray
    sums: np.ndarray
    enter: np.ndarray
    columns: np.ndarray
    kept: np.ndarray
    means: np.ndarray
    beside: np.ndarray
    square: np.ndarray
    weight: np.ndarray

    @classmethod
    def empty(cls, num_states: int, num_kept: int, num_clusters: int) -> PairScratch:
        """Buffers for K states, so many anchors and up to C clusters."""
        n = num_states // LANES
        return cls(
            rows_of_lanes(num_states * n),
            np.empty(num_states, np.float32),
            np.empty(num_states, np.float32),
            rows_of_lanes(n),
            rows_of_lanes(num_kept, num_states * n),
            rows_of_lanes(num_clusters * n),
            rows_of_lanes(num_clusters * n),
            rows_of_lanes(LANES),
            np.empty(num_clusters, np.float32),
        )


class Sites(NamedTuple):
    """The sites whose posterior is wanted, and which states have their minor allele.

    Attributes
    ----------
    first
        Shape (A + 2,), int64: 0; the first site at or after each anchor; M.
    weight
        Shape (M,), float32, in [0, 1]: weight of the anchor left of each site.
    start
        Shape (M + 1,), int64: where each site's entries begin in ``state`` and ``share``.
    state, share
        int32 and float32: a state, and the share of its haplotypes that have the minor allele.
    """

    first: np.ndarray
    weight: np.ndarray
    start: np.ndarray
    state: np.ndarray
    share: np.ndarray


@inlined
def _step(pairs, t, keep, scratch):
    """One step in place: ``mass`` becomes (mass * keep + enter + enter) * emission.

    Fills ``sums`` with weighted sums over rows, and returns the weighted sum over all pairs.
    """
    alleles, bits, prior = pairs.alleles, pairs.bits, pairs.prior
    mass, sums, enter, columns = scratch.mass, scratch.sums, scratch.enter, scratch.columns
    n = columns.shape[0]
    e0, e1, e2 = pairs.emission[t, 0], pairs.emission[t, 1], pairs.emission[t, 2]
    k = splat(keep)
    zero = splat(np.float32(0.0))
    for j in range(n):
        store(columns, j, zero)
    for b in range(n):
        for i in range(16 * b, 16 * b + 16):
            if alleles[t, i]:
                low, more = e1, np.float32(e2 - e1)
            else:
                low, more = e0, np.float32(e1 - e0)
            lows, mores = splat(low), splat(more)
            add, own = splat(enter[i]), splat(prior[i])
            row = i * n
            v = (load(mass, row + b) * k + (add + load(enter, b))) * (
                lows + masked(mores, bits[t, b])
            )
            store(mass, row + b, v)
            acc = v * load(prior, b)
            for j in range(b + 1, n):
                v = (load(mass, row + j) * k + (add + load(enter, j))) * (
                    lows + masked(mores, bits[t, j])
                )
                store(mass, row + j, v)
                acc = acc + v * load(prior, j)
                store(columns, j, load(columns, j) + v * own)
            sums[i] = total(acc)
    out = np.float32(0.0)
    for j in range(n):
        v = load(sums, j) + load(columns, j)
        store(sums, j, v)
        out += total(v * load(prior, j))
    return out


@inlined
def _enter(rho, whole, scratch):
    """Fill ``enter`` with what switches add, masses being divided by their sum ``whole``."""
    sums, enter = scratch.sums, scratch.enter
    one = np.float32(1.0)
    single = np.float32((one - rho) * rho / whole)
    both = np.float32(rho * rho * np.float32(0.5))
    for i in range(sums.shape[0]):
        enter[i] = single * sums[i] + both
    return np.float32((one - rho) * (one - rho) / whole)


@inlined
def _cluster_means(pairs, e, scratch):
    """Fill ``means`` with the mean masses of an exchange's clusters beside each state.

    Masses are read by squares of 16 x 16 pairs: their rows are of the first state's cluster, and
    their columns of the second one's.
    """
    cluster, num, prior = pairs.exchanges.cluster[e], pairs.exchanges.num[e], pairs.prior
    mass, means, square, weight = scratch.mass, scratch.means, scratch.square, scratch.weight
    n = scratch.columns.shape[0]
    zero = np.float32(0.0)
    for x in range(num * n):
        store(means, x, splat(zero))
    for c in range(num):
        weight[c] = zero
    for i in range(prior.shape[0]):
        weight[cluster[i]] += prior[i]
    for b in range(n):
        for j in range(b, n):
            for r in range(16):
                v = load(mass, (16 * b + r) * n + j)
                x = cluster[16 * b + r] * n + j
                store(means, x, load(means, x) + v * splat(prior[16 * b + r]))
                store(square, r, v)
            if j > b:
                turn(square)
                for r in range(16):
                    x = cluster[16 * j + r] * n + b
                    store(means, x, load(means, x) + load(square, r) * splat(prior[16 * j + r]))
    for c in range(num):
        scale = splat(np.float32(1.0) / weight[c] if weight[c] > zero else zero)
        for j in range(n):
            store(means, c * n + j, load(means, c * n + j) * scale)


@inlined
def _exchange(pairs, e, scratch):
    """Let both haplotypes of each pair exchange their states within clusters, in place.

    ``mass`` becomes P mass P' with P = (1 - b) I + b C, C taking weighted means over clusters;
    ``sums`` follow.
    """
    cluster, num, b = pairs.exchanges.cluster[e], pairs.exchanges.num[e], pairs.exchanges.prob[e]
    prior, mass, sums = pairs.prior, scratch.mass, scratch.sums
    means, beside, square, enter = scratch.means, scratch.beside, scratch.square, scratch.enter
    _cluster_means(pairs, e, scratch)
    n = scratch.columns.shape[0]
    zero = np.float32(0.0)
    a = np.float32(np.float32(1.0) - b)
    some, both = np.float32(a * b), np.float32(b * b)
    num_states = prior.shape[0]
    for c in range(num):
        # Means of this cluster and each other one, and of those the one of each state.
        for d in range(num):
            enter[d] = zero
        for i in range(num_states):
            enter[cluster[i]] += prior[i] * means[c * n + i // 16, i % 16]
        for d in range(num):
            enter[d] = both * enter[d] / scratch.weight[d] if scratch.weight[d] > zero else zero
        for i in range(num_states):
            beside[c * n + i // 16, i % 16] = (
                some * means[c * n + i // 16, i % 16] + enter[cluster[i]]
            )
    kept, drawn = splat(np.float32(a * a)), splat(some)
    for g in range(n):
        for j in range(g, n):
            for r in range(16):
                store(square, r, load(beside, cluster[16 * j + r] * n + g))
            turn(square)
            for r in range(16):
                x = (16 * g + r) * n + j
                store(
                    mass, x,
                    load(mass, x) * kept
                    + (load(means, cluster[16 * g + r] * n + j) * drawn + load(square, r)),
                )  # fmt: skip
    for c in range(num):
        enter[c] = zero
    for i in range(num_states):
        enter[cluster[i]] += prior[i] * sums[i]
    for i in range(num_states):
        w = scratch.weight[cluster[i]]
        sums[i] = a * sums[i] + (b * enter[cluster[i]] / w if w > zero else zero)


@kernel
def begin_pairs(scratch):
    """Set masses, or messages, to what they are before the first step; their sum is 1."""
    mass, sums = scratch.mass, scratch.sums
    one = splat(np.float32(1.0))
    for x in range(mass.shape[0]):
        store(mass, x, one)
    for i in range(sums.shape[0]):
        sums[i] = np.float32(1.0)


@kernel
def pairs_forward(pairs, first, stop, whole, scratch, keep_anchors):
    """Carry masses from the left over the steps [first, stop).

    Parameters
    ----------
    pairs
        See :class:`Pairs`.
    first, stop
        Steps.
    whole
        float32: the sum of the masses that ``scratch`` holds.
    scratch
        See :class:`PairScratch`; ``mass`` and ``sums`` are changed in place.
    keep_anchors
        Keep the masses at the anchors among these steps, which sum to 1.

    Returns
    -------
    float32: the sum of the masses.
    """
    mass, kept = scratch.mass, scratch.kept
    n = scratch.columns.shape[0]
    for t in range(first, stop):
        if pairs.exchanges.before[t] >= 0:
            _exchange(pairs, pairs.exchanges.before[t], scratch)
        keep = _enter(pairs.rho[t], whole, scratch)
        whole = _step(pairs, t, keep, scratch)
        if keep_anchors and t % EVERY == EVERY // 2:
            to = kept[(t - first) // EVERY]
            scale = splat(np.float32(np.float32(1.0) / whole))
            for i in range(pairs.prior.shape[0]):
                for j in range(i // 16, n):
                    store(to, i * n + j, load(mass, i * n + j) * scale)
    return whole


@inlined
def _posterior(pairs, scratch, at):
    """Turn the masses kept at an anchor into posteriors; return their sum, rows' sums in sums."""
    mass, sums, columns, prior = scratch.mass, scratch.sums, scratch.columns, pairs.prior
    n = columns.shape[0]
    for j in range(n):
        store(columns, j, splat(np.float32(0.0)))
    for i in range(prior.shape[0]):
        b = i // 16
        row = i * n
        own = splat(prior[i])
        v = load(at, row + b) * load(mass, row + b) * (own * load(prior, b))
        store(at, row + b, v)
        acc = v
        for j in range(b + 1, n):
            v = load(at, row + j) * load(mass, row + j) * (own * load(prior, j))
            store(at, row + j, v)
            acc = acc + v
            store(columns, j, load(columns, j) + v)
        sums[i] = total(acc)
    out = np.float32(0.0)
    for j in range(n):
        v = load(sums, j) + load(columns, j)
        store(sums, j, v)
        out += total(v)
    return out


@inlined
def _likeliest_pair(at, sums, n, best):
    """Write the likeliest state, and the likeliest second one beside it, to ``best``."""
    i = 0
    for k in range(sums.shape[0]):
        if sums[k] > sums[i]:
            i = k
    j, most = 0, np.float32(-1.0)
    for k in range(sums.shape[0]):
        a, b = (i, k) if k // 16 >= i // 16 else (k, i)
        p = at[a * n + b // 16, b % 16]
        if p > most:
            j, most = k, p
    best[0], best[1] = i, j


@inlined
def _sites_beside(sites, k, at, whole, scratch, counts):
    """Add an anchor's part to the posterior of the sites left and right of it.

    ``counts`` (M, 3): probabilities of 0, 1, 2 copied minor alleles.
    """
    sums, enter, n = scratch.sums, scratch.enter, scratch.columns.shape[0]
    one, zero = np.float32(1.0), np.float32(0.0)
    for i in range(enter.shape[0]):
        enter[i] = zero
    last = sites.first.shape[0] - 3
    for x in range(sites.first[k], sites.first[k + 2]):
        right = x >= sites.first[k + 1]
        w = sites.weight[x] if right else one - sites.weight[x]
        if (k == 0 and not right) or (k == last and right):
            w = one
        if w <= zero:
            continue
        one_of, both = zero, zero
        for y in range(sites.start[x], sites.start[x + 1]):
            enter[sites.state[y]] = sites.share[y]
        for y in range(sites.start[x], sites.start[x + 1]):
            i, share = sites.state[y], sites.share[y]
            b = i // 16
            one_of += share * sums[i]
            acc = splat(zero)
            for j in range(b + 1, n):
                acc = acc + load(at, i * n + j) * load(enter, j)
            both += share * (
                np.float32(2.0) * total(acc) + total(load(at, i * n + b) * load(enter, b))
            )
        for y in range(sites.start[x], sites.start[x + 1]):
            enter[sites.state[y]] = zero
        p2 = both / whole
        p1 = np.float32(2.0) * (one_of / whole - p2)
        counts[x, 0] += w * (one - p1 - p2)
        counts[x, 1] += w * p1
        counts[x, 2] += w * p2


@kernel
def pairs_backward(pairs, first, stop, scratch, sites, counts, best):
    """Carry messages from the right over the steps [first, stop), and add up the posterior.

    Parameters
    ----------
    pairs
        See :class:`Pairs`.
    first, stop
        Steps; ``first`` is a multiple of ``EVERY``.
    scratch
        See :class:`PairScratch`. ``mass``: the messages, changed in place; ``kept``: the masses at
        the anchors of these steps, which are used up.
    sites
        See :class:`Sites`.
    counts
        Shape (M, 3), float32: to each site are added the probabilities that 0, 1 or 2 minor alleles
        are copied there.
    best
        Shape (A, 2), int32: filled with a likely pair of states at each anchor.
    """
    mass, sums, enter = scratch.mass, scratch.sums, scratch.enter
    n = scratch.columns.shape[0]
    for t in range(stop - 1, first - 1, -1):
        if t % EVERY == EVERY // 2:
            k = t // EVERY
            at = scratch.kept[(t - first) // EVERY]
            whole = _posterior(pairs, scratch, at)
            _likeliest_pair(at, sums, n, best[k])
            _sites_beside(sites, k, at, whole, scratch, counts)
        for i in range(enter.shape[0]):
            enter[i] = np.float32(0.0)
        whole = _step(pairs, t, np.float32(1.0), scratch)
        keep = _enter(pairs.rho[t], whole, scratch)
        scale = splat(keep)
        for i in range(enter.shape[0]):
            add = splat(enter[i])
            for j in range(i // 16, n):
                store(mass, i * n + j, load(mass, i * n + j) * scale + (add + load(enter, j)))
        if pairs.exchanges.before[t] >= 0:
            _exchange(pairs, pairs.exchanges.before[t], scratch)


def diploid_posterior(
    pairs: Pairs, sites: Sites, *, max_bytes: int = 2**26
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of copied genotypes at sites, and a likely pair of states at each anchor.

    Parameters
    ----------
    pairs, sites
        The sample's steps, and the sites; there is at least one anchor, so T > ``EVERY / 2``.
    max_bytes
        About the memory for the masses at anchors. If there are more anchors, those from the left
        are computed twice; the result is the same to the last bit.

    Returns
    -------
    Shape (M, 3), float32: probabilities of 0, 1 and 2 copied minor alleles. Shape (A, 2), int32.

    Raises
    ------
    ValueError
        If there are too few steps, or the number of states is no multiple of 16.
    """
    num_steps, num_states = pairs.alleles.shape
    if num_steps <= EVERY // 2 or num_states % LANES:
        raise ValueError(f"{num_steps} steps over {num_states} states have no anchor or no lanes")
    num_anchors = (num_steps - EVERY // 2 - 1) // EVERY + 1
    size = 4 * num_states**2
    at_once = int(np.clip(max_bytes // size, 1, num_anchors))
    if at_once < num_anchors:  # half of the memory is for where blocks begin
        at_once = int(np.clip(np.ceil(np.sqrt(num_anchors)), 1, num_anchors))
    block = at_once * EVERY
    firsts = list(range(0, num_steps, block))
    num_clusters = int(pairs.exchanges.num.max(initial=0))
    scratch = PairScratch.empty(num_states, at_once, num_clusters)
    counts = np.zeros((len(sites.weight), 3), np.float32)
    best = np.zeros((num_anchors, 2), np.int32)
    begin_pairs(scratch)
    whole = np.float32(1.0)
    starts = []
    for first in firsts:
        starts.append((scratch.mass.copy(), scratch.sums.copy(), whole) if first else None)
        if len(firsts) > 1:
            stop = min(first + block, num_steps)
            whole = pairs_forward(pairs, first, stop, np.float32(whole), scratch, False)
    message: np.ndarray | None = None
    for first, start in zip(firsts[::-1], starts[::-1], strict=True):
        stop = min(first + block, num_steps)
        if start is None:
            begin_pairs(scratch)
            whole = np.float32(1.0)
        else:
            scratch.mass[:], scratch.sums[:], whole = start
        pairs_forward(pairs, first, stop, np.float32(whole), scratch, True)
        if message is None:
            begin_pairs(scratch)
        else:
            scratch.mass[:] = message
        pairs_backward(pairs, first, stop, scratch, sites, counts, best)
        message = scratch.mass.copy() if first else None
    return counts, best
