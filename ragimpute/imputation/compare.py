"""Compare a target with a panel without imputing it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ragimpute.imputation.listed_sites import tell_listed
from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.timing import Progress
from ragimpute.target.inputs import InputFiles, open_inputs
from ragimpute.target.qc import QcSummary, TargetReport


def compare(
    files: InputFiles,
    *,
    sites_file: Path | None = None,
    sites_status: Path | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> QcSummary:
    """Read a target, find its records among a panel's sites, and count.

    Parameters
    ----------
    files
        Target and panel, and which of their records are used.
    sites_file, sites_status
        A list of sites of which the summary says how many a run would write, or None; a table of
        its rows, or None.
    threads, progress
        See :func:`ragimpute.target.inputs.open_inputs`.

    Raises
    ------
    InputError, PanelError
        If a file cannot be read, or no record is a panel site; the table of the records that are
        not used is written before that.
    """
    if files.options.excluded_sites is not None:
        check_output(files.options.excluded_sites, files.named())
    if sites_status is not None:
        check_output(sites_status, files.named() | {"list of sites": sites_file})
    report = TargetReport()
    with ExitStack() as stack:
        inputs = open_inputs(files, stack, report, threads=threads, progress=progress)
        listed = "" if sites_file is None else tell_listed(inputs, sites_file, sites_status)
    assert report.qc is not None
    return replace(report.qc, listed=listed)
