"""How a run is cut into windows, and how a window is imputed and handed to the output.

:func:`plan_run` cuts; :class:`WindowRun` imputes one window after another; :class:`NothingKept` is
what a run knows of its finished windows where it keeps none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from ragimpute.accuracy.dr2 import DosageSums, Dr2Calibration, PanelExpectation
from ragimpute.accuracy.leave_one_out import correlation, leave_one_out
from ragimpute.evidence.expected_r2 import LeftOutSays, WindowSays
from ragimpute.imputation.exclusion import OtherCarriers, exclude_alleles
from ragimpute.imputation.imputer import PreparedWindow, RunPart, Stretch
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.outputs import Outputs
from ragimpute.imputation.probability_store import ITEM_BYTES, Spool
from ragimpute.io.imputed import ImputedBlock
from ragimpute.io.vcf.write.joined import MAX_ALTS
from ragimpute.likelihoods.imputer import LikelihoodImputer
from ragimpute.likelihoods.joint import as_independent, likeliest, settled_both
from ragimpute.panel.compact import COMPACT_ABOVE
from ragimpute.panel.loci import Loci, PanelLoci
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelPart
from ragimpute.runtime.memory import (
    ENOUGH_BYTES,
    MemoryPlan,
    state_bytes,
    wide_window_sites,
    window_site_bytes,
)
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.threads import Task, crew_of
from ragimpute.runtime.timing import Stopwatch
from ragimpute.target.inputs import Inputs
from ragimpute.target.ploidy import Columns, TargetPloidy
from ragimpute.target.window import TargetWindow

# Bytes for each site of a window and each target haplotype that is imputed at once: P(ALT), a
# second copy of it if ALT is the common allele, and what finds and describes pairs in doubt.
_BYTES_PER_PAIR = 12
# Copying takes haplotypes in groups of so many.
_GROUP = 16
# The mismatch probability of haplotypes of which nothing was observed: it has no effect.
_ANY_MISMATCH = 1e-3
_MIN_SITES = 1_000
# A window's haplotypes are read ahead if they take at most one part in so many of the memory.
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
    position_bp: np.ndarray | None = None,
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
    position_bp
        Shape (M,): sites of one position come into one window, which may then have a few sites more
        than ``max_sites``; None: all positions differ.

    Returns
    -------
    (buffer start, start, stop, buffer stop) of each window, in order; together the cores cover all
    sites to report.
    """
    if window_cm <= 0 or buffer_cm < 0 or max_sites < 1:
        raise ValueError(f"window_cm {window_cm}, buffer_cm {buffer_cm}, max_sites {max_sites}")
    windows = []
    first = start
    while first < stop:
        by_cm = int(np.searchsorted(position_cm, position_cm[first] + window_cm, side="right"))
        last = min(stop, max(first + 1, by_cm), first + max_sites)
        # Make the last two windows equally long: a short one needs as much buffer as a full one.
        if last < stop and stop - last < (last - first) // 4:
            last = first + (stop - first + 1) // 2
        while (
            position_bp is not None and last < stop and position_bp[last] == position_bp[last - 1]
        ):
            last += 1
        left = int(np.searchsorted(position_cm, position_cm[first] - buffer_cm, side="left"))
        right = int(np.searchsorted(position_cm, position_cm[last - 1] + buffer_cm, side="right"))
        windows.append((left, first, last, right))
        first = last
    return windows


