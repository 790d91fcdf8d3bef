"""What a run says of itself."""

from __future__ import annotations

import numpy as np

from ragimpute.imputation.summary import ImputeSummary
from ragimpute.runtime.timing import Stopwatch


def test_rows_for_people():
    summary = ImputeSummary("out.vcf", "panel.h5", "target.vcf", "default")
    summary.num_samples, summary.num_haplotypes = 50, 5_008
    summary.num_sites, summary.num_typed = 4, 1
    summary.dr2 = np.array([1, 0.5, 0.25, 0.75], dtype=np.float32)
    summary.typed = np.array([True, False, False, False])
    summary.counts = {"matched": 1_200, "swapped": 0, "duplicate": 3}
    summary.settings = {"ne": "1e+05", "window_cm": 40.0}
    summary.wall_seconds = 2.25
    rows = dict(summary.rows())
    assert rows["output"] == "out.vcf"
    assert rows["panel"] == "panel.h5: 5,008 haplotypes"
    assert rows["sites"] == "4, of which 1 typed"
    assert rows["target records"] == "1,200 matched, 3 duplicate"
    assert rows["mean DR2, untyped"] == "0.5000, over all 3 sites"
    assert rows["ne"] == "1e+05"
    assert "window_cm" not in rows
    assert rows["time"] == "2.2 s"


def test_rows_where_all_is_typed():
    summary = ImputeSummary("out.vcf", "panel.h5", "target.vcf", "default")
    summary.dr2, summary.typed = np.ones(2, np.float32), np.ones(2, bool)
    assert dict(summary.rows())["mean DR2, untyped"] == "no untyped site"


def test_a_stopwatch_adds_up():
    seconds: dict[str, float] = {}
    peak: dict[str, float] = {}
    times = iter([0.0, 1.0, 3.0, 10.0, 14.0])
    watch = Stopwatch(seconds, peak, clock=lambda: next(times))
    watch.lap("read")
    watch.lap("impute")
    watch.skip()  # seven seconds that another stopwatch counted
    watch.lap("read")
    assert seconds == {"read": 1.0 + 4.0, "impute": 2.0}
    assert set(peak) == {"read", "impute"}
    assert 1 < peak["impute"] <= peak["read"] < 1e6
