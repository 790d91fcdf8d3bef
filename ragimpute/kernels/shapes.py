"""Arrays in another shape, in kernels.

numba's ``reshape`` calls a function of numba's own library, which is only there once numba has been
imported; see :mod:`ragimpute.kernels.loader`.
"""

from __future__ import annotations

import numpy as np

from ragimpute.kernels.compile import kernel_intrinsic


def _in_python(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return array.reshape(shape)


#: ``reshaped(array, shape)``: a C-contiguous array in another shape of as many numbers. Both share
#: their memory. ``shape`` is a tuple of whole numbers; machine code does not check their product.
reshaped = kernel_intrinsic("ragimpute.kernels.shapes_code:reshaped", _in_python)
