"""A row of 32 uint16 as one value of numba kernels: a count for each of 32 target haplotypes.

It is one vector of the compiler's own, which stays in registers on any processor, as the rows of
masses in ``simd_floats`` are.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel_intrinsic
from ragimpute.kernels.simd import PythonRow, bits_of, python_row, row_intrinsics

COUNTS = 32
_CODE = "ragimpute.kernels.simd_counts_code"

load_counts, store_counts, repeated = row_intrinsics(_CODE, COUNTS, np.uint16)


def _if_below_in_python(a: PythonRow, b: PythonRow, yes: PythonRow, no: PythonRow) -> PythonRow:
    return python_row(np.where(a < b, yes, no))


added = kernel_intrinsic(f"{_CODE}:added", lambda a, b: a + b)
smaller = kernel_intrinsic(f"{_CODE}:smaller", np.minimum)
one_if_below = kernel_intrinsic(
    f"{_CODE}:one_if_below", lambda a, b: python_row((a < b).astype(np.uint16))
)
if_below = kernel_intrinsic(f"{_CODE}:if_below", _if_below_in_python)
below = kernel_intrinsic(f"{_CODE}:below", lambda a, b: bits_of(a < b))
