"""Genetic maps: base pairs to centimorgans, read from the layouts that tools in use share."""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragimpute.arguments import check_ranges
from ragimpute.contigs import same_contig
from ragimpute.errors import InputError

logger = logging.getLogger(__name__)

_POSITION_NAMES = {
    "pos",
    "position",
    "position(bp)",
    "bp",
    "physical_position",
    "ppos",
    "base_pair",
}
_CM_NAMES = {"cm", "genetic_map(cm)", "genetic_map", "map(cm)", "position(cm)", "gpos", "cm_pos"}
_CONTIG_NAMES = {"chr", "chrom", "chromosome", "#chr", "#chrom", "contig"}
_LAYOUT_HINT = (
    "accepted columns: 'chrom id cM bp' without header (PLINK, Beagle), 'pos chr cM' or 'position "
    "COMBINED_rate(cM/Mb) Genetic_Map(cM)' (SHAPEIT, GLIMPSE, IMPUTE2), 'chr position "
    "COMBINED_rate(cM/Mb) Genetic_Map(cM)' (Eagle, HapMap)"
)
_MORGANS_RATE = 0.05  # cM/Mb; below any known species' chromosome mean, so probably Morgans
# The highest mean of a chromosome is some 340 cM/Mb (baker's yeast). Shorter maps may lie in a
# hotspot, which has up to some hundred times the mean over 1 to 2 kb.
_HIGH_RATE = 1_000.0
_HIGHEST_RATE = 10_000.0
_SHORT_CM = 10.0
# The longest chromosomes of plants and animals have some hundred cM; all those of the honey bee
# together, 4,100 cM.
LONGEST_CM = 10_000.0
_EXCHANGED = (
    "are the columns of bp and cM exchanged, or the values in another unit? " + _LAYOUT_HINT
)


def rate_doubt(cm_per_mb: float) -> str | None:
    """What is odd about a mean rate in cM/Mb; None if it is that of some chromosome."""
    if cm_per_mb < _MORGANS_RATE:
        return f"only {cm_per_mb:.2g} cM/Mb; if its unit is Morgans, multiply by 100"
    if cm_per_mb > _HIGH_RATE:
        return (
            f"{cm_per_mb:,.0f} cM/Mb, more than any chromosome that is known: are positions in bp, "
            "and are the columns of bp and cM in order?"
        )
    return None


