"""Measure at each site how well the panel imputes itself, as a sign of how reliable the site is.

Randomly drawn samples of the panel are imputed from the other samples, using the target's typed
sites only. At typed sites this gives the probability that an allele differs from the copied one: a
few sites have many genotyping errors or recurrent mutations, most have almost none. At untyped
sites it shows how accurate imputed dosages are, and by how much their claimed certainty is too
high.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ragimpute.accuracy.leave_one_out import leave_one_out
from ragimpute.copying.copy import copy_haplotypes, copy_in_parts
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import found_without, found_without_own, states_without_own
from ragimpute.copying.window import Window
from ragimpute.evidence.allele_sharing import AlleleSharing
from ragimpute.evidence.features import QUALITY_FEATURES
from ragimpute.evidence.rare_excess import LeftOutR2
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import kernel
from ragimpute.panel.haplotypes import draw_samples, haplotype_columns
from ragimpute.runtime.memory import STATE_BYTES
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.threads import share

if TYPE_CHECKING:
    from ragimpute.retrieval.retriever import Retriever

# Number of samples that are left out. More samples make the figures of rare sites less noisy, but
# take longer. In panels too large to be copied whole, 100 samples would take as long as hundreds of
# targets. There 16 serve: in 20,000 simulated people's haplotypes and 8,000 of cattle and insects,
# r2 with 16 and with 32 differs by -.00001 to .00006; in bins of MAF by no more than with another
# seed. The mean DR2 of one target's common sites becomes .003 too low.
NUM_LEFT_OUT, NUM_LEFT_OUT_OF_LARGE = 100, 16
# Samples that are imputed at a time: this number, or fewer if their probabilities take more bytes.
_SAMPLES_AT_ONCE, _BYTES_AT_ONCE = 32, 40 * 2**20
# Bytes of probabilities that are computed at a time, small enough to stay in the cache.
_PART_BYTES = 4 * 2**20
# Sites that sums and features are computed for at a time, few enough to stay in the cache.
_SITES_AT_ONCE = 2048
# Sums are kept as whole multiples of this unit: the result then does not depend on the order in
# which samples are added.
_UNIT = 2.0**-36
_INVERSE = 1 / _UNIT
# Weight of the prior, in haplotypes: a site's own mismatches are added to those of so many
# haplotypes that mismatch as often as the average site.
_PRIOR_HAPLOTYPES = 50
_LEAST_MISMATCH, _MOST_MISMATCH = 1e-4, 0.3
_LEAST_PRIOR, _MOST_PRIOR = 3e-3, 0.05
_PRIOR_HETS = 10  # weight, in expected heterozygous samples, by which "quality_hets" shrinks to 0
_CERTAIN = 0.99  # an observed allele at least this probable is taken to be no mismatch
_ITERATIONS = 20
_LEAST_VARIANCE = 1e-9  # smaller ones are of sites where nothing varies
# Samples are left out together only if the panel has so many times their haplotypes.
_TIMES_LEFT_OUT = 8


class SiteRows(Protocol):
    """Features of sites, indexed by site: an array of shape (M, features), or an object like it."""

    def __getitem__(self, sites: np.ndarray, /) -> np.ndarray:
        """The rows of ``sites``, shape (n,), int."""
        ...


class SiteFeatures:
    """Features of sites: quality, known for all M sites, and allele sharing, measured on demand."""

    def __init__(self, measured: np.ndarray, sharing: AlleleSharing) -> None:
        self.measured, self._sharing = measured, sharing

    def __getitem__(self, sites: np.ndarray) -> np.ndarray:
        """Features of ``sites``, shape (n,): shape (n, len(SITE_FEATURES)), float32, finite."""
        return np.concatenate([self.measured[sites], self._sharing[sites]], axis=1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Features of all sites, shape (M, len(SITE_FEATURES))."""
        return self[np.arange(len(self.measured))].astype(dtype or np.float32, copy=False)


