"""Training as processes: killed and resumed, several at once, and from the command line."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.model.checkpoint import load_model
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.training.state import STATE
from ragimpute.training.trainer import train

#: Of each model: its preset and few, short epochs with a checkpoint every second step.
RUNS = {
    "default": ["data.num_arrays=1", "data.max_haplotypes=30", "data.typed_per_mb=[300, 300]",
                "data.max_validation_samples=6", "train.batch_size=8"],
    "v10-small": ["data.max_sites=64", "data.windows_per_epoch=24", "model.encoder.dim=16",
                  "data.max_validation_samples=3", "train.batch_size=4",
                  "model.encoder.dropout=0.2", "mask.curriculum.every_epochs=1"],
    "embedding-rag-small": ["data.max_sites=64", "data.windows_per_epoch=24",
                            "model.encoder.dim=16", "data.max_validation_samples=3",
                            "train.batch_size=4"],
    "v10-rag-small": ["data.max_sites=64", "data.windows_per_epoch=24", "data.max_states=100",
                      "model.encoder.dim=16", "data.max_validation_samples=3",
                      "data.num_retrieved=4", "data.buffer_cm=0.05", "train.batch_size=4"],
}  # fmt: skip
SHORT = ["train.epochs=3", "schedule.warmup_steps=2", "train.checkpoint_every=2",
         "train.log_every=1", "train.early_stopping.patience=0"]  # fmt: skip

# Trains, and kills itself (SIGKILL, no clean-up) at the n-th call of a method.
VICTIM = """
import os, signal, sys
import ragimpute.training.{module} as module
from ragimpute.config import load_config
from ragimpute.training.trainer import train
calls, plain = 0, module.{name}
def deadly(*args, **kwargs):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(*args, **kwargs)
module.{name} = deadly
panel, preset, out, *overrides = sys.argv[1:]
train([panel], load_config(preset, overrides=overrides), out, device="cpu")
"""


@pytest.fixture(scope="module")
def panel_h5(tmp_path_factory):
    """A part of the packaged 1000 Genomes panel."""
    path = tmp_path_factory.mktemp("processes") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2200000"))  # fmt: skip
    return path


def environment():
    """Of a process that trains beside this one."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.fixture(scope="module")
def unbroken(panel_h5, tmp_path_factory):
    """Gives the folder of a run that nothing disturbs, by preset."""
    made: dict[str, Path] = {}

    def get(preset):
        if preset not in made:
            made[preset] = tmp_path_factory.mktemp("unbroken") / preset
            config = load_config(preset, overrides=[*RUNS[preset], *SHORT])
            train([panel_h5], config, made[preset], device="cpu")
        return made[preset]

    return get


def content(path):
    """The tensors of a file, as bytes."""
    return {name: value.numpy().tobytes() for name, value in load_file(path).items()}


@pytest.mark.parametrize(
    ("preset", "module", "name", "call"),
    [
        ("default", "trainer", "compute_loss", 4),  # amid an epoch, past a checkpoint
        ("default", "state", "write_tensors", 4),  # a checkpoint not written
        ("default", "trainer", "write_metrics", 2),  # an epoch's weights kept, its state not yet
        ("v10-small", "trainer", "compute_loss", 10),  # dropout and a curriculum
        ("embedding-rag-small", "trainer", "compute_loss", 10),  # references of an epoch's start
        ("v10-rag-small", "trainer", "compute_loss", 10),  # and what copying says
    ],
)  # fmt: skip
def test_killed_and_resumed_is_as_unbroken(
    panel_h5, unbroken, tmp_path, preset, module, name, call
):
    out = tmp_path / "m"
    overrides = [*RUNS[preset], *SHORT]
    code = VICTIM.format(module=module, name=name, call=call)
    done = subprocess.run(
        [sys.executable, "-c", code, str(panel_h5), preset, str(out), *overrides],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out / STATE).is_file()
    assert not (out / "last.safetensors").exists()
    whole = unbroken(preset)
    assert content(out / STATE) != content(whole / STATE)
    config = load_config(preset, overrides=overrides)
    result = train([panel_h5], config, out, device="cpu", resume=True)
    assert len(result.history) == 3
    for file in ("weights.safetensors", "last.safetensors", STATE):
        assert content(out / file) == content(whole / file), file
    assert (out / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    assert not [p for p in out.iterdir() if p.suffix == "" and p.name.startswith(".metrics")]


def curve(out):
    """Training loss and validation figures by epoch."""
    with open(out / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


#: What starts two processes on a CPU, up to the module's name.
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                   "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
                   "--main_process_port", "0"],
}  # fmt: skip


def steps_of(out):
    """The training loss by step, from TensorBoard's files."""
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    return {e.step: e.value for e in events.Scalars("train/loss")}


