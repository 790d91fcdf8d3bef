"""How impute, phase and ``--qc-only`` begin: the panel is opened, the target read and matched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ragimpute.commands import command_word, free_name, spellings_warning
from ragimpute.contigs import same_contig
from ragimpute.errors import InputError
from ragimpute.io.chain import ChainFile
from ragimpute.io.fasta import Fasta
from ragimpute.io.target_file import TargetFile, files_of, open_target
from ragimpute.io.vcf.read.genotypes import ReferenceBlocks, Target, VcfFile, read_target
from ragimpute.io.vcf.read.likelihoods import LikelihoodOptions, no_likelihoods
from ragimpute.io.vcf.read.phase_sets import in_pieces
from ragimpute.io.vcf.read.reference_blocks import MIN_GQ
from ragimpute.panel.loci import sites_of_one_ref
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import open_panel
from ragimpute.runtime.stages import Stage, reporting
from ragimpute.runtime.timing import Progress
from ragimpute.sites import Region, some_names
from ragimpute.target.builds import contradiction
from ragimpute.target.joint_calls import Calls, complete_half_calls
from ragimpute.target.lift import lift
from ragimpute.target.match import Match, match_sites, no_match, require_overlap, target_region
from ragimpute.target.named_alleles import with_panel_alleles
from ragimpute.target.qc import (
    TargetReport,
    imputed_before,
    summarise,
    warn_of_target,
    write_excluded,
)
from ragimpute.target.sex import settle_ploidy

# A region with fewer records than this may well share none with the panel, which is no error then.
# For a whole file it always is.
_FEW_RECORDS = 50
# If so many of a gVCF's blocks begin at panel sites, the share of them with another REF tells
# whether it is of the same build: by chance it is three quarters.
_FEW_COMPARED, _OTHER_REF = 8, 0.25
_MANY_COMPARED = 2000  # so many panel sites, about, are compared with a FASTA


@dataclass(frozen=True)
class TargetOptions:
    """Which of a target's samples and records are used, and where the others are listed.

    Attributes
    ----------
    samples, exclude_samples
        Files with one sample name a line: the samples to impute, and those to leave out; or None.
        A name is a whole line, as it may hold blanks, or what comes before the line's first tab.
    palindromes
        What to do with A/T and C/G records, see :func:`ragimpute.target.match.match_sites`.
    excluded_sites
        Where to write the records that are not used (:func:`ragimpute.target.qc.write_excluded`),
        or None.
    par
        The pseudo-autosomal regions, see :func:`ragimpute.panel.ploidy.par_regions`.
    gvcf_min_gq
        Lowest quality of a reference call in a gVCF's blocks that is used, >= 0, see
        :class:`ragimpute.io.vcf.read.reference_blocks.ReferenceBlocks`.
    fasta
        The reference genome, by which insertions and deletions are aligned before they are matched;
        or None.
    chain
        A chain file from the target's genome build to the panel's, by which records are lifted
        before they are matched (:func:`ragimpute.target.lift.lift`); or None.
    likelihoods
        Whether the likelihoods of genotypes are used: "auto", "always" or "never", see
        :func:`ragimpute.io.vcf.read.likelihoods.uses_likelihoods`.
    use_indel_likelihoods
        Whether those of insertions and deletions are used, too.
    """

    samples: Path | None = None
    exclude_samples: Path | None = None
    palindromes: str = "frequency"
    excluded_sites: Path | None = None
    par: str | None = None
    gvcf_min_gq: float = MIN_GQ
    fasta: Path | None = None
    chain: Path | None = None
    likelihoods: str = "auto"
    use_indel_likelihoods: bool = False

    def __post_init__(self) -> None:
        self.of_likelihoods()

    def of_likelihoods(self) -> LikelihoodOptions:
        """What the reader of a VCF is told of likelihoods."""
        return LikelihoodOptions(self.likelihoods, self.use_indel_likelihoods)


@dataclass(frozen=True)
class InputFiles:
    """Names of a target and a panel, and which parts of them are read.

    Attributes
    ----------
    target, panel
        The target, a file as :func:`ragimpute.io.target_file.open_target` takes it, or what was
        read of one already; and the panel, a panel.h5, or a
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

    @cached_property
    def source(self) -> TargetFile | Target:
        """What is read of the target: a run asks once which kind of file it is.

        Raises
        ------
        InputError
            See :func:`ragimpute.io.target_file.open_target`.
        """
        return self.target if isinstance(self.target, Target) else open_target(self.target)

    def named(self) -> dict[str, str | Path | None]:
        """The files that are read, by the names that messages give them; None if not given.

        Files of a target that are missing are left out: reading it says so.
        """
        own: dict[str, str | Path | None]
        own = {"target input": None if isinstance(self.target, Target) else self.target}
        if not isinstance(self.target, Target):
            with suppress(InputError):
                source = self.source
                assert not isinstance(source, Target)
                own |= files_of(self.target, source)
        return {
            **own,
            "panel input": self.panel,
            "map input": self.genetic_map,
            "list of samples": self.options.samples,
            "excluded samples": self.options.exclude_samples,
            "FASTA input": self.options.fasta,
            "chain input": self.options.chain,
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
        return None if sets is None else self.match.of_rows(sets)

    @property
    def in_pieces(self) -> np.ndarray:
        """Samples that at panel sites are phased only within phase sets, shape (N,), bool."""
        return in_pieces(self.match.alleles, self.match.phased, self.phase_sets)

    @property
    def has_likelihoods(self) -> bool:
        """Whether the target has likelihoods, which ``match`` then holds."""
        return self.match.likelihoods is not None

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
        Called as ``progress(stage, done, total)``; None: as
        :func:`ragimpute.runtime.stages.reporting` says.
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
    with reporting(progress) as told:
        panel, start, stop = open_panel(
            files.panel, stack, report.warnings.append, genetic_map=files.genetic_map,
            cm_per_mb=files.cm_per_mb, region=files.region, par=files.options.par, threads=threads,
            progress=told,
        )  # fmt: skip
        if view is not None:
            panel = view(panel, start, stop)
        target, match = take_target(
            files.source, panel, files.region, files.options, report, buffer_cm=files.buffer_cm,
            threads=threads,
        )  # fmt: skip
    if phased_only:
        require_phase(files.target, target)
    warn_of_target(report, target, panel, match, start, stop, files.options.par)
    return Inputs(files, panel, start, stop, target, match)


def take_target(
    source: str | Path | TargetFile | Target,
    panel: Panel,
    region: Region | None,
    options: TargetOptions,
    report: TargetReport,
    *,
    buffer_cm: float,
    threads: int,
) -> tuple[Target, Match]:
    """Read a target around the region, and find its records among the panel's sites.

    ``source`` is a file, or what was read of one already, which is not changed. ``report`` gets the
    counts, and the table of the records that are not used is written; only then
    is a target refused that does not fit the panel.

    Raises
    ------
    InputError
        If the target cannot be read, or no record of it is a panel site.
    """
    if isinstance(source, Target):
        target = _cut(source, panel, region, buffer_cm)
        if options.likelihoods == "never":
            target = replace(target, likelihoods=None, likelihood_counts=None)
        elif options.likelihoods == "always" and target.likelihoods is None:
            raise no_likelihoods("the target")
    else:
        target = _read(source, panel, region, options, buffer_cm, threads)
    stop = panel.num_sites
    if len(target.sites):
        fasta = None if options.fasta is None else Fasta(options.fasta, panel.contig)
        match = match_sites(target, panel, 0, stop, palindromes=options.palindromes, fasta=fasta)
        if fasta is not None:
            _compare_reference(fasta, target, panel, report)
    else:
        match = no_match(target)
    report.qc = summarise(target, panel, match)
    _warn_of_names(report, target)
    if target.facts is not None:
        report.warnings += target.facts.warnings
    if options.chain is None and (said := contradiction(target)):
        report.warnings.append(said)
    if said := imputed_before(target):
        report.warnings.append(said)
    if target.blocks.num_blocks:
        report.counts["reference_blocks"] = target.blocks.num_blocks
    report.counts.update(report.qc.fates)
    report.num_samples = len(target.samples)
    report.num_haplotypes = panel.num_haplotypes
    if options.excluded_sites is not None:
        write_excluded(options.excluded_sites, target, panel, match)
    _require_reference(target, panel)
    has_few = match.num_records < _FEW_RECORDS
    if not has_few or (region is None and "reference" not in match.counts):
        require_overlap(match.of_records(), target.of_records(), panel, 0, stop)
    return target, match


def _compare_reference(fasta: Fasta, target: Target, panel: Panel, report: TargetReport) -> None:
    """Refuse a FASTA of another build than the panel; warn of target records that it contradicts.

    Indels whose alleles the FASTA contradicts stay where they are.
    """
    step = max(1, panel.num_sites // _MANY_COMPARED)
    keys = panel.sites.take(slice(None, None, step)).keys()
    wrong = sum(
        not fasta.has(position, ref) for position, ref, alt in keys if ref != "N" or alt[:1] != "<"
    )
    if wrong > _OTHER_REF * len(keys):
        raise InputError(
            f"FASTA {fasta.path} is of another reference than the panel: REF of {wrong} of "
            f"{len(keys)} panel sites is not its base there",
            hint="give the FASTA of the panel's genome build",
        )
    lost = sum(
        not (fasta.has(position, ref) or fasta.has(position, alt))
        for position, ref, alt in target.sites.keys()
        if len(ref) != len(alt) and ref.isalpha() and alt.isalpha()
    )
    if lost:
        report.warnings.append(
            f"{lost} insertions and deletions of the target have alleles that FASTA {fasta.path} "
            "contradicts; they were matched where they are"
        )


def _require_reference(target: Target, panel: Panel) -> None:
    """Refuse a gVCF whose reference blocks begin with other bases than the panel's REF.

    Blocks cover positions of any build, so that they would type nearly all of the panel as REF.
    """
    found = target.blocks
    wrong = found.num_other_ref
    if found.num_compared >= _FEW_COMPARED and wrong > _OTHER_REF * found.num_compared:
        raise InputError(
            f"the target is a gVCF of another reference than the panel: {wrong} of the "
            f"{found.num_compared} reference blocks that begin at a site of the panel, "
            f"{panel.contig}, have another REF base there",
            hint="give a gVCF of the panel's genome build",
        )


def _read(
    source: str | Path | TargetFile,
    panel: Panel,
    region: Region | None,
    options: TargetOptions,
    buffer_cm: float,
    threads: int,
) -> Target:
    """Read a target's chosen samples around the region."""
    file = open_target(source) if isinstance(source, str | Path) else source
    samples = chosen_samples(file, options.samples, options.exclude_samples)
    # A region may have no typed site, such as a piece of a contig that a workflow imputes alone.
    wide = target_region(file, panel, _around(region, panel, buffer_cm))
    if options.chain is not None:  # before the region is cut, which is of the panel's build
        wide = Region(wide.contig)
    at = panel.sites.position_bp
    first, last = max(int(at[0]), wide.start_bp), min(int(at[-1]), wide.stop_bp - 1)
    with Stage("read target", max(1, last - first + 1)) as stage:
        if isinstance(file, VcfFile):
            target = read_target(
                file, region=wide, threads=threads, may_be_empty=region is not None,
                samples=samples, keep_monomorphic=True,
                blocks=None if options.chain is not None
                else ReferenceBlocks(panel.sites, options.gvcf_min_gq),
                likelihoods=options.of_likelihoods(),
                reached=lambda position: stage.reach(position - first),
                # END is not lifted.
                symbolic=panel.has_symbolic and options.chain is None,
            )  # fmt: skip
        elif options.likelihoods == "always":
            raise no_likelihoods(file)
        else:
            target = file.read(
                wide, samples=samples, reached=lambda position: stage.reach(position - first)
            )
    if options.chain is not None:
        require_records(file, target)
        target = lift(target, panel, ChainFile(options.chain))
    if not isinstance(file, VcfFile):
        target = settle_ploidy(with_panel_alleles(target, panel), panel, options.par)
    if options.chain is not None:
        return _cut(target, panel, region, buffer_cm)
    _drop_half_calls(target)
    return target


def require_records(file: TargetFile, target: Target) -> None:
    """Refuse to lift a gVCF: a block may reach over what is elsewhere in the other build."""
    if target.skipped.get("reference_blocks"):
        out = command_word(free_name(file.path, ".records.vcf.gz"))
        raise InputError(
            f"target {file} is a gVCF, whose reference blocks cannot be lifted by --chain",
            hint="write a record for each base of a block first: bcftools convert --gvcf2vcf -f "
            f"REF.fa {command_word(file.path)} -Ou | bcftools view -a -Ou | "
            f"bcftools annotate -x INFO,^FORMAT/GT -Oz -o {out}",
        )


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
    declared, panel_of = {contig: target.contig_length}, {panel.contig: panel.contig_length}
    if same_contig(panel.contig, [contig], declared=declared, wanted_of=panel_of) is None:
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
    part = replace(target.take(rows), left_out=left_out)
    _drop_half_calls(part)
    return part


def _warn_of_names(report: TargetReport, target: Target) -> None:
    """Say which contigs of the target may be the same chromosome under another name."""
    if target.file is None:
        return
    contig, file = target.sites.contig, target.file
    if not isinstance(file, VcfFile):
        return
    warning = spellings_warning("target", file.path, contig, file.contigs, file.declared)
    if warning is not None:
        report.warnings.append(warning)


def chosen_samples(
    file: TargetFile, samples: Path | None, exclude_samples: Path | None
) -> list[str] | None:
    """The samples of a file that two lists choose, or None for all.

    Raises
    ------
    InputError
        If a list cannot be read or is empty, names a sample that the file lacks, or leaves none.
    """
    if samples is None and exclude_samples is None:
        return None
    known = file.samples
    kept = _listed(samples, known, file) if samples is not None else set(known)
    if exclude_samples is not None:
        kept -= _listed(exclude_samples, known, file)
    if not kept:
        raise InputError(f"the lists leave none of the {len(known)} samples of {file}")
    return [name for name in known if name in kept]


def _listed(path: Path, known: Sequence[str], target: TargetFile) -> set[str]:
    """The names in a list: each line, or its first column where a tab ends that."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"list of samples {path} is not text") from error
    except OSError as error:
        raise InputError(f"list of samples {path} cannot be read: {error.strerror}") from error
    every = set(known)
    names = [_name_in(line, every) for line in lines if line.strip() or line in every]
    if not names:
        raise InputError(f"list of samples {path} is empty", hint="write one name a line")
    unknown = sorted(set(names) - every)
    if unknown:
        hint = f"its samples are named like {some_names(known)}"
        cut = [name for name in unknown if name.split()[0] in every]
        if cut:
            hint = (
                f"{cut[0]!r} is not {cut[0].split()[0]!r}: a line is one name, blanks and all; "
                "other columns come after a tab"
            )
        raise InputError(
            f"target {target} lacks {len(unknown)} samples of the list {path}: "
            f"{some_names(unknown)}",
            hint=hint,
        )
    return set(names)


def _name_in(line: str, known: set[str]) -> str:
    """The sample that a line of a list names; names may hold blanks, but no tab."""
    line = line if line in known else line.removesuffix("\r")
    first = line.partition("\t")[0]
    readings = (line, first, line.strip(), first.strip())
    return next((name for name in readings if name in known), first.strip())


def _drop_half_calls(target: Target) -> None:
    """Make genotypes such as "./1" missing, whose observed haplotype is unknown; ".|1" stays.

    Those that the other ALTs of a split record complete are completed before.
    """
    calls = Calls(target.alleles, target.phased)
    complete_half_calls(calls, sites_of_one_ref(target.sites))
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
