"""Write imputed genotypes as VCF, VCF.gz or BCF, with an index, whole or not at all."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.imputed import ImputedBlock, output_kind, part_path
from ragimpute.io.vcf.bgzf import BLOCK_BYTES, EOF_MARK, LEVEL, BgzfWriter, compress_block
from ragimpute.io.vcf.header import FLAGS, Heading, check_fields, header_text
from ragimpute.io.vcf.index import TBI_MAX_BP, RecordPlaces, csi_index, tabix_index
from ragimpute.io.vcf.site_info import declared_fields
from ragimpute.io.vcf.write.bcf import BcfEncoder, bcf_header
from ragimpute.io.vcf.write.info_text import info_columns, row_starts
from ragimpute.io.vcf.write.joined import (
    JoinedRows,
    bcf_values,
    joined_rows,
    sample_values,
    text_of,
)
from ragimpute.io.vcf.write.sample_text import DIGITS, RowFormatter, max_row_bytes
from ragimpute.runtime.outputs import NewFiles
from ragimpute.runtime.threads import Task, crew_of
from ragimpute.sites import Sites

_SLICE_BYTES = 2**22  # of text that is formatted at once

# Sites, the bytes of their rows, and where each row ends in these bytes.
Rows = tuple[Sites, bytes | memoryview, np.ndarray]


class RowMaker:
    """Formats blocks as rows of text or records of BCF; threads format several blocks at once.

    Parameters
    ----------
    formats, num_samples
        FORMAT fields in order; N.
    encoder
        Makes records of BCF; None: rows are text.
    threads
        How many blocks are formatted at once. For BCF it is always one, as the encoder is Python
        code, of which only one thread runs at a time.
    digits
        Decimals of probabilities; the encoder's are its own.
    declarations
        As in ``Heading``.
    """

    def __init__(
        self,
        formats: Sequence[str],
        num_samples: int,
        encoder: BcfEncoder | None,
        *,
        threads: int,
        digits: int = DIGITS,
        declarations: Sequence[str] = (),
    ) -> None:
        self._digits = digits
        self._fields = declared_fields(declarations)
        self._formats, self._num_samples, self._encoder = formats, num_samples, encoder
        self._threads = threads if encoder is None else 1
        # Those that are not in use. They are used again, with the text that they made overwritten:
        # neither is text copied, nor is memory taken from the system for each block.
        self._formatters: deque[RowFormatter] = deque()
        self._stack = ExitStack()
        self._crew = self._stack.enter_context(crew_of(threads)) if self._threads > 1 else None
        self._waiting: deque[Task[tuple[list[Rows], list[RowFormatter]]]] = deque()

    def of(self, block: ImputedBlock) -> Iterator[Rows]:
        """Format a block, and yield rows that are ready.

        With threads, the rows are those of earlier blocks, in order; :meth:`rest` yields the last.
        What is yielded is valid until the next is asked for.
        """
        if self._crew is None:
            return self._made(block)
        self._waiting.append(self._crew.start(partial(self._all_made, block)))
        return self._next(self._threads)

    def rest(self) -> Iterator[Rows]:
        """Wait for all blocks that are being formatted, and yield their rows."""
        return self._next(0)

    def leave(self) -> None:
        """Forget the blocks that are being formatted, and begin no others."""
        for task in self._waiting:
            task.drop()
        self._waiting.clear()
        self._stack.close()

    def _next(self, most: int) -> Iterator[Rows]:
        """Yield the rows of the oldest blocks, until at most ``most`` blocks are left."""
        while len(self._waiting) > most:
            rows, used = self._waiting.popleft().result()
            yield from rows
            self._formatters += used

    def _formatter(self) -> RowFormatter:
        """A formatter that nobody uses."""
        try:
            return self._formatters.pop()
        except IndexError:
            return RowFormatter(self._formats, self._digits)

    def _made(self, block: ImputedBlock) -> Iterator[Rows]:
        """Yield a block's rows, each time in the same memory."""
        formatter = self._formatter()
        try:
            yield from self._made_by(block, lambda: formatter)
        finally:
            self._formatters.append(formatter)

    def _all_made(self, block: ImputedBlock) -> tuple[list[Rows], list[RowFormatter]]:
        """A block's rows, and the formatters in whose memory they are."""
        used: list[RowFormatter] = []

        def another() -> RowFormatter:
            used.append(self._formatter())
            return used[-1]

        return list(self._made_by(block, another)), used

    def _made_by(
        self, block: ImputedBlock, formatter: Callable[[], RowFormatter]
    ) -> Iterator[Rows]:
        """Yield a block's rows, as many at a time as fit into the processor's cache.

        ``formatter`` is called for each part of them.
        """
        if block.locus is not None and (block.locus >= 0).any():
            yield self._with_joined(block, block.locus)
            return
        info = info_columns(block.info, len(block.sites))
        step = max(1, _SLICE_BYTES // max_row_bytes(self._formats, self._num_samples, self._digits))
        for start in range(0, len(block.sites), step):
            rows = slice(start, start + step)
            part = {name: column.take(rows) for name, column in info.items()}
            sites, typed = block.sites.take(rows), block.typed[rows]
            prob, called = block.allele_prob[rows], block.called[rows]
            both = None if block.both is None else block.both[rows]
            if self._encoder is not None:
                records = self._encoder.encode(sites, prob, called, part, typed, both)
                ends = np.cumsum([len(record) for record in records])
                yield sites, b"".join(records), ends
            else:
                starts = row_starts(sites, typed, part, self._formats)
                yield sites, *formatter().format(prob, called, starts, both)

    def _with_joined(self, block: ImputedBlock, locus: np.ndarray) -> Rows:
        """A block's rows, some of which are joined to records with several ALTs."""
        info = info_columns(block.info, len(block.sites))
        arrays = (block.allele_prob, block.called, block.both)
        alone = np.flatnonzero(locus < 0)
        made: list[tuple[int, bytes]] = []
        tables: list[Sites] = []
        for sites, data, ends in self._made(replace(block.take(alone), locus=None)):
            edges = [0, *ends.tolist()]
            number = alone[len(made) : len(made) + len(ends)].tolist()
            made += [
                (i, bytes(data[a:b])) for i, (a, b) in zip(number, pairwise(edges), strict=True)
            ]
            tables.append(sites)
        for rows in joined_rows(locus, block.sites, arrays, info, block.typed, self._fields):
            made += zip(rows.leader.tolist(), self._joined_records(rows), strict=True)
            tables.append(rows.sites)
        order = np.argsort([i for i, _ in made])
        texts = [made[i][1] for i in order]
        ends = np.cumsum([len(text) for text in texts])
        return Sites.joined(tables).take(order), b"".join(texts), ends

    def _joined_records(self, rows: JoinedRows) -> list[bytes]:
        """Records with several ALTs, as text or BCF."""
        values = [
            sample_values(
                self._formats,
                rows.allele_prob[i],
                rows.called[i],
                self._digits,
                None if rows.both is None else rows.both[i],
            )
            if self._formats
            else []
            for i in range(len(rows.leader))
        ]
        if self._encoder is None:
            text, offsets = row_starts(rows.sites, rows.typed, rows.info, self._formats)
            starts = [text[a:b].tobytes() for a, b in pairwise(offsets.tolist())]
            ends = [text_of(given, self._digits) for given in values]
            return [a + b + b"\n" for a, b in zip(starts, ends, strict=True)]
        made = []
        for i, given in enumerate(values):
            one = slice(i, i + 1)
            part = {name: column.take(one) for name, column in rows.info.items()}
            made += self._encoder.encode_values(
                rows.sites.take(one), bcf_values(given, self._digits), part, rows.typed[one]
            )
        return made


class VcfWriter:
    """A VCF or BCF that is being written; a context manager.

    It is written under a temporary name in its folder, renamed by :meth:`close` and removed if the
    ``with`` block ends in an exception. A .vcf.gz gets a .tbi beside it (a .csi where positions
    exceed 2^29 - 1), a .bcf a .csi. The bytes are the same for any number of threads.

    Attributes
    ----------
    seconds
        Wall time so far of "format" and of "compress"; with threads, how long they were waited for.
    """

    def __init__(
        self,
        path: str | Path,
        heading: Heading,
        *,
        fields: Sequence[str] = ("GT", "DS", "GP"),
        threads: int = 1,
        output_type: str | None = None,
        digits: int = DIGITS,
        level: int = LEVEL,
        resumable: bool = False,
        restored: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> None:
        """Begin a file and write its header, or go on with a file that was not finished.

        Parameters
        ----------
        path
            Ends in .vcf, .vcf.gz or .bcf, unless ``output_type`` is given; "-": standard output.
        heading
            What the header says. Without samples the file is one of sites alone.
        fields
            FORMAT fields in order: of GT, DS, GP, HDS and AP (that is AP1 and AP2). None: the
            samples are left out too.
        threads
            For formatting and compression, >= 1.
        output_type
            A letter of ``OUTPUT_TYPES``; None: as the suffix says, and VCF for "-".
        digits
            Decimals of the numbers in FORMAT fields, 2 to 4.
        level
            Of compression, 1 (fast) to 12 (small).
        resumable
            Write to :func:`part_path`, which stays if the ``with`` block ends in an exception, or
            the process is killed.
        restored
            All that :meth:`checkpoint` returned in an earlier process, in order: the file is
            continued from there. The other parameters must be the same as then. What was written
            after the last checkpoint is dropped.

        Raises
        ------
        InputError
            If the path cannot be written, or its suffix or a field is unknown.
        """
        if threads < 1:
            raise ValueError(f"threads must be >= 1, found {threads}")
        self._to_stdout = str(path) == "-"
        self.path = Path(path)
        self._kind = output_kind(path, output_type)
        self._contigs = list(heading.contigs)
        self._names = [name for name, _ in heading.contigs]
        self._infos = {field.name for field in heading.declared_infos()}
        self._formats = check_fields(fields) if fields and heading.samples else []
        self._num_samples = len(heading.samples) if self._formats else 0
        self._encoder: BcfEncoder | None = None
        if self._kind == "bcf":
            self._encoder = BcfEncoder(heading, self._formats, self._num_samples, digits)
        self._rows = RowMaker(
            self._formats, self._num_samples, self._encoder, threads=threads, digits=digits,
            declarations=heading.declarations,
        )  # fmt: skip
        self._places = RecordPlaces()
        self.seconds = {"format": 0.0, "compress": 0.0}
        self._resumable = resumable
        self._new_files = NewFiles()
        self._file: BinaryIO | None = None
        self._bgzf: BgzfWriter | None = None
        text = header_text(heading, self._formats)
        with self._writing():
            if self._to_stdout:
                self._file = sys.stdout.buffer
            else:
                self._file = self._open(goes_on=len(restored) > 0)
            if self._kind != "vcf":
                plain = output_type == "u"
                self._bgzf = BgzfWriter(self._file, threads=threads, level=0 if plain else level)
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
            If shapes do not agree, a contig or an INFO field is not in the header, a contig comes
            back after another, positions decrease, or a probability is not in [0, 1].
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
        """Append sites whose samples are formatted already.

        Parameters
        ----------
        sites, info, typed
            As in :class:`ImputedBlock`.
        samples
            For a VCF, the text that follows FORMAT in each row; for a BCF, the values that
            ``BcfEncoder.encode_values`` takes.
        """
        if self._file is None:
            raise ValueError("the writer is closed")
        with self._writing():
            self._append(self._rows.rest())
            self._check_infos(info, typed)
            self._places.check(sites)
            columns = info_columns(info, len(sites))
            if self._encoder is not None:
                data = self._encoder.encode_values(sites, samples, columns, typed)
            else:
                text, offsets = row_starts(sites, typed, columns, self._formats)
                starts = [text[a:b].tobytes() for a, b in pairwise(offsets.tolist())]
                data = [b"%b\t%b\n" % (a, b) for a, b in zip(starts, samples, strict=True)]
            self._put(b"".join(data))
            if self._kind != "vcf":
                self._places.add(sites, np.cumsum([len(row) for row in data]))

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Make sure that all is on the disk, so that a later process can go on from there.

        Returns
        -------
        Arrays by name, of what was added since the last call; that process passes them all as
        ``restored``.

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
        """Go on from the last of the checkpoints of an earlier process."""
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
        """Finish the file, write its index, and rename both to their final names.

        Raises
        ------
        InputError
            If writing fails; nothing is left behind then.
        """
        if self._file is None:
            return
        with self._writing():
            self._append(self._rows.rest())
            self._rows.leave()
            if self._bgzf:
                self._bgzf.finish()
            self._file.flush()
            if not self._to_stdout:
                self._file.close()
                self._finish_names()
            self._file = None

    def abort(self) -> None:
        """Remove what was written, except for a file that can be resumed."""
        self._rows.leave()
        if self._bgzf:
            self._bgzf.abort()
        if self._file is not None and not self._to_stdout:
            with suppress(OSError):
                self._file.close()
        self._file = None
        self._new_files.drop()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Abort the file on any exception; an error of the system becomes an InputError."""
        try:
            yield
        except OSError as error:
            self.abort()
            if isinstance(error, BrokenPipeError):  # such as "| head": no more is to be read
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
        """Append bytes, which are compressed if the format is."""
        started = time.perf_counter()
        if self._bgzf:
            self._bgzf.write(data)
        else:
            assert self._file is not None
            self._file.write(data)
        self.seconds["compress"] += time.perf_counter() - started

    def _check(self, block: ImputedBlock) -> None:
        """Refuse a block whose shapes, contig or order do not fit the file."""
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
        self._check_infos(block.info, block.typed)
        self._places.check(sites)

    def _check_infos(self, info: Mapping[str, np.ndarray], typed: np.ndarray) -> None:
        """Refuse INFO fields and flags that the header does not declare."""
        flags = {
            FLAGS[number].name
            for number in np.flatnonzero(np.bincount(np.asarray(typed, np.intp))).tolist()
        }
        undeclared = (set(info) | flags) - self._infos
        if undeclared:
            raise ValueError(f"INFO {sorted(undeclared)} is not in the header: {self._infos}")

    def _append(self, rows: Iterable[Rows]) -> None:
        """Append rows, each as soon as it is formatted."""
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
        for suffix in (".tbi", ".csi"):  # indexes of an earlier file of this name
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
