"""Training examples that are copied: from whom, at which sites, and what comes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel, whole_chain

from ragimpute.config import load_config
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.retrieval.index import WindowIndex
from ragimpute.token_model.copying_evidence import CopyingEvidence
from ragimpute.training.data import copied_windows
from ragimpute.training.data.share import WHOLE, Share
from ragimpute.training.data.token_batches import TokenBatches

NUM_SITES, NUM_SAMPLES = 240, 16
RATE, ERR = 3.0, 0.01
SMALL = ("data.max_sites=40", "train.batch_size=6", "data.windows_per_epoch=50",
         "data.num_retrieved=4", "data.num_carriers=1", "data.buffer_cm=0.3",
         "mask.parts=[{name: random, rate: 0.7}]")  # fmt: skip


@pytest.fixture(scope="module")
def alleles():
    return mosaic_panel(np.random.default_rng(0), NUM_SITES, 2 * NUM_SAMPLES)


@pytest.fixture(scope="module")
def panel(tmp_path_factory, alleles):
    """2.4 cM of sixteen samples of two populations, in windows of 0.6 cM."""
    path = tmp_path_factory.mktemp("copied") / "p.h5"
    position_bp = 10_000 * np.arange(1, NUM_SITES + 1)
    samples = names(NUM_SAMPLES)
    write_panel(
        path, [make_batch(alleles.reshape(NUM_SITES, NUM_SAMPLES, 2), position_bp)],
        samples=samples, genetic_map=FlatMap(), window_cm=0.6,
        population_of={name: "east" if i % 2 else "west" for i, name in enumerate(samples)},
    )  # fmt: skip
    with Panel.open(path) as opened:
        yield opened


def make(panel, *overrides, share=WHOLE, train=range(12), seed=1, index=None):
    """Batches of v10-rag-small; the last four samples are held out."""
    config = load_config("v10-rag-small", overrides=[*SMALL, *overrides])
    return TokenBatches(
        panel, index, config, seed=seed, train_samples=np.array(train),
        validation_samples=np.arange(12, NUM_SAMPLES), share=share,
    )  # fmt: skip


@pytest.fixture
def known(monkeypatch):
    """Copying with known parameters."""
    monkeypatch.setattr(
        copied_windows, "fit_panel", lambda *args, **kwargs: CopyingParameters(RATE, ERR)
    )


def same(one, two):
    """Whether two batches are equal."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def alike(one, two):
    """Whether two batches are equal but for the rounding of copying, which goes 16 at a time."""
    return one.keys() == two.keys() and all(
        torch.allclose(one[name], two[name], atol=1e-3)
        if name.startswith(("ls_logit", "site"))
        else torch.equal(one[name], two[name])
        for name in one
    )


def samples_of(data, alleles, batch):
    """Each row's site range and sample, found by its alleles; panel samples differ everywhere."""
    for b, (start, stop) in enumerate(data.windows.ranges[batch["window"].numpy()].tolist()):
        label = np.stack([batch[f"label_h{h}"][b, : stop - start].numpy() for h in "12"])
        pairs = alleles[start:stop].reshape(stop - start, -1, 2)
        fits = (pairs == label.T[:, None]).all(axis=(0, 2))
        yield b, start, stop, np.flatnonzero(fits).tolist()


def hidden_of(data, search: int, share=0.7, seed=0):
    """A mask of an index window."""
    start, stop = data.searched[search].tolist()
    return np.random.default_rng(seed).random(stop - start) < share


def test_a_window_has_what_lies_beside_it(panel):
    data = make(panel)
    for search in range(len(data.searched)):
        start, stop = data.searched[search].tolist()
        hidden = hidden_of(data, search)
        window = data._copied._window(search, hidden)
        cm = window.position_cm
        low, high = window.core
        first = start - low
        np.testing.assert_allclose(cm, panel.position_cm[first : first + len(cm)])
        assert high - low == stop - start
        typed = np.isin(np.arange(window.num_sites), window.typed_index)
        np.testing.assert_array_equal(typed[low:high], ~hidden)
        # All sites within the buffer, and none beyond it.
        assert (first == 0) or cm[low] - panel.position_cm[first - 1] > 0.3 - 1e-9
        assert cm[low] - cm[0] <= 0.3 + 1e-9
        last = first + len(cm)
        assert last == NUM_SITES or panel.position_cm[last] - cm[high - 1] > 0.3 - 1e-9
        assert cm[-1] - cm[high - 1] <= 0.3 + 1e-9
        assert (low == 0) == (start == 0)
        for part in (typed[:low], typed[high:]):
            if len(part):
                assert part.sum() == pytest.approx((~hidden).mean() * len(part), abs=2)
        again = data._copied._window(search, hidden.copy())
        np.testing.assert_array_equal(again.typed_index, window.typed_index)
        np.testing.assert_array_equal(again.signature, window.signature)
        other = data._copied._window(search, hidden_of(data, search, seed=9))
        np.testing.assert_array_equal(other.signature, window.signature)
    assert len(data.searched) == 4


