"""Turn allele probabilities into the text of VCF rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragimpute.kernels.compile import inlined, kernel

SCALE = 1000  # probabilities are written as multiples of 1 / SCALE
CODES = {"GT": 0, "DS": 1, "GP": 2, "HDS": 3, "AP1": 4, "AP2": 5, "LDS": 3}
_MAX_BYTES = {"GT": 4, "DS": 6, "GP": 18, "HDS": 12, "AP1": 6, "AP2": 6, "LDS": 12}
_WIDTH = 5  # of the longest number, "0.123"
# Less than this, of both haplotypes: all that is written of them is zeros.
_SMALL = np.float32(0.00025)
_SMALL_BITS = _SMALL.view(np.uint32)
_TAB, _COLON, _COMMA, _BAR, _DOT, _NEWLINE, _ZERO = (ord(c) for c in "\t:,|.\n0")


def _numbers() -> tuple[np.ndarray, np.ndarray]:
    """Text of 0, 0.001, ... 2 without trailing zeros: (2001, 5) uint8, and lengths."""
    text = np.zeros((2 * SCALE + 1, _WIDTH), dtype=np.uint8)
    length = np.zeros(2 * SCALE + 1, dtype=np.int64)
    for i in range(2 * SCALE + 1):
        number = f"{i / SCALE:.3f}".rstrip("0").rstrip(".").encode()
        text[i, : len(number)] = np.frombuffer(number, dtype=np.uint8)
        length[i] = len(number)
    return text, length


_TEXT, _LENGTH = _numbers()


def max_row_bytes(formats: Sequence[str], num_samples: int) -> int:
    """Room that the samples of a row need at most, with the slack that the kernel wants."""
    return num_samples * (1 + sum(_MAX_BYTES[name] for name in formats)) + 1 + _WIDTH


class RowFormatter:
    """Formats rows into a buffer that it uses again.

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
        if len(formats):  # the entry of a haplotype pair without ALT, by far the commonest
            row, _ = self.format(one, called, (np.zeros(0, np.uint8), np.zeros(2, np.int64)))
            self._common = np.frombuffer(bytes(row)[:-1], dtype=np.uint8).copy()

    def format(
        self, allele_prob: np.ndarray, called: np.ndarray, starts: tuple[np.ndarray, np.ndarray]
    ) -> tuple[memoryview, np.ndarray]:
        """Rows as text.

        Parameters
        ----------
        allele_prob
            Shape (m, N, 2), float32, in [0, 1]; NaN in [..., 1] where haploid.
        called
            Shape (m, N, 2), int8: observed alleles, or -1; -2 in [..., 1] where haploid.
        starts
            The first nine columns of each row, as
            :func:`ragimpute.io.vcf.write.info_text.row_starts` gives them.

        Returns
        -------
        The text, good until the next call, and shape (m,), int64: where each row ends in it.

        Raises
        ------
        ValueError
            If a probability is not in [0, 1].
        """
        num_rows, num_samples, _ = allele_prob.shape
        text, offsets = starts
        need = len(text) + num_rows * max_row_bytes(self._formats, num_samples) + 64
        if len(self._buffer) < need:
            self._buffer = np.empty(need, dtype=np.uint8)
        if len(self._row_of_common) != num_samples * len(self._common):
            self._row_of_common = np.tile(self._common, num_samples)
        ends = np.empty(num_rows, dtype=np.int64)
        prob = np.ascontiguousarray(allele_prob, dtype=np.float32)
        called = np.ascontiguousarray(called, dtype=np.int8)
        size = _format_rows(
            prob,
            prob.view(np.uint32).reshape(num_rows, -1),
            called.reshape(num_rows, -1),
            called,
            text,
            offsets,
            self._codes,
            self._row_of_common,
            len(self._common),
            _TEXT,
            _LENGTH,
            self._buffer,
            ends,
        )
        if size < 0:
            raise ValueError("allele_prob must be in [0, 1], with NaN only in [..., 1]")
        return self._buffer.data[:size], ends


@inlined
def _put(out, at, number, text, length):
    """Append a number of thousandths."""
    here = out[at : at + _WIDTH]
    for k in range(_WIDTH):
        here[k] = text[number, k]
    return at + length[number]


@inlined
def _is_plain(bits, called):
    """Whether all entries of a row are the common one.

    ``bits`` of float32: as integers, what is negative or no number is larger than what is small.
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
    here = out[at : at + size]  # whose places are not negative, as the compiler can tell
    for k in range(size):
        here[k] = part[k]
    return at + size


@kernel
def _format_rows(
    prob,
    bits,
    called_rows,
    called,
    prefix,
    offsets,
    codes,
    common,
    num_common,
    text,
    length,
    out,
    ends,
):
    """Write rows into ``out``; returns the bytes written, or -1 for a wrong probability.

    ``common``: the entries of a row all of which are common, ``num_common`` bytes each.
    """
    num_rows, num_samples = prob.shape[0], prob.shape[1]
    at = 0
    for i in range(num_rows):
        at = _copy(prefix[offsets[i] :], offsets[i + 1] - offsets[i], out, at)
        if num_common > 0 and _is_plain(bits[i], called_rows[i]):
            at = _copy(common, num_common * num_samples, out, at)
            out[at] = _NEWLINE
            at += 1
            ends[i] = at
            continue
        j = 0
        while True:
            first = j
            while (
                num_common > 0
                and j < num_samples
                and _is_common(bits[i, 2 * j : 2 * j + 2], called[i, j, 0], called[i, j, 1])
            ):
                j += 1
            at = _copy(common, num_common * (j - first), out, at)
            if j == num_samples:
                break
            f1, f2 = prob[i, j, 0], prob[i, j, 1]
            c1, c2 = called[i, j, 0], called[i, j, 1]
            j += 1
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
                    at = _put(out, at, dosage, text, length)
                elif code == 2 and haploid:
                    at = _put(out, at, SCALE - h1, text, length)
                    out[at] = _COMMA
                    at = _put(out, at + 1, h1, text, length)
                elif code == 2:
                    g0 = np.int64((1 - p1) * (1 - p2) * SCALE + 0.5)
                    g2 = np.int64(p1 * p2 * SCALE + 0.5)
                    at = _put(out, at, g0, text, length)
                    out[at] = _COMMA
                    at = _put(out, at + 1, max(0, SCALE - g0 - g2), text, length)
                    out[at] = _COMMA
                    at = _put(out, at + 1, g2, text, length)
                elif code == 3:
                    at = _put(out, at, h1, text, length)
                    if not haploid:
                        out[at] = _COMMA
                        at = _put(out, at + 1, h2, text, length)
                elif code == 4:
                    at = _put(out, at, h1, text, length)
                elif haploid:
                    out[at] = _DOT
                    at += 1
                else:
                    at = _put(out, at, h2, text, length)
        out[at] = _NEWLINE
        at += 1
        ends[i] = at
    return at
