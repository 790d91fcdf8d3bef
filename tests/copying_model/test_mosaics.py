"""Targets that are mosaics of the panel: found by their own alleles, each sample by itself."""

from __future__ import annotations

import numpy as np
import pytest
from slow_copying import mosaic_panel, window_of

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states
from ragimpute.copying_model import mosaics as module
from ragimpute.copying_model.mosaics import MOST_HAPLOTYPES, find_mosaics
from ragimpute.copying_model.twins import Imputed

NUM_SITES = 600
#: What left-out founders say: haplotypes change at every site.
OF_FOUNDERS = CopyingParameters(60.0, 0.02)


def founders(num=16, seed=3):
    """A window of founders that have nothing to do with each other; their alleles."""
    rng = np.random.default_rng(seed)
    alleles = (rng.random((NUM_SITES, num)) < rng.uniform(0.1, 0.9, (NUM_SITES, 1))).astype(np.int8)
    window = window_of(alleles, np.linspace(0, 30, NUM_SITES), np.arange(0, NUM_SITES, 4))
    return window, alleles


def crosses(alleles, num, switches, seed=4):
    """Mosaics of the founders, with some wrong alleles: (M, n)."""
    rng = np.random.default_rng(seed)
    out = np.empty((len(alleles), num), np.int8)
    for i in range(num):
        jump = rng.random(len(alleles)) < switches
        at = np.maximum.accumulate(np.where(jump, np.arange(len(alleles)), 0))
        source = rng.integers(0, alleles.shape[1], len(alleles))[at]
        out[:, i] = alleles[np.arange(len(alleles)), source]
    return out ^ (rng.random(out.shape) < 0.002)


def found(window, targets, parameters=OF_FOUNDERS, sample=None):
    """The mosaics among targets (M, n)."""
    num_panel = window.typed.num_haplotypes
    mine = np.arange(targets.shape[1]) // 2 if sample is None else sample
    imputed = Imputed.of(np.ascontiguousarray(targets[window.typed_index]), mine)
    return find_mosaics(window, np.arange(num_panel) // 2, imputed, parameters)


def test_crosses_of_founders_are_found_and_imputed_well():
    window, alleles = founders()
    targets = crosses(alleles, 8, 0.01)
    mosaics = found(window, targets)
    assert (mosaics.number >= 0).all()
    np.testing.assert_array_equal(mosaics.number[::2], mosaics.number[1::2])
    everyone = all_states(16)
    untyped = np.setdiff1d(np.arange(NUM_SITES), window.typed_index)

    def error(parameters, i):
        observed = np.ascontiguousarray(targets[window.typed_index, i : i + 1])
        prob = copy_haplotypes(window, observed, parameters, states=lambda _: everyone)[0]
        return float(((prob - targets[:, i])[untyped] ** 2).mean())

    for i in range(8):
        of_target = mosaics.parameters[mosaics.number[i]]
        assert 0.004 <= of_target.switch_rate < OF_FOUNDERS.switch_rate / 8
        assert error(of_target, i) < 0.25 * error(OF_FOUNDERS, i)


def test_what_becomes_of_a_sample_depends_on_no_other():
    window, alleles = founders()
    strangers, _ = founders(8, seed=9)
    targets = np.concatenate(
        [crosses(alleles, 4, 0.01), strangers.haplotypes.alleles()[:, :4]], axis=1
    )
    together = found(window, targets)
    assert (together.number[:4] >= 0).all()
    assert (together.number[4:] == -1).all()
    for i in range(0, 8, 2):
        alone = found(window, targets[:, i : i + 2])
        assert (alone.number[0] < 0) == (together.number[i] < 0)
        if alone.number[0] >= 0:
            expected = together.parameters[together.number[i]]
            assert alone.parameters[alone.number[0]] == expected


@pytest.mark.parametrize("seed", range(3))
def test_targets_like_the_panel_are_none(seed):
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, NUM_SITES, 60, num_founders=8, switches=0.02)
    panel, targets = alleles[:, :48], alleles[:, 48:]
    window = window_of(panel, np.linspace(0, 30, NUM_SITES), np.arange(0, NUM_SITES, 4))
    mosaics = found(window, targets, CopyingParameters(0.5, 0.01))
    assert (mosaics.number == -1).all()
    usual = np.array([0.01, 0.02], np.float32)
    assert mosaics.with_own(usual) is usual
    imputed = Imputed.of(targets, np.arange(12) // 2)
    assert list(mosaics.groups(imputed, lambda *_: None)) == []
    assert mosaics.others(imputed, OF_FOUNDERS, lambda *_: None).imputed is imputed


def test_haploid_inbred_and_missing_targets():
    window, alleles = founders()
    one = crosses(alleles, 1, 0.01)
    haploid = found(window, one, sample=np.zeros(1, np.int64))
    inbred = found(window, np.repeat(one, 2, axis=1))
    assert haploid.parameters == inbred.parameters
    assert haploid.number.tolist() == inbred.number.tolist() == [0]
    holes = one.copy()
    holes[::40] = -1
    assert found(window, holes, sample=np.zeros(1, np.int64)).number.tolist() == [0]
    nothing = np.full_like(one, -1)
    assert found(window, nothing, sample=np.zeros(1, np.int64)).number.tolist() == [-1]


def test_groups_hand_on_to_the_places_of_their_targets():
    window, alleles = founders()
    strangers, _ = founders(8, seed=9)
    targets = np.concatenate(
        [strangers.haplotypes.alleles()[:, :2], crosses(alleles, 2, 0.01)], axis=1
    )
    mosaics = found(window, targets)
    imputed = Imputed.of(np.ascontiguousarray(targets[window.typed_index]), np.arange(4) // 2)
    got = []
    (group,) = mosaics.groups(imputed, lambda first, site, prob: got.append((first, prob.tolist())))
    np.testing.assert_array_equal(group.imputed.alleles, imputed.alleles[:, 2:])
    group.put(0, 0, np.array([[0.25], [0.75]], np.float32))
    assert got == [(2, [[0.25], [0.75]])]
    own = np.float32(group.parameters.mismatch_prob)
    usual = np.array([0.01, 0.02], np.float32)
    expected = np.column_stack([usual, usual, [own, own], [own, own]])
    np.testing.assert_array_equal(mosaics.with_own(usual), expected)
    each = np.arange(8, dtype=np.float32).reshape(2, 4) / 100
    np.testing.assert_array_equal(mosaics.with_own(each)[:, :2], each[:, :2])
    np.testing.assert_array_equal(mosaics.with_own(each)[:, 2:], own)
    others = mosaics.others(imputed, OF_FOUNDERS, group.put)
    np.testing.assert_array_equal(others.imputed.alleles, imputed.alleles[:, :2])
    assert others.parameters is OF_FOUNDERS


def test_large_panels_and_single_samples_have_none(monkeypatch):
    window, alleles = founders()
    targets = crosses(alleles, 2, 0.01)
    monkeypatch.setattr(module, "MOST_HAPLOTYPES", 15)
    assert (found(window, targets).number == -1).all()
    assert MOST_HAPLOTYPES == 400
    monkeypatch.undo()
    imputed = Imputed.of(np.ascontiguousarray(targets[window.typed_index]), np.zeros(2, np.int64))
    one = find_mosaics(window, np.zeros(16, np.int64), imputed, OF_FOUNDERS)
    assert (one.number == -1).all()
