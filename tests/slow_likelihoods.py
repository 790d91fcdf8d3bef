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


def exchange(prior, prob, cluster):
    """P(state after an exchange | state before it), shape (K, K)."""
    same = cluster[:, None] == cluster[None, :]
    drawn = same * prior[None, :]
    weight = drawn.sum(axis=1, keepdims=True)
    return (1 - prob) * np.eye(len(prior)) + prob * drawn / np.where(weight > 0, weight, 1)


def pair_masses(alleles, emission, rho, prior, exchanges):
    """Posterior of ordered pairs of states at each step, shape (T, K, K).

    ``alleles`` (T, K), 0 or 1; ``emission`` (T, 3), by the number of ALT; ``rho``; ``prior``;
    ``exchanges``: for some steps, the probability of an exchange before it, and clusters (K,).
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
        if t in exchanges:
            move = exchange(prior, *exchanges[t]) @ move
        f = (move.T @ f @ move) * emit[t]
        forward[t] = f = f / f.sum()
    for t in range(num_steps - 2, -1, -1):
        move = transitions(prior, rho[t + 1])
        if t + 1 in exchanges:
            move = exchange(prior, *exchanges[t + 1]) @ move
        b = move @ (backward[t + 1] * emit[t + 1]) @ move.T
        backward[t] = b / b.sum()
    out = forward * backward
    return out / out.sum(axis=(1, 2), keepdims=True)


def one_side(emissions, length, rho, prior):
    """Masses and mean cM since a switch after some steps, by plain loops.

    ``emissions`` (T, K), ``length`` (T,), ``rho`` (T,): of each step, the latter before it.
    """
    mass, run = prior, np.zeros(len(prior))
    for emission, d, switch in zip(emissions, length, rho, strict=True):
        stays = mass * (1 - switch)
        moved = stays + switch * prior
        run = stays * (run + d) / moved
        mass = moved * emission
        mass = mass / mass.sum()
    return mass, run


def described(alleles, emission, rho, length, prior, site, share):
    """What a haploid pass says at one site that lies at no step, by plain loops.

    ``alleles`` (T, K); ``emission`` (T, 2); ``rho``, ``length`` (T,): before each step. ``site``:
    how many steps lie on its left, and (rho, length) to the steps on both sides, None where there
    is none. ``share`` (K,): of the minor allele in each state. Returns nine numbers, NaN where
    nothing has them.
    """
    emit = np.take_along_axis(emission, alleles.astype(int), axis=1)
    before, moves = site
    backwards = np.concatenate([[1.0], rho[before + 1 :][::-1]])[: len(emit) - before]
    gaps = np.concatenate([[0.0], length[before + 1 :][::-1]])[: len(emit) - before]
    sides = (
        one_side(emit[:before], length[:before], rho[:before], prior),
        one_side(emit[before:][::-1], gaps, backwards, prior),
    )
    masses, runs = [], []
    for (mass, run), move in zip(sides, moves, strict=True):
        switch, gap = move or (1.0, 0.0)
        moved = mass * (1 - switch) + switch * prior
        masses.append(moved)
        runs.append(mass * (1 - switch) * (run + gap) / moved)
    p = masses[0] * masses[1] / prior
    minor, whole = (share * p).sum(), p.sum()
    out = [
        minor / whole, (share * masses[0]).sum(), (share * masses[1]).sum(),
        (share * p * p).sum() / (p * p).sum(), whole**2 / (p * p).sum(),
    ]  # fmt: skip
    for of, least in ((share * p, 0), ((1 - share) * p, 1e-3 * whole)):
        out += [(of * run).sum() / of.sum() if of.sum() > least else np.nan for run in runs]
    return np.array(out)
