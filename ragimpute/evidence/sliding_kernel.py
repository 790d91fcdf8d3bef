"""Describe pairs in doubt of targets of which each has states of its own, which change by word.

Pairs are either given, or found in the same walk that copies. ``shared_kernel`` does the same for
targets that share their states. Kernels hold only loops.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.forward_backward import set_slots
from ragimpute.copying.sliding_kernel import (
    SlidingSites,
    copy_slots,
    look_up_slots,
    nobody_carries,
    walk_sliding,
)
from ragimpute.evidence.describe_kernel import begin_measuring, measure, scales_of
from ragimpute.evidence.doubt import (
    BEFORE,
    NEXT,
    count_open,
    end_of_group,
    find_pairs,
    next_interval,
)
from ragimpute.evidence.kernel_arrays import Doubt, Evidence, IntervalMasses
from ragimpute.evidence.match_lengths_kernel import Matched
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.shapes import reshaped

# Entries of ``SlidingEvidence.placed``: the target and the word whose states ``slot_of`` has.
_TARGET, _WORD = range(2)


class SlidingEvidence(NamedTuple):
    """What pairs of targets are described by.

    ``placed`` (2,), int64, says whose states ``evidence.slot_of`` has: of which target at which
    word; -1 where it has none.
    """

    evidence: Evidence
    placed: np.ndarray


class SlidingCopying(NamedTuple):
    """What copying targets needs that also finds and describes their pairs in doubt."""

    sites: SlidingSites
    described: SlidingEvidence
    doubt: Doubt


@inlined
def _multiply(num_states, f, b, key):
    """Write the products f b of the states into ``key``; returns the sum of ``b``."""
    right_sum = 0.0
    for s in range(num_states):
        key[s] = f[s] * b[s]
        right_sum += b[s]
    return right_sum


@inlined
def forget_moved(after, here, num_typed, ends):
    """Forget the ends of matches of slots whose state differs between two neighbouring words."""
    for s in range(here.shape[0]):
        if after[s] != here[s]:
            ends[s, :] = num_typed


@inlined
def _take_away(targets, described):
    """Take the states that are in ``slot_of`` out of it."""
    placed = described.placed
    if placed[_TARGET] >= 0:
        states = targets.states[placed[_TARGET]]
        here = states[min(placed[_WORD], states.shape[0] - 1)]
        set_slots(described.evidence.slot_of, here, here.shape[0])
        placed[_TARGET] = -1


@inlined
def _begin_word(i, w, is_wanted, targets, described):
    """Begin a word of target i, whose states may be others than those of the word before."""
    _take_away(targets, described)
    states = targets.states[i]
    if states.shape[0] > 1 and w < states.shape[0] - 1:
        ends = described.evidence.measuring.ends[i]
        forget_moved(states[w + 1], states[w], targets.rho.shape[0], ends)


@inlined
def _measure_slots(i, w, t, stop, targets, masses, described):
    """Compute the features of the next pairs up to ``stop``, of target i in interval t."""
    evidence, placed = described.evidence, described.placed
    measuring, panel = evidence.measuring, evidence.panel
    states = targets.states[i]
    if placed[_TARGET] < 0:
        set_slots(evidence.slot_of, states[min(w, states.shape[0] - 1)], -1)
        placed[_TARGET], placed[_WORD] = i, w
    j = max(t, 0) - w * WORD
    f, b, num_states = masses.rows[j], masses.backward[i], states.shape[1]
    key = measuring.keys[0]
    right_sum = _multiply(num_states, f, b, key) / masses.totals[i]
    scales = scales_of(masses.sums[j], masses.totals[i], np.float32(num_states))
    f_column, b_column = reshaped(f, (f.size, 1)), reshaped(b, (b.size, 1))
    mine = IntervalMasses(key, f_column, b_column, 0, scales, right_sum, np.float32(num_states))
    one = Matched(states, targets.target[i], targets.observed[i], panel.rows, panel.typed_cm,
                  measuring.ends[i], measuring.kin)  # fmt: skip
    measure(stop, t, mine, one, evidence, 0)


@inlined
def _describe_given(i, w, t, targets, masses, described):
    """Visit an interval that has given pairs."""
    evidence = described.evidence
    stop = end_of_group(evidence.at[NEXT], evidence.pairs.shape[0], evidence.pairs)
    _measure_slots(i, w, t, stop, targets, masses, described)


@inlined
def _begin_both(i, w, is_wanted, targets, given):
    """Begin a word of target i, for copying and for describing."""
    look_up_slots(i, w, is_wanted, targets, given.sites)
    _begin_word(i, w, is_wanted, targets, given.described)


@inlined
def _copy_and_describe(i, w, t, targets, masses, given):
    """Visit an interval: copy its sites, and describe the pairs that copying leaves in doubt."""
    sites, described, doubt = given
    evidence = described.evidence
    copy_slots(i, w, t, targets, masses, sites)
    prob, first_site = sites.prob[i], sites.first_site
    alt = prob[sites.bounds[t + 1] - first_site : sites.bounds[t + 2] - first_site]
    if count_open(alt, doubt.limits[0], doubt.limits[1]) == 0:
        return
    bit = np.uint32(max(t, 0) - w * WORD)
    seen = t >= 0 and (targets.observed[i, w] >> bit) & np.uint32(1)
    known = doubt.typed_index[t] if seen else -1
    num = find_pairs(t, 0, i, prob, known, sites, doubt, evidence, 0)
    if num > 0 and evidence.at[BEFORE] + num <= doubt.found.shape[0]:
        _measure_slots(i, w, t, num, targets, masses, described)
    next_interval(num, evidence)


@kernel
def describe_sliding(targets, masses, words, wanted, described):
    """Compute the features and tokens of given pairs of one target.

    ``wanted`` must have exactly the intervals that have pairs. ``described``: SlidingEvidence; the
    other arguments are those of :func:`ragimpute.copying.sliding_kernel.walk_sliding`, which may
    end at the lowest word that has pairs.
    """
    begin_measuring(targets.rho.shape[0], described.evidence)
    walk_sliding(targets, masses, words, wanted, _begin_word, _describe_given, described)
    _take_away(targets, described)


@kernel
def copy_and_describe_sliding(targets, masses, words, wanted, given):
    """Copy targets, and describe their pairs in doubt; returns the number of pairs.

    ``given``: SlidingCopying; the other arguments are those of
    :func:`ragimpute.copying.sliding_kernel.walk_sliding`.
    """
    evidence = given.described.evidence
    begin_measuring(targets.rho.shape[0], evidence)
    nobody_carries(given.sites)
    walk_sliding(targets, masses, words, wanted, _begin_both, _copy_and_describe, given)
    _take_away(targets, given.described)
    return evidence.at[BEFORE]
