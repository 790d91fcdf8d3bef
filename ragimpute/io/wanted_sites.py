"""Lists of sites that a user wants: scores of the PGS Catalog, tables, VCF, BCF, .bim and .pvar."""

from __future__ import annotations

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np

from ragimpute.commands import command_word
from ragimpute.errors import InputError
from ragimpute.io.raw_text.vendor import build_of
from ragimpute.io.vcf.read.records import sites_alone
from ragimpute.sites import MAX_BP
from ragimpute.symbolic import full_names

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_FORMS = (
    "one site a line, as CHROM POS, CHROM POS REF ALT, CHROM:POS:REF:ALT or an rsID; a .bim; a VCF "
    "or BCF; or a scoring file of the PGS Catalog"
)
# Names of columns in small letters, those of the PGS Catalog first; harmonised positions are apart.
_NAMES = {
    "contig": ("chr_name", "chrom", "chr", "chromosome"),
    "position": ("chr_position", "pos", "position", "bp", "base_pair_location"),
    "hm_contig": ("hm_chr",),
    "hm_position": ("hm_pos",),
    "effect": ("effect_allele", "ea", "a1"),
    "other": ("other_allele", "reference_allele", "oa", "nea", "a2"),
    "inferred": ("hm_inferotherallele",),
    "ref": ("ref",),
    "alt": ("alt",),
    "id": ("rsid", "id", "snp", "variant_id", "sid"),
    "hm_id": ("hm_rsid",),
    "weight": ("effect_weight", "weight", "beta"),
    "info": ("info",),
}
_START_BYTES = 4096
_NOT_SAID = frozenset(("", ".", "na", "nan", "nr", "none", "0"))
_WHOLE = re.compile(r"[0-9]+")
_ALLELE = (
    r"[A-Za-z*]+|<[^<>\s,]+>(?::(?:END|SVLEN)=[0-9]+)*"
    r"|[A-Za-z.]*[\[\]][^\s,\[\]]+[\[\]][A-Za-z.]*"
)
_ALLELES = re.compile(rf"(?:{_ALLELE})(?:,(?:{_ALLELE}))*")
_SITE_NAME = re.compile(rf"([^\s:]+):([0-9]+)(?::([A-Za-z]+):({_ALLELE}))?")


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
class WantedSites:
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
    """Rows of a list on the way to becoming a :class:`WantedSites`."""

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

    def finish(
        self, path: Path, kind: str, build: str | None, own: str | None = None
    ) -> WantedSites:
        """The list, whose rows also have positions of their ``own`` build if these were added."""
        if not self.line:
            raise InputError(f"{path} names no site", hint=f"write {_FORMS}")
        places = [Places(build, self.contig, np.array(self.position, np.int64))]
        if self.own_position:
            places.append(Places(own, self.own_contig, np.array(self.own_position, np.int64)))
        return WantedSites(
            path, kind, places, self.effect, self.other, self.id, self.weight, self.line
        )


