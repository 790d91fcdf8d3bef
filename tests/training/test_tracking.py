"""Trackers: what was logged can be read back from what they wrote."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.errors import ConfigError
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.training.tracking import TensorBoardTracker, open_trackers

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


def test_a_run_resumed_hides_what_it_repeats(tmp_path, monkeypatch):
    (first,) = open_trackers(tmp_path, config())
    for step in (1, 2, 3, 4):
        first.log({"train/loss": 1.0 * step}, step)
    first.close()
    # TensorBoard reads files in the order of their names, which begin with seconds: it is later.
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 10)
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


@pytest.fixture
def by_default(monkeypatch):
    """The environment of one who has configured neither W&B nor MLflow."""
    for name in [n for n in os.environ if n.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SILENT", "true")


def read_wandb(path):
    """The records of a ``.wandb`` file: a log in LevelDB's format, of blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    records, part, at = [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits: the block's end is filled
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(part))
            part = b""
    return records


def finished_wandb(folder):
    """The records of a folder's only run, once wandb's own process has written the last of them."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    end = time.monotonic() + 600
    while True:
        records = read_wandb(file)
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        assert time.monotonic() < end, f"{file} has no end"
        time.sleep(0.05)  # finish() returns before it in one of six runs


def test_wandb_offline(tmp_path, by_default):
    used = config("train.trackers.wandb=true", "train.trackers.wandb_project=mine", "train.seed=77")
    trackers = open_trackers(tmp_path, used)
    assert len(trackers) == 2
    for step, loss in CURVE.items():
        trackers[1].log({"train/loss": loss, "validation/r2_<=0.002": loss / 2}, step)
    trackers[1].close()
    records = finished_wandb(tmp_path)
    found = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            found[int(row["_step"])] = {k: float(v) for k, v in row.items() if k[0] != "_"}
    assert found == {
        step: {"train/loss": loss, "validation/r2_<=0.002": loss / 2}
        for step, loss in CURVE.items()
    }
    (run,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("mine", "default")
    kept = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert kept["train"]["seed"] == 77
    assert records[-1].exit.exit_code == 0


def test_mlflow_in_a_folder(tmp_path, by_default):
    used = config("train.trackers.mlflow=true", "train.trackers.mlflow_experiment=mine")
    trackers = open_trackers(tmp_path, used)
    for step, loss in CURVE.items():
        trackers[1].log({"train/loss": loss, "validation/r2_<=0.002": loss / 2}, step)
    trackers[1].close()
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("default", "FINISHED")
    for name, share in (("train/loss", 1.0), ("validation/r2_to_0.002", 0.5)):
        points = client.get_metric_history(run.info.run_id, name)
        assert {p.step: p.value for p in points} == {k: v * share for k, v in CURVE.items()}
    assert run.data.params["train.seed"] == "1"
    assert run.data.params["model.fusion"] == str(used.model.fusion.model_dump(mode="json"))


# Logs to a tracker, as a process of a user's, not of a test or in CI, where MLflow is silent.
SILENT = """
import sys
from pathlib import Path
from ragimpute.config import load_config
from ragimpute.training.tracking import open_trackers
name, folder = sys.argv[1:]
config = load_config("default", overrides=[f"train.trackers.{name}=true"])
trackers = open_trackers(Path(folder), config)
trackers[1].log({"train/loss": 0.5}, 1)
for tracker in trackers:
    tracker.close()
"""


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_nothing_leaves_the_machine(tmp_path, by_default, name):
    """Every way out is a proxy that nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        quiet = ("CI", "PYTEST_", "GITHUB_", "GITLAB_", "JENKINS_", "DO_NOT_TRACK")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(quiet)}
        for proxied in ("http_proxy", "https_proxy", "all_proxy"):
            environment |= {proxied: url, proxied.upper(): url}
        environment["no_proxy"] = environment["NO_PROXY"] = ""
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        subprocess.run(
            [sys.executable, "-c", SILENT, name, tmp_path],
            env=environment, check=True, capture_output=True,
        )  # fmt: skip
        proxy.setblocking(False)  # the program has ended: who called stands in the queue
        with pytest.raises(BlockingIOError):
            proxy.accept()
    assert list(
        tmp_path.glob({"wandb": "wandb/offline-run-*", "mlflow": "mlruns/*/*/meta.yaml"}[name])
    )


def test_a_run_is_tracked_from_the_command_line(tmp_path, by_default, command_line):
    """What training leaves in MLflow is what stands in metrics.csv."""
    panel, out = tmp_path / "panel.h5", tmp_path / "m"
    prepare(example.path("panel.bcf"), panel, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2100000"))  # fmt: skip
    settings = ("train.epochs=2", "data.num_arrays=1", "data.max_haplotypes=20",
                "data.max_validation_samples=4", "train.trackers.mlflow=true",
                "train.trackers.wandb=true")  # fmt: skip
    words = [w for setting in settings for w in ("--set", setting)]
    code, _, stderr = command_line("train", panel, "-o", out, "--device", "cpu", *words)
    assert code == 0, stderr
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    from mlflow.tracking import MlflowClient

    client = MlflowClient((out / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("ragimpute").experiment_id])
    points = client.get_metric_history(run.info.run_id, "validation/r2_all")
    assert [p.step for p in points] == [int(row["step"]) for row in rows]
    assert [p.value for p in points] == pytest.approx([float(row["r2_all"]) for row in rows])
    logged = [
        float(item.value_json)
        for record in finished_wandb(out)
        for item in record.history.item
        if "validation/r2_all" in (item.key, *item.nested_key)
    ]
    assert logged == pytest.approx([float(row["r2_all"]) for row in rows])
