"""Learn from the panel how its haplotypes are copied, by leaving some of them out."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import pairwise

import numpy as np

from ragimpute.copying.line_search import climb
from ragimpute.copying.parameters import switch_probs
from ragimpute.copying.window import TypedSites
from ragimpute.kernels.bits import WORD
from ragimpute.likelihoods.haploid_kernel import Steps, haploid_posterior
from ragimpute.likelihoods.impute import LikelihoodPanel, Posterior, impute_likelihoods
from ragimpute.likelihoods.model import SiteMismatch, informative, normalise
from ragimpute.likelihoods.states import PairSettings

# Mismatch probability while mismatches are counted, and switch rate per cM.
_USUAL = np.float32(1e-3)
_USUAL_RATE = 6.0
# Range of the switch rate, and steps by which it is searched. Where the rate matters little, a
# prior decides: one doubling away from the usual rate it costs 0.3 % of the squared error, two
# doublings away four times as much.
_RATES = (0.05, 500.0)
_RATE_STEP = math.log(2)
_PRIOR = 0.003
# Haplotypes times sites times haplotypes left out is about this; the first figure is bytes.
_KEPT_BYTES = 2**26
_WORK = 1.5e8
_MOST_LEFT_OUT = 96
_FEW = 16
# Classes of sites by the number of minor alleles: each begins at about 1.6 times the one before.
_CLASS_STEP = 1.6
# Samples that are left out with simulated reads, the reads' error, and the sites and cM looked at.
_NUM_SAMPLES = 16
_READ_ERROR = 0.002
_FIT_SITES, _FIT_CM = 4096, 2.0
#: Depths for which the switch rate is fitted; each sample uses the one that is nearest. The best
#: rate hardly depends on the depth: 4 to 6 per cM for 600 Europeans at 0.1x, 1x and 4x.
DEPTHS = (0.25, 2.0)


def num_alt_of(typed: TypedSites) -> np.ndarray:
    """Haplotypes that have ALT at each site, shape (M,), int64."""
    out = np.empty((len(typed.words), WORD), np.int64)
    for j in range(WORD):
        out[:, j] = ((typed.words >> np.uint32(j)) & np.uint32(1)).sum(axis=1, dtype=np.int64)
    return out.ravel()[: typed.num_typed]


def nearest_depth(likelihoods: np.ndarray) -> float:
    """The one of :data:`DEPTHS` that is nearest to a sample's, by the share of sites with reads.

    Parameters
    ----------
    likelihoods
        Shape (M, G), normalised.
    """
    without = 1 - informative(likelihoods).mean() if len(likelihoods) else 1.0
    depth = -math.log(max(without, 1e-3))
    distance = [abs(math.log(max(depth, 1e-3) / at)) for at in DEPTHS]
    return DEPTHS[int(np.argmin(distance))]


class FittedPanel:
    """A panel, and the parameters with which samples of each depth copy it.

    Parameters
    ----------
    typed
        All M sites.
    haplotype_sample
        Shape (H,), int64: the sample of each haplotype.
    settings
        How samples are imputed.
    seed, threads
        For drawing haplotypes and reads; the result does not depend on ``threads``.
    """

    def __init__(
        self,
        typed: TypedSites,
        haplotype_sample: np.ndarray,
        *,
        settings: PairSettings = PairSettings(),
        seed: int = 1,
        threads: int = 1,
    ) -> None:
        self._typed, self._sample, self._settings = typed, haplotype_sample, settings
        self._seed, self._threads = seed, threads
        self._num_alt = num_alt_of(typed)
        self._rates: dict[float, float] = {}

    @cached_property
    def mismatch(self) -> SiteMismatch:
        """Mismatch probabilities of all sites."""
        return fit_mismatch(self._typed, self._num_alt, self._sample, seed=self._seed)

    def at(self, depth: float) -> LikelihoodPanel:
        """The panel with the switch rate that suits samples of this depth; see :data:`DEPTHS`."""
        if depth not in self._rates:
            self._rates[depth] = self._fit_rate(depth)
        return LikelihoodPanel(self._typed, self._num_alt, self._rates[depth], self.mismatch)

    def impute(self, likelihoods: np.ndarray) -> list[Posterior]:
        """Impute samples, each with the rate of its depth.

        Parameters
        ----------
        likelihoods
            Shape (M, N, P + 1); see :func:`ragimpute.likelihoods.impute.impute_likelihoods`.
        """
        num = likelihoods.shape[1]
        depth = [nearest_depth(normalise(likelihoods[:, i])) for i in range(num)]
        out: dict[int, Posterior] = {}
        for each in sorted(set(depth)):
            of = [i for i in range(num) if depth[i] == each]
            found = impute_likelihoods(
                self.at(each), likelihoods[:, of], settings=self._settings, threads=self._threads
            )
            out.update(zip(of, found, strict=True))
        return [out[i] for i in range(num)]

    def _fit_rate(self, depth: float) -> float:
        """The switch rate with which left-out samples with simulated reads are imputed best.

        The squared error of dosages is minimised, which is what r2 measures. Likelihoods of
        genotypes choose lower rates, with which 1 - r2 is 2 % higher.
        """
        cm = self._typed.position_cm
        samples = np.unique(self._sample)
        if len(samples) < 2 or not len(cm):
            return _USUAL_RATE
        rng = np.random.default_rng([self._seed, DEPTHS.index(depth)])
        low = max(0, (len(cm) - _FIT_SITES) // 2) // WORD * WORD
        high = min(len(cm), low + _FIT_SITES)
        high = min(high, max(int(np.searchsorted(cm, cm[low] + _FIT_CM)), low + WORD))
        words = np.ascontiguousarray(self._typed.words[low // WORD : -(-high // WORD)])
        part = TypedSites(words, cm[low:high])
        drawn = rng.permutation(samples)[:_NUM_SAMPLES]
        pairs = np.full((len(drawn), 2), -1)
        for i, sample in enumerate(drawn):
            own = np.flatnonzero(self._sample == sample)[:2]
            pairs[i, : len(own)] = own
        site = np.arange(high - low)
        bit = (site % WORD).astype(np.uint32)[:, None, None]
        alleles = (words[site // WORD][:, pairs] >> bit) & 1  # (m, n, 2)
        # The second haplotype of a haploid sample is a copy of the first.
        alleles[:, pairs[:, 1] < 0, 1] = alleles[:, pairs[:, 1] < 0, 0]
        truth = alleles.sum(axis=2).astype(np.int64)
        reads = simulate_reads(truth, depth, rng)
        mismatch = self.mismatch.of_sites(slice(low, high))
        num_alt = self._num_alt[low:high]

        def height(log_rate: float) -> float:
            panel = LikelihoodPanel(part, num_alt, math.exp(log_rate), mismatch)
            found = impute_likelihoods(
                panel, reads, settings=self._settings, threads=self._threads, exclude=pairs
            )
            dosage = np.stack([each.allele_prob.sum(axis=1) for each in found], axis=1)
            error = float(np.square(dosage - truth, dtype=np.float64).sum())
            doublings = (log_rate - math.log(_USUAL_RATE)) / math.log(2)
            return -math.log(error + 1e-9) - _PRIOR * doublings**2

        lowest, highest = map(math.log, _RATES)
        best = climb(
            height, math.log(_USUAL_RATE), lowest, highest, step=_RATE_STEP,
            tolerance=0.6 * _RATE_STEP,
        )  # fmt: skip
        return math.exp(best)


def simulate_reads(truth: np.ndarray, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Likelihoods of genotypes from simulated reads.

    Parameters
    ----------
    truth
        Shape (M, N), int: ALT alleles of diploid samples.
    depth
        Mean number of reads at a site; Poisson.
    rng
        Draws the reads.

    Returns
    -------
    Shape (M, N, 3), float64.
    """
    shows_alt = np.array([_READ_ERROR, 0.5, 1 - _READ_ERROR])
    num = rng.poisson(depth, truth.shape)
    alt = rng.binomial(num, shows_alt[truth])[:, :, None]
    log = alt * np.log(shows_alt) + (num[:, :, None] - alt) * np.log(1 - shows_alt)
    out: np.ndarray = np.exp(log - log.max(axis=2, keepdims=True))
    return out


