"""Read ALT dosages from imputed or observed genotypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.header import without_genotypes
from ragimpute.io.vcf.read.records import (
    RecordReader,
    VcfFile,
    meanings,
    perhaps_this,
    site_table,
    vague_alts,
)
from ragimpute.sites import Region, Sites

_SUM_TOLERANCE = 0.05  # by which the sum of a sample's rounded GP may differ from 1
_TOLD_EVERY = 1_000  # records
_FIELDS = ("DS", "HDS", "AP1 and AP2", "GP", "GT")  # in order of preference


@dataclass(frozen=True)
class Dosages:
    """ALT dosages of one contig.

    Attributes
    ----------
    samples
        Names, N of them.
    sites
        The sites, M of them, sorted by position.
    dosage
        Shape (M, N), float32, in [0, ploidy]; NaN where unknown.
    ploidy
        Shape (M, N), int8: 1 where the genotype is haploid, else 2. It is that of GT, or else of
        HDS, AP1 and AP2, or GP. A genotype of which none says it counts as haploid if all others of
        the sample are.
    dr2
        Shape (M,), float32: INFO/DR2 or else INFO/R2; NaN if absent.
    typed
        Shape (M,), bool: whether the record has INFO/TYPED; if the header declares only IMP,
        whether the record lacks it.
    num_hard_calls
        Shape (M,), int: samples whose dosage was counted from FORMAT/GT.
    skipped, num_records, num_further_alts
        As in :class:`ragimpute.io.vcf.read.genotypes.Target`.
    """

    samples: list[str]
    sites: Sites
    dosage: np.ndarray
    ploidy: np.ndarray
    dr2: np.ndarray
    typed: np.ndarray
    num_hard_calls: np.ndarray
    skipped: dict[str, int]
    num_records: int
    num_further_alts: int


def read_dosages(
    path: str | Path | VcfFile,
    *,
    region: Region | None = None,
    threads: int = 1,
    genotypes: bool = False,
    symbolic: bool = False,
    reached: Callable[[int], None] | None = None,
) -> Dosages:
    """Read ALT dosages: DS, else HDS, else AP1 and AP2, else GP, else counted from GT.

    Each dosage is of the first of these FORMAT fields that has it: records and samples of one file
    may differ in what they have.

    Parameters
    ----------
    path
        VCF, VCF.gz or BCF, sorted by position. DS, AP1 and AP2 are one number for each ALT; GP is
        one probability for each genotype; HDS is read where a record has one ALT.
    region
        What to read, with or without "chr"; needed where the file holds several contigs.
    threads
        For decompression, >= 1.
    genotypes
        Whether GT is read alone wherever a record has it, as is right for true genotypes.
    symbolic
        Whether symbolic ALTs such as <DEL> are read, too; else they are left out.
    reached
        Called with the position of the record that was read last, bp, every thousand records.

    Raises
    ------
    InputError
        As for :func:`ragimpute.io.vcf.read.genotypes.read_target`; if none of these fields is
        declared, or a record has none; or if GP are no probabilities.
    """
    alleles = "symbolic" if symbolic else "sequences"
    reader = RecordReader(path, region, threads, alleles=alleles)
    if not _usable_fields(reader) and reader.header.formats & {"PL", "GL"}:
        raise without_genotypes(reader.header)
    if not _usable_fields(reader):
        raise InputError(
            f"{reader.path} declares none of FORMAT/{', '.join(_FIELDS)}",
            hint="dosages or genotypes are needed",
        )
    rows = _DosageRows(reader, genotypes=genotypes)
    for number, variant in enumerate(reader.records(sort_check=True)):
        rows.add(variant)
        if reached is not None and number % _TOLD_EVERY == 0:
            reached(variant.POS)
    if not rows.dosage:
        raise reader.nothing_left()
    return rows.result()


def _usable_fields(reader: RecordReader) -> list[str]:
    """Which of ``_FIELDS`` a file has; GT need not be declared."""
    declared = reader.header.formats | ({"GT"} if reader.file.has_genotypes else set())
    return [name for name in _FIELDS if all(part in declared for part in name.split(" and "))]


class _DosageRows:
    """Collects the dosages of records."""

    def __init__(self, reader: RecordReader, *, genotypes: bool) -> None:
        self.reader, self._genotypes = reader, genotypes
        self.dosage: list[np.ndarray] = []
        self._sites: list[tuple[int, str, str, str, str]] = []
        self._dr2: list[float] = []
        self._typed: list[bool] = []
        self._hard_calls: list[int] = []
        num_samples = len(reader.samples)
        self._haploid: list[np.ndarray] = []  # of each row: 1 haploid, 0 diploid, -1 not known
        self._phased = np.zeros(num_samples, dtype=bool)
        header = reader.header
        self._usable = _usable_fields(reader)
        self._dr2_names = [name for name in ("DR2", "R2") if name in header.infos]
        flags = [name for name in ("TYPED", "IMP") if name in header.infos]
        self._flag = flags[0] if flags else None

    def add(self, variant: Any) -> None:
        """Add the rows of a record."""
        reader = self.reader
        alts = reader.usable_alts(variant)
        if not alts:
            return
        means = meanings(variant)
        dosage, haploid, hard = self._dosages(variant, alts, means)
        own = [alt for alt in alts if means[alt + 1] == alt + 1]
        reader.skip_repeated(variant, alts, own)
        typed = self._flag is not None and bool(variant.INFO.get(self._flag))
        for alt, info in zip(own, reader.site_infos(variant, own), strict=True):
            self.dosage.append(dosage[:, alt])
            self._haploid.append(haploid)
            self._hard_calls.append(int(hard[:, alt].sum()))
            name = variant.ID or "."
            self._sites.append((variant.POS, variant.REF, variant.ALT[alt], name, info))
            self._dr2.append(self._quality(variant, alt))
            self._typed.append(typed if self._flag != "IMP" else not typed)

    def _dosages(
        self, variant: Any, alts: list[int], means: list[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Dosage (N, ALTs), ploidy (N,) as ``_haploid`` has it, and which are hard calls.

        ``alts`` are the usable ones, ``means`` what :func:`meanings` says of the record. The dosage
        of an ALT that the record repeats is that of all its mentions together.
        """
        reader, num_alts = self.reader, len(variant.ALT)
        dosage = np.full((len(reader.samples), num_alts), np.nan, np.float32)
        haploid = np.full(len(reader.samples), -1, np.int8)
        called = None
        if "GT" in self._usable and "GT" in variant.FORMAT:
            called = self._called(variant, alts)
            known = (called >= 0).any(axis=1)
            haploid = np.where(known, called[:, 1] == -2, haploid).astype(np.int8)
        found, wrong = False, ""
        for name in self._usable:
            enough = called is not None and self._genotypes
            enough |= found and not (np.isnan(dosage).any() or (haploid < 0).any())
            if name == "GT" or enough or any(n not in variant.FORMAT for n in name.split(" and ")):
                continue
            columns = [_numbers(variant, part) for part in name.split(" and ")]
            if columns[0] is not None and np.isnan(columns[0]).all():
                found = True  # "." for all samples, which may have any length
                continue
            made = _READERS[name](columns, num_alts, haploid == 0)
            if isinstance(made, str):
                wrong = wrong or f"{name} is {made}"
                continue
            found = True
            dosage = np.where(np.isnan(dosage), made[0], dosage)
            haploid = np.where(haploid < 0, made[1], haploid)
        for i in range(num_alts):
            if means[i + 1] not in (0, i + 1):
                dosage[:, means[i + 1] - 1] += dosage[:, i]
        hard = np.zeros(dosage.shape, bool)
        if called is not None:
            vague = vague_alts(variant, alts)
            counted = np.stack(
                [_counted(called, i, perhaps_this(variant, i, vague)) for i in range(num_alts)],
                axis=1,
            )
            hard = np.isnan(dosage) & ~np.isnan(counted)
            dosage = np.where(hard, counted, dosage)
        elif not found:
            raise self._nothing(variant, wrong)
        return dosage, haploid, hard

    def _called(self, variant: Any, alts: list[int]) -> np.ndarray:
        """A record's alleles, shape (N, 2), int8; carriers of ALTs that are not usable: missing."""
        called = np.empty((len(self.reader.samples), 2), np.int8)
        if self.reader.genotypes(variant, called, self._phased) > len(variant.ALT):
            raise self.reader.wrong_allele(variant, called)
        if len(variant.ALT) > 1:
            _, called = self.reader.own_alts(variant, alts, called)
        return called

    def _nothing(self, variant: Any, wrong: str) -> InputError:
        """The error for a record without dosages and genotypes."""
        where = f"{self.reader.path}, {variant.CHROM}:{variant.POS}"
        if wrong:
            return InputError(
                f"{where}: {wrong}",
                hint="expected FORMAT/DS with Number=A, AP1 and AP2 with Number=A, HDS of one ALT, "
                "or GP with Number=G of probabilities",
            )
        return InputError(f"{where}: the record has none of {', '.join(self._usable)}")

    def _quality(self, variant: Any, alt: int) -> float:
        """DR2 or R2 of one ALT."""
        for name in self._dr2_names:
            value = variant.INFO.get(name)
            if isinstance(value, tuple):
                value = value[alt] if alt < len(value) else None
            if isinstance(value, (int, float)):
                return float(value)
        return float("nan")

    def result(self) -> Dosages:
        """The dosages of all records that were added."""
        position, ref, alt, ids, info = zip(*self._sites, strict=True)
        haploid = np.stack(self._haploid)  # (M, N)
        always = (haploid == 1).any(axis=0) & ~(haploid == 0).any(axis=0)
        haploid = np.where(haploid < 0, always, haploid == 1)
        return Dosages(
            samples=self.reader.samples,
            sites=site_table(self.reader.contig, position, ref, alt, ids, info),
            dosage=np.stack(self.dosage),
            ploidy=np.where(haploid, 1, 2).astype(np.int8),
            dr2=np.array(self._dr2, dtype=np.float32),
            typed=np.array(self._typed, dtype=bool),
            num_hard_calls=np.array(self._hard_calls, dtype=np.int64),
            skipped=self.reader.skipped,
            num_records=self.reader.num_records,
            num_further_alts=self.reader.num_further_alts,
        )


