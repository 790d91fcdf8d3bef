"""Panels to train weights on that carry over: simulated ones, and subsets of real ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msprime
import numpy as np
import tskit  # comes with msprime

from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.sites import Sites

SITES_AT_ONCE = 4096
MUTATION_RATE = 1.3e-8  # per bp and generation, as in humans (Jonsson et al. 2017)
# Share of sites, and how often an allele is miscalled there (never more often than its MAF).
ERROR_CLASSES = ((0.88, 3e-5), (0.085, 1e-3), (0.025, 1e-2), (0.01, 5e-2))
SWITCHES_PER_MB = (0.15, 0.35, 0.7)  # phase switches of a sample, one of these for each panel
RARE_COUNT, RARE_MISPHASED = 5, 0.12  # alleles this rare are often on the wrong haplotype
ALT_IS_ANCESTRAL = 0.15
ARRAY_HALF_MAF = 0.05  # at this MAF, a site is on an array half as often as a common one


@dataclass(frozen=True)
class Recipe:
    """How one panel is simulated.

    Attributes
    ----------
    kind
        A key of :data:`DEMOGRAPHIES`.
    num_samples
        Diploid samples.
    length_bp
        Simulated sequence, bp.
    cm_per_mb
        Mean recombination rate; hotspots vary it 15 kb by 15 kb.
    seed
        Of everything drawn.
    sites_per_mb
        Sites of the panel, of which most are common, as if an array had typed it; None: all.
    """

    kind: str
    num_samples: int
    length_bp: int
    cm_per_mb: float
    seed: int
    sites_per_mb: float | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}_{self.num_samples}_{self.seed}"


def _out_of_africa(rng: np.random.Generator) -> tuple[msprime.Demography, list[str]]:
    """Three continents after Gutenkunst et al. 2009, sizes varied, growth of today added."""
    d = msprime.Demography()
    d.add_population(name="AFR", initial_size=14_000 * (1 + 2 * rng.random()))
    for name, size, rate in (("EUR", 33_000, 0.0038), ("EAS", 50_000, 0.0048)):
        size *= np.exp(rng.normal(0, 0.5))
        d.add_population(name=name, initial_size=size, growth_rate=rate)
    d.add_population(name="OOA", initial_size=1_861)
    d.add_population(name="ANC", initial_size=7_310)
    d.set_symmetric_migration_rate(["AFR", "EUR"], 2.5e-5)
    d.set_symmetric_migration_rate(["AFR", "EAS"], 0.78e-5)
    d.set_symmetric_migration_rate(["EUR", "EAS"], 3.11e-5)
    d.add_migration_rate_change(time=920, rate=0)
    d.add_population_split(time=920, derived=["EUR", "EAS"], ancestral="OOA")
    d.add_population_split(time=2_040, derived=["AFR", "OOA"], ancestral="ANC")
    return d, ["AFR", "EUR", "EAS"]


def _one_population(
    today: float, growth: float, *changes: tuple[float, float]
) -> tuple[msprime.Demography, list[str]]:
    """One population with sizes that change at times (generations ago, size)."""
    d = msprime.Demography()
    d.add_population(name="POP", initial_size=today, growth_rate=growth)
    for time, size in changes:
        d.add_population_parameters_change(
            time=time, population="POP", initial_size=size, growth_rate=0
        )
    return d, ["POP"]


def _islands(rng: np.random.Generator) -> tuple[msprime.Demography, list[str]]:
    """Four populations that exchange migrants."""
    d = msprime.Demography()
    names = ["P", "Q", "R", "S"]
    for name in names:
        d.add_population(name=name, initial_size=5_000 * np.exp(rng.normal(0, 0.5)))
    d.add_population(name="ANC", initial_size=15_000)
    d.set_symmetric_migration_rate(names, 2e-4)
    d.add_population_split(time=3_000, derived=names, ancestral="ANC")
    return d, names


def _many_populations(rng: np.random.Generator) -> tuple[msprime.Demography, list[str]]:
    """Fifty-two populations of six continents, a quarter of them small and isolated.

    As among the samples of the Human Genome Diversity Project, few people of each are sampled, and
    those of an isolate share long stretches (sizes and times as in Bergstrom et al. 2020).
    """
    d = msprime.Demography()
    d.add_population(name="OOA", initial_size=2_000)
    for name in ("AFR", "ANC"):
        d.add_population(name=name, initial_size=12_300)
    # Continent: populations, size of what they come from, generations since it left the others.
    continents = {
        "afr": (7, 12_000, 1_500), "eur": (8, 8_000, 900), "mid": (5, 6_000, 900),
        "csa": (10, 8_000, 1_000), "eas": (17, 8_000, 1_000), "oce": (2, 3_000, 1_200),
        "ame": (3, 1_500, 700),
    }  # fmt: skip
    names = []
    for continent, (number, size, _) in continents.items():
        d.add_population(name=f"of_{continent}", initial_size=size)
        for i in range(number):
            isolated = continent in ("oce", "ame") or rng.random() < 0.25
            low, high = (600, 1_500) if isolated else (5_000, 20_000)
            names.append(f"{continent}{i}")
            d.add_population(
                name=names[-1], initial_size=int(rng.uniform(low, high)),
                growth_rate=0.0 if isolated else 0.01,
            )  # fmt: skip
            d.add_population_split(
                time=rng.uniform(60, 250), derived=[names[-1]], ancestral=f"of_{continent}"
            )
    for continent, (_, _, time) in continents.items():
        ancestral = "AFR" if continent == "afr" else "OOA"
        d.add_population_split(time=time, derived=[f"of_{continent}"], ancestral=ancestral)
    d.add_population_split(time=2_400, derived=["OOA", "AFR"], ancestral="ANC")
    d.sort_events()
    return d, names


def _salmon(rng: np.random.Generator) -> tuple[msprime.Demography, list[str]]:
    """One stock that has been small for some tens of generations, as in rivers and in farms."""
    today = 500 * np.exp(rng.normal(0, 0.4))
    return _one_population(today, 0.0, (rng.uniform(15, 40), 10_000), (5_000, 30_000))


def _stock(rng: np.random.Generator) -> tuple[msprime.Demography, list[str]]:
    """A closed stock of about a hundred, bred from eight haplotypes some tens of generations ago.

    As mice of a heterogeneous stock, whose founders are inbred strains.
    """
    founded = rng.uniform(30, 70)
    return _one_population(120, 0.0, (founded, 4), (founded + 2, 40_000))


def _insect(rng: np.random.Generator) -> tuple[msprime.Demography, list[str]]:
    """One very large population, in which little is linked."""
    return _one_population(1_000_000 * np.exp(rng.normal(0, 0.4)), 0.0, (50_000, 300_000))


#: Of these kinds, samples are lines that have selfed: both of their haplotypes are the same.
INBRED = frozenset({"selfing"})

#: Mutations per bp and generation of kinds that differ from humans.
MUTATION_RATES = {"insect": 3.5e-9}

#: Demographies by name.
DEMOGRAPHIES = {
    "out_of_africa": _out_of_africa,
    "growth": lambda rng: _one_population(200_000, 0.015, (300, 3_000), (2_000, 12_000)),
    "bottleneck": lambda rng: _one_population(10_000, 0.0, (60, 400), (90, 10_000)),
    "livestock": lambda rng: _one_population(150, 0.0, (50, 2_000), (500, 40_000)),
    "structured": _islands,
    "many_populations": _many_populations,
    "salmon": _salmon,
    "stock": _stock,
    "selfing": _islands,
    "insect": _insect,
}


def recombination_map(
    length_bp: int, cm_per_mb: float, rng: np.random.Generator
) -> msprime.RateMap:
    """Rates that change every 15 kb or so, most of the recombination in hotspots."""
    ends = np.cumsum(500 + rng.exponential(15_000, size=2 + length_bp // 10_000))
    position = np.concatenate([[0], ends[ends < length_bp - 1], [length_bp]])
    rate = np.maximum(rng.gamma(0.35, size=len(position) - 1), 0.01)
    mean = np.average(rate, weights=np.diff(position))
    return msprime.RateMap(position=position, rate=rate / mean * cm_per_mb * 1e-8)


class SimulatedMap:
    """A simulation's recombination map, in the place of a genetic map's file."""

    name = "simulated"

    def __init__(self, rates: msprime.RateMap) -> None:
        self._rates = rates

    def position_cm(self, position_bp: np.ndarray) -> np.ndarray:
        inside = np.minimum(position_bp, self._rates.sequence_length)
        return self._rates.get_cumulative_mass(inside) * 100


class StoredMap:
    """The genetic positions that a panel stores."""

    name = "that of another panel"

    def __init__(self, panel: Panel) -> None:
        self._bp, self._cm = panel.sites.position_bp, panel.position_cm

    def position_cm(self, position_bp: np.ndarray) -> np.ndarray:
        return np.interp(position_bp, self._bp, self._cm)


def _add_errors(alleles: np.ndarray, length_bp: int, rng: np.random.Generator) -> None:
    """Miscall alleles, switch phases and misplace rare alleles, in place; alleles (M, H) int8."""
    num_sites, num_haplotypes = alleles.shape
    count = alleles.sum(axis=1, dtype=np.int64)
    maf = np.minimum(count, num_haplotypes - count) / num_haplotypes
    shares, rates = zip(*ERROR_CLASSES, strict=True)
    rate = np.minimum(rng.choice(rates, p=shares, size=num_sites), maf)
    for first in range(0, num_sites, SITES_AT_ONCE):
        part = slice(first, first + SITES_AT_ONCE)
        alleles[part] ^= rng.random(alleles[part].shape) < rate[part, None]
    switches = rng.choice(SWITCHES_PER_MB) * length_bp * 1e-6
    for sample in range(num_haplotypes // 2):
        for site in rng.integers(0, num_sites, size=rng.poisson(switches)):
            alleles[site:, [2 * sample, 2 * sample + 1]] = alleles[
                site:, [2 * sample + 1, 2 * sample]
            ]
    count = alleles.sum(axis=1, dtype=np.int64)
    for site in np.flatnonzero(count <= RARE_COUNT):
        wrong = 0.5 if count[site] == 1 else RARE_MISPHASED
        for h in np.flatnonzero(alleles[site]):
            if rng.random() < wrong:
                alleles[site, h], alleles[site, h ^ 1] = alleles[site, h ^ 1], alleles[site, h]
    alleles[rng.random(num_sites) < ALT_IS_ANCESTRAL] ^= 1


def _typed_alone(
    trees: tskit.TreeSequence, recipe: Recipe, rng: np.random.Generator
) -> tskit.TreeSequence:
    """The trees with the sites of an array alone: most of them common, spread evenly by chance."""
    assert recipe.sites_per_mb is not None
    maf = np.array([min(p := v.frequencies()[v.alleles[1]], 1 - p) for v in trees.variants()])
    wanted = min(len(maf), round(recipe.sites_per_mb * recipe.length_bp * 1e-6))
    key = np.log(maf / (maf + ARRAY_HALF_MAF) + 1e-12) + rng.gumbel(size=len(maf))
    return trees.delete_sites(np.argsort(-key)[wanted:])


def simulate_panel(recipe: Recipe, path: Path) -> None:
    """Simulate a panel with errors of genotype and phase, and write it as panel.h5."""
    rng = np.random.default_rng(recipe.seed)
    rates = recombination_map(recipe.length_bp, recipe.cm_per_mb, rng)
    demography, populations = DEMOGRAPHIES[recipe.kind](rng)
    share = rng.dirichlet(np.full(len(populations), 1.5))
    count = np.maximum(1, np.round(share * recipe.num_samples)).astype(int)
    inbred = recipe.kind in INBRED
    trees = msprime.sim_ancestry(
        dict(zip(populations, count.tolist(), strict=True)), ploidy=1 if inbred else 2,
        demography=demography, recombination_rate=rates, random_seed=recipe.seed,
    )  # fmt: skip
    trees = msprime.sim_mutations(
        trees, rate=MUTATION_RATES.get(recipe.kind, MUTATION_RATE), random_seed=recipe.seed,
        model=msprime.BinaryMutationModel(),
    )  # fmt: skip
    if recipe.sites_per_mb is not None:
        trees = _typed_alone(trees, recipe, rng)
    alleles = trees.genotype_matrix().astype(np.int8)
    if inbred:
        alleles = np.repeat(alleles, 2, axis=1)
    position_bp = np.floor(trees.tables.sites.position).astype(np.int64) + 1
    _add_errors(alleles, recipe.length_bp, rng)
    ref, alt, name = (np.full(len(position_bp), text, dtype=object) for text in ("A", "C", "."))
    sites = Sites("1", position_bp.astype(np.int32), ref, alt, name)
    write_alleles(path, sites, alleles, SimulatedMap(rates), source=recipe.name)


def subset_panel(panel: Panel, num_samples: int, seed: int, path: Path) -> None:
    """Write some of a panel's samples as a panel of their own."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(panel.samples))[:num_samples])
    columns = np.flatnonzero(np.isin(panel.haplotype_sample, chosen))
    alleles = panel.haplotypes(0, panel.num_sites).alleles()[:, columns]
    write_alleles(
        path, panel.sites, alleles, StoredMap(panel),
        source=f"{panel.path.stem}, {num_samples} samples",
    )  # fmt: skip


def write_alleles(
    path: Path,
    sites: Sites,
    alleles: np.ndarray,
    genetic_map: SimulatedMap | StoredMap,
    *,
    source: str,
) -> None:
    """Write alleles (M, H), int8, as panel.h5; sites that do not vary are left out."""
    count = alleles.sum(axis=1, dtype=np.int64)
    varies = (count > 0) & (count < alleles.shape[1])
    sites, alleles = sites.take(varies), alleles[varies]
    num_samples = alleles.shape[1] // 2

    def batches() -> Iterator[SiteBatch]:
        for first in range(0, len(sites), SITES_AT_ONCE):
            part = slice(first, first + SITES_AT_ONCE)
            pairs = alleles[part].reshape(-1, num_samples, 2)
            yield SiteBatch(sites.take(part), pairs, np.ones(pairs.shape[:2], bool))

    write_panel(
        path, batches(), samples=[f"s{i}" for i in range(num_samples)],
        genetic_map=genetic_map, source=source,  # type: ignore[arg-type]
    )  # fmt: skip
