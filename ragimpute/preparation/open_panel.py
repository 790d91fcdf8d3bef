"""The panel of an imputation run: opened, or prepared for the run from another file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ragimpute.errors import InputError
from ragimpute.io.foreign import prepare_command
from ragimpute.panel.reader import Panel
from ragimpute.preparation.sources import is_to_prepare
from ragimpute.runtime.interrupts import held
from ragimpute.runtime.timing import Progress
from ragimpute.sites import STOP_BP, Region

if TYPE_CHECKING:
    from ragimpute.preparation.prepare import PrepareOptions


def open_panel(
    panel: str | Path,
    stack: ExitStack,
    warn: Callable[[str], None],
    *,
    genetic_map: str | Path | None,
    cm_per_mb: float | None,
    region: Region | None,
    par: str | None,
    threads: int,
    progress: Progress,
) -> tuple[Panel, int, int]:
    """Open panel.h5, or prepare another file into a temporary one; the stack closes it.

    ``warn`` is called with a line where the panel was prepared for this run only.

    Returns
    -------
    The panel and its sites [start, stop) in the region, at least one.

    Raises
    ------
    InputError, PanelError
        If it cannot be read or prepared, or has no site in the region.
    """
    path = Path(panel)
    if is_to_prepare(path):
        from ragimpute.preparation.prepare import PrepareOptions

        # The whole contig is prepared: only then is it known which sites the buffer, in cM, holds.
        contig = None if region is None else replace(region, start_bp=1, stop_bp=STOP_BP)
        options = PrepareOptions(genetic_map, cm_per_mb, region=contig, threads=threads, par=par)
        source = stack.enter_context(_opened(path, options, warn, stack, progress))
    elif genetic_map is not None or cm_per_mb is not None:
        raise InputError(
            f"a genetic map was given, but panel {path} holds one already",
            hint="leave out --map/--cm-per-mb, or prepare the panel again with them",
        )
    else:
        source = stack.enter_context(Panel.open(path))
    return source, *sites_in(source, region, panel)


def sites_in(source: Panel, region: Region | None, name: str | Path) -> tuple[int, int]:
    """The sites [start, stop) of an open panel in a region (None: all), at least one.

    ``name`` is what a message calls the panel.

    Raises
    ------
    InputError
        If it has no site there, or holds another contig.
    """
    start, stop = source.site_range(region)
    if start == stop:
        raise InputError(
            f"panel {name} has no site in region {region}",
            hint=f"the panel spans {_span(source)}",
        )
    return start, stop


def open_for_training(
    panel: str | Path,
    stack: ExitStack,
    warn: Callable[[str], None],
    *,
    options: PrepareOptions,
    progress: Progress,
) -> Panel:
    """Open panel.h5, or prepare another file, whole, into a temporary one; the stack closes it.

    Parameters
    ----------
    panel
        The file.
    stack, warn, progress
        See :func:`open_panel`.
    options
        How a file that is no panel.h5 is prepared.

    Raises
    ------
    InputError, PanelError
        If it cannot be read or prepared.
    """
    return stack.enter_context(_opened(Path(panel), options, warn, stack, progress))


def refuse_unused(panels: Sequence[str | Path], options: PrepareOptions) -> None:
    """Refuse options that say how panels are prepared where each of them is a panel.h5 already.

    Raises
    ------
    InputError
        It names the option.
    """
    given = {
        "a genetic map": options.genetic_map is not None or options.cm_per_mb is not None,
        "a table of populations": options.populations is not None,
        "a folder of maps": options.maps is not None,
        "a region": options.region is not None,
    }
    flags = {
        "a genetic map": "--map/--cm-per-mb", "a table of populations": "--populations",
        "a folder of maps": "--maps", "a region": "--region",
    }  # fmt: skip
    for what, is_given in given.items():
        if is_given and not any(is_to_prepare(Path(path)) for path in panels):
            raise InputError(
                f"{what} was given, but panel {panels[0]} is prepared already and has its own",
                hint=f"leave out {flags[what]}, or prepare the panel again with it",
            )


def _opened(
    path: Path,
    options: PrepareOptions,
    warn: Callable[[str], None],
    stack: ExitStack,
    progress: Progress,
) -> Panel:
    """Open panel.h5, or prepare another file into a temporary one."""
    if not is_to_prepare(path):
        return Panel.open(path)
    from ragimpute.preparation.prepare import prepare

    with held():  # a signal after the folder is made and before the stack knows it would leave it
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ragimpute-"))
    prepared = Path(folder) / "panel.h5"
    prepare(path, prepared, options, progress=progress)
    genetic_map = options.genetic_map
    if genetic_map is not None and not isinstance(genetic_map, str | Path):
        genetic_map = genetic_map.name
    command = prepare_command(
        path, genetic_map=genetic_map, cm_per_mb=options.cm_per_mb,
        region=Region.of(options.region), par=options.par, populations=options.populations,
        maps=options.maps,
    )  # fmt: skip
    warn(f"panel {path} was prepared for this run only; to keep it: {command}")
    return Panel.open(prepared)


def _span(panel: Panel) -> str:
    """The panel's range of positions."""
    at = panel.sites.position_bp
    return f"{panel.contig}:{at[0]}-{at[-1]} ({panel.num_sites} sites)" if len(at) else "no site"
