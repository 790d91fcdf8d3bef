"""What copying says to token models, against the textbook chain and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel, whole_chain, window_of

from ragimpute.config import DataConfig
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.evidence.site_states import candidate_states
from ragimpute.evidence.site_states_kernel import STATE
from ragimpute.token_model.copying_evidence import CopyingEvidence, collect_copying

NUM_SITES, NUM_HAPLOTYPES = 60, 20
RATE, ERR = 2.0, 0.01


def data(num_retrieved=5, num_carriers=1, max_states=100) -> DataConfig:
    return DataConfig(
        retrieval="site", num_retrieved=num_retrieved, num_carriers=num_carriers,
        max_states=max_states,
    )  # fmt: skip


def problem(seed: int, num_typed=24, num_targets=4):
    """A mosaic panel, a window with a core, targets with missing alleles, and the core's AF."""
    rng = np.random.default_rng(seed)
    panel = mosaic_panel(rng, NUM_SITES, NUM_HAPLOTYPES)
    cm = np.cumsum(rng.exponential(0.05, NUM_SITES))
    typed = np.sort(rng.choice(NUM_SITES, num_typed, replace=False))
    start, stop = sorted(rng.choice(NUM_SITES + 1, 2, replace=False).tolist())
    window = window_of(panel, cm, typed, (start, stop))
    targets = panel[typed][:, rng.choice(NUM_HAPLOTYPES, num_targets)].copy()
    targets ^= (rng.random(targets.shape) < 0.05).astype(np.int8)
    targets[rng.random(targets.shape) < 0.1] = -1
    return panel, window, targets, panel[start:stop].mean(axis=1)


def collect(window, targets, af, settings, allowed=None, own=None, threads=1) -> CopyingEvidence:
    n = targets.shape[1]
    return collect_copying(
        window, targets, CopyingParameters(RATE, ERR), settings,
        allowed=np.arange(NUM_HAPLOTYPES, dtype=np.int32) if allowed is None else allowed,
        own=np.full((n, 1), -1) if own is None else own, af=af, threads=threads,
    )  # fmt: skip


def logit_of(prob: np.ndarray) -> np.ndarray:
    """The logit within +-9, by its formula."""
    prob = np.clip(prob, 0, 1)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(prob) - np.log1p(-prob), -9, 9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_logit_is_that_of_the_textbook_chain(seed):
    panel, window, targets, af = problem(seed)
    rng = np.random.default_rng(seed)
    allowed = np.sort(rng.choice(NUM_HAPLOTYPES, 12, replace=False)).astype(np.int32)
    own = rng.choice(allowed, (4, 2))
    own[0] = -1
    found = collect(window, targets, af, data(), allowed, own)
    for i in range(4):
        states = np.setdiff1d(allowed, own[i])
        prob = whole_chain(
            panel, window.position_cm, window.typed_index, targets[:, i], RATE, ERR, states
        )[slice(*window.core)]
        np.testing.assert_allclose(found.logit[i], logit_of(prob), atol=0.02)
        there = set(found.ids[i][found.ids[i] >= 0].tolist())
        assert there <= set(states.tolist())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gaps_and_the_number_of_states(seed):
    _, window, targets, af = problem(seed)
    found = collect(window, targets, af, data())
    cm, typed = window.position_cm, window.typed_index.tolist()
    for m, u in enumerate(range(*window.core)):
        before = [t for t in typed if t <= u]
        after = [t for t in typed if t > u]
        left = cm[u] - cm[before[-1]] if before else 0.0
        right = cm[after[0]] - cm[u] if after else 0.0
        np.testing.assert_allclose(found.sites[:, m, 1], np.log(left + 1e-4), atol=1e-5)
        np.testing.assert_allclose(found.sites[:, m, 2], np.log(right + 1e-4), atol=1e-5)
    count = found.sites[..., 3]
    assert (count >= -1e-5).all()
    assert (count <= np.log(NUM_HAPLOTYPES) + 1e-5).all()


