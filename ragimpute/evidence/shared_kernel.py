"""Describe pairs in doubt of 16 targets at once that copy the same states.

Pairs are either given, or found in the same walk that copies. ``sliding_kernel`` does the same for
targets that have states of their own. Kernels hold only loops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.shared_kernel import SharedSites, copy_interval, walk_shared
from ragimpute.evidence.describe_kernel import begin_measuring, measure, scales_of
from ragimpute.evidence.doubt import (
    BEFORE,
    INTERVAL,
    LANE,
    NEXT,
    end_of_group,
    find_pairs,
    next_interval,
)
from ragimpute.evidence.kernel_arrays import Doubt, Evidence, IntervalMasses
from ragimpute.evidence.match_lengths_kernel import Matched
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.shapes import reshaped
from ragimpute.kernels.simd_floats import LANES, load, store, turn


class SharedEvidence(NamedTuple):
    """What pairs of a block of targets are described by.

    Attributes
    ----------
    states
        Shape (1, K), int32: the states of all targets.
    target, observed
        Shape (n, W), uint32: alleles of the block's targets, and which of them were observed.
    kin
        Shape (n, K), float32: see :func:`ragimpute.evidence.kinship.kin_weights`.
    evidence
        See there.
    """

    states: np.ndarray
    target: np.ndarray
    observed: np.ndarray
    kin: np.ndarray
    evidence: Evidence


class SharedCopying(NamedTuple):
    """What copying a block of targets needs that also finds and describes its pairs in doubt."""

    sites: SharedSites
    described: SharedEvidence
    doubt: Doubt


@inlined
def _list_lanes(num_pairs, evidence):
    """List the lanes that have pairs in the interval of the next pair; returns their number."""
    pairs, lanes = evidence.pairs, evidence.measuring.lanes
    first = evidence.at[NEXT]
    num = 0
    q = first
    while q < num_pairs and pairs[q, INTERVAL] == pairs[first, INTERVAL]:
        if q == first or pairs[q, LANE] != pairs[q - 1, LANE]:
            lanes[num] = pairs[q, LANE]
            num += 1
        q += 1
    return num


@inlined
def _lane_masses(f, b, hidden, num_lanes, measuring):
    """Write f b of the listed lanes into rows of ``measuring.keys``.

    A row has the unscaled products of one lane, state by state, and -1 for states that are hidden
    from it. As f and b have a row for each state, 16 states of all 16 lanes are transposed at a
    time.
    """
    keys, lanes, square = measuring.keys, measuring.lanes, measuring.square
    full = f.shape[0] // LANES
    rows = reshaped(keys, (keys.shape[0], keys.shape[1] // LANES, LANES))
    for g in range(full):
        for j in range(LANES):
            store(square, j, load(f, g * LANES + j) * load(b, g * LANES + j))
        turn(square)
        for i in range(num_lanes):
            store(rows[i], g, load(square, lanes[i]))
    for s in range(full * LANES, f.shape[0]):
        for i in range(num_lanes):
            keys[i, s] = f[s, lanes[i]] * b[s, lanes[i]]
    for j in range(hidden.shape[0]):
        for i in range(num_lanes):
            if hidden[j, 1] == lanes[i]:
                keys[i, hidden[j, 0]] = np.float32(-1.0)


@inlined
def _measure_lanes(t, num_pairs, f, targets, masses, described, first_site):
    """Compute the features of the pairs of interval t, which come next in ``evidence.pairs``.

    ``num_pairs`` is the end of the filled part of this array.
    """
    evidence = described.evidence
    measuring, pairs, b = evidence.measuring, evidence.pairs, masses.backward
    num_lanes = _list_lanes(num_pairs, evidence)
    _lane_masses(f, b, targets.hidden, num_lanes, measuring)
    for i in range(num_lanes):
        lane = measuring.lanes[i]
        num_states = targets.num_states[lane]
        scales = scales_of(masses.sums[t + 1, lane], masses.backward_sum[0, lane], num_states)
        mine = IntervalMasses(measuring.keys[i], f, b, lane, scales, 1.0, num_states)
        one = Matched(
            described.states, described.target[lane], described.observed[lane],
            evidence.panel.rows, evidence.panel.typed_cm, measuring.ends[lane],
            described.kin[lane],
        )  # fmt: skip
        stop = end_of_group(evidence.at[NEXT], num_pairs, pairs)
        measure(stop, t, mine, one, evidence, first_site)


@inlined
def _describe_given(t, f, targets, masses, described):
    """Visit an interval that has given pairs."""
    num_pairs = described.evidence.pairs.shape[0]
    _measure_lanes(t, num_pairs, f, targets, masses, described, 0)


@inlined
def _copy_and_describe(t, f, targets, masses, given):
    """Visit an interval: copy its sites, and describe the pairs that copying leaves in doubt."""
    sites, described, doubt = given
    evidence = described.evidence
    copy_interval(t, f, targets, masses, sites)
    num = 0
    for lane in range(sites.width):
        column = sites.first + lane
        known = doubt.typed_index[t] if t >= 0 and targets.target[t, lane] >= 0 else -1
        num = find_pairs(t, lane, column, sites.prob[:, column], known, sites, doubt, evidence, num)
    if num > 0 and evidence.at[BEFORE] + num <= doubt.found.shape[0]:
        _measure_lanes(t, num, f, targets, masses, described, sites.bounds[t + 1])
    next_interval(num, evidence)


@kernel
def describe_shared(targets, masses, wanted, described):
    """Compute the features and tokens of given pairs of a block of targets.

    ``wanted`` must have exactly the intervals that have pairs. ``described``: SharedEvidence; the
    other arguments are those of :func:`ragimpute.copying.shared_kernel.walk_shared`.
    """
    begin_measuring(targets.rho.shape[0], described.evidence)
    walk_shared(targets, masses, wanted, _describe_given, described)


@kernel
def copy_and_describe_shared(targets, masses, wanted, given):
    """Copy a block of targets, and describe its pairs in doubt; returns the number of pairs.

    ``given``: SharedCopying; the other arguments are those of
    :func:`ragimpute.copying.shared_kernel.walk_shared`.
    """
    evidence = given.described.evidence
    begin_measuring(targets.rho.shape[0], evidence)
    walk_shared(targets, masses, wanted, _copy_and_describe, given)
    return evidence.at[BEFORE]
