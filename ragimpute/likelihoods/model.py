"""What reads say of copied alleles: mismatch probabilities of sites, emissions, genotypes.

A haplotype's true allele is the copied one or, by mutation, gene conversion or an error of the
panel, the other one. The younger an allele, the likelier it is that a haplotype which is nearest to
a carrier does not have it: among 600 haplotypes, 43 % of those that copy the only carrier of an
allele, 0.1 % at common sites. One probability for all sites raises 1 - r2 by a quarter at 4x.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ragimpute.kernels.compile import kernel

#: Likelihoods of genotypes, relative to the best one, are at least this large.
FLOOR = np.float32(1e-5)
#: The best switch rate grows with about this power of a sample's mean depth: over panels of people,
#: animals and simulations it is 0.5 to 3 per cM at 0.1x, and 7 to 30 at 5x.
POWER = 0.4
#: For each switch to any state there are about so many exchanges for a state that is alike.
EXCHANGES = 1.5
# The power holds within these depths.
_DEPTHS = (0.05, 8.0)


class SwitchRates(NamedTuple):
    """How often a sample's haplotypes change what they copy, by how many reads it has.

    Haplotypes copy long stretches and short ones. A few reads show the long ones only, many reads
    the short ones, too, so that no one rate is right for both.

    Attributes
    ----------
    at_one
        Changes per cM of samples with one read a site, > 0.
    power
        The rate is proportional to this power of the depth.
    exchanges
        Exchanges of states that are alike for each switch, >= 0.
    """

    at_one: float
    power: float = POWER
    exchanges: float = EXCHANGES

    def of(self, share: float) -> float:
        """The rate of a sample that has reads at a share of sites, in [0, 1]."""
        depth = -math.log1p(-min(share, 1 - 1e-9))  # with it, Poisson's distribution has that share
        factor: float = min(max(depth, _DEPTHS[0]), _DEPTHS[1]) ** self.power
        return self.at_one * factor

    @classmethod
    def through(cls, depths: tuple[float, float], rates: tuple[float, float]) -> SwitchRates:
        """Those that are ``rates`` at two depths, as far as a power from 0 to 1 allows."""
        (few, many), (low, high) = depths, rates
        power = min(max(math.log(high / low) / math.log(many / few), 0.0), 1.0)
        return cls(math.sqrt(low * high) / math.sqrt(few * many) ** power, power)


class SiteMismatch(NamedTuple):
    """How often a haplotype's allele differs from the one that it copies.

    Attributes
    ----------
    alt_if_ref, ref_if_alt
        Shape (M,), float32, in (0, 1): P(ALT | REF is copied), P(REF | ALT is copied).
    """

    alt_if_ref: np.ndarray
    ref_if_alt: np.ndarray

    def of_sites(self, part: slice) -> SiteMismatch:
        """Some of the sites."""
        return SiteMismatch(self.alt_if_ref[part], self.ref_if_alt[part])

    def alt_prob(self, share: np.ndarray) -> np.ndarray:
        """P(ALT) where a share of what may be copied has ALT; ``share`` (M,) or (M, n)."""
        shape = (-1,) + (1,) * (share.ndim - 1)
        up, down = self.alt_if_ref.reshape(shape), self.ref_if_alt.reshape(shape)
        out: np.ndarray = up + share * (1 - down - up)
        return out

    def genotypes(self) -> np.ndarray:
        """P(genotype g | c ALT alleles are copied), shape (M, 3, 3), float32, axes (site, c, g)."""
        ref, alt = self.alt_if_ref, 1 - self.ref_if_alt
        out = np.empty((len(ref), 3, 3), np.float32)
        for c, (p, q) in enumerate(((ref, ref), (ref, alt), (alt, alt))):
            out[:, c, 0], out[:, c, 2] = (1 - p) * (1 - q), p * q
            out[:, c, 1] = p * (1 - q) + (1 - p) * q
        return out

    def alleles(self) -> np.ndarray:
        """P(allele a | allele c is copied), shape (M, 2, 2), float32, axes (site, c, a)."""
        alt = np.stack([self.alt_if_ref, 1 - self.ref_if_alt], axis=1)
        out: np.ndarray = np.stack([1 - alt, alt], axis=2).astype(np.float32)
        return out


def normalise(likelihoods: np.ndarray) -> np.ndarray:
    """Scale likelihoods so that the best of each site is 1, and none is below :data:`FLOOR`.

    Parameters
    ----------
    likelihoods
        Shape (..., G), >= 0. Values that are not finite, and sites where all are 0, say nothing.

    Returns
    -------
    The same shape, float32; 1 everywhere where nothing is known.
    """
    given = np.asarray(likelihoods)
    out = np.empty(given.shape, np.float32)
    flat = np.ascontiguousarray(given.reshape(-1, given.shape[-1]), np.float64)
    _normalise(flat, out.reshape(flat.shape))
    return out


@kernel
def _normalise(given: Any, out: Any) -> None:
    """Do the work of :func:`normalise` for shape (M, G), float64."""
    for i in range(given.shape[0]):
        best = 0.0
        known = True
        for g in range(given.shape[1]):
            x = given[i, g]
            known &= (x >= 0.0) & (x < np.inf)
            best = max(best, x)
        for g in range(given.shape[1]):
            known_share = given[i, g] / best if known and best > 0.0 else 1.0
            out[i, g] = max(np.float32(known_share), FLOOR)


def informative(likelihoods: np.ndarray) -> np.ndarray:
    """Sites at which the normalised likelihoods (M, G) differ between genotypes, shape (M,)."""
    out = likelihoods[..., 0] < 1
    for g in range(1, likelihoods.shape[-1]):
        out |= likelihoods[..., g] < 1
    return out


def share_told(likelihoods: np.ndarray, af: np.ndarray) -> float:
    """How much of what there is to know of a sample's genotypes its reads tell, in [0, 1].

    What they tell is the divergence (Kullback and Leibler) of genotypes given the reads of a site
    from those in Hardy-Weinberg equilibrium, and what there is to know is the entropy of these;
    both are summed over sites.

    Parameters
    ----------
    likelihoods
        Shape (M, P + 1), normalised: P(reads | number of ALT alleles).
    af
        Shape (M,), in [0, 1]: frequencies of ALT.
    """
    varies = (af > 0) & (af < 1)
    p, q = af[varies], 1 - af[varies]
    prior = [q, p] if likelihoods.shape[1] == 2 else [q * q, 2 * p * q, p * p]
    expected = np.stack(prior, axis=1)
    entropy = -float((expected * np.log(expected)).sum())
    seen = informative(likelihoods[varies])
    expected, given = expected[seen], likelihoods[varies][seen]
    ratio = given / (expected * given).sum(axis=1, keepdims=True)
    told = float((expected * ratio * np.log(ratio)).sum())
    return min(told / entropy, 1.0) if entropy > 0 else 0.0


def true_given_copied(copied: np.ndarray, given: np.ndarray, reads: np.ndarray) -> np.ndarray:
    """Posterior of true genotypes from that of copied ones.

    Parameters
    ----------
    copied
        Shape (M, G): P(c | all reads), those of the site included.
    given
        Shape (M, G, G): P(g | c).
    reads
        Shape (M, G), > 0: P(reads of the site | g).

    Returns
    -------
    Shape (M, G), float32; sums to 1.
    """
    out = np.empty(reads.shape, np.float32)
    copied, reads = (np.ascontiguousarray(x, np.float32) for x in (copied, reads))
    _true_given_copied(copied, given, reads, out)
    return out


@kernel
def _true_given_copied(copied: Any, given: Any, reads: Any, out: Any) -> None:
    """Do the work of :func:`true_given_copied`."""
    num = reads.shape[1]
    for i in range(reads.shape[0]):
        for g in range(num):
            out[i, g] = 0.0
        for c in range(num):
            whole = np.float32(0.0)
            for g in range(num):
                whole += given[i, c, g] * reads[i, g]
            weight = max(copied[i, c], np.float32(0.0)) / whole
            for g in range(num):
                out[i, g] += weight * given[i, c, g] * reads[i, g]
        whole = np.float32(0.0)
        for g in range(num):
            whole += out[i, g]
        for g in range(num):
            out[i, g] /= whole