def test_who_tells_nothing_may_copy_anyone():
    panel, window, targets, _ = problem(0)
    window = window.with_core((0, NUM_SITES))
    af = panel.mean(axis=1)
    found = collect(window, np.full_like(targets, -1), af, data())
    np.testing.assert_allclose(found.sites[..., 3], np.log(NUM_HAPLOTYPES), atol=1e-4)
    np.testing.assert_allclose(found.logit, np.tile(logit_of(af), (4, 1)), atol=0.02)
    np.testing.assert_allclose(found.log_mass[:, :4], np.log(1 / NUM_HAPLOTYPES), atol=1e-3)
    alone = collect(window, targets, af, data(), np.array([3], np.int32))
    np.testing.assert_allclose(alone.sites[..., 3], 0, atol=1e-5)
    np.testing.assert_array_equal(alone.logit, np.tile(np.where(panel[:, 3], 9, -9), (4, 1)))


def test_more_are_asked_for_than_there_are():
    panel, window, targets, _ = problem(1)
    window = window.with_core((0, NUM_SITES))
    allowed = np.array([1, 4, 7], np.int32)
    found = collect(
        window, targets, panel.mean(axis=1), data(8, 2), allowed, np.array([[1], [4], [7], [-1]])
    )
    assert (found.ids >= 0).sum(axis=1).tolist() == [[2] * NUM_SITES] * 3 + [[3] * NUM_SITES]
    assert (found.states[found.ids < 0] == 0).all()
    for i, ids in enumerate(found.ids):
        assert set(np.unique(ids)) == {-1, 1, 4, 7} - ({[1, 4, 7][i]} if i < 3 else set())


def test_states_are_sought_among_the_nearest():
    panel, window, targets, _ = problem(2)
    window = window.with_core((0, NUM_SITES))
    few = data(3, 0, max_states=6)
    found = collect(window, targets, panel.mean(axis=1), few)
    every = np.arange(NUM_HAPLOTYPES, dtype=np.int32)
    states = candidate_states(window, targets, every, np.full((4, 1), -1), 6)
    for i in range(4):
        assert set(np.unique(found.ids[i])) <= set(states[i].tolist())
        prob = whole_chain(
            panel, window.position_cm, window.typed_index, targets[:, i], RATE, ERR, states[i]
        )
        np.testing.assert_allclose(found.logit[i], logit_of(prob), atol=0.02)


@pytest.mark.parametrize("ends", [0.0, 1.0])
def test_without_a_typed_site_the_frequency_is_all_there_is(ends):
    panel = mosaic_panel(np.random.default_rng(0), NUM_SITES, NUM_HAPLOTYPES)
    window = window_of(panel, np.arange(NUM_SITES) * 0.1, [], (5, 15))
    af = np.concatenate([[ends], np.linspace(0.1, 0.9, 9)])
    nobody = np.full((2, 1), -1)
    found = collect_copying(
        window, np.zeros((0, 2), np.int8), None, data(),
        allowed=np.arange(NUM_HAPLOTYPES, dtype=np.int32), own=nobody, af=af,
    )  # fmt: skip
    np.testing.assert_allclose(found.logit, np.tile(logit_of(af), (2, 1)), atol=1e-5)
    assert (found.ids == -1).all()
    assert found.ids.shape == (2, 5, 10)
    assert (found.states == 0).all()
    assert (found.sites[..., 1:] == 0).all()


def test_threads_and_companions_change_nothing():
    _, window, targets, af = problem(3)
    together = collect(window, targets, af, data(), threads=2)
    for i in range(4):
        alone = collect(window, np.ascontiguousarray(targets[:, i : i + 1]), af, data())
        for whole, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[i], one[0])


def test_parts_are_put_where_they_belong():
    _, window, targets, _ = problem(4)
    window = window.with_core((10, 30))
    whole = collect(window, targets, np.full(20, 0.3), data())
    np.testing.assert_array_equal(whole.log_mass, whole.states[..., STATE.mass])
    out = CopyingEvidence.empty(6, 5, 25)
    before = CopyingEvidence.empty(6, 5, 25)
    rows = np.array([3, 0])
    out.put(slice(2, 4), slice(1, 8), whole.part(rows, slice(4, 11)))
    for i, row in enumerate(rows.tolist()):
        np.testing.assert_array_equal(out.ids[2 + i, :, 1:8], whole.ids[row, :, 4:11])
        np.testing.assert_array_equal(out.states[2 + i, :, 1:8], whole.states[row, :, 4:11])
        np.testing.assert_array_equal(out.logit[2 + i, 1:8], whole.logit[row, 4:11])
    out.put(slice(2, 4), slice(1, 8), before.part(slice(0, 2), slice(0, 7)))
    for one, other in zip(out, before, strict=True):
        np.testing.assert_array_equal(one, other)
