"""Describe pairs in doubt by masses that were computed elsewhere, as on a GPU.

``shared_kernel`` and ``sliding_kernel`` describe pairs in a walk that computes the masses. Here the
walk has only to pass the words, from the last to the first. Kernels hold only loops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.forward_backward import set_slots
from ragimpute.evidence.describe_kernel import measure, scales_of
from ragimpute.evidence.doubt import INTERVAL, LANE, NEXT, end_of_group, next_interval
from ragimpute.evidence.kernel_arrays import Evidence, IntervalMasses
from ragimpute.evidence.match_lengths_kernel import Matched
from ragimpute.evidence.sliding_kernel import forget_moved
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.shapes import reshaped


class GivenMasses(NamedTuple):
    """The masses that describe the pairs of n targets in one word.

    Attributes
    ----------
    states
        Shape (n, W, K) or (1, 1, K), int32: the states of each target at each word, or those of all
        targets at all words.
    target, observed
        Shape (n, W), uint32: the targets' alleles, and which of them were observed.
    kin
        Shape (n, K) or (n, 1), float32: see ``Matched.kin``.
    row
        Shape (P,), int64: the row of ``masses`` and ``totals`` that each pair has.
    masses, totals
        Forward and backward masses, each of shape (G, K), float32, and what they are to be divided
        by, each of shape (G,), float32.
    sums
        Shape (n, S, 4, 1), float32: for each target the ``kept`` of the word's sites, or with
        n = 0 if there are none.
    first_site
        The first of these sites.
    """

    states: np.ndarray
    target: np.ndarray
    observed: np.ndarray
    kin: np.ndarray
    row: np.ndarray
    masses: tuple[np.ndarray, np.ndarray]
    totals: tuple[np.ndarray, np.ndarray]
    sums: np.ndarray
    first_site: int


@inlined
def _measure_given(i, stop, given, states, evidence):
    """Compute the features of the next pairs up to ``stop``, of target i in one interval."""
    measuring, panel = evidence.measuring, evidence.panel
    first = evidence.at[NEXT]
    t, row = evidence.pairs[first, INTERVAL], given.row[first]
    f, b = given.masses[0][row], given.masses[1][row]
    total_b = given.totals[1][row]
    num_states = f.shape[0]
    key = measuring.keys[0]
    right_sum = 0.0
    for s in range(num_states):
        key[s] = f[s] * b[s]
        right_sum += b[s]
    size = np.float32(num_states)
    scales = scales_of(given.totals[0][row], total_b, size)
    f_column, b_column = reshaped(f, (f.size, 1)), reshaped(b, (b.size, 1))
    mine = IntervalMasses(key, f_column, b_column, 0, scales, right_sum / total_b, size)
    matched = Matched(states, given.target[i], given.observed[i], panel.rows, panel.typed_cm,
                      measuring.ends[i], given.kin[i])  # fmt: skip
    measure(stop, t, mine, matched, evidence, given.first_site)


@kernel
def describe_given_masses(w, given, evidence):
    """Compute the features and tokens of the pairs of word ``w``.

    ``given``: GivenMasses. ``evidence.pairs`` has the pairs by target, then from the last interval
    to the first. If all targets share their states, ``evidence.slot_of`` has them already.
    """
    num_pairs = evidence.pairs.shape[0]
    for i in range(given.target.shape[0]):
        shared = given.states.shape[1] == 1
        states = given.states[0 if shared else i]
        if not shared and w < states.shape[0] - 1:
            ends = evidence.measuring.ends[i]
            forget_moved(states[w + 1], states[w], evidence.panel.typed_cm.shape[0], ends)
        if evidence.at[NEXT] == num_pairs or evidence.pairs[evidence.at[NEXT], LANE] != i:
            continue
        if not shared:
            set_slots(evidence.slot_of, states[w], -1)
        mine = evidence
        if given.sums.shape[0] > 0:
            mine = Evidence(
                evidence.panel, evidence.measuring, evidence.slot_of, evidence.pairs, evidence.at,
                given.sums[i], evidence.out, evidence.tokens,
            )  # fmt: skip
        while evidence.at[NEXT] < num_pairs and evidence.pairs[evidence.at[NEXT], LANE] == i:
            stop = end_of_group(evidence.at[NEXT], num_pairs, evidence.pairs)
            _measure_given(i, stop, given, states, mine)
        if not shared:
            set_slots(evidence.slot_of, states[w], states.shape[1])
    next_interval(num_pairs, evidence)
