"""What a training run needs in order to be resumed as if never interrupted, and its result."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ragimpute.config import RunConfig
from ragimpute.errors import ModelError
from ragimpute.model.checkpoint import save_weights, write_tensors, write_text
from ragimpute.model.probability import gamma_at

STATE = "state.safetensors"
LAST = "last.safetensors"
METRICS = "metrics.csv"
EPOCHS = "epoch-*.safetensors"  # the weights of each epoch, where they are kept
_FORMAT = "2"
_KEPT = ("epoch", "batch", "step", "loss_sum", "history", "best", "best_epoch", "finished",
         "stopped_early", "config_text", "panel_checksum", "num_processes")  # fmt: skip


@dataclass
class TrainingState:
    """How far a training run has come.

    Attributes
    ----------
    config_text, panel_checksum, num_processes
        What the run belongs to; a state is not resumed with others.
    epoch, batch, step
        Epochs that are finished; batches of the current epoch; optimiser steps in all.
    loss_sum
        Sum of the losses of the current epoch's batches.
    history
        One row of figures for each epoch done.
    best, best_epoch
        Best validation figure so far (larger is better), and its epoch, counted from 1.
    finished, stopped_early
        Whether the run has ended; whether because patience ran out.
    """

    config_text: str
    panel_checksum: str
    num_processes: int = 1
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = float("-inf")
    best_epoch: int = 0
    finished: bool = False
    stopped_early: bool = False

    def save(self, path: Path, model: torch.nn.Module, optimizer: Any, scaler: Any = None) -> None:
        """Write all that is needed to resume the run.

        Parameters
        ----------
        path
            To write.
        model, optimizer
            Their weights and moments, and torch's random state, are kept.
        scaler
            The GradScaler of an fp16 run: its scale, and the steps since that was changed.
        """
        tensors = {f"model.{k}": v.detach().cpu().clone() for k, v in model.state_dict().items()}
        scalars: dict[str, float] = {}
        for i, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"optimizer.{i}.{name}"] = value.detach().cpu().clone().contiguous()
                else:
                    scalars[f"optimizer.{i}.{name}"] = value
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state().cpu()
        where = {name: getattr(self, name) for name in _KEPT}
        about = {
            "format": _FORMAT,
            "state": json.dumps(where),
            "scalars": json.dumps(scalars),
            "scaler": json.dumps(scaler.state_dict() if scaler is not None else {}),
        }
        write_tensors(path, tensors, about)

    def load(self, path: Path, model: torch.nn.Module, optimizer: Any, scaler: Any = None) -> None:
        """Take over a state that :meth:`save` wrote.

        Raises
        ------
        ModelError
            If it is damaged, or of another config or panel.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if about.get("format") != _FORMAT:
                raise ValueError(f"it is of format {about.get('format')}, not {_FORMAT}")
            where = {name: json.loads(about["state"])[name] for name in _KEPT}
            scalars = json.loads(about["scalars"])
            scaling = json.loads(about["scaler"])
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"state {path} cannot be read: {error}", hint="train again with --force"
            ) from error
        for name, what in (
            ("config_text", "config"),
            ("panel_checksum", "panel"),
            ("num_processes", "number of processes"),
        ):
            if where[name] != getattr(self, name):
                raise ModelError(
                    f"state {path} is of another {what} than this run",
                    hint=f"give the same {what}, or train anew with --force",
                )
        for name, value in where.items():
            setattr(self, name, value)
        model.load_state_dict(
            {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        )
        moments: dict[int, dict[str, Any]] = {}
        for name, value in {**tensors, **scalars}.items():
            if name.startswith("optimizer."):
                _, i, key = name.split(".", 2)
                moments.setdefault(int(i), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if scaler is not None and scaling:  # a run on a CPU needs no scaler and keeps none
            scaler.load_state_dict(scaling)
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])

    def save_last(self, folder: Path, model: Any, config: RunConfig) -> None:
        """Write the last epoch's weights beside the best ones."""
        gamma = gamma_at(config.loss, max(0, self.epoch - 1))
        save_weights(folder / LAST, model, config, gamma=gamma)


def save_epoch(folder: Path, epoch: int, model: Any, config: RunConfig, *, gamma: float) -> None:
    """Write an epoch's weights, counted from 1: epoch-01.safetensors and so on."""
    save_weights(folder / EPOCHS.replace("*", f"{epoch:02d}"), model, config, gamma=gamma)


def write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Write metrics.csv: a row for each epoch."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    table.writeheader()
    for row in history:
        table.writerow({name: f"{value:.8g}" for name, value in row.items()})
    write_text(path, text.getvalue())


def epoch_line(row: dict[str, float], epochs: int) -> str:
    """One epoch in a line."""
    return (
        f"epoch {row['epoch']:.0f}/{epochs}  train loss {row['train_loss']:.4f}  "
        f"validation loss {row['val_loss']:.4f}  F1 {row['f1']:.4f}  "
        f"precision {row['precision']:.4f}  recall {row['recall']:.4f}  "
        f"r2 {row['r2_all']:.4f} (LS {row['ls_r2_all']:.4f})  "
        f"rare {row['r2_rare']:.4f} (LS {row['ls_r2_rare']:.4f})"
    )


@dataclass
class TrainResult:
    """What a training run did.

    Attributes
    ----------
    folder
        The model folder.
    history
        One row of figures for each epoch, as in metrics.csv.
    best_epoch, metric
        The epoch whose weights were kept, counted from 1, and the figure that chose it.
    stopped_early, steps, seconds, num_parameters
        Whether patience ran out; optimiser steps; wall time of this run; size of the model.
    kept
        What weights.safetensors holds: "trained", or "initial" where training did not improve on
        the weights that it started from.
    initial
        Figures of the weights that training started from, as a row of ``history``; empty without
        any, and where the run was resumed.
    note
        A sentence if the weights that were kept are no better than plain Li-Stephens copying.
    is_main
        False in all but the first of several processes.
    """

    folder: Path
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    metric: str = ""
    stopped_early: bool = False
    steps: int = 0
    seconds: float = 0.0
    num_parameters: int = 0
    kept: str = "trained"
    initial: dict[str, float] = field(default_factory=dict)
    note: str = ""
    is_main: bool = True

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a summary."""
        best = next((r for r in self.history if r["epoch"] == self.best_epoch), self.initial)
        rows = [
            ("model", str(self.folder)),
            ("parameters", f"{self.num_parameters:,}"),
            ("epochs", f"{len(self.history)}" + (", stopped early" if self.stopped_early else "")),
            ("steps", f"{self.steps:,} in {self.seconds:.0f} s"),
            ("best epoch", f"{self.best_epoch} by {self.metric}"),
        ]
        for name, key in (("r2, all sites", "r2_all"), ("r2, MAF <= 0.01", "r2_rare")):
            if key in best:
                others = f"Li-Stephens {best['ls_' + key]:.4f}"
                if key in self.initial and self.kept == "trained":
                    others = f"initial weights {self.initial[key]:.4f}, {others}"
                rows.append((name, f"{best[key]:.4f} ({others})"))
        if self.kept == "initial":
            rows.append(("kept", "the initial weights: training did not improve on them"))
        elif self.initial:
            rows.append(("kept", "the trained weights: they improved on the initial ones"))
        if self.note:
            rows.append(("note", self.note))
        return rows
