"""Make ``panel.h5`` from a phased VCF/BCF, an M3VCF or a scikit-allel HDF5."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ragimpute.arguments import check_fields_of, with_changes
from ragimpute.contigs import Lengths, absence_hint, chromosome, spellings_warning
from ragimpute.errors import InputError
from ragimpute.panel.ploidy import OnceEach, Ploidy, par_regions, scan_ploidy
from ragimpute.preparation.genetic_map import GeneticMap, rate_doubt
from ragimpute.preparation.populations import read_populations
from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Progress
from ragimpute.sites import STOP_BP, Region, located, some_names

if TYPE_CHECKING:
    from ragimpute.io.m3vcf import M3vcfStream
    from ragimpute.io.vcf.read.genotypes import PanelStream, SiteBatch
    from ragimpute.preparation.allel_stream import AllelStream
    from ragimpute.preparation.panel_writer import PanelSummary

logger = logging.getLogger(__name__)


DEFAULT_CM_PER_MB = 1.0


@dataclass
class PrepareSummary:
    """What :func:`prepare` did.

    Attributes
    ----------
    panel
        What was written and what was left out.
    source_kind
        "VCF/BCF", "M3VCF" or "scikit-allel HDF5".
    genetic_map
        Name of the map, or the uniform rate.
    warnings
        One line for each thing that the user should know, as logged.
    seconds
        Wall-clock time.
    """

    panel: PanelSummary
    source_kind: str
    genetic_map: str
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class PrepareOptions:
    """All options of :func:`prepare`.

    Attributes
    ----------
    genetic_map
        Map of the contig (see :meth:`ragimpute.preparation.genetic_map.GeneticMap.read`).
    cm_per_mb
        Rate of a uniform map, > 0, instead of a map; 1.0 with a warning where neither is given.
    populations
        Table of samples and populations (see
        :func:`ragimpute.preparation.populations.read_populations`).
    region
        What to read of the source; needed where it holds several contigs.
    window_cm
        Longest window, cM, > 0.
    threads
        For decompression, >= 1.
    force
        Replace an existing output.
    par
        Where ploidy may change: see :func:`ragimpute.panel.ploidy.par_regions`. On the X
        chromosome, or with ``par``, the source is read twice.
    """

    genetic_map: str | Path | GeneticMap | None = None
    cm_per_mb: float | None = None
    populations: str | Path | None = None
    region: Region | str | None = None
    window_cm: float = 1.0
    threads: int = 1
    force: bool = False
    par: str | None = None

    def __post_init__(self) -> None:
        check_fields_of(self)


def prepare(
    source: str | Path,
    out: str | Path,
    options: PrepareOptions | None = None,
    *,
    progress: Progress | None = None,
    **changes: object,
) -> PrepareSummary:
    """Write a panel from phased haplotypes.

    Parameters
    ----------
    source
        Phased VCF, VCF.gz or BCF; an M3VCF of Minimac3; or an HDF5 made by scikit-allel, whose
        genotypes are taken to be phased, since that format does not say.
    out
        The panel to write.
    options
        See :class:`PrepareOptions`; None: the defaults.
    progress
        Called with "prepare", the bp that were passed, and the bp in all (0 if unknown). None: as
        :func:`ragimpute.runtime.stages.reporting` says.
    changes
        Options by name that differ from ``options``: ``prepare(source, out, cm_per_mb=1.0)``.

    Raises
    ------
    InputError
        If a path, table, map or option cannot be used, or ``out`` exists or is one of the inputs.
    PanelError
        If the haplotypes are not phased, complete and sorted.
    TypeError
        If a change is not an option.
    """
    from ragimpute.preparation.panel_writer import write_panel

    started = time.monotonic()
    options = with_changes(options or PrepareOptions(), changes, "prepare")
    source, out, region = Path(source), Path(out), Region.of(options.region)
    _check_paths(source, out, options)
    warnings: list[str] = []

    def warn(message: str) -> None:
        logger.warning(message)
        warnings.append(message)

    kind, opened, contig, declared = _open_source(source, region, options.threads, warn)
    contig_length = declared.get(contig)
    is_x = chromosome(contig, declared) == "X"
    stream: AllelStream | M3vcfStream | PanelStream | OnceEach = opened
    if kind == "scikit-allel HDF5":
        warn(f"{source.name} has no phase flag: its genotypes are taken to be phased as they stand")
    map_used = _choose_map(options.genetic_map, options.cm_per_mb, contig, warn)
    population_of = None
    if options.populations is not None:
        population_of = read_populations(options.populations, stream.samples, warn=warn)
    ploidy = None
    par = par_regions(contig, contig_length, options.par)
    if is_x or options.par is not None:
        with Stage("find males", progress=progress):
            ploidy = scan_ploidy(stream, par)
        stream = OnceEach(stream, ploidy) if ploidy.males else stream
    panel = write_panel(
        out,
        _with_progress(stream, progress, region, contig_length),
        samples=stream.samples,
        genetic_map=map_used,
        population_of=population_of,
        contig_length=contig_length,
        window_cm=options.window_cm,
        source=source.name,
        ploidy=ploidy,
    )
    _warn_of_males(contig, ploidy, warn)
    _warn_of_sites(panel, stream, warn)
    if is_x and not par:
        _warn_of_copies(panel, warn)
    _warn_of_map(panel, map_used, warn)
    return PrepareSummary(panel, kind, map_used.name, warnings, time.monotonic() - started)


def _check_paths(source: Path, out: Path, options: PrepareOptions) -> None:
    """Refuse options and an output that cannot be used, before anything is read."""
    genetic_map = options.genetic_map
    if genetic_map is not None and options.cm_per_mb is not None:
        raise InputError("both a genetic map and --cm-per-mb were given", hint="give one of them")
    files: dict[str, str | Path | None] = {
        "panel input": source,
        "populations input": options.populations,
    }
    if not isinstance(genetic_map, GeneticMap):
        files["map input"] = genetic_map
    check_output(out, files)
    if out.exists() and not options.force:
        raise InputError(f"the output {out} exists", hint="add --force to replace it")


def _open_source(
    source: Path, region: Region | None, threads: int, warn: Callable[[str], None]
) -> tuple[str, AllelStream | M3vcfStream | PanelStream, str, Lengths]:
    """Kind, stream, contig, and declared contigs with their lengths, of the panel's source."""
    from ragimpute.panel.format import HDF5_MAGIC

    if not source.is_file():
        problem = "is a folder" if source.is_dir() else "does not exist"
        raise InputError(f"panel {source} {problem}", hint="check the path")
    try:
        with source.open("rb") as raw:
            is_hdf5 = raw.read(8) == HDF5_MAGIC
    except OSError as error:
        raise InputError(f"panel {source} cannot be read: {error.strerror}") from error
    if is_hdf5:
        from ragimpute.preparation.allel_stream import AllelStream

        rows = AllelStream(source, region=region)
        return "scikit-allel HDF5", rows, rows.contig, {}
    from ragimpute.io.m3vcf import M3vcfStream, is_m3vcf

    if is_m3vcf(source):
        haplotypes = M3vcfStream(source, region=region)
        return "M3VCF", haplotypes, haplotypes.contig, {}

    from ragimpute.io.vcf.read.genotypes import PanelStream, VcfFile

    file = VcfFile(source)
    declared = file.header.declared
    chosen = _choose_region(source, list(file.contigs), declared, region)
    contig = chosen.contig
    warning = spellings_warning("panel", source, contig, file.contigs, declared)
    if warning is not None:
        warn(warning)
    if region is not None:
        region = chosen
    stream = PanelStream(file, region=region, threads=threads)
    return "VCF/BCF", stream, contig, file.header.contigs


