"""Alleles of a very large panel by haplotype: those of some haplotypes are read without the others.

An index folder holds this form, mapped into memory. The alleles of a haplotype are next to each
other in it, so that the system reads a few pages for each haplotype that targets copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.kernels.compile import kernel
from ragimpute.panel.compact import CompactHaplotypes
from ragimpute.panel.haplotypes import Haplotypes
from ragimpute.panel.packing import BLOCK_ROWS, PatternBlock, RowBlocks, patterns_to_rows
from ragimpute.retrieval.mapped_arrays import Getter, Later


@dataclass(frozen=True)
class HaplotypeMajor:
    """Alleles of all haplotypes at consecutive sites, by haplotype.

    Attributes
    ----------
    alt_is_minor, row
        See :class:`ragimpute.panel.compact.CompactHaplotypes`.
    offsets, sites
        Shape (H + 1,), int64, and (C,), int32: of the sites without a row, haplotype h has the
        minor allele at ``sites[offsets[h] : offsets[h + 1]]``, ascending.
    patterns, pattern_offsets
        Shape (u,), uint64, and (B + 1,), int64: the patterns of block b of 64 rows are
        ``patterns[pattern_offsets[b] : pattern_offsets[b + 1]]``.
    number
        Shape (H, B), uint16 or uint32: each haplotype's pattern in each block.
    refuse
        Makes the error for numbers that are out of range, from what is wrong.
    """

    alt_is_minor: np.ndarray
    row: np.ndarray
    offsets: np.ndarray
    sites: np.ndarray
    patterns: np.ndarray
    pattern_offsets: np.ndarray
    number: np.ndarray
    refuse: Callable[[str], PanelError]

    @staticmethod
    def arrays_of(compact: CompactHaplotypes) -> dict[str, np.ndarray | Later]:
        """What :meth:`of_arrays` takes; the larger ones are made one after the other."""
        sizes = [len(block.patterns) for block in compact.blocks]
        kind = np.result_type(np.uint16, *(block.number.dtype for block in compact.blocks))
        num = compact.num_haplotypes
        offsets = np.zeros(num + 1, np.int64)
        _count(compact.carriers, offsets[1:])
        np.cumsum(offsets, out=offsets)

        def sites() -> np.ndarray:
            out = np.empty(len(compact.carriers), np.int32)
            _list_sites(compact.offsets, compact.carriers, offsets[:-1].copy(), out)
            return out

        def number() -> np.ndarray:
            out = np.empty((num, len(sizes)), kind)
            for b, block in enumerate(compact.blocks):
                out[:, b] = block.number
            return out

        none = np.zeros(0, np.uint64)
        return {
            "row_of_site": compact.row,
            "site_offsets_of": offsets,
            "sites_of": Later(np.int32, (len(compact.carriers),), sites),
            "patterns": np.concatenate([none, *(block.patterns for block in compact.blocks)]),
            "pattern_offsets": np.cumsum([0, *sizes], dtype=np.int64),
            "pattern_of": Later(kind, (num, len(sizes)), number),
        }

    @classmethod
    def of_arrays(
        cls,
        get: Getter,
        alt_is_minor: np.ndarray,
        num_haplotypes: int,
        refuse: Callable[[str], PanelError],
    ) -> HaplotypeMajor:
        """Make it of :meth:`arrays_of`, of H haplotypes; see the attributes."""
        ends = get("pattern_offsets", np.int64, (None,), checked=True)
        patterns = get("patterns", np.uint64, (None,), checked=True)
        row = get("row_of_site", np.int32, (len(alt_is_minor),), checked=True)
        steps = np.diff(ends)
        fits = len(ends) > 0 and ends[0] == 0 and ends[-1] == len(patterns) and (steps >= 0).all()
        if not fits or row.max(initial=-1) >= BLOCK_ROWS * len(steps):
            raise refuse("its patterns do not fit its sites")
        kind = np.uint16 if steps.max(initial=0) <= 1 << 16 else np.uint32
        return cls(
            alt_is_minor, row, get("site_offsets_of", np.int64, (num_haplotypes + 1,)),
            get("sites_of", np.int32, (None,)), patterns, ends,
            get("pattern_of", kind, (num_haplotypes, len(steps))), refuse,
        )  # fmt: skip

    @property
    def num_carriers(self) -> int:
        """Minor alleles of all haplotypes at sites without a row."""
        return len(self.sites)

    def select(self, kept: np.ndarray) -> Haplotypes:
        """See :meth:`ragimpute.panel.compact.CompactHaplotypes.select`."""
        first, last = self.offsets[kept], self.offsets[kept + 1]
        most = len(self.sites)
        if (first < 0).any() or (last < first).any() or last.max(initial=0) > most:
            raise self.refuse("its lists of sites are out of range")
        at = np.zeros(len(self.row) + 2, np.int64)
        if not _count_within(self.sites, first, last, at[2:]):
            raise self.refuse("its sites are out of range")
        np.cumsum(at, out=at)
        carriers = np.empty(at[-1], np.int32)
        _list_carriers(self.sites, first, last, at[1:], carriers)
        is_row = self.row >= 0
        rows = self.row[is_row]
        bits = np.empty((len(rows), -(-len(kept) // 64)), np.uint64)
        number = np.ascontiguousarray(self.number[kept].T)
        few = []
        for b, ours in enumerate(number):
            low, high = np.searchsorted(rows, [b * BLOCK_ROWS, (b + 1) * BLOCK_ROWS])
            patterns = self.patterns[slice(*self.pattern_offsets[b : b + 2])]
            if ours.max(initial=0) >= max(1, len(patterns)):
                raise self.refuse("its numbers of patterns are out of range")
            few.append(PatternBlock(patterns, ours))
            if low < high:
                whole = patterns_to_rows(patterns, ours)
                bits[low:high] = whole[rows[low:high] - b * BLOCK_ROWS]
        row = np.where(is_row, np.cumsum(is_row) - 1, -1).astype(np.int32)
        blocks = RowBlocks(int(rows[0]), few) if len(rows) else None
        return Haplotypes(len(kept), self.alt_is_minor, at[:-1], carriers, row, bits, blocks)


@kernel
def _count(carriers, counts):
    """Count how often each haplotype is among the carriers, in ``counts`` (H,)."""
    for h in carriers:
        counts[h] += 1


@kernel
def _list_sites(offsets, carriers, at, sites):
    """List the sites of each carrier; ``at`` (H,) has the places to write to, and moves on."""
    for u in range(offsets.shape[0] - 1):
        for i in range(offsets[u], offsets[u + 1]):
            h = carriers[i]
            sites[at[h]] = u
            at[h] += 1


@kernel
def _count_within(sites, first, last, counts):
    """Count how many of some lists have each site, in ``counts`` (m,).

    ``first``, ``last`` (k,): where each list begins and ends. Returns whether all sites are there.
    """
    for i in range(first.shape[0]):
        for j in range(first[i], last[i]):
            u = sites[j]
            if u < 0 or u >= counts.shape[0]:
                return False
            counts[u] += 1
    return True


@kernel
def _list_carriers(sites, first, last, at, carriers):
    """List which of the lists have each site; ``at`` has the places to write to, and moves on."""
    for i in range(first.shape[0]):
        for j in range(first[i], last[i]):
            u = sites[j]
            carriers[at[u]] = i
            at[u] += 1
