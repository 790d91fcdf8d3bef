"""Read genotypes and dosages from VCF, VCF.gz and BCF.

Alleles are int8: 0 REF, 1 ALT, -1 missing, -2 in the second slot of a haploid genotype. A record
with several ALTs becomes one row for each of them, in which 0 stands for REF and for the other
ALTs. Carriers of an ALT that is left out ("*", <DEL>) or is not of bases (N) are missing in all
other rows, as nobody knows which of the bases they have. An ALT that a record repeats is one
allele, and one that is spelled like REF is REF.

Where the likelihoods of genotypes are read, too (``likelihoods.py``), a genotype that has some is
missing: what a caller made of few reads is no observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.io.counts import RecordCounts
from ragimpute.io.source import SourceFacts, SourceFile
from ragimpute.io.vcf.read.dosages import Dosages, read_dosages
from ragimpute.io.vcf.read.likelihoods import (
    LikelihoodCounts,
    LikelihoodOptions,
    LikelihoodReader,
    uses_likelihoods,
)
from ragimpute.io.vcf.read.phase_sets import NO_SET, PhaseSetReader, settle
from ragimpute.io.vcf.read.records import (
    LeftOut,
    RecordReader,
    VcfFile,
    named_alts,
    perhaps_this,
    site_table,
    vague_alts,
)
from ragimpute.io.vcf.read.reference_blocks import BlockCounts, ReferenceBlocks
from ragimpute.io.vcf.site_info import kept_lines
from ragimpute.sites import Region, Sites

__all__ = [
    "BlockCounts",
    "Dosages",
    "PanelStream",
    "ReferenceBlocks",
    "SiteBatch",
    "Target",
    "VcfFile",
    "contigs_of",
    "read_dosages",
    "read_target",
]

_BATCH_SITES = 4096
_BATCH_BYTES = 2**26  # of alleles


@dataclass(frozen=True)
class SiteBatch:
    """Genotypes at consecutive sites.

    Attributes
    ----------
    sites
        The sites, M of them.
    alleles
        Shape (M, N, 2), int8, in the coding of this module.
    phased
        Shape (M, N), bool; False only where the order of two alleles matters and is not known:
        haploid, missing and homozygous genotypes count as phased.
    phase_set
        Shape (M, N), int32, as :class:`ragimpute.io.vcf.read.phase_sets.PhaseSetReader` gives it;
        None if no genotype of the file has been in a set so far.
    likelihoods
        Shape (M, N, 3), uint8, as in ``likelihoods.py``; None if they are not read.
    declarations
        Of a panel: the lines of the header that declare symbolic alleles, and what INFO says of
        alleles.
    """

    sites: Sites
    alleles: np.ndarray
    phased: np.ndarray
    phase_set: np.ndarray | None = None
    likelihoods: np.ndarray | None = None
    declarations: Sequence[str] = ()


@dataclass(frozen=True)
class Target:
    """Typed genotypes of one contig.

    Attributes
    ----------
    samples
        Names, N of them.
    sites
        The typed sites, T of them, sorted by position.
    alleles
        Shape (T, N, 2), int8, in the coding of this module. A lone "." is haploid only in samples
        with haploid genotypes elsewhere.
    phased
        Shape (T, N), bool, as in :class:`SiteBatch`.
    record
        Shape (T,), int32: which record the row was split from, counted over the records that have
        several ALTs; -1 where the record has one ALT, or none.
    skipped
        How many ALTs were left out, by reason (see :class:`ragimpute.io.vcf.read.records.LeftOut`).
    left_out
        These ALTs, in file order.
    num_filtered
        Records whose FILTER is neither PASS nor missing; they are read all the same.
    num_records, num_further_alts
        Records of the file in the region, whatever became of them; and their ALTs beyond the first
        of each.
    blocks
        Those of the records that are reference blocks of a gVCF, and what they say.
    contig_length
        Length of the contig, bp, as the header declares it, or None.
    file
        The file, for what else is to be read of it; None if the target is of none.
    facts
        What a file that is no VCF says of itself; None of a VCF.
    in_par
        Shape (T,), bool: the file says that the row is of a pseudo-autosomal region, where males
        are diploid, too; None if it says so of no row.
    reference
        Shape (T,), bool: the row is a panel site within a reference block of a gVCF. None is, if it
        is not given.
    phase_set
        Shape (T, N), int32: the number of the phase set of each phased heterozygous genotype, -1
        where it has none (see ``phase_sets``); None if no genotype is in a set. Across sets the
        order of alleles says nothing.
    likelihoods
        Shape (T, N, 3), uint8: -10 log10 of P(reads | 0, 1, 2 ALT alleles), relative to the
        largest, at most 255; 0, 0, 0 where nothing is known. A haploid sample has 255 in the
        middle. Genotypes that have likelihoods are missing in ``alleles``; those that have none but
        were called, as by an array, are there. None: the target has genotypes alone.
    likelihood_counts
        What was met while they were read; None without them.
    """

    samples: list[str]
    sites: Sites
    alleles: np.ndarray
    phased: np.ndarray
    record: np.ndarray
    skipped: dict[str, int]
    left_out: Sequence[LeftOut] = ()
    num_filtered: int = 0
    num_records: int = 0
    num_further_alts: int = 0
    blocks: BlockCounts = field(default_factory=BlockCounts)
    contig_length: int | None = None
    file: SourceFile | None = None
    facts: SourceFacts | None = None
    in_par: np.ndarray | None = None
    phase_set: np.ndarray | None = None
    likelihoods: np.ndarray | None = None
    likelihood_counts: LikelihoodCounts | None = None
    reference: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        if not len(self.reference):
            object.__setattr__(self, "reference", np.zeros(len(self.sites), dtype=bool))

    def take(self, rows: slice | np.ndarray) -> Target:
        """A copy with some of the rows: a slice, indices or a mask; counts stay as they are."""
        return replace(
            self, sites=self.sites.take(rows), alleles=self.alleles[rows].copy(),
            phased=self.phased[rows].copy(), record=self.record[rows],
            reference=self.reference[rows],
            phase_set=None if self.phase_set is None else self.phase_set[rows],
            likelihoods=None if self.likelihoods is None else self.likelihoods[rows],
            in_par=None if self.in_par is None else self.in_par[rows],
        )  # fmt: skip

    def of_records(self) -> Target:
        """The target without the panel sites within reference blocks of a gVCF."""
        return self.take(~self.reference) if self.reference.any() else self

    @property
    def multiallelic(self) -> np.ndarray:
        """Shape (T,), bool: the row comes from a record with several ALTs."""
        out: np.ndarray = self.record >= 0
        return out


def read_target(
    path: str | Path | VcfFile,
    *,
    region: Region | str | None = None,
    threads: int = 1,
    may_be_empty: bool = False,
    samples: Sequence[str] | None = None,
    keep_monomorphic: bool = False,
    blocks: ReferenceBlocks | None = None,
    likelihoods: LikelihoodOptions | None = None,
    reached: Callable[[int], None] | None = None,
    symbolic: bool = False,
) -> Target:
    """Read the genotypes of a target, or their likelihoods.

    Parameters
    ----------
    path
        VCF, VCF.gz or BCF with FORMAT/GT or likelihoods, sorted by position. An index is used if
        there is one.
    region
        What to read, with or without "chr"; needed where the file holds several contigs.
    threads
        For decompression, >= 1.
    may_be_empty
        Take a region without usable records for T = 0, not for an error.
    samples
        Read these alone, in the order of the file; None: all.
    keep_monomorphic
        Make rows, with ALT ".", of records that have none; else they are left out.
    blocks
        Takes up the reference blocks of a gVCF, and makes rows of the panel's sites within them;
        None: they are left out and counted.
    likelihoods
        Whether and how likelihoods are read, too; None: they are not.
    reached
        Called with the position of the last site read so far, bp, after some thousand sites.
    symbolic
        Make rows of symbolic ALTs such as <DEL>, too, with END and SVLEN; else they are left out.

    Raises
    ------
    InputError
        If the file is missing, damaged, truncated or unsorted, has no samples, genotypes or
        records, a sample twice, or several contigs and no region; a ploidy above 2; or numbers that
        are no likelihoods.
    """
    region = Region.of(region)
    reader = RecordReader(
        path, region, threads, samples=samples, list_left_out=True, genotypes_only=True,
        reach_in=blocks is not None, alleles="symbolic" if symbolic else "sequences",
    )  # fmt: skip
    likely = None
    if likelihoods is not None and uses_likelihoods(reader.file, region, likelihoods.mode):
        likely = LikelihoodReader(
            reader, with_probabilities=likelihoods.mode == "always",
            with_indels=likelihoods.with_indels,
        )  # fmt: skip
    else:
        reader.need_genotypes()
    parts: list[SiteBatch] = []
    records: list[np.ndarray] = []
    made = _genotype_rows(
        reader, sort_check=True, keep_monomorphic=keep_monomorphic,
        blocks=blocks, likely=likely,
    )  # fmt: skip
    for rows in made:
        parts.append(rows.batch())
        records.append(rows.record[: rows.count].copy())
        if reached is not None:
            reached(rows.position[-1])
    if not parts:
        has_blocks = blocks is not None and blocks.num_blocks > 0
        if not has_blocks and (not may_be_empty or region is None):
            raise reader.nothing_left()
        contig = reader.contig if region is None else region.contig
        parts.append(_Rows(contig, 0, len(reader.samples), likely is not None).batch())
        records.append(np.zeros(0, np.int32))
    sets = _join_sets(parts)
    target = Target(
        samples=reader.samples,
        sites=Sites.joined([part.sites for part in parts]),
        alleles=np.concatenate([part.alleles for part in parts]),
        phased=np.concatenate([part.phased for part in parts]),
        record=np.concatenate(records),
        skipped=reader.skipped,
        left_out=reader.left_out,
        num_filtered=reader.num_filtered,
        num_records=reader.num_records,
        num_further_alts=reader.num_further_alts,
        contig_length=reader.header.contigs.get(reader.contig),
        file=reader.file,
    )
    if sets is not None:
        target = replace(target, phase_set=settle(target.alleles, target.phased, sets))
    if likely is not None:
        parts_of = [part.likelihoods for part in parts if part.likelihoods is not None]
        target = replace(
            target, likelihoods=np.concatenate(parts_of), likelihood_counts=likely.counts
        )
    if blocks is not None and blocks.num_blocks:
        target = _with_blocks(target, blocks, region)
    _mend_lone_missing(target.alleles, None if likely is None else likely.haploid)
    return target


def _with_blocks(target: Target, blocks: ReferenceBlocks, region: Region | None) -> Target:
    """A target with the panel's sites within its reference blocks, after its rows of their place.

    Only sites in the region are taken: of the others, other records may tell that were not read.
    """
    index, alleles, counts = blocks.result(target.sites, region)
    target = replace(target, blocks=counts)
    if not len(index):
        return target
    more = replace(blocks.sites.take(index), contig=target.sites.contig)
    more.id[:] = "."
    num = len(index)
    order = np.argsort(np.concatenate([target.sites.position_bp, more.position_bp]), kind="stable")
    whole = replace(
        target, sites=Sites.joined([target.sites, more]),
        alleles=np.concatenate([target.alleles, alleles]),
        phased=np.concatenate([target.phased, np.ones((num, len(target.samples)), bool)]),
        record=np.concatenate([target.record, np.full(num, -1, np.int32)]),
        reference=np.concatenate([target.reference, np.ones(num, bool)]),
    )  # fmt: skip
    if target.phase_set is not None:
        none = np.full((num, len(target.samples)), NO_SET, np.int32)
        whole = replace(whole, phase_set=np.concatenate([target.phase_set, none]))
    if target.likelihoods is not None:
        flat = np.zeros((num, *target.likelihoods.shape[1:]), np.uint8)
        whole = replace(whole, likelihoods=np.concatenate([target.likelihoods, flat]))
    return whole.take(order)


class PanelStream:
    """A panel VCF/BCF, read in batches of a few thousand sites, so that it takes little memory.

    Sites are in file order and are not checked. Whatever is an ALT is among them: ``write_panel``
    leaves out those that are no alleles, such as ``*``, and says which they are.

    Attributes
    ----------
    samples
        Names.
    contigs
        Contigs that hold records.
    """

    def __init__(
        self, path: str | Path | VcfFile, *, region: Region | None = None, threads: int = 1
    ) -> None:
        """Check the header and choose the contig.

        Raises
        ------
        InputError
            As for :func:`read_target`.
        """
        self._reader = RecordReader(path, region, threads, genotypes_only=True, alleles="all")
        self._reader.need_genotypes()
        self.samples = self._reader.samples

    @property
    def contigs(self) -> list[str]:
        """Contigs that hold records; read from the index, or else from the whole file."""
        return list(self._reader.file.contigs)

    @property
    def counts(self) -> RecordCounts:
        """Records so far, and what gave no site. Each iteration begins to count anew."""
        reader = self._reader
        return RecordCounts(reader.num_records, reader.num_further_alts, dict(reader.skipped))

    def __iter__(self) -> Iterator[SiteBatch]:
        """Batches from the first site on, each time that it is called.

        Raises
        ------
        InputError
            As for :func:`read_target`, apart from unsorted sites.
        """
        self._reader.reset_counts()
        declarations = kept_lines(self._reader.header.text)
        for rows in _genotype_rows(self._reader, sort_check=False):
            yield replace(rows.batch(), declarations=declarations)


def contigs_of(path: str | Path | VcfFile) -> dict[str, int | None]:
    """Contigs that hold records, in file order, with their lengths in bp as declared, or None.

    Without an index the whole file is read.

    Raises
    ------
    InputError
        If the file is missing, damaged, truncated or not a VCF/BCF, or has no samples.
    """
    return dict(VcfFile.of(path).contigs)


class _Rows:
    """Room for the genotypes of a batch of sites."""

    def __init__(
        self, contig: str, size: int, num_samples: int, has_likelihoods: bool = False
    ) -> None:
        self.contig = contig
        self.likelihoods = np.empty((size, num_samples, 3), np.uint8) if has_likelihoods else None
        self.count = 0
        self.position: list[int] = []
        self.ref: list[str] = []
        self.alt: list[str] = []
        self.id: list[str] = []
        self.info: list[str] = []
        self.alleles = np.empty((size, num_samples, 2), dtype=np.int8)
        self.phased = np.empty((size, num_samples), dtype=bool)
        self.record = np.full(size, -1, np.int32)
        self.phase_set: np.ndarray | None = None

    def add(
        self, variant: Any, alt: int, alleles: np.ndarray, phased: np.ndarray,
        sets: np.ndarray | None, record: int = -1, info: str = "",
    ) -> None:  # fmt: skip
        """Add a row; alleles that were written to their place in the arrays are not copied."""
        if sets is not None:
            if self.phase_set is None:
                self.phase_set = np.full(self.phased.shape, NO_SET, np.int32)
            self.phase_set[self.count] = sets
        if alleles.base is not self.alleles:
            self.alleles[self.count] = alleles
            self.phased[self.count] = phased
        self.record[self.count] = record
        self.count += 1
        self.position.append(variant.POS)
        self.ref.append(variant.REF)
        self.alt.append(variant.ALT[alt] if alt >= 0 else ".")
        self.id.append(variant.ID or ".")
        self.info.append(info)

    def put_likelihoods(self, values: np.ndarray) -> None:
        """Store the likelihoods of the row that is added next, shape (N, 3)."""
        assert self.likelihoods is not None
        self.likelihoods[self.count] = values

    def take_plain_likelihoods(self, likely: LikelihoodReader, variant: Any) -> bool:
        """Store the likelihoods of a record of the most usual kind; False if it is another."""
        assert self.likelihoods is not None
        at = self.count
        if not likely.take_plain(variant, self.alleles[at], self.likelihoods[at]):
            return False
        self.phased[at] = True
        return True

    def batch(self) -> SiteBatch:
        """The rows taken so far."""
        alleles, phased = self.alleles[: self.count], self.phased[: self.count]
        sites = site_table(self.contig, self.position, self.ref, self.alt, self.id, self.info)
        sets = None if self.phase_set is None else self.phase_set[: self.count]
        likelihoods = None if self.likelihoods is None else self.likelihoods[: self.count]
        return SiteBatch(sites, alleles, phased, sets, likelihoods)


def _genotype_rows(
    reader: RecordReader,
    *,
    sort_check: bool,
    keep_monomorphic: bool = False,
    blocks: ReferenceBlocks | None = None,
    likely: LikelihoodReader | None = None,
) -> Iterator[_Rows]:
    """Genotypes in batches, with their likelihoods if ``likely`` reads them."""
    num_samples = len(reader.samples)
    record = -1  # the number of the last record with several ALTs
    size = max(1, min(_BATCH_SITES, _BATCH_BYTES // (2 * num_samples)))
    rows: _Rows | None = None
    phase_sets = PhaseSetReader(reader.chosen)
    for variant in reader.records(sort_check=sort_check):
        if blocks is not None and blocks.take(reader, variant):
            continue
        alts = reader.usable_alts(variant, keep_monomorphic=keep_monomorphic)
        if not alts:
            continue
        if rows is None or rows.count == size:
            if rows is not None:
                yield rows
            rows = _Rows(reader.contig, size, num_samples, likely is not None)
        alleles, phased = rows.alleles[rows.count], rows.phased[rows.count]
        num_alts = len(variant.ALT)
        if likely is not None and "GT" not in variant.FORMAT:
            alleles[:], phased[:] = -1, True
        elif reader.genotypes(variant, alleles, phased) > num_alts:
            raise reader.wrong_allele(variant, alleles)
        sets = phase_sets.read(variant, alleles, phased)
        found = None
        if likely is not None:
            if rows.take_plain_likelihoods(likely, variant):
                rows.add(
                    variant, 0, alleles, phased,
                    None if sets is None else np.full(num_samples, NO_SET, np.int32),
                )  # fmt: skip
                continue
            found = likely.read(variant, alleles)
            phased = phased | found.stated
            sets = None if sets is None else np.where(found.stated, NO_SET, sets)
        if num_alts <= 1 and found is not None and likely is not None:
            rows.put_likelihoods(likely.row(variant, alts[0], found, alleles))
            rows.phased[rows.count] = phased
        if num_alts <= 1:
            (info,) = reader.site_infos(variant, alts)
            rows.add(variant, alts[0], alleles, phased, sets, info=info)
            continue
        several = len(named_alts(variant)) > 1  # <NON_REF> of a gVCF is no ALT
        record += several
        # The row that they were written to is that of the first ALT, so they are copied.
        alleles, phased = alleles.copy(), phased.copy()
        usable = alts
        alts, alleles = reader.own_alts(variant, usable, alleles)
        reader.skip_repeated(variant, usable, alts)
        vague = [] if reader.alleles == "all" else vague_alts(variant, alts)
        for alt, info in zip(alts, reader.site_infos(variant, alts), strict=True):
            if rows.count == size:
                yield rows
                rows = _Rows(reader.contig, size, num_samples, likely is not None)
            one = np.where(alleles > 0, alleles == alt + 1, alleles)
            others = [i + 1 for i in perhaps_this(variant, alt, vague)]
            if others:
                one = np.where(np.isin(alleles, others), np.int8(-1), one)
            if found is not None and likely is not None:
                rows.put_likelihoods(likely.row(variant, alt, found, one))
            known = phased | (one[:, 0] == one[:, 1]) | (one[:, 1] == -2)
            rows.add(variant, alt, one, known, sets, record if several else -1, info)
    if rows is not None and rows.count:
        yield rows


def _mend_lone_missing(alleles: np.ndarray, known: np.ndarray | None = None) -> None:
    """Make a lone "." diploid in samples that have no haploid genotype.

    ``known``, shape (N,), bool: samples that have haploid likelihoods.
    """
    lone = (alleles[:, :, 0] == -1) & (alleles[:, :, 1] == -2)
    if lone.any():
        haploid = ((alleles[:, :, 0] >= 0) & (alleles[:, :, 1] == -2)).any(axis=0)
        haploid |= False if known is None else known
        alleles[:, :, 1][lone & ~haploid] = -1


def _join_sets(parts: Sequence[SiteBatch]) -> np.ndarray | None:
    """The phase sets of consecutive sites; None if there are none."""
    if all(part.phase_set is None for part in parts):
        return None
    return np.concatenate(
        [np.full(p.phased.shape, NO_SET, np.int32) if p.phase_set is None else p.phase_set
         for p in parts]
    )  # fmt: skip