@dataclass(frozen=True)
class GeneticMap:
    """A map from base pairs to centimorgans of one contig.

    Attributes
    ----------
    position_bp
        Shape (n,), float64, bp, strictly increasing, n >= 2.
    map_cm
        Shape (n,), float64, cM, non-decreasing.
    name
        Where it comes from, for messages and provenance.
    is_uniform
        Whether its rate is the same everywhere, so that its ends mean nothing.
    """

    position_bp: np.ndarray
    map_cm: np.ndarray
    name: str
    is_uniform: bool = False

    @classmethod
    def read(cls, path: str | Path, *, contig: str | None = None) -> GeneticMap:
        """Read a map file, plain or gzipped, whose layout is seen from its header and content.

        ======================= ================================================= ===========
        layout                  columns                                           header
        ======================= ================================================= ===========
        PLINK, Beagle           chrom, id, cM, bp                                 no
        SHAPEIT4, GLIMPSE       pos, chr, cM                                      either
        SHAPEIT2, IMPUTE2       position, COMBINED_rate(cM/Mb), Genetic_Map(cM)   either
        Eagle, HapMap           chr, position, COMBINED_rate(cM/Mb),              either
                                Genetic_Map(cM)
        ======================= ================================================= ===========

        Any file whose header names a position and a cM column is read too. Rows of one position
        are merged into their mean, with a warning.

        Parameters
        ----------
        path
            The file; columns are separated by blanks or tabs.
        contig
            The contig wanted; "20", "chr20" and, for X, "23" are the same. Needed where the file
            holds several; not compared where the layout has no contig column.

        Raises
        ------
        InputError
            If the file is missing, empty, truncated or of no known layout; if a value is not a
            number; if positions or cM decrease; if the contig is absent, or None though the file
            holds several; if fewer than two positions or no cM at all remain; or as for
            :meth:`check`. Names the line.
        """
        path = Path(path)
        rows = _read_rows(path, contig)
        position_bp, map_cm = _merge_duplicates(path, rows)
        if len(position_bp) < 2:
            raise InputError(
                f"genetic map {path} has {len(position_bp)} position"
                f"{'' if len(position_bp) == 1 else 's'} of the contig; at least 2 are needed",
                hint="give the whole map of the contig, or --cm-per-mb instead of a map",
            )
        if map_cm[-1] == map_cm[0]:
            raise InputError(
                f"genetic map {path} has {map_cm[0]:g} cM at every position",
                hint="such a column holds no map: give a real one, or --cm-per-mb instead of a map",
            )
        result = cls(position_bp, map_cm, path.name)
        result.check()
        doubt = rate_doubt(result.mean_rate)
        if doubt is not None:
            logger.warning("genetic map %s rises by %s", path, doubt)
        return result

    def check(self) -> None:
        """Refuse a map that rises more than any chromosome could.

        Raises
        ------
        InputError
            If it rises by more than 10,000 cM/Mb on average, and by more than 10 cM, or by more
            than 10,000 cM in all.
        """
        span = float(np.ptp(self.map_cm))
        if not self.mean_rate <= _HIGHEST_RATE and span > _SHORT_CM:
            raise InputError(
                f"genetic map {self.name} rises by {self.mean_rate:,.0f} cM/Mb, expected at most "
                f"{_HIGHEST_RATE:,.0f}",
                hint=_EXCHANGED,
            )
        if not self.is_uniform and span > LONGEST_CM:
            raise InputError(
                f"genetic map {self.name} rises by {span:,.0f} cM in all, expected at most "
                f"{LONGEST_CM:,.0f}",
                hint=_EXCHANGED,
            )

    @classmethod
    def uniform(cls, cm_per_mb: float) -> GeneticMap:
        """A map with the same rate everywhere, 0 cM at position 0.

        Raises
        ------
        InputError
            If ``cm_per_mb`` is not a number from 1e-6 to 1e4.
        """
        check_ranges(cm_per_mb=cm_per_mb)
        bounds = np.array([0.0, 1e6])
        return cls(bounds, bounds * cm_per_mb / 1e6, f"uniform, {cm_per_mb:g} cM/Mb", True)

    @property
    def mean_rate(self) -> float:
        """Rise over the whole map, cM/Mb."""
        return float(np.ptp(self.map_cm) / np.ptp(self.position_bp) * 1e6)

    def position_cm(self, position_bp: np.ndarray) -> np.ndarray:
        """Genetic positions, by straight lines between the map's positions.

        Before the first and after the last position the map goes on at its mean rate: maps often
        start megabases inside a contig, and a flat end would put all sites there at distance 0,
        where haplotypes could never be switched. Positions before the map's start can so have
        negative cM; only differences matter.

        Parameters
        ----------
        position_bp
            Shape (m,), any numeric dtype, bp.

        Returns
        -------
        Shape (m,), float64, cM; non-decreasing where ``position_bp`` is.
        """
        position = np.asarray(position_bp, dtype=np.float64)
        known, known_cm = self.position_bp, self.map_cm
        rate = self.mean_rate / 1e6
        inside = np.interp(position, known, known_cm)
        before = np.minimum(position - known[0], 0.0)
        after = np.maximum(position - known[-1], 0.0)
        out: np.ndarray = inside + rate * (before + after)
        return out


@dataclass(frozen=True)
class _Layout:
    """Which columns hold what."""

    position: int
    cm: int
    contig: int | None
    num_columns: int


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers from 1 and fields of the lines that are not blank."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"genetic map {path} {problem}", hint="check the path given to --map")
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
        opened = gzip.open if is_gzip else open
        with opened(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                fields = line.split()
                if fields:
                    yield number, fields
    except UnicodeDecodeError as error:
        raise InputError(f"genetic map {path} is not text", hint=_LAYOUT_HINT) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"genetic map {path} cannot be read: {error}") from error


