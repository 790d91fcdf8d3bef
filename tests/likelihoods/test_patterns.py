"""Panels as patterns of blocks against the same panels as words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel

from ragimpute.copying.parameters import switch_probs
from ragimpute.copying.window import TypedSites
from ragimpute.likelihoods import mismatch_fit, patterns, states
from ragimpute.likelihoods.fit import (
    FitOptions,
    FittedPanel,
    PanelFit,
    simulate_reads,
)
from ragimpute.likelihoods.haploid_kernel import Steps, haploid_alt_share, haploid_posterior
from ragimpute.likelihoods.impute import impute_likelihoods
from ragimpute.likelihoods.mismatch_fit import MismatchByCount, fit_mismatch
from ragimpute.likelihoods.model import SwitchRates
from ragimpute.likelihoods.pattern_kernel import (
    PatternScratch,
    pattern_alt_share,
    pattern_posterior,
)
from ragimpute.likelihoods.patterns import (
    PatternedSites,
    as_patterns,
    columns,
    hash_haplotypes,
    num_alt_of,
    slice_sites,
)
from ragimpute.likelihoods.states import group_haplotypes

_FIT = MismatchByCount.constant(1e-3)


def both(alleles, *, most_words=4, at_once=None, length_cm=2.0):
    """A panel (M, H) as words and as patterns, which come part by part."""
    words = TypedSites.pack(alleles, np.linspace(0, length_cm, len(alleles)))
    step = at_once or len(words.words)
    parts = (words.words[w : w + step] for w in range(0, len(words.words), step))
    return words, PatternedSites.pack(parts, words.position_cm, most_words=most_words)


def draw(seed, num_sites, num_haplotypes):
    return mosaic_panel(np.random.default_rng(seed), num_sites, num_haplotypes)


@pytest.fixture
def everywhere(monkeypatch):
    """Keep panels of any size as patterns, and pass over any number of groups by patterns."""
    monkeypatch.setattr(patterns, "PATTERNS_FROM", 2)
    monkeypatch.setattr(mismatch_fit, "PATTERNS_FROM", 2)
    monkeypatch.setattr(states, "_PATTERNS_OF_GROUPS", 1)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 900), st.integers(2, 40), st.sampled_from([1, 8, 64]),
    st.sampled_from([None, 3, 8]), st.data(),
)  # fmt: skip
def test_patterns_hold_all_alleles(seed, num_sites, num_haplotypes, most_words, at_once, data):
    alleles = draw(seed, num_sites, num_haplotypes)
    words, found = both(alleles, most_words=most_words, at_once=at_once)
    low = 32 * data.draw(st.integers(0, (num_sites - 1) // 32))
    high = data.draw(st.integers(low + 1, num_sites))
    some = np.random.default_rng(seed).integers(num_haplotypes, size=5)
    for first, stop in ((0, num_sites), (low, high)):
        whole, part = slice_sites(words, first, stop), slice_sites(found, first, stop)
        np.testing.assert_array_equal(columns(part, some), whole.words[:, some])
        np.testing.assert_array_equal(num_alt_of(part), num_alt_of(whole))
        mask = np.random.default_rng(seed).integers(2**32, size=len(whole.words), dtype=np.uint32)
        np.testing.assert_array_equal(hash_haplotypes(part, mask), hash_haplotypes(whole, mask))
    assert (found.num_haplotypes, found.num_typed) == (num_haplotypes, num_sites)


def test_no_words_are_refused():
    with pytest.raises(ValueError, match="no words"):
        PatternedSites.pack([], np.zeros(0))


def draw_steps(rng, num_sites):
    """Sites with reads, their emissions and switch probabilities."""
    at = np.flatnonzero(rng.random(num_sites) < rng.choice([0.1, 0.6, 1.0]))
    at = at if len(at) else np.array([num_sites - 1])
    emission = rng.choice([1.0, 0.5, 1e-3, 1e-5], (len(at), 2)).astype(np.float32)
    rho = rng.choice([0, 1e-7, 0.01, 1.0], len(at), p=[0.1, 0.4, 0.4, 0.1]).astype(np.float32)
    return at, emission, rho


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 600), st.integers(2, 40), st.sampled_from([8, 64]))
def test_posteriors_are_those_of_single_haplotypes(seed, num_sites, num_states, most_words):
    rng = np.random.default_rng(seed)
    words, found = both(draw(seed, num_sites, num_states + 3), most_words=most_words)
    of = rng.permutation(num_states + 3)[:num_states]  # some patterns may have no state
    at, emission, rho = draw_steps(rng, num_sites)
    prior = rng.dirichlet(np.ones(num_states)).astype(np.float32)
    steps = found.steps(of, at, emission, rho, prior)
    mass, noted = np.empty(num_states, np.float32), np.zeros((3, num_states), np.float32)
    scratch = PatternScratch.empty(int(np.diff(steps.start).max()), num_sites)
    kept = np.empty(steps.of.shape, np.float32)
    place = np.flatnonzero(rng.random(len(at)) < rng.choice([0.02, 1]))
    pattern_posterior(steps, place, kept, mass, scratch, noted)
    plain = Steps(columns(words, of), at, emission, rho, prior)
    each = np.empty((len(at), num_states), np.float32)
    haploid_posterior(plain, 1, each, mass)
    tolerance = {"rtol": 2e-3, "atol": 2e-5}
    largest, mean = noted[0], noted[1] / max(len(place), 1)
    np.testing.assert_allclose(largest, each[place].max(axis=0, initial=0), **tolerance)
    if len(place):
        np.testing.assert_allclose(mean, each[place].mean(axis=0), **tolerance)
    share, expected = np.empty(len(at), np.float32), np.empty(len(at), np.float32)
    pattern_alt_share(steps, np.arange(len(at)), kept, mass, scratch, share)
    haploid_alt_share(plain, each, mass, expected)
    np.testing.assert_allclose(share, expected, rtol=2e-3, atol=2e-5)


def test_a_pattern_without_states_does_not_overflow():
    # All that is observed is one haplotype, which may not be copied: its pattern fits ever better.
    alleles = np.zeros((4096, 6), np.int8)
    alleles[:, 0] = 1
    _, found = both(alleles, most_words=128)
    at = np.arange(4096)
    emission = np.tile(np.array([1e-5, 1], np.float32), (4096, 1))
    prior = np.full(5, 0.2, np.float32)
    steps = found.steps(np.arange(1, 6), at, emission, np.full(4096, 1e-6, np.float32), prior)
    scratch = PatternScratch.empty(int(np.diff(steps.start).max()), 2)
    kept, mass = np.empty(steps.of.shape, np.float32), np.empty(5, np.float32)
    noted = np.zeros((3, 5), np.float32)
    pattern_posterior(steps, np.array([10, 4095]), kept, mass, scratch, noted)
    np.testing.assert_allclose(noted[1], 2 * prior, rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(3, 40))
def test_groups_are_those_of_words(seed, num_sites, num_haplotypes):
    rng = np.random.default_rng(seed)
    words, found = both(draw(seed, num_sites, num_haplotypes))
    seen, own = rng.random(num_sites) < 0.1, np.array([0, 2])
    a, b = (group_haplotypes(sites, seen, own) for sites in (words, found))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert a.of[own].tolist() == [-1, -1]
    assert a.size.sum() == num_haplotypes - 2
    assert (np.diff(a.first) > 0).all()


@pytest.mark.parametrize("depth", [0.2, 2.0])
def test_samples_are_imputed_as_from_words(depth, everywhere):
    rng = np.random.default_rng(5)
    alleles = draw(5, 700, 60)
    truth = alleles[:, :8].reshape(700, 4, 2).sum(axis=2)
    reads = simulate_reads(truth, depth, rng)
    fitted = FittedPanel(
        TypedSites.pack(alleles[:, 8:], np.linspace(0, 2, 700)), np.arange(52) // 2,
        fit=PanelFit(SwitchRates(5.0), _FIT),
    )  # fmt: skip
    assert isinstance(fitted.panel.typed, PatternedSites)
    words = TypedSites.pack(alleles[:, 8:], np.linspace(0, 2, 700))
    of_words = fitted.panel.__class__(
        words, fitted.panel.num_alt, fitted.panel.switch_rates, fitted.panel.mismatch
    )
    for given_reads in (reads, reads[:, :, [0, 2]]):
        found = fitted.impute(given_reads)
        expected = impute_likelihoods(of_words, given_reads)
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                x.allele_prob.sum(axis=1), y.allele_prob.sum(axis=1), atol=2e-3
            )
            np.testing.assert_allclose(x.both, y.both, atol=2e-3)
    # Neither other samples nor threads change a bit.
    (alone,) = FittedPanel(
        words, np.arange(52) // 2, FitOptions(threads=2), fit=PanelFit(SwitchRates(5.0), _FIT)
    ).impute(reads[:, 2:3])
    np.testing.assert_array_equal(alone.allele_prob, fitted.impute(reads)[2].allele_prob)


def test_mismatches_are_counted_as_with_words(monkeypatch):
    alleles = draw(3, 500, 80)
    words, found = both(alleles)
    num_alt = num_alt_of(words)
    sample = np.arange(80) // 2
    of_words = fit_mismatch(words, num_alt, sample)
    monkeypatch.setattr(mismatch_fit, "PATTERNS_FROM", 2)
    monkeypatch.setattr(mismatch_fit, "_PATTERN_WORK", 1e9)
    of_patterns = fit_mismatch(found, num_alt, sample)
    for x, y in zip(of_words, of_patterns, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-2)


def test_patterns_take_less_memory_the_more_haplotypes_there_are():
    founders = draw(1, 2_000, 30)
    of = np.random.default_rng(1).integers(30, size=3_000)
    per_haplotype = []
    for num_haplotypes in (300, 3_000):
        words, found = both(founders[:, of[:num_haplotypes]], most_words=128)
        p = found.patterns
        assert found.num_bytes == p.flat.nbytes + p.of.nbytes
        assert found.slice(0, 320).num_bytes < found.num_bytes
        per_haplotype.append(found.num_bytes / words.words.nbytes)
    assert per_haplotype[1] < per_haplotype[0] < 1


def test_small_panels_stay_as_they_are():
    words = TypedSites.pack(draw(1, 50, 20), np.linspace(0, 1, 50))
    assert as_patterns(words) is words


def test_switch_probabilities_are_those_of_the_sites():
    _, found = both(draw(1, 300, 20))
    rho = switch_probs(found.position_cm, switch_rate=4.0)
    steps = found.steps(np.arange(20), np.arange(300), np.ones((300, 2)), rho, np.full(20, 0.05))
    assert steps.first[-1] == 300
    assert steps.weight.sum() == pytest.approx(len(steps.of))
