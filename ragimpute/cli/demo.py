"""``ragimpute demo``."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from ragimpute.cli.app import ForceOption, OutputFolderOption, ThreadsOption, command
from ragimpute.cli.terminal import print_table, stdout
from ragimpute.cli.watch import RunOptions, watching
from ragimpute.errors import InputError


@command("ragimpute demo -o demo-output")
def demo(
    out: OutputFolderOption = Path("demo-output"),
    threads: ThreadsOption = 2,
    force: ForceOption = False,
) -> None:
    """Prepare, impute and evaluate a real 1000 Genomes example that the package carries."""
    if out.exists() and not force and any(out.iterdir()):
        raise InputError(f"folder {out} is not empty", hint="choose another -o, or give --force")
    from ragimpute.cli.run_demo import run_demo

    with watching(RunOptions(), inputs={}, out=out) as watch:
        done = run_demo(
            out, threads=threads, progress=watch.progress,
            line=lambda text: stdout.print(escape(text), soft_wrap=True),
        )  # fmt: skip
    print_table(
        done.evaluation.table(), title="Accuracy at untyped sites, by minor allele frequency"
    )
    stdout.print(f"imputed VCF  {escape(str(done.imputed))}", soft_wrap=True)
    if done.report is not None:
        stdout.print(f"HTML report  {escape(str(done.report))}", soft_wrap=True)
