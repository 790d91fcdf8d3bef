"""What the two haplotypes of a sample say of each other.

Li and Stephens impute each haplotype on its own, and at most sites the two alleles of a sample are
indeed independent, once one knows what each haplotype copies. Not where genotypes were called
wrongly alike: where the reads of two places in the genome lie piled up at one, nearly everyone
looks heterozygous, and where one allele drops out, for a deletion or a poor probe, nearly everyone
homozygous. There, what copying says of the other haplotype is evidence as well.
"""

from __future__ import annotations

import numpy as np

from ragimpute.evidence.describe_kernel import logit
from ragimpute.evidence.features import HOMOLOG_FEATURES
from ragimpute.kernels.compile import kernel

_LEAST_RATIO, _MOST_SHIFT = 0.05, 3.0


def homologs_of(sample: np.ndarray) -> np.ndarray:
    """The other haplotype of each one's sample.

    Parameters
    ----------
    sample
        Shape (n,), int: the sample that each haplotype belongs to, in any order.

    Returns
    -------
    Shape (n,), int64: a place in ``sample``; -1 where a sample has not two haplotypes.
    """
    order = np.argsort(sample, kind="stable")
    _, first, count = np.unique(sample[order], return_index=True, return_counts=True)
    one = order[first[count == 2]]
    other = order[first[count == 2] + 1]
    out = np.full(len(sample), -1, np.int64)
    out[one], out[other] = other, one
    return out


def homolog_probs(prob: np.ndarray, homolog: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """What copying says of the other haplotype at each pair.

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
    """What the other haplotypes say of some pairs.

    Parameters
    ----------
    minor
        Shape (pairs,), float32: probability of the minor allele on the other haplotype, NaN where
        there is none.
    frequency
        Shape (pairs,), float32: logit of the minor allele's frequency m in the panel.
    missing_hets
        Shape (pairs,), float32: the share of heterozygous samples that copying expects in the panel
        at the pair's site and that are not there, negative where there are more, see "quality_hets"
        in :data:`ragimpute.evidence.features.QUALITY_FEATURES`.

    Returns
    -------
    Shape (pairs, len(HOMOLOG_FEATURES)), float32, finite. Where there is no other haplotype, the
    probability is the frequency, and the shift is 0. The share F of missing heterozygous samples
    takes the place of an inbreeding coefficient: genotypes 11, 10 and 00 are more frequent than
    independent alleles would have them by the ratios 1 + F (1 - m) / m, 1 - F and
    1 + F m / (1 - m). With q the probability on the other haplotype, the shift is the logarithm of
    (q r11 + (1 - q) r10) / (q r10 + (1 - q) r00), within +-3.
    """
    out = np.empty((len(minor), len(HOMOLOG_FEATURES)), np.float32)
    _fill_features(minor, frequency, missing_hets, out)
    return out


@kernel
def _fill_features(minor, frequency, missing_hets, out):
    """The features of each pair, see :func:`homolog_features`."""
    for i in range(minor.shape[0]):
        q = np.float64(minor[i])
        if np.isnan(q):
            out[i, 0] = frequency[i]
            out[i, 1] = 0.0
            continue
        m = 1.0 / (1.0 + np.exp(-np.float64(frequency[i])))
        f = min(1.0, max(-1.0, np.float64(missing_hets[i])))
        both = max(_LEAST_RATIO, 1.0 + f * (1.0 - m) / m)
        one = max(_LEAST_RATIO, 1.0 - f)
        none = max(_LEAST_RATIO, 1.0 + f * m / (1.0 - m))
        shift = np.log((q * both + (1.0 - q) * one) / (q * one + (1.0 - q) * none))
        out[i, 1] = min(_MOST_SHIFT, max(-_MOST_SHIFT, shift))
        out[i, 0] = logit(q)
