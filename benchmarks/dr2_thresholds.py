"""What a threshold of DR2 keeps, and how accurate it is: the table of docs/results.md.

Run: python benchmarks/dr2_thresholds.py --truth truth.bcf --imputed x.vcf.gz --panel panel.bcf

Sites are untyped (INFO/IMP), carried in the panel, and vary among the targets, since r2 exists for
no others. They are sorted by their minor allele frequency in the panel. Each cell is the share of
the sites that the threshold keeps, and the mean true r2 of these.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from comparison_page import markdown_table
from cyvcf2 import VCF

from ragimpute.accuracy.metrics import site_r2
from ragimpute.errors import InputError

THRESHOLDS = (0.0, 0.3, 0.5, 0.8, 0.9)
EDGES = (0.0, 0.005, 0.01, 0.05, 0.5)

Key = tuple[int, str, str]


def read_counts(path: Path) -> tuple[list[str], dict[Key, np.ndarray]]:
    """Samples, and the number of ALT alleles of each at each site of one ALT."""
    file = VCF(str(path))
    counts = {
        (record.POS, record.REF, record.ALT[0]): record.genotype.array()[:, :2].sum(axis=1)
        for record in file
        if len(record.ALT) == 1
    }
    return file.samples, counts


def compare(truth: Path, imputed: Path, panel: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MAF in the panel, DR2 and true r2 of every untyped site that varies among the targets."""
    names, known = read_counts(truth)
    _, carried = read_counts(panel)
    file = VCF(str(imputed))
    columns = [names.index(sample) for sample in file.samples]
    rows = []
    for record in file:
        key = (record.POS, record.REF, record.ALT[0])
        if not record.INFO.get("IMP") or key not in known:
            continue
        true = known[key][columns].astype(float)
        if true.min() == true.max():
            continue
        alt, haplotypes = int(carried[key].sum()), 2 * len(carried[key])
        dosage = record.format("DS")[:, 0].astype(float)
        found = float(site_r2(dosage[None], true[None])[0])
        rows.append(
            (
                min(alt, haplotypes - alt) / haplotypes,
                record.INFO["DR2"],
                0.0 if np.isnan(found) else found,
            )
        )
    if not rows:
        raise InputError(f"{imputed} has no untyped site that varies in {truth}")
    maf, dr2, r2 = np.array(rows).T
    return maf, dr2, r2


def table(maf: np.ndarray, dr2: np.ndarray, r2: np.ndarray) -> list[list[str]]:
    """A header, and a row for each bin of MAF."""
    rows = [["MAF in the panel", "sites", *(f"DR2 ≥ {t:g}" if t else "all" for t in THRESHOLDS)]]
    for low, high in pairwise(EDGES):
        inside = (maf > low) & (maf <= high)
        kept = [inside & (dr2 >= threshold) for threshold in THRESHOLDS]
        cells = [
            f"{rows_kept.sum() / max(inside.sum(), 1):.0%}, r² {r2[rows_kept].mean():.2f}"
            if rows_kept.any()
            else "–"
            for rows_kept in kept
        ]
        rows.append([f"{low:g} – {high:g}", f"{inside.sum():,}", *cells])
    return rows


def main(arguments: list[str]) -> None:
    """Print the table that the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="dr2_thresholds.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("truth", "imputed", "panel"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args(arguments)
    print(markdown_table(table(*compare(options.truth, options.imputed, options.panel))))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"Error: {error.message}")
