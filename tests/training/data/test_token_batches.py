"""Token batches: who is held out, what is retrieved, and which batches come when."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel

from ragimpute import example
from ragimpute.accuracy.metrics import aggregate_r2
from ragimpute.config import load_config
from ragimpute.errors import PanelError
from ragimpute.model.bert_rag import build
from ragimpute.model.embedding import MASK
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.retrieval.index import WindowIndex
from ragimpute.sites import Region
from ragimpute.token_model.references import ReferenceTable
from ragimpute.token_model.windows import TokenWindows
from ragimpute.training.data import copied_windows
from ragimpute.training.data import token_batches as dataset
from ragimpute.training.data.masks import linkage_blocks
from ragimpute.training.data.share import WHOLE, Share
from ragimpute.training.data.token_batches import TokenBatches, split_samples

SMALL = ("data.max_sites=100", "train.batch_size=7", "data.windows_per_epoch=50")


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A third of the packaged 1000 Genomes panel."""
    path = tmp_path_factory.mktemp("dataset") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2300000"))  # fmt: skip
    with Panel.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def alleles(panel):
    return panel.haplotypes(0, panel.num_sites).alleles()


@pytest.fixture(scope="module")
def index(panel):
    return WindowIndex.build(panel)


def make(panel, index, *overrides, preset="v10-small", seed=1, max_validation=6, share=WHOLE):
    """Batches of a preset."""
    config = load_config(preset, overrides=[*SMALL, *overrides])
    kept, held_out = split_samples(panel, 0.1, max_validation, seed)
    return TokenBatches(
        panel, index, config, seed=seed, train_samples=kept, validation_samples=held_out,
        share=share,
    )  # fmt: skip


def same(one, two):
    """Whether two batches are equal."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def write_small(path, sizes, haploid=0):
    """A panel of populations of given sizes; the first ``haploid`` samples are haploid."""
    num = sum(sizes)
    alleles = mosaic_panel(np.random.default_rng(0), 40, 2 * num).reshape(40, num, 2)
    alleles[:, :haploid, 1] = -2
    population = np.repeat([f"p{i}" for i in range(len(sizes))], sizes)
    write_panel(
        path, [make_batch(alleles)], samples=names(num), genetic_map=FlatMap(),
        population_of=dict(zip(names(num), population.tolist(), strict=True)),
    )  # fmt: skip
    return path


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4).filter(lambda s: sum(s) >= 3),
    share=st.floats(0.01, 0.99),
    most=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_every_sample_is_on_one_side(tmp_path_factory, sizes, share, most, seed):
    path = tmp_path_factory.mktemp("split") / "p.h5"
    with Panel.open(write_small(path, sizes)) as panel:
        kept, held_out = split_samples(panel, share, most, seed)
        again = split_samples(panel, share, most, seed)
    np.testing.assert_array_equal(np.sort([*kept, *held_out]), np.arange(sum(sizes)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held_out) > 0).all()
    assert len(held_out) == min(max(1, min(most, round(share * sum(sizes)))), sum(sizes) - 2)
    np.testing.assert_array_equal(again[0], kept)


def test_populations_are_held_out_in_proportion(tmp_path):
    with Panel.open(write_small(tmp_path / "p.h5", [40, 20, 10, 10])) as panel:
        drawn = set()
        for seed in range(5):
            _, held_out = split_samples(panel, 0.2, 64, seed)
            counts = np.bincount(panel.population[held_out], minlength=4)
            assert counts.tolist() == [8, 4, 2, 2]
            drawn.add(tuple(held_out))
        assert len(drawn) == 5


@pytest.mark.parametrize("num", [1, 2])
def test_panels_too_small_to_train_on(tmp_path, num):
    with (
        Panel.open(write_small(tmp_path / "p.h5", [num])) as panel,
        pytest.raises(PanelError, match=rf"p\.h5 has {num} samples: training needs two") as caught,
    ):
        split_samples(panel, 0.1, 8, 1)
    assert "larger panel" in caught.value.hint


def rows_of(data, alleles, batch):
    """Each row's site range, and its sample found by its alleles."""
    ranges = data.windows.ranges[batch["window"].numpy()]
    for b, (start, stop) in enumerate(ranges.tolist()):
        label = np.stack([batch[f"label_h{h}"][b, : stop - start].numpy() for h in "12"])
        pairs = alleles[start:stop].reshape(stop - start, -1, 2)  # diploid, in order
        fits = (pairs == label.T[:, None]).all(axis=(0, 2))
        yield b, start, stop, set(np.flatnonzero(fits).tolist())


