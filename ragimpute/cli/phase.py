"""``ragimpute phase``: its options, and how they are passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    BufferOption,
    ChainOption,
    ExcludedSitesOption,
    FastaOption,
    GvcfMinGqOption,
    JoinOption,
    LogLevelOption,
    LogOption,
    MapOption,
    OutputOption,
    OutputTypeOption,
    PanelOption,
    ParOption,
    QuietOption,
    RateOption,
    RegionOption,
    SeedOption,
    ThreadsOption,
    WithTargetsOption,
    command,
    command_line,
    parse_region,
)
from ragimpute.cli.watch import RunOptions, watching

# Not recorded in the output, so that the outputs of all regions have the same header.
_BY_REGION = ("--region", "-r", "--output", "-o", "--out", "--excluded-sites")


@command("ragimpute phase target.vcf.gz --panel panel.h5 -o phased.vcf.gz -t 4")
def phase(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            rich_help_panel="Input",
            help="The samples to phase: VCF, BCF, the files of PLINK (name the .bed or .pgen, or "
            "their prefix), or raw text of 23andMe, AncestryDNA, MyHeritage or FTDNA.",
        ),
    ],
    panel: PanelOption,
    out: OutputOption,
    genetic_map: MapOption = None,
    cm_per_mb: RateOption = None,
    region: RegionOption = None,
    par: ParOption = None,
    excluded_sites: ExcludedSitesOption = None,
    gvcf_min_gq: GvcfMinGqOption = 20.0,
    fasta: FastaOption = None,
    chain: ChainOption = None,
    with_targets: WithTargetsOption = None,
    ne: Annotated[
        float | None,
        typer.Option(
            "--ne",
            metavar="NE",
            min=1.0,
            rich_help_panel="Model",
            help="Effective population size. Default: chosen by the likelihood of the panel's "
            "haplotypes, and of the other targets' if they are copied.",
        ),
    ] = None,
    err: Annotated[
        float | None,
        typer.Option(
            "--err",
            metavar="P",
            min=1e-6,
            max=0.4,
            rich_help_panel="Model",
            help="Probability that a target's allele differs from the panel haplotype that it "
            "copies. Default: chosen as --ne is.",
        ),
    ] = None,
    buffer_cm: BufferOption = 2.0,
    output_type: OutputTypeOption = None,
    join_multiallelics: JoinOption = False,
    seed: SeedOption = 1,
    threads: ThreadsOption = 1,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: QuietOption = False,
) -> None:
    """Phase a target against a panel: write its sites that the panel has."""
    from ragimpute.phasing.phase import phase as run
    from ragimpute.target.inputs import TargetOptions

    inputs = {"target input": target, "panel input": panel, "map input": genetic_map}
    inputs |= {"FASTA input": fasta, "chain input": chain}
    with watching(
        RunOptions(quiet, log, log_level),
        inputs=inputs,
        out=out,
        beside={"excluded sites": excluded_sites},
    ) as watch:
        done = run(
            target, panel, out, genetic_map=genetic_map, cm_per_mb=cm_per_mb,
            region=parse_region(region), with_targets=with_targets, ne=ne, err=err,
            buffer_cm=buffer_cm, seed=seed, threads=threads, progress=watch.progress,
            command=command_line(without=_BY_REGION),
            target_options=TargetOptions(
                par=par, excluded_sites=excluded_sites, gvcf_min_gq=gvcf_min_gq, fasta=fasta,
                chain=chain,
            ),
            join_multiallelics=join_multiallelics,
            output_type=None if output_type is None else output_type.value,
        )  # fmt: skip
        watch.summary(done.rows())
