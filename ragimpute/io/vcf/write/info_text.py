"""Format the first nine columns of VCF rows; the numbers of INFO, one field at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ragimpute.io.vcf.header import FLAGS, INFOS
from ragimpute.io.vcf.write.sample_text import RowStarts
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.sites import Sites

_DIGITS = 6  # significant
_WIDTH = 24  # bytes that a number needs at most
_POINT, _ZERO, _MINUS, _EXPONENT, _NEWLINE, _SEMICOLON = (ord(c) for c in ".0-e\n;")
_AFTER_ALT = b"\t.\tPASS\t"  # QUAL and FILTER
_POWERS = 10.0 ** np.arange(23)  # exact in float64
# A float32 times such a power of ten is exact in float64, so that halves round as they should.
_EXACT_POWER = 12


@dataclass(frozen=True)
class NumberColumn:
    """A number for each of m rows, or k numbers for each of m records with k ALTs.

    Attributes
    ----------
    text, length
        Shape (m, 24) or wider, uint8, and (m,), int64: the text of each number or of all k, and its
        length, which is 0 if all are missing.
    value
        Shape (m,), float64: the number that the text says, 0 if it is missing; or (m, k), NaN where
        one is missing.
    """

    text: np.ndarray
    length: np.ndarray
    value: np.ndarray

    @classmethod
    def of(
        cls, values: np.ndarray, *, decimals: int | None = None, integer: bool = False
    ) -> NumberColumn:
        """Format numbers as ``format(x, ".6g")`` does.

        Parameters
        ----------
        values
            Shape (m,), float; NaN: missing.
        decimals
            Round to so many decimals first; None: do not round.
        integer
            Whether to round to whole numbers and write all their digits.
        """
        values = np.ascontiguousarray(values, dtype=np.float64)
        if decimals is not None or integer:
            values = np.round(values, decimals or 0) + 0.0  # no -0
        column = cls(
            np.empty((len(values), _WIDTH), np.uint8),
            np.empty(len(values), np.int64),
            np.empty(len(values)),
        )
        _write_numbers(values, _POWERS, column.text, column.length, column.value)
        for i in np.flatnonzero(column.length < 0).tolist():
            text = str(round(values[i])) if integer else f"{values[i]:.{_DIGITS}g}"
            column.text[i, : len(text)] = np.frombuffer(text.encode(), np.uint8)
            column.length[i] = len(text)
            column.value[i] = float(text)
        return column

    def take(self, rows: slice) -> NumberColumn:
        """The column of some rows."""
        return NumberColumn(self.text[rows], self.length[rows], self.value[rows])


def info_columns(info: dict[str, np.ndarray], num_sites: int) -> dict[str, NumberColumn]:
    """Format INFO numbers; the fields are in the order of ``INFOS`` in ``io/vcf/header``.

    Raises
    ------
    ValueError
        If a name is not in ``INFOS``, or an array has another length than ``num_sites``.
    """
    unknown = set(info) - set(INFOS)
    if unknown:
        raise ValueError(f"INFO {sorted(unknown)} not in {list(INFOS)}")
    columns = {}
    for name, field in INFOS.items():
        if name not in info:
            continue
        values = np.asarray(info[name])
        if values.shape != (num_sites,):
            raise ValueError(f"INFO {name} has shape {values.shape}, expected ({num_sites},)")
        columns[name] = NumberColumn.of(
            values, decimals=field.digits, integer=field.type == "Integer"
        )
    return columns


def row_starts(
    sites: Sites, typed: np.ndarray, info: dict[str, NumberColumn], formats: Sequence[str]
) -> RowStarts:
    """Format the first nine columns of each row; eight if there are no FORMAT fields.

    Parameters
    ----------
    sites
        m sites; what their INFO says comes before the numbers.
    typed
        Shape (m,): an index into ``FLAGS`` of ``io/vcf/header``, or bool.
    info
        A column of m numbers for each INFO field to be written.
    formats
        FORMAT fields in order.
    """
    num = len(sites)
    contig, after_alt = sites.contig, _AFTER_ALT
    columns = (sites.position_bp, sites.id, sites.ref, sites.alt)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    first = [f"{contig}\t{at}\t{name}\t{ref}\t{alt}" for at, name, ref, alt in rows]
    if sites.info is not None:  # what the panel says of the alleles is the first of INFO
        after_alt, told = b"", _AFTER_ALT.decode()
        first = [
            f"{row}{told}{info};" if info else f"{row}{told}"
            for row, info in zip(first, sites.info.tolist(), strict=True)
        ]
    lines = "".join([f"{row}\n" for row in first])
    fixed = np.frombuffer(lines.encode(), np.uint8)
    lines_end = np.concatenate([[0], np.flatnonzero(fixed == _NEWLINE) + 1])
    tail = f"\t{':'.join(formats)}".encode() if formats else b""
    names = _joined([f"{name}=".encode() for name in info])
    tails = _joined([flag.name.encode() + tail for flag in FLAGS])
    if info:
        width = max(column.text.shape[1] for column in info.values())
        text = np.zeros((len(info), num, width), np.uint8)
        for place, column in zip(text, info.values(), strict=True):
            place[:, : column.text.shape[1]] = column.text
        length = np.stack([column.length for column in info.values()])
    else:
        text, length = np.zeros((0, num, 1), np.uint8), np.zeros((0, num), np.int64)
    each = len(after_alt) + len(tails.text) + len(names.text) + len(info)
    room = len(fixed) + num * each + int(length.sum())
    made = RowStarts(np.empty(room, np.uint8), np.zeros(num + 1, np.int64))
    _join_starts(
        _Parts(fixed, lines_end), np.frombuffer(after_alt, np.uint8), names,
        _Columns(text, length), np.asarray(typed, np.int64), tails, made,
    )  # fmt: skip
    return RowStarts(made.text[: made.offsets[-1]], made.offsets)


class _Parts(NamedTuple):
    """Texts one after another."""

    text: np.ndarray  # uint8
    offsets: np.ndarray  # (number of texts + 1,) int64: where each begins, and the end


class _Columns(NamedTuple):
    """The numbers of all INFO fields that are written, see :class:`NumberColumn`."""

    text: np.ndarray  # (fields, m, 24) uint8
    length: np.ndarray  # (fields, m) int64


def _joined(parts: Sequence[bytes]) -> _Parts:
    """Put texts one after another."""
    return _Parts(
        np.frombuffer(b"".join(parts), np.uint8),
        np.cumsum([0, *(len(part) for part in parts)]),
    )


@inlined
def _write_number(number, exponent, text):
    """Text of ``number`` (of 6 digits) times 10^(exponent - 5); returns its length."""
    last = _DIGITS - 1
    while last > 0 and number % 10 == 0:
        number //= 10
        last -= 1
    at = 0
    if exponent < -4:  # one digit before the point, and an exponent
        point = 0
    elif exponent < 0:
        text[0], text[1] = _ZERO, _POINT
        at = 2
        for _ in range(-exponent - 1):
            text[at] = _ZERO
            at += 1
        point = _DIGITS
    else:
        point = exponent
    whole = max(last, point) if point < _DIGITS else last  # zeros before the point stay
    for _ in range(whole - last):
        number *= 10
    size = whole + 1 + (1 if whole > point else 0)
    end = at + size
    k = end
    for digit in range(whole, -1, -1):
        k -= 1
        text[k] = _ZERO + number % 10
        number //= 10
        if digit == point + 1:
            k -= 1
            text[k] = _POINT
    if exponent < -4:
        text[end], text[end + 1] = _EXPONENT, _MINUS
        text[end + 2] = _ZERO + (-exponent) // 10
        text[end + 3] = _ZERO + (-exponent) % 10
        end += 4
    return end


@kernel
def _write_numbers(values: Any, powers: Any, text: Any, length: Any, value: Any) -> None:
    """Fill a column; length -1 marks rare numbers that this leaves to Python.

    These are negative, below 1e-17, of a million or more, or may be rounded wrongly here.
    """
    for i in range(values.shape[0]):
        v = values[i]
        value[i] = 0.0
        if np.isnan(v):
            length[i] = 0
            continue
        if v == 0.0:
            text[i, 0] = _ZERO
            length[i] = 1
            continue
        length[i] = -1
        if not (v >= 1e-17 and v < 999_999.0):
            continue
        exponent: Any = np.int64(np.floor(np.log10(v)))
        shift = _DIGITS - 1 - exponent
        scaled = v * powers[shift]
        if scaled < 99_999.5:  # the logarithm was rounded up
            exponent -= 1
            shift += 1
            if shift > 22:
                continue
            scaled = v * powers[shift]
        number: Any = np.int64(np.rint(scaled))
        if shift > _EXACT_POWER and abs(abs(scaled - number) - 0.5) < 1e-4:
            continue
        if number == 1_000_000:
            number = 100_000
            exponent += 1
            shift -= 1
        value[i] = number / powers[shift]
        length[i] = _write_number(number, exponent, text[i])


@inlined
def _append(out, at, part):
    """Append bytes; returns the end."""
    here = out[at : at + part.shape[0]]  # the compiler can tell that no index is negative
    for k in range(part.shape[0]):
        here[k] = part[k]
    return at + part.shape[0]


@inlined
def _append_part(out, at, parts, number):
    """Append one of several texts; returns where it ends."""
    return _append(out, at, parts.text[parts.offsets[number] : parts.offsets[number + 1]])


@kernel
def _join_starts(lines, after_alt, names, columns, flags, tails, starts):
    """Write rows' first columns into ``starts``, a ``RowStarts`` with room for them.

    ``lines``: the columns up to ALT, each row with a newline, which is left out; ``after_alt``:
    QUAL and FILTER; ``names``: "AF=" and so on; ``columns``: a ``_Columns``; ``flags`` (m,): the
    number of the text among ``tails`` that ends a row.
    """
    out = starts.text
    at = 0
    for i in range(flags.shape[0]):
        at = _append(out, at, lines.text[lines.offsets[i] : lines.offsets[i + 1] - 1])
        at = _append(out, at, after_alt)
        for c in range(columns.text.shape[0]):
            size = columns.length[c, i]
            if size > 0:
                at = _append_part(out, at, names, c)
                at = _append(out, at, columns.text[c, i, :size])
                out[at] = _SEMICOLON
                at += 1
        at = _append_part(out, at, tails, flags[i])
        starts.offsets[i + 1] = at
