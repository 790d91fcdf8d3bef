"""P(ALT) of a locus adds up to 1 at most, as written too."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.imputation.exclusion import OtherCarriers, exclude_alleles
from ragimpute.io.vcf.read.records import site_table
from ragimpute.panel.loci import Loci

GROUPS = [[0, 2], [3, 4, 5], [7, 8]]
LOCI = Loci.of(GROUPS)


def thousandths(values):
    """As the writer rounds them."""
    return np.floor(values.astype(np.float64) * 1000 + 0.5)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 4))
def test_no_haplotype_has_more_than_one_allele(seed, power):
    rng = np.random.default_rng(seed)
    prob = (rng.random((9, 12)) ** power).astype(np.float32)
    called = np.full((9, 12), -1, np.int8)
    for group in GROUPS:  # some haplotypes are observed, and carry one ALT at most
        seen = rng.random(12) < 0.3
        which = rng.integers(-1, len(group), 12)
        for number, row in enumerate(group):
            called[row] = np.where(seen & (rng.random(12) < 0.7), which == number, -1)
    prob[called >= 0] = called[called >= 0]
    before = prob.copy()
    exclude_alleles(prob, called, LOCI)
    pairs = prob.reshape(9, 6, 2)
    for group in GROUPS:
        assert (thousandths(prob[group]).sum(axis=0) <= 1000).all()
        assert (thousandths(pairs[group].astype(np.float64).sum(axis=2)).sum(axis=0) <= 2000).all()
        carried = (called[group] == 1).any(axis=0)
        assert (prob[group][:, carried] == (called[group][:, carried] == 1)).all()
        # What was below 1 stays, but for rounding; what was above keeps its ratios.
        total = before[group].sum(axis=0)
        scaled = before[group] / np.maximum(1, total)
        np.testing.assert_allclose(prob[group][:, ~carried], scaled[:, ~carried], atol=1.01e-3)
    assert ((prob > 0.5).sum(axis=0) <= 9).all()
    alone = [1, 6]
    np.testing.assert_array_equal(prob[alone], before[alone])
    again = prob.copy()
    exclude_alleles(again, called, LOCI)
    np.testing.assert_allclose(again, prob, atol=1e-6)


def test_haplotypes_that_do_not_exist_stay_so():
    prob = np.array([[0.8, np.nan], [0.8, np.nan]], np.float32)
    exclude_alleles(prob, np.full((2, 2), -1, np.int8), Loci.of([[0, 1]]))
    np.testing.assert_array_equal(prob, np.array([[0.5, np.nan], [0.5, np.nan]], np.float32))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_carriers_of_an_alt_that_the_panel_lacks(seed, first):
    rng = np.random.default_rng(seed)
    spelled = [(10, "A", "G"), (10, "A", "AT"), (10, "AC", "A"), (20, "A", "C"), (20, "A", "G")]
    spelled += [(30, "C", "CA")]
    panel = site_table("20", *zip(*[(p, r, a, ".") for p, r, a in spelled], strict=True))
    rows = [(10, "a", "T"), (15, "A", "T"), (20, "A", "T"), (20, "A", "ATT"), (30, "C", "CG")]
    sites = site_table("20", *zip(*[(p, r, a, ".") for p, r, a in rows], strict=True))
    alleles = rng.integers(-2, 2, (5, 4, 2)).astype(np.int8)
    others = OtherCarriers.of(panel, sites, alleles)
    prob = rng.random((6 - first, 7)).astype(np.float32) + 0.01
    prob[rng.random(prob.shape) < 0.1] = np.nan
    called = np.where(rng.random(prob.shape) < 0.2, 1, -1).astype(np.int8)
    present = np.ones((4, 2), bool)
    present[2, 1] = False
    expected = prob.copy()
    for site, (at, ref, alt) in enumerate(spelled[first:]):
        for number, (position, its_ref, its_alt) in enumerate(rows):
            substitutions = len(alt) == len(ref) and len(its_alt) == len(its_ref)
            indels = len(alt) != len(ref) and len(its_alt) != len(its_ref)
            if (position, its_ref.upper()) == (at, ref) and (substitutions or indels):
                carriers = (alleles[number] == 1)[present] & (called[site] < 0)
                expected[site, carriers & ~np.isnan(prob[site])] = 0
    others.exclude(prob, called, first, present)
    np.testing.assert_array_equal(prob, expected)
