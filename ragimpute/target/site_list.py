"""Which panel sites an array types, by a file of its sites: VCF, BCF, or a list in text.

Lists are read by content: PLINK's .bim, BED, tables whose first line names the columns, as
manifests of arrays do, and columns CHROM, POS and perhaps REF and ALT without names.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragimpute.commands import absence_hint
from ragimpute.contigs import same_contig
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.records import sites_alone
from ragimpute.panel.reader import Panel
from ragimpute.sites import Region, Sites
from ragimpute.symbolic import is_symbolic, split_name
from ragimpute.target.inputs import TargetOptions, take_target
from ragimpute.target.match import match_sites
from ragimpute.target.qc import TargetReport

_GZIP = b"\x1f\x8b"
_VCF = (b"##fileformat=VCF", b"BCF")
_COLUMNS_OF_SITES = 9  # of a VCF, with FORMAT
_GONE = ("not_in_panel", "allele_mismatch", "ambiguous_strand", "invalid")
_MOST_LINE = 1 << 20
_MOST_HEADER = 100  # lines among which the names of a table's columns are
# What tables call their columns, in lower case without blanks, dots and underscores.
_COLUMNS = {
    "contig": ("chrom", "chr", "chromosome", "contig", "#chrom", "#chr", "chromosomename"),
    "position": ("pos", "position", "bp", "mapinfo", "physicalposition", "chrompos",
                 "basepairposition", "positionbp"),
    "ref": ("ref", "reference", "refallele", "allelea", "a0", "allele0"),
    "alt": ("alt", "alternate", "altallele", "alleleb", "a1", "allele1"),
}  # fmt: skip
_ALLELE = re.compile(r"[ACGTNacgtn]+|[-0.*DI]|<.*>")


@dataclass(frozen=True)
class TypedSites:
    """The panel sites that an array types.

    Attributes
    ----------
    panel_index
        Shape (T,), int64, ascending, at least one.
    num_records
        Records or lines of the file on the panel's contig, in the region that was read.
    left_out
        How many of these are no panel sites, by reason.
    """

    panel_index: np.ndarray
    num_records: int
    left_out: dict[str, int]


class _Row(NamedTuple):
    """A line of a list."""

    contig: str
    position: int
    alleles: tuple[str, ...]  # REF and ALT, or none if the list does not tell them


def typed_sites(
    path: str | Path, panel: Panel, region: Region | None, *, buffer_cm: float, threads: int = 1
) -> TypedSites:
    """Find the panel sites that an array types.

    Of a VCF or BCF with samples they are those that ``impute`` finds for it as a target. In other
    files, alleles that read the same on both strands are taken to be of the panel's.

    Parameters
    ----------
    path
        The file.
    panel
        The panel.
    region, buffer_cm
        Sites to impute (None: all); beyond them, sites are read up to so many cM away.
    threads
        For decompression.

    Raises
    ------
    InputError
        If the file cannot be read, or shares no site with the panel.
    """
    if _has_samples(Path(path)):
        report = TargetReport()
        _, match = take_target(
            path, panel, region, TargetOptions(), report, buffer_cm=buffer_cm, threads=threads
        )
        left_out = {name: match.counts.get(name, 0) for name in _GONE}
        return _some(TypedSites(match.panel_index, match.num_records, left_out), path)
    found = _listed(path, panel)
    if region is not None:
        start, stop = panel.site_range(region)
        cm = panel.position_cm
        first = np.searchsorted(cm, cm[start] - buffer_cm)
        last = np.searchsorted(cm, cm[stop - 1] + buffer_cm, side="right")
        index = found.panel_index
        found = replace(found, panel_index=index[(index >= first) & (index < last)])
    return _some(found, path)


def _some(found: TypedSites, path: str | Path) -> TypedSites:
    """What was found, if it is any site.

    Raises
    ------
    InputError
        If it is none.
    """
    if len(found.panel_index):
        return found
    told = ", ".join(f"{num:,} {name.replace('_', ' ')}" for name, num in found.left_out.items())
    raise InputError(
        f"none of the {found.num_records:,} sites of {path} is a panel site ({told})",
        hint="give the sites of the panel's contig, with positions of the same build",
    )


def _is_vcf(path: Path) -> bool:
    """Whether a file is VCF or BCF, perhaps compressed."""
    return next(_pieces(path), b"").startswith(_VCF)


def _has_samples(path: Path) -> bool:
    """Whether a file is VCF or BCF with samples, or is damaged: the reader of those says how."""
    try:
        start = next(_pieces(path), b"")
        if not start.startswith(_VCF):
            return b"\0" in start or not start
        for line in _pieces(path):
            if line.startswith(b"#CHROM"):
                return len(line.strip(b"\0\r\n").split(b"\t")) > _COLUMNS_OF_SITES
    except (OSError, EOFError, zlib.error):
        pass
    return True


def _pieces(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed."""
    with path.open("rb") as plain:
        packed = plain.read(2) == _GZIP
        plain.seek(0)
        with gzip.open(plain) if packed else plain as file:
            while line := file.readline(_MOST_LINE):
                yield line


