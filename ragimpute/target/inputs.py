"""How impute, phase and ``--qc-only`` begin: the panel is opened, the target read and matched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target, VcfFile, read_target
from ragimpute.io.vcf.read.phase_sets import in_pieces
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import open_panel
from ragimpute.runtime.timing import Progress, no_progress
from ragimpute.sites import Region, same_contig, some_names
from ragimpute.target.match import Match, match_sites, no_match, require_overlap, target_region
from ragimpute.target.qc import TargetReport, summarise, warn_of_target, write_excluded

# A region with fewer records than this may well share none with the panel, which is no error then.
# For a whole file it always is.
_FEW_RECORDS = 50


@dataclass(frozen=True)
class TargetOptions:
    """Which of a target's samples and records are used, and where the others are listed.

    Attributes
    ----------
    samples, exclude_samples
        Files with one sample name a line: the samples to impute, and those to leave out; or None.
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


@dataclass(frozen=True)
class InputFiles:
    """Names of a target and a panel, and which parts of them are read.

    Attributes
    ----------
    target, panel
        The target, a VCF/BCF, or what was read of one already; and the panel, a panel.h5, or a
        phased VCF/BCF, which is prepared for the run.
    genetic_map, cm_per_mb
        Only for a panel VCF/BCF: a genetic map, or a uniform rate.
    region
        Panel sites that are reported; None: all.
    buffer_cm
        How much of the target is read on each side of the region, cM, >= 0.
    options
        Which of the target's samples and records are used.
    """

    target: str | Path | Target
    panel: str | Path
    genetic_map: str | Path | None = None
    cm_per_mb: float | None = None
    region: Region | None = None
    buffer_cm: float = 2.0
    options: TargetOptions = field(default_factory=TargetOptions)

    def named(self) -> dict[str, str | Path | None]:
        """The files that are read, by the names that messages give them; None if not given."""
        return {
            "target input": None if isinstance(self.target, Target) else self.target,
            "panel input": self.panel,
            "map input": self.genetic_map,
            "list of samples": self.options.samples,
            "excluded samples": self.options.exclude_samples,
        }


@dataclass(frozen=True)
class Inputs:
    """An open panel, and a target whose records were found among its sites.

    Attributes
    ----------
    files
        The files that were opened.
    panel
        The whole panel.
    start, stop
        Its sites [start, stop) are reported, at least one.
    target
        What was read around the region.
    match
        The target at the panel's sites.
    """

    files: InputFiles
    panel: Panel
    start: int
    stop: int
    target: Target
    match: Match

    @property
    def contig(self) -> str:
        """As the target spells it, and so the output."""
        return self.target.sites.contig

    @property
    def contigs(self) -> list[tuple[str, int | None]]:
        """Name and length of the contig, for an output's header."""
        return [(self.contig, self.panel.contig_length)]

    @property
    def phase_sets(self) -> np.ndarray | None:
        """The phase sets of the matched genotypes, shape (T, N), int32, as in ``Target``; or None.

        They lie beside ``match``, since no record's phase set depends on how it is matched.
        """
        sets = self.target.phase_set
        return None if sets is None else sets[self.match.row]

    @property
    def in_pieces(self) -> np.ndarray:
        """Samples that at panel sites are phased only within phase sets, shape (N,), bool."""
        return in_pieces(self.match.alleles, self.match.phased, self.phase_sets)

    @property
    def needs_phasing(self) -> bool:
        """Whether the phase of any genotype at a panel site is unknown, or known in pieces only."""
        return self.match.num_unphased > 0 or bool(self.in_pieces.any())


