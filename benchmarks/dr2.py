"""DR2 beside the true r2, for all targets and for few of them.

Run: python benchmarks/dr2.py DATA_FOLDER ... [--markdown PAGE]

The folders are those of compare.py. Mean DR2 less mean true r2 is given in bins of the panel's MAF,
over untyped sites whose truth varies among all targets; the true r2 is always that over all
targets, as among few of them hardly any rare allele is there. Few targets are drawn several times.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from compare import DataSet, open_folder
from comparison_page import markdown_table

import ragimpute as ri
from ragimpute.accuracy.metrics import MAF_BINS, maf_bin, site_r2
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.model.checkpoint import write_text

SIZES = (1, 5, 20)
DRAWS = 4
LEAST_SITES = 20  # bins of fewer sites say nothing


def some_samples(target: Target, chosen: np.ndarray) -> Target:
    """A target of the samples ``chosen``, shape (n,), int."""
    return replace(
        target, samples=[target.samples[i] for i in chosen], alleles=target.alleles[:, chosen],
        phased=target.phased[:, chosen],
        phase_set=None if target.phase_set is None else target.phase_set[:, chosen],
    )  # fmt: skip


def differences(
    panel: ri.Panel, target: Target, truth: Target, *, model: str, threads: int, seed: int = 1
) -> Iterator[tuple[str, np.ndarray]]:
    """Mean DR2 less mean true r2 of each MAF bin, shape (bins,), for each number of targets.

    NaN in bins of fewer than ``LEAST_SITES`` sites. The truth must have all sites of the panel.
    """
    true_at = {key: i for i, key in enumerate(truth.sites.keys())}
    row = np.array([true_at.get(key, -1) for key in panel.sites.keys()])
    with ri.Imputer(panel, model, threads=threads) as imputer:
        whole = imputer.impute(target)
        true = truth.alleles[row].clip(0).sum(axis=2)
        r2 = site_r2(whole.dosages, true)
        scored = ~np.isnan(r2) & ~whole.typed & (row >= 0)
        group = maf_bin(np.minimum(panel.af, 1 - panel.af))

        def difference(dr2: np.ndarray) -> np.ndarray:
            rows = [scored & (group == i) for i in range(len(MAF_BINS) - 1)]
            return np.array(
                [np.mean(dr2[x] - r2[x]) if x.sum() >= LEAST_SITES else np.nan for x in rows]
            )

        rng = np.random.default_rng(seed)
        for size in SIZES:
            drawn = [rng.permutation(len(target.samples))[:size] for _ in range(DRAWS)]
            found = [
                difference(imputer.impute(some_samples(target, chosen)).dr2) for chosen in drawn
            ]
            yield str(size), np.mean(found, axis=0)
        yield f"all {len(target.samples)}", difference(whole.dr2)


def rows_of(data: DataSet, *, model: str, threads: int) -> Iterator[list[str]]:
    """The rows of the table for one folder."""
    truth = ri.read_target(data.truth)
    with TemporaryDirectory() as folder:
        panel_h5 = Path(folder) / "panel.h5"
        ri.prepare(data.panel, panel_h5, genetic_map=data.genetic_map, threads=threads)
        with ri.Panel.open(panel_h5) as panel:
            for density, path in data.targets.items():
                target = ri.read_target(path)
                if not target.phased.all():
                    continue
                for number, found in differences(
                    panel, target, truth, model=model, threads=threads
                ):
                    cells = ["" if np.isnan(x) else f"{x:+.3f}" for x in found]
                    yield [data.name, density, number, *cells]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="write the table to a file")
    options = parser.parse_args()
    head = ["data", "typed sites", "targets", *(f"≤ {edge:g}" for edge in MAF_BINS[1:])]
    rows = [
        row
        for folder in options.folder
        for row in rows_of(open_folder(folder), model=options.model, threads=options.threads)
    ]
    text = markdown_table([head, *rows], texts=3)
    if options.markdown is not None:
        write_text(options.markdown, text + "\n")
    print(text)


if __name__ == "__main__":
    main()
