"""Accuracy and CPU time on low-coverage sequencing, beside GLIMPSE2.

Run: python benchmarks/low_coverage.py DATA_FOLDER... -o FOLDER [--coverage 0.1 0.5 1 4]

A data folder holds panel.bcf, truth.bcf and one *.map, as those of compare.py do. Of the true
genotypes, reads are simulated: a sample's depth at a SNP is Poisson with the mean coverage times a
factor of the sample (log-normal, sd 0.15), and a read shows one of its two alleles, wrongly with
probability 0.002. Reads of neighbouring sites are independent, which real ones are not. The files
hold FORMAT/PL and DP, and no GT. GLIMPSE2_phase is run if it is on the PATH, with its defaults.
A tool that fails is named and left out. r2 is that of dosages at the truth's SNPs of one ALT, by
bins of the panel's MAF. Written:
results.json, table.md and r2.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from comparison_page import markdown_table
from measure import measure
from vcf_tools import bcftools, run_bcftools

from ragimpute.accuracy.evaluate import evaluate
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target, read_target
from ragimpute.preparation.genetic_map import GeneticMap

READ_ERROR, SAMPLE_SD, MOST_PL = 0.002, 0.15, 255
_HEAD = (
    '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="Phred-scaled genotype likelihoods">\n'
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Reads">\n'
)


def simulated_pl(
    num_alt: np.ndarray, coverage: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """PL and depth of simulated reads.

    Parameters
    ----------
    num_alt
        Shape (N,), int: true ALT alleles, 0 to 2.
    coverage
        Shape (N,): mean depth of each sample.

    Returns
    -------
    Shape (N, 3), int, the least is 0; and shape (N,), int.
    """
    shows_alt = np.array([READ_ERROR, 0.5, 1 - READ_ERROR])
    depth = rng.poisson(coverage)
    alt = rng.binomial(depth, shows_alt[num_alt])
    log = alt[:, None] * np.log10(shows_alt) + (depth - alt)[:, None] * np.log10(1 - shows_alt)
    pl = np.rint(-10 * (log - log.max(axis=1, keepdims=True)))
    return np.minimum(pl, MOST_PL).astype(int), depth


def write_reads(truth: Target, coverage: float, out: Path, *, seed: int) -> None:
    """Write a BCF of likelihoods, with its index, of reads of true genotypes at SNPs."""
    rng = np.random.default_rng(seed)
    num_samples = len(truth.samples)
    factor = np.exp(rng.normal(0, SAMPLE_SD, num_samples) - SAMPLE_SD**2 / 2)
    contig = truth.sites.contig
    text = out.with_suffix(".vcf")
    with text.open("w") as file:
        file.write(f"##fileformat=VCFv4.2\n##contig=<ID={contig}>\n{_HEAD}")
        fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
        file.write("\t".join([*fixed, *truth.samples]) + "\n")
        for (position, ref, alt), alleles in zip(truth.sites.keys(), truth.alleles, strict=True):
            if len(ref) != 1 or len(alt) != 1:
                continue
            pl, depth = simulated_pl(alleles.clip(0).sum(axis=1), coverage * factor, rng)
            cells = [f"{a},{b},{c}:{d}" for (a, b, c), d in zip(pl, depth, strict=True)]
            row = [contig, str(position), ".", ref, alt, ".", ".", ".", "PL:DP", *cells]
            file.write("\t".join(row) + "\n")
    bcftools("view", "-Ob", "-o", out, text)
    bcftools("index", "-f", out)
    text.unlink()


def commands(folder: Path, data: Path, target: Path, region: str) -> dict[str, list[str]]:
    """The tools that are there, and how each imputes a target into a BCF of its name."""
    stem = target.name.removesuffix(".bcf")
    made = {
        "ragimpute": [
            "ragimpute", "impute", str(target), "--panel", str(folder / f"{data.name}.h5"),
            "-o", str(folder / f"{stem}.ragimpute.bcf"),
        ],
    }  # fmt: skip
    if shutil.which("GLIMPSE2_phase"):
        made["GLIMPSE2"] = [
            "GLIMPSE2_phase", "--input-gl", str(target), "--reference",
            str(folder / f"{data.name}.panel.bcf"),
            "--map", str(folder / f"{data.name}.gmap"), "--input-region", region,
            "--output-region", region, "--output", str(folder / f"{stem}.GLIMPSE2.bcf"),
        ]  # fmt: skip
    return made


def run_folder(data: Path, folder: Path, coverages: list[float], num: int, seed: int) -> list[dict]:
    """Simulate, impute and score one data folder; a row for each coverage and tool."""
    maps = sorted(data.glob("*.map"))
    if len(maps) != 1:
        raise InputError(f"data folder {data} holds {len(maps)} files *.map, not one")
    truth_file = folder / f"{data.name}.truth.bcf"
    names = read_target(data / "truth.bcf").samples[:num]
    bcftools("view", "-m2", "-M2", "-v", "snps", "-s", ",".join(names), "-Ob", "-o", truth_file,
             data / "truth.bcf")  # fmt: skip
    bcftools("index", "-f", truth_file)
    truth = read_target(truth_file)
    known = GeneticMap.read(maps[0], contig=truth.sites.contig)
    lines = [
        f"{bp:.0f}\t{truth.sites.contig}\t{cm:.8g}"
        for bp, cm in zip(known.position_bp, known.map_cm, strict=True)
    ]
    (folder / f"{data.name}.gmap").write_text("pos\tchr\tcM\n" + "\n".join(lines) + "\n")
    panel_h5 = folder / f"{data.name}.h5"
    prepare = ["ragimpute", "prepare", data / "panel.bcf", "-o", panel_h5, "--map", maps[0]]
    if not panel_h5.exists():
        measure([str(word) for word in prepare], log=str(folder / "prepare.log"))
    # GLIMPSE2 wants AC and AN, which bcftools computes for samples that are chosen.
    counted, listed = folder / f"{data.name}.panel.bcf", folder / f"{data.name}.samples"
    listed.write_text(bcftools("query", "-l", data / "panel.bcf"))
    bcftools("view", "-S", listed, "-Ob", "-o", counted, data / "panel.bcf")
    bcftools("index", "-f", counted)
    at = truth.sites.position_bp
    region = f"{truth.sites.contig}:{at[0]}-{at[-1]}"
    rows = []
    for coverage in coverages:
        target = folder / f"{data.name}.{coverage:g}.bcf"
        write_reads(truth, coverage, target, seed=seed)
        for tool, command in commands(folder, data, target, region).items():
            try:
                used = measure(command, log=str(folder / f"{target.name}.{tool}.log"))
            except RuntimeError as error:
                print(f"{target.name}: {error}", file=sys.stderr)
                continue
            # Nothing counts as typed: reads tell no site for sure.
            bare = folder / "no_typed.bcf"
            done = run_bcftools("annotate", "-x", "INFO", "-Ob", "-o", bare, command[-1])
            if done.returncode:  # it may warn of the header of another tool
                raise RuntimeError(f"bcftools annotate failed: {done.stderr}")
            scored = evaluate(truth_file, bare, panel_h5)
            r2 = {row.label: row.r2 for row in [*scored.bins, scored.overall]}
            rows.append({"data": data.name, "coverage": coverage, "tool": tool,
                         "cpu_s": used["cpu_s"], "r2": r2})  # fmt: skip
            print(rows[-1])
    return rows


def table(rows: list[dict]) -> str:
    """The figures as a table of Markdown."""
    labels = list(rows[0]["r2"])
    head = ["data", "coverage", "tool", *labels, "CPU s"]
    lines = [
        [row["data"], f"{row['coverage']:g}", row["tool"],
         *(f"{row['r2'][label]:.4f}" for label in labels), f"{row['cpu_s']:.0f}"]
        for row in rows
    ]  # fmt: skip
    return markdown_table([head, *lines], texts=3)


def draw(rows: list[dict], path: Path) -> None:
    """Plot 1 - r2 of all sites against coverage, a line for each tool and data folder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for data, tool in dict.fromkeys((row["data"], row["tool"]) for row in rows):
        own = [row for row in rows if (row["data"], row["tool"]) == (data, tool)]
        whole = [1 - list(row["r2"].values())[-1] for row in own]
        axes.plot([row["coverage"] for row in own], whole, marker="o", label=f"{data}, {tool}")
    axes.set(xscale="log", yscale="log", xlabel="coverage", ylabel="1 - r² of dosages, all sites")
    axes.legend()
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--coverage", nargs="+", type=float, default=[0.1, 0.5, 1, 4])
    parser.add_argument("--samples", type=int, default=60, help="the first so many")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    for data in given.data:
        rows += run_folder(data, given.out, given.coverage, given.samples, given.seed)
    if not rows:
        raise SystemExit("no tool imputed a file")
    (given.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (given.out / "table.md").write_text(table(rows) + "\n")
    draw(rows, given.out / "r2.png")


if __name__ == "__main__":
    main()
