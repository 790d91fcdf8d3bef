"""The loop that gives the likelihood of a haplotype: a walk along its typed sites."""

from __future__ import annotations

import numpy as np

from ragimpute.copying.forward_backward import forward_site, mismatch_words
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import kernel


@kernel
def log_likelihood(words, states, target, observed, rho, err, mass, mismatch):
    """Natural logarithm of the probability of a haplotype's typed alleles, by Li-Stephens copying.

    Parameters
    ----------
    words
        Shape (W, H), uint32: alleles of the haplotypes.
    states
        Shape (K,), int32: those that may be copied.
    target, observed
        Shape (W,), uint32: the haplotype's alleles, and bits of the sites that count.
    rho
        Shape (T,), float32, in [0, 1]: switch probability before each site.
    err
        Mismatch probability, float32.
    mass, mismatch
        Shape (K,), float32 and uint32: buffers.
    """
    n = states.shape[0]
    mass[:] = np.float32(1.0) / np.float32(n)
    scale = np.float32(1.0)
    out = 0.0
    for w in range(words.shape[0]):
        mismatch_words(words[w], states, target[w], observed[w], mismatch)
        for t in range(w * WORD, min(rho.shape[0], (w + 1) * WORD)):
            total = forward_site(mass, mismatch, t - w * WORD, rho[t], scale, err)
            out += np.log(np.float64(total))
            scale = np.float32(1.0) / total
    return out
