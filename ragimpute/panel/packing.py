"""How the alleles of many haplotypes are packed: rows of bits, lists of carriers, patterns.

A *row* holds a site's minor allele as one bit for each haplotype. A site of few carriers is a list
of *carriers* instead, which a file holds as *gaps*, the distances from one to the next. A file
holds 64 rows at a time as the distinct *patterns* of haplotypes over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ragimpute.kernels.bit_transpose import SQUARE, turn_squares
from ragimpute.kernels.compile import kernel
from ragimpute.kernels.shapes import reshaped

BLOCK_ROWS = 64  # rows of bits that are stored together: each pattern has one bit for each row


class PatternBlock(NamedTuple):
    """Up to 64 rows of bits as the distinct patterns of haplotypes over them.

    Attributes
    ----------
    patterns
        Shape (u,), uint64: bit i is that of row i.
    number
        Shape (H,), uint16 or uint32: each haplotype's pattern.
    """

    patterns: np.ndarray
    number: np.ndarray

    @classmethod
    def of(cls, patterns: np.ndarray, index: np.ndarray) -> PatternBlock:
        """With the numbers ``index`` (H,) in 16 bits if they fit."""
        narrow = np.uint16 if len(patterns) <= 1 << 16 else np.uint32
        return cls(patterns, index.astype(narrow, copy=False))


class RowBlocks(NamedTuple):
    """Consecutive rows of bits as patterns of 64 rows each.

    Attributes
    ----------
    first_row
        Rows of the first block that come before the first one, in [0, 64).
    patterns
        The blocks.
    """

    first_row: int
    patterns: Sequence[PatternBlock]


def carrier_limit(num_haplotypes: int) -> int:
    """Largest minor allele count that is kept as a list of carriers, not as a row of bits.

    A carrier takes 32 bits in memory and a row one bit a haplotype: lists are smaller below 3 %;
    2 % leaves room for the gathers that they cost.
    """
    return max(8, num_haplotypes // 50)


def minor_counts(alt_count: np.ndarray, num_haplotypes: int) -> tuple[np.ndarray, np.ndarray]:
    """Which allele is the minor one, and how many haplotypes carry it.

    Parameters
    ----------
    alt_count
        ALT alleles of each site, shape (m,), integer, in [0, num_haplotypes].
    num_haplotypes
        >= 1.

    Returns
    -------
    ``alt_is_minor``, shape (m,), bool, True where both are equally common; ``minor_count``, shape
    (m,), int64.
    """
    alt_count = np.asarray(alt_count, dtype=np.int64)
    alt_is_minor = 2 * alt_count <= num_haplotypes
    return alt_is_minor, np.where(alt_is_minor, alt_count, num_haplotypes - alt_count)


def pack_rows(alleles: np.ndarray) -> np.ndarray:
    """Pack rows of 0/1 into words.

    Parameters
    ----------
    alleles
        Shape (m, H), 0 or 1, any integer dtype or bool.

    Returns
    -------
    Shape (m, ceil(H / 64)), uint64 (little-endian); bit h % 64 of word h // 64 is column h.
    """
    num_sites, num_haplotypes = alleles.shape
    packed = np.zeros((num_sites, -(-num_haplotypes // 64) * 8), dtype=np.uint8)
    packed[:, : -(-num_haplotypes // 8)] = np.packbits(alleles, axis=1, bitorder="little")
    return packed.view("<u8")


def flip_rows(bits: np.ndarray, num_haplotypes: int) -> np.ndarray:
    """Rows of :func:`pack_rows` with 0 and 1 exchanged; unused bits stay 0."""
    every = pack_rows(np.ones((1, num_haplotypes), dtype=np.uint8))
    out: np.ndarray = bits ^ every
    return out


def rows_to_carriers(bits: np.ndarray) -> np.ndarray:
    """Columns of the bits that are set, row after row, ascending in each: int64, shape (C,).

    Only bytes other than 0 are unpacked, as rare alleles leave most bytes 0.
    """
    octets = np.ascontiguousarray(bits, dtype="<u8").view(np.uint8)
    where = np.flatnonzero(octets)
    number, bit = np.nonzero(
        np.unpackbits(octets.reshape(-1)[where, None], axis=1, bitorder="little")
    )
    out: np.ndarray = where[number] % (8 * bits.shape[1]) * 8 + bit
    return out


def count_pairs(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count heterozygous and homozygous carriers; a sample's two haplotypes are neighbouring bits.

    Returns
    -------
    ``num_differ`` and ``num_both``, shape (m,), int64: how many samples have the allele on one
    haplotype, and on both; and ``differ``, shape (words,), uint64: bit 2 i is set if the haplotypes
    of sample i differ in any row.
    """
    first = np.uint64(0x5555555555555555)  # of each pair
    other = bits >> np.uint64(1)
    differ = (bits ^ other) & first
    both = bits & other & first
    return (
        np.bitwise_count(differ).sum(axis=1, dtype=np.int64),
        np.bitwise_count(both).sum(axis=1, dtype=np.int64),
        np.bitwise_or.reduce(differ, axis=0),
    )


