"""Imputation from likelihoods: what reads that say much, little or nothing make of a sample."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel

from ragimpute.copying.window import TypedSites
from ragimpute.likelihoods.fit import (
    FitOptions,
    FittedPanel,
    fit_panel,
    fit_stretch,
    simulate_reads,
)
from ragimpute.likelihoods.impute import LikelihoodPanel, _joined, impute_likelihoods
from ragimpute.likelihoods.mismatch_fit import fit_mismatch
from ragimpute.likelihoods.model import (
    FLOOR,
    SiteMismatch,
    SwitchRates,
    normalise,
    true_given_copied,
)
from ragimpute.likelihoods.patterns import num_alt_of
from ragimpute.likelihoods.states import GroupMass, choose_groups
from ragimpute.likelihoods.stretches import PairSettings, stretches

NUM_SITES, NUM_HAPLOTYPES = 300, 90


@pytest.fixture(scope="module")
def alleles():
    return mosaic_panel(np.random.default_rng(5), NUM_SITES, NUM_HAPLOTYPES + 20)


def panel_of(alleles, *, rate=5.0, mismatch=1e-3, length_cm=3.0):
    typed = TypedSites.pack(alleles, np.linspace(0, length_cm, len(alleles)))
    each = np.full(len(alleles), mismatch, np.float32)
    return LikelihoodPanel(
        typed, num_alt_of(typed), SwitchRates(rate, 0.0), SiteMismatch(each, each)
    )


@pytest.fixture(scope="module")
def panel(alleles):
    return panel_of(alleles[:, :NUM_HAPLOTYPES])


@pytest.fixture(scope="module")
def truth(alleles):
    """ALT alleles of ten samples, (M, 10)."""
    return alleles[:, NUM_HAPLOTYPES:].reshape(NUM_SITES, 10, 2).sum(axis=2).astype(int)


@pytest.fixture(scope="module")
def reads(truth):
    return simulate_reads(truth, 1.0, np.random.default_rng(2))


def dosages(found):
    return np.stack([each.allele_prob.sum(axis=1) for each in found], axis=1)


def r2(x, y):
    return np.corrcoef(x.ravel(), y.ravel())[0, 1] ** 2


def test_more_reads_tell_more(panel, truth):
    rng = np.random.default_rng(7)
    found = [
        r2(dosages(impute_likelihoods(panel, simulate_reads(truth, depth, rng))), truth)
        for depth in (0.05, 0.5, 8.0)
    ]
    assert found[0] < found[1] < found[2]
    assert found[0] > 0.4
    assert found[2] > 0.97


def test_probabilities_agree(panel, reads):
    for each in impute_likelihoods(panel, reads):
        gp = each.genotype_probs()
        assert (each.allele_prob >= 0).all()
        assert (each.allele_prob <= 1).all()
        np.testing.assert_allclose(gp.sum(axis=1), 1, atol=1e-5)
        assert gp.min() > -1e-5
        np.testing.assert_allclose(gp @ [0, 1, 2], each.allele_prob.sum(axis=1), atol=1e-5)


def test_no_reads_give_the_panel_frequencies(panel):
    nothing = np.ones((NUM_SITES, 1, 3))
    af = panel.mismatch.alt_prob(panel.num_alt / NUM_HAPLOTYPES)
    (found,) = impute_likelihoods(panel, nothing)
    np.testing.assert_allclose(found.allele_prob, np.stack([af, af], axis=1), atol=1e-6)
    (found,) = impute_likelihoods(panel, nothing[:, :, :2])
    np.testing.assert_allclose(found.allele_prob[:, 0], af, atol=1e-6)


def test_one_read_where_all_are_alike(panel):
    """A single site with reads, at which no haplotype of the panel has the other allele."""
    likelihoods = np.ones((NUM_SITES, 1, 3))
    likelihoods[17] = [1, 0.5, 0.001]
    (found,) = impute_likelihoods(panel, likelihoods)
    assert np.isfinite(found.genotype_probs()).all()


def test_samples_do_not_depend_on_each_other(panel, reads):
    every = impute_likelihoods(panel, reads, threads=2)
    order = np.array([7, 2, 9, 0])
    for i, one in zip(order, impute_likelihoods(panel, reads[:, order]), strict=True):
        np.testing.assert_array_equal(one.allele_prob, every[i].allele_prob)
        np.testing.assert_array_equal(one.both, every[i].both)
    (alone,) = impute_likelihoods(panel, reads[:, 4:5])
    np.testing.assert_array_equal(alone.allele_prob, every[4].allele_prob)


def test_certain_reads_of_a_copied_sample_give_it_back(alleles):
    """Two haplotypes of the panel, known at every third site, come back with their phase."""
    panel = panel_of(alleles[:, :NUM_HAPLOTYPES], rate=0.5, mismatch=1e-4)
    pair = alleles[:, [3, 50]].astype(int)
    known = np.arange(NUM_SITES) % 3 == 0
    likelihoods = np.ones((NUM_SITES, 1, 3))
    likelihoods[known, 0] = np.eye(3)[pair.sum(axis=1)[known]]
    (found,) = impute_likelihoods(panel, likelihoods)
    assert np.abs(found.allele_prob.sum(axis=1) - pair.sum(axis=1)).mean() < 0.02
    het = pair[:, 0] != pair[:, 1]
    first = found.allele_prob[het, 0].round() == pair[het, 0]
    assert max(first.mean(), 1 - first.mean()) > 0.97


def test_haploid_is_as_good_as_homozygous(panel, alleles):
    """A haploid sample has half of the dosage of a diploid one with the same certain genotypes."""
    one = alleles[:, NUM_HAPLOTYPES].astype(int)
    known = np.arange(NUM_SITES) % 2 == 0
    haploid, diploid = np.ones((NUM_SITES, 1, 2)), np.ones((NUM_SITES, 1, 3))
    haploid[known, 0] = np.eye(2)[one[known]]
    diploid[known, 0] = np.eye(3)[2 * one[known]]
    (single,), (double,) = (impute_likelihoods(panel, x) for x in (haploid, diploid))
    assert single.allele_prob.shape == (NUM_SITES, 1)
    assert r2(single.allele_prob[:, 0], one) > 0.85
    assert np.abs(2 * single.allele_prob[:, 0] - double.allele_prob.sum(axis=1)).mean() < 0.05
    assert not single.both.any()


def test_groups_stand_for_their_haplotypes(alleles, reads):
    """A panel whose haplotypes come twice gives what it gives with each of them once."""
    few = alleles[:, :40]
    once = impute_likelihoods(panel_of(few), reads[:, :3])
    twice = impute_likelihoods(panel_of(np.repeat(few, 2, axis=1)), reads[:, :3])
    np.testing.assert_allclose(dosages(twice), dosages(once), atol=1e-3)


def test_own_haplotypes_are_not_copied(panel, alleles):
    pair = alleles[:, [3, 50]].astype(int).sum(axis=1)
    likelihoods = np.eye(3)[pair][:, None] + 1e-3
    likelihoods[::2] = 1
    (copied,) = impute_likelihoods(panel, likelihoods)
    (left_out,) = impute_likelihoods(panel, likelihoods, exclude=np.array([[3, 50]]))
    without = panel_of(np.delete(alleles[:, :NUM_HAPLOTYPES], [3, 50], axis=1))
    (expected,) = impute_likelihoods(without, likelihoods)
    assert np.abs(copied.allele_prob.sum(axis=1) - pair).mean() < 0.05
    # They differ by how the frequencies of the panel are counted only.
    assert np.abs(left_out.allele_prob.sum(1) - expected.allele_prob.sum(1)).mean() < 0.01
    assert np.abs(left_out.allele_prob - copied.allele_prob).max() > 0.2


def test_stretches_join(alleles, reads):
    """Cut into stretches, a chromosome is imputed about as it is in one piece, with its phase."""
    panel = panel_of(alleles[:, :NUM_HAPLOTYPES], length_cm=12.0)
    whole = impute_likelihoods(panel, reads[:, :3], settings=PairSettings(stretch_cm=100))
    cut = impute_likelihoods(panel, reads[:, :3], settings=PairSettings(stretch_cm=4))
    assert np.abs(dosages(cut) - dosages(whole)).mean() < 0.02
    parts = stretches(panel.typed.position_cm, PairSettings(stretch_cm=4))
    assert len(parts) == 3
    assert parts[0].low == 0
    assert parts[-1].high == NUM_SITES
    assert all(a.high == b.low for a, b in pairwise(parts))
    assert all(p.first % 32 == 0 and p.first <= p.low < p.high <= p.stop for p in parts)


def test_few_states_are_enough(alleles, reads, truth):
    panel = panel_of(alleles[:, :NUM_HAPLOTYPES])
    few = impute_likelihoods(panel, reads, settings=PairSettings(least=32, most=32))
    every = impute_likelihoods(panel, reads)
    assert r2(dosages(few), truth) > r2(dosages(every), truth) - 0.02


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.sampled_from([0.0, 1.0, 0.5, 1e-30, 1e300, np.nan, np.inf, -1.0]), min_size=3, max_size=3
    )
)
def test_strange_likelihoods_say_nothing_or_something_finite(values):
    out = normalise(np.array([values]))
    assert out.max() == 1
    assert (out >= FLOOR).all()
    if not np.isfinite(values).all() or min(values) < 0 or max(values) == 0:
        assert (out == 1).all()


def test_shapes_are_checked(panel):
    with pytest.raises(ValueError, match="for a panel of 300 sites"):
        impute_likelihoods(panel, np.ones((299, 1, 3)))


def test_reads_decide_where_copying_is_doubtful():
    """Copied REF, but reads that only a heterozygote explains."""
    given_copied = SiteMismatch(np.array([0.01]), np.array([0.01])).genotypes()
    copied = np.array([[1.0, 0, 0]])
    out = true_given_copied(copied, given_copied, np.array([[FLOOR, 1, FLOOR]]))
    assert out[0, 1] > 0.99
    out = true_given_copied(copied, given_copied, np.array([[1, 1, 1]]))
    assert out[0, 0] == pytest.approx(0.99**2)


def test_young_alleles_mismatch_more(alleles):
    rng = np.random.default_rng(1)
    young = alleles[:, :NUM_HAPLOTYPES].copy()
    young[::3] = 0
    young[np.arange(0, NUM_SITES, 3), rng.integers(0, NUM_HAPLOTYPES, 100)] = 1
    young[np.arange(0, NUM_SITES, 3), rng.integers(0, NUM_HAPLOTYPES, 100)] = 1
    typed = TypedSites.pack(young, np.linspace(0, 3, NUM_SITES))
    num_alt = num_alt_of(typed)
    np.testing.assert_array_equal(num_alt, young.sum(axis=1))
    by_count = fit_mismatch(typed, num_alt, np.arange(NUM_HAPLOTYPES) // 2)
    found = by_count.at(num_alt, NUM_HAPLOTYPES)
    rare, common = num_alt == 2, (num_alt > 15) & (num_alt < 45)
    assert found.ref_if_alt[rare].min() > 5 * found.ref_if_alt[common].mean()
    assert ((found.alt_if_ref > 0) & (found.alt_if_ref < 1)).all()
    assert found.alt_if_ref[rare].max() < 0.01


def test_what_is_given_is_not_fitted_and_what_was_found_is_kept(alleles):
    typed = TypedSites.pack(alleles[:, :40], np.linspace(0, 3, NUM_SITES))
    sample = np.arange(40) // 2
    given = fit_panel(typed, sample, FitOptions(ne=1_000, err=0.01))
    assert given.switch_rates[:2] == (pytest.approx(4 * 1_000 / 100 / 40), 0)
    mismatch = given.mismatch.at(num_alt_of(typed), 40)
    np.testing.assert_allclose(np.stack(mismatch), 0.01, rtol=1e-5)
    found = FittedPanel(typed, sample)
    assert 0.05 <= found.fit.switch_rates.at_one <= 500
    assert fit_panel(typed, sample, FitOptions(threads=2)).switch_rates == found.fit.switch_rates
    part = TypedSites.pack(alleles[:96, :40], np.linspace(0, 1, 96))
    again = FittedPanel(part, sample, fit=found.fit)
    np.testing.assert_array_equal(
        again.panel.mismatch.alt_if_ref, found.panel.mismatch.alt_if_ref[:96]
    )
    assert again.panel.switch_rates == found.panel.switch_rates


@pytest.mark.parametrize("plain_error", [0.5, 1.5])
def test_exchanges_are_left_out_where_they_harm(alleles, monkeypatch, plain_error):
    def log_error(self, depth, rate, exchanges):
        return 0.0 if exchanges else math.log(plain_error)

    monkeypatch.setattr("ragimpute.likelihoods.fit._Trial.log_error", log_error)
    typed = TypedSites.pack(alleles[:, :40], np.linspace(0, 3, NUM_SITES))
    found = fit_panel(typed, np.arange(40) // 2).switch_rates
    assert (found.exchanges > 0) == (plain_error > 1)


@given(num_sites=st.integers(1, 30_000), num_haplotypes=st.integers(2, 10**6))
@settings(max_examples=50, deadline=None)
def test_the_middle_on_which_a_panel_is_fitted(num_sites, num_haplotypes):
    found = fit_stretch(np.zeros(num_sites), num_haplotypes)
    assert found.start % 32 == 0
    assert 0 <= found.start < found.stop <= num_sites
    assert found.stop - found.start >= min(num_sites, 4096)


def test_fitted_panel_does_not_depend_on_batches(alleles, reads):
    typed = TypedSites.pack(alleles[:, :40], np.linspace(0, 3, NUM_SITES))
    sample = np.arange(40) // 2
    every = FittedPanel(typed, sample).impute(reads[:, :4])
    (one,) = FittedPanel(typed, sample, FitOptions(threads=2)).impute(reads[:, 2:3])
    np.testing.assert_array_equal(one.allele_prob, every[2].allele_prob)


@pytest.mark.parametrize("sample", [np.zeros(2, int), np.arange(2)])
def test_tiny_panels(sample):
    typed = TypedSites.pack(np.array([[0, 1], [1, 0], [1, 1]], np.int8), np.zeros(3))
    (found,) = FittedPanel(typed, sample).impute(np.full((3, 1, 3), [1, 0.5, 0.01]))
    assert np.isfinite(found.genotype_probs()).all()


def test_groups_that_a_wrong_likely_pair_hides_are_paired_all_the_same():
    num = 2_000
    alone, beside_wrong = np.full(num, 1e-4, np.float32), np.full(num, 1e-4, np.float32)
    alone[:2], beside_wrong[:2] = 0.4, 1e-12  # they are right, and explain no read beside it
    wrong = GroupMass(beside_wrong, beside_wrong)
    joined = _joined(GroupMass(alone, alone), wrong, wrong)
    chosen = choose_groups(joined, 1_000, PairSettings(least=16, most=64))
    assert {0, 1} <= set(chosen.tolist())
