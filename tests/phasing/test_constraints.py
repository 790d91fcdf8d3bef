"""What phased genotypes and phase sets leave free."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.panel.loci import Loci
from ragimpute.phasing.constraints import NO_SET, free_phase, join_phase, tie_alleles
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


def tied(alleles, phased, sets=None, groups=((1, 2),)):
    """Ties of a sample's genotypes."""
    alleles = np.array(alleles, np.int8)
    given_sets = None if sets is None else np.array(sets)
    ties = Loci.of([list(group) for group in groups])
    return tie_alleles(alleles, np.array(phased), given_sets, ties)


def test_two_alts_of_a_record_form_a_phase_set():
    found = tied(hets(4), [False] * 4)
    assert found.alleles[:, 0].tolist() == [0, 0, 1, 0]
    assert found.phased.tolist() == [False, True, True, False]
    assert found.phase_set[1] == found.phase_set[2] != NO_SET
    assert len(found.hidden) == 0
    free = free_phase(found.alleles, found.phased, found.phase_set)
    assert free.follows.tolist() == [-1, -1, 1, -1]
    assert free.moves.tolist() == [FLIP | SWAP_AFTER, SWAP_WITH, SWAP_AFTER, FLIP | SWAP_WITH]


def test_an_unphased_alt_joins_the_set_of_a_phased_one():
    found = tied([[0, 1], [0, 1], [1, 0], [0, 1]], [True, False, True, True], [4, NO_SET, 4, 4])
    assert found.alleles[:, 0].tolist() == [0, 0, 1, 0]
    assert found.phase_set.tolist() == [4, 4, 4, 4]
    assert found.phased.all()


def test_two_alts_within_another_set_are_turned_as_one():
    found = tied(hets(4), [True, False, False, True])
    assert found.phased.tolist() == [True, False, False, True]
    assert (found.hidden.tolist(), found.follows.tolist()) == ([2], [1])
    phase = np.array([[0, 0, 0, 1], [1, 1, 0, 0]])
    found.copy_phase(phase)
    assert phase[:, 2].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("alleles", "phased"),
    [
        ([[0, 1], [0, 1], [1, 0], [0, 1]], [True] * 4),
        ([[0, 1], [0, 1], [0, 0], [0, 1]], [False, False, True, False]),
        ([[0, 1], [0, 1], [-1, -1], [0, 1]], [False, False, True, False]),
    ],
)
def test_what_is_phased_or_alone_is_not_tied(alleles, phased):
    found = tied(alleles, phased)
    assert found.phase_set is None
    assert found.alleles.tolist() == alleles


@given(st.data())
def test_tied_alts_are_always_apart(data):
    """Of any groups, phased or not, in any sets: two ALTs come on different haplotypes."""
    num = data.draw(st.integers(4, 9))
    order = data.draw(st.permutations(range(num)))
    pairs = [sorted(order[:2]), sorted(order[2:4])]
    phased = np.array(data.draw(st.lists(st.booleans(), min_size=num, max_size=num)))
    sets = data.draw(st.lists(st.sampled_from([NO_SET, 1, 2]), min_size=num, max_size=num))
    alleles = hets(num)
    for one, other in pairs:  # both phased: apart as given, in one set
        alleles[other] = [1, 0]
        sets[other] = sets[one]
        for row in (one, other):
            if not phased[row]:
                alleles[row] = [0, 1]
    found = tie_alleles(alleles, phased, np.array(sets), Loci.of(pairs))
    shown = found.alleles.copy()
    shown[found.hidden] = -1
    free = free_phase(shown, found.phased, found.phase_set)
    rng = np.random.default_rng(num)
    first = join_phase(free, found.alleles[free.het, 0], rng.random(len(free.het)))
    out = np.zeros((2, num), np.int8)
    out[0, free.het], out[1, free.het] = first, 1 - first
    found.copy_phase(out)
    for one, other in pairs:
        assert out[0, one] != out[0, other]
        assert out[0, other] == out[1, one]
