"""Features of a pair that come from the other haplotype of the same sample.

The Li-Stephens model imputes each haplotype on its own. At most sites this is right: the two
alleles of a sample are independent once it is known what each haplotype copies. It is wrong at
sites where genotypes are called wrongly in the same way in many samples. If reads from two places
of the genome are mapped to one, nearly every sample looks heterozygous. If one allele is not seen,
because of a deletion or a poor probe, nearly every sample looks homozygous. At such sites the
probability on the other haplotype is evidence too.
"""

from __future__ import annotations

import numpy as np

from ragimpute.evidence.describe_kernel import logit
from ragimpute.evidence.features import HOMOLOG, HOMOLOG_FEATURES
from ragimpute.kernels.compile import kernel

_LEAST_RATIO, _MOST_SHIFT = 0.05, 3.0


def homologs_of(sample: np.ndarray) -> np.ndarray:
    """For each haplotype, find the other haplotype of its sample.

    Parameters
    ----------
    sample
        Shape (n,), int: the sample that each haplotype belongs to, in any order.

    Returns
    -------
    Shape (n,), int64: index into ``sample``; -1 unless the sample has exactly two haplotypes.
    """
    order = np.argsort(sample, kind="stable")
    _, first, count = np.unique(sample[order], return_index=True, return_counts=True)
    one = order[first[count == 2]]
    other = order[first[count == 2] + 1]
    out = np.full(len(sample), -1, np.int64)
    out[one], out[other] = other, one
    return out


def homolog_probs(prob: np.ndarray, homolog: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """For each pair, the probability of ALT on the other haplotype of the sample.

    Parameters
    ----------
    prob
        Shape (n, m), float32: P(ALT).
    homolog
        Shape (n,), int64: see :func:`homologs_of`.
    pairs
        Shape (pairs, 2), int64: row and column of ``prob``.

    Returns
    -------
    Shape (pairs,), float32: P(ALT) there; NaN where there is no other haplotype.
    """
    other = homolog[pairs[:, 0]]
    return np.where(other >= 0, prob[other, pairs[:, 1]], np.float32(np.nan))


def homolog_features(
    minor: np.ndarray, frequency: np.ndarray, missing_hets: np.ndarray
) -> np.ndarray:
    """Features of pairs that come from the other haplotypes of their samples.

    Parameters
    ----------
    minor
        Shape (pairs,), float32: probability of the minor allele on the other haplotype, NaN where
        there is none.
    frequency
        Shape (pairs,), float32: logit of the minor allele's frequency m in the panel.
    missing_hets
        Shape (pairs,), float32, at most 1: 1 minus the number of heterozygous samples of the panel
        at the pair's site over the number that copying expects; negative where there are more than
        expected. See "quality_hets" in :data:`ragimpute.evidence.features.QUALITY_FEATURES`.

    Returns
    -------
    Shape (pairs, len(HOMOLOG_FEATURES)), float32, finite: the logit of the probability on the other
    haplotype, and the shift that it causes. Without another haplotype they are ``frequency`` and 0.

    Notes
    -----
    The share F of missing heterozygous samples is used like an inbreeding coefficient. Compared
    with independent alleles, the genotypes 11, 10 and 00 are more frequent by the ratios
    r11 = 1 + F (1 - m) / m, r10 = 1 - F and r00 = 1 + F m / (1 - m). With q the probability on the
    other haplotype, the shift is the logarithm of
    (q r11 + (1 - q) r10) / (q r10 + (1 - q) r00), clipped to [-3, 3].
    """
    out = np.empty((len(minor), len(HOMOLOG_FEATURES)), np.float32)
    _fill_features(minor, frequency, missing_hets, out)
    return out


@kernel
def _fill_features(minor, frequency, missing_hets, out):
    """Compute the features of each pair as :func:`homolog_features` defines them, into ``out``."""
    for i in range(minor.shape[0]):
        q = np.float64(minor[i])
        if np.isnan(q):
            out[i, HOMOLOG.homolog] = frequency[i]
            out[i, HOMOLOG.homolog_shift] = 0.0
            continue
        m = 1.0 / (1.0 + np.exp(-np.float64(frequency[i])))
        f = min(1.0, max(-1.0, np.float64(missing_hets[i])))
        both = max(_LEAST_RATIO, 1.0 + f * (1.0 - m) / m)
        one = max(_LEAST_RATIO, 1.0 - f)
        none = max(_LEAST_RATIO, 1.0 + f * m / (1.0 - m))
        shift = np.log((q * both + (1.0 - q) * one) / (q * one + (1.0 - q) * none))
        out[i, HOMOLOG.homolog_shift] = min(_MOST_SHIFT, max(-_MOST_SHIFT, shift))
        out[i, HOMOLOG.homolog] = logit(q)
