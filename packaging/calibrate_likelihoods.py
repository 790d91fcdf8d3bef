#!/usr/bin/env python3
"""Calibrate the DR2 of targets with genotype likelihoods: models/likelihoods/dr2.json.

Run: make likelihood-dr2 PANELS="PANEL.h5 ..."

Samples are left out of each panel, two groups with reads of two depths between 0.05 and 8, and
imputed from the rest. The panels are those that make_weights.py trains on: it leaves them in its
working folder, real ones, subsets of them, and simulated ones. What was measured on a panel is kept
in --keep, so that a run that was interrupted goes on. It is measured again if the network or the
code of ragimpute/likelihoods has changed since.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from itertools import repeat
from pathlib import Path

import numpy as np

from ragimpute import likelihoods
from ragimpute.accuracy.dr2 import FILE, PANEL_TERMS
from ragimpute.config import models_dir
from ragimpute.model.checkpoint import write_text
from ragimpute.panel.reader import Panel
from ragimpute.training.dr2_fit import ScoredSites, fit_scored
from ragimpute.training.reads_dr2_fit import score_reads

DRAWS = 2  # groups of samples of a panel, each with a depth of its own
COLUMNS = ("estimate", "minor", "num", "panel", "true", "maf")


def version() -> str:
    """What tells whether samples would be imputed as they were: a hash of code and network."""
    code = sorted(Path(likelihoods.__file__).parent.glob("*.py"))
    files = [*code, models_dir() / "likelihoods" / "weights.safetensors"]
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def measured(path: Path, keep: Path, seed: int) -> tuple[str, list[ScoredSites]]:
    """Checksum of a panel, and what was measured on it, now or before."""
    with Panel.open(path) as panel:
        kept = keep / f"{panel.checksum}.{version()}.{seed}.npz"
        if not kept.exists():
            parts = score_reads(panel, num_draws=DRAWS, seed=seed)
            columns = {
                f"{i}.{name}": getattr(part, name)
                for i, part in enumerate(parts)
                for name in COLUMNS
            }
            np.savez(kept, num=len(parts), **columns)
        with np.load(kept) as found:
            parts = [
                ScoredSites(*(found[f"{i}.{name}"] for name in COLUMNS))
                for i in range(int(found["num"]))
            ]
        print(f"{path.name}: {len(parts)} groups", flush=True)
        return panel.checksum, parts


def main(arguments: list[str] | None = None) -> None:
    """Measure, fit, and write the calibration."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("panel", nargs="+", type=Path)
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("weights-work/likelihood-dr2"),
        help="folder of what was measured",
    )
    parser.add_argument("--out", type=Path, default=models_dir() / "likelihoods" / FILE)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    given.keep.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(given.processes) as pool:
        found = list(
            pool.map(measured, given.panel, repeat(given.keep), repeat(given.seed), chunksize=1)
        )
    parts = [part for _, several in found for part in several if len(part.true)]
    for part in parts:  # imputing from likelihoods asks the panel for no terms of its own
        part.panel[:, : len(PANEL_TERMS)] = 0
    calibration = fit_scored(parts, [checksum for checksum, _ in found], seed=given.seed)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(given.out, calibration.as_json())
    print(f"{given.out}: {len(parts)} groups, {sum(len(p.true) for p in parts):,} sites")


if __name__ == "__main__":
    main()