def check(data, alleles, batch, samples, every):
    """A batch is of these samples, hides the truth, and retrieves whom it may."""
    allowed = set(np.flatnonzero(np.isin(data.panel.haplotype_sample, data.train_samples)))
    for b, start, stop, fitting in rows_of(data, alleles, batch):
        n = stop - start
        assert fitting & set(samples.tolist())
        hidden = batch["mask"][b, :n]
        for h in "12":
            token, label = batch[f"hap_{h}"][b, :n], batch[f"label_h{h}"][b, :n]
            assert (token[hidden] == MASK).all()
            assert torch.equal(token[~hidden], label[~hidden])
            ids = batch[f"rag_id_h{h}"][b].tolist()
            assert len(set(ids)) == len(ids) == data.config.data.num_retrieved
            assert set(ids) <= allowed
            np.testing.assert_array_equal(
                batch[f"rag_seg_h{h}"][b, :, :n].numpy(), alleles[start:stop, ids].T
            )
            own = {data.panel.haplotype_sample[i] for i in ids} & fitting
            # Of several samples with the same alleles here, another may be retrieved.
            assert not own or len(fitting) > 1
        every.append((start, fitting, int(hidden.sum())))


def test_training_batches_leave_their_own_out(panel, index, alleles):
    data = make(panel, index)
    every = []
    batches = list(data.train_batches(0))
    assert len(batches) == data.num_train_batches(0) == 8
    assert [len(b["window"]) for b in batches] == [7] * 7 + [1]
    for batch in batches:
        check(data, alleles, batch, data.train_samples, every)
    assert len({start for start, _, _ in every}) > 10
    assert min(hidden for _, _, hidden in every) > 10


def test_validation_batches_are_of_held_out_samples(panel, index, alleles):
    data = make(panel, index, "data.windows_per_epoch=100")
    every = []
    for _, batch in data.validation_batches():
        check(data, alleles, batch, data.validation_samples, every)
    # All samples in each of some windows, with one mask.
    assert len(every) % len(data.validation_samples) == 0
    by_window = {}
    for start, _, hidden in every:
        by_window.setdefault(start, []).append(hidden)
    for hidden in by_window.values():
        assert len(hidden) == len(data.validation_samples)
        assert len(set(hidden)) == 1
    for _ in range(5):
        data.add_level()
    assert all(
        same(one, two)
        for (_, one), (_, two) in zip(
            data.validation_batches(),
            make(panel, index, "data.windows_per_epoch=100").validation_batches(),
            strict=True,
        )
    )


def test_retrieved_are_the_nearest_by_what_stays_typed(panel, index, alleles):
    data = make(panel, index, "data.max_sites=1020", "data.num_retrieved=4")
    batch = data.train_batch(0, 0)
    allowed = np.isin(panel.haplotype_sample, data.train_samples)
    rows = [row for row in rows_of(data, alleles, batch) if len(row[3]) == 1]
    assert len(rows) >= 5
    for b, start, stop, fitting in rows:
        token = batch["hap_1"][b, : stop - start].numpy()
        typed = token != MASK
        distance = (alleles[start:stop][typed] != token[typed, None]).sum(0)
        may = allowed & (panel.haplotype_sample != next(iter(fitting)))
        found = batch["rag_id_h1"][b].numpy()
        np.testing.assert_array_equal(distance[found], np.sort(distance[may])[:4])


