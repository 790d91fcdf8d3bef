"""``ragimpute demo``: the whole pipeline on the example in the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ragimpute import example
from ragimpute.accuracy.evaluate import Evaluation, evaluate
from ragimpute.config import load_config
from ragimpute.errors import MissingPackageError
from ragimpute.extras import require
from ragimpute.imputation.impute import impute
from ragimpute.preparation.prepare import prepare
from ragimpute.runtime.timing import Progress

if TYPE_CHECKING:
    from ragimpute.training.state import TrainResult


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
    """Prepare, index, train a small token model, impute with the default model, and evaluate.

    Steps whose packages are not installed are left out, and a line says so for each: ``index``,
    ``train`` and the report. The others need no extra.

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
    panel, index, model = out / "panel.h5", out / "panel.index", out / "model"
    imputed, report = out / "imputed.vcf.gz", out / "report.html"
    target, truth = example.path("target.vcf.gz"), example.path("truth.bcf")
    line("prepare   a real panel: 1000 Genomes, Europeans, chromosome 20")
    made = prepare(
        example.path("panel.bcf"), panel, genetic_map=example.path("chr20.b37.gmap.gz"),
        threads=threads, force=True, progress=progress,
    )  # fmt: skip
    line(f"          {made.panel.num_sites:,} sites in {made.seconds:.1f} s")
    has_index = _can("index", "index", line)
    if has_index:
        from ragimpute.token_model.build_index import build_index

        indexed = build_index(panel, index, force=index.exists(), progress=progress)
        line(f"index     {indexed.num_windows} windows of {indexed.num_haplotypes} haplotypes")
    trained: TrainResult | None = None
    if _can("train", "train", line):
        from ragimpute.training.trainer import train

        config = load_config(
            "v10-small", overrides=["train.epochs=2", "data.windows_per_epoch=128"]
        )
        line(
            f"train     {config.name}: a short run, to show the loop (the default model needs none)"
        )
        trained = train(
            [panel], config, model, index=index, device="cpu", threads=threads, force=True,
            progress=progress, report_line=lambda text: line(f"          {text}"),
        )  # fmt: skip
    line("impute    with the default model")
    done = impute(
        target, panel, imputed, index=index if has_index else None, threads=threads,
        progress=progress, command="ragimpute demo",
    )  # fmt: skip
    line(
        f"          {done.num_samples} samples, {done.num_sites:,} sites, {done.wall_seconds:.1f} s"
    )
    figures = evaluate(truth, imputed, panel, typed=target, threads=threads)
    if not _can("report", "report", line):
        return DemoResult(imputed, None, figures)
    from ragimpute.reports.pages import render_demo

    render_demo(report, evaluation=figures, summary=done, training=trained, model=model)
    return DemoResult(imputed, report, figures)


def _can(step: str, extra: str, line: Callable[[str], None]) -> bool:
    """Whether the packages of an extra are installed; if not, print which step is left out."""
    try:
        require(extra, "this step")
    except MissingPackageError as error:
        line(f"{step:10}left out: {error.message}; {error.hint}")
        return False
    return True
