"""Rows of BGEN against the rule of its specification, in exact arithmetic."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imputed_blocks import probability

from ragimpute.io.bgen.encode import encode_rows, max_row_bytes


def decode(row):
    """Ploidy of each sample, and the stored numbers of each, of a row of layout 2."""
    num_samples, num_alleles, fewest, most = struct.unpack("<IHBB", row[:8])
    ploidy = list(row[8 : 8 + num_samples])
    phased, bits = row[8 + num_samples], row[9 + num_samples]
    assert (num_alleles, fewest, most) == (2, min(ploidy), max(ploidy))
    number = int.from_bytes(row[10 + num_samples :], "little")
    values = []
    for copies in ploidy:
        values.append([number >> (bits * k) & (2**bits - 1) for k in range(copies)])
        number >>= bits * copies
    assert number == 0
    assert len(row) == 10 + num_samples + -(-bits * sum(ploidy) // 8)
    return phased, bits, ploidy, values


def rounded(probs, top):
    """What the specification makes of probabilities that sum to 1."""
    scaled = [p * top for p in probs]
    low = [int(x) for x in scaled]
    left = top - sum(low)
    order = sorted(range(len(low)), key=lambda k: (low[k] - scaled[k], k))
    for k in order[:left]:
        low[k] += 1
    return low


@st.composite
def probabilities(draw):
    n = draw(st.integers(1, 5))
    prob = np.array(draw(st.lists(probability, min_size=2 * n, max_size=2 * n)), np.float32)
    prob = prob.reshape(1, n, 2)
    prob[0, draw(st.lists(st.integers(0, n - 1))), 1] = np.nan
    return prob


@settings(max_examples=150, deadline=None)
@given(probabilities(), st.integers(1, 32), st.booleans())
def test_numbers_are_those_of_the_specification(prob, bits, phased):
    rows, length = encode_rows(prob, bits=bits, phased=phased)
    assert length[0] <= max_row_bytes(prob.shape[1], bits) == rows.shape[1]
    told_phased, told_bits, ploidy, values = decode(rows[0, : length[0]].tobytes())
    assert (told_phased, told_bits) == (phased, bits)
    top = 2**bits - 1
    for (first, second), copies, found in zip(prob[0], ploidy, values, strict=True):
        assert copies == (1 if np.isnan(second) else 2)
        a = Fraction(float(first))
        if copies == 1:
            expected = [rounded([1 - a, a], top)]
        else:
            b = Fraction(float(second))
            expected = [rounded([(1 - a) * (1 - b), a * (1 - b) + b * (1 - a), a * b], top)]
            if phased:
                expected = [rounded([1 - a, a], top), rounded([1 - b, b], top)]
        wanted = [number for part in expected for number in part[:-1]]
        # A tie, or what float64 cannot tell from one, may go either way: by one unit.
        assert all(abs(x - y) <= 1 for x, y in zip(found, wanted, strict=True))
        assert all(sum(part) == top for part in expected)
        assert phased or sum(found) <= top


def test_away_from_ties_numbers_are_exact():
    rng = np.random.default_rng(1)
    prob = rng.beta(0.3, 0.6, size=(40, 30, 2)).astype(np.float32)
    for phased in (False, True):
        rows, length = encode_rows(prob, bits=8, phased=phased)
        for i in range(len(prob)):
            values = decode(rows[i, : length[i]].tobytes())[3]
            for (a, b), found in zip(prob[i].astype(float), values, strict=True):
                a, b = Fraction(a), Fraction(b)
                probs = [(1 - a) * (1 - b), a * (1 - b) + b * (1 - a), a * b]
                wanted = rounded(probs, 255)[:2]
                if phased:
                    wanted = [rounded([1 - x, x], 255)[0] for x in (a, b)]
                assert found == wanted


def test_called_genotypes_stay_exact():
    prob = np.array([[[0, 0], [0, 1], [1, 0], [1, 1], [0, np.nan], [1, np.nan]]], np.float32)
    for bits in (1, 8, 16, 32):
        top = 2**bits - 1
        rows, length = encode_rows(prob, bits=bits, phased=False)
        values = decode(rows[0, : length[0]].tobytes())[3]
        assert values == [[top, 0], [0, top], [0, top], [0, 0], [top], [0]]


@pytest.mark.parametrize("bits", [0, 33])
def test_bits_out_of_range(bits):
    with pytest.raises(ValueError, match="bits"):
        encode_rows(np.zeros((1, 1, 2), np.float32), bits=bits, phased=False)
