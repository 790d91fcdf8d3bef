"""How far carriers share their haplotypes, against a plain walk from site to site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel, window_of

from ragimpute.evidence.allele_sharing import AlleleSharing
from ragimpute.evidence.features import SHARING_FEATURES
from ragimpute.runtime.threads import share

REACH_CM, MOST = 2.0, 8


def allele_sharing(window, threads=1):
    """Of all sites."""
    return AlleleSharing(window, threads=threads)[np.arange(window.num_sites)]


def case(seed, num_sites=200, num_haplotypes=60, every=3, step_cm=0.05):
    """A panel of mosaics, positions, and typed sites."""
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_sites, num_haplotypes, num_founders=6)
    return alleles, np.cumsum(rng.exponential(step_cm, num_sites)), np.arange(0, num_sites, every)


def plain(window, alleles, site):
    """The numbers of a site, one pair of carriers and one typed site after another."""
    minor = alleles[site] == window.haplotypes.alt_is_minor[site]
    order = np.argsort(window.signature, kind="stable")
    carriers = [h for h in order if minor[h]][:MOST]
    if len(carriers) < 2:
        return [0.0, 0.0, 0.0]
    cm, typed_cm = window.position_cm[site], window.typed.position_cm
    typed = alleles[window.typed_index]
    left = [t for t in range(len(typed)) if window.typed_index[t] < site]
    right = [t for t in range(len(typed)) if window.typed_index[t] >= site]
    cm_of, sites_of = [], []
    for a in carriers:
        lengths, counts = [], []
        for b in carriers:
            if a == b:
                continue
            length, count = 0.0, 0
            for flank in (left[::-1], right):
                ends = cm
                for t in flank:
                    if abs(typed_cm[t] - cm) > REACH_CM:
                        ends = typed_cm[t]
                        break
                    ends = typed_cm[t]
                    if typed[t, a] != typed[t, b]:
                        break
                    count += 1
                length += min(REACH_CM, abs(ends - cm))
            lengths.append(length)
            counts.append(count)
        cm_of.append(np.log(max(lengths) + 1e-3))
        sites_of.append(np.log1p(max(counts)))
    return [np.mean(cm_of), min(cm_of), np.mean(sites_of)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([4, 9, 60, 130]), st.sampled_from([1, 3, 40, 199]),
    st.sampled_from([0.0, 0.01, 0.3]),
)  # fmt: skip
def test_equals_a_plain_walk(seed, num_haplotypes, every, step_cm):
    alleles, cm, typed_index = case(
        seed, num_haplotypes=num_haplotypes, every=every, step_cm=step_cm
    )
    window = window_of(alleles, cm, typed_index)
    found = allele_sharing(window)
    assert found.shape == (200, len(SHARING_FEATURES))
    for site in range(0, 200, 7):
        np.testing.assert_allclose(found[site], plain(window, alleles, site), atol=1e-4)


def test_the_order_of_the_panel_its_coding_and_threads_are_nothing():
    alleles, cm, typed_index = case(1)
    rng = np.random.default_rng(2)
    found = allele_sharing(window_of(alleles, cm, typed_index))
    assert (found[:, 0] != 0).sum() > 100
    order = rng.permutation(alleles.shape[1])
    other = window_of(np.ascontiguousarray(alleles[:, order]), cm, typed_index)
    np.testing.assert_array_equal(allele_sharing(other), found)
    np.testing.assert_array_equal(allele_sharing(other, threads=3), found)
    even = alleles.sum(axis=1) * 2 == alleles.shape[1]
    recode = (rng.random(len(alleles)) < 0.5) & ~even
    coded = window_of(alleles ^ recode[:, None].astype(alleles.dtype), cm, typed_index)
    np.testing.assert_array_equal(allele_sharing(coded), found)


def test_a_part_that_is_reported_changes_nothing():
    alleles, cm, typed_index = case(3)
    window = window_of(alleles, cm, typed_index)
    inner = replace(window, core=(50, 90))
    np.testing.assert_array_equal(allele_sharing(inner), allele_sharing(window))


def test_young_alleles_are_shared_further_than_old_ones():
    rng = np.random.default_rng(4)
    alleles, cm, typed_index = case(4, num_haplotypes=40)
    young, old = alleles.copy(), alleles.copy()
    young[100], old[100] = 0, 0
    young[40:160, 1:5] = young[40:160, [0]]  # five copies of one stretch
    young[100, :5] = 1
    old[100, rng.permutation(40)[:5]] = 1
    of_young, of_old = (allele_sharing(window_of(a, cm, typed_index))[100] for a in (young, old))
    assert (of_young > of_old).all()
    assert np.exp(of_young[1]) == pytest.approx(
        min(cm[100] - cm[39], 2) + min(cm[160] - cm[100], 2), abs=0.3
    )


def test_one_carrier_shares_with_nobody():
    alleles, cm, typed_index = case(5)
    alleles[[31, 32]] = 0
    alleles[31, 7] = 1
    found = allele_sharing(window_of(alleles, cm, typed_index))
    assert (found[[31, 32]] == 0).all()


@given(st.lists(st.lists(st.integers(0, 199), max_size=30), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_sites_in_any_order_and_more_than_once(asked):
    alleles, cm, typed_index = case(6)
    window = window_of(alleles, cm, typed_index)
    every, found = allele_sharing(window), AlleleSharing(window, threads=2)
    for sites in asked:
        index = np.array(sites, np.int64)
        np.testing.assert_array_equal(found[index], every[index])


def test_threads_may_ask_at_once():
    alleles, cm, typed_index = case(7)
    window = window_of(alleles, cm, typed_index)
    every, found = allele_sharing(window), AlleleSharing(window)
    asked = [np.random.default_rng(i).permutation(200)[:90] for i in range(8)]
    for sites, rows in zip(asked, share(lambda s: found[s], asked, 4), strict=True):
        np.testing.assert_array_equal(rows, every[sites])
