"""What a network reads of samples in doubt, against plain loops, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel
from slow_likelihoods import described

from ragimpute.copying.window import TypedSites
from ragimpute.likelihoods.evidence import (
    DOUBT,
    FEATURES,
    HET,
    HOM,
    Evidence,
    before_reads,
    minor_first,
    with_reads,
)
from ragimpute.likelihoods.evidence_kernel import (
    NUM_COLUMNS,
    Asked,
    EvidenceScratch,
    HaploidSteps,
    describe_copying,
)
from ragimpute.likelihoods.fit import simulate_reads
from ragimpute.likelihoods.impute import LikelihoodPanel, impute_likelihoods
from ragimpute.likelihoods.model import SiteMismatch, SwitchRates, true_given_copied
from ragimpute.likelihoods.patterns import num_alt_of
from ragimpute.likelihoods.stretches import PairSettings

NUM_SITES, NUM_HAPLOTYPES = 250, 60


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 20))
def test_described_as_by_plain_loops(seed, num_steps, num_states):
    rng = np.random.default_rng(seed)
    alleles = (rng.random((num_steps, num_states)) < 0.4).astype(np.uint8)
    emission = rng.choice([1.0, 0.6, 0.05], (num_steps, 2)).astype(np.float32)
    rho = rng.choice([0.01, 0.3, 0.9], num_steps).astype(np.float32)
    rho[0] = 1
    length = rng.random(num_steps).astype(np.float32)
    prior = rng.integers(1, 9, num_states).astype(np.float32)
    prior /= prior.sum()
    # A site between any two steps, and one at each end.
    before = np.arange(num_steps + 1)
    to = rng.choice([0.02, 0.5], (len(before), 2)).astype(np.float32)
    gap = rng.random((len(before), 2)).astype(np.float32)
    share = rng.choice([0.0, 0.0, 0.5, 1.0], (len(before), num_states)).astype(np.float32)
    entry, state = np.nonzero(share)
    asked = Asked(
        before - 1, before, to, gap, np.searchsorted(entry, np.arange(len(before) + 1)),
        state.astype(np.int32), share[entry, state],
    )  # fmt: skip
    out = np.empty((len(before), NUM_COLUMNS), np.float32)
    scratch = EvidenceScratch.empty(num_steps, num_states)
    describe_copying(HaploidSteps(alleles, emission, rho, length, prior), asked, scratch, out)
    for i in before:
        move = [(to[i, side], gap[i, side]) for side in range(2)]
        site = (i, (move[0] if i else None, move[1] if i < num_steps else None))
        want = described(alleles, emission, rho, length, prior, site, share[i])
        known = np.isfinite(want)
        np.testing.assert_allclose(out[i][known], want[known], rtol=2e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_reads_are_taken_out_and_put_back(seed):
    rng = np.random.default_rng(seed)
    m = 5
    up, down = rng.uniform(1e-4, 0.1, (2, m)).astype(np.float32)
    given_copied = SiteMismatch(up, down).genotypes()
    reads = rng.choice([1.0, 0.3, 0.01], (m, 3)).astype(np.float32)
    copied = rng.dirichlet(np.ones(3), m).astype(np.float32)
    emission = np.einsum("mcg,mg->mc", given_copied, reads)
    prior = before_reads(copied, emission, given_copied)
    logits = np.log(prior[:, 1:] / prior[:, :-1])
    want = true_given_copied(copied, given_copied, reads)
    np.testing.assert_allclose(with_reads(logits, reads), want, atol=2e-5)


@pytest.fixture(scope="module")
def alleles():
    return mosaic_panel(np.random.default_rng(8), NUM_SITES, NUM_HAPLOTYPES + 8)


def panel_of(alleles):
    typed = TypedSites.pack(alleles, np.linspace(0, 3, NUM_SITES))
    each = np.full(NUM_SITES, 1e-3, np.float32)
    return LikelihoodPanel(
        typed, num_alt_of(typed), SwitchRates(5.0, 0.0), SiteMismatch(each, each)
    )


@pytest.fixture(scope="module")
def panel(alleles):
    return panel_of(alleles[:, :NUM_HAPLOTYPES])


@pytest.fixture(scope="module")
def reads(alleles):
    truth = alleles[:, NUM_HAPLOTYPES:].reshape(NUM_SITES, 4, 2).sum(axis=2).astype(int)
    return simulate_reads(truth, np.array([0.1, 0.5, 2.0, 0.02]), np.random.default_rng(3))


def test_evidence_is_of_sites_in_doubt_and_agrees_with_the_genotypes(panel, reads):
    found = impute_likelihoods(panel, reads, describe=True)
    plain = impute_likelihoods(panel, reads)
    turned = 2 * panel.num_alt > NUM_HAPLOTYPES
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one.allele_prob, other.allele_prob)
        evidence = one.evidence
        assert evidence.features.shape == (len(evidence.site), len(FEATURES))
        assert np.isfinite(evidence.features).all()
        assert (np.diff(evidence.site) > 0).all()
        logits = evidence.features[:, [HET, HOM]]
        before = with_reads(logits, np.ones((len(logits), 3)))
        assert (before.max(axis=1) < DOUBT + 1e-5).all()
        genotypes = minor_first(one.genotype_probs()[evidence.site], turned[evidence.site])
        np.testing.assert_allclose(with_reads(logits, evidence.likelihoods), genotypes, atol=1e-4)


def test_exchanged_alleles_are_described_alike(alleles, reads):
    panel = panel_of(alleles[:, :NUM_HAPLOTYPES])
    turned = panel_of(1 - alleles[:, :NUM_HAPLOTYPES])
    (one,) = impute_likelihoods(panel, reads[:, :1], describe=True)
    (other,) = impute_likelihoods(turned, reads[:, :1, ::-1], describe=True)
    # At a frequency of one half the minor allele is ALT in both.
    whole = 2 * panel.num_alt != NUM_HAPLOTYPES
    k, n = whole[one.evidence.site], whole[other.evidence.site]
    np.testing.assert_array_equal(one.evidence.site[k], other.evidence.site[n])
    np.testing.assert_allclose(
        one.evidence.features[k], other.evidence.features[n], atol=0.02, rtol=1e-2
    )


def test_stretches_are_described_in_the_panels_numbers(panel, reads):
    settings = PairSettings(stretch_cm=1.0)
    (found,) = impute_likelihoods(panel, reads[:, 2:3], settings=settings, describe=True)
    site = found.evidence.site
    assert (np.diff(site) > 0).all()
    assert site[0] < NUM_SITES // 3
    assert site[-1] > 2 * NUM_SITES // 3


def test_a_sample_without_reads_has_no_evidence(panel):
    (found,) = impute_likelihoods(panel, np.ones((NUM_SITES, 1, 3)), describe=True)
    assert found.evidence.features.shape == (0, len(FEATURES))
    assert Evidence.joined([]).site.dtype == np.int64
