"""Simulate panels of up to a million haplotypes, written straight to panel.h5, and their targets.

Run: python benchmarks/simulate_million.py --panels 20000 200000 1000000 --targets 1 10 100 1000 \
         --mb 2 -o DIR

People of Europe (nine tenths) and Africa, after the history and the map of simulate.py. All panels
come from the same trees: the smaller ones are the first samples of the largest. The targets are
simulated together with the panels, and are in none of them. They are typed at the same sites
everywhere, which simulate.py's rule takes from the largest panel. No genotypes of a panel are
ever written as text: a VCF of a million haplotypes would take 100 GB.

DIR gets panel-H.h5 for each panel, target-N.bcf for each number of targets, truth.bcf, and
made_by.json, which says what each step took.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msprime
import numpy as np
import tskit  # comes with msprime
from samples import write_samples
from simulate import (
    MUTATION_RATE,
    TYPED_MAF,
    GenotypeFile,
    demography,
    genotypes,
    recombination_map,
)

from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.preparation.genetic_map import GeneticMap
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.sites import Sites

AFRICAN_SHARE = 0.1
# A batch of sites that is handed to the panel's writer takes so many bytes, about.
_BATCH_BYTES = 1 << 25


@dataclass(frozen=True)
class Study:
    """What is simulated.

    Attributes
    ----------
    panels, targets
        Haplotypes of each panel, even; samples of each target file.
    length_bp, typed_per_mb
        Length of the region; sites that the array types.
    seed
        Of everything drawn.
    """

    panels: tuple[int, ...]
    targets: tuple[int, ...]
    length_bp: int
    typed_per_mb: float
    seed: int


def simulate_trees(study: Study) -> tskit.TreeSequence:
    """Trees of the people of the largest panel and of all targets, with mutations."""
    rates = recombination_map(study.length_bp, np.random.default_rng(study.seed))
    people = max(study.panels) // 2 + max(study.targets)
    african = round(AFRICAN_SHARE * people)
    trees = msprime.sim_ancestry(
        {"EUR": people - african, "AFR": african}, demography=demography(),
        recombination_rate=rates, random_seed=study.seed,
    )  # fmt: skip
    return msprime.sim_mutations(
        trees, rate=MUTATION_RATE, random_seed=study.seed, model=msprime.BinaryMutationModel()
    )


def haplotypes_of(people: np.ndarray) -> np.ndarray:
    """Sample nodes of diploid people, shape (2 n,), int32."""
    out: np.ndarray = (2 * people[:, None] + [0, 1]).ravel().astype(np.int32)
    return out


def batches_of(trees: tskit.TreeSequence) -> Iterator[SiteBatch]:
    """The sites that vary in a panel whose haplotypes are the samples of ``trees``.

    The arrays of a batch are used again for the next one.
    """
    num = trees.num_samples
    room = max(1, _BATCH_BYTES // num)
    alleles = np.empty((room, num), np.int8)
    phased = np.ones((room, num // 2), bool)
    positions: list[int] = []

    def batch() -> SiteBatch:
        size = len(positions)
        sites = Sites("1", np.array(positions, np.int32), ["A"] * size, ["C"] * size, ["."] * size)
        return SiteBatch(sites, alleles[:size].reshape(size, -1, 2), phased[:size])

    for position, found in genotypes(trees):
        if not 0 < np.count_nonzero(found) < num:
            continue
        alleles[len(positions)] = found
        positions.append(position)
        if len(positions) == room:
            yield batch()
            positions = []
    if positions:
        yield batch()


def typed_positions(positions: np.ndarray, maf: np.ndarray, wanted: int) -> np.ndarray:
    """Common sites, evenly spread, as an array types them: simulate.py's rule."""
    common = positions[maf >= TYPED_MAF]
    num = min(len(common), wanted)
    out: np.ndarray = common[np.linspace(0, len(common) - 1, num).astype(int)]
    return out


