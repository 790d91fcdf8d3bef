"""Tables, plots and the Markdown page of a comparison, from what results.json holds."""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ragimpute.model.checkpoint import write_text
from ragimpute.reports.plots import GRID, INK, MUTED, SERIES, r2_by_maf, save_png

_MEASURES = {"wall_s": "wall, s", "cpu_s": "CPU, s", "peak_mib": "peak, MiB"}
_HEAD = """# Benchmarks

{tools}, on {date}. This page was made by

```bash not-run
{command}
```

Accuracy is aggregate r²: the squared correlation of dosage with the true allele count, over all
target samples and all untyped sites of a bin of minor allele frequency (MAF) in the panel.
Alleles are counted in the allele that is minor there. No target sample is in a panel. All tools
get the same panel, target and genetic map, run at their defaults, and write GT, DS and GP to a
.vcf.gz.

{times}

| | |
|---|---|
{about}
"""

_TIMES = """Times and memory are medians of {repeats}. The tools ran in turn, after one untimed run
of each, so that each found its files in the machine's cache. Wall and CPU time cover the whole
process, from its start to the closed output. The peak is that of resident memory. Java sizes its
heap by the machine's memory, so Beagle's peak says more about the machine than about the data. A
ratio says how many times as long the tool takes as {reference} does, or how many times as much
memory; a ratio above 1 is in favour of {reference}. Ratios are those of runs that were made one
after the other: their median, and their smallest and largest value in brackets."""


_SWITCHES = (
    "*switches*, *flips*: errors of phase, as shares of the pairs of neighbouring heterozygous "
    "typed sites.\n"
)


def median(entry: dict, measure: str) -> float:
    """Median of one measure over the runs of an entry of ``runs`` or ``prepare``."""
    return statistics.median(run[measure] for run in entry["runs"])


def reference_of(results: dict) -> str:
    """The tool that the others are compared with: the first ragimpute, else the first there is."""
    first = [data["densities"][0] for data in results["data"]]
    names = [row["tool"] for density in first for row in density["runs"] or density["accuracy"]]
    return next((name for name in names if name.startswith("ragimpute")), names[0])


def ratios(entry: dict, reference: dict | None, measure: str) -> list[float]:
    """How many times the reference's figure each run's is, one for each pair of runs.

    A pair is the runs of the same repeat, which were made one after the other. Empty without a
    reference.
    """
    if reference is None:
        return []
    pairs = zip(entry["runs"], reference["runs"], strict=True)
    return [one[measure] / other[measure] for one, other in pairs if other[measure]]


def ratio_text(found: Sequence[float], *, full: bool = True) -> str:
    """The median of ratios, and in brackets their range if it is one; "-" without any."""
    if not found:
        return "-"
    text = f"{statistics.median(found):.2f}"
    if not full or len(found) == 1:
        return text
    return f"{text} ({min(found):.2f} – {max(found):.2f})"


def accuracy_table(density: dict) -> list[list[str]]:
    """A header, a row of site numbers and a row for each tool."""
    bins = density["accuracy"][0]["bins"]
    edges = ["all" if row["label"] == "all" else row["label"].replace("<=", "≤ ") for row in bins]
    phase = [] if density["phased"] else ["switches", "flips"]
    rows = [["MAF", *edges, "site r²", "carriers", "absent", *phase]]
    rows.append(
        ["sites", *(f"{row['num_sites']:,}" for row in bins), "", "", "", *([""] * len(phase))]
    )
    for entry in density["accuracy"]:
        *parts, overall = entry["bins"]
        figures = [_figure(row["r2"], 4) for row in parts] + [_figure(overall["r2"], 5)]
        rest = [_figure(overall[name], 4) for name in ("mean_site_r2", "concordance")]
        errors = [_share(entry["phase"], f"{name}_rate") for name in ("switch", "flip")]
        found = [*figures, *rest, f"{entry['absent']:,}"]
        rows.append([entry["tool"], *found, *(errors if phase else [])])
    return rows


