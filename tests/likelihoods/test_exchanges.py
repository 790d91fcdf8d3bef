"""Clusters of states that look the same, and where haplotypes exchange them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.copying.window import pack_words
from ragimpute.likelihoods.exchanges import clusters, exchanges_of, words_alike

seeds = st.integers(0, 2**32 - 1)


def words_of(alleles):
    """Alleles (M, H) packed as the kernels read them, (W, H)."""
    return np.ascontiguousarray(pack_words(alleles.astype(np.int8))[0].T)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))
def test_clusters_have_the_same_alleles(seed, num_states, length, num_founders):
    rng = np.random.default_rng(seed)
    founders = rng.integers(0, 2, (200, num_founders))
    alleles = founders[:, rng.integers(0, num_founders, 50)]
    states = rng.integers(0, 50, num_states)
    at = np.array([0, 2, 5])
    cluster, num = clusters(words_of(alleles), at, length, states)
    for last, found, how_many in zip(at, cluster, num, strict=True):
        rows = slice(max(0, last + 1 - length) * 32, (last + 1) * 32)
        _, expected = np.unique(alleles[rows][:, states].T, axis=0, return_inverse=True)
        same = found[:, None] == found
        np.testing.assert_array_equal(same, expected.ravel()[:, None] == expected.ravel())
        assert how_many == len(np.unique(found)) == found.max() + 1


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, 300), st.floats(0.01, 30), st.floats(0, 5))
def test_exchanges_are_as_many_as_the_distance_says(seed, num_seen, rate, length_cm):
    rng = np.random.default_rng(seed)
    words = words_of(rng.integers(0, 2, (320, 16)))
    cm = np.sort(rng.uniform(0, length_cm, 320))
    at = np.sort(rng.permutation(320)[: max(num_seen, 1)])
    found = exchanges_of(words, cm, np.arange(16), at, len(at) + 3, rate, 1)
    step = np.flatnonzero(found.before >= 0)
    np.testing.assert_array_equal(found.before[step], np.arange(len(found.prob)))
    assert len(found.before) == len(at) + 3
    assert ((step > 0) & (step < len(at))).all()
    assert ((found.prob > 0.09) & (found.prob <= 1)).all()
    expected = -np.log1p(-np.minimum(found.prob.astype(float), 1 - 1e-12)).sum()
    assert expected <= rate * (cm[at[-1]] - cm[at[0]]) + 1e-3


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, 6), st.integers(1, 200))
def test_more_haplotypes_must_be_alike_for_longer(seed, num_words, num_haplotypes):
    rng = np.random.default_rng(seed)
    founders = rng.integers(0, 2, (32 * num_words, 3))
    words = words_of(founders[:, rng.integers(0, 3, num_haplotypes)])
    found = words_alike(words)
    assert found in (1, 2, 4, 8, 16)
    if num_haplotypes > 48 and num_words:
        assert found == 16  # three founders never make so many clusters
    if num_haplotypes <= 16:
        assert found == 1
