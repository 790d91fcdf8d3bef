"""Copying part by part: the same as all at once, whatever the parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.parts import copy_in_parts, word_parts
from tests.copying.test_copy import case, sliding_states, window_of

PARAMETERS = CopyingParameters(5, 2e-3)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12), most=st.integers(1, 30))
def test_parts_are_as_large_as_may_be(sizes, most):
    edges = np.concatenate([[3], 3 + np.cumsum(sizes)])
    parts = word_parts(edges, most)
    assert parts[0][1] == len(sizes)
    assert parts[-1][0] == 0
    for (low, high), after in zip(parts, [*parts[1:], (0, 0)], strict=True):
        assert low < high
        assert low == after[1]
        assert edges[high] - edges[low] <= most or high == low + 1
        if low > 0:
            assert edges[high] - edges[low - 1] > most


@pytest.mark.parametrize("max_sites", [1, 50, 10_000])
@pytest.mark.parametrize("core", [None, (31, 250)])
def test_parts_are_those_of_all_sites(max_sites, core):
    alleles, cm, typed_index, target = case(5, 260, 140, 130)
    rng = np.random.default_rng(5)
    n = target.shape[1]
    states = np.stack([sliding_states(rng, 5, 140, 70) for _ in range(n)])
    window = window_of(alleles, cm, typed_index, as_row=rng.random(260) < 0.5)
    if core is not None:
        window = window.with_core(core)
    whole = copy_haplotypes(window, target, PARAMETERS, states=lambda i: states[i])
    found = np.full_like(whole, np.nan)
    for site, prob in copy_in_parts(window, target, PARAMETERS, states, max_sites=max_sites):
        found[:, site : site + prob.shape[1]] = prob
    np.testing.assert_array_equal(found, whole)
