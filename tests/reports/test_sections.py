"""Sections: the figures of an evaluation and of a run, in words and tables."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_fixtures import evaluation, summary

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.reports import plots
from ragimpute.reports.figures import DR2_BINS, dr2_classes
from ragimpute.reports.sections import (
    Section,
    _dr2_table,
    evaluate_section,
    highest_bar,
    impute_section,
)
from ragimpute.reports.wording import duration, number, setting, words
from ragimpute.target.match import FATES
from ragimpute.target.qc import NOTED, QcSummary

NUM_BINS = len(MAF_BINS) - 1


def test_numbers_and_times_for_people():
    assert number(0.123456, 3) == "0.123"
    assert number(float("nan"), 3) == "–"
    assert words("not_in_panel") == "not in panel"
    for seconds, text in (
        (0.004, "0.00 s"), (9.876, "9.88 s"), (10.0, "10.0 s"), (119.94, "119.9 s"),
        (120.4, "2 min 00 s"), (3_599.6, "1 h 00 min"), (7_380, "2 h 03 min"),
    ):  # fmt: skip
        assert duration(seconds) == text
    assert setting(1e5) == "100000"
    assert setting(["GT", "DS"]) == "GT, DS"
    assert setting(True) == "yes"


def test_an_evaluation_beside_another():
    ours, theirs = evaluation(1), evaluation(2)
    section = evaluate_section(ours, name="ours", others={"theirs": theirs})
    comparison = next(table for table in section.tables if table.best)
    assert [row[0] for row in comparison.rows] == ["ours", "theirs"]
    assert len(comparison.head) == NUM_BINS + 2
    for row, result in zip(comparison.rows, (ours, theirs), strict=True):
        assert row[-1] == f"{result.overall.r2:.5f}"
        assert row[1:-1] == [number(bin_.r2, 4) for bin_ in result.bins]
    columns = list(zip(*comparison.rows, strict=True))
    for best, column in zip(comparison.best[1:], columns[1:], strict=True):
        assert best == max((cell for cell in column if cell != "–"), key=float, default="")
    assert section.tiles[0]["value"] == f"{ours.overall.r2:.4f}"
    alone = evaluate_section(ours, name="ours", others={})
    assert not any(table.best for table in alone.tables)
    bins = next(table for table in alone.tables if len(table.rows) == NUM_BINS + 1)
    assert bins.has_total
    assert bins.rows[-1][0] == "all"
    assert sum(int(row[1].replace(",", "")) for row in bins.rows[:-1]) == ours.overall.num_sites


def test_a_run():
    run = summary()
    section = impute_section(run)
    tiles = {tile["name"]: tile for tile in section.tiles}
    values = " ".join(tile["value"] + " " + tile["note"] for tile in section.tiles)
    assert "50" in section.intro
    assert "500" in section.intro
    assert "2,000" in values
    assert len(tiles) == len(section.tiles)
    assert section.notes == run.warnings
    dr2 = next(table for table in section.tables if table.has_total)
    untyped = int((~run.typed).sum())
    assert int(dr2.rows[-1][1].replace(",", "")) == untyped
    assert sum(int(row[1].replace(",", "")) for row in dr2.rows[:-1]) == untyped
    every = {name: value for _, pairs in section.pairs for name, value in pairs}
    assert every["effective population size (ne)"] == "100000"
    assert every["FORMAT fields written"] == "GT, DS"
    text = " ".join(cell for table in section.tables for row in table.rows for cell in row)
    assert "matched, REF and ALT swapped" in text + str(section.pairs)
    assert len(section.figures) == 5


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_with_few_sites(count):
    run = summary(
        position_bp=np.full(count, 5, np.int32), maf=np.full(count, 0.1, np.float32),
        dr2=np.full(count, 0.5, np.float32), typed=np.zeros(count, bool), counts={}, seconds={},
    )  # fmt: skip
    section = impute_section(run)
    assert "nan" not in str(section.tiles).lower()
    assert all(figure["svg"].startswith("<svg") for figure in section.figures)


def test_plots_are_numbered_and_may_be_absent():
    from ragimpute.reports.plots import bars

    section = Section("x", "Heading")
    section.plot(None, "nothing", "", "")
    assert section.figures == []
    for _ in range(2):
        section.plot(bars({"a": 1.0}, x="s", texts=["1"]), "bars", "a caption", "one bar")
    assert ['id="x-f1-' in f["svg"] for f in section.figures] == [True, False]
    assert ['id="x-f2-' in f["svg"] for f in section.figures] == [False, True]


def test_an_imputation_shows_the_counts_of_its_target():
    fates = dict.fromkeys(FATES, 0) | {"matched": 90, "flipped": 7, "star": 3}
    noted = dict.fromkeys(NOTED, 0) | {"filter_set": 4}
    tally = {"found": 5, "other_strand": 2, "left_out": 1}
    qc = QcSummary(100, 0.97, fates, tally, noted, {"a": 0.4, "b": 1.0})
    pairs = dict(impute_section(summary(qc=qc)).pairs)
    shown = dict(pairs["Target"])
    assert shown["reference overlap"] == "97.00%"
    assert (shown["match"], shown["strand flip"], shown["noted: FILTER set"]) == ("90", "7", "4")
    assert shown["filtered: alleles *"] == "3"
    assert shown["A/T, C/G, turned to the panel's strand"] == "2"
    assert shown["samples with call rate < 50 %"] == "1"
    assert "sites typed" in shown


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_the_text_beside_the_histogram_is_true_of_it(values):
    """ "The bar on the left" was on the right where most sites are imputed well."""
    dr2 = np.array(values)
    found = re.fullmatch(
        r"The highest bar: ([\d,]+) of ([\d,]+) untyped sites have DR2 from (\S+) to (\S+)\.",
        highest_bar(dr2),
    )
    count, total, low, high = (float(text.replace(",", "")) for text in found.groups())
    (axes,) = plots.histogram(dr2, bins=DR2_BINS, x="", y="").axes
    highest = max(axes.patches, key=lambda bar: bar.get_height())
    assert highest.get_height() == count
    assert low < highest.get_x() + highest.get_width() / 2 < high
    assert total == len(dr2)


def test_sites_where_the_panel_has_one_allele_are_counted():
    table = _dr2_table(
        np.array([0.0, 0.001, 0.3]), np.array([0.1, 0.2, 0.9]),
        dr2_classes(np.array([0.0, 0.001, 0.3]), np.array([0.1, 0.2, 0.9])),
    )  # fmt: skip
    assert table.rows[0][:2] == ["0", "1"]
    for column in (1, *range(3, len(table.head))):
        counts = [int(row[column]) for row in table.rows]
        assert sum(counts[:-1]) == counts[-1]