def fit_mismatch(
    typed: TypedSites, num_alt: np.ndarray, haplotype_sample: np.ndarray, *, seed: int = 1
) -> SiteMismatch:
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
    Of all M sites; 1e-3 if the panel has one sample only.
    """
    num_sites, num_haplotypes = typed.num_typed, typed.num_haplotypes
    if len(np.unique(haplotype_sample)) < 2 or num_sites == 0:
        each = np.full(num_sites, _USUAL, np.float32)
        return SiteMismatch(each, each)
    num_used = int(np.clip(_KEPT_BYTES // (4 * num_haplotypes), WORD, num_sites))
    first = (num_sites - num_used) // 2 // WORD * WORD
    used = slice(first, min(first + num_used, num_sites))
    work = num_haplotypes * (used.stop - used.start)
    num = int(np.clip(_WORK // work, _FEW, _MOST_LEFT_OUT))
    left_out = np.random.default_rng(seed).permutation(num_haplotypes)[:num]
    minor = np.minimum(num_alt, num_haplotypes - num_alt)
    turned = 2 * num_alt > num_haplotypes
    share, truth, count = [], [], []
    for h in left_out:
        prob, allele = _copied(typed, used, haplotype_sample, h, _USUAL_RATE)
        flip = turned[used]
        allele = np.where(flip, 1 - allele, allele)
        share.append(np.where(flip, 1 - prob, prob))
        truth.append(allele)
        # The allele's count among the others, but for the other haplotype of the sample.
        count.append(minor[used] - allele)
    return _by_class(
        np.concatenate(share), np.concatenate(truth), np.concatenate(count), minor, turned
    )


def _copied(
    typed: TypedSites, used: slice, haplotype_sample: np.ndarray, h: int, rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """P(ALT is copied) of a left-out haplotype given all sites but each itself, and its alleles."""
    words = np.ascontiguousarray(typed.words[used.start // WORD : -(-used.stop // WORD)])
    num = used.stop - used.start
    site = np.arange(num)
    allele = ((words[site // WORD, h] >> (site % WORD).astype(np.uint32)) & 1).astype(np.int64)
    emission = np.where(allele[:, None] == np.arange(2), 1 - _USUAL, _USUAL).astype(np.float32)
    words = np.ascontiguousarray(words[:, haplotype_sample != haplotype_sample[h]])
    prior = np.full(words.shape[1], 1 / words.shape[1], np.float32)
    kept = np.empty((num, words.shape[1]), np.float32)
    rho = switch_probs(typed.position_cm[used], switch_rate=rate)
    haploid_posterior(
        Steps(words, site, emission, rho, prior), 1, kept, np.empty(words.shape[1], np.float32)
    )
    alt = np.zeros(num)
    for j in range(min(WORD, num)):
        rows = np.arange(j, num, WORD)
        has = (words[rows // WORD] >> np.uint32(j)) & np.uint32(1)
        alt[rows] = np.einsum("mh,mh->m", kept[rows], has.astype(np.float32))
    ratio = alt / emission[:, 1], (1 - alt) / emission[:, 0]
    return np.clip(ratio[0] / (ratio[0] + ratio[1]), 0, 1), allele


def _by_class(
    share: np.ndarray,
    truth: np.ndarray,
    count: np.ndarray,
    minor: np.ndarray,
    turned: np.ndarray,
) -> SiteMismatch:
    """Mismatch probabilities of all sites, interpolated between classes of minor-allele counts.

    ``share``, ``truth``, ``count``: P(the minor allele is copied), whether it is there, and how
    many haplotypes have it, of the left-out alleles. ``minor``, ``turned``: of all sites.
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
        each = np.full(len(minor), _USUAL, np.float32)
        return SiteMismatch(each, each)
    at = np.log(np.maximum(minor, 1))
    gain = np.exp(np.interp(at, centres, gains)).astype(np.float32)
    loss = np.exp(np.interp(at, centres, losses)).astype(np.float32)
    return SiteMismatch(np.where(turned, loss, gain), np.where(turned, gain, loss))


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
