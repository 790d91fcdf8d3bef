"""The packings of haplotypes and their inverses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.panel.packing import (
    carriers_to_gaps,
    count_pairs,
    flip_rows,
    gaps_to_carriers,
    minor_counts,
    pack_rows,
    patterns_to_rows,
    rows_to_carriers,
    rows_to_patterns,
    transpose_bits,
    unpack_rows,
)

seeds = st.integers(0, 2**32 - 1)


@given(st.integers(0, 5), seeds)
def test_transpose_bits(num_squares, seed):
    bits = np.random.default_rng(seed).integers(0, 2, size=(num_squares, 64, 64), dtype=np.uint8)

    def pack(squares):
        packed = np.packbits(squares, axis=2, bitorder="little")
        return packed.view("<u8").reshape(num_squares, 64)

    found = transpose_bits(pack(bits))
    np.testing.assert_array_equal(found, pack(np.ascontiguousarray(bits.transpose(0, 2, 1))))


@given(st.integers(0, 7), st.integers(1, 200), seeds)
def test_rows(num_rows, num_haplotypes, seed):
    alleles = np.random.default_rng(seed).integers(0, 2, size=(num_rows, num_haplotypes))
    bits = pack_rows(alleles)
    assert bits.shape == (num_rows, -(-num_haplotypes // 64))
    np.testing.assert_array_equal(unpack_rows(bits, num_haplotypes), alleles)


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(1, 300), st.integers(1, 9), seeds)
def test_patterns(num_rows, num_haplotypes, num_founders, seed):
    rng = np.random.default_rng(seed)
    founders = rng.integers(0, 2, size=(num_rows, num_founders))
    bits = pack_rows(founders[:, rng.integers(0, num_founders, size=num_haplotypes)])
    patterns, index = rows_to_patterns(bits, num_haplotypes)
    assert len(patterns) <= num_founders
    assert (np.diff(patterns.astype(object)) > 0).all()
    found = patterns_to_rows(patterns, index.astype(np.uint16))
    np.testing.assert_array_equal(found[:num_rows], bits)
    assert not found[num_rows:].any()


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 10**6), max_size=20), max_size=20))
def test_carriers(sites):
    offsets = np.cumsum([0] + [len(site) for site in sites])
    carriers = np.array([h for site in sites for h in sorted(site)], dtype=np.int32)
    gaps = carriers_to_gaps(carriers, offsets)
    assert gaps.dtype == np.uint32
    np.testing.assert_array_equal(gaps_to_carriers(gaps, offsets), carriers)


def test_gaps_past_what_an_id_may_be_are_marked():
    gaps = np.array([5, 2**31 - 10, 5, 2**32 - 1, 1], np.uint32)
    found = gaps_to_carriers(gaps, np.array([0, 3, 5]))
    assert found.tolist() == [5, 2**31 - 5, -1, -1, -1]


def test_ties_count_as_alt():
    alt_is_minor, count = minor_counts(np.array([0, 2, 3, 4, 6]), 6)
    assert alt_is_minor.tolist() == [True, True, True, False, False]
    assert count.tolist() == [0, 2, 3, 2, 0]


@pytest.mark.parametrize("num_haplotypes", [2, 62, 64, 66, 200])
def test_what_is_counted_in_words(num_haplotypes):
    rng = np.random.default_rng(num_haplotypes)
    alleles = (rng.random((30, num_haplotypes)) < rng.random((30, 1)) ** 3).astype(np.int8)
    bits = pack_rows(alleles)
    np.testing.assert_array_equal(rows_to_carriers(bits), np.nonzero(alleles)[1])
    flipped = flip_rows(bits, num_haplotypes)
    np.testing.assert_array_equal(flipped, pack_rows(1 - alleles))
    first, second = alleles[:, ::2], alleles[:, 1::2]
    num_differ, num_both, differ = count_pairs(bits)
    np.testing.assert_array_equal(num_differ, (first != second).sum(axis=1))
    np.testing.assert_array_equal(num_both, (first & second).sum(axis=1))
    found = unpack_rows(differ[None], num_haplotypes)[0, ::2]
    np.testing.assert_array_equal(found, (first != second).any(axis=0))
