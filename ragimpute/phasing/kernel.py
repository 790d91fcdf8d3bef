"""The loops of phasing: one pass along a sample's two haplotypes, which chooses their phase.

Kernels hold only loops; ``sampler`` makes the arrays that go in, and checks them. Notation: T sites
in W words of 32, K states of a word, x one of the two haplotypes left of a site, y one of the two
to its right. All masses are float32, so that 32-bit lanes hold twice as many states.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined_reordered, kernel

# What may happen at a heterozygous site, as bits of ``moves``: its own two alleles change places;
# the site and all that follows it change places; only what follows the site changes places.
FLIP, SWAP_WITH, SWAP_AFTER = 1, 2, 4
# Why a site needs the messages from its right: its phase is chosen there, or its alleles are
# missing and their probabilities are wanted.
DRAWN, MISSING = 1, 2


class Pass(NamedTuple):
    """What all samples have in common in one pass. Sites are in the direction of travel.

    Attributes
    ----------
    words
        Shape (W, H), uint32: alleles of the haplotypes that may be copied, in the order of the
        chromosome.
    backwards
        Whether the direction of travel is from the chromosome's end.
    rho
        Shape (32 W + 1,), float32, in [0, 1): switch probability before each site.
    err
        Mismatch probability, float32.
    blind
        Take the alleles to the right of a site for unknown where their phase is free.
    draw
        Draw each choice by its probability; else take the likeliest.
    """

    words: np.ndarray
    backwards: bool
    rho: np.ndarray
    err: np.float32
    blind: bool
    draw: bool


class Sample(NamedTuple):
    """One sample's part of a pass. Sites are in the direction of travel, but those of ``states``.

    Attributes
    ----------
    states
        Shape (W or 1, K), int32: the haplotypes that it may copy in each word, or in all of them,
        in the order of the chromosome.
    pair
        Shape (2, 32 W), int8: its alleles, negative where not observed; the pass changes their
        phase in place.
    wanted
        Shape (32 W,), uint8: ``DRAWN``, ``MISSING``, or 0 where neither is asked for.
    moves
        Shape (32 W,), uint8: bits of ``FLIP``, ``SWAP_WITH`` and ``SWAP_AFTER``.
    uniform
        Shape (32 W,), float64, in [0, 1): the random number of each choice.
    """

    states: np.ndarray
    pair: np.ndarray
    wanted: np.ndarray
    moves: np.ndarray
    uniform: np.ndarray


class Found(NamedTuple):
    """What a pass finds out about one sample. Sites are in the direction of travel.

    Attributes
    ----------
    same
        Shape (2, 32 W), float32. Of two neighbouring heterozygous sites, the column is that of the
        later one on the chromosome: to row 0 the pass adds the probability that their ALT alleles
        are on the same haplotype, and 1 to row 1.
    alt
        Shape (2, 32 W), float32: P(ALT) of both haplotypes at ``MISSING`` sites.
    """

    same: np.ndarray
    alt: np.ndarray


class Scratch(NamedTuple):
    """Buffers for one sample at a time; their content does not matter.

    Attributes
    ----------
    messages
        Shape (W + 1, 2, K + 1), float32: the message at each word's right end, and its sum.
    rows
        Shape (32, 2, K), float32: the messages at the sites of one word.
    forward
        Shape (2, K), float32: masses from the left.
    alleles
        Shape (K,), uint32: the states' alleles over one word.
    totals, masses, weights
        Shapes (2, 2) and (2, 2, 2), float32, and (4,), float64.
    """

    messages: np.ndarray
    rows: np.ndarray
    forward: np.ndarray
    alleles: np.ndarray
    totals: np.ndarray
    masses: np.ndarray
    weights: np.ndarray

    @classmethod
    def empty(cls, num_words: int, num_states: int) -> Scratch:
        """Buffers for W words and K states."""
        return cls(
            np.empty((num_words + 1, 2, num_states + 1), np.float32),
            np.empty((WORD, 2, num_states), np.float32),
            np.empty((2, num_states), np.float32),
            np.empty(num_states, np.uint32),
            np.empty((2, 2), np.float32),
            np.empty((2, 2, 2), np.float32),
            np.empty(4, np.float64),
        )


@inlined_reordered
def gather(words, states, w, backwards, out):
    """Write the states' alleles over word w, counted in the direction of travel, as bits."""
    num_words = words.shape[0]
    if not backwards:
        here = states[min(w, states.shape[0] - 1)]
        for s in range(out.shape[0]):
            out[s] = words[w, here[s]]
        return
    w = num_words - 1 - w
    here = states[min(w, states.shape[0] - 1)]
    for s in range(out.shape[0]):
        v = words[w, here[s]]
        v = ((v >> np.uint32(1)) & np.uint32(0x55555555)) | (
            (v & np.uint32(0x55555555)) << np.uint32(1)
        )
        v = ((v >> np.uint32(2)) & np.uint32(0x33333333)) | (
            (v & np.uint32(0x33333333)) << np.uint32(2)
        )
        v = ((v >> np.uint32(4)) & np.uint32(0x0F0F0F0F)) | (
            (v & np.uint32(0x0F0F0F0F)) << np.uint32(4)
        )
        v = ((v >> np.uint32(8)) & np.uint32(0x00FF00FF)) | (
            (v & np.uint32(0x00FF00FF)) << np.uint32(8)
        )
        out[s] = (v >> np.uint32(16)) | (v << np.uint32(16))


