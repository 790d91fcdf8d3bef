"""From a target VCF and a panel to an imputed VCF: a run on one page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from ragimpute.accuracy.dr2 import Dr2Calibration
from ragimpute.copying_model.imputer import require_packages
from ragimpute.errors import ModelError
from ragimpute.imputation.array_choice import fitted_parts, other_windows
from ragimpute.imputation.imputer import Imputer, Stretch, check_model, dr2_of
from ragimpute.imputation.listed_sites import ListedSites, list_sites
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.outputs import (
    Outputs,
    check_outputs,
    check_samples,
    declarations_written,
    infos_written,
    open_outputs,
)
from ragimpute.imputation.pipeline import run_windows
from ragimpute.imputation.resume import keep_run
from ragimpute.imputation.summary import (
    ImputeSummary,
    name_of,
    result_warnings,
)
from ragimpute.imputation.windows import (
    CopiedWindow,
    Flow,
    NothingKept,
    PlannedWindow,
    Window,
    WindowResult,
    WindowRun,
    go_on,
    likely_window,
    pattern_bytes_of,
    plan_flow,
    plan_run,
    waiting_bytes,
)
from ragimpute.io.imputed import output_kind
from ragimpute.io.site_list import SiteList, read_site_list
from ragimpute.io.vcf.header import Heading
from ragimpute.model.folder import open_folder
from ragimpute.panel.loci import PanelLoci
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelAhead
from ragimpute.phasing.phase_target import phase_match
from ragimpute.retrieval.index_manifest import ARRAYS
from ragimpute.runtime.memory import (
    MemoryPlan,
    hold_freed,
    memory_explained,
    plan_memory,
    program_bytes,
)
from ragimpute.runtime.outputs import check_space, output_bytes
from ragimpute.runtime.stages import Stage, reporting
from ragimpute.runtime.threads import Crew
from ragimpute.runtime.timing import Progress, Stopwatch
from ragimpute.target.inputs import Inputs, open_inputs
from ragimpute.target.named_alleles import require_ref
from ragimpute.target.ploidy import TargetPloidy, ploidy_of
from ragimpute.token_model.learned_panel import require_contig

log = logging.getLogger("ragimpute")


def impute(
    target: str | Path,
    panel: str | Path,
    out: str | Path,
    options: ImputeOptions | None = None,
    *,
    progress: Progress | None = None,
    command: str | None = None,
    **changes: object,
) -> ImputeSummary:
    """Impute a target from a panel and write a VCF or BCF; unphased genotypes are phased first.

    Parameters
    ----------
    target, panel, out
        VCF/BCF; panel.h5 or a phased VCF/BCF, which is prepared on the fly; the output, of
        the kind that its suffix says ("-": VCF to standard output).
    options
        See :class:`ragimpute.imputation.options.ImputeOptions`; None: the defaults.
    progress
        Called as ``progress(stage, done, total)``; None: as
        :func:`ragimpute.runtime.stages.reporting` says.
    command
        Recorded in the output's header.
    changes
        Options by name that differ from ``options``: ``impute(target, panel, out, seed=2)``.

    Raises
    ------
    InputError, PanelError, ModelError
        If an input cannot be used, or inputs do not belong together.
    MissingPackageError
        If the model needs a package that is not installed.
    TypeError
        If a change is not an option.
    """
    # 1. Refuse what cannot work before a panel is prepared, which may take an hour.
    options = ImputeOptions.of(options, **changes)
    files = options.input_files(target, panel)
    check_outputs(out, files, options)
    model = open_folder(options.model)
    require_packages(model, options.device)
    check_model(model, options)
    summary = ImputeSummary(str(out), str(panel), name_of(target), str(options.model))
    sites_file = options.output_options.sites_file
    wanted = None if sites_file is None else read_site_list(sites_file)
    summary.started = datetime.now().astimezone().isoformat(timespec="seconds")
    watch = Stopwatch(summary.seconds, summary.peak_mb)
    with ExitStack() as stack:
        stack.enter_context(memory_explained(partial(_out_of_memory, options)))
        report = stack.enter_context(reporting(progress))
        stack.enter_context(Crew(options.threads))
        hold_freed(bounded=options.max_memory is not None)
        # 2. Find the windows that an earlier run finished, if this one may resume it.
        kept_run = NothingKept()
        if options.resume:
            kept_run = stack.enter_context(keep_run(out, files, model, options, command))
        # 3. Open the panel, read the target and match it.
        inputs = open_inputs(
            files, stack, summary, threads=options.threads, progress=report,
            phased_only=options.phase_options.phased_only,
            view=partial(_read_ahead, options=options, stack=stack),
        )  # fmt: skip
        if options.output_options.typed_only:
            require_ref(inputs.target)
        listed = _listed(wanted, inputs)
        for line in (
            check_samples(out, inputs, options),
            require_contig(model, inputs.panel, panel),
        ):
            if line is not None:
                summary.warn(line)
        ploidy = ploidy_of(inputs.target, inputs.panel, inputs.match, files.options.par)
        watch.lap("read")
        # 4. Fit the model to the panel.
        choice, parts, unused = fitted_parts(inputs, ploidy, model, options)
        summary.warn(*unused)
        summary.add_index(choice.used, choice.unused)
        uses_torch = parts[0].imputer.uses_torch
        summary.add_options(options)
        watch.lap("model")
        # 5. Phase what is not phased.
        if inputs.needs_phasing and not inputs.has_likelihoods:
            inputs, said = _phased(inputs, options, kept_run, report)
            summary.settings.update(said)
            watch.lap("phase")
        if not inputs.has_likelihoods:
            summary.add_inbred(inputs)
        # 6. Plan the windows, and begin or go on with the outputs.
        wide = any(part.imputer.is_wide for part in parts)
        memory = plan_memory(
            options.max_memory, uses_torch=uses_torch, wide=wide,
            held=program_bytes(inputs.panel.num_sites),
        )  # fmt: skip
        calibration = dr2_of(inputs, model)
        heading = _heading(inputs, parts[0].imputer, calibration, options, command)
        outputs = stack.enter_context(
            open_outputs(
                out,
                inputs,
                heading,
                options,
                listed=listed,
                resumable=kept_run.resumable,
                restored=kept_run.done,
            )
        )
        windows = kept_run.plan(plan_run(parts, Stretch.of(inputs), options, memory))
        summary.add_index("", other_windows(choice, parts, windows))
        results = kept_run.results
        go_on(parts, windows, results)
        if kept_run.resumable:
            kept = f"{len(results)} of {len(windows)} windows were kept"
            summary.settings["resumed"] = kept
        left = windows[len(results) :]
        inputs.panel.will_read([(window[0], window[3]) for _, window in left])
        flow, memory = plan_flow(
            [window for _, window in left], inputs, ploidy, memory, threads=options.threads,
            is_bounded=options.max_memory is not None, pattern_bytes=pattern_bytes_of(parts),
        )  # fmt: skip
        folder = None if str(out) == "-" else Path(out).absolute().parent
        _check_space(
            summary, folder, [window for _, window in left], options, ploidy, memory, flow, listed
        )
        # 7. Prepare, impute and write window after window.
        others = outputs.other_carriers(inputs.panel.sites)
        of_rows: dict[str, float] = {}
        with Stage("impute", inputs.stop - inputs.start) as stage:
            runs = [
                WindowRun(
                    part, inputs, ploidy, calibration, memory, folder, of_rows, stage,
                    options.threads, others,
                )
                for part in parts
            ]  # fmt: skip

            results += _write_windows(left, runs, flow, outputs, kept_run)
            watch.lap("impute")
        # 8. Finish the files.
        with Stage("finish output"):
            outputs.close()
        watch.lap("write")
    # 9. Say what was done.
    shown = list(zip((window for _, window in windows), results, strict=True))
    summary.warn(*result_warnings(inputs.panel, shown, len(inputs.target.samples)))
    summary.add_outputs(
        outputs, min_r2=options.output_options.min_r2, expects_r2=parts[0].imputer.expects_r2
    )
    summary.add_result(inputs, results)
    if listed is not None:
        summary.add_listed(listed, outputs, options.output_options.sites_status)
    summary.add_costs([part.imputer for part in parts], of_rows, outputs.seconds)
    return summary


def _out_of_memory(options: ImputeOptions, on_gpu: bool) -> ModelError:
    """The error for a lack of memory: it names the options to lower."""
    size = options.max_memory
    used = "" if size is None else f"--max-memory {max(1, size >> 20)}M, "
    lower = "give --max-memory, such as 600M" if size is None else "lower --max-memory"
    if on_gpu:
        return ModelError(
            f"the GPU is out of memory with {used}--model {options.model}",
            hint=f"{lower}, which bounds a batch on the GPU too, end other programs that use it "
            "('nvidia-smi' lists them), or add --device cpu",
        )
    return ModelError(
        f"out of memory with {used}--threads {options.threads}, --chunk-cm {options.window_cm:g}, "
        f"--buffer-cm {options.buffer_cm:g}",
        hint=f"{lower}, lower --threads, --chunk-cm or --buffer-cm, or impute region by region "
        "with --region",
    )


def _listed(wanted: SiteList | None, inputs: Inputs) -> ListedSites | None:
    """The sites to write, if a list names them."""
    if wanted is None:
        return None
    return list_sites(wanted, inputs.panel, inputs.start, inputs.stop, contig=inputs.contig)


def _heading(
    inputs: Inputs,
    imputer: Imputer,
    calibration: Dr2Calibration,
    options: ImputeOptions,
    command: str | None,
) -> Heading:
    """What the headers of all files that a run writes have in common."""
    infos = infos_written(
        er2=imputer.leaves_out, pr2=imputer.expects_r2,
        typed_only=options.output_options.typed_only,
    )  # fmt: skip
    return Heading(
        inputs.target.samples, inputs.contigs, command, calibration.header_lines, infos=infos,
        joined=options.output_options.join_multiallelics,
        declarations=declarations_written(
            inputs.panel, inputs.target, typed_only=options.output_options.typed_only
        ),
    )  # fmt: skip


def _write_windows(
    left: Sequence[PlannedWindow],
    runs: Sequence[WindowRun],
    flow: Flow,
    outputs: Outputs,
    kept_run: NothingKept,
) -> list[WindowResult]:
    """Impute and write the windows that are left, each by the run of its part; keep the results."""
    inputs, stage, threads = runs[0].inputs, runs[0].stage, runs[0].threads

    def begin(number: int) -> None:
        part, window = left[number]
        stage.reach(window[1] - inputs.start)
        _log_window(inputs, part, window)

    def write(run: WindowRun, copied: CopiedWindow) -> WindowResult:
        result = run.write(copied, outputs)
        kept_run.keep(result, outputs)
        return result

    return run_windows(
        [(runs[part], window) for part, window in left], flow,
        begin=begin, write=write, threads=threads,
    )  # fmt: skip


def _log_window(inputs: Inputs, part: int, window: Window) -> None:
    """Log a window that begins."""
    at = inputs.panel.sites.position_bp
    left, start, stop, right = window
    log.debug(
        "window %s:%d-%d of part %d: %s sites, with buffers %s", inputs.contig, at[start],
        at[stop - 1], part + 1, f"{stop - start:,}", f"{right - left:,}",
    )  # fmt: skip


def _has_arrays(options: ImputeOptions) -> bool:
    """Whether a run has an index with arrays, which have the panel's haplotypes, too."""
    index = options.index or options.array_fit
    return index is not None and (Path(index) / ARRAYS).is_dir()


