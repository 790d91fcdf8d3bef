"""Kernels that find haplotypes which look the same to a sample, and describe groups of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.bits import WORD, trailing_zeros
from ragimpute.kernels.compile import kernel


@kernel
def hash_rows(words, seen, multiplier, out):
    """A number for each haplotype that depends only on its alleles at the sites that are seen.

    Parameters
    ----------
    words
        Shape (W, H), uint32: alleles, 32 sites to a word.
    seen
        Shape (W,), uint32: a bit for each site that counts.
    multiplier
        Shape (W,), uint64, odd random numbers.
    out
        Shape (H,), uint64: filled in. Haplotypes that differ have the same number with probability
        2^-31 or less.
    """
    for h in range(out.shape[0]):
        out[h] = np.uint64(0)
    for w in range(words.shape[0]):
        mask, m = seen[w], multiplier[w]
        if mask == np.uint32(0):
            continue
        row = words[w]
        for h in range(out.shape[0]):
            x = np.uint64(row[h] & mask)
            out[h] += x * m + ((x * m) >> np.uint64(32)) * m


@kernel
def count_alt(words, out):
    """Haplotypes that have ALT at each site.

    Parameters
    ----------
    words
        Shape (W, H), uint32: alleles, 32 sites to a word.
    out
        Shape (W, 32), int64, zeros: filled in.
    """
    for w in range(words.shape[0]):
        row, counts = words[w], out[w]
        for h in range(row.shape[0]):
            v = row[h]
            while v != np.uint32(0):
                counts[trailing_zeros(np.uint64(v))] += 1
                v &= v - np.uint32(1)


@kernel
def unpack_states(words, site, states, alleles, bits):
    """Alleles of some haplotypes at some sites.

    Parameters
    ----------
    words
        Shape (W, H), uint32.
    site
        Shape (T,), int64: the sites.
    states
        Shape (K,), int64: the haplotypes.
    alleles
        Shape (T, K), uint8: filled in.
    bits
        Shape (T, ceil(K / 16)), uint64: filled with the same, 16 to a number.
    """
    for t in range(site.shape[0]):
        row = words[site[t] // WORD]
        shift = np.uint32(site[t] % WORD)
        for b in range(bits.shape[1]):
            bits[t, b] = np.uint64(0)
        for s in range(states.shape[0]):
            a = (row[states[s]] >> shift) & np.uint32(1)
            alleles[t, s] = np.uint8(a)
            bits[t, s // 16] |= np.uint64(a) << np.uint64(s % 16)


class Members(NamedTuple):
    """Which haplotypes groups have.

    Attributes
    ----------
    column, group
        Shape (m,), int64: columns of words, and the group of each, ascending.
    weight
        Shape (m,), float32: how many haplotypes of the group the column stands for.
    """

    column: np.ndarray
    group: np.ndarray
    weight: np.ndarray


@kernel
def name_clusters(words, at, length, states, key, table, cluster, num):
    """Number the patterns of alleles that states have in some words, in the order of the states.

    Parameters
    ----------
    words
        Shape (W, H), uint32: alleles, 32 sites to a word.
    at
        Shape (E,), int64: the last words of patterns.
    length
        Words of a pattern; fewer at the beginning of ``words``.
    states
        Shape (K,), int64: haplotypes.
    key
        Shape (K,), uint64: a buffer.
    table
        Shape (a power of two, at least 2 K,), int32: a buffer.
    cluster
        Shape (E, K), int32: filled with the number of each state's pattern. Different patterns
        have the same number with probability K^2 / 2^64 or so.
    num
        Shape (E,), int32: filled with the number of patterns.
    """
    last = np.uint64(table.shape[0] - 1)
    odd = np.uint64(0x9E3779B97F4A7C15)
    for e in range(at.shape[0]):
        to = cluster[e]
        key[:] = np.uint64(0)
        for w in range(max(0, at[e] + 1 - length), at[e] + 1):
            row = words[w]
            for s in range(states.shape[0]):
                x = (key[s] ^ np.uint64(row[states[s]])) * odd
                key[s] = x ^ (x >> np.uint64(29))
        table[:] = -1
        found = 0
        for s in range(states.shape[0]):
            place = key[s] & last
            while table[place] >= 0 and key[table[place]] != key[s]:
                place = (place + np.uint64(1)) & last
            if table[place] < 0:
                table[place] = s
                to[s] = found
                found += 1
            else:
                to[s] = to[table[place]]
        num[e] = found


@kernel
def minor_shares(words, flip, members, size, counts, num, start, state, share):
    """For each site the groups that have the minor allele, and the share of their haplotypes.

    Parameters
    ----------
    words
        Shape (W, H), uint32: of haplotypes, or of the patterns of a block.
    flip
        Shape (W,), uint32: a bit for each site whose minor allele is REF.
    members
        See :class:`Members`.
    size
        Shape (K,), float32: the groups' numbers of haplotypes.
    counts
        Shape (32, K), float32: a buffer of zeros, which it is left as.
    num
        Entries that there are already, of blocks on the left.
    start
        Shape (32 W + 1,), int64: filled with where the entries of each site begin.
    state, share
        Shape (all entries,), int32 and float32: filled in as far as there is room.

    Returns
    -------
    The number of entries, which may be larger than there was room for: then call it again.
    """
    room = state.shape[0]
    start[0] = num
    for w in range(words.shape[0]):
        row, turned = words[w], flip[w]
        some = np.uint32(0)
        for y in range(members.column.shape[0]):
            v = np.uint32(row[members.column[y]] ^ turned)
            some |= v
            s = members.group[y]
            while v != np.uint32(0):
                counts[trailing_zeros(np.uint64(v)), s] += members.weight[y]
                v &= v - np.uint32(1)
        for j in range(WORD):
            if (some >> np.uint32(j)) & np.uint32(1):
                for s in range(counts.shape[1]):
                    c = counts[j, s]
                    if c > np.float32(0.0):
                        if num < room:
                            state[num] = s
                            share[num] = c / size[s]
                        num += 1
                        counts[j, s] = np.float32(0.0)
            start[w * WORD + j + 1] = num
    return num


@kernel
def name_haplotypes(best, alleles, every, reach):
    """Give the states of each pair to the sample's first and second haplotype, in place.

    Parameters
    ----------
    best
        Shape (A, 2), int32: the pair of each anchor. A pair changes places where it then has more
        states in common with the pair before, or else where it then differs less from it.
    alleles
        Shape (T, K), uint8, at steps of which every ``every``-th is an anchor.
    every, reach
        Differences are counted at so many steps on each side of an anchor.
    """
    for k in range(1, best.shape[0]):
        i, j, p, q = best[k - 1, 0], best[k - 1, 1], best[k, 0], best[k, 1]
        gain = np.int64(p == j) + np.int64(q == i) - np.int64(p == i) - np.int64(q == j)
        if gain == 0 and p != q and i != j:
            middle = k * every
            for t in range(max(0, middle - reach), min(alleles.shape[0], middle + reach)):
                a, b, c, d = alleles[t, i], alleles[t, j], alleles[t, p], alleles[t, q]
                gain += np.int64(c == b) + np.int64(d == a) - np.int64(c == a) - np.int64(d == b)
        if gain > 0:
            best[k, 0], best[k, 1] = q, p


@kernel
def shares_along(start, state, share, path, out):
    """Share of the minor allele in the states of a path.

    Parameters
    ----------
    start, state, share
        See :func:`minor_shares`.
    path
        Shape (M, 2), int32: the two states of each site.
    out
        Shape (M, 2), float32: filled in.
    """
    for x in range(path.shape[0]):
        for side in range(2):
            out[x, side] = np.float32(0.0)
            for y in range(start[x], start[x + 1]):
                if state[y] == path[x, side]:
                    out[x, side] = share[y]
