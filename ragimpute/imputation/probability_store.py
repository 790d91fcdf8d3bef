"""Where a window's probabilities wait: written by haplotypes, read by sites.

Targets are imputed a batch at a time, but a row of a VCF holds all of them. The probabilities of
all targets are kept in memory if they are few, otherwise in a temporary file, in tiles of sites.
Most probabilities are 0, as no haplotype that a target copies has the rarer allele; the file leaves
these out.
"""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import NamedTuple

import numpy as np

from ragimpute.errors import InputError
from ragimpute.kernels.sparse_rows import WORD, pack_rows, unpack_rows

ITEM_BYTES = 4  # of a float32


class _Part(NamedTuple):
    """A part of the file: some haplotypes at some sites of a tile, and where it begins."""

    first: int
    num: int
    site: int
    num_sites: int
    place: int
    num_values: int

    @property
    def num_words(self) -> int:
        """Words that hold one bit for each site of a haplotype."""
        return -(-self.num_sites // WORD)

    @property
    def num_bytes(self) -> int:
        """Size of the part: bits, numbers of values, and values."""
        return self.num * (8 * self.num_words + 8) + ITEM_BYTES * self.num_values


def _edges(num_sites: int, step: int, joined: np.ndarray | None) -> list[int]:
    """Where tiles of ``step`` sites begin, or later where that would cut what is joined."""
    edges = [0]
    while edges[-1] < num_sites:
        edge = min(edges[-1] + step, num_sites)
        while joined is not None and edge < num_sites and joined[edge]:
            edge += 1
        edges.append(edge)
    return edges


class Spool:
    """An array of P(ALT), n haplotypes by m sites, float32; a context manager.

    Parameters
    ----------
    num_haplotypes, num_sites
        n >= 1 and m >= 1.
    max_bytes
        An array of more than so many bytes is kept in a file.
    tile_bytes
        Approximate size of the tiles that :meth:`take` returns.
    folder
        Where the file is made. It has no name, and disappears when the process ends.
    joined
        Shape (m,), bool: sites that are to be in the same tile as the site before; None: no site.
    """

    def __init__(
        self,
        num_haplotypes: int,
        num_sites: int,
        *,
        max_bytes: int,
        tile_bytes: int,
        folder: str | Path | None = None,
        joined: np.ndarray | None = None,
    ) -> None:
        self._num = num_haplotypes
        self._num_sites = num_sites
        step = max(1, min(num_sites, tile_bytes // (ITEM_BYTES * num_haplotypes)))
        self._edges = _edges(num_sites, step, joined)
        self._array: np.ndarray | None = None
        self._folder = folder
        self._file = None
        self._parts: dict[int, list[_Part]] = {}  # by the tile's first site
        self._num_bytes = 0
        self._lock = Lock()
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
        self.close()

    def close(self) -> None:
        """Forget all."""
        self._array = None
        if self._file is not None:
            self._file.close()

    def put(self, first: int, prob: np.ndarray, site: int = 0) -> None:
        """Store P(ALT) of some sites of the haplotypes from ``first`` on, shape (b, m), float32.

        ``site`` is the first of the sites. Several threads may call this at once, with pairs of
        their own. Pairs that were put by an earlier call are replaced.

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
        prob = np.ascontiguousarray(prob, np.float32)
        for start, end in self.tiles[bisect_right(self._edges, site) - 1 :]:
            if start >= stop:
                break
            low, high = max(site, start), min(stop, end)
            self._pack(start, first, low, prob, slice(low - site, high - site))

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """Ranges of sites, in order."""
        return list(pairwise(self._edges))

    def take(self, start: int, stop: int) -> np.ndarray:
        """P(ALT) of one of the tiles, shape (sites, n), float32. A tile can be taken once."""
        if self._array is not None:
            return np.ascontiguousarray(self._array[:, start:stop].T)
        parts = self._parts.pop(start, [])
        out = np.zeros((stop - start, self._num), np.float32)
        known = np.zeros(out.shape, bool)
        for part in parts:
            low, first = part.site - start, part.first
            here = (slice(low, low + part.num_sites), slice(first, first + part.num))
            if known[here].any():
                out[here] = 0
            known[here] = True
            masks, counts, values = self._views(part, self._read(part))
            at = np.empty(part.num, np.int64)
            unpack_rows(masks, counts, values, at, part.site - start, part.first, out)
        if not known.all():
            raise ValueError(f"haplotypes are missing at sites from {start}: not all were put")
        return out

    def _pack(self, start: int, first: int, site: int, prob: np.ndarray, columns: slice) -> None:
        """Write those columns of ``prob`` (b, m) that belong to the tile beginning at ``start``."""
        width = columns.stop - columns.start
        most = _Part(first, len(prob), site, width, 0, len(prob) * width)
        raw = np.empty(most.num_bytes, np.uint8)
        num = pack_rows(prob, columns.start, columns.stop, *self._views(most, raw))
        with self._lock:
            part = most._replace(place=self._num_bytes, num_values=num)
            self._num_bytes += part.num_bytes
            self._parts.setdefault(start, []).append(part)
        self._write(raw[: part.num_bytes], part.place)

    def _views(self, part: _Part, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bits, counts and values in a part's bytes."""
        bits = 8 * part.num * part.num_words
        counts = bits + 8 * part.num
        return (
            raw[:bits].view(np.uint64).reshape(part.num, part.num_words),
            raw[bits:counts].view(np.int64),
            raw[counts:].view(np.float32),
        )

    def _write(self, part: np.ndarray, at: int) -> None:
        """Write all bytes: the system may take fewer of them at once."""
        assert self._file is not None
        view = part.data
        try:
            while view:
                done = os.pwrite(self._file.fileno(), view, at)
                view, at = view[done:], at + done
        except OSError as error:
            raise self._failed(error) from error

    def _read(self, part: _Part) -> np.ndarray:
        """Read a part's bytes."""
        assert self._file is not None
        raw = np.empty(part.num_bytes, np.uint8)
        view, at = raw.data, part.place
        while view:
            done = os.preadv(self._file.fileno(), [view], at)
            if done == 0:
                raise ValueError("the temporary file is shorter than what was written to it")
            view, at = view[done:], at + done
        return raw

    def _failed(self, error: OSError) -> InputError:
        """The error for a disk that has no room for the file."""
        gib = ITEM_BYTES * self._num * self._num_sites / 2**30
        where = self._folder or "the temporary folder"
        return InputError(
            f"cannot write {gib:.1f} GiB of temporary data to {where}: {error.strerror}",
            hint="make room there, or give a larger --max-memory, or fewer samples at a time",
        )
