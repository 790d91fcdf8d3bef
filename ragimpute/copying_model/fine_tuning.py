"""Fit a network to the panel at hand, by imputing some of its samples from the others.

These samples are removed from the panel altogether, as if they were targets. If allele frequencies
and the quality of sites counted their alleles, they would give the answers away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import retriever_for, states_for
from ragimpute.copying.window import Window
from ragimpute.copying_model.correction import read_pairs
from ragimpute.copying_model.pair_network import PairNetwork
from ragimpute.evidence.allele_sharing import AlleleSharing
from ragimpute.evidence.doubt import in_doubt
from ragimpute.evidence.features import COPYING
from ragimpute.evidence.other_haplotype import homolog_probs, homologs_of
from ragimpute.evidence.site_quality import LeftOutCopies, SiteQuality, measure_sites
from ragimpute.model.trust import Trust, fit_trust
from ragimpute.panel.haplotypes import draw_samples, haplotype_columns
from ragimpute.runtime.stages import Stage

# In a panel with fewer samples, those left out would give too few pairs, and the rest of the panel
# would be too small: the network is only checked there, by leaving each sample out once.
MIN_SAMPLES = 40
# With fewer pairs in doubt, training would move the network at random.
MIN_PAIRS = 8_000
_SHARE, _MAX_SAMPLES = 0.2, 100
_MAX_PAIRS = 110_000
# Of the samples left out, this share is not learned from: it tells how far the network is trusted.
_CHECKED_SHARE = 0.2
# And so many of the pairs that are learned from tell it of the network as it was before, about.
_MAX_CHECKED = 20_000
# Where states are retrieved, so many of the samples are imputed first. If they tell that all will
# have less than this share of MIN_PAIRS, the others are not imputed: it would take a sixth of the
# time of a run with few targets, and teach nothing. In 20,000 simulated haplotypes, 32 samples tell
# as well as 100 how far the network is to be trusted: r2 stays within .00002, and within .0001
# where the minor allele is rarer than .0002.
_FIRST_SAMPLES, _LEAST_SHARE = 32, 0.5
# A small panel's samples are left out in so many groups.
_GROUPS = 4


class LeftOut(NamedTuple):
    """Samples that were left out of the panel, and what is known of their pairs in doubt.

    Attributes
    ----------
    evidence, tokens
        Of N pairs, see :func:`ragimpute.copying_model.correction.read_pairs`.
    y
        Shape (N,), float32: whether the haplotype has the minor allele.
    sample
        Shape (N,), int64: which of the left-out samples each pair is of.
    num_samples
        How many of the samples that were left out were imputed.
    quality
        The quality of the window's sites in the rest of the panel; None: it was known before.
    """

    evidence: np.ndarray
    tokens: np.ndarray | None
    y: np.ndarray
    sample: np.ndarray
    num_samples: int
    quality: SiteQuality | None = None

    def rows(self, chosen: np.ndarray) -> LeftOut:
        """The pairs that a mask of shape (N,) chooses."""
        tokens = None if self.tokens is None else self.tokens[chosen]
        return self._replace(
            evidence=self.evidence[chosen], tokens=tokens, y=self.y[chosen],
            sample=self.sample[chosen],
        )  # fmt: skip


def num_left_out(num_samples: int) -> int:
    """How many of a panel's samples are left out to fit the network."""
    return min(_MAX_SAMPLES, int(_SHARE * num_samples))


