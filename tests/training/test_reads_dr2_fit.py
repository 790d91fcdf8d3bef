"""DR2 of targets with likelihoods, calibrated on samples left out with simulated reads."""

from __future__ import annotations

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel

from ragimpute.accuracy.dr2 import FILE, TERMS, Dr2Calibration
from ragimpute.config import models_dir
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.training.dr2_fit import fit_scored
from ragimpute.training.reads_dr2_fit import DEPTHS, leave_out_with_reads, score_reads

NUM_SITES, NUM_SAMPLES = 160, 60


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    path = tmp_path_factory.mktemp("panel") / "p.h5"
    alleles = mosaic_panel(np.random.default_rng(3), NUM_SITES, 2 * NUM_SAMPLES)
    batch = make_batch(
        alleles.reshape(NUM_SITES, NUM_SAMPLES, 2), 1000 + 500 * np.arange(NUM_SITES),
        ref=["A"] * NUM_SITES, alt=["G"] * NUM_SITES,
    )  # fmt: skip
    write_panel(path, [batch], samples=names(NUM_SAMPLES), genetic_map=FlatMap())
    with Panel.open(path) as opened:
        yield opened


def test_more_reads_leave_less_to_be_estimated(panel):
    few, many = (
        leave_out_with_reads(panel, depth, np.random.default_rng(2))[0] for depth in DEPTHS
    )
    assert few.true.mean() < many.true.mean() - 0.05
    for part in (few, many):
        assert ((part.true >= 0) & (part.true <= 1)).all()
        assert (part.maf > 0).all()
        assert len(part.estimate) == len(part.minor) == len(part.num) == len(part.panel)


def test_the_same_panel_is_measured_alike_whatever_the_threads(panel):
    once = score_reads(panel, num_draws=1)
    again = score_reads(panel, num_draws=1, threads=2)
    assert len(once) == len(again) > 0
    for x, y in zip(once, again, strict=True):
        np.testing.assert_array_equal(x.true, y.true)
        np.testing.assert_array_equal(x.estimate, y.estimate)


def test_calibrated_dr2_is_nearer_to_the_truth(panel):
    parts = score_reads(panel, num_draws=4, seed=1)
    calibration = fit_scored(parts, [panel.checksum])
    off = {"raw": [], "calibrated": []}
    for part in score_reads(panel, num_draws=4, seed=2):
        dr2 = calibration.apply(part.estimate, part.minor, part.num)
        off["raw"].append(abs((part.estimate - part.true).mean()))
        off["calibrated"].append(abs((dr2 - part.true).mean()))
    assert np.mean(off["calibrated"]) < np.mean(off["raw"]) + 0.01


def test_too_few_samples_are_not_scored(panel):
    class Few:
        def __getattr__(self, name):
            return getattr(panel, name)

        haplotype_sample = np.arange(2 * NUM_SAMPLES)  # haploid samples alone

    assert leave_out_with_reads(Few(), 1.0, np.random.default_rng(1)) == []


def test_the_calibration_that_ships_asks_nothing_of_the_panel():
    calibration = Dr2Calibration.read(models_dir() / "likelihoods")
    assert len(calibration.coefficients) == len(TERMS)
    assert calibration.adjustment(1.0, np.array([1.0, 50.0]), 500).tolist() == [0, 0]
    assert (models_dir() / "likelihoods" / FILE).is_file()
