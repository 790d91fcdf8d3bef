"""What a panel's own samples say of its sites: against plain sums, and where errors are planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel

from ragimpute import example
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states, found_without, states_without_own
from ragimpute.evidence import site_quality
from ragimpute.evidence.allele_sharing import AlleleSharing
from ragimpute.evidence.features import QUALITY_FEATURES, SITE_FEATURES
from ragimpute.evidence.other_haplotype import homologs_of
from ragimpute.evidence.site_quality import fit_mismatch
from ragimpute.kernels.code import signature_text
from ragimpute.kernels.store import foreseen
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.retrieval.retriever import Retriever
from tests.copying.test_copy import window_of

PARAMETERS = CopyingParameters(5, 3e-3)


def measure_sites(*arguments, **options):
    """What is measured, with the features of all sites."""
    found = site_quality.measure_sites(*arguments, **options)
    return replace(found, features=np.asarray(found.features))


def mosaics(seed, num_sites=300, num_haplotypes=80, every=5):
    """A panel of mosaics of 8 founders, with every fifth site typed."""
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_sites, num_haplotypes, num_founders=8)
    typed_index = np.arange(0, num_sites, every)
    cm = np.cumsum(rng.exponential(0.01, num_sites))
    return alleles, cm, typed_index, np.repeat(np.arange(num_haplotypes // 2), 2)


def test_equals_plain_sums_over_samples():
    alleles, cm, typed_index, sample = mosaics(1)
    window = window_of(alleles, cm, typed_index)
    found = measure_sites(window, sample, PARAMETERS, num_samples=100).features
    p = np.empty(alleles.shape)
    for h in range(80):
        states = all_states(80, np.flatnonzero(sample == sample[h]))
        observed = np.ascontiguousarray(alleles[typed_index][:, [h]])
        p[:, h] = copy_haplotypes(window, observed, PARAMETERS, states=lambda i, s=states: s)[0]
    minor = window.haplotypes.alt_is_minor[:, None]
    p, y = np.where(minor, p, 1 - p), (alleles == minor).astype(float)
    x, t = p[:, 0::2] + p[:, 1::2], y[:, 0::2] + y[:, 1::2]
    untyped = np.setdiff1d(np.arange(300), typed_index)
    common = untyped[(t.sum(axis=1) >= 8)[untyped]]
    assert len(common) > 50
    for u in common.tolist():
        row = dict(zip(SITE_FEATURES, found[u].tolist(), strict=True))
        assert row["quality_alleles"] == pytest.approx(np.log1p(t[u].sum()), abs=1e-5)
        # Shrunk by an allele's worth of data: near the plain figures, on the safe side.
        r2 = np.corrcoef(x[u], t[u])[0, 1] ** 2
        assert r2 - 0.15 < row["quality_r2"] <= r2 + 1e-5
        slope = np.cov(x[u], t[u])[0, 1] / x[u].var(ddof=1)
        assert min(slope, 1) - 0.05 < row["quality_slope"] < max(slope, 1) + 0.05
        error = ((x[u] - t[u]) ** 2).mean()
        little = 2 * max(t[u].mean() / 2, 0.5 / 40) / 40
        claimed = (p[u] * (1 - p[u])).mean() * 2
        assert row["quality_excess"] == pytest.approx(
            np.log((error + little) / (claimed + little)), abs=1e-3
        )
        assert row["quality_error"] == pytest.approx(
            np.log((error + little / 2) / (t[u].var() + little)), abs=1e-3
        )
        one, other = p[u, 0::2], p[u, 1::2]
        hets = (one * (1 - other) + other * (1 - one)).sum()
        missing = hets - (t[u] == 1).sum()
        assert row["quality_hets"] == pytest.approx(missing / (hets + 10), abs=1e-4)


def test_own_alleles_at_untyped_sites_tell_only_of_those():
    """What a left-out sample has at one untyped site says nothing about the others."""
    alleles, cm, typed_index, sample = mosaics(3)
    changed = alleles.copy()
    changed[7, :2] ^= 1
    one, two = (
        measure_sites(window_of(x, cm, typed_index), sample, PARAMETERS) for x in (alleles, changed)
    )
    np.testing.assert_array_equal(one.mismatch_prob, two.mismatch_prob)
    # Which carriers are compared is drawn by all alleles; what samples say comes before that.
    said = [np.delete(x.features[:, : len(QUALITY_FEATURES)], 7, axis=0) for x in (one, two)]
    np.testing.assert_array_equal(*said)
    assert (one.features[7] != two.features[7]).any()


def test_threads_and_order_of_the_panel_are_nothing():
    alleles, cm, typed_index, sample = mosaics(4)
    window = window_of(alleles, cm, typed_index)
    one = measure_sites(window, sample, PARAMETERS, num_samples=15)
    two = measure_sites(window, sample, PARAMETERS, num_samples=15, threads=2)
    np.testing.assert_array_equal(one.features, two.features)
    np.testing.assert_array_equal(one.mismatch_prob, two.mismatch_prob)
    order = np.random.default_rng(0).permutation(40)
    columns = np.stack([2 * order, 2 * order + 1], axis=1).ravel()
    turned = measure_sites(
        window_of(alleles[:, columns], cm, typed_index), sample, PARAMETERS, num_samples=15
    )
    np.testing.assert_allclose(turned.features, one.features, atol=2e-3)
    np.testing.assert_allclose(turned.mismatch_prob, one.mismatch_prob, rtol=1e-2)


def test_recoding_alleles_changes_nothing():
    alleles, cm, typed_index, sample = mosaics(5)
    even = alleles.sum(axis=1) * 2 == 80  # where neither allele is the minor one, coding decides
    recode = (np.random.default_rng(1).random(300) < 0.5) & ~even
    one = measure_sites(window_of(alleles, cm, typed_index), sample, PARAMETERS)
    two = measure_sites(
        window_of(alleles ^ recode[:, None].astype(np.int8), cm, typed_index), sample, PARAMETERS
    )
    np.testing.assert_allclose(two.features, one.features, atol=2e-3)
    np.testing.assert_allclose(two.mismatch_prob, one.mismatch_prob, rtol=1e-3)


def test_one_sample_says_nothing():
    alleles, cm, typed_index, _ = mosaics(6, num_haplotypes=2)
    found = measure_sites(window_of(alleles, cm, typed_index), np.zeros(2, int), PARAMETERS)
    assert (found.mismatch_prob == np.float32(3e-3)).all()
    assert np.isfinite(found.features).all()
    assert (found.features[:, QUALITY_FEATURES.index("quality_alleles")] == 0).all()


def test_haploid_samples_count_as_they_are():
    alleles, cm, typed_index, _ = mosaics(7, num_haplotypes=60)
    sample = np.concatenate([np.repeat(np.arange(20), 2), np.arange(20, 40)])
    found = measure_sites(window_of(alleles, cm, typed_index), sample, PARAMETERS)
    assert np.isfinite(found.features).all()
    minor = np.minimum(alleles.sum(axis=1), 60 - alleles.sum(axis=1))
    np.testing.assert_allclose(
        found.features[:, QUALITY_FEATURES.index("quality_alleles")], np.log1p(minor), atol=1e-5
    )


def test_retrieved_states_leave_the_own_sample_out():
    alleles, cm, typed_index, sample = mosaics(8)
    window = window_of(alleles, cm, typed_index)
    retriever = Retriever(window.typed.words, num_slots=24, num_background=8)
    left_out = np.array([0, 1, 10, 11, 40, 41])
    observed = np.ascontiguousarray(alleles[typed_index][:, left_out])
    states = states_without_own(retriever, sample, left_out, observed)
    for i, h in enumerate(left_out):
        assert states(i).shape[0] == len(window.typed.words)
        assert not (sample[states(i)] == sample[h]).any()
    found = measure_sites(window, sample, PARAMETERS, retriever=retriever, num_samples=100)
    whole = measure_sites(window, sample, PARAMETERS)
    r2 = QUALITY_FEATURES.index("quality_r2")
    assert np.abs(found.features[:, r2] - whole.features[:, r2]).mean() < 0.05


def kept_of(alleles, cm, typed_index, sample, words, **options):
    """What is kept of four left-out samples, and their window."""
    window = window_of(alleles, cm, typed_index)
    retriever = Retriever(window.typed.words, num_slots=24, num_background=8)
    found = site_quality.measure_sites(
        window, sample, PARAMETERS, retriever=retriever, num_samples=4, kept_words=words, **options
    )
    return found, window


@pytest.mark.parametrize("words", [(0, 2), (1, 2), (0, 1)])
def test_what_is_kept_is_what_the_rest_of_the_panel_gives(words):
    alleles, cm, typed_index, sample = mosaics(8)
    found, window = kept_of(alleles, cm, typed_index, sample, words)
    kept = found.copies
    typed = typed_index[words[0] * 32 : words[1] * 32]
    assert kept.sites == (typed[0], typed[-1] + 1)
    assert len(kept.haplotypes) == 8
    assert not np.isin(kept.states, kept.haplotypes).any()
    here = slice(*kept.sites)
    np.testing.assert_array_equal(kept.alleles, alleles[here][:, kept.haplotypes])
    retriever = Retriever(window.typed.words, num_slots=24, num_background=8)
    observed = np.ascontiguousarray(alleles[typed_index][:, kept.haplotypes])
    states = found_without(retriever, observed, kept.haplotypes)
    np.testing.assert_array_equal(kept.states, states[:, slice(*words)])
    prob = copy_haplotypes(window, observed, PARAMETERS, states=lambda i: states[i])
    np.testing.assert_allclose(kept.prob, prob[:, here], atol=1e-6)
    # What is kept changes nothing of what is measured.
    whole = kept_of(alleles, cm, typed_index, sample, None, threads=2)[0]
    assert whole.copies is None
    np.testing.assert_array_equal(whole.measured, found.measured)
    np.testing.assert_array_equal(whole.mismatch_prob, found.mismatch_prob)


@pytest.mark.parametrize("ploidy", [1, 2])
def test_quality_without_the_own_sample_is_that_of_the_others(ploidy):
    alleles, cm, typed_index, sample = mosaics(9)
    if ploidy == 1:
        sample = np.arange(80)
    kept = kept_of(alleles, cm, typed_index, sample, (0, 2))[0].copies
    of = sample[kept.haplotypes]
    homolog = homologs_of(of)
    sites = np.arange(*kept.sites)
    for h in range(len(kept.haplotypes)):
        others = site_quality._Sums(window_of(alleles, cm, typed_index).haplotypes.alt_is_minor)
        rest = of != of[h]
        starts = np.flatnonzero(np.diff(of[rest], prepend=-1))
        prob = np.zeros((int(rest.sum()), 300), np.float32)
        true = np.zeros(prob.shape, np.int8)
        prob[:, sites], true[:, sites] = kept.prob[rest], kept.alleles[:, rest].T
        others.add(prob.T, true.T, starts, 0)
        pairs = np.stack([np.full(len(sites), h), np.arange(len(sites))], axis=1)
        found = kept.features_without_own(pairs, homolog)
        np.testing.assert_allclose(found, others.features()[sites], atol=1e-5)


def test_in_a_small_panel_samples_are_left_out_one_by_one():
    alleles, cm, typed_index, sample = mosaics(8, num_haplotypes=60)
    assert kept_of(alleles, cm, typed_index, sample, (0, 2))[0].copies is None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 0.2), st.integers(1, 300))
def test_mismatches_are_probabilities_and_grow_with_surprise(seed, rate, n):
    rng = np.random.default_rng(seed)
    hit = np.clip(rng.beta(5, 0.2, (6, n)), 1e-6, 1 - 1e-6)
    hit[3:] = np.where(rng.random((3, n)) < rate, 1e-3, hit[3:])
    found = fit_mismatch(hit, 1e-3)
    assert ((found >= 1e-4 - 1e-9) & (found < 0.5)).all()
    worse = hit.copy()
    worse[2, rng.integers(n)] = 1e-6
    assert fit_mismatch(worse, 1e-3)[2] >= found[2] - 1e-6


def test_mismatches_are_recovered():
    rng = np.random.default_rng(5)
    true = np.array([1e-4, 3e-3, 0.02, 0.08])
    differs = rng.random((4, 4000)) < true[:, None]
    hit = np.where(differs, 0.001, 0.999)  # the copied allele is nearly certain
    found = fit_mismatch(hit, 1e-3)
    assert found[2:] == pytest.approx(true[2:], rel=0.15)
    assert found[0] < 1.5e-3


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Alleles (M, H) and cM of the packaged panel, and an array of every fourth common site."""
    path = tmp_path_factory.mktemp("quality") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"))
    with Panel.open(path) as panel:
        alleles = panel.haplotypes(0, panel.num_sites).alleles()
        maf = np.minimum(alleles.mean(axis=1), 1 - alleles.mean(axis=1))
        return alleles, panel.position_cm, np.flatnonzero(maf > 0.05)[::4]


