"""Turn allele probabilities into the text of VCF rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ragimpute.kernels.compile import inlined, kernel

SCALE = 1000  # probabilities are written as multiples of 1 / SCALE
CODES = {"GT": 0, "DS": 1, "GP": 2, "HDS": 3, "AP1": 4, "AP2": 5, "LDS": 3}
_MAX_BYTES = {"GT": 4, "DS": 6, "GP": 18, "HDS": 12, "AP1": 6, "AP2": 6, "LDS": 12}
_WIDTH = 5  # of the longest number, "0.123"
# If P(ALT) of both haplotypes is less than this, only zeros are written of them.
_SMALL = np.float32(0.00025)
_SMALL_BITS = _SMALL.view(np.uint32)
_TAB, _COLON, _COMMA, _BAR, _DOT, _NEWLINE, _ZERO = (ord(c) for c in "\t:,|.\n0")


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


class _Numbers(NamedTuple):
    """Text of 0, 0.001, ... 2 without trailing zeros."""

    text: np.ndarray  # (2001, 5) uint8
    length: np.ndarray  # (2001,) int64


def _make_numbers() -> _Numbers:
    """The table of numbers as text."""
    text = np.zeros((2 * SCALE + 1, _WIDTH), dtype=np.uint8)
    length = np.zeros(2 * SCALE + 1, dtype=np.int64)
    for i in range(2 * SCALE + 1):
        number = f"{i / SCALE:.3f}".rstrip("0").rstrip(".").encode()
        text[i, : len(number)] = np.frombuffer(number, dtype=np.uint8)
        length[i] = len(number)
    return _Numbers(text, length)


_NUMBERS = _make_numbers()


def max_row_bytes(formats: Sequence[str], num_samples: int) -> int:
    """Room that the samples of a row need at most, with the slack that the kernel wants."""
    return num_samples * (1 + sum(_MAX_BYTES[name] for name in formats)) + 1 + _WIDTH


class RowFormatter:
    """Formats rows as text, into a buffer that every call overwrites.

    Parameters
    ----------
    formats
        FORMAT fields in order.
    """

    def __init__(self, formats: Sequence[str]) -> None:
        self._formats = list(formats)
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
            Shape (m, N, 2), int8: observed alleles, or -1; -2 in [..., 1] where haploid.
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
        need = len(starts.text) + num_rows * max_row_bytes(self._formats, num_samples) + 64
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
            _CommonEntries(self._row_of_common, len(self._common)), _NUMBERS, self._buffer, ends,
        )  # fmt: skip
        if size < 0:
            raise ValueError("allele_prob must be in [0, 1], with NaN only in [..., 1]")
        return self._buffer.data[:size], ends


@inlined
def _put(out, at, number, numbers):
    """Append a number of thousandths; returns the end."""
    here = out[at : at + _WIDTH]
    for k in range(_WIDTH):
        here[k] = numbers.text[number, k]
    return at + numbers.length[number]


@inlined
def _is_plain(bits, called):
    """Whether all entries of a row are the common one.

    ``bits`` (2 N,) are of float32. Compared as integers, the bits of a negative number or of NaN
    are larger than those of a small number.
    """
    largest = np.uint32(0)
    for k in range(bits.shape[0]):
        largest = max(largest, bits[k])
    if largest >= _SMALL_BITS:
        return False
    most = np.uint8(0)
    for k in range(called.shape[0]):
        most = max(most, np.uint8(called[k] + np.int8(1)))  # -1, 0: as ALT is not likely
    return most <= np.uint8(1)


@inlined
def _is_common(bits, c1, c2):
    """Whether an entry is the common one: diploid, and ALT next to impossible."""
    unlikely = (bits[0] < _SMALL_BITS) & (bits[1] < _SMALL_BITS)
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
    h1 = np.int64(p1 * SCALE + 0.5)
    h2 = np.int64(0) if haploid else np.int64(p2 * SCALE + 0.5)
    for n in range(len(codes)):
        code = codes[n]
        if n:
            out[at] = _COLON
            at += 1
        if code == 0:
            a1 = np.int64(c1) if c1 >= 0 else np.int64(p1 > 0.5)
            out[at] = _ZERO + a1
            at += 1
            if not haploid:
                a2 = np.int64(c2) if c2 >= 0 else np.int64(p2 > 0.5)
                out[at] = _BAR
                out[at + 1] = _ZERO + a2
                at += 2
        elif code == 1:
            dosage = h1 if haploid else np.int64((p1 + p2) * SCALE + 0.5)
            at = _put(out, at, dosage, numbers)
        elif code == 2 and haploid:
            at = _put(out, at, SCALE - h1, numbers)
            out[at] = _COMMA
            at = _put(out, at + 1, h1, numbers)
        elif code == 2:
            g0 = np.int64((1 - p1) * (1 - p2) * SCALE + 0.5)
            g2 = np.int64(p1 * p2 * SCALE + 0.5)
            at = _put(out, at, g0, numbers)
            out[at] = _COMMA
            at = _put(out, at + 1, max(0, SCALE - g0 - g2), numbers)
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
    width = common.width
    at = 0
    for i in range(num_rows):
        first, last = starts.offsets[i], starts.offsets[i + 1]
        at = _copy(starts.text[first:], last - first, out, at)
        if width > 0 and _is_plain(bits[i], called[i]):
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
                and _is_common(bits[i, 2 * j : 2 * j + 2], called[i, 2 * j], called[i, 2 * j + 1])
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
