"""Pack rows of numbers that are mostly 0: bits say which are not 0, and only those are kept.

Kernels hold only loops.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.bits import trailing_zeros
from ragimpute.kernels.compile import kernel
from ragimpute.kernels.shapes import reshaped
from ragimpute.kernels.simd_floats import LANES, load, reached, splat

WORD = 64
_LEAST = np.float32(1e-45)  # there is no smaller number above 0


@kernel
def pack_rows(rows, low, high, masks, counts, values):
    """Pack columns [low, high) of ``rows`` (b, m), float32 >= 0; returns how many are not 0.

    ``masks`` (b, ceil((high - low) / 64)), uint64, gets the bits: bit i of word w stands for column
    low + 64 w + i. ``counts`` (b,) gets the numbers that are kept of each row, and ``values`` the
    numbers themselves; it has room for all.
    """
    least = splat(_LEAST)
    num = 0
    for b in range(rows.shape[0]):
        row, mask = rows[b, low:high], masks[b]
        before = num
        whole = row.shape[0] // LANES
        lanes = reshaped(row[: whole * LANES], (whole, LANES))
        mask[:] = np.uint64(0)
        for i in range(whole):
            found = reached(load(lanes, i), least)
            mask[(i * LANES) // WORD] |= found << np.uint64((i * LANES) % WORD)
            while found != np.uint64(0):
                values[num] = row[i * LANES + np.int64(trailing_zeros(found))]
                found &= found - np.uint64(1)
                num += 1
        for i in range(whole * LANES, row.shape[0]):
            if row[i] > np.float32(0.0):
                mask[i // WORD] |= np.uint64(1) << np.uint64(i % WORD)
                values[num] = row[i]
                num += 1
        counts[b] = num - before
    return num


@kernel
def unpack_rows(masks, counts, values, at, low, first, out):
    """Unpack rows into columns of ``out`` (m, n), which holds zeros, from row ``low`` on.

    Packed row i becomes column ``first`` + i. All are unpacked side by side, so that what they
    write stays in the cache. ``at`` (b,) is a buffer.
    """
    place = 0
    for b in range(masks.shape[0]):
        at[b] = place
        place += counts[b]
    for w in range(masks.shape[1]):
        for b in range(masks.shape[0]):
            word = masks[b, w]
            while word != np.uint64(0):
                i = w * WORD + np.int64(trailing_zeros(word))
                word &= word - np.uint64(1)
                out[low + i, first + b] = values[at[b]]
                at[b] += 1
