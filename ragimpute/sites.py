"""Site tables: contig, position, REF, one ALT and an identifier for each site; and regions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING

from ragimpute.contigs import Lengths, same_contig
from ragimpute.errors import InputError
from ragimpute.symbolic import full_name

if TYPE_CHECKING:
    import numpy as np


Key = tuple[int, str, str]  # position_bp, REF, ALT

# CONTIG or {CONTIG}; then :START, :START- or :START-END
_REGION = re.compile(r"(?:\{([^\s{}]+)\}|([^\s{}]+?))(?::([0-9][0-9,]*)(-(?:[0-9][0-9,]*)?)?)?")
_COMPLEMENT = str.maketrans("ACGTacgt", "TGCAtgca")
MAX_BP = 2**31 - 1  # the last position that sites may have, in VCF as in panel.h5
STOP_BP = 2**62  # where a region stops that has no end: beyond every position


def other_strand(key: Key) -> Key:
    """A site as the other strand spells it."""
    position, ref, alt = key
    return position, ref[::-1].translate(_COMPLEMENT), alt[::-1].translate(_COMPLEMENT)


@dataclass(frozen=True)
class Sites:
    """Sites of one contig in file order; multiallelic records appear once for each ALT.

    Attributes
    ----------
    contig
        Contig name as its file spells it.
    position_bp
        Shape (M,), int32, 1-based, non-decreasing.
    ref, alt, id
        Shape (M,), object (str); ``id`` is "." where the file has none.
    info
        Shape (M,), object (str): what INFO says of the alleles, as VCF writes it
        ("SVTYPE=DEL;END=1200"), "" where nothing is kept; None if it is of no site.
    """

    contig: str
    position_bp: np.ndarray
    ref: np.ndarray
    alt: np.ndarray
    id: np.ndarray
    info: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.position_bp)

    def take(self, index: np.ndarray | slice) -> Sites:
        """The sites at ``index`` (a slice, or integers or booleans of shape (m,))."""
        return Sites(
            self.contig, self.position_bp[index], self.ref[index], self.alt[index], self.id[index],
            None if self.info is None else self.info[index],
        )  # fmt: skip

    def keys(self) -> list[Key]:
        """``(position_bp, ref, alt)`` of each site, in order; two sites differ in their keys.

        So a symbolic ALT has with it what its record says of END and SVLEN: see
        :func:`ragimpute.symbolic.full_name`.
        """
        position = self.position_bp.tolist()
        if self.info is None:
            return list(zip(position, self.ref, self.alt, strict=True))
        names = map(full_name, position, self.alt, self.info)
        return list(zip(position, self.ref, names, strict=True))

    @classmethod
    def joined(cls, tables: Sequence[Sites]) -> Sites:
        """Tables of one contig, one after the other."""
        import numpy as np

        first, *more = tables
        if not more:
            return first
        position, ref, alt, ids = (
            np.concatenate([getattr(table, name) for table in tables])
            for name in ("position_bp", "ref", "alt", "id")
        )
        info = None
        if any(table.info is not None for table in tables):
            info = np.concatenate(
                [np.full(len(t), "", object) if t.info is None else t.info for t in tables]
            )
        return cls(first.contig, position, ref, alt, ids, info)


@dataclass(frozen=True)
class Region:
    """A contig and a half-open interval of 1-based positions ``[start_bp, stop_bp)``.

    ``text`` is what :meth:`parse` read, if it may be the name of a contig as a whole, such as
    "HLA-A*01:01", which also reads as position 1 of "HLA-A*01"; else None. Which of the two is
    meant, only the names of the contigs tell: see :func:`located`.
    """

    contig: str
    start_bp: int = 1
    stop_bp: int = STOP_BP
    text: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, kind, expected in (
            ("contig", str, 'str such as "20"'),
            ("start_bp", Integral, "whole number"),
            ("stop_bp", Integral, "whole number"),
        ):
            found = getattr(self, name)
            if not isinstance(found, kind):
                raise TypeError(
                    f"Region() argument {name!r}: expected {expected}, "
                    f"found {type(found).__name__}: {found!r}"
                )

    @classmethod
    def of(cls, given: Region | str | None) -> Region | None:
        """A region as public functions take it: a text is parsed, see :meth:`parse`."""
        return cls.parse(given) if isinstance(given, str) else given

    @classmethod
    def parse(cls, text: str) -> Region:
        """Read ``chr20``, ``chr20:1000-2000`` (1-based, closed), ``chr20:1000-`` or ``chr20:1000``.

        A name may stand in braces, as htslib has it: ``{HLA-A*01:01}`` is a whole contig, and
        ``{HLA-A*01:01}:1000-2000`` a part of it.

        Raises
        ------
        InputError
            If ``text`` is not of one of these forms, its end is before its start, or its start is
            beyond ``MAX_BP``.
        TypeError
            If ``text`` is no text.
        """
        if not isinstance(text, str):
            raise TypeError(
                "Region.parse() argument 'text': expected str such as \"20:1-1000\", "
                f"found {type(text).__name__}: {text!r}"
            )
        match = _REGION.fullmatch(text)
        if not match:
            raise InputError(
                f"region {text!r} cannot be read",
                hint="write CONTIG or CONTIG:START-END (1-based); a contig that has a colon in its "
                "name in braces: {CONTIG}:START-END",
            )
        contig = match[1] or match[2]
        if match[3] is None:
            return cls(contig)
        start = int(match[3].replace(",", ""))
        stop = start if match[4] is None else STOP_BP - 1
        if match[4] not in (None, "-"):
            stop = min(int(match[4][1:].replace(",", "")), STOP_BP - 1)
        if stop < start or start < 1:
            raise InputError(
                f"region {text!r} ends before it starts, or starts before position 1",
                hint="write CONTIG:START-END with 1 <= START <= END; a contig that has a colon in "
                "its name in braces: {CONTIG}",
            )
        if start > MAX_BP:
            raise InputError(
                f"region {text!r} starts beyond position {MAX_BP:,}, the last that VCF and BCF "
                "have",
                hint="write CONTIG:START-END with positions from the start of the contig",
            )
        return cls(contig, start, stop + 1, None if match[1] else text)

    def __str__(self) -> str:
        if self.start_bp <= 1 and self.stop_bp >= STOP_BP:
            # Braces keep a name whole that reads as a contig and a position: {HLA-A*01:01}.
            reads_as_range = re.search(r":[0-9][0-9,]*(-[0-9,]*)?$", self.contig)
            return f"{{{self.contig}}}" if reads_as_range else self.contig
        last = "" if self.stop_bp >= STOP_BP else self.stop_bp - 1
        return f"{self.contig}:{self.start_bp}-{last}"


def located(
    region: Region,
    names: Iterable[str],
    *,
    declared: Lengths | None = None,
    wanted_of: Lengths | None = None,
) -> Region | None:
    """A region in a file's own spelling of its contig; None if the file lacks the contig.

    A text such as "HLA-A*01:01" is the whole contig of that name where there is one, else position
    1 of the contig HLA-A*01.

    Parameters
    ----------
    region
        What is asked for.
    names, declared, wanted_of
        As for :func:`ragimpute.contigs.same_contig`.

    Raises
    ------
    InputError
        If the text of the region is the name of one contig, and a range of another.
    """
    names = list(names)
    readings = [region]
    if region.text is not None:
        readings.insert(0, Region(region.text))
    exact = [reading for reading in readings if reading.contig in names]
    if len(exact) > 1:
        raise InputError(
            f"region {region.text} may be the contig {region.text}, or a range of {region.contig}",
            hint=f"write {{{region.text}}}, or {{{region.contig}}}:{region.start_bp}-"
            + ("" if region.stop_bp >= STOP_BP else f"{region.stop_bp - 1}"),
        )
    for reading in exact or readings:
        found = same_contig(reading.contig, names, declared=declared, wanted_of=wanted_of)
        if found is not None:
            return replace(reading, contig=found, text=None)
    return None


def some_names(names: Sequence[str]) -> str:
    """The first three names and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
