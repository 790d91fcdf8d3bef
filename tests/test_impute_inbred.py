"""Inbred lines from end to end: homozygous diploids are imputed as haploid lines are."""

from __future__ import annotations

import numpy as np
import pytest
from cyvcf2 import VCF
from panel_fixtures import names
from slow_copying import mosaic_panel
from vcf_fixtures import read_imputed, vcf_text, write_genotypes

from ragimpute.imputation.impute import impute
from ragimpute.likelihoods.fit import simulate_reads
from ragimpute.preparation.prepare import prepare

KEYS = [(1_000 * (i + 1), "A", "G") for i in range(480)]
TYPED = np.arange(1, 480, 3)


def pairs(lines, how):
    """Lines (M, n) as genotypes (M, n, 2): "haploid", or homozygous "diploid"."""
    second = np.full_like(lines, -2) if how == "haploid" else lines
    return np.stack([lines, second], axis=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Lines (480, 50), of which the first 44 are the panel, and the folder of two panels."""
    folder = tmp_path_factory.mktemp("lines")
    lines = mosaic_panel(np.random.default_rng(5), 480, 50, num_founders=8, switches=0.02)
    lines = lines.astype(np.int8)
    for how in ("haploid", "diploid"):
        write_genotypes(folder / f"{how}.vcf", KEYS, pairs(lines[:, :44], how), names(44))
        prepare(folder / f"{how}.vcf", folder / f"{how}.h5", cm_per_mb=10)
    return lines, folder


def run(made, tmp_path, model, target, panel, **options):
    """Impute six lines, written in one way, from a panel that is written in another."""
    lines, folder = made
    genotypes = target if isinstance(target, np.ndarray) else pairs(lines[TYPED, 44:], target)
    samples = list("abcdefgh")[: genotypes.shape[1]]
    write_genotypes(tmp_path / "t.vcf", [KEYS[i] for i in TYPED], genotypes, samples)
    out = tmp_path / "x.vcf"
    options = {"fields": ("GT", "DS", "HDS")} | options
    summary = impute(tmp_path / "t.vcf", folder / f"{panel}.h5", out, model=model, **options)
    return read_imputed(out), summary


@pytest.mark.parametrize("options", [{}, {"ne": 3e3, "err": 1e-3}, {"threads": 2}])
def test_lines_give_the_same_however_they_are_written(made, tmp_path, plain_copying, options):
    found = {
        (target, panel): run(made, tmp_path, plain_copying, target, panel, **options)
        for target in ("haploid", "diploid")
        for panel in ("haploid", "diploid")
    }
    haploid = found["haploid", "haploid"][0]
    for (target, panel), (other, summary) in found.items():
        ploidy = 1 if target == "haploid" else 2
        np.testing.assert_allclose(other.dosage, ploidy * haploid.dosage, atol=2e-3)
        rows = dict(summary.rows())
        assert ("44 inbred samples" in rows["states"]) == (panel == "diploid")
        said = "6 of 6, imputed as one haplotype each"
        assert rows.get("inbred samples") == (said if target == "diploid" else None)


def test_lines_among_other_samples_are_imputed_as_on_their_own(made, tmp_path, plain_copying):
    lines, _ = made
    alone, _ = run(made, tmp_path, plain_copying, "diploid", "diploid")
    hybrid = np.stack([lines[TYPED, 44], lines[TYPED, 47]], axis=1)[:, None]
    mixed = np.concatenate([hybrid, pairs(lines[TYPED, 44:], "diploid")], axis=1)
    found, summary = run(made, tmp_path, plain_copying, mixed, "diploid")
    np.testing.assert_allclose(found.dosage[:, 1:], alone.dosage, atol=1e-6)
    mean = (alone.dosage[:, 0] + alone.dosage[:, 3]) / 2
    np.testing.assert_allclose(found.dosage[:, 0], mean, atol=2e-3)
    assert dict(summary.rows())["inbred samples"].startswith("6 of 7")


def read_lines(path, lines, depth, *, het=()):
    """Write PL of simulated reads of homozygous samples (M, n), heterozygous at the sites het."""
    truth = 2 * lines.astype(int)
    truth[list(het)] = 1
    reads = simulate_reads(truth, depth, np.random.default_rng(3))
    pl = np.rint(-10 * np.log10(np.maximum(reads, 1e-25))).astype(int)
    rows = [
        (*key, *(",".join(map(str, cell)) for cell in cells))
        for key, cells in zip(KEYS, pl, strict=True)
    ]
    declared = '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="x">\n'
    path.write_text(vcf_text(rows, list("abcdef"), formats=declared, keys="PL"))


@pytest.mark.parametrize("depth", [3.0, 8.0])
def test_reads_of_lines_are_imputed_as_one_haplotype(made, tmp_path, depth):
    lines, folder = made
    read_lines(tmp_path / "t.vcf", lines[:, 44:], depth)
    out = tmp_path / "x.vcf"
    summary = impute(tmp_path / "t.vcf", folder / "diploid.h5", out, fields=("GT", "GP", "HDS"))
    assert summary.settings["inbred samples"] == "6 of 6, imputed as one haplotype each"
    records = list(VCF(str(out)))
    hds = np.stack([record.format("HDS") for record in records])
    np.testing.assert_array_equal(hds[..., 0], hds[..., 1])
    assert max(record.format("GP")[:, 1].max() for record in records) < 1e-6
    r2 = np.corrcoef(hds[..., 0].ravel(), lines[:, 44:].ravel())[0, 1] ** 2
    assert r2 > 0.97


@pytest.mark.parametrize("cm_per_mb", [10, 100])
def test_a_short_stretch_makes_no_line_of_a_sample(made, tmp_path, cm_per_mb):
    lines, _ = made
    others = np.stack([lines[:, :22], lines[:, 22:44]], axis=2)
    write_genotypes(tmp_path / "p.vcf", KEYS, others, names(22))
    prepare(tmp_path / "p.vcf", tmp_path / "p.h5", cm_per_mb=cm_per_mb)  # 4.8 or 48 cM
    read_lines(tmp_path / "t.vcf", lines[:, 44:], 8.0)
    summary = impute(tmp_path / "t.vcf", tmp_path / "p.h5", tmp_path / "x.vcf")
    assert ("inbred samples" in summary.settings) == (cm_per_mb == 100)


def test_reads_of_samples_with_heterozygous_genotypes_are_of_two_haplotypes(made, tmp_path):
    lines, folder = made
    read_lines(tmp_path / "t.vcf", lines[:, 44:], 4.0, het=range(0, 480, 3))
    summary = impute(tmp_path / "t.vcf", folder / "diploid.h5", tmp_path / "x.vcf")
    assert "inbred samples" not in summary.settings
