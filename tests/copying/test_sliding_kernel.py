"""Copying by slots: many slots, sites that are lists or masks, and no state too many."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import whole_chain

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.sliding_kernel import padded_slots, sliding_masses
from tests.copying.test_copy import case, sliding_states, window_of

PARAMETERS = CopyingParameters(5, 2e-3)


@pytest.mark.parametrize("k", [3, 64, 65, 130])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_few_of_many_haplotypes(k, share):
    alleles, cm, typed_index, target = case(k, 300, 200, 90)
    rng = np.random.default_rng(k)
    states = [rng.permutation(200)[:k].astype(np.int32)[None] for _ in range(3)]
    window = window_of(alleles, cm, typed_index, as_row=rng.random(300) < share)
    found = copy_haplotypes(window, target, PARAMETERS, states=lambda i: states[i])
    for i in range(3):
        expected = whole_chain(
            alleles, cm, typed_index, target[:, i], PARAMETERS.switch_rate,
            PARAMETERS.mismatch_prob, states[i][0],
        )  # fmt: skip
        np.testing.assert_allclose(found[i], expected, atol=2e-5)


def test_lists_and_masks_give_the_same():
    alleles, cm, typed_index, target = case(5, 260, 140, 130)
    rng = np.random.default_rng(5)
    states = [sliding_states(rng, 5, 140, 70) for _ in range(3)]
    lists, masks = (
        copy_haplotypes(window_of(alleles, cm, typed_index, as_row=np.full(260, as_row)), target,
                        PARAMETERS, states=lambda i: states[i])
        for as_row in (False, True)
    )  # fmt: skip
    np.testing.assert_allclose(lists, masks, atol=1e-6)


def test_buffers_have_whole_squares():
    assert [padded_slots(k) for k in (1, 64, 65, 448)] == [64, 64, 128, 448]
    masses = sliding_masses(4, 65, 3)
    for array in (masses.starts, masses.rows, masses.backward):
        assert array.shape[-1] == 128
        assert array.ctypes.data % 64 == 0