def unpack_rows(bits: np.ndarray, num_haplotypes: int) -> np.ndarray:
    """Undo :func:`pack_rows`: words of shape (m, ceil(H / 64)) to 0/1, shape (m, H), int8."""
    octets = np.ascontiguousarray(bits, dtype="<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=num_haplotypes, bitorder="little").view(np.int8)


def transpose_bits(words: np.ndarray) -> np.ndarray:
    """Transpose squares of 64 x 64 bits.

    Parameters
    ----------
    words
        Shape (n, 64), uint64: bit c of word r of a square is its row r, column c.

    Returns
    -------
    Shape (n, 64), uint64: bit r of word c.

    References
    ----------
    Warren, Hacker's Delight, 2nd ed., section 7-3: swap the off-diagonal blocks of 32, 16, ... 1.
    """
    squares = words.T.copy()  # (64, n): each step works on long rows
    for shift in (32, 16, 8, 4, 2, 1):
        mask = np.uint64(sum(((1 << shift) - 1) << at for at in range(0, 64, 2 * shift)))
        pairs = squares.reshape(32 // shift, 2, shift, -1)  # halves of each block of 2 * shift rows
        upper, lower = pairs[:, 0], pairs[:, 1]
        swapped = ((upper >> np.uint64(shift)) ^ lower) & mask
        lower ^= swapped
        upper ^= swapped << np.uint64(shift)
    return squares.T


def rows_to_patterns(bits: np.ndarray, num_haplotypes: int) -> tuple[np.ndarray, np.ndarray]:
    """Write up to 64 rows of bits as the distinct patterns of their haplotypes.

    Neighbouring sites are inherited together, so that even a large panel has few patterns. For
    100,000 simulated haplotypes they take 3 to 6 times less space than gzipped rows.

    Parameters
    ----------
    bits
        Shape (r, ceil(H / 64)), uint64, 1 <= r <= 64, as :func:`pack_rows` gives them.
    num_haplotypes
        H.

    Returns
    -------
    ``patterns``, shape (u,), uint64, ascending: bit i is that of row i. ``index``, shape (H,),
    int64: each haplotype's pattern.
    """
    full = np.zeros((BLOCK_ROWS, bits.shape[1]), dtype="<u8")
    full[: len(bits)] = bits
    words = transpose_bits(full.T).reshape(-1)[:num_haplotypes]  # (H,)
    patterns, index = np.unique(words, return_inverse=True)
    return patterns, index.reshape(-1)


def patterns_to_rows(
    patterns: np.ndarray, index: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Undo :func:`rows_to_patterns`; returns ``out``, shape (64, ceil(H / 64)), uint64."""
    if out is None:
        out = np.empty((BLOCK_ROWS, -(-len(index) // 64)), np.uint64)
    squares = np.zeros((BLOCK_ROWS, 8), np.uint64)
    number = index if index.dtype == np.uint16 else index.astype(np.uint32, copy=False)
    fill_rows(np.ascontiguousarray(patterns, np.uint64), np.ascontiguousarray(number), squares, out)
    return out


def carriers_to_gaps(carriers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Write each site's carriers as its first carrier and the distances to the next ones.

    Parameters
    ----------
    carriers
        Haplotype ids, shape (C,), integer, ascending within a site.
    offsets
        Shape (m + 1,), int64: site i has ``carriers[offsets[i]:offsets[i + 1]]``.

    Returns
    -------
    Shape (C,), uint32.
    """
    gaps = np.diff(carriers, prepend=carriers[:1] * 0)
    starts = offsets[:-1][offsets[:-1] < offsets[1:]]
    gaps[starts] = carriers[starts]
    return gaps.astype("<u4")


def gaps_to_carriers(
    gaps: np.ndarray, offsets: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Undo :func:`carriers_to_gaps`: shape (C,), int32; -1 for ids that int32 cannot hold.

    ``out``: an array of this shape and type for the result, or None.
    """
    if out is None:
        out = np.empty(len(gaps), np.int32)
    add_gaps(np.ascontiguousarray(gaps, np.uint32), offsets, out)
    return out


@kernel
def fill_rows(patterns, index, squares, out):
    """Fill ``out`` (64, G) with rows of bits; ``patterns[index[h]]`` is the column of haplotype h.

    ``index`` (H,), unsigned; ``squares`` (64, w) is a buffer.
    """
    width = squares.shape[1]
    num = index.shape[0]
    for begin in range(0, out.shape[1], width):
        here = min(width, out.shape[1] - begin)
        for g in range(here):
            first = (begin + g) * SQUARE
            for i in range(SQUARE):
                h = first + i
                squares[i, g] = patterns[index[h]] if h < num else np.uint64(0)
        turn_squares(reshaped(squares, (squares.size,)), width)
        for i in range(SQUARE):
            for g in range(here):
                out[i, begin + g] = squares[i, g]


@kernel
def add_gaps(gaps, offsets, out):
    """Add up each site's first carrier and the distances to the next ones: (C,), int32.

    An id that int32 cannot hold becomes -1.
    """
    for site in range(offsets.shape[0] - 1):
        total = np.int64(0)
        for i in range(offsets[site], offsets[site + 1]):
            total += np.int64(gaps[i])
            out[i] = np.int32(total) if total < 2**31 else np.int32(-1)
