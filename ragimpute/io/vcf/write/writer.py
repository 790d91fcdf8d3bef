"""Write imputed genotypes as VCF, VCF.gz or BCF, with an index, whole or not at all."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.bgzf import BLOCK_BYTES, EOF_MARK, BgzfWriter, compress_block
from ragimpute.io.vcf.fields import check_fields, header_text
from ragimpute.io.vcf.index import TBI_MAX_BP, csi_index, tabix_index
from ragimpute.io.vcf.write.bcf import BcfEncoder, bcf_header
from ragimpute.io.vcf.write.info_text import info_columns, row_starts
from ragimpute.io.vcf.write.record_offsets import RecordPlaces
from ragimpute.io.vcf.write.rows import ImputedBlock, RowMaker, Rows
from ragimpute.runtime.outputs import NewFiles
from ragimpute.sites import Sites

_SUFFIXES = {".vcf": "vcf", ".vcf.gz": "vcf.gz", ".vcf.bgz": "vcf.gz", ".bcf": "bcf"}


def output_kind(path: str | Path) -> str:
    """The format that a name asks for: "vcf", "vcf.gz" or "bcf"; "-" is "vcf".

    Raises
    ------
    InputError
        If the suffix is another one.
    """
    if str(path) == "-":
        return "vcf"
    name = Path(path).name
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix) and name != suffix:
            return kind
    raise InputError(
        f"the output {path} has no suffix that is known",
        hint="end it in .vcf.gz, .bcf or .vcf, or write - for standard output",
    )


def part_path(path: str | Path) -> Path:
    """Where a resumable output is until it is complete: beside it."""
    return Path(path).with_name(f".{Path(path).name}.part")


class ImputedWriter:
    """A VCF or BCF under way; a context manager.

    It is written under a temporary name in its folder, renamed by :meth:`close` and removed if the
    ``with`` block ends in an exception. A .vcf.gz gets a .tbi beside it (a .csi where positions
    exceed 2^29 - 1), a .bcf a .csi. The bytes are the same for any number of threads.

    Attributes
    ----------
    seconds
        Wall time so far of "format" and of "compress" (with threads, what was waited for).
    """

    def __init__(
        self,
        path: str | Path,
        *,
        samples: Sequence[str],
        contigs: Sequence[tuple[str, int | None]],
        fields: Sequence[str] = ("GT", "DS", "GP"),
        command: str | None = None,
        threads: int = 1,
        header_lines: Sequence[str] = (),
        resumable: bool = False,
        restored: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> None:
        """Begin a file and write its header, or go on with one that was broken off.

        Parameters
        ----------
        path
            Ends in .vcf, .vcf.gz or .bcf; or "-": a VCF to standard output.
        samples
            Names, N of them; none: a file of sites alone.
        contigs
            Name and length in bp, or None, of each contig of the header.
        fields
            FORMAT fields in order: of GT, DS, GP, HDS and AP (that is AP1 and AP2).
        command
            For ``##ragimpute_command``; left out if None.
        threads
            For formatting and compression, >= 1.
        header_lines
            More header lines, each begins with "##".
        resumable
            Write to :func:`part_path`, which stays if the ``with`` block ends in an exception, or
            the process is killed.
        restored
            All that :meth:`checkpoint` returned in an earlier process, in order, with the same
            parameters: go on from there. What was written after the last of them is dropped.

        Raises
        ------
        InputError
            If the path cannot be written, or its suffix or a field is unknown.
        """
        if threads < 1:
            raise ValueError(f"threads must be >= 1, found {threads}")
        self._to_stdout = str(path) == "-"
        self.path = Path(path)
        self._kind = output_kind(path)
        self._contigs = list(contigs)
        self._names = [name for name, _ in contigs]
        self._formats = check_fields(fields) if samples else []
        self._num_samples = len(samples)
        self._encoder = BcfEncoder(self._names, self._formats, len(samples))
        self._rows = RowMaker(
            self._formats, len(samples), self._encoder if self._kind == "bcf" else None,
            threads=threads,
        )  # fmt: skip
        self._places = RecordPlaces()
        self.seconds = {"format": 0.0, "compress": 0.0}
        self._resumable = resumable
        self._new_files = NewFiles()
        self._file: BinaryIO | None = None
        self._bgzf: BgzfWriter | None = None
        text = header_text(
            samples=samples,
            contigs=self._contigs,
            formats=self._formats,
            command=command,
            header_lines=header_lines,
        )
        with self._writing():
            if self._to_stdout:
                self._file = sys.stdout.buffer
            else:
                self._file = self._open(goes_on=len(restored) > 0)
            if self._kind != "vcf":
                self._bgzf = BgzfWriter(self._file, threads=threads)
            if restored:
                self._restore(restored)
                return
            self._put(bcf_header(text) if self._kind == "bcf" else text.encode())
            if self._bgzf:
                self._bgzf.mark()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def write(self, block: ImputedBlock) -> None:
        """Append sites.

        Raises
        ------
        ValueError
            If shapes do not agree, a contig is not in the header or comes back after another,
            positions decrease, or a probability is not in [0, 1].
        InputError
            If writing fails.
        """
        if self._file is None:
            raise ValueError("the writer is closed")
        with self._writing():
            self._check(block)
            if len(block.sites) == 0:
                return
            self._append(self._rows.of(block))

    def write_samples(
        self,
        sites: Sites,
        info: dict[str, np.ndarray],
        typed: np.ndarray,
        samples: Sequence[Any],
    ) -> None:
        """Append sites, as an :class:`ImputedBlock` has them, whose samples are coded already.

        ``samples``: for a VCF, the text of each row behind FORMAT; for a BCF, what
        ``BcfEncoder.encode_values`` takes.
        """
        if self._file is None:
            raise ValueError("the writer is closed")
        with self._writing():
            self._append(self._rows.rest())
            self._places.check(sites)
            columns = info_columns(info, len(sites))
            if self._kind == "bcf":
                data = self._encoder.encode_values(sites, samples, columns, typed)
            else:
                text, offsets = row_starts(sites, typed, columns, self._formats)
                starts = [text[a:b].tobytes() for a, b in pairwise(offsets.tolist())]
                data = [b"%b\t%b\n" % (a, b) for a, b in zip(starts, samples, strict=True)]
            self._put(b"".join(data))
            if self._kind != "vcf":
                self._places.add(sites, np.cumsum([len(row) for row in data]))

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Bring what was written so far to the disk, for a later process to go on from.

        Returns
        -------
        What that process needs of what was added since the last call, by name; see ``restored``.

        Raises
        ------
        InputError
            If writing fails.
        """
        if self._file is None or not self._resumable:
            raise ValueError("the writer is closed, or not resumable")
        with self._writing():
            self._append(self._rows.rest())
            state = self._bgzf.checkpoint() if self._bgzf else {}
            if self._kind != "vcf":
                state |= self._places.checkpoint()
            self._file.flush()
            os.fsync(self._file.fileno())
            state["num_bytes"] = np.array(self._file.tell())
        return state

    def _restore(self, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Take up what earlier checkpoints left."""
        assert self._file is not None
        num_bytes = int(states[-1]["num_bytes"])
        if self._file.seek(0, os.SEEK_END) < num_bytes:
            raise ValueError(f"{part_path(self.path)} is shorter than the {num_bytes} bytes kept")
        self._file.seek(num_bytes)
        self._file.truncate()
        if self._bgzf:
            self._bgzf.restore(states)
            self._places.restore(self._names[0], states)

    def close(self) -> None:
        """Finish the file, write its index and give both their names.

        Raises
        ------
        InputError
            If writing fails; nothing is left behind then.
        """
        if self._file is None:
            return
        with self._writing():
            self._append(self._rows.rest())
            if self._bgzf:
                self._bgzf.finish()
            self._file.flush()
            if not self._to_stdout:
                self._file.close()
                self._finish_names()
            self._file = None

    def abort(self) -> None:
        """Drop what was written, but for what can be resumed."""
        self._rows.abort()
        if self._bgzf:
            self._bgzf.abort()
        if self._file is not None and not self._to_stdout:
            with suppress(OSError):
                self._file.close()
        self._file = None
        self._new_files.drop()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Drop the file on any failure; tell the system's errors in one line."""
        try:
            yield
        except OSError as error:
            self.abort()
            if isinstance(error, BrokenPipeError):  # "| head": the reader has what it wants
                raise
            if self._to_stdout:
                raise InputError(f"cannot write to standard output: {error.strerror}") from error
            raise InputError(
                f"cannot write {self.path}: {error.strerror or error}",
                hint="check that the folder exists, may be written to and has space left",
            ) from error
        except BaseException:
            self.abort()
            raise

    def _open(self, *, goes_on: bool) -> BinaryIO:
        """A new file beside the output, or the one that an earlier process left."""
        if self.path.is_dir():
            raise InputError(f"the output {self.path} is a folder", hint="name a file")
        kept = part_path(self.path) if self._resumable else None
        temporary = self._new_files.name(self.path, kept=kept)
        return temporary.open("r+b" if goes_on else "wb")

    def _put(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes, compressed where the format is."""
        started = time.perf_counter()
        if self._bgzf:
            self._bgzf.write(data)
        else:
            assert self._file is not None
            self._file.write(data)
        self.seconds["compress"] += time.perf_counter() - started

    def _check(self, block: ImputedBlock) -> None:
        """Refuse blocks that do not fit."""
        sites, num_sites = block.sites, len(block.sites)
        shape = (num_sites, self._num_samples, 2)
        for name in ("allele_prob", "called"):
            found = getattr(block, name).shape
            if found != shape:
                raise ValueError(f"{name} has shape {found}, expected {shape}")
        if block.typed.shape != (num_sites,):
            raise ValueError(f"typed has shape {block.typed.shape}, expected ({num_sites},)")
        if sites.contig not in self._names:
            raise ValueError(f"contig {sites.contig} is not in the header: {self._names}")
        self._places.check(sites)

    def _append(self, rows: Iterable[Rows]) -> None:
        """Append rows as they are formatted."""
        started = time.perf_counter()
        for sites, data, ends in rows:
            self.seconds["format"] += time.perf_counter() - started
            self._put(data)
            if self._kind != "vcf":
                self._places.add(sites, ends)
            started = time.perf_counter()
        self.seconds["format"] += time.perf_counter() - started

    def _finish_names(self) -> None:
        """Write the index and rename."""
        if self._bgzf:
            suffix, raw = self._index(self._bgzf.virtual_offsets)
            path = self.path.with_name(self.path.name + suffix)
            with self._new_files.name(path).open("wb") as file:
                for start in range(0, len(raw), BLOCK_BYTES):
                    file.write(compress_block(raw[start : start + BLOCK_BYTES]))
                file.write(EOF_MARK)
        for suffix in (".tbi", ".csi"):  # of an earlier file of this name
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self._new_files.finish()

    def _index(self, virtual_offsets: Callable[[np.ndarray], np.ndarray]) -> tuple[str, bytes]:
        """Suffix and content of the index."""
        records = self._places.records(virtual_offsets)
        max_bp = self._places.max_bp
        if self._kind == "vcf.gz" and max_bp <= TBI_MAX_BP:
            return ".tbi", tabix_index(records)
        if self._kind == "bcf":
            max_bp = max([max_bp, *(length or 0 for _, length in self._contigs)])
        tabix = self._kind == "vcf.gz"
        return ".csi", csi_index(records, names=self._names, tabix=tabix, max_bp=max_bp)
