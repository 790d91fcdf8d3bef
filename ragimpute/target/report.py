"""Warnings about a target: records and samples that cannot be used, or look wrong."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import numpy as np

from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.reader import Panel
from ragimpute.sites import some_names
from ragimpute.target.match import Match
from ragimpute.target.overlap import compare_positions, likely_cause
from ragimpute.target.qc import QcSummary

log = logging.getLogger("ragimpute")

_LOW_OVERLAP = 0.5


@dataclass(kw_only=True)
class TargetReport:
    """What is found of a target before anything is done with it.

    Attributes
    ----------
    num_samples, num_haplotypes
        Target samples that are used; panel haplotypes.
    counts
        Target records by what became of them (see :class:`ragimpute.target.match.Match`), and
        genotypes.
    qc
        What the target looks like beside the panel.
    untyped_samples
        Samples without a genotype at any panel site, which are given the panel's frequencies.
    warnings
        What a user should know, one line each.
    """

    num_samples: int = 0
    num_haplotypes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    qc: QcSummary | None = None
    untyped_samples: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def warn_of_target(
    report: TargetReport,
    target: Target,
    panel: Panel,
    shared: Match,
    start: int,
    stop: int,
) -> None:
    """Collect what a user should know before the result is used."""
    counts, warn = shared.counts, report.warnings.append
    if target.sites.contig != panel.contig:
        warn(
            f"contig {panel.contig} of the panel is {target.sites.contig} in the target, and so in "
            "the output"
        )
    if not len(shared.panel_index):
        what = "no record" if shared.num_records == 0 else "no record that the panel has"
        warn(
            f"the target has {what} in the region and its buffer, which has {stop - start} "
            "panel sites: every sample is given the panel's frequencies, and DR2 is 0"
        )
    if counts["swapped"]:
        warn(
            f"{counts['swapped']} target records have REF and ALT swapped against the panel; "
            "their alleles were recoded"
        )
    flipped = counts["flipped"] + counts["flipped_swapped"]
    if flipped:
        warn(
            f"{flipped} target records are of the other strand than the panel "
            f"({counts['flipped_swapped']} of them swapped too); their alleles were recoded"
        )
    if counts["ambiguous_strand"]:
        warn(
            f"{counts['ambiguous_strand']} A/T or C/G records are of uncertain strand and were "
            "left out (--palindromes keep takes them as they stand)"
        )
    qc = report.qc
    if qc is not None and shared.num_records and qc.overlap < _LOW_OVERLAP:
        found = compare_positions(target, panel, 0, panel.num_sites)
        warn(
            f"only {len(shared.panel_index)} of the {found.num_records} target records within the "
            f"panel's range are panel sites; {likely_cause(target, panel, found)}"
        )
    _warn_of_samples(report, target, panel, shared)
    inside = (shared.panel_index >= start) & (shared.panel_index < stop)
    report.counts["typed"] = int(inside.sum())
    report.counts["missing_alleles"] = int((shared.alleles == -1).sum())
    for line in report.warnings:
        log.warning(line)


def _warn_of_samples(report: TargetReport, target: Target, panel: Panel, shared: Match) -> None:
    """Collect what is odd about samples."""
    both = sorted(set(target.samples) & set(panel.samples))
    if both:
        report.warnings.append(
            f"{len(both)} target samples are in the panel too ({some_names(both)}): they will copy "
            "themselves"
        )
    if not len(shared.panel_index):
        return
    typed = (shared.alleles >= 0).any(axis=0).any(axis=-1)
    bare = [target.samples[i] for i in np.flatnonzero(~typed)]
    if bare:
        report.warnings.append(
            f"{len(bare)} samples have no genotype at any panel site ({some_names(bare)}): they "
            "are given the panel's frequencies"
        )
        report.untyped_samples = bare
    low = [] if report.qc is None else [x for x in report.qc.low_samples if x not in bare]
    if low:
        report.warnings.append(
            f"{len(low)} samples have less than half of their genotypes ({some_names(low)}): "
            "expect poor imputation of these"
        )
