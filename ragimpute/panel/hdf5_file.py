"""The HDF5 file of a panel: written safely on a full disk, opened only if it is what it says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ragimpute.errors import InputError, PanelError
from ragimpute.panel.format import FORMAT, FORMAT_VERSION, digest_array, new_digest
from ragimpute.runtime.outputs import replacing

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
    """A file beside ``path`` that takes its place on success and is removed on any failure.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    raw = None
    try:
        with replacing(path) as temporary, RawFile(temporary, "w+") as raw:
            yield raw
            raw.check()
    except (OSError, RuntimeError) as error:  # HDF5's are RuntimeErrors where they follow on ours
        cause = raw.error if raw is not None and raw.error is not None else error
        if not isinstance(cause, OSError):
            raise
        reason = cause.strerror or str(cause)
        hint = "check that the folder exists, may be written to and has space left"
        raise InputError(f"cannot write {path}: {reason}", hint=hint) from error


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


def damaged(path: Path, problem: str) -> PanelError:
    """The error for a panel that cannot be trusted."""
    return PanelError(
        f"panel {path} is damaged: {problem}", hint="make it again with ragimpute prepare"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn HDF5's errors into one line about the panel."""
    try:
        yield
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise damaged(path, reason) from error


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file that says it is a panel of this version."""
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise PanelError(f"panel {path} {problem}", hint="make one with ragimpute prepare")
    try:
        with path.open("rb") as raw:
            magic = raw.read(8)
    except OSError as error:
        raise PanelError(f"panel {path} cannot be read: {error.strerror}") from error
    if magic != b"\x89HDF\r\n\x1a\n":
        like_vcf = magic[:2] == b"\x1f\x8b" or magic[:6] == b"##file" or magic[:3] == b"BCF"
        raise PanelError(
            f"{path} is not a panel (not HDF5)"
            + (", but looks like a VCF/BCF" if like_vcf else ""),
            hint="make one with ragimpute prepare",
        )
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        reason = "it is truncated" if "truncated" in str(error) else "HDF5 cannot open it"
        raise damaged(path, reason) from error
    try:
        with reading(path):
            name = file.attrs.get("format", b"")
            version = int(file.attrs.get("format_version", 0))
            if name != FORMAT.encode():
                raise PanelError(
                    f"{path} is an HDF5 file, but not a panel",
                    hint="a scikit-allel HDF5 becomes a panel by ragimpute prepare",
                )
            if version != FORMAT_VERSION:
                age = "newer" if version > FORMAT_VERSION else "older"
                raise PanelError(
                    f"panel {path} has format version {version}; this ragimpute reads "
                    f"{FORMAT_VERSION}",
                    hint=f"it was made by a {age} ragimpute: "
                    + ("update ragimpute" if age == "newer" else "run ragimpute prepare again"),
                )
    except BaseException:
        file.close()
        raise
    return file
