"""How the compiler writes the operations of :mod:`ragimpute.kernels.simd_floats`."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload, register_model

from ragimpute.kernels.simd_code import VectorModel, row_address, row_definitions

LANES = 16
_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
# Products and sums may be fused; nothing is reordered.
_FLAGS = ("contract",)


class Lanes(types.Type):
    """The numba type of a row of 16 float32."""

    vector = _VECTOR

    def __init__(self) -> None:
        super().__init__(name="Lanes16")


lanes_type = Lanes()
register_model(Lanes)(VectorModel)
load, store, repeat = row_definitions(lanes_type, types.float32)


def _register(operation: Any, name: str) -> None:
    """Let an operator of two rows of lanes stand for an operation of the builder."""

    def of_two(typing_context, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, name)(args[0], args[1], flags=_FLAGS)

        return lanes_type(lanes_type, lanes_type), codegen

    of_lanes: Any = intrinsic(of_two)

    @overload(operation)
    def typed(a, b):
        if isinstance(a, Lanes) and isinstance(b, Lanes):
            return lambda a, b: of_lanes(a, b)
        return None


_register(operator.add, "fadd")
_register(operator.sub, "fsub")
_register(operator.mul, "fmul")
_register(operator.truediv, "fdiv")


def clamp(typing_context, a):
    """Each lane kept in [0, 1]."""

    def codegen(context, builder, signature, args):
        value = args[0]
        for name, limit in (("<", 0.0), (">", 1.0)):
            bound = ir.Constant(_VECTOR, [limit] * LANES)
            value = builder.select(builder.fcmp_ordered(name, value, bound), bound, value)
        return value

    return lanes_type(lanes_type), codegen


def larger(typing_context, a, b):
    """The larger of two rows, lane by lane."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return lanes_type(lanes_type, lanes_type), codegen


def reached(typing_context, a, bound):
    """Which lanes of ``a`` are at least ``bound``, as the bits of a uint64."""

    def codegen(context, builder, signature, args):
        bits = builder.fcmp_ordered(">=", args[0], args[1])
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(lanes_type, lanes_type), codegen


def masked(typing_context, a, bits):
    """``a`` where the low 16 bits of a uint64 are set, 0 elsewhere."""

    def codegen(context, builder, signature, args):
        short = builder.trunc(args[1], ir.IntType(LANES))
        mask = builder.bitcast(short, ir.VectorType(ir.IntType(1), LANES))
        return builder.select(mask, args[0], ir.Constant(_VECTOR, None))

    return lanes_type(lanes_type, types.uint64), codegen


def total(typing_context, a):
    """The sum of all lanes: the two halves are added, then the halves of that, and so on."""

    def codegen(context, builder, signature, args):
        value = args[0]
        for width in (8, 4, 2, 1):
            index = ir.VectorType(ir.IntType(32), width)
            blank = ir.Constant(value.type, ir.Undefined)
            halves = [
                builder.shuffle_vector(
                    value, blank, ir.Constant(index, list(range(first, first + width)))
                )
                for first in (0, width)
            ]
            value = builder.fadd(*halves)
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return types.float32(lanes_type), codegen


def turn(typing_context, array):
    """Transpose an array of shape (16, 16), float32, C-contiguous, in place."""

    def codegen(context, builder, signature, args):
        first = ir.Constant(ir.IntType(64), 0)
        at = [
            row_address(
                _VECTOR, context, builder, signature.args[0], args[0], ir.Constant(first.type, i)
            )
            for i in range(LANES)
        ]
        rows = [builder.load(place, align=4) for place in at]
        step = LANES // 2
        while step:  # squares of this many rows and columns change places
            low = [k if not k & step else LANES + k - step for k in range(LANES)]
            high = [k + step if not k & step else LANES + k for k in range(LANES)]
            index = ir.VectorType(ir.IntType(32), LANES)
            for i in range(LANES):
                if not i & step:
                    a, b = rows[i], rows[i + step]
                    rows[i] = builder.shuffle_vector(a, b, ir.Constant(index, low))
                    rows[i + step] = builder.shuffle_vector(a, b, ir.Constant(index, high))
            step //= 2
        for place, row in zip(at, rows, strict=True):
            builder.store(row, place, align=4)
        return context.get_dummy_value()

    return types.void(array), codegen
