"""A row of 16 float32 as one value of numba kernels: a lane for each of 16 target haplotypes.

The panel is the same for all targets. A kernel that copies 16 of them together reads it once, and
finds the masses of one panel haplotype for all 16 side by side. If kernels looped over the 16
lanes, the compiler would have to check at each turn that arrays do not overlap. A value of type
``Lanes`` is one vector of the compiler's own instead, which stays in registers on any processor.

Lanes never mix: what one holds does not depend, to the last bit, on what is in the other 15.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import overload, register_model

from ragimpute.kernels.compile import kernel_intrinsic
from ragimpute.kernels.simd import (
    PythonRow,
    VectorModel,
    bits_of,
    python_row,
    row_address,
    row_intrinsics,
)

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
load, store, splat = row_intrinsics(lanes_type, types.float32)


def _arithmetic(name: str, in_python: Any) -> Any:
    """The intrinsic of a builder's operation on two rows of lanes."""

    def operation(typing_context, a, b):
        def codegen(context, builder, signature, args):
            return getattr(builder, name)(args[0], args[1], flags=_FLAGS)

        return lanes_type(lanes_type, lanes_type), codegen

    return kernel_intrinsic(operation, in_python)


_add = _arithmetic("fadd", operator.add)
_subtract = _arithmetic("fsub", operator.sub)
_multiply = _arithmetic("fmul", operator.mul)
_divide = _arithmetic("fdiv", operator.truediv)


def _register(operation: Any, of_lanes: Any) -> None:
    """Let an operator of two rows of lanes stand for its intrinsic."""

    @overload(operation)
    def typed(a, b):
        if isinstance(a, Lanes) and isinstance(b, Lanes):
            return lambda a, b: of_lanes(a, b)
        return None


_register(operator.add, _add)
_register(operator.sub, _subtract)
_register(operator.mul, _multiply)
_register(operator.truediv, _divide)


def _clamp(typing_context, a):
    """Each lane kept in [0, 1]."""

    def codegen(context, builder, signature, args):
        value = args[0]
        for name, limit in (("<", 0.0), (">", 1.0)):
            bound = ir.Constant(_VECTOR, [limit] * LANES)
            value = builder.select(builder.fcmp_ordered(name, value, bound), bound, value)
        return value

    return lanes_type(lanes_type), codegen


def _larger(typing_context, a, b):
    """The larger of two rows, lane by lane."""

    def codegen(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[0], args[1])

    return lanes_type(lanes_type, lanes_type), codegen


def _reached(typing_context, a, bound):
    """Which lanes of ``a`` are at least ``bound``, as the bits of a uint64."""

    def codegen(context, builder, signature, args):
        bits = builder.fcmp_ordered(">=", args[0], args[1])
        return builder.zext(builder.bitcast(bits, ir.IntType(LANES)), ir.IntType(64))

    return types.uint64(lanes_type, lanes_type), codegen


def _masked(typing_context, a, bits):
    """``a`` where the low 16 bits of a uint64 are set, 0 elsewhere."""

    def codegen(context, builder, signature, args):
        short = builder.trunc(args[1], ir.IntType(LANES))
        mask = builder.bitcast(short, ir.VectorType(ir.IntType(1), LANES))
        return builder.select(mask, args[0], ir.Constant(_VECTOR, None))

    return lanes_type(lanes_type, types.uint64), codegen


def _total(typing_context, a):
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


def _turn(typing_context, array):
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


def _masked_in_python(a: PythonRow, bits: np.uint64) -> PythonRow:
    kept = [a[i] if int(bits) >> i & 1 else 0.0 for i in range(LANES)]
    return python_row(np.array(kept, np.float32))


def _total_in_python(a: PythonRow) -> np.float32:
    numbers = np.asarray(a)
    while len(numbers) > 1:
        numbers = numbers[: len(numbers) // 2] + numbers[len(numbers) // 2 :]
    return np.float32(numbers[0])


def _turn_in_python(array: np.ndarray) -> None:
    array[:] = array.T.copy()


clamp = kernel_intrinsic(_clamp, lambda a: np.clip(a, np.float32(0), np.float32(1)))
larger = kernel_intrinsic(_larger, np.maximum)
masked = kernel_intrinsic(_masked, _masked_in_python)
total = kernel_intrinsic(_total, _total_in_python)
reached = kernel_intrinsic(_reached, lambda a, bound: bits_of(a >= bound))
turn = kernel_intrinsic(_turn, _turn_in_python)


def rows_of_lanes(*shape: int) -> np.ndarray:
    """Zeros of shape (..., 16), float32, each row of which lies on one line of the cache.

    A row that lies across two lines of the processor's cache costs two reads.
    """
    line = 4 * LANES
    size = int(np.prod(shape)) * line
    raw = np.zeros(size + line, np.uint8)
    first = -raw.ctypes.data % line
    return raw[first : first + size].view(np.float32).reshape(*shape, LANES)
