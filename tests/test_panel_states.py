"""Which states a run's targets are given, in batches and all at once."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import mosaic_panel

from ragimpute.copying import pack_words
from ragimpute.panel_states import states_by_batch, states_for
from ragimpute.retrieval import Retriever


@pytest.fixture(scope="module")
def targets():
    """Alleles (T, n) of 13 targets."""
    return mosaic_panel(np.random.default_rng(4), 200, 13, num_founders=5)


@pytest.mark.parametrize("hits_bytes", [1, 30_000, 2**20])
@pytest.mark.parametrize("step", [1, 4, 13, 50])
def test_batches_have_the_states_of_all_at_once(targets, monkeypatch, hits_bytes, step):
    monkeypatch.setattr("ragimpute.panel_states._HITS_BYTES", hits_bytes)
    panel = mosaic_panel(np.random.default_rng(5), 200, 300, num_founders=5)
    words = np.ascontiguousarray(pack_words(panel)[0].T)
    found = Retriever(words, num_slots=90, num_background=20)
    together = states_for(found, 300, targets)
    seen = []
    for first, states in states_by_batch(found, 300, targets, step):
        for i in range(min(step, targets.shape[1] - first)):
            np.testing.assert_array_equal(states(i), together(first + i))
            seen.append(first + i)
    assert seen == list(range(13))


def test_all_of_a_small_panel(targets):
    for first, states in states_by_batch(None, 30, targets, 5):
        assert first in (0, 5, 10)
        np.testing.assert_array_equal(states(2), np.arange(30)[None])
