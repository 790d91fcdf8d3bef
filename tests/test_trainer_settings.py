"""Settings of the loop that change its speed, its memory or its end: each does what it says."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.errors import ModelError
from ragimpute.model import encoder
from ragimpute.model.bert_rag import build
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.training import trainer
from ragimpute.training.processes import make_accelerator
from ragimpute.training.state import STATE, write_metrics
from ragimpute.training.trainer import train

COPYING = ("data.num_arrays=1", "data.max_haplotypes=30", "data.typed_per_mb=[300, 300]",
           "data.max_validation_samples=6", "train.batch_size=8", "train.epochs=2",
           "schedule.warmup_steps=2")  # fmt: skip
TOKENS = ("data.max_sites=64", "data.windows_per_epoch=24", "data.max_validation_samples=3",
          "model.encoder.dim=16", "model.encoder.dropout=0", "train.batch_size=4",
          "train.epochs=1", "optimizer.lr=1e-3", "schedule.warmup_steps=2")  # fmt: skip


@pytest.fixture(scope="module")
def panel_h5(tmp_path_factory):
    """A part of the packaged 1000 Genomes panel."""
    path = tmp_path_factory.mktemp("settings") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2100000"))  # fmt: skip
    return path


def run(panel, out, preset, *overrides, **kwargs):
    """Train on a CPU with one thread."""
    base = TOKENS if preset.startswith("v10") else COPYING
    config = load_config(preset, overrides=[*base, *overrides])
    return train([panel], config, out, device="cpu", **kwargs)


@pytest.fixture
def tf32_restored():
    """Puts torch's switches back."""
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("wanted", [False, True])
def test_tf32(panel_h5, tmp_path, tf32_restored, wanted):
    run(panel_h5, tmp_path / "m", "default", "train.max_steps=1",
        f"train.tf32={str(wanted).lower()}")  # fmt: skip
    assert torch.backends.cuda.matmul.allow_tf32 is wanted
    assert torch.backends.cudnn.allow_tf32 is wanted


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("device", "wanted", "fused"),
    [("cuda", "true", True), ("cuda", "false", None), ("cpu", "true", None)],
)
def test_fused_steps_on_a_gpu(name, device, wanted, fused):
    config = load_config(
        "default", overrides=[f"optimizer.name={name}", f"optimizer.fused={wanted}"]
    )
    optimizer = trainer._optimizer(build(config.model), config, torch.device(device))
    assert type(optimizer).__name__.lower() == name
    assert optimizer.defaults["fused"] is fused


def test_a_compiled_model_learns_the_same(panel_h5, tmp_path, monkeypatch):
    """By a backend that runs the graphs as they are traced, and needs no compiler."""
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    for name, wanted in (("plain", "false"), ("compiled", "true")):
        run(panel_h5, tmp_path / name, "v10-small", f"train.compile={wanted}")
        assert bool(graphs) == (name == "compiled")
    a, b = (load_file(tmp_path / name / "last.safetensors") for name in ("plain", "compiled"))
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-3, atol=1e-5)


def test_checkpointing_recomputes_and_learns_the_same(panel_h5, tmp_path, monkeypatch):
    calls = {False: 0, True: 0}
    original = encoder.checkpoint
    on = False

    def counting(*args, **kwargs):
        calls[on] += 1
        return original(*args, **kwargs)

    monkeypatch.setattr(encoder, "checkpoint", counting)
    for on in (False, True):
        run(panel_h5, tmp_path / str(on), "v10-small", "model.reference.checkpointing=false",
            f"model.encoder.checkpointing={str(on).lower()}")  # fmt: skip
    assert calls[False] == 0 < calls[True]
    a, b = (load_file(tmp_path / str(on) / "last.safetensors") for on in (False, True))
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-4, atol=1e-6)


@pytest.fixture
def fp16_on_a_cpu(monkeypatch):
    """Runs with train.precision=fp16 scale their losses as on a GPU, from far too large a scale."""

    def make(device, precision):
        accelerator = make_accelerator(device, precision)
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=4)
        return accelerator

    monkeypatch.setattr(trainer, "make_accelerator", make)


def scaling_of(folder):
    """The GradScaler's state as it is kept."""
    with safe_open(str(folder / STATE), framework="pt") as file:
        return json.loads(file.metadata()["scaler"])


