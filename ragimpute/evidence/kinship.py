"""Measure how alike a target and each of its states are in the whole window, as weights.

Relatives share more of a chromosome than the stretch around a site. If two states match a target
equally well around a site, the one that also matches it elsewhere is more likely to be copied from:
most in breeds, families and stocks, whose members are related along all of a chromosome.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragimpute.kernels.bits import num_set
from ragimpute.kernels.compile import kernel

# A state's weight is exp(_STEEPNESS z), with z by how many standard deviations of the states it is
# more like the target than their mean is, within +-_MOST.
_STEEPNESS, _MOST = 0.7, 4.0
# A standard deviation of the share of equal alleles below this is noise.
_LEAST_DEVIATION = 1e-3


def kin_weights(
    rows: np.ndarray,
    states: np.ndarray,
    target: np.ndarray,
    observed: np.ndarray,
    lists: Sequence[np.ndarray],
) -> np.ndarray:
    """Weights of the states of targets that share them, by how alike they are to each target.

    Parameters
    ----------
    rows
        Shape (H, W), uint32: the panel's typed alleles by haplotype.
    states
        Shape (K,), int32, ascending: the states.
    target, observed
        Shape (n, W), uint32: the targets' alleles, and which of them were observed.
    lists
        For each target those of the states that it may copy, shape (K_i,), int32, ascending.
        Others, as a target's own haplotypes, change no other state's weight.

    Returns
    -------
    Shape (n, K), float32, > 0. A target without observed alleles, or with fewer than two states,
    has equal weights.
    """
    equal = np.empty((len(target), len(states)), np.float32)
    _count_equal(rows, states, target, observed, equal)
    num = np.bitwise_count(observed).sum(axis=1)
    share = equal / np.maximum(num, 1)[:, None].astype(np.float32)
    out: np.ndarray = np.ones_like(share)
    for i, mine in enumerate(lists):
        if len(mine) < 2 or num[i] == 0:
            continue
        here = share[i] if len(mine) == len(states) else share[i, np.searchsorted(states, mine)]
        deviation = max(float(here.std(dtype=np.float64)), _LEAST_DEVIATION)
        z = (share[i] - np.float32(here.mean(dtype=np.float64))) / np.float32(deviation)
        out[i] = np.exp(np.float32(_STEEPNESS) * np.clip(z, -_MOST, _MOST))
    return out


@kernel
def _count_equal(rows, states, target, observed, out):
    """Write into ``out`` (n, K) at how many observed sites each state has the target's allele."""
    for i in range(target.shape[0]):
        for s in range(states.shape[0]):
            row = rows[states[s]]
            number = np.int64(0)
            for w in range(target.shape[1]):
                number += np.int64(num_set(np.uint32(~(row[w] ^ target[i, w]) & observed[i, w])))
            out[i, s] = number
