"""Find targets whose typed alleles differ from what they copy more often than the panel's do.

A sample that was genotyped poorly, or with another platform, has many more mismatches than the
panel's own samples, by which the mismatch probability of each typed site is measured. Where the
model does not know of it, every such allele makes it switch to wrong haplotypes. The probabilities
that copying gives at typed sites tell which targets these are; only they are copied once more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ragimpute.accuracy.leave_one_out import leave_one_out
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window
from ragimpute.copying_model.twins import Imputed, Put

# So many typed sites in the middle of a window's core tell how often a target mismatches.
_NUM_TYPED = 512
# Targets are looked at in groups of about so many, which bounds the memory.
_AT_ONCE = 256
_ITERATIONS = 20
_CERTAIN = 0.99
# The prior counts as much as so many expected mismatches, none of them more than expected. On
# 1000 Genomes data (EUR) with 2 % errors in half of the samples, r2 is .9168, .9180 and .9183 for
# 2, 1 and .3 of them, and .9164 where no target gets a factor.
_PRIOR_MISMATCHES = 0.5
_MOST_MISMATCH = 0.4
# Smaller factors are noise, and so are those of fewer mismatches than so many standard deviations
# (of a Poisson distribution) above what is expected. With one of them alone, rice lines with 100
# typed sites in a window got factors by chance, which took .0007 off r2.
_LEAST_FACTOR, _MOST_FACTOR = 2.0, 64.0
_LEAST_DEVIATIONS = 5.0


class TypedProbs:
    """Collects P(ALT) at typed sites in the middle of a window's core while targets are copied.

    Parameters
    ----------
    window
        The window.
    num_targets
        Number of target haplotypes, k.
    """

    def __init__(self, window: Window, num_targets: int) -> None:
        start, stop = window.core
        typed = np.flatnonzero((window.typed_index >= start) & (window.typed_index < stop))
        first = max(0, (len(typed) - _NUM_TYPED) // 2)
        #: Shape (t,): which of the window's typed sites they are.
        self.rows = typed[first : first + _NUM_TYPED]
        #: Shape (k, t), float32.
        self.prob = np.zeros((num_targets, len(self.rows)), np.float32)
        self._site = window.typed_index[self.rows] - start

    def keep(self, first: int, site: int, prob: np.ndarray) -> None:
        """Take P(ALT), shape (b, m), of targets from ``first`` on at core sites from ``site`` on.

        Several threads may call this at once.
        """
        low, high = np.searchsorted(self._site, [site, site + prob.shape[1]])
        self.prob[first : first + len(prob), low:high] = prob[:, self._site[low:high] - site]


def mismatch_factors(
    typed: TypedProbs, imputed: Imputed, parameters: CopyingParameters
) -> np.ndarray:
    """By what factor each target's mismatch probabilities exceed those of the panel.

    Parameters
    ----------
    typed
        P(ALT) of the targets by copying.
    imputed
        The targets. The two haplotypes of a sample get the same factor.
    parameters
        Those with which the targets were copied.

    Returns
    -------
    Shape (k,), float64: 1, or a power of 2 from 2 to 64; of a sample it does not depend on the
    others. An estimate by expectation-maximisation, given for each typed site the probability of
    the observed allele from all other typed sites.
    """
    num = imputed.alleles.shape[1]
    out = np.ones(num)
    if len(typed.rows) == 0:
        return out
    mismatch = parameters.mismatch_probs(len(imputed.alleles))[typed.rows]
    start = 0
    while start < num:
        # The second haplotype of a sample belongs to the group of the first, which is before it.
        stop = min(start + _AT_ONCE, num)
        stop += int(stop < num and imputed.homolog[stop] == stop - 1)
        observed = imputed.alleles[typed.rows, start:stop]
        without = leave_one_out(typed.prob[start:stop].T, observed, mismatch)
        hit = np.where(observed == 1, without, 1 - without).astype(np.float64)
        homolog = imputed.homolog[start:stop]
        homolog = np.where(homolog >= 0, homolog - start, np.arange(stop - start))
        out[start:stop] = _factors(hit, observed >= 0, mismatch.astype(np.float64), homolog)
        start = stop
    return out


def _factors(
    hit: np.ndarray, seen: np.ndarray, mismatch: np.ndarray, homolog: np.ndarray
) -> np.ndarray:
    """Factors of n haplotypes: from probabilities of their alleles (T, n) without these.

    ``seen`` (T, n), bool; ``mismatch`` (T,); ``homolog`` (n,), the haplotype itself if it is alone.
    """
    alone = homolog == np.arange(len(homolog))
    expected = (mismatch[:, None] * seen).sum(axis=0)
    expected += np.where(alone, 0, expected[homolog])
    factor, found = np.ones(len(homolog)), expected
    # Alleles that had to be expected are no mismatches, whatever the factor.
    site, of = np.nonzero(seen & (hit < _CERTAIN))
    probable, of_site = hit[site, of], mismatch[site]
    for _ in range(_ITERATIONS):
        e = np.minimum(of_site * factor[of], _MOST_MISMATCH)
        differ = e * (1 - probable)
        differ /= np.maximum(differ + (1 - e) * probable, 1e-30)
        found = np.bincount(of, differ, minlength=len(homolog))
        found += np.where(alone, 0, found[homolog])
        factor = (found + _PRIOR_MISMATCHES) / (expected + _PRIOR_MISMATCHES)
    rounded = 2.0 ** np.rint(np.log2(np.clip(factor, 1, _MOST_FACTOR)))
    chance = found - expected < _LEAST_DEVIATIONS * np.sqrt(expected + 1)
    out: np.ndarray = np.where(chance | (factor < _LEAST_FACTOR), 1.0, rounded)
    return out


class Group(NamedTuple):
    """Targets that are imputed with the same mismatch probabilities.

    Attributes
    ----------
    imputed
        The targets.
    parameters
        Their parameters.
    put
        Takes their probabilities, and hands them on as those of their places among all targets.
    """

    imputed: Imputed
    parameters: CopyingParameters
    put: Put


def with_factors(parameters: CopyingParameters, num_typed: int, factor: np.ndarray) -> np.ndarray:
    """The mismatch probabilities of targets with these factors (k,).

    Shape (T,), float32, of all targets if every factor is 1, else (T, k).
    """
    mismatch = parameters.mismatch_probs(num_typed)
    if (factor == 1).all():
        return mismatch
    out: np.ndarray = np.where(
        factor == 1, mismatch[:, None], np.minimum(mismatch[:, None] * factor, _MOST_MISMATCH)
    ).astype(np.float32)
    return out


def groups_of(
    imputed: Imputed, parameters: CopyingParameters, factor: np.ndarray, put: Put
) -> Iterator[Group]:
    """The targets whose factor (k,) is not 1, by their factors.

    ``put`` takes what becomes of them, by their places among all targets.
    """
    num_typed = len(imputed.alleles)
    for value in sorted(set(factor[factor != 1])):  # np.unique would import numpy.ma
        where = np.flatnonzero(factor == value)
        mismatch = with_factors(parameters, num_typed, np.array([value]))[:, 0]
        yield Group(
            imputed.take(where), replace(parameters, site_mismatch_prob=mismatch),
            at_places(where, put),
        )  # fmt: skip


def at_places(where: np.ndarray, put: Put) -> Put:
    """What takes the probabilities of targets ``where``, ascending, and puts them there."""

    def put_there(first: int, site: int, prob: np.ndarray) -> None:
        place = where[first : first + len(prob)]
        cuts = np.flatnonzero(np.diff(place) > 1) + 1
        for run in np.split(np.arange(len(place)), cuts):
            put(int(place[run[0]]), site, prob[run[0] : run[-1] + 1])

    return put_there
