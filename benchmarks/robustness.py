"""Small panels, dense and sparse targets, missing genotypes: a model beside plain Li-Stephens.

Run: python benchmarks/robustness.py DATA_FOLDER -o DIR [--model MODEL]
     python benchmarks/robustness.py --example -o DIR

The folder is one of compare.py. Panels of fewer samples are drawn from its own; half of all sites,
three and one are typed in place of an array; a tenth and half of the genotypes are hidden. Each is
imputed by the model and by the same copying without a network; the table goes to robustness.md. To
judge weights by a panel that they were not trained on, name a folder that "make weights" left,
weights-work/without_NAME.
"""

from __future__ import annotations

import argparse
import gzip
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compare import DataSet, open_example, open_folder
from comparison_page import markdown_table
from vcf_tools import bcftools

from ragimpute.accuracy.evaluate import evaluate
from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.accuracy.scores import Evaluation
from ragimpute.imputation.impute import impute
from ragimpute.model.checkpoint import write_text
from ragimpute.model.folder import CONFIG
from ragimpute.model.folder import open_folder as open_model

SIZES = (14, 28, 60, 100)
MISSING = (0.1, 0.5)


@dataclass(frozen=True)
class Case:
    """A panel and a target that is not as they should be.

    Attributes
    ----------
    target
        What is imputed; ``typed`` are the sites that are not scored.
    """

    name: str
    panel: Path
    target: Path
    typed: Path


def cases(data: DataSet, folder: Path, seed: int = 1) -> Iterator[Case]:
    """Write the files of each case into a folder, and name them."""
    samples = bcftools("query", "-l", str(data.panel)).split()
    for size in SIZES:
        if size >= len(samples):
            continue
        chosen = ",".join(sorted(random.Random(seed).sample(samples, size)))
        panel = folder / f"{size}.bcf"
        bcftools("view", "-s", chosen, "-c", "1:minor", "-o", str(panel), str(data.panel))
        for density, target in data.targets.items():
            yield Case(f"{size} samples, {density}", panel, target, target)
    head, rows = _lines(data.truth)
    several = {"half of all sites typed": rows[::2]}
    middle = len(rows) // 2
    several["three typed sites in all"] = rows[middle : middle + 3]
    several["one typed site in all"] = rows[middle : middle + 1]
    for number, (name, kept) in enumerate(several.items()):
        target = folder / f"typed{number}.vcf.gz"
        _write(target, head, kept)
        yield Case(name, data.panel, target, target)
    for share in MISSING:
        for density, full in data.targets.items():
            rng = random.Random(seed)
            head, rows = _lines(full)
            cells = [row.split("\t") for row in rows]
            hidden = [
                "\t".join(
                    [*row[:9], *("./." if rng.random() < share else cell for cell in row[9:])]
                )
                for row in cells
            ]
            target = folder / f"missing.{share}.{density}.vcf.gz"
            _write(target, head, hidden)
            yield Case(f"{share:.0%} of genotypes missing, {density}", data.panel, target, full)


def score(case: Case, data: DataSet, model: Path | str, out: Path) -> Evaluation:
    """Impute a case, and compare with the truth."""
    impute(case.target, case.panel, out, model=model, genetic_map=data.genetic_map)
    return evaluate(data.truth, out, case.panel, typed=case.typed)


def table(rows: list[tuple[str, Evaluation, Evaluation]]) -> str:
    """r2 over all sites without and with the network, and the difference by MAF bin, in 1e-4."""
    head = ["", "Li–Stephens", "model", *(f"≤ {edge:g}" for edge in MAF_BINS[1:])]
    text = [head]
    for name, plain, found in rows:
        gains = [1e4 * (b.r2 - a.r2) for a, b in zip(plain.bins, found.bins, strict=True)]
        text.append(
            [name, f"{plain.overall.r2:.5f}", f"{found.overall.r2:.5f}",
             *("–" if gain != gain else f"{gain:+.0f}" for gain in gains)]
        )  # fmt: skip
    return markdown_table(text)


def _lines(path: Path) -> tuple[list[str], list[str]]:
    """Header and rows of a VCF or BCF, without line ends."""
    lines = bcftools("view", str(path)).splitlines()
    return [x for x in lines if x.startswith("#")], [x for x in lines if not x.startswith("#")]


def _write(path: Path, head: list[str], rows: list[str]) -> None:
    with gzip.open(path, "wt", compresslevel=1) as file:
        file.write("\n".join([*head, *rows, ""]))


def main() -> None:
    """Run all cases."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, help="data folder")
    parser.add_argument("--example", action="store_true", help="the data that the package carries")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for all files")
    parser.add_argument("--model", default="default", help="name or folder (default: default)")
    args = parser.parse_args()
    if args.example == (args.data is not None):
        parser.error("give a data folder, or --example")
    args.out.mkdir(parents=True, exist_ok=True)
    data = open_example() if args.example else open_folder(args.data)
    plain = args.out / "plain"
    plain.mkdir(exist_ok=True)
    shutil.copy(open_model(args.model).path / CONFIG, plain / CONFIG)
    rows = []
    for case in cases(data, args.out):
        imputed = args.out / "imputed.vcf.gz"
        rows.append((case.name, *(score(case, data, m, imputed) for m in (plain, args.model))))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    write_text(args.out / "robustness.md", table(rows) + "\n")


if __name__ == "__main__":
    main()
