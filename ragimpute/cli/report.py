"""``ragimpute report``: the reports of several runs as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import command, output_option
from ragimpute.extras import require
from ragimpute.runtime.outputs import check_output


@command("ragimpute report chr*.json -o genome.html -o genome.json")
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN.json",
            rich_help_panel="Input",
            help="The reports of the runs, one or several a chromosome, which 'impute --report' "
            "wrote as .json.",
        ),
    ],
    out: Annotated[
        list[Path],
        output_option(
            "The file to write: .html for a page, .json for its figures. May be given "
            "several times."
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
