"""Errors that end a training run early: what happened, and which settings to change."""

from __future__ import annotations

import math
from pathlib import Path

from ragimpute.config import RunConfig
from ragimpute.errors import ModelError
from ragimpute.training.state import TrainingState


def check_loss(loss: float, state: TrainingState, out: Path) -> None:
    """Stop a run whose loss is no longer finite.

    Parameters
    ----------
    loss
        Of a batch, the mean over processes.
    state, out
        Where the run stands; the model folder.

    Raises
    ------
    ModelError
        If the loss is NaN or infinite; names the step and the weights that are kept.
    """
    if math.isfinite(loss):
        return
    kept = "none" if math.isinf(state.best) else "the initial weights"
    if state.best_epoch:
        kept = f"epoch {state.best_epoch}'s weights"
    raise ModelError(
        f"the loss is {loss} at step {state.step + 1} (epoch {state.epoch + 1}); "
        f"last good checkpoint in {out}: {kept}",
        hint="lower optimizer.lr, raise schedule.warmup_steps, or set train.precision=no",
    )


def out_of_memory(config: RunConfig) -> ModelError:
    """The error for a lack of memory: it names the settings that this kind of model has."""
    data, model, train = config.data, config.model, config.train
    if model.fusion.name == "copying":
        used = {
            "train.batch_size": train.batch_size,
            "data.max_haplotypes": data.max_haplotypes,
            "data.num_arrays": data.num_arrays,
        }
        if model.copying.num_context_layers:
            used["model.copying.max_context"] = model.copying.max_context
        more = ""
    else:
        used = {
            "train.batch_size": train.batch_size,
            "data.num_retrieved": data.num_retrieved,
            "data.max_sites": data.max_sites,
        }
        settings = [] if model.encoder.checkpointing else ["model.encoder.checkpointing=true"]
        if model.reference.chunk == "auto":
            settings.append("model.reference.chunk=512")
        more = f", or set {' and '.join(settings)}" if settings else ""
    first, *rest = used
    return ModelError(
        f"out of memory with {', '.join(f'{name}={value}' for name, value in used.items())}",
        hint=f"lower {first} (and raise train.accumulation), then {' or '.join(rest)}{more}",
    )
