"""``ragimpute train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli import complete
from ragimpute.cli.app import (
    DeviceOption,
    ForceOption,
    LogLevelOption,
    LogOption,
    MapOption,
    MapsOption,
    PopulationsOption,
    QuietOption,
    RateOption,
    RegionOption,
    command,
    command_line,
    output_option,
    parse_region,
)
from ragimpute.cli.terminal import training_view
from ragimpute.cli.watch import RunOptions, watching
from ragimpute.extras import require


@command("ragimpute train panel.h5 --init default -o model")
def train(
    panels: Annotated[
        list[Path],
        typer.Argument(
            metavar="PANEL",
            rich_help_panel="Panel",
            help="A panel.h5 that 'ragimpute prepare' made; for copying models there may be "
            "several. An HDF5 file of scikit-allel, a VCF, BCF or M3VCF works too, and is then "
            "prepared for this run only.",
        ),
    ],
    out: Annotated[
        Path,
        output_option("The model's folder, which is written.", metavar="DIR"),
    ],
    config: Annotated[
        str,
        typer.Option(
            "--config",
            "-c",
            metavar="NAME|YAML",
            rich_help_panel="Model",
            autocompletion=complete.configs,
            help="What to train: the name of a preset ('ragimpute models' lists them), or a YAML "
            "file.",
        ),
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            rich_help_panel="Model",
            help="Change one setting of the configuration, such as train.epochs=2. May be given "
            "several times.",
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            metavar="DIR",
            rich_help_panel="Panel",
            help="Index of the panel that 'ragimpute index' made. Default: it is built for this "
            "run where the model needs one.",
        ),
    ] = None,
    genetic_map: MapOption = None,
    cm_per_mb: RateOption = None,
    populations: PopulationsOption = None,
    maps: MapsOption = None,
    region: RegionOption = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            metavar="NAME|DIR",
            rich_help_panel="Model",
            autocompletion=complete.models,
            help="Start from the weights of this model, not from random ones.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel="Run",
            help="Go on from the last checkpoint in the output folder.",
        ),
    ] = False,
    device: DeviceOption = "auto",
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            "-t",
            metavar="N",
            min=1,
            rich_help_panel="Run",
            help="Use so many CPU threads in each process, for copying and for the network where "
            "it learns on the CPU. With another number, sums are rounded in another way, so that "
            "weights may differ a little.",
        ),
    ] = 1,
    force: ForceOption = False,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: QuietOption = False,
) -> None:
    """Train a model on a panel, or train shipped weights further.

    Imputation needs no training of your own: 'ragimpute impute' uses shipped weights.
    """
    from ragimpute.config import load_config

    loaded = load_config(config, overrides=settings or [])
    require("train", "ragimpute train")
    from ragimpute.preparation.prepare import PrepareOptions
    from ragimpute.training.trainer import train as run

    prepare_options = PrepareOptions(
        genetic_map, cm_per_mb, populations, maps, parse_region(region)
    )
    inputs: dict[str, str | Path | None] = {f"panel input {path}": path for path in panels}
    inputs |= {"index": index, "map input": genetic_map, "populations input": populations}
    run_options = RunOptions(quiet, log, log_level)
    with watching(run_options, inputs=inputs, out=out, shown=False) as watch:
        with training_view(quiet) as (show, show_epoch):

            def progress(stage: str, done: int, total: int) -> None:
                watch.progress(stage, done, total)
                show(stage, done, total)

            def report_epoch(row: dict[str, float], epochs: int, improved: bool) -> None:
                show_epoch(row, epochs, improved)
                watch.epoch(row, epochs)

            done = run(
                panels, loaded, out, index=index, init=init, resume=resume, device=device,
                threads=threads, force=force, progress=progress, report_epoch=report_epoch,
                command=command_line(), prepare_options=prepare_options,
            )  # fmt: skip
        if not done.is_main:
            return
        from ragimpute.reports.pages import report_training

        page = report_training(done)
        watch.summary([*done.rows(), ("report", str(page))])
