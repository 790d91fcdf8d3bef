"""A row of 32 uint16 as one value of numba kernels: a count for each of 32 target haplotypes.

As ``lanes`` has it for masses: a vector of the compiler's own, kept in registers on any processor.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

COUNTS = 32
_VECTOR = ir.VectorType(ir.IntType(16), COUNTS)


class Counts(types.Type):
    """The numba type of a row of 32 uint16."""

    def __init__(self) -> None:
        super().__init__(name="Counts32")


counts_type = Counts()


@register_model(Counts)
class _CountsModel(models.PrimitiveModel):
    """Counts are one LLVM vector."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, i: Any) -> Any:
    """Address of row ``i`` of a C-contiguous array of uint16, 32 to a row."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    at = builder.gep(data, [builder.mul(i, ir.Constant(i.type, COUNTS))], inbounds=True)
    return builder.bitcast(at, _VECTOR.as_pointer())


def _load(typing_context, array, i):
    """Row ``i`` of an array, shape (rows, 32), uint16, C-contiguous."""

    def codegen(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load(at, align=2)

    return counts_type(array, types.intp), codegen


def _store(typing_context, array, i, value):
    """Write ``value`` to row ``i`` of an array, shape (rows, 32), uint16, C-contiguous."""

    def codegen(context, builder, signature, args):
        at = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store(args[2], at, align=2)
        return context.get_dummy_value()

    return types.void(array, types.intp, counts_type), codegen


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


def _repeated(typing_context, value):
    """The same number, uint16, in all places."""

    def codegen(context, builder, signature, args):
        one = builder.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), COUNTS), None)
        return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)

    return counts_type(types.uint16), codegen


def _below(typing_context, a, b):
    """Which counts of ``a`` are less than those of ``b``, as the bits of a uint64."""

    def codegen(context, builder, signature, args):
        bits = builder.icmp_unsigned("<", args[0], args[1])
        return builder.zext(builder.bitcast(bits, ir.IntType(COUNTS)), ir.IntType(64))

    return types.uint64(counts_type, counts_type), codegen


def _num_set(typing_context, word):
    """How many bits of a uint32 are set."""

    def codegen(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.uint32(types.uint32), codegen


# Any: to a type checker the call of an intrinsic takes the typing context too.
load_counts: Any = intrinsic(_load)
store_counts: Any = intrinsic(_store)
added: Any = intrinsic(_added)
smaller: Any = intrinsic(_smaller)
one_if_below: Any = intrinsic(_one_if_below)
if_below: Any = intrinsic(_if_below)
repeated: Any = intrinsic(_repeated)
below: Any = intrinsic(_below)
num_set: Any = intrinsic(_num_set)
