"""Train BERTWithRAG on a panel: one loop that reads from top to bottom.

Examples, masks and retrieval come from ``dataset`` (token models) or ``copying_batches`` (copying
models); state on disk is kept by ``state``; figures go to ``tracking``.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ragimpute.accuracy.dr2 import FILE as DR2
from ragimpute.accuracy.dr2 import Dr2Calibration
from ragimpute.config import RunConfig, dump_config, models_dir
from ragimpute.errors import ModelError
from ragimpute.model.bert_rag import BERTWithRAG, build
from ragimpute.model.checkpoint import load_model, load_weights, save_model, versions, write_text
from ragimpute.model.devices import choose_device
from ragimpute.model.folder import PROVENANCE, is_copying, open_folder
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import require_one_ploidy
from ragimpute.runtime.timing import Progress
from ragimpute.training.data.batches import describe_panel, make_batches
from ragimpute.training.data.copying_batches import EvidenceBatches
from ragimpute.training.data.token_batches import TokenBatches, split_samples
from ragimpute.training.dr2_fit import fit_dr2
from ragimpute.training.failures import check_loss, memory_explained
from ragimpute.training.losses import compute_loss
from ragimpute.training.processes import make_accelerator, share_batch
from ragimpute.training.schedule import rate_factor
from ragimpute.training.state import (
    LAST,
    METRICS,
    STATE,
    TrainingState,
    TrainResult,
    epoch_line,
    write_metrics,
)
from ragimpute.training.tracking import Tracker, check_trackers, open_trackers
from ragimpute.training.validation import figure_of, ls_figure_of, score_model

EpochReport = Callable[[dict[str, float], int, bool], None]


def train(
    panel_paths: Sequence[str | Path],
    config: RunConfig,
    out: str | Path,
    *,
    index: str | Path | None = None,
    init: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int = 1,
    force: bool = False,
    progress: Progress | None = None,
    report_line: Callable[[str], None] | None = None,
    report_epoch: EpochReport | None = None,
    calibrate: bool = True,
    command: str = "",
) -> TrainResult:
    """Train a model on one panel, or a copying model on several, and write its folder.

    Parameters
    ----------
    panel_paths, index
        panel.h5 files, at least one; the only one's index for token models, or None to build it in
        memory.
    config
        Everything that changes the result.
    out
        Model folder: config.yaml, weights.safetensors (the best epoch's), last.safetensors,
        provenance.json, metrics.csv, tensorboard/, and the state to resume from; for a copying
        model dr2.json, which calibrates its DR2.
    init
        A model to start from; it is kept unless training improves on its validation figure and,
        for a copying model, on that of plain Li-Stephens.
    resume
        Go on from the state in ``out``; on a CPU the weights end as those of an unbroken run.
    device, threads
        "auto", "cpu" or "cuda"; CPU threads.
    force
        Replace a model in ``out``.
    progress, report_line, report_epoch
        Called as ``progress(stage, done, total)``; with a line for each epoch; and with an epoch's
        figures, as ``report_epoch(row, epochs, improved)``, where the row is that of metrics.csv.
    calibrate
        Calibrate a copying model's DR2 by its validation samples when it is trained.
    command
        Recorded in provenance.json.

    Raises
    ------
    PanelError, ModelError, ConfigError
        If an input cannot be used, the loss is no longer finite, or memory runs out.
    """
    began = time.perf_counter()
    out = Path(out)
    torch.set_num_threads(threads)
    where = choose_device(device)
    if where.index is not None:
        torch.cuda.set_device(where)
    settings = config.train
    accelerator = make_accelerator(where, settings.precision)
    torch.backends.cuda.matmul.allow_tf32 = settings.tf32
    torch.backends.cudnn.allow_tf32 = settings.tf32
    torch.manual_seed(settings.seed)
    tick = _no_progress if progress is None or not accelerator.is_main_process else progress
    check_trackers(config)
    _check_folder(out, resume=resume, force=force)
    with ExitStack() as stack:
        stack.enter_context(memory_explained(config))
        panels = [stack.enter_context(Panel.open(path)) for path in panel_paths]
        for panel in panels:
            require_one_ploidy(panel, "training")
        model = build(config.model)
        data = make_batches(
            panels, config, index, threads, accelerator.num_processes,
            device=str(accelerator.device), is_chosen=device != "auto",
        )  # fmt: skip
        start = _initialise(model, config, data, init)
        provenance = {
            "command": command,
            "panels": [describe_panel(panel, config) for panel in panels],
            "seed": settings.seed,
            "init": str(init) if init else "",
            "device": str(accelerator.device),
            "num_processes": accelerator.num_processes,
            "versions": versions(),
        }
        optimizer = _optimizer(model, config, accelerator.device)
        state = TrainingState(
            dump_config(config),
            " ".join(panel.checksum for panel in panels),
            num_processes=accelerator.num_processes,
        )
        if resume:
            state.load(out / STATE, model, optimizer, accelerator.scaler)
        steps_per_epoch = -(-data.num_train_batches(0) // settings.accumulation)
        total_steps = min(settings.epochs * steps_per_epoch, settings.max_steps or math.inf)
        factor = rate_factor(config.schedule, int(total_steps))
        plain = model
        model, optimizer = accelerator.prepare(model, optimizer)
        runner = torch.compile(model) if settings.compile else model
        trackers: list[Tracker] = []
        if accelerator.is_main_process:
            out.mkdir(parents=True, exist_ok=True)
            if not resume:
                _forget(out)
            trackers = open_trackers(out, config, first_step=state.step + 1 if resume else 0)
        metric = settings.early_stopping.metric
        result = TrainResult(
            out, history=state.history, metric=metric,
            num_parameters=plain.num_parameters(), is_main=accelerator.is_main_process,
        )  # fmt: skip
        if start is not None and state.step == 0:
            first = _validate(plain, data, config, 0, accelerator, tick)
            result.initial = first
            state.best = figure_of(first, metric)
            if is_copying(config):  # what is worse than no network at all is not kept either
                state.best = max(state.best, ls_figure_of(first, metric))
            if accelerator.is_main_process:
                save_model(out, plain, config, provenance)

        def mean_over_processes(value: Tensor) -> Tensor:
            out: Tensor = accelerator.reduce(value, "mean")
            return out

        def save_state() -> None:
            if accelerator.is_main_process:
                state.save(out / STATE, plain, optimizer, accelerator.scaler)

        try:
            while state.epoch < settings.epochs and not state.finished:
                epoch = state.epoch
                _prepare_epoch(data, plain, state, config, accelerator)
                model.train()
                num_batches = data.num_train_batches(epoch)
                recent: list[float] = []
                for batch in data.train_batches(epoch, state.batch):
                    if settings.max_steps and state.step >= settings.max_steps:
                        break
                    # An epoch's last step may have fewer batches to accumulate.
                    begin = state.batch - state.batch % settings.accumulation
                    group = min(settings.accumulation, num_batches - begin)
                    complete = state.batch + 1 == begin + group
                    batch = share_batch(batch, accelerator)
                    with nullcontext() if complete else accelerator.no_sync(model):
                        with accelerator.autocast():
                            loss, _ = compute_loss(
                                runner(batch), batch, config.loss, epoch,
                                mean_weight=mean_over_processes,
                            )  # fmt: skip
                        mean_loss = float(mean_over_processes(loss.detach()))
                        check_loss(mean_loss, state, out)
                        accelerator.backward(loss / group)
                    state.batch += 1
                    state.loss_sum += mean_loss
                    recent.append(mean_loss)
                    if not complete:
                        continue
                    rate = config.optimizer.lr * factor(state.step)
                    for parameters in optimizer.param_groups:
                        parameters["lr"] = rate
                    if settings.clip:
                        accelerator.clip_grad_norm_(model.parameters(), settings.clip)
                    optimizer.step()
                    optimizer.zero_grad()
                    state.step += 1
                    tick(f"epoch {epoch + 1}/{settings.epochs}", state.batch, num_batches)
                    if state.step % settings.log_every == 0:
                        values = {"train/loss": sum(recent) / len(recent), "train/lr": rate}
                        recent.clear()
                        for tracker in trackers:
                            tracker.log(values, state.step)
                    if state.step % settings.checkpoint_every == 0:
                        save_state()
                row = {
                    "epoch": epoch + 1.0,
                    "step": float(state.step),
                    "train_loss": state.loss_sum / max(1, state.batch),
                    "lr": config.optimizer.lr * factor(max(0, state.step - 1)),
                }
                row |= _validate(plain, data, config, epoch, accelerator, tick)
                state.history.append(row)
                figure = figure_of(row, metric)
                improved = figure > state.best or state.best == -math.inf
                if improved:
                    state.best, state.best_epoch = figure, epoch + 1
                if accelerator.is_main_process:
                    if improved:
                        save_model(out, plain, config, provenance)
                    write_metrics(out / METRICS, state.history)
                    for tracker in trackers:
                        values = {f"validation/{k}": v for k, v in row.items() if math.isfinite(v)}
                        tracker.log(values, state.step)
                    if report_line is not None:
                        report_line(epoch_line(row, settings.epochs))
                    if report_epoch is not None:
                        report_epoch(row, settings.epochs, improved)
                patience = settings.early_stopping.patience
                state.stopped_early = 0 < patience <= epoch + 1 - state.best_epoch
                reached = settings.max_steps is not None and state.step >= settings.max_steps
                state.finished = state.stopped_early or reached
                state.epoch, state.batch, state.loss_sum = epoch + 1, 0, 0.0
                save_state()
            if accelerator.is_main_process:
                state.save_last(out, plain, config)
                if is_copying(config) and calibrate:
                    _calibrate(out, panels, config, init, str(accelerator.device), threads, tick)
        finally:
            for tracker in trackers:
                tracker.close()
    result.best_epoch, result.steps = state.best_epoch, state.step
    result.kept = "trained" if state.best_epoch else "initial"
    result.stopped_early = state.stopped_early
    result.seconds = time.perf_counter() - began
    return result


def _check_folder(out: Path, *, resume: bool, force: bool) -> None:
    """Refuse to write over a model, or to resume from nothing."""
    if out.exists() and not out.is_dir():
        raise ModelError(f"{out} is a file", hint="choose another -o")
    state, used = (out / STATE).is_file(), (out / PROVENANCE).is_file()
    if resume and not state:
        raise ModelError(f"folder {out} holds nothing to resume", hint="leave out --resume")
    if not resume and (state or used) and not force:
        raise ModelError(
            f"folder {out} holds a model already",
            hint="choose another -o, go on with --resume, or replace it with --force",
        )
    if not out.parent.is_dir():
        raise ModelError(f"the folder of {out} does not exist", hint=f"mkdir -p {out.parent}")


def _forget(out: Path) -> None:
    """Remove what an earlier run left to resume from, and its curves."""
    names = (STATE, LAST, METRICS, DR2, "report.html")
    for path in (*(out / name for name in names), *out.glob("*.png")):
        path.unlink(missing_ok=True)
    shutil.rmtree(out / "tensorboard", ignore_errors=True)


def _no_progress(stage: str, done: int, total: int) -> None:
    """Say nothing."""


def _initialise(
    model: BERTWithRAG, config: RunConfig, data: Any, init: str | Path | None
) -> str | None:
    """Start from given weights, or standardise a copying model's features."""
    if init is not None:
        loaded = load_model(init)
        if loaded.config.model != config.model:
            raise ModelError(
                f"model {init} is not of the shape that config {config.name} describes",
                hint="give --config the folder of the model that --init names",
            )
        model.load_state_dict(loaded.model.state_dict())
        if loaded.trained:
            return str(init)
    if isinstance(data, EvidenceBatches):
        assert model.residual is not None
        model.residual.standardise(*data.standardisation())
    return None


def _calibrate(
    out: Path,
    panels: Sequence[Panel],
    config: RunConfig,
    init: str | Path | None,
    device: str,
    threads: int,
    tick: Progress,
) -> None:
    """Write how DR2 of the weights that were kept is calibrated, as validation samples have it."""
    data, seed = config.data, config.train.seed
    groups = [
        split_samples(panel, data.validation_share, data.max_validation_samples, seed)[1]
        for panel in panels
    ]
    shipped = models_dir() / "default"
    prior = open_folder(init).dr2 if init is not None else Dr2Calibration.read(shipped)
    found = fit_dr2(
        panels, open_folder(out), groups=groups, prior=prior,
        seed=seed, threads=threads, device=device, progress=tick,
    )  # fmt: skip
    if found.coefficients:
        write_text(out / DR2, found.as_json())


def _optimizer(
    model: BERTWithRAG, config: RunConfig, device: torch.device
) -> torch.optim.Optimizer:
    """Adam or AdamW, fused on CUDA."""
    fused = config.optimizer.fused and device.type == "cuda"
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer.name]
    out: torch.optim.Optimizer = kind(
        model.parameters(), lr=config.optimizer.lr, betas=config.optimizer.betas,
        weight_decay=config.optimizer.weight_decay, fused=fused or None,
    )  # fmt: skip
    return out


