"""Read whole chunks of a panel's largest datasets in less time than HDF5's own filters take.

HDF5 stores a chunk of numbers shuffled (first the lowest byte of every number, then the next byte
of every number), compressed by zlib, and followed by a checksum. libdeflate takes a third of zlib's
time, and compares zlib's own checksum. Where a dataset or a chunk is stored in another way, HDF5
reads it.
"""

from __future__ import annotations

import deflate
import h5py
import numpy as np
from h5py import h5d, h5z

from ragimpute.kernels.compile import kernel

_PIPELINES = (
    [h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE, h5z.FILTER_FLETCHER32],
    [h5z.FILTER_SHUFFLE, h5z.FILTER_DEFLATE],
)


def read_numbers(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    """Read the numbers [start, stop) of a column.

    Parameters
    ----------
    dataset
        Of shape (n,), uint32.
    start, stop
        0 <= start <= stop <= n.

    Returns
    -------
    Shape (stop - start,), uint32.

    Raises
    ------
    OSError, ValueError
        If a chunk is damaged.
    """
    if not _is_usual(dataset, np.dtype(np.uint32), 1):
        found: np.ndarray = dataset[start:stop]
        return found
    out = np.empty(stop - start, np.uint32)
    size = dataset.chunks[0]
    whole = np.empty(size, np.uint32)
    for first in range(start // size * size, stop, size):
        planes = _planes(dataset, (first,), size)
        low, high = max(start, first), min(stop, first + size)
        if planes is None:
            out[low - start : high - start] = dataset[low:high]
        elif high - low == size:
            join_four(planes, out[low - start : high - start])
        else:
            join_four(planes, whole)
            out[low - start : high - start] = whole[low - first : high - first]
    return out


class RowReader:
    """Reads rows of numbers below a limit.

    Parameters
    ----------
    dataset
        Of shape (r, n), uint16 or uint32.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset, self._kind, self._size = dataset, dataset.dtype, dataset.shape[1]
        # To ask HDF5 how a dataset is stored takes as long as to read a row.
        self._is_usual = (
            self._kind.itemsize in (2, 4)
            and _is_usual(dataset, self._kind, 2)
            and dataset.chunks == (1, self._size)
        )

    def read(self, row: int, num_values: int) -> np.ndarray:
        """Read a row.

        Parameters
        ----------
        row
            In [0, r).
        num_values
            How many values there are: up to 65,536 fit into 16 bits.

        Returns
        -------
        Shape (n,), of the dataset's type, or uint16 if all values fit into it.

        Raises
        ------
        OSError, ValueError
            If a chunk is damaged, or has a number that is not below ``num_values``.
        """
        size, planes = self._size, None
        if self._is_usual:
            planes = _planes(self._dataset, (row, 0), size)
        narrow = num_values <= 1 << 16
        if planes is None:
            out: np.ndarray = self._dataset[row]
        elif self._kind.itemsize == 4 and not narrow:
            out = np.empty(size, np.uint32)
            join_four(planes, out)
        else:
            out = np.empty(size, np.uint16)
            join_two(planes, out)
        wide = planes is not None and narrow and planes[2:].any()
        if wide or out.dtype.kind != "u" or (size > 0 and out.max() >= num_values):
            raise ValueError(f"patterns of block {row} are out of range")
        return out.astype(np.uint16) if narrow and out.dtype != np.uint16 else out


def _is_usual(dataset: h5py.Dataset, dtype: np.dtype, num_axes: int) -> bool:
    """Whether a dataset of numbers of this type is stored as panels are written."""
    if dataset.dtype != dtype or len(dataset.shape) != num_axes or dataset.chunks is None:
        return False
    properties = dataset.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    return filters in _PIPELINES and dataset.id.get_type().get_order() == h5py.h5t.ORDER_LE


def _planes(dataset: h5py.Dataset, place: tuple[int, ...], size: int) -> np.ndarray | None:
    """The bytes of a chunk of ``size`` numbers, the lowest byte of each first: (bytes, size).

    None if a filter was left out for this chunk, or if the chunk is not stored.
    """
    width = dataset.dtype.itemsize
    found: h5d.StoreInfo = dataset.id.get_chunk_info_by_coord(place)
    if found.filter_mask or not found.size:
        return None
    _, data = dataset.id.read_direct_chunk(place)
    try:
        octets = deflate.zlib_decompress(data, size * width)
    except deflate.DeflateError as error:
        raise ValueError(f"a chunk of {dataset.name} cannot be decompressed") from error
    if len(octets) != size * width:
        raise ValueError(f"a chunk of {dataset.name} is too short")
    return np.frombuffer(octets, np.uint8).reshape(width, size)


@kernel
def join_four(planes, out):
    """Make numbers of 32 bits of their four bytes, ``planes`` (4, n), the lowest first."""
    for i in range(out.shape[0]):
        out[i] = (
            np.uint32(planes[0, i])
            | np.uint32(planes[1, i]) << np.uint32(8)
            | np.uint32(planes[2, i]) << np.uint32(16)
            | np.uint32(planes[3, i]) << np.uint32(24)
        )


@kernel
def join_two(planes, out):
    """Make numbers of 16 bits of their two lower bytes: ``planes`` (2 or 4, n), lowest first."""
    for i in range(out.shape[0]):
        out[i] = np.uint16(planes[0, i]) | np.uint16(planes[1, i]) << np.uint16(8)
