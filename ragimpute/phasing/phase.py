"""From an unphased target and a panel to a phased VCF of the typed sites."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ragimpute.arguments import check_fields_of, with_changes
from ragimpute.io.imputed import ImputedBlock, vcf_kind
from ragimpute.io.vcf.header import FLAGS, TYPED, Heading
from ragimpute.io.vcf.write.joined import MAX_ALTS, joinable
from ragimpute.io.vcf.write.writer import VcfWriter
from ragimpute.phasing.phase_target import PhaseOptions, phase_match
from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.stages import Stage, reporting
from ragimpute.runtime.timing import Progress, Stopwatch
from ragimpute.sites import Region, Sites
from ragimpute.target.inputs import InputFiles, TargetOptions, open_inputs
from ragimpute.target.qc import TargetReport

_BLOCK_SITES = 4096


@dataclass
class PhaseSummary:
    """What a run did.

    Attributes
    ----------
    out, panel
        The files.
    num_samples, num_sites, num_unphased, num_missing
        Samples; sites written; genotypes whose phase was found, and alleles that were missing.
    settings
        What the run used.
    seconds
        Wall time by stage.
    peak_rss_mb
        Peak resident memory of the process, MiB.
    warnings
        What a user should know, one line each.
    target
        What became of the target's records.
    """

    out: str
    panel: str
    num_samples: int = 0
    num_sites: int = 0
    num_unphased: int = 0
    num_missing: int = 0
    settings: dict[str, object] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_mb: float = 0.0
    warnings: list[str] = field(default_factory=list)
    target: TargetReport = field(default_factory=TargetReport)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a summary."""
        return [
            ("output", self.out),
            ("samples", f"{self.num_samples:,}"),
            ("typed sites in the panel", f"{self.num_sites:,}"),
            *self.target.record_rows(),
            ("missing alleles filled in", f"{self.num_missing:,}"),
            *((name.replace("_", " "), str(value)) for name, value in self.settings.items()),
            ("time", f"{sum(self.seconds.values()):.1f} s"),
            ("peak memory", f"{self.peak_rss_mb:,.0f} MiB"),
        ]


@dataclass(frozen=True)
class PhaseRunOptions:
    """All options of a run of :func:`phase`.

    Attributes
    ----------
    genetic_map, cm_per_mb
        For a panel VCF only: a map, or a uniform rate.
    region
        Sites to write; None: all of the panel.
    with_targets
        See :class:`ragimpute.phasing.phase_target.PhaseOptions`.
    ne, err
        See :func:`ragimpute.phasing.phase_target.phase_match`.
    buffer_cm
        How much of the target is read on each side of the region, cM, >= 0.
    seed, threads
        The output does not depend on ``threads``.
    target_options
        Which of the target's samples and records are used; None: all. Likelihoods never are.
    join_multiallelics
        Write the sites of one position and REF that exclude each other as one record.
    output_type
        As in :class:`ragimpute.imputation.options.OutputOptions`.
    """

    genetic_map: str | Path | None = None
    cm_per_mb: float | None = None
    region: Region | str | None = None
    with_targets: bool | None = None
    ne: float | None = None
    err: float | None = None
    buffer_cm: float = 2.0
    seed: int = 1
    threads: int = 1
    target_options: TargetOptions | None = None
    join_multiallelics: bool = False
    output_type: str | None = None

    def __post_init__(self) -> None:
        check_fields_of(self)

    def input_files(self, target: str | Path, panel: str | Path) -> InputFiles:
        """What is read of a target and a panel."""
        return InputFiles(
            target, panel, genetic_map=self.genetic_map, cm_per_mb=self.cm_per_mb,
            region=Region.of(self.region), buffer_cm=self.buffer_cm,
            options=replace(self.target_options or TargetOptions(), likelihoods="never"),
        )  # fmt: skip