@inlined_reordered
def forget_others(states, w, before, backwards, mass):
    """Set a slot's mass to 0 where it holds another haplotype in word w than in ``before``."""
    if states.shape[0] == 1:
        return
    if backwards:
        w = states.shape[0] - 1 - w
        before = states.shape[0] - 1 - before
    for s in range(states.shape[1]):
        if states[w, s] != states[before, s]:
            mass[0, s] = np.float32(0.0)
            mass[1, s] = np.float32(0.0)


@inlined_reordered
def emission(allele, err, which):
    """Probability of an observed allele (negative: none) where the state has allele ``which``."""
    if allele < 0:
        return np.float32(1.0)
    return np.float32(1.0) - err if allele == which else err


@inlined_reordered
def pass_back(shared, sample, first, g, message, totals, rows, keep):
    """Carry messages from the right over the sites of the word that begins at ``first``, in place.

    ``g`` (K,): the states' alleles there. ``message`` (2, K + 1): that of the site after the word,
    its emission included; it sums to ``totals`` (2,). If ``keep``, the messages without the
    emission go into ``rows`` (32, 2, K) at those sites where something is wanted.
    """
    pair, wanted = sample.pair, sample.wanted
    blind, rho, err = shared.blind, shared.rho, shared.err
    n = g.shape[0]
    for t in range(first + WORD - 1, first - 1, -1):
        j = t - first
        bit = np.uint32(1) << np.uint32(j)
        r = rho[t + 1]
        for x in range(2):
            allele = pair[x, t]
            if blind and wanted[t] != 0:
                allele = -1
            e0 = emission(allele, err, 0)
            e1 = emission(allele, err, 1)
            stay = np.float32((np.float32(1.0) - r) * np.float32(n) / totals[x])
            total = np.float32(0.0)
            mass = message[x]
            if keep and wanted[t] != 0:
                row = rows[j, x]
                for s in range(n):
                    b = mass[s] * stay + r
                    row[s] = b
                    v = b * (e1 if np.uint32(g[s] & bit) != np.uint32(0) else e0)
                    mass[s] = v
                    total += v
            else:
                for s in range(n):
                    v = (mass[s] * stay + r) * (e1 if np.uint32(g[s] & bit) != np.uint32(0) else e0)
                    mass[s] = v
                    total += v
            totals[x] = total


@inlined_reordered
def step(f, keep, enter, e0, e1, g, bit):
    """One step forward in place; returns the sum."""
    total = np.float32(0.0)
    for s in range(g.shape[0]):
        v = (f[s] * keep + enter) * (e1 if np.uint32(g[s] & bit) != np.uint32(0) else e0)
        f[s] = v
        total += v
    return total


@inlined_reordered
def joint_masses(f, b, g, bit, out):
    """Fill out[x, y, a]: the joint mass of left haplotype x and right haplotype y.

    It is summed over the states of allele a at this site.
    """
    f0, f1, b0, b1 = f[0], f[1], b[0], b[1]
    zero = np.float32(0.0)
    all00 = all01 = all10 = all11 = zero
    alt00 = alt01 = alt10 = alt11 = zero
    for s in range(g.shape[0]):
        alt = np.float32(1.0) if np.uint32(g[s] & bit) != np.uint32(0) else zero
        v00 = f0[s] * b0[s]
        v01 = f0[s] * b1[s]
        v10 = f1[s] * b0[s]
        v11 = f1[s] * b1[s]
        all00 += v00
        all01 += v01
        all10 += v10
        all11 += v11
        alt00 += v00 * alt
        alt01 += v01 * alt
        alt10 += v10 * alt
        alt11 += v11 * alt
    out[0, 0, 0], out[0, 0, 1] = all00 - alt00, alt00
    out[0, 1, 0], out[0, 1, 1] = all01 - alt01, alt01
    out[1, 0, 0], out[1, 0, 1] = all10 - alt10, alt10
    out[1, 1, 0], out[1, 1, 1] = all11 - alt11, alt11


@inlined_reordered
def weigh_moves(mass, err, allele, y, moves, weight):
    """Fill ``weight`` with the probabilities of no move, FLIP, SWAP_WITH and SWAP_AFTER.

    Without a move, left haplotype 0 carries ``allele`` here and goes on as right haplotype y.
    """
    hit = np.float32(1.0) - err
    top = -np.inf
    for i in range(4):
        weight[i] = -np.inf
        if i > 0 and moves & (1 << (i - 1)) == 0:
            continue
        a = 1 - allele if i == 1 or i == 2 else allele
        to = 1 - y if i >= 2 else y
        first = hit * mass[0, to, a] + err * mass[0, to, 1 - a]
        second = hit * mass[1, 1 - to, 1 - a] + err * mass[1, 1 - to, a]
        # A floor keeps float32's underflow from a logarithm of 0.
        weight[i] = np.log(max(np.float64(first), 1e-300))
        weight[i] += np.log(max(np.float64(second), 1e-300))
        top = max(top, weight[i])
    total = 0.0
    for i in range(4):
        weight[i] = np.exp(weight[i] - top)
        total += weight[i]
    for i in range(4):
        weight[i] /= total


