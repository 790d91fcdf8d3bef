"""From a target VCF and a panel to an imputed VCF: windows in, dosages out."""

from __future__ import annotations

import platform
import resource
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragimpute import __version__
from ragimpute.errors import InputError
from ragimpute.impute_models import Imputer, make_imputer
from ragimpute.impute_summary import ImputeSummary, Stopwatch
from ragimpute.impute_target import (
    TargetOptions,
    require_phase,
    take_target,
    warn_of_target,
)
from ragimpute.match import Match
from ragimpute.metrics import estimated_r2
from ragimpute.outputs import check_output
from ragimpute.panel import Panel
from ragimpute.sites import Region
from ragimpute.vcf import Target
from ragimpute.vcf_fields import check_fields
from ragimpute.vcf_write import ImputedBlock, ImputedWriter, output_kind

Progress = Callable[[str, int, int], None]
# Allele probabilities of one window, all targets: float32, twice (both layouts).
_WINDOW_BYTES = 192 * 2**20


def plan_windows(
    position_cm: np.ndarray,
    start: int,
    stop: int,
    *,
    window_cm: float,
    buffer_cm: float,
    max_sites: int,
) -> list[tuple[int, int, int, int]]:
    """Cut the sites [start, stop) into windows with buffers.

    Parameters
    ----------
    position_cm
        Shape (M,), float64, cM, non-decreasing: all of the panel's sites.
    start, stop
        Sites to report.
    window_cm, max_sites
        A window ends before it spans more than so many cM or sites; > 0.
    buffer_cm
        Flank on each side that is read but not reported; may reach beyond [start, stop); >= 0.

    Returns
    -------
    (buffer start, start, stop, buffer stop) of each window; the cores follow on each other.
    """
    if window_cm <= 0 or buffer_cm < 0 or max_sites < 1:
        raise ValueError(f"window_cm {window_cm}, buffer_cm {buffer_cm}, max_sites {max_sites}")
    windows = []
    first = start
    while first < stop:
        by_cm = int(np.searchsorted(position_cm, position_cm[first] + window_cm, side="right"))
        last = min(stop, max(first + 1, by_cm), first + max_sites)
        # Even out: a short remainder would cost as much buffer as a full window.
        if last < stop and stop - last < (last - first) // 4:
            last = first + (stop - first + 1) // 2
        left = int(np.searchsorted(position_cm, position_cm[first] - buffer_cm, side="left"))
        right = int(np.searchsorted(position_cm, position_cm[last - 1] + buffer_cm, side="right"))
        windows.append((left, first, last, right))
        first = last
    return windows


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
        See :func:`plan_windows`.
    device
        "auto", "cpu" or "cuda": where a network runs.
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
        columns = _Columns(shared.alleles)
        budget = max(1000, _WINDOW_BYTES // (4 * max(1, columns.num)))
        windows = plan_windows(
            source.position_cm, start, stop,
            window_cm=window_cm, buffer_cm=buffer_cm, max_sites=budget,
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
        kept = []
        total = stop - start
        for window in windows:
            kept.append(
                _impute_window(source, given, shared, columns, imputer, window, writer, watch)
            )
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
    # The imputer's own stages, and what is left of "impute" beside them.
    summary.seconds["impute"] -= sum(imputer.seconds.values())
    summary.seconds.update(imputer.seconds)
    summary.settings = imputer.settings | summary.settings
    summary.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    summary.versions = {
        "ragimpute": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return summary


class _Columns:
    """Which haplotypes of the target exist: (T, N, 2) alleles to columns (T, n) and back."""

    def __init__(self, alleles: np.ndarray) -> None:
        self.present = (alleles != -2).any(axis=0)  # (N, 2)
        if len(alleles) == 0:  # nothing says that a sample is haploid
            self.present[:] = True
        self.present[:, 0] = True
        self.num = int(self.present.sum())
        self.sample = np.nonzero(self.present)[0]  # (n,)
        self.alleles = np.ascontiguousarray(alleles[:, self.present])  # (T, n)
        self.alleles[self.alleles == -2] = -1

    def restore(self, values: np.ndarray, fill: float) -> np.ndarray:
        """(m, n) to (m, N, 2), ``fill`` where a sample is haploid."""
        if self.present.all():
            return values.reshape(len(values), -1, 2)
        full = np.full((len(values), *self.present.shape), fill, dtype=values.dtype)
        full[:, self.present] = values
        return full


def _impute_window(
    panel: Panel,
    target: Target,
    shared: Match,
    columns: _Columns,
    imputer: Imputer,
    window: tuple[int, int, int, int],
    writer: ImputedWriter,
    watch: Stopwatch,
) -> tuple[np.ndarray, np.ndarray]:
    """Impute and write one window; returns DR2 and typed flags of its sites."""
    left, start, stop, right = window
    first, last = np.searchsorted(shared.panel_index, [left, right])
    typed_index = shared.panel_index[first:last]
    alleles = columns.alleles[first:last]
    if len(typed_index):
        prob = imputer.impute(
            left, right, (start, stop), typed_index, alleles, columns.sample
        )  # (n, m)
    else:
        prob = np.repeat(panel.af[None, start:stop], columns.num, axis=0)
    prob = np.ascontiguousarray(prob.T)  # (m, n)
    called = np.full((stop - start, columns.num), -1, np.int8)
    inside = (typed_index >= start) & (typed_index < stop)
    called[typed_index[inside] - start] = alleles[inside]
    np.copyto(prob, called, where=called >= 0)
    typed = np.zeros(stop - start, bool)
    typed[typed_index[inside] - start] = True
    dr2 = estimated_r2(prob)
    af = prob.mean(axis=1, dtype=np.float64)
    watch.lap("impute")
    writer.write(
        ImputedBlock(
            sites=replace(panel.sites.take(slice(start, stop)), contig=target.sites.contig),
            allele_prob=columns.restore(prob, np.nan),
            called=columns.restore(called, -2),
            info={
                "AF": af.astype(np.float32),
                "MAF": np.minimum(af, 1 - af).astype(np.float32),
                "DR2": dr2,
            },
            typed=typed,
        )
    )
    watch.lap("write")
    return dr2, typed


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
