"""Ploidy of a target by sample and site, and its columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.target.ploidy import Columns, TargetPloidy, inbred_samples

DIPLOID, HAPLOID, LONE, BOTH_MISSING = (0, 1), (1, -2), (-1, -2), (-1, -1)


def ploidy_of(genotypes, *, index=None, borders=()):
    """Haploid sites of one sample, of panel sites 0 to 11."""
    alleles = np.array(genotypes, dtype=np.int8)[:, None]
    index = np.arange(0, 12, 3)[: len(alleles)] if index is None else np.array(index)
    return np.flatnonzero(TargetPloidy(index, alleles, borders).haploid(0, 12)[:, 0]).tolist()


@pytest.mark.parametrize(
    ("genotypes", "borders", "expected"),
    [
        ([DIPLOID] * 4, [], []),
        ([HAPLOID] * 4, [], range(12)),
        ([DIPLOID, HAPLOID, HAPLOID, DIPLOID], [], range(3, 9)),
        # Up to the border that lies between two typed sites.
        ([DIPLOID, HAPLOID, HAPLOID, DIPLOID], [2, 7], range(2, 7)),
        ([DIPLOID, HAPLOID, HAPLOID, DIPLOID], [3, 9], range(3, 9)),
        ([DIPLOID, HAPLOID, HAPLOID, DIPLOID], [1, 5, 8], range(1, 8)),
        # A missing genotype says nothing of the ploidy, however it is written.
        ([HAPLOID, BOTH_MISSING, HAPLOID, HAPLOID], [], range(12)),
        ([DIPLOID, LONE, DIPLOID, DIPLOID], [], []),
        ([BOTH_MISSING, HAPLOID, DIPLOID, DIPLOID], [], range(6)),
        ([LONE, LONE, LONE, LONE], [], range(12)),
        # ... and is filled from its own side of a border.
        ([DIPLOID, BOTH_MISSING, HAPLOID, DIPLOID], [2, 9], range(2, 9)),
        ([DIPLOID, BOTH_MISSING, BOTH_MISSING, HAPLOID], [2, 8], range(8, 12)),
        ([BOTH_MISSING] * 4, [], []),
        # Mixed, record by record.
        ([HAPLOID, DIPLOID, HAPLOID, DIPLOID], [], [0, 1, 2, 6, 7, 8]),
    ],
)
def test_ploidy_between_typed_sites(genotypes, borders, expected):
    assert ploidy_of(genotypes, borders=borders) == list(expected)


def test_before_the_first_and_behind_the_last_typed_site():
    assert ploidy_of([HAPLOID, DIPLOID], index=[4, 8]) == list(range(8))
    assert ploidy_of([DIPLOID, HAPLOID], index=[4, 8]) == list(range(8, 12))
    assert ploidy_of([HAPLOID, DIPLOID], index=[4, 8], borders=[2, 11]) == list(range(8))


def test_no_typed_site_is_diploid():
    none = TargetPloidy(np.zeros(0, np.int64), np.zeros((0, 3, 2), np.int8))
    assert not none.haploid(2, 7).any()
    assert none.haploid(2, 7).shape == (5, 3)


def test_many_samples_are_filled_apart():
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, (5, 200))
    alleles = np.array([DIPLOID, HAPLOID, LONE, BOTH_MISSING], np.int8)[kind]
    found = TargetPloidy(np.arange(5), alleles).haploid(0, 5)
    for i in range(200):
        last = None
        known = [k for k in kind[:, i] if k < 2]
        for t in range(5):
            last = kind[t, i] if kind[t, i] < 2 else last
            if known:
                assert found[t, i] == ((known[0] if last is None else last) == 1)
            else:
                assert found[t, i] == (kind[t, i] == 2)


def test_columns_and_back():
    alleles = np.array(
        [[(0, 1), (1, -2), (1, 1)], [(1, 0), (0, -2), (1, -2)], [(-1, 1), (-1, -2), (0, -2)]],
        np.int8,
    )
    haploid = np.array([[0, 1, 0], [0, 1, 0], [0, 1, 1], [0, 1, 1]], bool)
    columns = Columns.of(alleles, haploid)
    assert columns.sample.tolist() == [0, 0, 1, 2, 2]
    np.testing.assert_array_equal(
        columns.alleles, [[0, 1, 1, 1, 1], [1, 0, 0, 1, -1], [-1, 1, -1, 0, -1]]
    )
    assert columns.observed.tolist() == [True] * 5
    rows = slice(1, 4)
    assert columns.absent(rows).tolist() == [[0] * 5, [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    assert columns.absent(slice(0, 2)) is None
    values = np.arange(15.0).reshape(3, 5)
    back = columns.restore(values, rows, -2)
    np.testing.assert_array_equal(
        back,
        [[(0, 1), (2, -2), (3, 4)], [(5, 6), (7, -2), (8, -2)], [(10, 11), (12, -2), (13, -2)]],
    )
    whole = Columns.of(alleles[:, ::2], haploid[:, ::2])
    back = whole.restore(values[:, :4], rows, np.nan)
    assert np.isnan(back[1:, 1, 1]).all()
    assert not np.isnan(values).any()  # what was given is left alone


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 120), st.integers(1, 6))
def test_inbred_are_those_without_heterozygotes_where_some_are_expected(seed, num_typed, num):
    rng = np.random.default_rng(seed)
    alleles = rng.integers(-1, 2, (num_typed, num, 2)).astype(np.int8)
    of = rng.integers(0, 4, num)  # outbred, inbred, haploid, or missing
    alleles[:, of == 1, 1] = alleles[:, of == 1, 0]
    alleles[:, of == 2, 1] = -2
    alleles[:, of == 3] = -1
    af = rng.random(num_typed)
    called = (alleles >= 0).all(axis=2)
    expected = (called * (2 * af * (1 - af))[:, None]).sum(axis=0)
    same = (alleles[:, :, 0] == alleles[:, :, 1]).all(axis=0)
    np.testing.assert_array_equal(inbred_samples(alleles, af), same & (expected >= 20))
