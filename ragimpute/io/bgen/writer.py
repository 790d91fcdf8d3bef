"""Write imputed genotypes as BGEN 1.2, with the index of bgenix and a .sample file."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import deflate
import numpy as np

from ragimpute.extras import require
from ragimpute.io.bgen.encode import encode_rows, max_row_bytes
from ragimpute.io.bgen.index import write_index
from ragimpute.io.file_set import FileSetWriter, Records, made_name, site_names, zstd_level
from ragimpute.io.imputed import ImputedBlock
from ragimpute.io.vcf.header import Heading

#: How the genotypes of a variant are compressed, and the number that BGEN has for it. zlib is read
#: by all tools, zstd (BGEN 1.3) not by BOLT-LMM and SAIGE.
COMPRESSIONS = {"none": 0, "zlib": 1, "zstd": 2}
_LAYOUT_2, _WITH_NAMES = 2 << 2, 1 << 31
_HEADER_BYTES = 20  # a header without free data
_NUM_VARIANTS_AT = 8
_SLICE_BYTES = 2**22  # of rows that are coded at once


@dataclass(frozen=True)
class BgenOptions:
    """How a BGEN is written.

    Attributes
    ----------
    bits
        Of each probability, 1 to 32. Association tools are made for 8, and SAIGE and the fast path
        of regenie read no other number.
    compression
        One of :data:`COMPRESSIONS`.
    level
        Of compression, 1 (fast) to 12 (small).
    phased
        Write probabilities of haplotypes in place of those of genotypes; regenie refuses these.
    """

    bits: int = 8
    compression: str = "zlib"
    level: int = 1
    phased: bool = False


def side_files(path: str | Path) -> dict[str, Path]:
    """The files beside a BGEN, by what a user calls them."""
    path = Path(path)
    return {"sample file": path.with_suffix(".sample"), "index": path.with_name(f"{path.name}.bgi")}


class BgenWriter(FileSetWriter):
    """A BGEN that is being written, see :class:`ragimpute.io.file_set.FileSetWriter`.

    REF is the first allele, and each ALT has a variant of its own. The bytes are the same for any
    number of threads.
    """

    def __init__(
        self,
        path: str | Path,
        heading: Heading,
        options: BgenOptions,
        *,
        sexes: np.ndarray | None = None,
        threads: int = 1,
        resumable: bool = False,
        restored: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> None:
        """Begin a file, or go on with one that was not finished.

        Parameters
        ----------
        path
            Ends in .bgen.
        heading
            Samples and contigs.
        options
            What is written.
        sexes, threads, resumable, restored
            See :class:`ragimpute.io.file_set.FileSetWriter`.

        Raises
        ------
        InputError
            If the file cannot be written.
        MissingPackageError
            If zstd is asked for and its package is not installed.
        """
        if options.compression == "zstd":
            require("pgen", "--bgen-compression zstd", packages=["zstandard"])
        self._options = options
        super().__init__(
            path, heading, sexes=sexes, threads=threads, resumable=resumable, restored=restored
        )

    def _start(self) -> bytes:
        """The header, whose number of variants is written at the end, and the names."""
        flags = COMPRESSIONS[self._options.compression] | _LAYOUT_2 | _WITH_NAMES
        num_samples = len(self._heading.samples)
        header = struct.pack("<III4sI", _HEADER_BYTES, 0, num_samples, b"bgen", flags)
        names = b"".join(_text(name, "<H") for name in self._heading.samples)
        block = struct.pack("<II", 8 + len(names), num_samples) + names
        return struct.pack("<I", len(header) + len(block)) + header + block

    def _records(self, block: ImputedBlock) -> Records:
        """The variants of a block."""
        compress = self._compressor()
        sites = block.sites
        contig = _text(sites.contig, "<H")
        heads = [
            b"".join((
                _text(made_name(sites.contig, *key), "<H"), _text(name, "<H"), contig,
                struct.pack("<IH", position, 2), _text(ref, "<I"), _text(alt, "<I"),
            ))
            for position, ref, alt, key, name in zip(
                sites.position_bp.tolist(), sites.ref, sites.alt, sites.keys(), site_names(sites),
                strict=True,
            )
        ]  # fmt: skip
        parts: list[bytes] = []
        bits, phased = self._options.bits, self._options.phased
        step = max(1, _SLICE_BYTES // max_row_bytes(len(self._heading.samples), bits))
        for start in range(0, len(sites), step):
            here = slice(start, start + step)
            both = None if block.both is None else block.both[here]
            rows, length = encode_rows(block.allele_prob[here], bits=bits, phased=phased, both=both)
            for head, row, size in zip(heads[here], rows, length.tolist(), strict=True):
                parts += (head, compress(row[:size].data))
        return Records(b"".join(parts), len(sites))

    def _compressor(self) -> Callable[[memoryview], bytes]:
        """What makes the genotype block of a variant of its row."""
        level = self._options.level
        if self._options.compression == "none":
            return lambda row: struct.pack("<I", len(row)) + bytes(row)
        if self._options.compression == "zlib":
            squeeze: Callable[[memoryview], bytes | bytearray] = partial(
                deflate.zlib_compress, compresslevel=level
            )
        else:
            from zstandard import ZstdCompressor  # an optional package

            squeeze = ZstdCompressor(level=zstd_level(level)).compress

        def compressed(row: memoryview) -> bytes:
            data = squeeze(row)
            return struct.pack("<II", len(data) + 4, len(row)) + data

        return compressed

    def _finish(self, file: BinaryIO, part: Path) -> None:
        """Write the number of variants, the index and the .sample file."""
        file.flush()
        end = file.tell()
        file.seek(_NUM_VARIANTS_AT)
        file.write(struct.pack("<I", self._num_records))
        file.seek(end)  # where a run that fails from here on would be resumed
        file.flush()
        os.fsync(file.fileno())
        beside = side_files(self.path)
        with self._new_file(beside["sample file"]) as out:
            out.write(sample_text(self._heading.samples, self._sexes).encode())
        write_index(part, self.path.name, self._new_files.name(beside["index"]))
        self._new_files.name(self.path, kept=part)


def sample_text(samples: Sequence[str], sexes: np.ndarray) -> str:
    """A .sample file as plink2, regenie and SAIGE read it: both names are those of the VCF."""
    lines = ["ID_1 ID_2 missing sex", "0 0 0 D"]
    lines += [f"{name} {name} 0 {sex}" for name, sex in zip(samples, sexes.tolist(), strict=True)]
    return "\n".join(lines) + "\n"


def _text(text: str, width: str) -> bytes:
    """A text after its length, as ``struct`` codes it."""
    data = text.encode()
    return struct.pack(width, len(data)) + data
