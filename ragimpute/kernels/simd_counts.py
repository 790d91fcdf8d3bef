"""A row of 32 uint16 as one value of numba kernels: a count for each of 32 target haplotypes.

It is one vector of the compiler's own, which stays in registers on any processor, as the rows of
masses in ``simd_floats`` are.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import register_model

from ragimpute.kernels.compile import kernel_intrinsic
from ragimpute.kernels.simd import PythonRow, VectorModel, bits_of, python_row, row_intrinsics

COUNTS = 32
_VECTOR = ir.VectorType(ir.IntType(16), COUNTS)


class Counts(types.Type):
    """The numba type of a row of 32 uint16."""

    vector = _VECTOR

    def __init__(self) -> None:
        super().__init__(name="Counts32")


counts_type = Counts()
register_model(Counts)(VectorModel)
load_counts, store_counts, repeated = row_intrinsics(counts_type, types.uint16)


def _added(typing_context, a, b):
    """The sum of two rows, count by count."""

    def codegen(context, builder, signature, args):
        return builder.add(args[0], args[1])

    return counts_type(counts_type, counts_type), codegen


def _smaller(typing_context, a, b):
    """The smaller of two rows, count by count."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.icmp_unsigned("<", args[0], args[1]), args[0], args[1])

    return counts_type(counts_type, counts_type), codegen


def _one_if_below(typing_context, a, b):
    """1 where ``a`` is less than ``b``, 0 elsewhere."""

    def codegen(context, builder, signature, args):
        return builder.zext(builder.icmp_unsigned("<", args[0], args[1]), _VECTOR)

    return counts_type(counts_type, counts_type), codegen


def _if_below(typing_context, a, b, yes, no):
    """``yes`` where ``a`` is less than ``b``, ``no`` elsewhere."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.icmp_unsigned("<", args[0], args[1]), args[2], args[3])

    return counts_type(*(counts_type,) * 4), codegen


def _below(typing_context, a, b):
    """Which counts of ``a`` are less than those of ``b``, as the bits of a uint64."""

    def codegen(context, builder, signature, args):
        bits = builder.icmp_unsigned("<", args[0], args[1])
        return builder.zext(builder.bitcast(bits, ir.IntType(COUNTS)), ir.IntType(64))

    return types.uint64(counts_type, counts_type), codegen


def _if_below_in_python(a: PythonRow, b: PythonRow, yes: PythonRow, no: PythonRow) -> PythonRow:
    return python_row(np.where(a < b, yes, no))


added = kernel_intrinsic(_added, lambda a, b: a + b)
smaller = kernel_intrinsic(_smaller, np.minimum)
one_if_below = kernel_intrinsic(_one_if_below, lambda a, b: python_row((a < b).astype(np.uint16)))
if_below = kernel_intrinsic(_if_below, _if_below_in_python)
below = kernel_intrinsic(_below, lambda a, b: bits_of(a < b))
