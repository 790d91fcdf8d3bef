"""A haploid pass that describes, at each site asked for, what the reads on both sides say.

Two questions are asked of the states that a haplotype may copy: how likely the reads on the left,
on the right and on both sides make those that have the minor allele, and for how long such a state
has been copied without a switch. The longer that is, the younger is the common ancestor, and the
likelier it is that a rare allele is shared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.kernels.compile import inlined_reordered, kernel

#: Columns that :func:`describe_copying` writes: P(minor allele) by the reads on both sides, on the
#: left, on the right, and on both by squared posteriors; the effective number of states; mean cM
#: since the last switch on the left and on the right, first of states with the minor allele, then
#: of others.
NUM_COLUMNS = 9


class HaploidSteps(NamedTuple):
    """The sites at which one haplotype is observed, the other one being known by its probabilities.

    Attributes
    ----------
    alleles
        Shape (T, K), uint8: the states' alleles.
    emission
        Shape (T, 2), float32, > 0: P(reads | REF or ALT is copied).
    rho, length
        Shape (T,), float32: switch probability before each step, and the cM to the step before.
    prior
        Shape (K,), float32, > 0: weights of the states; they sum to 1.
    """

    alleles: np.ndarray
    emission: np.ndarray
    rho: np.ndarray
    length: np.ndarray
    prior: np.ndarray


class Asked(NamedTuple):
    """The sites that are described, from left to right.

    Attributes
    ----------
    left, right
        Shape (n,), int64: the last step before each site, -1 if there is none, and the first one
        after it, T if there is none. A step at the site itself is neither.
    rho, length
        Shape (n, 2), float32: switch probability and cM between each site and these two steps.
    start, state, share
        Shapes (n + 1,), int64, (entries,), int32, and (entries,), float32: which states have the
        minor allele, and in which share of their haplotypes.
    """

    left: np.ndarray
    right: np.ndarray
    rho: np.ndarray
    length: np.ndarray
    start: np.ndarray
    state: np.ndarray
    share: np.ndarray


class EvidenceScratch(NamedTuple):
    """Buffers.

    Attributes
    ----------
    mass, run
        Shape (T, K), float32: masses from the left after each step, and cM since the last switch.
    rows
        Shape (7, K), float32.
    sums
        Shape (4,), float32.
    """

    mass: np.ndarray
    run: np.ndarray
    rows: np.ndarray
    sums: np.ndarray

    @classmethod
    def empty(cls, num_steps: int, num_states: int) -> EvidenceScratch:
        """Buffers for T steps and K states."""
        return cls(
            np.empty((num_steps, num_states), np.float32),
            np.empty((num_steps, num_states), np.float32),
            np.empty((7, num_states), np.float32),
            np.empty(4, np.float32),
        )


@inlined_reordered
def _move(mass, run, keep, rho, length, prior, to, to_run):
    """Carry masses over a stretch without reads; ``keep``: of masses what does not switch."""
    for k in range(mass.shape[0]):
        stays = mass[k] * keep
        moved = stays + rho * prior[k]
        to_run[k] = stays * (run[k] + length) / (moved + np.float32(1e-30))
        to[k] = moved


@inlined_reordered
def _observe(mass, alleles, e0, e1):
    """Multiply masses by the emission in place; returns their sum."""
    out = np.float32(0.0)
    for k in range(mass.shape[0]):
        v = mass[k] * (e1 if alleles[k] != np.uint8(0) else e0)
        mass[k] = v
        out += v
    return out


@inlined_reordered
def _scaled(mass, scale, to):
    """Write masses times ``scale``."""
    for k in range(mass.shape[0]):
        to[k] = mass[k] * scale


@inlined_reordered
def _combine(left, right, run_left, run_right, prior, out, sums):
    """Posteriors, up to a factor, and their sums: alone, squared, times the runs on both sides."""
    whole, squared = np.float32(0.0), np.float32(0.0)
    on_left, on_right = np.float32(0.0), np.float32(0.0)
    for k in range(left.shape[0]):
        v = left[k] * right[k] / prior[k]
        out[k] = v
        whole += v
        squared += v * v
        on_left += v * run_left[k]
        on_right += v * run_right[k]
    sums[0], sums[1] = whole + np.float32(1e-30), squared + np.float32(1e-30)
    sums[2], sums[3] = on_left, on_right


@kernel
def describe_copying(steps, asked, scratch, out):
    """Describe what is copied at some sites by the reads on both sides of each.

    Parameters
    ----------
    steps, asked, scratch
        See :class:`HaploidSteps`, :class:`Asked` and :class:`EvidenceScratch`.
    out
        Shape (n, NUM_COLUMNS), float32: filled in.
    """
    prior = steps.prior
    num_steps = steps.alleles.shape[0]
    one, zero = np.float32(1.0), np.float32(0.0)
    mass, run = scratch.rows[0], scratch.rows[1]
    left, run_left = scratch.rows[2], scratch.rows[3]
    right, run_right, both = scratch.rows[4], scratch.rows[5], scratch.rows[6]
    sums = scratch.sums
    _scaled(prior, one, mass)
    run[:] = zero
    for t in range(num_steps):
        rho = steps.rho[t]
        _move(mass, run, one - rho, rho, steps.length[t], prior, mass, run)
        whole = _observe(mass, steps.alleles[t], steps.emission[t, 0], steps.emission[t, 1])
        scale = np.float32(one / whole)
        _scaled(mass, scale, mass)
        _scaled(mass, one, scratch.mass[t])
        _scaled(run, one, scratch.run[t])
    _scaled(prior, one, mass)
    run[:] = zero
    done = num_steps  # the steps from here on are in ``mass``
    for i in range(asked.left.shape[0] - 1, -1, -1):
        while done > asked.right[i]:
            done -= 1
            if done + 1 < num_steps:
                rho, length = steps.rho[done + 1], steps.length[done + 1]
            else:
                rho, length = one, zero
            _move(mass, run, one - rho, rho, length, prior, mass, run)
            whole = _observe(
                mass, steps.alleles[done], steps.emission[done, 0], steps.emission[done, 1]
            )
            scale = np.float32(one / whole)
            _scaled(mass, scale, mass)
        t = asked.left[i]
        rho = asked.rho[i, 0]
        if t >= 0:
            _move(
                scratch.mass[t], scratch.run[t], one - rho, rho, asked.length[i, 0], prior, left,
                run_left,
            )  # fmt: skip
        else:
            _scaled(prior, one, left)
            run_left[:] = zero
        rho = asked.rho[i, 1]
        if asked.right[i] < num_steps:
            _move(mass, run, one - rho, rho, asked.length[i, 1], prior, right, run_right)
        else:
            _scaled(prior, one, right)
            run_right[:] = zero
        _combine(left, right, run_left, run_right, prior, both, sums)
        minor, squared, by_left, by_right = zero, zero, zero, zero
        on_left, on_right = zero, zero
        for y in range(asked.start[i], asked.start[i + 1]):
            k, share = asked.state[y], asked.share[y]
            v = share * both[k]
            minor += v
            squared += v * both[k]
            by_left += share * left[k]
            by_right += share * right[k]
            on_left += v * run_left[k]
            on_right += v * run_right[k]
        whole = sums[0]
        out[i, 0], out[i, 1], out[i, 2] = minor / whole, by_left, by_right
        out[i, 3], out[i, 4] = squared / sums[1], whole * whole / sums[1]
        tiny = np.float32(1e-12) * whole
        out[i, 5], out[i, 6] = on_left / (minor + tiny), on_right / (minor + tiny)
        others = whole - minor
        out[i, 7], out[i, 8] = zero, zero
        if others > np.float32(1e-4) * whole:
            out[i, 7], out[i, 8] = (sums[2] - on_left) / others, (sums[3] - on_right) / others