def _listed(path: str | Path, panel: Panel) -> TypedSites:
    """The panel sites of a list in text."""
    rows = list(_rows(Path(path)))
    names = dict.fromkeys(row.contig for row in rows)
    length = {panel.contig: panel.contig_length}
    name = same_contig(panel.contig, list(names), wanted_of=length)
    if name is None:
        shown = ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "")
        raise InputError(
            f"list of sites {path} has no site on the panel's contig {panel.contig}; it has "
            f"{shown or 'no line that is a site'}",
            hint=absence_hint(
                panel.contig, names,
                "give the sites of the panel's contig, by columns CHROM, POS, REF and ALT",
                file=path, wanted_of=length,
            ),
        )  # fmt: skip
    here = sorted((row for row in rows if row.contig == name), key=lambda row: row.position)
    by_position = [row.position for row in here if not row.alleles]
    at = panel.sites.position_bp
    places = np.unique(by_position).astype(np.int64)
    alone = np.flatnonzero(np.isin(at, places))
    lacking = len(by_position) - int(np.isin(by_position, at).sum())
    match = match_sites(
        _without_samples([row for row in here if row.alleles], panel.contig), panel, 0,
        panel.num_sites, palindromes="keep",
    )  # fmt: skip
    left_out = {name: match.counts.get(name, 0) for name in _GONE}
    left_out["not_in_panel"] += lacking
    index = np.union1d(match.panel_index, alone).astype(np.int64)
    return TypedSites(index, len(here), left_out)


def _without_samples(rows: Sequence[_Row], contig: str) -> Target:
    """Sites whose alleles are known, sorted by position, as a target without samples."""
    pairs = [row.alleles for row in rows]
    none = np.array(["."] * len(rows), dtype=object)
    ref, alt = (np.array([pair[i] for pair in pairs], dtype=object) for i in (0, 1))
    info = np.array([""] * len(rows), dtype=object)
    for i, name in enumerate(alt.tolist()):  # where a symbolic ALT ends stands behind it
        alt[i], extent = split_name(name)
        info[i] = extent.text()
    position = np.array([row.position for row in rows], np.int32)
    sites = Sites(contig, position, ref, alt, none, info)
    num = len(rows)
    return Target(
        [], sites, np.zeros((num, 0, 2), np.int8), np.zeros((num, 0), bool),
        np.full(num, -1, np.int32), {}, num_records=num,
    )  # fmt: skip


