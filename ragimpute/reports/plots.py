"""Plots of the reports: SVG that follows the page's light or dark colours, and PNG files.

Each function returns a matplotlib figure; :func:`to_svg` and :func:`save_png` write it. Colours are
those of the light page; in SVG they become the CSS variables of the same meaning.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.reports.figures import DR2_CLASSES
from ragimpute.runtime.outputs import replacing

# Each colour of the light page, and the CSS variable that takes its place in SVG.
INK, MUTED, GRID = "#1c2430", "#5b6675", "#dfe3e9"
SERIES = ("#1f6fb8", "#cc5a1e", "#16825d", "#7d4fb0", "#b0356b", "#6b6d12")
SHADES = ("#c9d4e0", "#8fb8dc", "#4a8fca", "#135a99")
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    **{color: f"--s{i}" for i, color in enumerate(SERIES, 1)},
    **{color: f"--q{i}" for i, color in enumerate(SHADES, 1)},
}
_MARKERS = "osD^vP"
_STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "ragimpute",
}
_WIDTH, _HEIGHT, _TALL = 6.2, 3.7, 4.6  # inches
_CHROMOSOME_BINS = 120
MAF_CLASSES = (("MAF ≤ 0.005", 0.0, 0.005), ("0.005 – 0.05", 0.005, 0.05), ("> 0.05", 0.05, 0.5))

History = Sequence[Mapping[str, float]]


def _figure(height: float = _HEIGHT, *, rows: Sequence[float] = (1,)) -> tuple[Figure, list[Axes]]:
    """A figure with axes below each other, of the given relative heights."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.subplots(len(rows), 1, sharex=True, squeeze=False, height_ratios=list(rows))
    return figure, list(axes[:, 0])


def to_svg(figure: Figure, name: str, alt: str) -> str:
    """An ``<svg>`` element that stands in a page by itself.

    Parameters
    ----------
    figure
        What to draw.
    name
        Prefix of its ids, so that figures of one page do not share any.
    alt
        What it shows, in words.
    """
    text = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    view_box = re.search(r'viewBox="[^"]*"', svg)
    assert view_box is not None
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    head = f'<svg role="img" aria-label="{label}" {view_box[0]}>'
    return head + svg[svg.index(">") + 1 :]


def save_png(figure: Figure, path: Path) -> Path:
    """Write a PNG of 150 dots an inch on white, under a temporary name first."""
    with replacing(path) as temporary, matplotlib.rc_context(_STYLE):
        figure.savefig(temporary, format="png", dpi=150, facecolor="white")
    return path


def _maf_axis(axes: Axes) -> None:
    """A logarithmic axis of MAF with the bins' edges as ticks."""
    edges = list(MAF_BINS[1:])
    axes.set_xscale("log")
    axes.set_xlim(_centre(0) * 0.8, MAF_BINS[-1])
    axes.xaxis.set_major_locator(FixedLocator(edges))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(FixedLocator([]))
    axes.set_xlabel("minor allele frequency in the panel")


def _centre(i: int) -> float:
    """Where a bin's point is drawn: at its geometric mean; the first, at half its upper edge."""
    low, high = MAF_BINS[i], MAF_BINS[i + 1]
    return math.sqrt(low * high) if low > 0 else high / 2


def _legend(axes: Axes, **where: Any) -> None:
    """Add a legend in the colour of the page's text."""
    with matplotlib.rc_context(_STYLE):
        axes.legend(**where)


def r2_by_maf(
    lines: Mapping[str, Sequence[float]],
    *,
    dashed: Sequence[str] = (),
    label: str = "aggregate r²",
    tall: bool = False,
) -> Figure:
    """r2 of each MAF bin, one line for each name; NaN leaves a gap."""
    figure, (axes,) = _figure(_TALL if tall else _HEIGHT)
    x = np.array([_centre(i) for i in range(len(MAF_BINS) - 1)])
    for i, (name, values) in enumerate(lines.items()):
        style = _line(i)
        if name in dashed:
            style["linestyle"] = "--"
        axes.plot(x, np.asarray(values, float), label=name, **style)
    _maf_axis(axes)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(label)
    if len(lines) > 1:
        _legend(axes, loc="lower right")
    return figure


