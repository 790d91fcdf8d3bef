"""``ragimpute prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    ForceOption,
    LogLevelOption,
    LogOption,
    MapsOption,
    ParOption,
    PopulationsOption,
    QuietOption,
    RateOption,
    RegionOption,
    ThreadsOption,
    command,
    output_option,
    parse_region,
)
from ragimpute.cli.watch import RunOptions, watching


@command("ragimpute prepare panel.bcf --map chr20.map.gz -o panel.h5")
def prepare(
    panel: Annotated[
        Path,
        typer.Argument(
            metavar="PANEL",
            rich_help_panel="Panel",
            help="Phased haplotypes of one chromosome: VCF, BCF, M3VCF, MVCF, or an HDF5 file "
            "that scikit-allel made.",
        ),
    ],
    out: Annotated[
        Path,
        output_option("The file to write.", metavar="PANEL.h5"),
    ],
    genetic_map: Annotated[
        Path | None,
        typer.Option(
            "--map",
            metavar="FILE",
            rich_help_panel="Panel",
            help="Genetic map with columns as PLINK, SHAPEIT or Eagle/HapMap write them. Default: "
            "1 cM/Mb everywhere, which makes imputation less accurate.",
        ),
    ] = None,
    cm_per_mb: RateOption = None,
    populations: PopulationsOption = None,
    maps: MapsOption = None,
    region: RegionOption = None,
    window_cm: Annotated[
        float,
        typer.Option(
            "--window-cm",
            metavar="CM",
            min=1e-3,
            rich_help_panel="Region",
            help="Longest window within which 'ragimpute index' and token models compare "
            "haplotypes, in cM. The shipped models do not use it.",
        ),
    ] = 1.0,
    threads: ThreadsOption = 1,
    par: ParOption = None,
    force: ForceOption = False,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: QuietOption = False,
) -> None:
    """Turn a phased panel and a genetic map into a panel.h5, once for all targets."""
    inputs = {"panel input": panel, "map input": genetic_map, "populations input": populations}
    with watching(RunOptions(quiet, log, log_level), inputs=inputs, out=out) as watch:
        from ragimpute.preparation.prepare import prepare as run

        done = run(
            panel, out, genetic_map=genetic_map, cm_per_mb=cm_per_mb, populations=populations,
            maps=maps, region=parse_region(region), window_cm=window_cm, progress=watch.progress,
            threads=threads, force=force, par=par,
        )  # fmt: skip
        if watch.is_told:
            from ragimpute.cli.describe import describe

            rows = [done.record_row(), *describe(out)]
            watch.summary(rows, title=f"{out}, made in {done.seconds:.1f} s")