def error_table(density: dict) -> list[list[str]]:
    """A header, a row of standard errors for each tool, and how far the first is ahead of others.

    Bins without sites are left out. A lead of more than two standard errors, either way, is set in
    bold type. No rows at all for results of earlier versions, which tell no errors.
    """
    entries = [
        (entry["tool"], [row for row in entry["bins"] if row["num_sites"]])
        for entry in density["accuracy"]
    ]
    bins = entries[0][1]
    if not bins or "r2_error" not in bins[0]:
        return []
    rows = [["MAF", *(row["label"].replace("<=", "≤ ") for row in bins)]]
    for tool, bins in entries:
        rows.append([f"standard error, {tool}", *(_figure(row["r2_error"], 4) for row in bins)])
    for tool, bins in entries:
        if "lead" in bins[0]:
            rows.append([f"ahead of {tool}", *(_lead(row) for row in bins)])
    return rows


def is_certain(row: dict) -> bool:
    """Whether a lead is more than two standard errors from 0."""
    known = row["lead"] is not None and row["lead_error"] is not None
    return known and abs(row["lead"]) > 2 * row["lead_error"]


def _lead(row: dict) -> str:
    """A lead and its standard error as text, "-" where it is undefined."""
    if row["lead"] is None:
        return "-"
    text = f"{row['lead']:+.4f}"
    if row["lead_error"] is not None:
        text += f" ± {row['lead_error']:.4f}"
    return f"**{text}**" if is_certain(row) else text


def _share(errors: dict | None, name: str) -> str:
    """A rate of the errors of phase as text, "-" where there are none to count."""
    return "-" if errors is None else f"{errors[name]:.2%}"


def cost_table(density: dict, reference: str) -> list[list[str]]:
    """A header and a row for each thread count and tool: medians, range of wall time, ratios."""
    rows = [["threads", "tool", "wall, s", "range", "CPU, s", "peak, MiB",
             "wall ratio", "CPU ratio", "memory ratio"]]  # fmt: skip
    by = {(row["threads"], row["tool"]): row for row in density["runs"]}
    for (threads, tool), row in by.items():
        base = by.get((threads, reference))
        wall = [run["wall_s"] for run in row["runs"]]
        values = {name: median(row, name) for name in _MEASURES}
        compared = [ratio_text(ratios(row, base, name)) for name in _MEASURES]
        texts = [f"{values['wall_s']:.2f}", f"{min(wall):.2f} – {max(wall):.2f}"]
        texts += [f"{values['cpu_s']:.2f}", f"{values['peak_mib']:.0f}"]
        rows.append([str(threads), tool, *texts, *compared])
    return rows


def summary_table(results: dict) -> list[list[str]]:
    """The whole comparison at first sight: a header, and a row for each target and tool.

    Accuracy over all sites and over the rare ones; wall time at each number of threads, and how
    many times the reference's it is; the peak of memory over these.
    """
    reference = reference_of(results)
    every = [density for data in results["data"] for density in data["densities"]]
    counts = sorted({n for density in every for n in _threads(density)})
    timed = [f"wall, s, {n} thread{'s' * (n > 1)}" for n in counts]
    rows = [["target", "tool", "r², all", "r², MAF ≤ 0.01", *timed, *(["peak, MiB"] * bool(timed))]]
    for data in results["data"]:
        for density in data["densities"]:
            by = {(row["threads"], row["tool"]): row for row in density["runs"]}
            for entry in density["accuracy"]:
                figures = [_figure(entry["bins"][-1]["r2"], 5), _figure(_rare(entry["bins"]), 4)]
                tool = entry["tool"]
                for n in counts:
                    row, base = by.get((n, tool)), by.get((n, reference))
                    text = "-" if row is None else f"{median(row, 'wall_s'):.2f}"
                    if row is not None and tool != reference:
                        text += f" (× {ratio_text(ratios(row, base, 'wall_s'), full=False)})"
                    figures.append(text)
                if counts:
                    runs = [by[n, tool] for n in counts if (n, tool) in by]
                    peaks = [median(row, "peak_mib") for row in runs]
                    figures.append(f"{max(peaks):.0f}" if peaks else "-")
                rows.append([f"{data['name']}, {density['name']}", tool, *figures])
    return rows


