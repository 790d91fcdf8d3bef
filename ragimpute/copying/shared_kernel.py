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

import numpy as np

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


def lanes_scratch(num_typed: int, num_states: int) -> tuple[np.ndarray, ...]:
    """Allocate the buffers for one block of 16 targets.

    In this order: the first row of each segment; the first row of each step of one segment
    (checkpoints); the rows of one step; backward masses; sums of all forward rows; a few rows of 16
    numbers for other uses.
    """
    steps = segment_steps(num_typed, num_states)
    segments = max(1, -(-num_typed // (steps * STEP)))
    return (
        rows_of_lanes(segments + 1, num_states),
        rows_of_lanes(steps, num_states),
        rows_of_lanes(STEP, num_states),
        rows_of_lanes(num_states),
        rows_of_lanes(num_typed + 1),
        rows_of_lanes(16),
    )


@inlined
def set_emissions(target, err, emit):
    """Set rows 0 and 1 of ``emit``: P(observed alleles) if the state has allele 0 or 1."""
    hit = np.float32(1.0) - err
    for lane in range(LANES):
        emit[0, lane] = err if target[lane] == 1 else hit
        emit[1, lane] = err if target[lane] == 0 else hit


@inlined
def move(before, after, alleles, emit, keep, enter, hidden, total):
    """Compute ``after`` = (``before`` * keep + enter) * emission, and its sum over states.

    ``emit`` (2, 16) has the emissions by allele. ``keep``, ``enter`` and ``total``, which gets the
    sum, are single rows, (1, 16). ``before`` and ``after`` may be the same array.
    """
    num_states = alleles.shape[0]
    k = load(keep, 0)
    e = load(enter, 0)
    whole = splat(np.float32(0.0))
    for first in range(0, num_states, _PART):
        part = splat(np.float32(0.0))
        for s in range(first, min(num_states, first + _PART)):
            v = (load(before, s) * k + e) * load(emit, np.int64(alleles[s]))
            store(after, s, v)
            part = part + v
        whole = whole + part
    store(total, 0, whole)
    for i in range(hidden.shape[0]):
        s, lane = hidden[i, 0], hidden[i, 1]
        total[0, lane] -= after[s, lane]
        after[s, lane] = np.float32(0.0)


@inlined
def forward_site(t, before, after, alleles, target, rho, err, num_states, hidden, sums, single):
    """Compute the forward row of typed site t from the row of the site before."""
    set_emissions(target[t], err[t], single[0:2])
    for lane in range(LANES):
        single[2, lane] = (np.float32(1.0) - rho[t]) / sums[t, lane]
        single[3, lane] = rho[t] / num_states[lane]
    move(before, after, alleles[t], single[0:2], single[2:3], single[3:4], hidden,
         sums[t + 1 : t + 2])  # fmt: skip


@inlined
def copy_rows(source, target):
    """Copy rows of lanes; both (K, 16)."""
    for s in range(source.shape[0]):
        store(target, s, load(source, s))


@inlined
def forward_segment(
    segment, alleles, target, rho, err, num_states, hidden, starts, checkpoints, rows, sums, single
):
    """Walk a segment from its first row; fill its checkpoints and the next segment's first row.

    Row i of ``sums`` is the sum of the forward row at typed site i - 1.
    """
    num_typed = rho.shape[0]
    first = segment * checkpoints.shape[0] * STEP
    last = min(num_typed, first + checkpoints.shape[0] * STEP)
    before = starts[segment]
    for t in range(first, last):
        if (t - first) % STEP == 0:
            copy_rows(before, checkpoints[(t - first) // STEP])
        after = starts[segment + 1] if t == last - 1 else rows[0]
        forward_site(t, before, after, alleles, target, rho, err, num_states, hidden, sums, single)
        before = after


@inlined
def forward_lanes(
    alleles, target, rho, err, num_states, hidden, starts, checkpoints, rows, b, sums, single
):
    """Walk forward over all segments; set the backward masses to 1, or 0 where hidden."""
    starts[0, :, :] = np.float32(0.0)  # any number does: rho[0] is 1, so it counts nothing
    sums[0, :] = np.float32(1.0)
    for segment in range(starts.shape[0] - 1):
        forward_segment(segment, alleles, target, rho, err, num_states, hidden, starts,
                        checkpoints, rows, sums, single)  # fmt: skip
    b[:, :] = np.float32(1.0)
    for i in range(hidden.shape[0]):
        b[hidden[i, 0], hidden[i, 1]] = np.float32(0.0)


@inlined
def step_rows(
    first, last, start, alleles, target, rho, err, num_states, hidden, rows, sums, single
):
    """Compute again the forward rows of the typed sites [first, last) of one step."""
    before = start
    for t in range(first, last):
        after = rows[t - first]
        forward_site(t, before, after, alleles, target, rho, err, num_states, hidden, sums, single)
        before = after


@inlined
def backward_site(t, b, alleles, target, rho, err, num_states, hidden, backward_sum, single):
    """Move backward masses ``b`` from typed site t + 1 to site t, in place.

    They include the emission at their own site. ``backward_sum`` (1, 16), their sum, is updated.
    """
    gap = rho[t + 1] if t + 1 < rho.shape[0] else np.float32(0.0)
    set_emissions(target[t], err[t], single[0:2])
    for lane in range(LANES):
        single[2, lane] = (np.float32(1.0) - gap) * num_states[lane] / backward_sum[0, lane]
        single[3, lane] = gap
    move(b, b, alleles[t], single[0:2], single[2:3], single[3:4], hidden, backward_sum)


@inlined
def set_sides(f, b, gap, forward_sum, backward_sum, num_states, sides):
    """Compute the factors of f and b in the interval between two typed sites.

    The rows of ``sides`` (5, 16) get the factors of f b, of f and of b, then 1 over the sum of the
    posterior, then 1 / K. With these factors f and b each sum to 1, and f b is f times b times K.
    ``gap`` is the switch probability between the two sites.
    """
    whole = splat(np.float32(0.0))
    for first in range(0, f.shape[0], _PART):
        part = splat(np.float32(0.0))
        for s in range(first, min(f.shape[0], first + _PART)):
            part = part + load(f, s) * load(b, s)
        whole = whole + part
    store(sides, 0, whole)
    for lane in range(LANES):
        left = np.float32(1.0) / forward_sum[lane]
        right = np.float32(1.0) / backward_sum[lane]
        both = left * right * num_states[lane]
        sides[3, lane] = np.float32(1.0) / ((np.float32(1.0) - gap) * sides[0, lane] * both + gap)
        sides[0, lane] = both
        sides[1, lane] = left
        sides[2, lane] = right
        sides[4, lane] = np.float32(1.0) / num_states[lane]


@inlined
def list_carriers(u, compact, slot_of, num_states, listed):
    """List the states with the minor allele of site u in ``listed``; returns their number."""
    offsets, carriers, row, bits = compact
    count = 0
    if row[u] < 0:
        for i in range(offsets[u], offsets[u + 1]):
            s = slot_of[carriers[i]]
            if s < num_states:
                listed[count] = s
                count += 1
    else:
        for w in range(bits.shape[1]):
            word = bits[row[u], w]
            while word != np.uint64(0):
                s = slot_of[w * 64 + np.int64(trailing_zeros(word))]
                word &= word - np.uint64(1)
                if s < num_states:
                    listed[count] = s
                    count += 1
    return count


@inlined
def carry_lanes(
    start, stop, f, b, sides, near, compact, slot_of, hidden, is_hidden, single, listed, flip, core,
    column, width, kept, out,
):  # fmt: skip
    """Write P(ALT) of each lane at the sites [start, stop) of one interval into ``out``.

    If ``kept`` (sites, 4, 16) is not empty, it gets for each site the sums over the carriers of
    f b, f and b, and the number of carriers. ``sides``: see :func:`set_sides`; ``is_hidden`` (K,):
    whether a state is hidden from any lane.
    """
    num_states = f.shape[0]
    scale_both, scale_left = load(sides, 0), load(sides, 1)
    scale_right, inverse = load(sides, 2), load(sides, 3)
    share = load(sides, 4)
    one = np.float32(1.0)
    for u in range(start, stop):
        count = list_carriers(u, compact, slot_of, num_states, listed)
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
        single[0, :] = np.float32(count)
        if hidden.shape[0] > 0:
            for i in range(count):
                if is_hidden[listed[i]]:
                    for j in range(hidden.shape[0]):
                        if hidden[j, 0] == listed[i]:
                            single[0, hidden[j, 1]] -= one
        if kept.shape[0] > 0:
            sums = kept[u - start]
            store(sums, 0, both)
            store(sums, 1, left)
            store(sums, 2, right)
            store(sums, 3, load(single, 0))
        l = near[0][u]  # noqa: E741
        r = near[1][u]
        p = (
            splat((one - l) * (one - r)) * (both * scale_both)
            + splat((one - l) * r) * (left * scale_left)
            + splat(l * (one - r)) * (right * scale_right)
            + splat(l * r) * (load(single, 0) * share)
        ) * inverse
        p = clamp(p)
        if flip[u]:
            p = splat(one) - p
        store(single, 0, p)
        for lane in range(width):
            out[u - core, column + lane] = single[0, lane]


@inlined
def uniform_row(row, num_states, hidden):
    """Set the forward row for sites before the first typed site: 1 / K, or 0 where hidden."""
    for lane in range(LANES):
        row[:, lane] = np.float32(1.0) / num_states[lane]
    for i in range(hidden.shape[0]):
        row[hidden[i, 0], hidden[i, 1]] = np.float32(0.0)


@kernel
def copy_lanes(
    alleles, target, rho, err, num_states, hidden, is_hidden, bounds, near, compact, slot_of, flip,
    scratch, listed, core, column, width, out,
):  # fmt: skip
    """Write P(ALT) of a block's targets at all core sites into columns of ``out`` (core sites, n).

    ``alleles`` (T, K), uint8: the states' alleles; ``target`` (T, 16), int8: the targets' alleles;
    ``num_states`` (16,), float32: the number of states that each lane may copy; ``hidden`` (h, 2):
    state and lane of hidden states; ``core``: the first core site.
    """
    starts, checkpoints, rows, b, sums, single = scratch
    num_typed = rho.shape[0]
    forward_lanes(alleles, target, rho, err, num_states, hidden, starts, checkpoints, rows, b,
                  sums, single)  # fmt: skip
    backward_sum, sides = single[4:5], single[8:13]
    for lane in range(LANES):
        backward_sum[0, lane] = num_states[lane]
    for segment in range(starts.shape[0] - 2, -1, -1):
        begin = segment * checkpoints.shape[0] * STEP
        end = min(num_typed, begin + checkpoints.shape[0] * STEP)
        if segment < starts.shape[0] - 2:
            forward_segment(segment, alleles, target, rho, err, num_states, hidden, starts,
                            checkpoints, rows, sums, single)  # fmt: skip
        for step in range((end - begin - 1) // STEP, -1, -1):
            first = begin + step * STEP
            last = min(end, first + STEP)
            step_rows(first, last, checkpoints[step], alleles, target, rho, err, num_states,
                      hidden, rows, sums, single)  # fmt: skip
            for t in range(last - 1, first - 1, -1):
                if bounds[t + 1] < bounds[t + 2]:
                    row = rows[t - first]
                    gap = rho[t + 1] if t + 1 < num_typed else np.float32(1.0)
                    set_sides(row, b, gap, sums[t + 1], backward_sum[0], num_states, sides)
                    carry_lanes(
                        bounds[t + 1], bounds[t + 2], row, b, sides, near, compact, slot_of,
                        hidden, is_hidden, single[5:6], listed, flip, core, column, width,
                        starts[:0], out,
                    )  # fmt: skip
                backward_site(t, b, alleles, target, rho, err, num_states, hidden, backward_sum,
                              single)  # fmt: skip
    if bounds[0] < bounds[1]:
        uniform_row(rows[0], num_states, hidden)
        set_sides(rows[0], b, np.float32(1.0), sums[0], backward_sum[0], num_states, sides)
        carry_lanes(
            bounds[0], bounds[1], rows[0], b, sides, near, compact, slot_of, hidden, is_hidden,
            single[5:6], listed, flip, core, column, width, starts[:0], out,
        )  # fmt: skip
