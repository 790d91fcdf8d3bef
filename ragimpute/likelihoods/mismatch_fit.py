"""Learn from the panel how often alleles differ from the copied ones, by their counts."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ragimpute.copying.parameters import switch_probs
from ragimpute.kernels.bits import WORD
from ragimpute.likelihoods.haploid_kernel import Steps, haploid_alt_share
from ragimpute.likelihoods.model import SiteMismatch
from ragimpute.likelihoods.pattern_kernel import PatternScratch, pattern_alt_share
from ragimpute.likelihoods.patterns import (
    PATTERNS_FROM,
    PatternedSites,
    Sites,
    as_patterns,
    columns,
    slice_sites,
)

#: Mismatch probability, and switch rate per cM, while mismatches are counted.
USUAL = np.float32(1e-3)
_HAPLOID_RATE = 4.0
_KEPT_BYTES = 2**26
#: Haplotypes times sites times haplotypes left out is about this; the figure before is of bytes.
WORK = 1.5e8
# Where the panel is kept as patterns, the sites that are looked at, and the steps of patterns that
# all passes take: so many for each haplotype, but at most the second figure. Of 20,000 simulated
# haplotypes, 78 left out instead of 16 lower 1 - r2 by a third, as more rare alleles are seen.
_PATTERN_SITES = 8_192
_PATTERN_WORK, _MOST_PATTERN_WORK = 5e4, 2e9
_MOST_LEFT_OUT = 96
_FEW = 16
# Classes of sites by the number of minor alleles: each begins at about 1.6 times the one before.
_CLASS_STEP = 1.6


class MismatchByCount(NamedTuple):
    """Mismatch probabilities by the number of haplotypes that have the minor allele.

    Attributes
    ----------
    log_count
        Shape (C,), float64, ascending: logarithms of numbers of minor alleles.
    log_gain, log_loss
        Shape (C,), float64: logarithms of P(minor | major is copied), P(major | minor is copied).
    """

    log_count: np.ndarray
    log_gain: np.ndarray
    log_loss: np.ndarray

    @classmethod
    def constant(cls, prob: float) -> MismatchByCount:
        """The same probability for all sites."""
        log = np.log([prob])
        return cls(np.zeros(1), log, log)

    def at(self, num_alt: np.ndarray, num_haplotypes: int) -> SiteMismatch:
        """Those of sites at which ``num_alt`` (M,) of all haplotypes have ALT."""
        at = np.log(np.maximum(np.minimum(num_alt, num_haplotypes - num_alt), 1))
        gain = np.exp(np.interp(at, self.log_count, self.log_gain)).astype(np.float32)
        loss = np.exp(np.interp(at, self.log_count, self.log_loss)).astype(np.float32)
        turned = 2 * num_alt > num_haplotypes
        return SiteMismatch(np.where(turned, loss, gain), np.where(turned, gain, loss))


def num_counted(num_sites: int, num_haplotypes: int) -> int:
    """Sites at which mismatches are counted."""
    if num_haplotypes >= PATTERNS_FROM:
        return min(_PATTERN_SITES, num_sites)
    return int(np.clip(_KEPT_BYTES // (4 * num_haplotypes), WORD, num_sites))


def fit_mismatch(
    typed: Sites, num_alt: np.ndarray, haplotype_sample: np.ndarray, *, seed: int = 1
) -> MismatchByCount:
    """Find how often alleles differ from the copied ones, by the number of minor alleles of a site.

    Haplotypes are left out with their sample. At each site of a stretch, the probability of their
    allele given all other sites is computed. For each class of minor-allele counts, expectation
    maximisation then finds the probability that an allele is not the copied one: that of a minor
    allele where the major one is copied, and the other way round.

    Parameters
    ----------
    typed
        All M sites.
    num_alt
        Shape (M,), int64: haplotypes that have ALT.
    haplotype_sample
        Shape (H,), int64: the sample of each haplotype.
    seed
        For drawing haplotypes.

    Returns
    -------
    By the number of minor alleles; 1e-3 if the panel has one sample only.
    """
    num_sites, num_haplotypes = typed.num_typed, typed.num_haplotypes
    if len(np.unique(haplotype_sample)) < 2 or num_sites == 0:
        return MismatchByCount.constant(float(USUAL))
    typed = as_patterns(typed)
    num_used = num_counted(num_sites, num_haplotypes)
    first = (num_sites - num_used) // 2 // WORD * WORD
    used = slice(first, min(first + num_used, num_sites))
    part = slice_sites(typed, used.start, used.stop)
    if isinstance(part, PatternedSites):
        most = min(_PATTERN_WORK * num_haplotypes, _MOST_PATTERN_WORK) / part.work
    else:
        most = WORK / (num_haplotypes * part.num_typed)
    num = int(np.clip(most, _FEW, _MOST_LEFT_OUT))
    left_out = np.random.default_rng(seed).permutation(num_haplotypes)[:num]
    minor = np.minimum(num_alt, num_haplotypes - num_alt)
    turned = 2 * num_alt > num_haplotypes
    share, truth, count = [], [], []
    copied = _Copied(part, haplotype_sample)
    for h in left_out.tolist():
        prob, allele = copied.of(h)
        flip = turned[used]
        allele = np.where(flip, 1 - allele, allele)
        share.append(np.where(flip, 1 - prob, prob))
        truth.append(allele)
        # The allele's count among the others, but for the other haplotype of the sample.
        count.append(minor[used] - allele)
    return _by_class(np.concatenate(share), np.concatenate(truth), np.concatenate(count))


class _Copied:
    """P(ALT is copied) of left-out haplotypes at sites; buffers are used again."""

    _kept: np.ndarray

    def __init__(self, sites: Sites, haplotype_sample: np.ndarray) -> None:
        self._sites, self._sample = sites, haplotype_sample
        self._rho = switch_probs(sites.position_cm, switch_rate=_HAPLOID_RATE)
        if isinstance(sites, PatternedSites):
            p = sites.patterns
            most = int(p.num.max(initial=0))
            self._kept = np.empty(p.of.size, np.float32)
            num_steps = WORD * int(np.diff(p.start).max(initial=0))
            self._scratch = PatternScratch.empty(most, num_steps)
        else:
            self._kept = np.empty(sites.num_typed * sites.num_haplotypes, np.float32)

    def of(self, h: int) -> tuple[np.ndarray, np.ndarray]:
        """P(ALT is copied) of a haplotype given all sites but each itself, and its alleles."""
        sites = self._sites
        num = sites.num_typed
        site = np.arange(num)
        word = columns(sites, np.array([h]))[:, 0]
        allele = ((word[site // WORD] >> (site % WORD).astype(np.uint32)) & 1).astype(np.int64)
        emission = np.where(allele[:, None] == np.arange(2), 1 - USUAL, USUAL).astype(np.float32)
        others = self._sample != self._sample[h]
        alt = np.empty(num, np.float32)
        if isinstance(sites, PatternedSites):
            states = np.flatnonzero(others)
            prior = np.full(len(states), 1 / len(states), np.float32)
            steps = sites.steps(states, site, emission, self._rho, prior)
            room = self._kept[: steps.of.size].reshape(steps.of.shape)
            mass = np.empty(len(prior), np.float32)
            pattern_alt_share(steps, site, room, mass, self._scratch, alt)
        else:
            words = np.compress(others, sites.words, axis=1)
            prior = np.full(words.shape[1], 1 / words.shape[1], np.float32)
            kept = self._kept[: num * len(prior)].reshape(num, len(prior))
            passed = Steps(words, site, emission, self._rho, prior)
            haploid_alt_share(passed, kept, np.empty(len(prior), np.float32), alt)
        ratio = alt / emission[:, 1], (1 - alt) / emission[:, 0]
        return np.clip(ratio[0] / (ratio[0] + ratio[1]), 0, 1), allele


def _by_class(share: np.ndarray, truth: np.ndarray, count: np.ndarray) -> MismatchByCount:
    """Mismatch probabilities of classes of minor-allele counts.

    ``share``, ``truth``, ``count``: P(the minor allele is copied), whether it is there, and how
    many haplotypes have it, of the left-out alleles.
    """
    most = max(2, int(count.max()) + 1)
    edges = [1]
    while edges[-1] < most:
        edges.append(max(edges[-1] + 1, round(edges[-1] * _CLASS_STEP)))
    centres, gains, losses = [], [], []
    for low, high in pairwise(edges):
        here = (count >= low) & (count < high)
        if not here.any():
            continue
        centre = float(np.log(count[here]).mean())
        gain, loss = _mismatches(share[here], truth[here], math.exp(centre))
        centres.append(centre)
        gains.append(np.log(gain))
        losses.append(np.log(loss))
    if not centres:
        return MismatchByCount.constant(float(USUAL))
    return MismatchByCount(np.array(centres), np.array(gains), np.array(losses))


def _mismatches(share: np.ndarray, truth: np.ndarray, count: float) -> tuple[float, float]:
    """P(minor | major is copied) and P(major | minor is copied), by expectation maximisation.

    A few imagined alleles stand for what is usual, as rare alleles are seen a few times only: among
    four minor alleles that are copied from one of c carriers, 4 / (1 + c) are absent; and one in
    20,000 alleles is there though the major one is copied.
    """
    q = np.clip(share, 1e-6, 1 - 1e-6)
    gain, loss = 1e-3, 0.1
    for _ in range(60):
        with_it = q * np.where(truth == 1, 1 - loss, loss)
        without = (1 - q) * np.where(truth == 1, gain, 1 - gain)
        minor = with_it / (with_it + without)
        loss = (float(minor[truth == 0].sum()) + 4 / (1 + count)) / (float(minor.sum()) + 4)
        gain = (float((1 - minor)[truth == 1].sum()) + 0.5) / (float((1 - minor).sum()) + 1e4)
    return min(gain, 0.4), min(max(loss, 3e-4), 0.9)
