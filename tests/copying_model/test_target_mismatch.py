"""Targets with more mismatches than the panel's samples get mismatch probabilities of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import names
from slow_copying import mosaic_panel, window_of
from vcf_fixtures import read_imputed, write_genotypes

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying_model import target_mismatch
from ragimpute.copying_model.target_mismatch import (
    TypedProbs,
    groups_of,
    mismatch_factors,
    with_factors,
)
from ragimpute.copying_model.twins import Imputed
from ragimpute.imputation import windows
from ragimpute.imputation.impute import impute
from ragimpute.preparation.prepare import prepare

NUM_SITES, NUM_PANEL = 600, 60


def simulated(seed=1, errors=0.08):
    """A window, and typed alleles of 12 targets, of which samples 1, 4 have so many errors."""
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, NUM_SITES, NUM_PANEL + 12, num_founders=8, switches=0.01)
    window = window_of(
        alleles[:, :NUM_PANEL], np.arange(NUM_SITES) * 0.02, np.arange(0, NUM_SITES, 3)
    )
    typed = alleles[::3, NUM_PANEL:].astype(np.int8)
    for sample in (1, 4):
        wrong = rng.random((len(typed), 2)) < errors
        typed[:, 2 * sample : 2 * sample + 2] ^= wrong
    return window, typed, np.arange(12) // 2


def factors_of(window, typed, sample, blocks=(5, 100)):
    """Factors of targets whose probabilities are handed over in blocks."""
    imputed = Imputed.of(typed, sample)
    parameters = CopyingParameters(
        1.0, 0.003, np.full(typed.shape[0], 0.003, np.float32)
    )  # fmt: skip
    prob = copy_haplotypes(
        window, imputed.alleles, parameters,
        states=lambda i: np.arange(NUM_PANEL, dtype=np.int32)[None],
    )  # fmt: skip
    kept = TypedProbs(window, len(imputed.copies))
    for first in range(0, len(prob), blocks[0]):
        for site in range(0, prob.shape[1], blocks[1]):
            part = prob[first : first + blocks[0], site : site + blocks[1]]
            kept.keep(first, site, part)
    return mismatch_factors(kept, imputed, parameters)


def test_samples_with_errors_are_found_and_no_others():
    found = factors_of(*simulated())
    assert (found.reshape(6, 2) == found.reshape(6, 2)[:, :1]).all()
    assert np.flatnonzero(found.reshape(6, 2)[:, 0] > 1).tolist() == [1, 4]
    # 8 % of errors where .3 % were expected.
    assert (found[[2, 8]] >= 8).all()
    assert (np.log2(found) % 1 == 0).all()


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), st.integers(1, 12),
    st.sampled_from([40, 97, 600]),
)  # fmt: skip
def test_a_sample_s_factor_does_not_depend_on_the_others(samples, rows, columns):
    window, typed, sample = simulated()
    everyone = factors_of(window, typed, sample)
    chosen = np.isin(sample, samples)
    few = factors_of(window, typed[:, chosen], sample[chosen], (rows, columns))
    np.testing.assert_array_equal(few, everyone[chosen])


def test_groups_of_targets_may_be_small(monkeypatch):
    window, typed, sample = simulated()
    everyone = factors_of(window, typed, sample)
    monkeypatch.setattr(target_mismatch, "_AT_ONCE", 3)
    np.testing.assert_array_equal(factors_of(window, typed, sample), everyone)


def test_haploid_inbred_and_untyped_targets():
    window, typed, _ = simulated()
    alone = factors_of(window, typed[:, [0, 2, 8]], np.arange(3))
    assert alone[0] == 1
    assert (alone[1:] > 1).all()
    twins = factors_of(
        window, np.repeat(typed[:, [0, 2, 8]], 2, axis=1), np.repeat(np.arange(3), 2)
    )
    np.testing.assert_array_equal(twins, alone)
    missing = typed.copy()
    missing[:, 2:4] = -1
    assert (factors_of(window, missing, np.arange(12) // 2)[2:4] == 1).all()
    core = window.with_core((1, 2))  # no typed site
    none = TypedProbs(core, 12)
    none.keep(0, 0, np.zeros((12, 1), np.float32))
    imputed = Imputed.of(typed, np.arange(12) // 2)
    assert (mismatch_factors(none, imputed, CopyingParameters(1.0, 0.003)) == 1).all()


def test_groups_put_their_targets_where_they_were():
    _, typed, sample = simulated()
    imputed = Imputed.of(typed, sample)
    factor = np.repeat([1.0, 4, 1, 1, 4, 64], 2)
    put = {}

    def keep(first, site, prob):
        put.update({first + i: (site, row.tolist()) for i, row in enumerate(prob)})

    groups = list(groups_of(imputed, CopyingParameters(1.0, 0.02), factor, keep))
    assert len(groups) == 2
    for group in groups:
        group.put(0, 7, group.imputed.alleles.T)
        assert group.imputed.homolog.tolist() == [i ^ 1 for i in range(len(group.imputed.homolog))]
    assert put == {h: (7, typed[:, h].tolist()) for h in np.flatnonzero(factor > 1)}
    assert groups[0].parameters.mismatch_probs(len(typed))[0] == pytest.approx(0.08)
    assert groups[1].parameters.mismatch_probs(len(typed))[0] == pytest.approx(0.4)
    both = with_factors(CopyingParameters(1.0, 0.02), 3, np.array([1.0, 4.0, 64.0]))
    np.testing.assert_allclose(both, [[0.02, 0.08, 0.4]] * 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A panel of 60 samples, and alleles of 8 targets of whom the second has many errors."""
    folder = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(11)
    alleles = mosaic_panel(rng, 600, 136, num_founders=10, switches=0.01).reshape(600, 68, 2)
    alleles = alleles.astype(np.int8)
    keys = [(1_000 * (i + 1), "A", "G") for i in range(600)]
    write_genotypes(folder / "p.vcf", keys, alleles[:, :60], names(60))
    prepare(folder / "p.vcf", folder / "p.h5", cm_per_mb=2)
    typed = alleles[::3, 60:].copy()
    typed[:, 1] ^= rng.random((200, 2)) < 0.08
    write_genotypes(folder / "t.vcf", keys[::3], typed, list("abcdefgh"))
    return folder, alleles[:, 60:]


