"""The copying model by plain loops in double precision, for the tests of the fast kernels."""

from __future__ import annotations

import numpy as np

from ragimpute.copying.window import Window
from ragimpute.kernels.bits import WORD
from ragimpute.panel.haplotypes import Haplotypes
from ragimpute.panel.packing import PatternBlock, RowBlocks, rows_to_patterns


def compact(alleles: np.ndarray, as_row: np.ndarray | None = None) -> Haplotypes:
    """Alleles (M, H) as a panel keeps them; ``as_row`` says which sites become rows of bits."""
    num_sites, num_haplotypes = alleles.shape
    count = (alleles == 1).sum(axis=1)
    alt_is_minor = 2 * count <= num_haplotypes
    minor = np.where(alt_is_minor[:, None], alleles == 1, alleles == 0)
    if as_row is None:
        as_row = minor.sum(axis=1) > max(2, num_haplotypes // 8)
    carriers = [np.flatnonzero(minor[i]) if not as_row[i] else [] for i in range(num_sites)]
    padded = np.zeros((int(as_row.sum()), 64 * -(-num_haplotypes // 64)), bool)
    padded[:, :num_haplotypes] = minor[as_row]
    return Haplotypes(
        num_haplotypes,
        alt_is_minor,
        np.concatenate([[0], np.cumsum([len(c) for c in carriers])]).astype(np.int64),
        np.concatenate([*carriers, []]).astype(np.int32),
        np.where(as_row, np.cumsum(as_row) - 1, -1).astype(np.int32),
        np.packbits(padded, axis=1, bitorder="little").view(np.uint64),
    )


def blocks_of(rows: np.ndarray, num_haplotypes: int, first_row: int = 0) -> RowBlocks:
    """Rows of bits (R, H / 64) as patterns, the first of them ``first_row`` rows into a block."""
    rng = np.random.default_rng(first_row)
    before = rng.integers(0, 2**63, (first_row, rows.shape[1]), np.uint64)
    stored = np.concatenate([before, rows])
    return RowBlocks(
        first_row,
        [
            PatternBlock.of(*rows_to_patterns(stored[at : at + 64], num_haplotypes))
            for at in range(0, len(stored), 64)
        ],
    )


def mosaic_panel(rng, num_sites, num_haplotypes, *, num_founders=6, switches=0.05, mutations=0.01):
    """Alleles (M, H) of haplotypes that are mosaics of a few founders, with mutations."""
    frequency = rng.beta(0.5, 1.0, num_sites)
    founders = rng.random((num_sites, num_founders)) < frequency[:, None]
    alleles = np.empty((num_sites, num_haplotypes), np.int8)
    for h in range(num_haplotypes):
        jump = rng.random(num_sites) < switches
        source = rng.integers(0, num_founders, num_sites)
        at = np.maximum.accumulate(np.where(jump, np.arange(num_sites), 0))
        alleles[:, h] = founders[np.arange(num_sites), source[at]]
    return alleles ^ (rng.random(alleles.shape) < mutations)


def window_of(alleles, position_cm, typed_index, core=None, as_row=None) -> Window:
    """A window of alleles (M, H)."""
    return Window.build(compact(alleles, as_row), position_cm, np.asarray(typed_index), core)


def whole_chain(alleles, position_cm, typed_index, target, rate, err, states) -> np.ndarray:
    """P(ALT) at every site: the textbook chain over all M sites, of which untyped ones emit 1.

    ``alleles`` (M, H); ``target`` (T,), negative where nothing was observed; ``states`` (K,).
    """
    num_sites, k = len(alleles), len(states)
    emit = np.ones((num_sites, k))
    for t, u in enumerate(typed_index):
        if target[t] >= 0:
            for s in range(k):
                emit[u, s] = 1 - err if alleles[u, states[s]] == target[t] else err
    rho = -np.expm1(-rate * np.diff(position_cm))
    forward = np.empty((num_sites, k))
    backward = np.ones((num_sites, k))
    for u in range(num_sites):
        for s in range(k):
            come = 1 / k
            if u:
                come = (1 - rho[u - 1]) * forward[u - 1, s] + rho[u - 1] / k
            forward[u, s] = come * emit[u, s]
        forward[u] /= forward[u].sum()
    for u in range(num_sites - 2, -1, -1):
        ahead = backward[u + 1] * emit[u + 1]
        for s in range(k):
            backward[u, s] = (1 - rho[u]) * ahead[s] + rho[u] * ahead.mean()
        backward[u] /= backward[u].mean()
    posterior = forward * backward
    posterior /= posterior.sum(axis=1, keepdims=True)
    return np.array([posterior[u] @ alleles[u, states] for u in range(num_sites)])


class SlowCopying:
    """Forward and backward masses by haplotype, each word of 32 typed sites with its own states.

    Interval t lies between typed sites t and t + 1; interval -1 before the first. ``left[t]`` sums
    to 1 over the states at typed site t; ``right[t]`` holds the states at t + 1, their mean is 1.
    A haplotype that is not a state has no mass; one that becomes a state enters by switching only.
    """

    def __init__(self, typed, typed_cm, target, states, rate, err) -> None:
        self.typed, self.typed_cm, self.target, self.states = typed, typed_cm, target, states
        self.num_typed, self.k, self.rate = len(typed), states.shape[1], rate
        self.same_everywhere = len(states) == 1
        rho = [1.0, *np.maximum(-np.expm1(-rate * np.diff(typed_cm)), 1e-7)]

        def emit(t, h):
            return err if self.mismatch(t, h) else 1 - err

        def scaled(mass, total):
            scale = total / sum(mass.values())
            return {h: v * scale for h, v in mass.items()}

        k = self.k
        self.left = {-1: {h: 1 / k for h in self.states_at(0)}}
        for t in range(self.num_typed):
            before = self.left[t - 1]
            self.left[t] = scaled(
                {
                    h: (before.get(h, 0.0) * (1 - rho[t]) + rho[t] / k) * emit(t, h)
                    for h in self.states_at(t)
                },
                1.0,
            )
        last = self.num_typed - 1
        self.right = {last: {h: 1.0 for h in self.states_at(last)}}
        after = self.right[last]
        for t in range(last, -1, -1):
            self.right[t - 1] = scaled({h: v * emit(t, h) for h, v in after.items()}, k)
            if t > 0:
                after = {
                    h: (1 - rho[t]) * self.right[t - 1].get(h, 0.0) + rho[t]
                    for h in self.states_at(t - 1)
                }

    def states_at(self, t) -> list[int]:
        """The states at a typed site."""
        return self.states[min(max(t, 0) // WORD, len(self.states) - 1)].tolist()

    def mismatch(self, t, h) -> bool:
        """Whether haplotype ``h`` differs from what was observed at typed site t."""
        return self.target[t] >= 0 and self.typed[t, h] != self.target[t]

    def switches(self, t, cm) -> tuple[float, float]:
        """Switch probability from a place in interval t to the typed sites on its two sides."""
        left = 1.0 if t < 0 else -np.expm1(-self.rate * (cm - self.typed_cm[t]))
        last = t == self.num_typed - 1
        right = 1.0 if last else -np.expm1(-self.rate * (self.typed_cm[t + 1] - cm))
        return left, right

    def masses(self, t, cm) -> tuple[dict, dict, dict]:
        """Posterior of each state at a place in interval t; from its left, its right side alone."""
        l, r = self.switches(t, cm)  # noqa: E741
        here = self.states_at(t)
        from_left = {h: (1 - l) * self.left[t][h] + l / self.k for h in here}
        from_right = {h: (1 - r) * self.right[t].get(h, 0.0) + r for h in here}
        both = {h: from_left[h] * from_right[h] for h in here}
        return tuple({h: v / sum(m.values()) for h, v in m.items()}
                     for m in (both, from_left, from_right))  # fmt: skip
