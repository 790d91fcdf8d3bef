"""Validation's sums against plain loops; the parts of several processes add up to the whole."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.config import LossConfig
from ragimpute.model.probability import Probabilities
from ragimpute.training.losses import compute_loss
from ragimpute.training.validation import RARE_MAF, Scores, figure_of, ls_figure_of, score_model

LOSS = LossConfig(kind="focal", gamma=2.0, genotype=0.0)
PLAIN = Probabilities()  # the sigmoid


def token_batch(seed, rows=6, length=40):
    """Outputs, a batch whose haplotypes stand at the same sites, and Li-Stephens probabilities."""
    rng = np.random.default_rng(seed)
    af = rng.beta(0.3, 1.0, length).clip(0.001, 0.999)
    af[::5] = 1 - af[::5]
    label = (rng.random((2, rows, length)) < af).astype(np.int64)
    label[rng.random(label.shape) < 0.1] = -1
    pad = np.zeros((rows, length), bool)
    pad[:2, -4:] = True
    batch = {
        "mask": torch.from_numpy(rng.random((rows, length)) < 0.7),
        "pad": torch.from_numpy(pad),
        "af": torch.from_numpy(np.tile(af, (rows, 1)).astype(np.float32)),
    }
    outputs, ls = {}, {}
    for i, h in enumerate(("h1", "h2")):
        batch[f"label_{h}"] = torch.from_numpy(label[i])
        noise = rng.normal(0, 1.5, (2, rows, length)) + 2 * (2 * label[i] - 1)
        outputs[f"{h}_fused"] = torch.from_numpy(noise[0].astype(np.float32))
        outputs[f"{h}_ori"] = outputs[f"{h}_fused"] / 2
        ls[h] = 1 / (1 + np.exp(-noise[1]))
    return outputs, batch, ls


def copying_batch(seed, rows=5, length=30):
    """As token_batch, but each haplotype has sites of its own, about the minor allele."""
    outputs, batch, ls = token_batch(seed, rows, length)
    af = batch.pop("af").numpy()
    mask, pad = batch.pop("mask"), batch.pop("pad")
    for h in ("h1", "h2"):
        batch |= {f"mask_{h}": mask, f"pad_{h}": pad}
        batch[f"af_{h}"] = torch.from_numpy(np.minimum(af, 1 - af))
    batch["af_h2"] = batch["af_h2"].flip(1)
    return outputs, batch, ls


def pairs_of(batches):
    """(P(minor), LS P(minor), label, maf) of every scored pair, by plain loops."""
    out = []
    for outputs, batch, ls in batches:
        for h in ("h1", "h2"):
            logit, label = outputs[f"{h}_fused"].numpy(), batch[f"label_{h}"].numpy()
            own = {k: batch.get(f"{k}_{h}", batch.get(k)).numpy() for k in ("mask", "pad", "af")}
            for i, j in np.ndindex(label.shape):
                if not own["mask"][i, j] or own["pad"][i, j] or label[i, j] < 0:
                    continue
                p, plain = 1 / (1 + math.exp(-float(logit[i, j]))), float(ls[h][i, j])
                y, af = int(label[i, j]), float(own["af"][i, j])
                if af > 0.5:
                    p, plain, y = 1 - p, 1 - plain, 1 - y
                out.append((p, plain, y, min(af, 1 - af)))
    return np.array(out)


def r2(x, y):
    """Squared correlation; NaN if undefined."""
    if len(x) < 2 or np.std(x) == 0 or np.std(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def score(batches, loss=LOSS, epoch=0, probabilities=PLAIN):
    """Scores of some batches."""
    scores = Scores()
    for outputs, batch, ls in batches:
        scores.add_batch(outputs, batch, ls, loss, epoch, probabilities)
    return scores


@pytest.mark.parametrize("make", [token_batch, copying_batch])
def test_figures_equal_plain_computation(make):
    batches = [make(seed) for seed in range(4)]
    row = score(batches).row()
    p, plain, y, maf = pairs_of(batches).T
    assert len(p) > 500
    assert row["r2_all"] == pytest.approx(r2(p, y), abs=1e-6)
    assert row["ls_r2_all"] == pytest.approx(r2(plain, y), abs=1e-6)
    rare = maf <= RARE_MAF
    assert rare.sum() > 20
    assert row["r2_rare"] == pytest.approx(r2(p[rare], y[rare]), abs=1e-6)
    assert row["ls_r2_rare"] == pytest.approx(r2(plain[rare], y[rare]), abs=1e-6)
    assert row["r2_all"] != row["ls_r2_all"]
    tp = ((p > 0.5) & (y == 1)).sum()
    precision, recall = tp / (p > 0.5).sum(), tp / (y == 1).sum()
    assert row["precision"] == pytest.approx(precision)
    assert row["recall"] == pytest.approx(recall)
    assert row["f1"] == pytest.approx(2 * precision * recall / (precision + recall))
    for low, high in pairwise(MAF_BINS):
        here = (maf > low) & (maf <= high)
        expected = r2(p[here], y[here])
        assert row[f"r2_<={high}"] == pytest.approx(expected, abs=1e-6, nan_ok=True)
        hits = ((p > 0.5) & (y == 1))[here].sum()
        found = row[f"haplotype_recall_<={high}"]
        whole = (y[here] == 1).sum()
        assert found == pytest.approx(hits / whole if whole else math.nan, nan_ok=True)
    losses = [float(compute_loss(o, b, LOSS, 0)[0]) for o, b, _ in batches]
    assert row["val_loss"] == pytest.approx(np.mean(losses))


def test_genotypes_where_both_haplotypes_are_known():
    batches = [token_batch(seed) for seed in range(3)]
    row = score(batches).row()
    tp = fp = fn = 0
    for outputs, batch, _ in batches:
        keep = (batch["mask"] & ~batch["pad"]).numpy()
        flip = batch["af"].numpy() > 0.5
        called, true = np.zeros(keep.shape, int), np.zeros(keep.shape, int)
        for h in ("h1", "h2"):
            label = batch[f"label_{h}"].numpy()
            keep &= label >= 0
            called += np.where(flip, outputs[f"{h}_fused"].numpy() <= 0, outputs[f"{h}_fused"] > 0)
            true += np.where(flip, 1 - label, label)
        called, true = called[keep], true[keep]
        tp += ((called > 0) & (called == true)).sum()
        fp += ((called > 0) & (called != true)).sum()
        fn += ((true > 0) & (called != true)).sum()
    assert row["genotype_precision"] == pytest.approx(tp / (tp + fp))
    assert row["genotype_recall"] == pytest.approx(tp / (tp + fn))
    assert row["genotype_f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_haplotypes_with_sites_of_their_own_have_no_genotypes():
    row = score([copying_batch(1)]).row()
    assert math.isnan(row["genotype_f1"])
    assert math.isfinite(row["f1"])


def test_the_gamma_schedule_follows_the_epoch():
    loss = LossConfig(gamma_schedule=(0.0, 5.0), genotype=0.0)
    early, late = (score([token_batch(1)], loss, epoch).row() for epoch in (0, 1))
    assert early["val_loss"] > late["val_loss"]
    assert early["r2_all"] == late["r2_all"]  # of the same probabilities
    row = score([token_batch(1)], loss, 1, Probabilities(5.0)).row()
    assert row["val_loss"] == late["val_loss"]
    assert row["r2_all"] != late["r2_all"]


@pytest.mark.parametrize(("loss", "gammas"), [
    (LossConfig(gamma_schedule=(1.0, 4.0), genotype=0.0), (1.0, 4.0)),
    (LossConfig(gamma=3.0, genotype=0.0), (3.0, 3.0)),
    (LossConfig(kind="cross_entropy", gamma=3.0, genotype=0.0), (0.0, 0.0)),
])  # fmt: skip
def test_probabilities_are_those_of_the_loss_of_the_epoch(loss, gammas):
    outputs, batch, ls = token_batch(8)
    data = SimpleNamespace(validation_batches=lambda: iter([(0, batch)]), ls_baseline=lambda i: ls)

    class Model:
        def eval(self):
            return self

        def __call__(self, given):
            return outputs

    for epoch, gamma in enumerate(gammas):
        found = score_model(Model(), data, loss, epoch, device=torch.device("cpu")).row()
        expected = score([(outputs, batch, ls)], loss, epoch, Probabilities(gamma)).row()
        assert found == pytest.approx(expected, nan_ok=True)


def test_copying_is_what_the_batch_says_of_it_and_not_a_head_of_the_network():
    outputs, batch, ls = token_batch(9)
    batch |= {
        f"ls_logit_{h}": torch.logit(torch.from_numpy(p), eps=1e-6).float() for h, p in ls.items()
    }
    data = SimpleNamespace(validation_batches=lambda: iter([(0, batch)]))

    class Model:  # retrieves by site, with an "ori" head of its own
        def eval(self):
            return self

        def __call__(self, given):
            return outputs

    row = score_model(Model(), data, LOSS, 0, device=torch.device("cpu")).row()
    expected = score([(outputs, batch, ls)], LOSS, 0).row()
    assert row["ls_r2_all"] == pytest.approx(expected["ls_r2_all"], abs=1e-5)
    assert row["ls_r2_all"] != pytest.approx(row["r2_all"], abs=1e-3)


def test_pairs_that_the_network_leaves_count_too():
    rng = np.random.default_rng(1)
    y = (rng.random(300) < 0.1).astype(np.float32)
    p = np.clip(y + rng.normal(0, 0.2, 300), 0, 1).astype(np.float32)
    maf = rng.uniform(0.001, 0.5, 300).astype(np.float32)
    scores = score([copying_batch(2)])
    scores.add_pairs(p, p, y, maf)
    before = pairs_of([copying_batch(2)])
    row = scores.row()
    assert row["r2_all"] == pytest.approx(
        r2(np.r_[before[:, 0], p], np.r_[before[:, 2], y]), abs=1e-6
    )
    assert row["ls_r2_all"] == pytest.approx(
        r2(np.r_[before[:, 1], p], np.r_[before[:, 2], y]), abs=1e-6
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 4), st.integers(1, 6), st.booleans())
def test_processes_add_up_to_the_whole(num_processes, num_batches, copying):
    make = copying_batch if copying else token_batch
    batches = [make(seed) for seed in range(num_batches)]
    total = sum(score(batches[rank::num_processes]).state() for rank in range(num_processes))
    summed = Scores()
    summed.load_state(total)
    expected, found = score(batches).row(), summed.row()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-9, nan_ok=True), name


def test_state_comes_back():
    scores = score([token_batch(3), token_batch(4)])
    other = Scores()
    other.load_state(scores.state().copy())
    np.testing.assert_array_equal(other.state(), scores.state())
    assert (other.loss, other.num_batches) == (scores.loss, 2)
    outputs, batch, ls = token_batch(5)
    other.add_batch(outputs, batch, ls, LOSS, 0, PLAIN)  # goes on where it stood
    whole = score([token_batch(3), token_batch(4), token_batch(5)])
    np.testing.assert_array_equal(other.state(), whole.state())


def test_nothing_added_gives_no_figures():
    row = Scores().row()
    assert row["val_loss"] == 0.0
    assert all(math.isnan(v) for k, v in row.items() if k != "val_loss")


def test_half_precision_outputs():
    outputs, batch, ls = token_batch(6)
    half = {name: value.to(torch.bfloat16) for name, value in outputs.items()}
    exact, rounded = score([(outputs, batch, ls)]).row(), score([(half, batch, ls)]).row()
    assert rounded["r2_all"] == pytest.approx(exact["r2_all"], abs=0.01)


ROW = {"val_loss": 0.4, "f1": 0.8, "r2_all": 0.6, "r2_rare": 0.3}


@pytest.mark.parametrize(
    ("metric", "figure"), [("r2_rare", 0.3), ("r2_all", 0.6), ("f1", 0.8), ("loss", -0.4)]
)
def test_the_figure_that_chooses(metric, figure):
    assert figure_of(ROW, metric) == figure


@pytest.mark.parametrize("metric", ["r2_rare", "f1"])
def test_another_figure_takes_its_place_below(metric):
    missing = ROW | {metric: math.nan}
    assert figure_of(missing, metric) == pytest.approx(0.6 - 1)
    assert figure_of(missing | {"r2_all": 0.7}, metric) > figure_of(missing, metric)
    neither = missing | {"r2_all": math.nan}
    assert figure_of(neither, metric) == pytest.approx(-1 - 0.4)
    assert figure_of(neither | {"val_loss": 0.3}, metric) > figure_of(neither, metric)
    # The worst that there is beats the best of what stands in for it.
    assert figure_of(ROW | {metric: 0.0}, metric) >= figure_of(missing | {"r2_all": 1.0}, metric)
    assert figure_of(missing | {"r2_all": 0.0}, metric) > figure_of(neither, metric)


def test_the_figure_of_plain_copying():
    row = ROW | {"ls_r2_all": 0.8, "ls_r2_rare": math.nan}
    assert ls_figure_of(row, "r2_all") == 0.8
    for metric in ("r2_rare", "f1", "loss"):  # none known
        assert ls_figure_of(row, metric) == -math.inf
