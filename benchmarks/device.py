"""What copying on a device takes beside the kernels: seconds of each part, and how results differ.

Run: python benchmarks/device.py panel.h5 target.vcf.gz [--device cuda] [--runs 3]

The target is imputed by the kernels and on the device in turn, in one process and with one thread;
the first run of each is not counted, as it loads libraries. Before a part of the device's work is
timed, what was begun before is waited for. ``--device torch-cpu`` runs the same code on the CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import cyvcf2
import numpy as np
import torch

from ragimpute.copying.torch_copying import TorchCopying
from ragimpute.evidence import on_device
from ragimpute.imputation.impute import impute
from ragimpute.retrieval.nearest import NearestRows
from ragimpute.retrieval.torch_nearest import TorchNearest

#: The parts of the two heavy stages: what is called, and how the table calls it.
PARTS: tuple[tuple[Any, str, str], ...] = (
    (NearestRows, "search", "retrieve: search, kernels"),
    (TorchNearest, "search", "retrieve: search, device"),
    (TorchCopying, "forward", "copy: forward, device"),
    (TorchCopying, "back", "copy: back and P(ALT), device"),
    (on_device, "describe_given_masses", "copy: describe pairs in doubt, CPU"),
)
#: Dosages that differ by more than this are counted; they are written with three decimals.
APART = 0.0021
# More than a run needs: if memory were short, windows would be cut by what this process holds by
# then, which changes dosages.
_MEMORY = 2**33


def wait() -> None:
    """Wait for what devices do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add the time of each of :data:`PARTS` to ``seconds`` within the block."""
    before = [getattr(owner, name) for owner, name, _ in PARTS]

    def wrapped(call: Callable[..., Any], label: str) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            wait()
            start = time.perf_counter()
            made = call(*arguments, **options)
            wait()
            seconds[label] = seconds.get(label, 0.0) + time.perf_counter() - start
            return made

        return measured

    for (owner, name, label), call in zip(PARTS, before, strict=True):
        setattr(owner, name, wrapped(call, label))
    try:
        yield
    finally:
        for (owner, name, _), call in zip(PARTS, before, strict=True):
            setattr(owner, name, call)


def run(panel: str, target: str, out: Path, device: str, model: str) -> dict[str, float]:
    """Impute on a device; returns the seconds of the stages and parts, and of all."""
    parts: dict[str, float] = {}
    start = time.perf_counter()
    with timed(parts):
        done = impute(
            target, panel, out, model=model, device=device, fields=("GT", "DS"),
            max_memory=_MEMORY,
        )  # fmt: skip
    return {**done.seconds, **parts, "all": time.perf_counter() - start}


def dosages(path: Path) -> np.ndarray:
    """DS of all records and samples, (sites, samples)."""
    return np.stack([record.format("DS")[:, 0] for record in cyvcf2.VCF(str(path))])


def table(by_kernels: list[dict[str, float]], by_device: list[dict[str, float]]) -> list[str]:
    """Lines with the median seconds of each stage and part: kernels, device, and their ratio."""
    names = list(dict.fromkeys(name for one in (*by_kernels, *by_device) for name in one))
    lines = ["| stage | kernels, s | device, s | ratio |", "| --- | ---: | ---: | ---: |"]
    for name in [name for name in names if name != "all"] + ["all"]:
        middle = [median(x.get(name, 0.0) for x in runs) for runs in (by_kernels, by_device)]
        if max(middle) < 0.005:
            continue
        shown = [f"{x:.2f}" if x else "" for x in middle]
        ratio = f"{middle[0] / middle[1]:.2f}" if min(middle) else ""
        lines.append(f"| {name} | {shown[0]} | {shown[1]} | {ratio} |")
    return lines


def main(words: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("panel", help="panel.h5")
    parser.add_argument("target", help="phased VCF or BCF")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or torch-cpu")
    parser.add_argument("--model", default="default")
    parser.add_argument("--runs", type=int, default=3, help="pairs of runs that count")
    chosen = parser.parse_args(words)
    taken: dict[str, list[dict[str, float]]] = {"cpu": [], chosen.device: []}
    with tempfile.TemporaryDirectory() as folder:
        outs = {device: Path(folder) / f"{i}.bcf" for i, device in enumerate(taken)}
        for _ in range(chosen.runs + 1):
            for device, runs in taken.items():
                runs.append(run(chosen.panel, chosen.target, outs[device], device, chosen.model))
        apart = np.abs(np.diff([dosages(out) for out in outs.values()], axis=0))
    where = chosen.device
    if where.startswith("cuda"):
        where += f" ({torch.cuda.get_device_name(torch.device(where))})"
    print(f"{where} against the kernels, torch {torch.__version__}, 1 thread, {chosen.runs} pairs:")
    print("\n".join(table(taken["cpu"][1:], taken[chosen.device][1:])))
    print(
        f"dosages: {apart.size:,}, of which {(apart > APART).sum():,} differ by more than .002; "
        f"at most {apart.max():.3f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
