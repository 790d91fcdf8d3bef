"""``ragimpute train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    DeviceOption,
    ForceOption,
    QuietOption,
    ThreadsOption,
    app,
    command_line,
)
from ragimpute.cli.terminal import print_rows, training_view
from ragimpute.extras import require


@app.command(
    epilog="Example:  ragimpute train panel.h5 --config v10-small --set train.epochs=2 -o model",
)
def train(
    panels: Annotated[
        list[Path], typer.Argument(metavar="PANEL...", help="panel.h5; several for copying models.")
    ],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Model folder.")],
    config: Annotated[
        str, typer.Option("--config", "-c", help="A preset's name, or a YAML file.")
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; repeatable."),
    ] = None,
    index: Annotated[
        Path | None, typer.Option("--index", metavar="DIR", help="Made by 'index'; else built.")
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="MODEL", help="Start from these weights.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train BERTWithRAG on a panel, or fine-tune shipped weights."""
    from ragimpute.config import load_config

    loaded = load_config(config, overrides=settings or [])
    require("train", "ragimpute train")
    from ragimpute.training.trainer import train as run

    with training_view(quiet) as (progress, report_epoch):
        done = run(
            panels, loaded, out, index=index, init=init, resume=resume, device=device,
            threads=threads, force=force, progress=progress, report_epoch=report_epoch,
            command=command_line(),
        )  # fmt: skip
    if not done.is_main:
        return
    from ragimpute.reports.pages import report_training

    page = report_training(done)
    if not quiet:
        print_rows([*done.rows(), ("report", str(page))])
