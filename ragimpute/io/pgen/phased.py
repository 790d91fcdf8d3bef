"""Phased dosages as PGEN holds them, which the library pgenlib does not write.

References
----------
The PLINK 2 File Format Specification Draft (plink-ng, pgen_spec), "PGEN Format Specification":
storage mode 0x10, variants of two alleles. Records are not compressed by other records, and whole
numbers have a dosage of their own only where their phase needs one.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ragimpute.kernels.compile import inlined, kernel

ONE = 16384  # a dosage of 1; that of a genotype is at most twice this
_NEAR = 1638  # a dosage within 0.1 of a whole number is that genotype, as plink2 imports them
_HALF = ONE // 2  # a heterozygote is phased where its haplotypes differ by this at least
_MISSING = 3  # category of genotypes that are not called; 0 to 2 count ALT
_ONE_BIT, _DIFFERENCES = 1, 4  # forms of genotypes; the second is 4 + the commonest category
_PHASED, _DOSAGE_LIST, _DOSAGE_BITS, _DOSAGE_PHASE = 0x10, 0x20, 0x60, 0x80
_GROUP = 64  # samples of a list whose first one is stored whole
# Longer lists pgenlib does not take: this part of all samples.
_MOST_DIFFERENCES, _MOST_DOSAGES = 8, 9
_BLOCK = 2**16  # variants that the header keeps together
_VARIABLE_WIDTH, _KNOWN_REF, _WIDE_TYPES = 0x10, 1 << 6, 4


def max_record_bytes(num_samples: int) -> int:
    """Bytes that a variant's record has at most."""
    return 6 * num_samples + 64


