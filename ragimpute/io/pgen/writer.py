"""Write imputed dosages as PLINK 2's PGEN, with PVAR and PSAM."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import deflate
import numpy as np

from ragimpute.errors import InputError
from ragimpute.extras import require
from ragimpute.io.file_set import FileSetWriter, Records, site_names, zstd_level
from ragimpute.io.imputed import ImputedBlock
from ragimpute.io.pgen.phased import (
    ONE,
    encode_phased,
    header,
    header_bytes,
    max_record_bytes,
)
from ragimpute.io.vcf.header import Heading, header_text
from ragimpute.io.vcf.write.info_text import info_columns, row_starts
from ragimpute.io.vcf.write.sample_text import DIGITS

#: A PGEN holds dosages as multiples of 1 / 16384.
UNIT = 1 / ONE
#: How the table of sites may be written, and its suffix.
PVAR_SUFFIXES = {"zst": ".pvar.zst", "plain": ".pvar"}
_LENGTHS = struct.Struct("<II")
_SPOOL_LEVEL = 1
_BATCH_BYTES = 2**22


@dataclass(frozen=True)
class PgenOptions:
    """How a PGEN is written.

    Attributes
    ----------
    pvar
        One of :data:`PVAR_SUFFIXES`: compressed, or plain as regenie needs it.
    level
        Of its compression, 1 (fast) to 12 (small).
    digits
        Decimals to which dosages are rounded, 2 to 4, as those of a VCF are. A dosage that becomes
        a whole number takes no room beside its genotype.
    phased
        Write the dosage of each haplotype, too.
    """

    pvar: str = "zst"
    level: int = 1
    digits: int = DIGITS
    phased: bool = False


def side_files(path: str | Path, pvar: str) -> dict[str, Path]:
    """The files beside a PGEN, by what a user calls them."""
    path = Path(path)
    return {
        "table of sites": path.with_suffix(PVAR_SUFFIXES[pvar]),
        "table of samples": path.with_suffix(".psam"),
    }


class PgenWriter(FileSetWriter):
    """A PGEN that is being written, see :class:`ragimpute.io.file_set.FileSetWriter`.

    Its genotypes are those of dosages within 0.1 of a whole number, as plink2 imports them, and
    missing elsewhere; every dosage that, rounded, is no whole number is stored beside them. A
    haploid sample has the dosage of a homozygous diploid, as PLINK 2 has it for males on X.

    The package pgenlib wants to know the number of sites before the first one. So dosages wait in a
    file of their own, compressed, until all have come, and so a run can be resumed. It writes no
    phased dosages: these are coded by :mod:`ragimpute.io.pgen.phased`, and wait as they will be in
    the file. The dosages of samples are the same in both.
    """

    def __init__(
        self,
        path: str | Path,
        heading: Heading,
        options: PgenOptions,
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
            Ends in .pgen.
        heading
            Samples, contigs and INFO fields.
        options
            What is written.
        sexes, threads, resumable, restored
            See :class:`ragimpute.io.file_set.FileSetWriter`.

        Raises
        ------
        InputError
            If the file cannot be written.
        MissingPackageError
            If a package is not installed.
        """
        require("pgen", "an output of type .pgen", packages=needed(options))
        self._pvar, self._level, self._digits = options.pvar, options.level, options.digits
        self._phased = options.phased
        super().__init__(
            path, heading, sexes=sexes, threads=threads, resumable=resumable, restored=restored
        )

    def _records(self, block: ImputedBlock) -> Records:
        """For each site of a block, its row of the table of sites and its dosages."""
        sites = block.sites
        names = np.empty(len(sites), object)
        names[:] = site_names(sites)
        columns = info_columns(block.info, len(sites))
        text, ends = row_starts(replace(sites, id=names), block.typed, columns, [])
        starts = ends.tolist()
        parts: list[bytes | bytearray] = []
        for i, data in enumerate(self._waiting_dosages(block.allele_prob)):
            line = text[starts[i] : starts[i + 1]].tobytes()
            parts += (_LENGTHS.pack(len(line), len(data)), line, data)
        return Records(b"".join(parts), len(sites))

    def _waiting_dosages(self, prob: np.ndarray) -> Iterator[bytes | bytearray]:
        """The dosages of each site, as they wait for all others."""
        total = _dosages(prob, self._digits)
        if not self._phased:
            for row in total:
                yield deflate.deflate_compress(row.data, _SPOOL_LEVEL)
            return
        delta = _differences(prob, total, self._digits)
        step = max(1, _BATCH_BYTES // max_record_bytes(total.shape[1]))
        for start in range(0, len(total), step):
            here = slice(start, start + step)
            records, types = encode_phased(total[here], delta[here])
            for record, kind in zip(records, types.tolist(), strict=True):
                yield bytes((kind,)) + record

    def _finish(self, file: BinaryIO, part: Path) -> None:
        """Make the three files of what waited."""
        if self._num_records == 0:
            raise InputError(
                f"no site is left for {self.path}: a PGEN has one at least",
                hint="lower --min-r2, or write a VCF",
            )
        beside = side_files(self.path, self._pvar)
        with self._new_file(beside["table of samples"]) as out:
            out.write(psam_text(self._heading.samples, self._sexes).encode())
        pvar = self._new_files.name(beside["table of sites"])
        temporary = self._new_files.name(self.path)
        file.seek(0)
        with ExitStack() as stack:
            table = stack.enter_context(self._opened(pvar))
            table.write(header_text(self._heading, []).encode())
            write = self._write_phased if self._phased else self._write_unphased
            write(file, table, temporary)

    def _write_unphased(self, file: BinaryIO, table: Any, path: Path) -> None:
        """Write the PGEN by pgenlib, and the rows of the table of sites."""
        from pgenlib import PgenWriter as Library  # an optional package

        num_samples = len(self._heading.samples)
        try:
            pgen = Library(
                os.fsencode(path), num_samples, variant_ct=self._num_records,
                nonref_flags=False, dosage_present=True,
            )  # fmt: skip
            for lines, dosages in _batches(file, self._num_records, num_samples):
                table.write(lines)
                pgen.append_dosages_batch(dosages)
            pgen.close()
        except RuntimeError as error:  # of the library, which names no cause
            raise OSError(f"pgenlib: {error}") from error

    def _write_phased(self, file: BinaryIO, table: Any, path: Path) -> None:
        """Write records that are coded, then the header, and the rows of the table of sites."""
        num, num_samples = self._num_records, len(self._heading.samples)
        length, types = np.empty(num, np.int64), np.empty(num, np.uint8)
        with path.open("wb") as out:
            out.seek(header_bytes(num, num_samples))
            for i in range(num):
                len_line, len_data = _LENGTHS.unpack(file.read(_LENGTHS.size))
                table.write(file.read(len_line) + b"\n")
                types[i] = file.read(1)[0]
                length[i] = out.write(file.read(len_data - 1))
            out.seek(0)
            out.write(header(length, types, num_samples))

    def _opened(self, path: Path) -> Any:
        """The table of sites, open for writing."""
        if self._pvar == "plain":
            return path.open("wb")
        from zstandard import ZstdCompressor  # an optional package

        return ZstdCompressor(level=zstd_level(self._level)).stream_writer(path.open("wb"))

    def _outdated(self) -> list[Path]:
        """The table of sites that an earlier run wrote in another form, or as plink2 packs it."""
        written = PVAR_SUFFIXES[self._pvar]
        others = {*PVAR_SUFFIXES.values(), ".pvar.gz"} - {written}
        return [self.path.with_suffix(suffix) for suffix in sorted(others)]


def needed(options: PgenOptions) -> list[str]:
    """The packages of the extra "pgen" that a writer with these options imports."""
    zstd = ["zstandard"] if options.pvar == "zst" else []
    return zstd if options.phased else ["pgenlib", *zstd]


def psam_text(samples: Sequence[str], sexes: np.ndarray) -> str:
    """A .psam file; the sex 0 is not known.

    Families are "0", which is none for plink2; without their column regenie refuses the file.
    """
    rows = [f"0\t{name}\t{sex}" for name, sex in zip(samples, sexes.tolist(), strict=True)]
    return "\n".join(["#FID\tIID\tSEX", *rows]) + "\n"


def _dosages(prob: np.ndarray, digits: int) -> np.ndarray:
    """Rounded dosages of m sites as a PGEN counts them, 0 to 32,768: shape (m, N), uint16.

    Raises
    ------
    ValueError
        If a probability is not in [0, 1].
    """
    first, second = prob[:, :, 0], prob[:, :, 1]
    haploid = np.isnan(second)
    total = first.astype(np.float64) + np.where(haploid, 0, second)
    total = np.floor(total * 10**digits + 0.5) / 10**digits
    total[haploid] *= 2
    low, high = np.fmin(first, second), np.fmax(first, second)
    if not ((low >= 0) & (high <= 1)).all() or np.isnan(first).any():
        raise ValueError("a probability is not in [0, 1]")
    counts: np.ndarray = np.rint(total / UNIT).astype("<u2")
    return counts


def _differences(prob: np.ndarray, total: np.ndarray, digits: int) -> np.ndarray:
    """Rounded P(ALT) of the first haplotypes less that of the second ones, in units of a PGEN.

    Shape (m, N), int16; none is larger than the rounded dosages ``total`` allow.
    """
    scale = 10**digits
    rounded = np.floor(prob.astype(np.float64) * scale + 0.5) / scale
    delta = np.rint((rounded[:, :, 0] - rounded[:, :, 1]) / UNIT)
    delta[np.isnan(delta)] = 0  # haploid
    most = np.minimum(total, 2 * ONE - total)
    clipped: np.ndarray = np.clip(delta, -most.astype(np.float64), most).astype(np.int16)
    return clipped


def _batches(
    file: BinaryIO, num_records: int, num_samples: int
) -> Iterator[tuple[bytes, np.ndarray]]:
    """What waited: lines of the table of sites, and the dosages of these sites as float32."""
    most = max(1, _BATCH_BYTES // (4 * num_samples))
    for start in range(0, num_records, most):
        lines: list[bytes] = []
        rows = np.empty((min(most, num_records - start), num_samples), np.uint16)
        for row in rows:
            len_line, len_data = _LENGTHS.unpack(file.read(_LENGTHS.size))
            lines += (file.read(len_line), b"\n")
            data = deflate.deflate_decompress(file.read(len_data), row.nbytes)
            row[:] = np.frombuffer(data, "<u2")
        yield b"".join(lines), rows * np.float32(UNIT)
