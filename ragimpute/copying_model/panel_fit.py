"""Fit a copying model's parameters and network to a panel, for each stretch of its typed sites."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ragimpute.copying.choose_parameters import fit_panel, num_typed_to_fit
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window
from ragimpute.copying_model.array_index import ArrayPart, TunedNetwork
from ragimpute.copying_model.fine_tuning import adapt_network, check_network
from ragimpute.copying_model.pair_network import PairNetwork, needs_torch
from ragimpute.evidence.site_quality import SiteQuality
from ragimpute.kernels.bits import WORD
from ragimpute.model.folder import ModelFolder
from ragimpute.panel.reader import Panel
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.threads import Task, start
from ragimpute.runtime.timing import Stopwatch

if TYPE_CHECKING:
    from ragimpute.model.checkpoint import LoadedModel
    from ragimpute.retrieval.retriever import Retriever

# The typed sites are divided into stretches of about so many cM, each with its own parameters.
_FIT_CM = 40.0
# The network of a stretch is fitted to at most so many typed sites in its middle.
_TUNE_TYPED = 4096
# And to at most so many panel sites, which are all imputed in two hundred haplotypes at once.
_TUNE_SITES = 1 << 16


class BackgroundNetwork:
    """A copying model's network, loaded in a background thread if it needs torch.

    Importing torch takes 1.5 s. Meanwhile the main thread goes on with other work.
    """

    def __init__(self, model: ModelFolder | LoadedModel, *, device: str, threads: int) -> None:
        self.name, self.settings, self.trained = model.name, model.settings, model.trained
        self.uses_torch = self.trained and needs_torch(self.settings)
        self._model = model
        self._device, self._threads = device, threads
        self._ready: PairNetwork | None = None
        self._loading: Future[PairNetwork] | None = None

    def start(self) -> None:
        """Start to load the network in the background, if it needs torch and was not started."""
        if self.uses_torch and self._loading is None:
            pool = ThreadPoolExecutor(1, thread_name_prefix="network")
            self._loading = pool.submit(self._load)
            pool.shutdown(wait=False)

    def ready(self) -> PairNetwork:
        """The network; waits until it is loaded."""
        if self._ready is None:
            self._ready = self._load() if self._loading is None else self._loading.result()
        return self._ready

    def _load(self) -> PairNetwork:
        if isinstance(self._model, ModelFolder):
            return PairNetwork.of_folder(self._model, device=self._device, threads=self._threads)
        return PairNetwork.of_model(self._model, device=self._device, threads=self._threads)


@dataclass(frozen=True)
class Fit:
    """Parameters that were fitted for a stretch of the typed sites, and a network that is.

    Attributes
    ----------
    parameters
        Copying parameters.
    tuned
        Gives the network (None: the model has none), and the quality of the sites of the window
        that it was fitted in, if fitting has measured it; else None.
    sites
        That window: its first panel site, and the one after its last. None: none is measured.
    """

    parameters: CopyingParameters
    sites: tuple[int, int] | None
    tuned: Task[tuple[PairNetwork | None, SiteQuality | None]]


@dataclass(frozen=True)
class FitOptions:
    """How a copying model is fitted to a panel, and on what it runs.

    Attributes
    ----------
    ne, err
        Effective population size and mismatch probability. None: chosen by imputing left-out panel
        haplotypes, see :func:`ragimpute.copying.choose_parameters.fit_panel`.
    fine_tune
        Whether the network is fitted to the panel, if it has weights; see
        :mod:`ragimpute.copying_model.fine_tuning`.
    seed, threads, device, max_memory
        See :class:`ragimpute.imputation.options.ImputeOptions`.
    """

    ne: float | None = None
    err: float | None = None
    fine_tune: bool = True
    seed: int = 1
    threads: int = 1
    device: str = "auto"
    max_memory: int | None = None


#: Measures the quality of a window's sites under these parameters, and keeps what copying gives for
#: the left-out samples in a range of the words of its typed sites.
Measure = Callable[[CopyingParameters, tuple[int, int]], SiteQuality]


class _Around(NamedTuple):
    """The window that fitting is asked for in.

    Attributes
    ----------
    window, left
        The window, and its first panel site.
    alone
        Whether the network is tuned on the window itself.
    retriever, measure
        See :meth:`StretchFits.at`.
    """

    window: Window
    left: int
    alone: bool
    retriever: Callable[[], Retriever | None]
    measure: Measure | None

    def words_of(self, typed_index: np.ndarray) -> tuple[int, int] | None:
        """The words that hold typed sites of the panel, whose copying may be kept.

        None: the panel is copied whole, or the window has not all of ``typed_index``.
        """
        if self.measure is None:
            return None
        first, last = (
            int(np.searchsorted(self.window.typed_index, typed_index[end] - self.left))
            for end in (0, -1)
        )
        inside = last < len(self.window.typed_index) and np.array_equal(
            self.window.typed_index[first : last + 1] + self.left, typed_index
        )
        return (first // WORD, last // WORD + 1) if inside else None

    def part(self, words: tuple[int, int]) -> Window:
        """The stretch of the window from the first to the last typed site of a range of words.

        Haplotypes have the signatures of the whole window.
        """
        typed = self.window.typed_index[words[0] * WORD : words[1] * WORD]
        out = self.between(int(typed[0]), int(typed[-1]) + 1, typed)
        vars(out)["signature"] = self.window.signature
        return out

    def between(self, low: int, high: int, typed: np.ndarray) -> Window:
        """The sites [low, high) of the window, of which ``typed`` are typed."""
        return Window.build(
            self.window.haplotypes.part(low, high), self.window.position_cm[low:high], typed - low
        )


class StretchFits:
    """Parameters and networks, each fitted once for a stretch of the typed sites.

    Parameters
    ----------
    panel, typed_index, options, array
        See :class:`ragimpute.copying_model.imputer.CopyingImputer`.
    network
        The model's network.
    """

    def __init__(
        self,
        panel: Panel,
        typed_index: np.ndarray,
        network: BackgroundNetwork,
        options: FitOptions,
        array: ArrayPart | None = None,
    ) -> None:
        self._panel, self._typed_index, self._network = panel, typed_index, network
        self._options, self._array = options, array
        self._fits: dict[tuple[int, int, int], Fit] = {}

    def settings(self) -> dict[str, str]:
        """The values of ne and err of all stretches fitted so far, for the report."""
        num = self._panel.num_haplotypes
        known = list({k[0]: self._fits[k].parameters for k in sorted(self._fits)}.values())
        return {
            "ne": ", ".join(f"{p.ne(num):.3g}" for p in known),
            "err": ", ".join(f"{p.mismatch_prob:.2g}" for p in known),
        }

    def is_tuned_on(self, typed_index: np.ndarray, window: Window) -> bool:
        """Whether the network is tuned on a window itself, which has all typed sites of the run."""
        num = len(self._typed_index)
        return len(typed_index) == num <= _TUNE_TYPED and window.num_sites <= _TUNE_SITES

    def at(
        self,
        typed_index: np.ndarray,
        window: Window,
        sites: tuple[int, int],
        seconds: dict[str, float],
        retriever: Callable[[], Retriever | None] = lambda: None,
        measure: Measure | None = None,
        *,
        is_known: bool = False,
    ) -> Fit:
        """Parameters and network for a window, fitted once for each stretch of the typed sites.

        ``sites``: the window's first panel site, and the one after its last. ``seconds`` takes the
        times. ``retriever`` gives what finds states by the window's typed sites; None: it is made
        if it is needed. ``measure`` measures the quality of the window's sites; None: the panel is
        copied whole, and fitting measures sites by itself. ``is_known``: the quality of the
        window's sites is in the index.
        """
        every = self._typed_index
        cm = self._panel.position_cm[every]
        stretches = max(1, round((cm[-1] - cm[0]) / _FIT_CM))
        edges = np.linspace(cm[0], cm[-1], stretches + 1)
        middle = self._panel.position_cm[typed_index[len(typed_index) // 2]]
        stretch = int(np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, stretches - 1))
        # If this window has all typed sites of the run, the network is tuned on the window itself,
        # and the quality of its sites, measured on the way, serves imputing too. Several windows
        # may have all typed sites: each gets a fit of its own, so that their order has no effect.
        tunes = self._network.trained and self._options.fine_tune
        alone = self.is_tuned_on(typed_index, window)
        key = (stretch, *(sites if alone else (-1, -1)))
        if key not in self._fits:
            inside = every[(cm >= edges[stretch]) & (cm <= edges[stretch + 1])]
            # Where fitting measures the quality of the window's sites on the way, an index is of
            # use only if it has both.
            array = self._array
            if alone and not is_known and array is not None and not array.fits_only:
                array = None
            around = _Around(window, sites[0], alone, retriever, measure)
            self._fits[key] = self._fit(key, inside, sites, around, tunes, seconds, array)
        return self._fits[key]

    def _fit(
        self,
        key: tuple[int, int, int],
        typed_index: np.ndarray,
        sites: tuple[int, int],
        around: _Around,
        tunes: bool,
        seconds: dict[str, float],
        array: ArrayPart | None,
    ) -> Fit:
        """Fit parameters and network for a stretch of typed sites, or take those of the index.

        ``around``: the window with these ``sites`` is what is asked for. ``array``: what the index
        holds.
        """
        known = None if array is None else array.fit(key, self._middle(typed_index))
        parameters = None if known is None else known[0]
        if parameters is None:
            finds = around.retriever() if around.alone else None
            watch = Stopwatch(seconds)
            parameters = self._panel_fit(typed_index, around, finds)
            watch.lap("fit")
        tune = partial(
            self._tuned, key, typed_index, around, parameters,
            tunes=tunes, known=known, seconds=seconds,
        )  # fmt: skip
        measures = around.alone or around.words_of(_to_tune(typed_index)) is not None
        return Fit(parameters, sites if measures else None, start(tune, is_long=True))

    def _tuned(
        self,
        key: tuple[int, int, int],
        typed_index: np.ndarray,
        around: _Around,
        parameters: CopyingParameters,
        *,
        tunes: bool,
        known: tuple[CopyingParameters, TunedNetwork | None] | None,
        seconds: dict[str, float],
    ) -> tuple[PairNetwork | None, SiteQuality | None]:
        """Fit the network for a stretch of typed sites; see :attr:`Fit.tuned`.

        ``known``: parameters and network of the index; None: it has none.
        """
        array, watch = self._array, Stopwatch(seconds)
        network, quality = None, None
        if self._network.trained:
            with Stage("load network"):
                network = self._network.ready()
            watch.lap("load")
        if network is not None and tunes:
            tuned = None if known is None else known[1]
            if array is not None and tuned is not None:
                tuned = array.checked(tuned, [weight.shape for weight, _ in network.site.layers])
                network = replace(network.with_layers(tuned.layers), trust=tuned.trust)
            else:
                network, quality = self._adapted(network, typed_index, around, parameters, watch)
            watch.lap("fine-tune")
        if array is not None and known is None:
            made = None
            if network is not None and tunes:
                made = TunedNetwork(network.site.layers, network.trust)
            array.keep_fit(key, self._middle(typed_index), parameters, made)
        return network, quality

    def _adapted(
        self,
        network: PairNetwork,
        typed_index: np.ndarray,
        around: _Around,
        parameters: CopyingParameters,
        watch: Stopwatch,
    ) -> tuple[PairNetwork, SiteQuality | None]:
        """Fit the network to a stretch; also the quality of the window's sites, if it is measured.

        Where states are retrieved, the samples that the quality of sites is measured with also tell
        how far the network is to be trusted, if the window has the middle of the stretch. Only if
        they have so many pairs in doubt that the network is to be trained, others are imputed.
        """
        to_tune = around.window.typed_index + around.left
        if not around.alone:
            to_tune = _to_tune(typed_index)
        words = around.words_of(to_tune)
        quality, every = None, self._panel.haplotype_sample
        if around.measure is not None and words is not None:
            quality = around.measure(parameters, words)
            watch.skip()
            copies, quality = quality.copies, replace(quality, copies=None)
            if copies is not None:
                here = slice(words[0] * WORD, words[1] * WORD)
                checked = check_network(
                    network, around.part(words), every,
                    replace(parameters, site_mismatch_prob=quality.mismatch_prob[here]), copies,
                    threads=self._options.threads,
                )  # fmt: skip
                if checked is not None:
                    return checked, quality
        window = around.window if around.alone else self._window_of(to_tune, around)
        adapted, measured = adapt_network(
            network, window, every, parameters,
            seed=self._options.seed, threads=self._options.threads,
        )  # fmt: skip
        return adapted, quality or (measured if around.alone else None)

    def _middle(self, typed_index: np.ndarray) -> float:
        """Where the middle of a stretch of typed sites is, cM."""
        return float(self._panel.position_cm[typed_index[len(typed_index) // 2]])

    def _panel_fit(
        self, typed_index: np.ndarray, around: _Around, retriever: Retriever | None
    ) -> CopyingParameters:
        """Fit the copying parameters that the user has not given, on part of the typed sites."""
        num, ne, err = self._panel.num_haplotypes, self._options.ne, self._options.err
        if ne is not None and err is not None:
            return CopyingParameters.from_ne(ne, err, num)
        window = around.window
        if not around.alone or len(typed_index) > num_typed_to_fit(num):
            centre = _centre(typed_index, num_typed_to_fit(num))
            window, retriever = self._window_of(centre, around), None
        fitted = fit_panel(
            window, self._panel.haplotype_sample, retriever=retriever,
            seed=self._options.seed, threads=self._options.threads,
        )  # fmt: skip
        if ne is not None:
            fitted = CopyingParameters.from_ne(ne, fitted.mismatch_prob, num)
        if err is not None:
            fitted = CopyingParameters(fitted.switch_rate, err)
        return fitted

    def _window_of(self, typed_index: np.ndarray, around: _Around) -> Window:
        """A window of the panel from the first to the last of the typed sites.

        It is a part of ``around`` if that has these sites, and is read from the panel otherwise.
        """
        low, high = int(typed_index[0]), int(typed_index[-1]) + 1
        first, last = low - around.left, high - around.left
        same = around.window.typed.num_haplotypes == self._panel.num_haplotypes
        if same and first >= 0 and last <= around.window.num_sites:
            return around.between(first, last, typed_index - around.left)
        return Window.build(
            self._panel.haplotypes(low, high), self._panel.position_cm[low:high], typed_index - low,
            threads=self._options.threads,
        )  # fmt: skip


def _centre(typed_index: np.ndarray, most: int) -> np.ndarray:
    """The ``most`` typed sites in the middle, or all if there are fewer."""
    first = max(0, (len(typed_index) - most) // 2)
    return typed_index[first : first + most]


def _to_tune(typed_index: np.ndarray) -> np.ndarray:
    """The typed sites in the middle of a stretch on which the network is fitted."""
    centre = _centre(typed_index, _TUNE_TYPED)
    out: np.ndarray = centre[np.abs(centre - centre[len(centre) // 2]) <= _TUNE_SITES // 2]
    return out
