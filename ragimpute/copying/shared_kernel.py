"""Li-Stephens copying of 16 target haplotypes at once, where all of them copy the same states.

Kernels hold only loops; ``copying`` checks what goes in. Notation: T typed sites, K states, M
sites of a window. The mass of a state is a row of 16 lanes, one for each target. Masses are stored
as they come, and their sums beside them, by which the next step divides. A state that one of the
targets must not copy (it is of its own sample) is *hidden* from that lane: its mass there is 0.

Forward rows are kept at the first site of each step of 8 typed sites, and the rows in between are
computed once more on the way back, so that they stay in the processor's cache. Long windows keep
only the first row of each segment of many steps, and walk each segment once more.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.bits import trailing_zeros
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.kernels.simd_floats import LANES, clamp, load, rows_of_lanes, splat, store

# Typed sites whose rows are in memory at once; 600 states' rows of 16 lanes then take 300 KiB.
STEP = 8
# Float32 sums of thousands of states lose digits: so many are added up first.
_PART = 128
# One thread's forward rows; longer windows are cut into segments.
_ROW_BYTES = 32 * 2**20


def segment_steps(num_typed: int, num_states: int) -> int:
    """Steps of a segment: all of a window's if their rows fit the memory, else their root."""
    steps = max(1, -(-num_typed // STEP))
    if steps * num_states * 4 * LANES <= _ROW_BYTES:
        return steps
    return int(np.ceil(np.sqrt(steps)))


def lanes_scratch(num_typed: int, num_states: int) -> tuple[np.ndarray, ...]:
    """Buffers of one block's walk.

    Segment starts, a segment's checkpoints, a step's rows, backward masses, sums of the forward
    rows, and a few single rows.
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
    """Rows 0 and 1 of ``emit``: probability of the observed alleles given panel allele 0 or 1."""
    hit = np.float32(1.0) - err
    for lane in range(LANES):
        emit[0, lane] = err if target[lane] == 1 else hit
        emit[1, lane] = err if target[lane] == 0 else hit


@inlined
def move(before, after, alleles, emit, keep, enter, hidden, total):
    """``after`` = (``before`` keep + enter) times the emission of each state; its sum to ``total``.

    ``emit`` (2, 16); keep, enter and total are single rows, (1, 16). ``before`` may be ``after``.
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
    """The forward row of typed site t from the one before."""
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
    """Walk a segment from its first row: its checkpoints, and the next segment's first row.

    Row i of ``sums`` belongs to the row before typed site i.
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
    """Walk all segments, and set the backward masses at the end: 1, and 0 where hidden."""
    starts[0, :, :] = np.float32(0.0)  # whatever it is: before the first site all is switched
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
    """Forward rows of the typed sites [first, last) of a step, once more."""
    before = start
    for t in range(first, last):
        after = rows[t - first]
        forward_site(t, before, after, alleles, target, rho, err, num_states, hidden, sums, single)
        before = after


@inlined
def backward_site(t, b, alleles, target, rho, err, num_states, hidden, backward_sum, single):
    """``b`` of typed site t + 1, its emission included, becomes that of typed site t.

    ``backward_sum`` (1, 16) is the sum of ``b``, before and after.
    """
    gap = rho[t + 1] if t + 1 < rho.shape[0] else np.float32(0.0)
    set_emissions(target[t], err[t], single[0:2])
    for lane in range(LANES):
        single[2, lane] = (np.float32(1.0) - gap) * num_states[lane] / backward_sum[0, lane]
        single[3, lane] = gap
    move(b, b, alleles[t], single[0:2], single[2:3], single[3:4], hidden, backward_sum)


@inlined
def set_sides(f, b, gap, forward_sum, backward_sum, num_states, sides):
    """Factors of the masses between two typed sites, rows of ``sides`` (5, 16).

    Those of f b, of f, and of b, such that the masses of f sum to 1 and those of b have mean 1 (b
    then counts by 1 / K); 1 over the sum of the posterior; 1 / K. ``gap``: the switch probability
    between the two sites.
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
    """States that have the minor allele of site u, into ``listed``; returns how many."""
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
    """P(ALT) of each lane at the sites [start, stop) between two typed sites, into ``out``.

    Where there is room in ``kept`` (sites, 4, 16), it gets what carriers sum to: masses f b, f, b,
    and how many they are.

    ``sides``: see :func:`set_sides`; ``is_hidden`` (K,): the state is hidden from some lane.
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
    """What is known before the first typed site: all states that a lane sees alike, sum 1."""
    for lane in range(LANES):
        row[:, lane] = np.float32(1.0) / num_states[lane]
    for i in range(hidden.shape[0]):
        row[hidden[i, 0], hidden[i, 1]] = np.float32(0.0)


@kernel
def copy_lanes(
    alleles, target, rho, err, num_states, hidden, is_hidden, bounds, near, compact, slot_of, flip,
    scratch, listed, core, column, width, out,
):  # fmt: skip
    """P(ALT) of a block's lanes at all core sites, into columns of ``out`` (core sites, n).

    ``alleles`` (T, K) uint8 of the states; ``target`` (T, 16) int8; ``num_states`` (16,) float32,
    states that each lane sees; ``hidden`` (h, 2): state, lane; ``core``: the first core site.
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
