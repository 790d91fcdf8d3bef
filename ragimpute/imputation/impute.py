"""From a target VCF and a panel to an imputed VCF: windows in, dosages out."""

from __future__ import annotations

import platform
import resource
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragimpute import __version__
from ragimpute.copying_model.array_fit import ArrayFit, made_for
from ragimpute.copying_model.imputer import require_packages
from ragimpute.errors import InputError
from ragimpute.imputation.imputer import make_imputer
from ragimpute.imputation.outputs import Heading, OutputOptions, Outputs, TypedOnly, states_of
from ragimpute.imputation.resume import keep_run
from ragimpute.imputation.summary import ImputeSummary
from ragimpute.imputation.warnings import warn_of_device, warn_of_result, warn_of_space
from ragimpute.imputation.window_run import WindowRun
from ragimpute.imputation.windows import (
    clipped,
    likely_window,
    max_window_sites,
    plan_windows,
    waiting_bytes,
)
from ragimpute.io.vcf.fields import check_choice
from ragimpute.io.vcf.write.writer import output_kind
from ragimpute.model.folder import open_folder
from ragimpute.panel.ahead import PanelAhead
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelPart, parts_of
from ragimpute.phasing.phase_target import PhaseOptions, num_unphased, phase_match
from ragimpute.preparation.open_panel import open_panel
from ragimpute.runtime.disk_space import output_bytes
from ragimpute.runtime.memory import plan_memory
from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.timing import Stopwatch
from ragimpute.sites import Region
from ragimpute.target.load import TargetOptions, require_phase, take_target
from ragimpute.target.ploidy import ploidy_of
from ragimpute.target.report import warn_of_target

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
    fine_tune: bool = True,
    array_fit: str | Path | None = None,
    threads: int = 1,
    seed: int = 1,
    window_cm: float = 40.0,
    buffer_cm: float = 2.0,
    device: str = "auto",
    max_memory: int | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    command: str | None = None,
    target_options: TargetOptions | None = None,
    output_options: OutputOptions | None = None,
    phase_options: PhaseOptions | None = None,
) -> ImputeSummary:
    """Impute a target from a panel and write a VCF or BCF; unphased genotypes are phased first.

    Parameters
    ----------
    target, panel, out
        VCF/BCF; panel.h5 or a phased VCF/BCF, which is prepared on the fly; the output, of
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
    fine_tune
        Whether a copying model's network is fitted to the panel first, see
        :func:`ragimpute.copying_model.fine_tuning.adapt_network`.
    array_fit
        A file of what the panel says of the typed sites: read where it exists, and else written, so
        that the next run with the same panel, region, typed sites and model need not ask again. It
        changes no dosage. Copying models only.
    threads, seed
        The output does not depend on ``threads``.
    window_cm, buffer_cm
        See :func:`ragimpute.imputation.windows.plan_windows`.
    device
        "auto", "cpu" or "cuda": where a network runs.
    max_memory
        Bytes that the process may use; None: what is free, and no more than pays.
    resume
        Keep finished windows beside the output until it is complete, and go on from those that an
        earlier run of the same inputs and options left (see :mod:`ragimpute.imputation.resume`).
    progress
        Called as ``progress(stage, done, total)``.
    command
        Recorded in the output's header.
    target_options
        Which of the target's samples and records are used.
    output_options
        What is written beside the imputed sites, or left out of them.
    phase_options
        What unphased genotypes are phased against, or that they are refused.

    Raises
    ------
    InputError, PanelError, ModelError
        If an input cannot be used, or inputs do not belong together.
    MissingPackageError
        If the model needs a package that is not installed.
    """
    summary = ImputeSummary(str(out), str(panel), str(target), str(model))
    taken, extra = target_options or TargetOptions(), output_options or OutputOptions()
    phasing = phase_options or PhaseOptions()
    output_kind(out)
    check_choice(fields)
    inputs = {"target input": target, "panel input": panel, "map input": genetic_map}
    _check_outputs(out, inputs, taken, extra, array_fit)
    if resume and str(out) == "-":
        raise InputError("standard output cannot be resumed", hint="name a file, or no --resume")
    folder = open_folder(model)
    require_packages(folder)  # before a panel is prepared, which may take an hour
    options: dict[str, object] = {
        "model": str(model), "cm_per_mb": cm_per_mb, "region": str(region), "fields": list(fields),
        "ne": ne, "err": err, "seed": seed, "chunk_cm": window_cm, "buffer_cm": buffer_cm,
        "fine_tune": fine_tune, "device": device, "max_memory": max_memory,
        "palindromes": taken.palindromes, "par": taken.par, "min_r2": extra.min_r2,
        "typed_only": extra.typed_only, "phase": [phasing.phased_only, phasing.with_targets],
        "command": command,
    }  # fmt: skip
    watch = Stopwatch(summary.seconds, summary.peak_mb)
    report = progress or (lambda stage, done, total: None)
    with ExitStack() as stack:
        kept_run = None
        if resume:
            kept_run = stack.enter_context(
                keep_run(out, inputs, options, taken, extra, model=model, index=index)
            )
        source, start, stop = open_panel(
            panel, stack, summary.warnings.append, genetic_map=genetic_map, cm_per_mb=cm_per_mb,
            region=region, par=taken.par, threads=threads, progress=report,
        )  # fmt: skip
        ahead = None
        if threads > 1:
            ahead = likely_window(
                source, start, stop, window_cm=window_cm, buffer_cm=buffer_cm, max_memory=max_memory
            )
        if ahead is not None:
            source = PanelAhead(source, *ahead)
            stack.callback(source.finish)
        watch.lap("read")
        given, shared = take_target(
            target, source, region, taken, summary, buffer_cm=buffer_cm, threads=threads
        )
        if phasing.phased_only:
            require_phase(target, given)
        warn_of_target(summary, given, source, shared, start, stop)
        ploidy = ploidy_of(given, source, shared, taken.par)
        watch.lap("read")

        fits = None
        if array_fit is not None:
            if not folder.is_copying:
                raise InputError(
                    f"--array-fit needs a copying model, but {model} is a token model",
                    hint="choose another --model, such as default, or leave --array-fit out",
                )
            fits = ArrayFit.open(
                array_fit,
                made_for(source.checksum, shared.panel_index, folder, seed=seed, ne=ne, err=err,
                         fine_tune=fine_tune),
            )  # fmt: skip
        parts = parts_of(source, start, stop)
        imputers = [
            make_imputer(
                folder, part, _within(shared.panel_index, part), index=index, ne=ne, err=err,
                seed=seed, device=device, threads=threads, fine_tune=fine_tune,
                array_fit=None if fits is None else fits.part(number),
            )
            for number, (_, _, part) in enumerate(parts)
        ]  # fmt: skip
        warn_of_device(summary, device, uses_torch=imputers[0].uses_torch)
        if extra.empirical is not None and not imputers[0].leaves_out:
            raise InputError(
                f"--empirical needs a copying model, but {model} is a token model",
                hint="choose another --model, such as default",
            )
        summary.settings.update(
            fields=",".join(fields), window_cm=window_cm, buffer_cm=buffer_cm,
            threads=threads, seed=seed, region=str(region) if region else "all",
        )  # fmt: skip
        watch.lap("model")
        if num_unphased(shared):
            phased = None if kept_run is None else kept_run.phased()
            if phased is None:
                shared, said = phase_match(
                    target, given, shared, source, phasing, seed=seed, threads=threads,
                    progress=report,
                )  # fmt: skip
                if kept_run is not None:
                    kept_run.keep_phased(shared.alleles, said)
            else:
                shared, said = replace(shared, alleles=phased[0]), phased[1]
            summary.settings.update(said)
            watch.lap("phase")
        memory = plan_memory(max_memory, uses_torch=imputers[0].uses_torch)
        contigs = [(given.sites.contig, source.contig_length)]
        heading = Heading(given.samples, contigs, command, folder.dr2.header_lines)
        restored = [] if kept_run is None else kept_run.done
        writer = heading.writer(
            out, tuple(fields), threads=threads, resumable=resume,
            restored=states_of("main", restored),
        )  # fmt: skip
        lacked = TypedOnly.of(given, shared, region) if extra.typed_only else None
        outputs = stack.enter_context(
            Outputs(writer, heading, extra, lacked, resumable=resume, restored=restored)
        )
        beside = None if str(out) == "-" else Path(out).absolute().parent
        windows = [
            (number, window)
            for number, (first, last, part) in enumerate(parts)
            for window in clipped(
                plan_windows(
                    source.position_cm, first, last, window_cm=window_cm, buffer_cm=buffer_cm,
                    max_sites=max_window_sites(source, memory, len(shared.panel_index)),
                ),
                part,
            )
        ]  # fmt: skip
        kept = []
        if kept_run is not None:
            windows = kept_run.plan(windows)
            kept = [(w, r) for (_, w), r in zip(windows, kept_run.results, strict=False)]
            summary.settings["resumed"] = f"{len(kept)} of {len(windows)} windows were kept"
        if beside is not None:
            left = [window for _, window in windows[len(kept) :]]
            num_sites = sum(last - first for _, first, last, _ in left)
            warn_of_space(
                summary, beside,
                output=output_bytes(output_kind(out), fields, num_sites, len(given.samples)),
                temporary=waiting_bytes(left, ploidy, memory),
            )  # fmt: skip
        for number, window in windows[len(kept) :]:
            run = WindowRun(
                parts[number][2], given.sites.contig, shared, ploidy, imputers[number],
                folder.dr2, outputs, memory, beside, watch, threads,
            )  # fmt: skip
            result = run.run(window)
            kept.append((window, result))
            if kept_run is not None:
                kept_run.keep(result, outputs)
                watch.lap("write")
            report("impute", window[2] - start, stop - start)
        outputs.close()
        watch.lap("write")
    if fits is not None:
        fits.save()
        watch.lap("write")
    warn_of_result(summary, source, kept, outputs, lacked)
    summary.position_bp = source.sites.position_bp[start:stop]
    af = source.af[start:stop]
    summary.maf = np.minimum(af, 1 - af)
    summary.dr2 = np.concatenate([result.dr2 for _, result in kept])
    summary.typed = np.concatenate([result.typed for _, result in kept])
    summary.num_sites = stop - start
    summary.num_typed = int(summary.typed.sum())
    summary.wall_seconds = sum(summary.seconds.values())
    for imputer in imputers:
        summary.settings = imputer.settings | summary.settings
    _divide(summary.seconds, [imputer.seconds for imputer in imputers], writer.seconds)
    summary.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    summary.versions = {
        "ragimpute": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return summary


def _check_outputs(
    out: str | Path,
    inputs: dict[str, str | Path | None],
    taken: TargetOptions,
    extra: OutputOptions,
    array_fit: str | Path | None,
) -> None:
    """Refuse outputs that are inputs, or one another, or cannot be written."""
    more = {
        "array fit": array_fit,
        "excluded sites": taken.excluded_sites,
        "sites": extra.sites,
        "empirical": extra.empirical,
    }
    known = {**inputs, "list of samples": taken.samples, "excluded samples": taken.exclude_samples}
    if str(out) != "-":
        check_output(out, known)
        known["imputed output"] = out
    for name, path in more.items():
        if path is not None:
            check_output(path, known)
            known[f"{name} output"] = path
    for path in (extra.sites, extra.empirical):
        if path is not None:
            output_kind(path)


def _within(panel_index: np.ndarray, part: Panel) -> np.ndarray:
    """The typed sites that lie in a part of the panel."""
    if not isinstance(part, PanelPart):
        return panel_index
    return panel_index[(panel_index >= part.start) & (panel_index < part.stop)]


def _divide(
    seconds: dict[str, float], imputers: Sequence[dict[str, float]], writer: dict[str, float]
) -> None:
    """Replace "impute" and "write" by the stages of imputer and writer, and what is left."""
    imputer: Counter[str] = Counter()
    for one in imputers:
        imputer.update(one)
    rest: dict[str, tuple[str, dict[str, float]]] = {
        "dosages": ("impute", dict(imputer)),
        "format": ("write", writer),
    }
    for stage, (whole, parts) in rest.items():
        left = seconds.pop(whole, 0.0) - sum(parts.values())
        for name, time in (*parts.items(), (stage, max(0.0, left))):
            seconds[name] = seconds.get(name, 0.0) + time
