"""What a genome costs as panels and targets grow: prepare's and impute's time, memory and size.

Run: python benchmarks/cost.py --panels 5000 20000 100000 --targets 1 10 100 --mb 5 -o DIR
         [--markdown docs/cost.md]

Simulated data of one region (simulate.py): the largest panel is made once, smaller ones are its
first samples, so that all see the same sites where these vary. Imputation has a part that depends
on the panel alone (its haplotypes are read, indexed, and left out to choose ne and err) and a part
for each target; both are fitted to the runs of each panel, and give the cost of a target in a batch
of any size. Starting the program, timed on a region of a few sites, counts once for each 20 cM of a
genome of 3,100 Mb. The largest panel of the table is not run: each part is carried on as the power
of the panel's size that its last two panels show.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from compare import describe_command
from comparison_page import markdown_table
from matplotlib.figure import Figure
from measure import measure
from samples import write_samples
from simulate import write_data

from ragimpute.model.checkpoint import write_text
from ragimpute.reports.plots import GRID, MUTED, SERIES, save_png

GENOME_MB = 3_100
REGIONS = 155  # of 20 cM
_PAGE = """# What a genome costs

This page says how the time of `ragimpute impute` grows with the panel and with the number of
targets. It was measured on {date}, by

```bash not-run
{command}
```

The data are simulated people of one region. The largest panel was made once; smaller panels are
its first samples. A run has two parts. One depends on the panel alone: its haplotypes are read
and indexed, and some of them are left out to choose ne and err and to measure its sites. The
other is for each target. Both parts were fitted to the runs of each panel, by least relative
squares, and carried over to a genome of {genome} Mb in {regions} regions of 20 cM, each of which
starts the program once. Nothing was run with {largest} haplotypes here: each part was extrapolated
as the power of the panel's size that the last two panels show;
[a million haplotypes](benchmarks-million.md)
has runs of one region. Panels of up to 6,000
haplotypes are copied whole, and the network is fitted to them. That is more accurate there, and
slower than searching a panel of 20,000.

CPU hours of a genome, for each target, by the number of targets in a batch:

{rows}

![CPU hours a target by panel size]({image})

The table lists the runs, one of each, on one thread unless the command says otherwise. *start* is a
region of a few sites: it takes what any run takes to begin. *prepare* makes panel.h5.

{runs}
"""


@dataclass(frozen=True)
class Run:
    """A run that was measured.

    Attributes
    ----------
    num_haplotypes, num_targets
        Of the panel; samples imputed, 0 for ``prepare``. Both 0: the program's start.
    cpu_s, wall_s, peak_mib, size_bytes
        What it took, and the size of what it wrote.
    """

    num_haplotypes: int
    num_targets: int
    cpu_s: float
    wall_s: float
    peak_mib: float
    size_bytes: int


def fit_cost(num_targets: list[int], cpu_s: list[float]) -> tuple[float, float]:
    """Seconds of a run's fixed part and of each target, by least relative squares; both >= 0."""
    x, y = np.array(num_targets, float), np.array(cpu_s)
    if len(x) == 1:
        return 0.0, float(y[0] / x[0])
    design = np.stack([1 / y, x / y], axis=1)
    (fixed, each), *_ = np.linalg.lstsq(design, np.ones(len(y)), rcond=None)
    if fixed < 0:
        return 0.0, float((x * y).sum() / (x * x).sum())
    return float(fixed), max(0.0, float(each))


def extrapolate(num_haplotypes: list[int], value: list[float], wanted: int) -> float:
    """A power of the panel's size through the last two panels, carried on to ``wanted``.

    No part grows faster than the panel or shrinks with it: the power is kept in [0, 1].
    """
    (h1, h2), (v1, v2) = num_haplotypes[-2:], value[-2:]
    power = np.log(v2 / v1) / np.log(h2 / h1) if v1 > 0 and v2 > 0 else 1.0
    return float(v2 * (wanted / h2) ** np.clip(power, 0, 1))