def plan_run(
    parts: Sequence[RunPart], stretch: Stretch, options: ImputeOptions, memory: MemoryPlan
) -> list[PlannedWindow]:
    """Cut a run into windows: the number of the part in which each lies, and its bounds.

    A window's buffers end where its part of the panel does.
    """
    pattern_bytes = pattern_bytes_of(parts)
    buffer_cm = options.buffer_cm
    if pattern_bytes is not None:
        buffer_cm = _short_buffer(stretch, memory, pattern_bytes, buffer_cm)
    max_sites = max_window_sites(
        stretch.panel, memory, len(stretch.typed_index), buffer_cm=buffer_cm,
        pattern_bytes=pattern_bytes,
    )  # fmt: skip
    planned = []
    for number, part in enumerate(parts):
        windows = plan_windows(
            stretch.panel.position_cm, part.start, part.stop, window_cm=options.window_cm,
            buffer_cm=buffer_cm, max_sites=max_sites,
            position_bp=stretch.panel.sites.position_bp,
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


def pattern_bytes_of(parts: Sequence[RunPart]) -> float | None:
    """Bytes of a site of a panel that is kept as patterns; None: it is not."""
    imputer = parts[0].imputer if parts else None
    return imputer.panel_bytes if isinstance(imputer, LikelihoodImputer) else None


def _short_buffer(
    stretch: Stretch, memory: MemoryPlan, pattern_bytes: float, buffer_cm: float
) -> float:
    """The buffer of windows that are kept as patterns, in cM: half of what fits, at most.

    Stretches of samples with few reads have longer flanks, which then end at the window's.
    """
    panel = stretch.panel
    fit = memory.window_bytes / _site_bytes(panel, 0, pattern_bytes)
    if fit >= panel.num_sites:
        return buffer_cm
    length_cm = max(1e-6, float(np.ptp(panel.position_cm)))
    return min(buffer_cm, fit / 4 * length_cm / panel.num_sites)


def max_window_sites(
    panel: Panel,
    memory: MemoryPlan,
    num_typed: int,
    *,
    buffer_cm: float = 0.0,
    pattern_bytes: float | None = None,
) -> int:
    """How many sites of a window fit into memory, at the panel's mean density of carriers.

    ``num_typed`` of the panel's sites are typed; a window has a buffer of ``buffer_cm`` on each
    side. ``pattern_bytes``: what a site takes if the window is kept as patterns of alleles.
    """
    length_cm = max(1e-6, float(np.ptp(panel.position_cm)))
    buffers = 2 * buffer_cm * panel.num_sites / length_cm
    if pattern_bytes is not None:
        fit = int(memory.window_bytes / _site_bytes(panel, num_typed, pattern_bytes))
        return fit if fit >= panel.num_sites else max(_MIN_SITES, fit - int(buffers))
    if memory.wide:
        fit = wide_window_sites(
            memory.window_bytes, num_haplotypes=panel.num_haplotypes, num_typed=num_typed,
            num_sites=panel.num_sites, site_bytes=panel.bytes_per_site(compact=True),
            buffer_sites=buffers,
        )  # fmt: skip
        return max(_MIN_SITES, fit)
    return max(_MIN_SITES, int(memory.window_bytes / _site_bytes(panel, num_typed)))


def _site_bytes(panel: Panel, num_typed: int, pattern_bytes: float | None = None) -> float:
    """Bytes that a site of a window takes on average; ``num_typed`` of the panel's are typed.

    ``pattern_bytes``: see :func:`max_window_sites`.
    """
    if pattern_bytes is not None:
        return window_site_bytes(
            pattern_bytes, num_haplotypes=panel.num_haplotypes, typed_share=0.0
        )
    return window_site_bytes(
        panel.bytes_per_site(), num_haplotypes=panel.num_haplotypes,
        typed_share=num_typed / max(1, panel.num_sites),
    )  # fmt: skip


def go_on(
    parts: Sequence[RunPart], windows: Sequence[PlannedWindow], results: Sequence[WindowResult]
) -> None:
    """Tell the imputer of the next window how an earlier run left the haplotypes of the last."""
    if not results:
        return
    part, window = windows[len(results) - 1]
    imputer = parts[part].imputer
    if isinstance(imputer, LikelihoodImputer):
        imputer.keep(window[3], results[-1].phase)


def likely_window(
    panel: Panel, start: int, stop: int, options: ImputeOptions
) -> tuple[int, int] | None:
    """Panel sites of the first window of a run with its buffers, as far as it can be told.

    It can be asked before the target is read, on which it may depend, too. None: the window would
    take much memory, or is not read whole. Sites [start, stop) are written.
    """
    if panel.num_haplotypes > COMPACT_ABOVE:
        return None
    left, _, _, right = plan_windows(
        panel.position_cm, start, stop, window_cm=options.window_cm, buffer_cm=options.buffer_cm,
        max_sites=panel.num_sites, position_bp=panel.sites.position_bp,
    )[0]  # fmt: skip
    held = panel.bytes_per_site() * (right - left)
    if held > (options.max_memory or ENOUGH_BYTES) // _LIKELY_SHARE:
        return None
    return left, right


@dataclass(frozen=True)
class Flow:
    """Which stages of different windows may be at work at the same time.

    Attributes
    ----------
    beside
        The windows that may be prepared while the window before them is copied, by number.
    writes_beside
        Whether a window may be written while the next is copied: the probabilities of two windows
        then wait at the same time, in memory or on disk.
    """

    beside: frozenset[int]
    writes_beside: bool

    def prepares_beside(self, number: int) -> bool:
        """Whether a window may be prepared while the one before it is copied."""
        return number in self.beside


def plan_flow(
    windows: Sequence[Window],
    inputs: Inputs,
    ploidy: TargetPloidy,
    memory: MemoryPlan,
    *,
    threads: int,
    is_bounded: bool = False,
    pattern_bytes: float | None = None,
) -> tuple[Flow, MemoryPlan]:
    """Decide which stages of different windows are at work at the same time.

    The windows themselves do not depend on it, as the output must not depend on the threads: two
    of them are at work at the same time where both fit into the memory that one may take. If the
    user has set a bound (``is_bounded``), so must the states that the second holds meanwhile, and
    a window is written beside the next only if the probabilities of both fit into memory.
    ``pattern_bytes``: see :func:`max_window_sites`.

    Returns
    -------
    The plan, and the bounds that hold for each window then.
    """
    flow, each = Flow(frozenset(), False), memory
    if threads == 1 or len(windows) < 2:
        return flow, each
    per_site = _site_bytes(inputs.panel, len(inputs.match.panel_index), pattern_bytes)
    size = [per_site * (right - left) for left, _, _, right in windows]
    states = state_bytes(threads, memory.max_bytes) if is_bounded else 0
    beside = frozenset(
        number for number in range(1, len(size))
        if size[number - 1] + size[number] + states <= memory.window_bytes
    )  # fmt: skip
    if not is_bounded:
        return Flow(beside, True), memory
    halved = replace(memory, spool_bytes=memory.spool_bytes // 2)
    if waiting_bytes(windows, ploidy, halved) == 0:
        return Flow(beside, True), halved
    return Flow(beside, False), memory


def waiting_bytes(windows: Sequence[Window], ploidy: TargetPloidy, memory: MemoryPlan) -> int:
    """Bytes of the largest window's probabilities that wait on disk; 0 if memory suffices."""
    if not windows:
        return 0
    _, start, stop, _ = max(windows, key=lambda window: window[2] - window[1])
    haploid = ploidy.haploid(start, stop)
    columns = Columns.of(np.zeros((0, haploid.shape[1], 2), np.int8), haploid)
    waiting = ITEM_BYTES * columns.num * (stop - start)
    return waiting if waiting > memory.spool_bytes else 0


@dataclass(frozen=True)
class WindowResult:
    """What the summary of a run is told of a window's m sites.

    Attributes
    ----------
    dr2, typed
        Shape (m,), float32 and bool.
    correlation
        Shape (m,), float32: correlation of the dosages that a typed site has if it is left out
        with what was observed there; NaN at untyped sites.
    has_typed
        Whether a site of the window or its buffer is typed.
    phase
        See :class:`ragimpute.evidence.expected_r2.WindowSays`; shape (0, 0) where it has None.
    """

    dr2: np.ndarray
    typed: np.ndarray
    correlation: np.ndarray
    has_typed: bool
    phase: np.ndarray

    def take(self, tile: Tile) -> None:
        """Take the figures of some of the sites."""
        self.dr2[tile.sites], self.correlation[tile.sites] = tile.block.info["DR2"], tile.er2
        self.typed[tile.sites] = tile.block.typed


class Tile(NamedTuple):
    """Some of a window's sites, imputed.

    Attributes
    ----------
    sites
        Which of the window's sites they are.
    block
        Their rows of the output.
    left_out
        Shape (k, N, 2), float32: P(ALT) at the k typed sites as if they were not typed; None where
        the model cannot say.
    er2
        Shape (m,), float32: the root of INFO/ER2; NaN at untyped sites.
    """

    sites: slice
    block: ImputedBlock
    left_out: np.ndarray | None
    er2: np.ndarray


@dataclass(frozen=True)
class WindowRun:
    """Imputes one window after another of a part of a run.

    Attributes
    ----------
    part
        The haplotypes that exist in these windows, and what imputes from them.
    inputs
        The target at the panel's sites.
    ploidy
        Where samples are haploid.
    calibration
        The model's calibration of DR2.
    memory
        Bounds of what is held at once.
    folder
        Where probabilities wait for which there is no memory.
    seconds
        Takes the times of "dosages" and "write".
    stage
        The stage of the run that counts the sites that were imputed.
    threads
        Threads that make the rows; the rows do not depend on their number.
    others
        Carriers of ALTs that the panel lacks, if these are written too.
    """

    part: RunPart
    inputs: Inputs
    ploidy: TargetPloidy
    calibration: Dr2Calibration
    memory: MemoryPlan
    folder: Path | None
    seconds: dict[str, float]
    stage: Stage
    threads: int = 1
    others: OtherCarriers | None = None

    def write(self, copied: CopiedWindow, outputs: Outputs) -> WindowResult:
        """Write the rows of a window that was imputed."""
        watch = Stopwatch(self.seconds)
        result = self.empty_result(copied.window)
        if copied.phase is not None:
            result = replace(result, phase=copied.phase)
        with Stage("write", copied.window[2] - copied.window[1]) as written:
            for tile in self.tiles(copied):
                watch.lap("dosages")
                result.take(tile)
                outputs.write(tile.block, tile.left_out)
                written.advance(tile.sites.stop - tile.sites.start)
                watch.lap("write")
        return result

    def empty_result(self, window: Window) -> WindowResult:
        """The result of a window of which no tile is imputed yet."""
        left, start, stop, right = window
        return WindowResult(
            np.zeros(stop - start, np.float32),
            np.zeros(stop - start, bool),
            np.full(stop - start, np.nan, np.float32),
            len(self._typed(left, right)[0]) > 0,
            np.zeros((0, 0), np.int8),
        )

    def prepare(self, window: Window) -> ReadyWindow:
        """Read a window of the panel, and fit the model to it."""
        left, start, stop, right = window
        typed_index, alleles = self._typed(left, right)
        columns = Columns.of(alleles, self.ploidy.haploid(start, stop))
        panel = self.inputs.panel
        if not isinstance(panel, PanelLoci):
            panel = PanelLoci(panel)
        panel.want(start, stop)
        seen, prepared = self._seen(columns), None
        if seen.any():
            prepared = self.part.imputer.prepare(
                TargetWindow(
                    left, right, (start, stop), typed_index, columns.alleles[:, seen],
                    columns.sample[seen],
                )
            )  # fmt: skip
        return ReadyWindow(window, typed_index, columns, prepared, panel.wanted())

    def copy(self, ready: ReadyWindow) -> CopiedWindow:
        """Impute the targets of a window that is ready; close the result."""
        _, start, stop, _ = ready.window
        num_rows = ready.columns.num
        if self.inputs.has_likelihoods:
            num_rows += len(ready.columns.present)
        spool = Spool(
            num_rows, stop - start, folder=self.folder,
            max_bytes=self.memory.spool_bytes, tile_bytes=self.memory.tile_bytes,
            joined=self._joined(start, stop),
        )  # fmt: skip
        try:
            mismatch, said = self._impute(ready, spool)
        except BaseException:
            spool.close()
            raise
        inside = (ready.typed_index >= start) & (ready.typed_index < stop)
        inside &= not self.inputs.has_likelihoods  # all sites are imputed then
        rows = _TypedRows(
            ready.typed_index[inside],
            ready.columns.alleles[inside],
            None if mismatch is None else mismatch[inside],
        )
        return CopiedWindow(
            ready.window, spool, ready.columns, rows, ready.loci, self._expected(said.left_out),
            said.phase,
        )  # fmt: skip

    def _seen(self, columns: Columns) -> np.ndarray:
        """Which haplotypes the imputer is given, shape (n,), bool."""
        seen = columns.observed
        return np.ones_like(seen) if self.inputs.has_likelihoods else seen

    def _joined(self, start: int, stop: int) -> np.ndarray:
        """Which of the sites [start, stop) have the position of the site before, shape (m,)."""
        at = self.inputs.panel.sites.position_bp[start:stop]
        return np.concatenate([[False], at[1:] == at[:-1]])

    def _typed(self, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
        """The typed sites (T,) in [left, right), and their alleles (T, N, 2)."""
        match = self.inputs.match
        first, last = np.searchsorted(match.panel_index, [left, right])
        return match.panel_index[first:last], match.alleles[first:last]

    def _impute(self, ready: ReadyWindow, spool: Spool) -> tuple[np.ndarray | None, WindowSays]:
        """Put the probabilities of all haplotypes into the store.

        Returns the mismatch probabilities of the typed sites, (T,) or (T, n), None where typed
        sites cannot be imputed as if they were not typed; and what else imputing told.
        """
        (left, start, stop, right), columns = ready.window, ready.columns
        seen = self._seen(columns)
        # A haplotype of which nothing was observed is given the panel's frequencies.
        af = self.part.panel.af[None, start:stop]
        for column in np.flatnonzero(~seen).tolist():
            spool.put(column, af)
        if ready.prepared is None:
            return None, WindowSays()
        where = np.flatnonzero(seen)
        if self.inputs.has_likelihoods:  # all are seen; the rows of P(both have ALT) follow
            where = np.arange(columns.num + len(columns.present))
        before, lock, put_so_far = self.stage.done, Lock(), 0

        def put(at: int, site: int, prob: np.ndarray) -> None:
            place = where[at : at + len(prob)]
            cuts = np.flatnonzero(np.diff(place) > 1) + 1
            for run in np.split(np.arange(len(place)), cuts):
                spool.put(int(place[run[0]]), prob[run[0] : run[-1] + 1], site)
            nonlocal put_so_far
            with lock:
                put_so_far += prob.size
                self.stage.reach(before + min(put_so_far // len(where), stop - start))

        said = ready.prepared.impute(batch=self._batch(right - left), put=put)
        mismatch = said.mismatch_prob
        if mismatch is not None and mismatch.ndim == 2:
            whole = np.full((len(mismatch), columns.num), _ANY_MISMATCH, np.float32)
            whole[:, where] = mismatch
            mismatch = whole
        return mismatch, said

    def _expected(self, said: LeftOutSays | None) -> PanelExpectation | None:
        """What the panel lets one expect, by what its left-out samples say."""
        if said is None:
            return None
        r2 = np.full(len(said.copies), np.nan, np.float32) if said.r2 is None else said.r2
        num_haplotypes = self.part.panel.num_haplotypes
        return PanelExpectation(
            r2, self.calibration.adjustment(said.rare_excess, said.copies, num_haplotypes)
        )

    def _batch(self, num_sites: int) -> int:
        """How many haplotypes are imputed at once in a window of ``num_sites`` sites."""
        most = self.memory.batch_bytes // (_BYTES_PER_PAIR * num_sites)
        return max(_GROUP, most // _GROUP * _GROUP)

    def tiles(self, copied: CopiedWindow) -> Iterator[Tile]:
        """The rows of a window that was imputed, some sites at a time, in order.

        Threads make the next tiles ready while the caller uses the one before them.
        """
        (_, start, _, _), spool, columns, typed, loci, expected, _ = copied

        def ready(low: int, high: int) -> Tile:
            prob = spool.take(low, high)
            here = typed.between(start + low, start + high)
            rows = None if expected is None else expected.rows(slice(low, high))
            of = loci.between(start + low, start + high)
            return self._tile(start, slice(low, high), prob, columns, here, of, rows)

        if self.threads == 1:
            for tile in spool.tiles:
                yield ready(*tile)
            return
        with crew_of(self.threads) as crew:
            waiting: deque[Task[Tile]] = deque()
            for tile in spool.tiles:
                waiting.append(crew.start(partial(ready, *tile)))
                if len(waiting) > self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _tile(
        self,
        start: int,
        tile: slice,
        prob: np.ndarray,
        columns: Columns,
        of: _TypedRows,
        loci: Loci,
        expected: PanelExpectation | None,
    ) -> Tile:
        """The rows ``tile`` of the window that begins at panel site ``start``.

        ``prob`` (m, n) is changed; if the target has likelihoods, N columns of P(both have ALT)
        follow; ``of`` has the typed sites among the rows; ``loci`` are those
        among the rows, whose ALTs exclude each other; ``expected`` is what the panel lets one
        expect of them, or None.
        """
        both = None
        if self.inputs.has_likelihoods:
            prob, both = np.split(prob, [columns.num], axis=1)
        rows, observed = of.panel_index - start - tile.start, of.observed
        absent = columns.absent(tile)
        if absent is not None:
            prob[absent] = np.nan
            observed = np.where(absent[rows], np.int8(-1), observed)
        er2 = np.full(len(prob), np.nan, np.float32)
        left_out = None
        if of.mismatch is not None:
            left_out = leave_one_out(prob[rows], observed, of.mismatch)
            er2[rows] = correlation(left_out, observed)
        called = np.full(prob.shape, -1, np.int8)
        called[rows] = observed
        prob[rows] = np.where(observed >= 0, observed, prob[rows])
        if self.others is not None:
            self.others.exclude(prob, called, start + tile.start, columns.present)
        exclude_alleles(prob, called, loci)
        typed = np.zeros(len(prob), bool)
        typed[rows] = True
        allele_prob = columns.restore(prob, tile, np.nan)
        calls = columns.restore(called, tile, -2)
        if both is not None:
            both = settled_both(allele_prob, both)
            calls = likeliest(allele_prob, both)
            prob = as_independent(allele_prob, both).reshape(len(prob), -1)
        info = DosageSums.of(prob).info(self.calibration, typed, expected)
        if self.part.imputer.leaves_out:
            info["ER2"] = er2**2
        sites = self.part.panel.sites.take(slice(start + tile.start, start + tile.stop))
        block = ImputedBlock(
            sites=replace(sites, contig=self.inputs.contig),
            allele_prob=allele_prob,
            called=calls,
            info=info,
            typed=typed,
            locus=loci.numbers(len(prob), most=MAX_ALTS) if len(loci) else None,
            both=both,
        )
        if left_out is not None:
            of_typed = replace(columns, haploid=columns.haploid[tile][rows])
            left_out = of_typed.restore(left_out, slice(None), np.nan)
        return Tile(tile, block, left_out, er2)


class ReadyWindow(NamedTuple):
    """A window whose panel was read, and to which the model was fitted.

    Attributes
    ----------
    window
        Its panel sites.
    typed_index
        Shape (T,): the typed sites.
    columns
        The target's haplotypes.
    prepared
        What imputes those of which anything was observed; None: there are none.
    loci
        The core's sites whose ALTs exclude each other.
    """

    window: Window
    typed_index: np.ndarray
    columns: Columns
    prepared: PreparedWindow | None
    loci: Loci


class CopiedWindow(NamedTuple):
    """A window whose targets were imputed, and whose rows can be made.

    Attributes
    ----------
    window
        Its panel sites.
    spool
        P(ALT).
    columns
        The target's haplotypes.
    typed
        What was observed at the core's typed sites.
    loci
        The core's sites whose ALTs exclude each other.
    expected
        What the panel lets one expect of the core's sites, or None.
    phase
        See :class:`ragimpute.evidence.expected_r2.WindowSays`.
    """

    window: Window
    spool: Spool
    columns: Columns
    typed: _TypedRows
    loci: Loci
    expected: PanelExpectation | None
    phase: np.ndarray | None


class _TypedRows(NamedTuple):
    """Typed sites of a window's core, k of them, that have rows in the output.

    ``panel_index`` (k,) says where they are; ``observed`` (k, n) are the alleles; ``mismatch`` (k,)
    or (k, n) are mismatch probabilities, or None where typed sites cannot be left out.
    """

    panel_index: np.ndarray
    observed: np.ndarray
    mismatch: np.ndarray | None

    def between(self, start: int, stop: int) -> _TypedRows:
        """Those at the panel sites [start, stop)."""
        here = (self.panel_index >= start) & (self.panel_index < stop)
        mismatch = None if self.mismatch is None else self.mismatch[here]
        return _TypedRows(self.panel_index[here], self.observed[here], mismatch)


class NothingKept:
    """The finished windows of a run that is not to be resumed: none of them is kept.

    :class:`ragimpute.imputation.resume.KeptRun` takes its place in a run that may be resumed.

    Attributes
    ----------
    done
        For each finished window, in order, what is kept of it; here always empty.
    resumable
        Whether finished windows outlive a run that is interrupted.
    """

    resumable = False

    def __init__(self) -> None:
        self.done: list[dict[str, np.ndarray]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing behind."""

    @property
    def results(self) -> list[WindowResult]:
        """The results of the finished windows, in order."""
        return [
            WindowResult(
                told["dr2"],
                told["typed"],
                told["correlation"],
                bool(told["has_typed"]),
                told["phase"],
            )
            for told in self.done
        ]

    def plan(self, windows: list[PlannedWindow]) -> list[PlannedWindow]:
        """The windows that the run has: those that were planned."""
        return windows

    def keep(self, result: WindowResult, outputs: Outputs) -> None:
        """Do nothing with a finished window."""

    def phased(self) -> tuple[np.ndarray, dict[str, object]] | None:
        """Phased alleles that were kept: None."""
        return None

    def keep_phased(self, alleles: np.ndarray, said: Mapping[str, object]) -> None:
        """Do nothing with phased alleles."""
