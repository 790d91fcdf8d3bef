"""``ragimpute merge``: batches of samples that were imputed apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    LogLevelOption,
    LogOption,
    MinR2Option,
    OutputOption,
    OutputTypeOption,
    QuietOption,
    ThreadsOption,
    command,
    command_line,
)
from ragimpute.cli.watch import RunOptions, watching


@command("ragimpute merge batch1.vcf.gz batch2.vcf.gz -o all.vcf.gz")
def merge(
    batches: Annotated[
        list[Path],
        typer.Argument(
            metavar="BATCH",
            rich_help_panel="Input",
            help="Two or more VCF or BCF that 'ragimpute impute' wrote: the same sites, other "
            "samples.",
        ),
    ],
    out: OutputOption,
    output_type: OutputTypeOption = None,
    min_r2: MinR2Option = 0.0,
    threads: ThreadsOption = 1,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: QuietOption = False,
) -> None:
    """Join batches of samples that were imputed apart.

    Allele frequencies and accuracies (AF, DR2) become those of all samples together.
    """
    inputs = {f"input {path}": path for path in batches}
    with watching(RunOptions(quiet, log, log_level), inputs=inputs, out=out) as watch:
        from ragimpute.jobs.merge import merge as run

        done = run(
            batches, out, min_r2=min_r2, threads=threads, progress=watch.progress,
            output_type=None if output_type is None else output_type.value,
            command=command_line(without=("--output", "-o", "--out")),
        )  # fmt: skip
        watch.summary(done.rows())
