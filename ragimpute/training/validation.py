"""Accuracy of a model on held-out panel samples, beside plain Li-Stephens copying."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragimpute.accuracy.metrics import (
    MAF_BINS,
    BinnedR2,
    CallAccumulator,
    CallScores,
    R2Accumulator,
)
from ragimpute.config import LossConfig
from ragimpute.model.probability import Probabilities, gamma_at
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Progress, no_progress
from ragimpute.training.data.copying_batches import EvidenceBatches
from ragimpute.training.losses import compute_loss, scored_sites
from ragimpute.training.losses import field as batch_field

RARE_MAF = 0.01
_COLUMN = {"loss": "val_loss", "f1": "f1", "r2_all": "r2_all", "r2_rare": "r2_rare"}


@dataclass
class Scores:
    """Sums over a validation pass; they add up over batches and processes.

    Attributes
    ----------
    model, ls
        Aggregate r2 over haplotypes, of the model and of plain Li-Stephens.
    haplotypes, genotypes
        Calls of the minor allele, and of genotypes where both haplotypes are known.
    loss, num_batches
        Sum of the batches' losses.
    """

    model: R2Accumulator = field(default_factory=R2Accumulator)
    ls: R2Accumulator = field(default_factory=R2Accumulator)
    haplotypes: CallAccumulator = field(default_factory=CallAccumulator)
    genotypes: CallAccumulator = field(default_factory=CallAccumulator)
    loss: float = 0.0
    num_batches: int = 0

    def state(self) -> np.ndarray:
        """All sums as one float64 vector."""
        return np.concatenate(
            [
                self.model.state(),
                self.ls.state(),
                self.haplotypes.counts.ravel(),
                self.genotypes.counts.ravel(),
                [self.loss, float(self.num_batches)],
            ]
        )

    def load_state(self, state: np.ndarray) -> None:
        """Take over a (summed) vector that :meth:`state` made."""
        size = len(self.model.state())
        self.model.load_state(state[:size])
        self.ls.load_state(state[size : 2 * size])
        calls = self.haplotypes.counts.size
        at = 2 * size
        self.haplotypes.counts = state[at : at + calls].reshape(self.haplotypes.counts.shape)
        at += calls
        self.genotypes.counts = state[at : at + calls].reshape(self.genotypes.counts.shape)
        self.loss, self.num_batches = float(state[-2]), round(float(state[-1]))

    def add_batch(
        self,
        outputs: Mapping[str, Tensor],
        batch: Mapping[str, Tensor],
        ls_prob: Mapping[str, np.ndarray],
        loss: LossConfig,
        epoch: int,
        probabilities: Probabilities,
    ) -> None:
        """Add one batch.

        Parameters
        ----------
        outputs, batch
            What the model returned, and what it was given.
        ls_prob
            "h1" and "h2", shape (B, L): probability of the same allele by copying alone.
        loss, epoch
            See :func:`ragimpute.training.losses.compute_loss`.
        probabilities
            What makes P(ALT) of the outputs.
        """
        total, _ = compute_loss(outputs, batch, loss, epoch)
        self.loss += float(total)
        self.num_batches += 1
        called, true, maf_of = {}, {}, {}
        for h in ("h1", "h2"):
            keep = scored_sites(batch, h).cpu().numpy()
            given = batch_field(batch, "af", h)
            prob = probabilities.of(outputs[f"{h}_fused"], given, batch.get(f"ls_logit_{h}"))
            p, af = (x.cpu().numpy().astype(np.float64) for x in (prob, given))
            flip = af > 0.5
            y = batch[f"label_{h}"].cpu().numpy()
            ls = np.asarray(ls_prob[h], np.float64)
            p, ls = np.where(flip, 1 - p, p), np.where(flip, 1 - ls, ls)
            y = np.where(flip & (y >= 0), 1 - y, y)
            maf = np.minimum(af, 1 - af)
            self.add_pairs(p[keep], ls[keep], y[keep], maf[keep])
            called[h], true[h], maf_of[h] = p > 0.5, np.where(keep, y, -1), maf
        if "af" in batch:  # both haplotypes stand at the same sites
            known = (true["h1"] >= 0) & (true["h2"] >= 0)
            self.genotypes.update(
                called["h1"].astype(int)[known] + called["h2"][known],
                true["h1"][known] + true["h2"][known],
                maf_of["h1"][known],
            )

    def add_pairs(
        self, prob: np.ndarray, ls_prob: np.ndarray, label: np.ndarray, maf: np.ndarray
    ) -> None:
        """Add pairs (haplotype, site), each of shape (n,), about the minor allele."""
        self.model.update_pairs(prob, label.astype(np.float64), maf)
        self.ls.update_pairs(ls_prob, label.astype(np.float64), maf)
        self.haplotypes.update((prob > 0.5).astype(int), label.astype(int), maf)

    def row(self) -> dict[str, float]:
        """The figures of the pass, by their names in metrics.csv."""
        scores = self.haplotypes.result()
        genotypes = self.genotypes.result()
        ours, plain = self.model.result(), self.ls.result()
        row = {
            "val_loss": self.loss / max(1, self.num_batches),
            "f1": float(scores.f1[-1]),
            "precision": float(scores.precision[-1]),
            "recall": float(scores.recall[-1]),
            "genotype_f1": float(genotypes.f1[-1]),
            "genotype_precision": float(genotypes.precision[-1]),
            "genotype_recall": float(genotypes.recall[-1]),
            "r2_all": _overall(ours),
            "ls_r2_all": _overall(plain),
            "r2_rare": self.model.r2_up_to(RARE_MAF),
            "ls_r2_rare": self.ls.r2_up_to(RARE_MAF),
        }
        for name, result in (("r2", ours), ("ls_r2", plain)):
            row |= {f"{name}_{k}": _number(v) for k, v in result.as_dict().items() if k != "all"}
        for name, calls in (("haplotype", scores), ("genotype", genotypes)):
            row |= _by_bin(name, calls)
        return row


def _by_bin(name: str, scores: CallScores) -> dict[str, float]:
    """F1, precision and recall of each MAF bin."""
    row = {}
    for i, edge in enumerate(MAF_BINS[1:]):
        row[f"{name}_f1_<={edge}"] = float(scores.f1[i])
        row[f"{name}_precision_<={edge}"] = float(scores.precision[i])
        row[f"{name}_recall_<={edge}"] = float(scores.recall[i])
    return row


def _overall(result: BinnedR2) -> float:
    """The figure over all bins."""
    return _number(result.as_dict()["all"])


def _number(value: Any) -> float:
    """A figure, NaN where there is none."""
    return float("nan") if value is None else float(value)


@torch.no_grad()
def score_model(
    model: torch.nn.Module,
    data: Any,
    loss: LossConfig,
    epoch: int,
    *,
    device: torch.device,
    progress: Progress = no_progress,
    probabilities: Probabilities | None = None,
) -> Scores:
    """Score a model on held-out samples.

    Parameters
    ----------
    model, device
        What is scored, and where it is; it is left in evaluation mode.
    data
        :class:`ragimpute.training.data.token_batches.TokenBatches` or
        :class:`ragimpute.training.data.copying_batches.EvidenceBatches`; it builds the batches of
        this process alone.
    loss, epoch
        See :func:`ragimpute.training.losses.compute_loss`.
    progress
        Called as ``progress(stage, done, total)``; a total of 0 is unknown.
    probabilities
        What makes P(ALT) of the logits; None: for a token model, the gamma of the epoch.

    Returns
    -------
    The sums over this process's batches.
    """
    model.eval()
    scores = Scores()
    copying = isinstance(data, EvidenceBatches)
    if probabilities is None:
        probabilities = Probabilities(0.0 if copying else gamma_at(loss, epoch))
    with Stage("validation", 0, progress=progress) as stage:
        for i, batch in data.validation_batches():
            batch = {name: value.to(device) for name, value in batch.items()}
            outputs = model(batch)
            if "ls_logit_h1" in batch:
                ls = {h: torch.sigmoid(batch[f"ls_logit_{h}"]).cpu().numpy() for h in ("h1", "h2")}
            else:
                ls = data.ls_baseline(i)
            scores.add_batch(outputs, batch, ls, loss, epoch, probabilities)
            stage.reach(i + 1)
        if copying and data.share.rank == 0:
            for prob, label, maf in data.validation_rest():
                scores.add_pairs(prob, prob, label, maf)
    return scores


def figure_of(row: Mapping[str, float], metric: str) -> float:
    """The figure that chooses the best epoch; larger is better.

    If the figure is undefined, for example because no rare site varies among the held-out samples,
    another figure is used in its place, moved below all values that the first could have.
    """
    value = row[_COLUMN[metric]]
    if math.isfinite(value):
        return -value if metric == "loss" else value
    return row["r2_all"] - 1 if math.isfinite(row["r2_all"]) else -1 - row["val_loss"]


def ls_figure_of(row: Mapping[str, float], metric: str) -> float:
    """The same figure of plain Li-Stephens copying; -inf where there is none."""
    value = row.get(f"ls_{_COLUMN[metric]}", math.nan)
    return value if math.isfinite(value) else -math.inf


def against_li_stephens(row: Mapping[str, float], metric: str) -> str:
    """A sentence that says that a model is no better than Li-Stephens copying; "" if it is better.

    They are compared by the r2 that chooses the best epoch, and by that over all sites if another
    figure chooses it or that r2 is undefined.
    """
    for name, sites in (
        (_COLUMN[metric], "sites with a MAF up to 0.01" if metric == "r2_rare" else "all sites"),
        ("r2_all", "all sites"),
    ):
        ours, plain = row.get(name, math.nan), row.get(f"ls_{name}", math.nan)
        if math.isfinite(ours) and math.isfinite(plain):
            if ours > plain:
                return ""
            return (
                "on the held-out samples this model is no better than plain Li-Stephens copying "
                f"(r2 {ours:.4f} against {plain:.4f} over {sites}): for imputation, use the "
                "default model, which needs no training"
            )
    return ""


def about_kept(row: Mapping[str, float], metric: str) -> dict[str, object]:
    """What provenance.json says of the epoch whose weights are kept (0: the initial weights)."""
    names = ("r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare", "f1", "val_loss")
    figures = {
        name: float(f"{row[name]:.6g}") for name in names if math.isfinite(row.get(name, math.nan))
    }
    epoch = int(row.get("epoch", 0))
    return {
        "validation": {"epoch": epoch, "metric": metric, **figures},
        "note": against_li_stephens(row, metric),
    }
