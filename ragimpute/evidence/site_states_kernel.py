"""The kernel that names and describes the most probable states of every site of a target.

Notation: T typed sites in W words of 32, S states, K named states of a site, M sites.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.carriers import SiteCarriers
from ragimpute.copying.forward_backward import backward_states, forward_site, mismatch_words
from ragimpute.copying.window import Flanks
from ragimpute.evidence.match_lengths_kernel import REACH, find_reach
from ragimpute.evidence.state_set import insert_state
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.compile import inlined, kernel


class StateFeatures(NamedTuple):
    """The columns that describe a named state at a site."""

    mass: int  # ln of its posterior at the site, + 1e-6
    mass_left: int  # the same at the typed site on the left, from typed sites up to it alone
    mass_right: int  # the same on the right
    left: int  # ln of its match with the target to the left of the site, cM + 1e-3
    right: int  # the same to the right
    left_1: int  # as left, past one mismatch
    right_1: int


STATE_FEATURES = StateFeatures._fields
STATE = StateFeatures(*range(len(STATE_FEATURES)))


class SitesToName(NamedTuple):
    """The panel at a window's sites.

    Attributes
    ----------
    words
        Shape (W, H), uint32: alleles at the typed sites.
    rho, err
        Shape (T,), float32: switch and mismatch probability at each typed site.
    position_cm
        Shape (M,), float64.
    bounds
        Shape (T + 2,), int64: see :meth:`ragimpute.copying.window.Window.bounds`.
    near, minor
        Switch probabilities to the typed sites beside each site, and who has its minor allele.
    signature
        Shape (H,), uint64: breaks ties.
    """

    words: np.ndarray
    rho: np.ndarray
    err: np.ndarray
    position_cm: np.ndarray
    bounds: np.ndarray
    near: Flanks
    minor: SiteCarriers
    signature: np.ndarray


class NamingBuffers(NamedTuple):
    """Memory of a walk along one target.

    Attributes
    ----------
    forward
        Shape (T, S), float32.
    mass, backward, key
        Shape (S,), float32.
    mismatch
        Shape (S,), uint32.
    slot_of
        Shape (H,), int32: the number of each haplotype among the states, or -1.
    stamp
        Shape (S,), int64: the interval in which a state was named last.
    ranks, top
        Shape (K,), int64: the most probable states of an interval, the first ones first.
    held
        Shape (K,), int64: the state that each place holds, or -1.
    reach
        Shape (8,), float64.
    """

    forward: np.ndarray
    mass: np.ndarray
    backward: np.ndarray
    key: np.ndarray
    mismatch: np.ndarray
    slot_of: np.ndarray
    stamp: np.ndarray
    ranks: np.ndarray
    top: np.ndarray
    held: np.ndarray
    reach: np.ndarray


class NamedStates(NamedTuple):
    """What the walk fills for one target, at m sites from ``first_site`` on.

    Attributes
    ----------
    ids
        Shape (K, m), int32: panel haplotypes, -1 where there are fewer states.
    features
        Shape (K, m, F), float32.
    num_states
        Shape (m,), float32: the effective number of states, 1 / sum of squared posteriors.
    num_carriers
        Of the K, so many are kept for carriers of a rare minor allele.
    """

    ids: np.ndarray
    features: np.ndarray
    num_states: np.ndarray
    num_carriers: int
    first_site: int


@inlined
def _rank_of(s, key, states, signature):
    """The rank of a state: its mass, without the bits that rounding makes; then its signature."""
    return (np.int64(key.view(np.int32)[s] >> 10) << 42) | np.int64(
        signature[states[s]] >> np.uint64(22)
    )


@inlined
def _weigh(t, rho, total, buffers):
    """Write each state's posterior in the middle of the interval after typed site t into ``key``.

    Returns the sum of these, of their squares, and of the products of both sides' masses.
    """
    forward, backward, key = buffers.forward, buffers.backward, buffers.key
    n = key.shape[0]
    num_typed = rho.shape[0]
    cross = np.float32(1.0)
    if 0 <= t < num_typed - 1:
        cross = rho[t + 1]
    half = np.float32(1.0) - np.sqrt(np.float32(1.0) - cross)
    left = np.float32(1.0) if t < 0 else half
    right = np.float32(1.0) if t == num_typed - 1 else half
    if t < 0 or t == num_typed - 1:
        # Beyond the last typed site only one side says anything, and fully so.
        left, right = (left, np.float32(0.0)) if t < 0 else (np.float32(0.0), right)
    scale = np.float32(n) / total
    each = left / np.float32(n)
    row = max(t, 0)
    sum_1, sum_2, products = 0.0, 0.0, 0.0
    for s in range(n):
        f = np.float32(1.0) / np.float32(n) if t < 0 else forward[row, s]
        b = backward[s] * scale
        v = ((np.float32(1.0) - left) * f + each) * ((np.float32(1.0) - right) * b + right)
        key[s] = v
        sum_1 += v
        sum_2 += v * v
        products += f * b
    return sum_1, sum_2, products


@inlined
def _hold(t, size, num_held, buffers):
    """Give each of the ``num_held`` most probable states a place; one that has one keeps it."""
    held, top, stamp = buffers.held, buffers.top, buffers.stamp
    num = min(size, num_held)
    for i in range(num):
        stamp[top[i]] = t
    for k in range(num_held):
        if held[k] >= 0:
            if stamp[held[k]] == t:
                stamp[held[k]] = t - (1 << 40)  # has its place
            else:
                held[k] = -1
    free = 0
    for i in range(num):
        if stamp[top[i]] != t:
            stamp[top[i]] = t
            continue
        while held[free] >= 0:
            free += 1
        held[free] = top[i]


@inlined
def _describe(s, t, u, weights, one, panel, buffers, out):
    """Fill the features (F,) of state s at site u of the interval after typed site t.

    ``weights``: switch probabilities to both sides, the scale of backward masses, and what all
    posteriors add up to at the site.
    """
    near_left, near_right, scale, total = weights
    n = np.float32(buffers.key.shape[0])
    num_typed = panel.rho.shape[0]
    f = np.float32(1.0) / n if t < 0 else buffers.forward[max(t, 0), s]
    b = buffers.backward[s] * scale
    mass = ((1.0 - near_left) * f + near_left / n) * ((1.0 - near_right) * b + near_right) / total
    out[STATE.mass] = np.log(np.float32(mass + 1e-6))
    out[STATE.mass_left] = np.log(np.float32(f + 1e-6))
    out[STATE.mass_right] = np.log(np.float32(b / n + 1e-6))
    reach = buffers.reach
    find_reach(s, t, one, reach)
    cm = panel.position_cm[u]
    to_left = cm - one.typed_cm[max(t, 0)]
    to_right = one.typed_cm[min(t + 1, num_typed - 1)] - cm
    out[STATE.left] = np.log(np.float32(max(reach[REACH.cm_left] + to_left, 0.0) + 1e-3))
    out[STATE.right] = np.log(np.float32(max(reach[REACH.cm_right] + to_right, 0.0) + 1e-3))
    out[STATE.left_1] = np.log(np.float32(max(reach[REACH.cm_left_1] + to_left, 0.0) + 1e-3))
    out[STATE.right_1] = np.log(np.float32(max(reach[REACH.cm_right_1] + to_right, 0.0) + 1e-3))


@inlined
def _carriers_of(t, u, panel, states, buffers, best_ranks, best):
    """The most probable carriers of site u's minor allele that hold no place: how many there are.

    They go into ``best``. Only sites whose carriers the panel lists, the rare ones, have any here.
    """
    minor = panel.minor
    if minor.row[u] >= 0:
        return 0
    size = 0
    for i in range(minor.offsets[u], minor.offsets[u + 1]):
        s = buffers.slot_of[minor.carriers[i]]
        if s >= 0 and buffers.stamp[s] != t:
            rank = _rank_of(s, buffers.key, states, panel.signature)
            size = insert_state(rank, s, size, best.shape[0], best_ranks, best)
    return size


@inlined
def _name_interval(t, total, one, panel, buffers, best_ranks, best, out):
    """Name and describe the states of the sites between typed sites t and t + 1."""
    states = one.states[0]
    num = out.ids.shape[0]
    num_held = num - out.num_carriers
    sum_1, sum_2, products = _weigh(t, panel.rho, total, buffers)
    effective = np.float32(sum_1 * sum_1 / max(sum_2, 1e-37))
    key, ranks, top = buffers.key, buffers.ranks, buffers.top
    size = 0
    least = np.float32(-1.0)
    for s in range(key.shape[0]):
        if key[s] >= least:
            rank = _rank_of(s, key, states, panel.signature)
            size = insert_state(rank, s, size, num, ranks, top)
            if size == num:
                # Ranks leave out the last ten bits.
                least = key[top[num - 1]] * np.float32(1.0 - 2e-4)
    _hold(t, size, num_held, buffers)
    n = np.float32(key.shape[0])
    scale = n / total
    for u in range(panel.bounds[t + 1], panel.bounds[t + 2]):
        rl, rr = np.float64(panel.near.left[u]), np.float64(panel.near.right[u])
        both = (1.0 - rl) * (1.0 - rr) * products + (1.0 - rl) * rr + rl
        weights = (rl, rr, scale, both)
        i = u - out.first_site
        out.num_states[i] = effective
        for k in range(num_held):
            s = buffers.held[k]
            out.ids[k, i] = states[s] if s >= 0 else -1
            if s >= 0:
                _describe(s, t, u, weights, one, panel, buffers, out.features[k, i])
        found = 0
        if out.num_carriers > 0:
            found = _carriers_of(t, u, panel, states, buffers, best_ranks, best)
        for c in range(found):
            s = best[c]
            out.ids[num_held + c, i] = states[s]
            _describe(s, t, u, weights, one, panel, buffers, out.features[num_held + c, i])
        more = num_held
        for k in range(num_held + found, num):
            while more < size:
                is_new = True
                for c in range(found):
                    is_new = is_new and best[c] != top[more]
                if is_new:
                    break
                more += 1
            out.ids[k, i] = states[top[more]] if more < size else -1
            if more < size:
                _describe(top[more], t, u, weights, one, panel, buffers, out.features[k, i])
            more += 1


@kernel
def name_states(one, panel, buffers, best_ranks, best, out):
    """Walk along a target, and name and describe the most probable states of each core site.

    ``one``: :class:`ragimpute.evidence.match_lengths_kernel.Matched`, with states (1, S); ``panel``
    a :class:`SitesToName`, ``buffers`` :class:`NamingBuffers`, ``out`` :class:`NamedStates`;
    ``best_ranks`` and ``best`` (number of carriers,), int64, are buffers.
    """
    states, target, observed = one.states[0], one.target, one.observed
    rho, err, words = panel.rho, panel.err, panel.words
    n, num_typed = states.shape[0], rho.shape[0]
    mass, backward, mismatch = buffers.mass, buffers.backward, buffers.mismatch
    one.ends[:, 0] = num_typed + 1
    buffers.stamp[:] = -(1 << 41)
    buffers.held[:] = -1
    for s in range(n):
        buffers.slot_of[states[s]] = s
        mass[s] = np.float32(1.0) / np.float32(n)
        backward[s] = np.float32(1.0)
    scale = np.float32(1.0)
    for w in range(words.shape[0]):
        mismatch_words(words[w], states, target[w], observed[w], mismatch)
        for t in range(w * WORD, min(num_typed, (w + 1) * WORD)):
            total = forward_site(mass, mismatch, t - w * WORD, rho[t], scale, err[t])
            scale = np.float32(1.0) / total
            for s in range(n):
                buffers.forward[t, s] = mass[s] * scale
    total = np.float32(n)
    word = -1
    for t in range(num_typed - 1, -2, -1):
        if panel.bounds[t + 1] < panel.bounds[t + 2]:
            _name_interval(t, total, one, panel, buffers, best_ranks, best, out)
        if t >= 0:
            if t // WORD != word:
                word = t // WORD
                mismatch_words(words[word], states, target[word], observed[word], mismatch)
            gap = rho[t + 1] if t + 1 < num_typed else np.float32(1.0)
            total = backward_states(backward, mismatch, t - word * WORD, gap, total, err[t])
    for s in range(n):
        buffers.slot_of[states[s]] = -1
