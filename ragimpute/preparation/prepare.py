"""Make ``panel.h5`` from a phased VCF/BCF or a scikit-allel HDF5."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ragimpute.errors import InputError
from ragimpute.panel.ploidy import OnceEach, par_regions, scan_ploidy
from ragimpute.preparation.genetic_map import GeneticMap
from ragimpute.preparation.populations import read_populations
from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.timing import Progress
from ragimpute.sites import Region, bare_contig, same_contig, some_names

if TYPE_CHECKING:
    from ragimpute.io.vcf.read.genotypes import PanelStream, SiteBatch
    from ragimpute.preparation.allel_stream import AllelStream
    from ragimpute.preparation.panel_writer import PanelSummary

logger = logging.getLogger(__name__)


DEFAULT_CM_PER_MB = 1.0
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@dataclass
class PrepareSummary:
    """What :func:`prepare` did.

    Attributes
    ----------
    panel
        What was written and what was left out.
    source_kind
        "VCF/BCF" or "scikit-allel HDF5".
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


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    genetic_map: str | Path | GeneticMap | None = None,
    cm_per_mb: float | None = None,
    populations: str | Path | None = None,
    region: Region | str | None = None,
    window_cm: float = 1.0,
    progress: Progress | None = None,
    threads: int = 1,
    force: bool = False,
    par: str | None = None,
) -> PrepareSummary:
    """Write a panel from phased haplotypes.

    Parameters
    ----------
    source
        Phased VCF, VCF.gz or BCF; or an HDF5 made by scikit-allel, whose genotypes are taken to be
        phased, since that format does not say.
    out
        The panel to write.
    genetic_map
        Map of the contig (see :meth:`ragimpute.preparation.genetic_map.GeneticMap.read`).
    cm_per_mb
        Rate of a uniform map, > 0, instead of a map; 1.0 with a warning where neither is given.
    populations
        Table of samples and populations (see :func:`read_populations`).
    region
        What to read of the source; needed where it holds several contigs.
    window_cm
        Longest window, cM.
    progress
        Called with "prepare", the bp that were passed, and the bp in all (0 if unknown).
    threads
        For decompression, >= 1.
    force
        Replace an existing ``out``.
    par
        Where ploidy may change: see :func:`ragimpute.panel.ploidy.par_regions`. On the X
        chromosome, or with ``par``, the source is read twice.

    Raises
    ------
    InputError
        If a path, table, map or option cannot be used, or ``out`` exists or is one of the inputs.
    PanelError
        If the haplotypes are not phased, complete and sorted.
    """
    from ragimpute.preparation.panel_writer import write_panel

    started = time.monotonic()
    source, out, region = Path(source), Path(out), Region.of(region)
    if genetic_map is not None and cm_per_mb is not None:
        raise InputError("both a genetic map and --cm-per-mb were given", hint="give one of them")
    files: dict[str, str | Path | None] = {
        "panel input": source,
        "populations input": populations,
    }
    if not isinstance(genetic_map, GeneticMap):
        files["map input"] = genetic_map
    check_output(out, files)
    if out.exists() and not force:
        raise InputError(f"the output {out} exists", hint="add --force to replace it")
    warnings: list[str] = []

    def warn(message: str) -> None:
        logger.warning(message)
        warnings.append(message)

    kind, opened, contig, contig_length = _open_source(source, region, threads)
    stream: AllelStream | PanelStream | OnceEach = opened
    if kind != "VCF/BCF":
        warn(f"{source.name} has no phase flag: its genotypes are taken to be phased as they stand")
    map_used = _choose_map(genetic_map, cm_per_mb, contig, warn)
    population_of = None
    if populations is not None:
        population_of = read_populations(populations, stream.samples, warn=warn)
    ploidy = None
    regions = par_regions(contig, contig_length, par)
    if bare_contig(contig) == "X" or par is not None:
        ploidy = scan_ploidy(stream, regions)
        stream = OnceEach(stream, ploidy) if ploidy.males else stream
    batches: Iterable[SiteBatch] = stream
    if progress is not None:
        batches = _with_progress(stream, progress, region, contig_length)
    panel = write_panel(
        out,
        batches,
        samples=stream.samples,
        genetic_map=map_used,
        population_of=population_of,
        contig_length=contig_length,
        window_cm=window_cm,
        source=source.name,
        ploidy=ploidy,
    )
    if ploidy is not None and ploidy.males:
        warn(
            f"{len(ploidy.males):,} samples have no heterozygote outside the pseudo-autosomal "
            f"regions of {contig} ({some_names(ploidy.males)}): they are taken for males, and "
            "their haplotypes there count once"
        )
    _warn_about(panel, stream, regions, warn)
    first_bp, last_bp = (int(end) for end in map_used.position_bp[[0, -1]])
    if not map_used.is_uniform and (panel.last_bp < first_bp or panel.first_bp > last_bp):
        warn(
            f"no site lies within the genetic map ({map_used.name}: {first_bp:,}-{last_bp:,} bp; "
            f"sites: {panel.first_bp:,}-{panel.last_bp:,}), so its mean rate is used: is it of "
            "the same genome build?"
        )
    return PrepareSummary(panel, kind, map_used.name, warnings, time.monotonic() - started)


