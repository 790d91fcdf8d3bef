"""Inbred lines of a panel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import names
from slow_copying import mosaic_panel
from vcf_fixtures import write_genotypes

from ragimpute.panel import inbred
from ragimpute.panel.inbred import second_haplotypes
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare


def panel_of(folder, alleles):
    """A panel of alleles (M, N, 2), -2 where a sample is haploid."""
    keys = [(100 * (i + 1), "A", "G") for i in range(len(alleles))]
    source = write_genotypes(folder / "p.vcf", keys, alleles, names(alleles.shape[1]))
    prepare(source or folder / "p.vcf", folder / "p.h5", cm_per_mb=1)
    return Panel.open(folder / "p.h5")


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_inbred_samples_are_those_that_are_homozygous(tmp_path_factory, seed, share):
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, 300, 40, num_founders=8, switches=0.05).reshape(300, 20, 2)
    alleles = alleles.astype(np.int8)
    lines = np.arange(20) < share * 20
    alleles[:, lines, 1] = alleles[:, lines, 0]
    with panel_of(tmp_path_factory.mktemp("p"), alleles) as panel:
        found = second_haplotypes(panel, 0, panel.num_sites)
    hets = (alleles[:, :, 0] != alleles[:, :, 1]).sum(axis=0)
    af = alleles.mean(axis=(1, 2))
    wanted = hets <= 0.01 * (2 * af * (1 - af)).sum()
    if wanted.sum() < 10:
        wanted[:] = False
    np.testing.assert_array_equal(found.reshape(20, 2)[:, 1], wanted)
    assert not found.reshape(20, 2)[:, 0].any()


@pytest.mark.parametrize("at_once", [7, 1024])
def test_few_sites_haploid_samples_and_late_heterozygotes(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(inbred, "_SITES_AT_ONCE", at_once)
    alleles = mosaic_panel(np.random.default_rng(3), 200, 24, num_founders=6, switches=0.05)
    alleles = np.repeat(alleles[:, :, None], 2, axis=2).astype(np.int8)
    alleles[:, :4, 1] = -2  # four haploid samples
    alleles[150:, 5, 1] = 1 - alleles[150:, 5, 0]  # a sample that is inbred at first
    with panel_of(tmp_path, alleles) as panel:
        found = second_haplotypes(panel, 0, 200)
        assert np.flatnonzero(found).tolist() == [
            h for h in range(5, 44, 2) if panel.haplotype_sample[h] != 5
        ]
        assert not second_haplotypes(panel, 0, 12).any()  # too few sites to tell
        assert not second_haplotypes(panel, 5, 5).any()


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_large_panels_are_told_by_a_few_samples(tmp_path, monkeypatch, share):
    alleles = mosaic_panel(np.random.default_rng(8), 300, 80, num_founders=8, switches=0.05)
    alleles = alleles.reshape(300, 40, 2).astype(np.int8)
    lines = np.arange(40) < share * 40
    alleles[:, lines, 1] = alleles[:, lines, 0]
    with panel_of(tmp_path, alleles) as panel:
        usual = second_haplotypes(panel, 0, 300)
        monkeypatch.setattr(inbred, "_MANY_SAMPLES", 30)
        monkeypatch.setattr(inbred, "_FEW_SAMPLES", 12)
        monkeypatch.setattr(inbred, "_ALLELES_AT_ONCE", 700)  # a few samples at a time
        asked = []
        read = type(panel).haplotypes
        monkeypatch.setattr(
            type(panel), "haplotypes", lambda *args: asked.append(args) or read(*args)
        )
        np.testing.assert_array_equal(second_haplotypes(panel, 0, 300), usual)
    assert usual.any() == (share > 0)
    assert bool(asked) == (share > 0)  # of a panel without lines only the few samples are read
