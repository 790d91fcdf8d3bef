"""How the compiler writes what all types of rows have in common: see ``simd``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import models


class VectorModel(models.PrimitiveModel):
    """Tells numba that a row is one LLVM vector, which its type names as ``vector``."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.vector)


def row_address(
    vector: Any, context: Any, builder: Any, array_type: Any, array: Any, i: Any
) -> Any:
    """Address of row ``i`` of a C-contiguous array whose rows are as long as the vector."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    at = builder.gep(data, [builder.mul(i, ir.Constant(i.type, vector.count))], inbounds=True)
    return builder.bitcast(at, vector.as_pointer())


def row_definitions(kind: Any, number: Any) -> tuple[Callable[..., Any], ...]:
    """How rows of a numba type of numbers are loaded, stored, and filled with one number."""
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

    return load, store, repeat
