"""How much memory a run may use, and what it makes of it.

What grows with a run's size is bounded here: the panel's window by its sites, the targets that are
imputed at once, and their probabilities, which wait on disk until a window's rows are complete.
Only the window's bound can change a result, as a window ends in a buffer; the others cannot.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ragimpute.errors import InputError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# A run that may use more gains nothing by it: its windows and batches are as large as pays.
ENOUGH_BYTES = 2**30
_TORCH_BYTES = 250 * 2**20
_LEAST_BYTES = 48 * 2**20
_LIMIT_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def parse_size(text: str) -> int:
    """Bytes of "800M", "4G", "1.5GiB" or "2000000000"; K, M, G and T are powers of 1,024.

    Raises
    ------
    InputError
        If it is none of these, or not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, flags=re.IGNORECASE)
    size = float(match[1]) * _UNITS[match[2].upper()] if match else 0
    if not size >= 1:
        raise InputError(f"memory size {text!r} cannot be read", hint="write e.g. 4G or 800M")
    return int(size)


def resident_bytes() -> int:
    """What this process holds in memory now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_bytes() -> int:
    """What the system, and the control group that the process runs in, have left."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        pass
    for limit, usage in _LIMIT_FILES:
        try:
            found.append(int(Path(limit).read_text()) - int(Path(usage).read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    if not found:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(found))


def give_back() -> None:
    """Return what was freed to the system, where its C library (glibc) can; it keeps it else."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@dataclass(frozen=True)
class MemoryPlan:
    """Bounds on what a run holds at once.

    Attributes
    ----------
    max_bytes
        What the process may use in all.
    window_bytes
        Of a window of the panel, with what is built from it.
    batch_bytes
        Of the target haplotypes that are imputed at once.
    spool_bytes
        Of probabilities that wait for their rows; more of them wait on disk.
    tile_bytes
        Of the rows that are formatted at once.
    """

    max_bytes: int
    window_bytes: int
    batch_bytes: int
    spool_bytes: int
    tile_bytes: int


def plan_memory(max_memory: int | None, *, uses_torch: bool) -> MemoryPlan:
    """Share out what a run may use.

    Parameters
    ----------
    max_memory
        Bytes that the process may use; None: what is free.
    uses_torch
        Whether torch will be needed, and so its memory must be left.

    Raises
    ------
    InputError
        If ``max_memory`` is less than what the program itself needs.
    """
    held = resident_bytes()
    if uses_torch and "torch" not in sys.modules:
        held += _TORCH_BYTES
    total = min(ENOUGH_BYTES, held + free_bytes()) if max_memory is None else max_memory
    work = total - held
    if max_memory is None:
        work = max(work, _LEAST_BYTES)
    elif work < _LEAST_BYTES:
        need = -(-(held + _LEAST_BYTES) // 2**20)
        raise InputError(
            f"--max-memory {max_memory // 2**20}M is too little: the program and its libraries "
            f"alone need {held // 2**20}M",
            hint=f"give it {need}M or more",
        )
    return MemoryPlan(total, work // 2, work // 8, work // 16, min(16 * 2**20, work // 32))
