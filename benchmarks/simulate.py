"""Make a simulated data set, in the layout that compare.py reads.

Run: python benchmarks/simulate.py --haplotypes 20000 --targets 200 --mb 20 -o DIR
     python benchmarks/simulate.py --targets 500 --first 1 --first 10 -o DIR
     python benchmarks/simulate.py --many-populations --haplotypes 1352 --targets 156 --mb 2 -o DIR

People of European ancestry after the out-of-Africa model of Gutenkunst et al. 2009, or equally many
of each of 52 populations, some of them isolates, with --many-populations; a map with
hotspots; a panel, its targets at the sites of an array (common sites, evenly spread), and what is
true of the targets; where asked for, the first N of these targets alone. Genotypes are written as
they come from the trees, so that memory does not grow with the sites.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msprime
import numpy as np
import tskit  # comes with msprime

sys.path.append(str(Path(__file__).parents[1] / "packaging"))
from samples import write_samples
from training_panels import DEMOGRAPHIES
from vcf_tools import bcftools

from ragimpute.io.vcf.bgzf import BgzfWriter
from ragimpute.io.vcf.write.bcf import bcf_header

MUTATION_RATE = 1.25e-8
TYPED_MAF = 0.01
_RECORD = struct.Struct("<IIiiiIHHI")
_FLOAT_MISSING = 0x7F800001
_HOTSPOT_BP = 15_000


def demography() -> msprime.Demography:
    """Africa and Europe of Gutenkunst et al. 2009, a generation of 25 years."""
    d = msprime.Demography()
    d.add_population(name="AFR", initial_size=12_300, initially_active=True)
    d.add_population(name="EUR", initial_size=29_725, growth_rate=0.004)
    d.set_symmetric_migration_rate(["AFR", "EUR"], 3e-5)
    d.add_population_parameters_change(
        time=848, population="EUR", initial_size=2_100, growth_rate=0
    )
    d.add_symmetric_migration_rate_change(time=848, populations=["AFR", "EUR"], rate=25e-5)
    d.add_migration_rate_change(time=5_600, rate=0)
    d.add_population_split(time=5_600, derived=["EUR"], ancestral="AFR")
    d.add_population_parameters_change(time=8_800, population="AFR", initial_size=7_300)
    return d


def recombination_map(length_bp: int, rng: np.random.Generator) -> msprime.RateMap:
    """1 cM/Mb on average; rates change every 15 kb or so, most of it in hotspots."""
    ends = np.cumsum(500 + rng.exponential(_HOTSPOT_BP, size=2 + length_bp // 10_000))
    position = np.concatenate([[0], ends[ends < length_bp - 1], [length_bp]])
    rate = np.maximum(rng.gamma(0.35, size=len(position) - 1), 0.01)
    mean = np.average(rate, weights=np.diff(position))
    return msprime.RateMap(position=position, rate=rate / mean * 1e-8)


def simulate(
    num_haplotypes: int, length_bp: int, seed: int, *, many_populations: bool = False
) -> tskit.TreeSequence:
    """Trees of so many haplotypes, or up to 102 more, with mutations of two alleles."""
    rng = np.random.default_rng(seed)
    rates = recombination_map(length_bp, rng)
    people, history = {"EUR": num_haplotypes // 2}, demography()
    if many_populations:
        history, names = DEMOGRAPHIES["many_populations"](rng)
        people = dict.fromkeys(names, -(-num_haplotypes // 2 // len(names)))
    trees = msprime.sim_ancestry(
        people, demography=history, recombination_rate=rates, random_seed=seed
    )
    return msprime.sim_mutations(
        trees, rate=MUTATION_RATE, random_seed=seed, model=msprime.BinaryMutationModel()
    )


def genotypes(trees: tskit.TreeSequence) -> Iterator[tuple[int, np.ndarray]]:
    """Position (bp, each once) and alleles, int8, of the sites."""
    last = 0
    for variant in trees.variants(copy=False):
        position = int(variant.site.position) + 1
        if position > last and variant.num_alleles == 2:
            last = position
            yield position, variant.genotypes


class GenotypeFile:
    """A BCF of GT alone."""

    def __init__(self, path: Path, samples: list[str], length_bp: int) -> None:
        self.path = path
        self._samples = len(samples)
        self._file = path.open("wb")
        self._bgzf = BgzfWriter(self._file)
        names = "\t".join(samples)
        self._bgzf.write(
            bcf_header(
                '##fileformat=VCFv4.2\n##FILTER=<ID=PASS,Description="All filters passed">\n'
                f"##contig=<ID=1,length={length_bp}>\n"
                '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
                f"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t{names}\n"
            )
        )

    def write(self, position: int, alleles: np.ndarray) -> None:
        """Append a site with REF A and ALT C; alleles (2N,), int8."""
        shared = b"\x07" + b"\x17A\x17C" + b"\x11\x00"  # no ID; the alleles; PASS
        coded = ((alleles.astype(np.uint8) + 1) << 1).reshape(-1, 2)
        coded[:, 1] |= 1
        samples = b"\x11\x01\x21" + coded.tobytes()
        head = _RECORD.pack(len(shared) + 24, len(samples), 0, position - 1, 1, _FLOAT_MISSING,
                            0, 2, self._samples | 1 << 24)  # fmt: skip
        self._bgzf.write(head + shared + samples)

    def close(self) -> None:
        """Finish and index."""
        self._bgzf.finish()
        self._file.close()
        bcftools("index", "-f", self.path)


def write_data(
    folder: Path, *, num_haplotypes: int, num_targets: int, length_bp: int, typed_per_mb: float,
    seed: int, first: Sequence[int] = (), many_populations: bool = False,
) -> dict[str, int]:  # fmt: skip
    """Write panel.bcf, truth.bcf, target.array.vcf.gz and simulated.map; returns their counts.

    For each number of ``first``, target.first-N.vcf.gz has the first so many of the targets.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trees = simulate(
        num_haplotypes + 2 * num_targets, length_bp, seed, many_populations=many_populations
    )
    order = np.random.default_rng(seed).permutation(trees.num_individuals)
    order = order[: num_haplotypes // 2 + num_targets]
    haplotypes = (2 * order[:, None] + [0, 1]).ravel()
    of_panel, of_target = haplotypes[:num_haplotypes], haplotypes[num_haplotypes:]
    panel_names = [f"p{i}" for i in range(num_haplotypes // 2)]
    target_names = [f"t{i}" for i in range(num_targets)]
    panel = GenotypeFile(folder / "panel.bcf", panel_names, length_bp)
    truth = GenotypeFile(folder / "truth.bcf", target_names, length_bp)
    common: list[int] = []
    num_sites = 0
    for position, alleles in genotypes(trees):
        known = alleles[of_panel]
        count = int(known.sum())
        if not 0 < count < num_haplotypes:
            continue
        num_sites += 1
        panel.write(position, known)
        truth.write(position, alleles[of_target])
        if min(count, num_haplotypes - count) >= TYPED_MAF * num_haplotypes:
            common.append(position)
    panel.close()
    truth.close()
    num_typed = min(len(common), round(typed_per_mb * length_bp / 1e6))
    chosen = np.array(common)[np.linspace(0, len(common) - 1, num_typed).astype(int)]
    sites = folder / "typed.txt"
    sites.write_text("".join(f"1\t{position}\n" for position in chosen))
    target = folder / "target.array.vcf.gz"
    bcftools("view", "-T", sites, "-Oz", "-o", target, truth.path)
    bcftools("index", "-f", "-t", target)
    sites.unlink()
    for number in first:
        few = folder / f"target.first-{number}.vcf.gz"
        write_samples(target, target_names[:number], few, tabix=True)
    rates = recombination_map(length_bp, np.random.default_rng(seed))
    rows = zip(rates.position, rates.get_cumulative_mass(rates.position) * 100, strict=True)
    text = "".join(f"1 . {cm:.9g} {max(1, bp):.0f}\n" for bp, cm in rows)
    (folder / "simulated.map").write_text(text)
    (folder / "made_by.txt").write_text(  # compare.py puts it on its page
        f"python benchmarks/simulate.py {'--many-populations ' if many_populations else ''}"
        f"--haplotypes {num_haplotypes} --targets {num_targets} "
        f"{''.join(f'--first {n} ' for n in first)}--mb {length_bp / 1e6:g} "
        f"--typed-per-mb {typed_per_mb:g} --seed {seed} -o {folder.name}\n"
    )
    return {"sites": num_sites, "typed": num_typed}


def main() -> None:
    """Make a data set and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--haplotypes", type=int, default=20_000, help="of the panel")
    parser.add_argument("--targets", type=int, default=200, help="samples")
    parser.add_argument(
        "--first", type=int, action="append", default=[], metavar="N",
        help="write the first N targets alone, too; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--many-populations", action="store_true", help="equally many of each of 52"
    )
    parser.add_argument("--mb", type=float, default=20.0)
    parser.add_argument("--typed-per-mb", type=float, default=800.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    counts = write_data(
        options.output, num_haplotypes=options.haplotypes, num_targets=options.targets,
        length_bp=round(options.mb * 1e6), typed_per_mb=options.typed_per_mb, seed=options.seed,
        first=options.first, many_populations=options.many_populations,
    )  # fmt: skip
    print(f"{options.output}: {counts['sites']:,} sites, {counts['typed']:,} typed")


if __name__ == "__main__":
    main()
