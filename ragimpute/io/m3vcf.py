"""Read panels of Minimac3: M3VCF, a text format of blocks of sites with their distinct haplotypes.

A block begins with a row that says, for each panel haplotype, which of the block's distinct
haplotypes it is; a row for each site follows, with the alleles of the distinct haplotypes as a text
of 0 and 1. The last site of a block is given again as the first of the next one.

References
----------
https://genome.sph.umich.edu/wiki/M3VCF_Files; Das et al. 2016.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.counts import RecordCounts
from ragimpute.io.foreign import M3VCF
from ragimpute.io.vcf.header import choose_among
from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.io.vcf.read.records import site_table
from ragimpute.sites import Region

_BATCH_SITES = 4096
_COPY = "copy or make the file again"
_NUM_FIXED = 9  # columns before those of the haplotypes


def is_m3vcf(path: str | Path) -> bool:
    """Whether a file begins as an M3VCF, compressed or not; False if it cannot be read."""
    try:
        with Path(path).open("rb") as raw:
            start = raw.read(len(M3VCF))
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path, "rb") as file:
                start = file.read(len(M3VCF))
    except (OSError, EOFError, zlib.error):
        return False
    return start == M3VCF


class M3vcfStream:
    """An M3VCF, read in batches of a few thousand sites.

    Parameters
    ----------
    path
        An M3VCF, plain or compressed by gzip.
    region
        What to read; needed where the file holds several contigs. None: all.

    Attributes
    ----------
    path, contig
        The file, and the contig that is read, as the file spells it.
    samples
        Names: those of the columns without ``_HAP_1`` and ``_HAP_2``.
    counts
        Sites so far, and those without an ALT, which were left out.
    notes
        What a user should know of the file, one line each, after it was read.

    Raises
    ------
    InputError
        If the file cannot be read, is malformed or of an unknown version, or holds no site there.
    """

    def __init__(self, path: str | Path, *, region: Region | None = None) -> None:
        self.path, self._region = Path(path), region
        self.counts = RecordCounts()
        self.notes: list[str] = []
        with self._reading() as file:
            header = _read_header(self.path, file)
            names = dict.fromkeys(line.split("\t", 1)[0] for line in file if line.strip())
        self.samples, self._slots = header.samples, header.slots
        self._num_markers = header.num_markers
        chosen = choose_among(self.path, list(names), region, dict.fromkeys(names))
        self.contig = chosen.contig
        if region is not None:
            self._region = chosen

    @contextmanager
    def _reading(self) -> Iterator[TextIO]:
        """The file's text; whatever is wrong with its bytes is one clear line."""
        try:
            with self.path.open("rb") as raw:
                is_gzip = raw.read(2) == b"\x1f\x8b"
            opened = gzip.open if is_gzip else open
            with opened(self.path, "rt", encoding="utf-8") as file:
                yield file
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is not text", hint=_COPY) from error
        except EOFError as error:
            raise InputError(f"{self.path} is truncated", hint=_COPY) from error
        except (OSError, zlib.error) as error:
            raise InputError(f"{self.path} cannot be read: {error}", hint=_COPY) from error

    def __iter__(self) -> Iterator[SiteBatch]:
        """Batches from the first site on, each time that it is called.

        Raises
        ------
        InputError
            If a row is malformed or the file ends within a block.
        """
        self.counts, self.notes = RecordCounts(), []
        rows, num_sites = _Rows(self.contig), 0
        for block in self._blocks():
            num_sites += len(block.position)
            self._take(block, rows)
            if len(rows.position) >= _BATCH_SITES:
                yield rows.batch(len(self.samples))
                rows = _Rows(self.contig)
        if rows.position:
            yield rows.batch(len(self.samples))
        if num_sites < self._num_markers and self._region is None:
            self.notes.append(
                f"{self.path} declares {self._num_markers:,} sites and holds {num_sites:,}: it is "
                "a part, or truncated"
            )

    def _take(self, block: _Block, rows: _Rows) -> None:
        """Add a block's sites in the region, with the alleles of all samples."""
        region = self._region
        alleles = block.alleles()  # (sites, R)
        for i, position in enumerate(block.position):
            if region is not None and not region.start_bp <= position < region.stop_bp:
                continue
            self.counts.num_records += 1
            if block.alt[i] == ".":
                self.counts.skip("no_alt")
                continue
            row = np.full((len(self.samples), 2), -2, np.int8)
            row[self._slots] = alleles[i][block.template]
            rows.add(position, block.ref[i], block.alt[i], block.id[i], row)

    def _blocks(self) -> Iterator[_Block]:
        """The blocks of the contig, without the sites that repeat the end of the one before."""
        with self._reading() as file:
            number = _read_header(self.path, file).num_lines
            block: _Block | None = None
            last: tuple[int, str, str] | None = None
            for line in file:
                number += 1
                cells = line.rstrip("\r\n").split("\t")
                if cells == [""]:
                    continue
                if block is None:
                    block = self._begin(cells, number)
                else:
                    self._add_site(block, cells, number)
                if block.num_left == 0:
                    if block.contig == self.contig:
                        block.drop_first_if(last)
                        last = block.last or last
                        yield block
                    block = None
            if block is not None:
                raise InputError(
                    f"{self.path} is truncated: it ends within a block, {block.num_left} sites "
                    "before its end",
                    hint=_COPY,
                )

    def _begin(self, cells: list[str], number: int) -> _Block:
        """The block that a row begins."""
        found = re.search(r"(?:^|;)VARIANTS=(\d+);REPS=(\d+)(?:;|$)", (cells + [""] * 8)[7])
        if "<BLOCK" not in (cells + [""] * 3)[2] or not found:
            raise self._malformed(number, "the row of a block, with VARIANTS and REPS in INFO")
        text = [part for cell in cells[_NUM_FIXED:] for part in cell.split("|")]
        num_reps = int(found[2])
        try:
            template = np.array(text, dtype=np.int64)
        except (ValueError, OverflowError):
            raise self._malformed(number, "numbers of distinct haplotypes") from None
        num_haplotypes = int(self._slots.sum())
        if len(template) != num_haplotypes:
            raise self._malformed(number, f"{num_haplotypes} haplotypes, found {len(template)}")
        if ((template < 0) | (template >= num_reps)).any():
            raise self._malformed(number, f"numbers of haplotypes below REPS={num_reps}")
        return _Block(cells[0], template, num_reps, int(found[1]))

    def _add_site(self, block: _Block, cells: list[str], number: int) -> None:
        """Add a row to a block."""
        if len(cells) < _NUM_FIXED or not cells[1].isdigit() or cells[0] != block.contig:
            raise self._malformed(number, "the row of a site within a block")
        alleles = cells[_NUM_FIXED - 1]
        if len(alleles) != block.num_reps or set(alleles) - set("01"):
            raise self._malformed(
                number, f"the alleles of {block.num_reps} distinct haplotypes as 0 and 1"
            )
        if not 0 < int(cells[1]) < 2**31:
            raise self._malformed(number, "a position below 2,147,483,648")
        block.position.append(int(cells[1]))
        block.ref.append(cells[3])
        block.alt.append(cells[4])
        block.id.append(cells[2] or ".")
        block.texts.append(alleles)

    def _malformed(self, number: int, expected: str) -> InputError:
        """The error for a row that is not as it should be."""
        return InputError(
            f"{self.path}, line {number}: expected {expected}",
            hint="M3VCF of Minimac3 (version 1) is read; prepare the VCF that it was made from",
        )


