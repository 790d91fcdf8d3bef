"""The numba kernel against textbook Li-Stephens, and what must not change its result."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import SlowCopying, compact, mosaic_panel, whole_chain, window_of

from ragimpute.copying.copy import copy_haplotypes, copy_in_parts
from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.copying.states import all_states
from ragimpute.copying.window import TypedSites, Window, pack_words


def run(window, target, parameters, **options):
    """All haplotypes are states."""
    states = all_states(window.typed.num_haplotypes)
    return copy_haplotypes(window, target, parameters, states=lambda i: states, **options)


def case(seed, num_sites, num_haplotypes, num_typed, *, num_targets=3, missing=0.1, switches=0.05):
    """A panel (M, H), positions, typed sites, and targets (T, n) that are other mosaics."""
    rng = np.random.default_rng(seed)
    both = mosaic_panel(rng, num_sites, num_haplotypes + num_targets, switches=switches)
    alleles, targets = both[:, :num_haplotypes], both[:, num_haplotypes:]
    position_cm = np.cumsum(rng.exponential(0.02, num_sites) + 1e-4)
    typed_index = np.sort(rng.permutation(num_sites)[:num_typed])
    typed = targets[typed_index].copy()
    typed[rng.random(typed.shape) < missing] = -1
    return alleles, position_cm, typed_index, typed


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_haplotypes=st.integers(1, 70),
    num_sites=st.integers(1, 110),
    share=st.floats(0, 1),
    rate=st.floats(0.3, 30),
    err=st.floats(1e-4, 0.1),
    missing=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_equals_the_textbook_chain(seed, num_haplotypes, num_sites, share, rate, err, missing):
    num_typed = max(1, round(share * num_sites))
    alleles, cm, typed_index, target = case(
        seed, num_sites, num_haplotypes, num_typed, num_targets=2, missing=missing
    )
    rows = np.random.default_rng(seed).random(num_sites) < 0.5
    found = run(window_of(alleles, cm, typed_index, as_row=rows), target,
                CopyingParameters(rate, err))  # fmt: skip
    for i in range(2):
        expected = whole_chain(
            alleles, cm, typed_index, target[:, i], rate, err, np.arange(num_haplotypes)
        )
        np.testing.assert_allclose(found[i], expected, atol=2e-5)


def test_one_typed_site_by_hand():
    # Two haplotypes; the target agrees with the first. At distance d the posterior of the first is
    # (1 - err) (1 - rho) + rho / 2, whichever side.
    alleles = np.array([[1, 0], [1, 0], [0, 1]], np.int8)
    cm = np.array([0.0, 0.3, 1.0])
    found = run(window_of(alleles, cm, [1]), np.array([[1]], np.int8), CopyingParameters(2, 0.01))
    rho = 1 - np.exp(-2 * np.array([0.3, 0.0, 0.7]))
    first = 0.99 * (1 - rho) + rho / 2
    np.testing.assert_allclose(found[0], [first[0], first[1], 1 - first[2]], atol=1e-6)


def test_nothing_observed_gives_the_frequency():
    alleles, cm, typed_index, target = case(5, 40, 30, 12)
    found = run(window_of(alleles, cm, typed_index), np.full_like(target, -1),
                CopyingParameters(3, 1e-3))  # fmt: skip
    np.testing.assert_allclose(found, np.tile(alleles.mean(axis=1), (3, 1)), atol=1e-5)


def sliding_states(rng, num_words, num_haplotypes, k):
    """States that come and go by word; a haplotype that stays keeps its slot."""
    out = np.empty((num_words, k), np.int32)
    out[0] = rng.permutation(num_haplotypes)[:k]
    for w in range(1, num_words):
        out[w] = out[w - 1]
        leaving = rng.permutation(k)[: rng.integers(0, k // 2 + 1)]
        others = np.setdiff1d(np.arange(num_haplotypes), out[w - 1])
        out[w, leaving] = rng.permutation(others)[: len(leaving)]
    return out


@pytest.mark.parametrize("seed", range(6))
def test_sliding_states_equal_the_slow_passes(seed):
    alleles, cm, typed_index, target = case(seed, 260, 60, 130, num_targets=3)
    rng = np.random.default_rng(seed)
    states = [sliding_states(rng, 5, 60, 20) for _ in range(3)]
    found = copy_haplotypes(window_of(alleles, cm, typed_index), target,
                            CopyingParameters(4, 5e-3), states=lambda i: states[i])  # fmt: skip
    interval = np.searchsorted(typed_index, np.arange(260), side="right") - 1
    for i in range(3):
        slow = SlowCopying(alleles[typed_index], cm[typed_index], target[:, i], states[i], 4, 5e-3)
        for u in range(260):
            mass, _, _ = slow.masses(interval[u], cm[u])
            expected = sum(p for h, p in mass.items() if alleles[u, h])
            assert found[i, u] == pytest.approx(expected, abs=3e-5), (i, u)


def test_states_that_never_change_are_the_same_as_one_list():
    alleles, cm, typed_index, target = case(7, 200, 40, 100)
    window, parameters = window_of(alleles, cm, typed_index), CopyingParameters(4, 1e-3)
    repeated = np.repeat(all_states(40), 4, axis=0)
    # One list is copied by lanes, a list for each word target by target.
    np.testing.assert_allclose(
        copy_haplotypes(window, target, parameters, states=lambda i: repeated),
        run(window, target, parameters),
        atol=3e-6,
    )


def test_a_target_copied_from_the_panel_comes_back():
    rng = np.random.default_rng(3)
    alleles = (rng.random((400, 50)) < rng.beta(0.4, 1, 400)[:, None]).astype(np.int8)
    cm = np.cumsum(np.full(400, 1e-3))
    typed_index = np.arange(0, 400, 2)
    found = run(window_of(alleles, cm, typed_index), alleles[typed_index],
                CopyingParameters(6.7, 1e-3))  # fmt: skip
    np.testing.assert_array_equal((found > 0.5).astype(np.int8), alleles.T)
    assert np.abs(found - alleles.T)[:, 20:-20].max() < 0.02


def test_order_of_haplotypes_and_targets_is_nothing():
    alleles, cm, typed_index, target = case(11, 150, 64, 60, num_targets=5)
    parameters = CopyingParameters(5, 1e-3)
    found = run(window_of(alleles, cm, typed_index), target, parameters)
    order = np.random.default_rng(0).permutation(64)
    other = run(window_of(alleles[:, order], cm, typed_index), target, parameters)
    np.testing.assert_allclose(other, found, atol=1e-5)
    swap = [3, 1, 4, 0, 2]
    np.testing.assert_array_equal(
        run(window_of(alleles, cm, typed_index), np.ascontiguousarray(target[:, swap]), parameters),
        found[swap],
    )


def test_recoding_alleles_recodes_the_result():
    alleles, cm, typed_index, target = case(13, 150, 41, 60)
    recode = np.random.default_rng(1).random(150) < 0.5
    parameters = CopyingParameters(5, 1e-3)
    found = run(window_of(alleles, cm, typed_index), target, parameters)
    turned = np.where(recode[typed_index, None] & (target >= 0), 1 - target, target)
    other = run(window_of(alleles ^ recode[:, None], cm, typed_index), turned.astype(np.int8),
                parameters)  # fmt: skip
    np.testing.assert_allclose(np.where(recode, 1 - other, other), found, atol=1e-5)


def test_threads_and_core():
    alleles, cm, typed_index, target = case(17, 300, 80, 110, num_targets=7)
    parameters = CopyingParameters(5, 1e-3)
    lists = [all_states(80, exclude=np.arange(i % 3)) for i in range(7)]  # sizes that change
    window = window_of(alleles, cm, typed_index)
    whole = copy_haplotypes(window, target, parameters, states=lambda i: lists[i])
    np.testing.assert_array_equal(
        copy_haplotypes(window, target, parameters, states=lambda i: lists[i], threads=2), whole
    )
    for core in [(0, 40), (100, 101), (37, 300), (0, 300)]:
        part = copy_haplotypes(window_of(alleles, cm, typed_index, core), target, parameters,
                               states=lambda i: lists[i])  # fmt: skip
        np.testing.assert_array_equal(part, whole[:, slice(*core)])
    order = [5, 2, 0, 6, 1, 4, 3]
    np.testing.assert_array_equal(
        copy_haplotypes(window, np.ascontiguousarray(target[:, order]), parameters,
                        states=lambda i: lists[order[i]]),
        whole[order],
    )  # fmt: skip


def test_error_of_one_thread_is_passed_on():
    alleles, cm, typed_index, target = case(1, 30, 10, 10)

    def states(i):
        if i == 2:
            raise RuntimeError("no states")
        return all_states(10)

    with pytest.raises(RuntimeError, match="no states"):
        copy_haplotypes(window_of(alleles, cm, typed_index), target, CopyingParameters(5, 1e-3),
                        states=states, threads=2)  # fmt: skip


def test_contradictions_at_one_place_stay_finite():
    # 64 typed sites at one position, half of which contradict every haplotype.
    alleles = np.zeros((65, 6), np.int8)
    alleles[64, :3] = 1
    cm = np.zeros(65)
    target = np.resize(np.array([0, 1], np.int8), (64, 1))
    found = run(window_of(alleles, cm, np.arange(64)), target, CopyingParameters(0.4, 3e-4))
    np.testing.assert_allclose(found[0, 64], 0.5, atol=1e-4)
    assert np.isfinite(found).all()


@given(st.integers(0, 70), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_words_hold_the_alleles(num_typed, n, seed):
    alleles = np.random.default_rng(seed).integers(-2, 2, (num_typed, n)).astype(np.int8)
    alt, seen = pack_words(alleles)
    assert alt.shape == seen.shape == (n, -(-num_typed // 32))
    for t in range(num_typed):
        np.testing.assert_array_equal(alt[:, t // 32] >> (t % 32) & 1, alleles[t] == 1)
        np.testing.assert_array_equal(seen[:, t // 32] >> (t % 32) & 1, alleles[t] >= 0)


def test_parameters_and_wrong_calls():
    parameters = CopyingParameters.from_ne(1e5, 1e-3, 600)
    assert parameters.switch_rate == pytest.approx(6.67, abs=0.01)
    assert parameters.ne(600) == pytest.approx(1e5)
    for rate, err in [(0, 1e-3), (1, 0), (1, 0.5), (float("nan"), 1e-3)]:
        with pytest.raises(ValueError, match="switch_rate"):
            CopyingParameters(rate, err)
    with pytest.raises(ValueError, match="decreases"):
        switch_probs(np.array([1.0, 0.5]), switch_rate=1)
    np.testing.assert_allclose(
        switch_probs(np.array([0, 0, 0.5]), switch_rate=2), [1, 1e-7, 1 - np.exp(-1)], rtol=1e-6
    )
    alleles = np.zeros((3, 4), np.int8)
    empty = Window.build(compact(alleles), np.arange(3.0), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="without typed sites"):
        run(empty, np.zeros((0, 2), np.int8), CopyingParameters(1, 1e-3))
    assert TypedSites.pack(alleles, np.arange(3.0)).num_typed == 3
    assert all_states(4, np.array([1, -1])).tolist() == [[0, 2, 3]]
    np.testing.assert_array_equal(
        window_of(mosaic_panel(np.random.default_rng(0), 50, 30), np.arange(50.0), [3]).num_minor,
        [min(c, 30 - c) for c in
         mosaic_panel(np.random.default_rng(0), 50, 30).sum(axis=1).tolist()],
    )  # fmt: skip


PARAMETERS = CopyingParameters(5, 2e-3)


@pytest.mark.parametrize("max_sites", [1, 50, 10_000])
@pytest.mark.parametrize("core", [None, (31, 250)])
def test_parts_are_those_of_all_sites(max_sites, core):
    alleles, cm, typed_index, target = case(5, 260, 140, 130)
    rng = np.random.default_rng(5)
    n = target.shape[1]
    states = np.stack([sliding_states(rng, 5, 140, 70) for _ in range(n)])
    window = window_of(alleles, cm, typed_index, as_row=rng.random(260) < 0.5)
    if core is not None:
        window = window.with_core(core)
    whole = copy_haplotypes(window, target, PARAMETERS, states=lambda i: states[i])
    found = np.full_like(whole, np.nan)
    for site, prob in copy_in_parts(window, target, PARAMETERS, states, max_sites=max_sites):
        found[:, site : site + prob.shape[1]] = prob
    np.testing.assert_array_equal(found, whole)
