"""Imputation by a token model: as the model itself would answer, whatever the batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from token_fixtures import impute

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import LoadedModel
from ragimpute.model.probability import posterior_logit
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelView
from ragimpute.preparation.prepare import prepare
from ragimpute.retrieval.index import WindowIndex
from ragimpute.sites import Region
from ragimpute.target.window import TargetWindow
from ragimpute.token_model.imputer import TokenImputer
from ragimpute.token_model.windows import TokenWindows, cut_windows_to
from ragimpute.training.data.arrays import draw_array
from ragimpute.training.data.token_batches import TokenBatches, split_samples
from ragimpute.training.losses import compute_loss

NUM_SAMPLES = 7
SETTINGS = ("data.max_sites=90", "data.num_retrieved=4", "model.encoder.dim=16")


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A tenth of the packaged 1000 Genomes panel, in several windows of the index.

    Its samples are said to be of three populations.
    """
    path = tmp_path_factory.mktemp("imputer") / "panel.h5"
    about = {"genetic_map": example.path("chr20.b37.gmap.gz"), "window_cm": 0.01}
    prepare(example.path("panel.bcf"), path, region=Region.parse("20:2000000-2001000"), **about)
    with Panel.open(path) as opened:
        table = [f"{name}\t{'abc'[i % 3]}\n" for i, name in enumerate(opened.samples)]
    path.with_name("populations.tsv").write_text("".join(table))
    path = path.with_name("populations.h5")
    prepare(example.path("panel.bcf"), path, region=Region.parse("20:2000000-2100000"),
            populations=path.with_suffix(".tsv"), **about)  # fmt: skip
    with Panel.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def given(panel):
    """Typed sites, and alleles (T, n) of seven diploid samples: noisy copies of the panel's."""
    rng = np.random.default_rng(0)
    typed = draw_array(panel, 0, panel.num_sites, 800, rng)
    alleles = panel.haplotypes(0, panel.num_sites).alleles()[typed, : 2 * NUM_SAMPLES]
    alleles = alleles ^ (rng.random(alleles.shape) < 0.05)
    alleles[rng.random(alleles.shape) < 0.02] = -1
    return typed, np.ascontiguousarray(alleles), np.repeat(np.arange(NUM_SAMPLES), 2)


def loaded(preset="v10-small", *overrides):
    """A model with the weights that it begins with."""
    config = load_config(preset, overrides=[*SETTINGS, *overrides])
    torch.manual_seed(3)
    model = build(config.model).eval()
    return LoadedModel("test", config, model, True)


@pytest.fixture(scope="module")
def plain(panel, given):
    return impute(panel, loaded(), given)


def by_hand(panel, model, given, step=1):
    """Window by window, sample by sample, nothing encoded ahead: (n, M).

    Every so many windows; NaN at the sites of the others.
    """
    typed, alleles, sample = given
    data = model.config.data
    index = WindowIndex.build(panel)
    ranges, search = cut_windows_to(index.windows, data.max_sites)
    windows = TokenWindows(panel, ranges)
    known = np.full((panel.num_sites, len(sample)), -1, np.int8)
    known[typed] = alleles
    out = np.full((len(sample), panel.num_sites), np.nan, np.float32)
    for w in range(0, len(ranges), step):
        start, stop = ranges[w].tolist()
        low, high = index.windows[search[w]]
        for s in np.unique(sample):
            columns = np.flatnonzero(sample == s)
            columns = np.resize(columns, 2)
            own = np.full((1, 2, windows.length), -1, np.int8)
            own[0, :, : stop - start] = known[start:stop, columns].T
            found = index.search(int(search[w]), known[low:high, columns].T, data.num_retrieved)
            batch = windows.batch(np.array([w]), own, np.zeros(own.shape[::2], bool), found[None])
            with torch.no_grad():
                logits = model.model(batch)
            for i in (1, 0):
                logit = posterior_logit(logits[f"h{i + 1}_fused"], model.config.loss.gamma)
                p = torch.sigmoid(logit[0, : stop - start])
                out[columns[i], start:stop] = p.numpy()
    return out


