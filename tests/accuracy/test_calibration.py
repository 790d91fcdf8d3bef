"""Calibration of probabilities and of the estimated r2, on draws that are calibrated by design."""

from __future__ import annotations

import numpy as np
import pytest

from ragimpute.accuracy import metrics
from ragimpute.accuracy.calibration import CalibrationAccumulator, calibrate_quality
from ragimpute.accuracy.dr2 import DosageSums


def test_calibration_of_probabilities():
    rng = np.random.default_rng(4)
    p = rng.random(50_000)
    accumulator = CalibrationAccumulator(10)
    accumulator.update(p, rng.random(50_000) < p)
    table = accumulator.result()
    np.testing.assert_allclose(table[:, 0], table[:, 1], atol=0.03)
    assert accumulator.expected_error() < 0.02
    biased = CalibrationAccumulator(10)
    biased.update(p, rng.random(50_000) < p**3)
    assert biased.expected_error() > 0.1


def test_standard_error_is_the_spread_over_draws_of_samples():
    rng = np.random.default_rng(5)
    found, given = [], []
    for _ in range(200):
        p = rng.random((40, 60))  # sites of samples; a sample's sites err together, in tens
        y = np.repeat(rng.random((4, 60)), 10, axis=0) < p
        one, other = CalibrationAccumulator(4), CalibrationAccumulator(4)
        one.update(p, y)
        other.update(p[:15], y[:15])
        other.update(p[15:], np.where(np.isnan(p[15:]), -1, y[15:]))
        np.testing.assert_allclose(one.standard_error(), other.standard_error())
        table = one.result()
        found.append(table[:, 1] - table[:, 0])
        given.append(one.standard_error())
    np.testing.assert_allclose(np.std(found, axis=0), np.mean(given, axis=0), rtol=0.2)
    # Ten sites that err together say hardly more than one of them.
    alone = np.sqrt(0.125 * 0.875 / 600)
    assert np.mean(given, axis=0)[0] > 1.5 * alone


def test_standard_error_needs_two_samples():
    one = CalibrationAccumulator(2)
    one.update(np.array([[0.2, 0.9], [0.3, np.nan]]), np.array([[0, 1], [1, 0]]))
    assert np.isnan(one.standard_error()).all()
    flat = CalibrationAccumulator(2)
    flat.update(np.array([0.2, 0.3, 0.9]), np.array([0, 1, 1]))
    assert np.isnan(flat.standard_error()).all()
    assert flat.result()[:, 2].tolist() == [2, 1]
    assert np.isnan(CalibrationAccumulator(3).standard_error()).all()


def test_estimated_r2_matches_true_r2_when_calibrated():
    rng = np.random.default_rng(6)
    p = rng.beta(0.3, 0.9, (40, 4000))
    truth = rng.random(p.shape) < p
    true = metrics.site_r2(p, truth)
    table = calibrate_quality(
        DosageSums.of(p).estimated_r2, true, np.minimum(p.mean(1), 1 - p.mean(1))
    )
    assert table.mean_estimated[-1] == pytest.approx(table.mean_true[-1], abs=0.01)
    assert table.num_sites[-1] == 40
