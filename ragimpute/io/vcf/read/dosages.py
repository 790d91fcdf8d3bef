"""Read ALT dosages from imputed or observed genotypes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.records import RecordReader, VcfFile, site_table
from ragimpute.sites import Region, Sites


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
        Shape (M, N), int8: 1 where the genotype is haploid, else 2. A genotype without any observed
        allele counts as haploid if all others of the sample are.
    dr2
        Shape (M,), float32: INFO/DR2 or else INFO/R2; NaN if absent.
    typed
        Shape (M,), bool: whether the record has INFO/TYPED; if the header declares only IMP,
        whether the record lacks it.
    skipped
        As in :class:`ragimpute.io.vcf.read.genotypes.Target`.
    """

    samples: list[str]
    sites: Sites
    dosage: np.ndarray
    ploidy: np.ndarray
    dr2: np.ndarray
    typed: np.ndarray
    skipped: dict[str, int]


def read_dosages(
    path: str | Path | VcfFile, *, region: Region | None = None, threads: int = 1
) -> Dosages:
    """Read ALT dosages: FORMAT/DS where there is one, else counted from FORMAT/GT.

    Parameters
    ----------
    path
        VCF, VCF.gz or BCF, sorted by position; DS with Number A or 1.
    region
        What to read, with or without "chr"; needed where the file holds several contigs.
    threads
        For decompression, >= 1.

    Raises
    ------
    InputError
        As for :func:`ragimpute.io.vcf.read.genotypes.read_target`; or if neither DS nor GT is
        declared.
    """
    reader = RecordReader(path, region, threads)
    declared = reader.header.formats
    if "DS" not in declared and not reader.file.has_genotypes:
        raise InputError(f"{reader.path} declares neither FORMAT/DS nor FORMAT/GT")
    rows = _DosageRows(reader)
    for variant in reader.records(sort_check=True):
        rows.add(variant)
    if not rows.dosage:
        raise reader.nothing_left()
    return rows.result()


class _DosageRows:
    """Collects the dosages of records."""

    def __init__(self, reader: RecordReader) -> None:
        self.reader = reader
        self.dosage: list[np.ndarray] = []
        self._sites: list[tuple[int, str, str, str]] = []
        self._dr2: list[float] = []
        self._typed: list[bool] = []
        num_samples = len(reader.samples)
        self._haploid: list[np.ndarray] = []  # of each row: 1 haploid, 0 diploid, -1 not known
        self._phased = np.zeros(num_samples, dtype=bool)
        header = reader.header
        self._has_ds, self._has_gt = "DS" in header.formats, reader.file.has_genotypes
        self._dr2_names = [name for name in ("DR2", "R2") if name in header.infos]
        flags = [name for name in ("TYPED", "IMP") if name in header.infos]
        self._flag = flags[0] if flags else None

    def add(self, variant: Any) -> None:
        """Add the rows of a record."""
        reader = self.reader
        alts = reader.usable_alts(variant)
        if not alts:
            return
        given = self._given(variant)
        called = None
        haploid = np.full(len(reader.samples), -1, np.int8)
        if self._has_gt and (given is None or "GT" in variant.FORMAT):
            called = np.empty((len(reader.samples), 2), np.int8)
            if reader.genotypes(variant, called, self._phased) > len(variant.ALT):
                raise reader.wrong_allele(variant, called)
            known = (called >= 0).any(axis=1)
            haploid = np.where(known, called[:, 1] == -2, haploid).astype(np.int8)
        if given is None and called is None:
            where = f"{variant.CHROM}:{variant.POS}"
            raise InputError(f"{reader.path}, {where}: the record has neither DS nor GT")
        typed = self._flag is not None and bool(variant.INFO.get(self._flag))
        for alt in alts:
            row = None if given is None else given[:, alt].astype(np.float32)
            if called is not None and (row is None or np.isnan(row).any()):
                counted = _counted(called, alt)
                row = counted if row is None else np.where(np.isnan(row), counted, row)
            assert row is not None
            self.dosage.append(row)
            self._haploid.append(haploid)
            self._sites.append((variant.POS, variant.REF, variant.ALT[alt], variant.ID or "."))
            self._dr2.append(self._quality(variant, alt))
            self._typed.append(typed if self._flag != "IMP" else not typed)

    def _given(self, variant: Any) -> np.ndarray | None:
        """DS of a record, shape (N, number of ALTs), or None where it has none."""
        if not self._has_ds or "DS" not in variant.FORMAT:
            return None
        given: np.ndarray | None = variant.format("DS")
        if given is None:
            return None
        if given.dtype.kind not in "fi" or given.shape[1] != len(variant.ALT):
            where = f"{variant.CHROM}:{variant.POS}"
            if self._has_gt and given.dtype.kind in "fi":
                return None  # one DS for several ALTs: GT tells them apart
            raise InputError(
                f"{self.reader.path}, {where}: DS is not one number for each ALT",
                hint="expected FORMAT/DS with Number=A and Type=Float",
            )
        return given

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
        position, ref, alt, ids = zip(*self._sites, strict=True)
        haploid = np.stack(self._haploid)  # (M, N)
        always = (haploid == 1).any(axis=0) & ~(haploid == 0).any(axis=0)
        haploid = np.where(haploid < 0, always, haploid == 1)
        return Dosages(
            samples=self.reader.samples,
            sites=site_table(self.reader.contig, position, ref, alt, ids),
            dosage=np.stack(self.dosage),
            ploidy=np.where(haploid, 1, 2).astype(np.int8),
            dr2=np.array(self._dr2, dtype=np.float32),
            typed=np.array(self._typed, dtype=bool),
            skipped=self.reader.skipped,
        )


def _counted(called: np.ndarray, alt: int) -> np.ndarray:
    """How often each sample carries an ALT, shape (N,), float32; NaN if an allele is missing."""
    alleles = called[:, :2]
    count: np.ndarray = (alleles == alt + 1).sum(axis=1).astype(np.float32)
    count[(alleles == -1).any(axis=1)] = np.nan
    return count
