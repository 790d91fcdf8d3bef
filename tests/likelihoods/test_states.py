"""Which states are paired."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.likelihoods.states import GroupMass, choose_groups
from ragimpute.likelihoods.stretches import PairSettings


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


def test_large_panels_take_first_what_is_likely_in_any_place():
    large = PairSettings().for_panel(20_000)
    mass = GroupMass(np.tile([0.9, 0.1], 104), np.tile([0.001, 0.02], 104))
    one_place = choose_groups(mass, 10, large, rough=False)
    assert set(range(0, 208, 2)) <= set(one_place.tolist())
