"""The figure of README.md: accuracy and time of ragimpute beside Beagle and Minimac4.

Run: python benchmarks/compare.py eur_chr20 --density dense -o bench-output
     python benchmarks/readme_figure.py bench-output/results.json -o docs/images/readme.svg

All numbers come from the results.json of one run of compare.py (``make bench`` writes one). The
first data set and its first phased target are drawn. Where other programs kept the machine busy
during the run, bars show processor time, else wall time. Prints a caption that says what is shown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import one_line
from comparison_page import median
from matplotlib import rc_context
from matplotlib.figure import Figure

from ragimpute.errors import InputError
from ragimpute.reports.plots import GRID, INK, MUTED, SERIES
from ragimpute.runtime.outputs import replacing

_TIMES = {"wall_s": "wall time, s", "cpu_s": "processor time, s"}
_STYLE = {"svg.hashsalt": "ragimpute", "font.size": 10, "text.color": INK, "axes.labelcolor": INK}


def choose(results: dict) -> tuple[dict, dict]:
    """The first data set of a comparison, and its first phased target."""
    for data in results["data"]:
        for density in data["densities"]:
            if density["phased"]:
                return data, density
    raise InputError("the results hold no phased target", hint="make bench writes results that do")


def choose_time(results: dict) -> str:
    """``cpu_s`` if a note says that the machine was busy, else ``wall_s``."""
    return "cpu_s" if any("busy" in note for note in results["notes"]) else "wall_s"


def draw(density: dict, time: str) -> Figure:
    """Draw r2 by minor allele frequency, and a bar for each tool and number of threads.

    Parameters
    ----------
    density
        A target's part of results.json.
    time
        ``wall_s`` or ``cpu_s``.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor="white")
        left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    colors = {row["tool"]: SERIES[i] for i, row in enumerate(density["accuracy"])}
    labels = [row["label"].removeprefix("<=") for row in density["accuracy"][0]["bins"][:-1]]
    first = [row["r2"] for row in density["accuracy"][0]["bins"]]
    for row in reversed(density["accuracy"]):
        # A tool in another way of use, such as with an index, has the line of the tool.
        if row is not density["accuracy"][0] and [x["r2"] for x in row["bins"]] == first:
            continue
        values = [float("nan") if x["r2"] is None else x["r2"] for x in row["bins"][:-1]]
        left.plot(labels, values, "o-", color=colors[row["tool"]], label=row["tool"])
    left.set_xlabel("minor allele frequency in the panel, up to")
    left.set_ylabel("r² of dosage and true genotype")
    left.set_ylim(0, 1.02)
    left.grid(color=GRID)
    handles, names = left.get_legend_handles_labels()
    left.legend(handles[::-1], names[::-1], loc="lower right", frameon=False)
    rows = [row for row in density["runs"] if row["tool"] in colors][::-1]
    lengths = [median(row, time) for row in rows]
    names = [f"{row['tool']}, {row['threads']} thread{'s' * (row['threads'] > 1)}" for row in rows]
    bars = right.barh(names, lengths, color=[colors[row["tool"]] for row in rows])
    right.bar_label(bars, [f"{length:.1f}" for length in lengths], padding=3)
    right.set_xlim(0, max(lengths) * 1.18)
    right.set_xlabel(_TIMES[time])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED)
    return figure


def describe(results: dict, data: dict, density: dict, time: str) -> str:
    """A caption: the data, the tools' versions, the processor, and what the bars are."""
    tools = ", ".join(
        f"{row['tool']} {results['versions'][row['tool']]}"
        for row in density["accuracy"]
        if row["tool"] in results["versions"]  # one in another way of use has none of its own
    )
    untyped = density["accuracy"][0]["bins"][-1]["num_sites"]
    machine = results["machine"]
    return (
        f"{data['name']} {density['name']}: {data['num_haplotypes']:,} panel haplotypes, "
        f"{density['num_samples']} targets with {density['num_typed']:,} typed sites, "
        f"{untyped:,} imputed sites in {data['contig']}:{data['first_bp']:,}-{data['last_bp']:,}. "
        f"{tools}. {machine['cpu']}, {machine['cores']} cores; {_TIMES[time]}, median of "
        f"{results['repeats']} runs; {results['date']}."
    )


def main(arguments: list[str]) -> None:
    """Draw the figure that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="readme_figure.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", type=Path, help="results.json of compare.py")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/readme.svg"))
    options = parser.parse_args(arguments)
    try:
        results = json.loads(options.results.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{options.results} cannot be read: {error}") from error
    data, density = choose(results)
    time = choose_time(results)
    with replacing(options.output) as temporary, rc_context(_STYLE):
        form = options.output.suffix.removeprefix(".")
        metadata = {"Date": None} if form == "svg" else None
        draw(density, time).savefig(temporary, format=form, metadata=metadata)
    print(describe(results, data, density, time))


if __name__ == "__main__":
    one_line.run(main)
