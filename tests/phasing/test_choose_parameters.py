"""The parameters of phasing are chosen on the haplotypes at hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragimpute.copying.likelihood_kernel import TypedLikelihood, log_likelihood
from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.copying.window import TypedSites, pack_words
from ragimpute.phasing.choose_parameters import (
    MISMATCH_PROBS,
    RATES,
    FitChoice,
    ParametersToFit,
    fit_copied,
)
from ragimpute.phasing.sampler import Genotypes, PhasingSettings, phase_haplotypes

USUAL = CopyingParameters(10.0, 1e-3)
QUICK = PhasingSettings(passes=8, burn_in=2, refresh=4)


def mosaics(rng, num_haplotypes, cm, per_cm, num_founders=8):
    """Haplotypes (T, H) that change founder ``per_cm`` times per cM."""
    founders = rng.integers(0, 2, (len(cm), num_founders), dtype=np.int8)
    source = np.empty((len(cm), num_haplotypes), np.int64)
    source[0] = rng.integers(num_founders, size=num_haplotypes)
    for t in range(1, len(cm)):
        change = rng.random(num_haplotypes) < -np.expm1(-per_cm * (cm[t] - cm[t - 1]))
        drawn = rng.integers(num_founders, size=num_haplotypes)
        source[t] = np.where(change, drawn, source[t - 1])
    return np.take_along_axis(founders, source, 1)


def words_of(alleles):
    return pack_words(alleles)[0].T.copy()


def fitted(alleles, cm, start=USUAL, **options):
    sample = np.arange(alleles.shape[1]) // 2
    return fit_copied(words_of(alleles), cm, sample, start, **options)


@settings(max_examples=10, deadline=None)
@given(
    num_sites=st.integers(2, 70),
    num_states=st.integers(1, 6),
    rate=st.floats(*RATES),
    err=st.sampled_from([1e-4, 1e-2, 0.2]),
    seed=st.integers(0, 99),
)
def test_the_likelihood_is_that_of_a_plain_walk(num_sites, num_states, rate, err, seed):
    rng = np.random.default_rng(seed)
    cm = np.cumsum(rng.random(num_sites))
    panel = rng.integers(0, 2, (num_sites, num_states), dtype=np.int8)
    target = rng.integers(0, 2, (num_sites, 1), dtype=np.int8)
    rho = switch_probs(cm, switch_rate=rate)
    mass, plain = np.full(num_states, 1 / num_states), 0.0
    for t in range(num_sites):
        mass = mass * (1 - rho[t]) + rho[t] / num_states
        mass = mass * np.where(panel[t] == target[t], 1 - err, err)
        plain += np.log(mass.sum())
        mass /= mass.sum()
    words = words_of(panel)
    found = log_likelihood(
        words, np.arange(num_states, dtype=np.int32), words_of(target)[:, 0],
        np.full(len(words), 2**32 - 1, np.uint32), rho, np.float32(err),
        np.empty(num_states, np.float32), np.empty(num_states, np.uint32),
    )  # fmt: skip
    assert found == pytest.approx(plain, rel=1e-3, abs=1e-3)
    everyone, nobody = np.arange(num_states, dtype=np.int32), np.zeros(0, np.int32)
    three = TypedLikelihood(
        words, cm, np.repeat(words_of(target).T, 3, axis=0),
        np.full((3, len(words)), 2**32 - 1, np.uint32), [everyone, nobody, everyone],
    )  # fmt: skip
    assert three.at(rate, err).tolist() == [found, 0, found]
    assert three.at(rate, err, np.array([2])).tolist() == [0, 0, found]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 999), start=st.sampled_from([0.01, 1.0, 90.0]))
def test_more_switches_in_the_haplotypes_give_a_higher_rate(seed, start):
    rng = np.random.default_rng(seed)
    cm = np.linspace(0, 20, 200)
    start = CopyingParameters(start, 1e-3)
    few, some, many = (fitted(mosaics(rng, 40, cm, x), cm, start) for x in (0.02, 0.5, 10.0))
    assert few.switch_rate < some.switch_rate < many.switch_rate
    assert all(RATES[0] <= found.switch_rate <= RATES[1] for found in (few, some, many))


def test_what_the_user_gives_stays():
    cm = np.linspace(0, 20, 200)
    alleles = mosaics(np.random.default_rng(1), 40, cm, 0.5)
    assert fitted(alleles, cm, choice=FitChoice(False, False)) == USUAL
    assert fitted(alleles, cm, choice=FitChoice(rate=False)).switch_rate == USUAL.switch_rate
    assert fitted(alleles, cm, choice=FitChoice(mismatch=False)).mismatch_prob == 1e-3


def test_errors_in_the_haplotypes_give_a_higher_mismatch_probability():
    rng = np.random.default_rng(1)
    cm = np.linspace(0, 20, 400)
    clean = mosaics(rng, 40, cm, 0.2)
    wrong = np.where(rng.random(clean.shape) < 0.02, 1 - clean, clean)
    low, high = fitted(clean, cm), fitted(wrong, cm)
    assert MISMATCH_PROBS[0] <= low.mismatch_prob < high.mismatch_prob / 2
    assert high.mismatch_prob <= MISMATCH_PROBS[1]


@settings(max_examples=10, deadline=None)
@given(
    num_sites=st.integers(0, 5), num_haplotypes=st.integers(1, 6), ploidy=st.sampled_from([1, 2])
)
@example(1, 4, 2)
def test_tiny_panels_give_parameters(num_sites, num_haplotypes, ploidy):
    alleles = np.zeros((num_sites, num_haplotypes), np.int8)
    sample = np.arange(num_haplotypes) // ploidy
    found = fit_copied(words_of(alleles), np.arange(num_sites) * 1.0, sample, USUAL)
    assert RATES[0] <= found.switch_rate <= RATES[1]
    if num_sites < 2 or len(np.unique(sample)) < 2:
        assert found == USUAL


def test_haplotypes_of_one_individual_do_not_copy_each_other():
    """Everyone twice: the rate must be that of everyone once, not that of perfect copies."""
    cm = np.linspace(0, 20, 200)
    once = mosaics(np.random.default_rng(1), 40, cm, 0.5)
    twice = np.concatenate([once, once], 1)
    sample = np.tile(np.arange(40) // 2, 2)
    apart = fitted(once, cm).switch_rate
    together = fit_copied(words_of(twice), cm, sample, USUAL).switch_rate
    assert apart / 2 < together < apart * 2


def phased_errors(panel, cm, true, parameters, **options):
    """Switch errors of samples (T, N, 2) that are phased, and the parameters in the end."""
    given = np.sort(true, axis=2)
    out = phase_haplotypes(
        TypedSites(words_of(panel), cm), Genotypes(given, np.zeros(given.shape[:2], bool)),
        parameters, **{"settings": QUICK} | options,
    )  # fmt: skip
    wrong = 0
    for i in range(true.shape[1]):
        het = given[:, i, 0] != given[:, i, 1]
        turned = (out[het, i, 0] != true[het, i, 0]).astype(int)
        wrong += int(np.abs(np.diff(turned)).sum())
    return wrong


def test_the_rate_is_fitted_to_targets_where_the_panel_says_nothing():
    """Founders do not copy each other, but their descendants copy them in long pieces."""
    rng = np.random.default_rng(5)
    cm = np.linspace(0, 30, 300)
    founders = rng.integers(0, 2, (len(cm), 8), dtype=np.int8)
    source = np.repeat(rng.integers(8, size=(6, 48)), 50, axis=0)
    true = np.take_along_axis(founders, source, 1).reshape(len(cm), 24, 2)
    panel = np.repeat(founders, 2, axis=1)  # inbred
    fit = ParametersToFit(USUAL, np.arange(16) // 2)
    fit.fit(words_of(panel), cm, np.zeros(0, np.int64))
    alone = fit.parameters.switch_rate
    by_panel = phased_errors(panel, cm, true, replace(fit.parameters), with_targets=True)
    fitted_too = phased_errors(panel, cm, true, fit, with_targets=True)
    assert fit.parameters.switch_rate < alone / 3
    assert fitted_too <= by_panel


def test_children_beside_a_tiny_panel_are_phased_by_each_other():
    """Forty children of two parents; the panel has seven samples of their population."""
    rng = np.random.default_rng(7)
    cm = np.linspace(0, 50, 200)
    everyone = mosaics(rng, 18, cm, 0.1)
    panel, parents = everyone[:, :14], everyone[:, 14:].reshape(len(cm), 2, 2)
    crossed = rng.random((len(cm), 40, 2)) < -np.expm1(-0.01 * cm[1])
    side = (crossed.cumsum(axis=0) + rng.integers(2, size=(40, 2))) % 2
    true = np.stack([parents[np.arange(len(cm))[:, None], i, side[:, :, i]] for i in range(2)], 2)
    fit = ParametersToFit(USUAL, np.arange(14) // 2)
    wrong = phased_errors(
        panel, cm, true, fit, with_targets=True, settings=PhasingSettings.for_panel(14, 80)
    )
    num_heterozygous = int((true[:, :, 0] != true[:, :, 1]).sum())
    assert wrong < 0.1 * num_heterozygous  # ne 150,000: 0.39
