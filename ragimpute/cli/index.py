"""``ragimpute index``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    DeviceOption,
    ForceOption,
    LogLevelOption,
    LogOption,
    OutputFolderOption,
    QuietOption,
    TypedSitesOption,
    command,
)
from ragimpute.cli.watch import RunOptions, watching
from ragimpute.extras import require


class Kind(StrEnum):
    """How haplotypes are searched."""

    AUTO = "auto"
    FLAT = "flat"
    IVF = "ivf"


@command("ragimpute index panel.h5 -o panel.index")
def index(
    panel: Annotated[
        Path,
        typer.Argument(
            metavar="PANEL",
            rich_help_panel="Panel",
            help="A panel.h5 that 'ragimpute prepare' made.",
        ),
    ],
    out: OutputFolderOption,
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            rich_help_panel="Model",
            help="flat compares with every haplotype; ivf only with likely ones, which is faster "
            "in large panels; auto is ivf from 20,000 haplotypes on.",
        ),
    ] = Kind.AUTO,
    sites: TypedSitesOption = None,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: QuietOption = False,
) -> None:
    """Index a panel's haplotypes by FAISS, window by window, for token models.

    The shipped models need no index. With --typed-sites only those sites are compared.
    """
    require("index", "ragimpute index")
    from ragimpute.token_model.build_index import build_index

    inputs = {"panel input": panel, "typed sites input": sites}
    with watching(RunOptions(quiet, log, log_level), inputs=inputs, out=out) as watch:
        done = build_index(
            panel, out, kind=kind.value, sites=sites, progress=watch.progress, force=force,
            device=device,
        )  # fmt: skip
        rows = [
            ("index", str(done.path)),
            ("windows", f"{done.num_windows:,}"),
            ("haplotypes", f"{done.num_haplotypes:,}"),
            ("sites searched", f"{done.num_sites:,}"),
            ("kind", f"{done.kind}, recall {done.recall:.3f}"),
            ("device", done.device),
            ("size", f"{done.num_bytes / 1e6:.1f} MB"),
        ]
        watch.summary(rows)
