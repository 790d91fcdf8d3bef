"""Make simulated data sets that stand for kinds of organisms, in the layout that compare.py reads.

Run: python benchmarks/simulate_species.py salmon mice -o FOLDER      (FOLDER/salmon, FOLDER/mice)
     python benchmarks/simulate_species.py --all -o FOLDER
     python benchmarks/simulate_species.py --list

Each folder holds panel.bcf, truth.bcf, target.dense.vcf.gz and target.sparse.vcf.gz, which have
0.1 % wrong alleles, simulated.map, made_by.txt, and benchmark.toml: the population size that
somebody who knows the species would give to Beagle. Populations come from msprime; crosses and
families are bred from them, one meiosis after the other. Where the genetic map of a species is
poorly known, the map has one rate throughout, though the true rates vary.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msprime
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "packaging"))
from simulate import GenotypeFile, demography
from training_panels import DEMOGRAPHIES, recombination_map
from vcf_tools import bcftools

MISCALLED = 1e-3  # alleles of the targets' typed sites
TYPED_MAF = 0.01
Haplotypes = tuple[np.ndarray, np.ndarray]  # positions (M,), bp; alleles (M, H + 2N), panel first


@dataclass(frozen=True, kw_only=True)
class Species:
    """How the data of one kind of organism are made.

    Attributes
    ----------
    about
        One line for those who read the results.
    grow
        Makes positions, shape (M,), bp, and alleles, shape (M, H + 2N), int8: the panel's
        haplotypes, then those of the targets.
    num_panel, num_targets
        Haplotypes of the panel, H; target samples, N.
    length_mb, cm_per_mb
        Simulated sequence, Mb; its mean recombination rate.
    typed_per_mb
        Typed sites of the dense and of the sparse target, per Mb.
    sites_per_mb
        Sites of the panel, per Mb; None for all that vary.
    by_frequency
        Whether sites are drawn with chances proportional to their MAF, as those of an array.
    known_map
        Whether the map holds the true rates, rather than their mean.
    switches_per_cm
        Wrong phase of panel samples.
    beagle_ne
        The ``ne`` that suits Beagle here; None for its default.
    """

    about: str
    grow: Callable[[Species, msprime.RateMap, np.random.Generator], Haplotypes]
    num_panel: int
    num_targets: int = 60
    length_mb: float
    cm_per_mb: float
    typed_per_mb: tuple[float, float]
    sites_per_mb: float | None = None
    by_frequency: bool = False
    known_map: bool = False
    switches_per_cm: float = 0.0
    beagle_ne: int | None = None


def coalesce(
    num_haplotypes: int, history: msprime.Demography, rates: msprime.RateMap,
    rng: np.random.Generator, *, wanted_per_mb: float | None = None, mutation_rate: float = 1e-8,
    samples: dict[str, int] | None = None, generations: int = 0,
) -> Haplotypes:  # fmt: skip
    """Haplotypes of a population, by msprime.

    Parameters
    ----------
    num_haplotypes
        H, even; all from population "POP" unless ``samples`` names diploids by population.
    history, rates, mutation_rate
        Population sizes; recombination; mutations per bp and generation.
    wanted_per_mb
        So many varying sites per Mb, chosen at random; None for all of them.
    generations
        The last generations are those of a Wright-Fisher population, in which close relatives
        occur; the ones before are approximated by the coalescent.

    Returns
    -------
    Positions, shape (M,), int64, each once; alleles, shape (M, H), int8, the haplotypes of a sample
    side by side and the samples in random order.
    """
    models: list[msprime.AncestryModel] = [msprime.StandardCoalescent()]
    if generations:
        models.insert(0, msprime.DiscreteTimeWrightFisher(duration=generations))
    seeds = rng.integers(1, 2**31, size=2).tolist()
    trees = msprime.sim_ancestry(
        samples or {"POP": num_haplotypes // 2}, demography=history, recombination_rate=rates,
        random_seed=seeds[0], model=models,
    )  # fmt: skip
    trees = msprime.sim_mutations(
        trees, rate=mutation_rate, random_seed=seeds[1], model=msprime.BinaryMutationModel()
    )
    position = np.floor(trees.sites_position).astype(np.int64) + 1
    _, first = np.unique(position, return_index=True)
    if wanted_per_mb is not None:
        number = min(len(first), round(wanted_per_mb * rates.sequence_length / 1e6))
        first = np.sort(rng.choice(first, number, replace=False))
    trees = trees.delete_sites(np.setdiff1d(np.arange(trees.num_sites), first))
    order = rng.permutation(num_haplotypes // 2)
    columns = (2 * order[:, None] + [0, 1]).ravel()
    return position[first], trees.genotype_matrix()[:, columns].astype(np.int8)


def one_population(*sizes: tuple[float, float]) -> msprime.Demography:
    """A population "POP" with sizes from times on, as (generations ago, diploid size)."""
    history = msprime.Demography()
    history.add_population(name="POP", initial_size=sizes[0][1])
    for time, size in sizes[1:]:
        history.add_population_parameters_change(time=time, population="POP", initial_size=size)
    return history


def gamete(parent: np.ndarray, position_morgan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A gamete of a parent: alleles (M,) of its two haplotypes (2, M), crossed over.

    Crossovers are a Poisson process on the genetic map (Haldane 1919); ``position_morgan`` has
    shape (M,) and does not decrease.
    """
    first, last = position_morgan[0], position_morgan[-1]
    breaks = np.sort(rng.uniform(first, last, size=rng.poisson(last - first)))
    strand = (rng.integers(2) + np.searchsorted(breaks, position_morgan)) % 2
    return parent[strand, np.arange(len(strand))]


