"""What a sample's other haplotype says, against Bayes' rule written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.evidence.features import HOMOLOG_FEATURES
from ragimpute.evidence.other_haplotype import homolog_features, homolog_probs, homologs_of

HOMOLOG, SHIFT = (HOMOLOG_FEATURES.index(name) for name in ("homolog", "homolog_shift"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), max_size=30))
def test_homologs_are_the_two_of_a_sample(sample):
    found = homologs_of(np.array(sample, int))
    for i, mine in enumerate(sample):
        others = [j for j, x in enumerate(sample) if x == mine and j != i]
        assert found[i] == (others[0] if len(others) == 1 else -1)


def test_probabilities_are_those_of_the_other_row():
    prob = np.arange(12, dtype=np.float32).reshape(4, 3) / 12
    pairs = np.array([[0, 2], [1, 0], [2, 1], [3, 2]])
    found = homolog_probs(prob, np.array([1, 0, -1, -1]), pairs)
    np.testing.assert_array_equal(found, np.float32([5 / 12, 0, np.nan, np.nan]))
    assert len(homolog_probs(prob, np.full(4, -1), pairs[:0])) == 0


def features_of(q, m, f):
    """The features of pairs of these probabilities, frequencies and shares."""
    q, m, f = np.broadcast_arrays(*(np.asarray(x, np.float32) for x in (q, m, f)))
    return homolog_features(q.ravel(), np.log(m / (1 - m)).ravel(), f.ravel())


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.001, 0.5), st.floats(-1, 1))
def test_the_shift_is_bayes_rule(q, m, f):
    """The posterior of two alleles that go together, of which the other one is summed out."""
    ((homolog, shift),) = features_of(q, m, f)
    assert homolog == pytest.approx(np.log(q / (1 - q)), abs=1e-3)
    ratio = np.array([[1 + f * m / (1 - m), 1 - f], [1 - f, 1 + f * (1 - m) / m]])
    together = np.array([0.5, 0.5])[:, None] * np.array([1 - q, q]) * np.maximum(ratio, 0.05)
    expected = np.log(together[1].sum() / together[0].sum())
    assert shift == pytest.approx(np.clip(expected, -3, 3), abs=1e-3)


def test_nothing_is_shifted_where_nothing_is_known():
    m, f = np.linspace(0.01, 0.5, 20), np.linspace(-1, 1, 20)
    nobody = features_of(np.nan, m, f)
    assert (nobody[:, SHIFT] == 0).all()
    np.testing.assert_allclose(nobody[:, HOMOLOG], np.log(m / (1 - m)), rtol=1e-5)
    # Nor where alleles are independent, nor where the other haplotype says what the panel says.
    np.testing.assert_allclose(features_of(0.3, m, 0)[:, SHIFT], 0, atol=1e-6)
    # There cannot be more heterozygous samples than carriers.
    some = np.maximum(f, -m / (1 - m))
    np.testing.assert_allclose(features_of(m, m, some * 0.9)[:, SHIFT], 0, atol=1e-5)


@settings(deadline=None)
@given(
    q=st.floats(0, 1, width=32) | st.just(float("nan")),
    logit=st.floats(-9, 9, width=32),
    f=st.floats(-5, 5, width=32),
)
def test_all_is_finite(q, logit, f):
    ((homolog, shift),) = homolog_features(*(np.array([x], np.float32) for x in (q, logit, f)))
    assert abs(homolog) <= 9
    assert abs(shift) <= 3


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.floats(0.01, 0.5))
def test_more_missing_heterozygotes_pull_alleles_together(q, m):
    least = -0.9 * m / (1 - m)
    low, middle, high = features_of(q, m, [least, 0, 0.4])[:, SHIFT]
    if q > m + 0.001:
        assert low < middle < high
    elif q < m - 0.001:
        assert low > middle > high