class LeftOutCopies(NamedTuple):
    """What copying gave for the n haplotypes of the left-out samples in some of a window's words.

    Attributes
    ----------
    words, sites
        Half-open ranges of the words of typed sites, and of the window's sites that they are in.
    haplotypes
        Shape (n,), int32: their numbers in the panel, a sample's next to each other.
    alleles
        Shape (sites, n), int8: true alleles.
    states
        Shape (n, words, K), int32: numbers of panel haplotypes; none is of a left-out sample.
    prob
        Shape (n, sites), float32: P(ALT).
    sums
        Sums over the samples at the sites of the window.
    """

    words: tuple[int, int]
    sites: tuple[int, int]
    haplotypes: np.ndarray
    alleles: np.ndarray
    states: np.ndarray
    prob: np.ndarray
    sums: _Sums

    @classmethod
    def room(
        cls,
        window: Window,
        words: tuple[int, int],
        left_out: np.ndarray,
        retriever: Retriever,
        sums: _Sums,
    ) -> LeftOutCopies:
        """Make room for what copying will give for the haplotypes ``left_out``."""
        typed = window.typed_index[words[0] * WORD : words[1] * WORD]
        sites = int(typed[0]), int(typed[-1]) + 1
        n, num_sites = len(left_out), sites[1] - sites[0]
        num_slots = min(retriever.num_slots, retriever.num_haplotypes - n)
        return cls(
            words, sites, left_out,
            alleles=np.empty((n, num_sites), np.int8).T,
            states=np.empty((n, words[1] - words[0], num_slots), np.int32),
            prob=np.empty((n, num_sites), np.float32), sums=sums,
        )  # fmt: skip

    def put_haplotypes(self, rows: slice, alleles: np.ndarray, states: np.ndarray) -> None:
        """Keep alleles (M, n) and states (n, W, K) of some of the haplotypes, in all the window."""
        self.alleles[:, rows] = alleles[slice(*self.sites)]
        self.states[rows] = states[:, slice(*self.words)]

    def put(self, rows: slice, site: int, prob: np.ndarray) -> None:
        """Keep P(ALT) of some of the haplotypes at the sites from ``site`` on, shape (sites, n)."""
        low, high = max(self.sites[0], site), min(self.sites[1], site + len(prob))
        if low < high:
            here = slice(low - self.sites[0], high - self.sites[0])
            self.prob[rows, here] = prob[low - site : high - site].T

    def features_without_own(self, pairs: np.ndarray, homolog: np.ndarray) -> np.ndarray:
        """Quality of the sites of pairs, measured on the samples other than the pair's own.

        Parameters
        ----------
        pairs
            Shape (N, 2), int64: row and column of ``prob``.
        homolog
            Shape (n,), int64: row of the other haplotype of the same sample, or -1.

        Returns
        -------
        Shape (N, len(QUALITY_FEATURES)), float32.
        """
        h, u = pairs[:, 0], pairs[:, 1]
        other = homolog[h]
        out = np.empty((len(pairs), len(QUALITY_FEATURES)), np.float32)
        for is_two in (False, True):
            here = np.flatnonzero((other >= 0) == is_two)
            rows = np.stack([h[here], other[here]][: 1 + is_two])
            of_site = np.tile(u[here], (1 + is_two, 1))
            own = np.zeros((8, len(here)), np.int64)
            minor = self.sums.minor[self.sites[0] + u[here]]
            _add_samples(
                np.ascontiguousarray(self.prob[rows, of_site]),
                np.ascontiguousarray(self.alleles[of_site, rows]), minor,
                np.array([0, 1 + is_two]), np.empty((3, _SITES_AT_ONCE)), own,
            )  # fmt: skip
            out[here] = self.sums.features_without(self.sites[0] + u[here], own, 1 + is_two)
        return out


