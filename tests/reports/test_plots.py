"""Plots: they show the figures that they are given, in the page's colours, alike every time."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import numpy as np
import pytest
from report_fixtures import history

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.reports.figures import DR2_CLASSES, dr2_classes
from ragimpute.reports.plots import (
    SERIES,
    VARIABLES,
    bars,
    curves,
    dr2_along,
    dr2_by_maf,
    quality_by_maf,
    r2_by_maf,
    reliability,
    save_png,
    series,
    to_svg,
)

NUM_BINS = len(MAF_BINS) - 1


def lines_of(axes):
    """Each line's values by its label."""
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in axes.get_lines()}


def test_r2_by_maf_shows_each_line():
    ours = [0.1 * i for i in range(NUM_BINS)]
    theirs = [np.nan, *ours[1:]]
    (axes,) = r2_by_maf({"ours": ours, "theirs": theirs}, dashed=("theirs",)).axes
    shown = lines_of(axes)
    np.testing.assert_array_equal(shown["ours"], ours)
    np.testing.assert_array_equal(shown["theirs"], theirs)
    assert [line.get_linestyle() for line in axes.get_lines()] == ["-", "--"]
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    x = axes.get_lines()[0].get_xdata()
    assert (np.diff(x) > 0).all()
    assert low < x[0] < MAF_BINS[1]
    assert x[-1] < high == MAF_BINS[-1]
    for point, (start, stop) in zip(x, pairwise(MAF_BINS), strict=True):
        assert start < point < stop
    assert r2_by_maf({"alone": ours}).axes[0].get_legend() is None


def test_reliability_leaves_out_empty_bins():
    curve = np.array([[0.1, 0.2, 5], [0.5, np.nan, 0], [0.9, 0.8, 3]])
    top, bottom = reliability({"a": curve}, x="given", y="seen", count="sites").axes
    shown = [line for line in top.get_lines() if line.get_label() == "a"]
    np.testing.assert_array_equal(shown[0].get_xdata(), [0.1, 0.9])
    np.testing.assert_array_equal(shown[0].get_ydata(), [0.2, 0.8])
    assert [bar.get_height() for bar in bottom.patches] == [5, 0, 3]
    labels = bottom.get_xlabel(), top.get_ylabel(), bottom.get_ylabel()
    assert labels == ("given", "seen", "sites")


def test_lines_of_a_reliability_plot_look_different():
    curve = np.array([[0.2, 0.3, 5], [0.7, 0.6, 5]])
    figure = reliability({f"data {i}": curve for i in range(14)}, x="x", y="y", count="n")
    looks = [(line.get_color(), line.get_marker()) for line in figure.axes[0].get_lines()[1:]]
    assert len(set(looks)) == len(looks) == 14


def test_quality_by_maf_shows_both():
    (axes,) = quality_by_maf([0.5] * NUM_BINS, [0.6] * NUM_BINS).axes
    shown = lines_of(axes)
    assert set(shown) == {"true r²", "DR2, estimated"}
    assert (shown["DR2, estimated"] == 0.5).all()


def test_bars_are_in_order():
    (axes,) = bars({"read": 2.0, "impute": 5.0}, x="seconds", texts=["2 s", "5 s"]).axes
    assert [bar.get_width() for bar in axes.patches] == [2.0, 5.0]
    assert [text.get_text() for text in axes.texts] == ["2 s", "5 s"]
    assert axes.yaxis_inverted()


def test_classes_of_dr2():
    maf = np.array([0.001, 0.002, 0.3, 0.3, 0.3, 0.3], dtype=np.float32)
    dr2 = np.array([0.1, 0.3, 0.8, 0.95, 1.0, 0.2999], dtype=np.float32)
    counts = dr2_classes(maf, dr2)
    assert counts.shape == (NUM_BINS, len(DR2_CLASSES))
    assert counts[0].tolist() == [1, 1, 0, 0]
    assert counts[-1].tolist() == [1, 0, 1, 2]
    assert counts.sum() == 6
    (axes,) = dr2_by_maf(counts).axes
    widths = np.array([bar.get_width() for bar in axes.patches]).reshape(len(DR2_CLASSES), NUM_BINS)
    np.testing.assert_allclose(widths[:, -1], [0.25, 0, 0.25, 0.5])
    assert (widths[:, 3] == 0).all()  # a bin without sites


