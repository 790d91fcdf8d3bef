"""The most probable states of each site, against a slow and plain forward-backward pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel, window_of

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window
from ragimpute.evidence.site_states import SiteStates, candidate_states, find_site_states
from ragimpute.evidence.site_states_kernel import STATE

PARAMETERS = CopyingParameters(2.0, 0.01)


def slow_posteriors(window: Window, alleles: np.ndarray, panel: np.ndarray, states: np.ndarray):
    """P(state) at each core site, shape (m, S), and both sides' masses at typed sites (T, S)."""
    steps = window.steps(PARAMETERS)
    rho, err = steps.rho.astype(float), steps.err.astype(float)
    observed = alleles >= 0
    differs = (panel[window.typed_index][:, states] != alleles[:, None]) & observed[:, None]
    emission = np.where(differs, err[:, None], 1 - err[:, None])
    emission[~observed] = (1 - err)[~observed][:, None]
    num_typed, n = emission.shape
    forward, backward = np.zeros((num_typed, n)), np.ones((num_typed + 1, n))
    mass = np.full(n, 1 / n)
    for t in range(num_typed):
        mass = ((1 - rho[t]) * mass + rho[t] / n) * emission[t]
        mass = forward[t] = mass / mass.sum()
    mass = np.ones(n)
    for t in range(num_typed - 1, -1, -1):
        gap = rho[t + 1] if t + 1 < num_typed else 1.0
        mass = ((1 - gap) * mass + gap * mass.mean()) * emission[t]
        mass = backward[t] = mass / mass.mean()
    out = []
    for u in range(*window.core):
        t = np.searchsorted(window.typed_index, u, side="right") - 1
        left = forward[t] if t >= 0 else np.full(n, 1 / n)
        at_left, at_right = (float(x[u]) for x in steps.near)
        here = (1 - at_left) * left + at_left / n
        here = here * ((1 - at_right) * backward[t + 1] + at_right)
        out.append(here / here.sum())
    return np.array(out), forward, backward


def slow_matches(window: Window, alleles: np.ndarray, panel: np.ndarray, h: int, u: int):
    """How far a haplotype matches around a site: left, right and both past one mismatch, cM."""
    cm = window.typed.position_cm
    t = int(np.searchsorted(window.typed_index, u, side="right")) - 1
    differs = (panel[window.typed_index, h] != alleles) & (alleles >= 0)
    before, after = np.flatnonzero(differs[: t + 1])[::-1], t + 1 + np.flatnonzero(differs[t + 1 :])
    at = window.position_cm[u]
    ends = []
    for i in range(2):
        ends.append(at - (cm[before[i]] if len(before) > i else cm[0]))
        ends.append((cm[after[i]] if len(after) > i else cm[-1]) - at)
    return np.maximum(ends, 0)


def problem(seed: int, num_sites=60, num_haplotypes=20, num_typed=24, num_targets=3):
    """A mosaic panel, a window with a core, and targets with missing alleles."""
    rng = np.random.default_rng(seed)
    panel = mosaic_panel(rng, num_sites, num_haplotypes)
    cm = np.cumsum(rng.exponential(0.05, num_sites))
    typed = np.sort(rng.choice(num_sites, num_typed, replace=False))
    core = tuple(sorted(rng.choice(num_sites + 1, 2, replace=False).tolist()))
    window = window_of(panel, cm, typed, core)
    targets = panel[typed][:, rng.choice(num_haplotypes, num_targets)].copy()
    targets ^= (rng.random(targets.shape) < 0.05).astype(np.int8)
    targets[rng.random(targets.shape) < 0.1] = -1
    return panel, window, targets


def name(window, targets, states, num=6, num_carriers=0, threads=1) -> SiteStates:
    return find_site_states(
        window, targets, PARAMETERS, states=states, num=num, num_carriers=num_carriers,
        threads=threads,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), num=st.integers(1, 8))
def test_the_states_are_the_most_probable_ones(seed, num):
    panel, window, targets = problem(seed)
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, panel.shape[1] + 1))
    states = [np.sort(rng.choice(panel.shape[1], size, replace=False)).astype(np.int32)] * 3
    found = name(window, targets, states, num)
    for i in range(3):
        posterior, forward, backward = slow_posteriors(window, targets[:, i], panel, states[i])
        for m, u in enumerate(range(*window.core)):
            ids = found.ids[i, :, m]
            assert (ids >= 0).sum() == min(num, size)
            ids = ids[ids >= 0]
            assert len(set(ids)) == len(ids)
            slots = np.searchsorted(states[i], ids)
            features = found.features[i, : len(ids), m]
            np.testing.assert_allclose(
                features[:, STATE.mass], np.log(posterior[m, slots] + 1e-6), atol=2e-4
            )
            t = int(np.searchsorted(window.typed_index, u, side="right")) - 1
            if t >= 0:
                np.testing.assert_allclose(
                    features[:, STATE.mass_left], np.log(forward[t, slots] + 1e-6), atol=2e-4
                )
            right = backward[t + 1, slots] / size
            np.testing.assert_allclose(
                features[:, STATE.mass_right], np.log(right + 1e-6), atol=2e-4
            )
            for h, row in zip(ids, features, strict=True):
                lengths = slow_matches(window, targets[:, i], panel, h, u)
                columns = [STATE.left, STATE.right, STATE.left_1, STATE.right_1]
                np.testing.assert_allclose(row[columns], np.log(lengths + 1e-3), atol=1e-4)
        # The most probable ones in the middle of each interval, whose sites share them.
        interval = np.searchsorted(window.typed_index, np.arange(*window.core), side="right")
        for t in np.unique(interval):
            middle = in_the_middle(window, forward, backward, t - 1)
            ids = found.ids[i, :, np.flatnonzero(interval == t)[0]]
            slots = np.searchsorted(states[i], ids[ids >= 0])
            assert middle[slots].sum() >= 0.999 * np.sort(middle)[::-1][: len(slots)].sum()


