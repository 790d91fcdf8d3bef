"""Genotypes of P(ALT) of two haplotypes and of both."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragimpute.io.vcf.write.joined import sample_values
from ragimpute.likelihoods.joint import as_independent, genotype_probs, likeliest, settled_both

prob = st.floats(0, 1, width=32)


@settings(max_examples=60, deadline=None)
@given(prob, prob, prob)
@example(1.0, 0.9958067536354065, 0.0)
def test_whatever_is_given_probabilities_add_up_and_keep_the_dosage(first, second, both):
    p = np.array([[[first, second]]], np.float32)
    settled = settled_both(p, np.array([[both]], np.float32))
    found = genotype_probs(p, settled)[0, 0]
    assert found.min() >= 0
    np.testing.assert_allclose(found.sum(), 1, atol=1e-6)
    np.testing.assert_allclose(found @ [0, 1, 2], p.sum(), atol=1e-6)
    best = likeliest(p, settled)[0, 0]
    assert found[best.sum()] >= found.max() - 1e-6
    independent = as_independent(p, settled)[0, 0].astype(float)
    np.testing.assert_allclose(independent.sum(), p.sum(), atol=1e-5)
    if found[1] ** 2 >= 4 * found[0] * found[2]:
        np.testing.assert_allclose(independent.prod(), found[2], atol=1e-3)


def test_a_haploid_sample_keeps_its_probability():
    p = np.array([[[0.7, np.nan]]], np.float32)
    both = settled_both(p, np.array([[0.5]], np.float32))
    assert both == 0
    assert likeliest(p, both).tolist() == [[[1, -2]]]
    np.testing.assert_array_equal(as_independent(p, both), p)


def test_a_heterozygous_genotype_whose_phase_is_not_known():
    """Nobody knows who has ALT, but somebody has: neither P(ALT) exceeds one half."""
    p, both = np.full((1, 1, 2), 0.45, np.float32), np.zeros((1, 1), np.float32)
    assert likeliest(p, both).sum() == 1
    assert likeliest(p, settled_both(p, np.full((1, 1), 0.2025, np.float32))).sum() == 1
    assert likeliest(p, np.full((1, 1), 0.45, np.float32)).sum() == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_joined_records_have_the_joint_of_each_allele(seed):
    """Summed over the other alleles, GP of a joined record is that of each ALT alone."""
    rng = np.random.default_rng(seed)
    gp = rng.dirichlet(np.ones(6))  # 0/0, 0/1, 1/1, 0/2, 1/2, 2/2
    one, two = gp[1] + 2 * gp[2] + gp[4], gp[3] + 2 * gp[5] + gp[4]
    p = np.array([[[one / 2] * 2], [[two / 2] * 2]], np.float32)
    both = np.array([[gp[2]], [gp[5]]], np.float32)
    called = np.full((2, 1, 2), -1, np.int8)
    ((_, found),) = sample_values(["GP"], p, called, 4, both)
    assert found.sum() == 10_000
    assert found.min() >= 0
    share = found[0] / 10_000
    # What is beyond the product of haplotypes is kept as long as no probability is below 0.
    more = both[:, 0] - np.square([one / 2, two / 2])
    of = 1 - (one + two) / 2
    if of**2 + more.sum() > 0 and (2 * of * np.array([one, two]) / 2 > 2 * more).all():
        np.testing.assert_allclose(share[[2, 5]], gp[[2, 5]], atol=2e-4)