@dataclass(frozen=True)
class SiteQuality:
    """What imputing left-out samples shows about a window's sites.

    Attributes
    ----------
    mismatch_prob
        Shape (T,), float32, in (0, 0.5): probability that an allele observed at a typed site
        differs from the copied one.
    features
        Features of the M sites, float32, finite: see
        :data:`ragimpute.evidence.features.SITE_FEATURES`.
    rare_excess
        By how much rare alleles are imputed better than usual, see
        :class:`ragimpute.evidence.rare_excess.LeftOutR2`.
    left_out_r2
        What it was computed from; None if it was read from a file.
    as_untyped
        Computes the ``QUALITY_FEATURES`` that each typed site would have if it alone were not
        typed: shape (T, len(QUALITY_FEATURES)), float32. None if that is not known.
    copies
        What copying gave for the left-out samples, if it was to be kept.
    """

    mismatch_prob: np.ndarray
    features: SiteRows
    rare_excess: float = 0.0
    left_out_r2: LeftOutR2 | None = None
    as_untyped: Callable[[], np.ndarray] | None = None
    copies: LeftOutCopies | None = field(default=None, repr=False)

    @property
    def measured(self) -> np.ndarray:
        """Features of the sites, shape (M, F), float32; the first are ``QUALITY_FEATURES``.

        Unlike ``features`` it takes no time.
        """
        if isinstance(self.features, SiteFeatures):
            return self.features.measured
        return np.asarray(self.features)


