"""Lists of sites: scores of the PGS Catalog, tables, manifests, VCF, BCF, .bim, .pvar and BED.

``impute --sites-file`` writes the sites of such a list, and ``index --typed-sites`` takes them for
those of an array; a list means the same to both.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from ragimpute.commands import command_word
from ragimpute.errors import InputError
from ragimpute.io.raw_text.vendor import build_of
from ragimpute.io.vcf.read.records import sites_alone
from ragimpute.sites import MAX_BP
from ragimpute.symbolic import full_names

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_FORMS = (
    "one site a line, as CHROM POS, CHROM POS REF ALT, CHROM:POS:REF:ALT or an rsID; a .bim or "
    "BED; a VCF or BCF; an array's manifest; or a scoring file of the PGS Catalog"
)
# Names of columns in small letters without blanks, dots and underscores, those of the PGS Catalog
# first; harmonised positions are apart.
_NAMES = {
    "contig": ("chrname", "chrom", "chr", "chromosome", "contig", "chromosomename"),
    "position": ("chrposition", "pos", "position", "bp", "basepairlocation", "mapinfo",
                 "physicalposition", "chrompos", "basepairposition", "positionbp"),
    "hm_contig": ("hmchr",),
    "hm_position": ("hmpos",),
    "effect": ("effectallele", "ea", "a1", "alleleb", "allele1"),
    "other": ("otherallele", "referenceallele", "oa", "nea", "a2", "a0", "allelea", "allele0"),
    "inferred": ("hminferotherallele",),
    "ref": ("ref", "reference", "refallele"),
    "alt": ("alt", "alternate", "altallele"),
    "id": ("rsid", "dbsnprsid", "id", "variantid", "sid", "name", "snp"),
    "hm_id": ("hmrsid",),
    "weight": ("effectweight", "weight", "beta"),
    "info": ("info",),
}  # fmt: skip
_BLANKS = re.compile(r"[\s._]")
_MOST_BEFORE = 100  # lines, other than comments, before the names of columns, as in manifests
_START_BYTES = 4096
_NOT_SAID = frozenset(("", ".", "na", "nan", "nr", "none", "0"))
_WHOLE = re.compile(r"[0-9]+")
_ALLELE = (
    r"[A-Za-z*]+|<[^<>\s,]+>(?::(?:END|SVLEN)=[0-9]+)*"
    r"|[A-Za-z.]*[\[\]][^\s,\[\]]+[\[\]][A-Za-z.]*"
)
_ALLELES = re.compile(rf"(?:{_ALLELE})(?:,(?:{_ALLELE}))*")
_VAGUE = ("-", "0", ".")  # an allele that is not told
_SITE_NAME = re.compile(
    rf"([^\s:]+):([0-9]+)(?::([A-Za-z]+):({_ALLELE}))?"
    r"|([^\s:]+)_([0-9]+)_([A-Za-z]+)_([A-Za-z]+)"
)
_ID = re.compile(r"(rs|ss|esv|nsv)\d+", re.IGNORECASE)
_LONGEST_INDEL = 50  # bp of a BED's line; what is longer is a stretch, not a site


@dataclass(frozen=True)
class Places:
    """Where the sites of a list are, in one genome build.

    Attributes
    ----------
    build
        Such as "GRCh37", as the list says; None if it does not.
    contig, position_bp
        Of each row, as the list spells it, "" if unknown; shape (R,), int64, 0 if unknown.
    """

    build: str | None
    contig: list[str]
    position_bp: np.ndarray


@dataclass(frozen=True)
class SiteList:
    """Sites that a user names, in the order of the file; each list has one entry a row, R of them.

    Attributes
    ----------
    path, kind
        The file, and what it is, in words.
    places
        Where the sites are: of a harmonised score, in its own build too, which then comes last.
    effect, other
        The allele that is counted and the other one, in capitals; "" where none is named. Of a
        table with REF and ALT, ALT is counted. Behind a symbolic ALT may stand where it ends:
        ``<DEL>:END=1200``.
    id, weight
        rsID or name, and weight as written; "" where there is none.
    line
        Number of the line in the file, from 1; of a BCF, of the record.
    """

    path: Path
    kind: str
    places: Sequence[Places]
    effect: list[str]
    other: list[str]
    id: list[str]
    weight: list[str]
    line: list[int]

    def __len__(self) -> int:
        return len(self.line)


def _spelled(allele: str) -> str:
    """A sequence in capitals; the names of symbolic alleles and breakends as they are."""
    return allele.upper() if allele.isalpha() else allele


class _Rows:
    """Rows of a list on the way to becoming a :class:`SiteList`."""

    def __init__(self) -> None:
        self.contig: list[str] = []
        self.position: list[int] = []
        self.own_contig: list[str] = []
        self.own_position: list[int] = []
        self.effect: list[str] = []
        self.other: list[str] = []
        self.id: list[str] = []
        self.weight: list[str] = []
        self.line: list[int] = []

    def add(
        self, line: int, contig: str, position: int, effect: str = "", other: str = "",
        name: str = "", weight: str = "",
    ) -> None:  # fmt: skip
        """Take up a row; ``effect`` may name several alleles, each of which is a site."""
        for one in effect.split(","):
            self.line.append(line)
            self.contig.append(contig)
            self.position.append(position)
            self.effect.append(sys.intern(_spelled(one)))
            self.other.append(sys.intern(_spelled(other)))
            self.id.append("" if name == "." else name)
            self.weight.append(weight)

    def finish(self, path: Path, kind: str, build: str | None, own: str | None = None) -> SiteList:
        """The list, whose rows also have positions of their ``own`` build if these were added."""
        if not self.line:
            raise InputError(f"{path} names no site", hint=f"write {_FORMS}")
        places = [Places(build, self.contig, np.array(self.position, np.int64))]
        if self.own_position:
            places.append(Places(own, self.own_contig, np.array(self.own_position, np.int64)))
        return SiteList(
            path, kind, places, self.effect, self.other, self.id, self.weight, self.line
        )


def read_site_list(path: str | Path) -> SiteList:
    """Read a list of sites, whose form its content tells; it may be gzipped.

    Parameters
    ----------
    path
        A scoring file of the PGS Catalog, harmonised or not; a table with names of columns, as
        manifests of arrays have, or of CHROM POS [REF ALT], CHROM POS ID [REF ALT], CHROM POS
        REF,ALT, CHROM:POS[:REF:ALT], CHROM_POS_REF_ALT or rsIDs; a .bim or .pvar; a BED, whose
        lines of one base are sites, and longer or empty ones are indels after the base before them;
        a table of PRS-CS (CHROM, ID, POS, A1, A2, weight); or a VCF or BCF, whose genotypes are not
        read.

    Raises
    ------
    InputError
        If it cannot be read, is none of these, or names no site.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(4)
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if packed.startswith(_GZIP) else raw
            if packed.startswith(_ZSTD):
                raise InputError(
                    f"{path} is compressed by zstd, which a list of sites may not be",
                    hint=f"decompress it: zstd -d {command_word(path)}",
                )
            start = file.read(_START_BYTES)
            if start.startswith(b"BCF"):
                return _of_bcf(path)
            if b"\0" in start:
                raise InputError(
                    f"{path} is no list of sites: it is no text", hint=f"give {_FORMS}"
                )
            file.seek(0)
            return _of_text(path, io.TextIOWrapper(file, "utf-8-sig", errors="replace"))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged: {error}", hint="copy the file again") from error
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{path} cannot be read: {why}", hint="check its name") from error


