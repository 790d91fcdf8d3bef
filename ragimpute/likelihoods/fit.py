"""Learn from the panel how its haplotypes are copied, by leaving some of them out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from ragimpute.copying.line_search import climb
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.kernels.bits import WORD
from ragimpute.likelihoods.impute import LikelihoodPanel, Posterior, impute_likelihoods
from ragimpute.likelihoods.mismatch_fit import (
    USUAL,
    WORK,
    MismatchByCount,
    fit_mismatch,
    num_counted,
)
from ragimpute.likelihoods.model import SwitchRates
from ragimpute.likelihoods.network import Belief, Beliefs, GenotypeNetwork
from ragimpute.likelihoods.patterns import (
    Sites,
    as_patterns,
    columns,
    num_alt_of,
    slice_sites,
)
from ragimpute.likelihoods.stretches import PairSettings

#: The usual switch rate per cM of samples with one read a site, where states are exchanged.
USUAL_RATE = 3.5
# Range of the switch rate, and steps by which it is searched. Where the rate matters little, a
# prior decides: one doubling away from the usual rate costs 3 % of the squared error, each further
# one as much. With a weaker prior the rates that seeds find differ sixfold; panels of salmon and of
# mosquitoes, whose rates are 10 times lower and higher, gain more than it costs.
_RATES = (0.05, 500.0)
_RATE_STEP = math.log(2)
_PRIOR = 0.03
# Without exchanges of states, switches are so many times as frequent; this is preferred where the
# logarithms of squared errors of few and of many reads are smaller by this, together, and in larger
# panels than of so many haplotypes. There those that are nearest are alike for long: 5,000 have no
# gain by exchanges, and 20,000 simulated ones make up to twice the errors.
_PLAIN, _LEAST_GAIN, _MOST_EXCHANGING = 1.4, 0.02, 1_500
# Samples that are left out with simulated reads, the reads' error, and the sites and cM looked at.
_NUM_SAMPLES = 8
_READ_ERROR = 0.002
_FIT_SITES, _FIT_CM = 4096, 2.0
# Mean depths of these reads: a rate is found for each. One rate for all depths costs human panels 1
# to 4 % of the squared error at 0.1x, and simulated livestock and bottlenecks 8 to 24 %.
_RATE_DEPTHS = (0.15, 1.5)
# With more, the same rates are found on eight panels, in up to twice the time.
_PAIR_STEPS = 1e8
# Of each class of samples, mean depths of the reads, by turns, of those that tell how far the
# network is to be trusted, and how many these are. Of the first class there are more in small
# panels: few reads tell little, and take little time.
_TRUST_DEPTHS = ((0.08, 0.15), (0.45, 0.7), (1.5, 4.0))
_NUM_TRUSTED, _FEWEST_WITH_FEW, _MOST_TRUSTED = 8, 16, 48


@dataclass(frozen=True)
class PanelFit:
    """How the haplotypes of a panel are copied.

    Attributes
    ----------
    switch_rates
        Changes of the copied haplotype per cM, by the depth of a sample.
    mismatch
        How often an allele is not the copied one.
    network
        Corrects genotypes in doubt, as far as it is to be trusted on this panel; None: no network.
    """

    switch_rates: SwitchRates
    mismatch: MismatchByCount
    network: GenotypeNetwork | None = None


@dataclass(frozen=True)
class FitOptions:
    """How a panel is fitted.

    Attributes
    ----------
    settings
        How samples are imputed.
    seed, threads
        For drawing haplotypes and reads; the result does not depend on ``threads``.
    ne, err
        Effective population size and mismatch probability, > 0; None: found on the panel.
    network
        The network whose trust is fitted; None: no genotype is corrected.
    """

    settings: PairSettings = field(default_factory=PairSettings)
    seed: int = 1
    threads: int = 1
    ne: float | None = None
    err: float | None = None
    network: GenotypeNetwork | None = None


def usual_rates(num_haplotypes: int) -> SwitchRates:
    """The rates with which panels of so many haplotypes are usually copied."""
    if num_haplotypes > _MOST_EXCHANGING:
        return SwitchRates(USUAL_RATE * _PLAIN, exchanges=0.0)
    return SwitchRates(USUAL_RATE)


class FittedPanel:
    """A panel, and the parameters with which samples copy it.

    Parameters
    ----------
    typed
        All M sites.
    haplotype_sample
        Shape (H,), int64: the sample of each haplotype.
    options
        How samples are imputed, and the panel fitted.
    fit
        What was found before, on these sites or others of the panel; None: found on these.
    """

    def __init__(
        self,
        typed: Sites,
        haplotype_sample: np.ndarray,
        options: FitOptions = FitOptions(),
        *,
        fit: PanelFit | None = None,
    ) -> None:
        self._options = options
        typed = as_patterns(typed)
        num_alt = num_alt_of(typed)
        self.fit = fit or fit_panel(typed, haplotype_sample, options)
        mismatch = self.fit.mismatch.at(num_alt, typed.num_haplotypes)
        #: The panel with its parameters.
        self.panel = LikelihoodPanel(
            typed, num_alt, self.fit.switch_rates, mismatch, self.fit.network
        )

    def impute(self, likelihoods: np.ndarray) -> list[Posterior]:
        """Impute samples.

        Parameters
        ----------
        likelihoods
            Shape (M, N, P + 1); see :func:`ragimpute.likelihoods.impute.impute_likelihoods`.
        """
        options = self._options
        return impute_likelihoods(
            self.panel, likelihoods, settings=options.settings, threads=options.threads
        )


def fit_stretch(position_cm: np.ndarray, num_haplotypes: int) -> slice:
    """The sites, in the middle of a stretch, on which a panel is fitted; it begins with a word."""
    num_sites = len(position_cm)
    num = max(_FIT_SITES, num_counted(num_sites, num_haplotypes))
    first = max(0, (num_sites - num) // 2) // WORD * WORD
    return slice(first, min(num_sites, first + num))


def fit_panel(
    typed: Sites, haplotype_sample: np.ndarray, options: FitOptions = FitOptions()
) -> PanelFit:
    """Find on a panel how its haplotypes are copied.

    Parameters
    ----------
    typed
        Sites of the panel, of which those in the middle are looked at.
    haplotype_sample
        Shape (H,), int64: the sample of each haplotype.
    options
        How.
    """
    typed = as_patterns(typed)
    settings = options.settings
    # The sites that left-out samples are imputed at are one stretch, whatever the rate.
    settings = replace(
        settings, stretch_cm=2 * _FIT_CM, pair_steps=min(settings.pair_steps, _PAIR_STEPS)
    )
    options = replace(options, settings=settings)
    num_haplotypes = typed.num_haplotypes
    num_alt = num_alt_of(typed)
    if options.err is not None:
        mismatch = MismatchByCount.constant(options.err)
    else:
        mismatch = fit_mismatch(typed, num_alt, haplotype_sample, seed=options.seed)
    left_out = _LeftOut.draw(typed, num_alt, haplotype_sample, options)
    if options.ne is not None:
        rate = CopyingParameters.from_ne(options.ne, float(USUAL), num_haplotypes).switch_rate
        rates = usual_rates(num_haplotypes)._replace(at_one=rate, power=0.0)
    elif left_out is None:
        rates = usual_rates(num_haplotypes)
    else:
        rates = _fit_rates(left_out, mismatch, options)
    network = options.network
    if network is not None and left_out is not None:
        network = _trusted(network, left_out, mismatch, rates, options)
    return PanelFit(rates, mismatch, network)


@dataclass(frozen=True)
class _LeftOut:
    """Samples that are left out, and the sites in the middle where they are imputed.

    ``typed``, ``num_alt`` (m,): these sites. ``pairs`` (n, 2): the samples' haplotypes, the second
    -1 where haploid. ``alt`` (m, n): how many of a sample's haplotypes in the panel have ALT.
    ``truth`` (m, n): its ALT alleles; the second haplotype of a haploid sample is a copy of the
    first. ``seed``: for reads.
    """

    typed: Sites
    num_alt: np.ndarray
    pairs: np.ndarray
    alt: np.ndarray
    truth: np.ndarray
    seed: int

    @classmethod
    def draw(
        cls,
        typed: Sites,
        num_alt: np.ndarray,
        haplotype_sample: np.ndarray,
        options: FitOptions,
    ) -> _LeftOut | None:
        """Draw samples; None if there is but one, or no site."""
        cm = typed.position_cm
        samples = np.unique(haplotype_sample)
        if len(samples) < 2 or not len(cm):
            return None
        rng = np.random.default_rng([options.seed, 0])
        low = max(0, (len(cm) - _FIT_SITES) // 2) // WORD * WORD
        high = min(len(cm), low + _FIT_SITES)
        high = min(high, max(int(np.searchsorted(cm, cm[low] + _FIT_CM)), low + WORD))
        part = slice_sites(typed, low, high)
        drawn = rng.permutation(samples)[:_MOST_TRUSTED]
        pairs = np.full((len(drawn), 2), -1)
        for i, sample in enumerate(drawn):
            own = np.flatnonzero(haplotype_sample == sample)[:2]
            pairs[i, : len(own)] = own
        site = np.arange(high - low)
        bit = (site % WORD).astype(np.uint32)[:, None, None]
        own_words = columns(part, np.maximum(pairs, 0).reshape(-1)).reshape(-1, len(pairs), 2)
        alleles = ((own_words[site // WORD] >> bit) & 1).astype(np.int64)  # (m, n, 2)
        haploid = pairs[:, 1] < 0
        alt = alleles[:, :, 0] + np.where(haploid, 0, alleles[:, :, 1])
        alleles[:, haploid, 1] = alleles[:, haploid, 0]
        return cls(
            part, num_alt[low:high], pairs, alt, alleles.sum(axis=2), options.seed
        )  # fmt: skip


def _fit_rates(left_out: _LeftOut, mismatch: MismatchByCount, options: FitOptions) -> SwitchRates:
    """The switch rates with which left-out samples with few and many reads are imputed best.

    Exchanges are left out if the samples are imputed better without them.
    """
    trial = _Trial(left_out, mismatch, options)
    usual = usual_rates(left_out.typed.num_haplotypes)
    few, many = (trial.best_rate(depth, usual) for depth in _RATE_DEPTHS)
    rates = SwitchRates.through(_RATE_DEPTHS, (few, many))._replace(exchanges=usual.exchanges)
    if not rates.exchanges:
        return rates
    gain = sum(
        trial.log_error(depth, rate, rates.exchanges) - trial.log_error(depth, rate * _PLAIN, 0.0)
        for depth, rate in zip(_RATE_DEPTHS, (few, many), strict=True)
    )
    if gain > _LEAST_GAIN:
        return SwitchRates(rates.at_one * _PLAIN, rates.power, 0.0)
    return rates


class _Trial:
    """Imputes left-out samples with simulated reads, to compare switch rates."""

    def __init__(self, left_out: _LeftOut, mismatch: MismatchByCount, options: FitOptions) -> None:
        self._typed, self._num_alt, self._options = left_out.typed, left_out.num_alt, options
        self._pairs = left_out.pairs[:_NUM_SAMPLES]
        self._truth = left_out.truth[:, :_NUM_SAMPLES]
        self._reads = {
            depth: simulate_reads(self._truth, depth, np.random.default_rng([left_out.seed, 1]))
            for depth in _RATE_DEPTHS
        }
        self._mismatch = mismatch.at(left_out.num_alt, left_out.typed.num_haplotypes)
        self._found: dict[tuple[float, float, float], float] = {}

    def log_error(self, depth: float, rate: float, exchanges: float) -> float:
        """The logarithm of the squared error of dosages, which is what r2 measures.

        Likelihoods of genotypes choose lower rates, with which 1 - r2 is 2 % higher.
        """
        key = depth, rate, exchanges
        if key not in self._found:
            self._found[key] = self._log_error(depth, SwitchRates(rate, 0.0, exchanges))
        return self._found[key]

    def _log_error(self, depth: float, rates: SwitchRates) -> float:
        options, truth = self._options, self._truth
        panel = LikelihoodPanel(self._typed, self._num_alt, rates, self._mismatch)
        found = impute_likelihoods(
            panel, self._reads[depth],
            settings=options.settings, threads=options.threads, exclude=self._pairs,
        )  # fmt: skip
        dosage = np.stack([each.allele_prob.sum(axis=1) for each in found], axis=1)
        return math.log(float(np.square(dosage - truth, dtype=np.float64).sum()) + 1e-9)

    def best_rate(self, depth: float, rates: SwitchRates) -> float:
        """The rate for samples of a depth, near the usual ``rates`` unless others are better."""
        usual = math.log(rates.at_one * depth**rates.power)

        def height(log_rate: float) -> float:
            doublings = abs(log_rate - usual) / math.log(2)
            cost = _PRIOR * doublings * min(doublings, 1)
            return -self.log_error(depth, math.exp(log_rate), rates.exchanges) - cost

        lowest, highest = map(math.log, _RATES)
        return math.exp(
            climb(height, usual, lowest, highest, step=_RATE_STEP, tolerance=0.6 * _RATE_STEP)
        )


def _trusted(
    network: GenotypeNetwork,
    left_out: _LeftOut,
    mismatch: MismatchByCount,
    rates: SwitchRates,
    options: FitOptions,
) -> GenotypeNetwork:
    """The network, as far as left-out samples with simulated reads show that it is right.

    Each sample is imputed as if the panel had never had it. Samples of a class are imputed when
    the first sample of the class is corrected.
    """
    pairs, truth = left_out.pairs, left_out.truth
    num_alt, typed = left_out.num_alt, left_out.typed

    def describe(i: int, reads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        others = num_alt - left_out.alt[:, i]
        num = typed.num_haplotypes - int((pairs[i] >= 0).sum())
        panel = LikelihoodPanel(typed, num_alt, rates, mismatch.at(others, num))
        (found,) = impute_likelihoods(
            panel, reads[:, None], settings=options.settings, exclude=pairs[i : i + 1],
            describe=True,
        )  # fmt: skip
        evidence = found.evidence
        assert evidence is not None
        # At other sites the rest of the panel does not vary.
        k = np.flatnonzero((others[evidence.site] > 0) & (others[evidence.site] < num))
        site = evidence.site[k]
        minor = np.where(2 * others[site] > num, 2 - truth[site, i], truth[site, i])
        return evidence.features[k], evidence.likelihoods[k], minor

    def belief(number: int) -> Belief:
        depths = _TRUST_DEPTHS[number]
        num = _NUM_TRUSTED
        if number == 0:  # there is little in these reads to learn from, and little to compute
            work = typed.num_haplotypes * typed.num_typed
            num = int(np.clip(WORK // work, _FEWEST_WITH_FEW, _MOST_TRUSTED))
        known = truth[:, :num]
        rng = np.random.default_rng([left_out.seed, 2, number])
        reads = simulate_reads(known, np.resize(depths, known.shape[1]), rng)
        found = [describe(i, reads[:, i]) for i in range(known.shape[1])]
        sample = np.repeat(np.arange(len(found)), [len(minor) for _, _, minor in found])
        features, likelihoods, minor = (np.concatenate(c) for c in zip(*found, strict=True))
        return network.belief(features, likelihoods, minor, sample)

    return replace(network, beliefs=Beliefs(belief))


def simulate_reads(
    truth: np.ndarray,
    depth: float | np.ndarray,
    rng: np.random.Generator,
    *,
    error: float = _READ_ERROR,
) -> np.ndarray:
    """Likelihoods of genotypes from simulated reads.

    Parameters
    ----------
    truth
        Shape (M, N), int: ALT alleles of diploid samples.
    depth
        Mean number of reads at a site, of each sample, shape (N,), or of all; Poisson.
    rng
        Draws the reads.
    error
        How often a read shows the other allele. Likelihoods do not know it: they take 0.2 %.

    Returns
    -------
    Shape (M, N, 3), float64.
    """
    num = rng.poisson(depth, truth.shape)
    alt = rng.binomial(num, np.array([error, 0.5, 1 - error])[truth])[:, :, None]
    shows_alt = np.array([_READ_ERROR, 0.5, 1 - _READ_ERROR])
    log = alt * np.log(shows_alt) + (num[:, :, None] - alt) * np.log(1 - shows_alt)
    out: np.ndarray = np.exp(log - log.max(axis=2, keepdims=True))
    return out
