"""Read panels of Minimac as text: M3VCF and MVCF, blocks of sites with their distinct haplotypes.

A block begins with a row that says, for each panel haplotype, which of the block's distinct
haplotypes it is; a row for each site follows, with the alleles of the distinct haplotypes. The last
site of a block may be given again as the first of the next one. The forms differ in how the alleles
are written:

- M3VCF 1 (Minimac3): a text of 0 and 1; a column for each haplotype.
- M3VCF 2 (m3vcftools): the same text, or the numbers of the haplotypes with ALT, each but the first
  as the distance from the one before, "-" if there is none; a column for each sample.
- MVCF 3 (Minimac4's .msav, as ``sav export`` writes it): a list of 0 and 1 in INFO/UHA; the block's
  numbers are in FORMAT/UHM.

References
----------
https://genome.sph.umich.edu/wiki/M3VCF_Files; Das et al. 2016. Files of m3vcftools and of
``sav export`` 2.2.
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
from ragimpute.io.foreign import M3VCF, MVCF
from ragimpute.io.vcf.header import choose_among
from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.io.vcf.read.records import site_table
from ragimpute.sites import Region

_BATCH_SITES = 4096
_COPY = "copy or make the file again"
_NUM_FIXED = 9  # columns before those of the haplotypes
_NUM_START = 4096  # bytes that say what a file is; bcftools moves the line of MVCF down a little


def is_m3vcf(path: str | Path) -> bool:
    """Whether a file begins as an M3VCF or MVCF, compressed or not; False if it cannot be read."""
    try:
        with Path(path).open("rb") as raw:
            start = raw.read(_NUM_START)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path, "rb") as file:
                start = file.read(_NUM_START)
    except (OSError, EOFError, zlib.error):
        return False
    lines = start.splitlines()
    return start.startswith(M3VCF) or (
        start[:2] == b"##" and any(line.startswith(MVCF) for line in lines)
    )


class M3vcfStream:
    """An M3VCF, read in batches of a few thousand sites.

    Parameters
    ----------
    path
        An M3VCF or MVCF, plain or compressed by gzip.
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
        names, first = self._look_through()
        header = self._header
        self.samples, self._slots = header.samples, header.slots
        if not header.by_haplotype and first is not None:
            self._slots = _slots_of(first, len(header.samples))
        self._num_markers = header.num_markers
        chosen = choose_among(self.path, list(names), region, dict.fromkeys(names))
        self.contig = chosen.contig
        if region is not None:
            self._region = chosen

    def _look_through(self) -> tuple[dict[str, None], list[str] | None]:
        """Read the header and how alleles are written; give the contigs and the first row."""
        names: dict[str, None] = {}
        first: list[str] | None = None
        num_reps, self._by_distance = 0, False
        with self._reading() as file:
            self._header = _read_header(self.path, file)
            is_doubtful = self._header.form == 2
            for line in file:
                if not line.strip():
                    continue
                names[line.split("\t", 1)[0]] = None
                if first is not None and (not is_doubtful or self._by_distance):
                    continue
                cells = line.rstrip("\r\n").split("\t")
                first = first or cells
                if "<BLOCK" in (cells + [""] * 3)[2]:
                    found = re.search(r"REPS=(\d+)", (cells + [""] * 8)[7])
                    num_reps = int(found[1]) if found else 0
                else:
                    self._by_distance = is_doubtful and _is_by_distance(cells, num_reps)
        return names, first

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
        wide = cells + [""] * _NUM_FIXED
        names = ("VARIANTS", "REPS")
        sizes = [re.search(rf"(?:^|;){name}=(\d+)(?:;|$)", wide[7]) for name in names]
        if "<BLOCK" not in wide[2 if self._header.form < 3 else 4] or None in sizes:
            raise self._malformed(number, "the row of a block, with VARIANTS and REPS in INFO")
        num_sites, num_reps = (int(size[1]) for size in sizes if size is not None)
        text = [part for cell in cells[_NUM_FIXED:] for part in _numbers_of(cell)]
        try:
            template = np.array(text, dtype=np.int64)
        except (ValueError, OverflowError):
            raise self._malformed(number, "numbers of distinct haplotypes") from None
        num_haplotypes = int(self._slots.sum())
        if len(template) != num_haplotypes:
            raise self._malformed(number, f"{num_haplotypes} haplotypes, found {len(template)}")
        if ((template < 0) | (template >= num_reps)).any():
            raise self._malformed(number, f"numbers of haplotypes below REPS={num_reps}")
        counts = [len(_numbers_of(cell)) for cell in cells[_NUM_FIXED:]]
        if not self._header.by_haplotype and counts != self._slots.sum(axis=1).tolist():
            raise self._malformed(number, "as many haplotypes of each sample as in the first block")
        return _Block(cells[0], template, num_reps, num_sites)

    def _add_site(self, block: _Block, cells: list[str], number: int) -> None:
        """Add a row to a block."""
        num_cells = _NUM_FIXED if self._header.form < 3 else _NUM_FIXED - 1
        if len(cells) < num_cells or not cells[1].isdigit() or cells[0] != block.contig:
            raise self._malformed(number, "the row of a site within a block")
        alleles = self._alleles_of(cells, block.num_reps)
        if alleles is None:
            how = "by their numbers" if self._by_distance else "as 0 and 1"
            what = f"the alleles of {block.num_reps} distinct haplotypes {how}"
            raise self._malformed(number, what)
        if not 0 < int(cells[1]) < 2**31:
            raise self._malformed(number, "a position below 2,147,483,648")
        block.position.append(int(cells[1]))
        block.ref.append(cells[3])
        block.alt.append(cells[4])
        block.id.append(cells[2] or ".")
        block.texts.append(alleles)

    def _alleles_of(self, cells: list[str], num_reps: int) -> str | None:
        """The alleles of a site's distinct haplotypes as a text of 0 and 1; None: malformed."""
        if self._by_distance:
            return _text_of_distances(cells[_NUM_FIXED - 1], num_reps)
        text = cells[_NUM_FIXED - 1] if self._header.form < 3 else ""
        if self._header.form == 3:
            found = re.search(r"(?:^|;)UHA=([^;]*)", cells[_NUM_FIXED - 2])
            listed = found[1].split(",") if found else []
            text = "".join(listed) if all(len(allele) == 1 for allele in listed) else ""
        return None if len(text) != num_reps or set(text) - set("01") else text

    def _malformed(self, number: int, expected: str) -> InputError:
        """The error for a row that is not as it should be."""
        return InputError(
            f"{self.path}, line {number}: expected {expected}",
            hint="M3VCF 1 and 2 and MVCF are read; prepare the VCF that it was made from",
        )


