"""How well a panel imputes itself at each site, and so what its alleles there are worth.

A random sample of the panel's people is imputed from the others, with the target's array. At typed
sites that says how often an allele differs from the copied one: a few sites are full of genotyping
errors or of recurrent mutations, most have next to none. At untyped sites it says how far an
imputed dosage can be trusted, and by how much it is too bold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ragimpute.accuracy.leave_one_out import leave_one_out
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.parts import copy_in_parts
from ragimpute.copying.states import found_without_own, states_without_own
from ragimpute.copying.window import Window
from ragimpute.evidence.allele_sharing import AlleleSharing
from ragimpute.evidence.features import QUALITY_FEATURES
from ragimpute.kernels.compile import kernel
from ragimpute.panel.haplotypes import haplotype_columns
from ragimpute.panel.signatures import draw_samples
from ragimpute.runtime.threads import share

if TYPE_CHECKING:
    from ragimpute.retrieval.retriever import Retriever

# Samples that are left out; more make rare sites' figures steadier, and take longer. In panels
# that are too large to be copied whole they would take as long as hundreds of targets: with 20,000
# haplotypes, dosages are as good with 24 as with 100.
NUM_LEFT_OUT, NUM_LEFT_OUT_OF_LARGE = 100, 32
# So many at once, or as many as these bytes of probabilities.
_SAMPLES_AT_ONCE, _BYTES_AT_ONCE = 32, 40 * 2**20
# Where each has states of its own, as many walk together as states and masses fit in these bytes.
_STATE_BYTES = 128 * 2**20
# What is said of so many sites at once is small enough to stay in the cache.
_PART_BYTES = 4 * 2**20
# So few that what is made of their probabilities stays in the cache.
_SITES_AT_ONCE = 2048
# Sums are whole numbers of this unit, so that their order does not matter.
_UNIT = 2.0**-36
_INVERSE = 1 / _UNIT
# A site's own mismatches count against so many haplotypes that mismatch as all sites do.
_PRIOR_HAPLOTYPES = 50
_LEAST_MISMATCH, _MOST_MISMATCH = 1e-4, 0.3
_LEAST_PRIOR, _MOST_PRIOR = 3e-3, 0.05
_PRIOR_HETS = 10  # expected, to which "quality_hets" is shrunk
_CERTAIN = 0.99  # an observed allele of this left-out probability is no mismatch
_ITERATIONS = 20


class SiteRows(Protocol):
    """Features of sites, by site: an array of shape (M, features), or what works them out."""

    def __getitem__(self, sites: np.ndarray, /) -> np.ndarray:
        """Rows of sites, shape (n,), int."""
        ...


class SiteFeatures:
    """What is known of all M sites, and what is worked out for those that are asked for."""

    def __init__(self, measured: np.ndarray, sharing: AlleleSharing) -> None:
        self._measured, self._sharing = measured, sharing

    def __getitem__(self, sites: np.ndarray) -> np.ndarray:
        """Shape (n, len(SITE_FEATURES)), float32, finite, of sites (n,), int."""
        return np.concatenate([self._measured[sites], self._sharing[sites]], axis=1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Of all sites, shape (M, len(SITE_FEATURES))."""
        return self[np.arange(len(self._measured))].astype(dtype or np.float32, copy=False)


@dataclass(frozen=True)
class SiteQuality:
    """What leaving samples out says of a window's sites.

    Attributes
    ----------
    mismatch_prob
        Shape (T,), float32, in (0, 0.5): probability that an allele observed at a typed site
        differs from the copied one.
    features
        Of M sites, float32, finite: see :data:`SITE_FEATURES`.
    """

    mismatch_prob: np.ndarray
    features: SiteRows


