"""Train one model and write what it took: parameters, time of each step, memory, figures.

Run: python benchmarks/train_once.py PANEL.h5 PRESET OUT_FOLDER [key=value ...]

A program of its own, so that ``measure`` can say what memory one training takes. It trains on one
CPU thread, and OUT_FOLDER/once.json holds what :func:`train_once` returns.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path

from ragimpute.config import load_config
from ragimpute.model.checkpoint import write_text
from ragimpute.training.trainer import train

RESULT = "once.json"


class StepClock:
    """Seconds that each training step took, from the progress calls of ``train``.

    A step lies between two calls of the same epoch; the first of an epoch is left out, because
    validation goes before it. CPU time (user and system, of all threads) is what counts: on a
    machine with other work to do, wall time is mostly theirs.
    """

    def __init__(self) -> None:
        self.cpu_s: list[float] = []
        self.wall_s: list[float] = []
        self._last: tuple[str, float, float] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        if stage.startswith("epoch"):
            if self._last is not None and self._last[0] == stage:
                self.cpu_s.append(cpu - self._last[1])
                self.wall_s.append(wall - self._last[2])
            self._last = stage, cpu, wall


def peak_mib() -> float:
    """Peak resident memory of this process until now, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def train_once(panel: Path, preset: str, out: Path, overrides: list[str]) -> dict:
    """Train, and say what it took.

    Returns
    -------
    ``parameters``; ``steps``; ``step_cpu_s`` and ``step_wall_s``, the median step;
    ``mean_step_cpu_s``, which also counts the steps that encode references anew; ``start_mib``,
    peak memory before training began, of the imported libraries; ``figures``, the last epoch's row
    of metrics.csv.

    Raises
    ------
    RagimputeError
        If an input cannot be used.
    ValueError
        If no epoch had two steps.
    """
    config = load_config(preset, overrides=overrides)
    before, clock = peak_mib(), StepClock()
    result = train([panel], config, out, device="cpu", threads=1, force=True, progress=clock)
    if not clock.cpu_s:
        raise ValueError(f"{result.steps} steps in {config.train.epochs} epochs: nothing to time")
    return {
        "parameters": result.num_parameters,
        "steps": result.steps,
        "step_cpu_s": statistics.median(clock.cpu_s),
        "step_wall_s": statistics.median(clock.wall_s),
        "mean_step_cpu_s": statistics.fmean(clock.cpu_s),
        "start_mib": before,
        "figures": {k: v if v == v else None for k, v in result.history[-1].items()},
    }


if __name__ == "__main__":
    panel, preset, out, *overrides = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    found = train_once(Path(panel), preset, Path(out), overrides)
    write_text(Path(out) / RESULT, json.dumps(found) + "\n")