@pytest.mark.parametrize(
    ("preset", "launcher"),
    [
        ("default", "torchrun"),
        pytest.param("v10-small", "torchrun", marks=pytest.mark.slow),
        pytest.param("v10-small", "accelerate", marks=pytest.mark.slow),
        pytest.param("v10-rag-small", "torchrun", marks=pytest.mark.slow),
    ],
)
def test_two_processes_are_one_with_twice_the_batch(panel_h5, tmp_path, preset, launcher):
    """Gradients are averaged by the number of sites that count, so only rounding differs."""
    runs = [*RUNS[preset], *SHORT, "train.epochs=2", "model.encoder.dropout=0",
            "train.batch_size=5"]  # fmt: skip
    words = ["train", str(panel_h5), "-o", str(tmp_path / "two"), "--config", preset,
             "--device", "cpu", *(w for o in runs for w in ("--set", o))]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[launcher], "-m", "ragimpute", *words],
        env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = load_config(preset, overrides=[*runs, "train.batch_size=10"])
    train([panel_h5], config, tmp_path / "one", device="cpu")
    two, one = curve(tmp_path / "two"), curve(tmp_path / "one")
    assert [row["step"] for row in two] == [row["step"] for row in one]
    assert one[-1]["step"] > 4
    for a, b in zip(two, one, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["r2_all"] == pytest.approx(b["r2_all"], abs=1e-3)
        assert a["ls_r2_all"] == pytest.approx(b["ls_r2_all"], abs=1e-6)
    by_step = steps_of(tmp_path / "one")
    assert len(by_step) == one[-1]["step"]
    assert steps_of(tmp_path / "two") == pytest.approx(by_step, rel=1e-4)
    # The main process alone reports and writes.
    assert done.stdout.count("best epoch") == 1
    assert done.stderr.count("epoch 1/2  train loss") == 1
    assert json.loads((tmp_path / "two" / "provenance.json").read_text())["num_processes"] == 2
    assert load_model(tmp_path / "two").trained


@pytest.mark.slow
def test_a_launch_that_starts_one_process_is_told_of(panel_h5, tmp_path):
    """As test_training_processes does without processes."""
    words = words_of("default", panel_h5, tmp_path / "m", "--set", "train.max_steps=1")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes"]
    for asked in ("2", "1"):
        done = subprocess.run(
            [*launch, asked, "-m", "ragimpute", *map(str, words), "--force"],
            env={k: v for k, v in environment().items() if k != "MASTER_ADDR"},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made = json.loads((tmp_path / "m" / "provenance.json").read_text())
        assert made["num_processes"] == 1
        assert done.stdout.count("best epoch") == 1
        told = "WARNING: accelerate launch started one process only" in done.stderr
        assert told == (asked == "2")
        assert ("--multi_gpu in place of --cpu" in done.stderr) == (asked == "2")


def words_of(preset, panel, out, *more):
    """A command line that trains a short run."""
    overrides = [w for o in [*RUNS[preset], *SHORT, "train.epochs=2"] for w in ("--set", o)]
    return ["train", panel, "--config", preset, "-o", out, "--device", "cpu", *overrides, *more]


def test_the_command_leaves_curves_and_a_report(panel_h5, tmp_path, command_line):
    out = tmp_path / "m"
    code, stdout, stderr = command_line(*words_of("default", panel_h5, out))
    assert code == 0, stderr
    lines = [line for line in stderr.splitlines() if line.startswith("epoch ")]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    shown = "".join(stdout.split())  # long paths are folded
    for name in ("parameters", "best epoch", "r2, all sites", str(out / "report.html")):
        assert name.replace(" ", "") in shown
    for name in ("loss", "r2", "r2_by_maf", "f1", "learning_rate"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
    page = (out / "report.html").read_text()
    for part in ("Training of m", "Learning rate", "Li–Stephens", "num_arrays: 1"):
        assert part in page
    figures = curve(out)
    assert f"{figures[-1]['r2_all']:.4f}" in page
    made = json.loads((out / "provenance.json").read_text())
    assert made["command"].startswith("ragimpute train ")
    assert (made["device"], made["num_processes"]) == ("cpu", 1)
    before = (out / "weights.safetensors").read_bytes()
    code, _, stderr = command_line(*words_of("default", panel_h5, out))
    assert code == 1
    assert "holds a model already" in stderr
    assert "--resume" in stderr
    assert (out / "weights.safetensors").read_bytes() == before


def test_a_nan_ends_the_command_with_one_line(panel_h5, tmp_path, command_line):
    wrong = ("--set", "optimizer.lr=1e30", "--set", "train.clip=0")
    code, _, stderr = command_line(*words_of("default", panel_h5, tmp_path / "m", *wrong))
    assert code == 1
    error = stderr[stderr.index("Error:") :]
    assert error.startswith("Error: the loss is nan at step ")
    assert "last good checkpoint" in error
    assert "hint: lower optimizer.lr" in error
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("--set", "train.epoch=3"), "train.epoch is not a setting (did you mean epochs?)"),
        (("--set", "epochs"), "is not key=value"),
        (("--set", "train.epochs=0"), "train.epochs: Input should be greater than or equal to 1"),
        (("--config", "v10-smal"), "did you mean v10-small?"),
        (("--init", "nobody"), "there is no model nobody"),
        (("--device", "tpu"), "there is no device 'tpu'"),
        (("--resume",), "holds nothing to resume"),
        (("--set", "train.trackers.wandb=true"), "wandb is not installed"),
    ],
)
def test_wrong_settings_are_named(panel_h5, tmp_path, command_line, monkeypatch, wrong, message):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *rest: None if n == "wandb" else find(n, *rest)
    )
    code, _, stderr = command_line(*words_of("default", panel_h5, tmp_path / "m", *wrong))
    assert code == 1
    assert message in stderr
    assert "hint:" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "m").exists()
