"""Which vendor wrote a raw text of genotypes, in which columns, and of which genome build."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BUILDS = (
    (re.compile(r"build\s*36|ncbi\s*36|hg\s*18\b", re.IGNORECASE), "NCBI36"),
    (re.compile(r"build\s*37|grch\s*37|hg\s*19\b", re.IGNORECASE), "GRCh37"),
    (re.compile(r"build\s*38|grch\s*38|hg\s*38\b", re.IGNORECASE), "GRCh38"),
)
_VENDORS = (
    ("23andMe", "23andme"),
    ("AncestryDNA", "ancestrydna"),
    ("MyHeritage", "myheritage"),
    ("FTDNA", "familytreedna"),
    ("FTDNA", "family tree dna"),
    ("FTDNA", "ftdna"),
    ("Living DNA", "living dna"),
)
# Names of columns, as vendors write them.
_IDS = ("rsid", "snp", "snpid", "snp_id", "name", "id")
_CHROMOSOMES = ("chromosome", "chrom", "chr")
_POSITIONS = ("position", "pos", "coordinate", "bp")
_GENOTYPES = ("genotype", "result", "genotypes", "call")
_GENOTYPE = re.compile(r"[ACGTIDNacgtidn0?.-]{1,2}")
_CHROMOSOME = re.compile(r"(chr)?([0-9]{1,2}|X|Y|XY|MT?|PAR[12]?)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The columns of a raw text.

    Attributes
    ----------
    vendor
        Who wrote it, such as "23andMe", or "an unknown vendor".
    build
        The genome build that its comments name, or None.
    separator
        Between the columns; None stands for any blanks.
    width
        How many columns a row has: 4 (genotype) or 5 (two alleles).
    """

    vendor: str
    build: str | None
    separator: str | None
    width: int


def layout_of(start: str) -> Layout | None:
    """The layout of a raw text by its beginning; None if it is no such text.

    Parameters
    ----------
    start
        Its first lines, of which the last may be cut.
    """
    if start.startswith("##fileformat"):
        return None
    comments, rows = [], []
    *lines, last = start.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for line in lines or [last]:
        if line.startswith("#"):
            comments.append(line)
        elif line.strip():
            rows.append(line)
            if len(rows) == 3:
                break
    if not rows:
        return _of_comments(comments)
    head = rows[0]
    separator = "," if "," in head else "\t" if "\t" in head else None
    is_head = header_columns(head, separator)
    samples = rows[1:] if is_head else rows[:1]
    if not is_head and not all(_is_row(row, separator) for row in samples):
        return None
    width = is_head or len(cells_of(samples[0], separator))
    told = "\n".join(comments)
    return Layout(_vendor(told, separator, width), build_of(told), separator, width)


def _of_comments(comments: list[str]) -> Layout | None:
    """The layout of a text that has no row: only if its comments name a vendor."""
    told = "\n".join(comments)
    if not any(word in told.lower() for _, word in _VENDORS):
        return None
    return Layout(_vendor(told, "\t", 4), build_of(told), "\t", 4)


def cells_of(line: str, separator: str | None) -> list[str]:
    """The cells of a row, without the quotes around them."""
    return [cell.strip().strip('"') for cell in line.split(separator)]


def header_columns(line: str, separator: str | None) -> int:
    """How many columns a line names, if it names those of a raw text, or else 0."""
    names = [cell.lower() for cell in cells_of(line, separator)]
    known = (
        len(names) in (4, 5)
        and names[0] in _IDS
        and names[1] in _CHROMOSOMES
        and names[2] in _POSITIONS
    )
    if not known:
        return 0
    if len(names) == 4:
        return 4 if names[3] in _GENOTYPES else 0
    return 5 if names[3].startswith("allele") and names[4].startswith("allele") else 0


def _is_row(line: str, separator: str | None) -> bool:
    """Whether a line has the cells of a raw text: name, chromosome, position, alleles."""
    cells = cells_of(line, separator)
    return (
        len(cells) in (4, 5)
        and bool(_CHROMOSOME.fullmatch(cells[1]))
        and cells[2].isdecimal()
        and all(_GENOTYPE.fullmatch(cell) for cell in cells[3:])
        and (len(cells) == 4 or all(len(cell) == 1 for cell in cells[3:]))
    )


def _vendor(comments: str, separator: str | None, width: int) -> str:
    """Who wrote the file, by its comments, or else by its form."""
    told = comments.lower()
    found = next((name for name, word in _VENDORS if word in told), None)
    if found is not None:
        return found
    return "FTDNA" if separator == "," and width == 4 else "an unknown vendor"


def build_of(text: str) -> str | None:
    """The genome build that a text names first, such as "GRCh37"; None if it names none."""
    found = [(match.start(), build) for word, build in _BUILDS if (match := word.search(text))]
    return min(found)[1] if found else None
