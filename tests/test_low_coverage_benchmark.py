"""The benchmark of low coverage: simulated reads, and the table of its figures."""

from __future__ import annotations

import low_coverage
import numpy as np

from ragimpute import example
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.read.likelihoods import LikelihoodOptions
from ragimpute.sites import Region

REGION = Region.parse("20:2200000-2230000")


def test_many_reads_tell_the_genotype_and_none_tell_nothing():
    rng = np.random.default_rng(1)
    num_alt = np.array([0, 1, 2] * 20)
    pl, depth = low_coverage.simulated_pl(num_alt, np.full(60, 40.0), rng)
    np.testing.assert_array_equal(pl.argmin(axis=1), num_alt)
    assert (pl.min(axis=1) == 0).all()
    assert pl.max() <= 255
    assert 35 < depth.mean() < 45
    pl, depth = low_coverage.simulated_pl(num_alt, np.zeros(60), rng)
    assert not pl.any()
    assert not depth.any()


def test_written_reads_are_read_as_likelihoods(tmp_path):
    truth = read_target(example.path("target.vcf.gz"), region=REGION)
    for coverage in (0.5, 4.0):
        low_coverage.write_reads(truth, coverage, tmp_path / "x.bcf", seed=3)
        found = read_target(tmp_path / "x.bcf", likelihoods=LikelihoodOptions())
        assert found.samples == truth.samples
        assert found.likelihoods is not None
        assert abs(found.likelihood_counts.mean_depth / coverage - 1) < 0.25
    first = found.likelihoods
    low_coverage.write_reads(truth, 4.0, tmp_path / "x.bcf", seed=3)
    again = read_target(tmp_path / "x.bcf", likelihoods=LikelihoodOptions())
    np.testing.assert_array_equal(again.likelihoods, first)


def test_the_table_and_plot_hold_every_tool(tmp_path):
    rows = [
        {"data": "a", "coverage": c, "tool": tool, "cpu_s": 3.2, "r2": {"<=0.5": 0.9, "all": 0.8}}
        for c in (0.5, 1.0)
        for tool in ("ragimpute", "GLIMPSE2")
    ]
    lines = low_coverage.table(rows).splitlines()
    assert len(lines) == 6
    assert lines[2].split("|")[1:-1] == [
        " a ",
        " 0.5 ",
        " ragimpute ",
        " 0.9000 ",
        " 0.8000 ",
        " 3 ",
    ]
    low_coverage.draw(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000