def _read_ahead(
    panel: Panel, start: int, stop: int, *, options: ImputeOptions, stack: ExitStack
) -> Panel:
    """Begin to read the first window of a run in a thread, while the target is read.

    The loci of the panel are found in what is read.
    """
    window = None
    if options.threads > 1 and not _has_arrays(options):
        window = likely_window(panel, start, stop, options)
    if window is None:
        return PanelLoci(panel)
    ahead = PanelAhead(panel, *window)
    stack.callback(ahead.forget)
    return PanelLoci(ahead)


def _phased(
    inputs: Inputs, options: ImputeOptions, kept_run: NothingKept, report: Progress
) -> tuple[Inputs, dict[str, object]]:
    """The inputs with a phased target, as an earlier run kept it or anew; and what was done."""
    kept = kept_run.phased()
    if kept is not None:
        return replace(inputs, match=replace(inputs.match, alleles=kept[0])), kept[1]
    match, said = phase_match(
        inputs, options.phase_options, ne=options.ne, err=options.err, seed=options.seed,
        threads=options.threads, progress=report,
    )  # fmt: skip
    kept_run.keep_phased(match.alleles, said)
    return replace(inputs, match=match), said


def _check_space(
    summary: ImputeSummary,
    folder: Path | None,
    windows: Sequence[Window],
    options: ImputeOptions,
    ploidy: TargetPloidy,
    memory: MemoryPlan,
    flow: Flow,
    listed: ListedSites | None,
) -> None:
    """Warn, or refuse, if the windows that are left will not fit on the disk of the output."""
    if folder is None:
        return
    num_sites = sum(stop - start for _, start, stop, _ in windows)
    if listed is not None:
        num_sites = sum(listed.count(start, stop) for _, start, stop, _ in windows)
    line = check_space(
        folder,
        output=output_bytes(
            output_kind(summary.out, options.output_options.output_type),
            options.fields,
            num_sites,
            summary.num_samples,
        ),
        temporary=waiting_bytes(windows, ploidy, memory) * (2 if flow.writes_beside else 1),
    )
    if line is not None:
        summary.warn(line)
