"""The file ``panel.h5``: names of its datasets, versions, text columns, digests; how it is opened.

``docs/file-formats.md`` describes it. This module holds what its writer and its reader share. The
file is written safely on a full disk, and opened only if it is a panel of this version.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from ragimpute.errors import InputError, PanelError
from ragimpute.io.foreign import foreign_format, prepare_command
from ragimpute.runtime.outputs import replacing
from ragimpute.symbolic import is_symbolic

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

FORMAT = "ragimpute-panel"
FORMAT_VERSION = 1
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"  # how every HDF5 file begins

SITE_TYPES = ("SNP", "INS", "DEL", "MNP", "OTHER", "SV")
SYMBOLIC = SITE_TYPES.index("SV")
COMPRESSION_LEVEL = 4
MAX_WINDOW_SITES = 1020  # the models' longest window

TEXT_DATASETS = ("sites/ref", "sites/alt", "sites/id")
SITE_DATASETS = ("sites/position_bp", "sites/position_cm", "sites/alt_count", "sites/type")
HEAD_DATASETS = ("windows", "haplotypes/sample", "samples/population")  # small, whole in memory
NAME_DATASETS = ("samples/id", "populations/id")
BULK_DATASETS = (
    "haplotypes/carriers",
    "haplotypes/patterns",
    "haplotypes/pattern_count",
    "haplotypes/pattern_index",
    "frequency/population_alt_count",
    "frequency/genotype_count",
)
DATASETS = TEXT_DATASETS + SITE_DATASETS + NAME_DATASETS + HEAD_DATASETS + BULK_DATASETS
# Only where haplotypes exist in parts of the contig alone, as those of males on chrX.
PLOIDY_DATASETS = ("ploidy/start", "ploidy/present")
# Only where INFO says what alleles are: a line for each site, and header lines that declare it.
INFO_DATASETS = ("sites/info", "sites/info_header")
EXTRA_DATASETS = PLOIDY_DATASETS + INFO_DATASETS


def new_digest() -> hashlib.blake2b:
    """An empty digest, of the kind that every dataset carries."""
    return hashlib.blake2b(digest_size=16)


def digest_array(digest: hashlib.blake2b, values: np.ndarray) -> None:
    """Add an array's bytes, in C order, to a digest."""
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def content_checksum(contig: str, digests: Mapping[str, str]) -> str:
    """Checksum of a panel's content, from its contig and the digest of each dataset.

    It does not depend on chunking, compression, dates or file names.

    Parameters
    ----------
    contig
        Its name.
    digests
        For each name in ``DATASETS``, and in ``EXTRA_DATASETS`` where there are such, the
        BLAKE2b-128 of the dataset's little-endian bytes.

    Returns
    -------
    32 hexadecimal digits.
    """
    total = new_digest()
    total.update(f"{FORMAT} {FORMAT_VERSION}\n{contig}\n".encode())
    extra = [name for name in EXTRA_DATASETS if name in digests]
    for name in (*DATASETS, *extra):
        total.update(f"{name}={digests[name]}\n".encode())
    return total.hexdigest()


def encode_text(values: Iterable[str]) -> np.ndarray:
    """One line for each value, as UTF-8 bytes: shape (n,), uint8."""
    text = "".join(f"{value}\n" for value in values)
    return np.frombuffer(text.encode(), dtype=np.uint8)


def decode_text(octets: np.ndarray) -> np.ndarray:
    """Undo :func:`encode_text`; returns the lines, shape (M,), object (str)."""
    lines = octets.tobytes().decode().split("\n")[:-1]
    values = np.empty(len(lines), dtype=object)
    values[:] = lines
    return values


def all_index(values: np.ndarray, count: int) -> bool:
    """Whether all values are integers in [0, count)."""
    whole = values.dtype.kind in "iu"
    return whole and bool(((values >= 0) & (values < count)).all())


