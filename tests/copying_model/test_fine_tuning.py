"""The network fitted to a panel: by its people alone, in whatever order, and unseen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from slow_copying import mosaic_panel, window_of

from ragimpute.copying import states as copying_states
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying_model import fine_tuning as adaptation
from ragimpute.copying_model.fine_tuning import MIN_SAMPLES, adapt_network, check_network
from ragimpute.copying_model.pair_network import PairNetwork
from ragimpute.evidence.site_quality import measure_sites
from ragimpute.model.folder import open_folder
from ragimpute.retrieval.retriever import Retriever
from tests.copying_model.test_correction import in_context, network_of

PARAMETERS = CopyingParameters(5, 3e-3)


def panel_of(num_samples=60, num_sites=400, seed=1, **options):
    """A panel of mosaics of 10 founders: alleles, cM, typed sites, sample of each haplotype."""
    rng = np.random.default_rng(seed)
    options = {"num_founders": 10, "switches": 0.02, "mutations": 0.02, **options}
    alleles = mosaic_panel(rng, num_sites, 2 * num_samples, **options)
    cm = np.cumsum(rng.exponential(0.01, num_sites))
    return alleles, cm, np.arange(0, num_sites, 8), np.repeat(np.arange(num_samples), 2)


def adapted(network, panel, **options):
    """The network fitted to a panel."""
    alleles, cm, typed_index, sample = panel
    window = window_of(alleles, cm, typed_index)
    return adapt_network(network, window, sample, PARAMETERS, **options)[0]


def flat(network):
    """All weights and biases of the layers of sites as one row of numbers."""
    return np.concatenate([part.ravel() for layer in network.site.layers for part in layer])


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch):
    """Small panels, so that tests take little time."""
    monkeypatch.setattr(adaptation, "MIN_PAIRS", 2_000)


@pytest.fixture(scope="module", params=["default", "states"])
def network(request):
    if request.param == "states":
        return network_of("states", last=0.03)
    return PairNetwork.of_folder(open_folder(request.param))


@pytest.fixture(scope="module")
def default():
    return PairNetwork.of_folder(open_folder("default"))


@pytest.fixture
def used(monkeypatch):
    """What measuring, copying and reading evidence are given, by the functions' names."""
    seen = {}

    def watch(name):
        function = getattr(adaptation, name)

        def watched(*args, **options):
            out = function(*args, **options)
            seen[name] = (args, options, out)
            return out

        monkeypatch.setattr(adaptation, name, watched)

    for name in ("measure_sites", "copy_haplotypes", "read_pairs"):
        watch(name)
    return seen


def test_a_panel_moves_the_network_a_little(network):
    panel = panel_of()
    before = flat(network).copy()
    found = adapted(network, panel)
    moved = np.abs(flat(found) - before)
    assert (moved > 0).mean() > 0.9
    assert 1e-4 < moved.max() < 0.05
    np.testing.assert_array_equal(flat(network), before)
    again = adapted(replace(network, threads=2), panel, threads=2)
    np.testing.assert_array_equal(flat(again), flat(found))
    other = flat(adapted(network, panel, seed=2))
    assert (other != flat(found)).any()


def test_the_panels_order_is_nothing(network):
    alleles, cm, typed_index, sample = panel_of()
    expected = flat(adapted(network, (alleles, cm, typed_index, sample)))
    moved = np.abs(expected - flat(network)).max()
    order = np.random.default_rng(1).permutation(60)
    for first, second in ((0, 1), (1, 0)):  # samples, then the haplotypes of each as well
        columns = np.stack([2 * order + first, 2 * order + second], axis=1).ravel()
        found = flat(adapted(network, (alleles[:, columns], cm, typed_index, sample)))
        np.testing.assert_allclose(found, expected, atol=0.05 * moved)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_those_who_are_left_out_are_not_seen(default, used):
    alleles, cm, typed_index, sample = panel_of()
    adapted(default, (alleles, cm, typed_index, sample))
    (others, kept_sample, _), _, quality = used["measure_sites"]
    assert others.haplotypes.num_haplotypes == len(kept_sample) == 96  # 12 of 60 people are not
    kept = np.unique(kept_sample)
    out = np.setdiff1d(sample, kept)
    assert (len(kept), len(out)) == (48, 12)
    np.testing.assert_array_equal(kept_sample, np.repeat(kept, 2))
    np.testing.assert_array_equal(others.haplotypes.alleles(), alleles[:, np.isin(sample, kept)])
    # Copied from the others alone, at the typed sites.
    (copied, observed, parameters), options, _ = used["copy_haplotypes"]
    assert copied is others
    assert parameters.site_mismatch_prob is quality.mismatch_prob
    assert {tuple(x) for x in observed.T.tolist()} == {
        tuple(x) for x in alleles[np.ix_(typed_index, np.isin(sample, out))].T.tolist()
    }
    assert observed.shape == (len(typed_index), 24)
    for i in (0, 23):
        assert options["states"](i).max() < 96
    read = used["read_pairs"][0]
    assert read[1] is others
    assert len(np.unique(read[4][:, 0])) > 12
    # A fifth of them checks what was learned from the others.


