"""The weights that ship, and the panels that they are trained on."""

from __future__ import annotations

import sys
from pathlib import Path

import make_weights
import numpy as np
import pytest
from vcf_tools import bcftools

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.imputation.impute import impute
from ragimpute.model.checkpoint import load_model
from ragimpute.panel.reader import Panel
from ragimpute.presets import models_dir

PACKAGING = Path(__file__).resolve().parent.parent / "packaging"
MAX_BYTES = 5_000_000
SHIPPED = ("default",)


@pytest.fixture(scope="module")
def training_panels():
    """The script's module."""
    sys.path.insert(0, str(PACKAGING))
    try:
        import training_panels as module
    finally:
        sys.path.remove(str(PACKAGING))
    return module


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_ship_with_a_card(name):
    folder = models_dir() / name
    loaded = load_model(name)
    assert loaded.trained
    assert 0 < (folder / "weights.safetensors").stat().st_size < MAX_BYTES
    card = (folder / "README.md").read_text()
    assert f"{loaded.model.num_parameters():,} parameters" in card
    for part in ("make weights", "## Validation", "## Limits"):
        assert part in card
    assert len(loaded.provenance["panels"]) > 10


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_beat_plain_copying_on_the_example(name, panel_h5, plain_copying, tmp_path):
    target, truth = example.path("target.vcf.gz"), example.path("truth.bcf")
    r2 = {}
    for model in (plain_copying, name):
        out = tmp_path / "imputed.vcf.gz"
        impute(target, panel_h5, out, model=model)
        result = evaluate(truth, out, panel_h5, typed=target)
        rare = [row.r2 for row in result.bins[:3]]
        r2[str(model)] = (result.overall.r2, float(np.mean(rare)))
    (plain, plain_rare), (shipped, shipped_rare) = r2.values()
    assert shipped > plain + 0.001
    assert shipped_rare > plain_rare


def test_the_tested_network_has_not_seen_the_data():
    panels = {
        source: [Path(f"{source}.h5"), Path(f"{source}_50.h5")]
        for source in ("fish", "rice", "untested", "simulated")
    }
    together = make_weights.training_without(panels, ["fish", "rice"], "all")
    neither = [*panels["untested"], *panels["simulated"]]
    assert together == {"fish": ("without", neither), "rice": ("without", neither)}
    apart = make_weights.training_without(panels, ["fish", "rice"], "each")
    assert {name for name, _ in apart.values()} == {"without_fish", "without_rice"}
    assert apart["fish"][1] == [*panels["rice"], *neither]
    assert apart["rice"][1] == [*panels["fish"], *neither]
    assert make_weights.training_without(panels, [], "each") == {}


def test_tables_of_few_targets_and_empty_bins(tmp_path):
    truth, panel = example.path("truth.bcf"), example.path("panel.bcf")
    few = tmp_path / "few.bcf"
    bcftools("view", "-s", "HG00102", "-Ob", "-o", few, truth)
    result = evaluate(few, few, panel, region="20:2000000-2010000")
    rows = [("rice", "dense", "without it", result)]
    for text in (make_weights.table(rows), make_weights.dr2_table(rows)):
        assert "nan" not in text
        assert " - |" in text
    assert make_weights.reliability_table(rows).endswith(" | - | - | 0 of 0 | 0 |")


@pytest.mark.parametrize(("hold_out", "said"), [("all", "one network"), ("each", "of its own for")])
def test_the_card_says_what_the_tested_network_has_not_seen(hold_out, said):
    card = make_weights.card("default", {"fish": [Path("fish.h5")]}, 1.0, 1, [], hold_out)
    assert card.count('"without it" is ') == 1
    assert said in card
    assert '; "shipped" saw the panel' in card


@pytest.mark.parametrize(
    "kind", ["out_of_africa", "growth", "bottleneck", "livestock", "structured", "many_populations"]
)
def test_simulated_panels_vary_and_have_errors(kind, training_panels, tmp_path):
    recipe = training_panels.Recipe(kind, 20, 100_000, 1.0, 7)
    path = tmp_path / "panel.h5"
    training_panels.simulate_panel(recipe, path)
    with Panel.open(path) as panel:
        # At least one sample of each population.
        expected = (104,) if kind == "many_populations" else (40, 42)
        assert panel.num_haplotypes in expected
        assert panel.num_sites > 20
        assert panel.alt_count.min() > 0
        assert panel.alt_count.max() < panel.num_haplotypes
        assert np.all(np.diff(panel.position_cm) >= 0)
        assert 0.01 < panel.position_cm[-1] - panel.position_cm[0] < 0.5
        whole = panel.haplotypes(0, panel.num_sites).alleles()
    training_panels.simulate_panel(recipe, path)
    with Panel.open(path) as panel:  # the same seed, the same panel
        assert np.array_equal(panel.haplotypes(0, panel.num_sites).alleles(), whole)


