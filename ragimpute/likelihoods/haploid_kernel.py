"""Forward and backward passes over single states, each of which may stand for many haplotypes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined, inlined_reordered, kernel


class Steps(NamedTuple):
    """The sites at which one haplotype is observed, and what may be copied there.

    Attributes
    ----------
    words
        Shape (W, K), uint32: the states' alleles, 32 sites to a word.
    site
        Shape (T,), int64, ascending: the sites of the steps.
    emission
        Shape (T, 2), float32, > 0: P(reads | REF or ALT is copied).
    rho
        Shape (T,), float32: switch probability before each step.
    prior
        Shape (K,), float32: weights of the states; they sum to 1.
    """

    words: np.ndarray
    site: np.ndarray
    emission: np.ndarray
    rho: np.ndarray
    prior: np.ndarray


@inlined_reordered
def _forward(mass, keep, enter, e0, e1, alleles, bit, prior):
    """One step from the left in place; returns the weighted sum."""
    out = np.float32(0.0)
    for s in range(mass.shape[0]):
        e = e1 if np.uint32(alleles[s] & bit) != np.uint32(0) else e0
        v = (mass[s] * keep + enter) * e
        mass[s] = v
        out += v * prior[s]
    return out


@inlined_reordered
def _emit(mass, e0, e1, alleles, bit, prior):
    """Multiply messages by the emission in place; returns the weighted sum."""
    out = np.float32(0.0)
    for s in range(mass.shape[0]):
        v = mass[s] * (e1 if np.uint32(alleles[s] & bit) != np.uint32(0) else e0)
        mass[s] = v
        out += v * prior[s]
    return out


@inlined_reordered
def _combine(kept, mass, prior):
    """Turn masses that were kept into posteriors that sum to 1."""
    out = np.float32(0.0)
    for s in range(mass.shape[0]):
        v = kept[s] * mass[s] * prior[s]
        kept[s] = v
        out += v
    scale = np.float32(np.float32(1.0) / out)
    for s in range(mass.shape[0]):
        kept[s] *= scale


@inlined
def _step(steps, t, whole, mass):
    """Move masses that sum to ``whole`` from the left over step t; returns their new sum."""
    x, rho = steps.site[t], steps.rho[t]
    bit = np.uint32(1) << np.uint32(x % WORD)
    keep = np.float32((np.float32(1.0) - rho) / whole)
    return _forward(
        mass, keep, rho, steps.emission[t, 0], steps.emission[t, 1], steps.words[x // WORD], bit,
        steps.prior,
    )  # fmt: skip


@inlined
def _step_back(steps, t, mass):
    """Move messages from the right over step t."""
    x, rho = steps.site[t], steps.rho[t]
    bit = np.uint32(1) << np.uint32(x % WORD)
    whole = _emit(
        mass, steps.emission[t, 0], steps.emission[t, 1], steps.words[x // WORD], bit, steps.prior
    )
    keep = np.float32((np.float32(1.0) - rho) / whole)
    for s in range(mass.shape[0]):
        mass[s] = mass[s] * keep + rho


@kernel
def haploid_posterior(steps, every, kept, mass):
    """Posterior of the states at each anchor: one in ``every`` steps, from ``every // 2`` on.

    Parameters
    ----------
    steps
        See :class:`Steps`.
    every
        Distance of anchors.
    kept
        Shape (A, K), float32: filled with posteriors, which sum to 1.
    mass
        Shape (K,), float32: a buffer.
    """
    one = np.float32(1.0)
    whole = one
    mass[:] = one
    num_steps = steps.site.shape[0]
    for t in range(num_steps):
        whole = _step(steps, t, whole, mass)
        if t % every == every // 2:
            to = kept[t // every]
            scale = np.float32(one / whole)
            for s in range(mass.shape[0]):
                to[s] = mass[s] * scale
    mass[:] = one
    for t in range(num_steps - 1, -1, -1):
        if t % every == every // 2:
            _combine(kept[t // every], mass, steps.prior)
        _step_back(steps, t, mass)


@inlined_reordered
def _share_with(kept, mass, prior, alleles, bit):
    """Posterior of having ALT, of masses that were kept and messages from the right."""
    whole, alt = np.float32(0.0), np.float32(0.0)
    for s in range(mass.shape[0]):
        v = kept[s] * mass[s] * prior[s]
        whole += v
        alt += v if np.uint32(alleles[s] & bit) != np.uint32(0) else np.float32(0.0)
    return np.float32(alt / whole)


@kernel
def haploid_alt_share(steps, kept, mass, out):
    """P(ALT is copied) at each step.

    Parameters
    ----------
    steps
        See :class:`Steps`.
    kept, mass
        Shapes (T, K) and (K,), float32: buffers.
    out
        Shape (T,), float32: filled in.
    """
    one = np.float32(1.0)
    whole = one
    mass[:] = one
    num_steps = steps.site.shape[0]
    for t in range(num_steps):
        whole = _step(steps, t, whole, mass)
        to = kept[t]
        scale = np.float32(one / whole)
        for s in range(mass.shape[0]):
            to[s] = mass[s] * scale
    mass[:] = one
    for t in range(num_steps - 1, -1, -1):
        x = steps.site[t]
        bit = np.uint32(1) << np.uint32(x % WORD)
        out[t] = _share_with(kept[t], mass, steps.prior, steps.words[x // WORD], bit)
        _step_back(steps, t, mass)
