"""Train a model on panels: :func:`train` is the run in numbered steps, ``_Run`` holds each step.

The examples come from ``data/token_batches`` (token models) or ``data/copying_batches`` (copying
models). ``state`` keeps on disk what a run resumes from; ``tracking`` records the figures.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ragimpute.accuracy.dr2 import FILE as DR2
from ragimpute.accuracy.dr2 import Dr2Calibration
from ragimpute.arguments import with_changes
from ragimpute.config import RunConfig, dump_config
from ragimpute.errors import ModelError
from ragimpute.model.bert_rag import BERTWithRAG, build
from ragimpute.model.checkpoint import (
    LoadedModel,
    load_model,
    load_weights,
    save_model,
    versions,
    write_text,
)
from ragimpute.model.devices import choose_device
from ragimpute.model.folder import PROVENANCE, is_copying, open_folder
from ragimpute.model.probability import FILE as PROBABILITIES
from ragimpute.model.probability import TRUST_FILE, Probabilities, gamma_at
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import require_one_ploidy
from ragimpute.preparation.open_panel import open_for_training, refuse_unused
from ragimpute.preparation.prepare import PrepareOptions
from ragimpute.presets import models_dir
from ragimpute.runtime.memory import memory_explained
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Progress, no_progress
from ragimpute.token_model.learned_panel import init_warning
from ragimpute.training.data.batches import describe_panel, make_batches, split_panel
from ragimpute.training.data.copying_batches import EvidenceBatches
from ragimpute.training.data.token_batches import TokenBatches
from ragimpute.training.dr2_fit import fit_dr2
from ragimpute.training.failures import check_loss, out_of_memory
from ragimpute.training.losses import compute_loss
from ragimpute.training.probability_fit import fit_probabilities, hidden_alleles
from ragimpute.training.processes import make_accelerator, share_of
from ragimpute.training.schedule import rate_factor, warmup_steps
from ragimpute.training.state import (
    EPOCHS,
    LAST,
    METRICS,
    STATE,
    TrainingState,
    TrainResult,
    epoch_line,
    save_epoch,
    write_metrics,
)
from ragimpute.training.tracking import Tracker, check_trackers, open_trackers
from ragimpute.training.validation import (
    about_kept,
    against_li_stephens,
    figure_of,
    ls_figure_of,
    score_model,
)

logger = logging.getLogger(__name__)

#: Called as ``report_epoch(row, epochs, improved)`` at the end of an epoch: its row of metrics.csv,
#: the epochs of the run, and whether it is the best one so far.
EpochReport = Callable[[dict[str, float], int, bool], None]


@dataclass(frozen=True)
class TrainOptions:
    """How a training run goes about its work; what it learns is in its config.

    Attributes
    ----------
    index
        The panel's index, for token models; None: built in memory.
    init
        A model to start from. Its weights are kept unless training improves on its validation
        figure and, for a copying model, on that of plain Li-Stephens copying.
    resume
        Go on from the state in the model folder. On a CPU the weights end as those of a run that
        was never interrupted.
    device, threads
        "auto", "cpu" or "cuda"; CPU threads, >= 1.
    force
        Replace a model that is in the folder already.
    calibrate
        Calibrate the model by its validation samples when it is trained: a token model's
        probabilities, and DR2.
    prepare_options
        How panels that are no panel.h5 are prepared, for this run only.
    """

    index: str | Path | None = None
    init: str | Path | None = None
    resume: bool = False
    device: str = "auto"
    threads: int = 1
    force: bool = False
    calibrate: bool = True
    prepare_options: PrepareOptions = field(default_factory=PrepareOptions)


def train(
    panel_paths: Sequence[str | Path],
    config: RunConfig,
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    progress: Progress | None = None,
    report_line: Callable[[str], None] | None = None,
    report_epoch: EpochReport | None = None,
    command: str = "",
    **changes: object,
) -> TrainResult:
    """Train a model on one panel, or a copying model on several, and write its folder.

    Parameters
    ----------
    panel_paths
        panel.h5 files, or what :func:`ragimpute.preparation.prepare.prepare` reads, which is then
        prepared for this run; at least one. A token model learns from exactly one.
    config
        Everything that changes the result.
    out
        Model folder: config.yaml, weights.safetensors (the best epoch's), last.safetensors (with
        ``train.keep_epochs`` those of every epoch, too), provenance.json, metrics.csv,
        tensorboard/, and the state to resume from; dr2.json, which calibrates DR2; and for a token
        model probabilities.json, which calibrates P(ALT) where the validation samples say how.
    options
        See :class:`TrainOptions`; None: the defaults.
    progress, report_line, report_epoch
        Called as ``progress(stage, done, total)``; with a line for each epoch; and with an epoch's
        figures, as ``report_epoch(row, epochs, improved)``, where the row is that of metrics.csv.
        Of several processes only the first calls them.
    command
        Recorded in provenance.json.
    changes
        Options by name that differ from ``options``: ``train([panel], config, out, threads=2)``.

    Raises
    ------
    InputError, PanelError, ModelError, ConfigError
        If an input cannot be used, the loss is no longer finite, or memory runs out.
    TypeError
        If a change is not an option.
    """
    # 1. Choose the device, and refuse what cannot work.
    began = time.perf_counter()
    options = with_changes(options or TrainOptions(), changes, "train")
    out = Path(out)
    accelerator = _set_up(config, options)
    is_main = accelerator.is_main_process
    check_trackers(config)
    _check_folder(out, resume=options.resume, force=options.force)
    refuse_unused(panel_paths, options.prepare_options)
    with ExitStack() as stack:
        stack.enter_context(memory_explained(lambda on_gpu: out_of_memory(config)))
        # 2. Open the panels; make the model and the examples that it learns from.
        tick = progress if progress is not None and is_main else no_progress
        warn = logger.warning if is_main else logger.debug
        prepare_options = replace(options.prepare_options, threads=options.threads)
        panels = [
            open_for_training(path, stack, warn, options=prepare_options, progress=tick)
            for path in panel_paths
        ]
        for panel in panels:
            require_one_ploidy(panel, "training")
        model = build(config.model)
        with Stage("prepare data", progress=tick):
            data = make_batches(
                panels, config, options.index, options.threads, share_of(accelerator),
                device=str(accelerator.device), is_chosen=options.device != "auto",
            )  # fmt: skip
        initial = _initialise(model, config, data, options.init)
        if options.init is not None and not is_copying(config):
            other = init_warning(open_folder(options.init), panels[0], panel_paths[0])
            if other is not None:
                warn(other)
        # 3. Go on from the state of an earlier run, or begin a new one.
        run = _Run(out, config, accelerator, data, model, " ".join(p.checksum for p in panels))
        run.provenance = _provenance(
            [describe_panel(p, config, q) for p, q in zip(panels, panel_paths, strict=True)],
            config, options, accelerator, command,
        )  # fmt: skip
        run.tick = tick
        run.begin(resume=options.resume)
        for tracker in run.trackers:
            stack.callback(tracker.close)
        if initial is not None and run.state.step == 0:
            assert initial.probabilities is not None
            run.keep_initial_weights(initial.probabilities.gamma)
        elif config.model.li_stephens.offset and run.state.step == 0:
            # A new network adds nothing to copying: it is what epochs must improve on.
            run.keep_initial_weights(gamma_at(config.loss, 0))
        # 4. Learn epoch after epoch, and keep the weights of the best one.
        while run.state.epoch < config.train.epochs and not run.state.finished:
            run.begin_epoch()
            for batch in run.batches():
                run.learn(batch)
            row = run.validate()
            improved = run.keep_if_best(row)
            if is_main and report_line is not None:
                report_line(epoch_line(row, config.train.epochs))
            if is_main and report_epoch is not None:
                report_epoch(row, config.train.epochs, improved)
            run.end_epoch()
        # 5. Keep the last epoch's weights too, and calibrate probabilities and DR2.
        if is_main:
            run.state.save_last(out, model, config)
            if options.calibrate:
                _calibrate(out, panels, data, config, options, accelerator.device, run.tick)
    return run.result(time.perf_counter() - began)


def _set_up(config: RunConfig, options: TrainOptions) -> Accelerator:
    """Set torch's threads, device, precision and seed; returns what runs the loop."""
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    if device.index is not None:
        torch.cuda.set_device(device)
    accelerator = make_accelerator(device, config.train.precision)
    torch.backends.cuda.matmul.allow_tf32 = config.train.tf32
    torch.backends.cudnn.allow_tf32 = config.train.tf32
    torch.manual_seed(config.train.seed)
    return accelerator


