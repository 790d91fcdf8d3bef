"""Genotypes whose two haplotypes are not independent given the reads."""

from __future__ import annotations

import numpy as np


def settled_both(prob: np.ndarray, both: np.ndarray) -> np.ndarray:
    """P(both haplotypes have ALT) within what P(ALT) of each allows.

    Parameters
    ----------
    prob
        Shape (m, N, 2), float32: P(ALT); NaN in [..., 1] where haploid.
    both
        Shape (m, N), float32: P(both have ALT).

    Returns
    -------
    Shape (m, N), float32; 0 where haploid.
    """
    first, second = prob[..., 0], np.nan_to_num(prob[..., 1])
    low = np.maximum(first + second - 1, 0)
    out: np.ndarray = np.clip(both, low, np.minimum(first, second))
    return out


def genotype_probs(prob: np.ndarray, both: np.ndarray) -> np.ndarray:
    """P(0, 1, 2 ALT alleles), shape (m, N, 3), float64, each in [0, 1]; of 2 it is 0 where haploid.

    The parameters are those of :func:`settled_both`, which has been applied to ``both``.
    """
    exact = np.nan_to_num(prob.astype(np.float64))
    dosage, two = exact.sum(axis=2), both.astype(np.float64)
    out: np.ndarray = np.clip(np.stack([1 - dosage + two, dosage - 2 * two, two], axis=2), 0, 1)
    return out


def likeliest(prob: np.ndarray, both: np.ndarray) -> np.ndarray:
    """The likeliest genotypes, shape (m, N, 2), int8; -2 in [..., 1] where haploid.

    Of a heterozygous one, the haplotype that is likelier to have ALT has it.
    """
    best = genotype_probs(prob, both).argmax(axis=2)
    second = np.nan_to_num(prob[..., 1])
    leads = prob[..., 0] >= second
    out = np.stack([best >= np.where(leads, 1, 2), best >= np.where(leads, 2, 1)], axis=2)
    out = out.astype(np.int8)
    out[np.isnan(prob[..., 1]), 1] = -2
    return out


def as_independent(prob: np.ndarray, both: np.ndarray) -> np.ndarray:
    """P(ALT) of two independent haplotypes that give the same genotype probabilities.

    DR2 is computed of these: what is unknown of a dosage counts, what is unknown of phase does not.
    Where homozygous genotypes are likelier than any independent haplotypes make them, both are
    alike, with the same dosage.

    Returns
    -------
    Shape (m, N, 2), float32, in [0, 1]; NaN in [..., 1] where haploid.
    """
    haploid = np.isnan(prob[..., 1])
    dosage = np.nan_to_num(prob.astype(np.float64)).sum(axis=2)
    root = np.sqrt(np.maximum(dosage * dosage - 4 * both.astype(np.float64), 0))
    # Rounding of what is given must not put one above 1, which would lower the dosage.
    root = np.minimum(root, np.minimum(dosage, 2 - dosage))
    out = np.clip(np.stack([dosage + root, dosage - root], axis=2) / 2, 0, 1).astype(np.float32)
    out[..., 0] = np.where(haploid, prob[..., 0], out[..., 0])
    out[haploid, 1] = np.nan
    return out
