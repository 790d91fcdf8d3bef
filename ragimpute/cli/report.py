"""``ragimpute report``: the reports of several runs as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import app
from ragimpute.extras import require
from ragimpute.runtime.outputs import check_output


@app.command(
    epilog="Example:  ragimpute report chr*.json -o genome.html -o genome.json",
)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN.json", help="Reports that 'impute --report' wrote as JSON."),
    ],
    out: Annotated[
        list[Path],
        typer.Option(
            "--output", "-o", metavar="FILE", help=".html for a page, .json for its figures."
        ),
    ],
) -> None:
    """Join the reports of several runs: chromosomes side by side, and the whole genome."""
    inputs: dict[str, str | Path | None] = {f"report input {path}": path for path in runs}
    for path in out:
        check_output(path, inputs)
        inputs[f"output {path}"] = path
        if path.suffix == ".html":
            require("report", f"--output {path}")
    from ragimpute.reports.by_file_name import report_genome

    report_genome(runs, out)
