"""When targets share their states, and the blocks that they are put into."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import window_of

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_states import SharedStates, block_edges
from ragimpute.copying.states import all_states
from ragimpute.evidence.other_haplotype import homologs_of


def test_states_are_shared_if_few_are_hidden():
    everyone = all_states(40)
    shared = SharedStates.find(lambda i: everyone, 5, 40)
    assert shared is not None
    np.testing.assert_array_equal(shared.states, np.arange(40))
    # Haplotypes 0 ... 4 are no state of any target, so that none is hidden on their account.
    lists = [np.setdiff1d(np.arange(5, 40), [5 + i]).astype(np.int32)[None] for i in range(5)]
    shared = SharedStates.find(lambda i: lists[i], 5, 40)
    assert shared is not None
    np.testing.assert_array_equal(shared.states, np.arange(5, 40))
    slots = shared.slots(40)
    assert slots[:5].tolist() == [35] * 5
    assert slots[5:].tolist() == list(range(35))
    halves = [np.arange(20, dtype=np.int32)[None], np.arange(20, 40, dtype=np.int32)[None]]
    assert SharedStates.find(lambda i: halves[i % 2], 4, 40) is None
    by_word = np.repeat(everyone, 3, axis=0)
    assert SharedStates.find(lambda i: by_word, 4, 40) is None


def test_blocks_hold_each_target_once():
    rng = np.random.default_rng(3)
    panel = rng.integers(0, 2, (50, 30)).astype(np.int8)
    target = rng.integers(-1, 2, (50, 37)).astype(np.int8)
    lists = [all_states(30, np.array([i % 4], np.int32)) for i in range(37)]
    shared = SharedStates.find(lambda i: lists[i], 37, 30)
    assert shared is not None
    window = window_of(panel, np.linspace(0, 1, 50), np.arange(50))
    steps = window.steps(CopyingParameters(5, 2e-3))
    for threads, num in [(1, 3), (2, 4), (5, 5), (60, 37)]:
        blocks = shared.blocks(window, target, steps, threads)
        assert len(blocks) == num
        assert [b.first for b in blocks] == np.cumsum([0, *(b.width for b in blocks)])[:-1].tolist()
        seen = np.concatenate([b.targets.target[:, : b.width] for b in blocks], axis=1)
        np.testing.assert_array_equal(seen, target)
        for b in blocks:
            np.testing.assert_array_equal(b.targets.alleles, panel[:, shared.states])
            assert (b.targets.target[:, b.width :] == -1).all()
            assert b.targets.num_states[: b.width].tolist() == [29] * b.width
            hidden = {(shared.states[s], lane) for s, lane in b.targets.hidden}
            assert hidden == {((b.first + lane) % 4, lane) for lane in range(b.width)}
            np.testing.assert_array_equal(
                np.flatnonzero(b.targets.is_hidden), np.unique(b.targets.hidden[:, 0])
            )


@settings(deadline=None)
@given(
    ploidies=st.lists(st.integers(1, 3), min_size=1, max_size=80),
    threads=st.integers(1, 5),
    at_once=st.integers(2, 20),
)
def test_a_samples_two_haplotypes_are_in_one_block(ploidies, threads, at_once):
    sample = np.repeat(np.arange(len(ploidies)), ploidies)
    homolog = homologs_of(sample)
    edges = block_edges(len(sample), threads, at_once, homolog)
    assert edges[0] == 0
    assert edges[-1] == len(sample)
    sizes = np.diff(edges)
    assert (sizes > 0).all()
    assert (sizes <= at_once).all()
    block = np.repeat(np.arange(len(sizes)), sizes)
    there = homolog >= 0
    np.testing.assert_array_equal(block[there], block[homolog[there]])
