"""The training loop: it learns, stops when it should, and leaves a whole model folder."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from panel_fixtures import FlatMap, make_batch, names
from safetensors.torch import load_file
from slow_copying import mosaic_panel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ragimpute import example
from ragimpute.cli.describe import describe
from ragimpute.config import dump_config, load_config
from ragimpute.errors import InputError, ModelError, PanelError
from ragimpute.io.vcf.read.genotypes import PanelStream
from ragimpute.model.checkpoint import load_model, load_weights
from ragimpute.model.probability import Probabilities, gamma_at
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.presets import preset_names
from ragimpute.reports.training_section import train_section
from ragimpute.retrieval.index import WindowIndex
from ragimpute.sites import Region
from ragimpute.token_model.build_index import build_index
from ragimpute.training import trainer
from ragimpute.training.data.batches import make_batches
from ragimpute.training.data.masks import MaskMixture
from ragimpute.training.state import STATE
from ragimpute.training.trainer import TrainOptions, train
from ragimpute.training.validation import Scores, score_model
from tests.model_configs import config_of

SMALL = [name for name in preset_names() if name.endswith("-small") and "rag-" not in name]
SMALL.append("embedding-rag-small")
#: The default model on few left-out haplotypes, all with arrays of one density.
FEW = (
    "data.num_arrays=2", "data.max_haplotypes=40", "data.typed_per_mb=[300, 300]",
    "data.max_validation_samples=10", "train.epochs=2", "train.batch_size=32",
    "schedule.warmup_steps=5", "train.log_every=5",
)  # fmt: skip
#: Token models on little windows.
TINY = ("data.max_sites=64", "data.windows_per_epoch=48", "data.max_validation_samples=4",
        "model.encoder.dim=16", "data.num_retrieved=2", "train.batch_size=4", "train.epochs=2",
        "optimizer.lr=5e-3", "schedule.warmup_steps=2", "train.log_every=1")  # fmt: skip


@pytest.fixture(scope="module")
def panel_h5(tmp_path_factory):
    """A third of the packaged 1000 Genomes panel."""
    path = tmp_path_factory.mktemp("trainer") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2300000"))  # fmt: skip
    return path


@pytest.fixture
def losses(monkeypatch):
    """The loss of every training step, noted as training goes on."""
    seen = []
    plain = trainer.compute_loss

    def noting(*args, **kwargs):
        out = plain(*args, **kwargs)
        seen.append(float(out[0].detach()))
        return out

    monkeypatch.setattr(trainer, "compute_loss", noting)
    return seen


def run(panel, out, preset="default", base=FEW, overrides=(), **kwargs):
    """Train on a CPU with one thread."""
    config = config_of(preset, [*base, *overrides])
    return train([panel], config, out, device="cpu", **kwargs)


def tensors(path):
    """The tensors of a file, as bytes."""
    return {name: value.numpy().tobytes() for name, value in load_file(path).items()}


@pytest.fixture(scope="module")
def trained(panel_h5, tmp_path_factory):
    """The default model, trained for two short epochs: result, folder and what was reported."""
    lines, ticks = [], []
    out = tmp_path_factory.mktemp("trained") / "model"
    result = run(panel_h5, out, report_line=lines.append, command="ragimpute train x",
                 progress=lambda *args: ticks.append(args))  # fmt: skip
    return result, out, lines, ticks


@pytest.mark.parametrize("preset", SMALL)
def test_every_small_preset_learns(panel_h5, tmp_path, losses, preset):
    result = run(panel_h5, tmp_path / "m", preset, TINY,
                 ["loss.reconstruction=0.1", "optimizer.weight_decay=0"])  # fmt: skip
    assert result.steps == len(losses) == 24
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    first, last = result.history
    assert last["val_loss"] < first["val_loss"]
    # Gradients reach every parameter: Adam's first moments are those of all of them, and not zero.
    stored = load_file(tmp_path / "m" / STATE)
    loaded = load_model(tmp_path / "m")
    unused = () if loaded.config.loss.haplotype_ori else ("tokens.allele_ori.",)
    for i, (name, parameter) in enumerate(loaded.model.named_parameters()):
        if name.startswith(unused):
            assert f"optimizer.{i}.exp_avg" not in stored
            continue
        moment = stored[f"optimizer.{i}.exp_avg"]
        assert moment.shape == parameter.shape
        assert moment.abs().max() > 0, name


#: A token model that starts from Li-Stephens, on little windows and few states.
RAG = (*TINY, "data.num_retrieved=4", "data.max_states=60", "data.buffer_cm=0.05",
       "train.early_stopping.patience=0", "optimizer.weight_decay=0", "train.epochs=8")  # fmt: skip


@pytest.fixture(scope="module")
def residual(panel_h5, tmp_path_factory):
    """A residual on Li-Stephens, trained: the run's result, its folder, and gains of each batch.

    A gain is by how much the loss is below that of Li-Stephens.
    """
    gains = []
    plain = trainer.compute_loss

    def noting(outputs, batch, *args, **kwargs):
        out = plain(outputs, batch, *args, **kwargs)
        if torch.is_grad_enabled():
            ls = {f"{h}_fused": batch[f"ls_logit_{h}"] for h in ("h1", "h2")}
            gains.append(float((plain(ls, batch, *args, **kwargs)[0] - out[0]).detach()))
        return out

    out = tmp_path_factory.mktemp("residual") / "m"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compute_loss", noting)
        result = run(panel_h5, out, "v10-rag-small", RAG)
    return result, out, gains


def test_a_residual_begins_as_li_stephens_and_learns(residual):
    result, out, gains = residual
    assert len(gains) == result.steps
    assert gains[0] == 0
    assert any(gain != 0 for gain in gains[1:])
    third = len(gains) // 3
    assert np.mean(gains[-third:]) > max(0, np.mean(gains[:third]))
    stored = load_file(out / STATE)
    for i, (name, parameter) in enumerate(load_model(out).model.named_parameters()):
        moment = stored[f"optimizer.{i}.exp_avg"]
        assert moment.shape == parameter.shape
        assert moment.abs().max() > 0, name
    for row in result.history:
        assert row["r2_all"] == pytest.approx(row["ls_r2_all"], abs=0.1)


@pytest.mark.parametrize("overrides", [[], ["data.num_workers=2"]], ids=["again", "workers"])
def test_a_residual_is_learned_alike_again(panel_h5, residual, tmp_path, overrides):
    """Equal runs give equal weights, whoever builds the batches."""
    _, out, _ = residual
    run(panel_h5, tmp_path / "m", "v10-rag-small", RAG, overrides)
    for file in ("weights.safetensors", "last.safetensors"):
        assert tensors(tmp_path / "m" / file) == tensors(out / file)


def test_what_retrieves_by_site_learns_without_an_index(panel_h5, tmp_path, monkeypatch, caplog):
    """None is built or searched; one that is given is checked, and a warning says so."""
    index = tmp_path / "p.index"
    build_index(panel_h5, index)

    def fail(*args, **kwargs):
        raise AssertionError("an index is built or searched")

    for name in ("build", "open", "search"):
        monkeypatch.setattr(WindowIndex, name, fail)
    short = ["train.max_steps=2", "train.epochs=1"]
    run(panel_h5, tmp_path / "m", "v10-rag-small", RAG, short, index=index)
    said = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    unused = f"index {index} is not used: a model of config v10-rag-small searches none"
    assert unused in said
    run(panel_h5, tmp_path / "n", "v10-rag-small", RAG, short)
    for file in ("weights.safetensors", "dr2.json"):
        assert (tmp_path / "m" / file).exists() == (tmp_path / "n" / file).exists()
    one, two = (tensors(tmp_path / m / "weights.safetensors") for m in "mn")
    assert one == two
    for preset in ("v10-rag-small", "default"):
        (index / "manifest.json").write_text("{}")
        with pytest.raises(PanelError, match="index"):
            run(panel_h5, tmp_path / "o", preset, RAG if preset != "default" else FEW, index=index)


@pytest.mark.parametrize("preset", ["default", "states"])
def test_copying_models_do_no_worse_than_li_stephens(panel_h5, tmp_path, monkeypatch, preset):
    gains = []  # by which each batch's loss is below that of Li-Stephens
    plain = trainer.compute_loss

    def noting(outputs, *args, **kwargs):
        loss = plain(outputs, *args, **kwargs)
        ls = plain({f"{h}_fused": outputs[f"{h}_ori"] for h in ("h1", "h2")}, *args, **kwargs)
        gains.append(float((ls[0] - loss[0]).detach()))
        return loss

    monkeypatch.setattr(trainer, "compute_loss", noting)
    more = ["data.max_haplotypes=120", "optimizer.weight_decay=0"]
    result = run(panel_h5, tmp_path / "m", preset, overrides=more)
    best = result.history[result.best_epoch - 1]
    assert best["r2_all"] >= best["ls_r2_all"] > 0.7
    assert gains[0] == 0  # untrained, it is Li-Stephens
    half = len(gains) // 2
    assert np.mean(gains[half:]) > max(0, np.mean(gains[: half // 4]))
    stored = load_file(tmp_path / "m" / STATE)
    for i, (name, _) in enumerate(load_model(tmp_path / "m").model.named_parameters()):
        assert stored[f"optimizer.{i}.exp_avg"].abs().max() > 0, name


def test_the_folder_is_whole(panel_h5, trained):
    result, out, _, _ = trained
    config = load_config("default", overrides=FEW)
    assert (out / "config.yaml").read_text() == dump_config(config)
    made = json.loads((out / "provenance.json").read_text())
    (of,) = made["panels"]
    with Panel.open(panel_h5) as panel:
        assert of["checksum"] == panel.checksum
        assert of["num_sites"] == panel.num_sites > 1000
    assert (of["num_haplotypes"], of["contig"]) == (500, "20")
    assert (of["num_train_samples"], of["num_validation_samples"]) == (240, 10)
    assert (made["command"], made["seed"], made["init"]) == ("ragimpute train x", 1, "")
    assert made["versions"]["torch"] == torch.__version__
    loaded = load_model(out)
    assert loaded.trained
    assert loaded.config == config
    last = load_model(out).model
    load_weights(out / "last.safetensors", last, config)
    different = tensors(out / "last.safetensors") != tensors(out / "weights.safetensors")
    assert different == (result.best_epoch != len(result.history))
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_metrics_are_the_historys(trained):
    result, out, lines, _ = trained
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["step"]) == result.steps
    for row, expected in zip(rows, result.history, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            assert float(row[name]) == pytest.approx(value, rel=1e-6, nan_ok=True)
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  train loss ")
    assert f"r2 {result.history[1]['r2_all']:.4f}" in lines[1]
    shown = dict(result.rows())
    best = result.history[result.best_epoch - 1]
    assert shown["best epoch"] == f"{result.best_epoch} by r2_all"
    assert shown["r2, all sites"] == (f"{best['r2_all']:.4f} (Li-Stephens {best['ls_r2_all']:.4f})")


def test_tensorboard_has_the_curves(trained):
    result, out, _, ticks = trained
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "train/lr", "validation/r2_all", "validation/val_loss"} <= scalars
    found = {e.step: e.value for e in events.Scalars("validation/r2_all")}
    expected = {int(row["step"]): row["r2_all"] for row in result.history}
    assert found == pytest.approx(expected, abs=1e-6)
    assert [e.step for e in events.Scalars("train/loss")] == list(range(5, result.steps + 1, 5))
    rates = [e.value for e in events.Scalars("train/lr")]
    assert rates[0] == pytest.approx(3e-3 * 5 / 6)  # the end of the warm-up
    assert events.Scalars("train/lr")[0].step == 5
    stages = {stage for stage, _, _ in ticks}
    assert stages >= {"epoch 1/2", "epoch 2/2", "validation"}


def test_the_best_epoch_is_kept(panel_h5, trained):
    result, out, _, _ = trained
    config = load_config("default", overrides=FEW)
    with Panel.open(panel_h5) as panel:
        data = make_batches([panel], config, None, 1)
        scores = score_model(load_model(out).model, data, config.loss, 0,
                             device=torch.device("cpu"))  # fmt: skip
    best = max(row["r2_all"] for row in result.history)
    assert scores.row()["r2_all"] == pytest.approx(best, abs=1e-6)


def test_the_same_seed_gives_the_same_weights(panel_h5, trained, tmp_path):
    _, out, _, _ = trained
    run(panel_h5, tmp_path / "again")
    run(panel_h5, tmp_path / "other", overrides=["train.seed=2"])
    name = "last.safetensors"
    assert tensors(tmp_path / "again" / name) == tensors(out / name)
    assert tensors(tmp_path / "other" / name) != tensors(out / name)


def test_a_panel_of_32_haplotypes_is_learned(tmp_path):
    """Eight real haplotypes, each in four samples: what is hidden can be read off the retrieved."""
    rng = np.random.default_rng(1)
    copies = np.concatenate([rng.permutation(8) for _ in range(4)])
    batches = []
    stream = PanelStream(example.path("panel.bcf"), region=Region.parse("20:2000000-2060000"))
    for batch in stream:
        alleles = batch.alleles[:, :4].reshape(-1, 8)[:, copies].reshape(-1, 16, 2)
        varies = np.flatnonzero(np.ptp(alleles, axis=(1, 2)))
        batches.append(make_batch(alleles[varies], batch.sites.position_bp[varies]))
    path = tmp_path / "panel.h5"
    write_panel(path, batches, samples=names(16), genetic_map=FlatMap())
    config = load_config("v10-small", overrides=[
        "train.epochs=25", "train.batch_size=5", "data.num_retrieved=1", "optimizer.lr=3e-3",
        "data.max_validation_samples=2", "mask.parts=[{name: random, rate: 0.5}]", "loss.gamma=0",
        "mask.curriculum.every_epochs=0", "schedule={name: cosine, warmup_steps: 20}",
        "train.early_stopping.patience=0",
    ])  # fmt: skip
    train([path], config, tmp_path / "m", device="cpu")
    model = load_model(tmp_path / "m").model
    scores = Scores()
    with Panel.open(path) as panel, torch.no_grad():
        assert panel.num_haplotypes == 32
        data = make_batches([panel], config, None, 1)
        for batch in data.train_batches(99):  # under masks that it has not seen
            outputs = model(batch)
            nothing = {h: np.zeros(batch["mask"].shape) for h in ("h1", "h2")}
            scores.add_batch(outputs, batch, nothing, config.loss, 0, Probabilities())
    row = scores.row()
    assert scores.haplotypes.result().num_true[-1] > 200
    assert row["f1"] > 0.99


@pytest.fixture(scope="module")
def few_samples(tmp_path_factory):
    """A panel of 16 samples, mosaics of a few founders."""
    path = tmp_path_factory.mktemp("few") / "panel.h5"
    alleles = mosaic_panel(np.random.default_rng(1), 120, 32, num_founders=4, switches=0.01,
                           mutations=0.0)  # fmt: skip
    write_panel(path, [make_batch(alleles.reshape(120, 16, 2))], samples=names(16),
                genetic_map=FlatMap())  # fmt: skip
    return path


def test_early_stopping_fires_where_a_model_overfits(few_samples, tmp_path):
    result = run(
        few_samples, tmp_path / "m", "v10-small", TINY,
        ["data.windows_per_epoch=8", "data.num_retrieved=1", "train.epochs=60",
         "optimizer.lr=2e-2", "train.early_stopping={metric: loss, patience: 3}"],
    )  # fmt: skip
    losses = [row["val_loss"] for row in result.history]
    assert result.stopped_early
    assert len(losses) < 60
    assert len(losses) == result.best_epoch + 3
    assert min(losses) == losses[result.best_epoch - 1]
    assert dict(result.rows())["epochs"] == f"{len(losses)}, stopped early"
    assert tensors(tmp_path / "m" / "weights.safetensors") != tensors(
        tmp_path / "m" / "last.safetensors"
    )
    # A run that has ended has nothing left to do.
    again = run(
        few_samples, tmp_path / "m", "v10-small", TINY,
        ["data.windows_per_epoch=8", "data.num_retrieved=1", "train.epochs=60",
         "optimizer.lr=2e-2", "train.early_stopping={metric: loss, patience: 3}"], resume=True,
    )  # fmt: skip
    assert (again.steps, again.best_epoch, again.stopped_early) == (
        result.steps, result.best_epoch, True,
    )  # fmt: skip


def test_a_loss_that_is_no_number_stops_the_run(panel_h5, tmp_path):
    with pytest.raises(ModelError, match=r"the loss is nan at step \d+ \(epoch 1\)") as caught:
        run(panel_h5, tmp_path / "m", overrides=["optimizer.lr=1e30", "train.clip=0"])
    assert f"last good checkpoint in {tmp_path / 'm'}: none" in caught.value.message
    assert "optimizer.lr" in caught.value.hint
    assert not (tmp_path / "m" / "weights.safetensors").exists()


def test_a_later_nan_names_the_weights_that_are_kept(panel_h5, tmp_path, monkeypatch, trained):
    result, _, _, _ = trained
    plain = trainer.compute_loss
    calls = []

    def breaking(*args, **kwargs):
        calls.append(1)
        loss, parts = plain(*args, **kwargs)
        return (loss * math.nan if len(calls) > result.history[0]["step"] + 2 else loss), parts

    monkeypatch.setattr(trainer, "compute_loss", breaking)
    step = int(result.history[0]["step"]) + 3
    with pytest.raises(ModelError, match=rf"the loss is nan at step {step} \(epoch 2\)") as caught:
        run(panel_h5, tmp_path / "m")
    assert "epoch 1's weights" in caught.value.message
    assert load_model(tmp_path / "m").trained


def test_initial_weights_are_kept_where_training_harms(panel_h5, trained, tmp_path):
    _, first, _, _ = trained
    result = run(panel_h5, tmp_path / "m", init=first, overrides=["optimizer.lr=3"])
    assert result.kept == "initial"
    assert result.best_epoch == 0
    assert ("kept", "the initial weights: training did not improve on them") in result.rows()
    assert tensors(tmp_path / "m" / "weights.safetensors") == tensors(first / "weights.safetensors")
    assert tensors(tmp_path / "m" / "last.safetensors") != tensors(first / "weights.safetensors")
    assert json.loads((tmp_path / "m" / "provenance.json").read_text())["init"] == str(first)


def test_what_does_not_beat_plain_copying_is_not_kept(panel_h5, trained, tmp_path, monkeypatch):
    _, first, _, _ = trained
    monkeypatch.setattr(trainer, "figure_of", lambda row, metric: row.get("epoch", 0))
    monkeypatch.setattr(trainer, "ls_figure_of", lambda row, metric: 1.5)
    result = run(panel_h5, tmp_path / "m", init=first, overrides=["train.epochs=1"])
    assert result.kept == "initial"  # 1 beats the initial weights' 0, but not 1.5
    result = run(panel_h5, tmp_path / "n", init=first, overrides=["train.epochs=2"])
    assert (result.kept, result.best_epoch) == ("trained", 2)
    rows = dict(result.rows())
    assert rows["kept"] == "the trained weights: they improved on the initial ones"
    figures = [
        result.history[1]["r2_all"],
        result.initial["r2_all"],
        result.history[1]["ls_r2_all"],
    ]
    assert rows["r2, all sites"] == "{:.4f} (initial weights {:.4f}, Li-Stephens {:.4f})".format(
        *figures
    )


def test_initial_weights_are_where_training_begins(panel_h5, trained, tmp_path, losses):
    first, folder, _, _ = trained
    result = run(panel_h5, tmp_path / "m", init=folder,
                 overrides=["optimizer.lr=1e-9", "train.epochs=1"])  # fmt: skip
    best = first.history[first.best_epoch - 1]
    assert result.history[0]["r2_all"] == pytest.approx(best["r2_all"], abs=1e-4)
    with pytest.raises(ModelError, match="not of the shape that config default describes"):
        run(panel_h5, tmp_path / "n", "states", init=folder)


def test_folders_that_cannot_be_used(panel_h5, trained, tmp_path):
    _, folder, _, _ = trained
    with pytest.raises(ModelError, match="holds a model already") as caught:
        run(panel_h5, folder)
    assert "--force" in caught.value.hint
    with pytest.raises(ModelError, match="nothing to resume"):
        run(panel_h5, tmp_path / "m", resume=True)
    with pytest.raises(ModelError, match="does not exist") as caught:
        run(panel_h5, tmp_path / "a" / "b")
    assert caught.value.hint == f"mkdir -p {tmp_path / 'a'}"
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelError, match="is a file"):
        run(panel_h5, tmp_path / "file")
    with pytest.raises(InputError, match="there is no device 'gpu'"):
        train([panel_h5], load_config("default"), tmp_path / "m", device="gpu")


def test_options_are_given_as_a_whole_or_by_name(panel_h5, tmp_path):
    config = load_config("default", overrides=FEW)
    folder = tmp_path / "absent" / "m"
    with pytest.raises(ModelError, match=r"the folder of .* does not exist"):
        train([panel_h5], config, folder, TrainOptions(device="cpu"), threads=1)
    with pytest.raises(ModelError, match="holds nothing to resume"):
        train([panel_h5], config, folder, TrainOptions(device="cpu"), resume=True)
    with pytest.raises(TypeError, match="train has no option epochs; its options are index, init"):
        train([panel_h5], config, folder, epochs=2)


def test_force_forgets_the_earlier_run(panel_h5, trained, tmp_path):
    folder = tmp_path / "m"
    run(panel_h5, folder, overrides=["train.epochs=1"])
    with pytest.raises(ModelError, match="the loss is nan"):
        run(panel_h5, folder, overrides=["optimizer.lr=1e30", "train.clip=0"], force=True)
    # The state of the first run must not be resumed by the second.
    with pytest.raises(ModelError, match="nothing to resume"):
        run(panel_h5, folder, resume=True)
    assert not (folder / "metrics.csv").exists()


def test_another_panel_or_config_is_not_resumed(panel_h5, few_samples, tmp_path):
    folder = tmp_path / "m"
    run(panel_h5, folder, overrides=["train.max_steps=1"])
    with pytest.raises(ModelError, match="another config"):
        run(panel_h5, folder, overrides=["train.max_steps=2"], resume=True)
    with pytest.raises(ModelError, match="another panel"):
        run(few_samples, folder, overrides=["train.max_steps=1"], resume=True)


def test_accumulation_is_a_larger_batch(panel_h5, tmp_path):
    """Sites are averaged within a batch, so the two differ a little, but not in their steps."""
    whole = run(panel_h5, tmp_path / "a", overrides=["optimizer.lr=1e-3"])
    halves = ["optimizer.lr=1e-3", "train.batch_size=16", "train.accumulation=2"]
    parts = run(panel_h5, tmp_path / "b", overrides=halves)
    assert parts.steps == whole.steps
    for a, b in zip(whole.history, parts.history, strict=True):
        assert b["r2_all"] == pytest.approx(a["r2_all"], abs=1e-3)
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=0.1)


def test_steps_are_bounded(panel_h5, tmp_path):
    result = run(panel_h5, tmp_path / "m", overrides=["train.max_steps=3"])
    assert result.steps == 3
    assert len(result.history) == 1
    assert not result.stopped_early
    assert result.history[0]["lr"] == pytest.approx(3e-3 * 3 / 6)


def test_the_curriculum_follows_the_epochs(panel_h5, tmp_path, monkeypatch):
    shares, gammas = {}, {}
    plain = trainer.compute_loss

    def noting(outputs, batch, loss, epoch, **kwargs):
        shares.setdefault(epoch, []).append(float(batch["mask"].sum() / (~batch["pad"]).sum()))
        gammas[epoch] = gamma_at(loss, epoch)
        return plain(outputs, batch, loss, epoch, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", noting)
    run(panel_h5, tmp_path / "m", "v10-small", TINY,
        ["mask.parts=[{name: random, rate: 0.2}]", "train.epochs=5", "data.windows_per_epoch=8",
         "mask.curriculum={every_epochs: 2, step: 0.3, max_rate: 0.7}",
         "loss.gamma_schedule=[2, 3]", "train.early_stopping.patience=0"])  # fmt: skip
    means = [np.mean(shares[epoch]) for epoch in range(5)]
    np.testing.assert_allclose(means, [0.2, 0.2, 0.5, 0.5, 0.7], atol=0.06)
    assert gammas == {0: 2, 1: 3, 2: 3, 3: 3, 4: 3}


def test_the_curriculum_is_raised_level_by_level_and_resumed(panel_h5, tmp_path, monkeypatch):
    raised, levels = [], []
    plain_raise, plain_loss = MaskMixture.add_level, trainer.compute_loss

    def add_level(masks):
        raised.append(masks.level)
        plain_raise(masks)

    def noting(outputs, batch, loss, epoch, **kwargs):
        levels.append((epoch, float(batch["mask"].sum() / (~batch["pad"]).sum())))
        if len(levels) == stop_at:
            raise KeyboardInterrupt
        return plain_loss(outputs, batch, loss, epoch, **kwargs)

    monkeypatch.setattr(MaskMixture, "add_level", add_level)
    monkeypatch.setattr(trainer, "compute_loss", noting)
    monkeypatch.setattr(trainer, "_validate", lambda *args: figures(0.5))  # no loss of its own
    few = ["data.windows_per_epoch=8", "train.epochs=4", "train.checkpoint_every=1",
           "mask.parts=[{name: random, rate: 0.1}]", "train.early_stopping.patience=0",
           "mask.curriculum={every_epochs: 1, step: 0.2, max_rate: 0.5}"]  # fmt: skip
    stop_at = 0
    run(panel_h5, tmp_path / "whole", "v10-small", TINY, few)
    whole, levels[:] = list(levels), []
    assert raised == [0, 1, 2]
    assert [e for e, _ in whole] == [0, 0, 1, 1, 2, 2, 3, 3]
    expected = np.repeat([0.1, 0.3, 0.5, 0.5], 2)
    np.testing.assert_allclose([share for _, share in whole], expected, atol=0.09)
    stop_at = 6  # amid the third epoch
    with pytest.raises(KeyboardInterrupt):
        run(panel_h5, tmp_path / "m", "v10-small", TINY, few)
    stop_at = 0
    raised.clear()
    run(panel_h5, tmp_path / "m", "v10-small", TINY, few, resume=True)
    assert raised == [0, 1, 2]
    assert levels == [*whole[:6], *whole[5:]]
    name = "last.safetensors"
    assert tensors(tmp_path / "m" / name) == tensors(tmp_path / "whole" / name)


def figures(r2, ls=0.9, epoch=0):
    """What a validation pass would say."""
    return {"val_loss": 1 - r2, "f1": r2, "precision": r2, "recall": r2, "r2_all": r2,
            "ls_r2_all": ls, "r2_rare": r2 / 2, "ls_r2_rare": ls / 2}  # fmt: skip


def test_epochs_of_the_warmup_do_not_stop_a_run(panel_h5, tmp_path, monkeypatch):
    falling = iter(np.linspace(0.8, 0.1, 50))
    monkeypatch.setattr(trainer, "_validate", lambda *args: figures(next(falling)))
    two_steps = ["data.windows_per_epoch=8", "train.epochs=9"]  # in each epoch
    for warmup, patience, epochs in ((0, 1, 2), (5, 1, 3), (5, 2, 4), (4, 1, 2), (8, 3, 6)):
        result = run(panel_h5, tmp_path / f"{warmup}-{patience}", "v10-small", TINY,
                     [*two_steps, f"schedule.warmup_steps={warmup}",
                      f"train.early_stopping.patience={patience}"])  # fmt: skip
        assert (len(result.history), result.best_epoch) == (epochs, 1)
        assert result.stopped_early


@pytest.mark.parametrize("setting", ["schedule.warmup_steps=300", "schedule.warmup_share=0.2"])
def test_a_warmup_that_the_run_does_not_reach_is_told(panel_h5, tmp_path, monkeypatch, caplog,
                                                      setting):  # fmt: skip
    monkeypatch.setattr(trainer, "_validate", lambda *args: figures(0.5))
    run(panel_h5, tmp_path / "m", "v10-small", TINY, ["train.max_steps=3", setting])
    said = [record.getMessage() for record in caplog.records if "warm-up" in record.getMessage()]
    if "share" in setting:
        assert said == []
        return
    (line,) = said
    assert line.startswith("the warm-up of 300 steps is not over when the run of 3 steps ends")
    assert "schedule.warmup_share=0.1" in line
    # What it says to set is a setting that helps.
    caplog.clear()
    run(panel_h5, tmp_path / "n", "v10-small", TINY,
        ["train.max_steps=3", setting, "schedule.warmup_share=0.1"])  # fmt: skip
    assert not any("warm-up" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("r2", [0.85, 0.9, 0.95])
def test_a_run_that_is_no_better_than_li_stephens_says_so(panel_h5, tmp_path, monkeypatch, r2):
    monkeypatch.setattr(trainer, "_validate", lambda *args: figures(r2))
    result = run(panel_h5, tmp_path / "m", "v10-small", TINY,
                 ["train.max_steps=1", "train.epochs=1"])  # fmt: skip
    made = json.loads((tmp_path / "m" / "provenance.json").read_text())
    assert made["validation"]["r2_all"] == r2
    assert (made["validation"]["epoch"], made["validation"]["ls_r2_all"]) == (1, 0.9)
    told = dict(result.rows()).get("note", "")
    assert told == made["note"] == result.note
    if r2 > 0.9:
        assert told == ""
    else:
        assert "no better than plain Li-Stephens copying (r2" in told
        assert f"{r2 / 2:.4f} against 0.4500 over sites with a MAF up to 0.01" in told
        assert "default model" in told
    (section,) = [train_section(result.history, "", made)]
    assert section.notes == ([told[0].upper() + told[1:] + "."] if told else [])


def test_weights_of_every_epoch(panel_h5, tmp_path, monkeypatch):
    values = iter([0.5, 0.7, 0.6, 0.1, 0.1, 0.1])
    monkeypatch.setattr(trainer, "_validate", lambda *args: figures(next(values)))
    few = ["data.windows_per_epoch=8", "train.epochs=3", "train.keep_epochs=true"]
    result = run(panel_h5, tmp_path / "m", "v10-small", TINY, few)
    kept = [tensors(tmp_path / "m" / f"epoch-{i:02d}.safetensors") for i in (1, 2, 3)]
    assert kept[1] == tensors(tmp_path / "m" / "weights.safetensors")
    assert kept[2] == tensors(tmp_path / "m" / "last.safetensors")
    assert kept[0] != kept[1] != kept[2]
    assert result.best_epoch == 2
    model = load_model(tmp_path / "m")
    load_weights(tmp_path / "m" / "epoch-01.safetensors", model.model, model.config)
    assert ("weights of epochs", "3, epoch-01.safetensors to epoch-03.safetensors") in describe(
        tmp_path / "m"
    )
    # A run that is killed amid its second epoch and resumed leaves the same.
    plain, calls = trainer.compute_loss, []

    def breaking(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_validate", lambda *args: figures(0.5))
        patch.setattr(trainer, "compute_loss", breaking)
        broken = [*few, "train.checkpoint_every=1"]
        with pytest.raises(KeyboardInterrupt):
            run(panel_h5, tmp_path / "n", "v10-small", TINY, broken)
        assert [file.name for file in (tmp_path / "n").glob("epoch-*")] == ["epoch-01.safetensors"]
        run(panel_h5, tmp_path / "n", "v10-small", TINY, broken, resume=True)
    for i, expected in enumerate(kept, start=1):
        assert tensors(tmp_path / "n" / f"epoch-{i:02d}.safetensors") == expected
    # A run anew does not leave those of the earlier one; without the setting there are none.
    run(panel_h5, tmp_path / "m", "v10-small", TINY, [*few[:1], "train.epochs=1"], force=True)
    assert not list((tmp_path / "m").glob("epoch-*"))


@pytest.mark.parametrize(
    ("preset", "base"),
    [("default", FEW), ("v10-small", TINY), ("embedding-rag-small", TINY), ("v10-rag-small", RAG)],
)
def test_half_precision_after_full(panel_h5, tmp_path, preset, base):
    """Two runs of one process may differ in precision."""
    found = {}
    for precision in ("bf16", "no"):
        result = run(panel_h5, tmp_path / precision, preset, base,
                     ["train.max_steps=4", f"train.precision={precision}"])  # fmt: skip
        # Of few steps one mean may be the same by chance.
        found[precision] = [result.history[0][name] for name in ("train_loss", "val_loss")]
    assert found["bf16"] != found["no"]
    assert found["bf16"] == pytest.approx(found["no"], rel=0.02)


@pytest.mark.parametrize(
    ("preset", "base", "more"),
    [("embedding-rag-small", TINY, ["loss.reconstruction=0.1"]), ("v10-rag-small", RAG, [])],
    ids=["window", "site"],
)
def test_a_compiled_model_learns_the_same(panel_h5, tmp_path, monkeypatch, preset, base, more):
    compiled = []
    plain = torch.compile

    def without_a_compiler(model):  # traces and differentiates as ever, but makes no C++
        compiled.append(model)
        return plain(model, backend="aot_eager")

    monkeypatch.setattr(trainer.torch, "compile", without_a_compiler)
    # Its looked-up references are NumPy's work, which torch must leave alone.
    few = ["train.epochs=1", "train.max_steps=3", *more]
    (one,) = run(panel_h5, tmp_path / "a", preset, base, few).history
    assert not compiled
    more = [*few, "train.compile=true"]
    (two,) = run(panel_h5, tmp_path / "b", preset, base, more).history
    assert len(compiled) == 1
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    folders = (tmp_path / "a", tmp_path / "b")
    first, second = (load_model(folder).model.state_dict() for folder in folders)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=1e-4, rtol=1e-3)


def test_a_panel_that_is_too_small(tmp_path):
    path = tmp_path / "p.h5"
    alleles = mosaic_panel(np.random.default_rng(1), 40, 4)
    write_panel(path, [make_batch(alleles.reshape(40, 2, 2))], samples=names(2),
                genetic_map=FlatMap())  # fmt: skip
    with pytest.raises(PanelError, match="has 2 samples"):
        run(path, tmp_path / "m")


def test_a_copying_model_learns_from_several_panels(panel_h5, tmp_path):
    other = tmp_path / "other.h5"
    prepare(example.path("panel.bcf"), other, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2500000-2700000"))  # fmt: skip
    config = load_config("default", overrides=FEW)
    result = train([panel_h5, other], config, tmp_path / "m", device="cpu")
    made = json.loads((tmp_path / "m" / "provenance.json").read_text())
    checksums = []
    for path in (panel_h5, other):
        with Panel.open(path) as panel:
            checksums.append(panel.checksum)
    assert [of["checksum"] for of in made["panels"]] == checksums
    assert result.history[-1]["r2_all"] > result.history[-1]["ls_r2_all"] - 0.002


def test_a_token_model_learns_one_panel(panel_h5, tmp_path):
    with pytest.raises(ModelError, match="learns one panel; 2 given") as caught:
        train([panel_h5, panel_h5], load_config("v10-small"), tmp_path / "m", device="cpu")
    assert "copying" in caught.value.hint
    assert not (tmp_path / "m").exists()
