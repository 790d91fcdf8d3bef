"""The benchmark of low coverage: simulated reads, and the table of its figures."""

from __future__ import annotations

from dataclasses import replace

import low_coverage
import numpy as np
import pytest

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
        {
            "data": "a", "coverage": c, "tool": tool, "cpu_s": 3.2, "peak_mib": 512.4,
            "r2": {"<=0.5": 0.9, "all": 0.8}, "gp_off": 0.0123, "gp_error": 0.0041,
            "dr2_off": float("nan"),
        }
        for c in ("0.5", "1", "array + 0.5")
        for tool in ("ragimpute", "GLIMPSE2")
    ]  # fmt: skip
    lines = low_coverage.table(rows).splitlines()
    assert len(lines) == 8
    assert lines[2].split("|")[1:-1] == [
        " a ",
        " 0.5 ",
        " ragimpute ",
        " 0.9000 ",
        " 0.8000 ",
        "  ",
        " 0.012 ± 0.004 ",
        " 3.2 ",
        " 512 ",
    ]
    low_coverage.draw(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_file_of_an_array_and_reads_has_either_at_each_site(tmp_path):
    truth = read_target(example.path("target.vcf.gz"), region=REGION)
    array = replace(
        truth, sites=truth.sites.take(slice(0, 3)), alleles=truth.alleles[:3],
        phased=truth.phased[:3],
    )  # fmt: skip
    low_coverage.write_reads(truth, 30.0, tmp_path / "x.bcf", seed=3, array=array)
    found = read_target(tmp_path / "x.bcf", likelihoods=LikelihoodOptions("always"))
    assert not found.likelihoods[:3].any()
    np.testing.assert_array_equal(
        found.alleles[:3].clip(0).sum(axis=2), truth.alleles[:3].clip(0).sum(axis=2)
    )
    assert (found.alleles[3:] == -1).all()
    assert found.likelihoods[3:].any(axis=(1, 2)).all()


def test_what_is_right_and_what_is_off(panel_h5, tmp_path):
    truth = read_target(example.path("target.vcf.gz"))
    path = tmp_path / "x.vcf"
    head = (
        "##fileformat=VCFv4.2\n##contig=<ID=20>\n##INFO=<ID=DR2,Number=A,Type=Float,"
        'Description="x">\n##FORMAT=<ID=DS,Number=A,Type=Float,Description="x">\n'
        '##FORMAT=<ID=GP,Number=G,Type=Float,Description="x">\n'
    )
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    rows = ["\t".join([*fixed, *truth.samples])]
    for (position, ref, alt), alleles in zip(truth.sites.keys(), truth.alleles, strict=True):
        cells = []
        for count in alleles.sum(axis=1).tolist():
            gp = ["0.05"] * 3
            gp[count] = "0.9"
            cells.append(f"{count}:{','.join(gp)}")
        rows.append("\t".join(["20", str(position), ".", ref, alt, ".", ".", "DR2=0.95", "DS:GP",
                               *cells]))  # fmt: skip
    path.write_text(head + "\n".join(rows) + "\n")
    found = low_coverage.reliability(path, truth, panel_h5)
    assert abs(found["dr2_off"] - 0.05) < 1e-3  # true r2 is 1
    assert abs(found["gp_off"] - 0.1) < 1e-3  # of what is said to be .9, all is so


def test_the_worst_difference_is_told_with_its_error():
    rng = np.random.default_rng(3)
    value, size = rng.normal(0.1, 0.05, 400), np.full(400, 7.0)
    small = rng.normal(0.0, 0.01, 50)
    off, error = low_coverage.worst_off([(small, np.ones(50)), (7 * value, size)])
    assert off == pytest.approx(abs(value.mean()))
    # Of equal parts, the jackknife's error is that of a mean.
    assert error == pytest.approx(value.std(ddof=1) / 20, rel=1e-6)
    assert np.isnan(low_coverage.worst_off([])).all()
