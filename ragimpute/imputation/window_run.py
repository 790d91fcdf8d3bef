"""The run of one window: typed sites are left out, and dosages handed to the output."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ragimpute.accuracy.dr2 import DosageSums, Dr2Calibration
from ragimpute.accuracy.leave_one_out import correlation, leave_one_out
from ragimpute.imputation.imputer import Imputer
from ragimpute.imputation.outputs import Outputs
from ragimpute.imputation.probability_store import Spool
from ragimpute.imputation.windows import _BYTES_PER_PAIR, _GROUP, Window
from ragimpute.io.vcf.write.writer import ImputedBlock
from ragimpute.panel.reader import Panel
from ragimpute.runtime.memory import MemoryPlan
from ragimpute.runtime.timing import Stopwatch
from ragimpute.target.match import Match
from ragimpute.target.ploidy import Columns, TargetPloidy


@dataclass(frozen=True)
class WindowResult:
    """What the report wants to know of a window's sites.

    Attributes
    ----------
    dr2, typed
        Shape (m,), float32 and bool.
    correlation
        Shape (m,), float32: of left-out dosages with what was observed; NaN at untyped sites.
    has_typed
        Whether a site of the window or its buffer is typed.
    """

    dr2: np.ndarray
    typed: np.ndarray
    correlation: np.ndarray
    has_typed: bool


@dataclass(frozen=True)
class WindowRun:
    """What all windows of a run share.

    Attributes
    ----------
    panel
        Its haplotypes that exist in these windows.
    contig
        As the target spells it.
    shared, ploidy
        The target at the panel's sites, and where its samples are haploid.
    calibration
        Of DR2, which is the model's.
    outputs
        Where :meth:`run` writes; None: only :meth:`blocks` is called.
    folder
        Where probabilities wait that there is no memory for.
    threads
        Rows are made ready in so many; they do not depend on it.
    """

    panel: Panel
    contig: str
    shared: Match
    ploidy: TargetPloidy
    imputer: Imputer
    calibration: Dr2Calibration
    outputs: Outputs | None
    memory: MemoryPlan
    folder: Path | None
    watch: Stopwatch
    threads: int = 1

    def run(self, window: Window) -> WindowResult:
        """Impute and write a window.

        Raises
        ------
        ValueError
            If there are no ``outputs`` to write to.
        """
        if self.outputs is None:
            raise ValueError("a WindowRun without outputs cannot write: ask it for blocks")
        left, start, stop, right = window
        typed_index = self._typed(left, right)[0]
        result = WindowResult(
            np.zeros(stop - start, np.float32),
            np.zeros(stop - start, bool),
            np.full(stop - start, np.nan, np.float32),
            len(typed_index) > 0,
        )
        inside = (typed_index >= start) & (typed_index < stop)
        result.typed[typed_index[inside] - start] = True
        for tile, block, left_out, er2 in self.blocks(window):
            self.watch.lap("dosages")
            result.dr2[tile], result.correlation[tile] = block.info["DR2"], er2
            self.outputs.write(block, left_out)
            self.watch.lap("write")
        return result

    def blocks(
        self, window: Window
    ) -> Iterator[tuple[slice, ImputedBlock, np.ndarray | None, np.ndarray]]:
        """Impute a window, and give its rows some sites at a time, in order.

        Yields
        ------
        Which of the window's sites they are; the m rows; P(ALT) at the typed ones of them as if
        they were not typed, shape (k, N, 2), float32, or None; and the root of ER2, shape (m,).
        """
        left, start, stop, right = window
        typed_index, alleles = self._typed(left, right)
        columns = Columns.of(alleles, self.ploidy.haploid(start, stop))
        inside = (typed_index >= start) & (typed_index < stop)
        self.watch.lap("impute")
        with Spool(
            columns.num, stop - start, folder=self.folder,
            max_bytes=self.memory.spool_bytes, tile_bytes=self.memory.tile_bytes,
        ) as spool:  # fmt: skip
            mismatch = self._impute(window, typed_index, columns, spool)
            yield from self._rows(spool, start, typed_index, columns, inside, mismatch)

    def _typed(self, left: int, right: int) -> tuple[np.ndarray, np.ndarray]:
        """The typed sites (T,) in [left, right), and their alleles (T, N, 2)."""
        first, last = np.searchsorted(self.shared.panel_index, [left, right])
        return self.shared.panel_index[first:last], self.shared.alleles[first:last]

    def _impute(
        self,
        window: Window,
        typed_index: np.ndarray,
        columns: Columns,
        spool: Spool,
    ) -> np.ndarray | None:
        """Put the probabilities of all haplotypes into the spool.

        Returns the mismatch probabilities of the typed sites, None where sites cannot be left out.
        """
        left, start, stop, right = window
        seen = columns.observed
        # What nothing was observed of has the panel's frequencies.
        af = self.panel.af[None, start:stop]
        for column in np.flatnonzero(~seen).tolist():
            spool.put(column, af)
        if not seen.any():
            return None
        where = np.flatnonzero(seen)

        def put(at: int, site: int, prob: np.ndarray) -> None:
            place = where[at : at + len(prob)]
            cuts = np.flatnonzero(np.diff(place) > 1) + 1
            for run in np.split(np.arange(len(place)), cuts):
                spool.put(int(place[run[0]]), prob[run[0] : run[-1] + 1], site)

        self.imputer.impute(
            left, right, (start, stop), typed_index, columns.alleles[:, seen],
            columns.sample[seen], batch=self._batch(right - left), put=put,
        )  # fmt: skip
        self.watch.lap("impute")
        return self.imputer.mismatch_probs(len(typed_index))

    def _batch(self, num_sites: int) -> int:
        """Haplotypes that are imputed at once in a window of so many sites."""
        most = self.memory.batch_bytes // (_BYTES_PER_PAIR * num_sites)
        return max(_GROUP, most // _GROUP * _GROUP)

    def _rows(
        self,
        spool: Spool,
        start: int,
        typed_index: np.ndarray,
        columns: Columns,
        inside: np.ndarray,
        mismatch: np.ndarray | None,
    ) -> Iterator[tuple[slice, ImputedBlock, np.ndarray | None, np.ndarray]]:
        """Rows of the output of the window that begins at panel site ``start``, a tile at a time.

        Typed sites ``inside`` the window's core (T,) have rows. Tiles are made ready in threads
        while those before them are written.
        """

        def ready(
            low: int, high: int, prob: np.ndarray
        ) -> tuple[slice, ImputedBlock, np.ndarray | None, np.ndarray]:
            here = inside & (typed_index >= start + low) & (typed_index < start + high)
            rows = typed_index[here] - start - low
            tile = slice(low, high)
            return tile, *self._block(
                start, tile, prob, columns, rows, columns.alleles[here],
                None if mismatch is None else mismatch[here],
            )  # fmt: skip

        if self.threads == 1:
            for tile in spool.tiles:
                yield ready(*tile, spool.take(*tile))
            return
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: deque[Future[tuple[slice, ImputedBlock, np.ndarray | None, np.ndarray]]]
            waiting = deque()
            for tile in spool.tiles:
                waiting.append(pool.submit(ready, *tile, spool.take(*tile)))
                if len(waiting) > self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _block(
        self,
        start: int,
        tile: slice,
        prob: np.ndarray,
        columns: Columns,
        rows: np.ndarray,
        observed: np.ndarray,
        mismatch: np.ndarray | None,
    ) -> tuple[ImputedBlock, np.ndarray | None, np.ndarray]:
        """The rows ``tile`` of the window that begins at panel site ``start``.

        ``prob`` (m, n) is changed; ``rows`` (k,) of the tile are typed, with ``observed`` (k, n).
        Returns the rows, P(ALT) at the typed ones as if they were not typed, and ER2's root.
        """
        absent = columns.absent(tile)
        if absent is not None:
            prob[absent] = np.nan
            observed = np.where(absent[rows], np.int8(-1), observed)
        er2 = np.full(len(prob), np.nan, np.float32)
        left_out = None
        if mismatch is not None:
            left_out = leave_one_out(prob[rows], observed, mismatch)
            er2[rows] = correlation(left_out, observed)
        called = np.full(prob.shape, -1, np.int8)
        called[rows] = observed
        prob[rows] = np.where(observed >= 0, observed, prob[rows])
        typed = np.zeros(len(prob), bool)
        typed[rows] = True
        info = DosageSums.of(prob).info(self.calibration, typed)
        info["ER2"] = er2**2
        sites = self.panel.sites.take(slice(start + tile.start, start + tile.stop))
        block = ImputedBlock(
            sites=replace(sites, contig=self.contig),
            allele_prob=columns.restore(prob, tile, np.nan),
            called=columns.restore(called, tile, -2),
            info=info,
            typed=typed,
        )
        if left_out is not None:
            of_typed = replace(columns, haploid=columns.haploid[tile][rows])
            left_out = of_typed.restore(left_out, slice(None), np.nan)
        return block, left_out, er2
