"""Sections of reports about an evaluation and an imputation: figures, plots and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ragimpute.accuracy.metrics import MAF_BINS, maf_bin
from ragimpute.reports import plots
from ragimpute.reports.figures import DR2_BINS, DR2_CLASSES, dr2_classes
from ragimpute.reports.wording import (
    by_stage,
    duration,
    number,
    package_name,
    percent,
    setting,
    setting_name,
    words,
)
from ragimpute.target.qc import NOT_RECORDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ragimpute.accuracy.scores import BinScores, Evaluation
    from ragimpute.imputation.summary import ImputeSummary

# What became of target records (the keys of ``ImputeSummary.counts``), in words.
_FATES = {
    "matched": "matched",
    "swapped": "matched, REF and ALT swapped",
    "flipped": "matched on the other strand",
    "flipped_swapped": "matched on the other strand, swapped",
    "not_in_panel": "not in the panel",
    "allele_mismatch": "other alleles than the panel",
    "ambiguous_strand": "A/T or C/G of uncertain strand",
    "duplicate": "duplicates",
    "invalid": "invalid alleles",
    "reference_blocks": "reference blocks of a gVCF",
    "symbolic": "symbolic alleles",
    "star": "alleles *",
    "no_alt": "no ALT",
    "position_0": "at position 0",
    "repeated": "ALTs that their record repeats",
}
_COUNTS = {
    "truth_records": "records of the truth",
    "truth_further_alts": "further ALTs of these records",
    "samples": "samples scored",
    "samples_without_truth": "imputed samples without truth",
    "scored": "sites scored",
    "typed": "typed sites, left out",
    "not_in_panel": "true sites that the panel lacks",
    "not_in_truth": "panel sites that the truth lacks",
    "duplicate": "true sites given twice",
    "left_out": "true ALTs that name no allele",
    "absent": "scored sites absent from the imputed file",
    "missing_truth": "missing true genotypes",
    "missing_dosage": "missing dosages",
    "out_of_range": "dosages outside [0, ploidy]",
}
_FILES = {"target": "target", "panel": "panel", "out": "output", "model": "model"}
NAN = float("nan")
_LOWEST_SAMPLES = 10


@dataclass
class Table:
    """A table: the first cell of a row is its name.

    Attributes
    ----------
    caption, head, rows
        The line above the table, the cells of its header, and those of each row.
    has_total
        Whether the last row is a total of the others.
    best
        The cell to be marked in each column, "" for none.
    """

    caption: str
    head: list[str]
    rows: list[list[str]]
    has_total: bool = False
    best: list[str] = field(default_factory=list)


@dataclass
class Section:
    """A part of a page; fields that are empty are left out of the page.

    Attributes
    ----------
    id, heading, intro
        Anchor, heading and a sentence below it.
    tiles
        The figures at the top: each has "name", "value" and perhaps "note".
    about
        Names and values of what the section is about, shown first.
    notes
        Warnings.
    figures
        "heading", "caption" and "svg".
    tables
        See :class:`Table`.
    pairs, texts
        (caption, names and values); (heading, text), folded.
    """

    id: str
    heading: str
    intro: str = ""
    tiles: list[dict[str, str]] = field(default_factory=list)
    about: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pairs: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def tile(self, name: str, value: str, note: str = "") -> None:
        """Add a figure at the top of the section."""
        self.tiles.append({"name": name, "value": value, "note": note})

    def plot(self, figure: Figure | None, heading: str, caption: str, alt: str) -> None:
        """Add a plot, unless there is none."""
        if figure is not None:
            name = f"{self.id}-f{len(self.figures) + 1}"
            svg = plots.to_svg(figure, name, alt)
            self.figures.append({"heading": heading, "caption": caption, "svg": svg})


def evaluate_section(
    evaluation: Evaluation, *, name: str, others: Mapping[str, Evaluation]
) -> Section:
    """The section about accuracy."""
    every = {name: evaluation, **others}
    overall = evaluation.overall
    section = Section("accuracy", "Accuracy", notes=list(evaluation.notes))
    for other, result in others.items():
        section.notes += [f"{other}: {line}" for line in result.notes]
    section.intro = (
        f"{overall.num_sites:,} untyped sites on {evaluation.contig}:{evaluation.first_bp:,}-"
        f"{evaluation.last_bp:,} in {evaluation.counts.get('samples', 0):,} samples. Minor alleles "
        "and frequencies are those of the panel."
    )
    _add_accuracy_tiles(section, evaluation)
    _add_accuracy_plots(section, evaluation, every, name)
    if others:
        section.tables.append(_comparison(every))
    for key, result in every.items():
        caption = "By minor allele frequency" + (f": {key}" if others else "")
        section.tables.append(_bin_table(result, caption))
    counts = [(_COUNTS.get(key, words(key)), f"{n:,}") for key, n in evaluation.counts.items()]
    files = [(key, str(getattr(evaluation, key))) for key in ("truth", "imputed", "panel")]
    section.pairs = [("What was counted", counts), ("Files", files)]
    return section


def _add_accuracy_tiles(section: Section, evaluation: Evaluation) -> None:
    """Add the figures at the top of the section about accuracy."""
    overall = evaluation.overall
    section.tile("Aggregate r²", number(overall.r2, 4), "all sites and samples pooled")
    section.tile("Mean r² of sites", number(overall.mean_site_r2, 4), "where the truth varies")
    section.tile("Concordance", number(overall.concordance, 4), "minor-allele carriers")
    section.tile(
        "Mean DR2 of varying sites",
        number(overall.mean_dr2, 4),
        f"{overall.num_varying:,} sites; their true r² {number(overall.true_r2, 4)}",
    )
    section.tile("Calibration error", number(evaluation.calibration_error, 4), "of dosage / ploidy")
    if evaluation.phase is not None:
        phase = evaluation.phase
        section.tile(
            "Switch errors",
            f"{phase.switch_rate:.2%}",
            f"of {phase.num_pairs:,} pairs of het sites",
        )


def _add_accuracy_plots(
    section: Section, evaluation: Evaluation, every: Mapping[str, Evaluation], name: str
) -> None:
    """Add plots of accuracy by frequency and of calibration; ``every`` evaluation is a line."""
    lines = {key: [row.r2 for row in result.bins] for key, result in every.items()}
    section.plot(
        plots.r2_by_maf(lines, tall=True),
        "Accuracy by allele frequency",
        "Squared correlation of dosage with truth, all sites of a bin pooled. Rare variants are "
        "on the left.",
        "Line plot of aggregate r2 against minor allele frequency. "
        + "; ".join(f"{key}: {_alt_bins(result.bins, 'r2')}" for key, result in every.items()),
    )
    curves = {key: result.quality for key, result in every.items() if result.quality[:, 2].any()}
    section.plot(
        plots.reliability(
            curves, x="DR2 (estimated r²)", y="mean true r² of sites", count="sites"
        ) if curves else None,
        "Can DR2 be trusted?",
        "Sites grouped by their estimated accuracy. On the dotted line a filter at DR2 = x keeps "
        "what it promises; above it, sites are better than they say.",
        "Calibration plot of DR2 against true r2. " + _alt_curve(evaluation.quality),
    )  # fmt: skip
    bins = evaluation.bins
    section.plot(
        plots.quality_by_maf([b.mean_dr2 for b in bins], [b.true_r2 for b in bins])
        if any(not math.isnan(b.mean_dr2) for b in bins) else None,
        "DR2 and truth by allele frequency" + (f": {name}" if len(every) > 1 else ""),
        "Means over sites where the truth varies. Where the two marks stand apart, DR2 is off.",
        f"Mean DR2: {_alt_bins(bins, 'mean_dr2')}. Mean true r2: {_alt_bins(bins, 'true_r2')}.",
    )  # fmt: skip
    section.plot(
        plots.reliability(
            {key: result.calibration for key, result in every.items()},
            x="imputed probability of the minor allele (dosage / ploidy)",
            y="observed frequency",
            count="genotypes",
        ),
        "Do dosages mean what they say?",
        "Genotypes grouped by dosage; on the dotted line, of those with probability x a share x "
        "carries the allele.",
        "Reliability plot of dosage. " + _alt_curve(evaluation.calibration),
    )


def _comparison(every: Mapping[str, Evaluation]) -> Table:
    """The table of aggregate r2 of several files, with the best of each column marked."""
    labels = [f"≤ {edge:g}" for edge in MAF_BINS[1:]]
    rows = []
    for key, result in every.items():
        figures = [number(row.r2, 4) for row in result.bins]
        rows.append([key, *figures, number(result.overall.r2, 5)])
    best = [""]
    for column in list(zip(*rows, strict=True))[1:]:
        known = [cell for cell in column if cell != "–"]
        best.append(max(known, key=float, default=""))
    caption = "Aggregate r² by MAF bin, the best of each column marked"
    return Table(caption, ["", *labels, "all"], rows, best=best)


def _bin_table(evaluation: Evaluation, caption: str) -> Table:
    """The table of all figures of each bin."""
    head = ["MAF", "sites", "aggregate r²", "varying sites", "their mean r²", "their mean DR2",
            "true r² of sites with DR2", "correlation of DR2 with it", "concordance"]  # fmt: skip
    rows = []
    for row in [*evaluation.bins, evaluation.overall]:
        name = "all" if row.label == "all" else f"{row.maf_low:g} – {row.maf_high:g}"
        values = (row.r2, row.mean_site_r2, row.mean_dr2, row.true_r2, row.dr2_correlation)
        first, *figures = [number(value, 4) for value in (*values, row.concordance)]
        rows.append([name, f"{row.num_sites:,}", first, f"{row.num_varying:,}", *figures])
    return Table(caption, head, rows, has_total=True)


def impute_section(summary: ImputeSummary) -> Section:
    """The section about an imputation."""
    section = Section("impute", "Imputation", notes=list(summary.warnings))
    section.intro = (
        f"{summary.num_samples:,} samples imputed from {summary.num_haplotypes:,} panel haplotypes "
        f"with model “{summary.model}”."
    )
    _add_quality(section, summary)
    fates = {key: n for key, n in summary.counts.items() if key not in NOT_RECORDS}
    named = {_FATES.get(key, words(key)): n for key, n in fates.items()}
    _add_fates(section, named)
    _add_costs(section, summary)
    _add_samples(section, summary)
    extra = [
        (label, f"{summary.counts[key]:,}")
        for key, label in NOT_RECORDS.items()
        if key in summary.counts
    ]
    files = [(name, str(getattr(summary, key))) for key, name in _FILES.items()]
    settings = [
        (setting_name(key), setting(value))
        for key, value in summary.settings.items()
        if key not in ("region", "model")  # shown with the run and the files
    ]
    section.about = _run_rows(summary)
    section.pairs = [
        ("Files", files),
        (
            "Target",
            [
                *(
                    summary.qc.rows()
                    if summary.qc is not None
                    else [(name, f"{n:,}") for name, n in named.items()]
                ),
                *extra,
            ],
        ),
        ("Settings", settings),
        ("Versions", [(package_name(name), text) for name, text in summary.versions.items()]),
    ]
    return section


def _run_rows(summary: ImputeSummary) -> list[tuple[str, str]]:
    """When and how the run was started, and what it is about."""
    region = str(summary.settings.get("region", "all"))
    position = summary.position_bp
    place = f"the whole of the panel's contig {summary.contig}".rstrip()
    rows = [
        ("started", summary.started.replace("T", " ") or "not recorded"),
        ("command", summary.command or "none: called from Python"),
        ("region", place if region == "all" else region),
    ]
    if len(position):
        rows.append(("sites from, to", f"{int(position[0]):,} – {int(position[-1]):,} bp"))
        rows.append(("genetic map", summary.genetic_map or "not recorded in the panel"))
        rows.append(("span on the map", f"{summary.span_cm:.4g} cM"))
    return rows


def _add_quality(section: Section, summary: ImputeSummary) -> None:
    """Add the figures at the top, and plots of the estimated accuracy of the imputed sites."""
    typed = np.asarray(summary.typed, bool)
    # Rounded to six digits, as a MAF in float32 may lie just above the edge of its bin.
    maf, dr2 = np.round(np.asarray(summary.maf, float), 6), np.asarray(summary.dr2, float)
    untyped = ~typed
    mean = float(dr2[untyped].mean()) if untyped.any() else NAN
    good = float((dr2[untyped] >= 0.8).mean()) if untyped.any() else NAN
    section.tile("Sites written", f"{summary.num_sites:,}", f"{summary.num_typed:,} typed")
    section.tile("Samples", f"{summary.num_samples:,}")
    section.tile("Mean DR2", number(mean, 4), "all untyped sites")
    section.tile("DR2 ≥ 0.8", percent(good), "of untyped sites")
    section.tile("Time", duration(summary.wall_seconds or sum(summary.seconds.values())))
    section.tile("Peak memory", f"{summary.peak_rss_mb:,.0f} MiB")
    if untyped.any():
        classes = dr2_classes(maf[untyped], dr2[untyped])
        section.plot(
            plots.dr2_by_maf(classes),
            "Estimated accuracy by allele frequency",
            "Share of untyped sites in four classes of DR2, 1 being certain.",
            "Stacked bars of DR2 by minor allele frequency; the table below has the numbers.",
        )
        section.plot(
            plots.dr2_along(np.asarray(summary.position_bp), maf, dr2, typed),
            "Estimated accuracy along the chromosome",
            "Means over all untyped sites of a class. Dips may come from few typed sites, or from "
            "differences of panel and target.",
            "Line plot of mean DR2 of untyped sites by position, for three classes of MAF, above "
            "the number of typed sites in a Mb.",
        )
        section.plot(
            plots.histogram(
                dr2[untyped], bins=DR2_BINS, x="DR2 (estimated r²)", y="untyped sites"
            ),
            "Estimated accuracy of sites",
            highest_bar(dr2[untyped]),
            "Histogram of DR2 of untyped sites: "
            + ", ".join(f"{low:g} to {high:g}: {n:,}" for (low, high), n in zip(
                DR2_CLASSES, of_class(dr2[untyped]).tolist(), strict=True)) + ".",
        )  # fmt: skip
        section.tables.append(_dr2_table(maf[untyped], dr2[untyped], classes))


def highest_bar(dr2: np.ndarray) -> str:
    """Where the histogram of DR2, shape (m,), has its highest bar, in words."""
    counts, edges = np.histogram(dr2, bins=DR2_BINS, range=(0, 1))
    at = int(counts.argmax())
    low, high = np.round(edges[at : at + 2], 6)
    return (
        f"The highest bar: {counts[at]:,} of {len(dr2):,} untyped sites have DR2 from {low:g} to "
        f"{high:g}."
    )


def of_class(dr2: np.ndarray) -> np.ndarray:
    """How many of the sites, shape (m,), have DR2 in each of ``DR2_CLASSES``."""
    out: np.ndarray = dr2_classes(np.full(len(dr2), 0.5), dr2).sum(axis=0)
    return out


def _add_fates(section: Section, named: Mapping[str, int]) -> None:
    """Add a plot of how many records of the target had each fate, ``named`` in words."""
    total = max(1, sum(named.values()))
    texts = [f"{n:,} ({n / total:.1%})" if n else "0" for n in named.values()]
    alt = ", ".join(f"{name} {n:,}" for name, n in named.items())
    section.plot(
        plots.bars(named, x="records of the target", texts=texts) if named else None,
        "What became of the target's records",
        "Only matched records inform the imputation.",
        f"Bar plot of target records: {alt}.",
    )


def _add_costs(section: Section, summary: ImputeSummary) -> None:
    """Add plots of time and memory by stage."""
    stages = by_stage({name: s for name, s in summary.seconds.items() if s > 0})
    memory = by_stage(summary.peak_mb)
    section.plot(
        plots.bars(stages, x="seconds", texts=[duration(s) for s in stages.values()])
        if stages else None,
        "Time by stage",
        "Wall-clock time of this run.",
        "Bar plot of seconds: " + ", ".join(f"{name} {s:.1f}" for name, s in stages.items()) + ".",
    )  # fmt: skip
    section.plot(
        plots.bars(memory, x="MiB", texts=[f"{n:,.0f}" for n in memory.values()])
        if memory else None,
        "Memory by stage",
        "Highest resident memory up to the end of each stage.",
        "Bar plot of MiB: " + ", ".join(f"{k} {n:.0f}" for k, n in memory.items()) + ".",
    )  # fmt: skip


def _add_samples(section: Section, summary: ImputeSummary) -> None:
    """Add a plot of the call rates of all samples, and a table of the lowest."""
    if summary.qc is None or not summary.qc.call_rate:
        return
    rates = summary.qc.call_rate
    lowest = sorted(rates.items(), key=lambda item: item[1])[:_LOWEST_SAMPLES]
    section.plot(
        plots.histogram(
            np.array(list(rates.values())), bins=20, x="share of genotypes observed", y="samples"
        ),
        "Call rates of the samples",
        "At the target's own records; samples below one half are named in a warning.",
        f"Histogram of {len(rates):,} call rates; the lowest is {lowest[0][1]:.3f}.",
    )
    if lowest[0][1] < 1:
        rows = [[name, f"{rate:.2%}"] for name, rate in lowest if rate < 1]
        section.tables.append(
            Table("Samples of the lowest call rates", ["sample", "call rate"], rows)
        )


def _dr2_table(maf: np.ndarray, dr2: np.ndarray, classes: np.ndarray) -> Table:
    """Untyped sites by DR2 and MAF."""
    head = [
        "MAF",
        "untyped sites",
        "their mean DR2",
        *(f"{low:g} – {high:g}" for low, high in DR2_CLASSES),
    ]
    group, rows = maf_bin(maf), []
    for i, counts in enumerate(classes):
        here = dr2[group == i]
        mean = number(float(here.mean()) if len(here) else NAN, 4)
        name = f"{MAF_BINS[i]:g} – {MAF_BINS[i + 1]:g}"
        rows.append([name, f"{len(here):,}", mean, *(f"{n:,}" for n in counts)])
    absent = dr2[group < 0]  # sites where the panel has one allele
    if len(absent):
        counts = [f"{n:,}" for n in of_class(absent)]
        rows.insert(0, ["0", f"{len(absent):,}", number(float(absent.mean()), 4), *counts])
    total = [f"{n:,}" for n in of_class(dr2)]
    rows.append(["all", f"{len(dr2):,}", number(float(dr2.mean()), 4), *total])
    caption = "All untyped sites by MAF and DR2, whether the allele is among the targets or not"
    return Table(caption, head, rows, has_total=True)


def _alt_bins(bins: Sequence[BinScores], name: str) -> str:
    """A figure of each bin, as text for readers who do not see the plot."""
    return ", ".join(f"{row.maf_high:g}: {number(getattr(row, name), 3)}" for row in bins)


def _alt_curve(curve: np.ndarray) -> str:
    """The points of a calibration curve, as text for readers who do not see the plot."""
    points = [f"{x:.2f}: {y:.2f}" for x, y, n in curve.tolist() if n > 0]
    return "Given and observed: " + ", ".join(points) + "."
