"""Layout of ``panel.h5``: names, versions, text columns, digests and the packing of haplotypes.

``docs/file-formats.md`` describes the file; this module holds what its writer and its reader share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

FORMAT = "ragimpute-panel"
FORMAT_VERSION = 1

SITE_TYPES = ("SNP", "INS", "DEL", "MNP", "OTHER")
BLOCK_ROWS = 64  # rows of bits that are stored together, one bit of a word for each
MAX_WINDOW_SITES = 1020  # the models' longest window

TEXT_DATASETS = ("sites/ref", "sites/alt", "sites/id")
SITE_DATASETS = ("sites/position_bp", "sites/position_cm", "sites/alt_count", "sites/type")
HEAD_DATASETS = ("windows", "haplotypes/sample", "samples/population")  # small, whole in memory
NAME_DATASETS = ("samples/id", "populations/id")
BULK_DATASETS = (
    "haplotypes/carriers",
    "haplotypes/patterns",
    "haplotypes/pattern_count",
    "haplotypes/pattern_index",
    "frequency/population_alt_count",
    "frequency/genotype_count",
)
DATASETS = TEXT_DATASETS + SITE_DATASETS + NAME_DATASETS + HEAD_DATASETS + BULK_DATASETS
# Only where haplotypes exist in parts of the contig alone, as those of males on chrX.
PLOIDY_DATASETS = ("ploidy/start", "ploidy/present")


def new_digest() -> hashlib.blake2b:
    """An empty digest, of the kind that every dataset carries."""
    return hashlib.blake2b(digest_size=16)


def digest_array(digest: hashlib.blake2b, values: np.ndarray) -> None:
    """Add an array's bytes, in C order, to a digest."""
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def content_checksum(contig: str, digests: Mapping[str, str]) -> str:
    """Checksum of a panel's content, from its contig and the digest of each dataset.

    It does not depend on chunking, compression, dates or file names.

    Parameters
    ----------
    contig
        Its name.
    digests
        For each name in ``DATASETS``, and in ``PLOIDY_DATASETS`` where there are such, the
        BLAKE2b-128 of the dataset's little-endian bytes.

    Returns
    -------
    32 hexadecimal digits.
    """
    total = new_digest()
    total.update(f"{FORMAT} {FORMAT_VERSION}\n{contig}\n".encode())
    extra = [name for name in PLOIDY_DATASETS if name in digests]
    for name in (*DATASETS, *extra):
        total.update(f"{name}={digests[name]}\n".encode())
    return total.hexdigest()


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

    Only bytes that are not 0 are looked into: rare alleles leave most of them 0.
    """
    octets = np.ascontiguousarray(bits, dtype="<u8").view(np.uint8)
    where = np.flatnonzero(octets)
    number, bit = np.nonzero(
        np.unpackbits(octets.reshape(-1)[where, None], axis=1, bitorder="little")
    )
    out: np.ndarray = where[number] % (8 * bits.shape[1]) * 8 + bit
    return out


def count_pairs(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare the two haplotypes of each diploid sample, which are neighbours in rows of bits.

    Returns
    -------
    ``num_differ`` and ``num_both``, shape (m,), int64: samples of which one haplotype has the
    allele, and both; and ``differ``, shape (words,), uint64: bit 2 i is set where sample i's
    haplotypes differ in any row.
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

    Near sites are inherited together: a large panel has few patterns. For 100,000 simulated
    haplotypes this takes 3 to 6 times less space than gzipped rows.

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


def patterns_to_rows(patterns: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Undo :func:`rows_to_patterns`; returns shape (64, ceil(H / 64)), uint64."""
    from ragimpute.panel.unpack_kernel import (
        fill_rows,
    )  # numba, which those who only look do not need

    out = np.empty((BLOCK_ROWS, -(-len(index) // 64)), np.uint64)
    squares = np.zeros((BLOCK_ROWS, 8), np.uint64)
    fill_rows(
        np.ascontiguousarray(patterns, np.uint64), np.ascontiguousarray(index, np.uint32), squares,
        out,
    )  # fmt: skip
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


def gaps_to_carriers(gaps: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Undo :func:`carriers_to_gaps`; returns shape (C,), int32, -1 for what is no int32."""
    from ragimpute.panel.unpack_kernel import add_gaps

    out = np.empty(len(gaps), np.int32)
    add_gaps(np.ascontiguousarray(gaps, np.uint32), offsets, out)
    return out


def encode_text(values: Iterable[str]) -> np.ndarray:
    """One line for each value, as UTF-8 bytes: shape (n,), uint8."""
    text = "".join(f"{value}\n" for value in values)
    return np.frombuffer(text.encode(), dtype=np.uint8)


def decode_text(octets: np.ndarray) -> np.ndarray:
    """Undo :func:`encode_text`; returns the lines, shape (M,), object (str)."""
    lines = octets.tobytes().decode().split("\n")[:-1]
    values = np.empty(len(lines), dtype=object)
    values[:] = lines
    return values


def all_index(values: np.ndarray, count: int) -> bool:
    """Whether all values are integers in [0, count)."""
    whole = values.dtype.kind in "iu"
    return whole and bool(((values >= 0) & (values < count)).all())


def cut_windows(position_cm: np.ndarray, window_cm: float) -> np.ndarray:
    """Cut sites into windows of at most ``window_cm`` and 1,020 sites, as even as can be.

    The map's length is cut into equal parts of at most ``window_cm``; parts with more than 1,020
    sites are cut again into equal numbers of sites. Even windows leave no stump at the end.

    Parameters
    ----------
    position_cm
        Shape (M,), float64, cM, non-decreasing; M >= 1.
    window_cm
        Longest window, cM, > 0.

    Returns
    -------
    Shape (W, 2), int64: half-open site ranges that follow on each other from 0 to M.
    """
    span = float(position_cm[-1] - position_cm[0])
    num_parts = max(1, int(np.ceil(span / window_cm)))
    edges = position_cm[0] + span * np.arange(1, num_parts) / num_parts
    cuts = np.searchsorted(position_cm, edges, side="left")
    cuts = np.unique(np.concatenate([[0], cuts, [len(position_cm)]]))
    starts = [
        np.linspace(start, stop, -(-(stop - start) // MAX_WINDOW_SITES) + 1).astype(np.int64)[:-1]
        for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    ]
    bounds = np.append(np.concatenate(starts), len(position_cm))
    return np.stack([bounds[:-1], bounds[1:]], axis=1).astype(np.int64)


def site_type(ref: str, alt: str) -> int:
    """Index into ``SITE_TYPES`` of a pair of alleles."""
    if len(ref) == len(alt):
        return 0 if len(ref) == 1 else 3
    if alt.startswith(ref):
        return 1
    return 2 if ref.startswith(alt) else 4
