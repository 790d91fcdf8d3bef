"""Phasing: what must come out exactly, what must not matter, and what stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from panel_fixtures import FlatMap

from ragimpute import example
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import TypedSites
from ragimpute.io.vcf.read.genotypes import PanelStream, read_target
from ragimpute.phasing.sampler import Genotypes, PhasingSettings, phase_haplotypes

PARAMETERS = CopyingParameters(10.0, 1e-3)
QUICK = PhasingSettings(passes=8, burn_in=2, refresh=4)
RETRIEVED = PhasingSettings(passes=8, burn_in=2, refresh=4, num_states=24, num_background=8)


@pytest.fixture(scope="session")
def typed():
    """The real example's panel at the sites that the target types: (T, H) and positions."""
    keys = set(read_target(example.path("target.vcf.gz")).sites.keys())
    alleles, position = [], []
    for batch in PanelStream(example.path("panel.bcf")):
        chosen = np.array([key in keys for key in batch.sites.keys()])
        alleles.append(batch.alleles[chosen].reshape(chosen.sum(), -1))
        position.append(batch.sites.position_bp[chosen])
    return np.concatenate(alleles), FlatMap().position_cm(np.concatenate(position))


def run(panel, position_cm, alleles, phased=None, **options):
    """Phase genotypes; unphased where heterozygous, unless ``phased`` says otherwise."""
    if phased is None:
        phased = (alleles[:, :, 0] == alleles[:, :, 1]) | (alleles < 0).any(axis=2)
    options.setdefault("settings", QUICK)
    sites = TypedSites.pack(panel, position_cm)
    genotypes = Genotypes(alleles, phased, options.pop("phase_set", None))
    return phase_haplotypes(sites, genotypes, PARAMETERS, **options)


def shuffled(pairs, seed=1):
    """Genotypes (T, N, 2) with the order of alleles drawn."""
    turned = np.random.default_rng(seed).random(pairs.shape[:2]) < 0.5
    return np.where(turned[:, :, None], pairs[:, :, ::-1], pairs)


def switches(found, true):
    """Switch errors of each sample."""
    counts = []
    for i in range(true.shape[1]):
        het = true[:, i, 0] != true[:, i, 1]
        right = found[het, i, 0] == true[het, i, 0]
        counts.append(int((right[1:] != right[:-1]).sum()))
    return counts


@pytest.mark.parametrize("options", [{}, {"settings": RETRIEVED}])
def test_a_pair_of_panel_haplotypes_is_phased_exactly(typed, options):
    panel, position_cm = typed
    true = panel[:, [[0, 7], [12, 31], [40, 3], [25, 60]]]
    found = run(panel, position_cm, shuffled(true), **options)
    assert switches(found, true) == [0] * 4
    assert (np.sort(found, axis=2) == np.sort(true, axis=2)).all()


def test_children_of_panel_samples_are_phased_by_their_parents(typed):
    panel, position_cm = typed
    rng = np.random.default_rng(3)
    true = np.empty((len(panel), 3, 2), np.int8)
    for child, parents in enumerate(((0, 2), (10, 14), (20, 28))):
        for x, parent in enumerate(parents):
            cut = rng.integers(len(panel))
            true[:cut, child, x] = panel[:cut, parent]
            true[cut:, child, x] = panel[cut:, parent + 1]
    assert sum(switches(run(panel, position_cm, shuffled(true)), true)) <= 1


def test_the_order_in_which_alleles_come_changes_nothing(typed):
    panel, position_cm = typed
    samples = panel[:, 60:80].reshape(len(panel), -1, 2)
    first = run(panel[:, :60], position_cm, shuffled(samples, 1), with_targets=True)
    other = run(panel[:, :60], position_cm, shuffled(samples, 2), with_targets=True)
    assert (first == other).all()


def test_threads_change_nothing_and_the_seed_does(typed):
    panel, position_cm = typed
    samples = shuffled(panel[:, 60:80].reshape(len(panel), -1, 2))
    for settings in (QUICK, RETRIEVED):
        options = {"with_targets": True, "settings": settings}
        one = run(panel[:, :60], position_cm, samples, threads=1, **options)
        two = run(panel[:, :60], position_cm, samples, threads=2, **options)
        assert (one == two).all()
    assert (run(panel[:, :60], position_cm, samples, seed=2) != one).any()


def test_the_truth_of_real_samples_is_mostly_found(typed):
    panel, position_cm = typed
    true = panel[:, 60:80].reshape(len(panel), -1, 2)
    found = run(panel[:, :60], position_cm, shuffled(true))
    num_het = (true[:, :, 0] != true[:, :, 1]).sum()
    # Drawn orders have 50 %.
    assert sum(switches(found, true)) < 0.15 * num_het
    assert (np.sort(found, axis=2) == np.sort(true, axis=2)).all()


