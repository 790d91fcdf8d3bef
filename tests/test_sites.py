"""Site tables and regions."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel_fixtures import make_batch

from ragimpute.errors import InputError
from ragimpute.sites import STOP_BP, Region, located, other_strand


def test_take_and_keys():
    sites = make_batch(np.zeros((4, 1, 2)), [5, 7, 7, 9], ref=list("ACAG"), alt=list("CGTT")).sites
    assert len(sites) == 4
    assert sites.keys() == [(5, "A", "C"), (7, "C", "G"), (7, "A", "T"), (9, "G", "T")]
    for index in (slice(1, 3), np.array([1, 2]), np.array([False, True, True, False])):
        part = sites.take(index)
        assert part.keys() == sites.keys()[1:3]
        assert (part.contig, part.id.tolist()) == ("20", ["rs7", "rs7"])
    assert sites.take(np.array([3, 0])).position_bp.tolist() == [9, 5]


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("20", Region("20")),
        ("chr20:5-9", Region("chr20", 5, 10)),
        ("chr20:1,000-2,000", Region("chr20", 1000, 2001)),
        ("chr20:7", Region("chr20", 7, 8)),
        ("chr20:7-", Region("chr20", 7, STOP_BP)),
        ("{chr20}", Region("chr20")),
        ("{HLA:A}", Region("HLA:A")),
        ("{HLA:A:5}:3-4", Region("HLA:A:5", 3, 5)),
        ("HLA:A:3-4", Region("HLA:A", 3, 5)),
        ("chr1-part:3-4", Region("chr1-part", 3, 5)),
    ],
)
def test_region_forms(text, region):
    assert Region.parse(text) == region


@pytest.mark.parametrize(
    "text",
    ["", " ", "chr 20:1-2", "chr20:9-5", "chr20:0-5", "20:0", "{}", "{a b}", "20:2147483648"],
)
def test_bad_regions(text):
    with pytest.raises(InputError, match="region") as caught:
        Region.parse(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


@given(st.text("a2:-, 0{}*", max_size=12))
def test_any_text_is_a_region_or_an_input_error(text):
    try:
        region = Region.parse(text)
    except InputError:
        return
    assert 1 <= region.start_bp < region.stop_bp


@given(st.integers(1, 2**31 - 2), st.integers(0, 2**20))
def test_text_comes_back(start, length):
    region = Region("chr20", start, min(start + length, 2**31 - 2) + 1)
    assert Region.parse(str(region)) == region
    assert Region.parse(str(Region("20"))) == Region("20")


@given(st.text("HA*01:-{}", min_size=1, max_size=12), st.integers(1, 99), st.integers(0, 99))
def test_any_name_comes_back_whole_and_with_a_range(name, start, length):
    """Of the two readings of a text, the one that a file of this one contig allows."""
    name = name.replace("{", "").replace("}", "") or "*"
    for region in (Region(name), Region(name, start), Region(name, start, start + length + 1)):
        assert located(Region.parse(str(region)), [name]) == region
    assert located(Region.parse(f"{{{name}}}"), [name]) == Region(name)
    with suppress(InputError):  # "a:0" and "a:9-5" need braces
        assert located(Region.parse(name), [name]) == Region(name)


@pytest.mark.parametrize("text", ["20", "chrX:5-5", "HLA-A*01:01:3-9", "20:1-100"])
def test_a_region_is_shown_as_it_is_read(text):
    assert str(Region.parse(text)) == text


def test_the_other_strand():
    assert other_strand((5, "AC", "gT")) == (5, "GT", "Ac")
    assert other_strand((5, "A", "N")) == (5, "T", "N")


def test_a_region_may_be_given_as_a_text():
    assert Region.of("20:5-9") == Region("20", 5, 10)
    assert Region.of(Region("20", 5, 10)) == Region("20", 5, 10)
    assert Region.of(None) is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((20,), "Region() argument 'contig': expected str such as \"20\", found int: 20"),
        (("20", "1"), "Region() argument 'start_bp': expected whole number, found str: '1'"),
        (("20", 1, 2.5), "Region() argument 'stop_bp': expected whole number, found float: 2.5"),
    ],
)
def test_wrong_types_in_a_region_are_named(arguments, said):
    with pytest.raises(TypeError) as error:
        Region(*arguments)
    assert str(error.value) == said


def test_only_texts_are_parsed():
    with pytest.raises(TypeError, match=r"'text': expected str such as .*, found int: 20"):
        Region.parse(20)


def test_positions_of_numpy_make_a_region():
    assert Region("20", np.int32(5), np.int64(10)) == Region("20", 5, 10)
