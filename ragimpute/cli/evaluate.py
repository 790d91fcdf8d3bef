"""``ragimpute evaluate``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    LogLevelOption,
    LogOption,
    RegionOption,
    ThreadsOption,
    command,
    parse_region,
)
from ragimpute.cli.watch import RunOptions, watching
from ragimpute.extras import require
from ragimpute.runtime.outputs import check_output

logger = logging.getLogger("ragimpute")


@command("ragimpute evaluate --truth truth.bcf --imputed out.vcf.gz --panel panel.h5")
def evaluate(
    truth: Annotated[
        Path,
        typer.Option(
            "--truth",
            metavar="FILE",
            rich_help_panel="Input",
            help="VCF or BCF of the true genotypes.",
        ),
    ],
    imputed: Annotated[
        list[Path],
        typer.Option(
            "--imputed",
            metavar="FILE",
            rich_help_panel="Input",
            help="Imputed VCF or BCF, of any tool. May be given several times, to compare them.",
        ),
    ],
    panel: Annotated[
        Path,
        typer.Option(
            "--panel",
            "-p",
            metavar="FILE",
            rich_help_panel="Panel",
            help="The panel, as impute takes it, phased or not: its sites are scored, and its "
            "minor allele frequencies (MAF) sort them into bins.",
        ),
    ],
    typed: Annotated[
        Path | None,
        typer.Option(
            "--typed-sites",
            "--typed",
            metavar="FILE",
            rich_help_panel="Input",
            help="VCF or BCF of the sites that were typed, which are not scored. Default: those "
            "that the imputed file marks as typed (INFO/TYPED or IMP).",
        ),
    ] = None,
    region: RegionOption = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="FILE",
            rich_help_panel="Output",
            help="Also write the figures to this file; a name that ends in _mqc.json makes a "
            "section for MultiQC.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            rich_help_panel="Output",
            help="Also write a page with plots.",
        ),
    ] = None,
    jackknife: Annotated[
        bool,
        typer.Option(
            "--jackknife",
            rich_help_panel="Output",
            help="Also tell the standard error of each r2 (column ±), by leaving out one sample "
            "after the other.",
        ),
    ] = False,
    threads: ThreadsOption = 1,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            rich_help_panel="Run",
            help="Show no progress; figures, warnings and errors are still shown.",
        ),
    ] = False,
) -> None:
    """Compare imputed dosages with the truth: r2 and concordance by allele frequency."""
    if html is not None:
        require("report", f"--html {html}")
    from ragimpute.accuracy.evaluate import evaluate as run

    inputs = {"truth input": truth, "panel input": panel, "typed input": typed}
    inputs |= {f"imputed input {path}": path for path in imputed}
    for page in (json_out, html):
        if page is not None:
            check_output(page, inputs)
    done = {}
    run_options = RunOptions(quiet, log, log_level)
    with watching(run_options, inputs=inputs, out=json_out or html, beside={"page": html}) as watch:
        for path in imputed:
            name = path.name if path.name not in done else str(path)
            done[name] = run(
                truth, path, panel, typed=typed, region=parse_region(region), threads=threads,
                jackknife=jackknife,
            )  # fmt: skip
        for result in done.values():
            for note in result.notes:
                logger.warning(note)
        for name, result in done.items():
            watch.table(result.table(), title=name)
            rows = [result.record_row()]
            if result.phase is not None:
                rows.append(("switch errors", result.phase.text()))
            watch.result(rows)
        if json_out is not None:
            from ragimpute.reports.by_file_name import report_evaluate

            report_evaluate(done, json_out)
        if html is not None:
            from ragimpute.reports.pages import render_evaluate

            (name, first), *rest = done.items()
            render_evaluate(first, html, title=name, others=dict(rest))
