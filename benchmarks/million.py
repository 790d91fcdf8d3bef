"""What panels of up to a million haplotypes cost, and what they gain: a table and a page.

Run: python benchmarks/million.py DIR [--markdown docs/benchmarks-million.md]

DIR is what simulate_million.py made: panels of the same trees, one within the other, and targets.
Each target file is imputed from each panel on one thread, without and with an index. CPU seconds,
wall time and peak memory are those of the whole command; accuracy is aggregate r2 of the largest
target file by the minor allele frequency in the largest panel. A site that a panel lacks counts as
imputed without any ALT.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from compare import describe_command, describe_machine
from comparison_page import about_table, markdown_table
from cyvcf2 import VCF
from measure import measure

from ragimpute import __version__
from ragimpute.model.checkpoint import write_text
from ragimpute.panel.reader import Panel

EDGES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.5)
_PAGE = """# A million haplotypes

This page says what panels of up to {largest} haplotypes cost, and what they gain. The data are
simulated people of one region, nine tenths of them Europeans and one tenth Africans; the smaller
panels are the first samples of the largest. The targets are in none of the panels. They were made,
and measured on {date}, by

```bash not-run
python benchmarks/simulate_million.py -o {folder}
{command}
```

## Cost

Runs of each: {runs}; the table has the one that took the least CPU time. They had one thread, and
no `--max-memory` unless the table says otherwise. Other work ran on the machine at the
same time: compare CPU seconds, not wall time. *Ratio* is the CPU time beside that of the smallest
panel with as many targets. A larger panel has more sites, too ({sites}), and the output has a row
for each of them. *With an index*: `impute --index` of what `ragimpute index --typed-sites` made of
the panel before; the output has the same bytes.

{costs}

The peak counts what is mapped of an index's file, too, which the system may take back; it maps
large parts of a file that was just written.

## Indexes

What `ragimpute index panel.h5 --typed-sites target.bcf` took, once for all targets.

{indexes}

## Accuracy

Aggregate r² at untyped sites of {targets} targets, by the minor allele frequency in the largest
panel. A site that a smaller panel lacks counts as imputed without any copy of its ALT.

{accuracy}

## Data

The panels were written straight to `panel.h5`, without a VCF. *Prepare* is the CPU time for that,
with the time that it takes to get genotypes from the trees.

{data}

| about | |
| --- | --- |
{about}
"""


def numbers(folder: Path, pattern: str) -> list[int]:
    """The numbers in the names of the files ``pattern``, ascending."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob(pattern))


def make_index(folder: Path, panel: int, target: int) -> dict:
    """Make an index of a panel for the sites of a target file, and say what it took."""
    out = folder / f"panel-{panel}.index"
    command = [
        str(Path(sys.executable).parent / "ragimpute"), "index", str(folder / f"panel-{panel}.h5"),
        "--typed-sites", str(folder / f"target-{target}.bcf"), "-o", str(out), "--force",
    ]  # fmt: skip
    used = measure(command, log=str(folder / "index.log"))
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {"panel": panel, "bytes": size, **used}


def impute(
    folder: Path, panel: int, target: int, max_memory: str | None = None, *,
    indexed: bool = False, runs: int = 1,
) -> dict:  # fmt: skip
    """Impute a target file from a panel some ``runs``, and say what the cheapest took.

    Raises
    ------
    ValueError
        If a run with an index wrote other records than the one without, which came before.
    """
    plain = folder / f"imputed-{panel}-{target}.bcf"
    out = folder / f"indexed-{panel}-{target}.bcf" if indexed else plain
    bound = [] if max_memory is None else ["--max-memory", max_memory]
    bound += ["--index", str(folder / f"panel-{panel}.index")] if indexed else []
    command = [
        str(Path(sys.executable).parent / "ragimpute"), "impute",
        str(folder / f"target-{target}.bcf"), "--panel", str(folder / f"panel-{panel}.h5"),
        "-o", str(out), "--threads", "1", *bound,
    ]  # fmt: skip
    taken = [measure(command, log=str(folder / "impute.log")) for _ in range(runs)]
    used = min(taken, key=lambda run: run["cpu_s"])
    if indexed:
        if records(out) != records(plain):
            raise ValueError(f"{out} has other records than {plain}")
        out.unlink()
    return {
        "panel": panel, "targets": target, "max_memory": max_memory, "indexed": indexed, **used,
    }  # fmt: skip


def records(path: Path) -> list[str]:
    """The lines of a VCF or BCF after its header, which names files and commands."""
    return [str(record) for record in VCF(str(path))]


def dosages(path: Path, positions: np.ndarray, *, truth: bool = False) -> np.ndarray:
    """ALT dosages at sites of these positions, shape (m, n), float32; 0 where there is no site."""
    file = VCF(str(path))
    out = np.zeros((len(positions), len(file.samples)), np.float32)
    place = {position: i for i, position in enumerate(positions.tolist())}
    for record in file:
        row = place.get(record.POS)
        if row is not None:
            alleles = record.genotype.array()[:, :2] if truth else record.format("DS")
            out[row] = alleles.sum(axis=1)
    return out


