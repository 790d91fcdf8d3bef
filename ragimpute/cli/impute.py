"""``ragimpute impute``: its options, and how they are passed on."""

from __future__ import annotations

import gc
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ragimpute.cli import complete
from ragimpute.cli.app import (
    BufferOption,
    ChainOption,
    ChunkOption,
    DeviceOption,
    ErrOption,
    ExcludedSitesOption,
    FastaOption,
    FineTuneOption,
    GvcfMinGqOption,
    ImputedTypeOption,
    JoinOption,
    LogLevelOption,
    LogOption,
    MapOption,
    MaxMemoryOption,
    MinR2Option,
    NeOption,
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
    output_option,
    parse_region,
)
from ragimpute.cli.watch import RunOptions, watching
from ragimpute.extras import require
from ragimpute.runtime.memory import parse_size
from ragimpute.runtime.outputs import check_output, check_report_name

# These options are not recorded in the output, so that the outputs of all regions of a panel have
# the same header.
_BY_REGION = (
    "--region", "-r", "--output", "-o", "--out", "--sites-output", "--sites", "--empirical",
    "--excluded-sites", "--sites-status", "--report", "--max-memory", "--array-fit", "--index",
)  # fmt: skip

_OBJECTS_BEFORE_GARBAGE = 500_000


class Palindromes(StrEnum):
    """What is done with A/T and C/G records."""

    FREQUENCY = "frequency"
    KEEP = "keep"
    DROP = "drop"


