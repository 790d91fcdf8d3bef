"""The network that corrects genotypes in doubt: what it changes, its trust and its file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file
from slow_copying import mosaic_panel

from ragimpute.copying.window import TypedSites
from ragimpute.errors import ModelError
from ragimpute.likelihoods.evidence import (
    COVERAGE,
    FEATURES,
    HET,
    HOM,
    MAF,
    Evidence,
    with_reads,
)
from ragimpute.likelihoods.fit import FitOptions, FittedPanel, fit_panel, simulate_reads
from ragimpute.likelihoods.impute import impute_likelihoods
from ragimpute.likelihoods.network import (
    CORRECTED_SHARE,
    INPUT,
    LEAST_SHARE,
    SHARES,
    Belief,
    GenotypeNetwork,
)
from ragimpute.model.folder import FORMAT_VERSION
from ragimpute.model.trust import EDGES, Trust

NUM_SITES, NUM_HAPLOTYPES = 300, 60


def network_of(seed=1, scale=0.3):
    """Random layers."""
    rng = np.random.default_rng(seed)
    sizes = ((8, len(FEATURES)), (8, 8), (2, 8))
    layers = tuple(
        (rng.normal(0, scale, size).astype(np.float32), np.zeros(size[0], np.float32))
        for size in sizes
    )
    ones = np.ones(len(FEATURES), np.float32)
    return GenotypeNetwork(0 * ones, 3 * ones, layers)


def adding(het, hom):
    """A network that adds the same to all logits."""
    plain = network_of(scale=0.0)
    last = plain.layers[-1][0], np.array([het, hom], np.float32)
    return replace(plain, layers=(*plain.layers[:-1], last))


@pytest.fixture(scope="module")
def alleles():
    return mosaic_panel(np.random.default_rng(5), NUM_SITES, NUM_HAPLOTYPES + 16)


@pytest.fixture(scope="module")
def typed(alleles):
    return TypedSites.pack(alleles[:, :NUM_HAPLOTYPES], np.linspace(0, 3, NUM_SITES))


@pytest.fixture(scope="module")
def truth(alleles):
    return alleles[:, NUM_HAPLOTYPES:].reshape(NUM_SITES, 8, 2).sum(axis=2).astype(int)


@pytest.fixture(scope="module")
def reads(truth):
    return simulate_reads(truth, np.geomspace(0.1, 4, 8), np.random.default_rng(2))


SAMPLE = np.arange(NUM_HAPLOTYPES) // 2


def imputed(typed, reads, network, **options):
    """Posteriors with a network as it is, without trust."""
    fitted = FittedPanel(typed, SAMPLE, FitOptions(ne=1_000, err=1e-3))
    panel = replace(fitted.panel, network=network)
    return impute_likelihoods(panel, reads, **options)


def test_what_adds_nothing_changes_nothing(typed, reads):
    plain = imputed(typed, reads, None)
    found = imputed(typed, reads, adding(0, 0))
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one.allele_prob, other.allele_prob, atol=2e-4)
        np.testing.assert_allclose(one.both, other.both, atol=2e-4)


def test_what_is_added_makes_minor_alleles_likelier_where_in_doubt_alone(typed, reads):
    plain = imputed(typed, reads, None)
    found = imputed(typed, reads, adding(1.0, 0.5))
    described = imputed(typed, reads, None, describe=True)
    fitted = FittedPanel(typed, SAMPLE, FitOptions(ne=1_000, err=1e-3))
    turned = 2 * fitted.panel.num_alt > NUM_HAPLOTYPES
    for one, other, evidence in zip(found, plain, described, strict=True):
        change = (one.allele_prob - other.allele_prob).sum(axis=1)
        change[turned] *= -1
        site = evidence.evidence.site
        if np.mean(np.exp(evidence.evidence.features[:, COVERAGE])) < LEAST_SHARE:
            np.testing.assert_array_equal(change, 0)
            continue
        certain = np.setdiff1d(np.arange(NUM_SITES), site)
        np.testing.assert_array_equal(change[certain], 0)
        assert change[site].min() > -1e-5
        assert change[site].max() > 0.1
        gp = one.genotype_probs()
        assert gp.min() > -1e-5
        np.testing.assert_allclose(gp.sum(axis=1), 1, atol=1e-5)


def test_the_output_depends_neither_on_other_samples_nor_on_threads(typed, reads):
    network = network_of()
    every = imputed(typed, reads, network)
    order = np.random.default_rng(0).permutation(8)
    again = imputed(typed, reads[:, order], network, threads=2)
    for i, one in zip(order, again, strict=True):
        np.testing.assert_array_equal(one.allele_prob, every[i].allele_prob)
        np.testing.assert_array_equal(one.both, every[i].both)
        (alone,) = imputed(typed, reads[:, i : i + 1], network)
        np.testing.assert_array_equal(alone.allele_prob, one.allele_prob)


def test_no_reads_give_the_panel_frequencies(typed):
    found = imputed(typed, np.ones((NUM_SITES, 1, 3)), network_of())
    plain = imputed(typed, np.ones((NUM_SITES, 1, 3)), None)
    np.testing.assert_array_equal(found[0].allele_prob, plain[0].allele_prob)


def test_haploid_samples_are_not_corrected(typed, reads):
    one = reads[:, :1, [0, 2]]
    np.testing.assert_array_equal(
        imputed(typed, one, network_of())[0].allele_prob, imputed(typed, one, None)[0].allele_prob
    )


def test_a_wrong_network_is_not_trusted(typed):
    wrong, right = (
        fit_panel(typed, SAMPLE, FitOptions(network=adding(*added))).network
        for added in ((4.0, 4.0), (0.0, 0.0))
    )
    again = fit_panel(typed, SAMPLE, FitOptions(network=adding(4.0, 4.0), threads=2)).network
    for i in range(len(SHARES) + 1):
        bad, good, same = (each.beliefs[i] for each in (wrong, right, again))
        assert bad.trust.share.max() < 0.5
        # What adds nothing may be trusted or not.
        assert ((good.trust.share >= 0) & (good.trust.share <= 1.2)).all()
        assert 0.8 < bad.confidence < 1.25
        np.testing.assert_array_equal(same.trust.share, bad.trust.share)
        assert same.confidence == bad.confidence


def test_it_is_trusted_where_it_knows_the_truth_alone():
    rng = np.random.default_rng(4)
    network = adding(0.7, 0.3)
    n = 150_000
    features, likelihoods, of = known_rows(rng, n)
    # Of samples with few reads, it says the contrary of what is true.
    change = network.change(features) * np.where(of == 1, -1, 1)[:, None]
    minor = drawn(rng, features[:, [HET, HOM]] + change, likelihoods)
    found = network.trusted(features, likelihoods, minor, rng.integers(0, 50, n))
    for i, share in enumerate((1, 0, 1)):
        np.testing.assert_allclose(found.beliefs[i].trust.share, share, atol=0.15 * share)
        assert abs(found.beliefs[i].confidence - 1) < 0.05
    evidence = Evidence(np.arange(n), features, likelihoods)
    plain = with_reads(features[:, [HET, HOM]], likelihoods)
    np.testing.assert_allclose(found.genotypes(evidence)[of == 1], plain[of == 1], atol=0.03)
    assert np.abs(found.genotypes(evidence)[of == 2] - plain[of == 2]).max() > 0.1


@pytest.mark.parametrize("sure", [0.7, 1.0, 1.4])
def test_genotypes_are_as_sure_as_left_out_samples_show(sure):
    rng = np.random.default_rng(6)
    n = 120_000
    features, likelihoods, of = known_rows(rng, n)
    logits = features[:, [HET, HOM]]
    # The first class of samples wants another confidence, the others have the right one.
    minor = drawn(rng, np.where(of == 0, sure, 1)[:, None] * logits, likelihoods)
    found = adding(0, 0).trusted(features, likelihoods, minor, rng.integers(0, 50, n))
    for i, wanted in enumerate((sure, 1, 1)):
        assert abs(found.beliefs[i].confidence - wanted) < 0.06
    prob = found.genotypes(Evidence(np.arange(n), features, likelihoods))
    tenth = np.minimum((prob * 10).astype(int), 9).ravel()
    so = (np.arange(3) == minor[:, None]).ravel()
    off = np.bincount(tenth, prob.ravel() - so) / np.bincount(tenth)
    assert np.abs(off).max() < 0.012
    # A few samples hardly move it, and none does not.
    few = np.flatnonzero(of == 0)[:20]
    some = adding(0, 0).trusted(features[few], likelihoods[few], minor[few], few % 3)
    assert abs(some.beliefs[0].confidence - 1) < 0.05
    assert [belief.confidence for belief in some.beliefs[1:]] == [1, 1]


def test_samples_with_very_few_reads_are_not_corrected_but_made_as_sure_as_they_are():
    rng = np.random.default_rng(7)
    features, likelihoods, of = known_rows(rng, 1_000)
    features[:, COVERAGE] = np.log(np.where(of == 0, 0.9 * CORRECTED_SHARE, CORRECTED_SHARE))
    belief = Belief(Trust(np.ones(len(EDGES) + 1, np.float32)), 1.3)
    network = replace(adding(2, 1), beliefs=(belief,) * (len(SHARES) + 1))
    found = network.genotypes(Evidence(np.arange(1_000), features, likelihoods))
    logits = features[:, [HET, HOM]]
    without, corrected = (
        with_reads(1.3 * (logits + np.array(add, np.float32)), likelihoods)
        for add in ((0, 0), (2, 1))
    )
    few = of == 0
    np.testing.assert_allclose(found[few], without[few], atol=1e-5)
    np.testing.assert_allclose(found[~few], corrected[~few], atol=1e-5)


def known_rows(rng, n):
    """Features and likelihoods of random rows, and the classes of their samples."""
    features = rng.normal(0, 1.5, (n, len(FEATURES))).astype(np.float32)
    features[:, MAF] = rng.uniform(-6, 0, n)
    of = rng.integers(0, len(SHARES) + 1, n)
    features[:, COVERAGE] = np.log(np.array([0.1, 0.4, 0.9])[of])
    return features, rng.choice([1.0, 0.5, 0.1], (n, 3)).astype(np.float32), of


def drawn(rng, logits, likelihoods):
    """Genotypes by their probabilities."""
    log = np.zeros((len(logits), 3))
    log[:, 1:] = np.cumsum(logits, axis=1)
    prob = np.exp(log) * likelihoods
    prob /= prob.sum(axis=1, keepdims=True)
    return (rng.random((len(logits), 1)) > np.cumsum(prob, axis=1)).sum(axis=1)


@pytest.mark.parametrize("num_samples", [1, 2, 3])
def test_tiny_panels(alleles, reads, num_samples):
    num = 2 * num_samples
    typed = TypedSites.pack(alleles[:, :num], np.linspace(0, 3, NUM_SITES))
    options = FitOptions(network=network_of())
    (found,) = FittedPanel(typed, np.arange(num) // 2, options).impute(reads[:, :1])
    assert np.isfinite(found.genotype_probs()).all()


def test_the_file_holds_the_network(tmp_path):
    network = network_of()
    about = {"format": FORMAT_VERSION, "input": INPUT}
    path = tmp_path / "w.safetensors"
    save_file(network.tensors(), path, metadata=about)
    again = GenotypeNetwork.read(path)
    x = np.random.default_rng(0).normal(size=(5, len(FEATURES))).astype(np.float32)
    np.testing.assert_array_equal(again.change(x), network.change(x))
    save_file(network.tensors(), path, metadata={**about, "input": "evidence-3"})
    with pytest.raises(ModelError, match="evidence-3") as caught:
        GenotypeNetwork.read(path)
    assert INPUT in str(caught.value)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be read"):
        GenotypeNetwork.read(path)


def test_the_shipped_network_is_right_about_samples_it_has_not_seen(typed, truth, reads):
    network = GenotypeNetwork.shipped()
    assert network is not None, "make it anew: packaging/make_likelihood_weights.py"
    assert network.mean.shape == (len(FEATURES),)

    def error(posteriors):
        dosage = np.stack([one.allele_prob.sum(axis=1) for one in posteriors], axis=1)
        return np.square(dosage - truth).sum()

    ours = FittedPanel(typed, SAMPLE, FitOptions(network=network)).impute(reads)
    plain = FittedPanel(typed, SAMPLE).impute(reads)
    assert error(ours) < 1.02 * error(plain)
    assert any((a.both != b.both).any() for a, b in zip(ours, plain, strict=True))
