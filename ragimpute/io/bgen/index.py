"""The index of a BGEN, as bgenix makes it: a table of variants in SQLite."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

# The tables and the names of their columns are bgenix's (version 1.1.7).
_TABLES = (
    "CREATE TABLE Metadata (filename TEXT NOT NULL, file_size INT NOT NULL, "
    "last_write_time INT NOT NULL, first_1000_bytes BLOB NOT NULL, "
    "index_creation_time INT NOT NULL)",
    "CREATE TABLE Variant (chromosome TEXT NOT NULL, position INT NOT NULL, rsid TEXT NOT NULL, "
    "number_of_alleles INT NOT NULL, allele1 TEXT NOT NULL, allele2 TEXT NULL, "
    "file_start_position INT NOT NULL, size_in_bytes INT NOT NULL, "
    "PRIMARY KEY (chromosome, position, rsid, allele1, allele2, file_start_position)) "
    "WITHOUT ROWID",
)
_FIRST_BYTES = 1_000

# Contig, position, name, number of alleles, the first two, first byte, number of bytes.
_Row = tuple[str, int, str, int, str, str, int, int]


def write_index(bgen: str | Path, name: str, out: str | Path) -> None:
    """Write the index of a BGEN of layout 2.

    It holds no time of the clock, so that it is the same for the same BGEN: bgenix stores these
    times and does not compare them.

    Parameters
    ----------
    bgen
        The file.
    name
        What the index calls it.
    out
        The index; nothing is there yet.

    Raises
    ------
    OSError
        If a file cannot be read or written.
    """
    bgen = Path(bgen)
    with bgen.open("rb") as file, closing(sqlite3.connect(out, isolation_level=None)) as base:
        try:
            # Nobody sees the file before it is complete: it need not survive a crash.
            base.execute("PRAGMA journal_mode = OFF")
            base.execute("PRAGMA synchronous = OFF")
            base.execute("BEGIN")
            for table in _TABLES:
                base.execute(table)
            start = file.read(_FIRST_BYTES)
            about = (name, bgen.stat().st_size, 0, start, 0)
            base.execute("INSERT INTO Metadata VALUES (?, ?, ?, ?, ?)", about)
            base.executemany("INSERT INTO Variant VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _rows(file))
            base.execute("COMMIT")
        except sqlite3.Error as error:
            raise OSError(f"the index: {error}") from error


def _rows(file: BinaryIO) -> Iterator[_Row]:
    """What the index has of each variant of a BGEN of two alleles a variant."""
    file.seek(0)
    offset, _, num_variants = struct.unpack("<III", file.read(12))
    at = 4 + offset
    file.seek(at)
    for _ in range(num_variants):
        _text(file, 2)
        rsid, contig = _text(file, 2), _text(file, 2)
        position, num_alleles = struct.unpack("<IH", file.read(6))
        ref, alt = _text(file, 4), _text(file, 4)
        (num_bytes,) = struct.unpack("<I", file.read(4))
        end = file.tell() + num_bytes
        yield contig, position, rsid, num_alleles, ref, alt, at, end - at
        at = file.seek(end)


def _text(file: BinaryIO, width: int) -> str:
    """A text that comes after its length of ``width`` bytes."""
    return file.read(int.from_bytes(file.read(width), "little")).decode()
