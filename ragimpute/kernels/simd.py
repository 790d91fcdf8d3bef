"""What all types of rows have in common that kernels use as single values.

A row of 16 or 32 numbers is one vector of the compiler's own, so that it stays in the processor's
registers, whatever the processor. ``simd_floats`` has the rows of 16 float32 that hold masses, and
``simd_counts`` the rows of 32 uint16 that hold counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models
from numba.np.numpy_support import as_dtype

from ragimpute.kernels.compile import kernel_intrinsic


class PythonRow(np.ndarray):
    """A row, where kernels run as Python instead of machine code.

    Like the compiler's vectors it is a value: ``a += b`` makes another row, and leaves other names
    for the old one as they were.
    """

    def __iadd__(self, other: Any) -> Any:  # type: ignore[misc]
        return self + other

    def __isub__(self, other: Any) -> Any:  # type: ignore[misc]
        return self - other

    def __imul__(self, other: Any) -> Any:  # type: ignore[misc]
        return self * other

    def __itruediv__(self, other: Any) -> Any:  # type: ignore[misc]
        return self / other


def python_row(numbers: np.ndarray) -> PythonRow:
    """A copy of numbers as a row."""
    return np.array(numbers).view(PythonRow)


def bits_of(flags: np.ndarray) -> np.uint64:
    """Flags of a row as the bits of a uint64, the first one lowest."""
    return np.uint64(sum(1 << i for i in np.flatnonzero(flags).tolist()))


class VectorModel(models.PrimitiveModel):
    """Tells numba that a row is one LLVM vector, which its type names as ``vector``."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.vector)


class RowIntrinsics(NamedTuple):
    """The operations that every type of rows has, as intrinsics that kernels call.

    Attributes
    ----------
    load
        ``load(array, i)``: row i of an array, shape (rows, width), C-contiguous.
    store
        ``store(array, i, value)``: write row i of an array.
    repeat
        ``repeat(number)``: a row that has the same number in all places.
    """

    load: Any
    store: Any
    repeat: Any


def row_address(
    vector: Any, context: Any, builder: Any, array_type: Any, array: Any, i: Any
) -> Any:
    """Address of row ``i`` of a C-contiguous array whose rows are as long as the vector."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    at = builder.gep(data, [builder.mul(i, ir.Constant(i.type, vector.count))], inbounds=True)
    return builder.bitcast(at, vector.as_pointer())


def row_intrinsics(kind: Any, number: Any) -> RowIntrinsics:
    """The intrinsics of a type of rows of a numba type of numbers."""
    vector, align = kind.vector, number.bitwidth // 8

    def load(typing_context, array, i):
        def codegen(context, builder, signature, args):
            at = row_address(vector, context, builder, signature.args[0], args[0], args[1])
            return builder.load(at, align=align)

        return kind(array, types.intp), codegen

    def store(typing_context, array, i, value):
        def codegen(context, builder, signature, args):
            at = row_address(vector, context, builder, signature.args[0], args[0], args[1])
            builder.store(args[2], at, align=align)
            return context.get_dummy_value()

        return types.void(array, types.intp, kind), codegen

    def repeat(typing_context, value):
        def codegen(context, builder, signature, args):
            blank = ir.Constant(vector, ir.Undefined)
            one = builder.insert_element(blank, args[0], ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
            return builder.shuffle_vector(one, blank, zeros)

        return kind(number), codegen

    width, dtype = vector.count, as_dtype(number)

    def load_in_python(array: np.ndarray, i: int) -> PythonRow:
        return python_row(array.reshape(-1, width)[i])

    def store_in_python(array: np.ndarray, i: int, value: PythonRow) -> None:
        array.reshape(-1, width)[i] = value

    def repeat_in_python(value: Any) -> PythonRow:
        return np.full(width, value, dtype).view(PythonRow)

    return RowIntrinsics(
        kernel_intrinsic(load, load_in_python),
        kernel_intrinsic(store, store_in_python),
        kernel_intrinsic(repeat, repeat_in_python),
    )
