"""A row of 16 float32 as one value of numba kernels: a lane for each of 16 target haplotypes.

The panel is the same for all targets. A kernel that copies 16 of them together reads it once, and
finds the masses of one panel haplotype for all 16 side by side. If kernels looped over the 16
lanes, the compiler would have to check at each turn that arrays do not overlap. A value of type
``Lanes`` is one vector of the compiler's own instead, which stays in registers on any processor.

Lanes never mix: what one holds does not depend, to the last bit, on what is in the other 15.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel_intrinsic
from ragimpute.kernels.simd import PythonRow, bits_of, python_row, row_intrinsics

LANES = 16
_CODE = "ragimpute.kernels.simd_floats_code"

load, store, splat = row_intrinsics(_CODE, LANES, np.float32)


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


clamp = kernel_intrinsic(f"{_CODE}:clamp", lambda a: np.clip(a, np.float32(0), np.float32(1)))
larger = kernel_intrinsic(f"{_CODE}:larger", np.maximum)
masked = kernel_intrinsic(f"{_CODE}:masked", _masked_in_python)
total = kernel_intrinsic(f"{_CODE}:total", _total_in_python)
reached = kernel_intrinsic(f"{_CODE}:reached", lambda a, bound: bits_of(a >= bound))
turn = kernel_intrinsic(f"{_CODE}:turn", _turn_in_python)


def rows_of_lanes(*shape: int) -> np.ndarray:
    """Zeros of shape (..., 16), float32, each row of which lies on one line of the cache.

    A row that lies across two lines of the processor's cache costs two reads.
    """
    line = 4 * LANES
    size = int(np.prod(shape)) * line
    raw = np.zeros(size + line, np.uint8)
    first = -raw.ctypes.data % line
    return raw[first : first + size].view(np.float32).reshape(*shape, LANES)