def in_the_middle(window, forward, backward, t: int) -> np.ndarray:
    """P(state), (S,), in the middle of the interval after typed site t; one-sided at the ends."""
    num_typed, n = forward.shape
    if t < 0:
        return backward[0] / n
    if t == num_typed - 1:
        return forward[t]
    half = 1 - np.sqrt(1 - float(window.steps(PARAMETERS).rho[t + 1]))
    here = ((1 - half) * forward[t] + half / n) * ((1 - half) * backward[t + 1] + half)
    return here / here.sum()


def test_more_states_than_there_are_leave_places_empty():
    _, window, targets = problem(1)
    window = window.with_core((0, 60))
    states = [np.array([2, 5], np.int32)] * 3
    found = name(window, targets, states, num=4, num_carriers=1)
    assert ((found.ids >= 0).sum(axis=1) == 2).all()
    assert (found.features[found.ids < 0] == 0).all()


def test_places_keep_their_haplotypes():
    _, window, targets = problem(3, num_sites=300, num_haplotypes=40, num_typed=100)
    window = window.with_core((0, 300))
    states = [np.arange(40, dtype=np.int32)] * 3
    found = name(window, targets, states, num=4)
    changes = (np.diff(found.ids, axis=2) != 0).mean()
    by_rank = np.sort(found.ids, axis=1)
    left = [
        len(set(by_rank[i, :, m + 1]) - set(by_rank[i, :, m])) for i in range(3) for m in range(299)
    ]
    assert changes == pytest.approx(np.mean(left) / 4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_places_for_carriers_hold_the_best_carriers(seed):
    panel, window, targets = problem(seed)
    window = window.with_core((0, 60))
    states = [np.arange(20, dtype=np.int32)] * 3
    plain, found = name(window, targets, states, 4), name(window, targets, states, 6, 2)
    minor = window.haplotypes.alt_is_minor
    for i in range(3):
        posterior, _, _ = slow_posteriors(window, targets[:, i], panel, states[0])
        for u in range(60):
            assert set(plain.ids[i, :, u]) == set(found.ids[i, :4, u])
            if window.haplotypes.row[u] >= 0:
                continue
            carriers = np.flatnonzero(panel[u] == (1 if minor[u] else 0))
            others = np.setdiff1d(carriers, plain.ids[i, :, u])
            listed = [h for h in found.ids[i, 4:, u] if h in set(others)]
            assert len(listed) == min(2, len(others))
            assert len(set(found.ids[i, :, u])) == 6
            if len(others) > 2:
                rest = np.setdiff1d(others, listed)
                # Ranks are those of the middle of the interval, without the last digits.
                assert posterior[u, rest].max() <= 1.5 * posterior[u, listed].min() + 1e-6


def test_threads_and_companions_change_nothing():
    _, window, targets = problem(5)
    states = [np.arange(20, dtype=np.int32)] * 3
    together = name(window, targets, states, 5, 1, threads=2)
    for i in range(3):
        alone = name(window, np.ascontiguousarray(targets[:, i : i + 1]), states[:1], 5, 1)
        for all_of, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_of[i], one[0])


def test_numbers_out_of_range_are_refused():
    _, window, targets = problem(1)
    states = [np.arange(20, dtype=np.int32)] * 3
    for num, num_carriers in ((0, 0), (33, 0), (4, 4), (4, -1)):
        with pytest.raises(ValueError, match="states"):
            name(window, targets, states, num, num_carriers)


def test_candidates_leave_out_the_own_and_the_forbidden():
    _, window, targets = problem(2)
    allowed = np.arange(0, 20, 2, dtype=np.int32)
    own = np.array([[0, 1], [4, -1], [-1, -1]])
    found = candidate_states(window, targets, allowed, own, 100)
    assert [x.tolist() for x in found] == [
        [2, 4, 6, 8, 10, 12, 14, 16, 18],
        [0, 2, 6, 8, 10, 12, 14, 16, 18],
        allowed.tolist(),
    ]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), most=st.integers(2, 19))
def test_candidates_of_a_large_panel_are_those_that_match_best(seed, most):
    panel, window, targets = problem(seed)
    allowed = np.arange(20, dtype=np.int32)
    found = candidate_states(window, targets, allowed, np.full((3, 1), -1), most)
    for i, states in enumerate(found):
        assert len(states) == most
        wrong = (panel[window.typed_index] != targets[:, i : i + 1]) & (targets[:, i : i + 1] >= 0)
        number = wrong.sum(axis=0)
        # One stretch holds all typed sites here: so these are simply the nearest.
        assert number[states].max() <= np.sort(number)[most - 1]
