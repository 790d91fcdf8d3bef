"""What reads tell of genotypes, and how often what is copied is switched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.likelihoods.fit import simulate_reads
from ragimpute.likelihoods.model import SwitchRates, normalise, share_told


def test_certain_genotypes_tell_their_entropy():
    af = np.array([0.5, 0.0, 0.1, 1.0])
    likelihoods = normalise(np.eye(3)[[1, 1, 0, 0]])
    rare = np.array([0.81, 0.18, 0.01])
    known, all_of_them = -np.log(0.5) - np.log(0.81), 1.5 * np.log(2) - rare @ np.log(rare)
    assert share_told(likelihoods, af) == pytest.approx(known / all_of_them, rel=1e-2)
    assert share_told(np.ones((4, 3), np.float32), af) == 0
    assert share_told(np.ones((4, 2), np.float32), af) == 0
    assert share_told(likelihoods, np.array([0.0, 1.0, 0.0, 1.0])) == 0


def test_haploid_reads_tell_of_one_allele():
    af = np.full(10, 0.3)
    alleles = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    assert share_told(normalise(np.eye(2)[alleles]), af) == pytest.approx(1, rel=1e-3)
    half = normalise(np.eye(2)[alleles])
    half[::2] = 1
    assert 0.2 < share_told(half, af) < 0.8


def test_deeper_reads_tell_more():
    rng = np.random.default_rng(3)
    af = rng.uniform(0.05, 0.95, 2000)
    truth = rng.binomial(2, af)[:, None]
    told = [
        share_told(normalise(simulate_reads(truth, depth, rng)[:, 0]), af)
        for depth in (0.05, 0.5, 4.0, 60.0)
    ]
    assert 0 < told[0] < told[1] < told[2] < told[3] <= 1
    assert told[3] > 0.97


@given(at_one=st.floats(0.1, 100), share=st.lists(st.floats(0, 1), min_size=2, max_size=2))
@settings(max_examples=50, deadline=None)
def test_samples_with_more_reads_switch_more_often(at_one, share):
    fewer, more = (SwitchRates(at_one).of(x) for x in sorted(share))
    assert 0 < fewer <= more < 3 * at_one  # the power is 0.5, the largest depth 8
    assert SwitchRates(at_one).of(1 - math.exp(-1)) == pytest.approx(at_one)
    assert SwitchRates(at_one, 0.0).of(share[0]) == at_one


@given(low=st.floats(0.1, 10), times=st.floats(1, 9))
@settings(max_examples=50, deadline=None)
def test_switch_rates_go_through_what_was_found_at_two_depths(low, times):
    rates = SwitchRates.through((0.1, 1), (low, low * times))
    shares = -np.expm1([-0.1, -1])
    np.testing.assert_allclose([rates.of(x) for x in shares], [low, low * times])
    assert SwitchRates.through((0.1, 1), (low * times, low)).power == 0
