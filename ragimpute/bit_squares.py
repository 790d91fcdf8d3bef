"""Squares of 64 words of 64 bits in kernels, and what a panel's file asks of them."""

from __future__ import annotations

import numpy as np

from ragimpute.kernels import inlined, kernel

SQUARE = 64


@inlined
def turn_squares(rows, width):
    """Transpose ``width`` squares of 64 words of 64 bits in place, side by side.

    ``rows`` (64 * width,): word i of square g at i * width + g. All words of some rows lie side by
    side, so that the compiler's vectors hold several (Warren, Hacker's Delight, 2nd ed., 7-3).
    """
    step = SQUARE // 2
    mask = np.uint64(0x00000000FFFFFFFF)
    while step:
        shift = np.uint64(step)
        size = step * width
        for first in range(0, SQUARE * width, 2 * size):
            # Slices, whose places are not negative, as the compiler can tell.
            low, high = rows[first : first + size], rows[first + size : first + 2 * size]
            for i in range(size):
                a, b = low[i], high[i]
                swapped = ((a >> shift) ^ b) & mask
                high[i] = b ^ swapped
                low[i] = a ^ (swapped << shift)
        step >>= 1
        mask ^= mask << np.uint64(max(step, 1)) if step else np.uint64(0)


@kernel
def fill_rows(patterns, index, squares, out):
    """Rows of bits (64, G) of haplotypes whose 64 bits are ``patterns[index[h]]``.

    ``index`` (H,) unsigned; ``squares`` (64, w): a buffer.
    """
    width = squares.shape[1]
    num = index.shape[0]
    for begin in range(0, out.shape[1], width):
        here = min(width, out.shape[1] - begin)
        for g in range(here):
            first = (begin + g) * SQUARE
            for i in range(SQUARE):
                h = first + i
                squares[i, g] = patterns[index[h]] if h < num else np.uint64(0)
        turn_squares(squares.reshape(-1), width)
        for i in range(SQUARE):
            for g in range(here):
                out[i, begin + g] = squares[i, g]


@kernel
def add_gaps(gaps, offsets, out):
    """Carriers (C,) int32 from each site's first carrier and the distances to the next ones.

    What is no int32 becomes -1.
    """
    for site in range(offsets.shape[0] - 1):
        total = np.int64(0)
        for i in range(offsets[site], offsets[site + 1]):
            total += np.int64(gaps[i])
            out[i] = np.int32(total) if total < 2**31 else np.int32(-1)
