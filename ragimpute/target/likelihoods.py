"""Likelihoods of genotypes on the phred scale: turned, merged, and those of called genotypes."""

from __future__ import annotations

import numpy as np

from ragimpute.io.vcf.read.likelihoods import MOST

_CALL_ERROR = 30  # -10 log10 of the share of called alleles that are wrong


def turned_likelihoods(values: np.ndarray, turned: np.ndarray) -> np.ndarray:
    """A copy of likelihoods (m, N, 3) in which some rows, (m,) bool, exchange REF and ALT."""
    out = values.copy()
    out[turned] = values[turned][..., ::-1]
    return out


def merge_likelihoods(values: np.ndarray) -> np.ndarray:
    """Merge the likelihoods of several records of one site.

    What several records say alike counts once, since then it is of the same reads; what they say
    otherwise is of other reads, and counts together.

    Parameters
    ----------
    values
        Shape (m, N, 3), uint8, phred scale: 0, 0, 0 says nothing.

    Returns
    -------
    Shape (N, 3), uint8, the least is 0.
    """
    total = np.zeros(values.shape[1:], np.int64)
    for number, row in enumerate(values):
        again = (values[:number] == row).all(axis=2).any(axis=0)
        total += np.where(again[:, None], 0, row)
    haploid = (values[..., 1] == MOST) & ((values[..., 0] == 0) | (values[..., 2] == 0))
    haploid = haploid.any(axis=0)
    total -= total.min(axis=1, keepdims=True)
    out: np.ndarray = np.minimum(total, MOST).astype(np.uint8)
    nothing = (out[:, 0] == 0) & (out[:, 2] == 0) & haploid
    out[nothing] = 0
    return out


def called_likelihoods(alleles: np.ndarray) -> np.ndarray:
    """What called genotypes say: of each allele it is known but for an error of 1 in 1,000.

    Parameters
    ----------
    alleles
        Shape (m, N, 2), int8: 0, 1, -1 missing, -2 haploid fill. Half a genotype says nothing.

    Returns
    -------
    Shape (m, N, 3), uint8, phred scale; 0, 0, 0 where nothing was called.
    """
    haploid = alleles[..., 1] == -2
    known = (alleles[..., 0] >= 0) & ((alleles[..., 1] >= 0) | haploid)
    count = np.where(haploid, 2 * alleles[..., 0], alleles.sum(axis=2))
    away = np.abs(np.arange(3) - count[..., None])
    away = np.where(haploid[..., None], away // 2, away)
    out = np.where(known[..., None], _CALL_ERROR * away, 0)
    out[known & haploid, 1] = MOST
    return out.astype(np.uint8)