def aggregate_r2(folder: Path, panels: list[int], targets: int) -> dict[int, list[float]]:
    """Aggregate r2 of each panel's output in the bins of ``EDGES``."""
    with Panel.open(folder / f"panel-{max(panels)}.h5") as panel:
        positions, af = panel.sites.position_bp, panel.af.astype(np.float64)
    typed = [record.POS for record in VCF(str(folder / f"target-{targets}.bcf"))]
    untyped = ~np.isin(positions, typed)
    maf, flip = np.minimum(af, 1 - af), (af > 0.5)[:, None]
    true = dosages(folder / "truth.bcf", positions, truth=True)[:, :targets]
    true = np.where(flip, 2 - true, true)
    out = {}
    for number in panels:
        found = dosages(folder / f"imputed-{number}-{targets}.bcf", positions)
        found = np.where(flip, 2 - found, found)
        rows = [(maf > low) & (maf <= high) & untyped for low, high in pairwise(EDGES)]
        out[number] = [
            float(np.corrcoef(found[row].ravel(), true[row].ravel())[0, 1] ** 2) for row in rows
        ]
    return out


def cost_rows(runs: list[dict]) -> list[list[str]]:
    """What each run took, without and with an index side by side."""
    rows = [[
        "panel haplotypes", "targets", "CPU, s", "ratio", "wall, s", "peak, MiB",
        "CPU with an index, s", "ratio", "wall, s", "peak, MiB",
    ]]  # fmt: skip
    least = min(run["panel"] for run in runs)
    key = ("panel", "targets", "max_memory")
    found = {(*(run[name] for name in key), run["indexed"]): run for run in runs}
    for run in runs:
        if run["indexed"]:
            continue
        bound = "" if run["max_memory"] is None else f", --max-memory {run['max_memory']}"
        row = [f"{run['panel']:,}{bound}", f"{run['targets']:,}"]
        for indexed in (False, True):
            here = found.get((*(run[name] for name in key), indexed))
            if here is None:
                row += [""] * 4
                continue
            first = found[least, run["targets"], None, indexed]
            row += [
                f"{here['cpu_s']:.2f}", f"{here['cpu_s'] / first['cpu_s']:.2f}",
                f"{here['wall_s']:.1f}", f"{here['peak_mib']:,.0f}",
            ]  # fmt: skip
        rows.append(row)
    return rows


def index_rows(made: list[dict]) -> list[list[str]]:
    """What each index took."""
    rows = [["panel haplotypes", "size, MB", "CPU, s", "wall, s", "peak, MiB"]]
    return rows + [
        [f"{run['panel']:,}", f"{run['bytes'] / 1e6:.0f}", f"{run['cpu_s']:.1f}",
         f"{run['wall_s']:.1f}", f"{run['peak_mib']:,.0f}"]
        for run in made
    ]  # fmt: skip


def accuracy_rows(r2: dict[int, list[float]]) -> list[list[str]]:
    """Aggregate r2 by panel and frequency."""
    bins = [f"{low:g} to {high:g}" for low, high in pairwise(EDGES)]
    rows = [["panel haplotypes", *bins]]
    return rows + [[f"{n:,}", *(f"{x:.4f}" for x in each)] for n, each in r2.items()]


def data_rows(made: dict) -> list[list[str]]:
    """What the panels have, and what it took to make them."""
    rows = [["step", "sites", "size, MB", "CPU, s", "peak so far, MiB"]]
    for step, told in made.items():
        sites = f"{told['sites']:,}" if "sites" in told else ""
        size = f"{told['bytes'] / 1e6:.1f}" if "bytes" in told else ""
        name = step.replace("panel ", "prepare a panel of ")
        rows.append([name, sites, size, f"{told['cpu_s']:.1f}", f"{told['peak_mib']:,}"])
    return rows


def main() -> None:
    """Run all, write million.json, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="of simulate_million.py")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="of each (default: 3)")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md")
    options = parser.parse_args()
    folder = options.folder
    panels, targets = numbers(folder, "panel-*.h5"), numbers(folder, "target-*.bcf")
    impute(folder, panels[0], targets[0])  # compiles what is not compiled
    impute(folder, panels[-1], targets[0])
    make_index(folder, panels[0], targets[0])
    runs, indexes = [], []
    for panel in panels:
        indexes.append(make_index(folder, panel, targets[0]))
        for target in targets:
            for indexed in (False, True):
                runs.append(impute(folder, panel, target, indexed=indexed, runs=options.runs))
                print(runs[-1], flush=True)
    runs.append(impute(folder, panels[-1], min(100, targets[-1]), "1G", runs=options.runs))
    r2 = aggregate_r2(folder, panels, targets[-1])
    (folder / "million.json").write_text(
        json.dumps({"runs": runs, "indexes": indexes, "r2": r2}, indent=2) + "\n"
    )
    costs, accuracy = markdown_table(cost_rows(runs)), markdown_table(accuracy_rows(r2))
    print(f"{costs}\n\n{accuracy}")
    if options.markdown is not None:
        made = json.loads((folder / "made_by.json").read_text())
        text = _PAGE.format(
            largest=f"{panels[-1]:,}", date=time.strftime("%Y-%m-%d"), folder=folder.name,
            command=describe_command(sys.argv[1:], "million.py"), costs=costs, accuracy=accuracy,
            targets=f"{targets[-1]:,}", runs=options.runs,
            indexes=markdown_table(index_rows(indexes)),
            sites=", ".join(f"{made[f'panel {panel}']['sites']:,}" for panel in panels),
            data=markdown_table(data_rows(made)),
            about=about_table(describe_machine(), {"ragimpute": __version__}),
        )  # fmt: skip
        write_text(options.markdown, text)


if __name__ == "__main__":
    main()