@pytest.mark.usefixtures("known")
def test_what_copying_says_is_plain_li_stephens(panel, alleles):
    """From the haplotypes that may be copied but the sample's own, at the sites that are typed."""
    data = make(panel)
    pool = np.flatnonzero(data.allowed)
    for step in range(2):
        batch = data.train_batch(0, step)
        places = 6 * step + np.arange(len(batch["window"]))
        masks = data._draw_masks(0, data._examples_of(0), places)
        for b, start, stop, fitting in samples_of(data, alleles, batch):
            (sample,) = fitting
            search = int(data.search_window[batch["window"][b]])
            window = data._copied._window(search, masks[b])
            first = int(data.searched[search, 0]) - window.core[0]
            sites = slice(first, first + window.num_sites)
            own = [2 * sample, 2 * sample + 1]
            np.testing.assert_array_equal(
                batch["mask"][b, : stop - start].numpy(),
                masks[b][start - data.searched[search, 0] : stop - data.searched[search, 0]],
            )
            for i, h in enumerate("12"):
                target = alleles[sites][window.typed_index, own[i]]
                prob = whole_chain(
                    alleles[sites], window.position_cm, window.typed_index, target, RATE, ERR,
                    np.setdiff1d(pool, own),
                )[start - first : stop - first]  # fmt: skip
                prob = np.clip(prob, 1e-9, 1 - 1e-9)
                expected = np.clip(np.log(prob / (1 - prob)), -9, 9)
                found = batch[f"ls_logit_h{h}"][b, : stop - start].numpy()
                np.testing.assert_allclose(found, expected, atol=0.02)
                np.testing.assert_array_equal(batch[f"site_h{h}"][b, : stop - start, 0], found)
                ids = batch[f"rag_id_h{h}"][b, :, : stop - start].numpy()
                assert set(np.unique(ids)) <= set(pool.tolist()) - set(own)
                assert (batch[f"rag_id_h{h}"][b, :, stop - start :] == -1).all()
                refs = batch[f"rag_seg_h{h}"][b, :, : stop - start].numpy()
                np.testing.assert_array_equal(
                    refs, np.take_along_axis(alleles[start:stop].T, ids, axis=0)
                )
                assert torch.equal(batch[f"rag_log_mass_h{h}"], batch[f"state_h{h}"][..., 0])


@pytest.mark.usefixtures("known")
def test_rows_are_copied_as_if_alone(panel):
    """Together or apart, with the same mask or others, in one index window or several."""
    data = make(panel)
    masks = [hidden_of(data, 1, seed=seed) for seed in range(2)]
    window = np.flatnonzero(data.search_window == 1)[[0, 1, 0, 1]]
    pairs = 2 * np.array([[3], [3], [5], [0]]) + np.array([0, 1])
    mine = [masks[0], masks[0], masks[1], masks[0]]
    together = CopyingEvidence.empty(8, 4, data.windows.length)
    data._copied.fill(together, 1, np.arange(4), mine, window, pairs)
    for row in range(4):
        alone = CopyingEvidence.empty(8, 4, data.windows.length)
        data._copied.fill(alone, 1, np.array([row]), [mine[row]], window, pairs)
        for all_of, one in zip(together, alone, strict=True):
            rows = slice(2 * row, 2 * row + 2)
            # Copying goes 16 at a time, and rounds by who is among them.
            atol = 1e-3 if one is alone.sites else 0
            np.testing.assert_allclose(all_of[rows], one[rows], atol=atol, rtol=0)
            others = np.delete(one, [2 * row, 2 * row + 1], axis=0)
            assert (others == (-1 if one is alone.ids else 0)).all()


def test_parameters_fit_the_panel_whatever_is_copied_first(panel):
    one, two = make(panel), make(panel)
    one.train_batch(0, 0)
    for step in (5, 2):
        two.train_batch(1, step)
    assert one._copied._fitted == two._copied._fitted
    assert one._copied._fitted is not None
    assert same(one.train_batch(0, 3), two.train_batch(0, 3))


def test_validation_starts_from_the_baseline(tmp_path, alleles):
    """In one window nothing lies beside: copying in the batches is that of the baseline."""
    path = tmp_path / "p.h5"
    position_bp = 10_000 * np.arange(1, NUM_SITES + 1)
    write_panel(
        path, [make_batch(alleles.reshape(NUM_SITES, NUM_SAMPLES, 2), position_bp)],
        samples=names(NUM_SAMPLES), genetic_map=FlatMap(), window_cm=5.0,
    )  # fmt: skip
    with Panel.open(path) as opened:
        data = make(opened)
        assert len(data.searched) == 1
        for i, batch in data.validation_batches():
            ls = data.ls_baseline(i)
            known = ~batch["pad"].numpy()
            for h in ("h1", "h2"):
                prob = torch.sigmoid(batch[f"ls_logit_{h}"]).numpy()
                np.testing.assert_allclose(prob[known], ls[h][known], atol=2e-4)
                ids = batch[f"rag_id_{h}"].numpy()
                assert not np.isin(opened.haplotype_sample[ids], data.validation_samples).any()


