"""A run that cannot go on says why, and what to change."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ragimpute.config import load_config
from ragimpute.errors import ModelError
from ragimpute.runtime.memory import memory_explained
from ragimpute.training.failures import check_loss, out_of_memory
from ragimpute.training.state import TrainingState


def state_of(**values):
    """A run's state."""
    return TrainingState("config", "panel", **values)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ({}, "none"),
        ({"best": 0.5}, "the initial weights"),
        ({"best": 0.5, "best_epoch": 3}, "epoch 3's weights"),
    ],
)
def test_a_loss_that_is_no_number(loss, values, kept):
    with pytest.raises(ModelError) as caught:
        check_loss(loss, state_of(step=41, epoch=3, **values), Path("m"))
    assert caught.value.message == (
        f"the loss is {loss} at step 42 (epoch 4); last good checkpoint in m: {kept}"
    )
    assert "optimizer.lr" in caught.value.hint


@pytest.mark.parametrize("loss", [0.0, 1e30, -1.0])
def test_a_loss_that_is_a_number(loss):
    check_loss(loss, state_of(), Path("m"))


def explained(config):
    """As the trainer does it."""
    return memory_explained(lambda on_gpu: out_of_memory(config))


def of_torch():
    """More than any machine has."""
    return torch.empty(2**58, dtype=torch.uint8)


def of_numpy():
    """More than any machine has."""
    return np.empty(2**58, np.uint8)


def of_cuda():
    """What a GPU's allocator raises."""
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("allocate", [of_torch, of_numpy, of_cuda])
@pytest.mark.parametrize(
    ("preset", "settings", "named"),
    [
        ("v10", ["train.batch_size=77"],
         {"train.batch_size=77", "data.num_retrieved=3", "data.max_sites=1020"}),
        ("default", [], {"train.batch_size=", "data.max_haplotypes=", "data.num_arrays="}),
        ("default", ["model.copying.num_context_layers=1"],
         {"train.batch_size=", "model.copying.max_context="}),
    ],
)  # fmt: skip
def test_out_of_memory_names_what_the_model_has(allocate, preset, settings, named):
    config = load_config(preset, overrides=settings)
    with pytest.raises(ModelError) as caught, explained(config):
        allocate()
    assert caught.value.message.startswith("out of memory with train.batch_size=")
    for setting in named:
        assert setting in caught.value.message
        assert setting.split("=")[0] in caught.value.hint
    assert "train.accumulation" in caught.value.hint
    tokens = preset == "v10"
    assert ("data.num_retrieved" in caught.value.hint) == tokens
    assert ("model.encoder.checkpointing=true" in caught.value.hint) == tokens
    assert ("model.reference.chunk=512" in caught.value.hint) == tokens


def test_checkpointing_is_not_advised_where_it_is_on():
    config = load_config("v10", overrides=["model.encoder.checkpointing=true"])
    with pytest.raises(ModelError) as caught, explained(config):
        of_torch()
    assert "checkpointing" not in caught.value.hint
    config = load_config("v10-small", overrides=["model.encoder.checkpointing=true"])
    with pytest.raises(ModelError) as caught, explained(config):  # its chunk is a number
        of_torch()
    assert ", or set" not in caught.value.hint


def test_other_errors_are_let_through():
    config = load_config("default")
    with pytest.raises(RuntimeError, match="shapes"), explained(config):
        raise RuntimeError("shapes differ")
    with pytest.raises(ModelError, match=r"^mine$"), explained(config):
        raise ModelError("mine")