def breed(
    parents: np.ndarray, num_children: int, position_morgan: np.ndarray, rng: np.random.Generator,
    *, generations: int = 1, size: int | None = None,
) -> np.ndarray:  # fmt: skip
    """Children of random mating, each of two different parents.

    Parameters
    ----------
    parents
        Alleles, shape (P, 2, M), int8, P >= 2.
    num_children
        Animals in the last generation.
    position_morgan
        Shape (M,).
    generations
        How often to breed, >= 1.
    size
        Animals in the generations before the last; None: as many as ``parents``.

    Returns
    -------
    Shape (num_children, 2, M), int8.
    """
    for left in reversed(range(generations)):
        number = (size or len(parents)) if left else num_children
        pairs = [rng.choice(len(parents), size=2, replace=False) for _ in range(number)]
        parents = np.stack(
            [np.stack([gamete(parents[p], position_morgan, rng) for p in pair]) for pair in pairs]
        )
    return parents


def _morgan(position: np.ndarray, rates: msprime.RateMap) -> np.ndarray:
    """Genetic positions, Morgan."""
    return np.asarray(rates.get_cumulative_mass(position - 1))


def _animals(alleles: np.ndarray) -> np.ndarray:
    """(M, 2P) as (P, 2, M)."""
    return alleles.T.reshape(-1, 2, len(alleles))


def _columns(*groups: np.ndarray) -> np.ndarray:
    """Groups of animals, each (P, 2, M), as alleles (M, sum of 2P)."""
    return np.concatenate([group.reshape(-1, group.shape[-1]) for group in groups]).T


