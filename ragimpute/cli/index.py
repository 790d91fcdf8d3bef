"""``ragimpute index``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragimpute.cli import complete
from ragimpute.cli.app import (
    BufferOption,
    ChunkOption,
    DeviceOption,
    ErrOption,
    FineTuneOption,
    ForceOption,
    LogLevelOption,
    LogOption,
    MaxMemoryOption,
    NeOption,
    OutputFolderOption,
    QuietOption,
    RegionOption,
    SeedOption,
    ThreadsOption,
    command,
    parse_region,
)
from ragimpute.cli.watch import RunOptions, watching
from ragimpute.extras import require
from ragimpute.runtime.memory import parse_size

if TYPE_CHECKING:
    from ragimpute.imputation.build_index import ArraysSummary


class Kind(StrEnum):
    """How haplotypes are searched."""

    AUTO = "auto"
    FLAT = "flat"
    IVF = "ivf"


@command("ragimpute index panel.h5 --typed-sites target.vcf.gz -o panel.index")
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
    typed: Annotated[
        list[Path] | None,
        typer.Option(
            "--typed-sites",
            "--sites",
            "--typed",
            metavar="FILE",
            rich_help_panel="Input",
            help="A file of the sites that an array types: a VCF or BCF, such as a target, or any "
            "list that impute --sites-file reads, such as a .bim, BED, manifest or CHROM POS REF "
            "ALT. May be given several times.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|DIR",
            rich_help_panel="Model",
            autocompletion=complete.models,
            help="The model of the runs that will use the index.",
        ),
    ] = "default",
    kind: Annotated[
        Kind,
        typer.Option(
            "--kind",
            rich_help_panel="Model",
            help="How FAISS searches for token models: flat compares with every haplotype; ivf "
            "only with likely ones, which is faster in large panels; auto is ivf from 20,000 "
            "haplotypes on.",
        ),
    ] = Kind.AUTO,
    region: RegionOption = None,
    chunk_cm: ChunkOption = 40.0,
    buffer_cm: BufferOption = 2.0,
    ne: NeOption = None,
    err: ErrOption = None,
    fine_tune: FineTuneOption = True,
    seed: SeedOption = 1,
    max_memory: MaxMemoryOption = None,
    threads: ThreadsOption = 1,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: QuietOption = False,
) -> None:
    """Make all that imputing needs of a panel and an array once, for 'impute --index'.

    Give --typed-sites, and the options that the runs will have. An index that exists gets the
    arrays that it lacks. Without --typed-sites, or for a token model, haplotypes are indexed by
    FAISS.
    """
    run_options = RunOptions(quiet, log, log_level)
    sites = {f"typed sites input {path}": path for path in typed or []}
    inputs: dict[str, str | Path | None] = {"panel input": panel, **sites}
    if typed and _copies(model):
        from ragimpute.imputation.build_index import index_arrays
        from ragimpute.imputation.options import ImputeOptions

        options = ImputeOptions(
            model=model, region=parse_region(region), window_cm=chunk_cm, buffer_cm=buffer_cm,
            ne=ne, err=err, fine_tune=fine_tune, seed=seed, threads=threads, device=device,
            max_memory=None if max_memory is None else parse_size(max_memory),
        )  # fmt: skip
        with watching(run_options, inputs=inputs, out=out) as watch:
            made = index_arrays(panel, out, typed, options, force=force, progress=watch.progress)
            watch.summary(_rows_of(made))
        return
    require("index", "ragimpute index")
    from ragimpute.token_model.build_index import build_index

    if len(typed or []) > 1:
        raise typer.BadParameter("a token model is searched by one file of --typed-sites sites")
    with watching(run_options, inputs=inputs, out=out) as watch:
        done = build_index(
            panel, out, kind=kind.value, sites=typed[0] if typed else None,
            progress=watch.progress, force=force, device=device,
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


def _copies(model: str) -> bool:
    """Whether a model is a copying model."""
    from ragimpute.model.folder import open_folder

    return open_folder(model).is_copying


def _rows_of(made: ArraysSummary) -> list[tuple[str, str]]:
    """What was made, for a person."""
    rows = [("index", str(made.path)), ("haplotypes", f"{made.num_haplotypes:,}")]
    for array in made.arrays:
        gone = [
            f"{num:,} {name.replace('_', ' ')}" for name, num in array.sites.left_out.items() if num
        ]
        what = f"{len(array.sites.panel_index):,} of {array.sites.num_records:,} sites"
        there = array.num_windows - array.num_made
        windows = f"{array.num_windows:,} windows"
        if there:
            windows += f", of which {there:,} were there"
        rows.append((f"array {array.name}", "; ".join([", ".join([what, *gone]), windows])))
    return [*rows, ("size", f"{made.num_bytes / 1e6:.1f} MB")]