def _rare(bins: Sequence[dict]) -> float | None:
    """Mean r² over the bins up to a MAF of .01, weighted by their sites; None if undefined."""
    rare = [row for row in bins if row["label"] in ("<=0.002", "<=0.005", "<=0.01")]
    known = [(row["r2"], row["num_sites"]) for row in rare if row["r2"] is not None]
    num = sum(sites for _, sites in known)
    return sum(r2 * sites for r2, sites in known) / num if num else None


def prepare_table(data: dict) -> list[list[str]]:
    """A header and a row for each tool: what preparing the panel takes, once, on one thread."""
    rows = [["panel for", *_MEASURES.values(), "size, kB"]]
    for row in data["prepare"]:
        texts = [f"{median(row, 'wall_s'):.2f}", f"{median(row, 'cpu_s'):.2f}"]
        texts += [f"{median(row, 'peak_mib'):.0f}", f"{row['size_bytes'] / 1e3:,.0f}"]
        rows.append([row["tool"], *texts])
    return rows


def _figure(value: float | None, digits: int) -> str:
    """A figure as text, "-" where it is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"


def markdown_table(rows: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """A table from a header and rows; all but the first ``texts`` columns are set to the right."""
    line = ["---" if i < texts else "---:" for i in range(len(rows[0]))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], line, *rows[1:]])


def print_tables(results: dict) -> None:
    """Print every table of a comparison to standard output."""
    console = Console(highlight=False, width=max(shutil.get_terminal_size().columns, 200))
    reference = reference_of(results)
    for data in results["data"]:
        _print(console, f"{data['name']}: panel, prepared once", prepare_table(data))
        for density in data["densities"]:
            name = f"{data['name']} {density['name']}"
            _print(console, f"{name}: aggregate r² at untyped sites", accuracy_table(density))
            if errors := error_table(density):
                plain = [[cell.replace("**", "") for cell in row] for row in errors]
                _print(console, f"{name}: chance, and how far {reference} is ahead", plain)
            if density["runs"]:
                _print(console, f"{name}: time and memory", cost_table(density, reference))


def _print(console: Console, title: str, rows: list[list[str]]) -> None:
    """Print one table."""
    table = Table(title=title, title_justify="left")
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)


def cost_plot(data: dict) -> Figure:
    """Wall time and peak memory of every tool, grouped by density and thread count."""
    groups = [(d, n) for d in data["densities"] for n in dict.fromkeys(_threads(d))]
    tools = list(dict.fromkeys(row["tool"] for d in data["densities"] for row in d["runs"]))
    size = max(3.4, 0.16 * len(groups) * len(tools))
    figure = Figure(figsize=(6.2, size), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("wall_s", "peak_mib"), strict=True):
        height = 0.8 / len(tools)
        for i, tool in enumerate(tools):
            for place, (density, threads) in enumerate(groups):
                for row in density["runs"]:
                    if (row["tool"], row["threads"]) != (tool, threads):
                        continue
                    y, value = place + (i + 0.5) * height - 0.4, median(row, name)
                    axes.barh(y, value, height * 0.9, color=SERIES[i % 6], label=tool)
                    text = f"{value:.1f}" if name == "wall_s" else f"{value:.0f}"
                    axes.annotate(text, (value, y), xytext=(3, 0), textcoords="offset points",
                                  va="center", fontsize=7, color=INK)  # fmt: skip
        labels = [f"{d['name']}\n{n} thread{'s' if n > 1 else ''}" for d, n in groups]
        axes.set_yticks(range(len(groups)), labels if name == "wall_s" else [""] * len(groups))
        axes.tick_params(length=0, labelcolor=MUTED, labelsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.16)
        axes.set_xlim(left=0)
        axes.set_xlabel(_MEASURES[name].replace("peak", "peak memory"), color=MUTED, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color=GRID)
        axes.set_axisbelow(True)
    handles = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center",
                  ncols=len(handles), frameon=False, fontsize=9)  # fmt: skip
    return figure


def _threads(density: dict) -> list[int]:
    """Thread counts of a density's runs."""
    return [row["threads"] for row in density["runs"]]


