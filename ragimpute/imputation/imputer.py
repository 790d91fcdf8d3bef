"""What imputes a window: the interface of both families of models, and the choice of one.

A run is cut into parts where the panel's ploidy changes; each has an imputer of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ragimpute.accuracy.dr2 import Dr2Calibration
from ragimpute.arguments import parse_device
from ragimpute.copying_model.array_index import ArrayIndex
from ragimpute.copying_model.imputer import CopyingImputer, require_packages
from ragimpute.copying_model.panel_fit import FitOptions
from ragimpute.errors import InputError
from ragimpute.evidence.expected_r2 import WindowSays
from ragimpute.imputation.options import ImputeOptions
from ragimpute.likelihoods.fit import FitOptions as LikelihoodFitOptions
from ragimpute.likelihoods.imputer import LikelihoodImputer
from ragimpute.likelihoods.network import GenotypeNetwork
from ragimpute.model.folder import ModelFolder, open_folder, searches_index
from ragimpute.panel.inbred import second_haplotypes
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelPart, PanelWithout, parts_of
from ragimpute.presets import models_dir
from ragimpute.retrieval.index_manifest import NO_SEARCH, read_manifest_of, require_all_sites
from ragimpute.target.inputs import Inputs
from ragimpute.target.ploidy import TargetPloidy
from ragimpute.target.window import TargetWindow

log = logging.getLogger("ragimpute")


class Imputer(Protocol):
    """What :func:`ragimpute.imputation.impute.impute` asks of a model.

    Attributes
    ----------
    settings
        What was used, for the report.
    seconds
        Wall time by stage, within "impute".
    uses_torch
        Whether torch will be imported.
    leaves_out
        Whether typed sites can be imputed as if they were not typed
        (:attr:`ragimpute.evidence.expected_r2.WindowSays.mismatch_prob`).
    expects_r2
        Whether samples of the panel are left out, which say what r2 to expect
        (:attr:`ragimpute.evidence.expected_r2.WindowSays.left_out`).
    is_wide
        Whether only typed sites are read of all haplotypes of the panel, as it is very large.
    """

    settings: dict[str, object]
    seconds: dict[str, float]
    uses_torch: bool
    leaves_out: bool
    expects_r2: bool
    is_wide: bool

    def prepare(self, target: TargetWindow) -> PreparedWindow:
        """Do what comes before the targets of a window are imputed: read and fit the panel there.

        Windows are prepared one after another, in order, but perhaps in another thread than the one
        that imputes, and while the window before is imputed.

        Parameters
        ----------
        target
            The window, and what was observed of n haplotypes in it.
        """
        ...


class PreparedWindow(Protocol):
    """A window of the panel that is ready: its targets can be imputed."""

    def impute(self, *, batch: int, put: Callable[[int, int, np.ndarray], None]) -> WindowSays:
        """Impute the core of the window from its typed sites, some haplotypes at a time.

        Parameters
        ----------
        batch
            About how many haplotypes are imputed at a time, >= 1; the result does not depend on it.
        put
            Called as ``put(first, site, prob)`` with blocks of the result: the number of the first
            haplotype and of the first site, counted from the core's start, and P(ALT), shape
            (b, m), float32. Several threads may call it at once. A pair that comes again replaces
            what came before.
        """
        ...


def make_imputer(
    model: str | Path | ModelFolder,
    panel: Panel,
    typed_index: np.ndarray,
    options: ImputeOptions | None = None,
    *,
    array: ArrayIndex | None = None,
    **changes: object,
) -> Imputer:
    """Load a model, check that it and the index fit the panel, and make its imputer.

    Torch and faiss are imported only if the model needs them. A copying model whose network numpy
    can compute needs neither, and no model needs faiss that does not search an index, which is then
    only checked.

    Parameters
    ----------
    model
        A shipped model's name, a folder, or an opened one.
    panel
        What is copied from.
    typed_index
        Shape (T,), int, ascending: the panel sites that are typed.
    options, changes
        The options of the run (None: the defaults), and by name those that differ from them. Their
        ``model`` is ignored.
    array
        What an index holds of the panel and an array, or None. Copying models only.

    Raises
    ------
    InputError, ModelError, ConfigError, PanelError
        If there is no such device, or the model or the index cannot be used with this panel.
    MissingPackageError
        If the model needs a package that is not installed.
    """
    folder = model if isinstance(model, ModelFolder) else open_folder(model)
    options = ImputeOptions.of(options, **changes)
    index, device, threads = options.index, options.device, options.threads
    kind, _ = parse_device(device)
    if require_packages(folder, device) and kind == "cuda":
        from ragimpute.model.devices import choose_device

        choose_device(device)
    searches = searches_index(folder.settings)
    has_search = False
    if index is not None:
        manifest = read_manifest_of(index, panel)
        has_search = manifest["kind"] != NO_SEARCH
        if has_search and not searches:
            require_all_sites(index, panel, manifest["windows"])
    if folder.is_copying:
        fit = FitOptions(
            options.ne, options.err, options.fine_tune, options.seed, threads=threads,
            device=device, max_memory=options.max_memory,
        )  # fmt: skip
        part = None if array is None else array.part(panel)
        return CopyingImputer(panel, typed_index, folder, fit, part)
    from ragimpute.model.checkpoint import load_model
    from ragimpute.token_model.imputer import TokenImputer

    found = None
    if searches:
        from ragimpute.retrieval.faiss_device import choose_searcher
        from ragimpute.retrieval.index import WindowIndex

        searcher = choose_searcher(device)
        if index is None or not has_search:
            if index is not None:
                log.warning("index %s has no FAISS windows: they are made for this run", index)
            found = WindowIndex.build(panel, searcher=searcher)
        else:
            found = WindowIndex.open(index, panel, searcher=searcher)
            require_all_sites(index, panel, found.windows)
    return TokenImputer(
        panel, load_model(folder), found, device=device, threads=threads,
        max_bytes=options.max_memory,
    )  # fmt: skip


def check_model(model: ModelFolder, options: ImputeOptions) -> None:
    """Refuse options that only copying models have if the model is a token model.

    Raises
    ------
    InputError
        If one of them is given, or both --index and --array-fit.
    """
    if model.is_copying:
        if options.index is not None and options.array_fit is not None:
            raise InputError(
                f"--index {options.index} and --array-fit {options.array_fit} are both given",
                hint="give one: --array-fit uses an index, and adds to it what it lacks",
            )
        return
    if options.array_fit is not None:
        raise InputError(
            f"--array-fit needs a copying model, but {options.model} is a token model",
            hint="choose another --model, such as default, or leave --array-fit out",
        )
    if options.output_options.empirical is not None:
        raise InputError(
            f"--empirical needs a copying model, but {options.model} is a token model",
            hint="choose another --model, such as default",
        )


class Stretch(NamedTuple):
    """The part of a panel that a run imputes.

    Attributes
    ----------
    panel
        The whole panel.
    start, stop
        Its sites [start, stop) are imputed, at least one.
    typed_index
        Shape (T,), int64, ascending: the panel sites that are typed.
    """

    panel: Panel
    start: int
    stop: int
    typed_index: np.ndarray

    @classmethod
    def of(cls, inputs: Inputs) -> Stretch:
        """That of a run with a target; one with likelihoods may have reads at any site."""
        typed_index = inputs.match.panel_index
        if inputs.has_likelihoods:
            typed_index = np.arange(inputs.panel.num_sites)
        return cls(inputs.panel, inputs.start, inputs.stop, typed_index)


@dataclass(frozen=True)
class RunPart:
    """Sites [start, stop) of a run throughout which the same panel haplotypes exist.

    Attributes
    ----------
    start, stop
        Panel sites that are written.
    panel
        The panel with the haplotypes that exist there.
    imputer
        Imputes these sites.
    """

    start: int
    stop: int
    panel: Panel
    imputer: Imputer


def make_parts(
    stretch: Stretch, model: ModelFolder, options: ImputeOptions, array: ArrayIndex | None
) -> list[RunPart]:
    """Cut a run where the panel's ploidy changes, and make what imputes each part of the panel.

    Raises
    ------
    InputError, ModelError, ConfigError, PanelError, MissingPackageError
        See :func:`make_imputer`.
    """
    made = []
    for start, stop, whole in parts_of(stretch.panel, stretch.start, stretch.stop):
        panel = whole
        if model.is_copying:
            panel = _inbred_once(whole, start, stop, options.buffer_cm, array)
        imputer = make_imputer(
            model, panel, _within(stretch.typed_index, panel), options, array=array
        )
        num_repeats = whole.num_haplotypes - panel.num_haplotypes
        if num_repeats:
            once = f"{num_repeats:,} inbred samples as one haplotype each"
            imputer.settings["states"] = f"{imputer.settings['states']}, {once}"
            log.info("panel: %s", once)
        made.append(RunPart(start, stop, panel, imputer))
    return made


def likelihood_parts(inputs: Inputs, ploidy: TargetPloidy, options: ImputeOptions) -> list[RunPart]:
    """Cut a run of a target with likelihoods as :func:`make_parts` does others.

    ``ploidy`` says where the samples are haploid.
    """
    fit = LikelihoodFitOptions(
        seed=options.seed, threads=options.threads, ne=options.ne, err=options.err,
        network=GenotypeNetwork.shipped(),
    )  # fmt: skip
    return [
        RunPart(
            start, stop, panel, LikelihoodImputer(panel, inputs.match, ploidy, (start, stop), fit)
        )
        for start, stop, panel in parts_of(inputs.panel, inputs.start, inputs.stop)
    ]


def dr2_of(inputs: Inputs, model: ModelFolder) -> Dr2Calibration:
    """How DR2 is calibrated: as the model says, or as is usual for genotype likelihoods."""
    if inputs.has_likelihoods:
        return Dr2Calibration.read(models_dir() / "likelihoods")
    return model.dr2


def check_likelihoods(model: ModelFolder, options: ImputeOptions) -> list[str]:
    """Refuse what cannot be had of a target with likelihoods, and say what does not change it.

    Returns
    -------
    One line for each option that changes nothing.

    Raises
    ------
    InputError
        If --array-fit, --empirical or a token model is asked for.
    """
    found = "the target has likelihoods of genotypes"
    never = "add --likelihoods never to use its genotypes (GT) alone"
    if not model.is_copying:
        raise InputError(
            f"{options.model} is a token model, which needs called genotypes, but {found}",
            hint=f"choose another --model, such as default, or {never}",
        )
    if options.array_fit is not None:
        raise InputError(
            f"--array-fit {options.array_fit} is for the sites of an array, but {found}",
            hint=f"leave out --array-fit, or {never}",
        )
    if options.output_options.empirical is not None:
        raise InputError(
            f"--empirical {options.output_options.empirical} is for typed sites, but {found}, and "
            "then all sites are imputed",
            hint=f"leave out --empirical, or {never}",
        )
    unused = []
    if options.index is not None:
        unused.append(f"--index {options.index}")
    if options.phase_options.with_targets is not None:
        unused.append("the option to phase with or without the other targets")
    if not options.fine_tune:
        unused.append("--no-fine-tune")
    if str(options.model) != ImputeOptions.model:
        unused.append(f"--model {options.model}")
    return [f"{name} changes nothing: {found}" for name in unused]


def _inbred_once(
    panel: Panel, start: int, stop: int, buffer_cm: float, array: ArrayIndex | None
) -> Panel:
    """A panel without the second haplotypes of inbred samples; the panel itself if it has none.

    As states they would only repeat the first ones, and take as much time again. Looked at are the
    sites [start, stop) with a buffer on each side, unless an index tells.
    """
    cm = panel.position_cm
    first = int(np.searchsorted(cm, cm[start] - buffer_cm))
    last = int(np.searchsorted(cm, cm[stop - 1] + buffer_cm, side="right"))
    if isinstance(panel, PanelPart):
        first, last = max(first, panel.start), min(last, panel.stop)
    if array is None or array.fits_only:
        repeated = second_haplotypes(panel, first, last)
    else:
        repeated = array.repeated(panel, first, last)
    if not repeated.any():
        return panel
    if isinstance(panel, PanelPart):
        return panel.without(repeated)
    return PanelWithout(panel, ~repeated)


def _within(panel_index: np.ndarray, part: Panel) -> np.ndarray:
    """The typed sites that lie in a part of the panel."""
    if not isinstance(part, PanelPart):
        return panel_index
    return panel_index[(panel_index >= part.start) & (panel_index < part.stop)]