def run_all(
    folder: Path, panels: list[int], targets: list[int], *, mb: float, threads: int
) -> list[Run]:
    """Make the data and measure every combination."""
    data = folder / "data"
    write_data(
        data, num_haplotypes=max(panels), num_targets=max(targets), length_bp=round(mb * 1e6),
        typed_per_mb=800.0, seed=1,
    )  # fmt: skip
    own = [sys.executable, "-m", "ragimpute"]
    runs: list[Run] = []
    for count in targets:
        names = [f"t{i}" for i in range(count)]
        write_samples(data / "target.array.vcf.gz", names, folder / f"target-{count}.vcf.gz")
    for num in sorted(panels):
        source, panel = folder / f"panel-{num}.bcf", folder / f"panel-{num}.h5"
        write_samples(data / "panel.bcf", [f"p{i}" for i in range(num // 2)], source, varying=True)
        used = measure(
            [*own, "prepare", str(source), "--map", str(data / "simulated.map"), "-o", str(panel),
             "--force", "-q"],
            log=str(folder / "prepare.log"),
        )  # fmt: skip
        runs.append(Run(num, 0, used["cpu_s"], used["wall_s"], used["peak_mib"],
                        panel.stat().st_size))  # fmt: skip
        for count in sorted(targets):
            target, out = folder / f"target-{count}.vcf.gz", folder / "imputed.vcf.gz"
            command = [*own, "impute", str(target), "-p", str(panel), "-o", str(out), "-q", "-t",
                       str(threads), "--device", "cpu"]  # fmt: skip
            log = str(folder / "impute.log")
            if len(runs) == 1:  # once to compile the kernels, once for the program's start
                measure(command, log=log)
                used = measure([*command, "--region", "1:1-20000", "--buffer-cm", "0"], log=log)
                runs.append(Run(0, 0, used["cpu_s"], used["wall_s"], used["peak_mib"], 0))
            used = measure(command, log=log)
            runs.append(Run(num, count, used["cpu_s"], used["wall_s"], used["peak_mib"],
                            out.stat().st_size))  # fmt: skip
            print(runs[-1], flush=True)
    return runs


@dataclass(frozen=True)
class Cost:
    """What a genome costs with a panel.

    Attributes
    ----------
    num_haplotypes
        Of the panel.
    was_run
        Whether runs say so; else it is extrapolated.
    hours
        CPU hours of a genome, for each target, by batch size.
    panel_s
        CPU seconds of a Mb that do not depend on the targets.
    """

    num_haplotypes: int
    was_run: bool
    hours: list[float]
    panel_s: float


def genome_costs(runs: list[Run], *, mb: float, batches: list[int], largest: int) -> list[Cost]:
    """What a genome costs by panel; that of ``largest`` haplotypes is extrapolated."""
    panels = sorted({run.num_haplotypes for run in runs} - {0})
    start = sum(run.cpu_s for run in runs if not run.num_haplotypes)
    fixed, each = [], []
    for num in panels:
        of = [run for run in runs if run.num_haplotypes == num and run.num_targets]
        parts = fit_cost([run.num_targets for run in of], [run.cpu_s for run in of])
        fixed.append(max(0.0, parts[0] - start))
        each.append(parts[1])
    known = list(zip(panels, fixed, each, strict=True))
    if len(panels) > 1 and largest > panels[-1]:
        known.append(
            (largest, extrapolate(panels, fixed, largest), extrapolate(panels, each, largest))
        )
    return [
        Cost(
            num, num in panels,
            [((alone / n + target) / mb * GENOME_MB + start * REGIONS / n) / 3600 for n in batches],
            alone / mb,
        )
        for num, alone, target in known
    ]  # fmt: skip


def batch_names(batches: list[int]) -> list[str]:
    """How batches of so many targets are called."""
    return [f"{n:,} target{'s' if n > 1 else ''}" for n in batches]


def cost_rows(costs: list[Cost], batches: list[int]) -> list[list[str]]:
    """CPU hours of a genome, for each target, by panel and batch size."""
    rows = [["panel haplotypes", *batch_names(batches), "panel part, s/Mb"]]
    for cost in costs:
        name = f"{cost.num_haplotypes:,}" + ("" if cost.was_run else " (extrapolated)")
        rows.append([name, *(f"{h:.5f}" for h in cost.hours), f"{cost.panel_s:.3f}"])
    return rows


def run_rows(runs: list[Run]) -> list[list[str]]:
    """What was measured, a row for each run."""
    rows = [["run", "panel haplotypes", "targets", "wall, s", "CPU, s", "peak, MiB", "output, kB"]]
    for run in runs:
        name = "impute" if run.num_targets else "prepare" if run.num_haplotypes else "start"
        rows.append([
            name, f"{run.num_haplotypes:,}", f"{run.num_targets:,}", f"{run.wall_s:.2f}",
            f"{run.cpu_s:.2f}", f"{run.peak_mib:.0f}", f"{run.size_bytes / 1000:,.0f}",
        ])  # fmt: skip
    return rows


def cost_plot(costs: list[Cost], batches: list[int]) -> Figure:
    """CPU hours of a genome for each target against the panel's size, a line for each batch size.

    What is extrapolated is dotted.
    """
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    sizes = [cost.num_haplotypes for cost in costs]
    known = sum(cost.was_run for cost in costs)
    for i, name in enumerate(batch_names(batches)):
        hours = [cost.hours[i] for cost in costs]
        color = SERIES[i % len(SERIES)]
        axes.loglog(sizes[:known], hours[:known], "o-", color=color, label=name, markersize=4)
        axes.loglog(sizes[known - 1 :], hours[known - 1 :], "o:", color=color, markersize=4)
    axes.set_xlabel("panel haplotypes", color=MUTED, fontsize=9)
    axes.set_ylabel("CPU hours a target", color=MUTED, fontsize=9)
    axes.tick_params(labelcolor=MUTED, labelsize=8)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def write_page(
    path: Path, costs: list[Cost], runs: list[Run], *, batches: list[int], command: str,
    largest: int,
) -> None:  # fmt: skip
    """Write a page with the table, its plot in images/ beside, and every run."""
    image = path.parent / "images" / f"{path.stem}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    save_png(cost_plot(costs, batches), image)
    text = _PAGE.format(
        command=command, date=time.strftime("%Y-%m-%d"),
        rows=markdown_table(cost_rows(costs, batches)), image=f"images/{image.name}",
        runs=markdown_table(run_rows(runs)), largest=f"{largest:,}", genome=f"{GENOME_MB:,}",
        regions=REGIONS,
    )  # fmt: skip
    write_text(path, text)


def main() -> None:
    """Run, write runs.json and cost.md, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panels", type=int, nargs="+", default=[5_000, 20_000, 100_000])
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 10, 1_000, 10_000])
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--mb", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--markdown", type=Path, metavar="PAGE.md", help="a page, with a plot")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    runs = run_all(
        options.output, options.panels, options.targets, mb=options.mb, threads=options.threads
    )
    (options.output / "runs.json").write_text(json.dumps([asdict(run) for run in runs], indent=2))
    costs = genome_costs(runs, mb=options.mb, batches=options.batches, largest=options.largest)
    rows = markdown_table(cost_rows(costs, options.batches))
    text = f"CPU hours of a genome ({GENOME_MB:,} Mb), for each target\n\n{rows}\n"
    (options.output / "cost.md").write_text(text)
    print(text)
    if options.markdown is not None:
        command = describe_command(sys.argv[1:], "cost.py")
        write_page(
            options.markdown, costs, runs, batches=options.batches, command=command,
            largest=options.largest,
        )  # fmt: skip


if __name__ == "__main__":
    main()
