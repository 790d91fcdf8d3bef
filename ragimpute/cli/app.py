"""The Typer program, and the options that several of its commands share."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import CommandInfo

from ragimpute import __version__
from ragimpute.cli import complete
from ragimpute.cli.help import Command, Program
from ragimpute.cli.terminal import ToStderr, stdout
from ragimpute.cli.watch import log_at
from ragimpute.sites import Region

app = typer.Typer(
    name="ragimpute",
    cls=Program,
    help="Genotype imputation from a phased reference panel.\n\n"
    "First 'prepare' turns the panel and a genetic map into one file. Then 'impute' imputes any "
    "number of targets from it; unphased targets are phased on the way. No command between the "
    "two is needed: 'index' and 'train' are for models of your own. 'ragimpute COMMAND --help' "
    "explains a command.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogLevel(StrEnum):
    """How much is told of a run."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class OutputType(StrEnum):
    """Formats of an output, by the letters of bcftools."""

    V = "v"
    Z = "z"
    B = "b"
    U = "u"


class ImputedType(StrEnum):
    """Formats of an imputed output: those of :class:`OutputType`, and sets of files."""

    V = "v"
    Z = "z"
    B = "b"
    U = "u"
    BGEN = "bgen"
    PGEN = "pgen"


def command(example: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add a command; ``example`` is shown below its options."""
    return app.command(cls=Command, epilog=f"Example:  {example}")


# Options that several commands share.
PanelOption = Annotated[
    Path,
    typer.Option(
        "--panel", "-p", metavar="FILE", rich_help_panel="Panel",
        help="The reference panel: a panel.h5 that 'ragimpute prepare' made. A phased VCF, BCF, "
        "M3VCF or scikit-allel HDF5 works too, and is then prepared for this run only.",
    ),
]  # fmt: skip
MapOption = Annotated[
    Path | None,
    typer.Option(
        "--map", metavar="FILE", rich_help_panel="Panel",
        help="Genetic map with columns as PLINK, SHAPEIT or Eagle/HapMap write them. Only for a "
        "panel that is not a panel.h5, which holds its map already.",
    ),
]  # fmt: skip
RateOption = Annotated[
    float | None,
    typer.Option(
        "--cm-per-mb", metavar="RATE", rich_help_panel="Panel",
        help="Use this recombination rate everywhere, in cM/Mb, instead of a genetic map.",
    ),
]  # fmt: skip
ParOption = Annotated[
    str | None,
    typer.Option(
        "--par", metavar="b37|b38|chm13|none|REGIONS", rich_help_panel="Panel",
        autocompletion=complete.par_regions,
        help="Where on a sex chromosome males are diploid (the pseudo-autosomal regions): those of "
        "a genome build, none, or regions such as X:1-2781479. Default: those of the build that "
        "the length of X tells.",
    ),
]  # fmt: skip
PopulationsOption = Annotated[
    Path | None,
    typer.Option(
        "--populations", metavar="FILE", rich_help_panel="Panel",
        help="Table of two columns, sample and population. Token models use the allele "
        "frequencies of populations; the shipped models do not.",
    ),
]  # fmt: skip
MapsOption = Annotated[
    Path | None,
    typer.Option(
        "--maps", metavar="DIR", rich_help_panel="Panel",
        help="Folder of maps of RAG-SNVBERT: the panel gets the populations' order of "
        "pop_to_idx.bin and the windows of segments.csv. 'ragimpute info --export-maps' writes "
        "such a folder.",
    ),
]  # fmt: skip
RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region", "-r", metavar="CHR[:FROM-TO]", rich_help_panel="Region",
        help="Only these sites, such as 20 or 20:1000000-5000000. Positions count from 1, and "
        "both ends belong to the region. Default: all sites.",
    ),
]  # fmt: skip
BufferOption = Annotated[
    float,
    typer.Option(
        "--buffer-cm", metavar="CM", min=0.0, rich_help_panel="Region",
        help="So much of the panel and target is read on each side of a region or window, in cM, "
        "so that its ends are as accurate as its middle.",
    ),
]  # fmt: skip
ExcludedSitesOption = Annotated[
    Path | None,
    typer.Option(
        "--excluded-sites", metavar="TSV", rich_help_panel="Output",
        help="Also write a table of the target's records that were not used, and why.",
    ),
]  # fmt: skip
GvcfMinGqOption = Annotated[
    float,
    typer.Option(
        "--gvcf-min-gq", metavar="GQ", min=0.0, rich_help_panel="Input",
        help="For a gVCF target: leave out reference calls of a lower quality than this. The "
        "quality is GQ, RGQ or GQX, or else follows from PL or DP.",
    ),
]  # fmt: skip
FastaOption = Annotated[
    Path | None,
    typer.Option(
        "--fasta", metavar="FILE", rich_help_panel="Input",
        help="Reference genome. With it, insertions and deletions of the target are left-aligned "
        "before they are compared with the panel's.",
    ),
]  # fmt: skip

ChainOption = Annotated[
    Path | None,
    typer.Option(
        "--chain", metavar="FILE", rich_help_panel="Input",
        help="Chain file from the target's genome build to the panel's, such as "
        "hg19ToHg38.over.chain.gz of UCSC. The target's records are lifted over by it first.",
    ),
]  # fmt: skip


def output_option(text: str, *, metavar: str = "FILE") -> Any:
    """The option that names what a command writes; ``text`` is its help."""
    return typer.Option(
        "--output", "-o", "--out", metavar=metavar, rich_help_panel="Output", help=text
    )


OutputOption = Annotated[
    str, output_option("The file to write, .vcf.gz, .bcf or .vcf. - is standard output.")
]
OutputFolderOption = Annotated[Path, output_option("The folder to write.", metavar="DIR")]
ForceOption = Annotated[
    bool,
    typer.Option("--force", rich_help_panel="Output", help="Replace the output if it exists."),
]
JoinOption = Annotated[
    bool,
    typer.Option(
        "--join-multiallelics", rich_help_panel="Output",
        help="Write sites of the same position and REF as one record with several ALTs, not as "
        "one record for each ALT. Symbolic ALTs are joined only to the record that they were.",
    ),
]  # fmt: skip
MinR2Option = Annotated[
    float,
    typer.Option(
        "--min-r2", metavar="R2", min=0.0, max=1.0, rich_help_panel="Output",
        help="Leave out untyped sites whose estimated accuracy (DR2) is below this.",
    ),
]  # fmt: skip
NeOption = Annotated[
    float | None,
    typer.Option(
        "--ne", metavar="NE", min=1.0, rich_help_panel="Model",
        help="Effective population size, for imputing and for phasing. Default: chosen for each of "
        "them, by how well haplotypes of the panel copy each other.",
    ),
]  # fmt: skip
ErrOption = Annotated[
    float | None,
    typer.Option(
        "--err", metavar="P", min=1e-6, max=0.4, rich_help_panel="Model",
        help="Probability that a target's allele differs from the panel haplotype that it copies. "
        "Default: chosen as --ne is.",
    ),
]  # fmt: skip
FineTuneOption = Annotated[
    bool,
    typer.Option(
        "--fine-tune/--no-fine-tune", rich_help_panel="Model",
        help="Whether to fit the model's network to the panel first.",
    ),
]  # fmt: skip
ChunkOption = Annotated[
    float,
    typer.Option(
        "--chunk-cm", metavar="CM", min=0.01, rich_help_panel="Region",
        help="Impute windows of at most this length, in cM, one after the other.",
    ),
]  # fmt: skip
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        "--max-memory", metavar="SIZE", rich_help_panel="Run",
        help="Use at most so much memory, such as 4G or 800M. Default: what is free, up to 1G, "
        "or 1.75G with a panel of more than 20,000 haplotypes.",
    ),
]  # fmt: skip
OutputTypeOption = Annotated[
    OutputType | None,
    typer.Option(
        "--output-type", "-O", rich_help_panel="Output",
        help="Format of the output: v VCF, z compressed VCF, b BCF, u uncompressed BCF. Default: "
        "as the suffix of the output says, and v for standard output.",
    ),
]  # fmt: skip
ImputedTypeOption = Annotated[
    ImputedType | None,
    typer.Option(
        "--output-type", "-O", rich_help_panel="Output",
        help="Format of the output: v VCF, z compressed VCF, b BCF, u uncompressed BCF, bgen BGEN, "
        "pgen PGEN. Default: as the suffix of the output says, and v for standard output.",
    ),
]  # fmt: skip
TypedSitesOption = Annotated[
    Path | None,
    typer.Option(
        "--typed-sites", "--sites", "--typed", metavar="FILE", rich_help_panel="Input",
        help="VCF or BCF of the sites that the array types.",
    ),
]  # fmt: skip
WithTargetsOption = Annotated[
    bool | None,
    typer.Option(
        "--phase-with-targets/--phase-without-targets", rich_help_panel="Model",
        help="Whether to use the other target samples as extra haplotypes when phasing. No sample "
        "copies one with the same heterozygous genotypes, as it may be the same individual. "
        "Default: only if the panel has at most 6,000 haplotypes.",
    ),
]  # fmt: skip
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed", metavar="N", min=0, rich_help_panel="Run",
        help="Seed of every random choice: the same seed gives the same output.",
    ),
]  # fmt: skip
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", metavar="auto|cpu|cuda", rich_help_panel="Run",
        autocompletion=complete.devices,
        help="Where networks run and indexes are searched. auto takes a GPU if there is one; "
        "cuda:1 is the second GPU. impute copies haplotypes on a GPU only if cuda is given.",
    ),
]  # fmt: skip
ThreadsOption = Annotated[
    int,
    typer.Option(
        "--threads", "-t", metavar="N", min=1, rich_help_panel="Run",
        help="Use so many threads. The output does not depend on it.",
    ),
]  # fmt: skip
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", rich_help_panel="Run",
        help="Show no progress and no summary; warnings and errors are still shown.",
    ),
]  # fmt: skip
LogOption = Annotated[
    str | None,
    typer.Option(
        "--log", metavar="FILE|auto", rich_help_panel="Run",
        help="Write a log: command, versions, machine, inputs, time of each stage, warnings, "
        "summary, and how the run ended. auto names it after the output: OUTPUT.log.",
    ),
]  # fmt: skip
LogLevelOption = Annotated[
    LogLevel | None,
    typer.Option(
        "--log-level", rich_help_panel="Run",
        help="How much to tell on standard error and in the log. info: each stage; debug: also "
        "windows, states, chosen parameters and memory. Default: warning.",
    ),
]  # fmt: skip


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        stdout.print(f"ragimpute {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    log_level: Annotated[
        LogLevel,
        typer.Option(
            "--log-level",
            help="How much to tell on standard error. It may also be given after the command.",
        ),
    ] = LogLevel.WARNING,
) -> None:
    logger = logging.getLogger("ragimpute")
    if not logger.handlers:
        logger.addHandler(ToStderr())
        logger.propagate = False
    log_at(log_level.value)
    # If no folder of the user can be written, matplotlib keeps its list of fonts in a temporary
    # folder and warns of it. A user of reports can do nothing about that.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def parse_region(text: str | None) -> Region | None:
    """A region from its text."""
    return None if text is None else Region.parse(text)


# Options that do not change the output, with a value and without.
_HOW = ("--threads", "-t", "--log", "--log-level")
_HOW_FLAGS = ("--quiet", "-q")


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
    gone = (*_HOW, *without)
    short = tuple(name for name in gone if not name.startswith("--"))
    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word in gone:
            next(words, None)
        elif word in (*_HOW_FLAGS, *flags) or word.partition("=")[0] in gone:
            continue
        elif not (word.startswith(short) and not word.startswith("--")):
            kept.append(word)
    return shlex.join(["ragimpute", *kept])


def memory_hint() -> str:
    """What to do if memory runs out in the command that was given: it names options that it has."""
    program: Any = typer.main.get_command(app)
    takes_value = {n for p in program.params if not getattr(p, "is_flag", False) for n in p.opts}
    words, given = iter(sys.argv[1:]), None
    for word in words:
        if word in takes_value:
            next(words, None)
        elif not word.startswith("-"):
            given = program.commands.get(word)
            break
    has = {name for option in getattr(given, "params", ()) for name in option.opts}
    lower = [name for name in ("--max-memory", "--threads", "--chunk-cm") if name in has]
    if not {"--threads", "-t"} & set(sys.argv) and "--threads" in lower:
        lower.remove("--threads")  # one is the default
    hints = [f"lower {' or '.join(lower)}"] if lower else []
    if "--region" in has:
        hints.append("give a smaller --region")
    return ", ".join([*hints, "end other programs, or use a machine with more memory"])


def command_name(command: CommandInfo) -> str:
    """A command's name as it is typed."""
    return str(command.name or getattr(command.callback, "__name__", ""))
