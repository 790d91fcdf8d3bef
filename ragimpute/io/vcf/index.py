"""Tabix (.tbi) and CSI (.csi) indexes: made while records are written, and read.

References
----------
The Tabix and CSI specifications of hts-specs (https://samtools.github.io/hts-specs/).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragimpute.io.vcf.header import VcfHeader
from ragimpute.sites import Region, Sites
from ragimpute.symbolic import last_base

MIN_SHIFT = 14
TBI_DEPTH = 5
TBI_MAX_BP = 2**29 - 1
_TABIX_VCF = (2, 1, 2, 0, ord("#"), 0)  # format, columns of contig, begin and end, comment, skip


@dataclass(frozen=True)
class ContigRecords:
    """Where the M records of one contig lie, on the contig and in the file.

    Attributes
    ----------
    begin, end
        Shape (M,), int64: half-open intervals of the contig, 0-based; ``begin`` does not decrease.
    start, stop
        Shape (M,), uint64: the virtual offsets in the file where each record begins and ends.
    """

    begin: np.ndarray
    end: np.ndarray
    start: np.ndarray
    stop: np.ndarray


def tabix_index(contigs: dict[str, ContigRecords]) -> bytes:
    """Make the .tbi of a VCF, uncompressed, of its contigs with records in file order."""
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
    """Make a .csi, uncompressed.

    Parameters
    ----------
    contigs
        The contigs with records, in file order.
    names
        All contigs of the header, in its order; of use for a BCF.
    tabix
        Whether the file is a VCF, whose index holds the names of ``contigs``.
    max_bp
        The last position that a record reaches, on which the number of levels depends.
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
    """How many levels of bins reach to ``max_bp``; at least as many as a .tbi has."""
    depth = TBI_DEPTH
    while max_bp >= 1 << (MIN_SHIFT + 3 * depth):
        depth += 1
    return depth


def bin_numbers(begin: np.ndarray, end: np.ndarray, depth: int) -> np.ndarray:
    """The number of the smallest bin that holds each interval [begin, end), int64."""
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
    """For each 16 kb of the contig the virtual offset of the first record that overlaps it."""
    num_windows = int((records.end.max() - 1) >> MIN_SHIFT) + 1
    linear = np.full(num_windows, np.iinfo(np.uint64).max, dtype=np.uint64)
    first, last = records.begin >> MIN_SHIFT, (records.end - 1) >> MIN_SHIFT
    np.minimum.at(linear, first, records.start)
    for i in np.flatnonzero(last > first):
        span = slice(int(first[i]) + 1, int(last[i]) + 1)
        linear[span] = np.minimum(linear[span], records.start[i])
    empty = linear == np.iinfo(np.uint64).max
    linear[empty] = 0
    return np.maximum.accumulate(linear)  # without such a record: the offset of the 16 kb before


def _bins(records: ContigRecords, depth: int, *, csi: bool) -> bytes:
    """The bins of a contig and their chunks, and htslib's extra bin with the number of records."""
    number = bin_numbers(records.begin, records.end, depth)
    edge = np.flatnonzero(np.diff(number)) + 1  # consecutive records of one bin make a chunk
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
    """The number of the first 16 kb of the contig that lie in a bin."""
    level, first = 0, 0
    while bin_number >= first + (1 << 3 * level):
        first += 1 << 3 * level
        level += 1
    return (bin_number - first) << 3 * (depth - level)


def index_path(header: VcfHeader) -> Path | None:
    """The index that htslib would use; None if there is none, or it is older than the file."""
    path = header.path
    if header.compression != "bgzf" or header.is_bcf != path.name.endswith(".bcf"):
        return None  # cyvcf2 chooses the kind of index by the name
    suffixes = (".csi",) if header.is_bcf else (".csi", ".tbi")
    for suffix in suffixes:
        index = path.with_name(path.name + suffix)
        if index.is_file():
            return index if index.stat().st_mtime >= path.stat().st_mtime else None
    return None


# An index with more bits or levels than these has positions beyond the 64 bits of htslib.
_MAX_SHIFT, _MAX_DEPTH = 30, 10