def test_a_subset_keeps_alleles_and_positions(panel_h5, training_panels, tmp_path):
    path = tmp_path / "subset.h5"
    with Panel.open(panel_h5) as panel:
        training_panels.subset_panel(panel, 40, 3, path)
        chosen = np.sort(np.random.default_rng(3).permutation(len(panel.samples))[:40])
        alleles = panel.haplotypes(0, panel.num_sites).alleles()
        alleles = alleles[:, np.isin(panel.haplotype_sample, chosen)]
        varies = (alleles.min(axis=1) == 0) & (alleles.max(axis=1) == 1)
        with Panel.open(path) as subset:
            assert np.array_equal(subset.sites.position_bp, panel.sites.position_bp[varies])
            np.testing.assert_allclose(subset.position_cm, panel.position_cm[varies])
            assert np.array_equal(subset.haplotypes(0, subset.num_sites).alleles(), alleles[varies])


def test_the_network_for_likelihoods_learns_from_left_out_samples(tmp_path, monkeypatch):
    import make_likelihood_weights as made
    from panel_fixtures import FlatMap, make_batch, names
    from slow_copying import mosaic_panel

    from ragimpute.likelihoods.evidence import FEATURES
    from ragimpute.likelihoods.network import FILE, GenotypeNetwork
    from ragimpute.preparation.panel_writer import write_panel

    alleles = mosaic_panel(np.random.default_rng(3), 150, 60)
    batch = make_batch(alleles.reshape(150, 30, 2), 1_000 + 20_000 * np.arange(150))
    path = tmp_path / "p.h5"
    write_panel(path, [batch], samples=names(30), genetic_map=FlatMap())
    monkeypatch.setattr(made, "SUBSETS", (0, 20, 100))
    cases = made.cases_of([path], {"stock"})
    assert [case.size for case in cases] == [0, 0, 20, 20]
    rows = made.collect(cases[0], 1)
    again = made.collect(cases[0], 1)
    np.testing.assert_array_equal(rows.features, again.features)
    assert rows.features.shape == (len(rows.minor), len(FEATURES))
    assert np.isfinite(rows.features).all()
    assert set(np.unique(rows.minor)) <= {0, 1, 2}
    assert (np.bincount(np.unique(rows.depth, return_inverse=True)[1]) <= made.ROWS).all()
    assert (rows.weight >= 1).all()
    monkeypatch.setattr(made, "BATCH", 64)
    network = made.train(rows, 1)
    made.write(network, tmp_path / "out", {"seed": 1})
    read = GenotypeNetwork.read(tmp_path / "out" / FILE)
    change = read.change(rows.features)
    np.testing.assert_array_equal(change, network.change(rows.features))
    assert np.abs(change).max() > 0.01


def test_gains_on_other_panels_are_those_of_networks_that_have_not_seen_them(monkeypatch):
    import make_likelihood_weights as made

    from ragimpute.likelihoods.evidence import FEATURES, HET, HOM, with_reads

    rng = np.random.default_rng(2)
    cases = [made.Case(Path(f"{name}.h5"), 0, draw) for name in "abcdef" for draw in range(2)]
    fold = made.folds_of(cases)
    assert (fold[::2] == fold[1::2]).all()
    assert set(fold) == set(range(made.FOLDS))

    def rows_of(case):
        """What is true is twice as sure as the evidence says; a column names the case."""
        n = 4_000
        features = rng.normal(0, 1, (n, len(FEATURES))).astype(np.float32)
        features[:, -1] = 100 * case
        likelihoods = np.ones((n, 3), np.float32)
        true = with_reads(2 * features[:, [HET, HOM]], likelihoods)
        minor = (rng.random((n, 1)) > np.cumsum(true, axis=1)).sum(axis=1)
        depth = np.repeat([0.07, 0.15, 0.3, 0.7, 1.5, 4.0, 4.0, 4.0], n // 8)
        return made.Rows(features, likelihoods, minor.clip(0, 2), depth, np.ones(n))

    parts = [rows_of(i) for i in range(len(cases))]
    seen = []
    real = made.train

    def train(rows, seed):
        seen.append(set(np.unique(rows.features[:, -1] / 100).astype(int)))
        return real(rows, seed)

    monkeypatch.setattr(made, "train", train)
    found = made.cross_validated(parts, cases, 1)
    for held, learned in enumerate(seen):
        assert learned == set(np.flatnonzero(fold != held))
    assert [row["depth_from"] for row in found] == list(made.DEPTH_EDGES[:-1])
    for row in found:
        assert row["squared_error"] < -1
        assert row["cross_entropy"] < -1
        assert row["gp_off"] < row["gp_off_before"]
    # Probabilities as they were gain nothing.
    rows, of = made.joined(parts), np.repeat(np.arange(len(parts)), 4_000)
    same = with_reads(rows.features[:, [HET, HOM]], rows.likelihoods)
    for row in made.told_apart(rows, same, of):
        assert row["squared_error"] == row["cross_entropy"] == row["standard_error"] == 0
        assert row["gp_off"] == row["gp_off_before"] > 0.05
