"""Copying that describes pairs in doubt gives what copying, and then describing them, gives."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import mosaic_panel, window_of

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import BlockStates, all_states
from ragimpute.evidence import while_copying as evidence_copying
from ragimpute.evidence.collect import collect_evidence
from ragimpute.evidence.doubt import in_doubt
from ragimpute.evidence.features import FEATURES
from ragimpute.evidence.kernel_arrays import empty_tokens
from ragimpute.evidence.other_haplotype import homolog_probs, homologs_of
from ragimpute.evidence.while_copying import Wanted, copy_with_evidence
from tests.copying.test_copy import sliding_states
from tests.evidence.test_collect import quality_of

PARAMETERS = CopyingParameters(5, 3e-3)
DOUBT = 0.02
# Two haplotypes to a sample, but for three samples of one.
SAMPLE = np.sort(np.concatenate([np.repeat(np.arange(9), 2), [20, 2.5, 6.5]])).astype(float)
HOMOLOG = homologs_of(SAMPLE)


def some_case(core=None):
    """A window, 21 targets with alleles that were not observed, and states that slide."""
    rng = np.random.default_rng(4)
    alleles = mosaic_panel(rng, 400, 90, num_founders=20)
    typed_index = np.arange(3, 400, 5)
    window = window_of(alleles[:, :60], np.cumsum(rng.exponential(0.01, 400)), typed_index, core)
    target = np.ascontiguousarray(alleles[typed_index, 60:81])
    target[rng.random(target.shape) < 0.05] = -1
    sliding = [sliding_states(rng, len(window.typed.words), 60, 30) for _ in range(21)]
    together = np.stack(sliding)
    return window, target, {
        "all": BlockStates(60, False, lambda block, room: all_states(60)),
        "own": BlockStates(30, True, lambda block, room: together[block.start : block.stop]),
    }  # fmt: skip


def gathered(window, target, states, *, doubt=DOUBT, num_tokens=0, **options):
    """P(ALT), pairs, evidence and tokens in one walk, put together."""
    prob = np.full((target.shape[1], window.core[1] - window.core[0]), np.nan, np.float32)
    found = []

    def take(parts):
        for part in parts:
            m = part.prob.shape[1]
            here = prob[part.target : part.target + len(part.prob), part.site : part.site + m]
            assert np.isnan(here).all()
            here[:] = part.prob
            at = np.array([part.target, part.site])
            found.append((part.pairs + at, part.evidence, part.tokens))
            part.prob[:] = 0.5  # as who is given them may do

    copy_with_evidence(
        window, target, PARAMETERS, states=states, take=take, **options,
        wanted=Wanted(quality_of(window.num_sites), doubt, HOMOLOG, num_tokens),
    )  # fmt: skip
    pairs = np.concatenate([p for p, _, _ in found])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    tokens = np.concatenate([t for _, _, t in found])[order] if found[0][2] is not None else None
    return prob, pairs[order], np.concatenate([e for _, e, _ in found])[order], tokens


def both(window, target, given, num_tokens=0, threads=1, max_pairs=1 << 24):
    """Pairs, evidence and tokens in one walk, and in two."""
    quality = quality_of(window.num_sites)
    one = gathered(
        window, target, given, num_tokens=num_tokens, threads=threads, max_pairs=max_pairs
    )

    def states(i):
        found = given.find(range(i, i + 1), None)
        return found[0] if given.by_word else found

    prob = copy_haplotypes(window, target, PARAMETERS, states=states)
    pairs = in_doubt(window, target, prob, doubt=DOUBT)
    tokens = empty_tokens(len(pairs), num_tokens) if num_tokens else None
    evidence = collect_evidence(
        window, target, PARAMETERS, pairs, states=states, quality=quality, tokens=tokens,
        homolog_prob=homolog_probs(prob, HOMOLOG, pairs),
    )  # fmt: skip
    return one, (prob, pairs, evidence, tokens)


def check(one, two):
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)
    np.testing.assert_array_equal(one[1], two[1])
    assert len(one[1]) > 500
    np.testing.assert_allclose(one[2], two[2], rtol=1e-4, atol=1e-4)
    if two[3] is not None:
        near = np.abs(one[3].astype(np.int32) - two[3]) <= 1
        assert near.mean() > 0.999  # but where states are equally probable


@pytest.mark.parametrize("kind", ["all", "own"])
@pytest.mark.parametrize("num_tokens", [0, 8])
def test_one_walk_gives_what_two_give(kind, num_tokens):
    window, target, states = some_case()
    check(*both(window, target, states[kind], num_tokens))


@pytest.mark.parametrize("kind", ["all", "own"])
def test_neither_buffers_nor_threads_matter(kind):
    window, target, states = some_case((51, 390))
    check(*both(window, target, states[kind], threads=3))


@pytest.mark.parametrize("kind", ["all", "own"])
def test_where_there_is_no_room_pairs_are_described_afterwards(kind, monkeypatch):
    window, target, states = some_case()
    monkeypatch.setattr(evidence_copying, "PAIRS_AT_ONCE", 300)
    check(*both(window, target, states[kind], num_tokens=8))


@pytest.mark.parametrize("max_pairs", [1, 21 * 40, 21 * 150])
@pytest.mark.parametrize("core", [None, (51, 390), (0, 2), (395, 400)])
def test_parts_of_the_sites_are_those_of_all(max_pairs, core):
    window, target, states = some_case(core)
    whole = gathered(window, target, states["own"])
    parts = gathered(window, target, states["own"], max_pairs=max_pairs, threads=2)
    for one, other in zip(whole[:3], parts[:3], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threads", [1, 3])
def test_however_many_targets_are_copied_together(threads, monkeypatch):
    window, target, states = some_case((51, 390))
    monkeypatch.setattr(evidence_copying, "LANES", 2)  # of 21 targets, some blocks are to be small
    whole = gathered(window, target, states["own"])
    few = gathered(window, target, states["own"], max_state_bytes=1, threads=threads)
    for one, other in zip(whole[:3], few[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_homologs_all_are_haploid():
    window, target, states = some_case()
    found = []
    copy_with_evidence(
        window, target, PARAMETERS, states=states["all"], wanted=Wanted(quality_of(400), DOUBT),
        take=lambda parts: found.extend(part.evidence for part in parts),
    )  # fmt: skip
    evidence = np.concatenate(found)
    assert len(evidence) > 500
    assert (evidence[:, FEATURES.index("homolog_shift")] == 0).all()


def test_without_doubt_no_pair_is_described():
    window, target, states = some_case()
    prob, pairs, _, _ = gathered(window, target, states["own"], doubt=0.5)
    assert len(pairs) == 0
    np.testing.assert_array_equal(prob, gathered(window, target, states["own"])[0])


def test_a_window_without_typed_sites_is_refused():
    rng = np.random.default_rng(4)
    window = window_of(mosaic_panel(rng, 30, 20), np.arange(30) / 10, np.arange(0))
    with pytest.raises(ValueError, match="without typed sites"):
        copy_with_evidence(
            window, np.zeros((0, 2), np.int8), PARAMETERS,
            states=BlockStates(20, False, lambda block, room: all_states(20)),
            wanted=Wanted(quality_of(30), DOUBT), take=list,
        )  # fmt: skip
