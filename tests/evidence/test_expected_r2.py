"""What left-out samples let one expect of r2."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.evidence.expected_r2 import expected_r2
from ragimpute.evidence.features import QUALITY_FEATURES

NO_SITE = np.zeros(0, np.int64)


def measured(r2, alleles):
    """Features of sites, of which two are read."""
    out = np.zeros((len(r2), len(QUALITY_FEATURES) + 3), np.float32)
    out[:, QUALITY_FEATURES.index("quality_r2")] = r2
    out[:, QUALITY_FEATURES.index("quality_alleles")] = np.log1p(alleles)
    return out


def test_a_rare_site_has_the_mean_of_sites_with_as_many_copies_left():
    """A left-out sample takes its own copy along: a doubleton was imputed from one copy."""
    count = np.repeat([1, 2, 3, 64], 50).astype(float)
    r2 = np.repeat([0.0, 0.3, 0.5, 0.95], 50)
    alleles = np.repeat([1, 1, 0, 20], 50)
    found = expected_r2(measured(r2, alleles), count, NO_SITE)
    assert found.dtype == np.float32
    single, double, triple, common = found.reshape(4, 50)[:, 0]
    assert abs(single - 0.3) < 0.05
    assert single < double < triple < common
    assert abs(common - 0.95) < 0.02


def test_a_site_with_many_alleles_left_out_speaks_for_itself():
    r2 = np.full(60, 0.9)
    r2[7] = 0.1
    found = expected_r2(measured(r2, np.full(60, 40.0)), np.full(60, 120.0), NO_SITE)
    assert found[7] < 0.2
    assert found[8] > 0.85


def test_typed_sites_teach_nothing_and_few_sites_give_none():
    r2, count = np.repeat([1.0, 0.4], 30), np.full(60, 30.0)
    typed = np.arange(30)
    found = expected_r2(measured(r2, np.full(60, 9)), count, typed)
    assert np.allclose(found[30:], 0.4, atol=0.02)
    assert expected_r2(measured(r2, np.full(60, 9)), count, np.arange(45)) is None
    assert expected_r2(measured(r2, np.zeros(60)), count, typed) is None
    assert expected_r2(measured(np.zeros(0), np.zeros(0)), np.zeros(0), NO_SITE) is None


@settings(max_examples=30, deadline=None)
@given(
    sites=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 50), st.integers(0, 5000)),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_it_is_within_bounds(sites):
    r2, alleles, count = np.array(sites, float).T
    found = expected_r2(measured(r2, np.minimum(alleles, count)), count, NO_SITE)
    if found is not None:
        assert ((found >= 0) & (found <= 1)).all()
        assert (found[count == 0] == 0).all()
