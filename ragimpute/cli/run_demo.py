"""``ragimpute demo``: prepare, impute and evaluate on the example in the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ragimpute import example
from ragimpute.accuracy.evaluate import Evaluation, evaluate
from ragimpute.errors import MissingPackageError
from ragimpute.extras import require
from ragimpute.imputation.impute import impute
from ragimpute.preparation.prepare import prepare
from ragimpute.runtime.timing import Progress


@dataclass
class DemoResult:
    """The files of the demo, and how accurate it was; ``report`` is None if it was left out."""

    imputed: Path
    report: Path | None
    evaluation: Evaluation


def run_demo(
    out: Path,
    *,
    threads: int = 2,
    progress: Progress | None = None,
    line: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Prepare the panel, impute the target with the default model, and compare with the truth.

    The page needs the packages of the extra ``report``; where they are not installed, a line says
    that it was left out. The other steps need no extra.

    Parameters
    ----------
    out
        Folder for everything that is written; made if need be.
    threads
        For every step.
    progress
        Called as ``progress(stage, done, total)``.
    line
        Called with a line about each step.
    """
    out.mkdir(parents=True, exist_ok=True)
    panel, imputed, report = out / "panel.h5", out / "imputed.vcf.gz", out / "report.html"
    target, truth = example.path("target.vcf.gz"), example.path("truth.bcf")
    line("prepare   250 Europeans of the 1000 Genomes Project, 0.9 Mb of chromosome 20")
    made = prepare(
        example.path("panel.bcf"), panel, genetic_map=example.path("chr20.b37.gmap.gz"),
        threads=threads, force=True, progress=progress,
    )  # fmt: skip
    line(f"          {made.panel.num_sites:,} sites in {made.seconds:.1f} s")
    line("impute    50 other Europeans, typed by an array, with the default model")
    done = impute(
        target, panel, imputed, threads=threads, progress=progress, command="ragimpute demo"
    )
    line(
        f"          {done.num_samples} samples, {done.num_sites:,} sites, {done.wall_seconds:.1f} s"
    )
    line("evaluate  the dosages, against the true genotypes of the 50")
    figures = evaluate(truth, imputed, panel, typed=target, threads=threads)
    if not _can("report", "report", line):
        return DemoResult(imputed, None, figures)
    from ragimpute.reports.pages import render_demo

    render_demo(report, evaluation=figures, summary=done)
    return DemoResult(imputed, report, figures)


def _can(step: str, extra: str, line: Callable[[str], None]) -> bool:
    """Whether the packages of an extra are installed; if not, print which step is left out."""
    try:
        require(extra, "this step")
    except MissingPackageError as error:
        line(f"{step:10}left out: {error.message}; {error.hint}")
        return False
    return True