def _choose_region(
    source: Path, contigs: list[str], declared: Lengths, region: Region | None
) -> Region:
    """The region with its contig as the file spells it, or the only contig."""
    if not contigs:
        raise InputError(f"panel {source} holds no records", hint="check how it was made")
    listed = ", ".join(contigs[:30])
    if region is None:
        if len(contigs) > 1:
            raise InputError(
                f"panel {source} holds {len(contigs)} contigs ({listed}); a panel file holds one",
                hint="choose one with --region",
            )
        return Region(contigs[0])
    found = located(region, contigs, declared=declared)
    if found is not None:
        return found
    raise InputError(
        f"panel {source} has no records on contig {region.contig}; it holds {listed}",
        hint=absence_hint(region.contig, contigs, "check --region", file=source, declared=declared),
    )


def _choose_map(
    genetic_map: str | Path | GeneticMap | None,
    cm_per_mb: float | None,
    contig: str,
    warn: Callable[[str], None],
) -> GeneticMap:
    """The map that was given, or a uniform one."""
    if isinstance(genetic_map, GeneticMap):
        genetic_map.check()
        return genetic_map
    if genetic_map is not None:
        return GeneticMap.read(genetic_map, contig=contig)
    if cm_per_mb is None:
        warn(
            f"no genetic map was given: {DEFAULT_CM_PER_MB:g} cM/Mb is assumed everywhere; a map "
            "(--map) makes imputation more accurate, --cm-per-mb sets another rate"
        )
        cm_per_mb = DEFAULT_CM_PER_MB
    doubt = rate_doubt(cm_per_mb)
    if doubt is not None:
        warn(f"--cm-per-mb {cm_per_mb:g} is {doubt}")
    return GeneticMap.uniform(cm_per_mb)


