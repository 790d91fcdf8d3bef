"""``ragimpute info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import command
from ragimpute.cli.terminal import print_rows


@command("ragimpute info panel.h5")
def info(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH",
            rich_help_panel="Input",
            help="A panel.h5, an index, a model, a VCF or BCF, a genetic map, or the name of a "
            "shipped model.",
        ),
    ] = None,
    environment: Annotated[
        bool,
        typer.Option(
            "--environment",
            rich_help_panel="Run",
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
