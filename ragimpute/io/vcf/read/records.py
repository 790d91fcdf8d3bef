"""Read the records of a VCF, VCF.gz or BCF through cyvcf2; a faulty file is one clear error."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import cyvcf2
import numpy as np

from ragimpute.commands import command_word, free_name, sort_command
from ragimpute.errors import InputError
from ragimpute.io.vcf.bgzf import check_blocks
from ragimpute.io.vcf.header import (
    VcfHeader,
    choose_region,
    first_formats,
    has_prefixed_phase,
    mistyped_field,
    read_header,
    record_contigs,
    text_lines,
    without_genotypes,
    without_prefixes,
)
from ragimpute.io.vcf.index import VcfIndex, read_index
from ragimpute.io.vcf.read.bcf import BcfError, BcfReader, BcfRecord
from ragimpute.io.vcf.site_info import SiteInfoReader
from ragimpute.kernels.compile import kernel
from ragimpute.sites import MAX_BP, STOP_BP, Region, Sites, located
from ragimpute.symbolic import ANY_OTHER, EXTENT_FIELDS, full_name, in_capitals, is_symbolic

_ALL = (1, STOP_BP)
MAX_ALLELE = 127  # the largest number of an allele
_PLAIN_NAME = re.compile(r"[^\s,<>\"]+")  # names that stand in a line of the header as they are
_BASES = frozenset("ACGTacgt")
# In Python the genotypes of so few samples take less time than the call of a kernel.
_FEW_SAMPLES = 4
_SEQUENCE = frozenset("ACGTNacgtn")
_IUPAC = frozenset("ACGTNRYSWKMBDHVacgtnryswkmbdhv")
# A record without ALT that has one of these states how sure its reference call is.
_OF_REFERENCE_CALLS = frozenset(("RGQ", "GQX", "MIN_DP"))


@dataclass(frozen=True)
class LeftOut:
    """An ALT of a record that gives no site.

    Attributes
    ----------
    position_bp, id, ref, alt
        As in the file.
    reason
        "no_alt" (ALT is "."), "position_0" (before the contig's first base), "reference_blocks"
        (of a gVCF, where its blocks are not asked for), "symbolic" (such as <DEL> or a breakend),
        "star" (the allele "*"), "invalid" (such as the I, D and 0 of array software) or "repeated"
        (REF, or an ALT before it, is the same; its carriers count as carriers of that one).
    """

    position_bp: int
    id: str
    ref: str
    alt: str
    reason: str


@cache
def _quiet_htslib() -> None:
    """Keep htslib from writing to stderr: what matters is raised as an error here."""
    with suppress(AttributeError, OSError):  # with another build of cyvcf2 its warnings are shown
        ctypes.CDLL(cyvcf2.cyvcf2.__file__).hts_set_log_level(0)


class VcfFile:
    """A VCF, VCF.gz or BCF whose header and index are read once, however many readers it is given.

    Nothing is read before it is asked for. The records themselves are not kept: each reader opens
    the file anew to go through them, as htslib opens files by name only.

    Parameters
    ----------
    path
        The file; as text, this is what messages call it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._name = str(path)

    def __str__(self) -> str:
        return self._name

    @classmethod
    def of(cls, source: str | Path | VcfFile) -> VcfFile:
        """The file itself, or the one with this path."""
        return source if isinstance(source, VcfFile) else cls(source)

    @cached_property
    def header(self) -> VcfHeader:
        """The header.

        Raises
        ------
        InputError
            As :func:`ragimpute.io.vcf.header.read_header` does.
        """
        return read_header(self.path)

    @property
    def samples(self) -> list[str]:
        """Names, in file order."""
        return self.header.samples

    @property
    def declared(self) -> dict[str, int | None]:
        """Contigs that the header declares, with their lengths in bp or None."""
        return self.header.declared

    @cached_property
    def index(self) -> VcfIndex | None:
        """The index; None if there is none, or it is older than the file or damaged."""
        return read_index(self.header)

    @property
    def num_records(self) -> dict[str, int] | None:
        """How many records each contig has, as the index says; None without one."""
        return None if self.index is None else self.index.num_records

    @cached_property
    def has_genotypes(self) -> bool:
        """Whether the header declares GT, or the first record has one all the same."""
        return "GT" in self.header.formats or "GT" in first_formats(self.header)

    @cached_property
    def has_prefixed_phase(self) -> bool:
        """Whether genotypes begin with their phase, as in VCF 4.4; all records are read to know."""
        return has_prefixed_phase(self.header)

    @cached_property
    def contigs(self) -> dict[str, int | None]:
        """Contigs that hold records, in file order, with their declared lengths in bp, or None.

        Without an index all records are read to find them.

        Raises
        ------
        InputError
            If the file cannot be read, is truncated or damaged.
        """
        if self.index is not None:
            names = list(self.index.chunks)
        else:
            names = list(dict.fromkeys(record_contigs(self.header)))
        return {name: self.header.contigs.get(name) for name in names}


def site_table(contig: str, position: Any, ref: Any, alt: Any, ids: Any, info: Any = None) -> Sites:
    """Make a table of sites from columns; ``info`` is left out if all of it is empty."""
    columns = []
    for values in (ref, alt, ids, *([] if info is None or not any(info) else [info])):
        column = np.empty(len(values), dtype=object)
        column[:] = values
        columns.append(column)
    return Sites(contig, np.array(position, dtype=np.int32), *columns)


class RecordReader:
    """Reads the records of one contig or region; a faulty file is one clear error.

    Parameters
    ----------
    path, region, threads
        See :func:`ragimpute.io.vcf.read.genotypes.read_target`.
    samples
        The samples to read, in the order of the file; None: all.
    genotypes_only
        Whether only sites and genotypes are needed, which are read faster from a BCF.
    reach_in
        Whether to read the reference blocks, too, that begin before the region and reach into it.
    alleles
        Which ALTs make a row: "sequences"; "symbolic", those such as <DEL> too, with where they
        end; or "all", whatever it is, with all of INFO that says what alleles are.

    Attributes
    ----------
    samples
        The samples that are read, in the order of the file.
    skipped, left_out
        How many ALTs gave no site, by reason; and the ALTs themselves, if ``list_left_out``.
    num_filtered
        Records so far whose FILTER is neither PASS nor missing; they are read all the same.
    num_records
        Records of the region so far, whatever became of them.
    num_further_alts
        ALTs of these records beyond the first of each; ``<NON_REF>`` and the like do not count.
    """

    def __init__(
        self,
        path: str | Path | VcfFile,
        region: Region | None,
        threads: int,
        *,
        samples: Sequence[str] | None = None,
        list_left_out: bool = False,
        genotypes_only: bool = False,
        reach_in: bool = False,
        alleles: str = "sequences",
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be >= 1, found {threads}")
        _quiet_htslib()
        self.file = VcfFile.of(path)
        self.header = self.file.header
        self.path = self.header.path
        self.samples = self.header.samples
        self._columns: np.ndarray | None = None
        self._chosen = samples is not None
        if samples is not None:
            wanted = set(samples)
            self.samples = [name for name in self.header.samples if name in wanted]
            if any("," in name or name.startswith(("^", "-")) for name in self.samples):
                # htslib would cut or misread these names, so all samples are read.
                self._chosen = False
                kept = [i for i, name in enumerate(self.header.samples) if name in wanted]
                self._columns = np.array(kept, dtype=np.int64)
        self.threads = threads
        self.region = region
        self.reset_counts()
        self._reach_in = reach_in
        self.alleles = alleles
        self._site_info: SiteInfoReader | None = None
        if alleles != "sequences":
            names = None if alleles == "all" else EXTENT_FIELDS
            self._site_info = SiteInfoReader(self.header.text, names)
        self._list_left_out = list_left_out
        self.genotypes_only = genotypes_only
        self.contig = ""
        self._index = self.file.index
        if self._index is not None:
            chosen = choose_region(self.header, list(self._index.chunks), region)
            self.contig = chosen.contig
            self.region = None if region is None else chosen

    def reset_counts(self) -> None:
        """Begin to count anew, before the file is read once more."""
        self.skipped: dict[str, int] = {}
        self.left_out: list[LeftOut] = []
        self.num_filtered = self.num_records = self.num_further_alts = self.num_beyond = 0

    def need_genotypes(self) -> None:
        """Refuse files that neither declare GT nor have it in their first record."""
        if not self.file.has_genotypes:
            raise without_genotypes(self.header)

    def records(self, *, sort_check: bool, refuse_beyond: bool = True) -> Iterator[Any]:
        """Records that start inside the region.

        Those at positions above ``MAX_BP`` end in an error if ``refuse_beyond``; else they are
        counted in ``num_beyond``.

        Raises
        ------
        InputError
            If the file cannot be read, is not sorted, or has records in the region at positions
            above ``MAX_BP``; the latter are counted first.
        """
        last_bp, contig = 0, self.contig
        num_read, beyond = 0, []
        for variant in self._raw_records():
            num_read += 1
            if contig != variant.CHROM:
                if not self._wanted(variant.CHROM, contig):
                    continue
                contig = variant.CHROM
            start, stop = (self.region.start_bp, self.region.stop_bp) if self.region else _ALL
            # cyvcf2's POS has 32 bits, and so is a wrong position above 2^31.
            position = variant.POS if isinstance(variant, BcfRecord) else variant.start + 1
            if position > MAX_BP and start <= position < stop:
                beyond.append(position)
                continue
            if position < 1 and start <= 1:
                self.num_records += 1
                self._skip(variant, ",".join(variant.ALT) or ".", "position_0")
                continue
            if sort_check and position < last_bp:
                raise InputError(
                    f"{self.path} is not sorted: {contig}:{position} comes after "
                    f"{contig}:{last_bp}",
                    hint=f"sort it: {sort_command(self.path)}",
                )
            last_bp = position
            if start <= position < stop or (position < start and self._reaches(variant, start)):
                self.contig = contig
                self.num_records += 1
                yield variant
        if not num_read and self._index is None:
            raise InputError(f"{self.path} holds no records", hint="check how it was made")
        if not contig:
            choose_region(self.header, list(self.file.contigs), self.region)
        self.num_beyond = len(beyond)
        if beyond and refuse_beyond:
            raise InputError(
                f"{self.path} has {len(beyond):,} records on {contig} at positions above "
                f"{MAX_BP:,} (the first at {beyond[0]:,}), the last that BCF and panel.h5 can hold",
                hint=f"leave them out: --region '{Region(contig, 1, MAX_BP + 1)}'"
                if last_bp
                else "cut the contig into parts, with positions from the start of each part",
            )

    def _reaches(self, variant: Any, start: int) -> bool:
        """Whether a record before the region is a reference block that reaches into it."""
        return self._reach_in and is_reference_block(variant) and reference_end(variant) >= start

    def _wanted(self, name: str, contig: str) -> bool:
        """Whether records of contig ``name`` are to be read, after those of ``contig``."""
        region, header = self.region, self.header
        if region is None:
            if contig:
                choose_region(header, list(self.file.contigs), None)
            return True
        if contig:
            return False
        if name == region.contig and region.text not in header.contigs:
            return True
        if located(region, [name], declared=header.declared) is None:
            return False
        # Only all names tell whether another one is spelled as the region is.
        self.region = choose_region(header, list(self.file.contigs), region)
        return self.region.contig == name

    def _raw_records(self) -> Iterator[Any]:
        """Records from the region's start on, where there is an index."""
        header = self.header
        quick = self.genotypes_only and not self._chosen and self._columns is None
        if quick and header.is_bcf and header.compression == "bgzf":
            return self._bcf_records()
        if header.version >= (4, 4) and self.file.has_prefixed_phase:
            return self._text_records()
        return self._htslib_records()

    def _text_records(self) -> Iterator[Any]:
        """Records of a VCF whose genotypes begin with their phase, which this htslib cannot read.

        They are given to cyvcf2 one by one, without the signs of phase at their beginning.
        """
        last = None
        rest, _, columns = self.header.text.rstrip().rpartition("\n")
        fixed, names = columns.split("\t")[:9], self.header.samples
        kept = [9 + i for i, name in enumerate(names) if name in set(self.samples)]
        text = "\t".join([*fixed, *self.samples])
        with closing(cyvcf2.Writer.from_string(os.devnull, f"{rest}\n{text}\n")) as parser:
            for raw in text_lines(self.header):
                try:
                    line = without_prefixes(raw).decode()
                    if self._chosen:
                        cells = line.split("\t")
                        line = "\t".join([*cells[:9], *(cells[i] for i in kept)])
                    variant = parser.variant_from_string(line)
                    _check_text(variant)
                except Exception as error:
                    raise self._damaged(last) from error
                yield variant
                last = variant

    def _bcf_records(self) -> Iterator[BcfRecord]:
        """Records of a BCF, of which only the sites and genotypes are read."""
        header, last = self.header, None
        reader = BcfReader(
            self.path, num_samples=len(header.samples), contigs=header.contig_numbers,
            threads=self.threads,
        )  # fmt: skip
        start, stop = None, 2**31
        if self._index is not None and self.region is not None:
            start, stop = self._index.first_offset(self.contig, self.region), self.region.stop_bp
            if start < 0:
                return
        try:
            for record in reader.records(start):
                beyond = self.contig != record.CHROM or stop <= record.POS
                if start is not None and beyond:
                    return
                yield record
                last = record
        except BcfError as error:
            raise self._damaged(last) from error

    def _damaged(self, last: Any) -> InputError:
        """The error for a file whose records cannot be read after ``last``."""
        after = f"after {last.CHROM}:{last.POS}" if last else "at its first record"
        prefixed = False
        with suppress(InputError):  # where the rest of the file cannot even be decompressed
            prefixed = self.header.version < (4, 4) and self.file.has_prefixed_phase
        if prefixed:
            return InputError(
                f"{self.path} has genotypes that begin with their phase, such as |0|1, but its "
                "first line says that it is not of VCF 4.4 or later",
                hint="write ##fileformat=VCFv4.4 in the first line",
            )
        if not self.header.is_bcf:
            with suppress(InputError):
                mistyped = mistyped_field(self.header)
                if mistyped is not None:
                    return mistyped
        return InputError(
            f"{self.path} is damaged, truncated or malformed {after}",
            hint=f"bcftools view {command_word(self.path)} shows the fault; copy or make the file "
            "again",
        )

    def _htslib_records(self) -> Iterator[Any]:
        """Records as cyvcf2 gives them."""
        header, last = self.header, None
        if header.is_bcf and header.compression == "bgzf":
            # A pass of its own over the whole file, as htslib ends the process at a GT of a wrong
            # type.
            for _ in self._bcf_records():
                pass
        try:
            file = cyvcf2.VCF(
                str(self.path),
                samples=self.samples if self._chosen else None,
                threads=self.threads if self.threads > 1 else None,
            )
        except Exception as error:
            raise InputError(f"{self.path} cannot be read as VCF or BCF: {error}") from error
        if not header.is_bcf:
            _declare(file, self.path, self.file.contigs, header.contigs)
        try:
            records = file
            if self._index is not None and self.region is not None:
                self._check_blocks(self._index, self.region)
                end = "" if self.region.stop_bp >= STOP_BP else self.region.stop_bp - 1
                records = file(f"{{{self.contig}}}:{self.region.start_bp}-{end}")
            while True:
                try:
                    variant = next(records)
                    _check_text(variant)
                except StopIteration:
                    break
                except Exception as error:
                    raise self._damaged(last) from error
                yield variant
                last = variant
        finally:
            file.close()

    def _check_blocks(self, index: VcfIndex, region: Region) -> None:
        """Refuse damage in the region: after a look-up in an index htslib stops without an error.

        The file is opened a second time for this, as htslib does not share the one it has open.
        """
        with self.path.open("rb") as file:
            if not check_blocks(file, *index.byte_range(self.contig, region)):
                raise InputError(
                    f"{self.path} is damaged or truncated on contig {self.contig}",
                    hint="copy or make the file again, or its index if that is of another file",
                )

    def nothing_left(self) -> InputError:
        """The error for a file or region without usable records."""
        where = f" in {self.region}" if self.region is not None else ""
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        more = f" ({left_out} left out)" if left_out else ""
        hint = "check --region" if self.region is not None else "check how it was made"
        return InputError(f"{self.path} holds no usable records{where}{more}", hint=hint)

    def site_infos(self, variant: Any, alts: Sequence[int]) -> list[str]:
        """What INFO says of some of a record's ALTs, as text; "" where nothing is read or said.

        Raises
        ------
        InputError
            If INFO is damaged.
        """
        if self._site_info is None:
            return [""] * len(alts)
        try:
            return self._site_info.of(variant, alts)
        except ValueError as error:
            raise self._damaged(variant) from error

    def usable_alts(self, variant: Any, *, keep_monomorphic: bool = False) -> list[int]:
        """Which of a record's ALTs make a row each; -1 stands for ALT ".". Others are counted.

        ``<NON_REF>`` and the like beside other ALTs are no alleles of their own, and not counted.
        """
        alts = variant.ALT
        self.num_filtered += variant.FILTER is not None
        if not alts:
            if keep_monomorphic:
                return [-1]
            self._skip(variant, ".", "no_alt")
            return []
        keep_all = self.alleles == "all"
        named = range(len(alts)) if keep_all else named_alts(variant)
        if not named:
            self._skip(variant, alts[0], "reference_blocks")
            return []
        self.num_further_alts += len(named) - 1
        usable = []
        for i in named:
            alt = alts[i]
            named_too = self.alleles == "symbolic" and is_symbolic(alt)
            if keep_all or named_too or _SEQUENCE.issuperset(alt) or _IUPAC.issuperset(alt):
                usable.append(i)
            elif alt == "*":
                self._skip(variant, alt, "star")
            else:
                self._skip(variant, alt, "symbolic" if _is_symbolic(alt) else "invalid")
        return usable

    def own_alts(
        self, variant: Any, alts: list[int], alleles: np.ndarray
    ) -> tuple[list[int], np.ndarray]:
        """The ALTs of a record that make a row each, and its alleles (N, 2) in terms of these.

        ``alts`` are the usable ones. Carriers of others are missing. An ALT that says again what
        REF or an ALT before it says is none of its own, but its carriers are carriers of that
        allele.
        """
        means = meanings(variant)
        own = [alt for alt in alts if means[alt + 1] == alt + 1]
        known = {0, *(alt + 1 for alt in own)}
        # The last two entries are those of -2 and -1, as numpy counts from the end.
        codes = np.array([*(m if m in known else -1 for m in means), -2, -1], np.int8)
        return own, codes[alleles]

    def skip_repeated(self, variant: Any, alts: list[int], own: list[int]) -> None:
        """Count those of ``alts`` that are not among ``own`` as repeated."""
        for alt in alts:
            if alt not in own:
                self._skip(variant, variant.ALT[alt], "repeated")

    def _skip(self, variant: Any, alt: str, reason: str) -> None:
        """Count an ALT that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        if self._list_left_out:
            self.left_out.append(LeftOut(variant.POS, variant.ID or ".", variant.REF, alt, reason))

    def genotypes(self, variant: Any, alleles: np.ndarray, phased: np.ndarray) -> int:
        """Write a record's alleles and phase flags into arrays; returns the largest allele.

        ``alleles`` has shape (N, 2), int8, and ``phased`` has shape (N,), bool, both as in
        :class:`ragimpute.io.vcf.read.genotypes.SiteBatch`.
        """
        if isinstance(variant, BcfRecord):
            if not variant.ploidy:
                raise self._no_genotypes(variant)
            most = variant.decode(alleles, phased)
            if most < -2:
                raise self._too_many(variant, -3 - most, variant.ploidy)
            self._check_allele(variant, most)
            return most
        try:
            called = genotype_array(variant)
        except Exception as error:
            raise self._no_genotypes(variant) from error
        called = self.chosen(called)
        width = called.shape[1] - 1
        if width > 2:
            sample = int(np.argmax((called[:, 2:-1] != -2).any(axis=1)))
            raise self._too_many(variant, sample, width)
        take = _take_few if len(called) <= _FEW_SAMPLES else _take_genotypes
        most = int(take(called, alleles, phased))
        self._check_allele(variant, most)
        return most

    def chosen(self, values: np.ndarray) -> np.ndarray:
        """Of a record's values, one row a sample that cyvcf2 read, those of ``samples``."""
        return values if self._columns is None else values[self._columns]

    def _no_genotypes(self, variant: Any) -> InputError:
        """The error for a record without GT."""
        return InputError(
            f"{self.path}, {variant.CHROM}:{variant.POS}: the record has no GT",
            # An expression that needs GT; bcftools 1.16 aborts at GT!="".
            hint="leave such records out: bcftools view -i 'F_MISSING>=0' "
            f"{command_word(self.path)} -Oz -o "
            + command_word(free_name(self.path, ".with_gt.vcf.gz")),
        )

    def _too_many(self, variant: Any, sample: int, ploidy: int) -> InputError:
        """The error for a genotype of more than two alleles."""
        return InputError(
            f"{self.path}, {variant.CHROM}:{variant.POS}: sample {self.samples[sample]} has "
            f"{ploidy} alleles",
            hint="ploidy 1 and 2 can be read",
        )

    def _check_allele(self, variant: Any, most: int) -> None:
        """Refuse allele numbers that int8 cannot hold; others are compared with the ALTs later."""
        if most <= MAX_ALLELE:
            return
        where, num = f"{self.path}, {variant.CHROM}:{variant.POS}", len(variant.ALT)
        if most > num:
            raise InputError(f"{where}: a sample has allele {most}, but the record has {num} ALT")
        out = command_word(free_name(self.path, ".split.vcf.gz"))
        raise InputError(
            f"{where}: a sample has allele {most} of {num} ALTs, and the largest that can "
            f"be read is {MAX_ALLELE}",
            hint="write a record for each ALT: bcftools norm -m -any "
            f"{command_word(self.path)} -Oz -o {out}",
        )

    def wrong_allele(self, variant: Any, alleles: np.ndarray) -> InputError:
        """The error for a genotype that names an ALT which the record lacks."""
        sample = self.samples[int(np.argmax(alleles.max(axis=1)))]
        return InputError(
            f"{self.path}, {variant.CHROM}:{variant.POS}: sample {sample} has allele "
            f"{int(alleles.max())}, but the record has {len(variant.ALT)} ALT"
        )


def _take_few(called: np.ndarray, alleles: np.ndarray, phased: np.ndarray) -> int:
    """The same as :func:`_take_genotypes`, faster than that is called for few samples."""
    most = -1
    for i, (first, *rest) in enumerate(called.tolist()):
        second, is_phased = rest if len(rest) == 2 else (-2, True)
        if max(first, second) > MAX_ALLELE:
            return int(_take_genotypes(called, alleles, phased))
        alleles[i, 0], alleles[i, 1] = first, second
        phased[i] = is_phased or first == second or second == -2
        most = max(most, first, second)
    return most


@kernel
def _take_genotypes(called, alleles, phased):
    """Do the work of ``RecordReader.genotypes`` for what cyvcf2 gives, shape (N, 2 or 3).

    Returns the largest allele; -1 if there is none.
    """
    most = -1
    diploid = called.shape[1] == 3
    for i in range(called.shape[0]):
        first, second = called[i, 0], np.int16(-2)
        if diploid:
            second = called[i, 1]
        alleles[i, 0] = first
        alleles[i, 1] = second
        phased[i] = not diploid or called[i, 2] != 0 or first == second or second == -2
        most = max(most, first, second)
    return most


def genotype_array(variant: Any) -> np.ndarray:
    """A record's alleles and phase flags as cyvcf2 gives them, shape (N, ploidy + 1).

    Raises
    ------
    InputError
        If its GT has no allele for any sample (a damaged BCF): cyvcf2 would crash.
    """
    genotype = variant.genotype
    if genotype is None or genotype.ploidy < 1:
        raise InputError(f"{variant.CHROM}:{variant.POS}: the record has no GT")
    out: np.ndarray = genotype.array()
    return out


def named_alts(variant: Any) -> Sequence[int]:
    """The numbers of a record's ALTs, from 0, without ``<NON_REF>`` and the like."""
    alts = variant.ALT
    if len(alts) == 1 and not alts[0].startswith("<"):
        return (0,)
    return [i for i, alt in enumerate(alts) if alt not in ANY_OTHER]


def is_reference_block(variant: Any) -> bool:
    """Whether a record of a gVCF says that its samples carry REF from POS to END."""
    alts = variant.ALT
    if alts:
        return alts[0].startswith("<") and all(alt in ANY_OTHER for alt in alts)
    longer = reference_end(variant) > variant.POS + len(variant.REF) - 1
    return longer or not _OF_REFERENCE_CALLS.isdisjoint(variant.FORMAT)


def reference_end(variant: Any) -> int:
    """The last base of a reference block: INFO/END, or the last base of REF."""
    end = variant.end
    if not isinstance(variant, BcfRecord):
        with suppress(KeyError, TypeError, ValueError):  # a text where the header declares no END
            end = max(end, int(variant.INFO.get("END")))
    return int(max(end, variant.POS + len(variant.REF) - 1))


def sites_alone(path: str | Path) -> Iterator[tuple[str, int, str, list[str]]]:
    """Contig, position, REF and ALTs of the records of a VCF or BCF, with samples or without.

    Behind symbolic ALTs stands where they end: see :func:`ragimpute.symbolic.full_name`.

    Raises
    ------
    InputError
        If the file is damaged.
    """
    _quiet_htslib()
    last = "its header"
    try:
        for variant in cyvcf2.VCF(str(path)):
            last = f"{variant.CHROM}:{variant.POS}"
            alts = variant.ALT
            if any(alt[:1] == "<" for alt in alts):
                infos = SiteInfoReader("", EXTENT_FIELDS).of(variant, range(len(alts)))
                named = zip(alts, infos, strict=True)
                alts = [full_name(variant.POS, alt, info) for alt, info in named]
            yield variant.CHROM, variant.POS, variant.REF, alts
    except Exception as error:  # cyvcf2 raises plain Exception
        raise InputError(
            f"{path} cannot be read after {last}: {error}", hint="copy the file again"
        ) from error


def _declare(file: Any, path: Path, names: Iterable[str], declared: Container[str]) -> None:
    """Declare the contigs that a file's header lacks.

    cyvcf2 crashes where a record of a contig that is not declared cannot be parsed.
    """
    for name in names:
        if name not in declared and _PLAIN_NAME.fullmatch(name):
            try:
                file.add_to_header(f"##contig=<ID={name}>")
            except Exception as error:  # htslib has no other way to say it
                raise InputError(
                    f"{path} has records on a contig named {name!r}, which is no name that a VCF "
                    "may have",
                    hint="a name begins with a letter, a digit or one of !#$%&+./:;?@^_|~-",
                ) from error


def _check_text(variant: Any) -> None:
    """Raise an error if a record's text cannot be decoded, or if cyvcf2 would crash on using it.

    It would crash on the REF of a record without alleles, such as a row that is cut short.
    """
    if not variant.ALT and str(variant).split("\t", 4)[3] == ".":
        raise ValueError("a record without REF")
    _ = variant.REF, variant.CHROM
    formats = variant.FORMAT
    # The specification wants GT to be the first field, but not all programs write it so. A cell
    # may then end before GT.
    if "GT" in formats[1:]:
        cells = str(variant).rstrip("\n").split("\t")[9:]
        place = formats.index("GT")
        if all(cell.split(":")[place:] in ([], [""], ["."]) for cell in cells):
            raise ValueError("no sample has a GT")  # asking htslib for it would end the process


def meanings(variant: Any) -> list[int]:
    """For REF and each ALT of a record, the first allele that is spelled alike."""
    spelled = [in_capitals(text) for text in (variant.REF, *variant.ALT)]
    return [spelled.index(text) for text in spelled]


def vague_alts(variant: Any, alts: list[int]) -> list[int]:
    """Those of a record's ALTs that are not of bases, such as N: they may be any of the others."""
    return [alt for alt in alts if not _BASES.issuperset(variant.ALT[alt])]


def perhaps_this(variant: Any, alt: int, vague: Sequence[int]) -> list[int]:
    """Those of the vague ALTs of a record whose carriers may carry ``alt`` as well.

    A symbolic allele is none of the others; a sequence may lie within it.
    """
    if not vague or is_symbolic(variant.ALT[alt]):
        return []
    return [other for other in vague if other != alt]


def _is_symbolic(alt: str) -> bool:
    """Whether an ALT is a name such as <DEL>, or a breakend, rather than a sequence."""
    return alt.startswith("<") or "[" in alt or "]" in alt
