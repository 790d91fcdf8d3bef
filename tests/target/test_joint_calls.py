"""Calls of duplicates are merged, and the ALTs of a locus exclude each other."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.panel.loci import Loci
from ragimpute.target.joint_calls import (
    Calls,
    complete_half_calls,
    exclude_filled,
    merge_calls,
    settle_loci,
)


def genotype(text):
    """Alleles and phase of a call as VCF writes it."""
    parts = text.replace("|", "/").split("/")
    pair = [-1 if part == "." else int(part) for part in parts]
    pair += [-2] * (2 - len(pair))
    return pair, "/" not in text or pair[0] == pair[1]


def calls_of(*rows):
    """Rows of calls."""
    read = [[genotype(text) for text in row] for row in rows]
    return Calls(
        np.array([[pair for pair, _ in row] for row in read], np.int8),
        np.array([[phased for _, phased in row] for row in read]),
    )


@pytest.mark.parametrize(
    ("one", "two", "merged", "wrong"),
    [
        ("./.", "0|1", "0|1", 0),
        ("0|1", "./.", "0|1", 0),
        ("0/1", "1/0", "0/1", 0),
        ("0/1", "1|0", "1|0", 0),
        ("0|1", "1|0", "0/1", 0),
        (".|1", "0|1", "0|1", 0),
        (".|1", "0|.", "0|1", 0),
        (".|1", "1|0", ".|.", 1),
        ("0|0", "0|1", ".|.", 1),
        ("1/1", "0/0", ".|.", 1),
        ("1", "1/1", "1", 0),
        ("1", "0/1", ".", 1),
        (".", "1", "1", 0),
        ("0", "1", ".", 1),
    ],
)
def test_two_calls_are_merged(one, two, merged, wrong):
    found, _, counts = merge_calls(calls_of([one], [two]))
    expected, phased = genotype(merged)
    assert found.alleles[0, 0].tolist() == expected
    assert found.phased[0, 0] == phased
    assert counts.tolist() == [0, wrong]


def test_what_contradicts_stays_missing():
    found, source, counts = merge_calls(calls_of(["0|0", "./."], ["1|1", "0|1"], ["0|0", "0|1"]))
    assert found.alleles[0].tolist() == [[-1, -1], [0, 1]]
    assert (source[1], counts.tolist()) == (1, [0, 1, 0])


LOCUS = Loci.of([[0, 1, 2]])


@pytest.mark.parametrize(
    ("rows", "settled", "wrong"),
    [
        (["1|0", ".|.", "0|1"], ["1|0", "0|0", "0|1"], 0),
        (["1|0", ".|.", ".|."], ["1|0", "0|.", "0|."], 0),
        (["1/0", ".|.", "0/1"], ["1/0", "0|0", "0/1"], 0),  # nobody knows which is where
        (["1/0", ".|.", ".|."], ["1/0", ".|.", ".|."], 0),
        (["1|0", "1|0", "0|0"], [".|.", ".|.", ".|."], 1),
        (["1/1", "0/1", "0|0"], [".|.", ".|.", ".|."], 1),
        (["1", ".", "0"], ["1", "0", "0"], 0),
        (["1", "1", "0"], [".", ".", "."], 1),
    ],
)
def test_a_haplotype_has_one_allele(rows, settled, wrong):
    calls = calls_of(*([text] for text in rows))
    assert settle_loci(calls, LOCUS) == wrong
    expected = calls_of(*([text] for text in settled))
    np.testing.assert_array_equal(calls.alleles, expected.alleles)


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=12, max_size=12))
def test_settled_haplotypes_carry_one_alt_at_most(values):
    calls = Calls(np.array(values, np.int8).reshape(3, 2, 2), np.ones((3, 2), bool))
    given_alleles = calls.alleles.copy()
    settle_loci(calls, LOCUS)
    assert ((calls.alleles == 1).sum(axis=0) <= 1).all()
    # No allele is turned into another one.
    kept = (given_alleles == calls.alleles) | (calls.alleles == -1) | (given_alleles == -1)
    assert kept.all()
    again = Calls(calls.alleles.copy(), calls.phased.copy())
    assert settle_loci(again, LOCUS) == 0


def test_filled_alleles_give_way():
    alleles = np.array([[[1, 1]], [[1, 1]], [[0, 1]]], np.int8)
    observed = np.array([[[True, False]], [[False, False]], [[False, False]]])
    exclude_filled(alleles, observed, LOCUS, np.array([1, 9, 5]))
    assert alleles[:, 0].T.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_halves_of_a_split_record_complete_each_other():
    """``vt decompose`` writes 1/2 as 1/. and ./1, and 0/2 as 0/. and 0/1."""
    calls = calls_of(["1/.", "0/.", "./1"], ["./1", "0/1", "./."])
    complete_half_calls(calls, Loci.of([[0, 1]]))
    assert calls.alleles[:, :2].tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 1]]]
    assert calls.phased[:, :2].tolist() == [[False, True], [False, False]]
    assert calls.alleles[:, 2].tolist() == [[-1, 1], [-1, -1]]  # the other allele is not known


def test_every_pair_of_calls_merges_alike_in_both_orders():
    texts = ["0/0", "0/1", "1/1", "./.", "0|1", "1|0", "0|.", ".|1"]
    for one, two in product(texts, texts):
        first, second = (merge_calls(calls_of([a], [b])) for a, b in ((one, two), (two, one)))
        known = first[0].phased & second[0].phased
        assert first[2].sum() == second[2].sum(), (one, two)
        if known.all():
            np.testing.assert_array_equal(first[0].alleles, second[0].alleles)
