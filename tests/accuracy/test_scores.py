"""evaluation: sums against metrics.py, and how figures are written."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace

import numpy as np
import pytest

from ragimpute.accuracy.calibration import calibrate_quality
from ragimpute.accuracy.metrics import MAF_BINS, aggregate_r2, carrier_concordance, maf_bin, site_r2
from ragimpute.accuracy.scores import BinScores, Evaluation, Sums, quality_curve


@pytest.fixture
def drawn():
    """Dosages and truth of 300 sites and 20 samples, in the minor allele, with MAF and DR2."""
    rng = np.random.default_rng(3)
    maf = rng.uniform(0, 0.5, 300) ** 2 * 2
    maf[:5] = 0
    truth = rng.binomial(2, maf[:, None], (300, 20)).astype(float)
    dosage = np.clip(truth + rng.normal(0, 0.4, truth.shape), 0, 2)
    truth[rng.random(truth.shape) < 0.02] = np.nan
    return dosage, truth, maf, rng.random(300)


def add_blocks(dosage, truth, maf, size):
    """Sums over blocks of ``size`` sites, and the sites' r2."""
    sums = Sums()
    ploidy = np.full(dosage.shape[1], 2)
    starts = range(0, len(dosage), size)
    blocks = [slice(start, start + size) for start in starts]
    site = np.concatenate([sums.add(dosage[b], truth[b], maf[b], ploidy) for b in blocks])
    return sums, site


def test_bins_equal_the_metrics(drawn):
    dosage, truth, maf, dr2 = drawn
    sums, site = add_blocks(dosage, truth, maf, 37)
    bins, overall = sums.bin_scores(site, dr2, maf)
    pooled = aggregate_r2(dosage, truth, maf)
    checked = calibrate_quality(dr2, site_r2(dosage, truth), maf)
    group = maf_bin(maf)
    assert [row.label for row in bins] == pooled.labels()
    for i, row in enumerate(bins):
        here = group == i
        assert row.num_sites == here.sum()
        assert row.r2 == pytest.approx(pooled.r2[i], nan_ok=True)
        expected = carrier_concordance(dosage[here], truth[here])
        assert row.concordance == pytest.approx(expected, nan_ok=True)
        assert row.mean_dr2 == pytest.approx(checked.mean_estimated[i], nan_ok=True)
        assert row.num_varying == np.isfinite(site_r2(dosage[here], truth[here])).sum()
    assert overall.num_sites == 300  # those of MAF 0 too, which are in no bin
    assert sum(row.num_sites for row in bins) == 295
    assert overall.r2 == pytest.approx(pooled.all)
    assert overall.concordance == pytest.approx(carrier_concordance(dosage, truth))


def test_block_size_does_not_matter(drawn):
    dosage, truth, maf, dr2 = drawn
    one, site_one = add_blocks(dosage, truth, maf, 300)
    many, site_many = add_blocks(dosage, truth, maf, 1)
    np.testing.assert_allclose(site_one, site_many)
    np.testing.assert_allclose(one.calibration.result(), many.calibration.result())
    scores = [
        sums.bin_scores(site, dr2, maf) for sums, site in ((one, site_one), (many, site_many))
    ]
    for first, second in zip(scores[0][0], scores[1][0], strict=True):
        assert asdict(first) == pytest.approx(asdict(second), nan_ok=True)
    assert asdict(scores[0][1]) == pytest.approx(asdict(scores[1][1]))


def test_calibration_counts_haploids_by_their_ploidy():
    sums = Sums()
    dosage, truth = np.array([[0.9, 1.8]]), np.array([[1.0, 2.0]])
    sums.add(dosage, truth, np.array([0.3]), np.array([1, 2]))
    curve = sums.calibration.result()
    assert curve[18].tolist() == pytest.approx([0.9, 1.0, 2])
    assert sums.calibration.expected_error() == pytest.approx(0.1)


def test_quality_curve_leaves_out_what_is_unknown():
    dr2 = np.array([0.05, 0.95, 0.91, np.nan, 0.5])
    site = np.array([0.1, 0.9, 0.7, 0.4, np.nan])
    curve = quality_curve(dr2, site)
    assert curve[:, 2].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert curve[9, :2].tolist() == pytest.approx([0.93, 0.8])
    assert np.isnan(curve[5, 0])


def test_table_and_json_of_what_is_undefined():
    nan = float("nan")
    row = BinScores("<=0.002", 0.0, 0.002, 0, 0, nan, nan, nan, nan, nan, nan)
    rows = [
        replace(row, label=f"<={high:g}", maf_low=low, maf_high=high)
        for low, high in itertools.pairwise(MAF_BINS)
    ]
    overall = replace(row, label="all", maf_high=0.5, num_sites=1234, num_varying=56, r2=0.123456)
    result = Evaluation(
        "t", "i", "p", "20", 1, 2, rows, overall, np.full((2, 3), nan), np.full(2, nan), nan,
        np.zeros((1, 3)),
    )  # fmt: skip
    table = result.table()
    # r2 is of all sites; the mean r2 and DR2 of sites are of the varying ones, whose number is said
    assert table[0] == ["MAF", "sites", "r2", "varying", "their r2", "their DR2", "concordance"]
    assert table[1] == ["0 - 0.002", "0", "-", "0", "-", "-", "-"]
    assert table[-1] == ["all", "1,234", "0.12346", "56", "-", "-", "-"]
    plain = result.as_dict()
    assert plain["calibration"] == [[None] * 3] * 2
    assert plain["bins"][0]["r2"] is None
    assert plain["overall"]["r2"] == 0.123456
