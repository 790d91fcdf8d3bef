"""Impute at each level of processors, and say where the outputs differ.

Run: python benchmarks/levels.py DATA_FOLDER -o DIR [--density dense]
     python benchmarks/levels.py --example -o DIR

The folder is one of compare.py. The first run is at the highest level that this machine has; the
others compile kernels for a lower one (docs/kernels.md) and run on the same machine, with the
matrix products of numpy's OpenBLAS as they are on a processor of that level. The table goes to
levels.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from compare import DataSet, open_example, open_folder
from comparison_page import markdown_table

from ragimpute.accuracy.evaluate import evaluate
from ragimpute.io.vcf.read.dosages import read_dosages
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.kernels.processor import this_processor
from ragimpute.model.checkpoint import write_text

# Levels, highest first, and OpenBLAS's name of a processor of each.
LEVELS = {"x86-64-v4": "SkylakeX", "x86-64-v3": "Haswell", "x86-64-v2": "Nehalem",
          "generic": "Prescott"}  # fmt: skip


def impute_at(level: str, data: DataSet, density: str, folder: Path) -> Path:
    """Impute with kernels of a level; returns the output."""
    out = folder / f"{density}.{level}.vcf.gz"
    command = [
        sys.executable, "-m", "ragimpute", "impute", str(data.targets[density]),
        "--panel", str(folder / "panel.h5"), "-o", str(out), "--quiet",
    ]  # fmt: skip
    environment = os.environ | {
        "NUMBA_CPU_NAME": level,
        "NUMBA_CACHE_DIR": str(folder / "kernels"),
        "OPENBLAS_CORETYPE": LEVELS[level],
    }
    subprocess.run(command, check=True, env=environment)
    return out


def compare_levels(data: DataSet, folder: Path) -> list[list[str]]:
    """Rows of the table, with its header."""
    prepare = [
        sys.executable, "-m", "ragimpute", "prepare", str(data.panel), "--map",
        str(data.genetic_map), "-o", str(folder / "panel.h5"), "--force", "--quiet",
    ]  # fmt: skip
    subprocess.run(prepare, check=True)
    highest = this_processor().level
    names = list(LEVELS)
    rows = [["data", "level", "DS that differ", "most", "mean", "GT that differ", "r2"]]
    for density, target in data.targets.items():
        first = None
        for level in names[names.index(highest) :] if highest in names else names:
            out = impute_at(level, data, density, folder)
            dosage = read_dosages(out).dosage
            genotypes = read_target(out).alleles
            r2 = evaluate(data.truth, out, folder / "panel.h5", typed=target).overall.r2
            if first is None:
                first = dosage, genotypes
            apart = np.abs(dosage - first[0])
            other = (genotypes != first[1]).any(axis=2)
            rows.append([
                f"{data.name} {density}", level, f"{np.mean(apart > 0):.4%}", f"{apart.max():.3f}",
                f"{apart.mean():.2g}", f"{int(other.sum()):,} of {other.size:,}", f"{r2:.5f}",
            ])  # fmt: skip
    return rows


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", nargs="?", type=Path, help="folder; see the head of this file")
    parser.add_argument("--example", action="store_true", help="the data that the package carries")
    parser.add_argument("--density", action="append", help="of the target; repeatable")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    if (args.data is None) == (not args.example):
        parser.error("give a data folder or --example")
    args.output.mkdir(parents=True, exist_ok=True)
    data = open_example() if args.example else open_folder(args.data, args.density)
    table = markdown_table(compare_levels(data, args.output), texts=2)
    write_text(args.output / "levels.md", table + "\n")
    print(table)


if __name__ == "__main__":
    main()
