"""Each feature against a slow computation, and what must not change the evidence."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import SlowCopying, compact
from slow_evidence import describe, describe_ages

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states
from ragimpute.evidence.collect import collect_evidence
from ragimpute.evidence.describe_kernel import MOST_ROOM_CM
from ragimpute.evidence.doubt import pairs_in_doubt
from ragimpute.evidence.features import (
    AGE_FEATURES,
    AGES,
    COPYING_FEATURES,
    FEATURES,
    HOMOLOG_FEATURES,
    NUM_FEATURES,
    SITE_FEATURES,
)
from ragimpute.evidence.other_haplotype import homolog_features
from tests.copying.test_copy import case, sliding_states, window_of

PARAMETERS = CopyingParameters(5, 3e-3)
FIRST_OF_AGE = len(COPYING_FEATURES) + len(HOMOLOG_FEATURES)
FIRST_OF_SITE = FIRST_OF_AGE + len(AGE_FEATURES)


def quality_of(num_sites):
    """Numbers that tell a site's quality from those of others, whatever they mean."""
    columns = np.arange(len(SITE_FEATURES))
    out = (np.arange(num_sites)[:, None] + 1000 * columns).astype(np.float32)
    out[:, SITE_FEATURES.index("quality_hets")] = np.linspace(-0.9, 0.9, num_sites)
    ages = np.geomspace(AGES[0] / 3, 3 * AGES[-1], 23)  # per cM, also beyond the first and last
    out[:, SITE_FEATURES.index("sharing")] = np.log(2 / np.resize(ages, num_sites))
    return out


def everywhere(typed_index, num_sites, n):
    """All untyped sites of all haplotypes as pairs."""
    untyped = np.setdiff1d(np.arange(num_sites), typed_index)
    return np.stack([np.repeat(np.arange(n), len(untyped)), np.tile(untyped, n)], axis=1)


def compare(alleles, cm, typed_index, target, pairs, states):
    """Compare the features of all pairs with the slow ones; returns how many pairs were clear."""
    window = window_of(alleles, cm, typed_index)
    found = collect_evidence(
        window, target, PARAMETERS, pairs, states=lambda i: states[i],
        quality=quality_of(len(cm)),
    )  # fmt: skip
    np.testing.assert_array_equal(found[:, FIRST_OF_SITE:], quality_of(len(cm))[pairs[:, 1]])
    haplotypes = compact(alleles)
    minor = np.where(haplotypes.alt_is_minor[:, None], alleles == 1, alleles == 0)
    interval = np.searchsorted(typed_index, np.arange(len(cm)), side="right") - 1
    slow = [
        SlowCopying(alleles[typed_index], cm[typed_index], target[:, i], states[i],
                    PARAMETERS.switch_rate, PARAMETERS.mismatch_prob)
        for i in range(target.shape[1])
    ]  # fmt: skip
    ordered = {"top_carriers", "best_rank", "top_share"}
    weighed = ("carrier", "other", "share", "age")
    names = COPYING_FEATURES + AGE_FEATURES
    ordered |= {name for name in names if name.startswith(weighed)}
    sharing = found[:, FEATURES.index("sharing")].tolist()
    column = [FEATURES.index(name) for name in names]
    num_clear = 0
    for row, (i, u), shared in zip(found, pairs.tolist(), sharing, strict=True):
        expected, clear = describe(
            slow[i], minor[u].tolist(), haplotypes.row[u] < 0, interval[u], cm[u]
        )
        ages = describe_ages(expected, shared)
        expected = {k: v for k, v in expected.items() if not k.startswith("younger")} | ages
        assert set(expected) == set(names)
        num_clear += clear > 1e-4
        for name, value in zip(names, row[column], strict=True):
            if clear > 1e-4 or name not in ordered:
                assert value == pytest.approx(expected[name], rel=2e-3, abs=2e-3), (name, i, u)
    return num_clear


@pytest.mark.parametrize(("num_haplotypes", "num_typed"), [(16, 1), (20, 25), (45, 70), (80, 40)])
def test_equals_the_slow_computation(num_haplotypes, num_typed):
    alleles, cm, typed_index, target = case(num_typed, 120, num_haplotypes, num_typed)
    pairs = everywhere(typed_index, 120, 3)
    states = [all_states(num_haplotypes)] * 3
    assert compare(alleles, cm, typed_index, target, pairs, states) > len(pairs) // 20


