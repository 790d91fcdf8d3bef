"""How impute, phase and ``--qc-only`` begin: the panel is opened, the target read and matched."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import open_panel
from ragimpute.runtime.timing import Progress, no_progress
from ragimpute.sites import Region
from ragimpute.target.load import TargetOptions, require_phase, take_target
from ragimpute.target.match import Match
from ragimpute.target.report import TargetReport, warn_of_target


@dataclass(frozen=True)
class InputFiles:
    """A target and a panel, and what of them is read.

    Attributes
    ----------
    target, panel
        VCF/BCF, or what was read of one already; panel.h5 or a phased VCF/BCF, which is prepared on
        the fly.
    genetic_map, cm_per_mb
        For a panel VCF only: a map, or a uniform rate.
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
        """The files that are read, by what a user calls them; None where one is not given."""
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
        Where they come from.
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
        What is read.
    stack
        Closes the panel, and removes it where it was prepared for this run only.
    report
        What was counted is put into it, and one line for each warning, which is logged too.
    threads
        Nothing that is found depends on them; >= 1.
    progress
        Called as ``progress(stage, done, total)`` while a panel is prepared.
    phased_only
        Refuse unphased genotypes.
    view
        Called with the panel and the sites [start, stop) before the target is read; returns the
        panel to be used from then on, such as one that is read ahead meanwhile.

    Raises
    ------
    InputError, PanelError
        If a file cannot be read, or the target has no record that is a panel site; the table of
        the records that are not used is written before that.
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
    warn_of_target(report, target, panel, match, start, stop)
    return Inputs(files, panel, start, stop, target, match)
