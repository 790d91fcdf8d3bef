"""How the compiler writes :mod:`ragimpute.kernels.shapes`."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.np.arrayobj import populate_array


def reshaped(typing_context, array, shape):
    """A C-contiguous array in another shape of as many numbers; nothing is checked or copied."""
    if not isinstance(array, types.Array) or array.layout != "C":
        return None
    made = array.copy(ndim=len(shape))

    def codegen(context, builder, signature, args):
        old = context.make_array(signature.args[0])(context, builder, args[0])
        lengths, step = cgutils.unpack_tuple(builder, args[1]), old.itemsize
        strides: list[Any] = []
        for length in reversed(lengths):
            strides.insert(0, step)
            step = builder.mul(step, length)
        new = context.make_array(made)(context, builder)
        populate_array(
            new, data=old.data, shape=lengths, strides=strides, itemsize=old.itemsize,
            meminfo=old.meminfo, parent=old.parent,
        )  # fmt: skip
        return new._getvalue()

    return made(array, shape), codegen