def _of_text(path: Path, file: Iterable[str]) -> SiteList:
    """A list that is a text."""
    lines = ((i, line) for i, line in enumerate(file, start=1) if line.strip())
    said: list[str] = []
    before: list[tuple[int, str]] = []
    for number, line in lines:
        names = _cells(line.lstrip("#"))
        if _names_a_site(names):
            return _of_table(path, said, names, lines)
        if line.startswith("#"):
            said.append(line)
            continue
        before.append((number, line))
        is_site = not line.startswith(("track ", "browser ")) and _site(path, number, names)
        if is_site or len(before) > _MOST_BEFORE:
            return _of_rows(path, chain(before, lines))
    if before:
        return _of_rows(path, before)
    raise InputError(f"{path} names no site", hint=f"write {_FORMS}")


def _cells(line: str) -> list[str]:
    """The cells of a line, without quotes, separated by tabs, or else by blanks or commas."""
    line = line.rstrip("\r\n")
    if "\t" in line:
        return [cell.strip(' "') for cell in line.split("\t")]
    cells = line.split()
    if line.startswith('"') or (cells and "," in cells[0]):
        return [cell.strip() for cell in next(csv.reader([line], skipinitialspace=True))]
    return cells


def _plain(name: str) -> str:
    """The name of a column as ``_NAMES`` has it."""
    return _BLANKS.sub("", name).lower()


