"""The processor's level: the set of instructions for which kernels are compiled.

Machine code that is made for one processor model serves no other. A level is a set of
instructions that many models have, so that code compiled for it can ship and be copied. The names
are those of the x86-64 psABI, which LLVM knows as names of processors.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from typing import NamedTuple

# What a level asks for beyond the one before it (x86-64 psABI, section 3.1.1), in LLVM's words.
_X86_LEVELS = {
    "x86-64-v2": ("cx16", "sahf", "popcnt", "sse3", "ssse3", "sse4.1", "sse4.2"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}  # fmt: skip
# Levels whose kernels ship, by the machine's name.
_SHIPPED = {"x86_64": ("x86-64-v3", "x86-64-v4"), "aarch64": ("aarch64",)}


class Processor(NamedTuple):
    """What LLVM compiles for.

    Attributes
    ----------
    level
        The name of the level, which file names hold.
    cpu_name, features
        LLVM's name of the processor, and its list of features on and off ("+avx2,-fma").
    """

    level: str
    cpu_name: str
    features: str


def machine() -> str:
    """The kind of processor: "x86_64", "aarch64", or the system's own name of another kind."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def shipped_levels() -> tuple[str, ...]:
    """The levels whose kernels ship, for machines of this kind."""
    return _SHIPPED.get(machine(), ())


def processor_of(level: str) -> Processor:
    """What LLVM is told for a level."""
    # On aarch64 every processor has vectors (NEON) and fused products: there is one level.
    return Processor(level, "generic" if level == "aarch64" else level, "")


def this_processor() -> Processor:
    """The highest level that this machine's processor has.

    ``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` in the environment, which numba reads too, choose
    another one. ``NUMBA_ENABLE_AVX=0`` leaves out the levels with AVX.
    """
    wanted = os.environ.get("NUMBA_CPU_NAME")
    features = os.environ.get("NUMBA_CPU_FEATURES", "")
    if wanted:
        more = f"-{hashlib.sha256(features.encode()).hexdigest()[:8]}" if features else ""
        return Processor(re.sub(r"[^\w.-]", "_", wanted) + more, wanted, features)
    kind = machine()
    if kind == "aarch64":
        return processor_of(kind)
    if kind != "x86_64":
        return processor_of("generic")
    import llvmlite.binding as llvm

    found = llvm.get_host_cpu_features()
    without_avx = os.environ.get("NUMBA_ENABLE_AVX") == "0"
    level = "generic"
    for name, needed in _X86_LEVELS.items():
        if not all(found.get(feature, False) for feature in needed):
            break
        if without_avx and "avx2" in needed:
            break
        level = name
    return processor_of(level)


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
