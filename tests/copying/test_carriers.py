"""The panel turned around against the panel."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import blocks_of, mosaic_panel, window_of

from ragimpute.copying.carriers import MinorAlleles
from ragimpute.copying.window import Window, pack_typed, pack_words
from ragimpute.panel.haplotypes import keep_haplotypes


def same(one, other):
    """Check that two windows list the same minor alleles in the same order."""
    for field in fields(one):
        values = getattr(one, field.name), getattr(other, field.name)
        np.testing.assert_array_equal(*values, err_msg=field.name)


@pytest.mark.parametrize(
    ("num_typed", "num_haplotypes", "core"),
    [(1, 5, (0, 500)), (120, 150, (20, 480)), (64, 64, (0, 500)), (33, 65, (250, 251))],
)
def test_each_minor_allele_stands_once(num_typed, num_haplotypes, core):
    rng = np.random.default_rng(num_typed)
    alleles = mosaic_panel(rng, 500, num_haplotypes)
    typed_index = np.sort(rng.permutation(500)[:num_typed])
    window = window_of(alleles, np.arange(500.0), typed_index, core, as_row=rng.random(500) < 0.4)
    bounds = window.bounds()
    minor = MinorAlleles.build(window.haplotypes, bounds)
    same(minor, MinorAlleles.build(window.haplotypes, bounds, threads=3))
    found = np.zeros_like(alleles)
    num_words = -(-num_typed // 32)
    assert minor.edges[0] == core[0]
    assert minor.edges[-1] == core[1]
    for w in range(num_words):
        for h in range(num_haplotypes):
            k = w * num_haplotypes + h
            for u in minor.sites[minor.offsets[k] : minor.offsets[k + 1]]:
                assert minor.edges[w] <= u < minor.edges[w + 1]
                found[u, h] += 1
        # Core sites after the first typed site of a word, and before that of the next, are its.
        after = 0 if w == 0 else typed_index[32 * w]
        before = 500 if w == num_words - 1 else typed_index[32 * (w + 1)]
        assert minor.edges[w] == np.clip(after, *core)
        assert minor.edges[w + 1] == np.clip(before, *core)
        places = slice(minor.common_edges[w], minor.common_edges[w + 1])
        inside = minor.common[places]
        assert ((inside >= minor.edges[w]) & (inside < minor.edges[w + 1])).all()
    for c, u in enumerate(minor.common):
        found[u] += ((minor.bits[c // 64] >> np.uint64(c % 64)) & np.uint64(1)).astype(np.int8)
    expected = np.where(window.haplotypes.alt_is_minor[:, None], alleles, 1 - alleles)
    expected[: core[0]] = 0
    expected[core[1] :] = 0
    np.testing.assert_array_equal(found, expected)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 63), st.integers(1, 150), st.integers(0, 140), st.integers(0, 60))
def test_patterns_of_rows_tell_what_rows_tell(first_row, num_haplotypes, start, size):
    """Where the panel's file has patterns of haplotypes, they are not transposed from rows."""
    rng = np.random.default_rng(num_haplotypes)
    alleles = mosaic_panel(rng, 200, num_haplotypes)
    whole = window_of(
        alleles, np.arange(200.0), np.arange(1, 200, 3), (start, start + size),
        as_row=rng.random(200) < 0.7,
    )  # fmt: skip
    blocks = blocks_of(whole.haplotypes.bits, num_haplotypes, first_row)
    known = replace(whole.haplotypes, blocks=blocks)
    found = MinorAlleles.build(known, whole.bounds())
    same(found, MinorAlleles.build(known, whole.bounds(), threads=2))
    expected = MinorAlleles.build(whole.haplotypes, whole.bounds())
    for name in ("edges", "offsets", "sites", "longest", "most_sites"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    before = len(found.common) - len(expected.common)
    assert (found.common[:before] == -1).all()
    np.testing.assert_array_equal(found.common[before:], expected.common)
    np.testing.assert_array_equal(found.common_edges - before, expected.common_edges)
    for c in range(len(expected.common)):
        for minor, at in ((found, before + c), (expected, c)):
            bit = (minor.bits[at // 64] >> np.uint64(at % 64)) & np.uint64(1)
            site = expected.common[c]
            is_minor = alleles[site] == whole.haplotypes.alt_is_minor[site]
            np.testing.assert_array_equal(bit.astype(bool), is_minor)


@pytest.mark.parametrize(
    ("num_typed", "num_haplotypes"), [(0, 5), (1, 64), (32, 3), (77, 150), (130, 600)]
)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_typed_sites_are_packed_as_their_alleles(num_typed, num_haplotypes, threads):
    rng = np.random.default_rng(num_typed)
    alleles = mosaic_panel(rng, 200, num_haplotypes)
    typed_index = np.sort(rng.permutation(200)[:num_typed])
    window = window_of(alleles, np.arange(200.0), typed_index, as_row=rng.random(200) < 0.5)
    expected, _ = pack_words(alleles[typed_index])
    found = pack_typed(window.haplotypes, typed_index, threads=threads)
    np.testing.assert_array_equal(found, expected.T)
    blocks = blocks_of(window.haplotypes.bits, num_haplotypes, first_row=num_typed % 64)
    known = replace(window.haplotypes, blocks=blocks)
    np.testing.assert_array_equal(pack_typed(known, typed_index, threads=threads), expected.T)


def test_a_window_of_some_haplotypes_is_that_of_their_panel():
    rng = np.random.default_rng(1)
    alleles = mosaic_panel(rng, 100, 70)
    typed_index, cm = np.arange(3, 100, 2), np.arange(100.0)
    window = window_of(alleles, cm, typed_index, (5, 90), as_row=rng.random(100) < 0.5)
    kept = rng.random(70) < 0.8
    window.signature  # noqa: B018  one that is known is not computed anew
    found = window.keeping(kept)
    expected = Window.build(keep_haplotypes(window.haplotypes, kept), cm, typed_index, (5, 90))
    np.testing.assert_array_equal(found.haplotypes.alleles(), alleles[:, kept])
    np.testing.assert_array_equal(found.typed.words, expected.typed.words)
    np.testing.assert_array_equal(found.signature, expected.signature)
    assert found.core == expected.core


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12), most=st.integers(1, 30))
def test_parts_are_as_large_as_may_be(sizes, most):
    edges = np.concatenate([[3], 3 + np.cumsum(sizes)])
    none = np.zeros(0, np.int32)
    minor = MinorAlleles(edges, none, none, none, none, none, 0, 0)
    parts = minor.parts(most)
    assert parts[0][1] == len(sizes)
    assert parts[-1][0] == 0
    for (low, high), after in zip(parts, [*parts[1:], (0, 0)], strict=True):
        assert low < high
        assert low == after[1]
        assert edges[high] - edges[low] <= most or high == low + 1
        if low > 0:
            assert edges[high] - edges[low - 1] > most
