"""Copying with genotype likelihoods by plain loops in double precision, for the kernels' tests."""

from __future__ import annotations

import numpy as np


def transitions(prior, rho):
    """P(state at this step | state at the one before), shape (K, K)."""
    return (1 - rho) * np.eye(len(prior)) + rho * prior[None, :]


def haploid_masses(alleles, emission, rho, prior):
    """Posterior of states at each step, shape (T, K).

    ``alleles`` (T, K), 0 or 1; ``emission`` (T, 2); ``rho`` (T,); ``prior`` (K,).
    """
    num_steps = len(alleles)
    emit = np.take_along_axis(emission, alleles.astype(int), axis=1)
    forward, backward = np.empty(emit.shape), np.ones(emit.shape)
    f = prior
    for t in range(num_steps):
        f = (f @ transitions(prior, rho[t])) * emit[t]
        forward[t] = f = f / f.sum()
    for t in range(num_steps - 2, -1, -1):
        b = transitions(prior, rho[t + 1]) @ (backward[t + 1] * emit[t + 1])
        backward[t] = b / b.sum()
    out = forward * backward
    return out / out.sum(axis=1, keepdims=True)


def pair_masses(alleles, emission, rho, prior):
    """Posterior of ordered pairs of states at each step, shape (T, K, K).

    ``alleles`` (T, K), 0 or 1; ``emission`` (T, 3), by the number of ALT; ``rho``; ``prior``.
    """
    num_steps, num_states = alleles.shape
    emit = np.empty((num_steps, num_states, num_states))
    for t in range(num_steps):
        for i in range(num_states):
            for j in range(num_states):
                emit[t, i, j] = emission[t, int(alleles[t, i]) + int(alleles[t, j])]
    forward, backward = np.empty(emit.shape), np.ones(emit.shape)
    f = prior[:, None] * prior
    for t in range(num_steps):
        move = transitions(prior, rho[t])
        f = (move.T @ f @ move) * emit[t]
        forward[t] = f = f / f.sum()
    for t in range(num_steps - 2, -1, -1):
        move = transitions(prior, rho[t + 1])
        b = move @ (backward[t + 1] * emit[t + 1]) @ move.T
        backward[t] = b / b.sum()
    out = forward * backward
    return out / out.sum(axis=(1, 2), keepdims=True)
