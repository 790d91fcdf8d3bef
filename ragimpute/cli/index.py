"""``ragimpute index``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import ForceOption, QuietOption, app
from ragimpute.cli.terminal import print_rows, progress_bar
from ragimpute.extras import require


@app.command(
    epilog="Example:  ragimpute index panel.h5 -o panel.index",
)
def index(
    panel: Annotated[Path, typer.Argument(help="panel.h5")],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.")],
    kind: Annotated[
        str, typer.Option(metavar="auto|flat|ivf", help="Exhaustive, or inverted lists.")
    ] = "auto",
    sites: Annotated[
        Path | None,
        typer.Option("--sites", metavar="VCF", help="The array's sites; else all are searched."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="auto|cpu|cuda",
            help="Where exhaustive indexes are made and searched; the index is the same.",
        ),
    ] = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Index a panel's haplotypes by FAISS, window by window."""
    if kind not in ("auto", "flat", "ivf"):
        raise typer.BadParameter(f"--kind {kind} is not auto, flat or ivf")
    require("index", "ragimpute index")
    from ragimpute.token_model.build_index import build_index

    with progress_bar(quiet) as progress:
        done = build_index(
            panel, out, kind=kind, sites=sites, progress=progress, force=force, device=device
        )
    if not quiet:
        rows = [
            ("index", str(done.path)),
            ("windows", f"{done.num_windows:,}"),
            ("haplotypes", f"{done.num_haplotypes:,}"),
            ("sites searched", f"{done.num_sites:,}"),
            ("kind", f"{done.kind}, recall {done.recall:.3f}"),
            ("device", done.device),
            ("size", f"{done.num_bytes / 1e6:.1f} MB"),
        ]
        print_rows(rows)
