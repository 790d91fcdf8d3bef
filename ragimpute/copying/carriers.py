"""Who has the minor allele: by site, as the panel stores it, and by haplotype.

The panel stores for each site the haplotypes that have the minor allele. If a target copies only a
few hundred of very many haplotypes, nearly all haplotypes in these lists are not among its states.
It is then faster to go through its states and ask each for its sites: for that,
:class:`MinorAlleles` lists the sites of each haplotype. They are grouped by words of 32 typed
sites, as states are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ragimpute.kernels.bit_transpose import SQUARE, turn_squares
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import kernel
from ragimpute.kernels.shapes import reshaped
from ragimpute.panel.haplotypes import Haplotypes

if TYPE_CHECKING:
    from ragimpute.retrieval.mapped_arrays import Getter


class SiteCarriers(NamedTuple):
    """The minor alleles of a window by site, as kernels read them.

    The fields are those of :class:`ragimpute.panel.haplotypes.Haplotypes`: where ``row`` (M,) is
    negative, the site's carriers are ``carriers[offsets[u] : offsets[u + 1]]``; else they are the
    bits of ``bits[row[u]]``.
    """

    offsets: np.ndarray
    carriers: np.ndarray
    row: np.ndarray
    bits: np.ndarray

    @classmethod
    def of(cls, haplotypes: Haplotypes) -> SiteCarriers:
        """The arrays of a window's haplotypes."""
        return cls(haplotypes.offsets, haplotypes.carriers, haplotypes.row, haplotypes.bits)


class HaplotypeSites(NamedTuple):
    """The minor alleles of a window by haplotype, as kernels read them: see MinorAlleles."""

    edges: np.ndarray
    offsets: np.ndarray
    sites: np.ndarray
    common: np.ndarray
    common_edges: np.ndarray
    bits: np.ndarray


