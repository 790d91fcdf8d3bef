"""The HDF5 file that a panel is written into: safe on a full disk, its datasets growing."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ragimpute.errors import InputError
from ragimpute.panel_format import digest_array, new_digest

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

COMPRESSION_LEVEL = 4


class RawFile(io.FileIO):
    """A file that keeps its first error for :meth:`check`.

    HDF5 cannot close a file whose writes fail, and crashes when the process ends.
    """

    error: OSError | None = None

    def write(self, data: Buffer) -> int:
        """Write all of ``data``; after an error, nothing, as if it had succeeded."""
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, unless an error came before."""
        try:
            return super().truncate(size) if self.error is None else size or 0
        except OSError as error:
            self.error = error
            return size or 0

    def check(self) -> None:
        """Raise the error, if there was one."""
        if self.error is not None:
            raise self.error


@contextmanager
def new_file(path: Path) -> Iterator[RawFile]:
    """A file beside ``path`` that takes its place on success and is removed on any failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    raw = None
    try:
        with RawFile(temporary, "w+") as raw:
            yield raw
            raw.check()
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # HDF5's are RuntimeErrors where they follow on ours
        cause = raw.error if raw is not None and raw.error is not None else error
        if not isinstance(cause, OSError):
            raise
        reason = cause.strerror or str(cause)
        hint = "check that the folder exists, may be written to and has space left"
        raise InputError(f"cannot write {path}: {reason}", hint=hint) from error
    finally:
        temporary.unlink(missing_ok=True)


def create(raw: RawFile) -> h5py.File:
    """A new HDF5 file whose metadata carry checksums (the layout of HDF5 1.10)."""
    return h5py.File(raw, "w", libver=("v110", "v110"), rdcc_nbytes=2**25)


class Column:
    """A dataset that grows; whole chunks are written, so that each is compressed once."""

    def __init__(
        self, file: h5py.File, name: str, dtype: str, *, width: int | None = None, chunk: int
    ) -> None:
        tail = () if width is None else (width,)
        self.dataset = file.create_dataset(
            name,
            shape=(0, *tail),
            maxshape=(None, *tail),
            chunks=(chunk, *tail),
            dtype=dtype,
            compression="gzip",
            compression_opts=COMPRESSION_LEVEL,
            shuffle=dtype != "u1",
            fletcher32=True,
        )
        self.chunk = chunk
        self.digest = new_digest()
        self.pending: list[np.ndarray] = []
        self.num_pending = 0

    def append(self, values: np.ndarray) -> None:
        """Add rows."""
        values = np.ascontiguousarray(values, dtype=self.dataset.dtype)
        digest_array(self.digest, values)
        self.pending.append(values)
        self.num_pending += len(values)
        if self.num_pending >= self.chunk:
            self._write(self.num_pending // self.chunk * self.chunk)

    def close(self) -> str:
        """Write what is left; return the digest."""
        self._write(self.num_pending)
        digest = self.digest.hexdigest()
        self.dataset.attrs["digest"] = np.bytes_(digest)
        return digest

    def _write(self, count: int) -> None:
        """Move the first ``count`` pending rows to the file."""
        if count == 0:
            return
        values = np.concatenate(self.pending)
        length = len(self.dataset)
        self.dataset.resize(length + count, axis=0)
        self.dataset[length:] = values[:count]
        self.pending = [values[count:].copy()]
        self.num_pending -= count


def write_whole(file: h5py.File, name: str, values: np.ndarray) -> str:
    """Write a small dataset at once; returns its digest."""
    digest = new_digest()
    digest_array(digest, values)
    dataset = file.create_dataset(
        name, data=values, compression="gzip", shuffle=True, fletcher32=True, chunks=True
    )
    dataset.attrs["digest"] = np.bytes_(digest.hexdigest())
    return digest.hexdigest()