def open_inputs(
    files: InputFiles,
    stack: ExitStack,
    report: TargetReport,
    *,
    threads: int = 1,
    progress: Progress | None = None,
    phased_only: bool = False,
    view: Callable[[Panel, int, int], Panel] | None = None,
) -> Inputs:
    """Open the panel, read the target around the region, match it, and warn of what looks wrong.

    Parameters
    ----------
    files
        The files to open.
    stack
        Closes the panel, and removes it where it was prepared for this run only.
    report
        Gets the counts, and one line for each warning; warnings are logged too.
    threads
        For decompression and preparation, >= 1; the result does not depend on it.
    progress
        Called as ``progress(stage, done, total)`` while a panel is prepared.
    phased_only
        Whether to refuse unphased genotypes, and samples that are phased in pieces.
    view
        Called with the panel and the sites [start, stop) before the target is read; returns the
        panel to be used from then on, such as one that is read ahead meanwhile.

    Raises
    ------
    InputError, PanelError
        If a file cannot be read, or no record of the target is a panel site. In the latter case the
        table of the records that are not used has been written.
    """
    panel, start, stop = open_panel(
        files.panel, stack, report.warnings.append, genetic_map=files.genetic_map,
        cm_per_mb=files.cm_per_mb, region=files.region, par=files.options.par, threads=threads,
        progress=progress or no_progress,
    )  # fmt: skip
    if view is not None:
        panel = view(panel, start, stop)
    target, match = take_target(
        files.target, panel, files.region, files.options, report, buffer_cm=files.buffer_cm,
        threads=threads,
    )  # fmt: skip
    if phased_only:
        require_phase(files.target, target)
    warn_of_target(report, target, panel, match, start, stop, files.options.par)
    return Inputs(files, panel, start, stop, target, match)


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

    ``source`` is a VCF/BCF, or what was read of one already, which is not changed. ``report`` gets
    the counts, and the table of the records that are not used is written; only then
    is a target refused that does not fit the panel.

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
    file = VcfFile(path)
    samples = chosen_samples(file, options.samples, options.exclude_samples)
    # A region may have no typed site, such as a piece of a contig that a workflow imputes alone.
    wide = target_region(file, panel, _around(region, panel, buffer_cm))
    target = read_target(
        file, region=wide, threads=threads, may_be_empty=region is not None, samples=samples,
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
        phase_set=None if target.phase_set is None else target.phase_set[rows],
        left_out=left_out,
    )  # fmt: skip
    _drop_half_calls(part)
    return part


def chosen_samples(
    file: VcfFile, samples: Path | None, exclude_samples: Path | None
) -> list[str] | None:
    """The samples of a VCF/BCF that two lists choose, or None for all.

    Raises
    ------
    InputError
        If a list cannot be read or is empty, names a sample that the file lacks, or leaves none.
    """
    if samples is None and exclude_samples is None:
        return None
    known = file.header.samples
    kept = _listed(samples, known, file) if samples is not None else set(known)
    if exclude_samples is not None:
        kept -= _listed(exclude_samples, known, file)
    if not kept:
        raise InputError(f"the lists leave none of the {len(known)} samples of {file}")
    return [name for name in known if name in kept]


def _listed(path: Path, known: Sequence[str], target: VcfFile) -> set[str]:
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
    """Make genotypes such as "./1" missing, whose observed haplotype is unknown; ".|1" stays."""
    missing = target.alleles == -1
    half = ~target.phased & (missing[:, :, 0] | missing[:, :, 1])
    if half.any():
        target.alleles[half] = -1
        target.phased[half] = True


def require_phase(path: str | Path | Target, target: Target) -> None:
    """Refuse unphased genotypes, and samples that are phased only within phase sets.

    Raises
    ------
    InputError
        If there are any; the message names the first and says how many there are.
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
    cut = np.flatnonzero(in_pieces(target.alleles, target.phased, target.phase_set))
    if len(cut):
        names = [target.samples[i] for i in cut.tolist()]
        raise InputError(
            f"target {path} is phased only within phase sets (PS, HP or PID): {len(cut):,} of "
            f"{len(target.samples):,} samples have more than one ({some_names(names)})",
            hint="leave out --phased-only, and the sets are put in order against the panel first",
        )
