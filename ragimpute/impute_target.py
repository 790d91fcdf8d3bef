"""The target of an imputation run: read around the region, checked, and warned of."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError
from ragimpute.impute_summary import ImputeSummary
from ragimpute.match import Match, target_region
from ragimpute.panel import Panel
from ragimpute.sites import Region
from ragimpute.vcf import Target, read_target

log = logging.getLogger("ragimpute")


def read_phased_target(
    target: str | Path, panel: Panel, region: Region | None, buffer_cm: float, threads: int
) -> Target:
    """Read the target around the region, and refuse unphased genotypes."""
    wide = region
    if region is not None:
        start, stop = panel.site_range(region)
        cm = panel.position_cm
        left = int(np.searchsorted(cm, cm[start] - buffer_cm))
        right = int(np.searchsorted(cm, cm[stop - 1] + buffer_cm, side="right"))
        bp = panel.sites.position_bp
        wide = Region(region.contig, int(bp[left]), int(bp[right - 1]) + 1)
    # A region may well have no typed site, such as a workflow's piece of a contig.
    wide = target_region(target, panel, wide)
    given = read_target(target, region=wide, threads=threads, may_be_empty=region is not None)
    loose = ~given.phased
    if loose.any():
        site, sample = np.argwhere(loose)[0]
        raise InputError(
            f"target {target} is not phased: {int(loose.sum())} unphased heterozygous genotypes, "
            f"the first at {given.sites.contig}:{given.sites.position_bp[site]} in sample "
            f"{given.samples[sample]}",
            hint="phase it against the panel first, e.g. with Beagle, SHAPEIT or Eagle",
        )
    return given


def warn_of_target(
    summary: ImputeSummary,
    target: Target,
    panel: Panel,
    shared: Match,
    start: int,
    stop: int,
) -> None:
    """Collect what a user should know before the result is used."""
    counts = shared.counts
    records = sum(counts.values())
    at = panel.sites.position_bp
    within = np.count_nonzero(
        (target.sites.position_bp >= at[0]) & (target.sites.position_bp <= at[-1])
    )
    matched = counts["matched"] + counts["swapped"]
    if target.sites.contig != panel.contig:
        summary.warnings.append(
            f"contig {panel.contig} of the panel is {target.sites.contig} in the target, and so in "
            "the output"
        )
    if records == 0:
        summary.warnings.append(
            f"the target has no record in the region and its buffer, which has {stop - start} "
            "panel sites: every sample is given the panel's frequencies, and DR2 is 0"
        )
    if counts["swapped"]:
        summary.warnings.append(
            f"{counts['swapped']} target records have REF and ALT swapped against the panel; "
            "their alleles were recoded"
        )
    if matched < 0.5 * within:
        summary.warnings.append(
            f"only {matched} of the {within} target records within the panel's range are panel "
            "sites: check the genome build and strand"
        )
    both = sorted(set(target.samples) & set(panel.samples))
    if both:
        shown = ", ".join(both[:3]) + (", ..." if len(both) > 3 else "")
        summary.warnings.append(
            f"{len(both)} target samples are in the panel too ({shown}): they will copy themselves"
        )
    inside = (shared.panel_index >= start) & (shared.panel_index < stop)
    missing = int((shared.alleles == -1).sum())
    summary.counts["typed"] = int(inside.sum())
    summary.counts["missing_alleles"] = missing
    for line in summary.warnings:
        log.warning(line)