def test_one_sample_alone_and_one_heterozygous_genotype(typed):
    panel, position_cm = typed
    alone = shuffled(panel[:, [[2, 9]]])
    found = run(panel, position_cm, alone, with_targets=True)
    assert switches(found, panel[:, [[2, 9]]]) == [0]
    single = panel[:, [[2, 2]]].copy()
    single[5, 0] = [1, 0]
    expected = single.copy()
    expected[5, 0] = [0, 1]
    assert (run(panel, position_cm, single) == expected).all()


def test_missing_genotypes_stay_or_are_filled(typed):
    panel, position_cm = typed
    true = panel[:, [[0, 7], [12, 31], [40, 3]]]
    given = shuffled(true)
    hidden = np.zeros(given.shape[:2], bool)
    hidden[::9, 0] = True
    hidden[:, 2] = True
    given[hidden] = -1
    kept = run(panel, position_cm, given)
    assert (kept[hidden] == -1).all()
    found = run(panel, position_cm, given, fill_missing=True)
    assert (found[~hidden] == kept[~hidden]).all()
    assert switches(found[:, :2], true[:, :2]) == [0, 0]
    # Two copied haplotypes tell what is missing, and in which order.
    wrong = (found[::9, 0] != true[::9, 0]).any(axis=1)
    turned = (found[::9, 0] != true[::9, 0, ::-1]).any(axis=1)
    assert min(wrong.mean(), turned.mean()) < 0.03
    # Without a single genotype: the allele that most of the panel has.
    common = panel.mean(axis=1) > 0.5
    sure = abs(panel.mean(axis=1) - 0.5) > 0.1
    assert (found[sure, 2] == common[sure, None]).all()


def test_haploid_samples_pass_through(typed):
    panel, position_cm = typed
    given = shuffled(panel[:, [[0, 7], [12, 31], [40, 3]]])
    given[:, 1, 1] = -2  # haploid throughout
    given[: len(given) // 2, 2, 1] = -2  # and in part
    found = run(panel, position_cm, given, with_targets=True, fill_missing=True)
    haploid = given[:, :, 1] == -2
    assert (found[haploid] == given[haploid]).all()
    assert switches(
        found[len(given) // 2 :], panel[len(given) // 2 :][:, [[0, 7], [12, 31], [40, 3]]]
    )[::2] == [0, 0]


def test_phased_genotypes_keep_their_order(typed):
    panel, position_cm = typed
    # Another sample's order, which the panel speaks against.
    given = shuffled(panel[:, 60:80].reshape(len(panel), -1, 2), 5)
    het = given[:, :, 0] != given[:, :, 1]
    phased = ~het | (np.random.default_rng(6).random(het.shape) < 0.3)
    sets = np.where(np.arange(len(panel)) < len(panel) // 2, 1, 2)[:, None].repeat(10, axis=1)
    found = run(panel[:, :60], position_cm, given, phased, phase_set=sets, with_targets=True)
    assert (np.sort(found, axis=2) == np.sort(given, axis=2)).all()
    for i in range(given.shape[1]):
        for block in (1, 2):
            here = het[:, i] & phased[:, i] & (sets[:, i] == block)
            turned = found[here, i, 0] != given[here, i, 0]
            assert turned.all() or not turned.any()
    free = het & ~phased
    assert (found[free] != given[free]).any()


def test_a_phased_target_is_returned_as_it_is(typed):
    panel, position_cm = typed
    given = shuffled(panel[:, 60:80].reshape(len(panel), -1, 2))
    found = run(panel[:, :60], position_cm, given, np.ones(given.shape[:2], bool))
    assert (found == given).all()


def test_batches_are_phased_apart(typed):
    panel, position_cm = typed
    samples = shuffled(panel[:, 20:80].reshape(len(panel), -1, 2))
    whole = run(panel[:, :20], position_cm, samples)
    done = []
    parts = run(
        panel[:, :20], position_cm, samples,
        settings=replace(QUICK, batch_bytes=0),  # sixteen samples in each
        progress=lambda stage, n, total: done.append((n, total)),
    )  # fmt: skip
    assert (parts[:, :16] == whole[:, :16]).all()
    assert done[-1] == (30 * 9, 30 * 9)
    assert [n for n, _ in done[:-1]] == sorted(n for n, _ in done[:-1])  # it moves within passes
    assert len(done) == 30 * 9 + 2


def test_shapes_that_do_not_agree_are_refused(typed):
    panel, position_cm = typed
    with pytest.raises(ValueError, match="typed sites"):
        run(panel, position_cm, panel[:5, [[0, 1]]])


@pytest.mark.parametrize(("num_haplotypes", "num_states"), [(2, 320), (3_200, 400), (20_000, 640)])
def test_larger_panels_give_more_states(num_haplotypes, num_states):
    assert PhasingSettings.for_panel(num_haplotypes) == PhasingSettings(num_states=num_states)


def test_more_targets_than_panel_haplotypes_take_more_passes():
    many, few = PhasingSettings.for_panel(14, 200), PhasingSettings.for_panel(200, 14)
    assert few == PhasingSettings.for_panel(214)
    assert many.burn_in > few.burn_in
    assert many.passes - many.burn_in >= few.passes // 2
