"""The section of a report about a genome: its chromosomes side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.reports import plots
from ragimpute.reports.sections import Section, Table
from ragimpute.reports.wording import duration, number, percent

_COLUMNS = [
    "sites", "typed", "mean DR2", "DR2 ≥ 0.3", "DR2 ≥ 0.8", "warnings", "time", "peak memory, MiB",
]  # fmt: skip


def genome_section(figures: Mapping[str, Any]) -> Section:
    """The section about the runs of a genome.

    Parameters
    ----------
    figures
        From :func:`ragimpute.reports.genome.genome_figures`.
    """
    chromosomes, total = figures["chromosomes"], figures["total"]
    section = Section("genome", "Genome", notes=list(figures["notes"]))
    for run in figures["runs"]:
        section.notes += [f"{_place(run)}: {line}" for line in run["warnings"]]
    section.intro = (
        f"{_many(total['num_runs'], 'run')} of {_many(len(chromosomes), 'chromosome')}. DR2 is the "
        "estimated "
        "squared correlation of dosage and genotype, here over the sites that were not typed; 1 is "
        "certain."
    )
    section.tile("Chromosomes", f"{len(chromosomes):,}", _many(total["num_runs"], "run"))
    section.tile("Samples", f"{total['num_samples']:,}")
    section.tile("Sites written", f"{total['num_sites']:,}", f"{total['num_typed']:,} typed")
    section.tile("Mean DR2", number(total["mean_dr2"], 4), "all untyped sites")
    section.tile("DR2 ≥ 0.8", percent(total["share_dr2_0.8"]), "of untyped sites")
    section.tile("Time", duration(total["wall_seconds"]), "all runs, one after the other")
    section.tile("Peak memory", f"{total['peak_rss_mib']:,.0f} MiB", "of the largest run")
    _add_plots(section, chromosomes)
    rows = [[one["contig"], f"{one['num_runs']:,}", *_cells(one)] for one in chromosomes]
    rows.append(["all", f"{total['num_runs']:,}", *_cells(total)])
    section.tables.append(
        Table("Chromosomes; DR2 of untyped sites", ["chromosome", "runs", *_COLUMNS], rows, True)
    )
    section.tables.append(_maf_table(chromosomes, total))
    if total["num_runs"] > len(chromosomes):
        rows = [[_place(run), *_cells(run)] for run in figures["runs"]]
        section.tables.append(Table("Runs", ["sites from, to (bp)", *_COLUMNS], rows))
    section.tables.append(_sources(figures["runs"]))
    return section


def _add_plots(section: Section, chromosomes: Sequence[Mapping[str, Any]]) -> None:
    """Add plots of accuracy and of time by chromosome."""
    shown = {one["contig"]: one["mean_dr2"] for one in chromosomes if one["mean_dr2"] is not None}
    section.plot(
        plots.bars(shown, x="mean DR2", texts=[f"{x:.3f}" for x in shown.values()])
        if shown else None,
        "Estimated accuracy by chromosome",
        "Mean DR2 over all untyped sites.",
        "Bar plot of mean DR2: " + ", ".join(f"{k} {x:.3f}" for k, x in shown.items()) + ".",
    )  # fmt: skip
    unit = 60 if max(one["wall_seconds"] for one in chromosomes) >= 120 else 1
    unit_name = "minutes" if unit == 60 else "seconds"
    times = {one["contig"]: one["wall_seconds"] / unit for one in chromosomes}
    section.plot(
        plots.bars(
            times, x=unit_name, texts=[duration(one["wall_seconds"]) for one in chromosomes]
        ),
        "Time by chromosome",
        "Wall-clock time of all runs of a chromosome, added up.",
        f"Bar plot of {unit_name}: " + ", ".join(f"{k} {x:.1f}" for k, x in times.items()) + ".",
    )


def _cells(one: Mapping[str, Any]) -> list[str]:
    """The figures of a chromosome, a run or all, in the order of ``_COLUMNS``."""
    return [
        f"{one['num_sites']:,}",
        f"{one['num_typed']:,}",
        number(one["mean_dr2"], 4),
        percent(one["share_dr2_0.3"]),
        percent(one["share_dr2_0.8"]),
        f"{len(one['warnings']):,}",
        duration(one["wall_seconds"]),
        f"{one['peak_rss_mib']:,.0f}",
    ]


def _maf_table(chromosomes: Sequence[Mapping[str, Any]], total: Mapping[str, Any]) -> Table:
    """Mean DR2 of untyped sites by chromosome and MAF bin."""
    head = ["chromosome", *(f"{low:g} – {high:g}" for low, high in pairwise(MAF_BINS))]
    rows = [
        [name, *(number(row["mean_dr2"], 4) for row in one["dr2_by_maf"])]
        for name, one in [*((one["contig"], one) for one in chromosomes), ("all", total)]
    ]
    return Table("Mean DR2 of untyped sites by minor allele frequency", head, rows, True)


def _sources(runs: Sequence[Mapping[str, Any]]) -> Table:
    """What each run was made of, and when."""
    head = ["sites from, to (bp)", "started", "panel haplotypes", "samples", "model", "genetic map",
            "span, cM", "output", "report"]  # fmt: skip
    rows = []
    for one in runs:
        run, files = one["run"], one["files"]
        rows.append([
            _place(one),
            str(run.get("started") or "–").replace("T", " "),
            f"{one['num_haplotypes']:,}",
            f"{one['num_samples']:,}",
            str(one["model"] or "–"),
            str(run.get("genetic_map") or "–"),
            number(run.get("span_cm"), 2),
            str(files.get("out", "–")),
            one["report"],
        ])  # fmt: skip
    return Table("What the runs were made of", head, rows)


def _place(run: Mapping[str, Any]) -> str:
    """Where a run's sites are."""
    return f"{run['contig']}:{run['first_bp']:,}-{run['last_bp']:,}"


def _many(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