@dataclass
class _Header:
    """What the header of an M3VCF says.

    ``form`` is its version, 3 for MVCF. ``slots`` has shape (N, 2), bool: a haploid has one; where
    the columns are of samples (not ``by_haplotype``), the first block tells.
    """

    form: int
    by_haplotype: bool
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


def _form_of(line: str) -> int:
    """The version that a line of the header speaks of: 1, 2 or, of MVCF, 3."""
    if line.encode().startswith(MVCF):
        return 3
    return 2 if line.startswith("##fileformat=M3VCFv2") else 1


def _numbers_of(cell: str) -> list[str]:
    """A cell of a block's row: the numbers of a sample's distinct haplotypes; one of a haploid."""
    numbers = re.split(r"[|,]", cell)
    return numbers[:-1] if numbers[1:] and numbers[-1] == "." else numbers


def _slots_of(cells: list[str], num_samples: int) -> np.ndarray:
    """Which alleles are haplotypes, shape (N, 2), bool, by the row of a block."""
    slots = np.ones((num_samples, 2), dtype=bool)
    counts = [len(_numbers_of(cell)) for cell in cells[_NUM_FIXED:]]
    if len(counts) == num_samples:
        slots[:, 1] = np.array(counts) > 1
    return slots


def _is_by_distance(cells: list[str], num_reps: int) -> bool:
    """Whether a site's row lists haplotypes with ALT: it is no text of ``num_reps`` 0 and 1."""
    last = cells[-1]
    return bool(set(last) - set("01")) or len(last) != num_reps


def _text_of_distances(cell: str, num_reps: int) -> str | None:
    """0 and 1 for each distinct haplotype, of the distances between those with ALT; None: wrong."""
    text = np.full(num_reps, ord("0"), np.uint8)
    if cell != "-":
        steps = cell.split(",")
        if not all(step.isascii() and step.isdigit() and len(step) < 10 for step in steps):
            return None
        at = np.cumsum([int(step) for step in steps])
        if at[-1] >= num_reps or (np.diff(at) == 0).any():
            return None
        text[at] = ord("1")
    return text.tobytes().decode("ascii")


def _read_header(path: Path, file: TextIO) -> _Header:
    """Read the lines up to the names of the columns.

    Raises
    ------
    InputError
        If there are no names, or no samples among them.
    """
    declared: dict[str, str] = {}
    form = 1
    for number, line in enumerate(file, start=1):
        text = line.rstrip("\r\n")
        if text.startswith("##"):
            name, _, value = text[2:].partition("=")
            declared[name] = value
            form = max(form, _form_of(text))
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
    by_haplotype = form == 1 and all(re.search(r"_HAP_[12]$", name) for name in given)
    if form == 1 and not by_haplotype and any(re.search(r"_HAP_[12]$", name) for name in given):
        raise InputError(
            f"{path}: some columns are haplotypes, whose names end with _HAP_1 or _HAP_2, and some "
            "are samples",
            hint=_COPY,
        )
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
    return _Header(
        form, by_haplotype, samples, slots, int(markers) if markers.isdigit() else 0, number
    )
