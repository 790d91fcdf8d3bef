"""Read bases of a reference genome from a FASTA, with its .fai where there is one."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ragimpute.contigs import same_contig
from ragimpute.errors import InputError

_PIECE_BASES = 2**14


@dataclass(frozen=True)
class _Place:
    """Where a sequence lies: its length, its first byte, and bases and bytes of each line."""

    length: int
    offset: int
    line_bases: int
    line_bytes: int


class Fasta:
    """A sequence of a FASTA, of which bases are read where they are asked for.

    Parameters
    ----------
    path
        A FASTA. Its index, ``path`` + ".fai", is used if it is not older; else the file is read
        through once. Of a file compressed by gzip or bgzip the whole sequence is kept in memory.
    contig
        The sequence, with or without "chr".

    Attributes
    ----------
    length
        Bases of the sequence.

    Raises
    ------
    InputError
        If the file cannot be read, is no FASTA, or lacks the sequence.
    """

    def __init__(self, path: str | Path, contig: str) -> None:
        self.path = Path(path)
        self._text = b""
        try:
            with self.path.open("rb") as raw:
                start = raw.read(2)
            if start == b"\x1f\x8b":
                name, self._text = self._unpacked(contig)
                self._place = _Place(len(self._text), 0, 0, 0)
            else:
                if start[:1] != b">":
                    raise InputError(f"{path} is not a FASTA", hint="expected a first line with >")
                places = self._indexed() or self._scanned()
                name = self._choose(list(places), contig)
                self._place = places[name]
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"FASTA {path} cannot be read: {reason}") from error
        self.length = self._place.length
        self._piece: Callable[[int], str] = lru_cache(maxsize=64)(self._read_piece)

    def base(self, position: int) -> str:
        """The base at a 1-based position in upper case; "" outside of the sequence."""
        if not 1 <= position <= self.length:
            return ""
        piece, at = divmod(position - 1, _PIECE_BASES)
        return self._piece(piece)[at]

    def has(self, position: int, bases: str) -> bool:
        """Whether these bases are at a position, whatever their case."""
        found = (self.base(position + i) for i in range(len(bases)))
        return all(a == b for a, b in zip(found, bases.upper(), strict=True))

    def _read_piece(self, piece: int) -> str:
        """The bases [piece, piece + 1) times _PIECE_BASES."""
        first = piece * _PIECE_BASES
        stop = min(first + _PIECE_BASES, self.length)
        place = self._place
        if self._text:
            return self._text[first:stop].decode("ascii", errors="replace").upper()
        lines, rest = divmod(first, place.line_bases)
        begin = place.offset + lines * place.line_bytes + rest
        lines, rest = divmod(stop, place.line_bases)
        with self.path.open("rb") as file:
            file.seek(begin)
            raw = file.read(place.offset + lines * place.line_bytes + rest - begin)
        text = b"".join(raw.split()).decode("ascii", errors="replace").upper()
        if len(text) != stop - first or ">" in text:
            raise InputError(
                f"FASTA {self.path} does not fit its index {self.path}.fai",
                hint="remove the index, or make it again: samtools faidx",
            )
        return text

    def _choose(self, names: list[str], contig: str) -> str:
        """The name of the sequence."""
        name = same_contig(contig, names)
        if name is None:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise InputError(
                f"FASTA {self.path} has no sequence {contig}; it has {shown or 'none'}",
                hint="give the FASTA of the target's genome build",
            )
        return name

    def _indexed(self) -> dict[str, _Place]:
        """The places of all sequences by the index; none if there is no index that is usable."""
        index = Path(f"{self.path}.fai")
        if not index.is_file() or index.stat().st_mtime < self.path.stat().st_mtime:
            return {}
        found = {}
        for line in index.read_text().splitlines():
            cells = line.split("\t")
            try:
                place = _Place(*map(int, cells[1:5]))
            except (TypeError, ValueError):
                return {}
            if min(place.length, place.offset) < 0 or not 0 < place.line_bases < place.line_bytes:
                return {}
            found[cells[0]] = place
        return found

    def _scanned(self) -> dict[str, _Place]:
        """The places of all sequences, by reading the file through."""
        found: dict[str, _Place] = {}
        name, length, start, widths, ended = "", 0, 0, (0, 0), False
        offset = 0

        def close() -> None:
            if name:
                found.setdefault(name, _Place(length, start, *(widths if length else (1, 2))))

        with self.path.open("rb") as file:
            for line in file:
                offset += len(line)
                if line.startswith(b">"):
                    close()
                    name = (line[1:].split() or [b"?"])[0].decode(errors="replace")
                    length, start, widths, ended = 0, offset, (0, 0), False
                    continue
                bases = len(line.rstrip())
                if not widths[1]:
                    widths = (bases, max(len(line), bases + 1))
                elif bases and (ended or bases > widths[0]):
                    raise InputError(
                        f"FASTA {self.path}: the lines of sequence {name} have unlike lengths",
                        hint="all lines of a sequence but the last must be of one length",
                    )
                ended = bases < widths[0]
                length += bases
        close()
        return found

    def _unpacked(self, contig: str) -> tuple[str, bytes]:
        """Name and bases of the sequence in a compressed file."""
        names: list[str] = []
        kept: list[bytes] = []
        wanted = False
        with gzip.open(self.path, "rb") as file:
            for line in file:
                if line.startswith(b">"):
                    names.append((line[1:].split() or [b"?"])[0].decode(errors="replace"))
                    wanted = not kept and same_contig(contig, [names[-1]]) is not None
                elif not names:
                    raise InputError(f"{self.path} is not a FASTA", hint="expected a line with >")
                elif wanted:
                    kept.append(line.strip())
        return self._choose(names, contig), b"".join(kept)
