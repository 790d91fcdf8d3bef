"""Accuracy, calibration and CPU time on low-coverage sequencing, beside GLIMPSE2.

Run: python benchmarks/low_coverage.py DATA_FOLDER... -o FOLDER [--coverage 0.1 0.5 1 4]

Simulated data folders are made by simulate.py and simulate_species.py.

A data folder holds panel.bcf, truth.bcf and one *.map, as those of compare.py do. Of the true
genotypes, reads are simulated: a sample's depth at a SNP is Poisson with the mean coverage times a
factor of the sample (log-normal, sd 0.15), and a read shows one of its two alleles, wrongly with
probability 0.002. Reads of neighbouring sites are independent, which real ones are not. The files
hold FORMAT/PL and DP, and no GT. GLIMPSE2_phase is run if it is on the PATH, with its defaults.
All tools run with --threads (1). A tool that fails is named and left out. r2 is that of dosages of
minor alleles at the truth's SNPs of one ALT that vary in the panel, by bins of its MAF. Beside it:
the largest difference of mean DR2 and mean true r2 in a bin of 20 sites or more, above MAF .002;
and of GP and the share of genotypes that is so, in a tenth of 1,000 genotypes or more. Each has its
standard error: of DR2's by leaving out stretches of the bin's sites, of GP's by leaving out samples
by turns, as errors of neighbouring sites come together.

With --array, the sites of target.NAME.vcf.gz (--array dense) are imputed alone, and together with
the reads of the first coverage in --with-reads (0.5): one file, in which array sites have GT and no
PL, and all others PL. Written: results.json, table.md and r2.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from comparison_page import markdown_table
from cyvcf2 import VCF
from measure import measure
from vcf_tools import bcftools, run_bcftools

from ragimpute.accuracy.evaluate import evaluate
from ragimpute.accuracy.metrics import MAF_BINS, maf_bin, site_r2
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target, read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.genetic_map import GeneticMap

READ_ERROR, SAMPLE_SD, MOST_PL = 0.002, 0.15, 255
LEAST_SITES, LEAST_GENOTYPES, LEAST_MAF = 20, 1_000, 0.002
_HEAD = (
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
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


def write_reads(
    truth: Target, coverage: float, out: Path, *, seed: int, array: Target | None = None
) -> None:
    """Write a BCF of likelihoods, with its index, of reads of true genotypes at SNPs.

    The sites of ``array``, of the same samples, have its genotypes and no likelihoods.
    """
    rng = np.random.default_rng(seed)
    num_samples = len(truth.samples)
    factor = np.exp(rng.normal(0, SAMPLE_SD, num_samples) - SAMPLE_SD**2 / 2)
    contig = truth.sites.contig
    called = {}
    if array is not None:
        called = dict(zip(array.sites.keys(), array.alleles, strict=True))
    text = out.with_suffix(".vcf")
    with text.open("w") as file:
        file.write(f"##fileformat=VCFv4.2\n##contig=<ID={contig}>\n{_HEAD}")
        fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
        file.write("\t".join([*fixed, *truth.samples]) + "\n")
        for key, alleles in zip(truth.sites.keys(), truth.alleles, strict=True):
            position, ref, alt = key
            if len(ref) != 1 or len(alt) != 1:
                continue
            pl, depth = simulated_pl(alleles.clip(0).sum(axis=1), coverage * factor, rng)
            cells = [f"{a},{b},{c}:{d}" for (a, b, c), d in zip(pl, depth, strict=True)]
            names = "PL:DP"
            if key in called:
                names = "GT"
                cells = [
                    "./." if min(pair) < 0 else "/".join(map(str, sorted(pair.tolist())))
                    for pair in called[key]
                ]
            row = [contig, str(position), ".", ref, alt, ".", ".", ".", names, *cells]
            file.write("\t".join(row) + "\n")
    bcftools("view", "-Ob", "-o", out, text)
    bcftools("index", "-f", out)
    text.unlink()


def commands(
    folder: Path, data: Path, target: Path, region: str, threads: int
) -> dict[str, list[str]]:
    """The tools that are there, and how each imputes a target into a BCF of its name."""
    stem = target.name.removesuffix(".bcf")
    made = {
        "ragimpute": [
            "ragimpute", "impute", str(target), "--panel", str(folder / f"{data.name}.h5"),
            "-o", str(folder / f"{stem}.ragimpute.bcf"), "--threads", str(threads),
        ],
    }  # fmt: skip
    if shutil.which("GLIMPSE2_phase"):
        made["GLIMPSE2"] = [
            "GLIMPSE2_phase", "--input-gl", str(target), "--reference",
            str(folder / f"{data.name}.panel.bcf"),
            "--map", str(folder / f"{data.name}.gmap"), "--input-region", region,
            "--output-region", region, "--threads", str(threads),
            "--output", str(folder / f"{stem}.GLIMPSE2.bcf"),
        ]  # fmt: skip
    return made


def reliability(imputed: Path, truth: Target, panel_h5: Path) -> dict[str, float]:
    """How far DR2 and GP of a file are from what is true of SNPs, at worst; NaN if unknown.

    ``dr2_off``: of mean DR2 and mean true r2 of a bin of MAF; ``gp_off``: of the mean of GP and the
    share of genotypes that is so, in a tenth of GP; ``dr2_error``, ``gp_error``: their standard
    errors.
    """
    with Panel.open(panel_h5) as panel:
        maf_of = dict(zip(panel.sites.keys(), np.minimum(panel.af, 1 - panel.af), strict=True))
    true_of = dict(zip(truth.sites.keys(), truth.alleles, strict=True))
    maf, dr2, r2 = [], [], []
    sums = np.zeros((10, len(truth.samples), 3))  # by tenth and sample: number, sum of GP, true
    for variant in VCF(str(imputed)):
        key = variant.POS, variant.REF, variant.ALT[0]
        if key not in true_of or not maf_of.get(key, 0):
            continue
        count = true_of[key].clip(0).sum(axis=1)
        gp = variant.format("GP")
        if gp is not None and gp.shape[1] == 3:
            tenth = np.minimum((gp * 10).astype(int), 9)
            so = np.arange(3) == count[:, None]
            where = tenth, np.arange(len(gp))[:, None]
            for column, values in enumerate((1, gp, so)):
                np.add.at(sums[:, :, column], where, values)
        if variant.INFO.get("DR2") is not None:
            dosage = variant.format("DS")[:, :1].T.astype(np.float64)
            maf.append(maf_of[key])
            dr2.append(variant.INFO["DR2"])
            r2.append(site_r2(dosage, count[None].astype(np.float64))[0])
    many = sums[:, :, 0].sum(axis=1) >= LEAST_GENOTYPES
    by_tenth = [(of_sample[:, 1] - of_sample[:, 2], of_sample[:, 0]) for of_sample in sums[many]]
    group, known = maf_bin(np.array(maf)), ~np.isnan(np.array(r2))
    off = np.array(dr2) - np.array(r2)
    bins = [known & (group == i) for i in range(len(MAF_BINS) - 1) if MAF_BINS[i + 1] > LEAST_MAF]
    by_bin = []
    for rows in bins:
        if rows.sum() >= LEAST_SITES:
            stretches = np.array_split(off[rows], LEAST_SITES)
            by_bin.append(tuple(np.array([f(x) for x in stretches]) for f in (np.sum, len)))
    dr2_off, dr2_error = worst_off(by_bin)
    gp_off, gp_error = worst_off(by_tenth)
    return {"dr2_off": dr2_off, "dr2_error": dr2_error, "gp_off": gp_off, "gp_error": gp_error}


def worst_off(groups: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """The largest mean difference of a group, and its standard error; NaN if there is none.

    Each group has sums of differences and their numbers, by parts that do not depend on each other;
    the error is the jackknife's.
    """
    found = []
    for difference, number in groups:
        num = len(number)
        without = (difference.sum() - difference) / np.maximum(number.sum() - number, 1)
        error = np.sqrt((num - 1) / num * np.square(without - without.mean()).sum())
        found.append((float(abs(difference.sum() / number.sum())), float(error)))
    return max(found, default=(np.nan, np.nan))


class DataFolder:
    """A data folder whose files the tools can read; they are made in ``folder``."""

    def __init__(self, data: Path, folder: Path, num: int) -> None:
        maps = sorted(data.glob("*.map"))
        if len(maps) != 1:
            raise InputError(f"data folder {data} holds {len(maps)} files *.map, not one")
        self.data, self.folder = data, folder
        self.truth_file = folder / f"{data.name}.truth.bcf"
        self.names = read_target(data / "truth.bcf").samples[:num]
        # GLIMPSE2 wants AC and AN, which bcftools computes for samples that are chosen.
        counted, listed = folder / f"{data.name}.panel.bcf", folder / f"{data.name}.samples"
        listed.write_text(bcftools("query", "-l", data / "panel.bcf"))
        bcftools("view", "-S", listed, "-Ob", "-o", counted, data / "panel.bcf")
        bcftools("index", "-f", counted)
        # Sites that do not vary in the panel are left out, as GLIMPSE2 does.
        self.varying = folder / f"{data.name}.sites.vcf.gz"
        bcftools("view", "-G", "-c", "1:minor", "-Oz", "-o", self.varying, counted)
        self.some("truth.bcf", self.truth_file)
        self.truth = read_target(self.truth_file)
        contig, at = self.truth.sites.contig, self.truth.sites.position_bp
        known = GeneticMap.read(maps[0], contig=contig)
        lines = [
            f"{bp:.0f}\t{contig}\t{cm:.8g}"
            for bp, cm in zip(known.position_bp, known.map_cm, strict=True)
        ]
        (folder / f"{data.name}.gmap").write_text("pos\tchr\tcM\n" + "\n".join(lines) + "\n")
        self.panel_h5 = folder / f"{data.name}.h5"
        prepare = ["ragimpute", "prepare", data / "panel.bcf", "-o", self.panel_h5, "--map",
                   maps[0]]  # fmt: skip
        if not self.panel_h5.exists():
            measure([str(word) for word in prepare], log=str(folder / "prepare.log"))
        self.region = f"{contig}:{at[0]}-{at[-1]}"

    def some(self, name: str, out: Path) -> None:
        """Write the varying SNPs of one ALT of the chosen samples of a file, with an index."""
        bcftools("view", "-m2", "-M2", "-v", "snps", "-s", ",".join(self.names), "-T",
                 self.varying, "-Ob", "-o", out, self.data / name)  # fmt: skip
        bcftools("index", "-f", out)

    def measured(self, label: str, tool: str, command: list[str]) -> dict | None:
        """Run a tool on a target and score what it writes; None if it fails, which is told."""
        try:
            used = measure(command, log=str(self.folder / f"{self.data.name}.{tool}.log"))
        except RuntimeError as error:
            print(f"{self.data.name} {label}: {error}", file=sys.stderr)
            return None
        imputed = Path(command[command.index("--output" if tool == "GLIMPSE2" else "-o") + 1])
        # Nothing counts as typed: reads tell no site for sure.
        bare = self.folder / "no_typed.bcf"
        done = run_bcftools("annotate", "-x", "INFO", "-Ob", "-o", bare, imputed)
        if done.returncode:  # it may warn of the header of another tool
            raise RuntimeError(f"bcftools annotate failed: {done.stderr}")
        scored = evaluate(self.truth_file, bare, self.panel_h5)
        r2 = {row.label: row.r2 for row in [*scored.bins, scored.overall]}
        row = {"data": self.data.name, "coverage": label, "tool": tool, "cpu_s": used["cpu_s"],
               "peak_mib": used["peak_mib"],
               "r2": r2, **reliability(imputed, self.truth, self.panel_h5)}  # fmt: skip
        print(row)
        return row


def run_folder(given: argparse.Namespace, data: Path) -> list[dict]:
    """Simulate, impute and score one data folder; a row for each coverage and tool."""
    at = DataFolder(data, given.out, given.samples)
    rows = []
    for coverage in given.coverage:
        target = given.out / f"{data.name}.{coverage:g}.bcf"
        write_reads(at.truth, coverage, target, seed=given.seed)
        tools = commands(given.out, data, target, at.region, given.threads)
        rows += [at.measured(f"{coverage:g}", tool, line) for tool, line in tools.items()]
    if given.array:
        alone, both = (given.out / f"{data.name}.{name}.bcf" for name in ("array", "both"))
        at.some(f"target.{given.array}.vcf.gz", alone)
        write_reads(at.truth, given.with_reads, both, seed=given.seed, array=read_target(alone))
        for label, target in (("array", alone), (f"array + {given.with_reads:g}", both)):
            line = commands(given.out, data, target, at.region, given.threads)["ragimpute"]
            rows.append(at.measured(label, "ragimpute", line))
    return [row for row in rows if row is not None]


def table(rows: list[dict]) -> str:
    """The figures as a table of Markdown."""
    labels = list(rows[0]["r2"])
    head = ["data", "coverage", "tool", *labels, "DR2 off", "GP off", "CPU s", "MiB"]
    lines = [
        [row["data"], row["coverage"], row["tool"],
         *(f"{row['r2'][label]:.4f}" for label in labels),
         *(
             "" if np.isnan(row[f"{name}_off"]) else
             f"{row[f'{name}_off']:.3f} ± {row[f'{name}_error']:.3f}" for name in ("dr2", "gp")
         ),
         f"{row['cpu_s']:.1f}", f"{row['peak_mib']:.0f}"]
        for row in rows
    ]  # fmt: skip
    return markdown_table([head, *lines], texts=3)


def draw(rows: list[dict], path: Path) -> None:
    """Plot 1 - r2 of all sites against coverage, a line for each tool and data folder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for data, tool in dict.fromkeys((row["data"], row["tool"]) for row in rows):
        own = [
            row for row in rows
            if (row["data"], row["tool"]) == (data, tool) and "array" not in row["coverage"]
        ]  # fmt: skip
        whole = [1 - list(row["r2"].values())[-1] for row in own]
        axes.plot(
            [float(row["coverage"]) for row in own], whole, marker="o", label=f"{data}, {tool}"
        )
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
    parser.add_argument("--threads", type=int, default=1, help="of each tool")
    parser.add_argument("--array", metavar="NAME", help="impute target.NAME.vcf.gz, too")
    parser.add_argument("--with-reads", type=float, default=0.5, help="coverage beside the array")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    for data in given.data:
        rows += run_folder(given, data)
    if not rows:
        raise SystemExit("no tool imputed a file")
    (given.out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (given.out / "table.md").write_text(table(rows) + "\n")
    draw(rows, given.out / "r2.png")


if __name__ == "__main__":
    main()
