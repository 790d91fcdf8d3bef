"""Haplotypes of a range of panel sites, compact: choose some of them, or order them by alleles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.kernels.compile import kernel
from ragimpute.panel.packing import BLOCK_ROWS, RowBlocks, unpack_rows


def select_sites(haplotypes: Haplotypes, index: np.ndarray) -> Haplotypes:
    """Choose sites of a block, in the order of ``index``, integers of shape (k,)."""
    count = np.diff(haplotypes.offsets)[index]
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    first = np.repeat(haplotypes.offsets[:-1][index] - offsets[:-1], count)
    carriers = haplotypes.carriers[first + np.arange(offsets[-1])]
    row = haplotypes.row[index]
    kept = row >= 0
    new_row = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    return Haplotypes(
        haplotypes.num_haplotypes,
        haplotypes.alt_is_minor[index],
        offsets,
        carriers,
        new_row,
        np.ascontiguousarray(haplotypes.bits[row[kept]]),
    )


@dataclass(frozen=True)
class Haplotypes:
    """Alleles of all haplotypes at consecutive sites, compact: carriers where rare, bits elsewhere.

    Attributes
    ----------
    num_haplotypes
        H.
    alt_is_minor
        Shape (m,), bool: ALT is the minor allele (also where both are equally common). Carriers
        and bits are of the minor allele.
    offsets
        Shape (m + 1,), int64: site i has ``carriers[offsets[i]:offsets[i + 1]]``; an empty range
        where the site has a row of bits (or no carrier).
    carriers
        Shape (C,), int32: haplotype ids in [0, H), ascending within a site.
    row
        Shape (m,), int32: the site's row in ``bits``, or -1.
    bits
        Shape (R, ceil(H / 64)), uint64: bit ``h % 64`` of word ``h // 64`` is set where haplotype
        h has the minor allele; unused bits of the last word are 0.
    blocks
        All rows of ``bits`` once more, as patterns of haplotypes. None: not known.
    """

    num_haplotypes: int
    alt_is_minor: np.ndarray
    offsets: np.ndarray
    carriers: np.ndarray
    row: np.ndarray
    bits: np.ndarray
    blocks: RowBlocks | None = None

    def __len__(self) -> int:
        return len(self.alt_is_minor)

    def part(self, start: int, stop: int) -> Haplotypes:
        """The sites [start, stop), counted from the first of this block, without copying them."""
        low, high = self.offsets[start], self.offsets[stop]
        row = self.row[start:stop]
        rows = row[row >= 0]
        first, last = (rows.min(), rows.max() + 1) if len(rows) else (0, 0)
        return Haplotypes(
            self.num_haplotypes,
            self.alt_is_minor[start:stop],
            self.offsets[start : stop + 1] - low,
            self.carriers[low:high],
            np.where(row >= 0, row - first, -1).astype(np.int32),
            self.bits[first:last],
        )

    def alleles(self, index: np.ndarray | slice | None = None) -> np.ndarray:
        """Alleles at some of the sites.

        Parameters
        ----------
        index
            Sites, counted from the first of this block: integers of shape (k,), booleans of shape
            (m,), a slice, or None for all.

        Returns
        -------
        Shape (k, H), int8: 0 REF, 1 ALT.
        """
        sites = np.arange(len(self))
        if index is not None:
            sites = sites[index]
        row = self.row[sites]
        is_row = row >= 0
        if is_row.all():
            minor = unpack_rows(self.bits[row], self.num_haplotypes)
        else:
            minor = np.zeros((len(sites), self.num_haplotypes), dtype=np.int8)
            minor[is_row] = unpack_rows(self.bits[row[is_row]], self.num_haplotypes)
            count = self.offsets[sites + 1] - self.offsets[sites]
            ends = np.cumsum(count)
            where = np.arange(ends[-1]) + np.repeat(self.offsets[sites] - ends + count, count)
            minor[np.repeat(np.arange(len(sites)), count), self.carriers[where]] = 1
        minor[~self.alt_is_minor[sites]] ^= 1
        return minor


def keep_haplotypes(haplotypes: Haplotypes, kept: np.ndarray) -> Haplotypes:
    """Choose haplotypes of a block; they are numbered anew.

    Parameters
    ----------
    haplotypes
        Alleles of H haplotypes.
    kept
        Shape (H,), bool.

    Returns
    -------
    The same sites for the haplotypes kept; which allele is called minor does not change.
    """
    number = np.cumsum(kept, dtype=np.int64) - 1
    staying = kept[haplotypes.carriers]
    before = np.concatenate([[0], np.cumsum(staying)])
    num = int(kept.sum())
    bits = np.empty((len(haplotypes.bits), -(-num // 64)), np.uint64)
    _keep_bits(haplotypes.bits, *_runs(kept), bits)
    return Haplotypes(
        num,
        haplotypes.alt_is_minor,
        before[haplotypes.offsets].astype(np.int64),
        number[haplotypes.carriers[staying]].astype(np.int32),
        haplotypes.row,
        bits,
    )


def _runs(kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of kept haplotypes within a word of 64: the word, the first bit, and how many: (k,)."""
    padded = np.zeros((-(-len(kept) // 64), 66), np.int8)  # a bit more on both sides of a word
    whole = np.zeros(len(padded) * 64, np.int8)
    whole[: len(kept)] = kept
    padded[:, 1:65] = whole.reshape(-1, 64)
    change = np.diff(padded, axis=1)
    word, first = np.nonzero(change == 1)
    _, end = np.nonzero(change == -1)
    return word, first, end - first


@kernel
def _keep_bits(bits, words, firsts, lengths, out):
    """Write runs of ``bits`` (R, W) one after the other to ``out`` (R, ceil(k / 64))."""
    one, size = np.uint64(1), np.uint64(64)
    for r in range(bits.shape[0]):
        place, word, filled = 0, np.uint64(0), np.uint64(0)
        for i in range(words.shape[0]):
            length = np.uint64(lengths[i])
            piece = bits[r, words[i]] >> np.uint64(firsts[i])
            if length < size:
                piece &= (one << length) - one
            word |= piece << filled
            if filled + length < size:
                filled += length
                continue
            out[r, place] = word
            place += 1
            # A shift by all 64 bits would leave the word as it is, so it is not made.
            word = piece >> (size - filled) if filled > np.uint64(0) else np.uint64(0)
            filled = filled + length - size
        if place < out.shape[1]:
            out[r, place] = word


def haplotype_columns(haplotypes: Haplotypes, index: np.ndarray) -> np.ndarray:
    """Unpack the alleles of some haplotypes, and of no others.

    Parameters
    ----------
    haplotypes
        m sites of a panel.
    index
        Shape (k,), int: distinct haplotype ids.

    Returns
    -------
    Shape (k, m), int8: 0 REF, 1 ALT.
    """
    place = np.full(haplotypes.num_haplotypes, -1, np.int32)
    place[index] = np.arange(len(index))
    out = np.empty((len(index), len(haplotypes)), np.int8)
    h = haplotypes
    _fill_columns(
        h.offsets,
        h.carriers,
        h.row,
        h.bits,
        h.alt_is_minor,
        np.asarray(index, np.int64),
        place,
        out,
    )
    return out


@kernel
def _fill_columns(offsets, carriers, row, bits, alt_is_minor, index, place, out):
    """Alleles of the haplotypes ``index`` (k,) at all sites into ``out`` (k, m).

    ``place`` (H,): where they are among them, -1 for all others.
    """
    for u in range(row.shape[0]):
        minor = np.int8(1) if alt_is_minor[u] else np.int8(0)
        r = row[u]
        if r >= 0:
            for i in range(index.shape[0]):
                word = bits[r, index[i] >> 6] >> np.uint64(index[i] & 63)
                out[i, u] = minor if word & np.uint64(1) else np.int8(1) - minor
        else:
            for i in range(index.shape[0]):
                out[i, u] = np.int8(1) - minor
            for k in range(offsets[u], offsets[u + 1]):
                i = place[carriers[k]]
                if i >= 0:
                    out[i, u] = minor


def signatures_of(haplotypes: Haplotypes) -> np.ndarray:
    """A number for each haplotype that depends on its alleles alone, not on its place in the panel.

    Where some haplotypes must come before others, among equals or in a random draw, these numbers
    decide. So the order of a panel's samples changes no result.

    Returns
    -------
    Shape (H,), uint64; equal haplotypes have equal numbers.
    """
    h = haplotypes
    numbers = _numbers_of_sites(len(h))
    out = np.zeros(-(-h.num_haplotypes // 64) * 64, np.uint64)
    if h.blocks is None:
        _mix_sites(numbers, h.offsets, h.carriers, h.row, h.bits, out)
        return out[: h.num_haplotypes]
    # Haplotypes with the same pattern over 64 rows have the same numbers there.
    rows = numbers[h.row >= 0]
    nowhere = np.full(len(h), -1, np.int32)
    _mix_sites(numbers, h.offsets, h.carriers, nowhere, h.bits, out)
    first, patterns = h.blocks
    of_row = np.zeros(len(patterns) * BLOCK_ROWS, np.uint64)
    of_row[first : first + len(rows)] = rows
    for block, here in zip(patterns, of_row.reshape(-1, BLOCK_ROWS), strict=True):
        mixed = np.zeros(len(block.patterns), np.uint64)
        _mix_patterns(here, *block, mixed, out)
    return out[: h.num_haplotypes]


def _numbers_of_sites(num_sites: int) -> np.ndarray:
    """A number for each of M sites, well mixed: shape (M,), uint64."""
    # splitmix64
    z = np.arange(1, num_sites + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    out: np.ndarray = z ^ (z >> np.uint64(31))
    return out


def drawing_order(signature: np.ndarray, seed: int) -> np.ndarray:
    """A random order that depends on the signatures and the seed alone.

    Parameters
    ----------
    signature
        Shape (n,), uint64.
    seed
        Another one gives another order.

    Returns
    -------
    Shape (n,), int64: a permutation of range(n); equal signatures stay in their order.
    """
    salt = np.random.default_rng(seed).integers(1, 2**63, dtype=np.uint64)
    # splitmix64's finaliser
    z = signature ^ salt
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")


def draw_samples(signature: np.ndarray, haplotype_sample: np.ndarray, seed: int) -> np.ndarray:
    """All samples, in a random order that depends on their alleles and the seed alone.

    Parameters
    ----------
    signature, haplotype_sample
        Shape (H,), uint64 and int: of each haplotype, see :func:`signatures_of`, and its sample.
    seed
        See :func:`drawing_order`.

    Returns
    -------
    Shape (S,), int: samples.
    """
    samples, of = np.unique(haplotype_sample, return_inverse=True)
    of_sample = np.zeros(len(samples), np.uint64)
    np.add.at(of_sample, of, signature)
    out: np.ndarray = samples[drawing_order(of_sample, seed)]
    return out


@kernel
def _mix_sites(numbers, offsets, carriers, row, bits, out):
    """Mix the numbers of the sites at which each haplotype has the minor allele into ``out``.

    ``out`` holds zeros at first, one for each bit of a row of ``bits``: H of them and those that
    fill up the last word.
    """
    one = np.uint64(1)
    for site in range(row.shape[0]):
        z = numbers[site]
        if row[site] < 0:
            for i in range(offsets[site], offsets[site + 1]):
                out[carriers[i]] ^= z
        else:
            for w in range(bits.shape[1]):
                word = bits[row[site], w]
                for b in range(64):  # without a branch, so that it runs in vector lanes
                    has = (word >> np.uint64(b)) & one
                    out[w * 64 + b] ^= z & (np.uint64(0) - has)


@kernel
def _mix_patterns(numbers, patterns, which, mixed, out):
    """Mix the ``numbers`` (64,) of a block's rows into ``out``; see :func:`_mix_sites`.

    ``patterns`` (u,) and ``which`` (H,), each haplotype's pattern; ``mixed`` (u,): zeros.
    """
    one = np.uint64(1)
    for b in range(numbers.shape[0]):
        for i in range(patterns.shape[0]):
            has = (patterns[i] >> np.uint64(b)) & one
            mixed[i] ^= numbers[b] & (np.uint64(0) - has)
    for h in range(which.shape[0]):
        out[h] ^= mixed[which[h]]
