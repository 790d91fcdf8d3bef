"""The panel as a sample sees it: words of its haplotypes, or the distinct rows of blocks of these.

Large panels are kept as patterns: 20,000 haplotypes have some 500 different rows at 500 sites, and
a million some thousand. Patterns take a tenth of the memory of the words or less, and passes over
them take time that grows much less than the number of haplotypes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ragimpute.copying.window import TypedSites
from ragimpute.kernels.bits import WORD
from ragimpute.likelihoods.pattern_kernel import (
    Patterns,
    PatternSteps,
    count_weighted,
    hash_patterns,
    pattern_columns,
)
from ragimpute.likelihoods.state_kernel import count_alt, hash_rows
from ragimpute.retrieval.distinct_rows import JoinBuffers, join_buffers, join_halves

#: Panels of at least so many haplotypes are kept as patterns.
PATTERNS_FROM = 4_000
# Patterns are looked for in blocks of so many words, which are then joined in pairs while a pass
# gets faster by it: to take a haplotype over the end of a block takes as long as so many steps of
# patterns. So blocks are the longer the more haplotypes there are, but at most this long.
_FIRST_WORDS, MOST_WORDS = 8, 128
_HAPLOTYPE_STEPS = 24.0


def multipliers(num_words: int) -> np.ndarray:
    """Odd random numbers by which words are hashed, shape (W,), uint64."""
    odd = np.random.default_rng(1).integers(2**63, size=num_words, dtype=np.uint64) * 2 + 1
    out: np.ndarray = odd.astype(np.uint64)
    return out


class _Block(NamedTuple):
    """The distinct rows (w, U), uint32, of a block, and that of each haplotype (H,), int32."""

    words: np.ndarray
    of: np.ndarray

    @property
    def work(self) -> int:
        """Words times patterns."""
        return self.words.size

    @classmethod
    def find(cls, words: np.ndarray, buffers: JoinBuffers) -> _Block:
        """Find those of ``words`` (w, H)."""
        key = np.empty(words.shape[1], np.uint64)
        seen = np.full(len(words), 2**32 - 1, np.uint32)
        hash_rows(words, seen, multipliers(len(words)), key)
        first, _, of = number_keys(key, buffers)
        return cls(np.take(words, first, axis=1), of.astype(np.int32))

    def join(self, other: _Block, buffers: JoinBuffers) -> _Block:
        """That of the two side by side."""
        first, _, of = join_halves(self.of.view(np.uint32), other.of.view(np.uint32), buffers)
        both = [np.take(part.words, part.of[first], axis=1) for part in (self, other)]
        return _Block(np.concatenate(both), of.astype(np.int32))


def number_keys(
    keys: np.ndarray, buffers: JoinBuffers | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number equal keys (n,), uint64, in the order in which they first occur.

    Returns
    -------
    For each number the first of its kind and how many there are; the number of each: int32, int32,
    uint32, which are parts of the buffers.
    """
    high, low = (keys >> np.uint64(32)).astype(np.uint32), keys.astype(np.uint32)
    return join_halves(high, low, buffers)


