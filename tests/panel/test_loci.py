"""Which panel sites exclude each other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names

from ragimpute.panel import loci as loci_module
from ragimpute.panel.loci import Loci, PanelLoci, loci_of, sites_of_one_ref
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel

SITES = [(100, "A", "C"), (100, "AT", "A"), (100, "A", "G"), (150, "C", "T"), (200, "G", "A"),
         (200, "G", "GT"), (300, "T", "A"), (300, "T", "C"), (300, "T", "G")]  # fmt: skip


@pytest.fixture
def panel(tmp_path):
    """At 200, a haplotype carries both ALTs; at 300, one carries T>A and T>G."""
    alleles = np.zeros((len(SITES), 4, 2), np.int8)
    for row, sample, slot in [(0, 0, 0), (1, 0, 0), (2, 0, 1), (2, 1, 0), (4, 1, 0), (5, 1, 0),
                              (6, 2, 0), (8, 2, 0), (7, 3, 1), (6, 3, 0)]:  # fmt: skip
        alleles[row, sample, slot] = 1
    position, ref, alt = zip(*SITES, strict=True)
    batch = make_batch(alleles, position, ref=ref, alt=alt)
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    with Panel.open(tmp_path / "p.h5") as opened:
        yield opened


def groups_of(loci):
    return [group.tolist() for group in loci]


def test_sites_of_one_position_and_ref(panel):
    assert groups_of(sites_of_one_ref(panel.sites)) == [[0, 2], [4, 5], [6, 7, 8]]
    some = np.array([0, 1, 3, 4, 6, 8])
    assert groups_of(sites_of_one_ref(panel.sites, some)) == [[6, 8]]
    assert len(sites_of_one_ref(panel.sites, np.array([3, 4, 6]))) == 0


@pytest.mark.parametrize("near", [0, 4096])
@pytest.mark.parametrize("at_once", [1, 2**24])
def test_the_panels_haplotypes_tell_which_exclude_each_other(panel, monkeypatch, near, at_once):
    monkeypatch.setattr(loci_module, "_NEAR", near)
    monkeypatch.setattr(loci_module, "_ALLELES_AT_ONCE", at_once)
    found = loci_of(panel, sites_of_one_ref(panel.sites))
    # Of 300's, T>A shares a haplotype with T>G: one of both goes.
    assert groups_of(found) == [[0, 2], [7, 8]]
    assert groups_of(found.between(1, 9)) == [[6, 7]]
    assert [group.tolist() for group in found.by_size()] == [[[0, 2], [7, 8]]]


@pytest.mark.parametrize("read", [(0, 9), (0, 3), None])
def test_loci_are_found_in_what_is_read_anyway(panel, read, monkeypatch):
    watched = PanelLoci(panel)
    watched.want(0, 9)
    if read is not None:
        watched.haplotypes(*read)
    reads = []
    monkeypatch.setattr(
        type(panel), "haplotypes",
        lambda self, *span, original=type(panel).haplotypes: (
            reads.append(span), original(self, *span)
        )[1],
    )  # fmt: skip
    assert groups_of(watched.wanted()) == [[0, 2], [7, 8]]
    assert bool(reads) == (read != (0, 9))
    watched.want(3, 5)
    assert groups_of(watched.wanted()) == []


@settings(deadline=None)
@given(st.lists(st.integers(2, 5), max_size=8), st.data())
def test_groups_are_taken_and_counted_anew(sizes, data):
    edges = np.cumsum([0, *sizes]).tolist()
    groups = [list(range(a, b)) for a, b in itertools.pairwise(edges)]
    loci = Loci.of(groups)
    assert groups_of(loci) == groups
    which = np.array(data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes))))
    which = which.astype(bool)
    kept = [group for group, taken in zip(groups, which, strict=True) if taken]
    assert groups_of(loci.take(which)) == kept