class Likelihoods(StrEnum):
    """Whether the likelihoods of genotypes are used."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class BgenCompression(StrEnum):
    """How the genotypes of each variant of a BGEN are compressed."""

    ZLIB = "zlib"
    ZSTD = "zstd"
    NONE = "none"


class PvarForm(StrEnum):
    """How the table of sites beside a PGEN is written."""

    ZST = "zst"
    PLAIN = "plain"


@command("ragimpute impute target.vcf.gz --panel panel.h5 -o imputed.vcf.gz -t 4")
def impute(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET",
            rich_help_panel="Input",
            help="The samples to impute: VCF, BCF, the files of PLINK (name the .bed or .pgen, or "
            "their prefix), or raw text of 23andMe, AncestryDNA, MyHeritage or FTDNA. Unphased "
            "genotypes are phased first.",
        ),
    ],
    panel: PanelOption,
    out: Annotated[
        str | None,
        output_option(
            "The file to write: .vcf.gz, .bcf or .vcf; .bgen, with its index and .sample; or "
            ".pgen, with .pvar.zst and .psam. - is standard output. (required, except with "
            "--qc-only)"
        ),
    ] = None,
    genetic_map: MapOption = None,
    cm_per_mb: RateOption = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            metavar="DIR",
            rich_help_panel="Panel",
            help="Index that 'ragimpute index' made of the panel and the target's array. A run "
            "takes from it all that does not depend on the genotypes, so that it takes less time; "
            "the output is the same.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|DIR",
            rich_help_panel="Model",
            autocompletion=complete.models,
            help="The model: default, which ships with trained weights, or a folder that "
            "'ragimpute train' wrote. 'ragimpute models' lists what ships.",
        ),
    ] = "default",
    region: RegionOption = None,
    samples_file: Annotated[
        Path | None,
        typer.Option(
            "--samples-file",
            metavar="FILE",
            rich_help_panel="Input",
            help="Impute only the samples that this file names, one a line.",
        ),
    ] = None,
    exclude_samples: Annotated[
        Path | None,
        typer.Option(
            "--exclude-samples",
            metavar="FILE",
            rich_help_panel="Input",
            help="Leave out the samples that this file names, one a line.",
        ),
    ] = None,
    palindromes: Annotated[
        Palindromes,
        typer.Option(
            "--palindromes",
            rich_help_panel="Input",
            help="A/T and C/G records, whose strand their alleles do not tell. frequency: take the "
            "strand that fits the panel's allele frequency where that is clear, and leave the "
            "others out; keep: take them as they are; drop: leave all out.",
        ),
    ] = Palindromes.FREQUENCY,
    likelihoods: Annotated[
        Likelihoods,
        typer.Option(
            "--likelihoods",
            rich_help_panel="Input",
            help="Whether the target's genotype likelihoods are used in place of its genotypes. "
            "auto: PL or GL where the file has no genotypes, or more than 10 % of those in the "
            "contig's first 2,000 records are unsure; always: PL, GL or else GP; never.",
        ),
    ] = Likelihoods.AUTO,
    use_indel_likelihoods: Annotated[
        bool,
        typer.Option(
            "--use-indel-likelihoods",
            rich_help_panel="Input",
            help="Use the likelihoods of insertions and deletions, too, which pile-ups of reads "
            "often get wrong.",
        ),
    ] = False,
    par: ParOption = None,
    phased_only: Annotated[
        bool,
        typer.Option(
            "--phased-only",
            rich_help_panel="Input",
            help="Stop with an error if genotypes are unphased, or phased only within phase sets, "
            "instead of phasing them.",
        ),
    ] = False,
    with_targets: WithTargetsOption = None,
    qc_only: Annotated[
        bool,
        typer.Option(
            "--qc-only",
            rich_help_panel="Run",
            help="Only compare the target with the panel and print what was found; impute nothing.",
        ),
    ] = False,
    excluded_sites: ExcludedSitesOption = None,
    gvcf_min_gq: GvcfMinGqOption = 20.0,
    fasta: FastaOption = None,
    chain: ChainOption = None,
    output_type: ImputedTypeOption = None,
    fields: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            rich_help_panel="Output",
            autocompletion=complete.fields,
            help="What to write of each sample, separated by commas: GT genotype, DS dosage, GP "
            "genotype probabilities, HDS dosage of each haplotype, AP the same as AP1 and AP2.",
        ),
    ] = "GT,DS,GP",
    digits: Annotated[
        int,
        typer.Option(
            "--digits",
            min=2,
            max=4,
            metavar="N",
            rich_help_panel="Output",
            help="Decimals of DS, GP, HDS and AP, and of dosages in a .pgen. Fewer make the "
            "file smaller; 2 change the accuracy of rare variants a little.",
        ),
    ] = 3,
    compression_level: Annotated[
        int,
        typer.Option(
            "--compression-level",
            min=1,
            max=12,
            metavar="N",
            rich_help_panel="Output",
            help="How hard to compress .vcf.gz, .bcf, .bgen and .pvar.zst: 1 is fastest, 12 makes "
            "the smallest file.",
        ),
    ] = 1,
    bgen_bits: Annotated[
        int,
        typer.Option(
            "--bgen-bits",
            min=1,
            max=32,
            metavar="N",
            rich_help_panel="Output",
            help="Bits of each probability in a .bgen. regenie, SAIGE and BOLT-LMM are made for 8; "
            "16 keep all decimals of a VCF.",
        ),
    ] = 8,
    bgen_compression: Annotated[
        BgenCompression,
        typer.Option(
            "--bgen-compression",
            rich_help_panel="Output",
            help="How a .bgen is compressed. zlib is read by all tools; zstd is faster to "
            "write and read, but not for SAIGE and BOLT-LMM, which do not know it.",
        ),
    ] = BgenCompression.ZLIB,
    bgen_phased: Annotated[
        bool,
        typer.Option(
            "--bgen-phased",
            rich_help_panel="Output",
            help="Write the probabilities of each haplotype to a .bgen, in place of those of "
            "genotypes, which regenie and most association tools need.",
        ),
    ] = False,
    pvar: Annotated[
        PvarForm,
        typer.Option(
            "--pvar",
            rich_help_panel="Output",
            help="The table of sites beside a .pgen: zst for .pvar.zst, which plink2 reads with "
            "the word vzs; plain for .pvar, which regenie needs.",
        ),
    ] = PvarForm.ZST,
    pgen_phased: Annotated[
        bool,
        typer.Option(
            "--pgen-phased",
            rich_help_panel="Output",
            help="Write the dosage of each haplotype to a .pgen, too; its dosages stay the same.",
        ),
    ] = False,
    typed_only: Annotated[
        bool,
        typer.Option(
            "--all-typed-sites",
            "--typed-only",
            rich_help_panel="Output",
            help="Also write the target's records that the panel lacks, as they are.",
        ),
    ] = False,
    join_multiallelics: JoinOption = False,
    min_r2: MinR2Option = 0.0,
    min_gp: Annotated[
        float,
        typer.Option(
            "--min-gp",
            metavar="P",
            min=0.0,
            max=1.0,
            rich_help_panel="Output",
            help="Write a genotype (GT) as missing if its probability (the largest GP) is below "
            "this; DS and GP stay as they are. 0.9 is usual for low-coverage sequencing.",
        ),
    ] = 0.0,
    sites: Annotated[
        Path | None,
        typer.Option(
            "--sites-output",
            "--sites",
            metavar="FILE",
            rich_help_panel="Output",
            help="Also write the sites without samples to this VCF or BCF: a table of allele "
            "frequencies and accuracies.",
        ),
    ] = None,
    empirical: Annotated[
        Path | None,
        typer.Option(
            "--empirical",
            metavar="FILE",
            rich_help_panel="Output",
            help="Also write the typed sites, with the genotype and the dosage as if it had not "
            "been typed (GT, LDS), to this VCF or BCF.",
        ),
    ] = None,
    sites_file: Annotated[
        Path | None,
        typer.Option(
            "--sites-file",
            metavar="FILE",
            rich_help_panel="Output",
            help="Write only the sites that this file names: a score of the PGS Catalog, a list of "
            "CHROM POS [REF ALT], a .bim, BED, manifest, VCF or BCF. Their values are those of "
            "the whole output.",
        ),
    ] = None,
    sites_status: Annotated[
        Path | None,
        typer.Option(
            "--sites-status",
            metavar="TSV",
            rich_help_panel="Output",
            help="Also write a table of the sites in --sites-file: whether each was typed or "
            "imputed, or why it is missing.",
        ),
    ] = None,
    ne: NeOption = None,
    err: ErrOption = None,
    fine_tune: FineTuneOption = True,
    array_fit: Annotated[
        Path | None,
        typer.Option(
            "--array-fit",
            metavar="DIR",
            rich_help_panel="Model",
            help="An index as of --index, to which a run adds what it lacks of the target's array. "
            "It is made if it does not exist, so that only the first of many runs fits.",
        ),
    ] = None,
    chunk_cm: ChunkOption = 40.0,
    buffer_cm: BufferOption = 2.0,
    reports: Annotated[
        list[Path] | None,
        typer.Option(
            "--report",
            metavar="FILE",
            rich_help_panel="Output",
            help="Also write a report: a page (.html), figures (.json) or a section for MultiQC "
            "(_mqc.json). May be given several times.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel="Run",
            help="Keep finished windows beside the output until the run is complete; a run that "
            "was interrupted goes on from them if it is started again with this option.",
        ),
    ] = False,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    max_memory: MaxMemoryOption = None,
    log: LogOption = None,
    log_level: LogLevelOption = None,
    quiet: QuietOption = False,
) -> None:
    """Impute a target from a panel: write dosages for every site of the panel."""
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
            samples_file, exclude_samples, palindromes.value, excluded_sites, par, gvcf_min_gq,
            fasta, chain, likelihoods.value, use_indel_likelihoods,
        ),
        output_options=OutputOptions(
            min_r2, typed_only, sites, empirical, join_multiallelics,
            None if output_type is None else output_type.value,
            digits, compression_level, bgen_bits, bgen_compression.value, bgen_phased, pvar.value,
            pgen_phased, min_gp, sites_file, sites_status,
        ),
        phase_options=PhaseOptions(phased_only, with_targets),
    )  # fmt: skip
    files = options.input_files(target, panel)
    run_options = RunOptions(quiet, log, log_level)
    inputs = files.named() | options.files_read()
    if out is None or qc_only:
        from ragimpute.imputation.compare import compare

        with watching(run_options, inputs=inputs) as watch:
            found = compare(
                files, sites_file=sites_file, sites_status=sites_status, threads=threads,
                progress=watch.progress,
            )  # fmt: skip
            title = f"{target} beside {panel}"
            watch.result(found.rows(), title=title)
        return
    from ragimpute.imputation.impute import impute as run

    beside = options.files_written() | {f"report {path}": path for path in reports or []}
    with watching(run_options, inputs=inputs, out=out, beside=beside) as watch:
        for path in reports or []:
            check_output(path, {**files.named(), **options.files_written(), "imputed output": out})
            check_report_name(path)
            if path.suffix == ".html":
                require("report", f"--report {path}")
        done = run(
            target, panel, out, options, progress=watch.progress,
            command=command_line(without=_BY_REGION, flags=("--resume",)),
        )  # fmt: skip
        done.command = command_line(keeps_all=True)
        if reports:
            from ragimpute.reports.by_file_name import report_impute

            report_impute(done, reports)
        watch.summary(done.rows())