class _Joining:
    """Blocks that are joined with their neighbours while a pass gets faster by it."""

    def __init__(self, num_haplotypes: int, most_words: int) -> None:
        self._buffers = join_buffers(num_haplotypes)
        self._most = most_words
        # About half of all sites have reads.
        self._gain = _HAPLOTYPE_STEPS * num_haplotypes / (WORD / 2)
        self._blocks: list[_Block] = []
        # How often the block at the end was joined with one that was joined as often; -1: no more.
        self._times: list[int] = []

    def add(self, words: np.ndarray) -> None:
        """Add words (w, H) on the right."""
        for w in range(0, len(words), _FIRST_WORDS):
            part = np.ascontiguousarray(words[w : w + _FIRST_WORDS])
            self._push(_Block.find(part, self._buffers))

    def _push(self, block: _Block) -> None:
        times = 0
        while self._times and self._times[-1] == times:
            before = self._blocks[-1]
            joined = before.join(block, self._buffers)
            if len(joined.words) > self._most or (
                joined.work - before.work - block.work >= self._gain
            ):
                self._times[-1] = times = -1
                break
            block, times = joined, times + 1
            self._blocks.pop()
            self._times.pop()
        self._blocks.append(block)
        self._times.append(times)

    def patterns(self) -> Patterns:
        """The arrays of all blocks."""
        blocks = self._blocks
        num = np.array([block.words.shape[1] for block in blocks], np.int64)
        size = np.array([block.work for block in blocks], np.int64)
        length = np.array([len(block.words) for block in blocks], np.int64)
        return Patterns(
            np.concatenate([[0], np.cumsum(length)]).astype(np.int64), num, np.cumsum(size) - size,
            np.concatenate([block.words.reshape(-1) for block in blocks]),
            np.stack([block.of for block in blocks]),
        )  # fmt: skip


@dataclass(frozen=True)
class PatternedSites:
    """All sites of a window of a large panel, like :class:`TypedSites`, as patterns.

    Attributes
    ----------
    patterns
        The distinct rows of blocks of sites.
    position_cm
        Shape (T,), float64, cM, non-decreasing.
    """

    patterns: Patterns
    position_cm: np.ndarray

    @classmethod
    def pack(
        cls, parts: Iterable[np.ndarray], position_cm: np.ndarray, *, most_words: int = MOST_WORDS
    ) -> PatternedSites:
        """Find the patterns of words that come part by part.

        Parameters
        ----------
        parts
            Arrays (w, H), uint32, of which all but the last have full words; at least one.
        position_cm
            Shape (T,), of all sites.
        most_words
            Length of the longest blocks.

        Raises
        ------
        ValueError
            If there is no part.
        """
        joining: _Joining | None = None
        for words in parts:
            joining = joining or _Joining(words.shape[1], most_words)
            joining.add(words)
        if joining is None:
            raise ValueError("no words")
        return cls(joining.patterns(), np.asarray(position_cm, np.float64))

    @property
    def num_haplotypes(self) -> int:
        out: int = self.patterns.of.shape[1]
        return out

    @property
    def num_typed(self) -> int:
        return len(self.position_cm)

    @property
    def num_bytes(self) -> int:
        """Bytes that the patterns take."""
        p = self.patterns
        return int((np.diff(p.start) * p.num).sum()) * p.flat.itemsize + p.of.nbytes

    @property
    def work(self) -> float:
        """What a pass over all sites takes, as steps of one pattern."""
        p = self.patterns
        return float((np.diff(p.start) * p.num).sum() * WORD + _HAPLOTYPE_STEPS * p.of.size)

    @cached_property
    def num_alt(self) -> np.ndarray:
        """Haplotypes that have ALT at each site, shape (T,), int64."""
        counts = np.zeros((int(self.patterns.start[-1]), WORD), np.int64)
        for b, words in enumerate(self.words):
            size = np.bincount(self.patterns.of[b], minlength=words.shape[1])
            count_weighted(words, size, counts[self.patterns.start[b] :][: len(words)])
        out: np.ndarray = counts.reshape(-1)[: self.num_typed]
        return out

    @property
    def words(self) -> list[np.ndarray]:
        """The words of each block's patterns, shape (w, U)."""
        p = self.patterns
        ends = (p.offset + np.diff(p.start) * p.num).tolist()
        return [
            p.flat[at:end].reshape(-1, num)
            for at, end, num in zip(p.offset.tolist(), ends, p.num.tolist(), strict=True)
        ]

    def steps(
        self,
        haplotypes: np.ndarray,
        site: np.ndarray,
        emission: np.ndarray,
        rho: np.ndarray,
        prior: np.ndarray,
    ) -> PatternSteps:
        """The steps of passes over some haplotypes, int64, at some sites (T,), ascending.

        ``emission``, ``rho``, ``prior``: see :class:`PatternSteps`.
        """
        p = self.patterns
        of = np.take(p.of, haplotypes, axis=1)
        start = np.concatenate([[0], np.cumsum(p.num)]).astype(np.int64)
        weight = [np.bincount(of[b], prior, num) for b, num in enumerate(p.num.tolist())]
        word = site // WORD
        block = np.searchsorted(p.start, word, side="right") - 1
        return PatternSteps(
            np.searchsorted(word, p.start).astype(np.int64),
            p.offset[block] + (word - p.start[block]) * p.num[block],
            np.uint32(1) << (site % WORD).astype(np.uint32),
            p.flat, of, start, np.concatenate(weight).astype(np.float32), emission, rho, prior,
        )  # fmt: skip

    def slice(self, first: int, stop: int) -> PatternedSites:
        """The sites [first, stop), of which the first begins a word; it is a view."""
        p, low, high = self.patterns, first // WORD, -(-stop // WORD)
        begin = int(np.searchsorted(p.start, low, side="right")) - 1
        end = max(int(np.searchsorted(p.start, high)), begin)
        offset = p.offset[begin:end].copy()
        if len(offset):
            offset[0] += (low - p.start[begin]) * p.num[begin]
        start = np.clip(p.start[begin : end + 1] - low, 0, high - low)
        part = Patterns(start, p.num[begin:end], offset, p.flat, p.of[begin:end])
        return PatternedSites(part, self.position_cm[first:stop])


