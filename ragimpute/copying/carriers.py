"""A window's panel turned around: the sites at which each haplotype has the minor allele.

The panel lists the haplotypes of a site. Where a target copies a few hundred of very many
haplotypes, nearly all of these are no states of it; so its states are asked for their sites
instead. Sites belong to words of 32 typed sites, as states do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.kernels.bit_transpose import SQUARE, turn_squares
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import kernel
from ragimpute.panel.haplotypes import Haplotypes


@dataclass(frozen=True)
class MinorAlleles:
    """Minor alleles of a window's core, by haplotype.

    Attributes
    ----------
    edges
        Shape (W + 1,), int64: the core sites of word w are [edges[w], edges[w + 1]).
    offsets, sites
        Shape (W * H + 1,) and (n,), int32 (offsets of more than 2^31 sites: int64): sites that
        list their carriers; those of haplotype h in word w are
        ``sites[offsets[w * H + h] : offsets[w * H + h + 1]]``.
    common
        Shape (C,), int32: the core sites that are rows of bits, ascending.
    common_edges
        Shape (W + 1,), int64: as ``edges``, in places of ``common``.
    bits
        Shape (ceil(C / 64), H), uint64: bit c % 64 of row c // 64: the haplotype has the minor
        allele of common site c.
    longest, most_sites
        The most sites that a haplotype lists in a word, and the most core sites of a word.
    """

    edges: np.ndarray
    offsets: np.ndarray
    sites: np.ndarray
    common: np.ndarray
    common_edges: np.ndarray
    bits: np.ndarray
    longest: int
    most_sites: int

    @classmethod
    def build(cls, haplotypes: Haplotypes, bounds: np.ndarray) -> MinorAlleles:
        """Turn the panel around; ``bounds`` (T + 2,): core sites by interval, see ``Window``."""
        num_typed = len(bounds) - 2
        num_words = -(-num_typed // WORD)
        last = bounds[-1]
        edges = np.append(bounds[1 : num_typed + 1 : WORD], last)
        edges[0] = bounds[0]  # what lies before the first typed site is of the first word
        num = haplotypes.num_haplotypes
        # Counted two places late and filled from one place late on, the starts of the lists end up
        # in place: filling moves each from the front of its list to the end.
        kind = np.int32 if len(haplotypes.carriers) < 2**31 else np.int64
        offsets = np.zeros(num_words * num + 2, kind)
        _count_sites(edges, num, haplotypes.offsets, haplotypes.carriers, offsets[2:])
        longest = int(offsets.max())
        np.cumsum(offsets, out=offsets)
        sites = np.empty(offsets[-1], np.int32)
        _list_sites(edges, num, haplotypes.offsets, haplotypes.carriers, offsets[1:], sites)
        core = haplotypes.row[bounds[0] : last]
        common = (bounds[0] + np.flatnonzero(core >= 0)).astype(np.int32)
        bits = np.zeros((-(-len(common) // 64), num), np.uint64)
        _turn_bits(haplotypes.bits, haplotypes.row[common], bits)
        return cls(
            edges, offsets[:-1], sites, common, np.searchsorted(common, edges), bits, longest,
            int(np.diff(edges).max(initial=0)),
        )  # fmt: skip

    def arrays(self) -> tuple[np.ndarray, ...]:
        """The arrays in the order that the kernels take them."""
        return self.edges, self.offsets, self.sites, self.common, self.common_edges, self.bits


@kernel
def _count_sites(edges, num_haplotypes, offsets, carriers, counts):
    """Count each haplotype's sites in each word into ``counts`` (W H,)."""
    for w in range(edges.shape[0] - 1):
        for i in range(offsets[edges[w]], offsets[edges[w + 1]]):
            counts[w * num_haplotypes + carriers[i]] += 1


@kernel
def _list_sites(edges, num_haplotypes, offsets, carriers, at, sites):
    """Put each site into its carriers' lists; ``at`` moves from the starts to the ends of them."""
    for w in range(edges.shape[0] - 1):
        for u in range(edges[w], edges[w + 1]):
            for i in range(offsets[u], offsets[u + 1]):
                k = w * num_haplotypes + carriers[i]
                sites[at[k]] = u
                at[k] += 1


@kernel
def _turn_bits_into(rows, which, squares, out):
    """Bits by site (R, H / 64) to bits by haplotype (C / 64, H); ``squares`` (64, G): a buffer."""
    num_common = which.shape[0]
    width = squares.shape[1]
    for first in range(0, num_common, SQUARE):
        for begin in range(0, rows.shape[1], width):
            num = min(width, rows.shape[1] - begin)
            for i in range(SQUARE):
                c = first + i
                for g in range(num):
                    squares[i, g] = rows[which[c], begin + g] if c < num_common else np.uint64(0)
            turn_squares(squares.reshape(-1), width)
            for g in range(num):
                h = (begin + g) * SQUARE
                for i in range(min(SQUARE, out.shape[1] - h)):
                    out[first // SQUARE, h + i] = squares[i, g]


def _turn_bits(rows: np.ndarray, which: np.ndarray, out: np.ndarray) -> None:
    """See :func:`_turn_bits_into`."""
    if len(which):
        _turn_bits_into(rows, which, np.zeros((SQUARE, 8), np.uint64), out)
