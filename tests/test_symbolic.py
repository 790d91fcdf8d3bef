from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.symbolic import (
    Extent,
    full_name,
    full_names,
    in_capitals,
    info_value,
    is_symbolic,
    last_base,
    split_name,
)


@pytest.mark.parametrize(
    "alt", ["<DEL>", "<INS:ME:ALU>", "<CN0>", "<STR12>", "G]17:198982]", "]13:123456]T",
            "[chr2:3[A", "C[<ctg1>:7[", ".[13:123457[", "G.", ".A"],
)  # fmt: skip
def test_symbolic_alleles_and_breakends(alt):
    assert is_symbolic(alt)
    assert in_capitals(alt) == alt


@pytest.mark.parametrize(
    "alt", ["A", "acgtn", "*", ".", "<NON_REF>", "<*>", "<X>", "<DEL", "<>", "0", ""]
)
def test_other_alts_are_not_symbolic(alt):
    assert not is_symbolic(alt)
    assert in_capitals(alt) == alt.upper()


def test_what_info_says():
    assert info_value("SVTYPE=DEL;END=12;IMPRECISE", "END") == "12"
    assert info_value("SVTYPE=DEL;END=12;IMPRECISE", "IMPRECISE") == ""
    assert info_value("CIEND=1,2", "END") is None
    assert last_base(10, "ACG", "") == last_base(10, "ACG", "END=9") == 12
    assert last_base(10, "A", "SVTYPE=DEL;END=99") == 99
    assert last_base(10, "A", "END=x") == 10


def test_a_length_that_says_the_same_as_the_end_changes_no_name():
    names = {full_name(100, "<DEL>", info) for info in ("END=150", "SVLEN=-50", "END=150;SVLEN=50")}
    assert names == {"<DEL>:END=150"}
    assert full_name(100, "<DEL>", "END=160;SVLEN=-50") == "<DEL>:END=160:SVLEN=50"
    assert full_name(100, "<INS:ME>", "SVLEN=50") == "<INS:ME>:SVLEN=50"
    assert full_name(100, "A[2:7[", "END=160") == "A[2:7["
    assert full_names(5, ["G", "<DEL>"], "END=9;SVLEN=.,-7") == ["G", "<DEL>:END=9:SVLEN=7"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("END=150", "END=150", True),
        ("END=150", "END=151", False),
        ("END=150", "SVLEN=-50", True),
        ("END=150", "END=150;SVLEN=-49", True),
        ("END=150;SVLEN=-48", "END=150;SVLEN=-49", False),
        ("END=150", "", False),
        ("", "", True),
        ("END=150", "SVTYPE=DEL", False),
    ],
)
def test_two_alleles_agree_where_both_files_say_the_same(one, other, same):
    extents = [Extent.of(100, "<DEL>", info) for info in (one, other)]
    assert extents[0].agrees(extents[1]) is extents[1].agrees(extents[0]) is same


@given(
    st.integers(1, 2**31 - 2), st.sampled_from(["<DEL>", "<INS>", "<CN2>", "<INS:ME:L1>"]),
    st.none() | st.integers(1, 2**31 - 1), st.none() | st.integers(-(10**6), 10**6),
)  # fmt: skip
def test_a_full_name_tells_the_alt_and_its_extent(position, alt, end, length):
    told = (("END", end), ("SVLEN", length))
    info = ";".join(f"{key}={value}" for key, value in told if value is not None)
    extent = Extent.of(position, alt, info)
    name = full_name(position, alt, info)
    assert split_name(name) == (alt, extent)
    assert Extent.of(position, alt, extent.text()) == extent
