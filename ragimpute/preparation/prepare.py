"""Make ``panel.h5`` from a phased VCF/BCF, an M3VCF or a scikit-allel HDF5."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.arguments import check_fields_of, with_changes
from ragimpute.contigs import chromosome
from ragimpute.errors import InputError
from ragimpute.io.counts import RecordCounts
from ragimpute.panel.ploidy import OnceEach, Ploidy, par_regions, scan_ploidy
from ragimpute.preparation.genetic_map import GeneticMap, rate_doubt
from ragimpute.preparation.populations import read_populations
from ragimpute.preparation.sources import open_source
from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Progress
from ragimpute.sites import STOP_BP, Region, some_names

if TYPE_CHECKING:
    from ragimpute.io.vcf.read.genotypes import SiteBatch
    from ragimpute.preparation.original_maps import OriginalMaps
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
    counts
        Records of the source, and those that gave no site before the panel's checks.
    seconds
        Wall-clock time.
    """

    panel: PanelSummary
    source_kind: str
    genetic_map: str
    warnings: list[str] = field(default_factory=list)
    counts: RecordCounts = field(default_factory=RecordCounts)
    seconds: float = 0.0

    def record_row(self) -> tuple[str, str]:
        """What became of the source's records: the counts behind the colon add up to those before.

        A record with several ALTs makes a site of each.
        """
        counts = self.counts
        left_out = counts.skipped | self.panel.dropped
        told = [f"{self.panel.num_sites:,} sites"]
        told += [f"{n:,} {key.replace('_', ' ')}" for key, n in left_out.items() if n]
        more = counts.num_further_alts
        whole = f"{counts.num_records:,}" + (f" with {more:,} further ALTs" if more else "")
        return "records", f"{whole}: {', '.join(told)}"


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
    maps
        A folder of maps as RAG-SNVBERT keeps them (see
        :func:`ragimpute.preparation.original_maps.read_maps`): the populations get the order of
        pop_to_idx, and the windows are those of segments.csv.
    region
        What to read of the source; needed where it holds several contigs.
    window_cm
        Longest window, cM, > 0; not used where ``maps`` has windows.
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
    maps: str | Path | None = None
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
    from ragimpute.preparation.checks import PloidyChanges
    from ragimpute.preparation.panel_writer import write_panel

    started = time.monotonic()
    options = with_changes(options or PrepareOptions(), changes, "prepare")
    source, out, region = Path(source), Path(out), Region.of(options.region)
    _check_paths(source, out, options)
    warnings: list[str] = []

    def warn(message: str) -> None:
        logger.warning(message)
        warnings.append(message)

    maps = _maps(options)
    kind, stream, contig, declared = open_source(source, region, options.threads, warn)
    contig_length = declared.get(contig)
    is_x = chromosome(contig, declared) == "X"
    if kind == "scikit-allel HDF5":
        warn(f"{source.name} has no phase flag: its genotypes are taken to be phased as they stand")
    map_used = _choose_map(options.genetic_map, options.cm_per_mb, contig, warn)
    population_of = _populations(options, maps, stream.samples, warn)
    par = par_regions(contig, contig_length, options.par)
    vcf = source if kind == "VCF/BCF" else None
    ploidy = None
    if is_x or options.par is not None:
        with Stage("find males", progress=progress):
            ploidy = scan_ploidy(stream, par, vcf=vcf)

    def write(ploidy: Ploidy | None) -> tuple[PanelSummary, int]:
        """Write the panel; returns how many alleles were not kept for their ploidy, too."""
        as_is = ploidy is None or not (ploidy.males or ploidy.mixed)
        once = stream if ploidy is None or as_is else OnceEach(stream, ploidy)
        panel = write_panel(
            out,
            _with_progress(once, progress, region, contig_length),
            samples=stream.samples,
            genetic_map=map_used,
            population_of=population_of,
            contig_length=contig_length,
            window_cm=options.window_cm
            if maps is None
            else partial(maps.cut, window_cm=options.window_cm),
            source=source,
            ploidy=ploidy,
        )
        return panel, once.num_lost if isinstance(once, OnceEach) else 0

    try:
        panel, num_lost = write(ploidy)
    except PloidyChanges:
        with Stage("find changes of ploidy", progress=progress):
            ploidy = scan_ploidy(stream, par, vcf=vcf)
        panel, num_lost = write(ploidy)
        _warn_of_stretches(contig, ploidy, warn)
    if ploidy is not None:
        _warn_of_mixed(panel, ploidy, num_lost, stream.samples, warn)
    _warn_of_males(contig, ploidy, warn)
    _warn_of_sites(panel, stream.counts, getattr(stream, "notes", ()), warn)
    if is_x and not par:
        _warn_of_copies(panel, warn)
    _warn_of_map(panel, map_used, warn)
    if maps is not None:
        _warn_of_maps(out, maps, warn)
    return PrepareSummary(
        panel, kind, map_used.name, warnings, stream.counts, time.monotonic() - started
    )


def _check_paths(source: Path, out: Path, options: PrepareOptions) -> None:
    """Refuse options and an output that cannot be used, before anything is read."""
    genetic_map = options.genetic_map
    if genetic_map is not None and options.cm_per_mb is not None:
        raise InputError("both a genetic map and --cm-per-mb were given", hint="give one of them")
    files: dict[str, str | Path | None] = {
        "panel input": source,
        "populations input": options.populations,
        "maps input": options.maps,
    }
    if not isinstance(genetic_map, GeneticMap):
        files["map input"] = genetic_map
    check_output(out, files)
    if out.exists() and not options.force:
        raise InputError(f"the output {out} exists", hint="add --force to replace it")


