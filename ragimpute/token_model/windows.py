"""What token models read: windows of a panel's sites as batches of tokens and frequencies.

Training, validation and imputation build their batches here, so that a model sees the same fields
in all of them (:meth:`TokenWindows.batch` lists them).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ragimpute.model.embedding import MASK, PAD
from ragimpute.panel.haplotypes import Haplotypes, haplotype_columns
from ragimpute.panel.reader import Panel
from ragimpute.token_model.copying_evidence import CopyingEvidence

# Allele frequency at padded sites: one that a site can have.
_PAD_AF = 0.5


def cut_windows_to(windows: np.ndarray, max_sites: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut windows into even parts of at most ``max_sites``.

    Parameters
    ----------
    windows
        Shape (W, 2), int: half-open site ranges, none empty.
    max_sites
        >= 1.

    Returns
    -------
    The parts, shape (V, 2), int64, in order; and the window that each is of, shape (V,), int64.
    """
    parts, of = [], []
    for w, (start, stop) in enumerate(windows.tolist()):
        edges = np.linspace(start, stop, -(-(stop - start) // max_sites) + 1).astype(np.int64)
        parts.append(np.stack([edges[:-1], edges[1:]], axis=1))
        of.append(np.full(len(edges) - 1, w))
    return np.concatenate(parts), np.concatenate(of)


def population_shares(found: np.ndarray, home: np.ndarray, num_populations: int) -> np.ndarray:
    """To which populations each sample belongs, as far as its retrieved haplotypes tell.

    Nobody says which population a target is of. So the haplotypes that its two haplotypes retrieved
    in a window stand for it, in training as in imputation, where a panel sample never retrieves
    itself: of a sample with ancestors from several populations they tell those of the window.

    Parameters
    ----------
    found
        Shape (B, ...), int: numbers of haplotypes, -1 padded.
    home
        Shape (H,), int: each haplotype's population.
    num_populations
        P.

    Returns
    -------
    Shape (B, P), float32: shares of the haplotypes that were found; 0 for samples without any.
    """
    flat = found.reshape(len(found), -1)
    row, place = np.nonzero(flat >= 0)
    count = np.zeros((len(found), num_populations), np.float32)
    np.add.at(count, (row, home[flat[row, place]]), 1)
    out: np.ndarray = count / np.maximum(1, count.sum(axis=1, keepdims=True))
    return out


@dataclass(frozen=True)
class SiteBlock:
    """Consecutive panel sites [start, stop), m of them.

    Attributes
    ----------
    haplotypes
        Their alleles.
    position_cm
        Shape (m,), float32, cM from the first site.
    af, af_population, genotype_freq
        ALT frequency in the panel, shape (m,), and in each population, (P, m); shares of REF/REF,
        heterozygous and ALT/ALT samples, (m, 3); float32.
    """

    start: int
    stop: int
    haplotypes: Haplotypes
    position_cm: np.ndarray
    af: np.ndarray
    af_population: np.ndarray
    genotype_freq: np.ndarray

    @property
    def num_bytes(self) -> int:
        """Approximate size in memory."""
        h = self.haplotypes
        return h.carriers.nbytes + h.bits.nbytes + self.af_population.nbytes + 48 * len(h)


class Frequencies(NamedTuple):
    """What b samples are told of the frequencies at n sites.

    Attributes
    ----------
    af, population, genotype
        ALT frequency in the panel, (b, n), and in each population, (b, P, n); shares of REF/REF,
        heterozygous and ALT/ALT samples, (b, 3, n); float32.
    """

    af: np.ndarray
    population: np.ndarray
    genotype: np.ndarray

    @classmethod
    def of(cls, block: SiteBlock, num: int) -> Frequencies:
        """The panel's, for ``num`` samples alike."""
        parts = (block.af, block.af_population, block.genotype_freq.T)
        return cls(*(np.broadcast_to(x, (num, *x.shape)) for x in parts))


class TokenWindows:
    """Windows of a panel, and batches of what token models read of them.

    Parameters
    ----------
    panel
        The panel.
    ranges
        Shape (V, 2), int: half-open site ranges, none empty; they may overlap.
    cache_bytes
        Windows that were read are kept up to this size, so that the next batch need not read them.

    Attributes
    ----------
    length
        L, the sites of the longest window.
    """

    def __init__(self, panel: Panel, ranges: np.ndarray, *, cache_bytes: int = 2**28) -> None:
        self.panel = panel
        self._cache_bytes = cache_bytes
        self.ranges = ranges
        self.length = int((ranges[:, 1] - ranges[:, 0]).max())
        self.haplotype_population = panel.population[panel.haplotype_sample]
        self._blocks: OrderedDict[tuple[int, int], SiteBlock] = OrderedDict()
        self._num_bytes = 0

    def block(self, start: int, stop: int) -> SiteBlock:
        """The panel sites [start, stop); the ones read last are kept in memory."""
        key = (start, stop)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        panel = self.panel
        cm = panel.position_cm[start:stop]
        block = SiteBlock(
            start=start,
            stop=stop,
            haplotypes=panel.haplotypes(start, stop),
            position_cm=(cm - cm[:1]).astype(np.float32),
            af=panel.af[start:stop],
            af_population=panel.af_population(start, stop),
            genotype_freq=panel.genotype_freq(start, stop),
        )
        self._blocks[key] = block
        self._num_bytes += block.num_bytes
        while self._num_bytes > self._cache_bytes and len(self._blocks) > 1:
            self._num_bytes -= self._blocks.popitem(last=False)[1].num_bytes
        return block

    def window(self, window: int) -> SiteBlock:
        """The sites of a window."""
        start, stop = self.ranges[window].tolist()
        return self.block(start, stop)

    def alleles(self, start: int, stop: int, index: np.ndarray) -> np.ndarray:
        """Alleles of distinct haplotypes, shape (k,), at panel sites [start, stop): (k, m) int8."""
        return haplotype_columns(self.block(start, stop).haplotypes, index)

    def references(self, window: int, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Panel haplotypes as references in a window of n sites.

        Parameters
        ----------
        window
            Number of the window.
        index
            Shape (k,), int: distinct haplotype ids.

        Returns
        -------
        Alleles, shape (k, n), int8; ALT frequency in each haplotype's own population, shape (k, n),
        float32.
        """
        block = self.window(window)
        own = block.af_population[self.haplotype_population[index]]
        return haplotype_columns(block.haplotypes, index), own

    def batch(
        self,
        window: np.ndarray,
        alleles: np.ndarray,
        hidden: np.ndarray,
        found: np.ndarray,
        copying: CopyingEvidence | None = None,
        own: np.ndarray | None = None,
    ) -> dict[str, Tensor]:
        """A batch of samples, each at the sites of one window.

        Parameters
        ----------
        window
            Shape (B,), int: each sample's window.
        alleles
            Shape (B, 2, L), int8: both haplotypes' alleles from the window's first site on, -1
            where unknown; what lies beyond the window is ignored.
        hidden
            Shape (B, L), bool: masked sites.
        found
            Shape (B, 2, K), int: the haplotypes that each haplotype retrieved, -1 padded; or
            (B, 2, K, L) if these are chosen by site.
        copying
            What copying says of the 2 B haplotypes, two after two, at L sites each; None: nothing.
        own
            Shape (B, 2), int: the panel haplotypes that the samples are, whose alleles are all
            known; a haploid sample has one twice. Frequencies then leave the sample's own alleles
            out: else a rare allele would be told by its frequency alone. None: targets, which the
            panel does not hold.

        Returns
        -------
        The fields, each with B rows; windows are padded to L sites. Each sample has, at L sites,
        ``af`` and ``af_p`` (ALT frequency in the panel and in the sample's own population, see
        :func:`population_shares`), ``pos`` (cM), ``ref``, ``het`` and ``hom`` (shares of
        genotypes), float32; ``mask`` (hidden) and ``pad``,
        bool; and the number of its ``window``, int64. Each haplotype has ``hap_1`` or ``hap_2``
        (tokens of its alleles) and ``label_h1`` or ``label_h2`` (its alleles, -1 where unknown),
        (B, L) int64; and for the K haplotypes that it retrieved ``rag_seg_h1`` (tokens, (B, K, L)
        int64), ``rag_af_h1`` (ALT frequency in the population of each, (B, K, L) float32) and
        ``rag_id_h1`` (their numbers, -1 padded, (B, K) or (B, K, L) int64), and the same for h2.
        With ``copying`` each has ``ls_logit_h1`` (B, L), ``site_h1`` (B, L, 4), ``state_h1``
        (B, K, L, F) and ``rag_log_mass_h1`` (B, K, L), see :class:`CopyingEvidence`.
        """
        num, _, length = alleles.shape
        size = (self.ranges[window, 1] - self.ranges[window, 0])[:, None]
        pad = np.arange(length) >= size  # (B, L)
        shape = (num, 2, found.shape[2], length)
        refs = np.full(shape, PAD, np.int64)
        ref_af = np.full(shape, _PAD_AF, np.float32)
        site = {
            name: np.full((num, length), fill, np.float32)
            for name, fill in (("af", _PAD_AF), ("af_p", _PAD_AF), ("pos", 0.0),
                               ("ref", 0.0), ("het", 0.0), ("hom", 0.0))
        }  # fmt: skip
        shares = population_shares(found, self.haplotype_population, len(self.panel.populations))
        known = shares.sum(axis=1) > 0
        for w in np.unique(window).tolist():
            rows = np.flatnonzero(window == w)
            block = self.window(w)
            n = len(block.af)
            freq = Frequencies.of(block, len(rows))
            if own is not None:
                freq = self._without_own(freq, own[rows], alleles[rows, :, :n])
            site["af"][rows, :n] = freq.af
            site["pos"][rows, :n] = block.position_cm
            site["pos"][rows, n:] = block.position_cm[-1]
            for i, name in enumerate(("ref", "het", "hom")):
                site[name][rows, :n] = freq.genotype[:, i]
            here = found[rows] if found.ndim == 3 else found[rows][..., :n]
            refs[rows, :, :, :n], ref_af[rows, :, :, :n] = self._retrieved(w, here, freq)
            # By population, as a product of matrices rounds by the number of its rows.
            af_p = sum(
                shares[rows, p, None] * freq.population[:, p] for p in range(shares.shape[1])
            )
            site["af_p"][rows, :n] = np.where(known[rows, None], af_p, freq.af)
        label = np.where(pad[:, None], -1, alleles).astype(np.int64)
        tokens = np.where((label < 0) | hidden[:, None], MASK, label)
        tokens[np.repeat(pad[:, None], 2, axis=1)] = PAD
        batch = {name: torch.from_numpy(values) for name, values in site.items()}
        batch["window"] = torch.from_numpy(np.asarray(window, np.int64))
        batch["mask"] = torch.from_numpy(hidden & ~pad)
        batch["pad"] = torch.from_numpy(pad)
        for i, h in enumerate("12"):
            batch[f"hap_{h}"] = torch.from_numpy(np.ascontiguousarray(tokens[:, i]))
            batch[f"label_h{h}"] = torch.from_numpy(np.ascontiguousarray(label[:, i]))
            batch[f"rag_seg_h{h}"] = torch.from_numpy(np.ascontiguousarray(refs[:, i]))
            batch[f"rag_af_h{h}"] = torch.from_numpy(np.ascontiguousarray(ref_af[:, i]))
            batch[f"rag_id_h{h}"] = torch.from_numpy(found[:, i].astype(np.int64))
            if copying is not None:
                batch[f"ls_logit_h{h}"] = torch.from_numpy(copying.logit[i::2].copy())
                batch[f"site_h{h}"] = torch.from_numpy(copying.sites[i::2])
                batch[f"state_h{h}"] = torch.from_numpy(copying.states[i::2])
                batch[f"rag_log_mass_h{h}"] = torch.from_numpy(copying.log_mass[i::2].copy())
        return batch

    def _retrieved(
        self, window: int, found: np.ndarray, freq: Frequencies
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of retrieved haplotypes, and ALT frequency in the population of each.

        ``found`` (b, 2, K), or (b, 2, K, n) if they are chosen by site; both results (b, 2, K, n).
        """
        n = freq.af.shape[1]
        ids, inverse = np.unique(found, return_inverse=True)
        some = ids >= 0
        tokens = np.full((len(ids), n), PAD, np.int64)
        start, stop = self.ranges[window].tolist()
        tokens[some] = self.alleles(start, stop, ids[some])
        inverse = inverse.reshape(found.shape)
        row = np.arange(len(found)).reshape(-1, *[1] * (found.ndim - 1))
        home, site = self.haplotype_population[found], np.arange(n)
        if found.ndim == 4:
            of_site, own_af = tokens[inverse, site], freq.population[row, home, site]
        else:
            of_site, own_af = tokens[inverse], freq.population[row, home]
            found = found[..., None]
        return of_site, np.where(found >= 0, own_af, freq.af[:, None, None])

    def _without_own(self, freq: Frequencies, own: np.ndarray, alleles: np.ndarray) -> Frequencies:
        """Frequencies (b samples, n sites) without the alleles (b, 2, n) of the samples ``own``.

        A population that has no other haplotype gets the frequency of the rest of the panel.
        """
        num_own = np.where(own[:, 0] == own[:, 1], 1, 2)[:, None]  # (b, 1)
        dose = np.where(num_own == 1, alleles[:, 0], alleles.sum(axis=1)).astype(np.float32)
        af = _less(freq.af, self.panel.num_haplotypes, dose, num_own)
        rows, home = np.arange(len(own)), self.haplotype_population[own[:, 0]]
        size = np.bincount(self.haplotype_population)[home][:, None]
        population = freq.population.copy()
        population[rows, home] = np.where(
            size > num_own, _less(population[rows, home], size, dose, num_own), af
        )
        genotype = np.stack([dose == 0, (dose > 0) & (dose < num_own), dose == num_own], axis=1)
        rest = _less(freq.genotype, len(self.panel.samples), genotype, 1)
        return Frequencies(af, population, rest)


def _less(
    freq: np.ndarray, size: int | np.ndarray, count: np.ndarray, num: int | np.ndarray
) -> np.ndarray:
    """A frequency among ``size`` without ``num`` of them, which have ``count``; float32."""
    rest = (freq * size - count) / np.maximum(size - num, 1)
    out: np.ndarray = np.clip(rest, 0, 1).astype(np.float32)
    return out
