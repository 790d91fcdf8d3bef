"""``ragimpute evaluate``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import RegionOption, ThreadsOption, app, parse_region
from ragimpute.cli.terminal import print_rows, print_table
from ragimpute.extras import require
from ragimpute.runtime.outputs import check_output

log = logging.getLogger("ragimpute")


@app.command(
    epilog="Example:  ragimpute evaluate --truth truth.bcf --imputed out.vcf.gz --panel panel.h5",
)
def evaluate(
    truth: Annotated[Path, typer.Option("--truth", help="VCF/BCF of the true genotypes.")],
    imputed: Annotated[
        list[Path], typer.Option("--imputed", help="Imputed VCF/BCF; repeat to compare tools.")
    ],
    panel: Annotated[
        Path,
        typer.Option("--panel", "-p", help="As impute takes it, phased or not: sets MAF."),
    ],
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
    from ragimpute.accuracy.evaluate import evaluate as run

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
        for note in result.notes:
            log.warning(note)
        rows = [result.record_row()]
        if result.phase is not None:
            rows.append(("switch errors", result.phase.text()))
        print_rows(rows)
    if json_out is not None:
        from ragimpute.reports.by_file_name import report_evaluate

        report_evaluate(done, json_out)
    if html is not None:
        from ragimpute.reports.pages import render_evaluate

        (name, first), *rest = done.items()
        render_evaluate(first, html, title=name, others=dict(rest))
