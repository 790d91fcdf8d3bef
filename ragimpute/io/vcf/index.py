"""Make tabix (.tbi) and CSI (.csi) indexes from the places of records, as they were written.

References
----------
The Tabix and CSI specifications of hts-specs (https://samtools.github.io/hts-specs/).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

MIN_SHIFT = 14
TBI_DEPTH = 5
TBI_MAX_BP = 2**29 - 1
_TABIX_VCF = (2, 1, 2, 0, ord("#"), 0)  # format, columns of contig, begin and end, comment, skip


@dataclass(frozen=True)
class ContigRecords:
    """Where the records of one contig lie.

    Attributes
    ----------
    begin, end
        Shape (M,), int64: half-open intervals, 0-based; ``begin`` does not decrease.
    start, stop
        Shape (M,), uint64: virtual offsets of each record and of what follows it.
    """

    begin: np.ndarray
    end: np.ndarray
    start: np.ndarray
    stop: np.ndarray


def tabix_index(contigs: dict[str, ContigRecords]) -> bytes:
    """A .tbi of a VCF, not yet compressed; contigs in file order, each with records."""
    names = b"".join(name.encode() + b"\0" for name in contigs)
    parts = [b"TBI\1", struct.pack("<8i", len(contigs), *_TABIX_VCF, len(names)), names]
    for records in contigs.values():
        parts.append(_bins(records, TBI_DEPTH, csi=False))
        linear = _linear(records)
        parts += [struct.pack("<i", len(linear)), linear.astype("<u8").tobytes()]
    parts.append(struct.pack("<Q", 0))
    return b"".join(parts)


def csi_index(
    contigs: dict[str, ContigRecords], *, names: list[str], tabix: bool, max_bp: int
) -> bytes:
    """A .csi, not yet compressed.

    Parameters
    ----------
    contigs
        Those with records.
    names
        Every contig of the header, in its order; used by BCF.
    tabix
        For a VCF: the index carries the names of ``contigs``.
    max_bp
        The last position to be indexed; it sets the depth.
    """
    depth = csi_depth(max_bp)
    aux = b""
    if tabix:
        names = list(contigs)
        joined = b"".join(name.encode() + b"\0" for name in names)
        aux = struct.pack("<7i", *_TABIX_VCF, len(joined)) + joined
    parts = [b"CSI\1", struct.pack("<3i", MIN_SHIFT, depth, len(aux)), aux]
    parts.append(struct.pack("<i", len(names)))
    for name in names:
        held = name in contigs
        parts.append(_bins(contigs[name], depth, csi=True) if held else struct.pack("<i", 0))
    parts.append(struct.pack("<Q", 0))
    return b"".join(parts)


def csi_depth(max_bp: int) -> int:
    """Levels of bins, at least those of a .tbi, so that ``max_bp`` fits."""
    depth = TBI_DEPTH
    while max_bp >= 1 << (MIN_SHIFT + 3 * depth):
        depth += 1
    return depth


def bin_numbers(begin: np.ndarray, end: np.ndarray, depth: int) -> np.ndarray:
    """The smallest bin that holds each interval [begin, end), int64."""
    last = end - 1
    number = np.zeros(len(begin), dtype=np.int64)
    open_ = np.ones(len(begin), dtype=bool)
    shift, first = MIN_SHIFT, ((1 << 3 * depth) - 1) // 7
    for level in range(depth, 0, -1):
        fits = open_ & (begin >> shift == last >> shift)
        number[fits] = first + (begin[fits] >> shift)
        open_ &= ~fits
        shift += 3
        first -= 1 << 3 * (level - 1)
    return number


def _linear(records: ContigRecords) -> np.ndarray:
    """For each 16 kb, where its first overlapping record starts, uint64."""
    num_windows = int((records.end.max() - 1) >> MIN_SHIFT) + 1
    linear = np.full(num_windows, np.iinfo(np.uint64).max, dtype=np.uint64)
    first, last = records.begin >> MIN_SHIFT, (records.end - 1) >> MIN_SHIFT
    np.minimum.at(linear, first, records.start)
    for i in np.flatnonzero(last > first):
        span = slice(int(first[i]) + 1, int(last[i]) + 1)
        linear[span] = np.minimum(linear[span], records.start[i])
    empty = linear == np.iinfo(np.uint64).max
    linear[empty] = 0
    return np.maximum.accumulate(linear)  # an empty window: as the one before


def _bins(records: ContigRecords, depth: int, *, csi: bool) -> bytes:
    """The bins of a contig and their chunks, and htslib's extra bin with the number of records."""
    number = bin_numbers(records.begin, records.end, depth)
    edge = np.flatnonzero(np.diff(number)) + 1  # records in a row of one bin make a chunk
    first = np.concatenate([[0], edge])
    last = np.concatenate([edge, [len(number)]]) - 1
    order = np.argsort(number[first], kind="stable")
    linear = _linear(records) if csi else np.zeros(0, dtype=np.uint64)
    parts: list[bytes] = []
    chunks: dict[int, list[bytes]] = {}
    for i in order.tolist():
        chunk = struct.pack("<QQ", int(records.start[first[i]]), int(records.stop[last[i]]))
        chunks.setdefault(int(number[first[i]]), []).append(chunk)
    for bin_number, of_bin in chunks.items():
        parts.append(struct.pack("<I", bin_number))
        if csi:
            window = _first_window(bin_number, depth)
            parts.append(struct.pack("<Q", int(linear[window])))
        parts += [struct.pack("<i", len(of_bin)), *of_bin]
    extra = ((1 << 3 * (depth + 1)) - 1) // 7 + 1
    parts.append(struct.pack("<I", extra) + (struct.pack("<Q", 0) if csi else b""))
    whole = (int(records.start[0]), int(records.stop[-1]))
    parts.append(struct.pack("<iQQQQ", 2, *whole, len(number), 0))
    return struct.pack("<i", len(chunks) + 1) + b"".join(parts)


def _first_window(bin_number: int, depth: int) -> int:
    """The first 16 kb of a bin."""
    level, first = 0, 0
    while bin_number >= first + (1 << 3 * level):
        first += 1 << 3 * level
        level += 1
    return (bin_number - first) << 3 * (depth - level)
