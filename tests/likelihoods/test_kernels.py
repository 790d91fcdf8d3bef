"""The passes over states and over pairs of states against plain loops in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_likelihoods import haploid_masses, pair_masses

from ragimpute.copying.window import pack_words
from ragimpute.likelihoods.diploid_kernel import (
    EVERY,
    Exchanges,
    Pairs,
    Sites,
    diploid_posterior,
)
from ragimpute.likelihoods.haploid_kernel import Steps, haploid_posterior
from ragimpute.likelihoods.state_kernel import Members, hash_rows, minor_shares, unpack_states


def words_of(alleles):
    """Alleles (M, H) packed as the kernels read them, (W, H)."""
    return np.ascontiguousarray(pack_words(alleles.astype(np.int8))[0].T)


def bits_of(alleles):
    """Alleles (T, K) as 16 bits to a number."""
    num_steps, num_states = alleles.shape
    packed = np.packbits(np.ascontiguousarray(alleles), axis=1, bitorder="little")
    return packed.view(np.uint16).reshape(num_steps, num_states // 16).astype(np.uint64)


def draw_pairs(rng, num_steps, num_states):
    """Steps over random states, some of which have no weight."""
    alleles = (rng.random((num_steps, num_states)) < 0.3).astype(np.uint8)
    emission = rng.choice([1.0, 0.5, 1e-3, 1e-5], (num_steps, 3))
    rho = rng.choice([1e-7, 0.01, 0.3, 1.0], num_steps)
    prior = rng.integers(1, 9, num_states).astype(float)
    alleles[:, -2:], prior[-2:] = alleles[:, :1], 0
    prior /= prior.sum()
    return Pairs(alleles, bits_of(alleles), emission.astype(np.float32), rho.astype(np.float32),
                 prior.astype(np.float32), draw_exchanges(rng, num_steps, num_states))  # fmt: skip


def draw_exchanges(rng, num_steps, num_states):
    """Exchanges before some steps, in clusters of any size; states of no weight have one each."""
    before = np.full(num_steps, -1, np.int32)
    at = np.flatnonzero(rng.random(num_steps) < 0.3)
    at = at[at > 0]
    before[at] = np.arange(len(at))
    num = rng.integers(1, 6, len(at)).astype(np.int32)
    cluster = rng.integers(0, num[:, None], (len(at), num_states)).astype(np.int32)
    cluster[:, -2:] = num[:, None]
    return Exchanges(before, rng.random(len(at)).astype(np.float32), cluster, num + 1)


def sites_of(pairs, minor):
    """Sites that stand at the steps one by one; ``minor`` (T, K): shares of the minor allele."""
    num_steps = len(minor)
    anchor = np.arange(EVERY // 2, num_steps, EVERY)
    entry, state = np.nonzero(minor)
    left = np.clip(np.searchsorted(anchor, np.arange(num_steps), side="right") - 1, 0, None)
    right = np.minimum(left + 1, len(anchor) - 1)
    gap = np.maximum(anchor[right] - anchor[left], 1)
    weight = np.clip((anchor[right] - np.arange(num_steps)) / gap, 0, 1)
    start = np.searchsorted(entry, np.arange(num_steps + 1)).astype(np.int64)
    first = np.concatenate([[0], anchor, [num_steps]]).astype(np.int64)
    return anchor, Sites(first, weight.astype(np.float32), start, state.astype(np.int32),
                         minor[entry, state].astype(np.float32))  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(EVERY // 2 + 1, 40), st.sampled_from([16, 32]))
def test_pairs_are_those_of_plain_loops(seed, num_steps, num_states):
    rng = np.random.default_rng(seed)
    pairs = draw_pairs(rng, num_steps, num_states)
    minor = np.where(rng.random((num_steps, num_states)) < 0.3, rng.random(num_states), 0)
    minor[:, -2:] = 0
    anchor, sites = sites_of(pairs, minor)
    counts, best = diploid_posterior(pairs, sites)
    plain = (np.asarray(x, np.float64) for x in pairs[:1] + pairs[2:5])
    of = pairs.exchanges
    exchanges = {t: (of.prob[e], of.cluster[e]) for t, e in enumerate(of.before) if e >= 0}
    mass = pair_masses(*plain, exchanges)
    at = mass[anchor]
    expected = np.zeros((num_steps, 3))
    for x, p in enumerate(minor):
        w = sites.weight[x]
        if x < anchor[0]:
            joint = at[0]
        elif x >= anchor[-1]:
            joint = at[-1]
        else:
            k = np.searchsorted(anchor, x, side="right") - 1
            joint = w * at[k] + (1 - w) * at[k + 1]
        expected[x] = (1 - p) @ joint @ (1 - p), 2 * (p @ joint @ (1 - p)), p @ joint @ p
    np.testing.assert_allclose(counts, expected, atol=2e-4)
    for (i, j), joint in zip(best, at, strict=True):
        rows = joint.sum(axis=1)
        assert rows[i] == pytest.approx(rows.max(), rel=1e-3)
        assert joint[i, j] == pytest.approx(joint[i].max(), rel=1e-3)


def test_little_memory_changes_no_bit():
    rng = np.random.default_rng(3)
    pairs = draw_pairs(rng, 203, 32)
    minor = np.where(rng.random((203, 32)) < 0.3, 1.0, 0)
    _, sites = sites_of(pairs, minor)
    counts, best = diploid_posterior(pairs, sites)
    again, path = diploid_posterior(pairs, sites, max_bytes=1)
    np.testing.assert_array_equal(again, counts)
    np.testing.assert_array_equal(path, best)


@pytest.mark.parametrize(("num_steps", "num_states"), [(EVERY // 2, 16), (20, 15)])
def test_refuses_what_has_no_anchor_or_no_lanes(num_steps, num_states):
    zeros = np.zeros((num_steps, num_states), np.uint8)
    one = np.ones(num_steps), np.ones(num_states)
    none = Exchanges.none(num_steps, num_states)
    pairs = Pairs(zeros, zeros, np.ones((num_steps, 3)), *one, none)
    nothing = Sites(*(np.zeros(0),) * 5)
    with pytest.raises(ValueError, match=f"{num_steps} steps over {num_states} states"):
        diploid_posterior(pairs, nothing)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70), st.integers(1, 40), st.integers(1, 9))
def test_states_are_those_of_plain_loops(seed, num_steps, num_states, every):
    rng = np.random.default_rng(seed)
    alleles = (rng.random((num_steps, num_states)) < 0.4).astype(np.uint8)
    emission = rng.choice([1.0, 0.5, 1e-5], (num_steps, 2)).astype(np.float32)
    rho = rng.choice([1e-7, 0.01, 1.0], num_steps).astype(np.float32)
    prior = rng.dirichlet(np.ones(num_states)).astype(np.float32)
    at = np.arange(every // 2, num_steps, every)
    kept = np.empty((len(at), num_states), np.float32)
    steps = Steps(words_of(alleles), np.arange(num_steps), emission, rho, prior)
    haploid_posterior(steps, every, kept, np.empty(num_states, np.float32))
    expected = haploid_masses(
        alleles, emission.astype(float), rho.astype(float), prior.astype(float)
    )
    np.testing.assert_allclose(kept, expected[at], atol=2e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 30))
def test_haplotypes_are_alike_where_they_are_seen(seed, num_sites, num_haplotypes):
    rng = np.random.default_rng(seed)
    alleles = (rng.random((num_sites, num_haplotypes)) < 0.2).astype(np.int8)
    seen = rng.random(num_sites) < 0.2
    words = words_of(alleles)
    mask = words_of(seen[:, None])[:, 0]
    odd = rng.integers(2**62, size=len(words), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    key = np.empty(num_haplotypes, np.uint64)
    hash_rows(words, mask, odd, key)
    same = (alleles[seen][:, :, None] == alleles[seen][:, None]).all(axis=0)
    np.testing.assert_array_equal(key[:, None] == key, same)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(2, 30), st.integers(0, 40))
def test_shares_of_the_minor_allele(seed, num_sites, num_haplotypes, room):
    rng = np.random.default_rng(seed)
    alleles = (rng.random((num_sites, num_haplotypes)) < rng.random((num_sites, 1))).astype(np.int8)
    turned = 2 * alleles.sum(axis=1) > num_haplotypes
    words = words_of(alleles)
    flip = words_of(turned[:, None])[:, 0]
    group = np.sort(rng.integers(0, 3, num_haplotypes))
    size = np.maximum(np.bincount(group, minlength=16), 1).astype(np.float32)
    counts = np.zeros((32, 16), np.float32)
    start = np.zeros(32 * len(words) + 1, np.int64)
    members = Members(np.arange(num_haplotypes), group, np.ones(num_haplotypes, np.float32))
    num = room
    while num >= room:  # at first there may be too little room
        room = num + 1
        state, share = np.empty(room, np.int32), np.empty(room, np.float32)
        num = minor_shares(words, flip, members, size, counts, 0, start, state, share)
    found = np.zeros((num_sites, 16))
    for x in range(num_sites):
        entries = slice(start[x], start[x + 1])
        found[x, state[entries]] = share[entries]
    minor = alleles ^ turned[:, None]
    expected = np.stack([minor[:, group == g].sum(axis=1) / size[g] for g in range(16)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert not counts.any()


def test_unpacked_states():
    rng = np.random.default_rng(1)
    alleles = (rng.random((70, 40)) < 0.5).astype(np.int8)
    site, states = np.array([0, 31, 32, 69]), rng.permutation(40)[:32]
    out, bits = np.empty((4, 32), np.uint8), np.empty((4, 2), np.uint64)
    unpack_states(words_of(alleles), site, states, out, bits)
    np.testing.assert_array_equal(out, alleles[site][:, states])
    np.testing.assert_array_equal(bits, bits_of(out))