def test_haplotypes_that_are_not_states_are_not_seen():
    alleles, cm, typed_index, _ = case(21, 140, 30, 50)
    target = alleles[typed_index][:, :4].copy()
    own = [[0, 1], [0, 1], [2, 3], [2, 3]]
    states = [all_states(30, np.array(x)) for x in own]
    pairs = everywhere(typed_index, 140, 4)
    assert compare(alleles, cm, typed_index, target, pairs, states) > 20
    # Whatever other haplotypes have at untyped sites changes nothing but the minor allele's
    # frequency, unless the minor allele turns.
    untyped = np.setdiff1d(np.arange(140), typed_index)
    changed = alleles.copy()
    changed[np.ix_(untyped, [2, 3])] ^= 1
    same_minor = compact(alleles).alt_is_minor == compact(changed).alt_is_minor
    same_rows = (compact(alleles).row >= 0) == (compact(changed).row >= 0)
    changed[~(same_minor & same_rows)] = alleles[~(same_minor & same_rows)]
    pairs = pairs[(pairs[:, 0] >= 2) & (same_minor & same_rows)[pairs[:, 1]]]
    assert len(pairs) > 100
    one, two = (
        collect_evidence(window_of(x, cm, typed_index), target, PARAMETERS, pairs,
                         states=lambda i: states[i], quality=quality_of(140))
        for x in (alleles, changed)
    )  # fmt: skip
    apart = np.arange(NUM_FEATURES) != FEATURES.index("maf")
    moved = [FEATURES.index(name) for name in HOMOLOG_FEATURES]  # computed from the frequency
    apart[moved] = False
    np.testing.assert_array_equal(one[:, apart], two[:, apart])
    assert (one[:, ~apart] != two[:, ~apart]).any()


@pytest.mark.parametrize("seed", range(3))
def test_sliding_states(seed):
    alleles, cm, typed_index, target = case(seed, 260, 60, 130, num_targets=2)
    rng = np.random.default_rng(seed)
    states = [sliding_states(rng, 5, 60, 20) for _ in range(2)]
    pairs = everywhere(typed_index, 260, 2)
    assert compare(alleles, cm, typed_index, target, pairs, states) > 20


def test_posterior_is_that_of_the_copying():
    alleles, cm, typed_index, target = case(8, 200, 60, 60)
    window, states = window_of(alleles, cm, typed_index, (30, 170)), all_states(60)
    prob = copy_haplotypes(window, target, PARAMETERS, states=lambda i: states)
    typed = np.isin(np.arange(30, 170), typed_index)
    pairs = pairs_in_doubt(prob, np.tile(typed, (3, 1)))
    assert len(pairs) > 20
    inside = prob[tuple(pairs.T)]
    assert ((inside > 0.01) & (inside < 0.99) & ~typed[pairs[:, 1]]).all()
    minor = np.where(window.haplotypes.alt_is_minor[30 + pairs[:, 1]], inside, 1 - inside)

    def collect(pairs, threads=1):
        return collect_evidence(
            window, target, PARAMETERS, pairs,
            states=lambda i: states, quality=quality_of(200), threads=threads,
        )  # fmt: skip

    found = collect(pairs)
    # Pairs count sites from the core's first, quality from the window's.
    first = FEATURES.index(SITE_FEATURES[0])
    np.testing.assert_array_equal(found[:, first], 30 + pairs[:, 1])
    np.testing.assert_allclose(found[:, 0], np.log(minor / (1 - minor)), atol=1e-3)
    # Threads and the choice of pairs change nothing, bit for bit.
    np.testing.assert_array_equal(collect(pairs, threads=2), found)
    some = np.arange(len(pairs)) % 3 == 0
    np.testing.assert_array_equal(collect(pairs[some]), found[some])
    empty = collect(pairs[:0])
    assert empty.shape == (0, NUM_FEATURES)