def _maps(options: PrepareOptions) -> OriginalMaps | None:
    """The maps of the original, if they were given."""
    if options.maps is None:
        return None
    from ragimpute.preparation.original_maps import read_maps

    return read_maps(options.maps)


def _populations(
    options: PrepareOptions,
    maps: OriginalMaps | None,
    samples: list[str],
    warn: Callable[[str], None],
) -> dict[str, str] | None:
    """Population of each sample, in the order of the maps where these have one; None: no table."""
    order = None if maps is None else maps.populations
    if options.populations is None:
        if order is not None and len(order) > 1:
            raise InputError(
                f"the maps of {options.maps} number {len(order)} populations, but nothing says "
                "which sample is of which",
                hint="add --populations with a table of samples and populations",
            )
        return None
    found = read_populations(options.populations, samples, known=order, warn=warn)
    if order is None:
        return found
    from ragimpute.preparation.panel_writer import OrderedPopulations

    unused = [name for name in order if name not in set(found.values())]
    if unused:
        warn(
            f"no sample is of {some_names(unused)}: the panel leaves these populations out, and "
            "those after them move up"
        )
    return OrderedPopulations(found, order)


def _warn_of_maps(out: Path, maps: OriginalMaps, warn: Callable[[str], None]) -> None:
    """Say what of the maps does not fit the panel, or is not used."""
    from ragimpute.panel.reader import Panel

    with Panel.open(out) as panel:
        at = panel.sites.position_bp
        line = maps.compare(panel)
    if maps.position_bp is not None:
        unused = np.setdiff1d(maps.position_bp, at)
        if len(unused):
            warn(
                f"{len(unused):,} positions of pos_to_idx of {maps.folder} are not in the panel, "
                f"such as {unused[0]}"
            )
    if line is not None:
        warn(line)


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
    """Name the samples whose two equal haplotypes count once, and those that may be males."""
    if ploidy is None:
        return
    if ploidy.males:
        warn(
            f"{len(ploidy.males):,} samples have no heterozygote outside the pseudo-autosomal "
            f"regions of {contig} ({some_names(ploidy.males)}): they are taken for males, and "
            "their haplotypes there count once"
        )
    if ploidy.few_hets is not None:
        warn(ploidy.few_hets)


def _warn_of_stretches(contig: str, ploidy: Ploidy, warn: Callable[[str], None]) -> None:
    """Say where the ploidy changes, of a contig of which nothing else tells this."""
    if len(ploidy.start_bp) > 1:
        num = int((ploidy.slots != ploidy.slots[0]).any(axis=(0, 2)).sum())
        places = ", ".join(f"{contig}:{at}" for at in ploidy.start_bp[1:].tolist())
        warn(
            f"the ploidy of {num:,} samples changes at {places}, and so it is kept; --par names "
            "the pseudo-autosomal regions of a sex chromosome"
        )


def _warn_of_mixed(
    panel: PanelSummary,
    ploidy: Ploidy,
    num_lost: int,
    samples: list[str],
    warn: Callable[[str], None],
) -> None:
    """Name the samples that have haploid calls amid diploid ones, or the reverse."""
    if not ploidy.mixed:
        return
    named = [
        f"{samples[i]}: {num:,} calls, {often:,} changes"
        for i, (num, often) in list(ploidy.mixed.items())[:3]
    ]
    more = f" and {len(ploidy.mixed) - 3:,} more" if len(ploidy.mixed) > 3 else ""
    total = sum(num for num, _ in ploidy.mixed.values())
    lost = f"; {num_lost:,} heterozygotes among these lose one allele" if num_lost else ""
    warn(
        f"{len(ploidy.mixed):,} samples have {total:,} calls on {panel.contig} of another ploidy "
        f"than most of theirs ({'; '.join(named)}{more}): they are kept. A haploid call amid "
        "diploid ones counts as homozygous, a diploid one amid haploid ones as its first "
        f"allele{lost}"
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


def _warn_of_sites(
    panel: PanelSummary, counts: RecordCounts, notes: Iterable[str], warn: Callable[[str], None]
) -> None:
    """Say which sites were left out."""
    reasons = {
        "duplicate": "repeat the position and alleles of an earlier one",
        "ref_is_alt": "have REF = ALT",
        "no_allele": "have alleles that are neither sequences of A, C, G, T, N nor symbolic",
    }
    for reason, count in panel.dropped.items():
        named = ", ".join(panel.dropped_examples[reason])
        more = ", ..." if count > len(panel.dropped_examples[reason]) else ""
        warn(f"{count:,} sites left out that {reasons[reason]} ({named}{more})")
    for note in notes:
        warn(note)
    without_alt = counts.skipped.get("no_alt", 0)
    if without_alt:
        warn(f"{without_alt:,} records left out that have no ALT")
    before = counts.skipped.get("position_0", 0)
    if before:
        warn(f"{before:,} records left out that are at position 0, before the contig's first base")
    repeated = counts.skipped.get("repeated", 0)
    if repeated:
        warn(
            f"{repeated:,} ALTs left out that their record repeats; their carriers count as "
            "carriers of the allele before that is spelled alike"
        )


def _warn_of_copies(panel: PanelSummary, warn: Callable[[str], None]) -> None:
    """Say which samples of an X without known pseudo-autosomal regions may be males."""
    odd = panel.homozygous_samples
    if odd and panel.num_samples > len(odd):
        warn(
            f"{len(odd):,} samples have no heterozygote on {panel.contig} ({some_names(odd)}): "
            "males written as diploid count twice; name the pseudo-autosomal regions with --par, "
            "and they count once"
        )
