"""Which states a run's targets are given, in blocks and all at once."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import mosaic_panel

from ragimpute.copying.states import block_states, states_for
from ragimpute.copying.window import pack_words
from ragimpute.retrieval.retriever import Retriever


@pytest.fixture(scope="module")
def targets():
    """Alleles (T, n) of 13 targets."""
    return mosaic_panel(np.random.default_rng(4), 200, 13, num_founders=5)


def test_blocks_have_the_states_of_all_at_once(targets):
    panel = mosaic_panel(np.random.default_rng(5), 200, 300, num_founders=5)
    words = np.ascontiguousarray(pack_words(panel)[0].T)
    found = Retriever(words, num_slots=90, num_background=20)
    together = states_for(found, 300, targets)
    blocks = block_states(found, 300, targets)
    assert (blocks.num_states, blocks.by_word) == (90, True)
    for block in (range(13), range(1), range(4, 9), range(12, 13)):
        here = blocks.find(block, None)
        for i, states in zip(block, here, strict=True):
            np.testing.assert_array_equal(states, together(i))


def test_all_of_a_small_panel(targets):
    blocks = block_states(None, 30, targets)
    assert (blocks.num_states, blocks.by_word) == (30, False)
    np.testing.assert_array_equal(blocks.find(range(3, 8), None), np.arange(30)[None])
