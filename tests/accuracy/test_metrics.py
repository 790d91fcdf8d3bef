"""Accuracy figures against the plain formulas and against torchmetrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.accuracy import metrics
from ragimpute.accuracy.metrics import MAF_BINS, CallAccumulator, R2Accumulator, aggregate_r2


def plain_r2(x, y):
    if len(x) == 0 or x.std() == 0 or y.std() == 0:
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def data(seed, num_sites=60, num_samples=30):
    rng = np.random.default_rng(seed)
    maf = rng.choice([0, 0.001, 0.002, 0.005, 0.004, 0.01, 0.03, 0.05, 0.1, 0.3, 0.5], num_sites)
    truth = rng.binomial(2, np.maximum(maf, 0.02)[:, None], (num_sites, num_samples))
    dosage = np.clip(truth + rng.normal(0, 0.4, truth.shape), 0, 2).astype(np.float32)
    return dosage, truth.astype(np.float32), maf


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_aggregate_r2_is_the_pooled_squared_correlation_of_each_bin(seed):
    dosage, truth, maf = data(seed)
    found = aggregate_r2(dosage, truth, maf)
    for i, (low, high) in enumerate(itertools.pairwise(MAF_BINS)):
        within = (maf > low) & (maf <= high)
        expected = plain_r2(dosage[within].ravel(), truth[within].ravel())
        np.testing.assert_allclose(found.r2[i], expected, rtol=1e-6)
        assert found.num_sites[i] == within.sum()
    np.testing.assert_allclose(found.all, plain_r2(dosage.ravel(), truth.ravel()), rtol=1e-6)
    assert found.num_sites_all == len(maf)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 59))
def test_parts_add_up_to_the_whole(seed, cut):
    dosage, truth, maf = data(seed)
    whole, first, second = R2Accumulator(), R2Accumulator(), R2Accumulator()
    whole.update(dosage, truth, maf)
    first.update(dosage[:cut], truth[:cut], maf[:cut])
    second.update(dosage[cut:], truth[cut:], maf[cut:])
    first.merge(second)
    np.testing.assert_allclose(first.result().r2, whole.result().r2)
    np.testing.assert_array_equal(first.result().num_sites, whole.result().num_sites)
    assert first.site_mean_r2() == pytest.approx(whole.site_mean_r2())
    pairs = R2Accumulator()
    pairs.update_pairs(dosage.ravel(), truth.ravel(), np.repeat(maf, dosage.shape[1]))
    np.testing.assert_allclose(pairs.result().r2, whole.result().r2)
    assert pairs.result().all == pytest.approx(whole.result().all)


def test_site_mean_counts_constant_dosages_as_zero_and_skips_constant_truth():
    dosage, truth, maf = data(3)
    dosage[:5] = 0.25
    truth[5:8] = 1
    accumulator = R2Accumulator()
    accumulator.update(dosage, truth, maf)
    site = [plain_r2(a, b) for a, b in zip(dosage, truth, strict=True) if b.std() > 0]
    expected = np.mean([0 if np.isnan(value) else value for value in site])
    assert accumulator.site_mean_r2() == pytest.approx(expected)
    np.testing.assert_allclose(np.nanmean(metrics.site_r2(dosage, truth)), expected)


def test_bins_are_open_below_closed_above_and_rounded():
    maf = np.array([0, 0.002, 0.0020001, 3 / 600, 1 - 597 / 600, 0.5])
    np.testing.assert_array_equal(metrics.maf_bin(maf), [-1, 0, 1, 1, 1, 7])


def test_empty_and_constant_bins_are_undefined():
    found = aggregate_r2(np.full((2, 4), 0.1), np.array([[0, 0, 1, 1]] * 2), np.full(2, 0.3))
    assert np.isnan(found.r2).all()
    assert np.isnan(found.all)
    assert found.as_dict()["all"] is None
    assert found.as_dict()["<=0.5"] is None


def test_missing_pairs_do_not_count():
    dosage, truth, maf = data(5)
    hidden = np.random.default_rng(1).random(truth.shape) < 0.3
    with_nan = np.where(hidden, np.nan, truth)
    found = aggregate_r2(dosage, with_nan, maf)
    assert found.all == pytest.approx(plain_r2(dosage[~hidden], truth[~hidden]), rel=1e-6)
    assert found.num_pairs_all == (~hidden).sum()


def test_minor_allele_is_counted_for_every_ploidy():
    dosage = np.array([[0.5, 1.0], [2.0, 0.0]])
    found = metrics.count_minor(dosage, np.array([True, False]), np.array([2, 1]))
    np.testing.assert_array_equal(found, [[0.5, 1.0], [0.0, 1.0]])


def test_carrier_concordance():
    dosage = np.array([0.1, 0.9, 1.6, 0.2, np.nan])
    truth = np.array([0, 1, 1, 1, 2.0])
    assert metrics.carrier_concordance(dosage, truth) == pytest.approx(1 / 3)
    assert np.isnan(metrics.carrier_concordance(np.zeros(3), np.zeros(3)))


def test_call_scores_equal_torchmetrics():
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import (
        binary_f1_score,
        binary_precision,
        binary_recall,
    )

    rng = np.random.default_rng(2)
    maf = rng.uniform(0, 0.5, 400)
    true, called = rng.random((2, 400)) < 0.4
    accumulator = CallAccumulator()
    accumulator.update(called.astype(int), true.astype(int), maf)
    found = accumulator.result()
    group = metrics.maf_bin(maf)
    for i in range(len(MAF_BINS)):
        within = group == i if i < len(MAF_BINS) - 1 else np.ones(400, bool)
        if not (called[within].any() and true[within].any()):
            continue
        pair = torch.as_tensor(called[within]).int(), torch.as_tensor(true[within]).int()
        assert found.f1[i] == pytest.approx(float(binary_f1_score(*pair)))
        assert found.precision[i] == pytest.approx(float(binary_precision(*pair)))
        assert found.recall[i] == pytest.approx(float(binary_recall(*pair)))


def test_genotype_called_with_the_wrong_count_is_wrong_twice():
    accumulator = CallAccumulator()
    accumulator.update(np.array([2, 1, 0, -1]), np.array([1, 1, 1, 1]), np.full(4, 0.1))
    found = accumulator.result()
    assert found.precision[-1] == pytest.approx(1 / 2)
    assert found.recall[-1] == pytest.approx(1 / 3)
    assert found.num_true[-1] == 3


def test_metrics_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, ragimpute.accuracy.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("num_haplotypes", [40, 500, 600, 5_008, 200_000])
def test_single_precision_falls_in_the_same_bin(num_haplotypes):
    count = np.unique(np.linspace(0, num_haplotypes // 2, 2_000).astype(int))
    edges = np.rint(np.array(MAF_BINS) * num_haplotypes).astype(int)
    maf = np.concatenate([count, edges]) / num_haplotypes
    expected = metrics.maf_bin(maf)
    np.testing.assert_array_equal(metrics.maf_bin(maf.astype(np.float32)), expected)
    from_major = 1 - (1 - maf).astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(metrics.maf_bin(from_major), expected)