def measure_sites(
    window: Window,
    haplotype_sample: np.ndarray,
    parameters: CopyingParameters,
    *,
    retriever: Retriever | None = None,
    num_samples: int | None = None,
    kept_words: tuple[int, int] | None = None,
    seed: int = 1,
    threads: int = 1,
) -> SiteQuality:
    """Impute some of the panel's samples from the others, and compare with their true alleles.

    If there is a ``retriever``, and the panel is eight times as large as what is left out, all
    these samples are left out together; otherwise each may be copied by the others.

    Parameters
    ----------
    window
        The panel. All its M sites are measured, not only those of its core.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to. The haplotypes of a sample must
        be next to each other.
    parameters
        Switch rate, and the mismatch probability of all sites.
    retriever
        Finds states by the window's typed sites, for panels too large to be copied whole; else
        None.
    num_samples
        Samples to leave out, >= 1; if the panel has fewer, all are. None: 100, or 16 if there is a
        ``retriever``.
    kept_words
        If the samples are left out together, what copying gives for them in this range of the words
        of typed sites is kept in ``copies``. None: nothing is kept.
    seed
        Seed for drawing the samples.
    threads
        See :func:`ragimpute.copying.copy.copy_haplotypes`.

    Returns
    -------
    Mismatch probabilities and features. If the panel has only one sample, none can be left out:
    the mismatch probabilities are then that of ``parameters``, and all sites have the features that
    they would have with zero samples left out.
    """
    if num_samples is None:
        num_samples = NUM_LEFT_OUT if retriever is None else NUM_LEFT_OUT_OF_LARGE
    samples = draw_samples(window.signature, haplotype_sample, seed)
    window = window.with_core((0, window.num_sites))
    chosen = samples[: num_samples if len(samples) > 1 else 0]
    left_out = np.flatnonzero(np.isin(haplotype_sample, chosen)).astype(np.int32)
    starts = np.flatnonzero(np.diff(haplotype_sample[left_out], prepend=-1))
    edges = np.append(starts, len(left_out))
    if retriever is None:
        step = int(np.clip(_BYTES_AT_ONCE // (8 * window.num_sites), 4, _SAMPLES_AT_ONCE))
    else:
        each = 16 * retriever.num_slots * len(window.typed.words)
        most = -(-len(starts) // max(1, threads))
        step = int(np.clip(STATE_BYTES // (each * threads), 1, max(1, most)))
        # Cached properties, computed here once before several threads need them.
        window.minor_alleles, window.flank_switch_probs(parameters.switch_rate)
    minor = window.haplotypes.alt_is_minor
    sums = _Sums(minor)
    together = _TIMES_LEFT_OUT * len(left_out) <= len(haplotype_sample)
    kept = None
    if retriever is not None and together and kept_words is not None and len(left_out):
        kept = LeftOutCopies.room(window, kept_words, left_out, retriever, sums)

    def measure(first: int) -> _TypedLeftOut:
        here = edges[first : first + step + 1]
        columns = left_out[here[0] : here[-1]]
        alleles = haplotype_columns(window.haplotypes, columns).T
        observed = np.ascontiguousarray(alleles[window.typed_index])
        hit = np.empty(observed.shape, np.float32)
        rows, states = slice(int(here[0]), int(here[-1])), None
        if retriever is not None:
            states = (
                found_without(retriever, observed, left_out) if together
                else found_without_own(retriever, haplotype_sample, columns, observed)
            )  # fmt: skip
        if kept is not None and states is not None:
            kept.put_haplotypes(rows, alleles, states)
        for site, prob in _without_own(
            window, haplotype_sample, columns, observed, parameters, states, threads
        ):
            if kept is not None:
                kept.put(rows, site, prob)
            low, high = np.searchsorted(window.typed_index, [site, site + len(prob)])
            known = observed[low:high]
            without = leave_one_out(
                prob[window.typed_index[low:high] - site], known, parameters.mismatch_prob
            )
            hit[low:high] = np.where(known == 1, without, 1 - without)
            sums.add(prob, alleles[site : site + len(prob)], here[:-1] - here[0], site)
            stage.advance(prob.size)
        return _TypedLeftOut(hit, observed, here[:-1] - here[0])

    # If the panel is copied whole, copy_haplotypes divides the targets among threads; otherwise the
    # groups of left-out samples are divided here.
    with Stage("measure sites", len(left_out) * window.num_sites) as stage:
        found = share(measure, range(0, len(starts), step), threads if retriever is not None else 1)
    none = np.ones((len(window.typed_index), 0), np.float32)
    hit = np.concatenate([none, *(group.hit for group in found)], axis=1)
    features = SiteFeatures(sums.features(), AlleleSharing(window, threads=threads))
    left_out_r2 = sums.left_out_r2(window)
    mismatch_prob = fit_mismatch(hit, parameters.mismatch_prob)
    return SiteQuality(
        mismatch_prob, features, left_out_r2.rare_excess, left_out_r2,
        lambda: _as_untyped(minor[window.typed_index], found), kept,
    )  # fmt: skip


class _TypedLeftOut(NamedTuple):
    """Some left-out samples at the typed sites.

    ``hit`` (T, n): the probability of each haplotype's allele, computed from all other typed sites;
    ``alleles`` (T, n); ``starts``: the column of each sample's first haplotype.
    """

    hit: np.ndarray
    alleles: np.ndarray
    starts: np.ndarray


def _as_untyped(minor: np.ndarray, left_out: Sequence[_TypedLeftOut]) -> np.ndarray:
    """Features of the typed sites, each from what the others say of it: see ``SiteQuality``.

    ``minor`` (T,): whether ALT is the minor allele.
    """
    sums = _Sums(minor)
    for hit, alleles, starts in left_out:
        prob = np.where(alleles == 1, hit, 1 - hit)
        # By haplotype, as copying gives them.
        sums.add(np.ascontiguousarray(prob.T).T, np.ascontiguousarray(alleles.T).T, starts, 0)
    return sums.features()


def _without_own(
    window: Window,
    haplotype_sample: np.ndarray,
    left_out: np.ndarray,
    observed: np.ndarray,
    parameters: CopyingParameters,
    states: np.ndarray | None,
    threads: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Impute left-out haplotypes from states that are not of their own samples.

    ``states`` (n, W, K): those of each; None: all other haplotypes. Yields parts of the window: the
    first site, and P(ALT), shape (sites, n).
    """
    if states is None:
        others = states_without_own(None, haplotype_sample, left_out, observed)
        yield 0, copy_haplotypes(window, observed, parameters, states=others, threads=threads).T
        return
    max_sites = max(1, _PART_BYTES // (4 * len(left_out)))
    for site, prob in copy_in_parts(window, observed, parameters, states, max_sites=max_sites):
        yield site, prob.T


class _Sums:
    """Sums over the left-out samples at each site, from which the features are computed."""

    def __init__(self, minor: np.ndarray) -> None:
        self.minor = minor
        self._num_samples = 0
        self._num_haplotypes = 0
        # Rows: imputed dosage, true dosage, their squares, their product, the variance that the
        # posteriors claim, the expected and the true number of heterozygous samples.
        self._sums = np.zeros((8, len(minor)), np.int64)
        self._lock = Lock()

    def add(self, prob: np.ndarray, alleles: np.ndarray, starts: np.ndarray, site: int) -> None:
        """Add samples at the sites from ``site`` on: P(ALT) and true alleles, both (m, n).

        ``starts``: the column of each sample's first haplotype.
        """
        edges = np.append(starts, prob.shape[1])
        part = slice(site, site + len(prob))
        with self._lock:
            _add_samples(
                prob.T, alleles.T, self.minor[part], edges, np.empty((3, _SITES_AT_ONCE)),
                self._sums[:, part],
            )  # fmt: skip
            if site == 0:
                self._num_samples += len(starts)
                self._num_haplotypes += prob.shape[1]

    def features(self) -> np.ndarray:
        """Shape (M, len(QUALITY_FEATURES)), float32."""
        out = np.empty((self._sums.shape[1], len(QUALITY_FEATURES)), np.float32)
        for first in range(0, len(out), _SITES_AT_ONCE):
            part = slice(first, first + _SITES_AT_ONCE)
            sums = self._sums[:, part] * _UNIT
            out[part] = _features_of(sums, self._num_samples, self._num_haplotypes)
        return out

    def features_without(self, sites: np.ndarray, own: np.ndarray, ploidy: int) -> np.ndarray:
        """Features of N sites, each without one of the samples: (N, len(QUALITY_FEATURES)).

        ``own`` (8, N), int64: the sums of that sample, which has ``ploidy`` haplotypes.
        """
        rest = (self._sums[:, sites] - own) * _UNIT
        return _features_of(rest, self._num_samples - 1, self._num_haplotypes - ploidy)

    def left_out_r2(self, window: Window) -> LeftOutR2:
        """What the r2 of the untyped sites is, and what the posteriors imply of it."""
        n = max(1, self._num_haplotypes)
        # A left-out sample's own allele cannot be copied: a second one has to be there.
        known = (self._sums[1] > 0) & (self._sums[2] > 0) & (window.num_minor > 1)
        known[window.typed_index] = False
        imputed, true, imputed_2, true_2, product, claimed = self._sums[:6, known] * _UNIT
        samples = max(1, self._num_samples)
        var_imputed = imputed_2 - imputed**2 / samples
        var_true = true_2 - true**2 / samples
        covariance = product - imputed * true / samples
        mean = imputed / n
        whole = n * mean * (1 - mean)
        sound = (var_imputed > _LEAST_VARIANCE) & (var_true > _LEAST_VARIANCE)
        sound &= whole > _LEAST_VARIANCE
        r2 = covariance[sound] ** 2 / (var_imputed * var_true)[sound]
        # The squares of P(ALT) of haplotypes add up to what is imputed less what is claimed.
        between = (imputed - claimed - n * mean**2)[sound]
        estimate = np.clip(between / whole[sound], 0, 1)
        minor = n * np.minimum(mean, 1 - mean)[sound]
        copies = window.num_minor[known][sound] - 1
        return LeftOutR2(estimate, minor, n, copies, window.typed.num_haplotypes, np.clip(r2, 0, 1))


def _features_of(sums: np.ndarray, num_samples: int, num_haplotypes: int) -> np.ndarray:
    """Features of m sites, computed from the sums (8, m) of so many samples."""
    n = max(1, num_samples)
    imputed, true, imputed_2, true_2, product, claimed, hets, true_hets = sums / n
    var_imputed = np.maximum(imputed_2 - imputed**2, 0)
    var_true = np.maximum(true_2 - true**2, 0)
    covariance = product - imputed * true
    error = np.maximum(imputed_2 - 2 * product + true_2, 0)
    # ``little`` is about what one more allele among the left-out samples would add. It shrinks
    # the figures of sites where minor alleles are few.
    frequency = np.maximum(true * n / max(1, num_haplotypes), 0.5 / n)
    little = 2 * frequency / n
    columns = (
        covariance**2 / (var_imputed * var_true + little**2 / 2 + 1e-12),
        np.clip((covariance + little) / (var_imputed + little), 0, 3),
        np.log((error + little) / (claimed + little)),
        np.log((error + little / 2) / (var_true + little)),
        np.log1p(true * n),
        (hets - true_hets) / (hets + _PRIOR_HETS / n),
    )
    return np.stack(columns, axis=1)


@kernel
def _add_samples(prob, alleles, minor, edges, sample, sums):
    """Add samples to ``sums`` (8, M).

    ``prob`` and ``alleles`` are (n, M); the haplotypes of sample i are the rows
    [edges[i], edges[i + 1]). ``sample`` (3, sites at a time) is a buffer for one sample's sums.
    """
    for first in range(0, prob.shape[1], _SITES_AT_ONCE):
        stop = min(first + _SITES_AT_ONCE, prob.shape[1])
        here, of_minor = sums[:, first:stop], minor[first:stop]
        imputed, true, claimed = sample[0], sample[1], sample[2]
        for i in range(edges.shape[0] - 1):
            sample[:, :] = 0.0
            for h in range(edges[i], edges[i + 1]):
                alt, known = prob[h, first:stop], alleles[h, first:stop]
                for u in range(stop - first):
                    p = np.float64(alt[u])
                    p = p if of_minor[u] else 1.0 - p
                    imputed[u] += p
                    claimed[u] += p * (1.0 - p)
                    true[u] += (known[u] == 1) == of_minor[u]
            for u in range(stop - first):
                here[0, u] += np.int64(imputed[u] * _INVERSE)
                here[1, u] += np.int64(true[u] * _INVERSE)
                here[2, u] += np.int64(imputed[u] * imputed[u] * _INVERSE)
                here[3, u] += np.int64(true[u] * true[u] * _INVERSE)
                here[4, u] += np.int64(imputed[u] * true[u] * _INVERSE)
                here[5, u] += np.int64(claimed[u] * _INVERSE)
            if edges[i + 1] - edges[i] == 2:
                # With p and q the probabilities on the two haplotypes, the sample is heterozygous
                # with probability p (1 - q) + q (1 - p). That is (2 - s) s - v, with s = p + q and
                # v = p (1 - p) + q (1 - q), which are at hand.
                for u in range(stop - first):
                    hets = (2.0 - imputed[u]) * imputed[u] - claimed[u]
                    here[6, u] += np.int64(hets * _INVERSE)
                    here[7, u] += np.int64((2.0 - true[u]) * true[u] * _INVERSE)


def fit_mismatch(hit: np.ndarray, mismatch_prob: float) -> np.ndarray:
    """Fit the probability of a mismatch at each typed site, by expectation-maximisation.

    Parameters
    ----------
    hit
        Shape (T, n), float, in [0, 1]: for each left-out haplotype the probability of the allele
        that was observed there, computed from all other typed sites.
    mismatch_prob
        In (0, 0.5): the value to start from, and the result if n is 0.

    Returns
    -------
    Shape (T,), float32, in [1e-4, 0.3]: the e that makes the observed alleles most probable if each
    has probability (1 - e) hit + e (1 - hit). The prior counts like 50 haplotypes that mismatch as
    often as the average site.
    """
    num_typed, n = hit.shape
    if n == 0:
        return np.full(num_typed, mismatch_prob, np.float32)
    site, haplotype = np.nonzero(hit < _CERTAIN)
    q = hit[site, haplotype].astype(np.float64)

    def mismatches(e: np.ndarray | float) -> np.ndarray:
        differ = e * (1 - q)
        return differ / np.maximum(differ + (1 - np.asarray(e)) * q, 1e-30)

    common = mismatch_prob
    for _ in range(_ITERATIONS):
        common = float(mismatches(common).sum()) / max(1, num_typed * n)
    prior = float(np.clip(common, _LEAST_PRIOR, _MOST_PRIOR))
    each = np.full(num_typed, prior)
    for _ in range(_ITERATIONS):
        found = np.bincount(site, mismatches(each[site]), minlength=num_typed)
        each = (found + _PRIOR_HAPLOTYPES * prior) / (n + _PRIOR_HAPLOTYPES)
    out: np.ndarray = np.clip(each, _LEAST_MISMATCH, _MOST_MISMATCH).astype(np.float32)
    return out
