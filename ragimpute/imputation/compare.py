"""Compare a target with a panel without imputing it."""

from __future__ import annotations

from contextlib import ExitStack

from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.timing import Progress
from ragimpute.target.inputs import InputFiles, open_inputs
from ragimpute.target.qc import QcSummary, TargetReport


def compare(
    files: InputFiles,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> QcSummary:
    """Read a target, find its records among a panel's sites, and count.

    Parameters
    ----------
    files
        Target and panel, and which of their records are used.
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
    report = TargetReport()
    with ExitStack() as stack:
        open_inputs(files, stack, report, threads=threads, progress=progress)
    assert report.qc is not None
    return report.qc
