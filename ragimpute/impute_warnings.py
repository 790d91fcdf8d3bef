"""What a user should know before the result of an imputation is used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragimpute.disk_space import check_space
from ragimpute.impute_output import Outputs, TypedOnly
from ragimpute.impute_summary import ImputeSummary
from ragimpute.impute_target import some_names
from ragimpute.impute_windows import WindowResult
from ragimpute.match import Match
from ragimpute.overlap import compare_positions, likely_cause
from ragimpute.panel import Panel
from ragimpute.vcf import Target

log = logging.getLogger("ragimpute")

_LOW_OVERLAP = 0.5
# Left-out dosages of a common site that run against what was observed: its alleles are wrong.
_REVERSED, _COMMON = -0.3, 0.05


def warn_of_target(
    summary: ImputeSummary,
    target: Target,
    panel: Panel,
    shared: Match,
    start: int,
    stop: int,
) -> None:
    """Collect what a user should know before the result is used."""
    counts, warn = shared.counts, summary.warnings.append
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
    qc = summary.qc
    if qc is not None and shared.num_records and qc.overlap < _LOW_OVERLAP:
        found = compare_positions(target, panel, 0, panel.num_sites)
        warn(
            f"only {len(shared.panel_index)} of the {found.num_records} target records within the "
            f"panel's range are panel sites; {likely_cause(target, panel, found)}"
        )
    _warn_of_samples(summary, target, panel, shared)
    inside = (shared.panel_index >= start) & (shared.panel_index < stop)
    summary.counts["typed"] = int(inside.sum())
    summary.counts["missing_alleles"] = int((shared.alleles == -1).sum())
    for line in summary.warnings:
        log.warning(line)


def _warn_of_samples(summary: ImputeSummary, target: Target, panel: Panel, shared: Match) -> None:
    """Collect what is odd about samples."""
    both = sorted(set(target.samples) & set(panel.samples))
    if both:
        summary.warnings.append(
            f"{len(both)} target samples are in the panel too ({some_names(both)}): they will copy "
            "themselves"
        )
    if not len(shared.panel_index):
        return
    typed = (shared.alleles >= 0).any(axis=0).any(axis=-1)
    bare = [target.samples[i] for i in np.flatnonzero(~typed)]
    if bare:
        summary.warnings.append(
            f"{len(bare)} samples have no genotype at any panel site ({some_names(bare)}): they "
            "are given the panel's frequencies"
        )
        summary.untyped_samples = bare
    low = [] if summary.qc is None else [x for x in summary.qc.low_samples if x not in bare]
    if low:
        summary.warnings.append(
            f"{len(low)} samples have less than half of their genotypes ({some_names(low)}): "
            "expect poor imputation of these"
        )


def warn_of_device(summary: ImputeSummary, device: str, *, uses_torch: bool) -> None:
    """Say so where a GPU was asked for and the model has nothing that could run there."""
    if device.startswith("cuda") and not uses_torch:
        line = (
            f"--device {device} does nothing with model {summary.model}, which numpy computes on "
            "the CPU"
        )
        summary.warnings.append(line)
        log.warning(line)


def warn_of_space(summary: ImputeSummary, folder: Path, *, output: int, temporary: int) -> None:
    """Say where the disk may fill up, or refuse what cannot fit; see ``check_space``."""
    line = check_space(folder, output=output, temporary=temporary)
    if line is not None:
        summary.warnings.append(line)
        log.warning(line)


def warn_of_result(
    summary: ImputeSummary,
    panel: Panel,
    windows: Sequence[tuple[tuple[int, int, int, int], WindowResult]],
    outputs: Outputs,
    typed_only: TypedOnly | None,
) -> None:
    """Collect what the result shows of the input."""
    already = len(summary.warnings)
    position, contig = panel.sites.position_bp, panel.contig
    bare = [window for window, result in windows if not result.has_typed]
    if bare and len(bare) < len(windows):
        shown = ", ".join(f"{contig}:{position[w[1]]}-{position[w[2] - 1]}" for w in bare[:3])
        summary.warnings.append(
            f"{len(bare)} windows have no typed site ({shown}{', ...' if len(bare) > 3 else ''}): "
            "they are given the panel's frequencies, and DR2 is 0"
        )
    against = [
        window[1] + int(i)
        for window, result in windows
        for i in np.flatnonzero(result.correlation < _REVERSED)
    ]
    against = [i for i in against if _COMMON < panel.af[i] < 1 - _COMMON]
    if against:
        shown = ", ".join(f"{contig}:{position[i]}" for i in against[:3])
        summary.warnings.append(
            f"{len(against)} typed sites run against the sites around them ({shown}"
            f"{', ...' if len(against) > 3 else ''}): their strand or allele order is probably "
            "wrong"
        )
    if outputs.num_low_r2:
        summary.counts["below_min_r2"] = outputs.num_low_r2
    if typed_only is not None:
        summary.counts["typed_only"] = len(typed_only.sites)
        if typed_only.num_unphased:
            summary.warnings.append(
                f"{typed_only.num_unphased} unphased genotypes of records that the panel lacks are "
                "written in the order of the file: there is nothing to phase them by"
            )
    for line in summary.warnings[already:]:
        log.warning(line)
