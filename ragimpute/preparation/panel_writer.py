"""Write ``panel.h5`` from batches of phased sites; memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ragimpute import __version__
from ragimpute.errors import InputError, PanelError
from ragimpute.io.vcf.site_info import used_lines
from ragimpute.panel.format import (
    FORMAT,
    FORMAT_VERSION,
    INFO_DATASETS,
    SITE_DATASETS,
    SITE_TYPES,
    SYMBOLIC,
    TEXT_DATASETS,
    Column,
    content_checksum,
    create,
    cut_windows,
    encode_text,
    new_file,
    site_type,
    write_whole,
)
from ragimpute.panel.packing import (
    BLOCK_ROWS,
    carrier_limit,
    carriers_to_gaps,
    count_pairs,
    flip_rows,
    minor_counts,
    pack_rows,
    rows_to_carriers,
    rows_to_patterns,
    unpack_rows,
)
from ragimpute.preparation.checks import PanelChecks
from ragimpute.preparation.genetic_map import LONGEST_CM
from ragimpute.runtime.interrupts import held
from ragimpute.sites import Sites, some_names
from ragimpute.symbolic import in_capitals

if TYPE_CHECKING:
    from ragimpute.io.vcf.read.genotypes import SiteBatch
    from ragimpute.panel.ploidy import Ploidy
    from ragimpute.preparation.genetic_map import GeneticMap


#: Cuts sites into windows: positions in bp and in cM, (M,) each -> half-open ranges (W, 2).
CutSites = Callable[[np.ndarray, np.ndarray], np.ndarray]


class OrderedPopulations(dict[str, str]):
    """Population of each sample, by name; ``order`` names all populations in their order."""

    def __init__(self, population_of: Mapping[str, str], order: Sequence[str]) -> None:
        super().__init__(population_of)
        self.order = tuple(order)


@dataclass
class PanelSummary:
    """What :func:`write_panel` wrote, and what it left out.

    Attributes
    ----------
    path, checksum, contig
        As in the panel.
    first_bp, last_bp
        Positions of the first and last site, 1-based.
    num_sites, num_samples, num_haplotypes, num_windows, num_bytes
        Sizes; ``num_bytes`` is that of the file.
    num_monomorphic
        Sites at which all haplotypes carry the same allele (they are kept).
    site_types
        Sites of each type of ``SITE_TYPES``.
    populations
        Samples of each population.
    dropped, dropped_examples
        For each reason ("ref_is_alt", "duplicate", "no_allele"), how many sites were left out, and
        the first few as ``contig:position:REF:ALT``.
    haploid_samples
        Samples that have one haplotype.
    homozygous_samples
        Diploid samples without a single heterozygote: on chrX, males written as diploid.
    """

    path: Path
    checksum: str = ""
    contig: str = ""
    first_bp: int = 0
    last_bp: int = 0
    num_sites: int = 0
    num_samples: int = 0
    num_haplotypes: int = 0
    num_windows: int = 0
    num_bytes: int = 0
    num_monomorphic: int = 0
    site_types: dict[str, int] = field(default_factory=dict)
    populations: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    dropped_examples: dict[str, list[str]] = field(default_factory=dict)
    haploid_samples: list[str] = field(default_factory=list)
    homozygous_samples: list[str] = field(default_factory=list)


def write_panel(
    path: str | Path,
    batches: Iterable[SiteBatch],
    *,
    samples: Sequence[str],
    genetic_map: GeneticMap,
    population_of: Mapping[str, str] | None = None,
    contig_length: int | None = None,
    window_cm: float | CutSites = 1.0,
    source: str | Path = "",
    ploidy: Ploidy | None = None,
) -> PanelSummary:
    """Write a panel, under a temporary name until it is complete.

    Sites with REF = ALT, an ALT that is no allele (such as ``*``), or the position and alleles of
    an earlier site are left out and counted. Sequences are stored in capitals. Of two symbolic
    alleles of one name, END and SVLEN tell whether they are the same.

    Parameters
    ----------
    path
        The panel; an existing file is replaced once the new one is complete.
    batches
        Consecutive sites of one contig, sorted by position.
    samples
        Names, unique; their order is that of the batches' alleles.
    genetic_map
        Gives each site its cM.
    population_of
        Population of every sample, by name; None puts all in one, "all". Populations are in the
        order of an :class:`OrderedPopulations`, else in that of their names.
    contig_length
        Length of the contig, bp, or None if unknown.
    window_cm
        Longest window, cM, > 0; see :func:`ragimpute.panel.format.cut_windows`. Or a function that
        is given the sites' positions, bp and cM, and returns the windows.
    source
        The file that the batches come from, which messages name; its name is kept as provenance,
        without its folder.
    ploidy
        Which alleles of each sample are haplotypes where; None: everywhere those of the first site.

    Returns
    -------
    Counts of what was written and left out.

    Raises
    ------
    PanelError
        If a genotype is missing or heterozygous and unphased, sites are unsorted, a second contig
        begins, a sample is haploid at some sites and diploid at others, or no site is left. The
        message names the first few and counts all.
    InputError
        If a sample's name is repeated or has no population, or the file cannot be written.
    ValueError
        If ``window_cm`` is not positive.
    """
    path = Path(path)
    if not callable(window_cm) and not window_cm > 0:
        raise ValueError(f"window_cm must be positive, not {window_cm}")
    samples = list(samples)
    populations, population = _number_populations(samples, population_of)
    with new_file(path) as raw:
        file = None
        try:
            with held():
                file = create(raw)
                writer = _Writer(file, path, samples, populations, population, ploidy, Path(source))
            for batch in batches:
                with held():
                    writer.add(batch, genetic_map)
                raw.check()
            with held():
                names = {"source": Path(source).name, "genetic_map": genetic_map.name}
                summary = writer.finish(window_cm, contig_length, names)
        finally:
            if file is not None:
                with held():
                    file.close()
    summary.num_bytes = path.stat().st_size
    return summary


def _number_populations(
    samples: list[str], population_of: Mapping[str, str] | None
) -> tuple[list[str], np.ndarray]:
    """Names of the populations, sorted, and each sample's index into them."""
    repeated = (
        sorted({name for name in samples if samples.count(name) > 1})
        if (len(set(samples)) < len(samples))
        else []
    )
    if repeated:
        raise InputError(
            f"the panel names {some_names(repeated)} more than once",
            hint="write the file again with a name of its own for each sample",
        )
    if not samples:
        raise InputError("the panel has no samples", hint="a panel needs phased genotypes")
    if population_of is None:
        return ["all"], np.zeros(len(samples), dtype=np.int32)
    without = [name for name in samples if name not in population_of]
    if without:
        raise InputError(
            f"{len(without)} of {len(samples)} panel samples have no population: "
            f"{some_names(without)}",
            hint="add them to the table of populations",
        )
    populations = sorted({population_of[name] for name in samples})
    if isinstance(population_of, OrderedPopulations):
        populations = [name for name in population_of.order if name in set(populations)]
    index = {name: i for i, name in enumerate(populations)}
    return populations, np.array([index[population_of[name]] for name in samples], dtype=np.int32)


