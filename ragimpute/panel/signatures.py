"""Numbers that stand for haplotypes by their alleles alone, whatever their place in the panel.

Where some haplotypes must come before others, among equals or in a random draw, these decide: so
the order of a panel's samples changes nothing.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel
from ragimpute.panel.haplotypes import Haplotypes


def signatures_of(haplotypes: Haplotypes) -> np.ndarray:
    """A number for each haplotype, shape (H,), uint64; equal haplotypes have the same."""
    h = haplotypes
    out = np.zeros(-(-h.num_haplotypes // 64) * 64, np.uint64)
    _mix_sites(h.offsets, h.carriers, h.row, h.bits, out)
    return out[: h.num_haplotypes]


def drawing_order(signature: np.ndarray, seed: int) -> np.ndarray:
    """A random order that depends on the signatures and the seed alone.

    Parameters
    ----------
    signature
        Shape (n,), uint64.
    seed
        Another one gives another order.

    Returns
    -------
    Shape (n,), int64: a permutation of range(n); equal signatures stay in their order.
    """
    salt = np.random.default_rng(seed).integers(1, 2**63, dtype=np.uint64)
    # splitmix64's finaliser
    z = signature ^ salt
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(z ^ (z >> np.uint64(31)), kind="stable")


def draw_samples(signature: np.ndarray, haplotype_sample: np.ndarray, seed: int) -> np.ndarray:
    """All samples, in a random order that depends on their alleles and the seed alone.

    Parameters
    ----------
    signature, haplotype_sample
        Shape (H,), uint64 and int: of each haplotype, see :func:`signatures_of`, and its sample.
    seed
        See :func:`drawing_order`.

    Returns
    -------
    Shape (S,), int: samples.
    """
    samples, of = np.unique(haplotype_sample, return_inverse=True)
    of_sample = np.zeros(len(samples), np.uint64)
    np.add.at(of_sample, of, signature)
    out: np.ndarray = samples[drawing_order(of_sample, seed)]
    return out


@kernel
def _mix_sites(offsets, carriers, row, bits, out):
    """Mix the sites at which each haplotype has the minor allele into ``out``, zeros.

    That is (H,), to the end of the last word of ``bits``.
    """
    one = np.uint64(1)
    for site in range(row.shape[0]):
        # splitmix64 of the site's number
        z = np.uint64(site + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
        if row[site] < 0:
            for i in range(offsets[site], offsets[site + 1]):
                out[carriers[i]] ^= z
        else:
            for w in range(bits.shape[1]):
                word = bits[row[site], w]
                for b in range(64):  # without a branch, some at once
                    has = (word >> np.uint64(b)) & one
                    out[w * 64 + b] ^= z & (np.uint64(0) - has)
