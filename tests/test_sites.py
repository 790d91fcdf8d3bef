"""Site tables and regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel_fixtures import make_batch

from ragimpute.errors import InputError
from ragimpute.sites import Region, other_strand, same_contig


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
        ("chr20:7-", Region("chr20", 7, 2**31 - 1)),
        ("HLA:A:3-4", Region("HLA:A", 3, 5)),
        ("chr1-part:3-4", Region("chr1-part", 3, 5)),
    ],
)
def test_region_forms(text, region):
    assert Region.parse(text) == region


@pytest.mark.parametrize("text", ["", " ", "chr 20:1-2", "chr20:9-5", "chr20:0-5", "20:0"])
def test_bad_regions(text):
    with pytest.raises(InputError, match="region") as caught:
        Region.parse(text)
    assert repr(text) in caught.value.message
    assert caught.value.hint


@given(st.text("a2:-, 0", max_size=12))
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


@pytest.mark.parametrize("text", ["20", "chrX:5-5", "HLA-A*01:01:3-9", "20:1-100"])
def test_a_region_is_shown_as_it_is_read(text):
    assert str(Region.parse(text)) == text


@pytest.mark.parametrize(
    ("wanted", "names", "found"),
    [
        ("20", ["chr20", "20"], "20"),
        ("chr20", ["2", "20"], "20"),
        ("20", ["CHR20"], "CHR20"),
        ("X", ["22", "chr23"], "chr23"),
        ("chr23", ["23", "X"], "23"),
        ("MT", ["chrM"], "chrM"),
        ("20", ["2", "200"], None),
        ("chr", ["chr"], "chr"),
    ],
)
def test_names_of_one_contig(wanted, names, found):
    assert same_contig(wanted, names) == found


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