@dataclass
class _Header:
    """What the header of an M3VCF says; ``slots`` has shape (N, 2), bool: a haploid has one."""

    samples: list[str]
    slots: np.ndarray
    num_markers: int
    num_lines: int


@dataclass
class _Block:
    """Sites of one block, and for each of the H haplotypes its number among the distinct ones."""

    contig: str
    template: np.ndarray
    num_reps: int
    num_sites: int
    position: list[int] = field(default_factory=list)
    ref: list[str] = field(default_factory=list)
    alt: list[str] = field(default_factory=list)
    id: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def num_left(self) -> int:
        """Sites that are still to be read."""
        return self.num_sites - len(self.texts)

    @property
    def last(self) -> tuple[int, str, str] | None:
        """The last site."""
        return (self.position[-1], self.ref[-1], self.alt[-1]) if self.position else None

    def drop_first_if(self, site: tuple[int, str, str] | None) -> None:
        """Drop the first site if it is this one."""
        if self.position and (self.position[0], self.ref[0], self.alt[0]) == site:
            for column in (self.position, self.ref, self.alt, self.id, self.texts):
                del column[0]

    def alleles(self) -> np.ndarray:
        """Alleles of the distinct haplotypes, shape (sites, R), int8."""
        raw = np.frombuffer("".join(self.texts).encode("ascii"), np.uint8)
        return (raw - ord("0")).astype(np.int8).reshape(len(self.texts), self.num_reps)


