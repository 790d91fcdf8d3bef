"""A window of the panel in the form that copying reads.

Typed sites are packed 32 to a word; all sites are kept in the panel's compact form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ragimpute.copying.carriers import MinorAlleles, SiteCarriers
from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.kernels.bit_transpose import SQUARE, turn_squares
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import kernel
from ragimpute.kernels.shapes import reshaped
from ragimpute.panel.haplotypes import Haplotypes, keep_haplotypes, signatures_of
from ragimpute.panel.packing import BLOCK_ROWS, RowBlocks
from ragimpute.runtime.threads import share, threads_at_hand

if TYPE_CHECKING:
    from ragimpute.retrieval.mapped_arrays import Getter

# Squares of bits that are transposed side by side: 64 haplotypes each.
_SQUARES_AT_ONCE = 8
# Names of cached properties that do not depend on the window's core.
_OF_ALL_SITES = ("signature", "num_minor", "_flanks")


@dataclass(frozen=True)
class TypedSites:
    """The panel at the typed sites of a window, packed for comparison with targets.

    Attributes
    ----------
    words
        Shape (ceil(T / 32), H), uint32: bit j of word w is the ALT allele at typed site 32 w + j.
    position_cm
        Shape (T,), float64, cM, non-decreasing.
    """

    words: np.ndarray
    position_cm: np.ndarray

    @classmethod
    def pack(cls, alleles: np.ndarray, position_cm: np.ndarray) -> TypedSites:
        """Pack panel alleles, shape (T, H), int8, 0 or 1."""
        words, _ = pack_words(alleles)
        return cls(np.ascontiguousarray(words.T), np.asarray(position_cm, np.float64))

    @property
    def num_haplotypes(self) -> int:
        out: int = self.words.shape[1]
        return out

    @property
    def num_typed(self) -> int:
        return len(self.position_cm)

    @cached_property
    def rows(self) -> np.ndarray:
        """The words by haplotype, shape (H, W), uint32."""
        return np.ascontiguousarray(self.words.T)


def pack_words(alleles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pack alleles 32 sites to a word, a row for each haplotype; negative alleles are unobserved.

    Parameters
    ----------
    alleles
        Shape (T, n), int8: 0, 1, or negative where nothing was observed.

    Returns
    -------
    ALT bits and observed bits, each of shape (n, ceil(T / 32)), uint32.
    """
    num_typed, n = alleles.shape
    num_words = -(-num_typed // WORD)
    packed = []
    for bits in (alleles == 1, alleles >= 0):
        padded = np.zeros((n, num_words * WORD), dtype=bool)
        padded[:, :num_typed] = bits.T
        packed.append(np.packbits(padded, axis=1, bitorder="little").view(np.uint32))
    return packed[0].reshape(n, num_words), packed[1].reshape(n, num_words)


class Flanks(NamedTuple):
    """Switch probabilities from each site to the typed sites beside it, each (M,), float32."""

    left: np.ndarray
    right: np.ndarray


class Steps(NamedTuple):
    """What copying parameters say of a window's T typed sites and M sites.

    ``rho`` and ``err`` (T,), float32: switch probability from the typed site before, and mismatch
    probability. ``near``: switch probabilities between each site and the typed sites beside it.
    """

    rho: np.ndarray
    err: np.ndarray
    near: Flanks


class PanelCounts(NamedTuple):
    """What a window of some haplotypes knows of the whole panel.

    ``num_haplotypes``: of the panel; ``num_minor`` (M,), int64: carriers of each site's minor
    allele among them.
    """

    num_haplotypes: int
    num_minor: np.ndarray


@dataclass(frozen=True)
class Window:
    """The panel of one window, ready to be copied from.

    Attributes
    ----------
    typed
        The T typed sites.
    typed_index
        Shape (T,), int64, ascending: where the typed sites stand among the window's sites.
    haplotypes
        All M sites of the window.
    position_cm
        Shape (M,), float64, cM, non-decreasing.
    core
        Half-open range of the sites that are imputed; those outside it are buffer, where only
        typed sites count.
    whole
        Counts of the whole panel, if the window has only those of its haplotypes that are copied;
        None: it has all.
    """

    typed: TypedSites
    typed_index: np.ndarray
    haplotypes: Haplotypes
    position_cm: np.ndarray
    core: tuple[int, int]
    whole: PanelCounts | None = None

    @classmethod
    def build(
        cls,
        haplotypes: Haplotypes,
        position_cm: np.ndarray,
        typed_index: np.ndarray,
        core: tuple[int, int] | None = None,
        *,
        threads: int = 1,
    ) -> Window:
        """Pack the typed sites of a window; ``core`` None: all its sites."""
        typed_index = np.asarray(typed_index, np.int64)
        words = pack_typed(haplotypes, typed_index, threads=threads)
        typed = TypedSites(words, position_cm[typed_index])
        return cls(typed, typed_index, haplotypes, position_cm, core or (0, len(position_cm)))

    def arrays(self, *, by_haplotype: bool = True) -> dict[str, np.ndarray]:
        """All that is made of the panel, by name: what :meth:`of_arrays` takes.

        Who has the minor alleles by haplotype is among them if it was asked for before, and unless
        they are not wanted ``by_haplotype``.
        """
        h = self.haplotypes
        out = {
            "words": self.typed.words, "rows": self.typed.rows, "signature": self.signature,
            "num_minor": self.num_minor, "offsets": h.offsets, "carriers": h.carriers,
            "row": h.row, "bits": h.bits,
        }  # fmt: skip
        if by_haplotype and "minor_alleles" in self.__dict__:
            return out | self.minor_alleles.arrays()
        return out

    @classmethod
    def of_arrays(
        cls,
        get: Getter,
        alt_is_minor: np.ndarray,
        position_cm: np.ndarray,
        typed_index: np.ndarray,
        core: tuple[int, int],
        *,
        num_haplotypes: int,
        by_haplotype: bool,
    ) -> Window:
        """Make the window of its :meth:`arrays`.

        Parameters
        ----------
        get
            Returns an array by its name.
        alt_is_minor, position_cm, typed_index, core, num_haplotypes
            Of the panel in this window.
        by_haplotype
            Whether the arrays have the minor alleles by haplotype.
        """
        num_sites, num_words = len(position_cm), -(-len(typed_index) // WORD)
        row = get("row", np.int32, (num_sites,), checked=True)
        haplotypes = Haplotypes(
            num_haplotypes, alt_is_minor,
            get("offsets", np.int64, (num_sites + 1,), checked=True),
            get("carriers", np.int32, (None,), checked=True), row,
            get("bits", np.uint64, (int((row >= 0).sum()), -(-num_haplotypes // 64))),
        )  # fmt: skip
        typed = TypedSites(
            get("words", np.uint32, (num_words, num_haplotypes)), position_cm[typed_index]
        )
        out = cls(typed, np.asarray(typed_index, np.int64), haplotypes, position_cm, core)
        # What would be computed when it is first asked for is there.
        typed.__dict__["rows"] = get("rows", np.uint32, (num_haplotypes, num_words))
        out.__dict__["signature"] = get("signature", np.uint64, (num_haplotypes,), checked=True)
        out.__dict__["num_minor"] = get("num_minor", np.int64, (num_sites,), checked=True)
        if by_haplotype:
            found = MinorAlleles.of_arrays(get, num_words, num_haplotypes)
            out.__dict__["minor_alleles"] = found
        return out

    def with_core(self, core: tuple[int, int]) -> Window:
        """The same window with another core; cached properties that still hold are kept."""
        if core == self.core:
            return self
        out = replace(self, core=core)
        out.__dict__.update({k: v for k, v in self.__dict__.items() if k in _OF_ALL_SITES})
        return out

    def keeping(self, kept: np.ndarray) -> Window:
        """The same window of some of the haplotypes, numbered anew: ``kept`` (H,), bool.

        Which allele is called minor does not change, so neither do the haplotypes' signatures.
        """
        typed = replace(self.typed, words=np.ascontiguousarray(self.typed.words[:, kept]))
        out = replace(self, typed=typed, haplotypes=keep_haplotypes(self.haplotypes, kept))
        if "signature" in self.__dict__:
            out.__dict__["signature"] = self.signature[kept]
        return out

    @property
    def num_sites(self) -> int:
        return len(self.position_cm)

    @property
    def num_haplotypes(self) -> int:
        """Haplotypes of the whole panel."""
        return self.typed.num_haplotypes if self.whole is None else self.whole.num_haplotypes

    def bounds(self) -> np.ndarray:
        """Shape (T + 2,), int64: core sites [bounds[t + 1], bounds[t + 2]) follow typed site t."""
        edges = np.concatenate([[0], self.typed_index, [self.num_sites]])
        out: np.ndarray = np.clip(edges, *self.core).astype(np.int64)
        return out

    def with_core_sites(self) -> np.ndarray:
        """Shape (T + 1,), bool: entry t + 1 says whether core sites follow typed site t."""
        out: np.ndarray = np.diff(self.bounds()) > 0
        return out

    def steps(self, parameters: CopyingParameters) -> Steps:
        """Switch and mismatch probabilities under these parameters."""
        return Steps(
            switch_probs(self.typed.position_cm, switch_rate=parameters.switch_rate),
            parameters.mismatch_probs(self.typed.num_typed),
            self.flank_switch_probs(parameters.switch_rate),
        )

    def flank_switch_probs(self, switch_rate: float) -> Flanks:
        """Switch probabilities from each site to the typed sites on its left and right.

        The result for the last ``switch_rate`` is cached.
        """
        if switch_rate not in self._flanks:
            self._flanks.clear()
            self._flanks[switch_rate] = self._flanks_of(switch_rate)
        return self._flanks[switch_rate]

    @cached_property
    def _flanks(self) -> dict[float, Flanks]:
        return {}

    def _flanks_of(self, switch_rate: float) -> Flanks:
        """Compute what :meth:`flank_switch_probs` returns."""
        interval = np.searchsorted(self.typed_index, np.arange(self.num_sites), side="right")
        typed_cm = self.typed.position_cm
        left = np.concatenate([[-np.inf], typed_cm])[interval]
        right = np.concatenate([typed_cm, [np.inf]])[interval]
        gaps = (self.position_cm - left, right - self.position_cm)
        rho = [-np.expm1(-switch_rate * np.maximum(gap, 0)) for gap in gaps]
        return Flanks(rho[0].astype(np.float32), rho[1].astype(np.float32))

    @cached_property
    def signature(self) -> np.ndarray:
        """A number for each haplotype, see :func:`ragimpute.panel.haplotypes.signatures_of`."""
        return signatures_of(self.haplotypes)

    @cached_property
    def num_minor(self) -> np.ndarray:
        """Minor-allele carriers of each site among all panel haplotypes, int64, shape (M,)."""
        if self.whole is not None:
            return self.whole.num_minor
        h = self.haplotypes
        rare = np.diff(h.offsets)
        row = np.bitwise_count(h.bits).sum(axis=1, dtype=np.int64)
        return np.where(h.row >= 0, row[h.row] if len(row) else 0, rare)

    @cached_property
    def minor_alleles(self) -> MinorAlleles:
        """The core's minor alleles by haplotype; computed when first asked for."""
        return MinorAlleles.build(self.haplotypes, self.bounds(), threads=threads_at_hand())

    def carriers(self) -> SiteCarriers:
        """Who has the minor allele of each site, as kernels read it."""
        return SiteCarriers.of(self.haplotypes)


def pack_typed(haplotypes: Haplotypes, typed_index: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """ALT alleles at the T typed sites, 32 to a word: shape (ceil(T / 32), H), uint32."""
    num_words = -(-len(typed_index) // WORD)
    flips = np.zeros(num_words * WORD, np.uint8)
    flips[: len(typed_index)] = ~haplotypes.alt_is_minor[typed_index]
    flipped = np.packbits(flips, bitorder="little").view(np.uint32)
    # np.repeat takes five times as long as to fill each part.
    out = np.empty((num_words, haplotypes.num_haplotypes), np.uint32)
    carriers, blocks = SiteCarriers.of(haplotypes), haplotypes.blocks
    listed = carriers._replace(row=np.full_like(carriers.row, -1))
    no_squares = np.zeros((SQUARE, 0), np.uint64)

    def turn(first: int) -> None:
        part = out[first // WORD : (first + step) // WORD]
        part[:] = flipped[first // WORD : (first + step) // WORD, None]
        here = typed_index[first : first + step]
        if blocks is None:
            squares = np.zeros((SQUARE, _SQUARES_AT_ONCE), np.uint64)
            _turn_typed(here, carriers, squares, part)
        else:
            _turn_typed(here, listed, no_squares, part)
            _flip_rows(haplotypes.row[here], blocks, part)

    # Each thread has several parts, of whole squares.
    step = SQUARE * max(1, -(-len(typed_index) // (SQUARE * 4 * threads)))
    share(turn, range(0, len(typed_index), step), threads)
    return out


def _flip_rows(row: np.ndarray, blocks: RowBlocks, out: np.ndarray) -> None:
    """Flip the bits of minor alleles of T typed sites that are rows of bits, in ``out`` (W, H).

    ``row`` (T,): the row of each, or -1.
    """
    typed = np.flatnonzero(row >= 0)
    block, bit = np.divmod(row[typed].astype(np.int64) + blocks.first_row, BLOCK_ROWS)
    edges = np.flatnonzero(np.diff(block, prepend=-1, append=-1)).tolist()
    for low, high in pairwise(edges):
        patterns, number = blocks.patterns[int(block[low])]
        flips = np.empty(len(patterns), np.uint32)
        _flip_patterns(bit[low:high], typed[low:high], patterns, number, flips, out)


@kernel
def _flip_patterns(bit, typed, patterns, number, flips, out):
    """Flip the bits of minor alleles at typed sites of one block of rows, in ``out`` (W, H).

    ``bit``, ``typed`` (k,): the row in the block and the number of each typed site, ascending;
    ``patterns`` (u,) and ``number`` (H,): see PatternBlock; ``flips`` (u,): a buffer.
    """
    first = 0
    while first < typed.shape[0]:
        w = typed[first] // WORD
        stop = first
        while stop < typed.shape[0] and typed[stop] // WORD == w:
            stop += 1
        for i in range(patterns.shape[0]):
            word = np.uint64(0)
            for k in range(first, stop):
                has = (patterns[i] >> np.uint64(bit[k])) & np.uint64(1)
                word |= has << np.uint64(typed[k] % WORD)
            flips[i] = np.uint32(word)
        here = out[w]
        for h in range(number.shape[0]):
            here[h] ^= flips[number[h]]
        first = stop


@kernel
def _turn_typed(typed_index, minor, squares, out):
    """Flip the bit of each minor allele in ``out`` (W, H); ``minor``: SiteCarriers.

    Of common sites, 64 at a time are transposed from bits by site to bits by haplotype, in
    ``squares`` (64, G), a buffer for G squares of 64 x 64 bits: the bits of two words.
    """
    offsets, carriers, row, bits = minor
    num_typed, width = typed_index.shape[0], squares.shape[1]
    num_words, num_haplotypes = out.shape
    for first in range(0, num_typed, SQUARE):
        w = first // WORD
        stop = min(num_typed, first + SQUARE)
        any_common = False
        for t in range(first, stop):
            u = typed_index[t]
            if row[u] >= 0:
                any_common = True
                continue
            bit = np.uint32(1) << np.uint32(t % WORD)
            for i in range(offsets[u], offsets[u + 1]):
                out[t // WORD, carriers[i]] ^= bit
        if not any_common:
            continue
        for begin in range(0, bits.shape[1], width):
            num = min(width, bits.shape[1] - begin)
            for i in range(SQUARE):
                r = row[typed_index[first + i]] if first + i < stop else -1
                for g in range(num):
                    squares[i, g] = bits[r, begin + g] if r >= 0 else np.uint64(0)
            turn_squares(reshaped(squares, (squares.size,)), width)
            for g in range(num):
                h = (begin + g) * SQUARE
                for i in range(min(SQUARE, num_haplotypes - h)):
                    both = squares[i, g]
                    out[w, h + i] ^= np.uint32(both)
                    if w + 1 < num_words:
                        out[w + 1, h + i] ^= np.uint32(both >> np.uint64(WORD))
