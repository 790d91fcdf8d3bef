"""``ragimpute prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    ForceOption,
    MapOption,
    ParOption,
    QuietOption,
    RateOption,
    RegionOption,
    ThreadsOption,
    app,
    parse_region,
)
from ragimpute.cli.terminal import print_rows, progress_bar


@app.command(
    epilog="Example:  ragimpute prepare panel.bcf --map chr20.map.gz -o panel.h5",
)
def prepare(
    panel: Annotated[
        Path, typer.Argument(help="Phased VCF/BCF, M3VCF/MVCF, or a scikit-allel HDF5.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="PANEL.h5", help="To write.")],
    genetic_map: MapOption = None,
    cm_per_mb: RateOption = None,
    populations: Annotated[
        Path | None,
        typer.Option("--populations", metavar="FILE", help="Table of sample and population."),
    ] = None,
    region: RegionOption = None,
    window_cm: Annotated[float, typer.Option(min=1e-3, help="Longest retrieval window.")] = 1.0,
    threads: ThreadsOption = 1,
    par: ParOption = None,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Turn a phased panel and a genetic map into panel.h5."""
    from ragimpute.preparation.prepare import prepare as run

    with progress_bar(quiet) as progress:
        done = run(
            panel, out, genetic_map=genetic_map, cm_per_mb=cm_per_mb, populations=populations,
            region=parse_region(region), window_cm=window_cm, progress=progress, threads=threads,
            force=force, par=par,
        )  # fmt: skip
    if not quiet:
        from ragimpute.cli.describe import describe

        print_rows(
            [done.record_row(), *describe(out)], title=f"{out}, made in {done.seconds:.1f} s"
        )
