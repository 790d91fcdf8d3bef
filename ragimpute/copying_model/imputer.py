"""Impute windows by copying, corrected by a network: the family of models that ships."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import is_copied_whole, retriever_for
from ragimpute.copying.window import Window
from ragimpute.copying_model.array_index import ArrayPart, KeptWindow
from ragimpute.copying_model.correction import Output, copy_and_correct, wanted_by
from ragimpute.copying_model.engine import Engine, copies_by_torch, engine_of
from ragimpute.copying_model.mosaics import Mosaics, find_mosaics
from ragimpute.copying_model.pair_network import PairNetwork, needs_torch
from ragimpute.copying_model.panel_fit import BackgroundNetwork, FitOptions, StretchFits
from ragimpute.copying_model.target_mismatch import (
    Group,
    TypedProbs,
    groups_of,
    mismatch_factors,
    with_factors,
)
from ragimpute.copying_model.twins import Imputed
from ragimpute.copying_model.wide_panel import Part, WideWindow
from ragimpute.evidence.expected_r2 import LeftOutSays, WindowSays, expected_r2
from ragimpute.evidence.features import SITE_FEATURES
from ragimpute.evidence.site_quality import SiteQuality, SiteRows, measure_sites
from ragimpute.extras import require
from ragimpute.kernels.simd_floats import LANES
from ragimpute.model.folder import ModelFolder, searches_index
from ragimpute.panel.compact import COMPACT_ABOVE
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelDraw, draw_panel
from ragimpute.runtime.memory import give_back
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.threads import start
from ragimpute.runtime.timing import SharedTimes, Stopwatch
from ragimpute.target.window import TargetWindow

if TYPE_CHECKING:
    from ragimpute.model.checkpoint import LoadedModel
    from ragimpute.retrieval.retriever import Retriever

log = logging.getLogger("ragimpute")

# With fewer typed sites than this in a window, copying is a guess, unlike anything that the network
# was trained on, and the network would make it worse: it is not applied.
_LEAST_TYPED = 8


class CopyingImputer:
    """Impute by Li-Stephens copying, and correct pairs in doubt by a network.

    Parameters
    ----------
    panel
        The panel.
    typed_index
        Shape (T,), int: all typed sites of the run; parameters are fitted to their density.
    model
        The model, or its folder, which is then read in the background. A model without weights does
        not change what copying gives.
    options
        How it is fitted to the panel.
    array
        What an index holds of this panel and an array. If the array types other sites than the
        target (``fits_only``), parameters and network are taken; otherwise all of it, and at sites
        of the array that the target lacks nothing was observed. None: everything is made anew.
    """

    def __init__(
        self,
        panel: Panel,
        typed_index: np.ndarray,
        model: ModelFolder | LoadedModel,
        options: FitOptions,
        array: ArrayPart | None = None,
    ) -> None:
        self._panel, self._options, self._array = panel, options, array
        if array is not None and not array.fits_only:
            typed_index = array.typed_index
        self._network = BackgroundNetwork(model, device=options.device, threads=options.threads)
        # A very large panel is fitted to some of its haplotypes only.
        self._fitted = draw_panel(panel, COMPACT_ABOVE, options.seed)
        self._fits = StretchFits(self._fitted, typed_index, self._network, options, array)
        # The window of a very large panel that was read last.
        self._wide: WideWindow | None = None
        whole = is_copied_whole(panel.num_haplotypes)
        self.settings: dict[str, object] = {
            "model": model.name,
            "correction": "network" if model.trained else "none (Li-Stephens alone)",
            "states": "all panel haplotypes" if whole else "retrieved",
        }
        self.seconds: dict[str, float] = {}
        self._engine = engine_of(options.device, options.threads, options.max_memory)
        self.uses_torch = self._network.uses_torch or self._engine.uses_torch
        if self._engine.uses_torch:
            self.settings["copying"] = f"torch on {self._engine.device}"
        self.leaves_out = True
        self.is_wide = self._fitted is not panel
        # Sites are measured where their mismatch probabilities, or the network, need it.
        self.expects_r2 = options.err is None or model.trained

    def prepare(self, target: TargetWindow) -> PreparedCopying:
        """See :meth:`ragimpute.imputation.imputer.Imputer.prepare`."""
        target, rows = self._of_array(target)
        left, right, core, typed_index, _, _ = target
        bounds = (left, *core, right)
        array, watch = self._array, Stopwatch(self.seconds)
        drawn = self._fitted.num_haplotypes if self.is_wide else None
        kept = None
        if array is not None:
            num = target.alleles.shape[1]
            kept = array.window(bounds, typed_index, num_drawn=drawn, num_targets=num)
        if kept is not None:
            window, self._wide = kept.window, kept.wide
        else:
            with Stage("read panel", right - left):
                window = self._read(target)
        watch.lap("read")
        self._network.start()
        # What finds states is made beside what is fitted to the panel, and the network is fitted
        # beside the quality of sites.
        known = None if kept is None else kept.retriever
        tables = start(partial(self._retriever_of, window, known), is_long=True)

        def measured(given: CopyingParameters, words: tuple[int, int] | None = None) -> SiteQuality:
            watch = Stopwatch(self.seconds)
            found = measure_sites(
                window, self._fitted.haplotype_sample, given, retriever=tables.result(),
                kept_words=words, seed=self._options.seed, threads=self._options.threads,
            )  # fmt: skip
            watch.lap("quality")
            return found

        whole = is_copied_whole(self._fitted.num_haplotypes)
        fit = self._fits.at(
            typed_index, window, (left, right), self.seconds, tables.result,
            measure=None if whole else measured, is_known=kept is not None,
        )  # fmt: skip
        retriever = tables.result()
        give_back()
        self.settings |= self._fits.settings()
        quality = None
        if fit.sites == (left, right):
            quality = fit.tuned.result()[1]
        if quality is None and kept is not None:
            quality = kept.quality
        if quality is None and (self._options.err is None or self._network.trained):
            quality = measured(fit.parameters)
        network = fit.tuned.result()[0]
        if retriever is not None and self._wide is None:
            watch = Stopwatch(self.seconds)
            window.minor_alleles  # noqa: B018  copying reads them: later several threads would ask
            watch.lap("retrieve")
        give_back()  # what measuring and fitting held
        if array is not None and kept is None:
            array.keep_window(bounds, KeptWindow(window, retriever, quality, self._wide))
        if len(rows) < len(typed_index):
            quality = _without(quality, window, rows)
        num_panel = self._panel.num_haplotypes
        parameters = fit.parameters.scaled(self._fitted.num_haplotypes, num_panel)
        if self._options.err is None and quality is not None:
            parameters = replace(parameters, site_mismatch_prob=quality.mismatch_prob)
        log.debug(
            "ne %.3g, err %.2g, %s, %s", parameters.ne(num_panel),
            parameters.mismatch_prob, f"states: {self.settings['states']}",
            "network" if network is not None else "no network",
        )  # fmt: skip
        enough = len(rows) >= _LEAST_TYPED
        return PreparedCopying(
            self, target, window, self._wide or _Source(window, retriever, num_panel, self._engine),
            fit.parameters, parameters,
            network=network if quality is not None and enough else None,
            features=_no_quality(window) if quality is None else quality.features,
            says=None if quality is None else self._left_out_says(window, left, quality),
            rows=rows,
        )  # fmt: skip

    def _left_out_says(self, window: Window, left: int, quality: SiteQuality) -> LeftOutSays:
        """What left-out samples say of the core sites of a window that begins at site ``left``."""
        af = self._panel.af[left : left + window.num_sites]
        copies = np.rint(np.minimum(af, 1 - af) * self._panel.num_haplotypes)
        r2 = expected_r2(quality.measured, copies, window.typed_index)
        of_core = slice(*window.core)
        r2 = None if r2 is None else r2[of_core]
        return LeftOutSays(r2, copies[of_core], quality.rare_excess, quality.left_out_r2)

    def impute(
        self,
        ready: PreparedCopying,
        *,
        batch: int,
        put: Callable[[int, int, np.ndarray], None],
    ) -> WindowSays:
        """Impute a window that :meth:`prepare` made ready."""
        _, _, core, typed_index, alleles, sample = ready.target
        enough = len(ready.rows) >= _LEAST_TYPED
        imputed = Imputed.of(alleles, sample)
        put = imputed.all_of(put)
        window, parameters = ready.window, ready.parameters
        network, features = ready.network, ready.features
        num = len(imputed.copies)
        stage = Stage("copy", num * (core[1] - core[0]))
        factor = np.ones(num)
        with stage:
            mosaics = self._mosaics(window, imputed, ready.of_panel)
            usual = mosaics.others(imputed, parameters, put)
            typed = TypedProbs(window, len(usual.imputed.copies))

            def keep_typed(first: int, site: int, prob: np.ndarray) -> None:
                typed.keep(first, site, prob)
                usual.put(first, site, prob)
                stage.advance(prob.size)

            if len(usual.imputed.copies):
                first_time = usual._replace(put=keep_typed)
                self._copy(first_time, ready.source, network, features, batch)
            if parameters.site_mismatch_prob is not None and enough:
                found = mismatch_factors(typed, usual.imputed, parameters)
                for group in groups_of(usual.imputed, parameters, found, usual.put):
                    self._copy(group, ready.source, network, features, batch)
                factor[mosaics.number < 0] = found
            for group in mosaics.groups(imputed, put):
                # The network knows no samples that resemble the panel so much.
                self._copy(group, ready.source, None, features, batch)
                stage.advance(len(group.imputed.copies) * (core[1] - core[0]))
        every = with_factors(parameters, len(typed_index), factor)
        mismatch = mosaics.with_own(every)[ready.rows]
        if mismatch.ndim == 2:
            mismatch = np.repeat(mismatch, imputed.copies, axis=1)
        # Left-out samples say nothing of targets that are mosaics of the panel.
        says = None if (mosaics.number >= 0).mean() > 0.5 else ready.says
        return WindowSays(mismatch, says)

    def _mosaics(self, window: Window, imputed: Imputed, parameters: CopyingParameters) -> Mosaics:
        """The targets that are mosaics of the panel, unless the user has set the parameters."""
        if self._options.ne is not None or self._options.err is not None:
            return Mosaics(np.full(len(imputed.copies), -1), ())
        sample = self._fitted.haplotype_sample
        return find_mosaics(window, sample, imputed, parameters, seed=self._options.seed)

    def _of_array(self, target: TargetWindow) -> tuple[TargetWindow, np.ndarray]:
        """A target at the typed sites of the index's array, and which of these it has itself.

        Nothing was observed at the others. Without an index, or if only fits are taken from it, it
        is the target as it is.
        """
        array, own = self._array, target.typed_index
        if array is None or array.fits_only:
            return target, np.arange(len(own))
        first, last = np.searchsorted(array.typed_index, [target.left, target.right])
        typed_index = array.typed_index[first:last]
        rows = np.searchsorted(typed_index, own)
        if len(own) == len(typed_index):
            return target, rows
        alleles = np.full((len(typed_index), target.alleles.shape[1]), -1, np.int8)
        alleles[rows] = target.alleles
        return target._replace(typed_index=typed_index, alleles=alleles), rows

    def _read(self, target: TargetWindow) -> Window:
        """Read a window: of all haplotypes, or of those that a very large panel is fitted to."""
        left, right, core, typed_index = target[:4]
        if isinstance(self._fitted, PanelDraw):
            self._wide = WideWindow.read(
                self._panel, self._fitted.drawn, target, self._wide,
                seed=self._options.seed, threads=self._options.threads,
            )  # fmt: skip
            return self._wide.drawn
        return Window.build(
            self._panel.haplotypes(left, right), self._panel.position_cm[left:right],
            typed_index - left, (core[0] - left, core[1] - left), threads=self._options.threads,
        )  # fmt: skip

    def _copy(
        self,
        group: Group,
        source: _Source | WideWindow,
        network: PairNetwork | None,
        features: SiteRows,
        batch: int,
    ) -> None:
        """Copy targets that have the same parameters, and correct what is in doubt."""
        watch = Stopwatch(self.seconds)
        for part in source.parts(group, self._options.max_memory):
            if self.is_wide:
                watch.lap("retrieve")
            self._copy_part(part, network, features, batch)
            watch = Stopwatch(self.seconds)

    def _copy_part(
        self, part: Part, network: PairNetwork | None, features: SiteRows, batch: int
    ) -> None:
        """Copy targets that fit into memory together, see :meth:`_copy`."""
        (imputed, parameters, put), window, states = part
        times = SharedTimes()

        def find(block: range, room: np.ndarray | None) -> np.ndarray:
            found = states.find(block, room)
            if states.by_word:
                times.lap("retrieve")
            return found

        # If all targets share their states, a thread holds all sites of 16 targets in memory: the
        # number of threads is limited by how many targets may be in memory.
        threads = (
            self._options.threads
            if states.by_word
            else min(self._options.threads, max(2, batch // LANES))
        )
        start = time.perf_counter()
        copy_and_correct(
            network, window, imputed.alleles, parameters,
            states=replace(states, find=find),
            wanted=wanted_by(network, features, imputed.homolog),
            output=Output(put, times),
            copy=partial(
                self._engine.copy, threads=threads,
                max_pairs=batch * (window.core[1] - window.core[0]),
            ),
        )  # fmt: skip
        for name, seconds in times.of(time.perf_counter() - start).items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _retriever_of(self, window: Window, known: Retriever | None) -> Retriever | None:
        """The retriever for a window, made unless known; None if the panel is copied whole."""
        if known is not None:
            return known
        watch = Stopwatch(self.seconds)
        found = retriever_for(
            window.typed.words, seed=self._options.seed, threads=self._options.threads
        )
        if found is not None:
            watch.lap("retrieve")
        return found


class _Source(NamedTuple):
    """A window that has all haplotypes of its panel, and what finds states in it."""

    window: Window
    retriever: Retriever | None
    num_haplotypes: int
    engine: Engine

    def parts(self, group: Group, max_memory: int | None) -> Iterator[Part]:
        """All targets at once, see :meth:`ragimpute.copying_model.wide_panel.WideWindow.parts`."""
        states = self.engine.states(self.retriever, self.num_haplotypes, group.imputed.alleles)
        yield Part(group, self.window, states)


@dataclass(frozen=True)
class PreparedCopying:
    """The :class:`ragimpute.imputation.imputer.PreparedWindow` of copying models.

    Attributes
    ----------
    imputer, target
        What imputes, and the window.
    window
        The panel there, or the draw of a very large one that it is fitted to.
    source
        Gives the targets their states.
    of_panel, parameters
        Copying parameters as they were fitted to the panel, and with the mismatch probability of
        each site.
    network, features
        What corrects the pairs in doubt (None: nothing does), and the features of sites that it
        reads.
    says
        What left-out samples say of the core sites; None: none were left out.
    rows
        Which of the target's typed sites it has itself: all, unless an index has more.
    """

    imputer: CopyingImputer
    target: TargetWindow
    window: Window
    source: _Source | WideWindow
    of_panel: CopyingParameters
    parameters: CopyingParameters
    network: PairNetwork | None
    features: SiteRows
    says: LeftOutSays | None
    rows: np.ndarray

    def impute(self, *, batch: int, put: Callable[[int, int, np.ndarray], None]) -> WindowSays:
        """See :meth:`ragimpute.imputation.imputer.PreparedWindow.impute`."""
        return self.imputer.impute(self, batch=batch, put=put)


def _without(quality: SiteQuality | None, window: Window, rows: np.ndarray) -> SiteQuality | None:
    """The quality of a window's sites if only ``rows`` of its typed sites are typed.

    That of the others is what the remaining typed sites say of them.
    """
    if quality is None or quality.as_untyped is None:
        return quality
    lacks = np.ones(window.typed.num_typed, bool)
    lacks[rows] = False
    features = np.array(quality.features)
    untyped = quality.as_untyped()
    features[window.typed_index[lacks], : untyped.shape[1]] = untyped[lacks]
    return replace(quality, features=features)


def _no_quality(window: Window) -> np.ndarray:
    """Zeros as features of sites whose quality was not measured; no network reads them."""
    return np.zeros((window.num_sites, len(SITE_FEATURES)), np.float32)


def require_packages(folder: ModelFolder, device: str) -> bool:
    """Check that the packages that a model needs are installed; return whether it needs torch.

    ``device``: where it runs. On a GPU every model needs torch.

    Raises
    ------
    MissingPackageError
        If a package is not installed.
    """
    if folder.is_copying and not (folder.trained and needs_torch(folder.settings)):
        if copies_by_torch(device):
            require("models", f"--device {device}", packages=("torch",))
            return True
        return False
    packages = ("torch", "faiss") if searches_index(folder.settings) else ("torch",)
    require("models", f"model {folder.name}", packages=packages)
    return True
