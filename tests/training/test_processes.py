"""One process or several: the share of each, and what is said of a launch that went wrong."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from ragimpute.training.data.share import Share
from ragimpute.training.processes import make_accelerator, share_of


def test_the_share_of_a_process():
    share = share_of(SimpleNamespace(num_processes=3, process_index=2))
    assert share == Share(2, 3)


def test_runs_of_one_process_may_differ():
    for precision in ("bf16", "no", "fp16"):
        made = make_accelerator(torch.device("cpu"), precision)
        assert (made.mixed_precision, made.num_processes) == (precision, 1)
        assert made.device.type == "cpu"
        assert made.scaler is None  # a CPU has none; it computes fp16 runs in float32


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, False),
        ({"MASTER_ADDR": "127.0.0.1"}, False),  # of a cluster's job, without accelerate
        ({"ACCELERATE_USE_CPU": "True"}, False),  # accelerate launch --cpu
        ({"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}, True),
    ],
)
def test_a_lone_process_is_told_of(monkeypatch, caplog, environment, told):
    for name in ("ACCELERATE_USE_CPU", "MASTER_ADDR", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, logger="ragimpute"):
        make_accelerator(torch.device("cpu"), "no")
    assert ("started one process only" in caplog.text) == told


@pytest.mark.parametrize("asked", [1, 2])
def test_a_launch_that_starts_one_process_is_told_of(monkeypatch, caplog, asked):
    """Accelerate's --cpu starts the program once, whatever --num_processes says."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_simple_launcher_cmd_env

    for name in ("ACCELERATE_USE_CPU", "MASTER_ADDR", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    words = ["--cpu", "--num_processes", str(asked), "-m", "ragimpute"]
    arguments, _, _ = launch._validate_launch_command(
        launch.launch_command_parser().parse_args(words)
    )
    command, environment = prepare_simple_launcher_cmd_env(arguments)
    assert command[1:] == ["-m", "ragimpute"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING, logger="ragimpute"):
        made = make_accelerator(torch.device("cpu"), "no")
    assert made.num_processes == 1
    assert ("--multi_gpu in place of --cpu" in caplog.text) == (asked == 2)