def _names_a_site(names: list[str]) -> bool:
    """Whether cells are names of columns."""
    low = {_plain(name) for name in names}
    where = [low & set(_NAMES[key]) for key in ("contig", "position")]
    by_name = low & {"rsid", "snp"} and low & set(_NAMES["effect"])
    return bool(all(where) or by_name or {"hmchr", "hmpos"} <= low or "effectallele" in low)


def _of_table(
    path: Path, said: list[str], head: list[str], rows: Iterable[tuple[int, str]]
) -> SiteList:
    """A table whose columns have names."""
    low = [_plain(name) for name in head]
    at = {
        key: next((low.index(name) for name in names if name in low), -1)
        for key, names in _NAMES.items()
    }
    if at["ref"] >= 0 and at["alt"] >= 0:
        at["effect"], at["other"] = at["alt"], at["ref"]
    harmonised = at["hm_contig"] >= 0 and at["hm_position"] >= 0
    found = _Rows()
    last = max(at.values()) + 1
    both = harmonised and at["contig"] >= 0 and at["position"] >= 0
    for number, line in rows:
        if line.startswith("#"):
            continue
        if line.startswith("["):  # the next part of a manifest
            break
        row = line.rstrip("\r\n").split("\t", last) if "\t" in line else _cells(line)
        row = row[:last] + [""] * (last + 1 - len(row[:last]))  # row[-1] is of columns that lack
        written = row[at["contig"]], row[at["position"]]
        if harmonised:
            place = _place(path, number, row[at["hm_contig"]], row[at["hm_position"]])
            own = _place(None, number, *written)
        else:
            place = own = _place(path, number, *written)
        effect, other = row[at["effect"]].strip(), row[at["other"]].strip()
        if "<" in effect:  # where it ends is in INFO
            effect = ",".join(full_names(place[1], effect.split(","), row[at["info"]]))
        if not other:
            other = row[at["inferred"]].strip()
            other = "" if "/" in other else other
        if effect.lower() in _NOT_SAID:
            effect = other = ""
        if other.lower() in _NOT_SAID:
            other = ""
        before = len(found.line)
        name = row[at["id"]].strip() or row[at["hm_id"]].strip()
        found.add(number, *place, effect, other, name, row[at["weight"]].strip())
        if both:
            found.own_contig += [own[0]] * (len(found.line) - before)
            found.own_position += [own[1]] * (len(found.line) - before)
    builds = {
        key: next((build_of(x) for x in said if x.lstrip("#").lower().startswith(key)), None)
        for key in ("hmpos_build", "genome_build")
    }
    kind = "VCF" if any(x.startswith("##fileformat=VCF") for x in said) else "table of sites"
    if "effectallele" in low:
        kind = "score"
    build = builds["hmpos_build"] if harmonised else builds["genome_build"]
    return found.finish(path, kind, build, builds["genome_build"])


def _place(path: Path | None, number: int, contig: str, position: str) -> tuple[str, int]:
    """Contig and position of a row; ("", 0) if it has no position.

    Without ``path`` a wrong position is none: of columns that perhaps nobody uses.
    """
    contig = sys.intern(contig.strip())
    if contig and position.isdecimal() and 0 < int(position) <= MAX_BP:  # nearly always
        return contig, int(position)
    position = position.strip()
    if position.lower() in _NOT_SAID or not contig:
        return "", 0
    text = position.removesuffix(".0")  # as spreadsheets and pandas write it
    if not _WHOLE.fullmatch(text) or not 0 < int(text) <= MAX_BP:
        if path is None:
            return "", 0
        raise InputError(
            f"{path}, line {number}: position {position!r} is no whole number from 1 to {MAX_BP:,}",
            hint="write positions without commas, counted from 1",
        )
    return contig, int(text)


class _Site(NamedTuple):
    """A row of a table without names of columns; "" and 0 where a cell is not told."""

    contig: str
    position: int
    effect: str = ""
    other: str = ""
    name: str = ""
    weight: str = ""


def _of_rows(path: Path, rows: Iterable[tuple[int, str]]) -> SiteList:
    """A table without names of columns, each row of which says by its cells what it is."""
    found = _Rows()
    bim = False
    for number, line in rows:
        if line.startswith(("#", "track ", "browser ")):
            continue
        cells = _cells(line)
        site = _site(path, number, cells)
        if site is None:
            _wrong_row(path, number, line)
        bim = bim or _is_bim(cells)
        found.add(number, *site)
    return found.finish(path, "PLINK's .bim" if bim else "list of sites", None)