def _salmon(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """A stock of 500 for twenty generations, of a large wild population."""
    history = one_population((0, 500), (20, 8_000))
    return coalesce(kind.num_panel + 2 * kind.num_targets, history, rates, rng, generations=20)


def _lines(
    number: int, rates: msprime.RateMap, rng: np.random.Generator, *, per_mb: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and so many unrelated inbred lines as homozygous animals (P, 2, M)."""
    history = one_population((0, 20_000))
    position, alleles = coalesce(2 * number, history, rates, rng, wanted_per_mb=per_mb)
    return position, np.repeat(alleles[:, ::2].T[:, None], 2, axis=1)


def _mice(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """Heterogeneous stock: 8 inbred strains, then 55 generations of 100 animals."""
    position, lines = _lines(8, rates, rng, per_mb=300)
    where = _morgan(position, rates)
    crossed = breed(lines, 100, where, rng)
    number = kind.num_panel // 2 + kind.num_targets
    return position, _columns(breed(crossed, number, where, rng, generations=54))


def _founders(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """Inbred strains as the panel; targets after ten generations of intercross."""
    position, lines = _lines(kind.num_panel // 2, rates, rng, per_mb=300)
    targets = breed(lines, kind.num_targets, _morgan(position, rates), rng, generations=10, size=80)
    return position, _columns(lines, targets)


def _outbred_founders(
    kind: Species, rates: msprime.RateMap, rng: np.random.Generator
) -> Haplotypes:
    """Outbred founders as the panel; targets after ten generations of intercross."""
    history = one_population((0, 20_000))
    position, alleles = coalesce(kind.num_panel, history, rates, rng, wanted_per_mb=300)
    founders = _animals(alleles)
    where = _morgan(position, rates)
    targets = breed(founders, kind.num_targets, where, rng, generations=10, size=80)
    return position, _columns(founders, targets)


def _f2(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """Brothers and sisters of the second generation of a cross of two inbred lines."""
    position, (one, other) = _lines(2, rates, rng, per_mb=300)
    first = np.stack([one[0], other[0]])
    number = kind.num_panel // 2 + kind.num_targets
    return position, _columns(
        breed(np.stack([first, first]), number, _morgan(position, rates), rng)
    )


def _inbred(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """Homozygous lines of four groups of a selfing plant.

    Selfing leaves one heterozygote in twenty, and so one effective crossover in twenty of those on
    the map (Nordborg 2000).
    """
    history, names = DEMOGRAPHIES["structured"](rng)
    number = kind.num_panel // 2 + kind.num_targets
    each = -(-number // len(names))
    slow = msprime.RateMap(position=rates.position, rate=rates.rate * 0.05)
    position, alleles = coalesce(
        2 * each * len(names), history, slow, rng, wanted_per_mb=1_000,
        samples=dict.fromkeys(names, each),
    )  # fmt: skip
    return position, np.repeat(alleles[:, ::2][:, :number], 2, axis=1)


def _mosquito(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """A population of a million, four times as many as in the past."""
    history = one_population((0, 1_000_000), (20_000, 250_000))
    return coalesce(kind.num_panel + 2 * kind.num_targets, history, rates, rng, mutation_rate=3e-9)


def _herd(number: int, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """Animals of a breed: 100 for thirty generations, thousands before."""
    history = one_population((0, 100), (30, 2_000), (500, 20_000))
    return coalesce(2 * number, history, rates, rng, generations=30, wanted_per_mb=500)


def _livestock(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """Panel and targets of one breed."""
    return _herd(kind.num_panel // 2 + kind.num_targets, rates, rng)


def _family(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """Six sires and a dam for each target in the panel, beside other animals of the breed."""
    num_parents = 6 + kind.num_targets
    position, alleles = _herd(kind.num_panel // 2, rates, rng)
    animals, where = _animals(alleles), _morgan(position, rates)
    dams = animals[6:num_parents]
    children = [
        np.stack([gamete(animals[rng.integers(6)], where, rng), gamete(dam, where, rng)])
        for dam in dams
    ]
    return position, _columns(animals, np.stack(children))


def _human(kind: Species, rates: msprime.RateMap, rng: np.random.Generator) -> Haplotypes:
    """People of European ancestry."""
    number = kind.num_panel + 2 * kind.num_targets
    return coalesce(
        number, demography(), rates, rng, samples={"EUR": number // 2}, mutation_rate=1.25e-8
    )


_HUMAN = Species(
    about="people, a small panel", grow=_human, num_panel=50, length_mb=5, cm_per_mb=1,
    typed_per_mb=(300, 80), known_map=True,
)  # fmt: skip

#: The kinds of organisms by name.
SPECIES = {
    "salmon": Species(
        about="a fish stock of 500 for 20 generations", grow=_salmon, num_panel=200, length_mb=50,
        cm_per_mb=1, typed_per_mb=(20, 5), sites_per_mb=60, by_frequency=True,
        switches_per_cm=0.05, beagle_ne=500,
    ),
    "mice": Species(
        about="heterogeneous stock of 8 inbred strains", grow=_mice, num_panel=200, length_mb=80,
        cm_per_mb=0.5, typed_per_mb=(30, 8), sites_per_mb=100, switches_per_cm=0.02, beagle_ne=100,
    ),
    "founders": Species(
        about="8 inbred founders as the panel, 10 generations of intercross", grow=_founders,
        num_panel=16, length_mb=80, cm_per_mb=0.5, typed_per_mb=(30, 8), sites_per_mb=100,
        beagle_ne=50,
    ),
    "outbred_founders": Species(
        about="4 outbred founders as the panel, 10 generations of intercross",
        grow=_outbred_founders, num_panel=8, length_mb=80, cm_per_mb=0.5, typed_per_mb=(30, 8),
        sites_per_mb=100, beagle_ne=20,
    ),
    "f2": Species(
        about="F2 of two inbred lines", grow=_f2, num_panel=20, length_mb=80, cm_per_mb=0.5,
        typed_per_mb=(10, 2), sites_per_mb=50, beagle_ne=10,
    ),
    "inbred": Species(
        about="homozygous lines of a selfing plant", grow=_inbred, num_panel=300, length_mb=40,
        cm_per_mb=4, typed_per_mb=(40, 10), sites_per_mb=150, by_frequency=True, beagle_ne=10_000,
    ),
    "mosquito": Species(
        about="an insect, very many of them", grow=_mosquito, num_panel=300, length_mb=0.5,
        cm_per_mb=1.5, typed_per_mb=(2_000, 500), beagle_ne=1_000_000,
    ),
    "livestock": Species(
        about="a breed of 100 for 30 generations", grow=_livestock, num_panel=240, length_mb=90,
        cm_per_mb=1, typed_per_mb=(6, 2), sites_per_mb=20, by_frequency=True, switches_per_cm=0.05,
        beagle_ne=1_000,
    ),
    "livestock_family": Species(
        about="a breed, parents of the targets in the panel", grow=_family, num_panel=240,
        length_mb=90, cm_per_mb=1, typed_per_mb=(6, 2), sites_per_mb=20, by_frequency=True,
        switches_per_cm=0.05, beagle_ne=1_000,
    ),
    "human_50": _HUMAN,
    "human_14": replace(_HUMAN, num_panel=14),
}  # fmt: skip


def _switch_phases(
    panel: np.ndarray, position_morgan: np.ndarray, per_cm: float, rng: np.random.Generator
) -> None:
    """Exchange the haplotypes of panel samples from some places on; alleles (M, H), in place."""
    length_cm = 100 * (position_morgan[-1] - position_morgan[0])
    for first in range(0, panel.shape[1], 2):
        pair = [first, first + 1]
        for place in rng.uniform(*position_morgan[[0, -1]], size=rng.poisson(per_cm * length_cm)):
            start = np.searchsorted(position_morgan, place)
            panel[start:, pair] = panel[start:, pair[::-1]]


def simulate(
    kind: Species, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, msprime.RateMap]:
    """Positions (M,), the panel's alleles (M, H), the targets' (M, 2N), and the true rates.

    Every site varies in the panel. H and N are those of ``kind``; alleles are int8.
    """
    rng = np.random.default_rng(seed)
    length_bp = round(kind.length_mb * 1e6)
    rates = recombination_map(length_bp, kind.cm_per_mb, rng)
    position, alleles = kind.grow(kind, rates, rng)
    count = alleles[:, : kind.num_panel].sum(axis=1, dtype=np.int64)
    maf = np.minimum(count, kind.num_panel - count) / kind.num_panel
    kept = np.flatnonzero(maf > 0)
    if kind.sites_per_mb is not None:
        number = min(len(kept), round(kind.sites_per_mb * kind.length_mb))
        weight = maf[kept] if kind.by_frequency else np.ones(len(kept))
        kept = np.sort(rng.choice(kept, number, replace=False, p=weight / weight.sum()))
    position, alleles = position[kept], alleles[kept]
    panel, targets = alleles[:, : kind.num_panel].copy(), alleles[:, kind.num_panel :]
    _switch_phases(panel, _morgan(position, rates), kind.switches_per_cm, rng)
    return position, panel, targets, rates


def choose_typed(panel: np.ndarray, number: int) -> np.ndarray:
    """Rows of the sites that an array types: evenly spread among those of 1 % MAF and more."""
    count = panel.sum(axis=1, dtype=np.int64)
    common = np.flatnonzero(np.minimum(count, panel.shape[1] - count) >= TYPED_MAF * panel.shape[1])
    return common[np.unique(np.linspace(0, len(common) - 1, number).astype(int))]


def _write_genotypes(
    path: Path, letter: str, position: np.ndarray, alleles: np.ndarray, length_bp: int
) -> None:
    """Write a BCF of samples p0, p1, ... or t0, t1, ..."""
    names = [f"{letter}{i}" for i in range(alleles.shape[1] // 2)]
    file = GenotypeFile(path, names, length_bp)
    for bp, row in zip(position.tolist(), alleles, strict=True):
        file.write(bp, row)
    file.close()


def write_species(name: str, folder: Path, seed: int) -> dict[str, int]:
    """Write one folder of data; how many sites, and how many of each density are typed.

    Parameters
    ----------
    name
        A key of :data:`SPECIES`.
    folder
        Made if it does not exist; its name stands on the pages that show the results.
    seed
        Of all that is drawn.
    """
    kind = SPECIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    position, panel, targets, rates = simulate(kind, seed)
    length_bp = round(kind.length_mb * 1e6)
    _write_genotypes(folder / "panel.bcf", "p", position, panel, length_bp)
    _write_genotypes(folder / "truth.bcf", "t", position, targets, length_bp)
    rng = np.random.default_rng([seed, 1])
    counts = {"sites": len(position)}
    for density, per_mb in zip(("dense", "sparse"), kind.typed_per_mb, strict=True):
        rows = choose_typed(panel, round(per_mb * kind.length_mb))
        called = targets[rows] ^ (rng.random((len(rows), targets.shape[1])) < MISCALLED)
        out = folder / f"target.{density}.vcf.gz"
        partial = folder / f"target.{density}.bcf"
        _write_genotypes(partial, "t", position[rows], called, length_bp)
        bcftools("view", "-Oz", "-o", out, partial)
        bcftools("index", "-f", "-t", out)
        partial.unlink()
        partial.with_suffix(".bcf.csi").unlink()
        counts[density] = len(rows)
    where = rates.position if kind.known_map else np.array([0, length_bp])
    rows = zip(where, rates.get_cumulative_mass(where) * 100, strict=True)
    text = "".join(f"1 . {cm:.9g} {max(1, bp):.0f}\n" for bp, cm in rows)
    (folder / "simulated.map").write_text(text)
    (folder / "made_by.txt").write_text(
        f"python benchmarks/simulate_species.py {name} --seed {seed} -o .\n"
    )
    known = "" if kind.beagle_ne is None else f"beagle_ne = {kind.beagle_ne}\n"
    (folder / "benchmark.toml").write_text(f'about = "{kind.about}"\n{known}')
    return counts


def main() -> None:
    """Make the data sets that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("species", nargs="*", help="kinds of organisms; see --list")
    parser.add_argument("--all", action="store_true", help="every kind")
    parser.add_argument("--list", action="store_true", help="say which kinds there are")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="folder of the folders")
    options = parser.parse_args()
    if options.list:
        for name, kind in SPECIES.items():
            print(f"{name:18}{kind.about}")
        return
    names = list(SPECIES) if options.all else list(dict.fromkeys(options.species))
    unknown = [name for name in names if name not in SPECIES]
    if unknown:
        parser.error(f"no kind {', '.join(unknown)}; there are {', '.join(SPECIES)}")
    if not names or options.output is None:
        parser.error("name at least one kind, or --all, and the folder by -o")
    for name in names:
        counts = write_species(name, options.output / name, options.seed)
        told = ", ".join(f"{number:,} {what}" for what, number in counts.items())
        print(f"{options.output / name}: {told}", flush=True)


if __name__ == "__main__":
    main()