@dataclass(frozen=True)
class VcfIndex:
    """What a .tbi or .csi says.

    Attributes
    ----------
    chunks
        For each contig with records its chunks: the number of the bin, and the virtual offsets
        where the chunk begins and ends.
    min_shift, depth
        The smallest bins are 2^min_shift bp long; there are ``depth`` levels above them.
    num_records
        For each contig with records their number, if the index says it, as those of htslib do.
    """

    chunks: dict[str, list[tuple[int, int, int]]]
    min_shift: int
    depth: int
    num_records: dict[str, int]

    def first_offset(self, contig: str, region: Region) -> int:
        """A virtual offset at or before the region's first record; -1 if it has no record."""
        found = [start for start, _ in self._chunks_of(contig, region)]
        return min(found, default=-1)

    def byte_range(self, contig: str, region: Region) -> tuple[int, int]:
        """The bytes where the first and last block begin that may hold the region's records."""
        found = self._chunks_of(contig, region)
        if not found:
            return 0, 0
        return min(start for start, _ in found) >> 16, max(stop for _, stop in found) >> 16

    def _chunks_of(self, contig: str, region: Region) -> list[tuple[int, int]]:
        """Virtual offsets of the chunks that may hold the region's records."""
        found = []
        for number, start, stop in self.chunks[contig]:
            level, first = 0, 0
            while number >= first + (1 << 3 * level):
                first += 1 << 3 * level
                level += 1
            shift = self.min_shift + 3 * (self.depth - level)
            begin, end = (number - first) << shift, (number - first + 1) << shift
            if level <= self.depth and begin < region.stop_bp - 1 and end >= region.start_bp:
                found.append((start, stop))
        return found


def read_index(header: VcfHeader) -> VcfIndex | None:
    """The file's index; None if there is none, or it is older than the file or damaged."""
    path = index_path(header)
    if path is None:
        return None
    try:
        with gzip.open(path, "rb") as file:
            return _parse_index(file.read(), header)
    except (OSError, EOFError, zlib.error, struct.error, LookupError, ValueError):
        return None


def _parse_index(raw: bytes, header: VcfHeader) -> VcfIndex | None:
    """Parse a decompressed .tbi or .csi; None if it is neither."""
    min_shift, depth, offset_bytes = MIN_SHIFT, TBI_DEPTH, 0
    if raw[:4] == b"TBI\1":
        num_contigs, *_, names_length = struct.unpack_from("<8i", raw, 4)
        at, names = 36 + max(0, names_length), raw[36 : 36 + names_length]
    elif raw[:4] == b"CSI\1":
        min_shift, depth, aux_length = struct.unpack_from("<3i", raw, 4)
        aux_length = max(0, aux_length)
        names, at, offset_bytes = raw[44 : 16 + aux_length], 16 + aux_length, 8
        (num_contigs,) = struct.unpack_from("<i", raw, at)
        at += 4
    else:
        return None
    if not 0 <= depth <= _MAX_DEPTH or not 0 <= min_shift <= _MAX_SHIFT:
        raise ValueError(f"bins of 2^{min_shift} bp on {depth} levels")
    listed = dict(enumerate(name.decode() for name in names.split(b"\0")))
    chunks: dict[str, list[tuple[int, int, int]]] = {}
    num_records: dict[str, int] = {}
    for contig in range(num_contigs):
        num_bins = _count(raw, at)
        at += 4
        found, counted = [], None
        for _ in range(num_bins):
            (number,) = struct.unpack_from("<I", raw, at)
            num_chunks = _count(raw, at + 4 + offset_bytes)
            at += 8 + offset_bytes
            offsets = struct.unpack_from(f"<{2 * num_chunks}Q", raw, at)
            at += 16 * num_chunks
            if number < ((1 << 3 * (depth + 1)) - 1) // 7:  # not htslib's extra bin
                found += [(number, *pair) for pair in zip(*[iter(offsets)] * 2, strict=True)]
            elif num_chunks == 2:
                counted = offsets[2] + offsets[3]
        if not offset_bytes:
            at += 4 + 8 * _count(raw, at)
        if found:
            name = (header.contig_numbers if header.is_bcf else listed)[contig]
            chunks[name] = found
            if counted is not None:
                num_records[name] = counted
    return VcfIndex(chunks, min_shift, depth, num_records)


