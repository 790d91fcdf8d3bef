"""``ragimpute info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import app
from ragimpute.cli.terminal import print_rows


@app.command(epilog="Example:  ragimpute info panel.h5")
def info(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="panel.h5, an index, a model, a VCF/BCF or a genetic map."),
    ] = None,
    environment: Annotated[
        bool,
        typer.Option(
            "--environment",
            help="Describe this install: versions, processor level, compiled kernels, devices.",
        ),
    ] = False,
) -> None:
    """Say what a file or folder is, or what this install is."""
    from ragimpute.cli.describe import describe

    if not paths and not environment:
        raise typer.BadParameter("give a file or folder, or --environment")
    if environment:
        from ragimpute.cli.environment import describe_environment

        print_rows(describe_environment(), title="environment")
    for path in paths or []:
        print_rows(describe(path), title=str(path))