def test_dr2_along_the_chromosome():
    rng = np.random.default_rng(1)
    size = 6_000
    position = np.sort(rng.integers(1, 50_000_000, size))
    typed = np.arange(size) % 10 == 0
    maf = rng.choice([0.001, 0.02, 0.4], size)
    top, bottom = dr2_along(position, maf, np.where(maf < 0.005, 0.2, 0.9), typed).axes
    shown = lines_of(top)
    assert len(shown) == 3
    np.testing.assert_allclose(np.nanmean(shown["MAF ≤ 0.005"]), 0.2)
    np.testing.assert_allclose(np.nanmean(shown["> 0.05"]), 0.9)
    per_mb = [bar.get_height() for bar in bottom.patches]
    width = bottom.patches[0].get_width()
    assert sum(per_mb) * width == pytest.approx(600)


def test_series_and_curves():
    rows = [{"epoch": 1.0, "f1": 0.5}, {"f1": float("nan")}, {"epoch": 3.0, "f1": 0.7}]
    x, y = series(rows, "f1")
    assert (x.tolist(), y.tolist()) == ([1, 3], [0.5, 0.7])
    assert len(series(rows, "other")[0]) == 0
    assert curves(rows, {"other": "x"}, label="y") is None
    (axes,) = curves(rows, {"f1": "F1", "other": "x"}, label="y").axes
    assert list(lines_of(axes)) == ["F1"]
    assert axes.get_legend() is None
    names = {"r2_all": "all", "ls_r2_all": "all, LS", "r2_rare": "rare"}
    (axes,) = curves(history(), names, label="r2", dashed=("ls_r2_all",), unit=True).axes
    lines = axes.get_lines()
    assert [line.get_label() for line in lines] == list(names.values())
    assert [line.get_color() for line in lines] == [SERIES[0], SERIES[0], SERIES[1]]
    assert lines[1].get_linestyle() == "--"
    (axes,) = curves(history(), {"lr": "rate"}, label="rate", log=True).axes
    assert axes.get_yscale() == "log"


def test_svg_stands_in_a_page():
    def draw(name):
        figure = r2_by_maf({"a": [0.5] * NUM_BINS, "b": [0.4] * NUM_BINS})
        return to_svg(figure, name, 'x < "y" & z')

    svg = draw("one")
    assert svg == draw("one")
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == 'x < "y" & z'
    ids = {element.attrib["id"] for element in root.iter() if "id" in element.attrib}
    assert ids
    assert all(name.startswith("one-") for name in ids)
    for used in re.findall(r'(?:href="#|url\(#)([^")]+)', svg):
        assert used in ids
    other = {e.attrib["id"] for e in ElementTree.fromstring(draw("two")).iter() if "id" in e.attrib}
    assert not ids & other
    assert not any(color in svg for color in VARIABLES)
    assert "var(--s1)" in svg
    assert "var(--s2)" in svg


def test_png(tmp_path):
    figure = r2_by_maf({"a": [0.5] * NUM_BINS})
    path = save_png(figure, tmp_path / "x.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_mode & 0o777 == 0o644
    first = path.read_bytes()
    save_png(r2_by_maf({"a": [0.5] * NUM_BINS}), path)
    assert path.read_bytes() == first
    with pytest.raises(OSError, match="folder"):
        save_png(figure, tmp_path / "folder" / "x.png")
    assert [found.name for found in tmp_path.iterdir()] == ["x.png"]