def accuracy_plot(density: dict) -> Figure:
    """r² by MAF bin, a line for each tool."""
    lines = {
        entry["tool"]: [
            math.nan if row["r2"] is None else row["r2"]
            for row in entry["bins"]
            if row["label"] != "all"
        ]
        for entry in density["accuracy"]
    }
    return r2_by_maf(lines)


def about_table(machine: dict, versions: dict[str, str]) -> str:
    """Rows of a table: the machine, then versions."""
    about = [
        ("machine", f"{machine['cpu']}, {machine['cores']} cores, "
                    f"{machine['memory_gib']} GiB, {machine['system']}"),
        *versions.items(),
    ]  # fmt: skip
    return "\n".join(f"| {name} | {value} |" for name, value in about)


def write_page(results: dict, path: Path) -> None:
    """Write the page and its plots.

    Parameters
    ----------
    results
        What results.json holds.
    path
        The page; PNG files go to ``images`` beside it, under the names of data set and density.
    """
    reference = reference_of(results)
    versions = results["versions"]
    tools = [row["tool"] for row in results["data"][0]["densities"][0]["accuracy"]]
    # A tool in another way of use has no version of its own.
    names = [f"{name} {versions[name]}" for name in dict.fromkeys(tools) if name in versions]
    repeats = results["repeats"]
    times = _TIMES.format(
        repeats=f"{repeats} run{'s' if repeats > 1 else ''}", reference=reference
    )  # fmt: skip
    parts = [
        _HEAD.format(
            tools=", ".join(names), date=results["date"], command=results["command"],
            times=times if repeats else "Only accuracy was measured.",
            about=about_table(results["machine"], versions),
        )
    ]  # fmt: skip
    if results["notes"]:
        parts.append("\n".join(f"- {note}" for note in results["notes"]) + "\n")
    parts.append(
        "## At first sight\n\n" + markdown_table(summary_table(results), texts=2) + "\n\n"
        "*r², MAF ≤ 0.01*: the mean of the bins up to there, weighted by their sites. In brackets: "
        f"how many times\nas long as {reference}.\n"
    )
    images = path.parent / "images"
    images.mkdir(parents=True, exist_ok=True)
    for data in results["data"]:
        name = data["name"]
        where = f"{data['contig']}:{data['first_bp']:,}-{data['last_bp']:,}"
        parts.append(
            f"## {name}\n\n{data['num_haplotypes']:,} panel haplotypes, "
            f"{data['num_sites']:,} sites in {where}.\n"
        )
        if data.get("made_by"):  # results of earlier versions do not say
            parts.append(f"Made by `{data['made_by']}`.\n")
        if data.get("about"):
            parts.append(f"These stand for {data['about']}.\n")
        if any(density["runs"] for density in data["densities"]):
            save_png(cost_plot(data), images / f"{name}-cost.png")
            parts.append(f"![Wall time and peak memory, {name}](images/{name}-cost.png)\n")
        parts.append("The panel, prepared once:\n\n" + markdown_table(prepare_table(data)) + "\n")
        for density in data["densities"]:
            image = f"{name}-{density['name']}-r2.png"
            save_png(accuracy_plot(density), images / image)
            phase = "phased" if density["phased"] else "unphased"
            parts += [
                f"### {name}, {density['name']}\n\n{density['num_samples']:,} samples, {phase}, "
                f"{density['num_typed']:,} typed sites.\n",
                markdown_table(accuracy_table(density)) + "\n",
                "*site r²*: mean over the sites that vary; *carriers*: share of right best guesses "
                "among those\nwho carry the minor allele, truly or as called; *absent*: sites that "
                "the output lacks.\n" + _SWITCHES * (not density["phased"]),
            ]
            if errors := error_table(density):
                parts += [
                    f"How far {reference} is ahead of the others, and the standard error of that, "
                    "by leaving out one target\nsample after the other; in bold type where it is "
                    "more than two standard errors.\n",
                    markdown_table(errors) + "\n",
                ]
            parts.append(f"![r² by MAF, {name} {density['name']}](images/{image})\n")
            if density["runs"]:
                parts.append(markdown_table(cost_table(density, reference), texts=2) + "\n")
    write_text(path, "\n".join(parts))