def test_the_scale_of_fp16_is_resumed(panel_h5, tmp_path, monkeypatch, fp16_on_a_cpu):
    """Else a resumed run would begin at the first scale again, and drop steps that overflow."""
    settings = ("train.precision=fp16", "train.checkpoint_every=1", "train.epochs=2")
    run(panel_h5, tmp_path / "whole", "v10-small", *settings)
    plain = trainer.compute_loss
    calls = []

    def breaking(*args, **kwargs):
        calls.append(1)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", breaking)
    with pytest.raises(KeyboardInterrupt):
        run(panel_h5, tmp_path / "broken", "v10-small", *settings)
    broken = scaling_of(tmp_path / "broken")
    assert 1 < broken["scale"] < 2.0**30  # it had come down by then
    run(panel_h5, tmp_path / "broken", "v10-small", *settings, resume=True)
    assert scaling_of(tmp_path / "broken") == scaling_of(tmp_path / "whole") != broken
    for file in ("last.safetensors", STATE):
        a, b = (load_file(tmp_path / name / file) for name in ("whole", "broken"))
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_out_of_memory_amid_a_run_leaves_the_last_epoch(panel_h5, tmp_path, monkeypatch):
    plain = trainer.compute_loss
    validated = []

    def noting(path, history):
        validated.append(len(history))
        write_metrics(path, history)

    monkeypatch.setattr(trainer, "write_metrics", noting)

    def greedy(*args, **kwargs):
        if validated:
            torch.empty(2**58, dtype=torch.uint8)
        return plain(*args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", greedy)
    with pytest.raises(ModelError, match=r"out of memory with train\.batch_size=8") as caught:
        run(panel_h5, tmp_path / "m", "default")
    assert "data.max_haplotypes" in caught.value.hint
    assert validated == [1]
    monkeypatch.setattr(trainer, "compute_loss", plain)
    assert len(run(panel_h5, tmp_path / "m", "default", resume=True).history) == 2


#: Figures of six epochs; each is best at another.
SCRIPT = {
    "val_loss": [0.9, 0.5, 0.6, 0.7, 0.8, 0.9],
    "f1": [0.1, 0.2, 0.9, 0.3, 0.2, 0.1],
    "r2_all": [0.1, 0.2, 0.3, 0.9, 0.3, 0.2],
    "r2_rare": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
}


@pytest.mark.parametrize(
    ("metric", "best"), [("loss", 2), ("f1", 3), ("r2_all", 4), ("r2_rare", 1)]
)
@pytest.mark.parametrize("patience", [0, 2])
def test_the_metric_named_in_yaml_chooses_and_stops(
    panel_h5, tmp_path, monkeypatch, metric, best, patience
):
    """Training is real, its figures are not."""
    weights = []

    def scripted(model, data, config, epoch, accelerator, tick):
        weights.append({k: v.clone() for k, v in model.state_dict().items()})
        row = {name: values[epoch] for name, values in SCRIPT.items()}
        return row | {"precision": 0.5, "recall": 0.5, "ls_r2_all": 0.5, "ls_r2_rare": 0.5}

    monkeypatch.setattr(trainer, "_validate", scripted)
    path = tmp_path / "mine.yaml"
    path.write_text(
        "extends: default\nname: mine\n"
        "train:\n  epochs: 6\n  early_stopping:\n"
        f"    metric: {metric}\n    patience: {patience}\n"
    )
    config = load_config(path, overrides=[o for o in COPYING if "epochs" not in o])
    seen = []
    result = train([panel_h5], config, tmp_path / "m", device="cpu",
                   report_epoch=lambda row, epochs, improved: seen.append(improved))  # fmt: skip
    assert (result.best_epoch, result.metric) == (best, metric)
    assert dict(result.rows())["best epoch"] == f"{best} by {metric}"
    ended = best + patience if patience else 6
    assert len(result.history) == len(weights) == ended
    assert result.stopped_early == (patience > 0)
    assert max(i for i, improved in enumerate(seen, 1) if improved) == best
    kept = load_file(tmp_path / "m" / "weights.safetensors")
    for name, value in weights[best - 1].items():
        assert torch.equal(kept[name], value), name
    assert any(not torch.equal(weights[0][name], weights[-1][name]) for name in weights[0])
