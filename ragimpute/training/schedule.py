"""Learning-rate schedules: factors of the base rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

from ragimpute.config import ScheduleConfig


def warmup_steps(config: ScheduleConfig, total_steps: int) -> int:
    """Steps of the warm-up: ``warmup_share`` of the whole run's if that is set."""
    if config.warmup_share is None:
        return config.warmup_steps
    return round(config.warmup_share * total_steps)


def rate_factor(config: ScheduleConfig, total_steps: int) -> Callable[[int], float]:
    """The factor of the base learning rate at a step, counted from 0.

    Parameters
    ----------
    config
        Its name, warm-up and smallest factor. Each schedule rises linearly over the warm-up;
        then "inverse_sqrt" falls as sqrt(warm-up / step), as in the paper, "cosine" falls as half
        a cosine to ``min_factor`` at ``total_steps``, and "constant" stays.
    total_steps
        Optimiser steps of the whole run; > 0.

    Returns
    -------
    A function of the step, in [0, 1].

    References
    ----------
    Vaswani et al. 2017 (inverse square root); Loshchilov & Hutter 2017 (cosine).
    """
    if total_steps <= 0:
        raise ValueError(f"total_steps {total_steps} is not positive")
    warmup = warmup_steps(config, total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if config.name == "inverse_sqrt":
            return max(config.min_factor, math.sqrt(max(1, warmup) / max(1, step)))
        if config.name == "cosine":
            share = (step - warmup) / max(1, total_steps - warmup)
            wave = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
            return config.min_factor + (1 - config.min_factor) * wave
        return 1.0

    return factor
