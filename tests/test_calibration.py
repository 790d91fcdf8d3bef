"""Calibration of probabilities and of the estimated r2, on draws that are calibrated by design."""

from __future__ import annotations

import numpy as np
import pytest

from ragimpute import metrics
from ragimpute.calibration import CalibrationAccumulator, calibrate_quality


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


def test_estimated_r2_matches_true_r2_when_calibrated():
    rng = np.random.default_rng(6)
    p = rng.beta(0.3, 0.9, (40, 4000))
    truth = rng.random(p.shape) < p
    true = metrics.site_r2(p, truth)
    table = calibrate_quality(metrics.estimated_r2(p), true, np.minimum(p.mean(1), 1 - p.mean(1)))
    assert table.mean_estimated[-1] == pytest.approx(table.mean_true[-1], abs=0.01)
    assert table.num_sites[-1] == 40
