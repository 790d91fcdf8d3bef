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
    """What Python calls; its compiled form is on disk, see :mod:`ragimpute.kernels.store`."""
    if _config.DISABLE_JIT:
        return _as_python(function)
    compiled = _njit(nogil=True, _nrt=False)(function)
    compiled._cache = KernelStore(function)
    return compiled


def _as_python(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that stays Python, where numbers of a fixed width overflow in silence, too."""

    @wraps(function)
    def call(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args)

    return call


def kernel_intrinsic(definition: Callable[..., Any], python_form: Callable[..., Any]) -> Any:
    """What kernels call and the compiler knows; numba compiles no Python for it.

    Parameters
    ----------
    definition
        As ``numba.extending.intrinsic`` takes it.
    python_form
        What does the same in Python. It stands for it where ``NUMBA_DISABLE_JIT=1`` leaves kernels
        as Python, for a debugger to step through; tests hold the two to each other.
    """
    if _config.DISABLE_JIT:
        return python_form
    made: Any = intrinsic(definition)
    made.python_form = python_form
    return made


# What kernels call: it becomes part of them.
inlined = _njit(nogil=True, forceinline=True, _nrt=False)
# The same where sums may be reordered. A loop's last digits then depend on how it was compiled.
# Inlined by force, it is compiled once, within the kernel that is kept on disk; else a process that
# compiles runs other loops than one that finds them there (posteriors differed by 4e-7, and ties
# with them).
inlined_reordered = _njit(
    nogil=True, forceinline=True, _nrt=False, fastmath={"reassoc", "contract", "nsz", "arcp"}
)