@dataclass(frozen=True)
class MinorAlleles:
    """Minor alleles of a window's core, by haplotype.

    Attributes
    ----------
    edges
        Shape (W + 1,), int64: the core sites of word w are [edges[w], edges[w + 1]).
    offsets, sites
        Shape (W * H + 1,) and (n,), int32 (``offsets`` is int64 if n exceeds 2^31): the rare sites,
        of which the panel lists carriers. Haplotype h has the minor allele in word w at
        ``sites[offsets[w * H + h] : offsets[w * H + h + 1]]``.
    common
        Shape (C,), int32, ascending: the other core sites, which the panel stores as rows of bits.
    common_edges
        Shape (W + 1,), int64: the common sites of word w are
        ``common[common_edges[w] : common_edges[w + 1]]``.
    bits
        Shape (ceil(C / 64), H), uint64: bit c % 64 of row c // 64 is set if the haplotype has the
        minor allele of common site c.
    longest, most_sites
        The largest number of rare sites that a haplotype lists in one word, and the largest number
        of core sites in one word.
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
        """Make the lists from the panel; ``bounds`` (T + 2,): see :meth:`Window.bounds`."""
        num_typed = len(bounds) - 2
        num_words = -(-num_typed // WORD)
        last = bounds[-1]
        edges = np.append(bounds[1 : num_typed + 1 : WORD], last)
        edges[0] = bounds[0]  # what lies before the first typed site is of the first word
        num = haplotypes.num_haplotypes
        # The lengths of the lists are counted two places to the right, so that after the cumulative
        # sum offsets[k + 1] is where list k begins. Filling the lists moves each of these to the
        # end of its list, which is where the next begins: then offsets[k] is the start of list k.
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

    def arrays(self) -> dict[str, np.ndarray]:
        """All fields by name: what :meth:`of_arrays` takes."""
        return {
            "edges": self.edges, "site_offsets": self.offsets, "sites": self.sites,
            "common": self.common, "common_edges": self.common_edges, "common_bits": self.bits,
            "most": np.array([self.longest, self.most_sites], np.int64),
        }  # fmt: skip

    @classmethod
    def of_arrays(cls, get: Getter, num_words: int, num_haplotypes: int) -> MinorAlleles:
        """Make them of their :meth:`arrays`, of W words and H haplotypes."""
        sites = get("sites", np.int32, (None,), checked=True)
        common = get("common", np.int32, (None,), checked=True)
        kind = np.int32 if len(sites) < 2**31 else np.int64
        longest, most_sites = get("most", np.int64, (2,), checked=True).tolist()
        return cls(
            get("edges", np.int64, (num_words + 1,), checked=True),
            get("site_offsets", kind, (num_words * num_haplotypes + 1,), checked=True),
            sites, common,
            get("common_edges", np.int64, (num_words + 1,), checked=True),
            get("common_bits", np.uint64, (-(-len(common) // 64), num_haplotypes)),
            longest, most_sites,
        )  # fmt: skip

    def for_kernels(self) -> HaplotypeSites:
        """The arrays, as kernels read them."""
        return HaplotypeSites(
            self.edges, self.offsets, self.sites, self.common, self.common_edges, self.bits
        )

    def parts(self, max_sites: int) -> list[tuple[int, int]]:
        """Cut the words into runs of at most ``max_sites`` (> 0) sites, but at least one word.

        The more targets are copied together, the less time each takes, as the parts of the panel
        that they look up stay in the processor's cache. But the probabilities of many targets at
        all sites of a window take much memory. So targets walk back through a window together, and
        hand over their probabilities after each of these runs.

        Returns
        -------
        The words [low, high) of each run, the last run first.
        """
        stops = [len(self.edges) - 1]
        while stops[-1] > 0:
            low = int(np.searchsorted(self.edges, self.edges[stops[-1]] - max_sites))
            stops.append(min(low, stops[-1] - 1))
        return [(low, high) for high, low in pairwise(stops)]


@kernel
def _count_sites(edges, num_haplotypes, offsets, carriers, counts):
    """Count the rare sites that each haplotype has in each word, into ``counts`` (W * H,)."""
    for w in range(edges.shape[0] - 1):
        for i in range(offsets[edges[w]], offsets[edges[w + 1]]):
            counts[w * num_haplotypes + carriers[i]] += 1


@kernel
def _list_sites(edges, num_haplotypes, offsets, carriers, at, sites):
    """Append each site to its carriers' lists; ``at`` has the places to write to, and moves on."""
    for w in range(edges.shape[0] - 1):
        for u in range(edges[w], edges[w + 1]):
            for i in range(offsets[u], offsets[u + 1]):
                k = w * num_haplotypes + carriers[i]
                sites[at[k]] = u
                at[k] += 1


@kernel
def _turn_bits_into(rows, which, squares, out):
    """Transpose bits by site (R, H / 64) to bits by haplotype (C / 64, H).

    ``which`` (C,): the rows to take; ``squares`` (64, G): a buffer for G squares of 64 x 64 bits.
    """
    num_common = which.shape[0]
    width = squares.shape[1]
    for first in range(0, num_common, SQUARE):
        for begin in range(0, rows.shape[1], width):
            num = min(width, rows.shape[1] - begin)
            for i in range(SQUARE):
                c = first + i
                for g in range(num):
                    squares[i, g] = rows[which[c], begin + g] if c < num_common else np.uint64(0)
            turn_squares(reshaped(squares, (squares.size,)), width)
            for g in range(num):
                h = (begin + g) * SQUARE
                for i in range(min(SQUARE, out.shape[1] - h)):
                    out[first // SQUARE, h + i] = squares[i, g]


def _turn_bits(rows: np.ndarray, which: np.ndarray, out: np.ndarray) -> None:
    """Call :func:`_turn_bits_into` with a buffer, unless there is nothing to transpose."""
    if len(which):
        _turn_bits_into(rows, which, np.zeros((SQUARE, 8), np.uint64), out)
