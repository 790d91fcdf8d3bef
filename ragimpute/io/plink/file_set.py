"""PLINK's file sets as targets: bed with bim and fam, pgen with pvar and psam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ragimpute.contigs import bare_contig, chromosome, is_human, par_names
from ragimpute.errors import InputError
from ragimpute.io.plink.bed import MAGIC as BED
from ragimpute.io.plink.bed import check_bed, read_bed
from ragimpute.io.plink.pgen import MAGIC as PGEN
from ragimpute.io.plink.pgen import DosageCounts, PgenFile
from ragimpute.io.plink.tables import (
    SampleTable,
    Variant,
    VariantTable,
    read_samples,
    read_variants,
)
from ragimpute.io.source import SourceFacts
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.records import LeftOut, site_table
from ragimpute.sites import MAX_BP, Region
from ragimpute.symbolic import extent_infos

KIND_1, KIND_2 = "PLINK 1 (bed, bim, fam)", "PLINK 2 (pgen, pvar, psam)"
_VARIANTS = {KIND_1: (".bim",), KIND_2: (".pvar", ".pvar.zst", ".bim")}
_SAMPLES = {KIND_1: (".fam",), KIND_2: (".psam", ".fam")}
_SAMPLE_MAJOR = b"\x6c\x1b\x00"


def is_plink(start: bytes) -> bool:
    """Whether a file begins as a bed or pgen."""
    return start.startswith(PGEN)


def plink_file(path: str | Path) -> Path | None:
    """The bed or pgen that a path, or a prefix as PLINK takes it, means; None: of no file set.

    Raises
    ------
    InputError
        If the prefix has a bed and a pgen.
    """
    path = Path(path)
    if path.exists():
        return path if path.is_file() and is_plink(_start(path)) else None
    sets = [path.with_name(path.name + suffix) for suffix in (".bed", ".pgen")]
    found = [one for one in sets if one.is_file() and is_plink(_start(one))]
    if len(found) > 1:
        raise InputError(
            f"{path} is the prefix of {found[0].name} and of {found[1].name}",
            hint="name the one to read with its suffix",
        )
    return found[0] if found else None


def _start(path: Path) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(3)
    except OSError:
        return b""


class PlinkFile:
    """A bed or pgen and the files that belong to it, each read once.

    Parameters
    ----------
    path
        The bed or pgen.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._name = str(path)
        start = _start(self.path)
        self.kind = KIND_1 if start in (BED, _SAMPLE_MAJOR) else KIND_2

    def __str__(self) -> str:
        return self._name

    @cached_property
    def parts(self) -> tuple[Path, Path]:
        """The files of variants and of samples.

        Raises
        ------
        InputError
            If one of them is missing.
        """
        return self._beside(_VARIANTS[self.kind]), self._beside(_SAMPLES[self.kind])

    def _beside(self, suffixes: Sequence[str]) -> Path:
        """The first file of the set's name that exists."""
        names = [self.path.with_suffix("").name + suffix for suffix in suffixes]
        found = [self.path.with_name(name) for name in names]
        there = next((path for path in found if path.is_file()), None)
        if there is None:
            raise InputError(
                f"{self.path} needs {' or '.join(names)} beside it, which is missing",
                hint="copy all files of the set into one folder, under one name",
            )
        return there

    @cached_property
    def variants(self) -> VariantTable:
        """The bim or pvar."""
        return read_variants(self.parts[0])

    @cached_property
    def sample_table(self) -> SampleTable:
        """The fam or psam."""
        return read_samples(self.parts[1])

    @property
    def samples(self) -> list[str]:
        """Names, in file order."""
        return self.sample_table.names

    @property
    def declared(self) -> dict[str, int | None]:
        """Contigs that a pvar's header declares, with their lengths in bp or None."""
        return self.variants.declared

    @cached_property
    def contigs(self) -> dict[str, int | None]:
        """Contigs that hold variants; XY and PAR are read along with X, and are not among them."""
        names = list(self.variants.rows)
        hidden = self._parts_of_x(names)
        return {name: self.declared.get(name) for name in names if name not in hidden}

    @property
    def num_records(self) -> dict[str, int]:
        """How many variants each of ``contigs`` has; those of XY and PAR are not counted."""
        return {name: len(self.variants.rows[name]) for name in self.contigs}

    def about(self) -> list[tuple[str, str]]:
        """The other files of the set, and the samples' sex, as names and values."""
        rows = [("variants", self.parts[0].name), ("samples in", self.parts[1].name)]
        told = _told_sex(self.sample_table.sex)
        return [*rows, ("sex", told)] if told else rows

    def _parts_of_x(self, names: Sequence[str]) -> list[str]:
        """The names that mean a part of X, if X has a name of its own, too."""
        if is_human({**dict.fromkeys(names), **self.declared}) is False:
            return []
        parts = par_names(names, self.declared)
        whole = [n for n in names if n not in parts and chromosome(n, self.declared) == "X"]
        return parts if whole else []

    def read(
        self,
        region: Region,
        *,
        samples: Sequence[str] | None = None,
        reached: Callable[[int], None] | None = None,
    ) -> Target:
        """Read the genotypes of one contig, or of a part of it.

        Parameters
        ----------
        region
            A contig of ``contigs``, and which positions.
        samples
            Read these alone, in the order of the file; None: all.
        reached
            Called with the position of the last variant read so far, bp.

        Returns
        -------
        The target; all genotypes are diploid, also on X, Y and MT. ``facts`` has the samples' sex.

        Raises
        ------
        InputError
            If a file is missing, damaged, or does not belong to the others.
        """
        table, people = self.variants, self.sample_table
        chosen = np.arange(len(people.names))
        if samples is not None:
            wanted = set(samples)
            chosen = np.flatnonzero([name in wanted for name in people.names])
        rows, in_par = self._rows(region.contig)
        taken = _Taken.of(table, rows, region)
        alleles, phased = self._genotypes(rows[taken.kept], taken, chosen, reached)
        order = np.argsort(taken.position, kind="stable")
        sites = site_table(
            region.contig, taken.position, taken.ref, taken.alt, taken.id, taken.info
        )
        target = Target(
            samples=[people.names[i] for i in chosen.tolist()],
            sites=sites, alleles=alleles, phased=phased,
            record=np.array(taken.record, np.int32),
            skipped={}, left_out=taken.left_out, num_filtered=taken.num_filtered,
            num_records=taken.num_records, num_further_alts=taken.num_further_alts,
            contig_length=self.declared.get(region.contig), file=self,
            in_par=in_par[taken.kept][taken.variant] if in_par.any() else None,
            facts=self._facts(people.sex[chosen], taken),
        )  # fmt: skip
        if np.array_equal(order, np.arange(len(order))):
            return target
        return target.take(order)

    def _rows(self, contig: str) -> tuple[np.ndarray, np.ndarray]:
        """The variants of a contig, in file order, and which are of a part of X of another name."""
        table = self.variants
        rows = table.rows[contig]
        names = list(table.rows)
        parts = self._parts_of_x(names) if contig in self.contigs else []
        if not parts or bare_contig(contig) not in ("X", "23"):
            return rows, np.zeros(len(rows), bool)
        every = np.concatenate([rows, *(table.rows[name] for name in parts)])
        in_par = np.arange(len(every)) >= len(rows)
        order = np.argsort(every, kind="stable")
        return every[order], in_par[order]

    def _genotypes(
        self,
        rows: np.ndarray,
        taken: _Taken,
        chosen: np.ndarray,
        reached: Callable[[int], None] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Alleles (T, N, 2) and phase (T, N) of the rows that were taken."""
        num = len(self.sample_table.names)
        alleles = np.empty((len(taken.position), len(chosen), 2), np.int8)
        if self.kind == KIND_1:
            check_bed(self.path, num_variants=len(self.variants.lines), num_samples=num)
            first = 0
            for block in read_bed(self.path, rows, chosen, num):
                alleles[first : first + len(block)] = block
                first += len(block)
                if reached is not None:
                    reached(taken.position[first - 1])
            alone = np.array([alt == "." for alt in taken.alt], bool)
            # Where A2 is no allele, A1 was taken for REF.
            swapped = np.array(taken.swapped, bool) & alone
            part = alleles[swapped]
            alleles[swapped] = np.where(part >= 0, 1 - part, part)
            return alleles, alleles[:, :, 0] == alleles[:, :, 1]
        phased = np.empty((len(alleles), len(chosen)), bool)
        file = PgenFile(self.path, num_samples=num, num_alleles=self.variants.num_alleles())
        place = 0
        for number, (called, known) in enumerate(file.read(rows, chosen)):
            while place < len(alleles) and taken.variant[place] == number:
                wanted = taken.allele[place]
                one = np.where(called > 0, called == wanted, called)
                alleles[place] = one
                phased[place] = known | (one[:, 0] == one[:, 1])
                place += 1
            if reached is not None:
                reached(taken.position[place - 1])
        taken.dosages = file.counts
        return alleles, phased

    def _facts(self, sex: np.ndarray, taken: _Taken) -> SourceFacts:
        """What the files say of themselves."""
        told = _told_sex(sex)
        counts = {"variants at no position (0 or less)": taken.num_unplaced}
        warnings: list[str] = []
        dosages = taken.dosages
        if dosages.uncertain:
            counts["dosages that are no whole number"] = dosages.uncertain
            warnings.append(
                f"{dosages.uncertain:,} genotypes of {self.path} have a dosage that is no whole "
                f"number: their hard calls are used; {dosages.uncalled:,} of them have none, so "
                "they are missing"
            )
        return SourceFacts(
            self.kind, sex=told, counts=counts, warnings=tuple(warnings), sexes=sex,
            ordered=self.kind == KIND_2,
        )  # fmt: skip


def _told_sex(sex: np.ndarray) -> str:
    """How many samples are of each sex; "" if the file tells none."""
    if not sex.any():
        return ""
    return ", ".join(
        f"{int(np.count_nonzero(sex == code)):,} {name}"
        for code, name in ((1, "male"), (2, "female"), (0, "unknown"))
        if (sex == code).any()
    )


@dataclass
class _Taken:
    """Which variants become rows of a target, and of which alleles.

    Attributes
    ----------
    kept
        Shape (V,), bool: the variants of the contig that give a row.
    position, id, ref, alt, info, record
        Of each row, as in :class:`ragimpute.io.vcf.read.genotypes.Target`.
    variant, allele
        Of each row: which of the kept variants it is of, and which of its ALTs, from 1.
    swapped
        Of each row: A2 is no allele, and A1 is taken for REF.
    left_out, num_records, num_further_alts, num_filtered, num_unplaced
        Alleles that give no row, and counts of variants.
    dosages
        Of a pgen, dosages that are no hard calls, once its genotypes were read.
    """

    kept: np.ndarray
    position: list[int] = field(default_factory=list)
    id: list[str] = field(default_factory=list)
    ref: list[str] = field(default_factory=list)
    alt: list[str] = field(default_factory=list)
    info: list[str] = field(default_factory=list)
    record: list[int] = field(default_factory=list)
    variant: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    allele: list[int] = field(default_factory=list)
    swapped: list[bool] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    num_records: int = 0
    num_further_alts: int = 0
    num_filtered: int = 0
    num_unplaced: int = 0
    dosages: DosageCounts = field(default_factory=DosageCounts)

    @classmethod
    def of(cls, table: VariantTable, rows: np.ndarray, region: Region) -> _Taken:
        """The rows of the variants ``rows`` of a table that lie in a region."""
        taken = cls(np.zeros(len(rows), bool))
        of: list[int] = []
        num_kept = record = 0
        for number, row in enumerate(rows.tolist()):
            variant = table.variant(row)
            position = variant.position_bp
            if position < 1:
                taken.num_unplaced += 1
                continue
            if position > MAX_BP:
                raise InputError(
                    f"{table.path}, line {row + table.first_line}: position {position:,} is above "
                    f"{MAX_BP:,}, the last that a panel can hold",
                    hint="check the column of positions",
                )
            if not region.start_bp <= position < region.stop_bp:
                continue
            taken.num_records += 1
            taken.num_filtered += variant.filtered
            if not taken._add(variant, record):
                continue
            record += len(variant.alts) > 1
            taken.kept[number] = True
            of += [num_kept] * (len(taken.position) - len(of))
            num_kept += 1
        taken.variant = np.array(of, np.int64)
        return taken

    def _add(self, variant: Variant, record: int) -> bool:
        """Add a row for each ALT of a variant; returns whether there is any."""
        ref, alts, swapped = variant.ref, variant.alts, False
        if ref in ("0", "."):
            if len(alts) != 1:
                self.left_out.append(
                    LeftOut(variant.position_bp, variant.id, ref, ",".join(alts) or ".", "no_alt")
                )
                return False
            ref, alts, swapped = alts[0], (), True
        self.num_further_alts += max(0, len(alts) - 1)
        self.info += extent_infos(variant.position_bp, alts or (".",), variant.info)
        for number, alt in enumerate(alts or (".",), start=1):
            self.position.append(variant.position_bp)
            self.id.append(variant.id)
            self.ref.append(ref)
            self.alt.append(alt)
            self.record.append(record if len(alts) > 1 else -1)
            self.allele.append(number)
            self.swapped.append(swapped)
        return True
