"""The target of an imputation run: read around the region, matched and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.header import read_header
from ragimpute.io.vcf.read.genotypes import Target, read_target
from ragimpute.panel.reader import Panel
from ragimpute.sites import Region, same_contig, some_names
from ragimpute.target.match import Match, match_sites, no_match, require_overlap, target_region
from ragimpute.target.qc import summarise, write_excluded
from ragimpute.target.report import TargetReport

# A region with so few records may well have none that the panel has; the whole file may not.
_FEW_RECORDS = 50


@dataclass(frozen=True)
class TargetOptions:
    """Which of a target's samples and records are used, and what is said of the others.

    Attributes
    ----------
    samples, exclude_samples
        Files of names, one a line: the samples to impute, those to leave out; or None.
    palindromes
        What to do with A/T and C/G records, see :func:`ragimpute.target.match.match_sites`.
    excluded_sites
        Where to write the records that are not used (:func:`ragimpute.target.qc.write_excluded`),
        or None.
    par
        The pseudo-autosomal regions, see :func:`ragimpute.panel.ploidy.par_regions`.
    """

    samples: Path | None = None
    exclude_samples: Path | None = None
    palindromes: str = "frequency"
    excluded_sites: Path | None = None
    par: str | None = None


def take_target(
    source: str | Path | Target,
    panel: Panel,
    region: Region | None,
    options: TargetOptions,
    report: TargetReport,
    *,
    buffer_cm: float,
    threads: int,
) -> tuple[Target, Match]:
    """Read a target around the region, and find its records among the panel's sites.

    ``source`` is a VCF/BCF, or what was read of one already, which is not changed. What was counted
    is put into ``report``, and the records that are not used are written, before anything that was
    found is refused.

    Raises
    ------
    InputError
        If the target cannot be read, or no record of it is a panel site.
    """
    if isinstance(source, Target):
        target = _cut(source, panel, region, buffer_cm)
    else:
        target = _read(source, panel, region, options, buffer_cm, threads)
    stop = panel.num_sites
    if len(target.sites):
        match = match_sites(target, panel, 0, stop, palindromes=options.palindromes)
    else:
        match = no_match(target)
    report.qc = summarise(target, panel, match)
    report.counts.update(match.counts)
    report.num_samples = len(target.samples)
    report.num_haplotypes = panel.num_haplotypes
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
    # A region may well have no typed site, such as a workflow's piece of a contig.
    wide = target_region(path, panel, _around(region, panel, buffer_cm))
    target = read_target(
        path, region=wide, threads=threads, may_be_empty=region is not None, samples=samples,
        keep_monomorphic=True,
    )  # fmt: skip
    _drop_half_calls(target)
    return target


def _around(region: Region | None, panel: Panel, buffer_cm: float) -> Region | None:
    """A region with its buffers, in the panel's positions; None: all of the contig."""
    if region is None:
        return None
    start, stop = panel.site_range(region)
    cm = panel.position_cm
    left = int(np.searchsorted(cm, cm[start] - buffer_cm))
    right = int(np.searchsorted(cm, cm[stop - 1] + buffer_cm, side="right"))
    bp = panel.sites.position_bp
    return Region(region.contig, int(bp[left]), int(bp[right - 1]) + 1)


def _cut(target: Target, panel: Panel, region: Region | None, buffer_cm: float) -> Target:
    """A copy of the part of a target around the region, as it would have been read from a file.

    Raises
    ------
    InputError
        If the target is of another contig than the panel.
    """
    contig = target.sites.contig
    if same_contig(panel.contig, [contig]) is None:
        raise InputError(
            f"the target is of contig {contig}, but the panel is of contig {panel.contig}",
            hint="use the panel of the same chromosome, with positions of the same build",
        )
    wide = _around(region, panel, buffer_cm)
    first, last = 0, len(target.sites)
    left_out = list(target.left_out)
    if wide is not None:
        ends = [wide.start_bp, wide.stop_bp]
        first, last = np.searchsorted(target.sites.position_bp, ends).tolist()
        left_out = [alt for alt in left_out if wide.start_bp <= alt.position_bp < wide.stop_bp]
    rows = slice(first, last)
    part = replace(
        target, sites=target.sites.take(rows), alleles=target.alleles[rows].copy(),
        phased=target.phased[rows].copy(), multiallelic=target.multiallelic[rows],
        left_out=left_out,
    )  # fmt: skip
    _drop_half_calls(part)
    return part


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
            f"target {target} lacks {len(unknown)} samples of the list {path}: "
            f"{some_names(unknown)}",
            hint=f"its samples are named like {some_names(known)}",
        )
    return set(names)


def _drop_half_calls(target: Target) -> None:
    """Make "./1" missing: which of the haplotypes was observed is not known; ".|1" stays."""
    missing = target.alleles == -1
    half = ~target.phased & (missing[:, :, 0] | missing[:, :, 1])
    if half.any():
        target.alleles[half] = -1
        target.phased[half] = True


def require_phase(path: str | Path | Target, target: Target) -> None:
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
            hint="leave out --phased-only, and it is phased against the panel first",
        )