def _open_source(
    source: Path, region: Region | None, threads: int
) -> tuple[str, AllelStream | PanelStream, str, int | None]:
    """Kind, stream, contig and contig length of the panel's source."""
    if not source.is_file():
        problem = "is a folder" if source.is_dir() else "does not exist"
        raise InputError(f"panel {source} {problem}", hint="check the path")
    try:
        with source.open("rb") as raw:
            is_hdf5 = raw.read(8) == _HDF5_MAGIC
    except OSError as error:
        raise InputError(f"panel {source} cannot be read: {error.strerror}") from error
    if is_hdf5:
        from ragimpute.preparation.allel_stream import AllelStream

        rows = AllelStream(source, region=region)
        return "scikit-allel HDF5", rows, rows.contig, None

    from ragimpute.io.vcf.read.genotypes import PanelStream, contigs_of

    contigs = contigs_of(source)
    contig = _choose_contig(source, list(contigs), region)
    if region is not None:
        region = Region(contig, region.start_bp, region.stop_bp)
    stream = PanelStream(source, region=region, threads=threads)
    return "VCF/BCF", stream, contig, contigs[contig]


def _choose_contig(source: Path, contigs: list[str], region: Region | None) -> str:
    """The region's contig as the file spells it, or the only one."""
    if not contigs:
        raise InputError(f"panel {source} holds no records", hint="check how it was made")
    listed = ", ".join(contigs[:30])
    if region is None:
        if len(contigs) > 1:
            raise InputError(
                f"panel {source} holds {len(contigs)} contigs ({listed}); a panel file holds one",
                hint="choose one with --region",
            )
        return contigs[0]
    found = same_contig(region.contig, contigs)
    if found is not None:
        return found
    raise InputError(
        f"panel {source} has no records on contig {region.contig}; it holds {listed}",
        hint="check --region",
    )


def _choose_map(
    genetic_map: str | Path | GeneticMap | None,
    cm_per_mb: float | None,
    contig: str,
    warn: Callable[[str], None],
) -> GeneticMap:
    """The map that was given, or a uniform one."""
    if isinstance(genetic_map, GeneticMap):
        return genetic_map
    if genetic_map is not None:
        return GeneticMap.read(genetic_map, contig=contig)
    if cm_per_mb is None:
        warn(
            f"no genetic map was given: {DEFAULT_CM_PER_MB:g} cM/Mb is assumed everywhere; a map "
            "(--map) makes imputation more accurate, --cm-per-mb sets another rate"
        )
        cm_per_mb = DEFAULT_CM_PER_MB
    return GeneticMap.uniform(cm_per_mb)


def _with_progress(
    batches: Iterable[SiteBatch], progress: Progress, region: Region | None, length: int | None
) -> Iterator[SiteBatch]:
    """Report how far the batches have come along the contig."""
    first = region.start_bp if region is not None else 1
    last = length or 0
    if region is not None and region.stop_bp < 2**31 - 1:
        last = min(region.stop_bp - 1, length or region.stop_bp - 1)
    total = max(0, last - first + 1)
    done = 0
    for batch in batches:
        yield batch
        done = int(batch.sites.position_bp[-1]) - first + 1 if len(batch.sites) else done
        progress("prepare", min(done, total) if total else done, total)
    progress("prepare", total or done, total or done)


def _warn_about(
    panel: PanelSummary, stream: object, par: list[Region], warn: Callable[[str], None]
) -> None:
    """Say what was left out, and what looks odd."""
    reasons = {
        "duplicate": "repeat the position and alleles of an earlier one",
        "ref_is_alt": "have REF = ALT",
        "symbolic": "have alleles that are not sequences of A, C, G, T, N",
    }
    for reason, count in panel.dropped.items():
        named = ", ".join(panel.dropped_examples[reason])
        more = ", ..." if count > len(panel.dropped_examples[reason]) else ""
        warn(f"{count:,} sites left out that {reasons[reason]} ({named}{more})")
    without_alt = getattr(stream, "num_without_alt", 0)
    if without_alt:
        warn(f"{without_alt:,} records left out that have no ALT")
    odd = panel.homozygous_samples
    if bare_contig(panel.contig) == "X" and odd and not par and panel.num_samples > len(odd):
        warn(
            f"{len(odd):,} samples have no heterozygote on {panel.contig} ({some_names(odd)}): "
            "males written as diploid count twice; name the pseudo-autosomal regions with --par, "
            "and they count once"
        )
