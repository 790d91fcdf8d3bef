"""``ragimpute merge``: batches of samples that were imputed apart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import QuietOption, ThreadsOption, app, command_line
from ragimpute.cli.terminal import print_rows, progress_bar


@app.command(
    epilog="Example:  ragimpute merge batch1.vcf.gz batch2.vcf.gz -o all.vcf.gz",
)
def merge(
    batches: Annotated[
        list[Path], typer.Argument(metavar="BATCH...", help="VCF/BCF of the same sites.")
    ],
    out: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help=".vcf.gz, .vcf or .bcf; - = stdout."),
    ],
    min_r2: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out untyped sites of a lower DR2.")
    ] = 0.0,
    threads: ThreadsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Join imputed batches of samples; AF and DR2 are those of all samples together."""
    from ragimpute.jobs.merge import merge as run

    with progress_bar(quiet) as progress:
        done = run(
            batches, out, min_r2=min_r2, threads=threads, progress=progress,
            command=command_line(without=("--output", "-o")),
        )  # fmt: skip
    if not quiet and out != "-":
        print_rows(done.rows())
