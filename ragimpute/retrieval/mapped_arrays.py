"""Files of named arrays that are mapped into memory: opening one reads its header alone.

The layout is that of safetensors: the length of the header, the header in JSON, then the arrays
without gaps. The library itself would copy every array; here they stay in the file until a part of
them is needed, and processes that read the same file share its memory. The header also has a sum of
each array's bytes, so that numbers that kernels use as places can be checked before they are used,
and the SHA-256 of all arrays.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.runtime.outputs import replacing

# The names of types in the header, and what numpy calls them.
_TYPES = {
    "F64": "<f8", "I64": "<i8", "U64": "<u8", "F32": "<f4", "I32": "<i4", "U32": "<u4",
    "I16": "<i2", "U16": "<u2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(text): name for name, text in _TYPES.items()}
_ABOUT, _SUMS, _SHA256 = "__metadata__", "sums", "sha256"
# The header is filled up with blanks to a multiple of so many bytes, so that arrays are aligned.
_ALIGNED = 64
_MOST_HEADER = 1 << 24
_AT_ONCE = 1 << 20
_SUM = "{:016x}"
# Arrays of fewer bytes are read as the system likes.
_LARGE = 1 << 26


class Getter(Protocol):
    """Gives arrays by name, as :meth:`MappedArrays.get` does."""

    def __call__(
        self, name: str, dtype: Any, shape: tuple[int | None, ...], /, *, checked: bool = False
    ) -> np.ndarray:
        """The array, which has this type and shape; None: any length."""
        ...


class Later(NamedTuple):
    """An array that is made when it is written, so that it is held no longer than that.

    Attributes
    ----------
    dtype, shape
        What it will have.
    make
        Makes it.
    """

    dtype: Any
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]


def write_arrays(
    path: Path, arrays: Mapping[str, np.ndarray | Later], about: Mapping[str, str]
) -> None:
    """Write a file of arrays, under a temporary name that is then renamed.

    Parameters
    ----------
    path
        The file.
    arrays
        By name; of the types of safetensors. Large ones may be made one after the other.
    about
        What the header says of them, by name.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    # Larger numbers first: then each array is aligned to the size of its numbers.
    names = sorted(arrays, key=lambda name: (-np.dtype(arrays[name].dtype).itemsize, name))
    entries: dict[str, Any] = {}
    place, digest, sums = 0, hashlib.sha256(), {}
    for name in names:
        dtype, shape = np.dtype(arrays[name].dtype), arrays[name].shape
        stop = place + math.prod(shape) * dtype.itemsize
        entries[name] = {
            "dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [place, stop],
        }  # fmt: skip
        place = stop
        sums[name] = _SUM.format(0)
    with replacing(path) as temporary, temporary.open("wb") as file:
        # The sums are as long as they will be when all is known.
        file.write(_header(about, sums, digest.hexdigest(), entries))
        for name in names:
            given = arrays[name]
            array = np.ascontiguousarray(given.make() if isinstance(given, Later) else given)
            if array.dtype != given.dtype or array.shape != tuple(given.shape):
                raise ValueError(f"{name} is {array.dtype} {array.shape}, not {given[:2]}")
            sums[name] = _SUM.format(_sum(array))
            digest.update(_octets(array))
            file.write(_octets(array))
        file.seek(0)
        file.write(_header(about, sums, digest.hexdigest(), entries))


def _header(
    about: Mapping[str, str], sums: Mapping[str, str], sha256: str, entries: Mapping[str, Any]
) -> bytes:
    """What comes before the arrays in a file."""
    told = {**about, _SUMS: json.dumps(sums, sort_keys=True), _SHA256: sha256}
    text = json.dumps({_ABOUT: dict(sorted(told.items())), **entries}, separators=(",", ":"))
    header = text.encode()
    header += b" " * (-(8 + len(header)) % _ALIGNED)
    return len(header).to_bytes(8, "little") + header