@pytest.mark.parametrize("preset", ["v10-small", "v3-small", "embedding-rag-small"])
def test_as_the_model_answers_sample_by_sample(panel, given, preset):
    model = loaded(preset)
    if preset == "embedding-rag-small":
        with torch.no_grad():  # the frozen encoder is another one than the live
            model.model.tokens.embedding.token.weight.mul_(2.0)
    found = impute(panel, model, given)
    assert found.shape == (2 * NUM_SAMPLES, panel.num_sites)
    assert found.dtype == np.float32
    assert len(panel.windows) > 3
    expected = by_hand(panel, model, given, 1 if preset == "v10-small" else 3)
    there = ~np.isnan(expected)
    assert there.any(axis=0).sum() > 100
    np.testing.assert_allclose(found[there], expected[there], atol=1e-5)


def test_a_sample_has_the_same_af_p_in_training_and_in_imputation(panel, monkeypatch):
    model = loaded("v10-small", "data.validation_share=0.2")
    train_samples, held_out = split_samples(panel, 0.2, 5, seed=1)
    data = TokenBatches(
        panel, WindowIndex.build(panel), model.config, seed=1,
        train_samples=train_samples, validation_samples=held_out,
    )  # fmt: skip
    sample = int(held_out[0])
    columns = np.flatnonzero(panel.haplotype_sample == sample)
    rng = np.random.default_rng(0)
    typed = np.sort(rng.choice(panel.num_sites, panel.num_sites // 5, replace=False))
    window = np.arange(len(data.windows.ranges))
    masks = []
    for start, stop in data.index.windows[data.search_window].tolist():
        masks.append(~np.isin(np.arange(start, stop), typed))
    in_training = data._collate(window, np.full(len(window), sample), masks)

    # The target is that sample, typed at these sites, and the panel is what it may retrieve; its
    # frequencies are those without the target's alleles, as in training.
    seen = {}
    plain_search, plain_batch = WindowIndex.search, TokenWindows.batch

    def search(self, *args, **kwargs):
        return plain_search(self, *args, **kwargs, allowed=data.allowed)

    def batch(self, window, *args, **kwargs):
        out = plain_batch(self, window, *args, **kwargs)
        seen[int(window[0])] = out
        return out

    others = np.flatnonzero(panel.haplotype_sample != sample)
    every = panel.haplotypes(0, panel.num_sites).alleles()
    af = np.float32(every[:, others].mean(axis=1))
    af_p = np.array([
        every[:, others[panel.population[panel.haplotype_sample[others]] == p]].mean(axis=1)
        for p in range(len(panel.populations))
    ])  # fmt: skip
    pairs = every.reshape(len(every), -1, 2).sum(axis=2)[:, np.arange(len(panel.samples)) != sample]
    shares = np.stack([(pairs == k).mean(axis=1) for k in range(3)], axis=1)
    without = PanelView(panel)
    without.af = af
    monkeypatch.setattr(without, "af_population", lambda i, j: np.float32(af_p[:, i:j]))
    monkeypatch.setattr(without, "genotype_freq", lambda i, j: np.float32(shares[i:j]))
    monkeypatch.setattr(WindowIndex, "search", search)
    monkeypatch.setattr(TokenWindows, "batch", batch)
    alleles = every[typed][:, columns]
    impute(without, model, (typed, alleles, np.zeros(len(columns), np.int64)))
    assert sorted(seen) == window.tolist()
    for w, (start, stop) in enumerate(data.windows.ranges.tolist()):
        n = stop - start
        for name in ("af_p", "af", "ref", "het", "hom", "pos", "rag_af_h1", "rag_af_h2"):
            np.testing.assert_allclose(
                seen[w][name][0, ..., :n], in_training[name][w, ..., :n], atol=1e-6, err_msg=name
            )
        assert (seen[w]["af_p"] != seen[w]["af"])[0, :n].any()


def test_threads_change_no_bit(panel, given, plain):
    before = torch.get_num_threads()
    for threads in (3,):
        np.testing.assert_array_equal(impute(panel, loaded(), given, threads=threads), plain)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("sites", "memory"), [(1, 1), (400, 1), (1 << 20, 1 << 30), (400, 90_000)])
def test_batches_change_nothing(panel, given, plain, sites, memory):
    found = impute(panel, loaded(), given, sites_at_once=sites, reference_bytes=memory)
    np.testing.assert_allclose(found, plain, atol=1e-5)


def test_samples_do_not_influence_each_other(panel, given, plain):
    typed, alleles, sample = given
    columns = np.array([8, 9, 2, 3, 12, 13])
    some = impute(panel, loaded(), (typed, alleles[:, columns], np.repeat(np.arange(3), 2)))
    np.testing.assert_allclose(some, plain[columns], atol=1e-5)
    assert len(sample) == 2 * NUM_SAMPLES


def test_chunks_join_to_the_whole(panel, given, plain):
    """Cut anywhere, as long as the buffer holds the index windows that the core lies in."""
    model = loaded()
    edges = [0, 37, 200, 201, panel.num_sites]
    parts = []
    for start, stop in pairwise(edges):
        touched = (panel.windows[:, 0] < stop) & (panel.windows[:, 1] > start)
        left, right = panel.windows[touched][0, 0], panel.windows[touched][-1, 1]
        parts.append(
            impute(panel, model, given, core=(start, stop), left=int(left), right=int(right))
        )
    np.testing.assert_allclose(np.concatenate(parts, axis=1), plain, atol=1e-5)


def test_haploid_samples(panel, given, plain):
    """A lone haplotype is paired with itself; without attention between the two it is as before."""
    typed, alleles, sample = given
    keep = np.delete(np.arange(2 * NUM_SAMPLES), [1, 5])
    found = impute(panel, loaded(), (typed, alleles[:, keep], sample[keep]))
    others = np.isin(keep, [0, 4], invert=True)
    np.testing.assert_allclose(found[others], plain[keep[others]], atol=1e-5)
    single = by_hand(panel, loaded(), (typed, alleles[:, keep], sample[keep]), step=3)
    there = ~np.isnan(single)
    np.testing.assert_allclose(found[there], single[there], atol=1e-5)


def test_missing_is_untyped(panel, given):
    typed, alleles, sample = given
    missing = alleles.copy()
    missing[[5, 20]] = -1
    keep = np.delete(np.arange(len(typed)), [5, 20])
    one = impute(panel, loaded(), (typed, missing, sample))
    two = impute(panel, loaded(), (typed[keep], alleles[keep], sample))
    np.testing.assert_array_equal(one, two)


def test_with_and_without_an_index(panel, given, plain, tmp_path):
    WindowIndex.build(panel).save(tmp_path / "i")
    opened = WindowIndex.open(tmp_path / "i", panel)
    np.testing.assert_array_equal(impute(panel, loaded(), given, index=opened), plain)


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_of_samples_do_not_matter(panel, given, plain, batch):
    found = impute(panel, loaded(), given, batch=batch)  # products of other sizes round otherwise
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_what_is_reported(panel, given):
    typed, alleles, sample = given
    imputer = TokenImputer(panel, loaded(), None, device="cpu", threads=1)
    few = typed < 100
    target = TargetWindow(0, 100, (10, 90), typed[few], alleles[few], sample)
    imputer.prepare(target).impute(batch=9, put=lambda *part: None)
    assert imputer.settings["model"] == "test"
    assert imputer.settings["states"] == "4 retrieved in each window"
    assert imputer.settings["device"] == "cpu"
    assert set(imputer.seconds) == {"retrieve", "references", "network"}
    assert min(imputer.seconds.values()) > 0


def test_a_trained_model_beats_the_frequency(panel, given):
    """A few steps suffice where targets are panel samples, which the model may copy."""
    model = loaded("v3-small", "data.windows_per_epoch=480", "train.batch_size=8")
    kept, held_out = split_samples(panel, 0.1, 4, 1)
    data = TokenBatches(
        panel, WindowIndex.build(panel), model.config, seed=1,
        train_samples=kept, validation_samples=held_out,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.model.parameters(), lr=5e-3)
    for batch in data.train_batches(0):
        loss, _ = compute_loss(model.model(batch), batch, model.config.loss, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    typed, _, _ = given
    truth = panel.haplotypes(0, panel.num_sites).alleles()[:, : 2 * NUM_SAMPLES].T
    untyped = np.setdiff1d(np.flatnonzero(np.minimum(panel.af, 1 - panel.af) > 0.05), typed)
    error = ((impute(panel, model, given) - truth)[:, untyped] ** 2).mean()
    assert error < 0.6 * ((panel.af - truth)[:, untyped] ** 2).mean()