def _counted(called: np.ndarray, alt: int, vague: list[int]) -> np.ndarray:
    """How often each sample carries an ALT, shape (N,), float32; NaN if an allele is missing.

    ``vague`` are ALTs that may be this one.
    """
    alleles = called[:, :2]
    count: np.ndarray = (alleles == alt + 1).sum(axis=1).astype(np.float32)
    unknown = (alleles == -1) | np.isin(alleles, [i + 1 for i in vague])
    count[unknown.any(axis=1)] = np.nan
    return count


# What a field says: dosages (N, ALTs), NaN where unknown, and ploidy (N,) as ``_haploid`` has it;
# or what is wrong with it.
_Read = tuple[np.ndarray, np.ndarray] | str


def _numbers(variant: Any, name: str) -> np.ndarray | None:
    """A field's numbers, shape (N, numbers), float32; NaN where missing; None if it has none."""
    given: np.ndarray | None = variant.format(name)
    if given is None or given.dtype.kind not in "fi":
        return None
    if given.dtype.kind == "i":  # its two lowest numbers stand for "missing" and "no more"
        given = np.where(given <= np.iinfo(np.int32).min + 1, np.nan, given)
    return given.astype(np.float32)


def _of_ds(columns: Sequence[np.ndarray | None], num_alts: int, diploid: np.ndarray) -> _Read:
    """DS, which says no ploidy."""
    (given,) = columns
    if given is None or given.shape[1] != num_alts:
        return "not one number for each ALT"
    return given, np.full(len(given), -1, np.int8)