class _Run:
    """A run under way: the model, its optimiser and examples, and where the run stands."""

    def __init__(
        self,
        out: Path,
        config: RunConfig,
        accelerator: Accelerator,
        data: Any,
        model: BERTWithRAG,
        panel_checksum: str,
    ) -> None:
        self.out, self.config, self.accelerator, self.data = out, config, accelerator, data
        self.settings = config.train
        # ``wrapped`` is the same model as accelerate prepares it for several processes, and
        # ``runner`` is that one as torch may compile it: they learn, ``model`` is saved and scored.
        self.model = model
        self.wrapped: Any = model
        self.runner: Any = model
        self.optimizer: Any = _optimizer(model, config, accelerator.device)
        self.state = TrainingState(
            dump_config(config), panel_checksum, num_processes=accelerator.num_processes
        )
        self.provenance: dict[str, Any] = {}
        self.initial: dict[str, float] = {}  # figures of the weights that training starts from
        self.trackers: list[Tracker] = []
        self.tick: Progress = no_progress
        total = self._total_steps()
        self._factor = rate_factor(config.schedule, total)
        self._warmup = warmup_steps(config.schedule, total)
        self._recent: list[float] = []  # losses since the trackers were last told

    def _total_steps(self) -> int:
        """Optimiser steps of the whole run, as the schedule of the learning rate needs them."""
        per_epoch = -(-self.data.num_train_batches(0) // self.settings.accumulation)
        return int(min(self.settings.epochs * per_epoch, self.settings.max_steps or math.inf))

    def begin(self, *, resume: bool) -> None:
        """Take up an earlier run's state if this one resumes it, and open the model folder."""
        state, accelerator = self.state, self.accelerator
        if resume:
            state.load(self.out / STATE, self.model, self.optimizer, accelerator.scaler)
        self.wrapped, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        self.runner = torch.compile(self.wrapped) if self.settings.compile else self.wrapped
        if accelerator.is_main_process:
            self._warn_of_warmup()
            self.out.mkdir(parents=True, exist_ok=True)
            _forget_calibration(self.out)  # the weights change
            if not resume:
                _forget(self.out)
            first_step = state.step + 1 if resume else 0
            self.trackers = open_trackers(self.out, self.config, first_step=first_step)

    def _warn_of_warmup(self) -> None:
        """Warn if the run ends before its warm-up does."""
        total = self._total_steps()
        if self._warmup >= total:
            logger.warning(
                "the warm-up of %s steps is not over when the run of %s steps ends, so the "
                "learning rate never reaches %g; set schedule.warmup_share=0.1, or "
                "schedule.warmup_steps below %s, or train for longer",
                f"{self._warmup:,}", f"{total:,}", self.config.optimizer.lr, f"{total:,}",
            )  # fmt: skip

    def keep_initial_weights(self, gamma: float) -> None:
        """Validate the weights that training starts from, and keep them until some are better.

        ``gamma`` is that of the loss that they come from, which need not be this run's.
        """
        metric = self.settings.early_stopping.metric
        self.initial = _validate(
            self.model, self.data, self.config, 0, self.accelerator, self.tick,
            Probabilities(gamma),
        )  # fmt: skip
        self.state.best = figure_of(self.initial, metric)
        if is_copying(self.config):  # a network that is worse than none at all is not kept either
            self.state.best = max(self.state.best, ls_figure_of(self.initial, metric))
        self.provenance |= about_kept({**self.initial, "epoch": 0.0}, metric)
        if self.accelerator.is_main_process:
            save_model(self.out, self.model, self.config, self.provenance, gamma=gamma)

    def begin_epoch(self) -> None:
        """Make the examples and the model ready to learn."""
        _prepare_epoch(self.data, self.model, self.state, self.config, self.accelerator)
        self.wrapped.train()
        self._recent.clear()

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """The batches of the epoch that are left, until the run has taken all its steps."""
        for batch in self.data.train_batches(self.state.epoch, self.state.batch):
            if self._has_all_steps():
                return
            yield batch

    def _has_all_steps(self) -> bool:
        """Whether ``train.max_steps`` is reached."""
        return bool(self.settings.max_steps) and self.state.step >= (self.settings.max_steps or 0)

    def learn(self, batch: dict[str, Tensor]) -> None:
        """Add a batch's gradients, and take a step where enough batches are accumulated."""
        state, accelerator, settings = self.state, self.accelerator, self.settings
        # An epoch's last step may have fewer batches to accumulate.
        begin = state.batch - state.batch % settings.accumulation
        group = min(settings.accumulation, self.data.num_train_batches(state.epoch) - begin)
        complete = state.batch + 1 == begin + group
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        with nullcontext() if complete else accelerator.no_sync(self.wrapped):
            with accelerator.autocast():
                loss, _ = compute_loss(
                    self.runner(batch), batch, self.config.loss, state.epoch,
                    mean_weight=self._mean_over_processes,
                    num_processes=accelerator.num_processes,
                )  # fmt: skip
            mean_loss = float(self._mean_over_processes(loss.detach()))
            check_loss(mean_loss, state, self.out)
            accelerator.backward(loss / group)
        state.batch += 1
        state.loss_sum += mean_loss
        self._recent.append(mean_loss)
        if complete:
            self._step()

    def _mean_over_processes(self, value: Tensor) -> Tensor:
        """The mean of a value that each process has."""
        out: Tensor = self.accelerator.reduce(value, "mean")
        return out

    def _step(self) -> None:
        """Take an optimiser step with the gradients at hand; log and save where it is time to."""
        state, settings = self.state, self.settings
        rate = self.config.optimizer.lr * self._factor(state.step)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        if settings.clip:
            self.accelerator.clip_grad_norm_(self.wrapped.parameters(), settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        state.step += 1
        self.tick(
            f"epoch {state.epoch + 1}/{settings.epochs}",
            state.batch, self.data.num_train_batches(state.epoch),
        )  # fmt: skip
        if state.step % settings.log_every == 0:
            mean = sum(self._recent) / len(self._recent)
            self._recent.clear()
            for tracker in self.trackers:
                tracker.log({"train/loss": mean, "train/lr": rate}, state.step)
        if state.step % settings.checkpoint_every == 0:
            self._save_state()

    def validate(self) -> dict[str, float]:
        """The figures of the epoch that ends, which become a row of the history."""
        state = self.state
        row = {
            "epoch": state.epoch + 1.0,
            "step": float(state.step),
            "train_loss": state.loss_sum / max(1, state.batch),
            "lr": self.config.optimizer.lr * self._factor(max(0, state.step - 1)),
        }
        row |= _validate(
            self.model, self.data, self.config, state.epoch, self.accelerator, self.tick
        )
        state.history.append(row)
        return row

    def keep_if_best(self, row: dict[str, float]) -> bool:
        """Write the epoch's figures, and its weights if it is the best one so far, as returned."""
        state = self.state
        figure = figure_of(row, self.settings.early_stopping.metric)
        improved = figure > state.best or state.best == -math.inf
        if improved:
            state.best, state.best_epoch = figure, state.epoch + 1
            self.provenance |= about_kept(row, self.settings.early_stopping.metric)
        if self.accelerator.is_main_process:
            gamma = gamma_at(self.config.loss, state.epoch)
            if improved:
                save_model(self.out, self.model, self.config, self.provenance, gamma=gamma)
            if self.settings.keep_epochs:
                save_epoch(self.out, state.epoch + 1, self.model, self.config, gamma=gamma)
            write_metrics(self.out / METRICS, state.history)
            values = {f"validation/{k}": v for k, v in row.items() if math.isfinite(v)}
            for tracker in self.trackers:
                tracker.log(values, state.step)
        return improved

    def end_epoch(self) -> None:
        """Decide whether this epoch was the last one, and keep the state to resume from."""
        state, epoch = self.state, self.state.epoch
        patience = self.settings.early_stopping.patience
        # An epoch of the warm-up says nothing about how far the run will come.
        warming = sum(row["step"] < self._warmup for row in state.history)
        state.stopped_early = 0 < patience <= epoch + 1 - max(state.best_epoch, warming)
        state.finished = state.stopped_early or self._has_all_steps()
        state.epoch, state.batch, state.loss_sum = epoch + 1, 0, 0.0
        self._save_state()

    def _save_state(self) -> None:
        """Keep all that the run goes on from."""
        if self.accelerator.is_main_process:
            self.state.save(self.out / STATE, self.model, self.optimizer, self.accelerator.scaler)

    def result(self, seconds: float) -> TrainResult:
        """What the run came to."""
        metric = self.settings.early_stopping.metric
        best = [row for row in self.state.history if row["epoch"] == self.state.best_epoch]
        kept = best[0] if best else self.initial
        return TrainResult(
            self.out,
            history=self.state.history,
            best_epoch=self.state.best_epoch,
            metric=metric,
            stopped_early=self.state.stopped_early,
            steps=self.state.step,
            seconds=seconds,
            num_parameters=self.model.num_parameters(),
            kept="trained" if self.state.best_epoch else "initial",
            initial=self.initial,
            note=against_li_stephens(kept, metric),
            is_main=self.accelerator.is_main_process,
        )


def _provenance(
    panels: Sequence[dict[str, Any]],
    config: RunConfig,
    options: TrainOptions,
    accelerator: Accelerator,
    command: str,
) -> dict[str, Any]:
    """What provenance.json says: from what, how and by which versions a model was made."""
    return {
        "command": command,
        "panels": panels,
        "seed": config.train.seed,
        "init": str(options.init) if options.init else "",
        "device": str(accelerator.device),
        "num_processes": accelerator.num_processes,
        "versions": versions(),
    }


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
    names = (STATE, LAST, METRICS, "report.html")
    for path in (*(out / name for name in names), *out.glob("*.png"), *out.glob(EPOCHS)):
        path.unlink(missing_ok=True)
    shutil.rmtree(out / "tensorboard", ignore_errors=True)


def _forget_calibration(out: Path) -> None:
    """Remove what an earlier run, or this one before it was resumed, said of its weights."""
    for name in (DR2, PROBABILITIES, TRUST_FILE):
        (out / name).unlink(missing_ok=True)


def _initialise(
    model: BERTWithRAG, config: RunConfig, data: Any, init: str | Path | None
) -> LoadedModel | None:
    """Start from the weights of a model, or standardise a copying model's features.

    Returns the model that it starts from, if the weights of that are trained.
    """
    if init is not None:
        loaded = load_model(init)
        if not loaded.config.model.has_shape_of(config.model):
            raise ModelError(
                f"model {init} is not of the shape that config {config.name} describes",
                hint="give --config the folder of the model that --init names",
            )
        model.load_state_dict(loaded.model.state_dict())
        if loaded.trained:
            return loaded
    if isinstance(data, EvidenceBatches):
        assert model.residual is not None
        model.residual.standardise(*data.standardisation())
    return None


def _calibrate(
    out: Path,
    panels: Sequence[Panel],
    data: Any,
    config: RunConfig,
    options: TrainOptions,
    device: torch.device,
    tick: Progress,
) -> None:
    """Calibrate the weights that were kept by the validation samples.

    Writes probabilities.json and trust.json of a token model, and then dr2.json, which rests on
    them.
    """
    if isinstance(data, TokenBatches):
        loaded = load_model(out)
        assert loaded.probabilities is not None
        hidden = hidden_alleles(loaded.model, data, device=device, progress=tick)
        kept = fit_probabilities(hidden, loaded.probabilities.gamma, seed=config.train.seed)
        for name, text in kept.files().items():
            write_text(out / name, text)
    groups = [split_panel(panel, config)[1] for panel in panels]
    if options.init is not None:
        prior = open_folder(options.init).dr2
    else:
        prior = Dr2Calibration.read(models_dir() / "default")
    found = fit_dr2(
        panels, open_folder(out), groups=groups, prior=prior,
        seed=config.train.seed, threads=options.threads, device=str(device), progress=tick,
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
    """Set the level of the masks by the curriculum, and encode precomputed references anew."""
    if isinstance(data, TokenBatches):
        every = config.mask.curriculum.every_epochs
        due = state.epoch // every if every else 0
        while data.masks.level < due:  # a run that is resumed raises what it had raised before
            data.add_level()
        if config.model.reference.mode == "precomputed":
            # A run that is resumed amid an epoch uses the weights that the epoch began with.
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
    probabilities: Probabilities | None = None,
) -> dict[str, float]:
    """The validation figures of an epoch; several processes share the batches."""
    scores = score_model(
        model, data, config.loss, epoch,
        device=accelerator.device, progress=tick, probabilities=probabilities,
    )  # fmt: skip
    if accelerator.num_processes > 1:
        total = torch.from_numpy(scores.state()).to(accelerator.device)
        scores.load_state(accelerator.reduce(total, reduction="sum").cpu().numpy())
    return scores.row()


__all__ = ["TrainOptions", "TrainResult", "load_weights", "make_batches", "train"]
