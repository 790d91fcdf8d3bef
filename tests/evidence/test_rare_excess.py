"""By how much rare alleles of left-out samples are imputed better than usual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.accuracy.dr2 import DosageSums
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.states import all_states
from ragimpute.evidence.rare_excess import USUAL, LeftOutR2
from ragimpute.evidence.site_quality import measure_sites
from tests.copying.test_copy import window_of
from tests.evidence.test_site_quality import PARAMETERS, mosaics


def left_out(num_sites: int, seed: int = 1) -> LeftOutR2:
    """Sites whose true r2 is the usual one."""
    rng = np.random.default_rng(seed)
    made = LeftOutR2(
        rng.uniform(0.01, 0.99, num_sites), np.exp(rng.uniform(-2, 4, num_sites)), 200,
        rng.integers(1, 300, num_sites), 1_000, np.zeros(num_sites),
    )  # fmt: skip
    usual = made.terms() @ np.array(USUAL)
    return replace(made, true=1 / (1 + np.exp(-usual)))


def test_usual_r2_is_no_excess():
    assert left_out(500).rare_excess == pytest.approx(0, abs=1e-9)
    assert left_out(0).rare_excess == 0
    assert left_out(5).terms().shape == (5, len(USUAL))


@given(st.floats(-2, 2).filter(lambda x: abs(x) > 1e-6), st.integers(1, 20))
def test_it_has_the_sign_of_the_difference_and_grows_with_it(shift, seed):
    usual = left_out(400, seed)
    few = 1 / (1 + usual.minor)

    def moved(by: float) -> float:
        logit = usual.terms() @ np.array(USUAL) + by * few
        return replace(usual, true=1 / (1 + np.exp(-logit))).rare_excess

    assert moved(shift) * shift >= 0
    assert moved(shift + 0.1) > moved(shift)
    assert 0 < moved(0.1) < 0.1  # the prior holds some of it back


def test_common_sites_say_nothing():
    usual = left_out(400)
    common = replace(usual, minor=np.full(400, 1e6))
    assert abs(replace(common, true=np.ones(400)).rare_excess) < 1e-3


def test_left_out_samples_of_a_panel_are_measured():
    alleles, cm, typed_index, sample = mosaics(3, num_sites=400, num_haplotypes=60, every=4)
    window = window_of(alleles, cm, typed_index)
    quality = measure_sites(window, sample, PARAMETERS, num_samples=30)
    found = quality.left_out_r2
    assert quality.rare_excess == found.rare_excess
    assert found.num == 60

    p = np.empty(alleles.shape)
    for h in range(60):
        states = all_states(60, np.flatnonzero(sample == sample[h]))
        observed = np.ascontiguousarray(alleles[typed_index][:, [h]])
        p[:, h] = copy_haplotypes(window, observed, PARAMETERS, states=lambda i, s=states: s)[0]
    minor = window.haplotypes.alt_is_minor[:, None]
    p, y = np.where(minor, p, 1 - p), (alleles == minor).astype(float)
    untyped = np.setdiff1d(np.arange(400), typed_index)
    seen = [u for u in untyped if y[u].sum() > 1 and np.ptp(y[u, ::2] + y[u, 1::2]) > 0]
    assert len(found.true) == len(seen) > 100
    sums = DosageSums.of(p[seen])
    np.testing.assert_allclose(found.estimate, sums.estimated_r2, atol=1e-4)
    np.testing.assert_allclose(found.minor, sums.maf * sums.num, rtol=1e-4)
    np.testing.assert_array_equal(found.copies, y[seen].sum(axis=1) - 1)
    true = [
        np.corrcoef(x[::2] + x[1::2], t[::2] + t[1::2])[0, 1] ** 2
        for x, t in zip(p[seen], y[seen], strict=True)
    ]
    np.testing.assert_allclose(found.true, true, atol=2e-3)
