"""The two ways to impute a window: copying with its residual, and a token model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ragimpute.copying import CopyingParameters, Window, copy_haplotypes
from ragimpute.impute_summary import Stopwatch
from ragimpute.likelihood import fit_parameters
from ragimpute.model_folder import ModelFolder, open_folder
from ragimpute.panel import Panel
from ragimpute.panel_states import is_copied_whole, retriever_for, states_for
from ragimpute.site_quality import SiteQuality, measure_sites

if TYPE_CHECKING:
    from ragimpute.checkpoint import LoadedModel

# Parameters are chosen anew for every stretch of so many cM.
_FIT_CM = 40.0
_STATE_BYTES = 64 * 2**20
_PAIRS_AT_ONCE = 1 << 18


class Imputer(Protocol):
    """What :func:`ragimpute.impute.impute` asks of a model.

    Attributes
    ----------
    settings
        What was used, for the report.
    seconds
        Wall time by stage, within "impute".
    uses_network
        Whether torch will be imported.
    leaves_out
        Whether typed sites can be imputed as if they were not typed (:meth:`mismatch_probs`).
    """

    settings: dict[str, object]
    seconds: dict[str, float]
    uses_network: bool
    leaves_out: bool

    def mismatch_probs(self, num_typed: int) -> np.ndarray | None:
        """Mismatch probability at the typed sites of the window imputed last: (num_typed,).

        None where P(ALT) at typed sites is not a posterior from which what was observed there can
        be divided out (see :func:`ragimpute.leave_one_out.leave_one_out`): not ``leaves_out``.
        """
        ...

    def impute(
        self,
        left: int,
        right: int,
        core: tuple[int, int],
        typed_index: np.ndarray,
        alleles: np.ndarray,
        sample: np.ndarray,
        *,
        batch: int,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Impute the sites [core) from typed sites in [left, right), some haplotypes at a time.

        Parameters
        ----------
        left, right, core
            Panel sites, half-open.
        typed_index
            Shape (T,), int: panel sites that are typed, ascending, within [left, right).
        alleles
            Shape (T, n), int8: 0, 1, or -1 where missing.
        sample
            Shape (n,), int: the target sample of each column, ascending.
        batch
            Most haplotypes at a time, >= 1; what they are given does not depend on it.

        Yields
        ------
        The first column of a batch, and P(ALT), shape (b, core sites), float32.
        """
        ...


class _Network:
    """A copying model whose network is loaded in a thread, while the copying goes on.

    Importing torch takes 1.5 s, and 1.6 s more of other start-up have passed by then; where the
    copying takes longer than that, nothing waits for it.
    """

    def __init__(self, model: ModelFolder | LoadedModel) -> None:
        self.name, self.config, self.trained = model.name, model.config, model.trained
        self._loaded = None if isinstance(model, ModelFolder) else model
        self._folder = model if isinstance(model, ModelFolder) else None
        self._loading: Future[LoadedModel] | None = None

    def start(self) -> None:
        """Begin to load, once; not at all where there are no weights."""
        if self._folder is not None and self.trained and self._loading is None:
            pool = ThreadPoolExecutor(1, thread_name_prefix="network")
            self._loading = pool.submit(_load, self._folder)
            pool.shutdown(wait=False)

    def loaded(self) -> LoadedModel:
        """The model, waited for."""
        if self._loaded is None:
            self.start()
            assert self._loading is not None
            self._loaded = self._loading.result()
        return self._loaded


def _load(folder: ModelFolder) -> LoadedModel:
    """Import torch and read the weights."""
    from ragimpute.checkpoint import load_model

    return load_model(folder)


