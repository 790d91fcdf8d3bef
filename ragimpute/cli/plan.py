"""``ragimpute plan``: the jobs that a workflow runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import ForceOption, RegionOption, command, parse_region
from ragimpute.errors import InputError


class Format(StrEnum):
    """What is printed."""

    TSV = "tsv"
    JSON = "json"


@command("ragimpute plan panel.h5 target.vcf.gz --samples-per-batch 1000")
def plan(
    panel: Annotated[
        Path,
        typer.Argument(
            metavar="PANEL",
            rich_help_panel="Panel",
            help="A panel.h5 that 'ragimpute prepare' made.",
        ),
    ],
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="TARGET",
            rich_help_panel="Input",
            help="Target, as impute takes it, whose samples are put into batches; needed for "
            "batches only.",
        ),
    ] = None,
    chunk_cm: Annotated[
        float | None,
        typer.Option(
            "--chunk-cm",
            metavar="CM",
            min=0.01,
            rich_help_panel="Region",
            help="Longest region, in cM. Default: 20, or without limit where --chunk-mb is given.",
        ),
    ] = None,
    chunk_mb: Annotated[
        float | None,
        typer.Option(
            "--chunk-mb",
            metavar="MB",
            min=0.001,
            rich_help_panel="Region",
            help="Longest region, in millions of base pairs (Mb). Default: without limit.",
        ),
    ] = None,
    samples_per_batch: Annotated[
        int | None,
        typer.Option(
            "--samples-per-batch",
            min=1,
            metavar="N",
            rich_help_panel="Input",
            help="Put so many samples into a batch, at most. Default: all into one.",
        ),
    ] = None,
    batch_dir: Annotated[
        Path | None,
        typer.Option(
            "--batch-dir",
            metavar="DIR",
            rich_help_panel="Output",
            help="Write the sample names of each batch into this folder, as 1.txt, 2.txt and so "
            "on, for 'impute --samples-file'.",
        ),
    ] = None,
    region: RegionOption = None,
    output_format: Annotated[
        Format,
        typer.Option("--format", rich_help_panel="Output", help="Print a table or JSON."),
    ] = Format.TSV,
    force: ForceOption = False,
) -> None:
    """Print regions and batches of samples that can be imputed independently.

    Each line is a job for a cluster: impute it with --region, and join the outputs.
    """
    if batch_dir is not None and target is None:
        raise InputError("--batch-dir needs a target", hint="name its VCF/BCF")
    from ragimpute.jobs.split import make_plan, write_batches

    made = make_plan(
        panel, target, chunk_cm=chunk_cm, chunk_mb=chunk_mb,
        samples_per_batch=samples_per_batch, region=parse_region(region),
    )  # fmt: skip
    if batch_dir is not None:
        write_batches(made, batch_dir, force=force)
    typer.echo(made.as_json() if output_format is Format.JSON else made.as_tsv(), nl=False)
