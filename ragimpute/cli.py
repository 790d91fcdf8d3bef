"""Commands and options; no logic. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ragimpute import cli_impute, cli_merge, cli_phase, cli_plan  # noqa: F401  # register their commands
from ragimpute.cli_app import (
    DeviceOption,
    ForceOption,
    MapOption,
    ParOption,
    QuietOption,
    RateOption,
    RegionOption,
    ThreadsOption,
    app,
    command_line,
    command_name,
    parse_region,
)
from ragimpute.errors import InputError
from ragimpute.extras import require
from ragimpute.outputs import check_output
from ragimpute.terminal import (
    guarded,
    print_rows,
    print_table,
    progress_bar,
    stdout,
    training_view,
)


def main() -> None:
    """Entry point."""
    # Threads that wait must not spin: where other jobs share the cores, a training step of .65 s
    # takes 2 to 30 s otherwise. Read when the first library that uses OpenMP is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Work is shared out over threads here, not in matrix products, whose sums stay the same so.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Arrays are filled once: a virtual machine that has to find huge pages for them takes up to a
    # sixth of a run for it, and nothing is read faster from them. Read when numpy is imported.
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    guarded(lambda: app(prog_name="ragimpute"))


def run() -> None:
    """Entry point of the program: as :func:`main`, and then the process is gone at once.

    Nothing is left to do by then, but the interpreter would take .1 to .9 s to free what numba,
    torch and the kernels hold.
    """
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    # Anything else is a bug, and ends with its traceback as ever.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


@app.command(
    epilog="Example:  ragimpute prepare panel.bcf --map chr20.map.gz -o panel.h5",
)
def prepare(
    panel: Annotated[Path, typer.Argument(help="Phased VCF/BCF, or a scikit-allel HDF5.")],
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
    from ragimpute.prepare import prepare as run

    with progress_bar(quiet) as progress:
        done = run(
            panel, out, genetic_map=genetic_map, cm_per_mb=cm_per_mb, populations=populations,
            region=parse_region(region), window_cm=window_cm, progress=progress, threads=threads,
            force=force, par=par,
        )  # fmt: skip
    if not quiet:
        from ragimpute.info import describe

        print_rows(describe(out), title=f"{out}, made in {done.seconds:.1f} s")


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
    from ragimpute.index import build_index

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
    from ragimpute.trainer import train as run

    with training_view(quiet) as (progress, report_epoch):
        done = run(
            panels, loaded, out, index=index, init=init, resume=resume, device=device,
            threads=threads, force=force, progress=progress, report_epoch=report_epoch,
            command=command_line(),
        )  # fmt: skip
    if not done.is_main:
        return
    from ragimpute.report import report_training

    page = report_training(done)
    if not quiet:
        print_rows([*done.rows(), ("report", str(page))])


@app.command(
    epilog="Example:  ragimpute evaluate --truth truth.bcf --imputed out.vcf.gz --panel panel.h5",
)
def evaluate(
    truth: Annotated[Path, typer.Option("--truth", help="VCF/BCF of the true genotypes.")],
    imputed: Annotated[
        list[Path], typer.Option("--imputed", help="Imputed VCF/BCF; repeat to compare tools.")
    ],
    panel: Annotated[Path, typer.Option("--panel", "-p", help="panel.h5 or VCF/BCF: sets MAF.")],
    typed: Annotated[
        Path | None,
        typer.Option("--typed", help="VCF/BCF of typed sites, which are left out of the figures."),
    ] = None,
    region: RegionOption = None,
    json_out: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Write figures; x_mqc.json is for MultiQC."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with plots.")
    ] = None,
    threads: ThreadsOption = 1,
) -> None:
    """Accuracy of imputed dosages against the truth, by MAF bin."""
    if html is not None:
        require("report", f"--html {html}")
    from ragimpute.evaluate import evaluate as run

    inputs = {"truth input": truth, "panel input": panel, "typed input": typed}
    inputs |= {f"imputed input {path}": path for path in imputed}
    for page in (json_out, html):
        if page is not None:
            check_output(page, inputs)
    done = {}
    for path in imputed:
        name = path.name if path.name not in done else str(path)
        done[name] = run(
            truth, path, panel, typed=typed, region=parse_region(region), threads=threads
        )
    for name, result in done.items():
        print_table(result.table(), title=name)
        if result.phase is not None:
            print_rows([("switch errors", result.phase.text())])
    if json_out is not None:
        from ragimpute.report_by_name import report_evaluate

        report_evaluate(done, json_out)
    if html is not None:
        from ragimpute.report import render_evaluate

        (name, first), *rest = done.items()
        render_evaluate(first, html, title=name, others=dict(rest))


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
    from ragimpute.info import describe

    if not paths and not environment:
        raise typer.BadParameter("give a file or folder, or --environment")
    if environment:
        from ragimpute.environment import describe_environment

        print_rows(describe_environment(), title="environment")
    for path in paths or []:
        print_rows(describe(path), title=str(path))


@app.command(epilog="Example:  ragimpute demo -o demo-output")
def demo(
    out: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.")
    ] = Path("demo-output"),
    threads: ThreadsOption = 2,
    force: ForceOption = False,
) -> None:
    """Run the whole pipeline on a real 1000 Genomes example that the package carries."""
    if out.exists() and not force and any(out.iterdir()):
        raise InputError(f"folder {out} is not empty", hint="choose another -o, or give --force")
    from ragimpute.demo import run_demo

    with progress_bar(False) as progress:
        done = run_demo(
            out, threads=threads, progress=progress,
            line=lambda text: stdout.print(escape(text), soft_wrap=True),
        )  # fmt: skip
    print_table(
        done.evaluation.table(), title="Accuracy at untyped sites, by minor allele frequency"
    )
    stdout.print(f"imputed VCF  {done.imputed}", soft_wrap=True)
    if done.report is not None:
        stdout.print(f"HTML report  {done.report}", soft_wrap=True)


#: As --help lists them: in the order of a first session.
ORDER = (
    "prepare",
    "index",
    "train",
    "plan",
    "phase",
    "impute",
    "merge",
    "evaluate",
    "info",
    "demo",
)
app.registered_commands.sort(key=lambda command: ORDER.index(command_name(command)))


if __name__ == "__main__":
    main()
