"""Calibrate the probabilities of a token model on the samples that were held out of its training.

A network may be sure of itself where it should not be, or leave rare alleles too probable. Few
coefficients mend that: those of :data:`ragimpute.model.probability.TERMS`. They are fitted by
logistic regression on the held-out samples' hidden alleles. As many of them are kept as lower the
log loss of samples to which they were not fitted; often that is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ragimpute.accuracy.dr2 import maximise
from ragimpute.model.bert_rag import BERTWithRAG
from ragimpute.model.probability import (
    TERMS,
    Probabilities,
    calibration_terms,
    is_increasing,
    posterior_logit,
)
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Progress, no_progress
from ragimpute.training.data.token_batches import TokenBatches
from ragimpute.training.losses import scored_sites

#: What may be fitted, from few coefficients to many; the others stay as in ``_NONE``.
FORMS = (("logit",), ("logit", "frequency"), ("logit", "logit_rare", "frequency"))
_NONE = np.array([float(name == "logit") for name in TERMS])  # the logit as it is
_FOLDS = 5
_MOST_PAIRS = 400_000  # as many say enough of three numbers
_RIDGE = 20.0  # as if some 80 alleles said that the logit is right as it is
_BOUND = 30.0  # of the logits of the log loss


@dataclass(frozen=True)
class HiddenAlleles:
    """Hidden alleles of held-out samples, and what a model says of them.

    Attributes
    ----------
    logit, af
        Shape (n,), float32: the model's logit of ALT, and the ALT frequency in the panel without
        the held-out samples, in (0, 1), as a target is not in the panel either.
    label
        Shape (n,), float32: 1 for ALT, else 0.
    sample
        Shape (n,), int: whose allele it is.
    """

    logit: np.ndarray
    af: np.ndarray
    label: np.ndarray
    sample: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def some(self, most: int, rng: np.random.Generator) -> HiddenAlleles:
        """At most so many of them, drawn."""
        if len(self) <= most:
            return self
        rows = np.sort(rng.choice(len(self), most, replace=False))
        return HiddenAlleles(self.logit[rows], self.af[rows], self.label[rows], self.sample[rows])


@torch.no_grad()
def hidden_alleles(
    model: BERTWithRAG,
    data: TokenBatches,
    *,
    device: torch.device,
    progress: Progress = no_progress,
) -> HiddenAlleles:
    """Run a token model over the validation batches.

    Parameters
    ----------
    model, device
        A token model, which is left in evaluation mode, and where it runs.
    data
        What it was trained on.
    progress
        Called as ``progress("probabilities", done, 0)``.
    """
    model.to(device).eval()
    columns: list[list[np.ndarray]] = []
    with Stage("probabilities", 0, progress=progress) as stage:
        for i, batch in data.validation_batches(every=True):
            batch = {name: value.to(device) for name, value in batch.items()}
            outputs = model(batch)
            sample, af = data.validation_samples_of(i), data.training_af(i)
            for h in ("h1", "h2"):
                keep = scored_sites(batch, h).cpu().numpy() & (af > 0) & (af < 1)
                logit, label = (
                    x.float().cpu().numpy()[keep]
                    for x in (outputs[f"{h}_fused"], batch[f"label_{h}"])
                )
                columns.append([logit, af[keep], label, sample[np.nonzero(keep)[0]]])
            stage.reach(i + 1)
    return HiddenAlleles(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def fit_probabilities(hidden: HiddenAlleles, gamma: float, *, seed: int = 1) -> Probabilities:
    """Calibrate probabilities on alleles that a model was not trained on.

    Parameters
    ----------
    hidden
        The alleles.
    gamma
        Of the loss that the model's weights come from.
    seed
        Draws the alleles that are used, and the folds.

    Returns
    -------
    Coefficients, or none where those lower the log loss of other samples by no more than its
    standard error over samples, or where there are fewer than ``_FOLDS`` samples.
    """
    rng = np.random.default_rng([seed, 5])
    hidden = hidden.some(_MOST_PAIRS, rng)
    samples, owner = np.unique(hidden.sample, return_inverse=True)
    if len(samples) < _FOLDS:
        return Probabilities(gamma)
    logit = posterior_logit(torch.from_numpy(hidden.logit).double(), gamma)
    terms = calibration_terms(logit, torch.from_numpy(hidden.af))
    x, y = torch.stack(terms, dim=1).numpy(), hidden.label.astype(np.float64)
    fold = rng.permutation(len(samples))[owner] % _FOLDS
    count = np.bincount(owner)

    def by_sample(z: np.ndarray) -> np.ndarray:
        z = np.clip(z, -_BOUND, _BOUND)
        return np.bincount(owner, np.logaddexp(0, z) - y * z) / count

    before = by_sample(logit.numpy())
    best: tuple[float, tuple[str, ...], np.ndarray] | None = None
    for form in FORMS:
        z = np.empty(len(y))
        for i in range(_FOLDS):
            z[fold == i] = x[fold == i] @ _fit(x[fold != i], y[fold != i], form)
        gain = before - by_sample(z)
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        if gain.mean() > error and (best is None or gain.mean() > best[0]):
            best = float(gain.mean()), form, gain
    if best is None:
        return Probabilities(gamma)
    found = tuple(_fit(x, y, best[1]).tolist())
    if not is_increasing(found):
        return Probabilities(gamma)
    provenance = {
        "num_samples": len(samples),
        "num_alleles": len(y),
        "fitted": list(best[1]),
        "log_loss": float(before.mean()),
        "log_loss_calibrated": float(before.mean() - best[0]),
        "seed": seed,
    }
    return Probabilities(gamma, found, provenance)


def _fit(x: np.ndarray, y: np.ndarray, form: Sequence[str]) -> np.ndarray:
    """The coefficients of all terms, of which only those of ``form`` are fitted."""
    free = np.isin(TERMS, form)
    found = maximise(x, y, np.ones(len(y)), _NONE, free, _RIDGE)
    if is_increasing(tuple(found.tolist())):
        return found
    return _fit(x, y, form[:-1]) if len(form) > 1 else _NONE