def test_alleles_of_the_left_out_reach_the_labels_alone(default, used):
    """Their untyped alleles are the answers: evidence does not know them, what is learned does."""
    alleles, cm, typed_index, sample = panel_of()
    expected = adapted(default, (alleles, cm, typed_index, sample))
    evidence = used["read_pairs"][2][0]
    left_out = np.setdiff1d(sample, used["measure_sites"][0][1])
    # An untyped site where the change turns neither the minor allele nor the way it is kept.
    changed = alleles.copy()
    count = alleles.sum(axis=1)
    untyped = np.setdiff1d(np.flatnonzero((count > 35) & (count < 45)), typed_index)
    columns = np.flatnonzero(np.isin(sample, left_out[:2]))
    changed[np.ix_(untyped, columns)] ^= 1
    assert len(untyped) > 10
    one = window_of(alleles, cm, typed_index)
    # People are drawn by the panel's alleles: the same ones, please.
    window = window_of(changed, cm, typed_index)
    vars(window)["signature"] = one.signature
    found, _ = adapt_network(default, window, sample, PARAMETERS)
    np.testing.assert_array_equal(used["read_pairs"][2][0], evidence)
    assert (flat(found) != flat(expected)).any()


def checked(network, panel, signature=None, seed=1):
    """The network checked with samples that were left out together, and what was kept of these."""
    alleles, cm, typed_index, sample = panel
    window = window_of(alleles, cm, typed_index)
    if signature is not None:
        vars(window)["signature"] = signature
    retriever = Retriever(window.typed.words, num_slots=24, num_background=8)
    words = (0, len(window.typed.words))
    quality = measure_sites(
        window, sample, PARAMETERS, retriever=retriever, num_samples=6, kept_words=words, seed=seed
    )
    low, high = quality.copies.sites
    part = window_of(alleles[low:high], cm[low:high], typed_index - low)
    vars(part)["signature"] = window.signature
    parameters = replace(PARAMETERS, site_mismatch_prob=quality.mismatch_prob)
    found = check_network(network, part, sample, parameters, quality.copies)
    return found, quality.copies, window.signature


def test_samples_that_measured_the_sites_check_the_network(default, monkeypatch):
    monkeypatch.setattr(adaptation, "MIN_PAIRS", 10**6)
    found, copies, _ = checked(default, panel_of())
    assert len(copies.haplotypes) == 12
    assert found.site is default.site
    assert found.trust is not None
    # Where so many pairs are in doubt that the network can be trained, others are to be left out.
    monkeypatch.setattr(adaptation, "MIN_PAIRS", 10)
    assert checked(default, panel_of())[0] is None


def test_those_who_check_the_network_do_not_tell_their_alleles(default, used, monkeypatch):
    monkeypatch.setattr(adaptation, "MIN_PAIRS", 10**6)
    alleles, cm, typed_index, sample = panel_of()
    _, copies, signature = checked(default, (alleles, cm, typed_index, sample))
    (_, others, *_), _, (evidence, _) = used["read_pairs"]
    assert others.typed.num_haplotypes == 120 - 12
    pairs = used["read_pairs"][0][4]
    mine = copies.haplotypes[:2]
    changed = alleles.copy()
    count = alleles.sum(axis=1)
    untyped = np.setdiff1d(np.flatnonzero((count > 35) & (count < 45)), typed_index)
    changed[np.ix_(untyped, mine)] ^= 1
    checked(default, (changed, cm, typed_index, sample), signature)
    again, (told, _) = used["read_pairs"][0][4], used["read_pairs"][2]
    np.testing.assert_array_equal(pairs, again)
    own = pairs[:, 0] < 2
    assert own.any()
    np.testing.assert_allclose(told[own], evidence[own], atol=1e-5)
    assert (told[~own] != evidence[~own]).any()  # the sites' quality to the other samples


def test_few_people_leave_the_weights_as_they_are(default):
    options = {"num_sites": 1_200, "switches": 0.05}
    assert MIN_SAMPLES == 40
    few = adapted(default, panel_of(39, **options))
    assert few.site is default.site
    assert few.trust is not None
    many = adapted(default, panel_of(40, **options))
    assert many.site is not default.site
    assert many.trust is not None


