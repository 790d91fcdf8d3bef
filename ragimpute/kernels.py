"""How numba compiles kernels: without the GIL, and without counting references to arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

# Any: numba's type stubs leave out the option ``_nrt``. Without it every array that is passed on
# or sliced is counted, by an atomic instruction each: a third of the evidence's time. A kernel
# without the count may not allocate.
_njit: Any = njit


class _Cache(FunctionCache):
    """Compiled kernels on disk, found without the lists of all that numba can compile.

    numba fills these before it looks; it takes .2 s, and only a kernel that is compiled needs them
    (numba then fills them itself).
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


def kernel(function: Callable) -> Any:
    """What Python calls; the compiled form is kept on disk."""
    compiled = _njit(nogil=True, _nrt=False)(function)
    if hasattr(compiled, "_cache"):  # not where NUMBA_DISABLE_JIT leaves functions as they are
        compiled._cache = _Cache(function)
    return compiled


# What kernels call: it becomes part of them.
inlined = _njit(nogil=True, forceinline=True, _nrt=False)
# The same where sums may be reordered. A loop's last digits then depend on how it was compiled.
# Inlined by force, it is compiled once, within the kernel that the cache keeps; else a process that
# compiles runs other loops than one that finds them cached (posteriors differed by 4e-7, and ties
# with them).
inlined_reordered = _njit(
    nogil=True, forceinline=True, _nrt=False, fastmath={"reassoc", "contract", "nsz", "arcp"}
)