def test_an_epoch_is_every_sample_in_every_window(panel, index):
    data = make(panel, index, "data.windows_per_epoch=null", "train.batch_size=500")
    seen = np.zeros(len(data.windows.ranges), int)
    for step in range(2):
        seen += np.bincount(data.train_batch(0, step)["window"], minlength=len(seen))
    assert data.num_examples() == len(seen) * len(data.train_samples)
    assert data.num_train_batches() == -(-data.num_examples() // 500)
    examples = data._examples_of(0)
    place = np.searchsorted(data.train_samples, examples.sample)
    order = examples.window * len(data.train_samples) + place
    np.testing.assert_array_equal(np.sort(order), np.arange(data.num_examples()))


def test_batches_depend_on_seed_epoch_and_step_alone(panel, index):
    one = list(make(panel, index).train_batches(3))
    two = make(panel, index)
    list(two.train_batches(1))
    for step, batch in enumerate(two.train_batches(3, first_step=5), start=5):
        assert same(batch, one[step])
    assert step == 7
    assert not same(next(make(panel, index).train_batches(2)), one[0])
    other = make(panel, index)
    other.seed = 2
    assert not same(next(other.train_batches(3)), one[0])
    # Examples stay what they are when a batch holds more of them.
    wide = make(panel, index, "train.batch_size=14").train_batch(3, 0)
    for name in wide:
        assert torch.equal(wide[name], torch.cat([one[0][name], one[1][name]])), name


def test_workers_make_the_same_batches_in_order(panel, index):
    plain = make(panel, index)
    # A search with several threads first: a fork after that must not hang.
    index.search(0, np.zeros((3000, int(np.diff(index.windows[0])[0])), np.int8), 1)
    shared = make(panel, index, "data.num_workers=2")
    for data in (shared, plain, shared, plain):
        data.add_level()
    got = list(shared.train_batches(0, first_step=2))
    expected = list(plain.train_batches(0, first_step=2))
    assert len(got) == len(expected) == 6
    assert all(same(one, two) for one, two in zip(got, expected, strict=True))


def test_the_curriculum_hides_more(panel, index):
    data = make(panel, index, "mask.parts=[{name: random, rate: 0.3}]",
                "mask.curriculum={every_epochs: 1, step: 0.2, max_rate: 0.8}")  # fmt: skip
    shares = []
    for _ in range(4):
        batch = data.train_batch(0, 0)
        shares.append(float(batch["mask"].sum() / (~batch["pad"]).sum()))
        data.add_level()
    np.testing.assert_allclose(shares, [0.3, 0.5, 0.7, 0.8], atol=0.05)


def test_linked_sites_are_hidden_together(panel, index, alleles):
    data = make(panel, index, "data.max_sites=1020", "mask.parts=[{name: ld_guided, rate: 0.5}]")
    batch = data.train_batch(0, 0)
    train = np.isin(panel.haplotype_sample, data.train_samples)
    for b, start, stop, _ in rows_of(data, alleles, batch):
        block = linkage_blocks(alleles[start:stop, train], 0.8)
        hidden = batch["mask"][b, : stop - start].numpy()
        assert set(block[hidden]).isdisjoint(block[~hidden])


def test_li_stephens_at_the_same_sites(panel, index):
    data = make(panel, index, "data.windows_per_epoch=100")
    dosage, truth, af = [], [], []
    for i, batch in data.validation_batches():
        ls = data.ls_baseline(i)
        for h in ("h1", "h2"):
            assert ls[h].shape == batch["mask"].shape
            assert (ls[h][batch["pad"].numpy()] == 0).all()
            keep = batch["mask"].numpy()
            dosage.append(ls[h][keep])
            truth.append(batch[f"label_{h}"].numpy()[keep])
            af.append(batch["af"].numpy()[keep])
            typed = ~batch["mask"].numpy() & ~batch["pad"].numpy()
            observed = batch[f"label_{h}"].numpy()[typed]
            assert (np.abs(ls[h][typed] - observed) < 0.5).mean() > 0.98
    dosage, truth, af = (np.concatenate(x)[None] for x in (dosage, truth, af))
    maf = np.minimum(af, 1 - af)
    assert dosage.min() >= 0
    assert dosage.max() <= 1
    pooled = aggregate_r2(dosage.T, truth.T, maf[0]).all
    frequency = aggregate_r2(af.T, truth.T, maf[0]).all
    assert pooled > 0.85 > frequency + 0.1


def test_li_stephens_is_computed_once(panel, index, monkeypatch):
    data = make(panel, index)
    calls = []
    plain = copied_windows.copy_haplotypes
    monkeypatch.setattr(
        copied_windows, "copy_haplotypes", lambda *a, **k: (calls.append(0), plain(*a, **k))[1]
    )
    for i in range(3):
        data.ls_baseline(i)
    searched = np.unique(data.search_window[data._validation[:, 0]])
    assert len(calls) == len(searched)


@pytest.mark.parametrize("world", [2, 3, 5])
def test_a_process_builds_its_rows_alone(panel, index, world, monkeypatch):
    """The rows of all processes together are those of one, also those of the last, short batch."""
    whole = make(panel, index, "data.windows_per_epoch=10", "train.batch_size=4")
    built = []
    plain = TokenBatches._collate
    monkeypatch.setattr(
        TokenBatches, "_collate",
        lambda self, window, *rest: (built.append(len(window)), plain(self, window, *rest))[1],
    )  # fmt: skip
    parts = [
        make(panel, index, "data.windows_per_epoch=10", "train.batch_size=4", share=Share(r, world))
        for r in range(world)
    ]
    for step, batch in enumerate(whole.train_batches(1)):
        num = len(batch["window"])
        built.clear()
        own = [part.train_batch(1, step) for part in parts]
        assert built == [max(1, len(range(r, num, world))) for r in range(world)]
        for r, found in enumerate(own):
            rows = torch.arange(min(r, num - 1), num, world)
            if r < num:
                assert same(found, {name: value[rows] for name, value in batch.items()})
            else:
                assert (found["label_h1"] == -1).all()
                assert (found["label_h2"] == -1).all()


def test_a_process_validates_its_batches_alone(panel, index, monkeypatch):
    one = make(panel, index)
    expected = [(i, batch, one.ls_baseline(i)) for i, batch in one.validation_batches()]
    copied = []
    plain = copied_windows.copy_haplotypes
    monkeypatch.setattr(
        copied_windows, "copy_haplotypes", lambda *a, **k: (copied.append(0), plain(*a, **k))[1]
    )
    found, searched = [], 0
    for rank in range(2):
        data = make(panel, index, share=Share(rank, 2))
        own = [(i, batch, data.ls_baseline(i)) for i, batch in data.validation_batches()]
        assert 0 < len(own) < len(expected)
        searched += len({int(data.search_window[w]) for _, b, _ in own for w in b["window"]})
        found += own
    assert len(copied) == searched
    for (i, batch, ls), (j, other, ls_other) in zip(found, expected, strict=True):
        assert i == j
        assert same(batch, other)
        for h in ("h1", "h2"):
            np.testing.assert_array_equal(ls[h], ls_other[h])


def test_validation_stays_small(panel, index, monkeypatch):
    monkeypatch.setattr(dataset, "_MAX_VALIDATION", 40)
    data = make(panel, index, "data.windows_per_epoch=null", max_validation=3)
    parts = np.bincount(data.search_window).max()
    assert 3 <= sum(len(b["window"]) for _, b in data.validation_batches()) <= 40 + 3 * parts


def test_haploid_samples_are_paired_with_themselves(tmp_path):
    write_small(tmp_path / "p.h5", [9], haploid=9)
    with Panel.open(tmp_path / "p.h5") as panel:
        data = make(panel, WindowIndex.build(panel), "data.num_retrieved=8")
        batch = data.train_batch(0, 0)
        assert torch.equal(batch["hap_1"], batch["hap_2"])
        assert torch.equal(batch["rag_id_h1"], batch["rag_id_h2"])
        # Eight samples to train on: seven others may be retrieved.
        assert ((batch["rag_id_h1"] >= 0).sum(1) == 7).all()
        assert torch.isfinite(build(data.config.model)(batch)["h1_fused"]).all()


def test_windows_without_a_typed_site(tmp_path):
    write_small(tmp_path / "p.h5", [6])
    with Panel.open(tmp_path / "p.h5") as panel:
        data = make(panel, WindowIndex.build(panel), "mask.validation={name: random, rate: 1.0}")
        _, batch = next(data.validation_batches())
        assert bool((batch["mask"] | batch["pad"]).all())
        np.testing.assert_allclose(data.ls_baseline(0)["h1"][0], panel.af, atol=1e-6)


def test_references_are_refreshed_as_the_config_says(panel, index, monkeypatch):
    # What is looked up serves all samples, and so is encoded with the panel's frequencies.
    monkeypatch.setattr(TokenWindows, "_without_own", lambda self, freq, own, alleles: freq)
    for refresh, expected in (("epoch", [True, True]), ("once", [True, False])):
        data = make(
            panel, index, f"model.reference.refresh={refresh}", preset="embedding-rag-small"
        )
        torch.manual_seed(0)
        model = build(data.config.model)
        batch = data.train_batch(0, 0)
        device = torch.device("cpu")
        for epoch, fresh in enumerate(expected):
            with torch.no_grad():
                model.tokens.embedding.token.weight.mul_(1.5)
            data.refresh_references(model, epoch, device)
            assert isinstance(model.tokens.table, ReferenceTable)
            live = model.tokens.references.eval()
            anew = live(batch["rag_seg_h1"], batch["pos"], batch["af"], batch["rag_af_h1"])
            found = model.tokens.table(batch["window"], batch["rag_id_h1"])
            real = (~batch["pad"])[:, None].expand(found.shape[:3])
            close = torch.allclose(found[real], anew[real], atol=1e-2, rtol=1e-2)
            assert close == fresh, (refresh, epoch)
        before = {name: value.clone() for name, value in model.tokens.frozen.state_dict().items()}
        with torch.no_grad():
            model.tokens.embedding.token.weight.mul_(1.5)
        data.refresh_references(model, 2, device, keep_weights=True)
        for name, value in model.tokens.frozen.state_dict().items():
            assert torch.equal(value, before[name])
    with pytest.raises(ValueError, match="does not look references up"):
        data.refresh_references(build(load_config("v10-small").model), 0, device)
