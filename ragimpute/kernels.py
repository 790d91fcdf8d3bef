"""How numba compiles kernels: without the GIL, and without counting references to arrays."""

from __future__ import annotations

from typing import Any

from numba import njit

# Any: numba's type stubs leave out the option ``_nrt``. Without it every array that is passed on
# or sliced is counted, by an atomic instruction each: a third of the evidence's time. A kernel
# without the count may not allocate.
_njit: Any = njit

# What Python calls; the compiled form is kept on disk.
kernel = _njit(nogil=True, cache=True, _nrt=False)
# What kernels call: it becomes part of them.
inlined = _njit(nogil=True, forceinline=True, _nrt=False)
# The same where sums may be reordered. A loop's last digits then depend on how it was compiled.
# Inlined by force, it is compiled once, within the kernel that the cache keeps; else a process that
# compiles runs other loops than one that finds them cached (posteriors differed by 4e-7, and ties
# with them).
inlined_reordered = _njit(
    nogil=True, forceinline=True, _nrt=False, fastmath={"reassoc", "contract", "nsz", "arcp"}
)
