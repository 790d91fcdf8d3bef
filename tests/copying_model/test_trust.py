"""How far a residual is trusted: what left-out samples say of it, and no more than they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.copying_model.trust import EDGES, Trust, classes_of, fit_trust
from ragimpute.model.site_net import sigmoid


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
    one = fit_trust(*drawn(30, -1.0)).share
    many = fit_trust(*drawn(30_000, -1.0)).share
    assert one.min() > 0.7 > many.max()


def test_pairs_of_one_sample_count_less_than_those_of_many():
    offset, residual, y, maf, _ = drawn(6_000, 0.0, num_samples=600)
    residual = 0.2 * np.abs(residual)  # pairs of a sample that err together
    y = np.zeros_like(y)
    one = fit_trust(offset, residual, y, maf, np.zeros(6_000, np.int64)).share
    many = fit_trust(offset, residual, y, maf, np.arange(6_000)).share
    assert (one > many).all()


def test_classes_have_their_own_shares():
    offset, residual, y, maf, sample = drawn(300_000, 1.0)
    rare = maf < np.log(0.05 / 0.95)
    wrong = np.random.default_rng(1).random(len(y)) < sigmoid(offset - residual)
    found = fit_trust(offset, residual, np.where(rare, wrong, y).astype(np.float32), maf, sample)
    assert found.share[0] < 0.3
    assert found.share[-1] > 0.8
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