class _Rows:
    """Sites of a batch."""

    def __init__(self, contig: str) -> None:
        self.contig = contig
        self.position: list[int] = []
        self.columns: tuple[list[str], list[str], list[str]] = ([], [], [])
        self.alleles: list[np.ndarray] = []

    def add(self, position: int, ref: str, alt: str, name: str, alleles: np.ndarray) -> None:
        """Add a site; alleles of shape (N, 2)."""
        self.position.append(position)
        for column, value in zip(self.columns, (ref, alt, name), strict=True):
            column.append(value)
        self.alleles.append(alleles)

    def batch(self, num_samples: int) -> SiteBatch:
        """The sites so far; all are phased."""
        alleles = np.stack(self.alleles)
        sites = site_table(self.contig, self.position, *self.columns)
        return SiteBatch(sites, alleles, np.ones((len(alleles), num_samples), dtype=bool))


def _read_header(path: Path, file: TextIO) -> _Header:
    """Read the lines up to the names of the columns.

    Raises
    ------
    InputError
        If there are no names, or no samples among them.
    """
    declared: dict[str, str] = {}
    for number, line in enumerate(file, start=1):
        text = line.rstrip("\r\n")
        if text.startswith("##"):
            name, _, value = text[2:].partition("=")
            declared[name] = value
        elif text.startswith("#CHROM"):
            columns = text.split("\t")[_NUM_FIXED:]
            break
        else:
            raise InputError(f"{path}, line {number}: expected a header line", hint=_COPY)
    else:
        raise InputError(f"{path} is truncated: it ends within its header", hint=_COPY)
    given = [name for name in columns if name]
    known = set(given)
    if not given:
        raise InputError(f"{path} has no samples", hint="a panel needs haplotypes")
    by_haplotype = all(re.search(r"_HAP_[12]$", name) for name in given)
    samples = list(
        dict.fromkeys(re.sub(r"_HAP_[12]$", "", n) if by_haplotype else n for n in given)
    )
    slots = np.ones((len(samples), 2), dtype=bool)
    if by_haplotype:
        expected = [f"{n}_HAP_{i}" for n in samples for i in (1, 2) if f"{n}_HAP_{i}" in known]
        if expected != given:
            raise InputError(
                f"{path}: the columns of a sample's haplotypes are not beside each other, or twice",
                hint=_COPY,
            )
        slots[:, 1] = [f"{name}_HAP_2" in known for name in samples]
        if not all(f"{name}_HAP_1" in known for name in samples):
            raise InputError(f"{path}: a sample has a column _HAP_2 and no _HAP_1", hint=_COPY)
    elif len(samples) < len(given):
        raise InputError(f"{path} names a sample twice", hint=_COPY)
    markers = declared.get("n_markers", "")
    return _Header(samples, slots, int(markers) if markers.isdigit() else 0, number)
