"""The nearest haplotypes of windows: those that comparing every word of every row finds."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel

from ragimpute.copying.window import pack_words
from ragimpute.retrieval.nearest import AT_ONCE, NearestRows

SCALES = ((64, 5), (128, 8), (256, 11), (512, 20))


def ranges_of(num_words):
    """Half-overlapping windows of each scale, as long as one is shorter than twice the panel."""
    for num_typed, num_hits in SCALES:
        length = num_typed // 32
        if length >= 2 * num_words and length > 2:
            return
        step = max(1, length // 2)
        for low in range(0, max(1, num_words - length + step), step):
            yield low, min(low + length, num_words), num_hits


def search(rows, targets):
    """Hits of any number of targets, shape (n, num_hits)."""
    hits = np.zeros((len(targets), rows.num_hits), np.int32)
    for first in range(0, len(targets), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        rows.search(targets[some], hits[some])
    return hits


def check(words, targets, found):
    """No haplotype of a row that was not found is nearer than one of a row that was."""
    first = 0
    for low, high, num_hits in ranges_of(len(words)):
        mismatches = np.bitwise_count(targets[:, low:high, None] ^ words[None, low:high]).sum(
            axis=1
        )
        for i in range(len(targets)):
            hits = found[i, first : first + num_hits]
            num = min(num_hits, words.shape[1])
            assert (hits[num:] == -1).all()
            assert len(set(hits[:num].tolist())) == num
            expected = np.sort(mismatches[i])[:num]
            np.testing.assert_array_equal(mismatches[i, hits[:num]], expected)
        first += num_hits
    assert first == found.shape[1]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_haplotypes=st.integers(2, 300),
    num_typed=st.integers(1, 1100),
    num_targets=st.integers(1, AT_ONCE + 3),
    founders=st.integers(1, 12),
)
def test_hits_are_the_nearest(seed, num_haplotypes, num_typed, num_targets, founders):
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_typed, num_haplotypes + num_targets, num_founders=founders)
    words = np.ascontiguousarray(pack_words(alleles)[0].T)
    panel = np.ascontiguousarray(words[:, :num_haplotypes])
    targets = np.ascontiguousarray(words[:, num_haplotypes:].T)
    check(panel, targets, search(NearestRows(panel, SCALES), targets))


@pytest.mark.parametrize("num_typed", [40, 500, 1500])
def test_rows_without_likeness_are_counted_right(num_typed):
    # As far from each other as can be: numbers of mismatches up to those of whole windows.
    rng = np.random.default_rng(num_typed)
    alleles = np.repeat(rng.integers(0, 2, (1, 60)), num_typed, axis=0).astype(np.int8)
    words = np.ascontiguousarray(pack_words(alleles)[0].T)
    targets = np.ascontiguousarray((~words[:, :3]).T)
    check(words, targets, search(NearestRows(words, SCALES), targets))


def test_threads_and_company_change_nothing():
    rng = np.random.default_rng(5)
    words = np.ascontiguousarray(pack_words(mosaic_panel(rng, 700, 400, num_founders=9))[0].T)
    targets = np.ascontiguousarray(words[:, 100:180].T) ^ np.uint32(64)
    together = search(NearestRows(words, SCALES, threads=3), targets)
    alone = NearestRows(words, SCALES)
    np.testing.assert_array_equal(search(alone, targets[::-1])[::-1], together)
    np.testing.assert_array_equal(search(alone, targets[41:42])[0], together[41])


def test_distances_are_those_of_faiss():
    rng = np.random.default_rng(6)
    words = np.ascontiguousarray(pack_words(mosaic_panel(rng, 512, 500, num_founders=9))[0].T)
    panel = np.ascontiguousarray(words[:, :460])
    targets = np.ascontiguousarray(words[:, 460:].T)
    found = search(NearestRows(panel, SCALES), targets)
    first = 0
    for low, high, num_hits in ranges_of(len(words)):
        index = faiss.IndexBinaryFlat(32 * (high - low))
        index.add(np.ascontiguousarray(panel[low:high].T).view(np.uint8))
        here = np.ascontiguousarray(targets[:, low:high])
        distance, _ = index.search(here.view(np.uint8), num_hits)
        hits = panel[low:high, found[:, first : first + num_hits]].transpose(1, 2, 0)
        mine = np.bitwise_count(hits ^ here[:, None]).sum(axis=2)
        np.testing.assert_array_equal(mine, distance)
        first += num_hits
