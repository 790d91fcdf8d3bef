"""Where a window's probabilities wait: written by haplotypes, read by sites.

Targets are imputed a batch at a time, but a row of a VCF holds all of them. The array between is
kept in memory if it is small, and else in a temporary file, laid out in tiles of sites so that both
sides read and write long runs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from ragimpute.errors import InputError

ITEM_BYTES = 4  # of a float32


class Spool:
    """An array of n haplotypes and m sites, float32; a context manager.

    Parameters
    ----------
    num_haplotypes, num_sites
        n >= 1 and m >= 1.
    max_bytes
        An array of more than so many bytes is kept in a file.
    tile_bytes
        About the size of what :meth:`tiles` yields.
    folder
        Where the file is made; it has no name there, and goes with the process.
    """

    def __init__(
        self,
        num_haplotypes: int,
        num_sites: int,
        *,
        max_bytes: int,
        tile_bytes: int,
        folder: str | Path | None = None,
    ) -> None:
        self._num = num_haplotypes
        self._num_sites = num_sites
        self._step = max(1, min(num_sites, tile_bytes // (ITEM_BYTES * num_haplotypes)))
        self._array: np.ndarray | None = None
        self._folder = folder
        self._file = None
        if ITEM_BYTES * num_haplotypes * num_sites <= max_bytes:
            self._array = np.empty((num_haplotypes, num_sites), np.float32)
            return
        try:
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from error

    @property
    def on_disk(self) -> bool:
        """Whether the array is in a file."""
        return self._file is not None

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._array = None
        if self._file is not None:
            self._file.close()

    def put(self, first: int, prob: np.ndarray, site: int = 0) -> None:
        """Take some sites of the haplotypes from ``first`` on, shape (b, m), float32.

        ``site`` is the first of the sites. Several threads may do so at once.

        Raises
        ------
        InputError
            If the disk is full.
        """
        stop = site + prob.shape[1]
        if not (0 <= first <= self._num - len(prob) and 0 <= site <= stop <= self._num_sites):
            raise ValueError(
                f"haplotypes {first}+{prob.shape} at sites from {site} on do not fit "
                f"{self._num} x {self._num_sites}"
            )
        if self._array is not None:
            self._array[first : first + len(prob), site:stop] = prob
            return
        for start in range(site // self._step * self._step, stop, self._step):
            low, high = max(site, start), min(stop, start + self._step)
            width = min(start + self._step, self._num_sites) - start
            part = np.ascontiguousarray(prob[:, low - site : high - site], np.float32)
            at = self._offset(start, width, first) + ITEM_BYTES * (low - start)
            if high - low == width:
                self._write(part, at)
                continue
            for i, row in enumerate(part):
                self._write(row, at + ITEM_BYTES * i * width)

    def tiles(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Ranges of sites in order, and their probabilities, shape (sites, n), float32."""
        for start in range(0, self._num_sites, self._step):
            stop = min(start + self._step, self._num_sites)
            if self._array is not None:
                part = self._array[:, start:stop]
            else:
                part = np.empty((self._num, stop - start), np.float32)
                self._read(part, self._offset(start, stop - start, 0))
            yield start, stop, np.ascontiguousarray(part.T)

    def _offset(self, start: int, width: int, first: int) -> int:
        """Where the file has haplotype ``first`` at sites from ``start`` on, in a tile's width."""
        return ITEM_BYTES * (start * self._num + first * width)

    def _write(self, part: np.ndarray, at: int) -> None:
        """Write a block; a call may take less than it is given."""
        assert self._file is not None
        view = part.reshape(-1).view(np.uint8).data
        try:
            while view:
                done = os.pwrite(self._file.fileno(), view, at)
                view, at = view[done:], at + done
        except OSError as error:
            raise self._failed(error) from error

    def _read(self, part: np.ndarray, at: int) -> None:
        """Read a block."""
        assert self._file is not None
        view = part.reshape(-1).view(np.uint8).data
        while view:
            done = os.preadv(self._file.fileno(), [view], at)
            if done == 0:
                raise ValueError("haplotypes are missing: not all were put")
            view, at = view[done:], at + done

    def _failed(self, error: OSError) -> InputError:
        """The error for a disk that does not take the file."""
        gib = ITEM_BYTES * self._num * self._num_sites / 2**30
        where = self._folder or "the temporary folder"
        return InputError(
            f"cannot write {gib:.1f} GiB of temporary data to {where}: {error.strerror}",
            hint="make room there, or give a larger --max-memory, or fewer samples at a time",
        )
