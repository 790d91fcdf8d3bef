"""Which states are paired, and how long stretches are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.likelihoods.fit import simulate_reads
from ragimpute.likelihoods.model import normalise, share_told
from ragimpute.likelihoods.states import GroupMass, PairSettings, choose_groups, stretches

shares, rates = st.floats(0, 1), st.floats(0.05, 500)


@settings(deadline=None, max_examples=50)
@given(told=shares, rate=rates, scale=st.floats(0.01, 100))
def test_stretches_depend_on_no_unit_of_the_map(told, rate, scale):
    """A map with other numbers, whose switch rate is fitted to it, has the same stretches."""
    one, other = (PairSettings().by_reads(told, r) for r in (rate, rate / scale))
    assert other.stretch_cm == pytest.approx(one.stretch_cm * scale, rel=1e-6)
    assert other.pair_steps == one.pair_steps
    assert 5 - 1e-6 <= one.stretch_cm * rate <= 80 + 1e-6


@settings(deadline=None, max_examples=50)
@given(told=shares, other=shares, rate=rates)
def test_the_more_reads_tell_the_shorter_stretches_are(told, other, rate):
    few, many = (PairSettings().by_reads(x, rate) for x in sorted((told, other)))
    assert many.stretch_cm <= few.stretch_cm
    # The steps of the chromosome as a whole are bounded alike.
    per_cm = many.pair_steps / many.stretch_cm
    assert few.pair_steps / few.stretch_cm == pytest.approx(per_cm)


def test_stretches_of_shallow_and_of_deep_reads_differ():
    assert PairSettings().by_reads(0.03, 5.0).stretch_cm > 5
    assert PairSettings().by_reads(0.9, 5.0).stretch_cm < 1.5


def test_given_stretches_are_kept():
    given_cm = PairSettings(stretch_cm=3.0)
    assert given_cm.by_reads(0.1, 4.0) is given_cm


@pytest.mark.parametrize("num_sites", [1, 2, 40])
@pytest.mark.parametrize("length_cm", [0.0, 5.0])
def test_any_chromosome_is_cut(num_sites, length_cm):
    for cm in (None, 0.1, 1e9):
        parts = stretches(np.linspace(0, length_cm, num_sites), PairSettings(stretch_cm=cm))
        assert [parts[0].low, parts[-1].high] == [0, num_sites]
        assert sum(p.high - p.low for p in parts) == num_sites


@settings(deadline=None, max_examples=60)
@given(num_groups=st.integers(1, 400), seed=st.integers(0, 9999), skew=st.floats(0.1, 4))
def test_the_groups_that_are_chosen_have_the_mass(num_groups, seed, skew):
    rng = np.random.default_rng(seed)
    kept = rng.random((20, num_groups)) ** (3 * skew) + 1e-9
    kept = (kept / kept.sum(axis=1, keepdims=True)).astype(np.float32)
    mass = GroupMass(kept.max(axis=0), kept.mean(axis=0))
    limits = PairSettings(least=16, most=384, left_out=0.03)
    chosen = choose_groups(mass, 100, limits)
    assert (np.diff(chosen) > 0).all()
    left = 1 - mass.mean[chosen].sum()
    assert left <= 0.03 + 1e-4 or len(chosen) == limits.most
    # No more are taken than are needed, but for whole lanes.
    order = np.argsort(-mass.largest * mass.mean, kind="stable")
    fewer = order[: max(0, len(chosen) - 16 - 1)]
    assert 1 - mass.mean[fewer].sum() > 0.03 - 1e-4 or len(chosen) <= 16


def test_steps_bound_the_states():
    mass = GroupMass(np.full(500, 0.002, np.float32), np.full(500, 0.002, np.float32))
    assert len(choose_groups(mass, 1000, PairSettings(least=16, pair_steps=1e7))) == 112
    assert len(choose_groups(mass, 10**9, PairSettings(least=16, pair_steps=1e7))) == 16
    assert len(choose_groups(mass, 1000, PairSettings(rough=48), rough=True)) == 48


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


def test_less_is_left_out_of_large_panels():
    small, large, larger = (PairSettings().for_panel(n) for n in (600, 20_000, 10**6))
    assert small == PairSettings()
    assert larger.left_out < large.left_out < small.left_out
    assert large.anywhere
    mass = GroupMass(np.tile([0.9, 0.1], 104), np.tile([0.001, 0.02], 104))
    one_place = choose_groups(mass, 10, large, rough=False)
    assert set(range(0, 208, 2)) <= set(one_place.tolist())
