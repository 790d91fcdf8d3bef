"""``ragimpute phase``: its options, and how they are passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    ExcludedSitesOption,
    FastaOption,
    GvcfMinGqOption,
    JoinOption,
    MapOption,
    ParOption,
    QuietOption,
    RateOption,
    RegionOption,
    SeedOption,
    ThreadsOption,
    WithTargetsOption,
    app,
    command_line,
    parse_region,
)
from ragimpute.cli.terminal import print_rows, progress_bar


@app.command(
    epilog="Example:  ragimpute phase target.vcf.gz --panel panel.h5 -o phased.vcf.gz -t 4",
)
def phase(
    target: Annotated[Path, typer.Argument(help="VCF/BCF to phase.")],
    panel: Annotated[
        Path,
        typer.Option("--panel", "-p", metavar="FILE", help="panel.h5, VCF/BCF, M3VCF, allel HDF5."),
    ],
    out: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help=".vcf.gz, .vcf or .bcf; - = stdout."),
    ],
    genetic_map: MapOption = None,
    cm_per_mb: RateOption = None,
    region: RegionOption = None,
    par: ParOption = None,
    excluded_sites: ExcludedSitesOption = None,
    gvcf_min_gq: GvcfMinGqOption = 20.0,
    fasta: FastaOption = None,
    with_targets: WithTargetsOption = None,
    ne: Annotated[float | None, typer.Option(min=1.0, help="Effective population size.")] = None,
    err: Annotated[
        float | None, typer.Option(min=1e-6, max=0.4, help="Mismatch probability.")
    ] = None,
    buffer_cm: Annotated[float, typer.Option(min=0.0, help="Buffer of a region, cM.")] = 2.0,
    join_multiallelics: JoinOption = False,
    seed: SeedOption = 1,
    threads: ThreadsOption = 1,
    quiet: QuietOption = False,
) -> None:
    """Phase a target against a panel: its typed sites that the panel has."""
    from ragimpute.phasing.phase import phase as run
    from ragimpute.target.inputs import TargetOptions

    with progress_bar(quiet) as progress:
        done = run(
            target, panel, out, genetic_map=genetic_map, cm_per_mb=cm_per_mb,
            region=parse_region(region), with_targets=with_targets, ne=ne, err=err,
            buffer_cm=buffer_cm, seed=seed, threads=threads, progress=progress,
            command=command_line(without=("--region", "-r", "--output", "-o", "--excluded-sites")),
            target_options=TargetOptions(
                par=par, excluded_sites=excluded_sites, gvcf_min_gq=gvcf_min_gq, fasta=fasta
            ),
            join_multiallelics=join_multiallelics,
        )  # fmt: skip
    if not quiet and out != "-":
        print_rows(done.rows())
