"""Switch errors, time and memory of phasing: ragimpute, Beagle, SHAPEIT4 and Eagle side by side.

Run: python benchmarks/phasing.py DATA_FOLDER... -o DIR [--seeds 3] [--threads 2]
     python benchmarks/phasing.py --example -o DIR

Folders are those of compare.py. The phase of the first target (or "dense") is removed; every tool
phases it against the panel, with the same map, at its defaults, once for each seed; the truth is
the phase that the target came with. What is not installed is left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from compare import (
    DataSet,
    describe_load,
    describe_machine,
    open_example,
    open_folder,
    write_plink_map,
)
from comparison_page import markdown_table
from measure import measure
from unphased import write_unphased

from ragimpute import __version__
from ragimpute.accuracy.phase_errors import measure_phase
from ragimpute.io.vcf.read.genotypes import contigs_of, read_target
from ragimpute.model.checkpoint import write_text
from ragimpute.preparation.genetic_map import GeneticMap
from ragimpute.sites import Region

_RAGIMPUTE = [sys.executable, "-m", "ragimpute"]
# The program of each tool; Debian's packages are beagle, shapeit4 and bio-eagle.
PROGRAMS = {"Beagle": "beagle", "SHAPEIT4": "shapeit4", "Eagle": "bio-eagle"}


def prepare(data: DataSet, target: Path, folder: Path) -> None:
    """What the tools read: panels, maps, and the target with an index."""
    write_plink_map(data, folder / "plink.map")
    (contig,) = contigs_of(data.panel)
    known = GeneticMap.read(data.genetic_map, contig=contig)
    rows = list(zip(known.position_bp.tolist(), known.map_cm.tolist(), strict=True))
    text = "".join(f"{bp:.0f} {contig} {cm:.9g}\n" for bp, cm in rows)
    write_text(folder / "shapeit.map", "pos chr cM\n" + text)
    rates = [(cm - before) / (bp - last) * 1e6 for (last, before), (bp, cm) in pairwise(rows)]
    head = "chr position COMBINED_rate(cM/Mb) Genetic_Map(cM)\n"
    text = "".join(
        f"{contig} {bp:.0f} {rate:.9g} {cm:.9g}\n"
        for (bp, cm), rate in zip(rows, [*rates, 0.0], strict=True)
    )
    write_text(folder / "eagle.map", head + text)
    log = str(folder / "prepare.log")
    panel = folder / "panel.vcf.gz"
    measure(["bcftools", "view", "-Oz", "-o", str(panel), str(data.panel)], log=log)
    for path in (panel, target):
        measure(["bcftools", "index", "-f", "-t", str(path)], log=log)
    made = [*_RAGIMPUTE, "prepare", str(data.panel), "--map", str(folder / "plink.map")]
    measure([*made, "-o", str(folder / "panel.h5"), "--force", "--quiet"], log=log)


def command(tool: str, target: Path, folder: Path, out: Path, threads: int, seed: int) -> list[str]:
    """How a tool phases ``target`` to ``out`` (.vcf.gz)."""
    panel = folder / "panel.vcf.gz"
    (contig,) = contigs_of(target)
    if tool == "ragimpute":
        files = ["phase", str(target), "--panel", str(folder / "panel.h5"), "-o", str(out)]
        return [*_RAGIMPUTE, *files, "-t", str(threads), "--seed", str(seed), "--quiet"]
    if tool == "Beagle":
        prefix = str(out).removesuffix(".vcf.gz")
        files = [f"ref={panel}", f"gt={target}", f"map={folder / 'plink.map'}", f"out={prefix}"]
        return ["beagle", *files, f"nthreads={threads}", f"seed={seed}", "impute=false"]
    if tool == "SHAPEIT4":
        files = ["--input", str(target), "--reference", str(panel), "--output", str(out)]
        options = ["--map", str(folder / "shapeit.map"), "--region", contig]
        return ["shapeit4", *files, *options, "--thread", str(threads), "--seed", str(seed)]
    prefix = str(out).removesuffix(".vcf.gz")
    files = [f"--vcfRef={panel}", f"--vcfTarget={target}", f"--outPrefix={prefix}"]
    return ["bio-eagle", *files, f"--geneticMapFile={folder / 'eagle.map'}", f"--chrom={contig}",
            f"--numThreads={threads}"]  # fmt: skip


def run(data: DataSet, folder: Path, tools: list[str], threads: int, seeds: int) -> list[dict]:
    """Phase one data set by every tool, the tools in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    given = data.targets.get("dense", next(iter(data.targets.values())))
    target = folder / "target.vcf.gz"
    write_unphased(given, target)
    prepare(data, target, folder)
    true = read_target(given)
    typed, region = set(true.sites.keys()), Region(true.sites.contig)
    rows: dict[str, dict] = {tool: {"tool": tool, "runs": [], "errors": []} for tool in tools}
    for seed in range(seeds + 1):  # the first is not counted: it compiles ragimpute's kernels
        for tool, row in rows.items():
            out = folder / f"{tool.lower()}.vcf.gz"
            log = str(folder / f"{tool.lower()}.log")
            used = measure(command(tool, target, folder, out, threads, max(1, seed)), log=log)
            if seed == 0:
                continue
            index = np.array([read_target(out).samples.index(name) for name in true.samples])
            found = measure_phase((given, region), (out, region), typed, index)
            if found is None:
                raise RuntimeError(f"{tool} left nothing to compare in {out}")
            row["runs"].append(used)
            row["errors"].append(found.as_dict())
        print(f"{data.name}: {seed} of {seeds} seeds", file=sys.stderr, flush=True)
    return list(rows.values())


def table(rows: list[dict]) -> list[list[str]]:
    """A header and a row for each tool: means of the errors, their range, medians of the cost."""
    out = [["tool", "switch errors", "range", "flips", "wall, s", "CPU, s", "peak, MiB"]]
    for row in rows:
        switch = [errors["switch_rate"] for errors in row["errors"]]
        flips = statistics.mean(errors["flip_rate"] for errors in row["errors"])
        cost = {
            name: statistics.median(used[name] for used in row["runs"])
            for name in ("wall_s", "cpu_s", "peak_mib")
        }
        out.append(
            [
                row["tool"], f"{statistics.mean(switch):.3%}",
                f"{min(switch):.3%} – {max(switch):.3%}", f"{flips:.3%}", f"{cost['wall_s']:.1f}",
                f"{cost['cpu_s']:.1f}", f"{cost['peak_mib']:.0f}",
            ]
        )  # fmt: skip
    return out


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="phasing.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", type=Path, help="data folders")
    parser.add_argument("--example", action="store_true", help="the data that the package carries")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(arguments)
    sets = [open_folder(folder) for folder in options.data]
    if options.example:
        sets.append(open_example())
    if not sets:
        parser.error("give a data folder, or --example")
    tools = ["ragimpute", *(tool for tool, name in PROGRAMS.items() if shutil.which(name))]
    for tool in PROGRAMS:
        if tool not in tools:
            print(f"{tool} is left out: it is not installed", file=sys.stderr)
    for note in describe_load():
        print(note, file=sys.stderr)
    results: dict = {"version": __version__, "machine": describe_machine(), "data": {}}
    for data in sets:
        rows = run(data, options.output / data.name, tools, options.threads, options.seeds)
        results["data"][data.name] = rows
        print(f"\n{data.name}, {options.threads} threads\n\n{markdown_table(table(rows))}\n")
    write_text(options.output / "phasing.json", json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
