"""What numba loads before its first kernel, less what no kernel here needs.

numba asks scipy for BLAS as it starts, which loads all of scipy.linalg: .23 of the .45 s that pass
before the first kernel runs. No kernel here multiplies matrices, so the program (not the library:
its users may) answers that there is none.
"""

from __future__ import annotations

import importlib
import sys

_BLAS = "scipy.linalg.cython_blas"


def start_without_blas() -> None:
    """Load numba's array functions without BLAS; matrix products in kernels are refused then."""
    if _BLAS in sys.modules:
        return
    sys.modules[_BLAS] = None  # type: ignore[assignment]  # to import: there is no such module
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules[_BLAS]
