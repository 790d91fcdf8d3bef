"""The target of an imputation run: read around the region, matched, counted, warned of."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError
from ragimpute.impute_summary import ImputeSummary
from ragimpute.match import Match, match_sites, no_match, require_overlap, target_region
from ragimpute.overlap import compare_positions, likely_cause
from ragimpute.panel import Panel
from ragimpute.qc import summarise, write_excluded
from ragimpute.sites import Region
from ragimpute.vcf import Target, read_target
from ragimpute.vcf_header import read_header

log = logging.getLogger("ragimpute")

# A region with so few records may well have none that the panel has; the whole file may not.
_FEW_RECORDS = 50
_LOW_OVERLAP = 0.5


@dataclass(frozen=True)
class TargetOptions:
    """Which of a target's samples and records are used, and what is said of the others.

    Attributes
    ----------
    samples, exclude_samples
        Files of names, one a line: the samples to impute, those to leave out; or None.
    palindromes
        What to do with A/T and C/G records, see :func:`ragimpute.match.match_sites`.
    excluded_sites
        Where to write the records that are not used (:func:`ragimpute.qc.write_excluded`), or None.
    """

    samples: Path | None = None
    exclude_samples: Path | None = None
    palindromes: str = "frequency"
    excluded_sites: Path | None = None


def take_target(
    path: str | Path,
    panel: Panel,
    region: Region | None,
    options: TargetOptions,
    summary: ImputeSummary,
    *,
    buffer_cm: float,
    threads: int,
) -> tuple[Target, Match]:
    """Read a target around the region, and find its records among the panel's sites.

    What was counted is put into ``summary``, and the records that are not used are written, before
    anything that was found is refused.

    Raises
    ------
    InputError
        If the target cannot be read, or no record of it is a panel site.
    """
    target = _read(path, panel, region, options, buffer_cm, threads)
    stop = panel.num_sites
    if len(target.sites):
        match = match_sites(target, panel, 0, stop, palindromes=options.palindromes)
    else:
        match = no_match(target)
    summary.qc = summarise(target, panel, match)
    summary.counts.update(match.counts)
    summary.num_samples = len(target.samples)
    summary.num_haplotypes = panel.num_haplotypes
    if options.excluded_sites is not None:
        write_excluded(options.excluded_sites, target, panel, match)
    if region is None or match.num_records >= _FEW_RECORDS:
        require_overlap(match, target, panel, 0, stop)
    return target, match


def _read(
    path: str | Path,
    panel: Panel,
    region: Region | None,
    options: TargetOptions,
    buffer_cm: float,
    threads: int,
) -> Target:
    """Read a target's chosen samples around the region."""
    samples = chosen_samples(path, options.samples, options.exclude_samples)
    wide = region
    if region is not None:
        start, stop = panel.site_range(region)
        cm = panel.position_cm
        left = int(np.searchsorted(cm, cm[start] - buffer_cm))
        right = int(np.searchsorted(cm, cm[stop - 1] + buffer_cm, side="right"))
        bp = panel.sites.position_bp
        wide = Region(region.contig, int(bp[left]), int(bp[right - 1]) + 1)
    # A region may well have no typed site, such as a workflow's piece of a contig.
    wide = target_region(path, panel, wide)
    target = read_target(
        path, region=wide, threads=threads, may_be_empty=region is not None, samples=samples,
        keep_monomorphic=True,
    )  # fmt: skip
    _drop_half_calls(target)
    return target


def chosen_samples(
    path: str | Path, samples: Path | None, exclude_samples: Path | None
) -> list[str] | None:
    """The samples of a VCF/BCF that two lists choose, or None for all.

    Raises
    ------
    InputError
        If a list cannot be read or is empty, names a sample that the file lacks, or leaves none.
    """
    if samples is None and exclude_samples is None:
        return None
    known = read_header(path).samples
    kept = _listed(samples, known, path) if samples is not None else set(known)
    if exclude_samples is not None:
        kept -= _listed(exclude_samples, known, path)
    if not kept:
        raise InputError(f"the lists leave none of the {len(known)} samples of {path}")
    return [name for name in known if name in kept]


def _listed(path: Path, known: Sequence[str], target: str | Path) -> set[str]:
    """The names in a list: the first column of each line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"list of samples {path} is not text") from error
    except OSError as error:
        raise InputError(f"list of samples {path} cannot be read: {error.strerror}") from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise InputError(f"list of samples {path} is empty", hint="write one name a line")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(
            f"target {target} lacks {len(unknown)} samples of the list {path}: {_some(unknown)}",
            hint=f"its samples are named like {_some(known)}",
        )
    return set(names)


def _drop_half_calls(target: Target) -> None:
    """Make "./1" missing: which of the haplotypes was observed is not known; ".|1" stays."""
    half = ~target.phased & (target.alleles == -1).any(axis=2)
    if half.any():
        target.alleles[half] = -1
        target.phased[half] = True


def require_phase(path: str | Path, target: Target) -> None:
    """Refuse unphased genotypes.

    Raises
    ------
    InputError
        If there is one; the message names the first and counts all.
    """
    loose = ~target.phased
    if loose.any():
        site, sample = np.argwhere(loose)[0]
        raise InputError(
            f"target {path} is not phased: {int(loose.sum())} unphased heterozygous genotypes, "
            f"the first at {target.sites.contig}:{target.sites.position_bp[site]} in sample "
            f"{target.samples[sample]}",
            hint="phase it against the panel first, e.g. with Beagle, SHAPEIT or Eagle",
        )


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
            f"{len(both)} target samples are in the panel too ({_some(both)}): they will copy "
            "themselves"
        )
    if not len(shared.panel_index):
        return
    typed = (shared.alleles >= 0).any(axis=(0, 2))
    bare = [target.samples[i] for i in np.flatnonzero(~typed)]
    if bare:
        summary.warnings.append(
            f"{len(bare)} samples have no genotype at any panel site ({_some(bare)}): they are "
            "given the panel's frequencies"
        )
        summary.untyped_samples = bare
    low = [] if summary.qc is None else [x for x in summary.qc.low_samples if x not in bare]
    if low:
        summary.warnings.append(
            f"{len(low)} samples have less than half of their genotypes ({_some(low)}): expect "
            "poor imputation of these"
        )


def _some(names: Sequence[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
