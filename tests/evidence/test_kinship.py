"""Weights of how alike targets and states are: by plain counting, and what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import window_of

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_states import SharedStates
from ragimpute.copying.states import all_states
from ragimpute.copying.window import pack_words
from ragimpute.evidence.collect import collect_evidence
from ragimpute.evidence.features import FEATURES
from ragimpute.evidence.kinship import kin_weights
from tests.copying.test_copy import case
from tests.evidence.test_collect import everywhere, quality_of

PARAMETERS = CopyingParameters(5, 3e-3)
SHARE_KIN = FEATURES.index("share_kin")


def some_case(seed, num_haplotypes, num_typed, missing, n=3):
    """Panel rows (H, W) and alleles (T, H), targets (T, n), and lists that hide some states."""
    rng = np.random.default_rng(seed)
    alleles, cm, typed_index, target = case(
        seed, num_typed + 5, num_haplotypes, num_typed, num_targets=n, missing=missing
    )
    rows = window_of(alleles, cm, typed_index).typed.rows
    keep = [np.sort(rng.permutation(num_haplotypes)[: rng.integers(0, num_haplotypes + 1)])
            for _ in range(n)]  # fmt: skip
    return rows, alleles[typed_index], target, [x.astype(np.int32) for x in keep]


def weigh(rows, target, lists, states=None):
    """Weights of all haplotypes of the panel, or of some."""
    states = np.arange(len(rows), dtype=np.int32) if states is None else states
    return kin_weights(rows, states, *pack_words(target), lists)


def weighed_by_hand(typed, target, mine):
    """The weights (H,) of one target, by plain counting."""
    seen = target >= 0
    if len(mine) < 2 or not seen.any():
        return np.ones(typed.shape[1])
    share = (typed[seen] == target[seen, None]).mean(axis=0)
    z = (share - share[mine].mean()) / max(share[mine].std(), 1e-3)
    return np.exp(0.7 * np.clip(z, -4, 4))


SIZES = {
    "seed": st.integers(0, 2**32 - 1),
    "num_haplotypes": st.integers(1, 40),
    "num_typed": st.integers(1, 100),
    "missing": st.sampled_from([0.0, 0.3, 1.0]),
}


@settings(max_examples=40, deadline=None)
@given(**SIZES)
def test_weights_are_those_of_plain_counting(seed, num_haplotypes, num_typed, missing):
    rows, typed, target, lists = some_case(seed, num_haplotypes, num_typed, missing)
    found = weigh(rows, target, lists)
    assert found.dtype == np.float32
    assert ((found > 0.05) & (found < 17)).all()
    for i, mine in enumerate(lists):
        np.testing.assert_allclose(
            found[i], weighed_by_hand(typed, target[:, i], mine), rtol=2e-3, atol=1e-4
        )


@settings(max_examples=40, deadline=None)
@given(**SIZES)
def test_order_of_the_panel_and_other_targets_change_nothing(
    seed, num_haplotypes, num_typed, missing
):
    rows, _, target, lists = some_case(seed, num_haplotypes, num_typed, missing)
    found = weigh(rows, target, lists)
    order = np.random.default_rng(seed).permutation(num_haplotypes)
    place = np.argsort(order)
    turned = weigh(rows[order], target, [np.sort(place[x]).astype(np.int32) for x in lists])
    np.testing.assert_allclose(turned, found[:, order], rtol=1e-3)
    for i in range(3):  # a target alone, as in a block or thread of its own
        alone = weigh(rows, target[:, i : i + 1], lists[i : i + 1])
        np.testing.assert_array_equal(alone[0], found[i])


@settings(max_examples=40, deadline=None)
@given(**SIZES)
def test_hidden_states_change_no_weight_of_the_others(seed, num_haplotypes, num_typed, missing):
    rows, _, target, lists = some_case(seed, num_haplotypes, num_typed, missing)
    hidden_shown = weigh(rows, target, lists)
    for i, mine in enumerate(lists):
        if len(mine):
            only = weigh(rows, target[:, i : i + 1], [mine], states=mine)
            np.testing.assert_array_equal(only[0], hidden_shown[i, mine])


def test_a_relative_weighs_more_than_a_stranger():
    rng = np.random.default_rng(1)
    typed = (rng.random((200, 12)) < 0.5).astype(np.int8)
    target = typed[:, :1].copy()
    target[::3] ^= 1
    rows = window_of(typed, np.arange(200) / 50, np.arange(200)).typed.rows
    everyone = np.arange(12, dtype=np.int32)
    found = weigh(rows, target, [everyone])[0]
    assert found.argmax() == 0
    assert found[0] > 2 * np.delete(found, 0).max()


def test_identical_states_have_equal_weights():
    typed = np.repeat((np.arange(70) % 2).astype(np.int8)[:, None], 6, axis=1)
    rows = window_of(typed, np.arange(70) / 50, np.arange(70)).typed.rows
    everyone = np.arange(6, dtype=np.int32)
    np.testing.assert_allclose(weigh(rows, typed[:, :1], [everyone]), 1, rtol=1e-5)


@pytest.mark.parametrize("many", [9, 17])
def test_targets_with_states_of_their_own_are_compared_with_them_too(many):
    # If a target hides many states, each target is copied by itself: the others' stay the same.
    alleles, cm, typed_index, _ = case(3, 140, 24, 60)
    target = np.ascontiguousarray(alleles[typed_index][:, :2])
    window, quality = window_of(alleles, cm, typed_index), quality_of(140)
    pairs = everywhere(typed_index, 140, 2)

    def collect(hidden):
        states = [all_states(24, np.arange(hidden)), all_states(24, np.array([1]))]
        assert (SharedStates.find(lambda i: states[i], 2, 24) is None) == (hidden > 1)
        return collect_evidence(
            window, target, PARAMETERS, pairs, states=lambda i: states[i], quality=quality
        )

    second = pairs[:, 0] == 1
    together, apart = collect(1)[second], collect(many)[second]
    assert together[:, SHARE_KIN].std() > 0.5
    np.testing.assert_allclose(apart, together, rtol=2e-3, atol=2e-3)


def test_blocks_and_threads_change_nothing():
    alleles, cm, typed_index, target = case(4, 120, 60, 50, num_targets=21)
    window, quality, states = window_of(alleles, cm, typed_index), quality_of(120), all_states(60)
    pairs = everywhere(typed_index, 120, 21)

    def collect(threads, some=slice(None)):
        return collect_evidence(window, target, PARAMETERS, pairs[some], states=lambda i: states,
                                quality=quality, threads=threads)  # fmt: skip

    found = collect(1)
    np.testing.assert_array_equal(collect(3)[:, SHARE_KIN], found[:, SHARE_KIN])
    some = pairs[:, 0] % 5 == 0
    np.testing.assert_array_equal(collect(1, some)[:, SHARE_KIN], found[some, SHARE_KIN])
