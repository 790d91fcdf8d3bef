"""Symbolic alleles such as <DEL> and breakends: what tells two of them apart.

The text of a symbolic allele says of which kind it is, not where it ends or how long it is: that is
in INFO, as END and SVLEN. Of a breakend, the text says all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

#: ALTs that stand for any allele but those that a record names, as callers write them in a gVCF.
ANY_OTHER = frozenset(("<NON_REF>", "<*>", "<X>"))
#: INFO fields that say where a symbolic allele ends, how long it is, and of which kind.
EXTENT_FIELDS = ("END", "SVLEN", "SVTYPE")

_TOLD = re.compile(r">(?::END=([0-9]+))?(?::SVLEN=([0-9]+))?$")
_NAMED = re.compile(r"<[^<>\s,]+>")
_MATE = r"[\[\]][^\[\]\s,]+:[0-9]+[\[\]]"
_BASES = "[ACGTNacgtn]+"
_BREAKEND = re.compile(rf"(?:{_BASES}|\.){_MATE}|{_MATE}(?:{_BASES}|\.)|\.{_BASES}|{_BASES}\.")
# How VCF 4.4 names the mobile elements and the like that are inserted.
_INSERTED = ("<INS", "<ALU", "<LINE1", "<L1", "<SVA", "<HERVK")


def is_symbolic(alt: str) -> bool:
    """Whether an ALT is a name such as <DEL>, or a breakend; not <NON_REF> and its like."""
    if alt[:1] == "<":
        return alt not in ANY_OTHER and _NAMED.fullmatch(alt) is not None
    return not alt.isalpha() and _BREAKEND.fullmatch(alt) is not None


def in_capitals(alt: str) -> str:
    """A sequence in capitals; symbolic alleles, which hold names, stay as they are."""
    return alt if is_symbolic(alt) else alt.upper()


def info_value(info: str, name: str) -> str | None:
    """The value of a field in the text of INFO, "" of a flag; None if it is not there."""
    start = f"{name}="
    for part in info.split(";"):
        if part.startswith(start):
            return part[len(start) :]
        if part == name:
            return ""
    return None


@dataclass(frozen=True)
class Extent:
    """Where a symbolic allele ends and how long it is, each None where its record does not say.

    Attributes
    ----------
    end_bp
        1-based last base; of deletions, duplications and the like that name their length alone,
        that many bases after POS.
    length
        Absolute value of SVLEN, bp.
    """

    end_bp: int | None = None
    length: int | None = None

    @classmethod
    def of(cls, position_bp: int, alt: str, info: str) -> Extent:
        """The extent of an allele, by the text of its record's INFO."""
        if not info or alt[:1] != "<":
            return cls()
        end, length = _whole(info_value(info, "END")), _whole(info_value(info, "SVLEN"))
        length = None if length is None else abs(length)
        if end is None and length is not None and not alt.startswith(_INSERTED):
            end = position_bp + length
        if end is not None and length == end - position_bp:
            length = None  # it says the same
        return cls(end, length)

    def text(self) -> str:
        """What INFO says of it, "" if nothing."""
        told = (("END", self.end_bp), ("SVLEN", self.length))
        return ";".join(f"{name}={value}" for name, value in told if value is not None)

    def agrees(self, other: Extent) -> bool:
        """Whether two alleles of one name and position are one, as far as both files say."""
        if (self.end_bp, self.length) == (other.end_bp, other.length):
            return True
        pairs = ((self.end_bp, other.end_bp), (self.length, other.length))
        stated = [(a, b) for a, b in pairs if a is not None and b is not None]
        return bool(stated) and all(a == b for a, b in stated)


def _whole(text: str | None) -> int | None:
    """A whole number; None if the text is none."""
    with suppress(TypeError, ValueError):
        return int(text)  # type: ignore[arg-type]
    return None


def full_name(position_bp: int, alt: str, info: str) -> str:
    """An ALT with what tells it apart from others of its position, such as ``<DEL>:END=1200``.

    Sequences and breakends are their own names.
    """
    if not info or alt[:1] != "<":
        return alt
    told = Extent.of(position_bp, alt, info).text()
    return f"{alt}:{told.replace(';', ':')}" if told else alt


def full_names(position_bp: int, alts: Sequence[str], info: str) -> list[str]:
    """The full names of all ALTs of a record, see :func:`full_name`."""
    if not any(alt[:1] == "<" for alt in alts):
        return list(alts)
    end, lengths = info_value(info, "END"), (info_value(info, "SVLEN") or "").split(",")
    told = [] if end is None else [f"END={end}"]
    return [
        full_name(position_bp, alt, ";".join([*told, f"SVLEN={lengths[i % len(lengths)]}"]))
        for i, alt in enumerate(alts)
    ]


def split_name(name: str) -> tuple[str, Extent]:
    """The ALT and the extent that a full name tells."""
    found = _TOLD.search(name)
    if name[:1] != "<" or found is None:
        return name, Extent()
    return name[: found.start() + 1], Extent(_whole(found[1]), _whole(found[2]))


def extent_infos(position_bp: int, alts: Sequence[str], info: str) -> list[str]:
    """What INFO says of the ends of each ALT of a record, as text; "" of sequences."""
    return [split_name(name)[1].text() for name in full_names(position_bp, alts, info)]


def last_base(position_bp: int, ref: str, info: str) -> int:
    """The last base that a record covers, 1-based: INFO/END, or else the end of REF.

    Parameters
    ----------
    position_bp, ref
        Of the record.
    info
        The text of its INFO. As in htslib, an END before POS says nothing.
    """
    end = _whole(info_value(info, "END")) if info else None
    if end is not None and position_bp <= end < 2**31:
        return end
    return position_bp + len(ref) - 1
