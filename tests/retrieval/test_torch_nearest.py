"""The nearest haplotypes that torch finds: those of the kernels, in the same order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel

from ragimpute.copying.window import pack_words
from ragimpute.retrieval import torch_nearest
from ragimpute.retrieval.nearest import NearestRows
from ragimpute.retrieval.retriever import Retriever
from ragimpute.retrieval.torch_nearest import TorchNearest, count_bits
from tests.retrieval.test_nearest import SCALES, search
from tests.torch_devices import DEVICES, device_of


def packed(alleles):
    """Words (W, H) of alleles (T, H)."""
    return np.ascontiguousarray(pack_words(alleles)[0].T)


@pytest.mark.parametrize("name", DEVICES)
def test_bits_are_counted(name):
    device = device_of(name)
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.integers(0, 2**32, 5000), [0, 1, 2**31, 2**32 - 1, 2**32 - 2**16]])
    x = x.astype(np.uint32)
    found = count_bits(torch.from_numpy(x.view(np.int32)).to(device)).cpu().numpy()
    np.testing.assert_array_equal(found, np.bitwise_count(x))


@pytest.mark.parametrize("name", DEVICES)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_haplotypes=st.integers(1, 300),
    num_typed=st.integers(1, 1100),
    num_targets=st.integers(1, 40),
    founders=st.integers(1, 12),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_hits_are_those_of_the_kernels(
    name, seed, num_haplotypes, num_typed, num_targets, founders, missing
):
    device = device_of(name)
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_typed, num_haplotypes + num_targets, num_founders=founders)
    targets = alleles[:, num_haplotypes:]
    targets[rng.random(targets.shape) < missing] = -1
    words = packed(alleles[:, :num_haplotypes])
    rows = NearestRows(words, SCALES)
    queries = pack_words(targets)[0]
    hits = np.zeros((num_targets, rows.num_hits), np.int32)
    TorchNearest(rows, str(device)).search(queries, hits)
    np.testing.assert_array_equal(hits, search(rows, queries))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("num_typed", [40, 500])
def test_rows_without_likeness_tie_alike(name, num_typed):
    rng = np.random.default_rng(num_typed)
    alleles = np.repeat(rng.integers(0, 2, (1, 60)), num_typed, axis=0).astype(np.int8)
    words = packed(alleles)
    rows = NearestRows(words, SCALES)
    queries = np.ascontiguousarray((~words[:, :3]).T)
    hits = np.zeros((3, rows.num_hits), np.int32)
    TorchNearest(rows, str(device_of(name))).search(queries, hits)
    np.testing.assert_array_equal(hits, search(rows, queries))


def test_large_numbers_are_compared_in_full(monkeypatch):
    counts = torch.tensor([[3, 1, 1, 0, 1]], dtype=torch.int16)
    for small in (2**31 - 1, 0):
        monkeypatch.setattr(torch_nearest, "_SMALL", small)
        found = torch_nearest._nearest_rows(counts, 4, 64)
        assert found.tolist() == [[3, 1, 2, 4]]


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("hits_bytes", [1, 2**28])
def test_states_are_those_of_the_kernels(name, hits_bytes, monkeypatch):
    """However many targets are searched for at once, and whom they must not copy."""
    monkeypatch.setattr(torch_nearest, "_HITS_BYTES", hits_bytes)
    rng = np.random.default_rng(3)
    words = packed(mosaic_panel(rng, 700, 440, num_founders=9))
    retriever = Retriever(np.ascontiguousarray(words[:, :400]), num_slots=90, num_background=10)
    targets = np.ascontiguousarray(words[:, 400:].T)
    exclude = rng.integers(-1, 400, (40, 2)).astype(np.int32)
    on_device = TorchNearest(retriever.nearest, str(device_of(name)))
    assert on_device.at_once == (1 if hits_bytes == 1 else min(on_device.at_once, 1024))
    for none in (None, exclude):
        np.testing.assert_array_equal(
            retriever.states(targets, none, search=on_device), retriever.states(targets, none)
        )
