"""Ages of alleles against ages of matches: plain arithmetic, limits, and what grows with what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_evidence import describe_ages

from ragimpute.evidence.allele_age import age_features
from ragimpute.evidence.features import (
    AGE_FEATURES,
    AGES,
    COPYING,
    LOGIT_LIMIT,
    NUM_COPIED,
    SITE_FEATURES,
    YOUNGER,
)

SHARE = AGE_FEATURES.index("age_share")
POSTERIOR = AGE_FEATURES.index("age_posterior")


def rows(posterior, younger, sharing):
    """What kernels write of pairs, and the features of their sites."""
    copied = np.zeros((len(posterior), NUM_COPIED), np.float32)
    copied[:, COPYING.posterior] = posterior
    copied[:, YOUNGER:] = younger
    of_site = np.zeros((len(posterior), len(SITE_FEATURES)), np.float32)
    of_site[:, SITE_FEATURES.index("sharing")] = sharing
    return copied, of_site


PAIR = st.tuples(
    st.floats(-LOGIT_LIMIT, LOGIT_LIMIT),
    st.lists(st.floats(0, 1), min_size=len(AGES), max_size=len(AGES)).map(sorted),
    st.floats(-12, 9),
)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(PAIR, min_size=1, max_size=8))
def test_equals_the_slow_computation(pairs):
    posterior, younger, sharing = (list(x) for x in zip(*pairs, strict=True))
    found = age_features(*rows(posterior, younger, sharing))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    for row, (p, of_age, shared) in zip(found, pairs, strict=True):
        copied = {f"younger_{k}": x for k, x in enumerate(of_age)} | {"posterior": p}
        expected = describe_ages(copied, shared)
        for name, value in zip(AGE_FEATURES, row, strict=True):
            assert value == pytest.approx(expected[name], abs=6e-3), name


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(PAIR, min_size=1, max_size=8), longer=st.floats(0, 5))
def test_features_stay_within_their_limits_and_grow_with_the_age(pairs, longer):
    posterior, younger, sharing = (np.array(x) for x in zip(*pairs, strict=True))
    found = age_features(*rows(posterior, younger, sharing))
    assert ((found[:, SHARE] >= 0) & (found[:, SHARE] <= 1)).all()
    assert (np.abs(found[:, POSTERIOR]) <= LOGIT_LIMIT).all()
    # Carriers that share longer stretches: the allele is younger, and so are fewer matches.
    later = age_features(*rows(posterior, younger, sharing + longer))
    assert (later <= found + 1e-5).all()


def test_an_age_in_between_is_interpolated():
    younger = np.linspace(0.1, 0.7, len(AGES))
    ages = [AGES[0], AGES[1], (AGES[1] * AGES[2]) ** 0.5]
    found = age_features(*rows([3.0] * 3, younger, np.log(2 / np.array(ages))))
    np.testing.assert_allclose(found[:, SHARE], [0.1, 0.3, 0.4], atol=1e-5)


def test_no_pairs_have_no_features():
    assert age_features(*rows(np.zeros(0), 0, np.zeros(0))).shape == (0, len(AGE_FEATURES))
