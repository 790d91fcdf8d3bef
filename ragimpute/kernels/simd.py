"""What all types of rows have in common that kernels use as single values.

A row of 16 or 32 numbers is one vector of the compiler's own, so that it stays in the processor's
registers, whatever the processor. ``simd_floats`` has the rows of 16 float32 that hold masses, and
``simd_counts`` the rows of 32 uint16 that hold counts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

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


def row_intrinsics(code: str, width: int, dtype: Any) -> RowIntrinsics:
    """The intrinsics of a type of rows of so many numbers.

    Parameters
    ----------
    code
        The module that has their definitions: ``load``, ``store`` and ``repeat``.
    width, dtype
        How many numbers a row has, and of which numpy type.
    """

    def load_in_python(array: np.ndarray, i: int) -> PythonRow:
        return python_row(array.reshape(-1, width)[i])

    def store_in_python(array: np.ndarray, i: int, value: PythonRow) -> None:
        array.reshape(-1, width)[i] = value

    def repeat_in_python(value: Any) -> PythonRow:
        return np.full(width, value, dtype).view(PythonRow)

    return RowIntrinsics(
        kernel_intrinsic(f"{code}:load", load_in_python),
        kernel_intrinsic(f"{code}:store", store_in_python),
        kernel_intrinsic(f"{code}:repeat", repeat_in_python),
    )