def _prepare_epoch(
    data: Any, model: BERTWithRAG, state: TrainingState, config: RunConfig, accelerator: Accelerator
) -> None:
    """Raise the masks' level by the curriculum, and encode references anew where they are kept."""
    if isinstance(data, TokenBatches):
        every = config.mask.curriculum.every_epochs
        data.set_level(state.epoch // every if every else 0)
        if config.model.reference.mode == "precomputed":
            # A run that goes on amid an epoch has the weights that the epoch began with.
            data.refresh_references(
                model, state.epoch, accelerator.device, keep_weights=state.batch > 0
            )


def _validate(
    model: BERTWithRAG,
    data: Any,
    config: RunConfig,
    epoch: int,
    accelerator: Accelerator,
    tick: Progress,
) -> dict[str, float]:
    """The figures of an epoch; several processes share the batches."""
    rank, world = accelerator.process_index, accelerator.num_processes
    scores = score_model(
        model, data, config.loss, epoch,
        device=accelerator.device, rank=rank, world=world, progress=tick,
    )  # fmt: skip
    if world > 1:
        total = torch.from_numpy(scores.state()).to(accelerator.device)
        scores.load_state(accelerator.reduce(total, reduction="sum").cpu().numpy())
    return scores.row()


__all__ = ["TrainResult", "load_weights", "make_batches", "train"]