def _with_progress(
    batches: Iterable[SiteBatch],
    progress: Progress | None,
    region: Region | None,
    length: int | None,
) -> Iterator[SiteBatch]:
    """Report how far the batches have come along the contig."""
    first = region.start_bp if region is not None else 1
    last = length or 0
    if region is not None and region.stop_bp < STOP_BP:
        last = min(region.stop_bp - 1, length or region.stop_bp - 1)
    total = max(0, last - first + 1)
    with Stage("prepare", total, progress=progress) as stage:
        for batch in batches:
            yield batch
            if len(batch.sites):
                stage.reach(int(batch.sites.position_bp[-1]) - first + 1)


def _warn_of_males(contig: str, ploidy: Ploidy | None, warn: Callable[[str], None]) -> None:
    """Name the samples whose two equal haplotypes count once."""
    if ploidy is not None and ploidy.males:
        warn(
            f"{len(ploidy.males):,} samples have no heterozygote outside the pseudo-autosomal "
            f"regions of {contig} ({some_names(ploidy.males)}): they are taken for males, and "
            "their haplotypes there count once"
        )


def _warn_of_map(panel: PanelSummary, genetic_map: GeneticMap, warn: Callable[[str], None]) -> None:
    """Say if the map and the panel do not overlap."""
    first_bp, last_bp = (int(end) for end in genetic_map.position_bp[[0, -1]])
    if not genetic_map.is_uniform and (panel.last_bp < first_bp or panel.first_bp > last_bp):
        warn(
            f"no site lies within the genetic map ({genetic_map.name}: {first_bp:,}-{last_bp:,} "
            f"bp; sites: {panel.first_bp:,}-{panel.last_bp:,}), so its mean rate is used: is it of "
            "the same genome build?"
        )


def _warn_of_sites(panel: PanelSummary, stream: object, warn: Callable[[str], None]) -> None:
    """Say which sites were left out."""
    reasons = {
        "duplicate": "repeat the position and alleles of an earlier one",
        "ref_is_alt": "have REF = ALT",
        "symbolic": "have alleles that are not sequences of A, C, G, T, N",
    }
    for reason, count in panel.dropped.items():
        named = ", ".join(panel.dropped_examples[reason])
        more = ", ..." if count > len(panel.dropped_examples[reason]) else ""
        warn(f"{count:,} sites left out that {reasons[reason]} ({named}{more})")
    for note in getattr(stream, "notes", ()):
        warn(note)
    without_alt = getattr(stream, "num_without_alt", 0)
    if without_alt:
        warn(f"{without_alt:,} records left out that have no ALT")
    before = getattr(stream, "skipped", {}).get("position_0", 0)
    if before:
        warn(f"{before:,} records left out that are at position 0, before the contig's first base")


def _warn_of_copies(panel: PanelSummary, warn: Callable[[str], None]) -> None:
    """Say which samples of an X without known pseudo-autosomal regions may be males."""
    odd = panel.homozygous_samples
    if odd and panel.num_samples > len(odd):
        warn(
            f"{len(odd):,} samples have no heterozygote on {panel.contig} ({some_names(odd)}): "
            "males written as diploid count twice; name the pseudo-autosomal regions with --par, "
            "and they count once"
        )