def _line(i: int) -> dict[str, Any]:
    """Style of the i-th line: the first one is drawn on top; markers of the others are hollow.

    Of 36 lines no two have the same colour and marker.
    """
    style: dict[str, Any] = {
        "color": SERIES[i % 6],
        "marker": _MARKERS[(i + i // 6) % 6],
        "zorder": 4 - i / 10,
    }
    if i:
        style |= {"markerfacecolor": "none", "markersize": 7, "markeredgewidth": 1.4}
    return style


def _diagonal(axes: Axes) -> None:
    """Draw the line on which both axes have the same value."""
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)


def reliability(curves: Mapping[str, np.ndarray], *, x: str, y: str, count: str) -> Figure:
    """Plot observed against given values, and the number of each.

    Parameters
    ----------
    curves
        Arrays (bins, 3) by name: mean given value in [0, 1], observed value, number.
    x, y, count
        Labels.
    """
    figure, (top, bottom) = _figure(_TALL, rows=(3.2, 1))
    _diagonal(top)
    width = 0.8 / max(1, len(curves))
    for i, (name, curve) in enumerate(curves.items()):
        color = SERIES[i % 6]
        full = curve[:, 2] > 0
        top.plot(curve[full, 0], curve[full, 1], label=name, **_line(i))
        step = 1 / len(curve)
        left = (np.arange(len(curve)) + 0.1 + width * i) * step
        bottom.bar(left, curve[:, 2], width * step, align="edge", color=color)
    bottom.set_yscale("log")
    bottom.set_ylim(bottom=0.8)
    bottom.set_xlabel(x)
    bottom.set_ylabel(count)
    bottom.grid(visible=False)
    top.set_ylabel(y)
    if len(curves) > 1:
        _legend(top, loc="upper left")
    return figure


def quality_by_maf(estimated: Sequence[float], true: Sequence[float]) -> Figure:
    """Mean DR2 and mean true r2 of each MAF bin, joined where both are known."""
    figure, (axes,) = _figure(_TALL)
    x = np.array([_centre(i) for i in range(len(MAF_BINS) - 1)])
    low, high = np.asarray(estimated, float), np.asarray(true, float)
    axes.vlines(x, low, high, color=MUTED, linewidth=1.2)
    axes.plot(x, high, "o", color=SERIES[0], markersize=7, label="true r²")
    axes.plot(
        x, low, "D", markerfacecolor="none", markeredgewidth=1.6, color=SERIES[1],
        markersize=6, label="DR2, estimated",
    )  # fmt: skip
    _maf_axis(axes)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel("mean over sites")
    _legend(axes, loc="lower right")
    return figure


def bars(values: Mapping[str, float], *, x: str, texts: Sequence[str]) -> Figure:
    """Horizontal bars, the first on top, with a text at the end of each."""
    figure, (axes,) = _figure(0.75 + 0.33 * max(2, len(values)))
    height = 0.62 if len(values) > 1 else 0.3
    axes.barh(list(values), list(values.values()), color=SERIES[0], height=height)
    if len(values) == 1:
        axes.set_ylim(-0.5, 0.5)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel(x)
    for i, (value, text) in enumerate(zip(values.values(), texts, strict=True)):
        axes.annotate(
            text, (value, i), xytext=(5, 0), textcoords="offset points", va="center", color=INK
        )
    return figure


def histogram(values: np.ndarray, *, bins: int, x: str, y: str) -> Figure:
    """How many values in [0, 1] lie in each of ``bins`` equal intervals."""
    figure, (axes,) = _figure()
    axes.hist(values, bins=bins, range=(0, 1), color=SERIES[0], rwidth=0.9)
    axes.set_xlim(0, 1)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return figure


def dr2_by_maf(counts: np.ndarray) -> Figure:
    """Share of sites by DR2 in each MAF bin, from :func:`ragimpute.reports.figures.dr2_classes`."""
    figure, (axes,) = _figure()
    total = np.maximum(counts.sum(axis=1), 1)
    share = counts / total[:, None]
    left = np.zeros(len(share))
    names = [f"{low:g} – {high:g}" for low, high in pairwise(MAF_BINS)]
    for i, (low, high) in enumerate(DR2_CLASSES):
        label = f"{low:g} – {high:g}"
        axes.barh(names, share[:, i], left=left, color=SHADES[i], label=label, height=0.72)
        left += share[:, i]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of untyped sites")
    axes.set_ylabel("minor allele frequency")
    _legend(
        axes, title="DR2", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4,
        handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip
    return figure


def dr2_along(
    position_bp: np.ndarray, maf: np.ndarray, dr2: np.ndarray, typed: np.ndarray
) -> Figure:
    """Mean DR2 of untyped sites along the chromosome by class of MAF, and typed sites below."""
    figure, (top, bottom) = _figure(_HEIGHT, rows=(3, 1))
    mb = position_bp / 1e6
    low, high = float(mb.min()), float(mb.max())
    high = max(high, low + 1e-6)
    num_bins = int(np.clip(len(mb) // 60, 1, _CHROMOSOME_BINS))
    edges = np.linspace(low, high, num_bins + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    of_bin = np.clip(np.searchsorted(edges, mb, side="right") - 1, 0, num_bins - 1)
    marker = "o" if num_bins < 3 else ""
    for i, (name, above, up_to) in enumerate(MAF_CLASSES):
        here = ~typed & (maf > above) & (maf <= up_to + 1e-9)
        n = np.bincount(of_bin[here], minlength=num_bins)
        total = np.bincount(of_bin[here], dr2[here], minlength=num_bins)
        mean = np.divide(total, n, out=np.full(num_bins, np.nan), where=n > 0)
        top.plot(middle, mean, marker=marker, color=SERIES[i], linewidth=1.5, label=name)
    top.set_ylim(0, 1.02)
    top.set_ylabel("mean DR2")
    _legend(top, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    density = np.bincount(of_bin[typed], minlength=num_bins) / np.diff(edges)
    bottom.bar(middle, density, np.diff(edges), color=MUTED)
    bottom.set_ylabel("typed / Mb")
    bottom.set_xlabel("position, Mb")
    bottom.grid(visible=False, axis="x")
    bottom.yaxis.set_major_locator(MaxNLocator(2))
    return figure


def series(history: History, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs and values of one figure where it is known; a missing epoch is the row's number."""
    rows = [(row.get("epoch", i + 1), row.get(key, math.nan)) for i, row in enumerate(history)]
    points = np.array([row for row in rows if math.isfinite(row[1])], dtype=float)
    return (points[:, 0], points[:, 1]) if len(points) else (np.zeros(0), np.zeros(0))


def curves(
    history: History, names: Mapping[str, str], *, label: str, log: bool = False,
    dashed: Sequence[str] = (), unit: bool = False,
) -> Figure | None:  # fmt: skip
    """Figures by epoch; None if none of them is known.

    Parameters
    ----------
    history
        One row for each epoch.
    names
        Legend by key.
    label, log
        Of the vertical axis.
    dashed
        Keys whose line is dashed and takes the colour of the line before it.
    unit
        Whether values lie in [0, 1].
    """
    found = {key: series(history, key) for key in names}
    if not any(len(x) for x, _ in found.values()):
        return None
    figure, (axes,) = _figure()
    color = -1
    for key, (x, y) in found.items():
        color += key not in dashed or color < 0
        if not len(x):
            continue
        style: dict[str, Any] = {"linestyle": "--", "marker": ""} if key in dashed else {}
        style = {"marker": _MARKERS[color % 6]} | style
        if len(x) > 40 or (len(x) > 1 and style["marker"] == ""):
            style["marker"] = ""
        elif key in dashed:
            style["marker"] = "_"
        axes.plot(x, y, color=SERIES[color % 6], label=names[key], **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if log:
        axes.set_yscale("log")
    if unit:
        axes.set_ylim(top=min(1.02, axes.get_ylim()[1]))
    if sum(len(x) > 0 for x, _ in found.values()) > 1:
        _legend(axes, loc="best")
    return figure
