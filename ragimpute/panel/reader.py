"""Panels that are open for reading: sites and names in memory, haplotypes by range of sites."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ragimpute.arguments import checked
from ragimpute.errors import InputError
from ragimpute.panel.chunks import RowReader, read_numbers
from ragimpute.panel.compact import CompactHaplotypes
from ragimpute.panel.format import (
    BULK_DATASETS,
    DATASETS,
    EXTRA_DATASETS,
    HEAD_DATASETS,
    INFO_DATASETS,
    NAME_DATASETS,
    PLOIDY_DATASETS,
    SITE_DATASETS,
    SITE_TYPES,
    SYMBOLIC,
    TEXT_DATASETS,
    all_index,
    content_checksum,
    damaged,
    decode_text,
    digest_array,
    new_digest,
    open_file,
    reading,
)
from ragimpute.panel.haplotypes import Haplotypes
from ragimpute.panel.packing import (
    BLOCK_ROWS,
    PatternBlock,
    RowBlocks,
    gaps_to_carriers,
    minor_counts,
    patterns_to_rows,
)
from ragimpute.sites import STOP_BP, Region, Sites, located

if TYPE_CHECKING:
    from ragimpute.panel.loci import Loci

_READ_BYTES = 2**24
_NUMBERS_AT_ONCE = 2**18


class Panel(ABC):
    """A panel made by ``ragimpute prepare``; open one with :meth:`open`.

    It may be used from several threads, and in forked processes, which open the file anew. This
    class says what can be asked of a panel: :class:`PanelFile` reads it from the file, and the
    views in :mod:`ragimpute.panel.views` ask another panel.

    Attributes
    ----------
    path, checksum
        The file; 32 hexadecimal digits that stand for its content, whatever its name.
    contig, contig_length
        Name, and length in bp or None if unknown.
    samples, num_haplotypes, num_sites
        Names of the N samples, H and M.
    sites
        Positions, alleles and identifiers of the M sites.
    position_cm
        Shape (M,), float64, cM, non-decreasing.
    alt_count, alt_is_minor
        Shape (M,), int64: haplotypes with ALT, in [0, H]; shape (M,), bool: whether these are at
        most half of them.
    haplotype_sample
        Shape (H,), int32: index into ``samples``; a haploid sample has one haplotype.
    populations, population
        Names, ["all"] where no table was given; each sample's index into them, shape (N,), int32.
    site_types, site_type
        Names; each site's index into them, shape (M,), uint8.
    declarations
        Header lines of VCF that declare symbolic alleles and the fields of ``sites.info``.
    windows
        Shape (W, 2), int64: half-open site ranges that follow on each other from 0 to M.
    ploidy_start, ploidy_present
        Shape (S,), int64: first site of each stretch of one ploidy; shape (S, H), bool: which
        haplotypes exist there. S is 1 unless a sample is haploid at some sites and not at others.
    provenance
        ``ragimpute_version``, ``source`` (a file name without folder) and ``genetic_map`` (a file
        name, or a uniform rate; "" in panels made before this was kept), as written.
    """

    path: Path
    checksum: str
    contig: str
    contig_length: int | None
    samples: list[str]
    num_haplotypes: int
    num_sites: int
    sites: Sites
    position_cm: np.ndarray
    alt_count: np.ndarray
    alt_is_minor: np.ndarray
    haplotype_sample: np.ndarray
    populations: list[str]
    population: np.ndarray
    site_types: list[str]
    site_type: np.ndarray
    declarations: list[str]
    windows: np.ndarray
    ploidy_start: np.ndarray
    ploidy_present: np.ndarray
    provenance: dict[str, str]

    @classmethod
    @checked
    def open(cls, path: str | Path) -> Panel:
        """Open a panel and check its header and site table; haplotypes are checked when read.

        Raises
        ------
        PanelError
            If the file does not exist, is damaged, truncated, not a panel, or of another version.
        TypeError
            If ``path`` is no path.
        """
        path = Path(path)
        file = open_file(path)
        try:
            with reading(path):
                return PanelFile(path, file)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Panel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @cached_property
    def af(self) -> np.ndarray:
        """ALT frequency of each site, shape (M,), float32, in [0, 1]."""
        out: np.ndarray = (self.alt_count / self.haplotypes_at).astype(np.float32)
        return out

    @cached_property
    def haplotypes_at(self) -> np.ndarray:
        """How many haplotypes exist at each site, shape (M,), int64."""
        sizes = np.diff(np.append(self.ploidy_start, self.num_sites))
        return np.repeat(self.ploidy_present.sum(axis=1), sizes)

    @cached_property
    def has_symbolic(self) -> bool:
        """Whether any site has a symbolic ALT, such as <DEL>."""
        return bool((self.site_type == SYMBOLIC).any())

    def site_range(self, region: Region | None) -> tuple[int, int]:
        """Sites ``[start, stop)`` that lie in ``region`` (None: all); may be empty.

        "chr20" and "20" are taken for the same contig.

        Raises
        ------
        InputError
            If the region's contig is not the panel's.
        """
        if region is None:
            return 0, self.num_sites
        declared = {self.contig: self.contig_length}
        here = located(region, [self.contig], declared=declared)
        if here is None:
            raise InputError(
                f"region {region.text or region} is on contig {region.contig}, but {self.path} "
                f"holds contig {self.contig}",
                hint=f"ask for a region of {Region(self.contig)}",
            )
        bounds = [min(x, STOP_BP) for x in (here.start_bp, here.stop_bp)]
        start, stop = np.searchsorted(self.sites.position_bp, bounds, side="left").tolist()
        return start, stop

    @abstractmethod
    def close(self) -> None:
        """Close the file; what was read stays usable."""

    @abstractmethod
    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """Read the alleles of all haplotypes at sites [start, stop).

        Raises
        ------
        PanelError
            If this part of the file is damaged.
        """

    def loci_between(self, start: int, stop: int) -> Loci:
        """The loci among the sites [start, stop): see :mod:`ragimpute.panel.loci`."""
        from ragimpute.panel.loci import loci_of, sites_of_one_ref

        return loci_of(self, sites_of_one_ref(self.sites, np.arange(start, stop)))

    def know_loci(self, start: int, stop: int, loci: Loci) -> None:  # noqa: B027
        """Be told the result of :meth:`loci_between`; most panels do not keep it."""

    def will_read(self, stretches: Collection[tuple[int, int]]) -> None:  # noqa: B027
        """Announce the stretches whose haplotypes will be asked for, each [start, stop)."""

    @abstractmethod
    def compact(self, start: int, stop: int) -> CompactHaplotypes:
        """Read what :meth:`haplotypes` does in a form that takes less memory in large panels.

        Raises
        ------
        PanelError
            If this part of the file is damaged.
        """

    @abstractmethod
    def bytes_per_site(self, *, compact: bool = False) -> float:
        """Mean number of bytes that :meth:`haplotypes` holds in memory for a site.

        ``compact``: that :meth:`compact` holds, of panels of few patterns.
        """

    @abstractmethod
    def af_population(self, start: int, stop: int) -> np.ndarray:
        """ALT frequency in each population at sites [start, stop): shape (P, m), float32."""

    @abstractmethod
    def genotype_freq(self, start: int, stop: int) -> np.ndarray:
        """Shares of REF/REF, heterozygous and ALT/ALT samples at sites [start, stop).

        Returns
        -------
        Shape (m, 3), float32, in [0, 1], each row adding up to 1; a haploid sample counts as
        homozygous for its one allele.
        """

    @abstractmethod
    def verify(self) -> None:
        """Read the whole file and compare every dataset with its digest.

        Raises
        ------
        PanelError
            If one differs or cannot be read; it names the dataset.
        """


class PanelFile(Panel):
    """A panel that is read from its file: sites and names at once, haplotypes when asked for."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self.site_types = list(SITE_TYPES)
        self._file: h5py.File | None = file
        self._process = os.getpid()
        self._read_head(file)

    def close(self) -> None:
        """See :meth:`Panel.close`."""
        if self._file is not None and self._process == os.getpid():
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def _read_head(self, file: h5py.File) -> None:
        """Read and check everything but the haplotypes and frequencies."""
        attrs = file.attrs
        self.checksum = _text(attrs["checksum"])
        self.contig = _text(attrs["contig"])
        length = int(attrs["contig_length"])
        self.contig_length = length if length >= 0 else None
        self.num_sites = int(attrs["num_sites"])
        self.num_haplotypes = int(attrs["num_haplotypes"])
        self.provenance = {key: _text(attrs[key]) for key in ("ragimpute_version", "source")}
        self.provenance["genetic_map"] = _text(attrs.get("genetic_map", b""))

        extra = [name for name in EXTRA_DATASETS if name in file]
        digests = {name: _text(file[name].attrs["digest"]) for name in (*DATASETS, *extra)}
        found = content_checksum(self.contig, digests)
        self._expect(found == self.checksum, "its header does not match its checksum")
        head = {}
        for name in (*NAME_DATASETS, *HEAD_DATASETS, *SITE_DATASETS, *TEXT_DATASETS, *extra):
            head[name] = file[name][:]
            digest = new_digest()
            digest_array(digest, head[name])
            self._expect(digest.hexdigest() == digests[name], f"{name} does not match its digest")
            columns = 2 if name in ("windows", "ploidy/present") else 1
            self._expect(head[name].ndim == columns, f"{name} is of {head[name].ndim} dimensions")
        self.samples, self.populations = (decode_text(head[x]).tolist() for x in NAME_DATASETS)
        self.windows = head["windows"]
        self.haplotype_sample = head["haplotypes/sample"]
        self.population = head["samples/population"]
        self.position_cm = head["sites/position_cm"]
        self.alt_count = head["sites/alt_count"].astype(np.int64)
        self.site_type = head["sites/type"]
        ref, alt, ids = (decode_text(head[name]) for name in TEXT_DATASETS)
        info, self.declarations = None, []
        if INFO_DATASETS[0] in head:
            info, lines = (decode_text(head[name]) for name in INFO_DATASETS)
            self.declarations = lines.tolist()
            self._expect(len(info) == len(ref), "its site columns differ in length")
        self.sites = Sites(self.contig, head["sites/position_bp"], ref, alt, ids, info)
        sizes = {len(ref), len(alt), len(ids), *(len(head[name]) for name in SITE_DATASETS)}
        self._expect(sizes == {self.num_sites}, "its site columns differ in length")
        self._expect(len(self.haplotype_sample) == self.num_haplotypes, "its haplotypes are amiss")
        self._expect(
            len(self.population) == len(self.samples)
            and all_index(self.population, len(self.populations))
            and all_index(self.haplotype_sample, len(self.samples))
            and all_index(self.site_type, len(self.site_types)),
            "its populations, haplotypes or types are amiss",
        )
        self._check_order()
        self.ploidy_start = np.zeros(1, dtype=np.int64)
        self.ploidy_present = np.ones((1, self.num_haplotypes), dtype=bool)
        if PLOIDY_DATASETS[0] in head:
            self.ploidy_start = head["ploidy/start"]
            self.ploidy_present = head["ploidy/present"] != 0
            shape = (len(self.ploidy_start), self.num_haplotypes)
            edges = np.append(self.ploidy_start, self.num_sites)
            fits = self.ploidy_present.shape == shape and edges.dtype.kind in "iu"
            self._expect(fits and edges[0] == 0 and _ascends(edges), "its ploidy is amiss")

        self.alt_is_minor, minor_count = minor_counts(self.alt_count, self.num_haplotypes)
        is_row = minor_count > int(attrs["carrier_limit"])
        zero = np.zeros(1, dtype=np.int64)
        self._row_of = np.concatenate([zero, np.cumsum(is_row)])
        self._offsets = np.concatenate([zero, np.cumsum(np.where(is_row, 0, minor_count))])
        count = file["haplotypes/pattern_count"][:]
        self._pattern_offsets = np.concatenate([zero, np.cumsum(count, dtype=np.int64)])
        num_blocks = -(-int(self._row_of[-1]) // BLOCK_ROWS)
        shapes = (
            (self._offsets[-1],), (self._pattern_offsets[-1],), (num_blocks,),
            (num_blocks, self.num_haplotypes), (self.num_sites, len(self.populations)),
            (self.num_sites, 3),
        )  # fmt: skip
        self._expect(
            all(
                file[name].shape == shape and file[name].dtype.kind in "iu"
                for name, shape in zip(BULK_DATASETS, shapes, strict=True)
            ),
            "its haplotypes do not fit its sites",
        )

    def _check_order(self) -> None:
        """Refuse sites that are not sorted, and windows that do not follow on each other."""
        position_cm, edges = self.position_cm, self.windows.ravel()
        self._expect(
            _ascends(self.sites.position_bp)
            and _ascends(position_cm)
            and bool(np.isfinite(position_cm).all()),
            "its positions are not sorted",
        )
        self._expect(
            self.windows.shape[1] == 2
            and edges.dtype.kind in "iu"
            and [*edges[:1], *edges[-1:]] == [0, self.num_sites]
            and _ascends(edges)
            and np.array_equal(edges[1:-1:2], edges[2::2]),
            "its windows do not follow on each other",
        )

    def _expect(self, condition: bool, problem: str) -> None:
        """Refuse the panel as damaged unless ``condition`` holds."""
        if not condition:
            raise damaged(self.path, problem)

    def _handle(self) -> h5py.File:
        """This process's file handle; HDF5's must not cross a fork."""
        if self._file is None or self._process != os.getpid():
            self._file = open_file(self.path)
            self._process = os.getpid()
            found = _text(self._file.attrs["checksum"])
            self._expect(found == self.checksum, "it changed since it was opened")
        return self._file

    def bytes_per_site(self, *, compact: bool = False) -> float:
        """See :meth:`Panel.bytes_per_site`."""
        bits = (2 if compact else 8) * -(-self.num_haplotypes // 64) * int(self._row_of[-1])
        return (bits + 4 * int(self._offsets[-1])) / max(1, self.num_sites)

    def _check_range(self, start: int, stop: int) -> None:
        """Refuse site ranges that no caller should ask for."""
        if not 0 <= start <= stop <= self.num_sites:
            raise ValueError(f"sites [{start}, {stop}) are not within [0, {self.num_sites})")

    def af_population(self, start: int, stop: int) -> np.ndarray:
        """See :meth:`Panel.af_population`."""
        self._check_range(start, stop)
        groups = self.population[self.haplotype_sample]
        sizes = np.bincount(groups, minlength=len(self.populations))
        with reading(self.path):
            counts = self._handle()["frequency/population_alt_count"][start:stop]
        return np.ascontiguousarray((counts / sizes).T.astype(np.float32))

    def genotype_freq(self, start: int, stop: int) -> np.ndarray:
        """See :meth:`Panel.genotype_freq`."""
        self._check_range(start, stop)
        with reading(self.path):
            counts = self._handle()["frequency/genotype_count"][start:stop]
        out: np.ndarray = (counts / len(self.samples)).astype(np.float32)
        return out

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        self._check_range(start, stop)
        rows = self._row_of[start : stop + 1]
        low, high = int(rows[0]), int(rows[-1])
        bits = np.empty((high - low, -(-self.num_haplotypes // 64)), dtype=np.uint64)
        blocks = []
        with reading(self.path):
            for block, (patterns, index) in self._read_blocks(low, high):
                blocks.append(PatternBlock.of(patterns, index))
                at = block * BLOCK_ROWS
                first, last = max(low, at), min(high, at + BLOCK_ROWS)
                here = bits[first - low : last - low]
                if len(here) == BLOCK_ROWS:
                    patterns_to_rows(patterns, index, here)
                else:
                    here[:] = patterns_to_rows(patterns, index)[first - at : last - at]
        row = np.where(rows[1:] > rows[:-1], rows[:-1] - rows[0], -1).astype(np.int32)
        return Haplotypes(
            self.num_haplotypes, self.alt_is_minor[start:stop], *self._read_carriers(start, stop),
            row, bits, RowBlocks(low % BLOCK_ROWS, blocks),
        )  # fmt: skip

    def compact(self, start: int, stop: int) -> CompactHaplotypes:
        """See :meth:`Panel.compact`."""
        self._check_range(start, stop)
        rows = self._row_of[start : stop + 1]
        low, high = int(rows[0]), int(rows[-1])
        with reading(self.path):
            blocks = [PatternBlock.of(*block) for _, block in self._read_blocks(low, high)]
        first = low // BLOCK_ROWS * BLOCK_ROWS
        row = np.where(rows[1:] > rows[:-1], rows[:-1] - first, -1).astype(np.int32)
        return CompactHaplotypes(
            self.num_haplotypes, self.alt_is_minor[start:stop], *self._read_carriers(start, stop),
            row, blocks,
        )  # fmt: skip

    def _read_carriers(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and carriers of the sites [start, stop), see Haplotypes."""
        offsets = self._offsets[start : stop + 1]
        carriers = np.empty(offsets[-1] - offsets[0], np.int32)
        # By pieces of whole sites, which stay in the processor's cache until they are checked.
        step = max(1, min(_READ_BYTES // 4, _NUMBERS_AT_ONCE))
        edges = np.searchsorted(offsets, np.arange(offsets[0], offsets[-1], step))
        edges = np.unique([0, *edges, stop - start])
        in_range = True
        with reading(self.path):
            dataset = self._handle()["haplotypes/carriers"]
            for low, high in pairwise(edges.tolist()):
                part = offsets[low : high + 1]
                found = carriers[part[0] - offsets[0] : part[-1] - offsets[0]]
                gaps = read_numbers(dataset, int(part[0]), int(part[-1]))
                gaps_to_carriers(gaps, part - part[0], found)
                least, most = found.min(initial=0), found.max(initial=0)
                in_range = in_range and least >= 0 and most < self.num_haplotypes
        self._expect(in_range, f"carriers at sites [{start}, {stop}) are not haplotypes")
        return offsets - offsets[0], carriers

    def _read_blocks(
        self, start: int, stop: int
    ) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
        """The blocks of the rows [start, stop): number, patterns and index of each."""
        first, last = start // BLOCK_ROWS, -(-stop // BLOCK_ROWS)
        if start == stop:
            return
        file = self._handle()
        offsets = self._pattern_offsets[first : last + 1]
        patterns = file["haplotypes/patterns"][offsets[0] : offsets[-1]]
        rows = RowReader(file["haplotypes/pattern_index"])
        for block in range(first, last):
            own = slice(*(self._pattern_offsets[block : block + 2] - offsets[0]))
            yield block, (patterns[own], rows.read(block, own.stop - own.start))

    def verify(self) -> None:
        """See :meth:`Panel.verify`."""
        with reading(self.path):
            file = self._handle()
            for name in BULK_DATASETS:
                dataset = file[name]
                digest = new_digest()
                for block in _blocks(dataset):
                    digest_array(digest, block)
                expected = _text(dataset.attrs["digest"])
                self._expect(digest.hexdigest() == expected, f"{name} does not match its digest")


def _text(value: bytes) -> str:
    """An attribute that holds text."""
    return value.decode()


def _blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """A dataset in pieces of whole chunks, about 16 MB each."""
    row_bytes = max(1, dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])))
    step = max(1, _READ_BYTES // (row_bytes * dataset.chunks[0])) * dataset.chunks[0]
    for start in range(0, len(dataset), step):
        yield dataset[start : start + step]


def _ascends(values: np.ndarray) -> bool:
    """Whether numbers never decrease; NaN does not."""
    return bool((values[1:] >= values[:-1]).all())