def write_targets(
    folder: Path, study: Study, trees: tskit.TreeSequence, typed: Sequence[int]
) -> None:
    """Write the truth of all targets, and the array's sites of the first so many of them."""
    names = [f"t{i}" for i in range(trees.num_individuals)]
    truth = GenotypeFile(folder / "truth.bcf", names, study.length_bp)
    array = GenotypeFile(folder / "array.bcf", names, study.length_bp)
    of_array = set(typed)
    for position, alleles in genotypes(trees):
        truth.write(position, alleles)
        if position in of_array:
            array.write(position, alleles)
    truth.close()
    array.close()
    for number in study.targets:
        write_samples(array.path, names[:number], folder / f"target-{number}.bcf")
    for left in folder.glob("array.bcf*"):
        left.unlink()


class Steps:
    """CPU seconds, and the peak memory of the process so far, of each step."""

    def __init__(self) -> None:
        self.taken: dict[str, dict[str, float]] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        """The step ``name`` ends here."""
        now = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.taken[name] = {"cpu_s": round(now - self._last, 2), "peak_mib": round(peak)}
        print(f"{name}: {now - self._last:.1f} s, {peak:,.0f} MiB", flush=True)
        self._last = now


def write_study(folder: Path, study: Study) -> dict[str, dict[str, float]]:
    """Simulate and write everything; returns what each step took."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = Steps()
    trees = simulate_trees(study)
    order = np.random.default_rng(study.seed).permutation(trees.num_individuals)
    largest, targets = max(study.panels), max(study.targets)
    steps.lap("simulate")
    rates = recombination_map(study.length_bp, np.random.default_rng(study.seed))
    genetic_map = GeneticMap(
        rates.position, rates.get_cumulative_mass(rates.position) * 100, "simulated.map"
    )
    for num in sorted(study.panels, reverse=True):
        # The mutations of a subset stay where they are; sites without one are dropped.
        part = trees.simplify(haplotypes_of(order[: num // 2]))
        names = [f"p{i}" for i in range(num // 2)]
        summary = write_panel(
            folder / f"panel-{num}.h5", batches_of(part), samples=names,
            genetic_map=genetic_map, contig_length=study.length_bp, source="simulated",
        )  # fmt: skip
        steps.lap(f"panel {num}")
        steps.taken[f"panel {num}"] |= {"sites": summary.num_sites, "bytes": summary.num_bytes}
        if num == largest:
            typed = _typed(folder / f"panel-{num}.h5", study)
        del part
    asked = order[largest // 2 : largest // 2 + targets]
    kept = trees.simplify(haplotypes_of(asked), filter_sites=False)
    write_targets(folder, study, kept, typed)
    steps.lap("targets")
    return steps.taken


def _typed(panel: Path, study: Study) -> list[int]:
    """The array's sites, by the frequencies in a panel."""
    from ragimpute.panel.reader import Panel

    with Panel.open(panel) as opened:
        maf = np.minimum(opened.af, 1 - opened.af)
        wanted = round(study.typed_per_mb * study.length_bp / 1e6)
        return typed_positions(opened.sites.position_bp, maf, wanted).tolist()


def main() -> None:
    """Make the panels and the targets, and say what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--panels", type=int, nargs="+", default=[20_000, 200_000, 1_000_000],
                        help="haplotypes of each panel, even numbers")  # fmt: skip
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 10, 100, 1_000],
                        help="samples of each target file")  # fmt: skip
    parser.add_argument("--mb", type=float, default=2.0)
    parser.add_argument("--typed-per-mb", type=float, default=800.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    if any(num % 2 or num < 2 for num in options.panels):
        sys.exit(f"--panels {options.panels}: expected even numbers, two haplotypes a person")
    study = Study(
        tuple(options.panels), tuple(options.targets), round(options.mb * 1e6),
        options.typed_per_mb, options.seed,
    )  # fmt: skip
    taken = write_study(options.output, study)
    (options.output / "made_by.json").write_text(json.dumps(taken, indent=2) + "\n")


if __name__ == "__main__":
    main()