class _Writer:
    """The file that is being written, and what has been seen so far."""

    def __init__(
        self,
        file: h5py.File,
        path: Path,
        samples: list[str],
        populations: list[str],
        population: np.ndarray,
        ploidy: Ploidy | None,
        source: Path,
    ) -> None:
        self.file = file
        self.path = path
        self.samples = samples
        self.populations = populations
        self.population = population
        self.checks = PanelChecks(samples, ploidy, source)
        self.ploidy = ploidy
        self.has_het = np.zeros(len(samples), dtype=bool)
        self.summary = PanelSummary(path, num_samples=len(samples))
        self.columns: dict[str, Column] = {}
        self.infos: list[tuple[int, np.ndarray | None]] = []  # sites of each batch, and their INFO
        self.declarations: Sequence[str] = ()
        self.symbolic: set[str] = set()

    def add(self, batch: SiteBatch, genetic_map: GeneticMap) -> None:
        """Check a batch and append what can be kept of it."""
        sites, alleles = self.checks.check(batch)
        if len(sites) == 0 or self.checks.faults:
            return
        if not self.columns:
            self._begin()
        self.declarations = batch.declarations or self.declarations
        self._append(sites, alleles, genetic_map)

    def _begin(self) -> None:
        """Create the datasets; the first sites have fixed the haplotypes."""
        ploidy = self.checks.slots.sum(axis=1)
        self.summary.haploid_samples = [self.samples[i] for i in np.flatnonzero(ploidy == 1)]
        self.haplotype_sample = np.flatnonzero(self.checks.slots).astype(np.int32) // 2
        num_haplotypes = self.summary.num_haplotypes = len(self.haplotype_sample)
        groups = self.population[self.haplotype_sample]
        self.by_population = np.argsort(groups, kind="stable")
        self.group_starts = np.searchsorted(
            groups[self.by_population], range(len(self.populations))
        )

        def column(name: str, dtype: str, width: int | None = None, chunk: int = 2**14) -> None:
            self.columns[name] = Column(self.file, name, dtype, width=width, chunk=chunk)

        for name in TEXT_DATASETS:
            column(name, "u1", chunk=2**16)
        for name, dtype in zip(SITE_DATASETS, ("<i4", "<f8", "<i4", "u1"), strict=True):
            column(name, dtype)
        num_populations = len(self.populations)
        column(
            "frequency/population_alt_count", "<i4", num_populations, 2**14 // num_populations + 1
        )
        column("frequency/genotype_count", "<i4", 3, 2**12)
        column("haplotypes/carriers", "<u4", chunk=2**16)
        column("haplotypes/patterns", "<u8")
        column("haplotypes/pattern_count", "<i4")
        index_dtype = "<u2" if num_haplotypes <= 2**16 else "<u4"
        blocks = max(1, 2**15 // num_haplotypes)  # a chunk
        column("haplotypes/pattern_index", index_dtype, num_haplotypes, blocks)
        self.pending_rows = np.zeros((0, -(-num_haplotypes // 64)), dtype="<u8")

    def _append(self, sites: Sites, alleles: np.ndarray, genetic_map: GeneticMap) -> None:
        """Append checked sites to every dataset."""
        num_sites = len(sites)
        num_haplotypes = self.summary.num_haplotypes
        rows = alleles.reshape(num_sites, -1)  # (m, 2 N)
        if not self.checks.slots.all():
            rows = rows[:, self.checks.slots.reshape(-1)]  # (m, H)
        if self.ploidy is not None:
            rows = np.maximum(rows, 0)  # what does not exist here is stored as REF
        ref = [ref.upper() for ref in sites.ref]
        alt = [in_capitals(alt) for alt in sites.alt]
        kinds = np.array([site_type(r, a) for r, a in zip(ref, alt, strict=True)], dtype=np.uint8)
        bits = pack_rows(rows)  # of ALT, then of the minor allele
        alt_count = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
        genotypes = self._genotype_counts(alleles, bits)
        alt_is_minor, minor_count = minor_counts(alt_count, num_haplotypes)
        bits[~alt_is_minor] = flip_rows(bits[~alt_is_minor], num_haplotypes)
        listed = minor_count <= carrier_limit(num_haplotypes)
        offsets = np.concatenate([[0], np.cumsum(minor_count[listed])])
        carriers = rows_to_carriers(bits[listed])

        self.infos.append((num_sites, sites.info))
        self.symbolic.update(alt[i] for i in np.flatnonzero(kinds == SYMBOLIC).tolist())
        append = {name: column.append for name, column in self.columns.items()}
        append["sites/ref"](encode_text(ref))
        append["sites/alt"](encode_text(alt))
        append["sites/id"](encode_text(sites.id))
        append["sites/position_bp"](sites.position_bp)
        append["sites/position_cm"](genetic_map.position_cm(sites.position_bp))
        append["sites/alt_count"](alt_count)
        append["sites/type"](kinds)
        append["haplotypes/carriers"](carriers_to_gaps(carriers, offsets))
        self._append_rows(bits[~listed])
        append["frequency/population_alt_count"](self._population_counts(rows, alt_count))
        append["frequency/genotype_count"](genotypes)

        summary = self.summary
        summary.first_bp = summary.first_bp if summary.num_sites else int(sites.position_bp[0])
        summary.last_bp = int(sites.position_bp[-1])
        summary.num_sites += num_sites
        summary.num_monomorphic += int(np.count_nonzero(minor_count == 0))
        counts = np.bincount(kinds, minlength=len(SITE_TYPES)).tolist()
        for name, count in zip(SITE_TYPES, counts, strict=True):
            summary.site_types[name] = summary.site_types.get(name, 0) + count

    def _append_rows(self, bits: np.ndarray, *, last: bool = False) -> None:
        """Write rows of bits in blocks of 64, the last one shorter."""
        rows = np.concatenate([self.pending_rows, bits])
        stop = len(rows) if last else len(rows) // BLOCK_ROWS * BLOCK_ROWS
        for start in range(0, stop, BLOCK_ROWS):
            block = rows[start : min(start + BLOCK_ROWS, stop)]
            patterns, index = rows_to_patterns(block, self.summary.num_haplotypes)
            self.columns["haplotypes/patterns"].append(patterns)
            self.columns["haplotypes/pattern_count"].append(np.array([len(patterns)]))
            self.columns["haplotypes/pattern_index"].append(index[None])
        self.pending_rows = rows[stop:].copy()

    def _population_counts(self, rows: np.ndarray, alt_count: np.ndarray) -> np.ndarray:
        """ALT alleles of each population: shape (m, P), int32."""
        if len(self.populations) == 1:
            return alt_count[:, None].astype(np.int32)
        grouped = rows[:, self.by_population]
        return np.add.reduceat(grouped, self.group_starts, axis=1, dtype=np.int32)

    def _genotype_counts(self, alleles: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Samples that are REF/REF, heterozygous, ALT/ALT: shape (m, 3), int32.

        ``bits`` are of ALT. A haploid sample counts as homozygous for its one allele.
        """
        num_samples = alleles.shape[1]
        if self.ploidy is None and self.checks.slots.all():
            num_het, num_alt, differ = count_pairs(bits)
            self.has_het |= unpack_rows(differ[None], 2 * num_samples)[0, ::2] == 1
            return np.stack([num_samples - num_het - num_alt, num_het, num_alt], axis=1)
        first, second = alleles[:, :, 0], alleles[:, :, 1]
        if alleles.min() < 0:
            first, second = np.maximum(first, 0), np.maximum(second, 0)
            haploid = (alleles == -2).any(axis=2)
            first, second = first | (second & haploid), second | (first & haploid)
        het = first != second
        self.has_het |= het.any(axis=0)
        num_het = np.count_nonzero(het, axis=1)
        num_alt = np.count_nonzero(first & second, axis=1)
        return np.stack([num_samples - num_het - num_alt, num_het, num_alt], axis=1)

    def _ploidy_datasets(self, ploidy: Ploidy) -> dict[str, np.ndarray]:
        """Site at which each stretch begins, and which haplotypes exist in it, (S, H) uint8."""
        position = self.file["sites/position_bp"][:]
        start = np.searchsorted(position, ploidy.start_bp)
        present = ploidy.slots[:, self.checks.slots].astype("u1")
        used = np.flatnonzero(np.diff(np.append(start, len(position))) > 0)  # those with a site
        return {"ploidy/start": start[used].astype("<i8"), "ploidy/present": present[used]}

    def _info_datasets(self) -> dict[str, np.ndarray]:
        """What INFO says of the alleles, and the header lines of it; none if it says nothing."""
        if not self.symbolic and all(info is None for _, info in self.infos):
            return {}
        infos = np.concatenate(
            [np.full(num, "", object) if info is None else info for num, info in self.infos]
        )
        lines = used_lines(self.declarations, infos, self.symbolic)
        return dict(zip(INFO_DATASETS, (encode_text(infos), encode_text(lines)), strict=True))

    def finish(
        self, window_cm: float | CutSites, contig_length: int | None, provenance: Mapping[str, str]
    ) -> PanelSummary:
        """Refuse what is faulty; write windows, names and header.

        ``provenance``: further attributes, see ``Panel.provenance``.
        """
        summary = self.summary
        self.checks.raise_faults()
        summary.contig = self.checks.contig
        summary.dropped = self.checks.dropped
        summary.dropped_examples = self.checks.dropped_examples
        if summary.num_sites == 0:
            dropped = ", ".join(f"{n:,} {reason}" for reason, n in summary.dropped.items())
            raise PanelError(
                "the panel has no usable site" + (f" (left out: {dropped})" if dropped else ""),
                hint="check the file, and --region if one was given",
            )
        self._append_rows(self.pending_rows[:0], last=True)
        digests = {name: column.close() for name, column in self.columns.items()}
        position_cm = self.file["sites/position_cm"][:]
        span = float(position_cm[-1] - position_cm[0])
        if not span <= LONGEST_CM:
            raise PanelError(
                f"the panel's sites span {span:,.0f} cM, expected at most {LONGEST_CM:,.0f}",
                hint="check --cm-per-mb (about 1 in humans), or the units of the genetic map",
            )
        if callable(window_cm):
            windows = window_cm(self.file["sites/position_bp"][:], position_cm)
            window_cm = float(np.ptp(position_cm[windows - [0, 1]], axis=1).max())
        else:
            windows = cut_windows(position_cm, window_cm)
        whole = {
            "windows": windows.astype("<i8"),
            "haplotypes/sample": self.haplotype_sample.astype("<i4"),
            "samples/population": self.population.astype("<i4"),
            "samples/id": encode_text(self.samples),
            "populations/id": encode_text(self.populations),
        }
        if self.ploidy is not None and len(self.ploidy.start_bp) > 1:
            whole |= self._ploidy_datasets(self.ploidy)
        whole |= self._info_datasets()
        for name, values in whole.items():
            digests[name] = write_whole(self.file, name, values)
        self.file["sites/type"].attrs["names"] = np.array(SITE_TYPES, dtype="S")
        summary.checksum = content_checksum(summary.contig, digests)
        summary.num_windows = len(whole["windows"])
        sizes = np.bincount(self.population, minlength=len(self.populations)).tolist()
        summary.populations = dict(zip(self.populations, sizes, strict=True))
        haploid = set(summary.haploid_samples)
        summary.homozygous_samples = [
            name
            for name, het in zip(self.samples, self.has_het.tolist(), strict=True)
            if not het and name not in haploid
        ]
        attributes = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "ragimpute_version": __version__,
            "checksum": summary.checksum,
            "contig": summary.contig,
            "contig_length": -1 if contig_length is None else contig_length,
            "num_sites": summary.num_sites,
            "num_haplotypes": summary.num_haplotypes,
            "carrier_limit": carrier_limit(summary.num_haplotypes),
            "window_cm": window_cm,
            **provenance,
        }
        for key, value in attributes.items():
            if isinstance(value, str):  # fixed length: HDF5 keeps no checksum of the other kind
                self.file.attrs[key] = np.bytes_(value.encode())
            else:
                self.file.attrs[key] = value
        return summary
