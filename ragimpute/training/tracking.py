"""Where a training run's figures go: TensorBoard always, Weights & Biases and MLflow on request."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ragimpute.config import RunConfig
from ragimpute.errors import ConfigError


class Tracker(Protocol):
    """Takes scalars by name."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Record values at an optimiser step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoardTracker:
    """Event files in ``folder/tensorboard``."""

    def __init__(self, folder: Path, config: RunConfig, first_step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(
            str(folder / "tensorboard"), purge_step=first_step or None
        )
        self._writer.add_text("config", "```\n" + config.model_dump_json(indent=2) + "\n```")

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbTracker:
    """A Weights & Biases run; offline unless WANDB_API_KEY or WANDB_MODE is set."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        mode: Any = os.environ.get("WANDB_MODE") or (
            "online" if os.environ.get("WANDB_API_KEY") else "offline"
        )
        if mode != "online":  # otherwise wandb sends reports of its own errors to its makers
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._run: Any = wandb.init(
            project=config.train.trackers.wandb_project,
            name=config.name,
            dir=str(folder),
            mode=mode,
            config=config.model_dump(mode="json"),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MlflowTracker:
    """An MLflow run in ``folder/mlruns``, or where MLFLOW_TRACKING_URI says."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        # MLflow reports its use to a web service as soon as it is imported, unless this is set.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlruns").resolve().as_uri()
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(config.train.trackers.mlflow_experiment)
        self._mlflow: Any = mlflow
        mlflow.start_run(run_name=config.name)
        mlflow.log_params({f"{a}.{b}": v for a, b, v in _flat(config)})

    def log(self, values: Mapping[str, float], step: int) -> None:
        # MLflow names may hold slashes, but not brackets or colons.
        self._mlflow.log_metrics({k.replace("<=", "to_"): v for k, v in values.items()}, step=step)

    def close(self) -> None:
        self._mlflow.end_run()


def check_trackers(config: RunConfig) -> None:
    """Refuse a tracker whose package is not installed.

    Raises
    ------
    ConfigError
        If one is asked for.
    """
    wanted = config.train.trackers
    for name, asked in (("wandb", wanted.wandb), ("mlflow", wanted.mlflow)):
        if asked and importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"train.trackers.{name} is on, but {name} is not installed",
                hint="pip install 'ragimpute[tracking]', or turn it off",
            )


def open_trackers(folder: Path, config: RunConfig, *, first_step: int = 0) -> list[Tracker]:
    """The trackers that a config asks for.

    Parameters
    ----------
    folder, config
        The model folder; the settings of the run.
    first_step
        First step of a resumed run: TensorBoard hides what was logged from there on before.

    Raises
    ------
    ConfigError
        As :func:`check_trackers` does.
    """
    check_trackers(config)
    wanted = config.train.trackers
    trackers: list[Tracker] = [TensorBoardTracker(folder, config, first_step)]
    if wanted.wandb:
        trackers.append(WandbTracker(folder, config))
    if wanted.mlflow:
        trackers.append(MlflowTracker(folder, config))
    return trackers


def _flat(config: RunConfig) -> list[tuple[str, str, object]]:
    """(group, setting, value) of every setting."""
    tree = config.model_dump(mode="json")
    return [
        (a, b, v) for a, group in tree.items() if isinstance(group, dict) for b, v in group.items()
    ]