def _of_hds(columns: Sequence[np.ndarray | None], num_alts: int, diploid: np.ndarray) -> _Read:
    """HDS, one or two numbers; ``diploid`` (N,) says which samples GT shows to be so."""
    (given,) = columns
    if given is None or given.shape[1] > 2 or num_alts != 1:
        return "not one number for each haplotype of one ALT"
    second = given[:, 1:] if given.shape[1] == 2 else np.full_like(given, np.nan)
    return _of_haplotypes(given[:, :1], second, diploid)


def _of_ap(columns: Sequence[np.ndarray | None], num_alts: int, diploid: np.ndarray) -> _Read:
    """AP1 and AP2."""
    first, second = columns
    if first is None or second is None or not first.shape[1] == second.shape[1] == num_alts:
        return "not one number each for each ALT"
    return _of_haplotypes(first, second, diploid)


def _of_haplotypes(first: np.ndarray, second: np.ndarray, diploid: np.ndarray) -> _Read:
    """P(ALT) of both haplotypes, (N, ALTs) each; the second is missing where there is only one."""
    haploid = np.where(np.isnan(first[:, 0]), -1, np.isnan(second[:, 0])).astype(np.int8)
    dosage = first + np.where((haploid == 1)[:, None], np.float32(0), second)
    lacking = diploid & (haploid == 1)
    dosage[lacking], haploid[lacking] = np.nan, -1
    return dosage, haploid


def _of_gp(columns: Sequence[np.ndarray | None], num_alts: int, diploid: np.ndarray) -> _Read:
    """GP in the order of the VCF specification: 0/0, 0/1, 1/1, 0/2, ...; haploid: 0, 1, 2, ..."""
    (given,) = columns
    pairs = [(j, k) for k in range(num_alts + 1) for j in range(k + 1)]
    if given is None or given.shape[1] not in (num_alts + 1, len(pairs)):
        return "not one number for each genotype"
    known = np.nan_to_num(given)
    first, rest = given[:, : num_alts + 1], given[:, num_alts + 1 :]
    haploid = np.where(np.isnan(first).any(axis=1), -1, np.isnan(rest).all(axis=1)).astype(np.int8)
    haploid[(haploid == 0) & np.isnan(rest).any(axis=1)] = -1
    haploid[diploid & (haploid == 1)] = -1
    unknown = haploid < 0
    if (np.abs(known.sum(axis=1)[~unknown] - 1) > _SUM_TOLERANCE).any():
        return "not probabilities: they do not sum to 1"
    count = np.zeros((given.shape[1], num_alts), np.float32)  # of each ALT in each genotype
    for number, pair in enumerate(pairs[: given.shape[1]]):
        for allele in pair:
            if allele:
                count[number, allele - 1] += 1
    single = known[:, 1 : num_alts + 1]
    dosage = np.where((haploid == 1)[:, None], single, known @ count)
    dosage[unknown] = np.nan
    return dosage, haploid


_READERS: dict[str, Callable[[Sequence[np.ndarray | None], int, np.ndarray], _Read]] = {
    "DS": _of_ds,
    "HDS": _of_hds,
    "AP1 and AP2": _of_ap,
    "GP": _of_gp,
}
