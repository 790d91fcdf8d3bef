"""Kernels that unpack the haplotypes of a panel's file."""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.bit_transpose import SQUARE, turn_squares
from ragimpute.kernels.compile import kernel


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