def _rows(path: Path) -> Iterator[_Row]:
    """The sites of a list, whatever its form.

    Raises
    ------
    InputError
        If a line is no site; it names the line.
    """
    if _is_vcf(path):
        for contig, position, ref, alts in sites_alone(path):
            yield from (_Row(contig, position, _two([ref, alt])) for alt in alts)
        return
    header, columns = _header_of(path)
    form: str | None = None
    for number, line in _lines(path):
        cells = _cells(line)
        if columns is not None:
            if number > header and len(cells) > max(columns.values()):
                row = _of_table(cells, columns)
                if row is not None:
                    yield row
            continue
        if line.startswith(("#", "track ", "browser ")):
            continue
        form = form or _form_of(cells)
        row = None if form is None else _of_form(form, cells)
        if row is None:
            raise InputError(
                f"line {number} of {path} is no site: {line[:60]!r}",
                hint="give a VCF or BCF, a .bim or BED, or columns CHROM, POS, REF and ALT",
            )
        yield row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text that are not empty, with their numbers from 1 on.

    Raises
    ------
    InputError
        If the file is no text, or cut off.
    """
    number = 0
    try:
        for number, octets in enumerate(_pieces(path), 1):
            line = octets.decode("utf-8-sig").rstrip("\r\n")
            if line.strip():
                yield number, line
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is neither VCF, BCF nor a list of sites in text (line {number})",
            hint="give a VCF or BCF, or columns CHROM, POS, REF and ALT",
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"list of sites {path} cannot be read after line {number}: {error}",
            hint="copy the file again",
        ) from error


def _header_of(path: Path) -> tuple[int, dict[str, int] | None]:
    """The line that names the columns of a table, and where they are; None: there is none.

    Manifests of arrays have other lines before it.
    """
    for number, line in _lines(path):
        if number > _MOST_HEADER:
            break
        columns = _columns_of(_cells(line))
        if columns is not None:
            return number, columns
    return 0, None


def _cells(line: str) -> list[str]:
    """The cells of a line, at tabs, commas or blanks."""
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    if "," in line:
        return [cell.strip() for cell in line.split(",")]
    return line.split()


def _columns_of(cells: Sequence[str]) -> dict[str, int] | None:
    """Where columns are, if a line names them; else None."""
    plain = [re.sub(r"[\s._]", "", cell).lower() for cell in cells]
    found = {
        kind: next((plain.index(name) for name in names if name in plain), -1)
        for kind, names in _COLUMNS.items()
    }
    if found["contig"] < 0 or found["position"] < 0:
        return None
    return {kind: place for kind, place in found.items() if place >= 0}


def _of_table(cells: Sequence[str], columns: dict[str, int]) -> _Row | None:
    """The site of a line of a table; None if it has no position, as some of a manifest have."""
    position = cells[columns["position"]]
    if not position.isdigit():
        return None
    alleles: list[str] = []
    if "ref" in columns and "alt" in columns:
        alleles = [cells[columns["ref"]], cells[columns["alt"]]]
    return _Row(cells[columns["contig"]], int(position), _two(alleles))


def _form_of(cells: Sequence[str]) -> str | None:
    """The form of a list without names of columns, by its first line; None: not known."""
    for form in ("bim", "alleles", "bed", "positions", "one"):
        if _of_form(form, cells) is not None:
            return form
    return None


def _of_form(form: str, cells: Sequence[str]) -> _Row | None:
    """The site of a line, or None if it is not of the form."""
    if form == "one":
        parts = re.split(r"[:_]", cells[0]) if len(cells) == 1 else []
        if len(parts) not in (2, 4) or not parts[1].isdigit():
            return None
        return _Row(parts[0], int(parts[1]), _two(parts[2:]))
    if form == "bim":
        if len(cells) != 6 or not cells[3].isdigit() or not _is_number(cells[2]):
            return None
        if not all(_ALLELE.fullmatch(cell) for cell in cells[4:]):
            return None
        return _Row(cells[0], int(cells[3]), _two(cells[4:]))
    if len(cells) < 2 or not cells[1].isdigit():
        return None
    if form == "bed":
        if len(cells) < 3 or not cells[2].isdigit() or int(cells[2]) <= int(cells[1]):
            return None
        return _Row(cells[0], int(cells[2]), ())
    if form == "alleles":
        # CHROM POS REF ALT, or CHROM POS ID REF ALT as a VCF has them.
        for pair in (cells[2:4], cells[3:5]):
            if len(pair) == 2 and all(_ALLELE.fullmatch(cell) for cell in pair):
                return _Row(cells[0], int(cells[1]), _two(pair))
        return None
    return _Row(cells[0], int(cells[1]), ())


def _is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _two(alleles: Sequence[str]) -> tuple[str, ...]:
    """Two alleles in capitals; none if they are not two that name their bases or are symbolic."""
    if is_symbolic(split_name(alleles[1])[0]):
        return alleles[0].upper(), alleles[1]
    upper = tuple(allele.upper() for allele in alleles)
    named = len(set(upper)) == 2 and all(allele and set(allele) <= set("ACGT") for allele in upper)
    return upper if named else ()
