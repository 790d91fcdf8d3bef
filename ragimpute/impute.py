"""From a target VCF and a panel to an imputed VCF: windows in, dosages out."""

from __future__ import annotations

import platform
import resource
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ragimpute import __version__
from ragimpute.errors import InputError
from ragimpute.impute_models import make_imputer
from ragimpute.impute_summary import ImputeSummary, Stopwatch
from ragimpute.impute_target import (
    TargetOptions,
    require_phase,
    take_target,
    warn_of_target,
)
from ragimpute.impute_windows import Columns, WindowRun, max_window_sites, plan_windows
from ragimpute.memory import plan_memory
from ragimpute.outputs import check_output
from ragimpute.panel import Panel
from ragimpute.sites import Region
from ragimpute.vcf_fields import check_fields
from ragimpute.vcf_write import ImputedWriter, output_kind

Progress = Callable[[str, int, int], None]


def impute(
    target: str | Path,
    panel: str | Path,
    out: str | Path,
    *,
    index: str | Path | None = None,
    model: str | Path = "default",
    genetic_map: str | Path | None = None,
    cm_per_mb: float | None = None,
    region: Region | None = None,
    fields: Sequence[str] = ("GT", "DS", "GP"),
    ne: float | None = None,
    err: float | None = None,
    threads: int = 1,
    seed: int = 1,
    window_cm: float = 40.0,
    buffer_cm: float = 2.0,
    device: str = "auto",
    max_memory: int | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    target_options: TargetOptions | None = None,
) -> ImputeSummary:
    """Impute a phased target from a panel and write a VCF or BCF.

    Parameters
    ----------
    target, panel, out
        Phased VCF/BCF; panel.h5 or a phased VCF/BCF, which is prepared on the fly; the output, of
        the kind that its suffix says ("-": VCF to standard output).
    index
        A folder that ``ragimpute index`` made, or None to retrieve without one.
    model
        A shipped model's name, or a folder that ``ragimpute train`` made.
    genetic_map, cm_per_mb
        For a panel VCF only: a map, or a uniform rate.
    region
        Sites to write; None: all of the panel.
    fields
        FORMAT fields, of GT, DS, GP, HDS, AP.
    ne, err
        Effective population size and mismatch probability; None: chosen on the panel.
    threads, seed
        The output does not depend on ``threads``.
    window_cm, buffer_cm
        See :func:`ragimpute.impute_windows.plan_windows`.
    device
        "auto", "cpu" or "cuda": where a network runs.
    max_memory
        Bytes that the process may use; None: what is free, and no more than pays.
    progress
        Called as ``progress(stage, done, total)``.
    command
        Recorded in the output's header.
    target_options
        Which of the target's samples and records are used.

    Raises
    ------
    InputError, PanelError, ModelError
        If an input cannot be used, or inputs do not belong together.
    """
    summary = ImputeSummary(str(out), str(panel), str(target), str(model))
    output_kind(out)
    check_fields(fields)
    if str(out) != "-":
        inputs = {"target input": target, "panel input": panel, "map input": genetic_map}
        check_output(out, inputs)
    watch = Stopwatch(summary.seconds)
    report = progress or (lambda stage, done, total: None)
    with ExitStack() as stack:
        source = stack.enter_context(
            _open_panel(panel, genetic_map, cm_per_mb, region, threads, summary, stack, report)
        )
        start, stop = source.site_range(region)
        if start == stop:
            raise InputError(
                f"panel {panel} has no site in region {region}",
                hint=f"the panel spans {_span(source)}",
            )
        watch.lap("read")
        given, shared = take_target(
            target, source, region, target_options or TargetOptions(), summary,
            buffer_cm=buffer_cm, threads=threads,
        )  # fmt: skip
        require_phase(target, given)
        warn_of_target(summary, given, source, shared, start, stop)
        watch.lap("read")

        imputer = make_imputer(
            model, source, shared.panel_index, index=index, ne=ne, err=err, seed=seed,
            device=device, threads=threads,
        )  # fmt: skip
        summary.settings.update(
            fields=",".join(fields), window_cm=window_cm, buffer_cm=buffer_cm,
            threads=threads, seed=seed, region=str(region) if region else "all",
        )  # fmt: skip
        watch.lap("model")
        memory = plan_memory(max_memory, uses_network=imputer.uses_network)
        columns = Columns(shared.alleles)
        windows = plan_windows(
            source.position_cm, start, stop, window_cm=window_cm, buffer_cm=buffer_cm,
            max_sites=max_window_sites(source, memory),
        )  # fmt: skip
        writer = stack.enter_context(
            ImputedWriter(
                out,
                samples=given.samples,
                contigs=[(given.sites.contig, source.contig_length)],
                fields=tuple(fields),
                command=command,
                threads=threads,
            )
        )
        folder = None if str(out) == "-" else Path(out).absolute().parent
        run = WindowRun(
            source, given.sites.contig, shared, columns, imputer, writer, memory, folder, watch
        )
        kept = []
        total = stop - start
        for window in windows:
            kept.append(run.run(window))
            report("impute", window[2] - start, total)
        writer.close()
        watch.lap("write")
    summary.position_bp = source.sites.position_bp[start:stop]
    af = source.af[start:stop]
    summary.maf = np.minimum(af, 1 - af)
    summary.dr2 = np.concatenate([dr2 for dr2, _ in kept])
    summary.typed = np.concatenate([typed for _, typed in kept])
    summary.num_sites = total
    summary.num_typed = int(summary.typed.sum())
    summary.wall_seconds = sum(summary.seconds.values())
    _divide(summary.seconds, imputer.seconds, writer.seconds)
    summary.settings = imputer.settings | summary.settings
    summary.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    summary.versions = {
        "ragimpute": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return summary


def _divide(seconds: dict[str, float], imputer: dict[str, float], writer: dict[str, float]) -> None:
    """Replace "impute" and "write" by the stages of imputer and writer, and what is left."""
    rest = {"dosages": ("impute", imputer), "format": ("write", writer)}
    for stage, (whole, parts) in rest.items():
        left = seconds.pop(whole, 0.0) - sum(parts.values())
        for name, time in (*parts.items(), (stage, max(0.0, left))):
            seconds[name] = seconds.get(name, 0.0) + time


def _open_panel(
    panel: str | Path,
    genetic_map: str | Path | None,
    cm_per_mb: float | None,
    region: Region | None,
    threads: int,
    summary: ImputeSummary,
    stack: ExitStack,
    progress: Progress,
) -> Panel:
    """Open panel.h5, or prepare a VCF/BCF into a temporary one."""
    path = Path(panel)
    if not path.name.endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")):
        if genetic_map is not None or cm_per_mb is not None:
            raise InputError(
                f"a genetic map was given, but panel {path} holds one already",
                hint="leave out --map/--cm-per-mb, or prepare the panel again with them",
            )
        return Panel.open(path)
    from ragimpute.prepare import prepare

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ragimpute-"))
    prepared = Path(folder) / "panel.h5"
    # The whole contig, as the buffer is cut by cM.
    contig = None if region is None else Region(region.contig)
    prepare(
        path, prepared, genetic_map=genetic_map, cm_per_mb=cm_per_mb, region=contig,
        threads=threads, progress=progress,
    )  # fmt: skip
    keep = path.name.split(".")[0] + ".h5"
    summary.warnings.append(
        f"panel {path} was prepared for this run only; to keep it: "
        f"ragimpute prepare {path} -o {keep}"
    )
    return Panel.open(prepared)


def _span(panel: Panel) -> str:
    """The panel's range of positions."""
    at = panel.sites.position_bp
    return f"{panel.contig}:{at[0]}-{at[-1]} ({panel.num_sites} sites)" if len(at) else "no site"