def cut_windows(position_cm: np.ndarray, window_cm: float) -> np.ndarray:
    """Cut sites into windows of at most ``window_cm`` and 1,020 sites.

    The map's length is cut into equal parts of at most ``window_cm``; parts with more than 1,020
    sites are cut again into equal numbers of sites. So no window is much shorter than the others.

    Parameters
    ----------
    position_cm
        Shape (M,), float64, cM, non-decreasing; M >= 1.
    window_cm
        Longest window, cM, > 0.

    Returns
    -------
    Shape (W, 2), int64: half-open site ranges that follow on each other from 0 to M.
    """
    span = float(position_cm[-1] - position_cm[0])
    num_parts = max(1, int(np.ceil(span / window_cm)))
    edges = position_cm[0] + span * np.arange(1, num_parts) / num_parts
    cuts = np.searchsorted(position_cm, edges, side="left")
    cuts = np.unique(np.concatenate([[0], cuts, [len(position_cm)]]))
    starts = [
        np.linspace(start, stop, -(-(stop - start) // MAX_WINDOW_SITES) + 1).astype(np.int64)[:-1]
        for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
    ]
    bounds = np.append(np.concatenate(starts), len(position_cm))
    return np.stack([bounds[:-1], bounds[1:]], axis=1).astype(np.int64)


def site_type(ref: str, alt: str) -> int:
    """Index into ``SITE_TYPES`` of a pair of alleles; those that are symbolic are "SV"."""
    if is_symbolic(alt):
        return SYMBOLIC
    if len(ref) == len(alt):
        return 0 if len(ref) == 1 else 3
    if alt.startswith(ref):
        return 1
    return 2 if ref.startswith(alt) else 4


class RawFile(io.FileIO):
    """A file that hides its errors from HDF5, and keeps the first one for :meth:`check`.

    HDF5 cannot close a file after a failed write, and then crashes when the process ends.
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


# What stands for files that a message cannot know.
_SOURCE, _MAP = "SOURCE.vcf.gz", "MAP"
_MAKE_ONE = f"make one: {prepare_command(_SOURCE, genetic_map=_MAP, out='PANEL.h5')}"


def damaged(path: Path, problem: str) -> PanelError:
    """The error for a panel that cannot be trusted."""
    return PanelError(
        f"panel {path} is damaged: {problem}",
        hint="make it again from its source, with the map that it had: "
        + prepare_command(_SOURCE, genetic_map=_MAP, out=path, force=True),
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
        raise PanelError(f"panel {path} {problem}", hint=_MAKE_ONE)
    try:
        with path.open("rb") as raw:
            magic = raw.read(32)
    except OSError as error:
        raise PanelError(f"panel {path} cannot be read: {error.strerror}") from error
    if magic[:8] != HDF5_MAGIC:
        like_vcf = magic[:2] == b"\x1f\x8b" or magic[:6] == b"##file" or magic[:3] == b"BCF"
        foreign = foreign_format(path, magic)
        if foreign is not None:
            raise PanelError(foreign.message, hint=foreign.hint)
        raise PanelError(
            f"{path} is not a panel (not HDF5)"
            + (", but looks like a VCF/BCF" if like_vcf else ""),
            hint=f"make one with {prepare_command(path)}" if like_vcf
            else _MAKE_ONE,
        )  # fmt: skip
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
                    hint=f"a scikit-allel HDF5 becomes a panel by {prepare_command(path)}",
                )
            if version != FORMAT_VERSION:
                age = "newer" if version > FORMAT_VERSION else "older"
                raise PanelError(
                    f"panel {path} has format version {version}; this ragimpute reads "
                    f"{FORMAT_VERSION}",
                    hint=f"it was made by a {age} ragimpute: "
                    + (
                        "update ragimpute"
                        if age == "newer"
                        else "make it again from its source, with the map that it had: "
                        + prepare_command(_SOURCE, genetic_map=_MAP, out=path, force=True)
                    ),
                )
    except BaseException:
        file.close()
        raise
    return file


def is_of_ragimpute(path: Path) -> bool:
    """Whether an HDF5 file says that it is a panel; True if it cannot be opened to see."""
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            return bool(file.attrs.get("format", b"") == FORMAT.encode())
    except (OSError, LookupError, ValueError, TypeError, RuntimeError):
        return True
