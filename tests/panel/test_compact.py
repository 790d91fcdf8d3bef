"""Haplotypes in compact form: what is taken out of it is what rows of bits would have given."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel

from ragimpute.copying.window import pack_typed
from ragimpute.errors import PanelError
from ragimpute.panel import reader, views
from ragimpute.panel.compact import among_blank_sites, join_sites
from ragimpute.panel.haplotypes import keep_haplotypes, select_sites, signatures_of
from ragimpute.panel.packing import PatternBlock
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelDraw, PanelWithout, draw_panel
from ragimpute.preparation.panel_writer import write_panel


def panel_of(folder, num_sites, num_samples, seed=1, sample_names=None):
    """A panel of mosaics, rare sites among them; and its alleles (M, H)."""
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_sites, 2 * num_samples, mutations=0.02)
    rare = rng.random(num_sites) < 0.5
    alleles[rare] &= rng.random((int(rare.sum()), 2 * num_samples)) < 0.05
    alleles[rng.random(num_sites) < 0.2] ^= 1
    batch = make_batch(alleles.reshape(num_sites, num_samples, 2))
    write_panel(
        folder / "p.h5", [batch], samples=sample_names or names(num_samples), genetic_map=FlatMap()
    )
    return Panel.open(folder / "p.h5"), alleles


def assert_same(one, other):
    """That two blocks of haplotypes have the same arrays, of the same types."""
    for field in fields(one):
        if field.name == "blocks":
            continue
        a, b = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)
        assert np.asarray(a).dtype == np.asarray(b).dtype, field.name


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """300 sites, 230 haplotypes: two blocks of rows, and lists of carriers."""
    opened, alleles = panel_of(tmp_path_factory.mktemp("p"), 300, 115)
    with opened:
        assert opened.compact(0, 300).row.max() > 100
        assert len(opened.compact(0, 300).carriers) > 100
        yield opened, alleles


@settings(deadline=None, max_examples=20)
@given(
    bounds=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 999),
)
def test_what_is_taken_is_what_all_haplotypes_have(panel, bounds, share, seed):
    opened, alleles = panel
    start, stop = sorted(bounds)
    rng = np.random.default_rng(seed)
    kept = rng.random(opened.num_haplotypes) < share
    compact, whole = opened.compact(start, stop), opened.haplotypes(start, stop)
    assert len(compact) == stop - start
    few = keep_haplotypes(whole, kept)
    taken = compact.select(np.flatnonzero(kept))
    assert_same(taken, few)
    # They are made of the patterns.
    np.testing.assert_array_equal(signatures_of(taken), signatures_of(few))
    np.testing.assert_array_equal(few.alleles(), alleles[start:stop, kept])
    minor = np.where(whole.alt_is_minor[:, None], alleles[start:stop], 1 - alleles[start:stop])
    np.testing.assert_array_equal(compact.num_minor(), minor.sum(axis=1))
    again = compact.without(kept)
    assert_same(again.select(np.arange(int(kept.sum()))), few)
    np.testing.assert_array_equal(again.num_minor(), minor[:, kept].sum(axis=1))


@settings(deadline=None, max_examples=20)
@given(cuts=st.sets(st.integers(0, 300), max_size=4), share=st.sampled_from([0, 0.1, 0.6, 1]),
       seed=st.integers(0, 999))  # fmt: skip
def test_words_of_pieces_are_those_of_the_whole(panel, cuts, share, seed):
    opened, _ = panel
    typed = np.flatnonzero(np.random.default_rng(seed).random(300) < share)
    order = np.random.default_rng(seed).permutation(opened.num_haplotypes).astype(np.int32)
    order = (order, np.argsort(order).astype(np.int32))
    out = np.zeros((max(1, -(-len(typed) // 32)), opened.num_haplotypes), np.uint32)
    edges = [0, *sorted(cuts), 300]
    for low, high in pairwise(edges):
        first, last = np.searchsorted(typed, [low, high]).tolist()
        opened.compact(low, high).pack_words(typed[first:last] - low, first, order, out)
    np.testing.assert_array_equal(
        out[: -(-len(typed) // 32)], pack_typed(opened.haplotypes(0, 300), typed)[:, order[0]]
    )
    parts = [opened.haplotypes(low, high) for low, high in pairwise(edges)]
    assert_same(join_sites(parts), opened.haplotypes(0, 300))


def test_among_sites_without_carriers(panel):
    opened, alleles = panel
    minor = opened.alt_is_minor
    kept = np.arange(3, 90, 2)
    block = among_blank_sites(opened.compact(40, 260).select(kept), 40, minor)
    wanted = np.where(minor, 0, 1)[:, None].repeat(len(kept), axis=1)
    wanted[40:260] = alleles[40:260][:, kept]
    np.testing.assert_array_equal(block.alleles(), wanted)
    inner = select_sites(block, np.arange(40, 260))
    assert_same(inner, opened.compact(40, 260).select(kept))
    assert among_blank_sites(inner, 0, minor[40:260]) is inner


def test_the_file_is_read_by_pieces(panel, monkeypatch):
    opened, _ = panel
    whole, few = opened.haplotypes(5, 295), opened.compact(5, 295)
    monkeypatch.setattr(reader, "_READ_BYTES", 64)
    assert_same(opened.haplotypes(5, 295), whole)
    again = opened.compact(5, 295)
    everyone = np.arange(opened.num_haplotypes)
    assert_same(again.select(everyone), few.select(everyone))


def test_many_patterns_take_wider_numbers():
    number = np.arange(2**16 + 1, dtype=np.uint32)
    patterns = number.astype(np.uint64)
    assert PatternBlock.of(patterns[:-1], number[:-1]).number.dtype == np.uint16
    wide = PatternBlock.of(patterns, number)
    assert wide.number.dtype == np.uint32
    np.testing.assert_array_equal(wide.patterns[wide.number], patterns)


def test_damage_is_said(tmp_path):
    import h5py

    opened, _ = panel_of(tmp_path, 80, 40)
    opened.close()
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        file["haplotypes/pattern_index"][0, 3] = 60_000
    with Panel.open(tmp_path / "p.h5") as again, pytest.raises(PanelError, match="damaged"):
        again.compact(0, 80)


def test_views(panel, monkeypatch):
    opened, _ = panel
    kept = np.random.default_rng(3).random(opened.num_haplotypes) < 0.3
    usual = PanelWithout(opened, kept)
    wanted = usual.haplotypes(10, 290)
    everyone = np.arange(usual.num_haplotypes)
    assert_same(usual.compact(10, 290).select(everyone), wanted)
    drawn = PanelDraw(opened, kept)
    assert_same(drawn.haplotypes(10, 290), wanted)
    monkeypatch.setattr(views, "_COMPACT_BYTES", 2_000)  # pieces of a few sites
    assert_same(drawn.haplotypes(10, 290), wanted)
    assert len(drawn.haplotypes(7, 7)) == 0
    np.testing.assert_array_equal(drawn.haplotype_sample, opened.haplotype_sample[kept])


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999), most=st.integers(2, 40))
def test_a_draw_depends_on_names_and_not_on_their_order(tmp_path_factory, seed, most):
    rng = np.random.default_rng(seed)
    found = []
    for order in (np.arange(20), rng.permutation(20)):
        called = [f"sample {i}" for i in order]
        panel, _ = panel_of(tmp_path_factory.mktemp("p"), 20, 20, sample_names=called)
        with panel:
            view = draw_panel(panel, most, seed)
            assert view.num_haplotypes == most // 2 * 2
            of, count = np.unique(view.haplotype_sample, return_counts=True)
            assert (count == 2).all()  # whole samples
            found.append({called[i] for i in of})
            assert (view is panel) == (most == 40)
    assert found[0] == found[1]


def test_another_seed_draws_others(panel):
    opened, _ = panel
    one, two = (set(draw_panel(opened, 100, seed).drawn.tolist()) for seed in (1, 2))
    assert 10 < len(one & two) < 90
