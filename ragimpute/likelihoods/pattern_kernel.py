"""Kernels over blocks of sites in which haplotypes with the same alleles share one pattern.

Within a block, haplotypes that have the same alleles stay alike: the mass of each is ``a * m + c``,
where m is its own mass before the block, and a and c are those of its pattern. So a pass over a
block costs one look at each haplotype at both ends, and within it only steps times patterns. This
is exact (the state reduction of Minimac3, Das et al. 2016), but for rounding.

Shape letters here: B blocks, U patterns of a block, C states, T steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.bits import trailing_zeros
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel

# What is left of a mass before a block is forgotten below this, before it gets denormal, as
# arithmetic on denormal numbers takes a hundred times as long.
_LEAST = np.float32(1e-30)
# Those of patterns that no state has grow without end.
_MOST = np.float32(1e30)


class Patterns(NamedTuple):
    """The distinct rows of alleles of each block of words.

    Attributes
    ----------
    start
        Shape (B + 1,), int64: the first word of each block; the number of words.
    num, offset
        Shape (B,), int64: patterns of each block, and where its words begin in ``flat``.
    flat
        uint32: the words of the patterns, shape (words of the block, U) for each block.
    of
        Shape (B, H), int32: the pattern of each haplotype.
    """

    start: np.ndarray
    num: np.ndarray
    offset: np.ndarray
    flat: np.ndarray
    of: np.ndarray


class PatternSteps(NamedTuple):
    """The sites at which one haplotype is observed, and what may be copied there.

    Attributes
    ----------
    first
        Shape (B + 1,), int64: the first step of each block; T.
    row, bit
        Shape (T,), int64 and uint32: where the words of a step's site begin in ``flat``, and its
        bit in these.
    flat
        See :class:`Patterns`.
    of
        Shape (B, C), int32: the pattern of each state.
    start
        Shape (B + 1,), int64: where the patterns of each block begin in ``weight``.
    weight
        float32: the sum of the weights of each pattern's states.
    emission, rho
        Shapes (T, 2) and (T,), float32; see :class:`ragimpute.likelihoods.haploid_kernel.Steps`.
    prior
        Shape (C,), float32: weights of the states; they sum to 1.
    """

    first: np.ndarray
    row: np.ndarray
    bit: np.ndarray
    flat: np.ndarray
    of: np.ndarray
    start: np.ndarray
    weight: np.ndarray
    emission: np.ndarray
    rho: np.ndarray
    prior: np.ndarray


class PatternScratch(NamedTuple):
    """Buffers of the passes, float32, for at most U patterns of a block.

    ``sums`` (4, U); ``own``, ``added`` (U,): a and c of each pattern; ``before``, ``after``,
    ``both`` (U,): sums of masses from the left, messages from the right and their products.
    ``along`` (2, T of a block, U): a and c after each step; T is 0 where they are not kept.
    """

    sums: np.ndarray
    own: np.ndarray
    added: np.ndarray
    before: np.ndarray
    after: np.ndarray
    both: np.ndarray
    along: np.ndarray

    @classmethod
    def empty(cls, num_patterns: int, num_steps: int = 0) -> PatternScratch:
        """Buffers for blocks of at most so many patterns; and steps, if all are kept."""
        own, added, before, after, both = np.empty((5, num_patterns), np.float32)
        along = np.empty((2, num_steps, num_patterns), np.float32)
        sums = np.empty((4, num_patterns), np.float32)
        return cls(sums, own, added, before, after, both, along)


@kernel
def hash_patterns(patterns, seen, multiplier, key, out):
    """Do what ``state_kernel.hash_rows`` does for words.

    Parameters
    ----------
    patterns
        See :class:`Patterns`.
    seen, multiplier
        Shape (W,), uint32 and uint64; see ``hash_rows``.
    key
        uint64: a buffer with room for the patterns of each block.
    out
        Shape (H,), uint64: filled in.
    """
    for h in range(out.shape[0]):
        out[h] = np.uint64(0)
    for b in range(patterns.num.shape[0]):
        some = False
        num = patterns.num[b]
        for w in range(patterns.start[b], patterns.start[b + 1]):
            mask, m = seen[w], multiplier[w]
            if mask == np.uint32(0):
                continue
            if not some:
                for u in range(num):
                    key[u] = np.uint64(0)
            some = True
            at = patterns.offset[b] + (w - patterns.start[b]) * num
            for u in range(num):
                x = np.uint64(patterns.flat[at + u] & mask)
                key[u] += x * m + ((x * m) >> np.uint64(32)) * m
        if some:
            of = patterns.of[b]
            for h in range(out.shape[0]):
                out[h] += key[of[h]]


@kernel
def pattern_columns(patterns, haplotypes, out):
    """Fill ``out`` (W, n), uint32, with the words of n haplotypes, int64."""
    for b in range(patterns.num.shape[0]):
        of = patterns.of[b]
        for w in range(patterns.start[b], patterns.start[b + 1]):
            at = patterns.offset[b] + (w - patterns.start[b]) * patterns.num[b]
            for i in range(haplotypes.shape[0]):
                out[w, i] = patterns.flat[at + of[haplotypes[i]]]


@kernel
def count_weighted(words, weight, out):
    """Add to ``out`` (W, 32), int64, the weight (U,), int64, of the rows with each bit set."""
    for w in range(words.shape[0]):
        for u in range(weight.shape[0]):
            v = words[w, u]
            while v != np.uint32(0):
                out[w, trailing_zeros(np.uint64(v))] += weight[u]
                v &= v - np.uint32(1)


@inlined_reordered
def _emit(own, added, keep, enter, steps, t, sums, weight):
    """Let masses or messages of patterns switch, and multiply them by the emission of step t.

    Returns the weighted sum of those of all states; ``sums`` are those of each pattern's states
    where the block begins.
    """
    out = np.float32(0.0)
    e0, e1, bit = steps.emission[t, 0], steps.emission[t, 1], steps.bit[t]
    words = steps.flat[steps.row[t] : steps.row[t] + own.shape[0]]
    for u in range(own.shape[0]):
        e = e1 if np.uint32(words[u] & bit) != np.uint32(0) else e0
        a = own[u] * keep * e
        a = a if a > _LEAST else np.float32(0.0)
        c = (added[u] * keep + enter) * e
        a = min(a, _MOST)
        c = min(c, _MOST)
        own[u] = a
        added[u] = c
        out += a * sums[u] + c * weight[u]
    return out


@inlined_reordered
def _move(own, added, keep, enter):
    """Let messages switch."""
    for u in range(own.shape[0]):
        own[u] *= keep
        added[u] = added[u] * keep + enter


@inlined_reordered
def _spread(mass, of, own, added):
    """Carry masses over a block."""
    for s in range(mass.shape[0]):
        mass[s] = own[of[s]] * mass[s] + added[of[s]]


@inlined_reordered
def _note(steps, b, kept, mass, scratch, k, noted):
    """Note the posteriors in the k-th place: whether they are larger than before, and their sum."""
    of, prior = steps.of[b], steps.prior
    left, left_added = scratch.along[0, k], scratch.along[1, k]
    right, right_added = scratch.own, scratch.added
    largest, sums, buffer = noted[0], noted[1], noted[2]
    whole = np.float32(0.0)
    for s in range(mass.shape[0]):
        u = of[s]
        v = (left[u] * kept[s] + left_added[u]) * (right[u] * mass[s] + right_added[u]) * prior[s]
        buffer[s] = v
        whole += v
    scale = np.float32(np.float32(1.0) / whole)
    for s in range(mass.shape[0]):
        v = buffer[s] * scale
        largest[s] = max(largest[s], v)
        sums[s] += v


@inlined_reordered
def _shares(own, added, left, left_added, scratch, weight, words, bit):
    """P(ALT is copied) at a step, from masses and messages of patterns on both sides."""
    whole, alt = np.float32(0.0), np.float32(0.0)
    for u in range(own.shape[0]):
        v = left[u] * (own[u] * scratch.both[u] + added[u] * scratch.before[u]) + left_added[u] * (
            own[u] * scratch.after[u] + added[u] * weight[u]
        )
        whole += v
        alt += v if np.uint32(words[u] & bit) != np.uint32(0) else np.float32(0.0)
    return np.float32(alt / whole)


@inlined
def _copy(out, given):
    """Copy an array into the beginning of another one."""
    for k in range(given.shape[0]):
        out[k] = given[k]


@inlined_reordered
def _add_up(sums, out):
    """Add up four rows."""
    for u in range(out.shape[0]):
        out[u] = (sums[0, u] + sums[1, u]) + (sums[2, u] + sums[3, u])


@inlined
def _sums(mass, prior, of, sums, out):
    """Fill ``out`` (U,) with the weighted sums of the masses of each pattern's states.

    Neighbours, which often have the same pattern, are added to different rows of ``sums``, so that
    no sum waits for the one before.
    """
    for k in range(4):
        for u in range(out.shape[0]):
            sums[k, u] = np.float32(0.0)
    whole = mass.shape[0] // 4 * 4
    for s in range(0, whole, 4):
        sums[0, of[s]] += mass[s] * prior[s]
        sums[1, of[s + 1]] += mass[s + 1] * prior[s + 1]
        sums[2, of[s + 2]] += mass[s + 2] * prior[s + 2]
        sums[3, of[s + 3]] += mass[s + 3] * prior[s + 3]
    for s in range(whole, mass.shape[0]):
        sums[0, of[s]] += mass[s] * prior[s]
    _add_up(sums, out)


@inlined
def _over_block(steps, b, own, added, before, scratch, place, k):
    """Carry the masses of patterns over a block from the left; returns the last sum.

    Those after the steps ``place``, of which the k-th is the first in the block, are kept.
    """
    one = np.float32(1.0)
    low, num = steps.start[b], own.shape[0]
    weight = steps.weight[low : low + num]
    first = steps.first[b]
    own[:] = one
    added[:] = np.float32(0.0)
    whole = one
    for t in range(first, steps.first[b + 1]):
        keep = np.float32((one - steps.rho[t]) / whole)
        whole = _emit(own, added, keep, steps.rho[t], steps, t, before, weight)
        if k < place.shape[0] and place[k] == t:
            _copy(scratch.along[0, k], own)
            _copy(scratch.along[1, k], added)
            k += 1
    return whole


@inlined
def _carry(steps, b, mass, scratch, place, k):
    """Carry masses, which sum to 1 before and after it, over a block from the left."""
    num = steps.start[b + 1] - steps.start[b]
    own, added, before = scratch.own[:num], scratch.added[:num], scratch.before[:num]
    _sums(mass, steps.prior, steps.of[b], scratch.sums, before)
    whole = _over_block(steps, b, own, added, before, scratch, place, k)
    scale = np.float32(np.float32(1.0) / whole)
    for u in range(num):
        own[u] *= scale
        added[u] *= scale
    _spread(mass, steps.of[b], own, added)


@inlined
def _step_back(steps, t, own, added, after, weight):
    """Move messages of patterns from the right over step t."""
    one = np.float32(1.0)
    whole = _emit(own, added, one, np.float32(0.0), steps, t, after, weight)
    _move(own, added, np.float32((one - steps.rho[t]) / whole), steps.rho[t])


@kernel
def pattern_posterior(steps, place, kept, mass, scratch, noted):
    """The largest posterior of each state in some places, and their sum.

    Parameters
    ----------
    steps
        See :class:`PatternSteps`.
    place
        Shape (n,), int64, ascending: steps.
    kept, mass
        Shapes (B, C) and (C,), float32: buffers.
    scratch
        See :class:`PatternScratch`, with room for n steps.
    noted
        Shape (3, C), float32, zeros: filled with the largest, the sums, and what is of no use.
    """
    num_blocks = steps.first.shape[0] - 1
    mass[:] = np.float32(1.0)
    k = 0
    for b in range(num_blocks):
        if steps.first[b] < steps.first[b + 1]:
            _copy(kept[b], mass)
            _carry(steps, b, mass, scratch, place, k)
            while k < place.shape[0] and place[k] < steps.first[b + 1]:
                k += 1
    mass[:] = np.float32(1.0)
    k -= 1
    for b in range(num_blocks - 1, -1, -1):
        if steps.first[b] == steps.first[b + 1]:
            continue
        low, num = steps.start[b], steps.start[b + 1] - steps.start[b]
        own, added, after = scratch.own[:num], scratch.added[:num], scratch.after[:num]
        _sums(mass, steps.prior, steps.of[b], scratch.sums, after)
        own[:] = np.float32(1.0)
        added[:] = np.float32(0.0)
        for t in range(steps.first[b + 1] - 1, steps.first[b] - 1, -1):
            if k >= 0 and place[k] == t:
                _note(steps, b, kept[b], mass, scratch, k, noted)
                k -= 1
            _step_back(steps, t, own, added, after, steps.weight[low : low + num])
        _spread(mass, steps.of[b], own, added)


@kernel
def pattern_alt_share(steps, every, kept, mass, scratch, out):
    """P(ALT is copied) at each step.

    Parameters
    ----------
    steps, kept, mass
        See :func:`pattern_posterior`.
    every
        Shape (T,), int64: the numbers of all steps.
    scratch
        See :class:`PatternScratch`, with room for all steps of a block.
    out
        Shape (T,), float32: filled in.
    """
    num_blocks = steps.first.shape[0] - 1
    nowhere = every[:0]
    mass[:] = np.float32(1.0)
    for b in range(num_blocks):
        _copy(kept[b], mass)
        if steps.first[b] < steps.first[b + 1]:
            _carry(steps, b, mass, scratch, nowhere, 0)
    mass[:] = np.float32(1.0)
    for b in range(num_blocks - 1, -1, -1):
        first, stop = steps.first[b], steps.first[b + 1]
        if first == stop:
            continue
        low, num = steps.start[b], steps.start[b + 1] - steps.start[b]
        own, added, weight = scratch.own[:num], scratch.added[:num], steps.weight[low : low + num]
        before, after = scratch.before[:num], scratch.after[:num]
        _sums(kept[b], steps.prior, steps.of[b], scratch.sums, before)
        _over_block(steps, b, own, added, before, scratch, every[first:stop], 0)
        _sums(mass, steps.prior, steps.of[b], scratch.sums, after)
        for s in range(mass.shape[0]):
            kept[b, s] *= mass[s]
        _sums(kept[b], steps.prior, steps.of[b], scratch.sums, scratch.both[:num])
        own[:] = np.float32(1.0)
        added[:] = np.float32(0.0)
        for t in range(stop - 1, first - 1, -1):
            words = steps.flat[steps.row[t] : steps.row[t] + num]
            left = scratch.along[0, t - first, :num]
            left_added = scratch.along[1, t - first, :num]
            out[t] = _shares(own, added, left, left_added, scratch, weight, words, steps.bit[t])
            _step_back(steps, t, own, added, after, weight)
        _spread(mass, steps.of[b], own, added)
