"""A training run's state comes back bit for bit, or is refused."""

from __future__ import annotations

import csv
import json
import math
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ragimpute.config import dump_config, load_config
from ragimpute.errors import ModelError
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import load_weights
from ragimpute.training.state import LAST, STATE, TrainingState, write_metrics

PRESETS = ["default", "v10-small"]
KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def make(name="default", seed=1, kind="adamw"):
    """A model and its optimiser."""
    torch.manual_seed(seed)
    model = build(load_config(name).model)
    return model, KINDS[kind](model.parameters(), lr=1e-2)


def step(model, optimizer, seed):
    """One step on a loss that reaches every parameter."""
    generator = torch.Generator().manual_seed(seed)
    loss = sum(
        (p - torch.randn(p.shape, generator=generator)).pow(2).mean() for p in model.parameters()
    )
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def state_of(name="default", **values):
    """A state for a preset and the panel "abc"."""
    return TrainingState(config_text=dump_config(load_config(name)), panel_checksum="abc", **values)


FILLED = {
    "epoch": 2, "batch": 7, "step": 31, "loss_sum": 0.1 + 0.2, "best": 1 / 3, "best_epoch": 1,
    "history": [{"epoch": 1.0, "val_loss": 1e-17, "f1": float("nan")}], "finished": True,
    "stopped_early": True,
}  # fmt: skip


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", PRESETS)
def test_comes_back_bit_for_bit(tmp_path, name, kind):
    model, optimizer = make(name, kind=kind)
    for i in range(3):
        step(model, optimizer, i)
    torch.manual_seed(77)
    torch.rand(5)
    state_of(name, **FILLED).save(tmp_path / STATE, model, optimizer)
    expected_draws = torch.rand(9)

    other, other_optimizer = make(name, seed=2, kind=kind)
    loaded = state_of(name)
    loaded.load(tmp_path / STATE, other, other_optimizer)
    assert torch.equal(torch.rand(9), expected_draws)
    for key, value in FILLED.items():
        if key != "history":
            assert getattr(loaded, key) == value
    (row,) = loaded.history
    assert (row["epoch"], row["val_loss"]) == (1.0, 1e-17)
    assert math.isnan(row["f1"])
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    # the moments and step counts too: both take the same steps from here
    for i in (10, 11):
        step(model, optimizer, i)
        step(other, other_optimizer, i)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert other_optimizer.param_groups[0]["lr"] == 1e-2


def test_a_run_that_has_not_begun(tmp_path):
    model, optimizer = make()
    state_of().save(tmp_path / STATE, model, optimizer)
    other, other_optimizer = make(seed=2)
    loaded = state_of()
    loaded.load(tmp_path / STATE, other, other_optimizer)
    assert loaded == state_of()
    assert loaded.best == float("-inf")
    for i in (1, 2):
        step(model, optimizer, i)
        step(other, other_optimizer, i)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_scale_of_fp16_comes_back(tmp_path):
    model, optimizer = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    for gradient in (1.0, 1.0, 1.0, math.inf, 1.0):  # grows to 2**11, falls to 2**10, one more
        parameter = next(model.parameters())
        scaler.scale(parameter.sum() * 0).backward()
        parameter.grad.fill_(gradient)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    kept = scaler.state_dict()
    assert (kept["scale"], kept["_growth_tracker"]) == (2.0**10, 1)
    state_of().save(tmp_path / STATE, model, optimizer, scaler)

    fresh = torch.amp.GradScaler("cpu")
    assert fresh.state_dict() != kept
    state_of().load(tmp_path / STATE, *make(seed=2), fresh)
    assert fresh.state_dict() == kept
    # On a machine without a GPU a run has no scaler, and goes on without.
    state_of().load(tmp_path / STATE, *make(seed=3), None)
    state_of().save(tmp_path / STATE, *make(seed=4))
    unused = torch.amp.GradScaler("cpu")
    before = unused.state_dict()
    state_of().load(tmp_path / STATE, *make(seed=5), unused)
    assert unused.state_dict() == before


@pytest.fixture
def saved(tmp_path):
    """A state file after a step."""
    model, optimizer = make()
    step(model, optimizer, 1)
    state_of(**FILLED).save(tmp_path / STATE, model, optimizer)
    return tmp_path / STATE


def refuse(path, message, state=None):
    """Loading fails with the message, and changes nothing."""
    model, optimizer = make(seed=3)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = state or state_of()
    with pytest.raises(ModelError, match=message) as caught:
        state.load(path, model, optimizer)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert (state.epoch, state.step, state.history) == (0, 0, [])
    return caught.value.hint


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_a_damaged_state(saved, size):
    saved.write_bytes(saved.read_bytes()[:size])
    assert "--force" in refuse(saved, "cannot be read")


def test_a_state_that_is_not_there(tmp_path):
    refuse(tmp_path / STATE, "cannot be read")


def test_another_config(saved):
    other = load_config("default", overrides=["train.epochs=9"])
    hint = refuse(
        saved, "another config", TrainingState(config_text=dump_config(other), panel_checksum="abc")
    )
    assert "same config" in hint


def test_another_panel(saved):
    state = state_of()
    state.panel_checksum = "abd"
    assert "same panel" in refuse(saved, "another panel", state)


def test_another_number_of_processes(saved):
    hint = refuse(saved, "another number of processes than this run", state_of(num_processes=2))
    assert "same number of processes" in hint


def rewrite(path, **about):
    """Write a state again with another header; None leaves an entry out."""
    with safe_open(str(path), framework="pt") as file:
        header = file.metadata() | about
    header = {k: v for k, v in header.items() if v is not None}
    save_file(load_file(path), path, metadata=header)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": "0"}, "cannot be read: it is of format 0, not 2"),
        ({"format": None}, "of format None"),
        ({"state": "{"}, "cannot be read"),
        ({"state": "{}"}, "cannot be read"),
        ({"scalars": None}, "cannot be read"),
        ({"scaler": None}, "cannot be read"),
    ],
)
def test_another_format(saved, about, message):
    rewrite(saved, **about)
    refuse(saved, message)


def test_a_failed_write_leaves_what_was_there(saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        state_of().save(saved, *make(seed=4))
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [STATE]


def test_no_pickles(saved):
    content = saved.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    assert max(entry["data_offsets"][1] for entry in tensors) == len(content) - 8 - length


def test_last_weights_are_a_models(tmp_path):
    config = load_config("default")
    model, optimizer = make()
    step(model, optimizer, 1)
    state_of().save_last(tmp_path, model, config)
    other, _ = make(seed=2)
    load_weights(tmp_path / LAST, other, config)
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_metrics_table(tmp_path):
    rows = [
        {"epoch": 1.0, "train_loss": 0.123456789123, "r2_rare": float("nan")},
        {"epoch": 2.0, "train_loss": 1e-9, "r2_rare": 0.5, "later": 3.0},
    ]
    write_metrics(tmp_path / "metrics.csv", rows)
    text = (tmp_path / "metrics.csv").read_text()
    read = list(csv.DictReader(text.splitlines()))
    assert list(read[0]) == ["epoch", "train_loss", "r2_rare", "later"]
    assert read[0] == {"epoch": "1", "train_loss": "0.12345679", "r2_rare": "nan", "later": ""}
    assert float(read[1]["train_loss"]) == 1e-9
    write_metrics(tmp_path / "metrics.csv", [])
    assert (tmp_path / "metrics.csv").read_text() == "\n"
