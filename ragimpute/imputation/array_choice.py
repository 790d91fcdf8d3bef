"""Which array of an index a run uses, and how much of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragimpute.copying_model.array_index import (
    ArrayIndex,
    array_folder,
    arrays_of,
    differences,
    made_for,
)
from ragimpute.imputation.imputer import (
    RunPart,
    Stretch,
    check_likelihoods,
    likelihood_parts,
    make_parts,
)
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.windows import PlannedWindow
from ragimpute.model.folder import ModelFolder, searches_index
from ragimpute.retrieval.index_manifest import read_manifest_of
from ragimpute.target.inputs import Inputs
from ragimpute.target.ploidy import TargetPloidy

# Up to this share of an array's sites may be missing from a target for all of the array to be used.
# On chr20 of Europeans with a fourth of them missing, r2 is .9710 with the index and .9709 without
# (dense array), .9398 and .9397 (sparse array).
MOST_LACKING = 0.25
# Parameters and network of an array are used where so many of all sites are typed by both.
LEAST_SHARED = 0.8


@dataclass(frozen=True)
class ArrayChoice:
    """What a run uses of an index.

    Attributes
    ----------
    array
        The array; None: there is none that fits.
    used
        What is used, for the report; "" if nothing is.
    unused
        One line that says what is not used and why; "" if everything is.
    """

    array: ArrayIndex | None
    used: str = ""
    unused: str = ""


def fitted_parts(
    inputs: Inputs, ploidy: TargetPloidy, model: ModelFolder, options: ImputeOptions
) -> tuple[ArrayChoice, list[RunPart], list[str]]:
    """What imputes each part of a run: by likelihoods where the target has them, else a model.

    Returns
    -------
    What is used of an index, the parts, and one line for each option that changes nothing.

    Raises
    ------
    InputError, ModelError, ConfigError, PanelError, MissingPackageError
        See :func:`ragimpute.imputation.imputer.check_likelihoods`, :func:`choose_array` and
        :func:`ragimpute.imputation.imputer.make_parts`.
    """
    if inputs.has_likelihoods:
        unused = check_likelihoods(model, options)
        return ArrayChoice(None), likelihood_parts(inputs, ploidy, options), unused
    choice = ArrayChoice(None)
    if model.is_copying:
        choice = choose_array(inputs, model, options)
    elif options.index is not None and not searches_index(model.settings):
        choice = ArrayChoice(
            None, unused=f"index {options.index} is not used: model {model.name} searches none"
        )
    return choice, make_parts(Stretch.of(inputs), model, options, choice.array), []


def choose_array(inputs: Inputs, model: ModelFolder, options: ImputeOptions) -> ArrayChoice:
    """Choose what a run of a copying model uses of its index.

    If the target types the sites of an array of the index, all of it is used, and nothing changes
    but the time. With ``--array-fit`` only such an array is used, and made if there is none. With
    ``--index`` an array is also used if the target lacks a few of its sites; and if other sites
    are typed, but most are those of an array, its parameters and network are.

    Raises
    ------
    PanelError
        If the index is damaged, or of another panel.
    """
    typed_index = inputs.match.panel_index
    about = made_for(typed_index, model, options.of_fit())
    panel, source = inputs.panel, _source_of(inputs)
    if options.array_fit is not None:
        path = Path(options.array_fit)
        if path.exists():
            read_manifest_of(path, panel, typed=source)
        folder = array_folder(path, about)
        array = ArrayIndex(
            folder, panel, about, source, typed_index, str(options.model), grows=True
        )
        return ArrayChoice(array, "of this array and panel")
    if options.index is None:
        return ArrayChoice(None)
    path = Path(options.index)
    read_manifest_of(path, panel, typed=source)
    folder = array_folder(path, about)
    if folder.is_dir():
        array = ArrayIndex.open(folder, panel)
        return ArrayChoice(array, f"array {array.name}, {len(typed_index):,} typed sites")
    return _nearest(path, inputs, about, _reached(inputs, options.buffer_cm))


def _source_of(inputs: Inputs) -> str:
    """The target's file, by which its array is called."""
    target = inputs.files.target
    return str(target) if isinstance(target, str | Path) else "TARGET.vcf.gz"


