"""Compare a target with a panel without imputing it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from ragimpute.preparation.open_panel import open_panel
from ragimpute.runtime.outputs import check_output
from ragimpute.sites import Region
from ragimpute.target.load import TargetOptions, take_target
from ragimpute.target.qc import QcSummary
from ragimpute.target.report import TargetReport, warn_of_target


def compare(
    target: str | Path,
    panel: str | Path,
    options: TargetOptions,
    *,
    genetic_map: str | Path | None = None,
    cm_per_mb: float | None = None,
    region: Region | None = None,
    buffer_cm: float = 2.0,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> QcSummary:
    """Read a target, find its records among a panel's sites, and count.

    Parameters
    ----------
    target, panel, genetic_map, cm_per_mb, region, buffer_cm, threads, progress
        See :func:`ragimpute.imputation.impute.impute`.
    options
        Which samples and records are used, and where the others are written.

    Raises
    ------
    InputError, PanelError
        If a file cannot be read, or no record is a panel site; what is written for ``options`` is
        written before that.
    """
    if options.excluded_sites is not None:
        inputs = {"target input": target, "panel input": panel, "map input": genetic_map}
        lists = {"list of samples": options.samples, "excluded samples": options.exclude_samples}
        check_output(options.excluded_sites, {**inputs, **lists})
    report = TargetReport()
    with ExitStack() as stack:
        source, start, stop = open_panel(
            panel, stack, report.warnings.append, genetic_map=genetic_map, cm_per_mb=cm_per_mb,
            region=region, par=options.par, threads=threads, progress=progress or (lambda *_: None),
        )  # fmt: skip
        given, shared = take_target(
            target, source, region, options, report, buffer_cm=buffer_cm, threads=threads
        )
        warn_of_target(report, given, source, shared, start, stop)
    assert report.qc is not None
    return report.qc