class CopyingImputer:
    """Li-Stephens copying over retrieved haplotypes, corrected by a network where in doubt.

    Parameters
    ----------
    panel
        The panel.
    typed_index
        Shape (T,), int: all typed sites of the run; parameters are chosen for their density.
    model
        The model, or its folder, which is then read in the background; untrained, it leaves
        copying as it is.
    ne, err
        Effective population size and mismatch probability, or None: chosen by leaving panel
        haplotypes out, see :func:`ragimpute.likelihood.fit_parameters`.
    seed, threads, device
        See :func:`ragimpute.impute.impute`.
    """

    def __init__(
        self,
        panel: Panel,
        typed_index: np.ndarray,
        model: ModelFolder | LoadedModel,
        *,
        ne: float | None,
        err: float | None,
        seed: int,
        threads: int,
        device: str,
    ) -> None:
        self._panel = panel
        self._typed_index = typed_index
        self._network = _Network(model)
        self._ne, self._err = ne, err
        self._seed, self._threads = seed, threads
        self._device = device
        self._parameters: dict[int, CopyingParameters] = {}
        self._last: CopyingParameters | None = None
        whole = is_copied_whole(panel.num_haplotypes)
        self.settings: dict[str, object] = {
            "model": model.name,
            "correction": "network" if model.trained else "none (Li-Stephens alone)",
            "states": "all panel haplotypes" if whole else "retrieved",
        }
        self.seconds: dict[str, float] = {}
        self.uses_network = model.trained
        self.leaves_out = True

    def mismatch_probs(self, num_typed: int) -> np.ndarray | None:
        """See :meth:`Imputer.mismatch_probs`."""
        return None if self._last is None else self._last.mismatch_probs(num_typed)

    def impute(
        self,
        left: int,
        right: int,
        core: tuple[int, int],
        typed_index: np.ndarray,
        alleles: np.ndarray,
        sample: np.ndarray,
        *,
        batch: int,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See :meth:`Imputer.impute`."""
        watch = Stopwatch(self.seconds)
        window = Window.build(
            self._panel.haplotypes(left, right),
            self._panel.position_cm[left:right],
            typed_index - left,
            (core[0] - left, core[1] - left),
        )
        watch.lap("read")
        self._network.start()
        parameters = self._parameters_at(typed_index)
        watch.lap("fit")
        retriever = retriever_for(window.typed.words, seed=self._seed)
        if retriever is not None:
            watch.lap("retrieve")
        quality = None
        if self._err is None or self._network.trained:
            quality = measure_sites(
                window, self._panel.haplotype_sample, parameters,
                retriever=retriever, seed=self._seed, threads=self._threads,
            )  # fmt: skip
            watch.lap("quality")
        if self._err is None and quality is not None:
            parameters = replace(parameters, site_mismatch_prob=quality.mismatch_prob)
        self._last = parameters
        n = alleles.shape[1]
        step = max(1, batch)
        if retriever is not None:
            per_haplotype = 4 * retriever.num_slots * retriever.num_words
            step = min(step, max(self._threads, _STATE_BYTES // per_haplotype))
        for first in range(0, n, step):
            part = alleles[:, first : first + step]
            states = states_for(retriever, self._panel.num_haplotypes, part)
            if retriever is not None:
                watch.lap("retrieve")
            prob = copy_haplotypes(window, part, parameters, states=states, threads=self._threads)
            watch.lap("copy")
            if self._network.trained and quality is not None:
                self._correct(window, part, parameters, states, quality, prob, watch)
            yield first, prob
            watch.skip()

    def _correct(
        self,
        window: Window,
        alleles: np.ndarray,
        parameters: CopyingParameters,
        states: Callable[[int], np.ndarray],
        quality: SiteQuality,
        prob: np.ndarray,
        watch: Stopwatch,
    ) -> None:
        """Let the network move the probabilities in doubt, in place."""
        from ragimpute.evidence import collect_evidence, empty_tokens, pairs_in_doubt

        start, stop = window.core
        typed = np.zeros(prob.shape, bool)
        inside = (window.typed_index >= start) & (window.typed_index < stop)
        typed[:, window.typed_index[inside] - start] = (alleles[inside] >= 0).T
        net = self._network.config.model.copying
        pairs = pairs_in_doubt(prob, typed, doubt=net.doubt)
        edges = np.searchsorted(pairs[:, 0], np.arange(len(prob) + 1))
        first = 0
        while first < len(prob):
            # As many haplotypes at once as their pairs in doubt leave memory for.
            last = int(np.searchsorted(edges, edges[first] + _PAIRS_AT_ONCE, side="right")) - 1
            last = min(len(prob), max(first + 1, last))
            here = pairs[edges[first] : edges[last]] - [first, 0]

            def states_here(i: int, first: int = first) -> np.ndarray:
                return states(first + i)

            tokens = empty_tokens(len(here), net.num_set_tokens) if net.num_set_tokens else None
            evidence = collect_evidence(
                window, alleles[:, first:last], parameters, here,
                states=states_here, quality=quality.features, tokens=tokens,
                threads=self._threads,
            )  # fmt: skip
            watch.lap("evidence")
            loaded = self._network.loaded()
            from ragimpute.correction import correct  # torch is there by now

            watch.lap("load")
            correct(
                loaded, window, here, evidence, prob[first:last], tokens=tokens,
                device=self._device, threads=self._threads,
            )  # fmt: skip
            watch.lap("network")
            first = last

    def _parameters_at(self, typed_index: np.ndarray) -> CopyingParameters:
        """The parameters for a window, chosen once for each stretch of the typed sites."""
        num = self._panel.num_haplotypes
        if self._ne is not None and self._err is not None:
            return self._note(0, CopyingParameters.from_ne(self._ne, self._err, num))
        every = self._typed_index
        cm = self._panel.position_cm[every]
        stretches = max(1, round((cm[-1] - cm[0]) / _FIT_CM))
        edges = np.linspace(cm[0], cm[-1], stretches + 1)
        middle = self._panel.position_cm[typed_index[len(typed_index) // 2]]
        stretch = int(np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, stretches - 1))
        if stretch not in self._parameters:
            inside = every[(cm >= edges[stretch]) & (cm <= edges[stretch + 1])]
            centre = max(0, (len(inside) - 512) // 2)
            inside = inside[centre : centre + 512]
            low, high = int(inside[0]), int(inside[-1]) + 1
            window = Window.build(
                self._panel.haplotypes(low, high),
                self._panel.position_cm[low:high],
                inside - low,
            )
            fitted = fit_parameters(
                window, self._panel.haplotype_sample, seed=self._seed, threads=self._threads
            )
            if self._ne is not None:
                fitted = CopyingParameters.from_ne(self._ne, fitted.mismatch_prob, num)
            if self._err is not None:
                fitted = CopyingParameters(fitted.switch_rate, self._err)
            self._note(stretch, fitted)
        return self._parameters[stretch]

    def _note(self, stretch: int, parameters: CopyingParameters) -> CopyingParameters:
        """Keep and report the parameters of a stretch."""
        self._parameters[stretch] = parameters
        num = self._panel.num_haplotypes
        known = [self._parameters[key] for key in sorted(self._parameters)]
        self.settings["ne"] = ", ".join(f"{p.ne(num):.3g}" for p in known)
        self.settings["err"] = ", ".join(f"{p.mismatch_prob:.2g}" for p in known)
        return parameters


def make_imputer(
    model: str | Path | ModelFolder,
    panel: Panel,
    typed_index: np.ndarray,
    *,
    index: str | Path | None,
    ne: float | None,
    err: float | None,
    seed: int,
    device: str,
    threads: int,
) -> Imputer:
    """Load a model, check that it and the index fit the panel, and make its imputer.

    Raises
    ------
    InputError, ModelError, ConfigError, PanelError
        If there is no such device, or the model or the index cannot be used with this panel.
    """
    folder = model if isinstance(model, ModelFolder) else open_folder(model)
    if device not in ("auto", "cpu"):
        from ragimpute.correction import choose_device

        choose_device(device)
    found = None
    if index is not None:
        from ragimpute.index import WindowIndex

        found = WindowIndex.open(index, panel)
    if folder.is_copying:
        return CopyingImputer(
            panel, typed_index, folder, ne=ne, err=err, seed=seed, threads=threads, device=device
        )
    from ragimpute.checkpoint import load_model
    from ragimpute.token_imputer import TokenImputer

    return TokenImputer(panel, load_model(folder), found, device=device, threads=threads)
