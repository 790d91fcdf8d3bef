"""``ragimpute impute``: its options, and how they are passed on."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli.app import (
    DeviceOption,
    ExcludedSitesOption,
    FastaOption,
    GvcfMinGqOption,
    JoinOption,
    MapOption,
    ParOption,
    QuietOption,
    RateOption,
    RegionOption,
    SeedOption,
    ThreadsOption,
    WithTargetsOption,
    app,
    command_line,
    parse_region,
)
from ragimpute.cli.terminal import print_rows, progress_bar
from ragimpute.extras import require
from ragimpute.runtime.memory import parse_size
from ragimpute.runtime.outputs import check_output, check_report_name

# These options are not recorded in the output, so that the outputs of all regions of a panel have
# the same header.
_BY_REGION = (
    "--region", "-r", "--output", "-o", "--sites", "--empirical", "--excluded-sites", "--report",
    "--max-memory", "--array-fit",
)  # fmt: skip

_OBJECTS_BEFORE_GARBAGE = 500_000


@app.command(
    epilog="Example:  ragimpute impute target.vcf.gz --panel panel.h5 -o imputed.vcf.gz -t 4",
)
def impute(
    target: Annotated[
        Path, typer.Argument(help="VCF/BCF to impute; unphased genotypes are phased first.")
    ],
    panel: Annotated[
        Path, typer.Option("--panel", "-p", metavar="FILE", help="panel.h5, or a phased VCF/BCF.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help=".vcf.gz, .vcf or .bcf; - = stdout."),
    ] = None,
    genetic_map: MapOption = None,
    cm_per_mb: RateOption = None,
    index: Annotated[
        Path | None,
        typer.Option("--index", metavar="DIR", help="Made by 'index'; token models search it."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A shipped model's name, or a trained folder.")
    ] = "default",
    region: RegionOption = None,
    samples_file: Annotated[
        Path | None,
        typer.Option("--samples-file", metavar="FILE", help="Impute these alone, one name a line."),
    ] = None,
    exclude_samples: Annotated[
        Path | None,
        typer.Option("--exclude-samples", metavar="FILE", help="Leave these out."),
    ] = None,
    palindromes: Annotated[
        str,
        typer.Option(
            metavar="frequency|keep|drop",
            help="A/T and C/G records: the likelier strand where that is sure, the panel's, none.",
        ),
    ] = "frequency",
    par: ParOption = None,
    phased_only: Annotated[
        bool,
        typer.Option(
            "--phased-only", help="Refuse unphased genotypes, and samples cut into phase sets."
        ),
    ] = False,
    with_targets: WithTargetsOption = None,
    qc_only: Annotated[
        bool, typer.Option("--qc-only", help="Compare target and panel, impute nothing.")
    ] = False,
    excluded_sites: ExcludedSitesOption = None,
    gvcf_min_gq: GvcfMinGqOption = 20.0,
    fasta: FastaOption = None,
    fields: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Of GT,DS,GP,HDS,AP.")
    ] = "GT,DS,GP",
    digits: Annotated[
        int,
        typer.Option("--digits", min=2, max=4, help="Decimals of DS, GP, HDS and AP."),
    ] = 3,
    compression_level: Annotated[
        int,
        typer.Option(
            "--compression-level", min=1, max=12, help="1 writes fast, 12 writes small files."
        ),
    ] = 1,
    typed_only: Annotated[
        bool, typer.Option("--typed-only", help="Write records that the panel lacks, too.")
    ] = False,
    join_multiallelics: JoinOption = False,
    min_r2: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave out untyped sites of a lower DR2.")
    ] = 0.0,
    sites: Annotated[
        Path | None,
        typer.Option("--sites", metavar="FILE", help="Write the sites without samples, too."),
    ] = None,
    empirical: Annotated[
        Path | None,
        typer.Option("--empirical", metavar="FILE", help="Write typed sites with GT and LDS, too."),
    ] = None,
    ne: Annotated[
        float | None,
        typer.Option(min=1.0, help="Effective population size; else chosen on the panel."),
    ] = None,
    err: Annotated[
        float | None,
        typer.Option(min=1e-6, max=0.4, help="Mismatch probability; else chosen on the panel."),
    ] = None,
    fine_tune: Annotated[
        bool,
        typer.Option(
            "--fine-tune/--no-fine-tune", help="Fit the model's network to the panel first."
        ),
    ] = True,
    array_fit: Annotated[
        Path | None,
        typer.Option(
            "--array-fit",
            metavar="FILE",
            help="What the panel says of the typed sites: read where it is there, else written.",
        ),
    ] = None,
    chunk_cm: Annotated[float, typer.Option(min=0.01, help="Longest window, cM.")] = 40.0,
    buffer_cm: Annotated[float, typer.Option(min=0.0, help="Buffer on each side, cM.")] = 2.0,
    reports: Annotated[
        list[Path] | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write a report: .html, .json, or _mqc.json for MultiQC; repeatable.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep finished windows until all are; go on from those kept."
        ),
    ] = False,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="E.g. 4G or 800M; else what is free, up to 1G."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Impute a target from a panel: dosages for every panel site."""
    if palindromes not in ("frequency", "keep", "drop"):
        raise typer.BadParameter(f"--palindromes {palindromes} is not frequency, keep or drop")
    if out is None and not qc_only:
        raise typer.BadParameter("--output / -o is needed, unless --qc-only is given")
    # Scanning the freshly imported objects for garbage repeatedly costs 0.03 s.
    gc.set_threshold(_OBJECTS_BEFORE_GARBAGE)
    from ragimpute.imputation.options import ImputeOptions, OutputOptions
    from ragimpute.phasing.phase_target import PhaseOptions
    from ragimpute.target.inputs import TargetOptions

    options = ImputeOptions(
        index=index, model=model, genetic_map=genetic_map, cm_per_mb=cm_per_mb,
        region=parse_region(region),
        fields=[name.strip() for name in fields.split(",") if name.strip()],
        ne=ne, err=err, fine_tune=fine_tune, array_fit=array_fit, threads=threads, seed=seed,
        window_cm=chunk_cm, buffer_cm=buffer_cm, device=device,
        max_memory=None if max_memory is None else parse_size(max_memory), resume=resume,
        target_options=TargetOptions(
            samples_file, exclude_samples, palindromes, excluded_sites, par, gvcf_min_gq,
            fasta,
        ),
        output_options=OutputOptions(
            min_r2, typed_only, sites, empirical, join_multiallelics, digits, compression_level
        ),
        phase_options=PhaseOptions(phased_only, with_targets),
    )  # fmt: skip
    files = options.input_files(target, panel)
    if out is None or qc_only:
        from ragimpute.imputation.compare import compare

        with progress_bar(quiet) as progress:
            found = compare(files, threads=threads, progress=progress)
        print_rows(found.rows(), title=f"{target} beside {panel}")
        return
    from ragimpute.imputation.impute import impute as run

    for path in reports or []:
        check_output(path, {**files.named(), **options.files_written(), "imputed output": out})
        check_report_name(path)
        if path.suffix == ".html":
            require("report", f"--report {path}")
    with progress_bar(quiet) as progress:
        done = run(
            target, panel, out, options, progress=progress,
            command=command_line(without=_BY_REGION, flags=("--resume",)),
        )  # fmt: skip
    done.command = command_line(keeps_all=True)
    if reports:
        from ragimpute.reports.by_file_name import report_impute

        report_impute(done, reports)
    if not quiet and out != "-":
        print_rows(done.rows())
