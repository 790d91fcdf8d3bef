"""Window by window: panel and typed alleles in, rows of the output out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ragimpute.impute_models import Imputer
from ragimpute.impute_summary import Stopwatch
from ragimpute.match import Match
from ragimpute.memory import MemoryPlan
from ragimpute.metrics import estimated_r2
from ragimpute.panel import Panel
from ragimpute.spool import Spool
from ragimpute.vcf_write import ImputedBlock, ImputedWriter

# Bytes for each site of a window and each target haplotype that is imputed: its probabilities,
# once more where ALT is the common allele, and what finds and describes those in doubt.
_BYTES_PER_PAIR = 12
# Bytes for each site of a window beside its carriers and bits: positions, counts, offsets.
_BYTES_PER_SITE = 96
# Words and indexes of the typed sites, and what is held while a window is read, beside the window.
_WINDOW_FACTOR = 2.0
# Copying takes haplotypes in groups of so many.
_GROUP = 16
_MIN_SITES = 1_000


def plan_windows(
    position_cm: np.ndarray,
    start: int,
    stop: int,
    *,
    window_cm: float,
    buffer_cm: float,
    max_sites: int,
) -> list[tuple[int, int, int, int]]:
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


def max_window_sites(panel: Panel, memory: MemoryPlan) -> int:
    """Sites of a window that the memory has room for, at the panel's mean density of carriers."""
    per_site = _BYTES_PER_SITE + _WINDOW_FACTOR * panel.bytes_per_site()
    return max(_MIN_SITES, int(memory.window_bytes / per_site))


class Columns:
    """Which haplotypes of the target exist: (T, N, 2) alleles to columns (T, n) and back."""

    def __init__(self, alleles: np.ndarray) -> None:
        self.present = (alleles != -2).any(axis=0)  # (N, 2)
        if len(alleles) == 0:  # nothing says that a sample is haploid
            self.present[:] = True
        self.present[:, 0] = True
        self.num = int(self.present.sum())
        self.sample = np.nonzero(self.present)[0]  # (n,)
        self.alleles = np.ascontiguousarray(alleles[:, self.present])  # (T, n)
        self.alleles[self.alleles == -2] = -1

    def restore(self, values: np.ndarray, fill: float) -> np.ndarray:
        """(m, n) to (m, N, 2), ``fill`` where a sample is haploid."""
        if self.present.all():
            return values.reshape(len(values), -1, 2)
        full = np.full((len(values), *self.present.shape), fill, dtype=values.dtype)
        full[:, self.present] = values
        return full


@dataclass(frozen=True)
class WindowRun:
    """What all windows of a run share.

    Attributes
    ----------
    contig
        As the target spells it.
    shared, columns
        The target at the panel's sites, and its haplotypes.
    folder
        Where probabilities wait that there is no memory for.
    """

    panel: Panel
    contig: str
    shared: Match
    columns: Columns
    imputer: Imputer
    writer: ImputedWriter
    memory: MemoryPlan
    folder: Path | None
    watch: Stopwatch

    def run(self, window: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Impute and write a window; returns DR2 and typed flags of its sites."""
        left, start, stop, right = window
        first, last = np.searchsorted(self.shared.panel_index, [left, right])
        typed_index = self.shared.panel_index[first:last]
        alleles = self.columns.alleles[first:last]
        dr2 = np.zeros(stop - start, np.float32)
        typed = np.zeros(stop - start, bool)
        inside = (typed_index >= start) & (typed_index < stop)
        typed[typed_index[inside] - start] = True
        with Spool(
            self.columns.num, stop - start, folder=self.folder,
            max_bytes=self.memory.spool_bytes, tile_bytes=self.memory.tile_bytes,
        ) as spool:  # fmt: skip
            if len(typed_index):
                parts = self.imputer.impute(
                    left, right, (start, stop), typed_index, alleles, self.columns.sample,
                    batch=self._batch(right - left),
                )  # fmt: skip
                for at, prob in parts:
                    self.watch.lap("impute")
                    spool.put(at, prob)
                    self.watch.lap("dosages")
                self.watch.lap("impute")
            else:
                af = self.panel.af[start:stop]
                for at in range(self.columns.num):
                    spool.put(at, af[None])
            for low, high, prob in spool.tiles():
                here = inside & (typed_index >= start + low) & (typed_index < start + high)
                observed = (typed_index[here] - start - low, alleles[here])
                dr2[low:high] = self._write(start + low, prob, observed, typed[low:high])
        return dr2, typed

    def _batch(self, num_sites: int) -> int:
        """Haplotypes that are imputed at once in a window of so many sites."""
        most = self.memory.batch_bytes // (_BYTES_PER_PAIR * num_sites)
        return max(_GROUP, most // _GROUP * _GROUP)

    def _write(
        self,
        start: int,
        prob: np.ndarray,
        observed: tuple[np.ndarray, np.ndarray],
        typed: np.ndarray,
    ) -> np.ndarray:
        """Write the rows from panel site ``start`` on, prob (m, n); returns their DR2."""
        called = np.full(prob.shape, -1, np.int8)
        called[observed[0]] = observed[1]
        np.copyto(prob, called, where=called >= 0)
        dr2 = estimated_r2(prob)
        af = prob.mean(axis=1, dtype=np.float64)
        rows = slice(start, start + len(prob))
        self.watch.lap("dosages")
        self.writer.write(
            ImputedBlock(
                sites=replace(self.panel.sites.take(rows), contig=self.contig),
                allele_prob=self.columns.restore(prob, np.nan),
                called=self.columns.restore(called, -2),
                info={
                    "AF": af.astype(np.float32),
                    "MAF": np.minimum(af, 1 - af).astype(np.float32),
                    "DR2": dr2,
                },
                typed=typed,
            )
        )
        self.watch.lap("write")
        return dr2