def test_little_in_doubt_leaves_the_weights_as_they_are(default, monkeypatch):
    panel = panel_of(mutations=0.0, num_sites=80)
    assert adapted(default, panel).site is default.site
    monkeypatch.setattr(adaptation, "MIN_PAIRS", 1)
    assert adapted(default, panel).site is not default.site


@pytest.mark.parametrize("num_samples", [3, 7, 30])
def test_each_sample_of_a_small_panel_checks_the_network_once(default, monkeypatch, num_samples):
    left_out = []
    function = adaptation.leave_out

    def watched(*args, **options):
        left_out.extend(args[3].tolist())
        return function(*args, **options)

    monkeypatch.setattr(adaptation, "leave_out", watched)
    found = adapted(default, panel_of(num_samples))
    assert sorted(left_out) == list(range(num_samples))
    assert ((found.trust.share >= 0) & (found.trust.share <= 1.2)).all()


def test_a_panel_of_two_samples_cannot_check_anything(default):
    assert adapted(default, panel_of(2)) is default


@pytest.mark.parametrize("num_samples", [20, 60])
def test_a_network_that_makes_it_worse_is_not_trusted(default, num_samples, monkeypatch):
    """Its residual is turned around: what is right becomes wrong."""
    weight, bias = default.site.layers[-1]
    layers = (*default.site.layers[:-1], (-4 * weight, -4 * bias))
    monkeypatch.setattr(adaptation, "MIN_PAIRS", 10**9)  # it would be trained out of it
    panel = panel_of(num_samples, num_sites=1_500)
    bad = adapted(replace(default, site=replace(default.site, layers=layers)), panel)
    good = adapted(default, panel)
    assert bad.trust.share.mean() < 0.6 < good.trust.share.mean()


@pytest.fixture
def retrieving(monkeypatch):
    """Panels of any size are copied from retrieved states."""
    monkeypatch.setattr(copying_states, "COPY_ALL_UP_TO", 50)


def test_the_first_people_tell_that_too_little_is_in_doubt(default, used, retrieving, monkeypatch):
    monkeypatch.setattr(adaptation, "_FIRST_SAMPLES", 4)
    panel = panel_of(mutations=0.0, num_sites=80)
    found = adapted(default, panel)
    first = used["read_pairs"][0]
    assert used["copy_haplotypes"][0][1].shape[1] == first[2].shape[1] == 8  # of 12 left-out people
    assert found.site is default.site
    # Their pairs are those that they have if all are imputed.
    monkeypatch.setattr(adaptation, "_FIRST_SAMPLES", 32)
    adapted(default, panel)
    whole = used["read_pairs"][0]
    assert whole[2].shape[1] == 24
    np.testing.assert_array_equal(first[4], whole[4][whole[4][:, 0] < 8])


def test_who_is_imputed_first_is_nothing_where_all_are(default, used, retrieving, monkeypatch):
    panel = panel_of()
    expected = adapted(default, panel)
    pairs, evidence = used["read_pairs"][0][4], used["read_pairs"][2][0]
    monkeypatch.setattr(adaptation, "_FIRST_SAMPLES", 5)
    found = adapted(default, panel)
    np.testing.assert_array_equal(used["read_pairs"][0][4], pairs)
    np.testing.assert_array_equal(used["read_pairs"][2][0], evidence)
    np.testing.assert_array_equal(flat(found), flat(expected))
    np.testing.assert_array_equal(found.trust.share, expected.trust.share)
    assert found.site is not default.site


def test_no_more_pairs_than_it_takes(default, used, monkeypatch):
    panel = panel_of()
    adapted(default, panel)
    every = used["read_pairs"][0][4]
    monkeypatch.setattr(adaptation, "_MAX_PAIRS", len(every) - 500)
    adapted(default, panel)
    some = used["read_pairs"][0][4]
    assert len(some) == len(every) - 500
    assert {tuple(x) for x in some.tolist()} < {tuple(x) for x in every.tolist()}
    np.testing.assert_array_equal(some, some[np.lexsort(some.T[::-1])])


def test_no_more_people_than_a_hundred(default, used, monkeypatch):
    monkeypatch.setattr(adaptation, "_MAX_SAMPLES", 5)
    adapted(default, panel_of())
    assert used["copy_haplotypes"][0][1].shape[1] == 10


def test_sites_that_see_each_other_stay_as_they_are(used):
    network = network_of("states", overrides=in_context("states"))
    assert adapted(network, panel_of()) is network
    assert used == {}