Sites = TypedSites | PatternedSites


def as_patterns(sites: Sites) -> Sites:
    """The sites as patterns, if the panel is large."""
    if isinstance(sites, PatternedSites) or sites.num_haplotypes < PATTERNS_FROM:
        return sites
    return PatternedSites.pack([sites.words], sites.position_cm)


def slice_sites(sites: Sites, first: int, stop: int) -> Sites:
    """The sites [first, stop), of which the first begins a word."""
    if isinstance(sites, PatternedSites):
        return sites.slice(first, stop)
    words = sites.words[first // WORD : -(-stop // WORD)]
    return TypedSites(words, sites.position_cm[first:stop])


def alt_in(words: np.ndarray, num_sites: int) -> np.ndarray:
    """How many of the haplotypes of ``words`` (W, H) have ALT at each site, shape (m,), int64."""
    counts = np.zeros((len(words), WORD), np.int64)
    count_alt(words, counts)
    out: np.ndarray = counts.reshape(-1)[:num_sites]
    return out


def num_alt_of(sites: Sites) -> np.ndarray:
    """Haplotypes that have ALT at each site, shape (T,), int64."""
    if isinstance(sites, PatternedSites):
        return sites.num_alt
    return alt_in(sites.words, sites.num_typed)


def columns(sites: Sites, haplotypes: np.ndarray) -> np.ndarray:
    """Words of n haplotypes, shape (W, n), uint32."""
    if isinstance(sites, TypedSites):
        out: np.ndarray = np.take(sites.words, haplotypes, axis=1)
        return out
    out = np.empty((int(sites.patterns.start[-1]), len(haplotypes)), np.uint32)
    pattern_columns(sites.patterns, np.asarray(haplotypes, np.int64), out)
    return out


def hash_haplotypes(sites: Sites, mask: np.ndarray) -> np.ndarray:
    """A number (H,), uint64, of each haplotype's alleles at the sites of a mask (W,), uint32.

    Haplotypes that differ there have the same number with probability 2^-31 or less.
    """
    out = np.empty(sites.num_haplotypes, np.uint64)
    odd = multipliers(len(mask))
    if isinstance(sites, TypedSites):
        hash_rows(sites.words, mask, odd, out)
    else:
        room = int(sites.patterns.num.max(initial=0))
        hash_patterns(sites.patterns, mask, odd, np.empty(room, np.uint64), out)
    return out
