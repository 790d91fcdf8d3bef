"""``ragimpute info``."""

from __future__ import annotations

import logging
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
    export_maps: Annotated[
        Path | None,
        typer.Option(
            "--export-maps",
            metavar="DIR",
            rich_help_panel="Output",
            help="Also write the maps that RAG-SNVBERT reads beside its data to this folder, for "
            "one panel.h5: type_to_idx.bin, pop_to_idx.bin, pos_to_idx.bin, Freq.npy and "
            "segments.csv.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            rich_help_panel="Input",
            help="Also read all of a panel.h5 or an index, and compare it with its checksums.",
        ),
    ] = False,
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
    from ragimpute.cli.describe import verify as check

    if not paths and not environment:
        raise typer.BadParameter("give a file or folder, or --environment")
    if environment:
        from ragimpute.cli.environment import describe_environment

        print_rows(describe_environment(), title="environment")
    if export_maps is not None and len(paths or []) != 1:
        raise typer.BadParameter("--export-maps is for one panel.h5")
    for path in paths or []:
        rows = describe(path)
        if verify:
            check(path)
            rows.append(("verified", "all of it matches its checksums"))
        print_rows(rows, title=str(path))
        if export_maps is not None:
            print_rows(_export(path, export_maps), title=str(export_maps))


def _export(path: Path, folder: Path) -> list[tuple[str, str]]:
    """Write a panel's maps; returns what was written, as rows."""
    from ragimpute.panel.reader import Panel
    from ragimpute.preparation.original_maps import export_maps

    with Panel.open(path) as panel:
        files = export_maps(panel, folder, logging.getLogger("ragimpute").warning)
    return [(file.name, f"{file.stat().st_size:,} bytes") for file in files]
