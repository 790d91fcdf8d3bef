"""Window by window: panel and typed alleles in, rows of the output out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ragimpute.imputation.imputer import RunPart
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.probability_store import ITEM_BYTES
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelPart
from ragimpute.runtime.memory import ENOUGH_BYTES, MemoryPlan
from ragimpute.target.inputs import Inputs
from ragimpute.target.ploidy import Columns, TargetPloidy

# Bytes for each site of a window and each target haplotype that is imputed: its probabilities,
# once more where ALT is the common allele, and what finds and describes those in doubt.
_BYTES_PER_PAIR = 12
# Bytes for each site of a window beside its carriers and bits: positions, counts, offsets.
_BYTES_PER_SITE = 96
# A window's carriers and bits are held twice while they are read; its typed sites' bits as words,
# transposed, and once more in the indexes that haplotypes are retrieved by.
_WINDOW_FACTOR = 2.0
_TYPED_FACTOR = 4.0
# Copying takes haplotypes in groups of so many.
_GROUP = 16
_MIN_SITES = 1_000
# A window's haplotypes are read ahead where they take no more than this share of the memory.
_LIKELY_SHARE = 8


# A window's panel sites: buffer start, start, stop, buffer stop.
Window = tuple[int, int, int, int]
# The number of the part of the run in which a window lies, and the window.
PlannedWindow = tuple[int, Window]


def plan_windows(
    position_cm: np.ndarray,
    start: int,
    stop: int,
    *,
    window_cm: float,
    buffer_cm: float,
    max_sites: int,
) -> list[Window]:
    """Cut the sites [start, stop) into windows with buffers.

    Parameters
    ----------
    position_cm
        Shape (M,), float64, cM, non-decreasing: all of the panel's sites.
    start, stop
        Sites to report.
    window_cm, max_sites
        A window ends before it spans more than so many cM or sites; > 0.
    buffer_cm
        Flank on each side that is read but not reported; may reach beyond [start, stop); >= 0.

    Returns
    -------
    (buffer start, start, stop, buffer stop) of each window; the cores follow on each other.
    """
    if window_cm <= 0 or buffer_cm < 0 or max_sites < 1:
        raise ValueError(f"window_cm {window_cm}, buffer_cm {buffer_cm}, max_sites {max_sites}")
    windows = []
    first = start
    while first < stop:
        by_cm = int(np.searchsorted(position_cm, position_cm[first] + window_cm, side="right"))
        last = min(stop, max(first + 1, by_cm), first + max_sites)
        # Even out: a short remainder would cost as much buffer as a full window.
        if last < stop and stop - last < (last - first) // 4:
            last = first + (stop - first + 1) // 2
        left = int(np.searchsorted(position_cm, position_cm[first] - buffer_cm, side="left"))
        right = int(np.searchsorted(position_cm, position_cm[last - 1] + buffer_cm, side="right"))
        windows.append((left, first, last, right))
        first = last
    return windows


def plan_run(
    parts: Sequence[RunPart], inputs: Inputs, options: ImputeOptions, memory: MemoryPlan
) -> list[PlannedWindow]:
    """Cut a run into windows: the number of the part in which each lies, and its bounds.

    A window's buffers end where its part of the panel does.
    """
    max_sites = max_window_sites(inputs.panel, memory, len(inputs.match.panel_index))
    planned = []
    for number, part in enumerate(parts):
        windows = plan_windows(
            inputs.panel.position_cm, part.start, part.stop, window_cm=options.window_cm,
            buffer_cm=options.buffer_cm, max_sites=max_sites,
        )  # fmt: skip
        planned += [(number, window) for window in _clipped(windows, part.panel)]
    return planned


def _clipped(windows: list[Window], part: Panel) -> list[Window]:
    """Windows whose buffers end where the panel's part does."""
    if not isinstance(part, PanelPart):
        return windows
    return [
        (max(left, part.start), start, stop, min(right, part.stop))
        for left, start, stop, right in windows
    ]


def max_window_sites(panel: Panel, memory: MemoryPlan, num_typed: int) -> int:
    """Sites of a window that the memory has room for, at the panel's mean density of carriers.

    ``num_typed`` of the panel's sites are typed.
    """
    typed = num_typed / max(1, panel.num_sites) * panel.num_haplotypes / 8
    per_site = _BYTES_PER_SITE + _WINDOW_FACTOR * panel.bytes_per_site() + _TYPED_FACTOR * typed
    return max(_MIN_SITES, int(memory.window_bytes / per_site))


def likely_window(
    panel: Panel, start: int, stop: int, options: ImputeOptions
) -> tuple[int, int] | None:
    """Panel sites of the only window of a run, buffers and all; None where it may have several.

    Before the target and the memory that is free are known. Sites [start, stop) are written.
    """
    windows = plan_windows(
        panel.position_cm, start, stop, window_cm=options.window_cm, buffer_cm=options.buffer_cm,
        max_sites=panel.num_sites,
    )  # fmt: skip
    left, right = windows[0][0], windows[0][3]
    held = panel.bytes_per_site() * (right - left)
    if len(windows) > 1 or held > (options.max_memory or ENOUGH_BYTES) // _LIKELY_SHARE:
        return None
    return left, right


def waiting_bytes(windows: Sequence[Window], ploidy: TargetPloidy, memory: MemoryPlan) -> int:
    """What of the largest window's probabilities waits on disk; 0 where memory has room for it."""
    if not windows:
        return 0
    _, start, stop, _ = max(windows, key=lambda window: window[2] - window[1])
    haploid = ploidy.haploid(start, stop)
    columns = Columns.of(np.zeros((0, haploid.shape[1], 2), np.int8), haploid)
    waiting = ITEM_BYTES * columns.num * (stop - start)
    return waiting if waiting > memory.spool_bytes else 0
