"""Tokens against a slow computation, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import SlowCopying, compact
from slow_evidence import describe_tokens

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states
from ragimpute.evidence.collect import collect_evidence
from ragimpute.evidence.features import SITE_FEATURES, TOKEN_FEATURES, TOKEN_UNIT
from ragimpute.evidence.kernel_arrays import empty_tokens
from tests.copying.test_copy import case, sliding_states, window_of

PARAMETERS = CopyingParameters(5, 3e-3)
S = 12


def pairs_of(typed_index, num_sites, n):
    """All untyped sites of all haplotypes as pairs."""
    untyped = np.setdiff1d(np.arange(num_sites), typed_index)
    return np.stack([np.repeat(np.arange(n), len(untyped)), np.tile(untyped, n)], axis=1)


def collect(window, target, pairs, states, num_tokens=S, **more):
    """Evidence, and tokens as numbers."""
    tokens = empty_tokens(len(pairs), num_tokens)
    tokens[:] = -7  # whatever was there is overwritten
    quality = np.zeros((window.num_sites, len(SITE_FEATURES)), np.float32)
    found = collect_evidence(
        window, target, PARAMETERS, pairs,
        states=lambda i: states[i], quality=quality, tokens=tokens, **more,
    )  # fmt: skip
    return found, tokens * TOKEN_UNIT


def same_set(found, expected):
    """Whether each of the expected tokens is there once, in whatever order."""
    left = found.tolist()
    for token in expected:
        far = [np.abs(np.subtract(x, token)).max() for x in left]
        if min(far) > 5e-3:
            return False
        left.pop(int(np.argmin(far)))
    return True


def compare(alleles, cm, typed_index, target, states):
    """Compare all pairs' tokens with the slow ones; returns the share of sets that were clear."""
    window = window_of(alleles, cm, typed_index)
    pairs = pairs_of(typed_index, len(cm), target.shape[1])
    _, found = collect(window, target, pairs, states)
    haplotypes = compact(alleles)
    minor = np.where(haplotypes.alt_is_minor[:, None], alleles == 1, alleles == 0)
    interval = np.searchsorted(typed_index, np.arange(len(cm)), side="right") - 1
    slow = [
        SlowCopying(alleles[typed_index], cm[typed_index], target[:, i], states[i],
                    PARAMETERS.switch_rate, PARAMETERS.mismatch_prob)
        for i in range(target.shape[1])
    ]  # fmt: skip
    num_clear = 0
    for tokens, (i, u) in zip(found, pairs.tolist(), strict=True):
        sets = describe_tokens(slow[i], minor[u].tolist(), interval[u], cm[u], S)
        for half, (expected, clear) in zip((tokens[: S // 2], tokens[S // 2 :]), sets, strict=True):
            there = half[:, 0] == 1
            assert (np.diff(there.astype(int)) <= 0).all()  # what is missing comes last
            assert (half[~there] == 0).all()
            assert there.sum() == len(expected) or clear <= 1e-3
            if clear > 1e-3:
                num_clear += 1
                assert same_set(half[there], expected), (i, u)
    return num_clear / (2 * len(pairs))


@pytest.mark.parametrize(("num_haplotypes", "num_typed"), [(8, 1), (20, 25), (45, 70), (80, 40)])
def test_equals_the_slow_computation(num_haplotypes, num_typed):
    alleles, cm, typed_index, target = case(num_typed, 120, num_haplotypes, num_typed)
    states = [all_states(num_haplotypes)] * 3
    assert compare(alleles, cm, typed_index, target, states) > 0.2


@pytest.mark.parametrize("seed", range(3))
def test_sliding_states(seed):
    alleles, cm, typed_index, target = case(seed, 260, 60, 130, num_targets=2)
    rng = np.random.default_rng(seed)
    states = [sliding_states(rng, 5, 60, 20) for _ in range(2)]
    assert compare(alleles, cm, typed_index, target, states) > 0.2


def test_most_probable_comes_first():
    alleles, cm, typed_index, target = case(3, 150, 90, 60)
    pairs = pairs_of(typed_index, 150, 3)
    window, states = window_of(alleles, cm, typed_index), [all_states(90)] * 3
    _, found = collect(window, target, pairs, states)
    _, fewer = collect(window, target, pairs, states, num_tokens=4)
    np.testing.assert_array_equal(fewer, found[:, [0, 1, S // 2, S // 2 + 1]])
    # The order is that between the typed sites; near one of them it is all but the site's own.
    mass = found[..., TOKEN_FEATURES.index("mass")]
    there = found[..., 0] == 1
    best = np.where(there[:, : S // 2], mass[:, : S // 2], -np.inf).max(axis=1)
    clear = there[:, 1]
    assert clear.sum() > 100
    assert np.mean(best[clear] - mass[clear, 0] < 0.05) > 0.9


def test_features_do_not_know_of_tokens():
    alleles, cm, typed_index, target = case(4, 150, 60, 60, num_targets=20)
    pairs = pairs_of(typed_index, 150, 20)
    window, states = window_of(alleles, cm, typed_index), [all_states(60)] * 20
    found, tokens = collect(window, target, pairs, states)
    plain = collect_evidence(
        window, target, PARAMETERS, pairs, states=lambda i: states[i],
        quality=np.zeros((150, len(SITE_FEATURES)), np.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(found, plain)
    two, again = collect(window, target, pairs, states, threads=2)
    np.testing.assert_array_equal(two, plain)
    np.testing.assert_array_equal(again, tokens)


def test_targets_together_and_one_by_one():
    alleles, cm, typed_index, target = case(5, 150, 60, 60, num_targets=20)
    pairs = pairs_of(typed_index, 150, 20)
    window = window_of(alleles, cm, typed_index)
    _, together = collect(window, target, pairs, [all_states(60)] * 20)
    # Lists of different order are no one list; the slots of a state then differ.
    orders = [np.random.default_rng(i).permutation(60).astype(np.int32)[None] for i in range(20)]
    _, alone = collect(window, target, pairs, orders)
    assert np.mean(np.isclose(together, alone, atol=5e-3).all(axis=(1, 2))) > 0.98


def test_order_of_the_panel_and_coding_are_nothing():
    alleles, cm, typed_index, target = case(9, 150, 60, 60)
    pairs, states = pairs_of(typed_index, 150, 3), [all_states(60)] * 3
    odd = alleles.sum(axis=1) * 2 != 60  # where neither allele is the minor one, coding decides
    pairs = pairs[odd[pairs[:, 1]]]
    _, found = collect(window_of(alleles, cm, typed_index), target, pairs, states)
    order = np.random.default_rng(0).permutation(60)
    _, permuted = collect(window_of(alleles[:, order], cm, typed_index), target, pairs, states)
    # Sums in another order round otherwise, which may turn two states of all but equal mass.
    assert np.mean(np.isclose(permuted, found, atol=5e-3).all(axis=(1, 2))) > 0.98
    recode = np.random.default_rng(1).random(150) < 0.5
    turned = np.where(recode[typed_index, None] & (target >= 0), 1 - target, target)
    window = window_of(alleles ^ recode[:, None], cm, typed_index)
    _, recoded = collect(window, turned.astype(np.int8), pairs, states)
    for tokens, other in zip(found, recoded, strict=True):  # signatures differ, and ties with them
        assert (tokens[:, 0] == other[:, 0]).all()
        np.testing.assert_allclose(np.sort(tokens[:, 1]), np.sort(other[:, 1]), atol=5e-3)


def test_room_that_does_not_fit():
    alleles, cm, typed_index, target = case(6, 60, 20, 10)
    pairs = pairs_of(typed_index, 60, 3)
    window = window_of(alleles, cm, typed_index)
    with pytest.raises(ValueError, match=f"tokens of 3 pairs cannot be those of {len(pairs)}"):
        collect_evidence(
            window, target, PARAMETERS, pairs, states=lambda i: all_states(20),
            quality=np.zeros((60, len(SITE_FEATURES)), np.float32), tokens=empty_tokens(3, 4),
        )  # fmt: skip
    for num in (0, 3, 50):
        with pytest.raises(ValueError, match=f"{num} tokens"):
            empty_tokens(1, num)
    _, none = collect(window, target, pairs[:0], [all_states(20)] * 3)
    assert none.shape == (0, S, len(TOKEN_FEATURES))
