"""Trackers: what was logged can be read back from what they wrote."""

from __future__ import annotations

import importlib.util
import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ragimpute.config import load_config
from ragimpute.errors import ConfigError
from ragimpute.tracking import TensorBoardTracker, open_trackers

CURVE = {10: 0.7, 20: 0.5, 30: 0.25}


def config(*overrides):
    """The default preset with trackers turned on."""
    return load_config("default", overrides=list(overrides))


def read_events(folder):
    """What TensorBoard would show."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return events


def test_tensorboard_holds_the_scalars(tmp_path):
    (tracker,) = open_trackers(tmp_path, config())
    assert isinstance(tracker, TensorBoardTracker)
    for step, loss in CURVE.items():
        tracker.log({"train/loss": loss, "train/lr": loss / 100}, step)
    tracker.log({"validation/r2_<=0.002": 0.125}, 30)
    tracker.close()
    events = read_events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"train/loss", "train/lr", "validation/r2_<=0.002"}
    found = {e.step: e.value for e in events.Scalars("train/loss")}
    assert found == pytest.approx(CURVE)
    for event in events.Scalars("train/lr"):
        assert event.value == pytest.approx(CURVE[event.step] / 100)
    (event,) = events.Scalars("validation/r2_<=0.002")
    assert (event.step, event.value) == (30, 0.125)


def test_tensorboard_holds_the_config(tmp_path):
    used = config("train.seed=1234")
    (tracker,) = open_trackers(tmp_path, used)
    tracker.close()
    (event,) = read_events(tmp_path).Tensors("config/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    assert json.loads(text.strip().removeprefix("```").removesuffix("```")) == used.model_dump(
        mode="json"
    )


def test_a_run_resumed_hides_what_it_repeats(tmp_path):
    (first,) = open_trackers(tmp_path, config())
    for step in (1, 2, 3, 4):
        first.log({"train/loss": 1.0 * step}, step)
    first.close()
    (second,) = open_trackers(tmp_path, config(), first_step=3)
    for step in (3, 4, 5):
        second.log({"train/loss": 10.0 * step}, step)
    second.close()
    found = [(e.step, e.value) for e in read_events(tmp_path).Scalars("train/loss")]
    assert found == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch, name):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *rest: None if n == name else find(n, *rest)
    )
    with pytest.raises(ConfigError, match=f"train.trackers.{name} is on") as caught:
        open_trackers(tmp_path, config(f"train.trackers.{name}=true"))
    assert "ragimpute[tracking]" in caught.value.hint
    assert list(tmp_path.iterdir()) == []  # nothing was begun
    other = {"wandb": "mlflow", "mlflow": "wandb"}[name]
    assert f"train.trackers.{other}" not in caught.value.message


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    trackers = open_trackers(tmp_path, config("train.trackers.wandb=true"))
    assert len(trackers) == 2
    for step, loss in CURVE.items():
        trackers[1].log({"train/loss": loss}, step)
    trackers[1].close()
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"train/loss" in run.read_bytes()


def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trackers = open_trackers(
        tmp_path, config("train.trackers.mlflow=true", "train.trackers.mlflow_experiment=mine")
    )
    for step, loss in CURVE.items():
        trackers[1].log({"train/loss": loss, "validation/r2_<=0.002": loss / 2}, step)
    trackers[1].close()
    (metric,) = tmp_path.glob("mlruns/*/*/metrics/train/loss")
    rows = [line.split() for line in metric.read_text().splitlines()]
    assert {int(row[2]): float(row[1]) for row in rows} == CURVE
    (by_maf,) = tmp_path.glob("mlruns/*/*/metrics/validation/r2_to_0.002")
    assert math.isclose(float(by_maf.read_text().splitlines()[0].split()[1]), 0.35)
    (seed,) = tmp_path.glob("mlruns/*/*/params/train.seed")
    assert seed.read_text() == "1"