class MappedArrays:
    """The arrays of a file, in the file's memory.

    Parameters
    ----------
    path
        The file.
    refuse
        Makes the error for a file that is damaged, from what is wrong with it.
    by_page
        Whether only single pages of large arrays will be asked for: the system then reads these
        alone. Otherwise it reads what comes after them, too, which is faster if much is needed.

    Attributes
    ----------
    about
        What the header says of the arrays.
    names
        Those of the arrays.
    num_bytes
        The size of the file.

    Raises
    ------
    PanelError
        If the file cannot be read, its header is damaged, or it is shorter or longer than the
        header says.
    """

    def __init__(
        self, path: Path, refuse: Callable[[str], PanelError], *, by_page: bool = False
    ) -> None:
        self.path, self._refuse, self._by_page = path, refuse, by_page
        try:
            self._map(path)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise refuse(f"{path.name} cannot be read: {error or 'its header is amiss'}") from error

    def _map(self, path: Path) -> None:
        """Read the header, and map the file."""
        with path.open("rb") as file:
            self.num_bytes = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(_MOST_HEADER, self.num_bytes - 8):
                raise ValueError("its header is cut off")
            header = json.loads(file.read(length))
            self.about: dict[str, str] = header.pop(_ABOUT)
            self._sums: dict[str, str] = json.loads(self.about[_SUMS])
            start = 8 + length
            self._where = {name: _where(entry, start) for name, entry in header.items()}
            self.names = list(self._where)
            stop = start
            for first, _, dtype, shape in sorted(self._where.values(), key=lambda x: x[:2]):
                if first != stop or first % dtype.itemsize:
                    raise ValueError("its arrays do not follow on each other")
                stop = first + math.prod(shape) * dtype.itemsize
            if stop != self.num_bytes:
                raise ValueError(f"{stop} bytes were expected, and it has {self.num_bytes}")
            # A private copy of what is written to it. Nothing is: but an array that may not be
            # written to is another type to kernels, which they would be compiled for anew.
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def get(
        self, name: str, dtype: Any, shape: tuple[int | None, ...], /, *, checked: bool = False
    ) -> np.ndarray:
        """An array; it is read when its numbers are.

        Parameters
        ----------
        name
            One of ``names``.
        dtype, shape
            What it must be; None: any length.
        checked
            Whether to read all of it now, and compare it with its sum.

        Raises
        ------
        PanelError
            If there is no such array of this type and shape, or it does not have its sum.
        """
        if name not in self._where:
            raise self._refuse(f"{self.path.name} holds no {name}")
        start, _, found, size = self._where[name]
        fits = len(size) == len(shape) and all(
            want is None or want == got for want, got in zip(shape, size, strict=True)
        )
        if found != np.dtype(dtype) or not fits:
            raise self._refuse(
                f"{name} of {self.path.name} is {found} {size}, not {np.dtype(dtype)} {shape}"
            )
        count = math.prod(size)
        out: np.ndarray = np.zeros(size, found)
        if count:
            out = np.frombuffer(self._memory, found, count, start).reshape(size)
        if self._by_page and not checked and out.nbytes >= _LARGE:
            self._read_as_asked(start, start + out.nbytes)
        if checked and _SUM.format(_sum(out)) != self._sums.get(name):
            raise self._refuse(f"{name} of {self.path.name} does not have its checksum")
        return out

    def _read_as_asked(self, start: int, stop: int) -> None:
        """Tell the system that single pages of these bytes are read, and not those after them."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        if hasattr(self._memory, "madvise") and first < stop:  # not on every system
            self._memory.madvise(mmap.MADV_RANDOM, first, stop - first)

    def verify(self) -> None:
        """Read the whole file, and compare it with its checksums.

        Raises
        ------
        PanelError
            If it differs.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            while block := file.read(_AT_ONCE):
                digest.update(block)
        if digest.hexdigest() != self.about.get(_SHA256):
            raise self._refuse(f"{self.path.name} does not match its checksum")


def _where(entry: dict[str, Any], start: int) -> tuple[int, int, np.dtype[Any], tuple[int, ...]]:
    """Where an array begins and ends in a file, its type and its shape, by its entry."""
    dtype = np.dtype(_TYPES[entry["dtype"]])
    shape = tuple(entry["shape"])
    first, last = entry["data_offsets"]
    whole = all(type(x) is int and x >= 0 for x in (*shape, first, last))
    if not whole or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError("its header is amiss")
    return start + first, start + last, dtype, shape


def _octets(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, without a copy."""
    out: memoryview = array.reshape(-1).view(np.uint8).data
    return out


def _sum(array: np.ndarray) -> int:
    """A sum of a contiguous array's bytes, as words of 8 bytes; any single change changes it."""
    octets = array.reshape(-1).view(np.uint8)
    whole = len(octets) // 8 * 8
    total = int(octets[:whole].view(np.uint64).sum(dtype=np.uint64))
    return (total + 31 * int(octets[whole:].sum(dtype=np.uint64)) + array.size) % 2**64