def _site(path: Path, number: int, cells: list[str]) -> _Site | None:
    """What the cells of a row say; None if they name no site."""
    if len(cells) == 1:
        return _by_name(path, number, cells[0])
    if len(cells) < 2:
        return None
    if _is_bim(cells):
        place = _place(path, number, cells[0], cells[3])
        return _Site(*place, *_alleles(cells[5], cells[4]), cells[1])
    whole = [bool(_WHOLE.fullmatch(cell)) for cell in cells[:3]]
    if len(cells) == 6 and whole[2] and not whole[1] and _are_alleles(cells[3:5]):  # of PRS-CS
        place = _place(path, number, cells[0], cells[2])
        return _Site(*place, *_alleles(cells[4], cells[3]), cells[1], cells[5])
    if not whole[1]:
        return None
    if len(cells) > 2 and whole[2]:
        return _of_bed(path, number, cells)
    place = _place(path, number, *cells[:2])
    if len(cells) == 2:
        return _Site(*place)
    if len(cells) == 3 and "," in cells[2]:  # as bcftools call -T has it
        other, _, effect = cells[2].partition(",")
        return _Site(*place, effect, other) if _ALLELES.fullmatch(cells[2]) else None
    if len(cells) > 4 and _are_alleles(cells[3:5]) and not _ALLELES.fullmatch(cells[2]):
        return _Site(*place, *_alleles(*cells[3:5]), cells[2])  # CHROM POS ID REF ALT, as in a VCF
    if len(cells) > 3 and _are_alleles(cells[2:4]):
        return _Site(*place, *_alleles(*cells[2:4]))
    if len(cells) > 4 and _are_alleles(cells[3:5]):
        return _Site(*place, *_alleles(*cells[3:5]), cells[2])
    if len(cells) == 3 and (cells[2] == "." or _ID.fullmatch(cells[2])):
        return _Site(*place, name=cells[2])
    return None


def _by_name(path: Path, number: int, cell: str) -> _Site | None:
    """A row of one cell."""
    if _ID.fullmatch(cell):
        return _Site("", 0, name=cell)
    named = _SITE_NAME.fullmatch(cell)
    if named is None:
        return None
    contig, position, other, effect = named.groups()[4:] if named[5] else named.groups()[:4]
    return _Site(*_place(path, number, contig, position), effect or "", other or "")


def _is_bim(cells: list[str]) -> bool:
    """Whether a row is one of a .bim: contig, ID, cM, position, A1 and A2."""
    return (
        len(cells) == 6
        and bool(_WHOLE.fullmatch(cells[3]))
        and _are_alleles(cells[4:])
        and not set(cells[4:]) <= set(_VAGUE)
    )


def _of_bed(path: Path, number: int, cells: list[str]) -> _Site | None:
    """A row of a BED: contig, the base before and the last base, from 1."""
    first, last = int(cells[1]), int(cells[2])
    if not 0 <= last - first <= _LONGEST_INDEL:
        return None
    at = last if last - first == 1 else first
    name = cells[3] if len(cells) > 3 else ""
    return _Site(*_place(path, number, cells[0], str(at)), name=name)


def _are_alleles(cells: list[str]) -> bool:
    """Whether cells are alleles, or say that one is not known."""
    return all(cell in _VAGUE or _ALLELES.fullmatch(cell) for cell in cells)


def _alleles(other: str, effect: str) -> tuple[str, str]:
    """Effect allele and other allele, "" where they are not told; the other never is alone."""
    if effect in _VAGUE:
        return "", ""
    return effect, "" if other in _VAGUE else other


def _wrong_row(path: Path, number: int, line: str) -> NoReturn:
    """Refuse a row that names no site."""
    hint = f"write {_FORMS}"
    cells = line.split()
    if len(cells) >= 3 and all(map(_WHOLE.fullmatch, cells[1:3])):
        hint = f"a line of a BED is a site if it is at most {_LONGEST_INDEL} bp long"
    line = line.strip()
    shown = line if len(line) <= 60 else f"{line[:57]}..."
    raise InputError(f"{path}, line {number} names no site: {shown!r}", hint=hint)


def _of_bcf(path: Path) -> SiteList:
    """The records of a BCF."""
    found = _Rows()
    for number, (contig, position, ref, alts) in enumerate(sites_alone(path), start=1):
        found.add(number, contig, position, ",".join(alts), ref if alts else "")
    return found.finish(path, "BCF", None)
