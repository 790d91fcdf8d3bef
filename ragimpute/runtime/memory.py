"""How much memory a run may use, and how it is shared out.

Three things grow with a run's size and are bounded here: the sites of a window of the panel, the
targets that are imputed at once, and the probabilities that wait until a window's rows are
complete, on disk if need be. Only the bound of the window can change a result, since each window
has a buffer at both ends.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragimpute.errors import InputError, RagimputeError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# With more memory than this a run is no faster: larger windows and batches do not help.
ENOUGH_BYTES = 2**30
# The states of all blocks of targets, or of left-out samples, that are copied at the same time, by
# one thread; see :func:`state_bytes`.
STATE_BYTES = 128 * 2**20
# Of a panel that is too large to be held at all sites, a window's typed sites are held for all
# haplotypes, those of its buffers too: shorter windows would need nearly as much.
ENOUGH_WIDE_BYTES = 7 * 2**28
_TORCH_BYTES = 250 * 2**20
_LEAST_BYTES = 48 * 2**20
# What a run holds for each site of the panel before its first window; measured: 230 bytes.
_TABLE_BYTES = 256
# If less of a bound is left, windows are cut by what is really held.
_ROOM_BYTES = 128 * 2**20
# What the program and its libraries hold, the unit in which memory is asked for, and how much more
# than its bound a run may use at its peak. Measured with 100 targets and a panel of 10,000
# haplotypes and 112,453 sites: 746 MB of a bound of 1,024, and 1,042 MB of 1,024 if all sites are
# typed.
_PROGRAM_BYTES = 350 * 2**20
_UNIT_MB = 128
_ABOVE_BOUND = 1.25
# Bytes for each site of a window besides carriers and bits: positions, counts, offsets.
_BYTES_PER_SITE = 96
# A window's carriers and bits are held twice, by site and by haplotype, and the bits as patterns,
# too, which are a quarter as large. The bits of typed sites are held as words, transposed, and
# again in the indexes by which haplotypes are retrieved.
_WINDOW_FACTOR = 2.25
_TYPED_FACTOR = 4.0
# Of each haplotype, 32 typed sites take two numbers of 32 bits in the lists by which haplotypes are
# retrieved, and half a byte in classes. A run with a million haplotypes, 100 targets and a bound of
# 1 GiB held 900 MiB.
_WIDE_TYPED_BYTES = 9 / 32
# Arrays of this size are given back to the system when they are freed, see :func:`hold_freed`:
# where memory is bounded, and elsewhere. glibc takes no more than the latter.
_LARGE_BYTES, _LARGE_BYTES_UNBOUNDED = 4 * 2**20, 32 * 2**20
# Where memory is not bounded, so much that is free is held for arrays to come.
_HELD_BYTES = 64 * 2**20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
# Only numpy and Python raise MemoryError. torch raises a RuntimeError (a kind of its own on a GPU),
# on a CPU "can't allocate memory: you tried to ..."; CUDA's libraries say that an allocation
# failed, and faiss passes on what C++ or CUDA told it.
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can'?t allocate memory|cannot allocate memory|bad_alloc"
    r"|alloc[ _]fail|memory allocation",
    re.IGNORECASE,
)
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
    """Bytes that this process holds in memory now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_bytes() -> int:
    """Bytes that are free, the fewer of the system's and of this process's control group."""
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
        except (OSError, ValueError):  # there is no such file, or it says "max"
            continue
    if not found:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return max(0, min(found))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a CPU or a GPU; it may be of any library."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


def is_of_gpu(error: BaseException) -> bool:
    """Whether what ran out is a GPU's memory."""
    return bool(re.search(r"\bcu(da|blas|dnn|sparse|solver)", str(error), re.IGNORECASE))