def run(made, out, model, **options):
    folder, _ = made
    impute(folder / "t.vcf", folder / "p.h5", out, model=model, **options)
    return read_imputed(out)


def test_a_poor_sample_is_imputed_better_and_changes_no_other(
    made, plain_copying, tmp_path, monkeypatch
):
    found = run(made, tmp_path / "x.vcf", plain_copying)
    two = run(made, tmp_path / "y.vcf", plain_copying, threads=2)
    np.testing.assert_array_equal(found.dosage, two.dosage)
    monkeypatch.setattr(target_mismatch, "_LEAST_FACTOR", np.inf)
    plain = run(made, tmp_path / "z.vcf", plain_copying)
    others = np.arange(8) != 1
    np.testing.assert_array_equal(found.dosage[:, others], plain.dosage[:, others])
    truth = made[1][:, 1].sum(axis=1)
    untyped = np.arange(600) % 3 > 0

    def error(imputed):
        return ((imputed.dosage[untyped, 1] - truth[untyped]) ** 2).sum()

    assert error(found) < 0.95 * error(plain)


def test_a_poor_sample_whose_probabilities_wait_on_disk(made, plain_copying, tmp_path):
    found = run(made, tmp_path / "x.vcf", plain_copying)
    original = windows.Spool

    def on_disk(*args, **options):
        return original(*args, **options | {"max_bytes": 0, "tile_bytes": 4_000})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "Spool", on_disk)
        disk = run(made, tmp_path / "y.vcf", plain_copying)
    np.testing.assert_array_equal(found.dosage, disk.dosage)
