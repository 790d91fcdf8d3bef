"""Li-Stephens copying of 16 target haplotypes at once, which all copy the same states.

Kernels hold only loops; the functions that call them check the arguments. Notation: T typed sites,
K states, M sites of a window. The mass of a state is a row of 16 lanes, one for each target. Masses
are stored without scaling, their sums beside them, and each step divides by the sum of the step
before. A state that one of the targets must not copy, because it is of the target's own sample, is
*hidden* from that lane: its mass there is 0.

The forward masses of all states at one typed site are called a row here. To save memory, a *step*
of 8 typed sites keeps only its first row; the others are computed again on the way back, while they
fit into the processor's cache. In long windows a *segment* of many steps keeps only its first row,
and the first rows of its steps are computed again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.carriers import SiteCarriers
from ragimpute.copying.forward_backward import any_of
from ragimpute.copying.window import Flanks
from ragimpute.kernels.bits import trailing_zeros
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.simd_floats import LANES, clamp, load, rows_of_lanes, splat, store

# Typed sites of a step. The rows of 600 states then take 300 KiB.
STEP = 8
# A float32 sum over thousands of states loses digits: sums of so many states are added up instead.
_PART = 128
# Bytes for the first rows of all steps, in each thread; longer windows are cut into segments.
_ROW_BYTES = 32 * 2**20


def segment_steps(num_typed: int, num_states: int) -> int:
    """Steps in a segment: all steps of a window if they fit into memory, else their square root."""
    steps = max(1, -(-num_typed // STEP))
    if steps * num_states * 4 * LANES <= _ROW_BYTES:
        return steps
    return int(np.ceil(np.sqrt(steps)))


class SharedTargets(NamedTuple):
    """Up to 16 targets that copy the same states, and the states' alleles.

    Attributes
    ----------
    alleles
        Shape (T, K), uint8: the states' alleles.
    target
        Shape (T, 16), int8: the targets' alleles, negative where nothing was observed.
    rho, err
        Shape (T,), float32: switch probability from the site before, mismatch probability.
    num_states
        Shape (16,), float32: the number of states that each lane may copy.
    hidden
        Shape (h, 2), int64: state and lane of each state that is hidden from a lane.
    is_hidden
        Shape (K,), bool: whether a state is hidden from any lane.
    """

    alleles: np.ndarray
    target: np.ndarray
    rho: np.ndarray
    err: np.ndarray
    num_states: np.ndarray
    hidden: np.ndarray
    is_hidden: np.ndarray


class SharedMasses(NamedTuple):
    """The buffers of one block of 16 targets; an array of rows has 16 columns.

    Attributes
    ----------
    starts
        The forward row at the first site of each segment.
    checkpoints
        The forward row at the first site of each step of one segment.
    rows
        The forward rows of one step.
    backward, backward_sum
        Backward masses, (K, 16), and a row with their sums.
    sums
        Row t + 1: the sums of the forward row at typed site t.
    emissions
        Two rows: P(observed alleles) if the state has allele 0, and if it has allele 1.
    keep, enter
        Single rows: factor of the mass that stays, and mass that enters each state.
    number
        A row for the carriers that each lane may copy at a site.
    sides
        Five rows, see :func:`set_sides`.
    """

    starts: np.ndarray
    checkpoints: np.ndarray
    rows: np.ndarray
    backward: np.ndarray
    backward_sum: np.ndarray
    sums: np.ndarray
    emissions: np.ndarray
    keep: np.ndarray
    enter: np.ndarray
    number: np.ndarray
    sides: np.ndarray


class SharedSites(NamedTuple):
    """Where P(ALT) of a block's targets is computed, from what, and where it is written.

    Attributes
    ----------
    bounds
        Shape (T + 2,), int64: sites [bounds[t + 1], bounds[t + 2]) follow typed site t.
    near
        Switch probabilities to the typed sites beside each site.
    minor
        Who has the minor allele of each site.
    flip
        Shape (M,), bool: whether the minor allele is REF.
    slot_of
        Shape (H,), int32: each haplotype's number among the states, or K if it is none.
    listed
        Shape (K,), int32: a buffer for the carriers of one site.
    kept
        Shape (sites of an interval, 4, 16): if not empty, it gets for each site of the interval the
        sums over its carriers of f b, f and b, and the number of carriers.
    first_site, first, width
        The site of row 0 of ``prob``; the targets' columns are [first, first + width).
    prob
        Shape (sites, n), float32.
    """

    bounds: np.ndarray
    near: Flanks
    minor: SiteCarriers
    flip: np.ndarray
    slot_of: np.ndarray
    listed: np.ndarray
    kept: np.ndarray
    first_site: int
    first: int
    width: int
    prob: np.ndarray


def shared_masses(num_typed: int, num_states: int) -> SharedMasses:
    """Allocate the buffers for one block of 16 targets."""
    steps = segment_steps(num_typed, num_states)
    segments = max(1, -(-num_typed // (steps * STEP)))
    return SharedMasses(
        starts=rows_of_lanes(segments + 1, num_states),
        checkpoints=rows_of_lanes(steps, num_states),
        rows=rows_of_lanes(STEP, num_states),
        backward=rows_of_lanes(num_states),
        backward_sum=rows_of_lanes(1),
        sums=rows_of_lanes(num_typed + 1),
        emissions=rows_of_lanes(2),
        keep=rows_of_lanes(1),
        enter=rows_of_lanes(1),
        number=rows_of_lanes(1),
        sides=rows_of_lanes(5),
    )


@inlined
def _set_emissions(target, err, emissions):
    """Set rows 0 and 1 of ``emissions``: P(observed alleles) if the state has allele 0 or 1."""
    hit = np.float32(1.0) - err
    for lane in range(LANES):
        emissions[0, lane] = err if target[lane] == 1 else hit
        emissions[1, lane] = err if target[lane] == 0 else hit


@inlined
def _move(before, after, alleles, hidden, masses, total):
    """Compute ``after`` = (``before`` * keep + enter) * emission, and its sum over states.

    ``total`` (1, 16) gets the sum. ``before`` and ``after`` may be the same array.
    """
    num_states = alleles.shape[0]
    k = load(masses.keep, 0)
    e = load(masses.enter, 0)
    whole = splat(np.float32(0.0))
    for first in range(0, num_states, _PART):
        part = splat(np.float32(0.0))
        for s in range(first, min(num_states, first + _PART)):
            v = (load(before, s) * k + e) * load(masses.emissions, np.int64(alleles[s]))
            store(after, s, v)
            part = part + v
        whole = whole + part
    store(total, 0, whole)
    for i in range(hidden.shape[0]):
        s, lane = hidden[i, 0], hidden[i, 1]
        total[0, lane] -= after[s, lane]
        after[s, lane] = np.float32(0.0)


@inlined
def _forward_site(t, before, after, targets, masses):
    """Compute the forward row of typed site t from the row of the site before."""
    rho, sums = targets.rho, masses.sums
    _set_emissions(targets.target[t], targets.err[t], masses.emissions)
    for lane in range(LANES):
        masses.keep[0, lane] = (np.float32(1.0) - rho[t]) / sums[t, lane]
        masses.enter[0, lane] = rho[t] / targets.num_states[lane]
    _move(before, after, targets.alleles[t], targets.hidden, masses, sums[t + 1 : t + 2])


@inlined
def _copy_rows(source, target):
    """Copy rows of lanes; both (K, 16)."""
    for s in range(source.shape[0]):
        store(target, s, load(source, s))


@inlined
def _forward_segment(segment, targets, masses):
    """Walk a segment from its first row; fill its checkpoints and the next segment's first row."""
    starts, checkpoints = masses.starts, masses.checkpoints
    first = segment * checkpoints.shape[0] * STEP
    last = min(targets.rho.shape[0], first + checkpoints.shape[0] * STEP)
    before = starts[segment]
    for t in range(first, last):
        if (t - first) % STEP == 0:
            _copy_rows(before, checkpoints[(t - first) // STEP])
        after = starts[segment + 1] if t == last - 1 else masses.rows[0]
        _forward_site(t, before, after, targets, masses)
        before = after


@inlined
def _forward_all(targets, masses):
    """Walk forward over all segments; set the backward masses to 1, or 0 where hidden."""
    # Any number does for the first row: rho[0] is 1, so it counts nothing.
    masses.starts[0, :, :] = np.float32(0.0)
    masses.sums[0, :] = np.float32(1.0)
    for segment in range(masses.starts.shape[0] - 1):
        _forward_segment(segment, targets, masses)
    masses.backward[:, :] = np.float32(1.0)
    for i in range(targets.hidden.shape[0]):
        masses.backward[targets.hidden[i, 0], targets.hidden[i, 1]] = np.float32(0.0)
    for lane in range(LANES):
        masses.backward_sum[0, lane] = targets.num_states[lane]


@inlined
def _step_rows(first, last, start, targets, masses):
    """Compute again the forward rows of the typed sites [first, last) of one step."""
    before = start
    for t in range(first, last):
        after = masses.rows[t - first]
        _forward_site(t, before, after, targets, masses)
        before = after


@inlined
def _backward_site(t, targets, masses):
    """Move backward masses from typed site t + 1 to site t, in place, and their sum.

    They include the emission at their own site.
    """
    rho, b = targets.rho, masses.backward
    gap = rho[t + 1] if t + 1 < rho.shape[0] else np.float32(0.0)
    _set_emissions(targets.target[t], targets.err[t], masses.emissions)
    for lane in range(LANES):
        total = masses.backward_sum[0, lane]
        masses.keep[0, lane] = (np.float32(1.0) - gap) * targets.num_states[lane] / total
        masses.enter[0, lane] = gap
    _move(b, b, targets.alleles[t], targets.hidden, masses, masses.backward_sum)


@inlined
def _set_sides(f, gap, forward_sum, num_states, masses):
    """Compute the factors of f and b in the interval between two typed sites.

    The rows of ``masses.sides`` (5, 16) get the factors of f b, of f and of b, then 1 over the sum
    of the posterior, then 1 / K. With these factors f and b each sum to 1, and f b is f times b
    times K. ``gap`` is the switch probability between the two sites.
    """
    b, sides = masses.backward, masses.sides
    whole = splat(np.float32(0.0))
    for first in range(0, f.shape[0], _PART):
        part = splat(np.float32(0.0))
        for s in range(first, min(f.shape[0], first + _PART)):
            part = part + load(f, s) * load(b, s)
        whole = whole + part
    store(sides, 0, whole)
    for lane in range(LANES):
        left = np.float32(1.0) / forward_sum[lane]
        right = np.float32(1.0) / masses.backward_sum[0, lane]
        both = left * right * num_states[lane]
        sides[3, lane] = np.float32(1.0) / ((np.float32(1.0) - gap) * sides[0, lane] * both + gap)
        sides[0, lane] = both
        sides[1, lane] = left
        sides[2, lane] = right
        sides[4, lane] = np.float32(1.0) / num_states[lane]


@inlined
def list_carriers(u, minor, slot_of, num_states, listed):
    """List the states with the minor allele of site u in ``listed``; returns their number."""
    count = 0
    row = minor.row[u]
    if row < 0:
        for i in range(minor.offsets[u], minor.offsets[u + 1]):
            s = slot_of[minor.carriers[i]]
            if s < num_states:
                listed[count] = s
                count += 1
    else:
        for w in range(minor.bits.shape[1]):
            word = minor.bits[row, w]
            while word != np.uint64(0):
                s = slot_of[w * 64 + np.int64(trailing_zeros(word))]
                word &= word - np.uint64(1)
                if s < num_states:
                    listed[count] = s
                    count += 1
    return count


@inlined
def copy_interval(t, f, targets, masses, sites):
    """Write P(ALT) of each lane at the sites of one interval into ``sites.prob``.

    The interval follows typed site t, or is before the first typed site if t is -1; ``f`` (K, 16)
    has the forward masses there.
    """
    rho, b = targets.rho, masses.backward
    gap = rho[t + 1] if 0 <= t < rho.shape[0] - 1 else np.float32(1.0)
    _set_sides(f, gap, masses.sums[t + 1], targets.num_states, masses)
    num_states = f.shape[0]
    sides, number, listed = masses.sides, masses.number, sites.listed
    scale_both, scale_left = load(sides, 0), load(sides, 1)
    scale_right, inverse = load(sides, 2), load(sides, 3)
    share = load(sides, 4)
    one = np.float32(1.0)
    start, stop = sites.bounds[t + 1], sites.bounds[t + 2]
    for u in range(start, stop):
        count = list_carriers(u, sites.minor, sites.slot_of, num_states, listed)
        both = splat(np.float32(0.0))
        left = splat(np.float32(0.0))
        right = splat(np.float32(0.0))
        for i in range(count):
            s = np.int64(listed[i])
            x = load(f, s)
            y = load(b, s)
            both = both + x * y
            left = left + x
            right = right + y
        number[0, :] = np.float32(count)
        _count_visible(listed, count, targets, number)
        if sites.kept.shape[0] > 0:
            kept = sites.kept[u - start]
            store(kept, 0, both)
            store(kept, 1, left)
            store(kept, 2, right)
            store(kept, 3, load(number, 0))
        l = sites.near.left[u]  # noqa: E741
        r = sites.near.right[u]
        p = (
            splat((one - l) * (one - r)) * (both * scale_both)
            + splat((one - l) * r) * (left * scale_left)
            + splat(l * (one - r)) * (right * scale_right)
            + splat(l * r) * (load(number, 0) * share)
        ) * inverse
        p = clamp(p)
        if sites.flip[u]:
            p = splat(one) - p
        store(number, 0, p)
        for lane in range(sites.width):
            sites.prob[u - sites.first_site, sites.first + lane] = number[0, lane]


@inlined
def _count_visible(listed, count, targets, number):
    """Subtract from each lane's ``number`` (1, 16) of carriers those that are hidden from it."""
    hidden = targets.hidden
    if hidden.shape[0] == 0:
        return
    for i in range(count):
        if targets.is_hidden[listed[i]]:
            for j in range(hidden.shape[0]):
                if hidden[j, 0] == listed[i]:
                    number[0, hidden[j, 1]] -= np.float32(1.0)


@inlined
def _uniform_row(row, targets):
    """Set the forward row for sites before the first typed site: 1 / K, or 0 where hidden."""
    for lane in range(LANES):
        row[:, lane] = np.float32(1.0) / targets.num_states[lane]
    for i in range(targets.hidden.shape[0]):
        row[targets.hidden[i, 0], targets.hidden[i, 1]] = np.float32(0.0)


@inlined
def walk_shared(targets, masses, wanted, visit, given):
    """Walk a block of targets over a window, and visit its intervals from the last to the first.

    ``wanted`` (T + 1,), bool: entry t + 1 says whether to visit the interval that follows typed
    site t; entry 0 is for the sites before the first typed site. In each, the walk calls
    ``visit(t, f, targets, masses, given)``, where ``f`` (K, 16) has the forward masses, and
    ``masses.backward`` the backward masses. It ends after the last visit.
    """
    num_typed = targets.rho.shape[0]
    lowest = -1
    while lowest < num_typed and not wanted[lowest + 1]:
        lowest += 1
    if lowest == num_typed:
        return
    _forward_all(targets, masses)
    starts, checkpoints, rows = masses.starts, masses.checkpoints, masses.rows
    for segment in range(starts.shape[0] - 2, -1, -1):
        begin = segment * checkpoints.shape[0] * STEP
        end = min(num_typed, begin + checkpoints.shape[0] * STEP)
        if segment < starts.shape[0] - 2:
            _forward_segment(segment, targets, masses)
        # Step -1 stands for the sites before the first typed site.
        for step in range((end - begin - 1) // STEP, -1 if segment else -2, -1):
            first = begin + step * STEP if step >= 0 else -1
            last = min(end, first + STEP) if step >= 0 else 0
            if last <= lowest:
                return
            if step < 0:
                _uniform_row(rows[0], targets)
            elif any_of(wanted, first + 1, last + 1):  # rows only where a visit needs them
                _step_rows(first, last, checkpoints[step], targets, masses)
            for t in range(last - 1, first - 1, -1):
                if wanted[t + 1]:
                    visit(t, rows[t - first], targets, masses, given)
                if step >= 0:
                    _backward_site(t, targets, masses)


@kernel
def copy_shared(targets, masses, wanted, sites):
    """Write P(ALT) of a block's targets at the sites of the ``wanted`` intervals.

    ``targets``: SharedTargets; ``masses``: SharedMasses; ``sites``: SharedSites.
    """
    walk_shared(targets, masses, wanted, copy_interval, sites)
