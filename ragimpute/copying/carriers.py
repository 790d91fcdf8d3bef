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
from ragimpute.panel.packing import BLOCK_ROWS
from ragimpute.runtime.threads import parts_of, share

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
        Up to 63 of -1 may come first, which stand for no site.
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
    def build(cls, haplotypes: Haplotypes, bounds: np.ndarray, *, threads: int = 1) -> MinorAlleles:
        """Make the lists from the panel; ``bounds`` (T + 2,): see :meth:`Window.bounds`."""
        num_typed = len(bounds) - 2
        num_words = -(-num_typed // WORD)
        last = bounds[-1]
        edges = np.append(bounds[1 : num_typed + 1 : WORD], last)
        edges[0] = bounds[0]  # what lies before the first typed site is of the first word
        num = haplotypes.num_haplotypes
        kind = np.int32 if len(haplotypes.carriers) < 2**31 else np.int64
        offsets = np.empty(num_words * num + 1, kind)
        at = haplotypes.offsets
        sites = np.empty(int(at[edges[-1]] - at[edges[0]]), np.int32)
        offsets[0] = 0

        def list_sites(words: range) -> int:
            low, high = words.start, words.stop
            begin = int(at[edges[low]] - at[edges[0]])
            return int(
                _list_sites(
                    edges[low : high + 1], num, at, haplotypes.carriers, begin,
                    offsets[low * num : high * num + 1], sites,
                )
            )  # fmt: skip

        longest = max(share(list_sites, parts_of(num_words, 4 * threads), threads))
        core = haplotypes.row[bounds[0] : last]
        common = (bounds[0] + np.flatnonzero(core >= 0)).astype(np.int32)
        common, bits = _common_bits(haplotypes, common, threads)
        return cls(
            edges, offsets, sites, common, np.searchsorted(common, edges), bits, longest,
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
def _list_sites(edges, num_haplotypes, offsets, carriers, begin, starts, sites):
    """List the rare sites of each haplotype in each word; returns the length of the longest list.

    ``starts`` (W * H + 1,) gets where each list ends in ``sites`` (n,), which is where the next
    begins; its first element, where the first begins (``begin``), is left alone. Words come one
    after the other, so that the places of one word's lists stay in the cache.
    """
    longest = np.int64(0)
    for w in range(edges.shape[0] - 1):
        at = starts[w * num_haplotypes + 1 : (w + 1) * num_haplotypes + 1]
        for h in range(num_haplotypes):
            at[h] = 0
        for i in range(offsets[edges[w]], offsets[edges[w + 1]]):
            at[carriers[i]] += 1
        for h in range(num_haplotypes):
            length = np.int64(at[h])
            longest = max(longest, length)
            at[h] = begin
            begin += length
        # To fill a list moves its beginning to its end, which is where the next list begins.
        for u in range(edges[w], edges[w + 1]):
            for i in range(offsets[u], offsets[u + 1]):
                h = carriers[i]
                sites[at[h]] = u
                at[h] += 1
    return longest


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


def _common_bits(
    haplotypes: Haplotypes, common: np.ndarray, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Common sites (C,), and their bits by haplotype, (C / 64, H): see :class:`MinorAlleles`.

    Where it is known which patterns haplotypes have over 64 rows each, these are the bits.
    """
    num, row = haplotypes.num_haplotypes, haplotypes.row[common]
    blocks = haplotypes.blocks
    if blocks is None or len(common) == 0 or row[-1] - row[0] + 1 != len(row):
        bits = np.zeros((-(-len(common) // SQUARE), num), np.uint64)

        def turn(squares: range) -> None:
            which = row[squares.start * SQUARE : squares.stop * SQUARE]
            room = np.zeros((SQUARE, 8), np.uint64)
            _turn_bits_into(haplotypes.bits, which, room, bits[squares.start : squares.stop])

        if len(common):
            share(turn, parts_of(len(bits), 4 * threads), threads)
        return common, bits
    first, last = blocks.first_row + int(row[0]), blocks.first_row + int(row[-1])
    here = blocks.patterns[first // BLOCK_ROWS : last // BLOCK_ROWS + 1]
    bits = np.empty((len(here), num), np.uint64)

    def unpack(part: range) -> None:
        for i in part:
            patterns, number = here[i]
            np.take(patterns, number, out=bits[i], mode="clip")

    share(unpack, parts_of(len(here), 4 * threads), threads)
    # What is before the first site in its block belongs to no word.
    before = np.full(first % BLOCK_ROWS, -1, np.int32)
    return np.concatenate([before, common]), bits
