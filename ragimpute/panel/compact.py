"""Haplotypes of a range of sites as the file holds them: a quarter of the memory of rows of bits.

A panel of a million haplotypes has at most a few thousand distinct patterns over 64 rows, so that a
haplotype's pattern is a number of 16 bits in place of 64 bits. From this form the alleles of some
haplotypes, or of all haplotypes at some sites, are taken without unpacking the others.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import kernel
from ragimpute.panel.haplotypes import Haplotypes
from ragimpute.panel.packing import BLOCK_ROWS, PatternBlock, RowBlocks, patterns_to_rows

# Of panels of more haplotypes, impute reads the compact form, and fits to a draw of so many: with
# 200,000 and 1,000,000 haplotypes, aggregate r2 of alleles of a frequency above 1e-4 then is within
# .001 of what fitting to all gives, and of rarer ones within .01.
COMPACT_ABOVE = 20_000


@dataclass(frozen=True)
class CompactHaplotypes:
    """Alleles of all haplotypes at consecutive sites, carriers where rare, patterns elsewhere.

    Attributes
    ----------
    num_haplotypes, alt_is_minor, offsets, carriers
        See :class:`ragimpute.panel.haplotypes.Haplotypes`.
    row
        Shape (m,), int32: the site's row, counted from the first one of ``blocks``, or -1.
    blocks
        64 rows each.
    """

    num_haplotypes: int
    alt_is_minor: np.ndarray
    offsets: np.ndarray
    carriers: np.ndarray
    row: np.ndarray
    blocks: Sequence[PatternBlock]

    def __len__(self) -> int:
        return len(self.alt_is_minor)

    @property
    def num_carriers(self) -> int:
        """Minor alleles of all haplotypes at sites without a row."""
        return len(self.carriers)

    def num_minor(self) -> np.ndarray:
        """Carriers of each site's minor allele, shape (m,), int64."""
        rows = np.zeros(len(self.blocks) * BLOCK_ROWS, np.int64)
        for i, (patterns, number) in enumerate(self.blocks):
            count = np.bincount(number, minlength=len(patterns))
            bits = (patterns[:, None] >> np.arange(BLOCK_ROWS, dtype=np.uint64)) & np.uint64(1)
            rows[i * BLOCK_ROWS : (i + 1) * BLOCK_ROWS] = count @ bits.astype(np.int64)
        listed = np.diff(self.offsets)
        return np.where(self.row >= 0, rows[self.row], listed) if len(rows) else listed

    def select(self, kept: np.ndarray) -> Haplotypes:
        """Some of the haplotypes, numbered anew in their order.

        Parameters
        ----------
        kept
            Shape (k,), int, ascending: haplotypes.

        Returns
        -------
        What :func:`ragimpute.panel.haplotypes.keep_haplotypes` makes of all haplotypes.
        """
        number = np.full(self.num_haplotypes, -1, np.int32)
        number[kept] = np.arange(len(kept), dtype=np.int32)
        room = np.empty(len(self.carriers) + 1, np.int32)  # what is not used takes no memory
        offsets = np.empty(len(self.offsets), np.int64)
        num = _keep_carriers(self.offsets, self.carriers, number, offsets, room)
        is_row = self.row >= 0
        rows = self.row[is_row]
        bits = np.empty((len(rows), -(-len(kept) // 64)), np.uint64)
        few = []
        for i, block in enumerate(self.blocks):
            few.append(PatternBlock(block.patterns, block.number[kept]))
            low, high = np.searchsorted(rows, [i * BLOCK_ROWS, (i + 1) * BLOCK_ROWS])
            if low < high:
                whole = patterns_to_rows(*few[i])
                bits[low:high] = whole[rows[low:high] - i * BLOCK_ROWS]
        row = np.where(is_row, np.cumsum(is_row) - 1, -1).astype(np.int32)
        carriers = room[:num].copy()
        blocks = RowBlocks(int(rows[0]), few) if len(rows) else None
        return Haplotypes(len(kept), self.alt_is_minor, offsets, carriers, row, bits, blocks)

    def without(self, kept: np.ndarray) -> CompactHaplotypes:
        """The same without the haplotypes that a mask of shape (H,) does not keep."""
        number = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
        room = np.empty(len(self.carriers) + 1, np.int32)
        offsets = np.empty(len(self.offsets), np.int64)
        num = _keep_carriers(self.offsets, self.carriers, number, offsets, room)
        blocks = [PatternBlock(patterns, of[kept]) for patterns, of in self.blocks]
        return CompactHaplotypes(
            int(kept.sum()), self.alt_is_minor, offsets, room[:num].copy(), self.row, blocks
        )

    def pack_words(
        self,
        sites: np.ndarray,
        first: int,
        order: tuple[np.ndarray, np.ndarray],
        out: MutableMapping[int, np.ndarray],
    ) -> None:
        """Write the alleles of all haplotypes at some sites as bits of words.

        Parameters
        ----------
        sites
            Shape (k,), int, ascending: sites of this block.
        first
            Bit of the first of them: the others follow, 32 bits to a word.
        order
            Shape (H,), int32, each: the haplotype of each column of a word, and the column of each
            haplotype.
        out
            Words by number, each of shape (H,), uint32, in which these bits are 0: gets 1 where the
            allele is ALT.
        """
        place = first + np.arange(len(sites))
        word, bit = place // WORD, np.uint32(1) << (place % WORD).astype(np.uint32)
        row = self.row[sites]
        flipped = ~self.alt_is_minor[sites]
        for w in np.unique(word[flipped]).tolist():
            out[w] |= np.bitwise_or.reduce(bit[(word == w) & flipped])
        for i in np.flatnonzero(row < 0).tolist():
            low, high = self.offsets[sites[i] : sites[i] + 2]
            _flip_carriers(self.carriers[low:high], order[1], bit[i], out[int(word[i])])
        block_of = np.where(row >= 0, row // BLOCK_ROWS, -1)
        for b in np.unique(block_of[row >= 0]).tolist():
            patterns, number = self.blocks[b]
            ordered = np.take(number, order[0])
            for w in np.unique(word[block_of == b]).tolist():
                table = np.zeros(len(patterns), np.uint32)
                for i in np.flatnonzero((block_of == b) & (word == w)).tolist():
                    has = (patterns >> np.uint64(row[i] % BLOCK_ROWS)) & np.uint64(1)
                    table |= has.astype(np.uint32) * bit[i]
                _flip_patterns(ordered, table, out[w])


def join_sites(parts: Sequence[Haplotypes]) -> Haplotypes:
    """Blocks of sites that follow on each other, of the same haplotypes, as one block."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    offsets, row = [np.zeros(1, np.int64)], []
    num_carriers, num_rows = 0, 0
    for part in parts:
        offsets.append(part.offsets[1:] + num_carriers)
        row.append(np.where(part.row >= 0, part.row + num_rows, -1).astype(np.int32))
        num_carriers += int(part.offsets[-1])
        num_rows += len(part.bits)
    return Haplotypes(
        parts[0].num_haplotypes,
        np.concatenate([part.alt_is_minor for part in parts]),
        np.concatenate(offsets),
        np.concatenate([part.carriers for part in parts]),
        np.concatenate(row),
        np.concatenate([part.bits for part in parts]),
    )


def among_blank_sites(haplotypes: Haplotypes, start: int, alt_is_minor: np.ndarray) -> Haplotypes:
    """Put a block of sites among others at which no haplotype has the minor allele.

    Parameters
    ----------
    haplotypes
        The sites [start, start + m) of all.
    start
        >= 0.
    alt_is_minor
        Shape (M,), bool: of all sites.
    """
    after = len(alt_is_minor) - start - len(haplotypes)
    if start == after == 0:
        return haplotypes
    return replace(
        haplotypes,
        alt_is_minor=alt_is_minor,
        offsets=np.pad(haplotypes.offsets, (start, after), mode="edge"),
        row=np.pad(haplotypes.row, (start, after), constant_values=-1),
    )


@kernel
def _keep_carriers(offsets, carriers, number, new_offsets, out):
    """Keep the carriers whose ``number`` (H,) is not negative, as these numbers.

    ``new_offsets`` (m + 1,) and ``out``, which has a place more than ``carriers``, are filled;
    returns how many carriers stay.
    """
    num = np.int64(0)
    new_offsets[0] = 0
    for u in range(offsets.shape[0] - 1):
        for i in range(offsets[u], offsets[u + 1]):
            h = number[carriers[i]]
            out[num] = h
            num += h >= 0
        new_offsets[u + 1] = num
    return num


@kernel
def _flip_carriers(carriers, column, bit, out):
    """Flip a bit of ``out`` (H,) in the ``column`` (H,) of each of the carriers."""
    for h in carriers:
        out[column[h]] ^= bit


@kernel
def _flip_patterns(number, flips, out):
    """Flip the bits of ``out`` (H,) that ``flips`` has for each column's pattern."""
    for h in range(out.shape[0]):
        out[h] ^= flips[number[h]]
