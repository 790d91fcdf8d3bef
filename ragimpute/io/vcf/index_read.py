"""Read tabix (.tbi) and CSI (.csi) indexes: which contigs hold records, and where.

References
----------
The Tabix and CSI specifications of hts-specs (https://samtools.github.io/hts-specs/).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from ragimpute.io.vcf.header import VcfHeader
from ragimpute.io.vcf.index import MIN_SHIFT, TBI_DEPTH
from ragimpute.sites import Region


def index_path(header: VcfHeader) -> Path | None:
    """The index that htslib would use, or None if there is none or it is older than the file."""
    path = header.path
    if header.compression != "bgzf" or header.is_bcf != path.name.endswith(".bcf"):
        return None  # cyvcf2 chooses the kind of index by the name
    suffixes = (".csi",) if header.is_bcf else (".csi", ".tbi")
    for suffix in suffixes:
        index = path.with_name(path.name + suffix)
        if index.is_file():
            return index if index.stat().st_mtime >= path.stat().st_mtime else None
    return None


# Beyond these, intervals exceed htslib's 64 bits.
_MAX_SHIFT, _MAX_DEPTH = 30, 10


@dataclass(frozen=True)
class VcfIndex:
    """A .tbi or .csi that was read.

    Attributes
    ----------
    chunks
        For each contig with records, bins and the virtual offsets of their chunks.
    min_shift, depth
        Bits of the smallest bins' length in bp, and levels of bins.
    """

    chunks: dict[str, list[tuple[int, int, int]]]
    min_shift: int
    depth: int

    def first_offset(self, contig: str, region: Region) -> int:
        """Virtual offset at or before the region's first record; -1 where it has none."""
        found = [start for start, _ in self._chunks_of(contig, region)]
        return min(found, default=-1)

    def byte_range(self, contig: str, region: Region) -> tuple[int, int]:
        """Where the first block that may hold the region's records starts, and the last one."""
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
    """A decompressed .tbi or .csi."""
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
    for contig in range(num_contigs):
        num_bins = _count(raw, at)
        at += 4
        found = []
        for _ in range(num_bins):
            (number,) = struct.unpack_from("<I", raw, at)
            num_chunks = _count(raw, at + 4 + offset_bytes)
            at += 8 + offset_bytes
            offsets = struct.unpack_from(f"<{2 * num_chunks}Q", raw, at)
            at += 16 * num_chunks
            if number < ((1 << 3 * (depth + 1)) - 1) // 7:  # not htslib's extra bin
                found += [(number, *pair) for pair in zip(*[iter(offsets)] * 2, strict=True)]
        if not offset_bytes:
            at += 4 + 8 * _count(raw, at)
        if found:
            chunks[(header.contig_numbers if header.is_bcf else listed)[contig]] = found
    return VcfIndex(chunks, min_shift, depth)


def _count(raw: bytes, at: int) -> int:
    """A number of things at a place; a negative one would lead back, and around for ever."""
    (count,) = struct.unpack_from("<i", raw, at)
    if count < 0:
        raise ValueError(f"a count of {count}")
    return int(count)
