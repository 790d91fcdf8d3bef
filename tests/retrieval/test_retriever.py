"""Which states retrieval chooses: valid, kept in their slots, with every long match among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel

from ragimpute.copying.window import pack_words
from ragimpute.errors import PanelError
from ragimpute.retrieval.mapped_arrays import MappedArrays, write_arrays
from ragimpute.retrieval.retriever import NUM_SLOTS, Retriever, _windows_near


def packed(alleles):
    """Words (W, H) of alleles (T, H)."""
    return np.ascontiguousarray(pack_words(alleles)[0].T)


@pytest.fixture(scope="module")
def panel():
    """Alleles (T, H) of 700 haplotypes at 330 typed sites; a mosaic with many equal stretches."""
    return mosaic_panel(np.random.default_rng(2), 330, 700, num_founders=12, switches=0.01)


@pytest.fixture(scope="module")
def retriever(panel):
    return Retriever(packed(panel), num_slots=200, num_background=40)


def check(states, num_haplotypes):
    """Every word has distinct haplotypes of the panel, and a slot is kept while it may be."""
    assert states.dtype == np.int32
    assert states.min() >= 0
    assert states.max() < num_haplotypes
    for i in range(len(states)):
        for w in range(states.shape[1]):
            here = states[i, w]
            assert len(set(here.tolist())) == len(here)
            if w:
                stays = np.isin(states[i, w - 1], here)
                np.testing.assert_array_equal(states[i, w - 1][stays], here[stays])


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_haplotypes=st.integers(3, 90),
    num_typed=st.integers(1, 400),
    num_slots=st.integers(1, 60),
    num_background=st.integers(0, 20),
    excluded=st.integers(0, 2),
)
def test_states_are_valid(seed, num_haplotypes, num_typed, num_slots, num_background, excluded):
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_typed, num_haplotypes, num_founders=3)
    words = packed(alleles)
    found = Retriever(words, num_slots=num_slots, num_background=num_background)
    targets = np.ascontiguousarray(words[:, :3].T)
    exclude = None
    if excluded:
        exclude = np.array([[0, -1], [1, 2], [-1, -1]], np.int32)[:, :excluded]
    states = found.states(targets, exclude)
    assert states.shape == (3, len(words), min(num_slots, num_haplotypes - excluded))
    check(states, num_haplotypes)
    if exclude is not None:
        for i in range(3):
            assert not np.isin(states[i], exclude[i][exclude[i] >= 0]).any()


def test_an_exact_copy_is_always_retrieved(panel, retriever):
    chosen = np.setdiff1d(np.arange(700), retriever.background)[:40]
    states = retriever.states(packed(panel[:, chosen]).T)
    check(states, 700)
    for i, h in enumerate(chosen):
        assert (states[i] == h).any(axis=1).all(), f"haplotype {h} is lost somewhere"


def test_a_twin_is_retrieved_when_the_own_sample_is_left_out(panel):
    # Haplotypes 600.. are copies of 0..; a sample that leaves itself out finds its copy.
    panel = panel.copy()
    panel[:, 600:640] = panel[:, :40]
    words = packed(panel)
    found = Retriever(words, num_slots=200, num_background=40)
    own = np.stack([np.arange(0, 40) // 2 * 2, np.arange(0, 40) // 2 * 2 + 1], axis=1)
    states = found.states(np.ascontiguousarray(words[:, :40].T), own.astype(np.int32))
    for i in range(40):
        assert not np.isin(states[i], own[i]).any()
        assert (states[i] == 600 + i).any(axis=1).all()


def test_a_long_match_inside_a_mosaic_is_retrieved():
    # The target copies haplotype 5 over words 3 to 9 and haplotype 400 elsewhere.
    rng = np.random.default_rng(4)
    alleles = (rng.random((14 * 32, 600)) < 0.3).astype(np.int8)
    target = alleles[:, [400]].copy()
    target[3 * 32 : 10 * 32, 0] = alleles[3 * 32 : 10 * 32, 5]
    states = Retriever(packed(alleles), num_slots=150, num_background=30).states(packed(target).T)
    here = (states[0] == 5).any(axis=1)
    assert here[3:10].all()
    assert (states[0] == 400).any(axis=1)[[0, 1, 2, 10, 11, 12, 13]].all()


def test_a_long_match_that_ends_soon_after_a_place_is_retrieved_there():
    # Haplotype 5 is the target's up to site 8 of word 40, and nothing like it from there on, where
    # three hundred others are much like it: in every window over word 40 they are nearer.
    rng = np.random.default_rng(6)
    target = (rng.random((64 * 32, 1)) < 0.3).astype(np.int8)
    alleles = target ^ (rng.random((64 * 32, 600)) < 0.02)
    alleles[:, 300:] = rng.random((64 * 32, 300)) < 0.3
    end = 40 * 32 + 8
    alleles[:end, 5] = target[:end, 0]
    alleles[end:, 5] = rng.random(64 * 32 - end) < 0.3
    states = Retriever(packed(alleles.astype(np.int8)), num_slots=150, num_background=30)
    found = (states.states(packed(target).T)[0] == 5).any(axis=1)
    assert found[:41].all()


def test_other_targets_do_not_matter(panel, retriever):
    targets = np.ascontiguousarray(packed(panel[:, :60] ^ (panel[:, 60:120] & (
        np.random.default_rng(0).random((330, 60)) < 0.1))).T)  # fmt: skip
    together = retriever.states(targets)
    order = np.random.default_rng(1).permutation(60)
    np.testing.assert_array_equal(retriever.states(targets[order]), together[order])
    for i in (0, 17, 59):
        np.testing.assert_array_equal(retriever.states(targets[i : i + 1])[0], together[i])


def test_deterministic_and_small_panels_are_taken_whole(panel):
    words = packed(panel[:, :100])
    targets = np.ascontiguousarray(words[:, :5].T)
    one, two = (Retriever(words, seed=3).states(targets) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert one.shape[2] == 100 < NUM_SLOTS
    np.testing.assert_array_equal(np.sort(one[0, 0]), np.arange(100))
    np.testing.assert_array_equal(one[0], np.repeat(one[0][:1], len(words), axis=0))


@pytest.mark.parametrize(("num_words", "length"), [(1, 2), (2, 2), (7, 2), (9, 4), (70, 32)])
def test_windows_near_a_word_hold_it_or_lie_beside_it(num_words, length):
    step = length // 2
    starts = np.arange(0, max(1, num_words - length + step), step)
    ranges = np.stack([starts, np.minimum(starts + length, num_words)], axis=1)
    for w, (*over, before, after) in enumerate(_windows_near(ranges, num_words).tolist()):
        holding = [i for i, (low, high) in enumerate(ranges) if low <= w < high]
        assert [i for i in over if i >= 0] == holding[-2:]
        assert before == max((i for i, (_, high) in enumerate(ranges) if high <= w), default=-1)
        assert after == min((i for i, (low, _) in enumerate(ranges) if low > w), default=-1)


def test_a_room_that_was_used_before_changes_nothing(panel, retriever):
    targets = packed(panel[:, 100:175]).T
    states = retriever.states(targets)
    room = np.full((80, *states.shape[1:]), 7, np.int32)
    found = retriever.states(targets, room=room)
    assert np.shares_memory(found, room)
    np.testing.assert_array_equal(found, states)
    np.testing.assert_array_equal(retriever.states(targets[:33], room=room, threads=3), states[:33])


def test_more_haplotypes_than_16_bits_number(panel):
    many = np.tile(packed(panel), 94)  # 65,800 haplotypes
    found = Retriever(many, num_slots=300, num_background=3)
    states = found.states(packed(panel[:, :2]).T)
    check(states, many.shape[1])
    assert states.max() >= 1 << 16
    for i in range(2):
        copies = np.isin(states[i], np.arange(i, many.shape[1], 700))
        assert (copies.sum(axis=1) >= 50).all()


def test_members_out_of_range_are_refused(tmp_path):
    """Members of a very large panel are checked when they are found, not when they are opened."""
    rng = np.random.default_rng(8)
    words = packed(mosaic_panel(rng, 300, 260, num_founders=9))
    made = Retriever(words, num_slots=100, num_background=10)
    targets = np.ascontiguousarray(words[:, :40].T)
    for change, fits in ((0, True), (260, False)):
        arrays = made.arrays()
        arrays["members"] = arrays["members"] + np.uint16(change)
        write_arrays(tmp_path / "a.safetensors", arrays, {})
        file = MappedArrays(tmp_path / "a.safetensors", PanelError)
        again = Retriever.of_arrays(file.get, len(words), 260, num_slots=100, refuse=PanelError)
        if fits:
            np.testing.assert_array_equal(again.states(targets), made.states(targets))
            continue
        with pytest.raises(PanelError, match="out of range"):
            again.states(targets)
