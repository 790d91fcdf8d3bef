"""Where records lie in a file that is being written, for its index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ragimpute.io.vcf.index import ContigRecords
from ragimpute.sites import Sites


class RecordPlaces:
    """Remembers where records lie: 16 bytes a site."""

    def __init__(self) -> None:
        self.max_bp = 0
        self._size = 0  # bytes of records so far
        self._last_bp = 0
        self._contig = ""
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
        self._start_of: dict[str, int] = {}
        self._num_told = 0  # parts that checkpoints told of

    def check(self, sites: Sites) -> None:
        """Refuse sites that come before those so far."""
        if sites.contig != self._contig:
            if sites.contig in self._start_of:
                raise ValueError(f"contig {sites.contig} comes back after {self._contig}")
            self._contig, self._last_bp = sites.contig, 0
            self._start_of[sites.contig] = 0
        if len(sites) == 0:
            return
        position = sites.position_bp
        if position[0] < max(1, self._last_bp) or (np.diff(position) < 0).any():
            raise ValueError(f"sites on {sites.contig} are not sorted, or before position 1")
        self._last_bp = int(position[-1])

    def add(self, sites: Sites, ends: np.ndarray) -> None:
        """Take records that end at ``ends`` in the bytes just written."""
        length = np.fromiter(map(len, sites.ref.tolist()), np.int32, len(sites))
        parts = self._parts.setdefault(sites.contig, [])
        if not parts:
            self._start_of[sites.contig] = self._size
        parts.append((sites.position_bp, length, ends + self._size))
        self._size += int(ends[-1])
        self.max_bp = max(self.max_bp, int((sites.position_bp.astype(np.int64) + length).max()) - 1)

    def records(
        self, virtual_offsets: Callable[[np.ndarray], np.ndarray]
    ) -> dict[str, ContigRecords]:
        """By contig, in file order."""
        made = {}
        for contig, parts in self._parts.items():
            position, length, ends = (np.concatenate(column) for column in zip(*parts, strict=True))
            begin = position.astype(np.int64) - 1
            edges = virtual_offsets(np.concatenate([[self._start_of[contig]], ends]))
            made[contig] = ContigRecords(begin, begin + length, edges[:-1], edges[1:])
        return made

    def checkpoint(self) -> dict[str, np.ndarray]:
        """What was added since the last call: positions, REF lengths, ends; of one contig.

        Raises
        ------
        ValueError
            If there are several contigs.
        """
        if len(self._parts) > 1:
            raise ValueError(f"a file of several contigs is not resumed: {list(self._parts)}")
        new = [part for parts in self._parts.values() for part in parts[self._num_told :]]
        self._num_told += len(new)
        empty = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))
        position, length, ends = (
            np.concatenate(column) for column in zip(empty, *new, strict=True)
        )
        return {"position_bp": position, "ref_length": length, "ends": ends}

    def restore(self, contig: str, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Take what :meth:`checkpoint` told in an earlier process, all of it."""
        parts = [
            (state["position_bp"], state["ref_length"], state["ends"])
            for state in states
            if len(state["ends"])
        ]
        if not parts:
            return
        self._contig, self._parts[contig], self._start_of[contig] = contig, parts, 0
        self._num_told = len(parts)
        self._last_bp, self._size = int(parts[-1][0][-1]), int(parts[-1][2][-1])
        self.max_bp = max(int((at.astype(np.int64) + n).max()) - 1 for at, n, _ in parts)
