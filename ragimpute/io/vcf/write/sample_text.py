"""Turn allele probabilities into the text of VCF rows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from ragimpute.io.imputed import NO_CALL
from ragimpute.kernels.compile import inlined, kernel

DIGITS = 3  # decimals of probabilities, if nothing else is asked for
DIGITS_RANGE = (2, 4)
SCALE = 10**DIGITS  # probabilities are written as multiples of 1 / SCALE
CODES = {"GT": 0, "DS": 1, "GP": 2, "HDS": 3, "AP1": 4, "AP2": 5, "LDS": 3}
_NUM_NUMBERS = {"GT": 0, "DS": 1, "GP": 3, "HDS": 2, "AP1": 1, "AP2": 1, "LDS": 2}
_WIDTH = DIGITS_RANGE[1] + 2  # of the longest number, "0.1234"
_TAB, _COLON, _COMMA, _BAR, _SLASH, _DOT, _NEWLINE, _ZERO = (ord(c) for c in "\t:,|/.\n0")


class RowStarts(NamedTuple):
    """The columns of m rows that come before the samples.

    Attributes
    ----------
    text
        Uint8: those of all rows, one after another.
    offsets
        Shape (m + 1,), int64: where each row's columns begin in ``text``, and the end.
    """

    text: np.ndarray
    offsets: np.ndarray


class _Genotypes(NamedTuple):
    """What rows are made of; the two haplotypes of a sample are next to each other."""

    prob: np.ndarray  # (m, 2 N) float32
    bits: np.ndarray  # (m, 2 N) uint32: the bits of ``prob``
    called: np.ndarray  # (m, 2 N) int8


class _CommonEntries(NamedTuple):
    """A row all of whose samples have the common entry, each with its tab before it."""

    row: np.ndarray  # (N * width,) uint8
    width: int  # bytes of an entry; 0 where there is no field
    small: np.uint32  # bits of the P(ALT) below which, on both haplotypes, zeros are written


class _Numbers(NamedTuple):
    """Text of 0, 1 / s, ... 2 without trailing zeros, where s is 10 to the number of digits."""

    text: np.ndarray  # (2 s + 1, 6) uint8
    length: np.ndarray  # (2 s + 1,) int64


def number_texts(digits: int) -> list[str]:
    """The numbers 0, 1 / s, ... 2 as text without trailing zeros, where s is 10^digits."""
    scale = 10**digits
    return [f"{i / scale:.{digits}f}".rstrip("0").rstrip(".") for i in range(2 * scale + 1)]


@cache
def _make_numbers(digits: int) -> _Numbers:
    """The table of numbers as text."""
    texts = number_texts(digits)
    text = np.zeros((len(texts), _WIDTH), dtype=np.uint8)
    length = np.zeros(len(texts), dtype=np.int64)
    for i, number in enumerate(map(str.encode, texts)):
        text[i, : len(number)] = np.frombuffer(number, dtype=np.uint8)
        length[i] = len(number)
    return _Numbers(text, length)


def check_digits(digits: int) -> None:
    """Refuse a number of decimals that cannot be written.

    Raises
    ------
    ValueError
        If it is not in ``DIGITS_RANGE``.
    """
    low, high = DIGITS_RANGE
    if not low <= digits <= high:
        raise ValueError(f"digits must be in [{low}, {high}], found {digits}")


def max_row_bytes(formats: Sequence[str], num_samples: int, digits: int = DIGITS) -> int:
    """Room that the samples of a row need at most, with the slack that the kernel wants."""
    # GT: "0|0:"; of a number: "0.123" and what follows it.
    each = sum(4 if name == "GT" else (digits + 3) * _NUM_NUMBERS[name] for name in formats)
    return num_samples * (1 + each) + 1 + _WIDTH


class RowFormatter:
    """Formats rows as text, into a buffer that every call overwrites.

    Parameters
    ----------
    formats
        FORMAT fields in order.
    digits
        Decimals of numbers, 2 to 4.
    """

    def __init__(self, formats: Sequence[str], digits: int = DIGITS) -> None:
        check_digits(digits)
        self._formats, self._digits = list(formats), digits
        # Twice this is half of what the last digit counts.
        self._small = np.float32(0.25 / 10**digits).view(np.uint32)
        self._codes = np.array([CODES[name] for name in formats], dtype=np.int64)
        self._buffer = np.zeros(0, dtype=np.uint8)
        one = np.zeros((1, 1, 2), dtype=np.float32)
        called = np.full((1, 1, 2), -1, dtype=np.int8)
        self._common = self._row_of_common = np.zeros(0, dtype=np.uint8)
        if len(formats):  # by far the commonest entry: neither haplotype has ALT
            row, _ = self.format(
                one, called, RowStarts(np.zeros(0, np.uint8), np.zeros(2, np.int64))
            )
            self._common = np.frombuffer(bytes(row)[:-1], dtype=np.uint8).copy()

    def format(
        self, allele_prob: np.ndarray, called: np.ndarray, starts: RowStarts
    ) -> tuple[memoryview, np.ndarray]:
        """Rows as text.

        Parameters
        ----------
        allele_prob
            Shape (m, N, 2), float32, in [0, 1]; NaN in [..., 1] where haploid.
        called
            Shape (m, N, 2), int8: observed alleles, or -1; -2 in [..., 1] where haploid;
            ``NO_CALL`` of :mod:`ragimpute.io.imputed` where GT is missing.
        starts
            The first nine columns of each of the m rows.

        Returns
        -------
        The text, good until the next call, and shape (m,), int64: where each row ends in it.

        Raises
        ------
        ValueError
            If a probability is not in [0, 1].
        """
        num_rows, num_samples, _ = allele_prob.shape
        need = (
            len(starts.text)
            + num_rows * max_row_bytes(self._formats, num_samples, self._digits)
            + 64
        )
        if len(self._buffer) < need:
            self._buffer = np.empty(need, dtype=np.uint8)
        if len(self._row_of_common) != num_samples * len(self._common):
            self._row_of_common = np.tile(self._common, num_samples)
        ends = np.empty(num_rows, dtype=np.int64)
        # Both haplotypes of a sample in a row; of no row the width cannot be inferred.
        flat = (num_rows, 2 * num_samples)
        prob = np.ascontiguousarray(allele_prob, dtype=np.float32).reshape(flat)
        called = np.ascontiguousarray(called, dtype=np.int8).reshape(flat)
        size = _format_rows(
            _Genotypes(prob, prob.view(np.uint32), called), starts, self._codes,
            _CommonEntries(self._row_of_common, len(self._common), self._small),
            _make_numbers(self._digits), self._buffer, ends,
        )  # fmt: skip
        if size < 0:
            raise ValueError("allele_prob must be in [0, 1], with NaN only in [..., 1]")
        return self._buffer.data[:size], ends


@inlined
def _put(out, at, number, numbers):
    """Append a number of the table; returns the end."""
    here = out[at : at + _WIDTH]
    for k in range(_WIDTH):
        here[k] = numbers.text[number, k]
    return at + numbers.length[number]


@inlined
def _is_plain(bits, called, small):
    """Whether all entries of a row are the common one.

    ``bits`` (2 N,) are of float32; ``small`` is that of ``_CommonEntries``. Compared as
    integers, the bits of a negative number or of NaN are larger than those of a small number.
    """
    largest = np.uint32(0)
    for k in range(bits.shape[0]):
        largest = max(largest, bits[k])
    if largest >= small:
        return False
    most = np.uint8(0)
    for k in range(called.shape[0]):
        most = max(most, np.uint8(called[k] + np.int8(1)))  # -1, 0: as ALT is not likely
    return most <= np.uint8(1)


@inlined
def _is_common(bits, c1, c2, small):
    """Whether an entry is the common one: diploid, and ALT next to impossible."""
    unlikely = (bits[0] < small) & (bits[1] < small)
    return unlikely & (c1 <= 0) & (np.uint8(c2 + np.int8(1)) <= np.uint8(1))


@inlined
def _copy(part, size, out, at):
    """Write the first ``size`` bytes of ``part``; returns the end."""
    here = out[at : at + size]  # the compiler can tell that no index into it is negative
    for k in range(size):
        here[k] = part[k]
    return at + size


@inlined
def _put_entry(out, at, codes, f1, f2, c1, c2, numbers):
    """Append the fields of one sample; returns the end, or -1 for a wrong probability.

    ``f1``, ``f2``: P(ALT) of both haplotypes; ``c1``, ``c2``: their observed alleles.
    """
    p1, p2 = np.float64(f1), np.float64(f2)
    haploid = np.isnan(p2) or c2 == -2
    if not (p1 >= 0 and p1 <= 1):
        return -1
    if not haploid and not (p2 >= 0 and p2 <= 1):
        return -1
    out[at] = _TAB
    at += 1
    scale = np.int64(numbers.text.shape[0] // 2)
    h1 = np.int64(p1 * scale + 0.5)
    h2 = np.int64(0) if haploid else np.int64(p2 * scale + 0.5)
    for n in range(len(codes)):
        code = codes[n]
        if n:
            out[at] = _COLON
            at += 1
        if code == 0 and c1 == NO_CALL:
            out[at] = _DOT
            at += 1
            if not haploid:
                out[at] = _SLASH
                out[at + 1] = _DOT
                at += 2
        elif code == 0:
            a1 = np.int64(c1) if c1 >= 0 else np.int64(p1 > 0.5)
            out[at] = _ZERO + a1
            at += 1
            if not haploid:
                a2 = np.int64(c2) if c2 >= 0 else np.int64(p2 > 0.5)
                out[at] = _BAR
                out[at + 1] = _ZERO + a2
                at += 2
        elif code == 1:
            dosage = h1 if haploid else np.int64((p1 + p2) * scale + 0.5)
            at = _put(out, at, dosage, numbers)
        elif code == 2 and haploid:
            at = _put(out, at, scale - h1, numbers)
            out[at] = _COMMA
            at = _put(out, at + 1, h1, numbers)
        elif code == 2:
            g0 = np.int64((1 - p1) * (1 - p2) * scale + 0.5)
            g2 = np.int64(p1 * p2 * scale + 0.5)
            at = _put(out, at, g0, numbers)
            out[at] = _COMMA
            at = _put(out, at + 1, max(0, scale - g0 - g2), numbers)
            out[at] = _COMMA
            at = _put(out, at + 1, g2, numbers)
        elif code == 3:
            at = _put(out, at, h1, numbers)
            if not haploid:
                out[at] = _COMMA
                at = _put(out, at + 1, h2, numbers)
        elif code == 4:
            at = _put(out, at, h1, numbers)
        elif haploid:
            out[at] = _DOT
            at += 1
        else:
            at = _put(out, at, h2, numbers)
    return at


@kernel
def _format_rows(genotypes, starts, codes, common, numbers, out, ends):
    """Write rows into ``out``; returns the bytes written, or -1 for a wrong probability.

    ``ends`` (m,): where each row ends in ``out``. The arguments before are a ``_Genotypes``, a
    ``RowStarts``, the codes of the FORMAT fields, a ``_CommonEntries`` and a ``_Numbers``.
    """
    prob, bits, called = genotypes
    num_rows, num_samples = prob.shape[0], prob.shape[1] // 2
    width, small = common.width, common.small
    at = 0
    for i in range(num_rows):
        first, last = starts.offsets[i], starts.offsets[i + 1]
        at = _copy(starts.text[first:], last - first, out, at)
        if width > 0 and _is_plain(bits[i], called[i], small):
            at = _copy(common.row, width * num_samples, out, at)
            out[at] = _NEWLINE
            at += 1
            ends[i] = at
            continue
        j = 0
        while True:
            first = j
            while (
                width > 0
                and j < num_samples
                and _is_common(
                    bits[i, 2 * j : 2 * j + 2], called[i, 2 * j], called[i, 2 * j + 1], small
                )
            ):
                j += 1
            at = _copy(common.row, width * (j - first), out, at)
            if j == num_samples:
                break
            k = 2 * j
            j += 1
            at = _put_entry(
                out, at, codes, prob[i, k], prob[i, k + 1], called[i, k], called[i, k + 1], numbers
            )
            if at < 0:
                return -1
        out[at] = _NEWLINE
        at += 1
        ends[i] = at
    return at
