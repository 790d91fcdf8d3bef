"""``ragimpute plan``: the jobs that a workflow runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import ForceOption, RegionOption, app, parse_region
from ragimpute.errors import InputError


@app.command(
    epilog="Example:  ragimpute plan panel.h5 target.vcf.gz --samples-per-batch 1000",
)
def plan(
    panel: Annotated[Path, typer.Argument(help="panel.h5")],
    target: Annotated[
        Path | None, typer.Argument(help="VCF/BCF whose samples are put into batches.")
    ] = None,
    chunk_cm: Annotated[
        float | None,
        typer.Option(min=0.01, help="Longest region, cM. Default: 20, or none with --chunk-mb."),
    ] = None,
    chunk_mb: Annotated[
        float | None, typer.Option(min=0.001, help="Longest region, Mb. Default: none.")
    ] = None,
    samples_per_batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most samples in a batch.")
    ] = None,
    batch_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each batch's sample names there: 1.txt, 2.txt ..."),
    ] = None,
    region: RegionOption = None,
    output_format: Annotated[
        str, typer.Option("--format", metavar="tsv|json", help="Of what is printed.")
    ] = "tsv",
    force: ForceOption = False,
) -> None:
    """Print the regions (and batches of samples) that can be imputed independently."""
    if output_format not in ("tsv", "json"):
        raise typer.BadParameter(f"--format {output_format} is not tsv or json")
    if batch_dir is not None and target is None:
        raise InputError("--batch-dir needs a target", hint="name its VCF/BCF")
    from ragimpute.jobs.split import make_plan, write_batches

    made = make_plan(
        panel, target, chunk_cm=chunk_cm, chunk_mb=chunk_mb,
        samples_per_batch=samples_per_batch, region=parse_region(region),
    )  # fmt: skip
    if batch_dir is not None:
        write_batches(made, batch_dir, force=force)
    typer.echo(made.as_json() if output_format == "json" else made.as_tsv(), nl=False)
