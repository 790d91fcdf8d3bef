"""Copying by lanes: hidden states, long windows in segments, and company in other lanes."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import whole_chain

from ragimpute.copying import shared_kernel
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_kernel import STEP, segment_steps, shared_masses
from ragimpute.copying.states import all_states
from tests.copying.test_copy import case, run, window_of

PARAMETERS = CopyingParameters(5, 2e-3)


def test_hidden_states_are_as_if_they_were_not_there():
    alleles, cm, typed_index, _ = case(3, 120, 34, 45)
    target = np.ascontiguousarray(alleles[typed_index][:, :20])
    own = [[i, i ^ 1] if i % 3 else [] for i in range(20)]
    states = [all_states(34, np.array(x, np.int32)) for x in own]
    rows = np.random.default_rng(0).random(120) < 0.5
    window = window_of(alleles, cm, typed_index, as_row=rows)
    found = copy_haplotypes(window, target, PARAMETERS, states=lambda i: states[i])
    for i in range(20):
        expected = whole_chain(
            alleles, cm, typed_index, target[:, i], PARAMETERS.switch_rate,
            PARAMETERS.mismatch_prob, states[i][0],
        )  # fmt: skip
        np.testing.assert_allclose(found[i], expected, atol=2e-5)
    # The union of the states is the same in any company.
    order = np.random.default_rng(1).permutation(20)
    again = copy_haplotypes(window, np.ascontiguousarray(target[:, order]), PARAMETERS,
                            states=lambda i: states[order[i]], threads=3)  # fmt: skip
    np.testing.assert_array_equal(again, found[order])


@pytest.mark.parametrize("num_typed", [1, STEP, STEP + 1, 150, 200])
def test_segments_change_nothing(monkeypatch, num_typed):
    alleles, cm, typed_index, target = case(num_typed, 260, 50, num_typed, num_targets=18)
    window = window_of(alleles, cm, typed_index)
    whole = run(window, target, PARAMETERS)
    monkeypatch.setattr(shared_kernel, "_ROW_BYTES", 1)
    assert (len(shared_masses(num_typed, 50).starts) > 2) == (num_typed > 2 * STEP)
    np.testing.assert_array_equal(run(window, target, PARAMETERS), whole)


def test_memory_of_a_long_window_is_bounded():
    # 40 cM at 800 typed sites per Mb, and all haplotypes of the largest panel that is copied whole.
    assert segment_steps(2250, 600) == -(-2250 // STEP)
    masses = shared_masses(32_000, 5_000)
    assert sum(x.nbytes for x in masses) < 64 * 2**20


def test_a_target_is_the_same_in_any_company():
    alleles, cm, typed_index, target = case(4, 150, 60, 70, num_targets=37)
    window = window_of(alleles, cm, typed_index)
    whole = run(window, target, PARAMETERS)
    for i in (0, 15, 16, 36):
        alone = run(window, np.ascontiguousarray(target[:, i : i + 1]), PARAMETERS)
        np.testing.assert_array_equal(alone[0], whole[i])