def test_sites_full_of_errors_are_found_and_believed_less(real):
    alleles, cm, typed_index = real
    rng = np.random.default_rng(1)
    bad = np.sort(rng.permutation(len(typed_index))[: len(typed_index) // 10])
    noisy = alleles.copy()
    noisy[typed_index[bad]] ^= rng.random((len(bad), alleles.shape[1])) < 0.15
    targets, panel = noisy[:, :40], np.ascontiguousarray(noisy[:, 40:])
    window = window_of(panel, cm, typed_index)
    num = panel.shape[1]
    parameters = CopyingParameters(6, 1e-3)
    found = measure_sites(window, np.arange(num) // 2, parameters)
    good = np.setdiff1d(np.arange(len(typed_index)), bad)
    assert (found.mismatch_prob[bad] > 0.05).mean() > 0.9
    assert np.median(found.mismatch_prob[good]) < 0.005
    untyped = np.setdiff1d(np.arange(len(cm)), typed_index)
    error = []
    for each in (None, found.mismatch_prob):
        prob = copy_haplotypes(
            window, np.ascontiguousarray(targets[typed_index]),
            CopyingParameters(6, 1e-3, each), states=lambda i: all_states(num),
        )  # fmt: skip
        error.append(((prob.T - targets)[untyped] ** 2).sum())
    assert error[1] < 0.9 * error[0]


def test_untyped_sites_full_of_errors_are_found(real):
    alleles, cm, typed_index = real
    maf = np.minimum(alleles.mean(axis=1), 1 - alleles.mean(axis=1))
    untyped = np.setdiff1d(np.flatnonzero(maf > 0.1), typed_index)
    bad = untyped[::10]
    noisy = alleles.copy()
    noisy[bad] ^= np.random.default_rng(2).random((len(bad), alleles.shape[1])) < 0.1
    sample = np.arange(alleles.shape[1]) // 2
    one, two = (
        measure_sites(window_of(x, cm, typed_index), sample, CopyingParameters(6, 1e-3)).features
        for x in (alleles, noisy)
    )
    r2, excess = QUALITY_FEATURES.index("quality_r2"), QUALITY_FEATURES.index("quality_excess")
    assert (two[bad, r2] < one[bad, r2] - 0.05).mean() > 0.9
    assert two[bad, excess].mean() > one[bad, excess].mean() + 0.1


def test_sites_where_alleles_of_a_sample_go_together_are_found(real):
    alleles, cm, typed_index = real
    maf = np.minimum(alleles.mean(axis=1), 1 - alleles.mean(axis=1))
    untyped = np.setdiff1d(np.flatnonzero(maf > 0.2), typed_index)
    piled_up, dropped = untyped[0::20], untyped[1::20]
    rng = np.random.default_rng(3)
    turned = alleles.copy()
    # Two places read as one: most samples seem heterozygous, in either phase.
    first = rng.integers(0, 2, (len(piled_up), alleles.shape[1] // 2), dtype=np.int8)
    seem = np.stack([first, 1 - first], axis=2).reshape(len(piled_up), -1)
    hides = np.repeat(rng.random(first.shape) < 0.7, 2, axis=1)
    turned[piled_up] = np.where(hides, seem, turned[piled_up])
    # One allele of two that is not read.
    lost = rng.random((len(dropped), alleles.shape[1] // 2)) < 0.7
    turned[dropped, 1::2] = np.where(lost, turned[dropped, 0::2], turned[dropped, 1::2])
    sample, hets = np.arange(alleles.shape[1]) // 2, SITE_FEATURES.index("quality_hets")
    one, two = (
        measure_sites(window_of(x, cm, typed_index), sample, CopyingParameters(6, 1e-3)).features
        for x in (alleles, turned)
    )
    assert len(piled_up) > 10
    assert np.abs(one[np.concatenate([piled_up, dropped]), hets]).mean() < 0.1
    assert (two[piled_up, hets] < -0.15).mean() > 0.9
    assert (two[dropped, hets] > 0.15).mean() > 0.9
    # Where each sample has one haplotype, none can be heterozygous.
    alone = measure_sites(
        window_of(turned, cm, typed_index), np.arange(alleles.shape[1]), CopyingParameters(6, 1e-3)
    )
    assert (alone.features[:, hets] == 0).all()


def test_sharing_follows_the_quality_whatever_the_threads():
    alleles, cm, typed_index, sample = mosaics(9)
    window = window_of(alleles, cm, typed_index)
    found = measure_sites(window, sample, PARAMETERS, threads=2).features
    assert found.shape == (window.num_sites, len(SITE_FEATURES))
    every = np.arange(window.num_sites)
    np.testing.assert_array_equal(found[:, len(QUALITY_FEATURES) :], AlleleSharing(window)[every])
    some = np.array([7, 3, 3, 200])
    rows = site_quality.measure_sites(window, sample, PARAMETERS).features[some]
    np.testing.assert_array_equal(rows, found[some])


def test_kernel_that_adds_up_a_window_in_parts_ships(monkeypatch):
    """Large panels are copied part by part; what is added up of a part is no contiguous array."""
    alleles, cm, typed_index, sample = mosaics(8)
    window = window_of(alleles, cm, typed_index)
    retriever = Retriever(window.typed.words, num_slots=24, num_background=8)
    whole = measure_sites(window, sample, PARAMETERS, retriever=retriever)
    monkeypatch.setattr(site_quality, "_PART_BYTES", 4 * len(sample) * 50)
    parts = measure_sites(window, sample, PARAMETERS, retriever=retriever)
    np.testing.assert_array_equal(parts.features, whole.features)
    kernel = "ragimpute.evidence.site_quality:_add_samples"
    shipped = {entry.signature for entry in foreseen() if entry.kernel == kernel}
    added = site_quality._add_samples
    used = added.loaded | {signature_text(each) for each in added.signatures}
    assert used
    assert used <= shipped
