"""Read the reference blocks of a gVCF: stretches where samples were seen to carry REF alone.

A block is a record whose only ALTs stand for "any other allele" (``<NON_REF>`` of GATK and DRAGEN,
``<*>`` of DeepVariant and bcftools, ``<X>`` of old samtools), or one without ALT that has INFO/END
or a quality of the reference call (RGQ of GATK, GQX and MIN_DP of Strelka). It covers POS to END.

References
----------
The VCF specification 4.3, section 5.5 ("Representing unspecified alleles and REF-only blocks").
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragimpute.io.vcf.read.records import RecordReader, is_reference_block, reference_end
from ragimpute.sites import Region, Sites
from ragimpute.symbolic import is_symbolic

MIN_GQ = 20.0
# If a block gives only its depth: each read that shows REF halves the likelihood of a heterozygote,
# so that it adds 10 log10(2) = 3 to the quality.
_GQ_PER_READ = 3.0
_QUALITIES = ("GQ", "RGQ", "GQX")
_DEPTHS = ("MIN_DP", "DP")


@dataclass(frozen=True)
class BlockCounts:
    """What the reference blocks of a gVCF say of a panel's sites.

    Attributes
    ----------
    num_blocks
        Records that are reference blocks.
    num_typed
        Panel sites within them that are typed as REF in at least one sample.
    num_low
        Panel sites within them that no sample has with a sufficient quality.
    num_compared, num_other_ref
        Panel sites at which a block begins, so that it tells the base of the reference; and those
        of them where the panel has another REF, which are not typed.
    """

    num_blocks: int = 0
    num_typed: int = 0
    num_low: int = 0
    num_compared: int = 0
    num_other_ref: int = 0


class ReferenceBlocks:
    """Collects what the reference blocks of a file say of a panel's sites.

    Attributes
    ----------
    sites, min_gq
        As given.
    num_blocks
        Reference blocks so far.

    Parameters
    ----------
    sites
        The panel's sites, sorted by position.
    min_gq
        Lowest quality (Phred) of a sample's reference call that is used, >= 0: GQ, RGQ or GQX;
        else by PL; else three times MIN_DP or DP. A call without any of these is used.
    """

    def __init__(self, sites: Sites, min_gq: float = MIN_GQ) -> None:
        self.min_gq = min_gq
        self.num_blocks = 0
        self.sites = sites
        self._position: list[int] = sites.position_bp.tolist()
        self._alleles: dict[int, np.ndarray] = {}  # by panel site, each of shape (N, 2)
        self._num_compared = self._num_other_ref = 0

    def take(self, reader: RecordReader, variant: Any) -> bool:
        """Whether a record is a reference block; if so, it is taken up."""
        if not is_reference_block(variant):
            return False
        self.num_blocks += 1
        end = reference_end(variant)
        first = bisect_left(self._position, variant.POS)
        stop = bisect_left(self._position, end + 1, lo=first)
        if first == stop:
            return True
        num_samples = len(reader.samples)
        alleles, phased = np.empty((num_samples, 2), np.int8), np.empty(num_samples, bool)
        reader.genotypes(variant, alleles, phased)
        unsure = ~self._is_sure(variant, num_samples)
        lost = unsure | (alleles > 0).any(axis=1) | (alleles == -1).any(axis=1)
        alleles[lost] = np.where(alleles[lost] == -2, -2, -1)
        for i in range(first, stop):
            if self._covers(variant, end, i):
                known = self._alleles.get(i)
                self._alleles[i] = alleles if known is None else _filled(known, alleles)
        return True

    def _covers(self, variant: Any, end: int, i: int) -> bool:
        """Whether a block says something of panel site ``i``, which begins within it."""
        position, ref = self._position[i], self.sites.ref[i].upper()
        if is_symbolic(self.sites.alt[i]):  # nobody looked for it
            return False
        if position + len(ref) - 1 > end:
            return False
        if position == variant.POS and "N" not in variant.REF.upper():
            self._num_compared += 1
            given = variant.REF.upper()
            if not (ref.startswith(given) or given.startswith(ref)):
                self._num_other_ref += 1
                return False
        # Callers that write no symbolic allele do not say that they looked for indels.
        return bool(variant.ALT) or len(ref) == len(self.sites.alt[i]) == 1

    def _is_sure(self, variant: Any, num_samples: int) -> np.ndarray:
        """Whether the quality of each sample's reference call suffices, shape (N,), bool."""
        quality = np.full(num_samples, np.nan)
        for name in _QUALITIES:
            _fill(quality, _numbers(variant, name, num_samples))
        likelihoods = _numbers(variant, "PL", num_samples)
        if likelihoods is not None and likelihoods.shape[1] > 1:
            known = ~np.isnan(likelihoods).all(axis=1)
            others = np.where(np.isnan(likelihoods), np.inf, likelihoods)[:, 1:].min(axis=1)
            _fill(quality, np.where(known, others - likelihoods[:, 0], np.nan)[:, None])
        for name in _DEPTHS:
            depth = _numbers(variant, name, num_samples)
            _fill(quality, None if depth is None else _GQ_PER_READ * depth)
        sure: np.ndarray = np.isnan(quality) | (quality >= self.min_gq)
        return sure

    def result(
        self, sites: Sites, region: Region | None
    ) -> tuple[np.ndarray, np.ndarray, BlockCounts]:
        """What was found, apart from the sites that a record of its own tells of.

        Parameters
        ----------
        sites
            The rows that were made of the file's other records.
        region
            Panel sites outside of it are passed over; None: none are.

        Returns
        -------
        Panel sites, shape (m,), int64, ascending; their alleles, shape (m, N, 2), int8: 0 REF, -1
        missing, -2 haploid fill; and the counts.
        """
        own = {(position, ref.upper(), alt.upper()) for position, ref, alt in sites.keys()}
        found, low = [], 0
        for i in sorted(self._alleles):
            key = self._position[i], self.sites.ref[i].upper(), self.sites.alt[i].upper()
            if key in own or not (region is None or region.start_bp <= key[0] < region.stop_bp):
                continue
            if (self._alleles[i] == 0).any():
                found.append(i)
            else:
                low += 1
        counts = BlockCounts(
            self.num_blocks, len(found), low, self._num_compared, self._num_other_ref
        )
        index = np.array(found, dtype=np.int64)
        if not found:
            return index, np.zeros((0, 0, 2), np.int8), counts
        return index, np.stack([self._alleles[i] for i in found]), counts


def _numbers(variant: Any, name: str, num_samples: int) -> np.ndarray | None:
    """A FORMAT field of numbers, shape (N, k), float64, NaN where missing; None if it is none."""
    if name not in variant.FORMAT:
        return None
    given = variant.format(name)
    if given is None or given.dtype.kind not in "if" or given.size == 0:
        return None
    values: np.ndarray = np.asarray(given, np.float64).reshape(num_samples, -1)
    out: np.ndarray = np.where(values < 0, np.nan, values)  # missing and padding are negative
    return out


def _fill(quality: np.ndarray, values: np.ndarray | None) -> None:
    """Put the first column of ``values`` where no quality is known."""
    if values is not None:
        unknown = np.isnan(quality)
        quality[unknown] = values[unknown, 0]


def _filled(known: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Alleles (N, 2), where a sample has none those of a second block."""
    empty = (known == -1).any(axis=1)
    out: np.ndarray = np.where(empty[:, None], more, known)
    return out
