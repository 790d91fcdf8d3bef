"""Imputation by token models that retrieve by site and start from Li-Stephens copying."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel, whole_chain
from token_fixtures import impute
from torch import nn

from ragimpute.config import load_config
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.errors import PanelError
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import LoadedModel
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.retrieval.index import WindowIndex
from ragimpute.target.window import TargetWindow
from ragimpute.token_model import imputer as imputer_module
from ragimpute.token_model.imputer import TokenImputer
from ragimpute.token_model.windows import TokenWindows
from ragimpute.training.data import copied_windows
from ragimpute.training.data.token_batches import TokenBatches

NUM_SITES, NUM_SAMPLES, NUM_TARGETS = 200, 12, 4
RATE, ERR = 3.0, 0.01
SETTINGS = ("data.max_sites=40", "data.num_retrieved=4", "data.num_carriers=1",
            "model.encoder.dim=16")  # fmt: skip


def write(path, alleles, window_cm=0.6):
    """A panel of alleles (M, 2 N) of two populations; samples that end in odd numbers are east."""
    num = alleles.shape[1] // 2
    position_bp = 10_000 * np.arange(1, NUM_SITES + 1)
    samples = names(num)
    write_panel(
        path, [make_batch(alleles.reshape(NUM_SITES, num, 2), position_bp)], samples=samples,
        genetic_map=FlatMap(), window_cm=window_cm,
        population_of={name: "east" if i % 2 else "west" for i, name in enumerate(samples)},
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def alleles():
    return mosaic_panel(np.random.default_rng(0), NUM_SITES, 2 * NUM_SAMPLES)


@pytest.fixture(scope="module")
def panel(tmp_path_factory, alleles):
    """2 cM of twelve samples, in four windows."""
    with Panel.open(write(tmp_path_factory.mktemp("by_site") / "p.h5", alleles)) as opened:
        assert len(opened.windows) == 4
        yield opened


@pytest.fixture(scope="module")
def given(alleles):
    """Typed sites, and alleles (T, n) of four diploid samples: mosaics with errors and gaps."""
    rng = np.random.default_rng(1)
    typed = np.sort(rng.choice(NUM_SITES, 60, replace=False))
    typed = typed[(typed < 40) | (typed >= 80)]  # some windows of the model have no typed site
    halves = rng.integers(0, 2 * NUM_SAMPLES, (2, 2 * NUM_TARGETS))
    found = np.where(
        typed[:, None] < 110, alleles[typed][:, halves[0]], alleles[typed][:, halves[1]]
    )
    found = found ^ (rng.random(found.shape) < 0.03)
    found[rng.random(found.shape) < 0.05] = -1
    return typed, np.ascontiguousarray(found.astype(np.int8)), np.repeat(np.arange(NUM_TARGETS), 2)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Copying with known parameters, in training and in imputation."""
    for module in (imputer_module, copied_windows):
        monkeypatch.setattr(
            module, "fit_panel", lambda *args, **kwargs: CopyingParameters(RATE, ERR)
        )
    same_everywhere = SimpleNamespace(mismatch_prob=None)
    monkeypatch.setattr(imputer_module, "measure_sites", lambda *args, **kwargs: same_everywhere)


def loaded(*overrides, trained=True):
    """A model; ``trained``: its last layer is no longer 0."""
    config = load_config("v10-rag-small", overrides=[*SETTINGS, *overrides])
    torch.manual_seed(3)
    model = build(config.model).eval()
    if trained:
        for p in model.tokens.allele_fused.parameters():
            nn.init.normal_(p, std=0.2)
    return LoadedModel("test", config, model, True)


@pytest.fixture
def plain(panel, given):
    return impute(panel, loaded(), given)


def li_stephens(panel, alleles, given, states=None):
    """Plain copying of every target: (n, M)."""
    typed, observed, _ = given
    states = np.arange(alleles.shape[1]) if states is None else states
    return np.array([
        whole_chain(alleles, panel.position_cm, typed, observed[:, i], RATE, ERR, states)
        for i in range(observed.shape[1])
    ])  # fmt: skip


def test_an_untrained_model_imputes_as_li_stephens(panel, alleles, given, plain):
    """Over windows, and with what lies beyond each of them; sure sites stay if it is trained."""
    expected = li_stephens(panel, alleles, given)
    found = impute(panel, loaded(trained=False), given)
    assert found.shape == (2 * NUM_TARGETS, NUM_SITES)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    sure = np.minimum(expected, 1 - expected) < 0.004
    assert sure.any()
    np.testing.assert_allclose(plain[sure], expected[sure], atol=2e-4)
    doubted = np.minimum(expected, 1 - expected) > 0.1
    assert (np.abs(plain - expected)[doubted] > 1e-3).mean() > 0.9


