"""Find samples that are the same individual, so that none is phased by its own double.

The two heterozygous genotypes of an individual that was typed twice agree at every site. Of two
such samples, each would take the other's phase, right or wrong, for evidence.
"""

from __future__ import annotations

import numpy as np

#: Two samples are duplicates if, of the sites where one of them is heterozygous, both are at this
#: share, or at all but one. Full sibs have about half; genotyping errors take off less than 5 %.
SAME_SHARE = 0.95
# So many sites tell duplicates apart from all others; fewer heterozygous ones than this do not.
_MAX_SITES, _LEAST_HETEROZYGOUS = 8192, 8


def find_duplicates(alleles: np.ndarray) -> np.ndarray:
    """Which pairs of samples have the same heterozygous genotypes.

    Parameters
    ----------
    alleles
        Shape (T, n, 2), int8: 0, 1, and negative where missing or haploid.

    Returns
    -------
    Shape (n, n), bool, symmetric, with True on the diagonal. Sites where either genotype is not
    complete do not count, nor do pairs with fewer than eight heterozygous sites.
    """
    num_typed, num_samples, _ = alleles.shape
    some = alleles[:: max(1, -(-num_typed // _MAX_SITES))]
    known = (some >= 0).all(axis=2)
    het = (known & (some[:, :, 0] != some[:, :, 1])).astype(np.float32)
    both = het.T @ het
    one = het.T @ known.astype(np.float32)  # the first is heterozygous, and the second is known
    either = one + one.T - both
    out: np.ndarray = (either >= _LEAST_HETEROZYGOUS) & (both >= SAME_SHARE * either - 1)
    out[np.diag_indices(num_samples)] = True
    return out


def own_and_doubles(duplicates: np.ndarray, first: int) -> np.ndarray:
    """The haplotypes that each sample must not copy.

    Parameters
    ----------
    duplicates
        As :func:`find_duplicates` returns it.
    first
        Number of the first haplotype of the first sample; the others follow, two by two.

    Returns
    -------
    Shape (n, e), int32, padded with -1: the haplotypes of each sample, then those of its doubles.
    """
    num_samples = len(duplicates)
    out = np.full((num_samples, 2 * int(duplicates.sum(axis=1).max())), -1, np.int32)
    for i, mine in enumerate(duplicates):
        others = np.flatnonzero(mine)
        others = np.concatenate([[i], others[others != i]])
        out[i, : 2 * len(others)] = first + np.stack([2 * others, 2 * others + 1], 1).ravel()
    return out
