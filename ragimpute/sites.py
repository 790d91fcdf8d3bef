"""Site tables: contig, position, REF, one ALT and an identifier for each site; and regions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from ragimpute.errors import InputError

if TYPE_CHECKING:
    import numpy as np


Key = tuple[int, str, str]  # position_bp, REF, ALT

_COMPLEMENT = str.maketrans("ACGTacgt", "TGCAtgca")
_ALIASES = {"23": "X", "24": "Y", "M": "MT", "26": "MT"}  # PLINK's numbers of human chromosomes


def bare_contig(name: str) -> str:
    """A contig's name without "chr", in capitals; X, Y and MT for PLINK's numbers of these."""
    bare = name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name
    return _ALIASES.get(bare.upper(), bare.upper())


def same_contig(wanted: str, names: Sequence[str]) -> str | None:
    """The name in ``names`` that is ``wanted``, spelled alike or else as another file might.

    "20", "chr20" and "Chr20" are one contig; so are "23" and "X" where ``names`` lacks the former.
    """
    if wanted in names:
        return wanted
    bare = wanted.removeprefix("chr")
    alike = [name for name in names if name.removeprefix("chr") == bare]
    alike += [name for name in names if bare_contig(name) == bare_contig(wanted)]
    return alike[0] if alike else None


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
    """

    contig: str
    position_bp: np.ndarray
    ref: np.ndarray
    alt: np.ndarray
    id: np.ndarray

    def __len__(self) -> int:
        return len(self.position_bp)

    def take(self, index: np.ndarray | slice) -> Sites:
        """The sites at ``index`` (a slice, or integers or booleans of shape (m,))."""
        return Sites(
            self.contig, self.position_bp[index], self.ref[index], self.alt[index], self.id[index]
        )

    def keys(self) -> list[Key]:
        """``(position_bp, ref, alt)`` of each site, in order."""
        return list(zip(self.position_bp.tolist(), self.ref, self.alt, strict=True))


@dataclass(frozen=True)
class Region:
    """A contig and a half-open interval of 1-based positions ``[start_bp, stop_bp)``."""

    contig: str
    start_bp: int = 1
    stop_bp: int = 2**31 - 1

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
        """Read ``chr20``, ``chr20:1000-2000`` (1-based, closed) or ``chr20:1000-``.

        Raises
        ------
        InputError
            If ``text`` is not of one of these forms or its end is before its start.
        TypeError
            If ``text`` is no text.
        """
        if not isinstance(text, str):
            raise TypeError(
                "Region.parse() argument 'text': expected str such as \"20:1-1000\", "
                f"found {type(text).__name__}: {text!r}"
            )
        match = re.fullmatch(r"(\S+?)(?::(\d[\d,]*)(?:-(\d[\d,]*)?)?)?", text)
        if not match or not match[1]:
            raise InputError(
                f"region {text!r} cannot be read", hint="write CONTIG or CONTIG:START-END (1-based)"
            )
        if match[2] is None:
            return cls(match[1])
        start = int(match[2].replace(",", ""))
        if match[3] is None and "-" not in text[len(match[1]) :]:
            stop = start
        else:
            stop = int(match[3].replace(",", "")) if match[3] else 2**31 - 2
        if stop < start or start < 1:
            raise InputError(
                f"region {text!r} ends before it starts, or starts before position 1",
                hint="write CONTIG:START-END with 1 <= START <= END",
            )
        return cls(match[1], start, stop + 1)

    def __str__(self) -> str:
        if self.start_bp <= 1 and self.stop_bp == 2**31 - 1:
            return self.contig
        return f"{self.contig}:{self.start_bp}-{self.stop_bp - 1}"


def some_names(names: Sequence[str]) -> str:
    """The first three names and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
