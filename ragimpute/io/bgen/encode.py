"""Genotype probabilities as layout 2 of BGEN 1.2 codes them.

References
----------
The BGEN format, versions 1.2 and 1.3, "Genotype data block (layout 2)".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ragimpute.kernels.compile import inlined, kernel

BITS_RANGE = (1, 32)
_HEAD = 10  # bytes of a row beside those of samples
_HAPLOID, _DIPLOID = 1, 2


def max_row_bytes(num_samples: int, bits: int) -> int:
    """Bytes that a site's row has at most."""
    return _HEAD + num_samples + -(-2 * bits * num_samples // 8)


def encode_rows(
    prob: np.ndarray, *, bits: int, phased: bool, both: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Code the probabilities of m sites; the rows are not compressed.

    REF is the first allele. Probabilities are multiples of 1 / (2^bits - 1) that sum to 1: they are
    rounded down, and what is left goes to those with the largest remainders, as the format demands.

    Parameters
    ----------
    prob
        Shape (m, N, 2), float32: P(ALT) of each haplotype, in [0, 1]; NaN in [..., 1] where a
        sample is haploid.
    bits
        Of each probability, 1 to 32.
    phased
        Store P(REF) of each haplotype in place of those of the genotypes REF/REF and REF/ALT.
    both
        Shape (m, N), float32: P(both haplotypes have ALT); None: the product of the two.

    Returns
    -------
    Rows, shape (m, most bytes), uint8; the bytes of each, shape (m,), int64.

    Raises
    ------
    ValueError
        If a probability is not in [0, 1], or ``bits`` not in its range.
    """
    if not BITS_RANGE[0] <= bits <= BITS_RANGE[1]:
        raise ValueError(f"bits must be in {BITS_RANGE}, found {bits}")
    num_sites, num_samples, _ = prob.shape
    rows = np.empty((num_sites, max_row_bytes(num_samples, bits)), np.uint8)
    length = np.empty(num_sites, np.int64)
    joint = np.zeros((num_sites, 0), np.float32) if both is None else both
    joint = np.ascontiguousarray(joint, dtype=np.float32)
    _encode(np.ascontiguousarray(prob, dtype=np.float32), bits, phased, rows, length, joint)
    if (length < 0).any():
        raise ValueError(f"a probability of site {int(np.argmin(length))} is not in [0, 1]")
    return rows, length


@inlined
def _put(row, at, held, num_held, value, bits):
    """Append ``bits`` bits to a row; the last ones wait in ``held`` until a byte is full."""
    held |= value << np.uint64(num_held)
    num_held += bits
    while num_held >= 8:
        row[at] = held & np.uint64(255)
        held >>= np.uint64(8)
        at += 1
        num_held -= 8
    return at, held, num_held


@inlined
def _of_two(first, top):
    """The first of two probabilities that sum to ``top``, rounded; a half goes up."""
    return np.uint64(np.floor(first * top + 0.5))


@inlined
def _of_three(alt, other, top, joint):
    """Probabilities of REF/REF and REF/ALT as whole numbers that, with ALT/ALT, sum to ``top``.

    ``joint``: P(both haplotypes have ALT), or a negative number for the product.
    """
    none = (1.0 - alt) * (1.0 - other) * top
    both = alt * other * top
    one = (alt * (1.0 - other) + other * (1.0 - alt)) * top
    if joint >= 0:
        both = min(joint, 1.0) * top
        one = min(max(0.0, alt + other - 2 * joint) * top, top - both)
        none = top - one - both
    low_none, low_one, low_both = np.floor(none), np.floor(one), np.floor(both)
    left = top - low_none - low_one - low_both
    none -= low_none
    one -= low_one
    both -= low_both
    if (one > none) + (both > none) < left:
        low_none += 1.0
    if (none >= one) + (both > one) < left:
        low_one += 1.0
    return np.uint64(low_none), np.uint64(low_one)


@kernel
def _encode(prob: Any, bits: Any, phased: Any, rows: Any, length: Any, both: Any) -> None:
    """Fill rows and their lengths; a length of -1 marks a probability that is none."""
    num_sites, num_samples, _ = prob.shape
    top = 2.0**bits - 1.0
    is_joint = both.shape[1] > 0
    for i in range(num_sites):
        row = rows[i]
        for k in range(4):
            row[k] = (num_samples >> (8 * k)) & 255
        row[4] = 2  # alleles
        row[5] = 0
        fewest, most = _DIPLOID, _HAPLOID
        at: Any = _HEAD + num_samples
        held: Any = np.uint64(0)
        num_held: Any = 0
        fits = True
        for j in range(num_samples):
            alt: Any = np.float64(prob[i, j, 0])
            other: Any = np.float64(prob[i, j, 1])
            haploid = np.isnan(other)
            if haploid:
                ploidy = _HAPLOID
                other = 0.0
            else:
                ploidy = _DIPLOID
            row[8 + j] = ploidy
            fewest, most = min(fewest, ploidy), max(most, ploidy)
            if not (0.0 <= alt <= 1.0 and 0.0 <= other <= 1.0):
                fits = False
                break
            if haploid:
                at, held, num_held = _put(row, at, held, num_held, _of_two(1.0 - alt, top), bits)
            else:
                if phased:
                    first, second = _of_two(1.0 - alt, top), _of_two(1.0 - other, top)
                else:
                    first, second = _of_three(
                        alt, other, top, np.float64(both[i, j]) if is_joint else -1.0
                    )
                at, held, num_held = _put(row, at, held, num_held, first, bits)
                at, held, num_held = _put(row, at, held, num_held, second, bits)
        if not fits:
            length[i] = -1
            continue
        if num_held > 0:
            row[at] = held
            at += 1
        row[6], row[7] = fewest, most
        row[8 + num_samples] = phased
        row[9 + num_samples] = bits
        length[i] = at
