"""How the compiler writes the operations of :mod:`ragimpute.kernels.bits`."""

from __future__ import annotations

from llvmlite import ir
from numba import types


def trailing_zeros(typing_context, word):
    """Index of the lowest set bit of a uint64 that is not 0."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


def leading_zeros(typing_context, word):
    """Zero bits above the highest set bit of a uint32 that is not 0."""

    def codegen(context, builder, signature, args):
        return builder.ctlz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint32(types.uint32), codegen


def num_set(typing_context, word):
    """How many bits of a uint32 are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint32(types.uint32), codegen