@pytest.mark.parametrize("options", [
    {"threads": 3}, {"batch": 1}, {"batch": 4}, {"sites_at_once": 1}, {"sites_at_once": 200},
    {"reference_bytes": 1}, {"reference_bytes": 60_000, "sites_at_once": 100},
    {"max_bytes": 1 << 20},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("mode", ["precomputed", "tokens"])
def test_batches_and_threads_change_nothing(panel, given, options, mode):
    model = loaded(f"model.reference.mode={mode}")
    found = impute(panel, model, given, **options)
    np.testing.assert_allclose(found, impute(panel, model, given), atol=1e-5)


def test_threads_change_no_bit(panel, given, plain):
    np.testing.assert_array_equal(impute(panel, loaded(), given, threads=2), plain)


def test_samples_do_not_influence_each_other(panel, given, plain):
    typed, alleles, _ = given
    columns = np.array([4, 5, 0, 1])
    some = impute(panel, loaded(), (typed, alleles[:, columns], np.repeat(np.arange(2), 2)))
    np.testing.assert_allclose(some, plain[columns], atol=1e-5)


def test_cores_cut_windows_anywhere(panel, given, plain):
    """What copying sees is the same; the windows that a core cuts are read whole."""
    edges = [0, 37, 101, 102, 155, NUM_SITES]
    parts = [impute(panel, loaded(), given, core=core) for core in pairwise(edges)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), plain, atol=1e-5)


def test_sites_that_are_not_read_are_no_reason_to_fail(panel, alleles, given):
    """A buffer that ends within a window of the model: copying goes by what it has."""
    typed, observed, sample = given
    inside = (typed >= 33) & (typed < 170)
    found = impute(panel, loaded(trained=False), given, core=(85, 150), left=33, right=170)
    expected = np.array([
        whole_chain(alleles[33:170], panel.position_cm[33:170], typed[inside] - 33,
                    observed[inside, i], RATE, ERR, np.arange(alleles.shape[1]))
        for i in range(len(sample))
    ])[:, 85 - 33 : 150 - 33]  # fmt: skip
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_no_typed_site_at_all(panel, given):
    """P(ALT) is the panel's frequency, kept to logits of 9."""
    typed, alleles, sample = given
    found = impute(panel, loaded(trained=False), (typed[:0], alleles[:0], sample))
    expected = np.clip(panel.af, 1 / (1 + np.exp(9)), 1 / (1 + np.exp(-9)))
    np.testing.assert_allclose(found, np.tile(expected, (2 * NUM_TARGETS, 1)), atol=1e-5)
    assert np.isfinite(impute(panel, loaded(), (typed[:0], alleles[:0], sample))).all()


def test_missing_is_untyped(panel, given):
    typed, alleles, sample = given
    missing = alleles.copy()
    missing[[5, 20]] = -1
    keep = np.delete(np.arange(len(typed)), [5, 20])
    one = impute(panel, loaded(trained=False), (typed, missing, sample))
    two = impute(panel, loaded(trained=False), (typed[keep], alleles[keep], sample))
    np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize("mode", ["precomputed", "tokens"])
def test_more_are_retrieved_than_there_are(tmp_path, alleles, given, mode):
    with Panel.open(write(tmp_path / "small.h5", alleles[:, :4])) as small:
        model = loaded("data.num_retrieved=8", f"model.reference.mode={mode}")
        found = impute(small, model, given)
        assert np.isfinite(found).all()
        model.model.tokens.allele_fused.net[-1].weight.data.zero_()
        model.model.tokens.allele_fused.net[-1].bias.data.zero_()
        np.testing.assert_allclose(
            impute(small, model, given), li_stephens(small, alleles[:, :4], given), atol=2e-4
        )


def test_a_panel_with_more_haplotypes_than_states(panel, alleles, given):
    few = impute(panel, loaded("data.max_states=6", trained=False), given)
    expected = li_stephens(panel, alleles, given)
    assert np.abs(few - expected).max() > 0.01
    assert ((few > 0.5) == (expected > 0.5)).mean() > 0.9


def test_haploid_samples(panel, given, plain):
    """A lone haplotype is imputed as a diploid sample that has it twice."""
    typed, alleles, sample = given
    keep = np.delete(np.arange(2 * NUM_TARGETS), [1, 4])
    found = impute(panel, loaded(), (typed, alleles[:, keep], sample[keep]))
    lone = np.isin(keep, [0, 5])
    np.testing.assert_allclose(found[~lone], plain[keep[~lone]], atol=1e-5)
    twice = impute(panel, loaded(), (typed, alleles[:, [0, 0, 5, 5]], np.repeat([0, 1], 2)))
    np.testing.assert_allclose(found[lone], twice[::2], atol=1e-5)
    np.testing.assert_allclose(twice[1::2], twice[::2], atol=1e-5)


def test_an_index_is_neither_made_nor_searched(panel, given, plain, monkeypatch):
    other = WindowIndex.build(panel, windows=np.array([[0, 100], [100, NUM_SITES]]))

    def fail(*args, **kwargs):
        raise AssertionError("an index is built or searched")

    monkeypatch.setattr(WindowIndex, "build", fail)
    monkeypatch.setattr(WindowIndex, "search", fail)
    np.testing.assert_array_equal(impute(panel, loaded(), given, index=other), plain)
    np.testing.assert_array_equal(impute(panel, loaded(), given), plain)


def test_the_offset_beside_retrieval_by_window(panel, alleles, given):
    overrides = ("data.retrieval=window", "model.li_stephens.features=false")
    found = impute(panel, loaded(*overrides, trained=False), given)
    np.testing.assert_allclose(found, li_stephens(panel, alleles, given), atol=2e-4)
    trained = loaded(*overrides)
    np.testing.assert_allclose(
        impute(panel, trained, given, batch=2), impute(panel, trained, given), atol=1e-5
    )


def test_retrieval_by_site_without_li_stephens(panel, given):
    """The logit of copying is not read: an untrained model then knows nothing."""
    model = loaded("model.li_stephens.offset=false", "model.li_stephens.features=false")
    found = impute(panel, model, given)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(impute(panel, model, given, batch=2), found, atol=1e-5)


def test_a_panel_of_several_ploidies_is_refused(panel, monkeypatch):
    monkeypatch.setattr(panel, "ploidy_start", np.array([0, 100]))
    with pytest.raises(PanelError, match=r"ploidy of panel .* changes"):
        TokenImputer(panel, loaded(), None, device="cpu", threads=1)


def test_what_is_reported(panel, given):
    typed, alleles, sample = given
    imputer = TokenImputer(panel, loaded(), None, device="cpu", threads=1)
    target = TargetWindow(0, NUM_SITES, (10, 90), typed, alleles, sample)
    imputer.prepare(target).impute(batch=9, put=lambda *part: None)
    assert imputer.settings["states"] == "4 retrieved by copying at each site"
    assert set(imputer.seconds) == {"copy", "retrieve", "references", "network"}


def test_a_sample_is_read_alike_in_training_and_in_imputation(tmp_path, alleles):
    """Imputed from the panel without it, a training sample gives the same fields.

    The panel is one window, so that nothing lies beside it, which training would draw.
    """
    sample = 3
    own = [2 * sample, 2 * sample + 1]
    others = np.delete(np.arange(2 * NUM_SAMPLES), own)
    rng = np.random.default_rng(2)
    typed = np.sort(rng.choice(NUM_SITES, 50, replace=False))
    hidden = ~np.isin(np.arange(NUM_SITES), typed)
    model = loaded()
    with Panel.open(write(tmp_path / "all.h5", alleles, 5.0)) as panel:
        every = np.arange(NUM_SAMPLES)
        data = TokenBatches(
            panel, None, model.config, seed=1, train_samples=every,
            validation_samples=every[:1],
        )  # fmt: skip
        windows = np.arange(len(data.windows.ranges))
        masks = [hidden] * len(windows)
        in_training = data._collate(windows, np.full(len(windows), sample), masks)
    seen = {}
    plain = TokenWindows.batch

    def batch(self, window, *args, **kwargs):
        seen[int(window[0])] = plain(self, window, *args, **kwargs)
        return seen[int(window[0])]

    rest = tmp_path / "rest.h5"
    num = NUM_SAMPLES - 1
    samples = names(num)
    home = np.delete(np.arange(NUM_SAMPLES) % 2, sample)
    write_panel(
        rest,
        [make_batch(alleles[:, others].reshape(NUM_SITES, num, 2),
                    10_000 * np.arange(1, NUM_SITES + 1))],
        samples=samples, genetic_map=FlatMap(), window_cm=5.0,
        population_of={n: "east" if home[i] else "west" for i, n in enumerate(samples)},
    )  # fmt: skip
    with Panel.open(rest) as panel, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenWindows, "batch", batch)
        impute(panel, model, (typed, alleles[typed][:, own], np.zeros(2, np.int64)))
    assert sorted(seen) == windows.tolist()
    for w, (start, stop) in enumerate(data.windows.ranges.tolist()):
        n = stop - start
        there = {}
        for h in "12":
            # Haplotypes have other numbers. Which alleles are so rare that a place is kept for
            # a carrier depends on the size of the panel.
            ids = seen[w][f"rag_id_h{h}"][0, :, :n].numpy()
            expected = in_training[f"rag_id_h{h}"][w, :, :n].numpy()
            alike = np.where(ids < 0, -1, others[ids]) == expected
            assert alike[:-1].mean() > 0.99  # ties may be settled differently
            assert alike[-1].mean() > 0.9
            there[h] = torch.from_numpy(alike)
        for name in in_training:
            one, two = seen[w][name][0], in_training[name][w]
            if name.startswith(("label", "rag_id", "mask")) or name == "window":
                continue  # alleles of untyped sites are not known, and so not hidden
            if name.startswith(("site", "state")):
                one, two = one[..., :n, :], two[..., :n, :]
            else:
                one, two = one[..., :n], two[..., :n]
            if name.startswith(("rag_", "state")):
                one, two = one[there[name[-1]]], two[there[name[-1]]]
            torch.testing.assert_close(one, two, atol=2e-3, rtol=0, msg=name)