def encode_phased(total: np.ndarray, delta: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    """Code the dosages of m variants.

    Parameters
    ----------
    total
        Shape (m, N), uint16, 0 to 32,768: dosages, in 1/16384.
    delta
        Shape (m, N), int16: that of the left haplotype less that of the right one, in 1/16384; its
        size is at most ``min(total, 32768 - total)``.

    Returns
    -------
    The records, and their types, shape (m,), uint8.
    """
    num_variants, num_samples = total.shape
    out = np.empty((num_variants, max_record_bytes(num_samples)), np.uint8)
    length, types = np.empty(num_variants, np.int64), np.empty(num_variants, np.uint8)
    category, listed = np.empty(num_samples, np.uint8), np.empty(num_samples + 1, np.int64)
    _encode(
        np.ascontiguousarray(total, np.uint16), np.ascontiguousarray(delta, np.int16), out, length,
        types, category, listed,
    )  # fmt: skip
    return [row[:n].tobytes() for row, n in zip(out, length.tolist(), strict=True)], types


def header_bytes(num_variants: int, num_samples: int) -> int:
    """How long the header of a file is."""
    blocks = -(-num_variants // _BLOCK)
    return 12 + 8 * blocks + num_variants * (1 + _length_bytes(num_samples))


def header(length: np.ndarray, types: np.ndarray, num_samples: int) -> bytes:
    """The header of a file.

    Parameters
    ----------
    length, types
        Of all records, in bytes; shapes (V,).
    num_samples
        N.
    """
    num, width = len(length), _length_bytes(num_samples)
    starts = header_bytes(num, num_samples) + np.cumsum(length) - length
    form = _KNOWN_REF | (_WIDE_TYPES + width - 1)
    parts = [
        b"\x6c\x1b", struct.pack("<BIIB", _VARIABLE_WIDTH, num, num_samples, form),
        starts[::_BLOCK].astype("<u8").tobytes(),
    ]  # fmt: skip
    for first in range(0, num, _BLOCK):
        here = slice(first, first + _BLOCK)
        octets = length[here].astype("<u4").view(np.uint8).reshape(-1, 4)
        parts += (types[here].tobytes(), octets[:, :width].tobytes())
    return b"".join(parts)


def _length_bytes(num_samples: int) -> int:
    """Bytes in which the header stores a record's length."""
    return (max_record_bytes(num_samples).bit_length() + 7) // 8


@inlined
def _put_number(out, at, number):
    """Append a whole number, 7 bits a byte."""
    while number > 127:
        out[at] = (number & 127) | 128
        number >>= 7
        at += 1
    out[at] = number
    return at + 1


@inlined
def _put_value(out, at, value):
    """Append a number of 16 bits."""
    out[at] = value & 255
    out[at + 1] = (value >> 8) & 255
    return at + 2


@inlined
def _clear(out, at, num_bits):
    """Set bits that follow to 0; where the bytes that hold them end."""
    end = at + (num_bits + 7) // 8
    for k in range(at, end):
        out[k] = 0
    return end


@inlined
def _put_list(out, at, listed, num, category, num_samples, with_category):
    """Append a list of samples ("difflist"), perhaps with their categories."""
    at = _put_number(out, at, num)
    if num == 0:
        return at
    # Bytes of a sample: for plink2 and pgenlib N itself has to fit, in the draft N - 1.
    width = 1
    while num_samples >= 1 << (8 * width):
        width += 1
    for first in range(0, num, _GROUP):
        for k in range(width):
            out[at] = (listed[first] >> (8 * k)) & 255
            at += 1
    sizes = at
    at += (num - 1) // _GROUP
    if with_category:
        start = at
        at = _clear(out, at, 2 * num)
        for k in range(num):
            out[start + k // 4] |= category[listed[k]] << (2 * (k % 4))
    for first in range(0, num, _GROUP):
        start = at
        last = min(first + _GROUP, num)
        for k in range(first + 1, last):
            at = _put_number(out, at, listed[k] - listed[k - 1])
        if last < num:
            out[sizes + first // _GROUP] = at - start - (_GROUP - 1)
    return at


@inlined
def _put_genotypes(out, category, listed, num_samples):
    """Begin a record with its genotypes, in the form that is probably the shortest."""
    at = 0
    count_0 = count_1 = count_2 = 0
    for j in range(num_samples):
        count_0 += category[j] == 0
        count_1 += category[j] == 1
        count_2 += category[j] == 2
    first, most = 0, count_0
    for value, count in (
        (1, count_1), (2, count_2), (3, num_samples - count_0 - count_1 - count_2),
    ):  # fmt: skip
        if count > most:
            first, most = value, count
    second, more = -1, -1
    for value, count in (
        (0, count_0), (1, count_1), (2, count_2), (3, num_samples - count_0 - count_1 - count_2),
    ):  # fmt: skip
        if value != first and count > more:
            second, more = value, count
    others, rare = num_samples - most, num_samples - most - more
    plain = (num_samples + 3) // 4
    listing = 4 + 2 * others
    bits = 5 + (num_samples + 7) // 8 + 2 * rare
    form = 0
    if first != 1 and others <= num_samples // _MOST_DIFFERENCES and listing < min(plain, bits):
        form = _DIFFERENCES + first
        num = 0
        for j in range(num_samples):
            listed[num] = j
            num += category[j] != first
        at = _put_list(out, at, listed, num, category, num_samples, True)
    elif rare <= num_samples // _MOST_DIFFERENCES and bits < plain:
        form = _ONE_BIT
        low, high = min(first, second), max(first, second)
        out[at] = 4 * low + high - low
        start = at + 1
        at = _clear(out, start, num_samples)
        num = 0
        for j in range(num_samples):
            out[start + j // 8] |= (category[j] == high) << (j % 8)
            listed[num] = j
            num += category[j] != low and category[j] != high
        at = _put_list(out, at, listed, num, category, num_samples, True)
    else:
        at = _clear(out, at, 2 * num_samples)
        for j in range(num_samples):
            out[j // 4] |= category[j] << (2 * (j % 4))
    return at, form


@inlined
def _put_phase(out, at, total, delta, category, num_samples):
    """Append the phase of heterozygotes: a bit for each of them, and one for each phased one."""
    num_het: Any = 0
    num_phased: Any = 0
    for j in range(num_samples):
        het = category[j] == 1
        num_het += het
        num_phased += het and abs(np.int64(delta[j])) >= _HALF
    if num_phased == 0:
        return at, 0
    start = at
    place = 1
    if num_phased == num_het:
        at = _clear(out, start, 1 + num_het)
    else:
        at = _clear(out, start, 1 + num_het)
        out[start] |= 1
        for j in range(num_samples):
            if category[j] == 1:
                out[start + place // 8] |= (abs(np.int64(delta[j])) >= _HALF) << (place % 8)
                place += 1
        start, place = at, 0
        at = _clear(out, start, num_phased)
    for j in range(num_samples):
        if category[j] == 1 and abs(np.int64(delta[j])) >= _HALF:
            out[start + place // 8] |= (delta[j] > 0) << (place % 8)
            place += 1
    return at, _PHASED


@inlined
def _told(total, delta, category):
    """Whether a reader finds the haplotypes' dosages by the dosage and the genotype alone."""
    implied: Any = 0
    if category == 1 and abs(np.int64(delta)) >= _HALF:
        implied = min(np.int64(total), 2 * ONE - np.int64(total))
    return abs(np.int64(delta)) == implied


@inlined
def _put_dosages(out, at, total, delta, category, listed, num_samples):
    """Append who has a dosage of his own, the dosages, and where needed their phase."""
    num = num_explicit = 0
    for j in range(num_samples):
        listed[num] = j
        told = _told(total[j], delta[j], category[j])
        num += not told or total[j] % ONE != 0
        num_explicit += not told
    if num == 0:
        return at, 0
    kind = _DOSAGE_LIST
    if num <= num_samples // _MOST_DOSAGES and 4 + 2 * num < (num_samples + 7) // 8:
        at = _put_list(out, at, listed, num, category, num_samples, False)
    else:
        kind = _DOSAGE_BITS
        start = at
        at = _clear(out, at, num_samples)
        for k in range(num):
            out[start + listed[k] // 8] |= 1 << (listed[k] % 8)
    for k in range(num):
        at = _put_value(out, at, np.int64(total[listed[k]]))
    if num_explicit == 0:
        return at, kind
    start = at
    at = _clear(out, at, num)
    for k in range(num):
        j = listed[k]
        out[start + k // 8] |= (not _told(total[j], delta[j], category[j])) << (k % 8)
    for k in range(num):
        j = listed[k]
        if not _told(total[j], delta[j], category[j]):
            at = _put_value(out, at, np.int64(delta[j]) & 0xFFFF)
    return at, kind | _DOSAGE_PHASE


@kernel
def _encode(
    total: Any, delta: Any, out: Any, length: Any, types: Any, category: Any, listed: Any
) -> None:
    """Fill records, their lengths and types; ``category`` and ``listed`` are working space."""
    num_variants, num_samples = total.shape
    for i in range(num_variants):
        for j in range(num_samples):
            value = np.int64(total[i, j])
            nearest = (value + _HALF) // ONE
            called = abs(value - nearest * ONE) <= _NEAR
            category[j] = nearest if called else _MISSING
        at, form = _put_genotypes(out[i], category, listed, num_samples)
        at, phase = _put_phase(out[i], at, total[i], delta[i], category, num_samples)
        at, dosage = _put_dosages(out[i], at, total[i], delta[i], category, listed, num_samples)
        length[i] = at
        types[i] = form | phase | dosage