def read_wanted_sites(path: str | Path) -> WantedSites:
    """Read a list of sites, whose form its content tells; it may be gzipped.

    Parameters
    ----------
    path
        A scoring file of the PGS Catalog, harmonised or not; a table with names of columns, or of
        CHROM POS [REF ALT], CHROM POS REF,ALT, CHROM:POS[:REF:ALT] or rsIDs; a .bim or .pvar; a
        table of PRS-CS (CHROM, ID, POS, A1, A2, weight); or a VCF or BCF, whose genotypes are not
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


def _of_text(path: Path, file: Iterable[str]) -> WantedSites:
    """A list that is a text."""
    lines = ((i, line) for i, line in enumerate(file, start=1) if line.strip())
    said: list[str] = []
    for number, line in lines:
        names = _cells(line.lstrip("#"))
        if "effect_allele" in map(str.lower, names) or _names_a_site(names):
            return _of_table(path, said, names, lines)
        if not line.startswith("#"):
            return _of_rows(path, chain([(number, line)], lines))
        said.append(line)
    raise InputError(f"{path} names no site", hint=f"write {_FORMS}")


def _cells(line: str) -> list[str]:
    """The cells of a line, separated by tabs, else by blanks, else by commas."""
    line = line.rstrip("\r\n")
    if "\t" in line:
        return [cell.strip() for cell in line.split("\t")]
    cells = line.split()
    if len(cells) == 1 and "," in line:
        return [cell.strip() for cell in line.split(",")]
    return cells


def _names_a_site(names: list[str]) -> bool:
    """Whether cells are names of columns."""
    low = {name.lower() for name in names}
    where = [low & set(_NAMES[key]) for key in ("contig", "position")]
    by_name = low & {"rsid", "snp"} and low & set(_NAMES["effect"])
    return bool(all(where) or by_name or {"hm_chr", "hm_pos"} <= low)


def _of_table(
    path: Path, said: list[str], head: list[str], rows: Iterable[tuple[int, str]]
) -> WantedSites:
    """A table whose columns have names."""
    low = [name.lower() for name in head]
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
    if "effect_allele" in low:
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


def _of_rows(path: Path, rows: Iterable[tuple[int, str]]) -> WantedSites:
    """A table without names of columns, each row of which says by its cells what it is."""
    found = _Rows()
    bim = False
    for number, line in rows:
        if line.startswith("#"):
            continue
        cells = _cells(line)
        named = _SITE_NAME.fullmatch(cells[0]) if len(cells) == 1 else None
        if named:
            found.add(
                number, *_place(path, number, named[1], named[2]), named[4] or "", named[3] or ""
            )
        elif len(cells) == 1 and re.fullmatch(r"(rs|ss|esv|nsv)\d+", cells[0], re.IGNORECASE):
            found.add(number, "", 0, name=cells[0])
        elif len(cells) == 6 and _WHOLE.fullmatch(cells[3]):  # a .bim
            bim = True
            effect, other = ("" if x.lower() in _NOT_SAID else x for x in cells[4:])
            place = _place(path, number, cells[0], cells[3])
            found.add(number, *place, effect, other, cells[1])
        elif len(cells) == 6 and _WHOLE.fullmatch(cells[2]):  # of PRS-CS
            place = _place(path, number, cells[0], cells[2])
            found.add(number, *place, cells[3], cells[4], cells[1], cells[5])
        elif len(cells) in (2, 4) and _WHOLE.fullmatch(cells[1]):
            other, effect = cells[2:] if len(cells) == 4 else ("", "")
            if "." in (other, effect):
                other = effect = ""
            elif effect and not (_ALLELES.fullmatch(effect) and _ALLELES.fullmatch(other)):
                _wrong_row(path, number, line)
            found.add(number, *_place(path, number, *cells[:2]), effect, other)
        elif len(cells) == 3 and _WHOLE.fullmatch(cells[1]) and "," in cells[2]:
            other, _, effect = cells[2].partition(",")  # as bcftools call -T has it
            if not _ALLELES.fullmatch(cells[2]):
                _wrong_row(path, number, line)
            found.add(number, *_place(path, number, *cells[:2]), effect, other)
        else:
            _wrong_row(path, number, line)
    return found.finish(path, "PLINK's .bim" if bim else "list of sites", None)


def _wrong_row(path: Path, number: int, line: str) -> NoReturn:
    """Refuse a row that names no site."""
    hint = f"write {_FORMS}"
    cells = line.split()
    if len(cells) >= 3 and all(map(_WHOLE.fullmatch, cells[1:3])):
        hint = "a BED file names intervals that begin at 0, not sites: write CHROM POS, from 1"
    line = line.strip()
    shown = line if len(line) <= 60 else f"{line[:57]}..."
    raise InputError(f"{path}, line {number} names no site: {shown!r}", hint=hint)


def _of_bcf(path: Path) -> WantedSites:
    """The records of a BCF."""
    found = _Rows()
    for number, (contig, position, ref, alts) in enumerate(sites_alone(path), start=1):
        found.add(number, contig, position, ",".join(alts), ref if alts else "")
    return found.finish(path, "BCF", None)