@inlined_reordered
def choose_move(weight, draw, uniform):
    """Draw a move by its probability, or take the likeliest, the first among equal ones."""
    if draw:
        left = uniform
        for i in range(3):
            if left < weight[i]:
                return i
            left -= weight[i]
        return 3 if weight[3] > 0 else 0
    best = 0
    for i in range(1, 4):
        if weight[i] > weight[best] + 1e-4:
            best = i
    return best


@inlined_reordered
def send_messages(shared, sample, scratch):
    """Carry the messages from the right through all words; store them at each word's right end."""
    words, states = shared.words, sample.states
    messages, g, right = scratch.messages, scratch.alleles, scratch.totals[0]
    num_words = words.shape[0]
    n = states.shape[1]
    message = messages[num_words]
    message[:] = np.float32(1.0)
    right[:] = np.float32(n)
    for w in range(num_words - 1, -1, -1):
        if w < num_words - 1:
            forget_others(states, w, w + 1, shared.backwards, message)
        for x in range(2):
            for s in range(n):
                messages[w, x, s] = message[x, s]
            messages[w, x, n] = right[x]
        gather(words, states, w, shared.backwards, g)
        pass_back(shared, sample, w * WORD, g, message, right, scratch.rows, False)


@kernel
def scan_sample(shared, sample, found, scratch):
    """Go along a sample's haplotypes once, and choose the phase of each site in turn.

    At each site whose phase is free, the haplotypes to its left are those that were chosen already,
    and the haplotypes to its right are those of the pass before. The masses of both decide.

    Parameters
    ----------
    shared, sample
        See :class:`Pass` and :class:`Sample`; the phase of ``sample.pair`` is changed in place.
    found
        See :class:`Found`: added to and filled in.
    scratch
        See :class:`Scratch`.
    """
    words, backwards, rho, err = shared.words, shared.backwards, shared.rho, shared.err
    states, pair, wanted = sample.states, sample.pair, sample.wanted
    same, alt = found.same, found.alt
    messages, rows, f, g = scratch.messages, scratch.rows, scratch.forward, scratch.alleles
    right, left = scratch.totals[0], scratch.totals[1]
    mass, weight = scratch.masses, scratch.weights
    num_words = words.shape[0]
    n = states.shape[1]
    one = np.float32(1.0)
    send_messages(shared, sample, scratch)
    left[:] = one
    f[:] = one / np.float32(n)
    y = 0
    before = -1
    for w in range(num_words):
        if w > 0:
            forget_others(states, w, w - 1, backwards, f)
        gather(words, states, w, backwards, g)
        first = w * WORD
        busy = False
        for t in range(first, first + WORD):
            busy = busy or wanted[t] != 0
        if busy:
            message = messages[w]
            right[0] = message[0, n]
            right[1] = message[1, n]
            pass_back(shared, sample, first, g, message, right, rows, True)
        for t in range(first, first + WORD):
            bit = np.uint32(1) << np.uint32(t - first)
            enter = np.float32(rho[t] / np.float32(n))
            stay = one - rho[t]
            a0 = pair[y, t]
            a1 = pair[1 - y, t]
            for x in range(2):
                scale = np.float32(stay / left[x])
                if wanted[t] != 0:
                    left[x] = step(f[x], scale, enter, one, one, g, bit)
                else:
                    a = a0 if x == 0 else a1
                    e0 = emission(a, err, 0)
                    e1 = emission(a, err, 1)
                    left[x] = step(f[x], scale, enter, e0, e1, g, bit)
            if wanted[t] != 0:
                joint_masses(f, rows[t - first], g, bit, mass)
                if wanted[t] == MISSING:
                    alt[0, t] = mass[0, y, 1] / (mass[0, y, 0] + mass[0, y, 1])
                    alt[1, t] = mass[1, 1 - y, 1] / (mass[1, 1 - y, 0] + mass[1, 1 - y, 1])
                else:
                    weigh_moves(mass, err, a0, y, sample.moves[t], weight)
                    if before >= 0:
                        p = weight[0] + weight[3]
                        at = before if backwards else t
                        same[0, at] += p if pair[0, before] == a0 else 1 - p
                        same[1, at] += 1
                    move = choose_move(weight, shared.draw, sample.uniform[t])
                    if move == 1 or move == 2:
                        a0, a1 = a1, a0
                    if move >= 2:
                        y = 1 - y
                for x in range(2):
                    a = a0 if x == 0 else a1
                    e0 = emission(a, err, 0)
                    e1 = emission(a, err, 1)
                    left[x] = step(f[x], one, np.float32(0.0), e0, e1, g, bit)
            if a0 != a1 and a0 >= 0 and a1 >= 0:
                before = t
            pair[0, t] = a0
            pair[1, t] = a1
