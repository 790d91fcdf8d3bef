"""The first columns of a row, and the numbers of INFO."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from imputed_blocks import make_block

from ragimpute.io.vcf.write.info_text import NumberColumn, info_columns, row_starts

ROUNDED_UP = [9.9999949e-5, 99_999.95, 999_999.4, 0.9999996, 1e-17, 9.99999e-18]
HALVES = [976_562.5, 0.0009765625, 1.0000005, 3.5, 2.5e-11]


def strings(column):
    """The texts of a column; "" where a number is missing."""
    return [
        bytes(row[:n]).decode() for row, n in zip(column.text, column.length.tolist(), strict=True)
    ]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=32, allow_infinity=False), max_size=30))
@example([*ROUNDED_UP, *HALVES, 0.0, -0.0, 1e30, -1.5, float("nan")])
def test_numbers_are_those_of_python(numbers):
    values = np.array(numbers, np.float32)
    column = NumberColumn.of(values)
    expected = ["" if x != x else f"{x + 0.0:.6g}" for x in values.astype(float).tolist()]
    assert strings(column) == ["0" if text == "-0" else text for text in expected]
    assert column.value.tolist() == [float(text or 0) for text in expected]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-17, 7).flatmap(lambda e: st.floats(1, 10).map(lambda x: x * 10**e))))
def test_numbers_of_every_size(numbers):
    values = np.array(numbers, np.float32)
    expected = [f"{x:.6g}" for x in values.astype(float).tolist()]
    assert strings(NumberColumn.of(values)) == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1, 3, width=32)), st.lists(st.integers(0, 2**31)))
def test_decimals_and_integers(numbers, integers):
    values = np.array(numbers, np.float32)
    rounded = (np.round(values.astype(float), 4) + 0.0).tolist()
    assert strings(NumberColumn.of(values, decimals=4)) == [f"{x:.6g}" for x in rounded]
    whole = NumberColumn.of(np.array(integers, float), integer=True)
    assert strings(whole) == [str(x) for x in integers]
    assert whole.value.tolist() == integers
    assert strings(whole.take(slice(1, 3))) == [str(x) for x in integers[1:3]]


def test_info_as_text():
    info = {
        "AF": np.array([0, 0.25, 1 / 3, 1.5e-7, np.nan]),
        "DR2": np.array([-1e-6, 0.99996, 0.12345, np.nan, 1]),
        "AN": np.array([4, 0, np.nan, 100_000, 7]),
        "PVAR": np.array([1 / 3, 0, 1e5 / 3, np.nan, 2]),
    }
    assert {name: strings(column) for name, column in info_columns(info, 5).items()} == {
        "AF": ["0", "0.25", "0.333333", "1.5e-07", ""],
        "DR2": ["0", "1", "0.1234", "", "1"],
        "AN": ["4", "0", "", "100000", "7"],
        "PVAR": ["0.333333", "0", "33333.3", "", "2"],
    }
    with pytest.raises(ValueError, match=r"INFO \['QQ'\]"):
        info_columns({"QQ": np.zeros(1)}, 1)
    with pytest.raises(ValueError, match=r"AF has shape \(2,\), expected \(1,\)"):
        info_columns({"AF": np.zeros(2)}, 1)


def test_row_starts():
    block = make_block(np.zeros((2, 1, 2)), position=[7, 9], ref=["A", "CT"], alt=["G", "C"])
    typed = np.array([True, False])
    starts = [b"20\t7\t.\tA\tG\t.\tPASS\t", b"20\t9\trs1\tCT\tC\t.\tPASS\t"]
    nan = np.nan
    for formats, tail in ((["GT", "DS"], b"\tGT:DS"), ([], b"")):
        ends = [b"TYPED" + tail, b"IMP" + tail]
        for info, texts in (
            ({}, [b"", b""]),
            ({"AF": [0.1, 0.2]}, [b"AF=0.1;", b"AF=0.2;"]),
            ({"AF": [0.1, nan], "DR2": [nan, 1]}, [b"AF=0.1;", b"DR2=1;"]),
        ):
            columns = info_columns({name: np.array(x) for name, x in info.items()}, 2)
            text, offsets = row_starts(block.sites, typed, columns, formats)
            expected = [b"".join(parts) for parts in zip(starts, texts, ends, strict=True)]
            assert [text[a:b].tobytes() for a, b in pairwise(offsets.tolist())] == expected
            assert len(text) == offsets[-1]
    none = block.sites.take(slice(0, 0))
    text, offsets = row_starts(none, typed[:0], {}, ["GT"])
    assert (len(text), offsets.tolist()) == (0, [0])
