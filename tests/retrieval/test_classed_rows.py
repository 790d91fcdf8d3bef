"""Tables of very large panels, made of classes: those that are made of all haplotypes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel

from ragimpute.copying.window import pack_words
from ragimpute.retrieval import classed_rows, nearest
from ragimpute.retrieval.classed_rows import ClassedWords
from ragimpute.retrieval.nearest_kernel import FIRST_ROW, LEFT, NUM_ROWS, RIGHT
from ragimpute.retrieval.retriever import Retriever, search_order


def packed(alleles):
    """Words of alleles (T, H), shape (W, H)."""
    return np.ascontiguousarray(pack_words(alleles)[0].T)


def classed(words, seed):
    """The words as classes, in the order of the search."""
    order = search_order(words.shape[1], seed)
    out = ClassedWords(words.shape[1])
    for first in range(0, len(words), ClassedWords.STEP):
        out.add([word[order].copy() for word in words[first : first + ClassedWords.STEP]])
    return out


def panel_words(seed, num_typed, num_haplotypes, founders):
    """Words of a panel, and of 40 targets."""
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_typed, num_haplotypes + 40, num_founders=founders)
    words = packed(alleles)
    return np.ascontiguousarray(words[:, :-40]), np.ascontiguousarray(words[:, -40:].T)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    num_typed=st.integers(1, 1900),
    num_haplotypes=st.integers(2, 300),
    founders=st.integers(1, 12),
    narrow=st.booleans(),
    few=st.booleans(),
    num_targets=st.sampled_from([1, 32, 40]),
)
def test_tables_and_states_are_those_of_all_haplotypes(
    seed, num_typed, num_haplotypes, founders, narrow, few, num_targets
):
    words, targets = panel_words(seed, num_typed, num_haplotypes, founders)
    options = {"num_slots": 60, "num_background": 8, "seed": seed}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "member_type", lambda num: np.uint16 if few else np.int32)
        plain = Retriever(words, **options)
        if not narrow:  # as if there were more than 65,536 classes
            patch.setattr(classed_rows, "_narrow", lambda which, num: which.astype(np.uint32))
        made = classed(words, seed)
        found = Retriever(made, **options)
    np.testing.assert_array_equal(
        found.states(targets[:num_targets]), plain.states(targets[:num_targets])
    )
    one, two = plain.arrays(), found.arrays()
    table = one["windows"]
    table = table[np.argsort(table[:, FIRST_ROW])]
    used = np.repeat(table[:, [LEFT, RIGHT]] >= 0, table[:, NUM_ROWS], axis=0)
    for name, array in one.items():
        if name == "halves":  # of words that no shorter window has, they are of no use
            array, two[name] = array * used, two[name] * used
        np.testing.assert_array_equal(two[name], array, err_msg=name)
        assert two[name].dtype == array.dtype, name
    some = np.arange(0, num_haplotypes, 3)
    column = np.argsort(search_order(num_haplotypes, seed))
    np.testing.assert_array_equal(made.at(column[some]), words[:, some])
    np.testing.assert_array_equal(made.at(column[some], 0, 1), words[:1, some])


def test_members_are_listed_once_many_are_searched(monkeypatch):
    words, targets = panel_words(3, 700, 200, 9)
    found = Retriever(classed(words, 1), num_slots=60, num_background=8)
    listed = []
    usual = classed_rows.list_rows
    monkeypatch.setattr(classed_rows, "list_rows", lambda *args: listed.append(1) or usual(*args))
    num = sum(map(len, found.nearest.ranges))
    first = found.states(targets[:5])
    assert len(listed) == num  # for this search alone
    again = found.states(targets[:5])
    assert len(listed) == 2 * num
    np.testing.assert_array_equal(found.states(targets[:5]), first)
    assert len(listed) == 2 * num
    np.testing.assert_array_equal(again, first)


def test_rows_with_equal_hashes_are_told_apart_in_another_way(monkeypatch):
    words, targets = panel_words(4, 300, 150, 9)
    plain = Retriever(words, num_slots=60, num_background=8)
    monkeypatch.setattr(
        classed_rows, "mix_words", lambda words, rows: np.zeros(len(rows), np.uint64)
    )
    found = Retriever(classed(words, 1), num_slots=60, num_background=8)
    np.testing.assert_array_equal(found.states(targets), plain.states(targets))


def test_words_are_added_in_order():
    made = ClassedWords(5)
    word = np.zeros(5, np.uint32)
    for few in ([], [word] * 5):
        with pytest.raises(ValueError, match="words follow on 0"):
            made.add(few)
    made.add([word])
    with pytest.raises(ValueError, match="words follow on 1"):
        made.add([word])