def test_other_haplotypes_speak_in_columns_of_their_own():
    alleles, cm, typed_index, target = case(17, 150, 40, 60)
    window, pairs = window_of(alleles, cm, typed_index, (20, 140)), everywhere(typed_index, 150, 3)
    pairs = pairs[(pairs[:, 1] >= 20) & (pairs[:, 1] < 140)] - [0, 20]
    probs = np.random.default_rng(0).random(len(pairs)).astype(np.float32)
    probs[::7] = np.nan
    quality, states = quality_of(150), all_states(40)
    alone, together = (
        collect_evidence(window, target, PARAMETERS, pairs, states=lambda i: states,
                         quality=quality, homolog_prob=x)
        for x in (None, probs)
    )  # fmt: skip
    theirs = slice(len(COPYING_FEATURES), FIRST_OF_AGE)
    hets = quality[pairs[:, 1] + 20, SITE_FEATURES.index("quality_hets")]
    maf = together[:, COPYING_FEATURES.index("maf")]
    minor = np.where(window.haplotypes.alt_is_minor[pairs[:, 1] + 20], probs, 1 - probs)
    np.testing.assert_array_equal(together[:, theirs], homolog_features(minor, maf, hets))
    nobody = homolog_features(np.full_like(minor, np.nan), maf, hets)
    np.testing.assert_array_equal(alone[:, theirs], nobody)
    for x in (alone, together):
        x[:, theirs] = 0
    np.testing.assert_array_equal(alone, together)


def test_order_of_the_panel_and_coding_are_nothing():
    # No more states than NUM_TOP, so that none is cut off among equals.
    alleles, cm, typed_index, target = case(9, 150, 24, 60)
    pairs, states = everywhere(typed_index, 150, 3), all_states(24)
    odd = alleles.sum(axis=1) * 2 != 24  # where neither allele is the minor one, coding decides
    pairs = pairs[odd[pairs[:, 1]]]

    def features(panel, observed):
        return collect_evidence(window_of(panel, cm, typed_index), observed, PARAMETERS, pairs,
                                states=lambda i: states, quality=quality_of(150))  # fmt: skip

    found = features(alleles, target)
    assert np.isfinite(found).all()
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_allclose(features(alleles[:, order], target), found, atol=2e-3)
    recode = np.random.default_rng(1).random(150) < 0.5
    turned = np.where(recode[typed_index, None] & (target >= 0), 1 - target, target)
    np.testing.assert_allclose(
        features(alleles ^ recode[:, None], turned.astype(np.int8)), found, atol=2e-3
    )


def test_matches_end_where_the_data_do():
    # A target that is panel haplotype 0: its match takes all the room there is.
    alleles, cm, typed_index, _ = case(31, 140, 30, 50)
    cm *= 0.5 * MOST_ROOM_CM / cm[-1]
    pairs = everywhere(typed_index, 140, 1)
    found = collect_evidence(
        window_of(alleles, cm, typed_index), alleles[typed_index][:, :1].copy(), PARAMETERS, pairs,
        states=lambda i: all_states(30), quality=quality_of(140),
    )  # fmt: skip
    column = {name: found[:, i] for i, name in enumerate(FEATURES)}
    longest = np.maximum(column["carrier_match"], column["other_match"])
    site = cm[pairs[:, 1]]
    inside = (site > cm[typed_index[0]]) & (site < cm[typed_index[-1]])
    room = sum(np.exp(column[f"room_{side}"]) - 1e-3 for side in ("left", "right"))
    assert inside.sum() > 50
    np.testing.assert_allclose((np.exp(longest) - 1e-3)[inside], room[inside], rtol=1e-3)
    counts = np.maximum(column["carrier_sites"], column["other_sites"])
    np.testing.assert_allclose(np.exp(counts) - 1, len(typed_index), rtol=1e-3)


def test_no_room_is_more_than_two_centimorgan():
    alleles, cm, typed_index, target = case(32, 120, 20, 40)
    wide = cm * (30 / cm[-1])
    pairs = everywhere(typed_index, 120, 3)
    found = collect_evidence(
        window_of(alleles, wide, typed_index), target, PARAMETERS, pairs,
        states=lambda i: all_states(20), quality=quality_of(120),
    )  # fmt: skip
    for name in ("room_left", "room_right"):
        room = np.exp(found[:, FEATURES.index(name)]) - 1e-3
        assert room.max() == pytest.approx(2.0, rel=1e-3)
        assert (room >= -1e-6).all()
        assert (room < 1.9).any()
