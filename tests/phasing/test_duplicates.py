"""Individuals that were typed twice are found, and do no harm."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.phasing.duplicates import find_duplicates, own_and_doubles
from ragimpute.phasing.sampler import PhasingSettings
from tests.phasing.test_choose_parameters import mosaics, phased_errors

CM = np.linspace(0, 20, 300)


def samples(seed, num):
    return mosaics(np.random.default_rng(seed), 2 * num, CM, 0.3, 64).reshape(len(CM), num, 2)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 99),
    missing=st.sampled_from([0, 0.1, 0.5]),
    errors=st.sampled_from([0, 0.001]),
)
def test_samples_typed_twice_are_found_and_no_others(seed, missing, errors):
    rng = np.random.default_rng(seed)
    alleles = samples(seed, 12)
    again = alleles[:, :3, ::-1].copy()  # the order of alleles says nothing
    again = np.where(rng.random(again.shape) < errors, 1 - again, again)
    alleles = np.concatenate([alleles, again], 1)
    alleles[rng.random(alleles.shape[:2]) < missing] = -1
    found = find_duplicates(alleles)
    true = np.eye(15, dtype=bool)
    true[[0, 1, 2, 12, 13, 14], [12, 13, 14, 0, 1, 2]] = True
    assert (found == true).all(), np.argwhere(found != true)


def test_parents_and_sibs_are_no_duplicates():
    rng = np.random.default_rng(3)
    parents = samples(3, 2)

    def child():
        half = np.arange(len(CM)) // 100 + rng.integers(2, size=2)[:, None]
        return np.stack([np.take_along_axis(parents[:, i], half[i][:, None] % 2, 1)[:, 0]
                         for i in range(2)], 1)  # fmt: skip

    family = np.stack([parents[:, 0], parents[:, 1], child(), child()], 1)
    family[:, 3] = np.where(np.arange(len(CM))[:, None] < 150, family[:, 3], family[:, 3, ::-1])
    assert (find_duplicates(family) == np.eye(4, dtype=bool)).all()


def test_samples_without_heterozygous_sites_are_no_duplicates():
    inbred = np.repeat(np.random.default_rng(1).integers(0, 2, (50, 1, 1)), 2, axis=2)
    alleles = np.repeat(inbred, 3, axis=1).astype(np.int8)
    haploid = np.stack([alleles[:, 0, 0], np.full(50, -2)], 1)[:, None].astype(np.int8)
    alleles = np.concatenate([alleles, haploid, haploid], 1)
    assert (find_duplicates(alleles) == np.eye(5, dtype=bool)).all()
    assert (find_duplicates(alleles[:0]) == np.eye(5, dtype=bool)).all()


def test_no_sample_copies_itself_or_its_doubles():
    same = np.eye(3, dtype=bool)
    same[0, 2] = same[2, 0] = True
    own = own_and_doubles(same, 10)
    assert own.tolist() == [[10, 11, 14, 15], [12, 13, -1, -1], [14, 15, 10, 11]]


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 99), num_states=st.sampled_from([24, 320]), copies=st.integers(1, 3))
def test_duplicates_make_phasing_no_worse(seed, num_states, copies):
    panel = mosaics(np.random.default_rng(seed), 14, CM, 0.3, 64)  # of the same founders
    true = samples(seed, 8)
    quick = PhasingSettings(passes=8, burn_in=2, refresh=4, num_states=num_states, num_background=8)
    parameters = CopyingParameters(2.0, 1e-3)

    def errors(samples):
        return phased_errors(
            panel, CM, samples, parameters, with_targets=True, settings=quick
        ) / samples.shape[1]  # fmt: skip

    apart = errors(true)
    together = errors(np.concatenate([true] * (1 + copies), 1))
    assert together <= 1.25 * apart + 3
