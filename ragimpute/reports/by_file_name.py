"""Write the reports of a run or an evaluation: a page, JSON, or content for MultiQC, by file name.

The modules that draw pages are imported only for a page, as JSON takes a fraction of that time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ragimpute.errors import InputError
from ragimpute.extras import require
from ragimpute.reports.figures import impute_figures, multiqc_evaluate, multiqc_impute
from ragimpute.reports.files import write_json
from ragimpute.reports.genome import genome_figures, read_runs
from ragimpute.runtime.outputs import MULTIQC_SUFFIX, check_report_name

if TYPE_CHECKING:
    from ragimpute.accuracy.scores import Evaluation
    from ragimpute.imputation.summary import ImputeSummary


def report_impute(summary: ImputeSummary, paths: Sequence[str | Path]) -> None:
    """Write reports of a run, each by its name: .html, .json, or _mqc.json for MultiQC.

    Raises
    ------
    InputError
        If a name is none of these (:func:`ragimpute.runtime.outputs.check_report_name`) or not
        writable.
    MissingPackageError
        If one is a page, and a package that draws it is not installed.
    """
    for path in paths:
        check_report_name(path)
        if str(path).endswith(MULTIQC_SUFFIX):
            write_json(path, multiqc_impute(summary))
        elif str(path).endswith(".json"):
            write_json(path, impute_figures(summary))
        else:
            require("report", f"report {path}")
            from ragimpute.reports.pages import render_impute

            render_impute(summary, path)


def report_evaluate(evaluations: Mapping[str, Evaluation], path: str | Path) -> None:
    """Write every figure of evaluations as JSON; to a name in _mqc.json, content for MultiQC."""
    if str(path).endswith(MULTIQC_SUFFIX):
        write_json(path, multiqc_evaluate(evaluations))
    else:
        write_json(path, {name: result.as_dict() for name, result in evaluations.items()})


def report_genome(runs: Sequence[str | Path], paths: Sequence[str | Path]) -> None:
    """Write one report of several runs, to each of the names: .html for a page, .json for figures.

    Parameters
    ----------
    runs
        Reports that ``impute`` wrote as JSON.
    paths
        Names of what is written; existing files are replaced.

    Raises
    ------
    InputError
        If a name is neither, or not writable, or the runs cannot be joined (see
        :func:`ragimpute.reports.genome.read_runs`).
    MissingPackageError
        If one is a page, and a package that draws it is not installed.
    """
    for path in paths:
        check_report_name(path)
        if str(path).endswith(MULTIQC_SUFFIX):
            raise InputError(
                f"there is no MultiQC content of a genome for {path}",
                hint="MultiQC shows runs side by side itself: give each run --report x_mqc.json",
            )
    figures = genome_figures(read_runs(runs))
    for path in paths:
        if str(path).endswith(".json"):
            write_json(path, figures)
        else:
            require("report", f"report {path}")
            from ragimpute.reports.pages import render_genome

            render_genome(figures, path)