@contextmanager
def memory_explained(explain: Callable[[bool], RagimputeError]) -> Iterator[None]:
    """If memory runs out in the ``with`` block, say which settings to lower.

    Parameters
    ----------
    explain
        Makes the error that replaces that of the library; it is told whether a GPU ran out.

    Raises
    ------
    RagimputeError
        If memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise explain(is_of_gpu(error)) from error


def give_back() -> None:
    """Return freed memory to the system if the C library can (glibc); others do not have that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def hold_freed(*, bounded: bool) -> None:
    """Tell the C library which freed memory it is to hold for arrays to come (glibc).

    By itself it may give memory back after each array and ask for it again, which took up to a
    tenth of a run; and each thread may hold more than is good where memory is bounded: of 600 MiB
    that two threads may use, that was 100 MiB more than they may.

    Parameters
    ----------
    bounded
        Give large arrays back as soon as they are freed. It costs 2 % of the time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES if bounded else _LARGE_BYTES_UNBOUNDED)
    if not bounded:
        mallopt(_M_TRIM_THRESHOLD, _HELD_BYTES)


def state_bytes(threads: int, max_memory: int | None = None) -> int:
    """Bytes of the states of all targets that are copied at the same time.

    The more targets a thread copies together, the less time each takes: two threads that share
    ``STATE_BYTES`` take a sixth more time for all targets than one thread.

    Parameters
    ----------
    threads
        That copy, >= 1.
    max_memory
        Bound of the run; None: it has none.
    """
    most = STATE_BYTES * min(threads, 2)
    return most if max_memory is None else min(most, max_memory // 8)


@dataclass(frozen=True)
class MemoryPlan:
    """Bounds on what a run holds at once.

    Attributes
    ----------
    max_bytes
        All that the process may use.
    window_bytes
        For a window of the panel, with all that is built from it.
    batch_bytes
        For the target haplotypes that are imputed at once.
    spool_bytes
        For probabilities that wait for their rows; those that do not fit wait on disk.
    tile_bytes
        For the rows that are formatted at once.
    wide
        Whether windows hold only the typed sites of all haplotypes, see :func:`wide_window_sites`.
    """

    max_bytes: int
    window_bytes: int
    batch_bytes: int
    spool_bytes: int
    tile_bytes: int
    wide: bool = False


def program_bytes(num_sites: int) -> int:
    """Bytes that a run holds before its first window: the program, and a panel's table of sites.

    A bound from above, for a panel of ``num_sites`` sites. What a process really holds differs from
    run to run, and by the number of threads. Windows that were cut by it would, too, and the last
    digits of the output with them.
    """
    return _PROGRAM_BYTES + _TABLE_BYTES * num_sites


def plan_memory(
    max_memory: int | None, *, uses_torch: bool, wide: bool = False, held: int = 0
) -> MemoryPlan:
    """Share out what a run may use.

    Parameters
    ----------
    max_memory
        Bytes that the process may use; None: the free ones.
    uses_torch
        Whether torch will be imported, so that memory must be kept for it.
    wide
        See :class:`MemoryPlan`.
    held
        Bytes that are taken to be held already, see :func:`program_bytes`. If more are held, or if
        this would leave too little of ``max_memory``, what is really held counts.

    Raises
    ------
    InputError
        If ``max_memory`` is less than what the program itself needs.
    """
    found = resident_bytes()
    if uses_torch and "torch" not in sys.modules:
        found += _TORCH_BYTES
    if uses_torch:
        held += _TORCH_BYTES
    if held < found or (max_memory is not None and max_memory - held < _ROOM_BYTES):
        held = found
    enough = ENOUGH_WIDE_BYTES if wide else ENOUGH_BYTES
    if uses_torch:  # its libraries for a GPU may alone hold as much as is enough for all else
        enough = max(enough, held + ENOUGH_BYTES // 2)
    total = min(enough, held + free_bytes()) if max_memory is None else max_memory
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
    window = work // 4 * 3 if wide else work // 2
    return MemoryPlan(total, window, work // 8, work // 16, min(16 * 2**20, work // 32), wide)


def window_site_bytes(
    haplotype_bytes: float, *, num_haplotypes: int, typed_share: float, wide: bool = False
) -> float:
    """Bytes that a site of a window takes on average, without what the targets take.

    Parameters
    ----------
    haplotype_bytes
        Bytes in which the panel's haplotypes are held for a site, >= 0
        (:meth:`ragimpute.panel.reader.Panel.bytes_per_site`).
    num_haplotypes
        Of the panel, >= 1.
    typed_share
        The part of the panel's sites that are typed, in [0, 1].
    wide
        See :class:`MemoryPlan`; ``haplotype_bytes`` are then those of the compact form.
    """
    if wide:
        typed = typed_share * num_haplotypes * _WIDE_TYPED_BYTES
        return _BYTES_PER_SITE + haplotype_bytes + typed
    typed = typed_share * num_haplotypes / 8
    return _BYTES_PER_SITE + _WINDOW_FACTOR * haplotype_bytes + _TYPED_FACTOR * typed


def wide_window_sites(
    window_bytes: int,
    *,
    num_haplotypes: int,
    num_typed: int,
    num_sites: int,
    site_bytes: float,
    buffer_sites: float,
) -> int:
    """How many sites the core of a window may have of which all haplotypes' typed sites are held.

    Parameters
    ----------
    window_bytes
        See :class:`MemoryPlan`.
    num_haplotypes, num_typed, num_sites
        H, T and M of the panel.
    site_bytes
        What a site of the core takes in compact form.
    buffer_sites
        Sites of both buffers together.

    Returns
    -------
    Sites, perhaps fewer than 1, or ``num_sites`` if the whole panel fits.
    """
    typed_bytes = _WIDE_TYPED_BYTES * num_haplotypes
    share = num_typed / max(1, num_sites)
    if num_typed * typed_bytes + num_sites * site_bytes <= window_bytes:
        return num_sites
    # Either the buffers reach the ends of what is typed, or they do not.
    all_typed = (window_bytes - num_typed * typed_bytes) / site_bytes
    each = share * typed_bytes
    some_typed = (window_bytes - buffer_sites * each) / (each + site_bytes)
    return int(max(all_typed, some_typed))


def job_memory_mb(window_bytes: float, *, wide: bool = False) -> int:
    """Memory that a scheduler should give a run whose only window takes ``window_bytes``.

    :func:`plan_memory` gives a window half of what a run may use beyond the program itself, and no
    run needs more than ``ENOUGH_BYTES``.

    Parameters
    ----------
    window_bytes
        Bytes of the window with its buffers, >= 0.
    wide
        See :class:`MemoryPlan`.

    Returns
    -------
    MiB, a multiple of 128, between 512 and 1,280, or 2,304 if the panel is wide.
    """
    enough, factor = (ENOUGH_WIDE_BYTES, 4 / 3) if wide else (ENOUGH_BYTES, 2.0)
    bound = min(enough, _PROGRAM_BYTES + factor * window_bytes)
    return _UNIT_MB * int(-(-bound * _ABOVE_BOUND // (_UNIT_MB * 2**20)))
