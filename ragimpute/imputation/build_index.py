"""``ragimpute index --typed-sites``: make all that imputing needs of a panel and an array, once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ragimpute.copying_model.array_index import ArrayIndex, array_folder, made_for
from ragimpute.copying_model.imputer import require_packages
from ragimpute.errors import InputError, PanelError
from ragimpute.imputation.imputer import Stretch, make_parts
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.windows import plan_run
from ragimpute.model.folder import open_folder
from ragimpute.panel.loci import PanelLoci
from ragimpute.panel.reader import Panel
from ragimpute.preparation.open_panel import sites_in
from ragimpute.retrieval.index_manifest import MANIFEST, make_folder, read_manifest_of
from ragimpute.runtime.memory import plan_memory, program_bytes
from ragimpute.runtime.outputs import replacing
from ragimpute.runtime.stages import Stage, reporting
from ragimpute.runtime.threads import Crew
from ragimpute.runtime.timing import Progress
from ragimpute.target.typed_sites import TypedSites, typed_sites
from ragimpute.target.window import TargetWindow


@dataclass(frozen=True)
class ArraySummary:
    """What was made of an array.

    Attributes
    ----------
    name
        The name of its file.
    sites
        Its sites.
    num_windows, num_made
        Windows of the panel in which it types a site, and how many of these were not there yet.
    """

    name: str
    sites: TypedSites
    num_windows: int
    num_made: int


@dataclass
class ArraysSummary:
    """What ``ragimpute index --typed-sites`` made: the folder, its size now, and its arrays."""

    path: Path
    num_haplotypes: int
    num_bytes: int = 0
    arrays: list[ArraySummary] = field(default_factory=list)


def index_arrays(
    panel_path: str | Path,
    out: str | Path,
    typed: Sequence[str | Path],
    options: ImputeOptions | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
    **changes: object,
) -> ArraysSummary:
    """Make an index for one or several arrays, or add them to one.

    Parameters
    ----------
    panel_path
        panel.h5.
    out
        The folder to write. If it is an index of this panel, the arrays are added to it.
    typed
        For each array a file of its sites, see :func:`ragimpute.target.typed_sites.typed_sites`.
    options, changes
        Those of the runs that will use the index (None: the defaults), and by name those that
        differ: of a copying model, ``model``, ``region``, ``window_cm``, ``buffer_cm``, ``ne``,
        ``err``, ``seed``, ``fine_tune`` and ``max_memory`` decide what is made.
    force
        Replace ``out`` if it is an index already.
    progress
        Called as ``progress(stage, done, total)``.

    Raises
    ------
    PanelError, InputError, ModelError
        If an input cannot be used, the model is no copying model, or ``out`` exists and is no
        index of this panel.
    """
    out, options = Path(out), ImputeOptions.of(options, **changes)
    is_index = (out / MANIFEST).is_file()
    if out.exists() and not is_index:
        raise PanelError(
            f"{out} exists already", hint="choose another -o; only an index is added to or replaced"
        )
    model = open_folder(options.model)
    require_packages(model, options.device)
    if not model.is_copying:
        raise InputError(
            f"model {options.model} is a token model, of which nothing depends on the array alone",
            hint="leave --model out, or give one array: its windows are indexed by FAISS",
        )
    with ExitStack() as stack:
        stack.enter_context(reporting(progress))
        stack.enter_context(Crew(options.threads))
        panel = PanelLoci(stack.enter_context(Panel.open(panel_path)))
        summary = ArraysSummary(out, panel.num_haplotypes)
        if is_index and not force:
            read_manifest_of(out, panel, typed=typed[0])
            folder = out
        else:
            folder = stack.enter_context(replacing(out))
            make_folder(folder, panel)
        start, stop = sites_in(panel, options.region, panel_path)
        for path in typed:
            with Stage("read sites"):
                sites = typed_sites(
                    path, panel, options.region, buffer_cm=options.buffer_cm,
                    threads=options.threads,
                )  # fmt: skip
            about = made_for(sites.panel_index, model, options.of_fit())
            array = ArrayIndex(
                array_folder(folder, about), panel, about, str(path), sites.panel_index,
                str(options.model), grows=True,
            )  # fmt: skip
            array.create()
            stretch = Stretch(panel, start, stop, sites.panel_index)
            done = _fill(array, stretch, panel, options)
            summary.arrays.append(ArraySummary(Path(path).name, sites, *done))
        summary.num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return summary


def _fill(
    array: ArrayIndex, stretch: Stretch, panel: PanelLoci, options: ImputeOptions
) -> tuple[int, int]:
    """Make the windows that an array lacks.

    Returns how many windows have typed sites, and how many were made.
    """
    parts = make_parts(stretch, open_folder(options.model), options, array)
    wide = any(part.imputer.is_wide for part in parts)
    uses_torch = parts[0].imputer.uses_torch
    memory = plan_memory(
        options.max_memory, uses_torch=uses_torch, wide=wide,
        held=program_bytes(stretch.panel.num_sites),
    )  # fmt: skip
    num_windows = num_made = 0
    with Stage("index", stretch.stop - stretch.start) as stage:
        for number, bounds in plan_run(parts, stretch, options, memory):
            left, start, stop, right = bounds
            first, last = np.searchsorted(stretch.typed_index, [left, right])
            part = parts[number]
            if first < last:
                num_windows += 1
                if not array.part(part.panel).has_window(bounds):
                    panel.want(start, stop)
                    nobody = np.zeros((last - first, 0), np.int8), np.zeros(0, np.int64)
                    typed_index = stretch.typed_index[first:last]
                    part.imputer.prepare(
                        TargetWindow(left, right, (start, stop), typed_index, *nobody)
                    )
                    num_made += 1
            stage.reach(stop - stretch.start)
    return num_windows, num_made