def phase(
    target: str | Path,
    panel: str | Path,
    out: str | Path,
    options: PhaseRunOptions | None = None,
    *,
    progress: Progress | None = None,
    command: str | None = None,
    **changes: object,
) -> PhaseSummary:
    """Phase a target against a panel, and write its sites that the panel has.

    Genotypes that are phased keep their order (see ``constraints``); missing ones are filled
    in; haploid ones stay as they are.

    Parameters
    ----------
    target, panel
        VCF/BCF; panel.h5 or a phased VCF/BCF, which is prepared on the fly.
    out
        The output, of the kind that its suffix says ("-": VCF to standard output).
    options
        See :class:`PhaseRunOptions`; None: the defaults.
    progress
        Called as ``progress(stage, done, total)``; None: as
        :func:`ragimpute.runtime.stages.reporting` says.
    command
        Recorded in the output's header.
    changes
        Options by name that differ from ``options``: ``phase(target, panel, out, seed=2)``.

    Raises
    ------
    InputError, PanelError
        If an input cannot be used, or inputs do not belong together.
    TypeError
        If a change is not an option.
    """
    options = with_changes(options or PhaseRunOptions(), changes, "phase")
    vcf_kind(out, options.output_type, written="phased genotypes", imported="")
    files = options.input_files(target, panel)
    if str(out) != "-":
        check_output(out, files.named())
    if files.options.excluded_sites is not None:
        check_output(files.options.excluded_sites, {**files.named(), "phased output": out})
    done = PhaseSummary(str(out), str(panel))
    report = TargetReport()
    watch = Stopwatch(done.seconds)
    with ExitStack() as stack:
        progress = stack.enter_context(reporting(progress))
        inputs = open_inputs(files, stack, report, threads=options.threads, progress=progress)
        source, given, match = inputs.panel, inputs.target, inputs.match
        watch.lap("read")
        done.num_samples = len(given.samples)
        inside = (match.panel_index >= inputs.start) & (match.panel_index < inputs.stop)
        done.num_sites = int(inside.sum())
        done.num_unphased = match.num_unphased
        done.num_missing = int((match.alleles[inside] == -1).sum())
        if len(match.panel_index):  # even if all is phased: missing alleles are filled in
            match, done.settings = phase_match(
                inputs, PhaseOptions(with_targets=options.with_targets), ne=options.ne,
                err=options.err, fill_missing=True, seed=options.seed, threads=options.threads,
                progress=progress,
            )  # fmt: skip
        watch.lap("phase")
        heading = Heading(
            given.samples, inputs.contigs, command, infos=(FLAGS[TYPED].name,),
            joined=options.join_multiallelics, declarations=source.declarations,
        )  # fmt: skip
        writer = stack.enter_context(
            VcfWriter(
                out,
                heading,
                fields=("GT",),
                threads=options.threads,
                output_type=options.output_type,
            )
        )
        locus = None
        at = replace(source.sites.take(match.panel_index[inside]), contig=inputs.contig)
        if options.join_multiallelics:
            locus = match.loci.numbers(len(match.panel_index), most=MAX_ALTS)[inside]
            locus = joinable(locus, at, source.declarations)
        with Stage("write", len(at)) as stage:
            for block in _blocks(at, match.alleles[inside], locus):
                writer.write(block)
                stage.advance(len(block.sites))
        writer.close()
        watch.lap("write")
    done.warnings, done.target = report.warnings, report
    done.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return done


def _blocks(at: Sites, alleles: np.ndarray, locus: np.ndarray | None) -> Iterator[ImputedBlock]:
    """Phased sites in blocks that do not cut a position."""
    first = 0
    while first < len(at):
        last = min(first + _BLOCK_SITES, len(at))
        last = int(np.searchsorted(at.position_bp, at.position_bp[last - 1], side="right"))
        rows = slice(first, last)
        called = alleles[rows]
        prob = called.astype(np.float32)
        prob[called < 0] = np.nan
        yield ImputedBlock(
            at.take(rows), prob, called, {}, np.ones(len(called), bool),
            None if locus is None else locus[rows],
        )  # fmt: skip
        first = last