def _reached(inputs: Inputs, buffer_cm: float) -> tuple[int, int]:
    """The panel sites [start, stop) of which a run reads the target: the region with buffers."""
    cm = inputs.panel.position_cm
    first = int(np.searchsorted(cm, cm[inputs.start] - buffer_cm))
    return first, int(np.searchsorted(cm, cm[inputs.stop - 1] + buffer_cm, side="right"))


def _nearest(
    path: Path, inputs: Inputs, about: dict[str, str], reached: tuple[int, int]
) -> ArrayChoice:
    """What can be used of an index that has no array with exactly the target's typed sites.

    ``reached``: the panel sites of which the run has read the target.
    """
    typed = inputs.match.panel_index
    found = list(arrays_of(path, inputs.panel))
    if not found:
        return ArrayChoice(
            None,
            unused=f"index {path} holds no array: what depends on the typed sites is made anew",
        )
    same_but_sites = {**about, "typed": ""}
    fitting = [
        array for array in found
        if not differences(same_but_sites, {**array.about, "typed": ""})
    ]  # fmt: skip
    if not fitting:
        differ = min((differences(about, array.about) for array in found), key=len)
        return ArrayChoice(
            None,
            unused=f"index {path} is not used: its arrays were made for another "
            f"{' and another '.join(differ)}",
        )
    shared = [
        len(np.intersect1d(typed, array.typed_index, assume_unique=True)) for array in fitting
    ]
    sizes = [len(array.typed_index) for array in fitting]
    # Of several, the one that shares most of all sites that either types.
    best = max(
        range(len(fitting)), key=lambda i: shared[i] / max(1, len(typed) + sizes[i] - shared[i])
    )
    array, both = fitting[best], shared[best]
    lacking, more = sizes[best] - both, len(typed) - both
    counted = (
        f"the target types {both:,} of the {sizes[best]:,} sites of array {array.name}, and "
        f"{more:,} others"
    )
    outside = (array.typed_index < reached[0]) | (array.typed_index >= reached[1])
    if outside.any():
        return ArrayChoice(
            None,
            unused=f"index {path} is not used: array {array.name} was made for another --region",
        )
    if more == 0 and lacking <= MOST_LACKING * sizes[best]:
        used = f"array {array.name}, of whose {sizes[best]:,} sites the target lacks {lacking:,}"
        return ArrayChoice(array, used, f"index {path}: {counted}; they are imputed")
    if both >= LEAST_SHARED * (len(typed) + lacking):
        return ArrayChoice(
            array.as_fits(), f"ne, err and network of array {array.name}",
            f"index {path}: {counted}; ne, err and network of the array are used, and the rest is "
            "made anew",
        )  # fmt: skip
    return ArrayChoice(None, unused=f"index {path} is not used: {counted}")


def other_windows(
    choice: ArrayChoice, parts: Sequence[RunPart], windows: Sequence[PlannedWindow]
) -> str:
    """The line that says that an array has other windows than a run; "" if it has the run's."""
    array = choice.array
    if array is None or array.fits_only or array.grows:
        return ""
    held = {number: array.part(part.panel) for number, part in enumerate(parts)}
    typed = array.typed_index
    needed = [
        (number, bounds) for number, bounds in windows
        if np.diff(np.searchsorted(typed, [bounds[0], bounds[3]]))[0]
    ]  # fmt: skip
    lacking = sum(not held[number].has_window(bounds) for number, bounds in needed)
    if not lacking:
        return ""
    return (
        f"index {array.folder.parent.parent} lacks {lacking} of the run's {len(needed)} windows, "
        "which are made anew; --chunk-cm, --buffer-cm, --max-memory and --region decide where "
        "windows are"
    )
