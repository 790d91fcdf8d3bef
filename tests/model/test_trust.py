"""How far a residual is trusted: what left-out samples say of it, and no more than they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.model.site_net import sigmoid, softmax
from ragimpute.model.trust import (
    EDGES,
    Trust,
    classes_of,
    fit_confidence,
    fit_genotype_trust,
    fit_trust,
)


def drawn(num, share, seed=0, num_samples=50):
    """Pairs whose truth has ``share`` of the residual: offset, residual, y, MAF logit, sample."""
    rng = np.random.default_rng(seed)
    offset, residual = rng.normal(size=(2, num)).astype(np.float32)
    maf = np.exp(rng.uniform(np.log(0.001), np.log(0.5), num))
    y = (rng.random(num) < sigmoid(offset + share * residual)).astype(np.float32)
    logit = np.log(maf / (1 - maf)).astype(np.float32)
    return offset, residual, y, logit, rng.integers(0, num_samples, num)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_many_pairs_tell_the_share(share):
    found = fit_trust(*drawn(200_000, share)).share
    np.testing.assert_allclose(found, share, atol=0.08)


def test_a_residual_that_is_wrong_is_not_trusted_at_all():
    assert fit_trust(*drawn(100_000, -1.0)).share.max() == 0


def test_without_pairs_it_is_taken_as_it_is():
    none = np.zeros(0, np.float32)
    found = fit_trust(none, none, none, none, np.zeros(0, np.int64))
    np.testing.assert_array_equal(found.share, 1)


def test_a_few_pairs_say_little():
    one = fit_trust(*drawn(12, -1.0)).share
    many = fit_trust(*drawn(30_000, -1.0)).share
    assert one.min() > 0.7 > many.max()


def test_pairs_of_one_sample_count_less_than_those_of_many():
    offset, residual, y, maf, _ = drawn(6_000, 0.0, num_samples=600)
    residual = 0.2 * np.abs(residual)  # pairs of a sample that err together
    y = np.zeros_like(y)
    one = fit_trust(offset, residual, y, maf, np.zeros(6_000, np.int64)).share
    many = fit_trust(offset, residual, y, maf, np.arange(6_000)).share
    assert (one > many).all()


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), harmed=st.integers(0, len(EDGES)))
def test_a_class_that_is_harmed_loses_its_residual_and_others_keep_theirs(seed, harmed):
    offset, residual, y, maf, sample = drawn(40_000, 1.0, seed)
    here = classes_of(maf) == harmed
    wrong = np.random.default_rng(seed + 1).random(len(y)) < sigmoid(offset - 0.5 * residual)
    y = np.where(here, wrong, y).astype(np.float32)
    found = fit_trust(offset, residual, y, maf, sample).share
    assert found[harmed] < 0.3
    assert np.delete(found, harmed).min() > 0.75
    # A dozen of its pairs cannot tell harm from chance.
    kept = ~here | (np.cumsum(here) <= 12)
    found = fit_trust(*(x[kept] for x in (offset, residual, y, maf, sample))).share
    assert found.min() > 0.75


@pytest.mark.parametrize("seed", range(4))
def test_a_class_of_few_pairs_is_like_the_others(seed):
    args = drawn(30_000, 0.5, seed)
    rarest = classes_of(args[3]) == 0
    kept = ~rarest | (np.cumsum(rarest) <= 12)
    found = fit_trust(*(x[kept] for x in args)).share
    alone = fit_trust(*(x[kept & rarest] for x in args)).share
    assert abs(found[0] - 0.5) < 0.15
    assert alone[0] > 0.65


def test_classes_have_their_own_shares():
    offset, residual, y, maf, sample = drawn(300_000, 1.0)
    rare = maf < np.log(0.05 / 0.95)
    wrong = np.random.default_rng(1).random(len(y)) < sigmoid(offset - residual)
    found = fit_trust(offset, residual, np.where(rare, wrong, y).astype(np.float32), maf, sample)
    assert found.share[0] < 0.05
    assert found.share[-1] > 0.9
    np.testing.assert_array_equal(found.of(maf[:50]), found.share[classes_of(maf[:50])])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1), num=st.integers(1, 200), scale=st.sampled_from([1e-6, 1, 40])
)
def test_any_pairs_give_shares_within_the_range_in_any_order(seed, num, scale):
    offset, residual, y, maf, sample = drawn(num, 0.5, seed, 5)
    args = offset, scale * residual, y, maf, sample
    found = fit_trust(*args).share
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1.2)).all()
    order = np.random.default_rng(seed).permutation(num)
    np.testing.assert_allclose(fit_trust(*(x[order] for x in args)).share, found, atol=1e-5)


def test_a_frequency_on_an_edge_belongs_to_the_class_that_it_ends():
    edges = np.array(EDGES)
    logit = np.log(edges / (1 - edges)).astype(np.float32)
    np.testing.assert_array_equal(classes_of(logit), np.arange(len(EDGES)))
    np.testing.assert_array_equal(classes_of(logit + 1e-3), np.arange(len(EDGES)) + 1)
    assert Trust(np.arange(7, dtype=np.float32)).of(np.array([-9.0, 0.0])).tolist() == [0, 6]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_two_outcomes_are_those_of_pairs(seed):
    offset, residual, y, logit, sample = drawn(2_000, 0.5, seed)
    none = np.zeros(len(y))
    found = fit_genotype_trust(
        np.stack([none, offset], axis=1), np.stack([none, residual], axis=1), y.astype(int),
        logit, sample,
    )  # fmt: skip
    np.testing.assert_allclose(
        found.share, fit_trust(offset, residual, y, logit, sample).share, atol=1e-4
    )


def genotypes(rng, num, sure):
    """Logits of three genotypes, ln P(reads), and genotypes that are ``sure`` times as certain."""
    logits = np.cumsum(rng.normal(0, 2, (num, 3)), axis=1)
    reads = np.log(rng.choice([1.0, 0.5, 0.05], (num, 3)))
    chance = np.cumsum(softmax(sure * logits + reads), axis=1)
    return logits, reads, (rng.random((num, 1)) > chance).sum(axis=1).clip(0, 2)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1.6), st.integers(1, 4_000))
def test_confidence_lies_between_what_samples_want_and_one(seed, sure, num):
    rng = np.random.default_rng(seed)
    logits, reads, y = genotypes(rng, num, sure)
    found = fit_confidence(logits, reads, y, rng.integers(0, 16, num))
    assert 0.1 <= found < 2.5
    if num > 2_000:
        assert (found - 1) * (sure - 1) > -0.02
        assert abs(found - 1) < abs(sure - 1) + 0.15


def test_many_samples_tell_the_confidence_and_sure_genotypes_tell_none():
    rng = np.random.default_rng(1)
    for sure in (0.6, 1.0, 1.5):
        logits, reads, y = genotypes(rng, 200_000, sure)
        found = fit_confidence(logits, reads, y, rng.integers(0, 200, len(y)))
        assert found == pytest.approx(sure, abs=0.03)
        order = rng.permutation(len(y))
        sample = order % 200
        again = fit_confidence(logits[order], reads[order], y[order], sample[order])
        assert again == pytest.approx(found, abs=0.01)
    # Wrong genotypes of which all seemed certain do not decide.
    certain = np.tile([20.0, 0.0, 0.0], (50, 1))
    assert fit_confidence(certain, 0 * certain, np.ones(50, int), np.arange(50) % 5) == 1
    none = np.zeros((0, 3))
    assert fit_confidence(none, none, np.zeros(0, int), np.zeros(0, int)) == 1
