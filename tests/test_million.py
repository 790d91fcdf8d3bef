"""The benchmark of very large panels, on small ones."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("msprime")

import million
from cyvcf2 import VCF
from simulate_million import Study, write_study

from ragimpute.panel.reader import Panel


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Panels of 60 and 200 haplotypes, and files of 1 and 5 targets."""
    folder = tmp_path_factory.mktemp("study")
    return folder, write_study(folder, Study((60, 200), (1, 5), 200_000, 800, 3))


def test_the_smaller_panel_is_the_first_samples_of_the_larger(study):
    folder, taken = study
    with Panel.open(folder / "panel-60.h5") as few, Panel.open(folder / "panel-200.h5") as many:
        assert few.samples == many.samples[:30]
        whole = many.haplotypes(0, many.num_sites).alleles()
        varies = np.ptp(whole[:, :60], axis=1) == 1
        np.testing.assert_array_equal(few.sites.position_bp, many.sites.position_bp[varies])
        np.testing.assert_array_equal(
            few.haplotypes(0, few.num_sites).alleles(), whole[varies, :60]
        )
        np.testing.assert_array_equal(few.position_cm, many.position_cm[varies])
        assert taken["panel 200"]["sites"] == many.num_sites


def test_targets_are_of_the_array_and_of_the_truth(study):
    folder, _ = study
    files = {name: VCF(str(folder / f"{name}.bcf")) for name in ("target-1", "target-5", "truth")}
    found = {
        name: {record.POS: record.genotype.array()[:, :2] for record in file}
        for name, file in files.items()
    }
    assert 0 < len(found["target-5"]) <= 160
    assert files["target-1"].samples == files["target-5"].samples[:1]
    with Panel.open(folder / "panel-200.h5") as panel:
        maf = dict(
            zip(panel.sites.position_bp.tolist(), np.minimum(panel.af, 1 - panel.af), strict=False)
        )
    for position, alleles in found["target-5"].items():
        assert maf[position] >= 0.01
        np.testing.assert_array_equal(alleles, found["truth"][position])
        np.testing.assert_array_equal(alleles[:1], found["target-1"][position])


def test_numbers_and_accuracy(study, tmp_path):
    folder, _ = study
    assert million.numbers(folder, "panel-*.h5") == [60, 200]
    with Panel.open(folder / "panel-200.h5") as panel:
        positions = panel.sites.position_bp
    true = million.dosages(folder / "truth.bcf", positions, truth=True)
    assert true.shape == (len(positions), 5)
    assert set(np.unique(true)) == {0, 1, 2}
    assert (million.dosages(folder / "truth.bcf", np.array([1]), truth=True) == 0).all()


def test_tables():
    run = {
        "targets": 10, "max_memory": None, "wall_s": 3.0, "peak_mib": 1234.0, "indexed": False,
    }  # fmt: skip
    rows = million.cost_rows([
        {**run, "panel": 200, "cpu_s": 2.0}, {**run, "panel": 1000, "cpu_s": 3.0},
        {**run, "panel": 1000, "cpu_s": 5.0, "max_memory": "1G"},
        {**run, "panel": 200, "cpu_s": 0.5, "indexed": True},
        {**run, "panel": 1000, "cpu_s": 0.6, "indexed": True},
    ])  # fmt: skip
    assert [row[6:8] for row in rows[1:]] == [["0.50", "1.00"], ["0.60", "1.20"], ["", ""]]
    assert million.index_rows([{**run, "panel": 1000, "cpu_s": 5.0, "bytes": 10**7}])[1][:2] == [
        "1,000", "10",
    ]  # fmt: skip
    assert [row[3] for row in rows[1:]] == ["1.00", "1.50", "2.50"]
    assert rows[3][0] == "1,000, --max-memory 1G"
    assert million.accuracy_rows({20: [0.5] * 5})[1] == ["20", *["0.5000"] * 5]
    made = {"simulate": {"cpu_s": 1.0, "peak_mib": 10},
            "panel 20": {"cpu_s": 1.0, "peak_mib": 10, "sites": 5, "bytes": 10**6}}  # fmt: skip
    assert million.data_rows(made)[2][:3] == ["prepare a panel of 20", "5", "1.0"]
