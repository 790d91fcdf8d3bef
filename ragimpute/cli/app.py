"""The Typer program, and the options that several of its commands share."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.models import CommandInfo

from ragimpute import __version__
from ragimpute.cli.terminal import stdout
from ragimpute.sites import Region

app = typer.Typer(
    name="ragimpute",
    help="Genotype imputation by retrieved haplotypes and a trained network (BERTWithRAG).\n\n"
    "A run needs a phased panel, a genetic map and a target: [bold]prepare[/bold] the panel once, "
    "then [bold]impute[/bold] any number of targets. An index and training are optional.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

# Options that several commands share.
ThreadsOption = Annotated[
    int, typer.Option("--threads", "-t", min=1, help="Threads; the result does not depend on it.")
]
RegionOption = Annotated[
    str | None,
    typer.Option("--region", "-r", metavar="CHR[:FROM-TO]", help="1-based and closed."),
]
MapOption = Annotated[
    Path | None,
    typer.Option(
        "--map", metavar="FILE", help="Genetic map: PLINK, SHAPEIT or Eagle/HapMap columns."
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option("--cm-per-mb", metavar="RATE", help="Uniform recombination rate, without a map."),
]
ParOption = Annotated[
    str | None,
    typer.Option(
        "--par",
        metavar="b37|b38|chm13|none|REGIONS",
        help="Where males are diploid on a sex chromosome. Default: by the length of X.",
    ),
]
GvcfMinGqOption = Annotated[
    float,
    typer.Option(
        "--gvcf-min-gq",
        metavar="GQ",
        min=0.0,
        help="In a gVCF, the lowest quality of a call of REF that is used: GQ, RGQ, GQX, by PL, or "
        "3 times the depth.",
    ),
]
FastaOption = Annotated[
    Path | None,
    typer.Option(
        "--fasta",
        metavar="FILE",
        help="Reference genome, by which insertions and deletions are aligned before matching.",
    ),
]
ExcludedSitesOption = Annotated[
    Path | None,
    typer.Option("--excluded-sites", metavar="TSV", help="Write the records not used, and why."),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", metavar="auto|cpu|cuda", help="Where networks run and indexes are searched."
    ),
]
JoinOption = Annotated[
    bool,
    typer.Option(
        "--join-multiallelics", help="Write the ALTs of one position and REF as one record."
    ),
]
WithTargetsOption = Annotated[
    bool | None,
    typer.Option(
        "--phase-with-targets/--phase-without-targets",
        help="Use the other target samples as extra haplotypes when phasing. Default: only if the "
        "panel has at most 6,000 haplotypes.",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no summary.")]


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        stdout.print(f"ragimpute {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    log_level: Annotated[
        str, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = "warning",
) -> None:
    level = getattr(logging, log_level.upper(), None)
    if not isinstance(level, int):
        raise typer.BadParameter(f"{log_level} is not debug, info, warning or error")
    logger = logging.getLogger("ragimpute")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    # If no folder of the user can be written, matplotlib keeps its list of fonts in a temporary
    # folder and warns of it. A user of reports can do nothing about that.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def parse_region(text: str | None) -> Region | None:
    """A region from its text."""
    return None if text is None else Region.parse(text)


def command_line(
    *, without: Sequence[str] = (), flags: Sequence[str] = (), keeps_all: bool = False
) -> str:
    """The command as it was given, without the options that do not change the output.

    The output records it.

    Parameters
    ----------
    without
        Names of further options to leave out that take a value, such as "--region" and "-r".
    flags
        Names of further options to leave out that take no value.
    keeps_all
        Leave out nothing, as a report wants it.
    """
    if keeps_all:
        return shlex.join(["ragimpute", *sys.argv[1:]])
    gone = ("--threads", "-t", *without)
    short = tuple(name for name in gone if not name.startswith("--"))
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word in gone:
            next(words, None)
        elif word in ("--quiet", "-q", *flags) or word.partition("=")[0] in gone:
            continue
        elif not (word.startswith(short) and not word.startswith("--")):
            kept.append(word)
    return shlex.join(["ragimpute", *kept])


def command_name(command: CommandInfo) -> str:
    """A command's name as it is typed."""
    return str(command.name or getattr(command.callback, "__name__", ""))
