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

    A step lies between two calls. The first step of an epoch begins where the validation before it
    ends, as a batch may be made together with those that follow; the first step of the run is left
    out, because much is done once before it. CPU time (user and system, of all threads) is what
    counts: on a machine with other work to do, wall time is mostly theirs.

    Attributes
    ----------
    cpu_s
        Of each epoch that had a step, by its stage: the seconds of its steps.
    """

    def __init__(self) -> None:
        self.cpu_s: dict[str, list[float]] = {}
        self._last: float | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        cpu = time.process_time()
        if stage.startswith("epoch"):
            steps = self.cpu_s.setdefault(stage, [])
            if self._last is not None:
                steps.append(cpu - self._last)
        if self.cpu_s:
            self._last = cpu

    def steps(self) -> list[float]:
        """The steps of whole epochs: all but the first, whose first step is not known.

        Those of the first epoch if there is no other.
        """
        first, *rest = self.cpu_s.values() or [[]]
        return [step for epoch in rest for step in epoch] if rest else first


def peak_mib() -> float:
    """Peak resident memory of this process until now, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def train_once(panel: Path, preset: str, out: Path, overrides: list[str]) -> dict:
    """Train, and say what it took.

    Returns
    -------
    ``parameters``; ``steps``; ``step_cpu_s``, the mean step, with its share of what is done for
    many steps at once (to encode references, to copy); ``start_mib``, peak memory before training
    began, of the imported libraries; ``figures``, the last epoch's row of metrics.csv.

    Raises
    ------
    RagimputeError
        If an input cannot be used.
    ValueError
        If there was only one step.
    """
    config = load_config(preset, overrides=overrides)
    before, clock = peak_mib(), StepClock()
    result = train(
        [panel], config, out, device="cpu", threads=1, force=True, calibrate=False, progress=clock
    )
    steps = clock.steps()
    if not steps:
        raise ValueError(f"{result.steps} steps in {config.train.epochs} epochs: nothing to time")
    return {
        "parameters": result.num_parameters,
        "steps": result.steps,
        "step_cpu_s": statistics.fmean(steps),
        "start_mib": before,
        "figures": {k: v if v == v else None for k, v in result.history[-1].items()},
    }


if __name__ == "__main__":
    panel, preset, out, *overrides = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    found = train_once(Path(panel), preset, Path(out), overrides)
    write_text(Path(out) / RESULT, json.dumps(found) + "\n")