def measure_sites(
    window: Window,
    haplotype_sample: np.ndarray,
    parameters: CopyingParameters,
    *,
    retriever: Retriever | None = None,
    num_samples: int | None = None,
    seed: int = 1,
    threads: int = 1,
) -> SiteQuality:
    """Impute some of the panel's samples from the others, and compare.

    Parameters
    ----------
    window
        The panel; all its M sites are measured, whatever its core.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to; its haplotypes are neighbours.
    parameters
        Switch rate, and the mismatch probability of all sites.
    retriever
        Of the window's typed sites, where the panel is too large to be copied whole.
    num_samples
        Samples to leave out, >= 1; all, where the panel has fewer; None: as many as pay.
    seed
        Chooses them.
    threads
        See :func:`ragimpute.copying.copy.copy_haplotypes`.

    Returns
    -------
    Where the panel has one sample only, mismatches as ``parameters`` have them and the features of
    a site without any left-out sample.
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
        step = int(np.clip(_STATE_BYTES // (each * threads), 1, max(1, most)))
        # Worked out before threads ask for them.
        window.minor_alleles, window.flank_switch_probs(parameters.switch_rate)
    sums = _Sums(window)

    def measure(first: int) -> np.ndarray:
        here = edges[first : first + step + 1]
        columns = left_out[here[0] : here[-1]]
        alleles = haplotype_columns(window.haplotypes, columns).T
        observed = np.ascontiguousarray(alleles[window.typed_index])
        hit = np.empty(observed.shape, np.float32)
        for site, prob in _without_own(
            window, haplotype_sample, columns, observed, parameters, retriever, threads
        ):
            low, high = np.searchsorted(window.typed_index, [site, site + len(prob)])
            known = observed[low:high]
            without = leave_one_out(
                prob[window.typed_index[low:high] - site], known, parameters.mismatch_prob
            )
            hit[low:high] = np.where(known == 1, without, 1 - without)
            sums.add(prob, alleles[site : site + len(prob)], here[:-1] - here[0], site)
        return hit

    # A panel that is copied whole shares its targets out over threads; else it is done here.
    hits = share(measure, range(0, len(starts), step), threads if retriever is not None else 1)
    hit = np.concatenate([np.ones((len(window.typed_index), 0), np.float32), *hits], axis=1)
    features = SiteFeatures(sums.features(), AlleleSharing(window, threads=threads))
    return SiteQuality(fit_mismatch(hit, parameters.mismatch_prob), features)


def _without_own(
    window: Window,
    haplotype_sample: np.ndarray,
    left_out: np.ndarray,
    observed: np.ndarray,
    parameters: CopyingParameters,
    retriever: Retriever | None,
    threads: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """The first of some sites and P(ALT) there, (sites, n), of left-out haplotypes.

    See :func:`ragimpute.copying.states.states_without_own`.
    """
    if retriever is None:
        states = states_without_own(None, haplotype_sample, left_out, observed)
        yield 0, copy_haplotypes(window, observed, parameters, states=states, threads=threads).T
        return
    together = found_without_own(retriever, haplotype_sample, left_out, observed)
    max_sites = max(1, _PART_BYTES // (4 * len(left_out)))
    for site, prob in copy_in_parts(window, observed, parameters, together, max_sites=max_sites):
        yield site, prob.T


class _Sums:
    """Sums over samples at each site, of which the features are made."""

    def __init__(self, window: Window) -> None:
        self._minor = window.haplotypes.alt_is_minor
        self._num_samples = 0
        self._num_haplotypes = 0
        # Imputed, true, their squares and product, the variance that the posteriors claim, and the
        # heterozygous samples that they expect and that there are.
        self._sums = np.zeros((8, window.num_sites), np.int64)
        self._lock = Lock()

    def add(self, prob: np.ndarray, alleles: np.ndarray, starts: np.ndarray, site: int) -> None:
        """Add P(ALT) and alleles at the sites from ``site`` on, both (m, n).

        Samples begin at the columns ``starts``.
        """
        edges = np.append(starts, prob.shape[1])
        part = slice(site, site + len(prob))
        with self._lock:
            _add_samples(
                prob.T, alleles.T, self._minor[part], edges, np.empty((3, _SITES_AT_ONCE)),
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
            out[part] = self._features_of(self._sums[:, part] * _UNIT)
        return out

    def _features_of(self, sums: np.ndarray) -> np.ndarray:
        """Features of some sites, from the sums (8, m) there."""
        n = max(1, self._num_samples)
        imputed, true, imputed_2, true_2, product, claimed, hets, true_hets = sums / n
        var_imputed = np.maximum(imputed_2 - imputed**2, 0)
        var_true = np.maximum(true_2 - true**2, 0)
        covariance = product - imputed * true
        error = np.maximum(imputed_2 - 2 * product + true_2, 0)
        # As much as one allele among the left-out samples would bring.
        frequency = np.maximum(true * n / max(1, self._num_haplotypes), 0.5 / n)
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
    """Add the haplotypes [edges[i], edges[i + 1]) of (n, M) as samples to ``sums`` (8, M).

    ``sample`` (3, sites at once): a buffer of one sample's.
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
                # Of p + q, p (1 - p) + q (1 - q) and their like: p (1 - q) + q (1 - p).
                for u in range(stop - first):
                    hets = (2.0 - imputed[u]) * imputed[u] - claimed[u]
                    here[6, u] += np.int64(hets * _INVERSE)
                    here[7, u] += np.int64((2.0 - true[u]) * true[u] * _INVERSE)


def fit_mismatch(hit: np.ndarray, mismatch_prob: float) -> np.ndarray:
    """The probability of a mismatch at each typed site, by expectation-maximisation.

    Parameters
    ----------
    hit
        Shape (T, n), float, in [0, 1]: probability of the allele observed in each left-out
        haplotype, from all other typed sites.
    mismatch_prob
        In (0, 0.5), where to start, and the answer if n is 0.

    Returns
    -------
    Shape (T,), float32: the most probable e where an observed allele has probability
    (1 - e) hit + e (1 - hit), with a prior of 50 haplotypes that mismatch as often as those of all
    sites do.
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