def test_an_epoch_mixes_units_that_are_copied_together(panel):
    data = make(panel, "data.windows_per_epoch=null")
    window, sample, unit = data._examples_of(3)
    every = len(data.windows.ranges) * 12
    order = window * 12 + np.searchsorted(data.train_samples, sample)
    np.testing.assert_array_equal(np.sort(order), np.arange(every))
    for u in range(unit.max() + 1):  # some samples in all windows of one index window
        here = unit == u
        (search,) = np.unique(data.search_window[window[here]])
        windows = np.flatnonzero(data.search_window == search)
        samples = np.unique(sample[here])
        assert len(samples) in (8, 12 % 8)
        assert here.sum() == len(samples) * len(windows)
    batches = np.split(unit, np.arange(6, every, 6))
    assert np.mean([len(np.unique(x)) for x in batches]) > 3
    again = make(panel, "data.windows_per_epoch=null")._examples_of(3)
    assert all(
        np.array_equal(one, two) for one, two in zip((window, sample, unit), again, strict=True)
    )
    other = data._examples_of(4)
    assert not np.array_equal(other.window, window)
    short = make(panel)
    sizes = [len(short.train_batch(0, i)["window"]) for i in range(short.num_train_batches())]
    assert sizes == [6] * 8 + [2]


@pytest.mark.usefixtures("known")
def test_rows_of_a_unit_share_their_mask(panel):
    data = make(panel)
    examples = data._examples_of(2)
    places = np.arange(len(examples.unit))
    masks = data._draw_masks(2, examples, places)
    search = data.search_window[examples.window]
    for i in places:
        for j in places:
            same = examples.unit[i] == examples.unit[j] and search[i] == search[j]
            assert (masks[i] is masks[j]) == same
    # Whatever else is in the batch, so that processes which build some of its rows agree.
    np.testing.assert_array_equal(data._draw_masks(2, examples, places[3:4])[0], masks[3])
    assert len({mask.tobytes() for mask in masks}) > 1


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("world", [2, 5])
def test_processes_build_the_rows_of_one(panel, world):
    whole = make(panel)
    parts = [make(panel, share=Share(rank, world)) for rank in range(world)]
    for step in (0, whole.num_train_batches() - 1):
        batch = whole.train_batch(1, step)
        num = len(batch["window"])
        for rank, part in enumerate(parts[:num]):
            rows = torch.arange(rank, num, world)
            assert alike(
                part.train_batch(1, step), {name: value[rows] for name, value in batch.items()}
            )


@pytest.mark.usefixtures("known")
def test_workers_and_a_later_start_change_nothing(panel):
    plain = list(make(panel).train_batches(0))
    for found, first in (
        (make(panel, "data.num_workers=2").train_batches(0), 0),
        (make(panel).train_batches(0, first_step=6), 6),
    ):
        assert [same(*x) for x in zip(found, plain[first:], strict=True)] == [True] * (9 - first)


@pytest.mark.usefixtures("known")
def test_an_index_changes_nothing(panel):
    """Not even one of other windows; and there need not be one."""
    other = WindowIndex.build(panel, windows=np.array([[0, 100], [100, NUM_SITES]]))
    given, plain = make(panel, index=other), make(panel)
    assert same(given.train_batch(0, 0), plain.train_batch(0, 0))
    assert given.index is None
    with pytest.raises(ValueError, match="need an index"):
        make(panel, "data.retrieval=window", "model.li_stephens.features=false")


@pytest.mark.usefixtures("known")
def test_windows_may_be_searched_beside_the_residual(panel):
    """The nearest of the window are retrieved, and the logit is that of copying all the same."""
    overrides = ("data.retrieval=window", "model.li_stephens.features=false")
    data = make(panel, *overrides, index=WindowIndex.build(panel))
    batch, by_site = data.train_batch(0, 0), make(panel).train_batch(0, 0)
    assert batch["rag_id_h1"].shape == (6, 4)
    assert by_site["rag_id_h1"].shape == (6, 4, 30)
    for name in ("ls_logit_h1", "ls_logit_h2", "label_h1", "mask"):
        assert torch.equal(batch[name], by_site[name]), name


@pytest.mark.usefixtures("known")
def test_windows_that_hide_all_their_sites(panel):
    """Copying goes by what lies beside; with nothing there either, by the frequency."""
    data = make(panel, "mask.parts=[{name: random, rate: 1.0}]")
    batch = data.train_batch(0, 0)
    assert (batch["mask"] | batch["pad"]).all()
    for h in "12":
        start = data.windows.ranges[batch["window"].numpy(), 0]
        af = np.clip(panel.af[start], 1e-9, 1)
        expected = np.clip(np.log(af) - np.log1p(-np.clip(af, 0, 1 - 1e-9)), -9, 9)
        np.testing.assert_allclose(batch[f"ls_logit_h{h}"][:, 0], expected, atol=1e-4)
        assert (batch[f"rag_id_h{h}"] == -1).all()