def adapt_network(
    network: PairNetwork,
    window: Window,
    haplotype_sample: np.ndarray,
    parameters: CopyingParameters,
    *,
    seed: int = 1,
    threads: int = 1,
) -> tuple[PairNetwork, SiteQuality | None]:
    """Train a network a little on the panel's own samples, and check how far it is to be trusted.

    Parameters
    ----------
    network
        The network of a copying model.
    window
        A stretch of the panel. All its sites are used, not only those of its core.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to. The haplotypes of a sample must
        be next to each other.
    parameters
        Switch rate and mismatch probability for this panel.
    seed
        Seed for drawing the samples and for the order in which pairs are learned from.
    threads
        See :func:`ragimpute.copying.copy.copy_haplotypes`.

    Returns
    -------
    The network, and the quality of the window's sites in the rest of the panel, or None if it was
    not measured. The network's weights are unchanged if the panel has fewer than ``MIN_SAMPLES``
    samples, or fewer than ``MIN_PAIRS`` pairs are in doubt: then it is only checked. A network that
    cannot be tuned, or a panel of fewer than three samples, is left as it is.
    """
    # Another seed: these must not be the samples by which the quality of sites is measured.
    samples = draw_samples(window.signature, haplotype_sample, seed + 1)
    if not network.can_be_tuned or len(samples) < 3:
        return network, None
    if len(samples) < MIN_SAMPLES:
        return _checked(network, window, haplotype_sample, samples, parameters, seed, threads), None
    num = num_left_out(len(samples))
    found = leave_out(
        network, window, haplotype_sample, samples[:num], parameters,
        least_pairs=MIN_PAIRS, seed=seed, threads=threads,
    )  # fmt: skip
    if len(found.y) < MIN_PAIRS:
        return replace(network, trust=_trust([(network, found)])), found.quality
    is_checked = found.sample >= int((1 - _CHECKED_SHARE) * num)
    learned, checked = found.rows(~is_checked), found.rows(is_checked)
    tuned = network.tuned(learned.evidence, learned.tokens, learned.y, seed=seed)
    # The network as it was has not learned from these pairs either, and is hardly ever better.
    some = np.zeros(len(learned.y), bool)
    some[:: max(1, len(some) // _MAX_CHECKED)] = True
    trust = _trust([(tuned, checked), (network, learned.rows(some))])
    return replace(tuned, trust=trust), found.quality


class _OfPairs:
    """Features of the sites of pairs, each measured without the pair's own sample."""

    def __init__(self, measured: np.ndarray, sharing: AlleleSharing) -> None:
        self._measured, self._sharing = measured, sharing

    def __getitem__(self, sites: np.ndarray) -> np.ndarray:
        """Features of all pairs; ``sites`` are theirs, in the same order."""
        return np.concatenate([self._measured, self._sharing[sites]], axis=1)


def check_network(
    network: PairNetwork,
    window: Window,
    haplotype_sample: np.ndarray,
    parameters: CopyingParameters,
    copies: LeftOutCopies,
    *,
    threads: int = 1,
) -> PairNetwork | None:
    """Do what :func:`adapt_network` does with samples that are copied already, if that is enough.

    The samples are those that the quality of sites was measured with. To each of its pairs, the
    quality of the site is therefore that which the other left-out samples tell.

    Parameters
    ----------
    network, haplotype_sample, threads
        As for :func:`adapt_network`.
    window
        The stretch of the panel that was kept: its sites and typed sites are those of ``copies``.
    parameters
        With the mismatch probability of each of the window's typed sites.
    copies
        What copying gave for the left-out samples there.

    Returns
    -------
    The network with its trust. None if so many pairs are in doubt that it should be trained, for
    which more samples have to be left out.
    """
    if not network.can_be_tuned:
        return network
    left_out, prob, sample = copies.haplotypes, copies.prob, haplotype_sample[copies.haplotypes]
    number = np.unique(sample, return_inverse=True)[1]
    observed = np.ascontiguousarray(copies.alleles[window.typed_index])
    pairs = in_doubt(window, observed, prob, doubt=network.config.model.copying.doubt)
    num_samples = int(number.max()) + 1
    wanted = num_left_out(len(np.unique(haplotype_sample)))
    if len(pairs) * max(1.0, wanted / num_samples) >= _LEAST_SHARE * MIN_PAIRS:
        return None
    # Neither allele frequencies nor the carriers' agreement may count the left-out samples.
    kept = np.ones(len(haplotype_sample), bool)
    kept[left_out] = False
    others = window.keeping(kept)
    place = (np.cumsum(kept) - 1).astype(np.int32)
    homolog = homologs_of(sample)
    quality = _OfPairs(
        copies.features_without_own(pairs, homolog), AlleleSharing(others, threads=threads)
    )
    with Stage("collect evidence", len(left_out)):
        evidence, tokens = read_pairs(
            network, others, observed, parameters, pairs,
            states=lambda i: place[copies.states[i]], quality=quality,
            homolog_prob=homolog_probs(prob, homolog, pairs),
        )  # fmt: skip
    h, u = pairs[:, 0], pairs[:, 1]
    y = (copies.alleles[u, h] == others.haplotypes.alt_is_minor[u]).astype(np.float32)
    found = LeftOut(evidence, tokens, y, number[h], num_samples)
    return replace(network, trust=_trust([(network, found)]))


def _checked(
    network: PairNetwork,
    window: Window,
    haplotype_sample: np.ndarray,
    samples: np.ndarray,
    parameters: CopyingParameters,
    seed: int,
    threads: int,
) -> PairNetwork:
    """The network with its trust, found by leaving out each of a few samples once, in groups."""
    parts = [
        leave_out(
            network, window, haplotype_sample, samples[i::_GROUPS], parameters,
            seed=seed, threads=threads,
        )
        for i in range(min(_GROUPS, len(samples)))
    ]  # fmt: skip
    return replace(network, trust=_trust([(network, part) for part in parts]))


def _trust(parts: Sequence[tuple[PairNetwork, LeftOut]]) -> Trust:
    """How far a network is to be trusted, by left-out samples that it did not learn from.

    ``parts``: the network in the states in which it is checked, and the samples for each.
    """
    edges = np.cumsum([0, *(part.num_samples for _, part in parts)])
    sample = [part.sample + first for (_, part), first in zip(parts, edges[:-1], strict=True)]
    residual = [network.residual_of(part.evidence, part.tokens) for network, part in parts]
    columns = [COPYING.posterior, COPYING.maf]
    read = np.concatenate([part.evidence[:, columns] for _, part in parts])
    y = np.concatenate([part.y for _, part in parts])
    return fit_trust(read[:, 0], np.concatenate(residual), y, read[:, 1], np.concatenate(sample))


class _Imputed(NamedTuple):
    """n left-out haplotypes: their states, P(ALT), shape (n, M), and their pairs in doubt."""

    states: Callable[[int], np.ndarray]
    prob: np.ndarray
    pairs: np.ndarray

    def and_then(self, more: _Imputed) -> _Imputed:
        """These haplotypes, and others after them."""
        n = len(self.prob)
        return _Imputed(
            lambda i: self.states(i) if i < n else more.states(i - n),
            np.concatenate([self.prob, more.prob]),
            np.concatenate([self.pairs, more.pairs + np.array([n, 0])]),
        )


def _impute(
    impute: Callable[[np.ndarray], _Imputed],
    observed: np.ndarray,
    sample: np.ndarray,
    least_pairs: int,
) -> _Imputed:
    """Impute left-out haplotypes, or only the first of them, if all would have too few pairs.

    ``impute`` does it for some columns of ``observed`` (T, n). ``sample`` (n,), ascending from 0:
    the sample of each. ``least_pairs``: see :func:`leave_out`; 0: all are imputed.
    """
    first = int(np.searchsorted(sample, _FIRST_SAMPLES)) if least_pairs else len(sample)
    found = impute(observed[:, :first])
    expected = len(found.pairs) * (len(sample) / max(first, 1))
    if first == len(sample) or expected < _LEAST_SHARE * least_pairs:
        return found
    return found.and_then(impute(observed[:, first:]))


def leave_out(
    network: PairNetwork,
    window: Window,
    haplotype_sample: np.ndarray,
    samples: np.ndarray,
    parameters: CopyingParameters,
    *,
    least_pairs: int = 0,
    seed: int = 1,
    threads: int = 1,
) -> LeftOut:
    """Impute some of the panel's samples from the others, and describe their pairs in doubt.

    Parameters
    ----------
    network, window, haplotype_sample, parameters, seed, threads
        See :func:`adapt_network`.
    samples
        Shape (k,), int: the samples to leave out, not all of the panel.
    least_pairs
        If states are retrieved, and the first 32 samples tell that all would have less than half as
        many pairs in doubt, only those 32 are imputed. 0: all are.

    Returns
    -------
    At most ``_MAX_PAIRS`` pairs, drawn at random if there are more.
    """
    out = np.isin(haplotype_sample, samples)
    place = np.full(int(haplotype_sample.max()) + 1, -1)
    place[samples] = np.arange(len(samples))
    left_out = np.flatnonzero(out).astype(np.int32)
    # The order of pairs decides what is learned, and it must not depend on the panel's order.
    sample = place[haplotype_sample[left_out]]
    order = np.lexsort((window.signature[left_out], sample))
    left_out, sample = left_out[order], sample[order]
    others = window.with_core((0, window.num_sites)).keeping(~out)
    retriever = retriever_for(others.typed.words, seed=seed, threads=threads)
    quality = measure_sites(
        others, haplotype_sample[~out], parameters,
        retriever=retriever, seed=seed, threads=threads,
    )  # fmt: skip
    parameters = replace(parameters, site_mismatch_prob=quality.mismatch_prob)
    alleles = haplotype_columns(window.haplotypes, left_out).T
    observed = np.ascontiguousarray(alleles[window.typed_index])
    doubt = network.config.model.copying.doubt

    def impute(seen: np.ndarray) -> _Imputed:
        states = states_for(retriever, others.typed.num_haplotypes, seen, threads=threads)
        prob = copy_haplotypes(others, seen, parameters, states=states, threads=threads)
        return _Imputed(states, prob, in_doubt(others, seen, prob, doubt=doubt))

    with Stage("collect evidence", 2 * len(left_out)):
        # To copy the whole of a small panel takes little time.
        least = 0 if retriever is None else least_pairs
        states, prob, pairs = _impute(impute, observed, sample, least)
        n = len(prob)
        if len(pairs) > _MAX_PAIRS:
            rng = np.random.default_rng(seed)
            pairs = pairs[np.sort(rng.choice(len(pairs), _MAX_PAIRS, replace=False))]
        homolog = homologs_of(haplotype_sample[left_out[:n]])
        evidence, tokens = read_pairs(
            network, others, observed[:, :n], parameters, pairs,
            states=states, quality=quality.features,
            homolog_prob=homolog_probs(prob, homolog, pairs),
        )  # fmt: skip
    h, u = pairs[:, 0], pairs[:, 1]
    y = (alleles[u, h] == others.haplotypes.alt_is_minor[u]).astype(np.float32)
    return LeftOut(evidence, tokens, y, sample[h], int(sample[n - 1]) + 1, quality)