def _is_number(text: str) -> bool:
    """Whether ``text`` is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_integer(text: str) -> bool:
    """Whether ``text`` is a whole number, perhaps written as R does ("1e+06")."""
    return _is_number(text) and float(text).is_integer()


def _layout_from_header(path: Path, fields: list[str]) -> _Layout:
    """Find the columns by their names."""
    names = [field.lower().strip("\"'") for field in fields]

    def find(known: set[str]) -> int | None:
        return next((i for i, name in enumerate(names) if name in known), None)

    position, cm = find(_POSITION_NAMES), find(_CM_NAMES)
    if position is None or cm is None:
        absent = "position" if position is None else "cM"
        raise InputError(
            f"genetic map {path}: the header '{' '.join(fields)}' names no {absent} column",
            hint=_LAYOUT_HINT,
        )
    return _Layout(position, cm, find(_CONTIG_NAMES), len(fields))


def _layout_from_content(path: Path, rows: list[tuple[int, list[str]]]) -> _Layout:
    """Find the columns of a file without header from its first rows."""
    first = rows[0][1]
    whole = [all(_is_integer(x[i]) for _, x in rows if len(x) > i) for i in range(len(first))]
    if len(first) == 4 and (whole[3] or not whole[1]):
        return _Layout(position=3, cm=2, contig=0, num_columns=4)  # PLINK
    if len(first) == 4:
        return _Layout(position=1, cm=3, contig=0, num_columns=4)  # Eagle, HapMap
    if len(first) == 3 and whole[0]:
        # SHAPEIT4's middle column repeats a name; SHAPEIT2's is a rate, which changes or is broken
        middle = {x[1] for _, x in rows if len(x) > 1}
        is_name = len(middle) == 1 and (not _is_number(first[1]) or whole[1])
        return _Layout(position=0, cm=2, contig=1 if is_name else None, num_columns=3)
    raise InputError(
        f"genetic map {path}, line {rows[0][0]}: '{' '.join(first)}' is of no known layout",
        hint=_LAYOUT_HINT,
    )


def _is_header(fields: list[str]) -> bool:
    """Whether a first line names columns: one of the names, or nothing that is a number."""
    known = _POSITION_NAMES | _CM_NAMES
    return not any(_is_number(x) for x in fields) or any(x.lower() in known for x in fields)


def map_contigs(path: str | Path) -> list[str]:
    """The contigs that a map file names, in its order; empty where its layout names none.

    Raises
    ------
    InputError
        If the file is missing, empty, damaged or of no known layout.
    """
    layout, lines = _laid_out(Path(path))
    if layout.contig is None:
        return []
    return list(dict.fromkeys(fields[layout.contig] for _, fields in lines))


def _laid_out(path: Path) -> tuple[_Layout, list[tuple[int, list[str]]]]:
    """The layout, and the rows below the header, all of them with as many columns as it has."""
    lines = [(number, fields) for number, fields in _lines(path)]
    if lines and lines[0][1][0].startswith("##"):
        lines = [(number, fields) for number, fields in lines if not fields[0].startswith("##")]
    if lines and _is_header(lines[0][1]):
        layout = _layout_from_header(path, lines[0][1])
        lines = lines[1:]
    elif lines:
        layout = _layout_from_content(path, lines[:1000])
    if not lines:
        raise InputError(f"genetic map {path} is empty", hint=_LAYOUT_HINT)

    short = next((x for x in lines if len(x[1]) != layout.num_columns), None)
    if short is not None:
        raise InputError(
            f"genetic map {path}, line {short[0]}: {len(short[1])} columns, expected "
            f"{layout.num_columns}",
            hint="the file may be truncated or mixed from several",
        )
    return layout, lines


def _read_rows(path: Path, contig: str | None) -> list[tuple[int, float, float]]:
    """``(line, bp, cM)`` of the contig's rows, checked."""
    layout, lines = _laid_out(path)
    if layout.contig is not None:
        lines = _of_contig(path, lines, layout.contig, contig)
    rows = []
    for number, fields in lines:
        values = []
        for column, unit in ((layout.position, "position in bp"), (layout.cm, "position in cM")):
            if not _is_number(fields[column]):
                raise InputError(
                    f"genetic map {path}, line {number}: expected a {unit}, found "
                    f"{fields[column]!r}",
                    hint=_LAYOUT_HINT,
                )
            values.append(float(fields[column]))
        rows.append((number, values[0], values[1]))
    return rows


def _of_contig(
    path: Path, lines: list[tuple[int, list[str]]], column: int, contig: str | None
) -> list[tuple[int, list[str]]]:
    """The rows of one contig."""
    present = list(dict.fromkeys(fields[column] for _, fields in lines))
    if contig is None:
        if len(present) > 1:
            raise InputError(
                f"genetic map {path} holds several contigs ({_listed(present)}), and none was "
                "asked for",
                hint="name one",
            )
        return lines
    found = same_contig(contig, present)
    if found is None:
        raise InputError(
            f"genetic map {path} has no contig {contig}; it holds {_listed(present)}",
            hint="give the map of the panel's chromosome and genome build",
        )
    return [(number, fields) for number, fields in lines if fields[column] == found]


def _listed(names: list[str]) -> str:
    """Up to 30 names."""
    return ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _merge_duplicates(
    path: Path, rows: list[tuple[int, float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cM, one row a position; refuses what decreases."""
    line, position_bp, map_cm = (np.array(column) for column in zip(*rows, strict=True))
    for values, unit in ((position_bp, "bp"), (map_cm, "cM")):
        falls = np.flatnonzero(np.diff(values) < 0)
        if len(falls):
            i = falls[0] + 1
            raise InputError(
                f"genetic map {path}, line {line[i]}: position decreases from "
                f"{values[i - 1]:.10g} to {values[i]:.10g} {unit}",
                hint="sort the map by position; cM must not fall along a chromosome",
            )
    unique_bp, first, count = np.unique(position_bp, return_index=True, return_counts=True)
    if len(unique_bp) < len(position_bp):
        i = first[np.argmax(count > 1)]
        logger.warning(
            "genetic map %s: %d rows repeat a position (first at line %d, %d bp); merged",
            path,
            len(position_bp) - len(unique_bp),
            line[i],
            position_bp[i],
        )
    return unique_bp, np.add.reduceat(map_cm, first) / count
