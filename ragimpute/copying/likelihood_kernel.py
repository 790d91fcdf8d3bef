"""The likelihood of haplotypes by Li-Stephens copying: a walk along the typed sites of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragimpute.copying.forward_backward import forward_site, mismatch_words
from ragimpute.copying.parameters import switch_probs
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


@dataclass(frozen=True)
class TypedLikelihood:
    """The logarithm of the probability of n haplotypes' alleles at T typed sites.

    Attributes
    ----------
    words
        Shape (W, H), uint32: alleles of the haplotypes that are copied, a bit for each typed site.
    position_cm
        Shape (T,), float64, cM, non-decreasing.
    target, observed
        Shape (n, W), uint32: alleles of the n haplotypes, and bits of the sites that count.
    states
        For each of the n haplotypes, shape (K,), int32: those that it may copy.
    """

    words: np.ndarray
    position_cm: np.ndarray
    target: np.ndarray
    observed: np.ndarray
    states: Sequence[np.ndarray]

    def at(self, rate: float, err: float, which: np.ndarray | None = None) -> np.ndarray:
        """Compute it for a switch rate per cM and a mismatch probability.

        ``which``: shape (k,), int, the haplotypes to compute it for; None: all.

        Returns
        -------
        Shape (n,), float64; 0 for haplotypes that are not in ``which`` or have no states.
        """
        rho = switch_probs(self.position_cm, switch_rate=rate)
        out = np.zeros(len(self.target))
        mass = np.empty(self.words.shape[1], np.float32)
        mismatch = np.empty(self.words.shape[1], np.uint32)
        for i in range(len(out)) if which is None else which.tolist():
            k = len(self.states[i])
            if k:
                out[i] = log_likelihood(
                    self.words, self.states[i], self.target[i], self.observed[i], rho,
                    np.float32(err), mass[:k], mismatch[:k],
                )  # fmt: skip
        return out
