"""Impute windows by copying, corrected by a network: the family of models that ships."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import block_states, is_copied_whole, retriever_for
from ragimpute.copying.window import Window
from ragimpute.copying_model.array_index import ArrayPart, Bounds
from ragimpute.copying_model.correction import Output, copy_and_correct, wanted_by
from ragimpute.copying_model.mosaics import Mosaics, find_mosaics
from ragimpute.copying_model.pair_network import PairNetwork, needs_torch
from ragimpute.copying_model.panel_fit import BackgroundNetwork, Fit, FitOptions, StretchFits
from ragimpute.copying_model.target_mismatch import (
    Group,
    TypedProbs,
    groups_of,
    mismatch_factors,
    with_factors,
)
from ragimpute.copying_model.twins import Imputed
from ragimpute.evidence.expected_r2 import LeftOutSays, expected_r2
from ragimpute.evidence.features import SITE_FEATURES
from ragimpute.evidence.site_quality import SiteQuality, SiteRows, measure_sites
from ragimpute.extras import require
from ragimpute.kernels.simd_floats import LANES
from ragimpute.model.folder import ModelFolder, searches_index
from ragimpute.panel.reader import Panel
from ragimpute.runtime.memory import give_back
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import SharedTimes, Stopwatch
from ragimpute.target.window import TargetWindow

if TYPE_CHECKING:
    from ragimpute.model.checkpoint import LoadedModel
    from ragimpute.retrieval.retriever import Retriever

log = logging.getLogger("ragimpute")

# With fewer typed sites than this in a window, copying is a guess, unlike anything that the network
# was trained on, and the network would make it worse: it is not applied.
_LEAST_TYPED = 8


@dataclass(frozen=True)
class Ready:
    """What a window's imputation needs and what does not depend on the target's genotypes.

    Attributes
    ----------
    window
        The panel.
    retriever
        Finds states; None: the panel is copied whole.
    fit
        Parameters and network.
    parameters
        Those of ``fit``, with the mismatch probabilities of the window's typed sites if the user
        has set none.
    quality
        That of the window's sites, if it was measured.
    """

    window: Window
    retriever: Retriever | None
    fit: Fit
    parameters: CopyingParameters
    quality: SiteQuality | None


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
        self._typed_index = typed_index
        if array is not None and not array.fits_only:
            self._typed_index = array.typed_index
        self._network = BackgroundNetwork(model, device=options.device, threads=options.threads)
        self._fits = StretchFits(panel, self._typed_index, self._network, options, array)
        # Those of the window imputed last, of each typed site (T,) or of each target there (T, n).
        self._mismatch: np.ndarray | None = None
        whole = is_copied_whole(panel.num_haplotypes)
        self.settings: dict[str, object] = {
            "model": model.name,
            "correction": "network" if model.trained else "none (Li-Stephens alone)",
            "states": "all panel haplotypes" if whole else "retrieved",
        }
        self.seconds: dict[str, float] = {}
        self.uses_torch = self._network.uses_torch
        self.leaves_out = True
        # Sites are measured where their mismatch probabilities, or the network, need it.
        self.expects_r2 = options.err is None or model.trained
        self._said: LeftOutSays | None = None

    def mismatch_probs(self, num_typed: int) -> np.ndarray | None:
        """See :meth:`ragimpute.imputation.imputer.Imputer.mismatch_probs`."""
        return self._mismatch

    def left_out_says(self) -> LeftOutSays | None:
        """See :meth:`ragimpute.imputation.imputer.Imputer.left_out_says`."""
        return self._said

    def impute(
        self,
        target: TargetWindow,
        *,
        batch: int,
        put: Callable[[int, int, np.ndarray], None],
    ) -> None:
        """See :meth:`ragimpute.imputation.imputer.Imputer.impute`."""
        left, right, core, typed_index, alleles, sample = target
        watch = Stopwatch(self.seconds)
        ready = self.ready((left, *core, right), watch, typed_index)
        # Which of the window's typed sites the target types: all, unless an index has more.
        rows = np.searchsorted(ready.window.typed_index, typed_index - left)
        if len(rows) < ready.window.typed.num_typed:
            alleles = _observed_at(rows, alleles, ready.window.typed.num_typed)
            ready = replace(ready, quality=_without(ready, rows))
        imputed = Imputed.of(alleles, sample)
        put = imputed.all_of(put)
        window, retriever, parameters, quality = (
            ready.window, ready.retriever, ready.parameters, ready.quality
        )  # fmt: skip
        log.debug(
            "ne %.3g, err %.2g, %s, %s", parameters.ne(self._panel.num_haplotypes),
            parameters.mismatch_prob, f"states: {self.settings['states']}",
            "network" if ready.fit.network is not None else "no network",
        )  # fmt: skip
        self._said = None if quality is None else self._said_of(window, quality, left)
        enough = len(typed_index) >= _LEAST_TYPED
        network = ready.fit.network if quality is not None and enough else None
        features = _no_quality(window) if quality is None else quality.features
        num = len(imputed.copies)
        stage = Stage("copy", num * (core[1] - core[0]))
        factor = np.ones(num)
        with stage:
            mosaics = self._mosaics(window, imputed, ready.fit.parameters)
            usual = mosaics.others(imputed, parameters, put)
            typed = TypedProbs(window, len(usual.imputed.copies))

            def keep_typed(first: int, site: int, prob: np.ndarray) -> None:
                typed.keep(first, site, prob)
                usual.put(first, site, prob)
                stage.advance(prob.size)

            if len(usual.imputed.copies):
                first_time = usual._replace(put=keep_typed)
                self._copy(first_time, window, retriever, network, features, batch)
            if parameters.site_mismatch_prob is not None and enough:
                found = mismatch_factors(typed, usual.imputed, parameters)
                for group in groups_of(usual.imputed, parameters, found, usual.put):
                    self._copy(group, window, retriever, network, features, batch)
                factor[mosaics.number < 0] = found
            for group in mosaics.groups(imputed, put):
                # The network knows no samples that resemble the panel so much.
                self._copy(group, window, retriever, None, features, batch)
                stage.advance(len(group.imputed.copies) * (core[1] - core[0]))
        every = with_factors(parameters, window.typed.num_typed, factor)
        mismatch = mosaics.with_own(every)[rows]
        self._mismatch = (
            np.repeat(mismatch, imputed.copies, axis=1) if mismatch.ndim == 2 else mismatch
        )
        if (mosaics.number >= 0).mean() > 0.5:
            self._said = None  # left-out samples say nothing of such targets

    def ready(
        self, bounds: Bounds, watch: Stopwatch, typed_index: np.ndarray | None = None
    ) -> Ready:
        """All that a window's imputation needs and that does not depend on the target's genotypes.

        It is read from the index, as far as it is there; what is made is added to the index, if it
        grows.

        Parameters
        ----------
        bounds
            The window. At least one site in it is typed.
        watch
            Takes the times by stage.
        typed_index
            Shape (T,), int: the typed sites in the window; None: those of the run. If all of an
            array of the index is used, they are that array's.
        """
        left, start, stop, right = bounds
        array = self._array
        if typed_index is None or (array is not None and not array.fits_only):
            first, last = np.searchsorted(self._typed_index, [left, right])
            typed_index = self._typed_index[first:last]
        self._network.start()
        known = None if array is None else array.window(bounds, typed_index)
        if known is not None:
            window, retriever, quality = known
            watch.lap("read")
        else:
            with Stage("read panel", right - left):
                window = Window.build(
                    self._panel.haplotypes(left, right),
                    self._panel.position_cm[left:right],
                    typed_index - left,
                    (start - left, stop - left),
                )
            watch.lap("read")
            retriever, quality = self._retriever_of(window), None
            if retriever is not None:
                watch.lap("retrieve")
        fit = self._fits.at(
            typed_index, window, (left, right), watch, retriever, is_known=known is not None
        )
        give_back()
        self.settings |= self._fits.settings()
        parameters = fit.parameters
        if quality is None:
            quality = fit.quality
        if quality is None and (self._options.err is None or self._network.trained):
            quality = measure_sites(
                window, self._panel.haplotype_sample, parameters,
                retriever=retriever, seed=self._options.seed, threads=self._options.threads,
            )  # fmt: skip
            give_back()
            watch.lap("quality")
        if array is not None and known is None:
            array.keep_window(bounds, window, retriever, quality)
        if self._options.err is None and quality is not None:
            parameters = replace(parameters, site_mismatch_prob=quality.mismatch_prob)
        return Ready(window, retriever, fit, parameters, quality)

    def _said_of(self, window: Window, quality: SiteQuality, left: int) -> LeftOutSays:
        """What left-out samples say of the core of the window that begins at ``left``."""
        af = self._panel.af[left : left + window.num_sites]
        copies = np.rint(np.minimum(af, 1 - af) * self._panel.num_haplotypes)
        r2 = expected_r2(quality.measured, copies, window.typed_index)
        of_core = slice(*window.core)
        r2 = None if r2 is None else r2[of_core]
        return LeftOutSays(r2, copies[of_core], quality.rare_excess, quality.left_out_r2)

    def _mosaics(self, window: Window, imputed: Imputed, parameters: CopyingParameters) -> Mosaics:
        """The targets that are mosaics of the panel, unless the user has set the parameters."""
        if self._options.ne is not None or self._options.err is not None:
            return Mosaics(np.full(len(imputed.copies), -1), ())
        sample = self._panel.haplotype_sample
        return find_mosaics(window, sample, imputed, parameters, seed=self._options.seed)

    def _copy(
        self,
        group: Group,
        window: Window,
        retriever: Retriever | None,
        network: PairNetwork | None,
        features: SiteRows,
        batch: int,
    ) -> None:
        """Copy targets that have the same parameters, and correct what is in doubt."""
        alleles, homolog, _ = group.imputed
        times = SharedTimes()
        states = block_states(retriever, self._panel.num_haplotypes, alleles)

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
            network, window, alleles, group.parameters,
            states=replace(states, find=find),
            wanted=wanted_by(network, features, homolog),
            output=Output(group.put, times), threads=threads,
            max_pairs=batch * (window.core[1] - window.core[0]),
        )  # fmt: skip
        for name, seconds in times.of(time.perf_counter() - start).items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _retriever_of(self, window: Window) -> Retriever | None:
        """Make the retriever for a window, or return None if the panel is copied whole.

        It also computes the window's minor alleles by haplotype, which copying from retrieved
        states reads: later this would happen in several threads.
        """
        found = retriever_for(
            window.typed.words, seed=self._options.seed, threads=self._options.threads
        )
        if found is not None:
            window.minor_alleles  # noqa: B018
        return found


def _observed_at(rows: np.ndarray, alleles: np.ndarray, num_typed: int) -> np.ndarray:
    """Alleles (T, n) at ``rows`` (T,) of ``num_typed`` sites; the others were not observed."""
    out = np.full((num_typed, alleles.shape[1]), -1, np.int8)
    out[rows] = alleles
    return out


def _without(ready: Ready, rows: np.ndarray) -> SiteQuality | None:
    """The quality of a window's sites if only ``rows`` of its typed sites are typed.

    That of the others is what the remaining typed sites say of them.
    """
    quality = ready.quality
    if quality is None or quality.as_untyped is None:
        return quality
    lacks = np.ones(ready.window.typed.num_typed, bool)
    lacks[rows] = False
    features = np.array(quality.features)
    untyped = quality.as_untyped()
    features[ready.window.typed_index[lacks], : untyped.shape[1]] = untyped[lacks]
    return replace(quality, features=features)


def _no_quality(window: Window) -> np.ndarray:
    """Zeros as features of sites whose quality was not measured; no network reads them."""
    return np.zeros((window.num_sites, len(SITE_FEATURES)), np.float32)


def require_packages(folder: ModelFolder) -> bool:
    """Check that the packages that a model needs are installed; return whether it needs torch.

    Raises
    ------
    MissingPackageError
        If a package is not installed.
    """
    if folder.is_copying and not (folder.trained and needs_torch(folder.config)):
        return False
    packages = ("torch", "faiss") if searches_index(folder.config) else ("torch",)
    require("models", f"model {folder.name}", packages=packages)
    return True