def _count(raw: bytes, at: int) -> int:
    """Read a count at a place; a negative one is refused, as the parser might loop for ever."""
    (count,) = struct.unpack_from("<i", raw, at)
    if count < 0:
        raise ValueError(f"a count of {count}")
    return int(count)


class RecordPlaces:
    """Where records lie in a file that is being written, for its index; takes 16 bytes a site."""

    def __init__(self) -> None:
        self.max_bp = 0
        self._size = 0  # bytes of records so far
        self._last_bp = 0
        self._contig = ""
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        self._start_of: dict[str, int] = {}
        self._num_told = 0  # how many parts earlier checkpoints have returned

    def check(self, sites: Sites) -> None:
        """Refuse sites that are not sorted, or come before those that were written."""
        if sites.contig != self._contig:
            if sites.contig in self._start_of:
                raise ValueError(f"contig {sites.contig} comes back after {self._contig}")
            self._contig, self._last_bp = sites.contig, 0
            self._start_of[sites.contig] = 0
        if len(sites) == 0:
            return
        position = sites.position_bp
        if position[0] < max(1, self._last_bp) or (np.diff(position) < 0).any():
            raise ValueError(f"sites on {sites.contig} are not sorted, or before position 1")
        self._last_bp = int(position[-1])

    def add(self, sites: Sites, ends: np.ndarray) -> None:
        """Note records that were written together; they end at ``ends``, counted from the first.

        A record covers its REF, or what INFO/END says.
        """
        length = np.fromiter(map(len, sites.ref.tolist()), np.int32, len(sites))
        if sites.info is not None:
            for i in np.flatnonzero(sites.info != "").tolist():
                position = int(sites.position_bp[i])
                length[i] = last_base(position, sites.ref[i], sites.info[i]) - position + 1
        parts = self._parts.setdefault(sites.contig, [])
        if not parts:
            self._start_of[sites.contig] = self._size
        parts.append((sites.position_bp, length, ends + self._size))
        self._size += int(ends[-1])
        self.max_bp = max(self.max_bp, int((sites.position_bp.astype(np.int64) + length).max()) - 1)

    def records(
        self, virtual_offsets: Callable[[np.ndarray], np.ndarray]
    ) -> dict[str, ContigRecords]:
        """The records of each contig, in file order."""
        made = {}
        for contig, parts in self._parts.items():
            position, length, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
            begin = position.astype(np.int64) - 1
            edges = virtual_offsets(np.concatenate([[self._start_of[contig]], ends]))
            made[contig] = ContigRecords(begin, begin + length, edges[:-1], edges[1:])
        return made

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Positions, lengths in bp and ends of the records that were added since the last call.

        Raises
        ------
        ValueError
            If the records are of several contigs.
        """
        if len(self._parts) > 1:
            raise ValueError(f"a file of several contigs is not resumed: {list(self._parts)}")
        new = [part for parts in self._parts.values() for part in parts[self._num_told :]]
        self._num_told += len(new)
        empty = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))
        position, length, ends = (
            np.concatenate(column) for column in zip(empty, *new, strict=True)
        )
        return {"position_bp": position, "ref_length": length, "ends": ends}

    def restore(self, contig: str, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Go on from what all calls of :meth:`checkpoint` returned in an earlier process."""
        parts = [
            (state["position_bp"], state["ref_length"], state["ends"])
            for state in states
            if len(state["ends"])
        ]
        if not parts:
            return
        self._contig, self._parts[contig], self._start_of[contig] = contig, parts, 0
        self._num_told = len(parts)
        self._last_bp, self._size = int(parts[-1][0][-1]), int(parts[-1][2][-1])
        self.max_bp = max(int((at.astype(np.int64) + n).max()) - 1 for at, n, _ in parts)
