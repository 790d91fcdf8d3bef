"""The simulated data set, and the arithmetic of what a genome costs."""

from __future__ import annotations

import numpy as np
import pytest
from cost import Run, cost_rows, extrapolate, fit_cost, genome_costs, write_page
from simulate import write_data

from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.preparation.genetic_map import GeneticMap


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    counts = write_data(
        folder, num_haplotypes=60, num_targets=5, length_bp=100_000, typed_per_mb=200, seed=3,
        first=[2],
    )  # fmt: skip
    return folder, counts


def test_a_simulated_data_set_is_whole(simulated):
    folder, counts = simulated
    panel = read_target(folder / "panel.bcf")
    truth = read_target(folder / "truth.bcf")
    target = read_target(folder / "target.array.vcf.gz")
    assert (len(panel.samples), len(truth.samples)) == (30, 5)
    assert len(panel.sites) == counts["sites"] > 50
    assert len(target.sites) == counts["typed"] == 20
    assert panel.sites.keys() == truth.sites.keys()
    count = panel.alleles.sum(axis=(1, 2))
    assert ((count > 0) & (count < 60)).all()
    assert panel.phased.all()
    where = np.searchsorted(truth.sites.position_bp, target.sites.position_bp)
    np.testing.assert_array_equal(truth.alleles[where], target.alleles)
    few = read_target(folder / "target.first-2.vcf.gz")
    assert few.samples == target.samples[:2]
    np.testing.assert_array_equal(few.alleles, target.alleles[:, :2])
    assert "--first 2" in (folder / "made_by.txt").read_text()
    frequency = count[where] / 60
    assert (np.minimum(frequency, 1 - frequency) >= 0.01).all()
    cm = GeneticMap.read(folder / "simulated.map", contig="1").position_cm(np.array([1, 100_000]))
    assert cm[1] - cm[0] == pytest.approx(0.1, rel=0.01)


def test_many_populations_are_simulated(tmp_path):
    counts = write_data(
        tmp_path, num_haplotypes=90, num_targets=7, length_bp=50_000, typed_per_mb=400, seed=3,
        many_populations=True,
    )  # fmt: skip
    panel, truth = read_target(tmp_path / "panel.bcf"), read_target(tmp_path / "truth.bcf")
    assert (len(panel.samples), len(truth.samples)) == (45, 7)
    assert len(panel.sites) == counts["sites"] > 50
    assert "simulate.py --many-populations --hap" in (tmp_path / "made_by.txt").read_text()


def test_fixed_and_growing_parts_are_found():
    fixed, each = fit_cost([1, 10, 100], [5.1, 6.0, 15.0])
    assert (fixed, each) == (pytest.approx(5.0), pytest.approx(0.1))
    assert fit_cost([1, 10], [1.0, 10.5])[0] == 0  # never below nothing
    assert fit_cost([4], [8.0]) == (0.0, 2.0)


def test_sizes_are_carried_on_by_a_power():
    assert extrapolate([10, 100], [1.0, 10.0], 1_000) == pytest.approx(100)
    assert extrapolate([5, 10, 40], [9.0, 3.0, 6.0], 160) == pytest.approx(12)
    assert extrapolate([10, 100], [0.0, 2.0], 1_000) == pytest.approx(20)
    assert extrapolate([10, 100], [2.0, 1.0], 1_000) == pytest.approx(1)


def test_the_table():
    runs = [
        Run(num, count, 2 * num / 1_000 + count, 0, 0, 0)
        for num in (1_000, 4_000)
        for count in (1, 10)
    ]
    rows = cost_rows(genome_costs(runs, mb=3.1, batches=[1, 100], largest=16_000), [1, 100])
    assert rows[0] == ["panel haplotypes", "1 target", "100 targets", "panel part, s/Mb"]
    assert [row[0] for row in rows[1:]] == ["1,000", "4,000", "16,000 (extrapolated)"]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(
        [(2 + 1) / 3.6, (8 + 1) / 3.6, (32 + 1) / 3.6], rel=1e-3
    )
    assert float(rows[2][2]) == pytest.approx((8 / 100 + 1) / 3.6, rel=1e-3)
    assert float(rows[3][3]) == pytest.approx(32 / 3.1, rel=1e-2)


def test_the_programs_start_counts_once_a_region():
    runs = [Run(0, 0, 2, 0, 0, 0)]
    runs += [Run(1_000, count, 2 + 3 + count, 0, 0, 0) for count in (1, 10)]
    rows = cost_rows(genome_costs(runs, mb=3_100, batches=[1, 10], largest=0), [1, 10])
    assert len(rows) == 2
    assert float(rows[1][1]) == pytest.approx((3 + 1 + 2 * 155) / 3600, abs=1e-5)
    assert float(rows[1][2]) == pytest.approx((0.3 + 1 + 2 * 15.5) / 3600, abs=1e-5)


def test_the_page(tmp_path):
    runs = [Run(0, 0, 0.5, 0.6, 100, 0)]
    runs += [Run(num, 0, num / 100, num / 100, 200, 3_000) for num in (1_000, 4_000)]
    runs += [
        Run(num, count, 2 * num / 1_000 + count, 1.25, 300, 7_000)
        for num in (1_000, 4_000)
        for count in (1, 10)
    ]
    batches = [1, 100]
    costs = genome_costs(runs, mb=3.1, batches=batches, largest=16_000)
    rows = cost_rows(costs, batches)
    write_page(
        tmp_path / "cost.md", costs, runs, batches=batches, command="python cost.py", largest=16_000
    )
    text = (tmp_path / "cost.md").read_text()
    assert "python cost.py" in text
    assert "{" not in text
    for row in rows[1:]:
        assert "| " + " | ".join(row) + " |" in text
    assert "| start | 0 | 0 | 0.60 | 0.50 | 100 | 0 |" in text
    assert "| prepare | 4,000 | 0 | 40.00 | 40.00 | 200 | 3 |" in text
    assert text.count("| impute |") == 4
    assert (tmp_path / "images" / "cost.png").read_bytes().startswith(b"\x89PNG")
