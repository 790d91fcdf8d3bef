"""Calibrate the probabilities of a token model on the samples that were held out of its training.

A network may be sure of itself where it should not be, or leave rare alleles too probable. Few
coefficients mend that: those of :data:`ragimpute.model.probability.TERMS`. They are fitted by
logistic regression on the held-out samples' hidden alleles. As many of them are kept as lower the
log loss of samples to which they were not fitted; often that is none.

A model that starts from copying may also be wrong to leave it, most of all at rare alleles, of
which it saw few. The held-out samples say by how much its differences from copying are to be
multiplied. If they do not clearly gain by it, copying stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ragimpute.accuracy.dr2 import maximise
from ragimpute.model.bert_rag import BERTWithRAG
from ragimpute.model.probability import (
    TERMS,
    Probabilities,
    calibration_terms,
    is_increasing,
)
from ragimpute.model.site_net import sigmoid
from ragimpute.model.trust import classes_of, fit_trust
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
    offset
        Shape (n,), float32: the logit of copying, from which the model starts; or None.
    """

    logit: np.ndarray
    af: np.ndarray
    label: np.ndarray
    sample: np.ndarray
    offset: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def some(self, most: int, rng: np.random.Generator) -> HiddenAlleles:
        """At most so many of them, drawn."""
        if len(self) <= most:
            return self
        rows = np.sort(rng.choice(len(self), most, replace=False))
        return HiddenAlleles(
            self.logit[rows], self.af[rows], self.label[rows], self.sample[rows],
            None if self.offset is None else self.offset[rows],
        )  # fmt: skip


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
                told = [outputs[f"{h}_fused"], batch[f"label_{h}"]]
                if f"ls_logit_{h}" in batch:
                    told.append(batch[f"ls_logit_{h}"])
                logit, label, *offset = (x.float().cpu().numpy()[keep] for x in told)
                columns.append([logit, af[keep], label, sample[np.nonzero(keep)[0]], *offset])
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
    If the model starts from copying, how far it is to be trusted beyond it. Coefficients, fitted to
    the logits that follow from this; or none where those lower the log loss of other samples by no
    more than its standard error over samples, or where there are fewer than ``_FOLDS`` samples.
    """
    rng = np.random.default_rng([seed, 5])
    hidden = hidden.some(_MOST_PAIRS, rng)
    samples, owner = np.unique(hidden.sample, return_inverse=True)
    if len(samples) < _FOLDS:
        return Probabilities(gamma)
    provenance: dict[str, object] = {
        "num_samples": len(samples), "num_alleles": len(hidden), "seed": seed,
    }  # fmt: skip
    trusted = Probabilities(gamma, provenance=provenance, trust=fit_residual_trust(hidden))
    if trusted.trust and not any(trusted.trust):
        return trusted  # copying as it is, whose P(ALT) is a posterior
    logit, af, *offset = (
        torch.from_numpy(x).double()
        for x in (hidden.logit, hidden.af, hidden.offset)
        if x is not None
    )
    logit = trusted.logit(logit, af, *offset)
    terms = calibration_terms(logit, af)
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
        if hidden.offset is not None:  # copying is calibrated: only what lowers its error is better
            squares = (sigmoid(logit.numpy()) - y) ** 2 - (sigmoid(z) - y) ** 2
            if not _is_gain(squares, owner):
                continue
        if gain.mean() > error and (best is None or gain.mean() > best[0]):
            best = float(gain.mean()), form, gain
    if best is None:
        return trusted
    found = tuple(_fit(x, y, best[1]).tolist())
    if not is_increasing(found):
        return trusted
    told = {
        "fitted": list(best[1]),
        "log_loss": float(before.mean()),
        "log_loss_calibrated": float(before.mean() - best[0]),
    }
    return replace(trusted, coefficients=found, provenance=provenance | told)


def fit_residual_trust(hidden: HiddenAlleles) -> tuple[float, ...]:
    """How far a model is to be trusted where it differs from copying.

    Returns
    -------
    A number for each class of minor allele frequency, see :mod:`ragimpute.model.trust`; all are 0
    if with them the held-out samples' squared error does not fall by two standard errors, so that
    copying stays as it is. None if the model does not start from copying.
    """
    if hidden.offset is None:
        return ()
    turn = np.where(hidden.af > 0.5, np.float32(-1), np.float32(1))
    y = np.where(hidden.af > 0.5, 1 - hidden.label, hidden.label)
    maf = np.minimum(hidden.af, 1 - hidden.af)
    offset, residual = turn * hidden.offset, turn * (hidden.logit - hidden.offset)
    moved = residual != 0  # the others say nothing
    offset, residual, y = offset[moved], residual[moved], y[moved]
    maf_logit, sample = np.log(maf[moved] / (1 - maf[moved])), hidden.sample[moved]
    share = fit_trust(offset, residual, y, maf_logit, sample).share
    told = offset + share[classes_of(maf_logit)] * residual
    gain = (sigmoid(offset) - y) ** 2 - (sigmoid(told) - y) ** 2
    return tuple(float(x) if _is_gain(gain, sample) else 0.0 for x in share)


def _is_gain(gain: np.ndarray, sample: np.ndarray) -> bool:
    """Whether what alleles gain, shape (n,), is above 0 by two standard errors over samples."""
    samples, owner = np.unique(sample, return_inverse=True)
    if len(samples) < 2:
        return False
    each = np.bincount(owner, gain)
    return bool(each.mean() > 2 * each.std(ddof=1) / np.sqrt(len(each)))


def _fit(x: np.ndarray, y: np.ndarray, form: Sequence[str]) -> np.ndarray:
    """The coefficients of all terms, of which only those of ``form`` are fitted."""
    free = np.isin(TERMS, form)
    found = maximise(x, y, np.ones(len(y)), _NONE, free, _RIDGE)
    if is_increasing(tuple(found.tolist())):
        return found
    return _fit(x, y, form[:-1]) if len(form) > 1 else _NONE
