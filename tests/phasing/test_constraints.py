"""What phased genotypes and phase sets leave free."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.phasing.constraints import NO_SET, free_phase, join_phase
from ragimpute.phasing.kernel import FLIP, SWAP_AFTER, SWAP_WITH

ALL = FLIP | SWAP_WITH | SWAP_AFTER


def hets(num):
    """So many heterozygous genotypes."""
    return np.tile(np.array([[0, 1]], np.int8), (num, 1))


def test_unphased_genotypes_are_free():
    alleles = np.array([[0, 1], [1, 1], [1, 0], [-1, -1], [0, -2], [0, 1]], np.int8)
    free = free_phase(alleles, np.zeros(6, bool))
    assert free.het.tolist() == [0, 2, 5]
    assert free.moves.tolist() == [ALL] * 3
    assert free.follows.tolist() == [-1] * 3


def test_a_phased_sample_is_fixed():
    free = free_phase(hets(4), np.ones(4, bool))
    assert not free.moves.any()
    assert free.follows.tolist() == [-1, 0, 1, 2]


def test_one_phased_genotype_is_free():
    phased = np.array([False, True, False])
    assert free_phase(hets(3), phased).moves.tolist() == [ALL] * 3


def test_an_unphased_genotype_among_phased_ones_can_be_turned():
    phased = np.array([True, False, True, False])
    free = free_phase(hets(4), phased)
    assert free.follows.tolist() == [-1, -1, 0, -1]
    assert free.moves.tolist() == [0, FLIP, SWAP_AFTER, FLIP | SWAP_WITH]


def test_two_phase_sets_are_exchanged_as_wholes():
    sets = np.array([7, 7, 9, 9, 9])
    free = free_phase(hets(5), np.ones(5, bool), sets)
    assert free.follows.tolist() == [-1, 0, -1, 2, 3]
    assert free.moves.tolist() == [0, SWAP_AFTER, SWAP_WITH, 0, 0]


def test_genotypes_without_a_set_are_one_block():
    sets = np.array([NO_SET, 5, 5, NO_SET])
    free = free_phase(hets(4), np.ones(4, bool), sets)
    assert free.follows.tolist() == [-1, -1, 1, 0]
    # The set within lies in the block's span: only its own genotypes can be turned.
    assert free.moves.tolist() == [0, FLIP, FLIP, 0]


def test_of_sets_that_overlap_the_largest_bound_the_others():
    sets = np.array([4, 4, 5, 4, 5, 5, 5, 6, 6])
    free = free_phase(hets(9), np.ones(9, bool), sets)
    assert free.follows.tolist() == [-1, 0, -1, 1, 2, 4, 5, -1, 7]
    free_ones = [FLIP | SWAP_AFTER, ALL, FLIP]  # at 0, 1 and 3, as if they were not phased
    assert free.moves[[0, 1, 3]].tolist() == free_ones
    assert free.moves[[2, 4, 5, 6, 7, 8]].tolist() == [SWAP_WITH, 0, 0, SWAP_AFTER, SWAP_WITH, 0]


def test_moves_back_are_those_of_the_other_direction():
    free = free_phase(hets(4), np.array([True, False, True, False]))
    assert free.moves_back().tolist() == [0, FLIP, SWAP_WITH, FLIP | SWAP_AFTER]


def test_neighbours_decide_where_nothing_is_known():
    free = free_phase(hets(5), np.zeros(5, bool))
    together = np.array([0.0, 0.9, 0.2, 0.5, 0.8])
    assert join_phase(free, np.zeros(5, np.int8), together).tolist() == [0, 0, 1, 0, 0]


@given(st.data())
def test_the_order_within_a_block_is_kept(data):
    num = data.draw(st.integers(1, 30))
    bits = st.lists(st.integers(0, 1), min_size=num, max_size=num)
    first = np.array(data.draw(bits), np.int8)
    alleles = np.stack([first, 1 - first], axis=1)
    phased = np.array(data.draw(bits), bool)
    sets = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=num, max_size=num)))
    together = np.array(data.draw(st.lists(st.floats(0, 1), min_size=num, max_size=num)))
    out = join_phase(free_phase(alleles, phased, sets), first, together)
    assert set(out.tolist()) <= {0, 1}
    for block in np.unique(sets[phased]):
        here = phased & (sets == block)
        turned = out[here] != first[here]
        assert turned.all() or not turned.any()


@pytest.mark.parametrize("num", [0, 1])
def test_none_or_one_genotype(num):
    free = free_phase(hets(num), np.zeros(num, bool))
    out = join_phase(free, np.zeros(num, np.int8), np.full(num, np.nan))
    assert out.tolist() == [0] * num
