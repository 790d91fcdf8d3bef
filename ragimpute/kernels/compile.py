"""How numba compiles kernels: without the GIL, and without counting references to arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numba import njit
from numba.core import config as numba_config
from numba.extending import intrinsic

from ragimpute.kernels.store import PROCESSOR, KernelStore

# Machine code is made for a level of processors rather than for this model, so that it can ship
# and be copied. numba reads this when it makes its compiler, which is when the first function is
# decorated; from then on it holds for all that numba compiles in this process.
_config: Any = numba_config  # numba sets its names at run time
_config.CPU_NAME, _config.CPU_FEATURES = PROCESSOR.cpu_name, PROCESSOR.features

# Any: numba's type stubs leave out the option ``_nrt``. Without it every array that is passed on
# or sliced is counted, by an atomic instruction each: a third of the evidence's time. A kernel
# without the count may not allocate.
_njit: Any = njit


def kernel(function: Callable[..., Any]) -> Any:
    """Make a kernel, which Python calls; :mod:`ragimpute.kernels.store` has its compiled form."""
    if _config.DISABLE_JIT:
        return _as_python(function)
    compiled = _njit(nogil=True, _nrt=False)(function)
    compiled._cache = KernelStore(function)
    return compiled


def _as_python(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that stays Python; as in machine code, overflowing numbers raise no warning."""

    @wraps(function)
    def call(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args)

    return call


def kernel_intrinsic(definition: Callable[..., Any], python_form: Callable[..., Any]) -> Any:
    """Make a function that kernels call, and that the compiler writes itself.

    Parameters
    ----------
    definition
        As ``numba.extending.intrinsic`` takes it.
    python_form
        A function that does the same in Python. It is used where ``NUMBA_DISABLE_JIT=1`` leaves
        kernels as Python, for a debugger to step through. Tests compare the two.
    """
    if _config.DISABLE_JIT:
        return python_form
    made: Any = intrinsic(definition)
    made.python_form = python_form
    return made


# For functions that kernels call, and that become part of them.
inlined = _njit(nogil=True, forceinline=True, _nrt=False)
# The same for functions whose sums may be reordered. The last digits of such a sum depend on how
# its loop was compiled. As the function is always inlined, the loop is compiled once, within the
# kernel that is kept on disk. Otherwise a process that compiles would run other loops than one that
# reads the kernel from disk: posteriors differed by 4e-7, and with them the order of ties.
inlined_reordered = _njit(
    nogil=True, forceinline=True, _nrt=False, fastmath={"reassoc", "contract", "nsz", "arcp"}
)
