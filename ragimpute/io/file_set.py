"""Files that appear together: one of records, which is written as they come, and others beside it.

BGEN and PGEN are such sets. The names of sites and samples follow the same rules in both.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.imputed import ImputedBlock, part_path
from ragimpute.io.vcf.header import FLAGS, Heading
from ragimpute.runtime.outputs import NewFiles
from ragimpute.runtime.threads import Task, crew_of
from ragimpute.sites import Sites

_LONGEST_NAME = 1_000  # of a site; plink2 refuses names of more than 16,000 characters
SEX_MALE, SEX_FEMALE = 1, 2  # 0: not known


class Records(NamedTuple):
    """Sites as the file of records has them."""

    data: bytes
    num: int


class FileSetWriter:
    """What the writers of BGEN and PGEN have in common; a context manager.

    Records go to a temporary file beside the output, and :meth:`close` makes the files of it. None
    of them has its final name before all are complete.

    Attributes
    ----------
    seconds
        Wall time so far of "format", which includes the compression, and of "compress", which is
        writing alone here.
    """

    def __init__(
        self,
        path: str | Path,
        heading: Heading,
        *,
        sexes: np.ndarray | None = None,
        threads: int = 1,
        resumable: bool = False,
        restored: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> None:
        """Begin a set, or go on with one that was not finished.

        Parameters
        ----------
        path
            The main file.
        heading
            Samples, contigs and INFO fields.
        sexes
            Shape (N,): 1 male, 2 female, 0 not known; None: of nobody.
        threads
            How many blocks are made ready at once, >= 1; the files do not depend on it.
        resumable
            Write records to ``part_path(path)``, which stays if the ``with`` block ends in an
            exception.
        restored
            All that :meth:`checkpoint` returned in an earlier process, in order.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        if threads < 1:
            raise ValueError(f"threads must be >= 1, found {threads}")
        self.path = Path(path)
        self._heading = heading
        self._sexes = np.zeros(len(heading.samples), int) if sexes is None else sexes
        self._contigs = [name for name, _ in heading.contigs]
        self._infos = {field.name for field in heading.declared_infos()}
        self._num_records, self._last_bp = 0, 0
        self.seconds = {"format": 0.0, "compress": 0.0}
        self._resumable = resumable
        self._new_files = NewFiles()
        self._file: BinaryIO | None = None
        self._part: Path | None = None
        self._threads = threads
        self._stack = ExitStack()
        self._crew = self._stack.enter_context(crew_of(threads)) if threads > 1 else None
        self._waiting: deque[Task[Records]] = deque()
        with self._writing():
            self._file = self._open(restored)

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
            If shapes do not agree, a contig or an INFO field is not in the heading, positions
            decrease, or a probability is not in [0, 1].
        InputError
            If writing fails.
        """
        if self._file is None:
            raise ValueError("the writer is closed")
        with self._writing():
            self._check(block)
            if len(block.sites) == 0:
                return
            started = time.perf_counter()
            if self._crew is None:
                self._append(self._records(block), started)
                return
            self._waiting.append(self._crew.start(partial(self._records, block)))
            self._drain(self._threads)

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Make sure that all is on the disk, so that a later process can go on from there."""
        if self._file is None or not self._resumable:
            raise ValueError("the writer is closed, or not resumable")
        with self._writing():
            self._drain(0)
            self._file.flush()
            os.fsync(self._file.fileno())
        told = {"num_bytes": self._file.tell(), "num_records": self._num_records}
        return {name: np.array(value) for name, value in told.items()}

    def close(self) -> None:
        """Finish all files and give them their final names.

        Raises
        ------
        InputError
            If writing fails; nothing is left behind then, except for what can be resumed.
        """
        if self._file is None:
            return
        assert self._part is not None
        with self._writing():
            self._drain(0)
            self._leave()
            self._finish(self._file, self._part)
            self._file.close()
            self._file = None
            for old in self._outdated():
                old.unlink(missing_ok=True)
            self._new_files.finish()
            with suppress(OSError):
                self._part.unlink(missing_ok=True)

    def abort(self) -> None:
        """Remove what was written, except for a file that can be resumed."""
        self._leave()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._file = None
        self._new_files.drop()
        if self._part is not None and not self._resumable:
            with suppress(OSError):
                self._part.unlink(missing_ok=True)

    def _start(self) -> bytes:
        """What comes before the records."""
        return b""

    def _records(self, block: ImputedBlock) -> Records:
        """The records of a block; threads call it for several blocks at once."""
        raise NotImplementedError

    def _finish(self, file: BinaryIO, part: Path) -> None:
        """Make all files under names that ``self._new_files`` gives, the main one last.

        ``file`` is open at the end of the records, and ``part`` is its name.
        """
        raise NotImplementedError

    def _outdated(self) -> list[Path]:
        """Files of an earlier set of this name that would be taken for a part of this one."""
        return []

    def _new_file(self, path: Path) -> BinaryIO:
        """A file beside the main one, open for writing."""
        return self._new_files.name(path).open("wb")

    def _open(self, restored: Sequence[Mapping[str, np.ndarray]]) -> BinaryIO:
        """The file of records, new or as an earlier process left it."""
        if self.path.is_dir():
            raise InputError(f"the output {self.path} is a folder", hint="name a file")
        name = part_path(self.path)
        if not self._resumable:  # two runs may write the same output
            name = name.with_name(f"{name.name}.{os.getpid():x}{os.urandom(4).hex()}")
        self._part = name
        if not restored:
            file = name.open("w+b")
            file.write(self._start())
            return file
        file = name.open("r+b")
        num_bytes = int(restored[-1]["num_bytes"])
        if file.seek(0, os.SEEK_END) < num_bytes:
            file.close()
            raise ValueError(f"{name} is shorter than the {num_bytes} bytes kept")
        file.seek(num_bytes)
        file.truncate()
        self._num_records = int(restored[-1]["num_records"])
        return file

    def _leave(self) -> None:
        """Forget the blocks that are being made ready, and begin no others."""
        for task in self._waiting:
            task.drop()
        self._waiting.clear()
        self._stack.close()

    def _drain(self, most: int) -> None:
        """Append what is ready, until at most ``most`` blocks wait."""
        while len(self._waiting) > most:
            started = time.perf_counter()
            self._append(self._waiting.popleft().result(), started)

    def _append(self, records: Records, started: float) -> None:
        """Append records, for which was waited since ``started``."""
        assert self._file is not None
        ready = time.perf_counter()
        self.seconds["format"] += ready - started
        self._file.write(records.data)
        self._num_records += records.num
        self.seconds["compress"] += time.perf_counter() - ready

    def _check(self, block: ImputedBlock) -> None:
        """Refuse a block whose shapes, contig, INFO or order do not fit the file."""
        sites, num_sites = block.sites, len(block.sites)
        shape = (num_sites, len(self._heading.samples), 2)
        if block.allele_prob.shape != shape:
            raise ValueError(f"allele_prob has shape {block.allele_prob.shape}, expected {shape}")
        if block.typed.shape != (num_sites,):
            raise ValueError(f"typed has shape {block.typed.shape}, expected ({num_sites},)")
        if block.locus is not None and (block.locus >= 0).any():
            raise ValueError("records with several ALTs cannot be written")
        if sites.contig not in self._contigs:
            raise ValueError(f"contig {sites.contig} is not in the heading: {self._contigs}")
        flags = {FLAGS[number].name for number in np.unique(block.typed).astype(int).tolist()}
        undeclared = (set(block.info) | flags) - self._infos
        if undeclared:
            raise ValueError(f"INFO {sorted(undeclared)} is not in the heading: {self._infos}")
        positions = np.concatenate([[self._last_bp], sites.position_bp])
        if (np.diff(positions) < 0).any():
            raise ValueError("positions decrease")
        self._last_bp = int(positions[-1])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Abort the files on any exception; an error of the system becomes an InputError."""
        try:
            yield
        except OSError as error:
            self.abort()
            raise InputError(
                f"cannot write {self.path}: {error.strerror or error}",
                hint="check that the folder exists, may be written to and has space left",
            ) from error
        except BaseException:
            self.abort()
            raise


def site_names(sites: Sites) -> list[str]:
    """Names of sites: the panel's, or CONTIG:POSITION:REF:ALT where it has none.

    Behind a symbolic ALT stands where it ends, such as 20:100:A:<DEL>:END=1200.

    Association tools and scores find sites by their name, so every site needs one. Where the
    alleles make the name longer than 1,000 characters, a checksum stands for them.
    """
    return [
        name if name != "." and len(name) <= _LONGEST_NAME else made_name(sites.contig, *key)
        for name, key in zip(sites.id.tolist(), sites.keys(), strict=True)
    ]


def made_name(contig: str, position_bp: int, ref: str, alt: str) -> str:
    """CONTIG:POSITION:REF:ALT, or CONTIG:POSITION:checksum if that is too long."""
    name = f"{contig}:{position_bp}:{ref}:{alt}"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{contig}:{position_bp}:{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def zstd_level(level: int) -> int:
    """The level of zstd for one of 1 (fast) to 12 (small): below 3 it saves no time."""
    return max(3, level)


def unfit_name(samples: Sequence[str]) -> tuple[str, str] | None:
    """The first sample whose name .sample and .psam files cannot hold, and why; None if all fit.

    Their columns are separated by blanks, "0" stands for no name there, and a line that begins with
    # is a comment.
    """
    for name in samples:
        if name.split() != [name]:
            return name, "has a blank"
        if name.startswith("#"):
            return name, "begins with #"
        if name == "0":
            return name, "means that there is no name"
    return None
