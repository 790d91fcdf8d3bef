"""Transpose squares of 64 words of 64 bits, in kernels."""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import inlined

SQUARE = 64


@inlined
def turn_squares(rows, width):
    """Transpose ``width`` squares of 64 words of 64 bits in place, side by side.

    ``rows`` (64 * width,) has word i of square g at i * width + g: the same word of all squares
    lies side by side, so that a vector of the compiler's holds several of them. The method is that
    of Warren, Hacker's Delight, 2nd ed., section 7-3.
    """
    step = SQUARE // 2
    mask = np.uint64(0x00000000FFFFFFFF)
    while step:
        shift = np.uint64(step)
        size = step * width
        for first in range(0, SQUARE * width, 2 * size):
            # In slices the compiler can tell that no index is negative.
            low, high = rows[first : first + size], rows[first + size : first + 2 * size]
            for i in range(size):
                a, b = low[i], high[i]
                swapped = ((a >> shift) ^ b) & mask
                high[i] = b ^ swapped
                low[i] = a ^ (swapped << shift)
        step >>= 1
        mask ^= mask << np.uint64(max(step, 1)) if step else np.uint64(0)
