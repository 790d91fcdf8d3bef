"""Count bits of words, in kernels: zeros at the low or the high end, and bits that are set."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types

from ragimpute.kernels.compile import kernel_intrinsic

WORD = 32


def _trailing_zeros(typing_context, word):
    """Index of the lowest set bit of a uint64 that is not 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


def _leading_zeros(typing_context, word):
    """Zero bits above the highest set bit of a uint32 that is not 0."""

    def codegen(context, builder, signature, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint32(types.uint32), codegen


trailing_zeros = kernel_intrinsic(
    _trailing_zeros, lambda word: np.uint64((int(word) & -int(word)).bit_length() - 1)
)

leading_zeros = kernel_intrinsic(
    _leading_zeros, lambda word: np.uint32(32 - int(word).bit_length())
)


def _num_set(typing_context, word):
    """How many bits of a uint32 are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint32(types.uint32), codegen


num_set = kernel_intrinsic(_num_set, lambda word: np.uint32(int(word).bit_count()))
