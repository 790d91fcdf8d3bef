"""Left-out dosages against the chain that does not see the site, and empirical R2."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from slow_copying import mosaic_panel, whole_chain, window_of

from ragimpute.accuracy.leave_one_out import correlation, leave_one_out
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states


@pytest.mark.parametrize("err", [1e-4, 3e-3, 0.1])
def test_as_a_chain_that_does_not_see_the_site(err):
    rng = np.random.default_rng(4)
    alleles = mosaic_panel(rng, 80, 30)
    cm = np.sort(rng.random(80)) * 0.5
    typed = np.sort(rng.choice(80, 40, replace=False))
    targets = alleles[typed][:, :6] ^ (rng.random((40, 6)) < 0.05)
    targets[5, 0] = targets[17, 3] = -1
    window = window_of(alleles, cm, typed)
    rate, states = 3.0, np.arange(6, 30)
    prob = copy_haplotypes(
        window, targets, CopyingParameters(rate, err),
        states=lambda i: all_states(30, np.arange(6)),
    )  # fmt: skip
    found = leave_one_out(prob[:, typed].T, targets, err)  # (T, n)
    for t in range(0, 40, 3):
        for i in range(6):
            hidden = targets[:, i].copy()
            hidden[t] = -1
            expected = whole_chain(alleles, cm, typed, hidden, rate, err, states)[typed[t]]
            assert found[t, i] == pytest.approx(expected, abs=2e-3)
    assert found[5, 0] == pytest.approx(prob[0, typed[5]])


def test_an_allele_that_no_state_carries():
    found = leave_one_out(np.array([[0.0, 1.0]]), np.array([[1, 0]]), 1e-3)
    np.testing.assert_array_equal(found, [[0, 1]])
    with pytest.raises(ValueError, match="mismatch_prob"):
        leave_one_out(np.zeros((1, 1)), np.zeros((1, 1), np.int8), 0.5)


def test_correlation_by_numpy():
    rng = np.random.default_rng(0)
    dosage = rng.random((5, 40))
    observed = (rng.random((5, 40)) < dosage).astype(np.int8)
    observed[1, :7] = -1
    observed[2] = 0
    dosage[3] = 0.25
    found = correlation(dosage, observed)
    for i in (0, 1, 4):
        here = observed[i] >= 0
        assert found[i] == pytest.approx(np.corrcoef(dosage[i, here], observed[i, here])[0, 1])
    assert np.isnan(found[2:4]).all()


@given(
    hnp.arrays(np.float32, (3, 6), elements=st.floats(0, 1, width=32)),
    hnp.arrays(np.int8, (3, 6), elements=st.integers(-2, 1)),
)
def test_peers_68_empirical_r2_never_exceeds_one(dosage, observed):
    found = correlation(dosage, observed)
    assert (np.isnan(found) | (found**2 <= 1)).all()
    left_out = leave_one_out(dosage, observed, 1e-3)
    assert ((left_out >= 0) & (left_out <= 1)).all()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_each_haplotype_may_have_its_mismatch_probability(seed, m, n):
    rng = np.random.default_rng(seed)
    prob = rng.random((m, n)).astype(np.float32)
    observed = rng.integers(-1, 2, (m, n)).astype(np.int8)
    mismatch = rng.uniform(0.001, 0.49, (m, n))
    found = leave_one_out(prob, observed, mismatch)
    for j in range(n):
        alone = leave_one_out(prob[:, [j]], observed[:, [j]], mismatch[:, j])
        np.testing.assert_allclose(found[:, [j]], alone, rtol=1e-6)
    with pytest.raises(ValueError, match="must be in"):
        leave_one_out(prob, observed, np.full((m, n), 0.5))
    with pytest.raises(ValueError, match="mismatch_prob is"):
        leave_one_out(prob, observed, np.full((m, n + 1), 0.1))
