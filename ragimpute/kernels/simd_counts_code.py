"""How the compiler writes the operations of :mod:`ragimpute.kernels.simd_counts`."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import register_model

from ragimpute.kernels.simd_code import VectorModel, row_definitions

COUNTS = 32
_VECTOR = ir.VectorType(ir.IntType(16), COUNTS)


class Counts(types.Type):
    """The numba type of a row of 32 uint16."""

    vector = _VECTOR

    def __init__(self) -> None:
        super().__init__(name="Counts32")


counts_type = Counts()
register_model(Counts)(VectorModel)
load, store, repeat = row_definitions(counts_type, types.uint16)


def added(typing_context, a, b):
    """The sum of two rows, count by count."""

    def codegen(context, builder, signature, args):
        return builder.add(args[0], args[1])

    return counts_type(counts_type, counts_type), codegen


def smaller(typing_context, a, b):
    """The smaller of two rows, count by count."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.icmp_unsigned("<", args[0], args[1]), args[0], args[1])

    return counts_type(counts_type, counts_type), codegen


def one_if_below(typing_context, a, b):
    """1 where ``a`` is less than ``b``, 0 elsewhere."""

    def codegen(context, builder, signature, args):
        return builder.zext(builder.icmp_unsigned("<", args[0], args[1]), _VECTOR)

    return counts_type(counts_type, counts_type), codegen


def if_below(typing_context, a, b, yes, no):
    """``yes`` where ``a`` is less than ``b``, ``no`` elsewhere."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.icmp_unsigned("<", args[0], args[1]), args[2], args[3])

    return counts_type(*(counts_type,) * 4), codegen


def below(typing_context, a, b):
    """Which counts of ``a`` are less than those of ``b``, as the bits of a uint64."""

    def codegen(context, builder, signature, args):
        bits = builder.icmp_unsigned("<", args[0], args[1])
        return builder.zext(builder.bitcast(bits, ir.IntType(COUNTS)), ir.IntType(64))

    return types.uint64(counts_type, counts_type), codegen
