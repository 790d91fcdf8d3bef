"""Leave-one-out evidence: who may be copied, what the labels are, and which batches come when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel

from ragimpute import example
from ragimpute.copying import states as panel_states
from ragimpute.copying.choose_parameters import fit_panel
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.states import all_states
from ragimpute.errors import PanelError
from ragimpute.evidence.features import FEATURES, TOKEN_FEATURES
from ragimpute.evidence.site_quality import measure_sites
from ragimpute.model.bert_rag import build
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.training.data import copying_batches as evidence_dataset
from ragimpute.training.data.copying_batches import EvidenceBatches, PooledEvidenceBatches
from ragimpute.training.data.share import Share
from ragimpute.training.losses import compute_loss
from tests.model_configs import config_of

NUM_LEFT_OUT = 12
OVERRIDES = (
    "data.num_arrays=2", f"data.max_haplotypes={NUM_LEFT_OUT}", "train.batch_size=16",
    "mask.parts=[{name: array_like}]",
)  # fmt: skip
HELD_OUT = set(range(0, 250, 25))


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """The packaged 1000 Genomes panel."""
    path = tmp_path_factory.mktemp("evidence") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"))
    with Panel.open(path) as opened:
        yield opened


class Watched(EvidenceBatches):
    """Notes whom each left-out haplotype could copy."""

    def __init__(self, *args, **kwargs):
        self.seen = []  # (window, haplotypes left out (n,), haplotypes of the window (k,))
        super().__init__(*args, **kwargs)

    def _window(self, whole, left_out, position_cm, typed_index):
        window, kept = super()._window(whole, left_out, position_cm, typed_index)
        self.seen.append((window, left_out, kept))
        return window, kept


def make(panel, *, seed=1, preset="default", overrides=(), held_out=None, num_train=None):
    """Batches that train on all but the held-out samples."""
    held_out = np.arange(0, len(panel.samples), 25) if held_out is None else held_out
    train = np.setdiff1d(np.arange(len(panel.samples)), held_out)[:num_train]
    config = config_of(preset, [*OVERRIDES, *overrides])
    return Watched(panel, config, seed=seed, train_samples=train, validation_samples=held_out)


@pytest.fixture(scope="module")
def data(panel):
    """Batches of the packaged panel, of which every 25th sample is held out."""
    made = make(panel)
    made.examples(0)
    made.validation()
    return made


def samples_of(panel, haplotypes):
    """The samples that haplotypes belong to."""
    return set(panel.haplotype_sample[haplotypes].tolist())


def test_validation_samples_are_never_copied_or_trained_on(panel, data):
    assert samples_of(panel, data.held_out) == HELD_OUT
    assert len(data.seen) == 4  # two arrays to train on, two to validate
    for i, (_, left_out, kept) in enumerate(data.seen):
        if i < 2:
            assert len(left_out) == NUM_LEFT_OUT
            assert not samples_of(panel, left_out) & HELD_OUT
        else:
            np.testing.assert_array_equal(left_out, data.held_out)
        assert not samples_of(panel, kept) & HELD_OUT


def test_what_is_left_out_leaves_the_panel_as_a_group(panel, data):
    whole = panel.haplotypes(0, panel.num_sites).alleles()
    for i, (window, left_out, kept) in enumerate(data.seen):
        out = samples_of(panel, left_out)
        assert len(left_out) == 2 * len(out)  # whole samples
        assert not samples_of(panel, kept) & out
        # everyone else of the training samples is there
        assert len(kept) == 480 - (NUM_LEFT_OUT if i < 2 else 0)
        assert window.typed.num_haplotypes == len(kept)
        np.testing.assert_array_equal(window.haplotypes.alleles(), whole[:, kept])


def test_most_samples_of_a_small_panel_stay(panel):
    data = make(panel, num_train=10, overrides=["data.num_arrays=1"])
    data.examples(0)
    (_, left_out, kept) = data.seen[0]
    assert (len(left_out), len(kept)) == (4, 16)


def test_large_panels_are_searched(panel, data, monkeypatch):
    monkeypatch.setattr(panel_states, "COPY_ALL_UP_TO", 10)
    found = make(panel)
    for a, b in zip(found.examples(0), data.examples(0), strict=True):
        # 448 slots of 468 haplotypes: nearly the same posteriors
        p, q = (1 / (1 + np.exp(-part.evidence[:, 0].astype(float))) for part in (a, b))
        assert p.mean() == pytest.approx(q.mean(), abs=0.02)
        assert np.exp(a.evidence[:, FEATURES.index("panel_size")]).max() <= 448.5


def test_labels_are_the_panels_alleles(panel, data):
    alleles = panel.haplotypes(0, panel.num_sites).alleles()
    af = alleles.mean(axis=1)
    for (window, left_out, kept), part in zip(
        data.seen, [*data.examples(0), *data.validation()], strict=True
    ):
        minor = np.where((af <= 0.5)[:, None], alleles == 1, alleles == 0)
        untyped = np.setdiff1d(np.arange(panel.num_sites), window.typed_index)
        # Pairs come without their site: where one place has one untyped site, it is that one.
        cm = panel.position_cm.astype(np.float32)
        place, first, count = np.unique(cm[untyped], return_index=True, return_counts=True)
        lookup = {c: untyped[f] for c, f, n in zip(place, first, count, strict=True) if n == 1}
        num_checked = 0
        for h, c, label, maf in zip(
            part.haplotype, part.position_cm, part.label, part.maf, strict=True
        ):
            if c not in lookup:
                continue
            u = lookup[c]
            num_checked += 1
            assert label == minor[u, left_out[h]]
            assert maf == pytest.approx(minor[u, kept].mean(), abs=1e-6)
        assert num_checked > 0.5 * len(part.label)
        assert 0.02 < part.label.mean() < 0.98


def test_every_untyped_pair_is_there_once(panel, data):
    for (window, left_out, _), part in zip(data.seen[2:], data.validation(), strict=True):
        num_untyped = panel.num_sites - len(window.typed_index)
        rest = part.rest
        assert len(part.label) + len(rest[0]) == num_untyped * len(left_out)
        assert len(rest[0]) == len(rest[1]) == len(rest[2])
        assert ((rest[0] <= 0.0101) | (rest[0] >= 0.9899)).all()
        carried = panel.haplotypes(0, panel.num_sites).alleles()[:, left_out]
        alt_is_minor = panel.af <= 0.5
        carried = np.where(alt_is_minor[:, None], carried, 1 - carried)
        untyped = np.setdiff1d(np.arange(panel.num_sites), window.typed_index)
        assert part.label.sum() + rest[1].sum() == carried[untyped].sum()


def test_evidence_is_the_copyings_posterior(data):
    column = FEATURES.index("posterior")
    part = data.examples(0)[0]
    p = 1 / (1 + np.exp(-part.evidence[:, column].astype(np.float64)))
    assert ((p > 0.0099) & (p < 0.9901)).all()
    # A posterior that means something: carriers have the larger one, and it is calibrated.
    assert p[part.label == 1].mean() > p[part.label == 0].mean() + 0.2
    assert p.mean() == pytest.approx(part.label.mean(), abs=0.05)
    assert np.isfinite(part.evidence).all()


def content(made, epoch):
    """Everything that an epoch's examples hold, as bytes; evidence with the digits of batches."""
    names = ("label", "maf", "position_cm", "haplotype", "sequences")
    return [
        [part.evidence.astype(np.float16).tobytes(), *(getattr(part, x).tobytes() for x in names)]
        for part in made.examples(epoch)
    ]


def test_the_seed_and_the_epoch_fix_every_draw(panel, data):
    other, again = make(panel, seed=2), make(panel)
    later, first = content(again, 1), content(again, 0)  # whatever was asked before
    assert first == content(data, 0)
    assert first != later
    assert first != content(other, 0)
    assert later == content(make(panel), 1)


def test_validation_is_the_same_for_every_run_of_a_seed(panel, data):
    for a, b in zip(data.validation(), make(panel).validation(), strict=True):
        np.testing.assert_array_equal(a.evidence, b.evidence)
        np.testing.assert_array_equal(a.label, b.label)


def test_threads_do_not_matter(panel):
    one, two = (make(panel, overrides=["data.num_arrays=1"]) for _ in range(2))
    two.threads = 2
    np.testing.assert_array_equal(one.examples(0)[0].evidence, two.examples(0)[0].evidence)


def rows_of(batches, num_features):
    """Every scored pair of some batches, as rows (features, label, af, cm), sorted."""
    rows = []
    for batch in batches:
        for h in ("h1", "h2"):
            keep = batch[f"mask_{h}"]
            assert torch.equal(keep, ~batch[f"pad_{h}"])
            assert torch.equal(keep, batch[f"label_{h}"] >= 0)
            assert torch.equal(batch[f"ls_logit_{h}"], batch[f"evidence_{h}"][..., 0])
            rows.append(torch.column_stack([
                batch[f"evidence_{h}"][keep], batch[f"label_{h}"][keep].float(),
                batch[f"af_{h}"][keep], batch[f"pos_{h}"][keep],
            ]).numpy())  # fmt: skip
    out = np.concatenate(rows)
    assert out.shape[1] == num_features + 3
    return out[np.lexsort(out.T)]


@pytest.mark.parametrize("preset", ["default", "states"])
def test_batches_cover_all_pairs_once(panel, preset, data):
    if preset != "default":
        data = make(panel, preset=preset)
    for batches, parts in (
        (data.train_batches(0), data.examples(0)),
        ([b for _, b in data.validation_batches()], data.validation()),
    ):
        found = rows_of(batches, len(FEATURES))
        expected = np.concatenate([
            np.column_stack([p.evidence, p.label, p.maf, p.position_cm]) for p in parts
        ]).astype(np.float32)  # fmt: skip
        np.testing.assert_array_equal(found, expected[np.lexsort(expected.T)])


def test_sequences_keep_the_order_of_sites(panel):
    data = make(panel, preset="states")
    for batch in data.train_batches(0):
        for h in ("h1", "h2"):
            pos, pad = batch[f"pos_{h}"], batch[f"pad_{h}"]
            assert pos.shape[1] <= 64
            inside = ~pad[:, 1:]
            assert (pos[:, 1:][inside] >= pos[:, :-1][inside]).all()
            assert (pad[:, 1:] >= pad[:, :-1]).all()  # padding comes last


@pytest.mark.parametrize("world", [2, 3])
def test_a_process_builds_its_rows_alone(data, monkeypatch, world):
    """The rows of all processes together are those of one; padding may be shorter."""
    whole = list(data.train_batches(0)), list(data.validation_batches())
    validated = []
    for rank in range(world):
        monkeypatch.setattr(data, "share", Share(rank, world))
        for found, batch in zip(data.train_batches(0), whole[0], strict=True):
            num = len(batch["mask_h1"])
            rows = torch.arange(min(rank, num - 1), num, world)
            for name, value in found.items():
                assert len(value) == len(rows)
                if value.dtype == torch.bool or (rank >= num and name.startswith("label")):
                    continue
                length = value.shape[1]
                assert torch.equal(value, batch[name][rows, :length])
                assert batch[f"pad_{name[-2:]}"][rows, length:].all()
        validated += data.validation_batches()
    for (i, found), (j, batch) in zip(validated, whole[1], strict=True):
        assert i == j
        assert all(torch.equal(found[name], batch[name]) for name in batch)


def test_batches_resume_at_any_step(data):
    whole = list(data.train_batches(0))
    assert len(whole) == data.num_train_batches(0) > 3
    for first in (0, 1, 2, len(whole) - 1, len(whole)):
        rest = list(data.train_batches(0, first))
        assert len(rest) == len(whole) - first
        for a, b in zip(rest, whole[first:], strict=True):
            assert a.keys() == b.keys()
            for name in a:
                assert torch.equal(a[name], b[name])
    sizes = {len(batch["label_h1"]) for batch in whole[:-1]}
    assert sizes == {16}


def test_standardisation_is_of_the_first_epoch(data):
    mean, deviation = data.standardisation()
    x = np.concatenate([part.evidence for part in data.examples(0)]).astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), x.mean(axis=0), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(deviation.numpy(), x.std(axis=0), rtol=1e-3, atol=1e-3)


def test_evidence_keeps_three_digits_once_it_is_in_batches(panel):
    made, whole = (make(panel, overrides=["data.num_arrays=1"]) for _ in range(2))
    exact = whole.examples(0)[0].evidence
    assert exact.dtype == np.float32
    first = next(made.train_batches(0))
    kept = made.examples(0)[0].evidence
    assert (kept.dtype, first["evidence_h1"].dtype) == (np.float16, torch.float32)
    np.testing.assert_allclose(kept, exact, rtol=6e-4, atol=1e-6)


@pytest.mark.parametrize("preset", ["default", "states"])
def test_an_odd_sequence_makes_no_nan(panel, preset):
    data = make(panel, preset=preset, overrides=["data.num_arrays=1", "train.batch_size=1"])
    parts = data.examples(0)
    batch = evidence_dataset._Joined(parts).batch(np.zeros(1, int))
    assert batch["pad_h2"].all()
    assert not batch["pad_h1"].all()
    model = build(data.config.model)
    torch.nn.init.normal_(model.residual.last.weight)
    loss, _ = compute_loss(model(batch), batch, data.config.loss, 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_tokens_go_with_their_pairs(panel, data):
    read = make(panel, overrides=["model.copying.num_set_tokens=6"])
    for part, plain in zip(read.examples(0), data.examples(0), strict=True):
        assert plain.tokens is None
        # What was made into batches is kept with fewer digits.
        np.testing.assert_allclose(part.evidence, plain.evidence, rtol=1e-3, atol=1e-3)
        assert part.tokens.shape == (len(part.label), 6, len(TOKEN_FEATURES))
        # The best states of the pair: no more carriers are tokens than there are.
        carriers = np.expm1(part.evidence[:, FEATURES.index("num_carriers")])
        found = (part.tokens[:, :3, 0] > 0).sum(axis=1)
        np.testing.assert_array_equal(found, np.minimum(3, np.rint(carriers)))
    for batch, plain in zip(read.train_batches(0), data.train_batches(0), strict=True):
        assert batch.keys() - plain.keys() == {"tokens_h1", "tokens_h2"}
        for h in ("h1", "h2"):
            there = batch[f"tokens_{h}"][..., :3, 0].sum(dim=-1) / 1024
            column = batch[f"evidence_{h}"][..., FEATURES.index("num_carriers")]
            expected = torch.expm1(column).round().clamp(max=3)
            assert torch.equal(there, expected.masked_fill(batch[f"pad_{h}"], 0.0))
    mean, deviation, token_mean, token_deviation = read.standardisation()
    torch.testing.assert_close(mean, data.standardisation()[0], rtol=1e-3, atol=1e-3)
    x = np.concatenate([part.tokens[::10] for part in read.examples(0)]).reshape(-1, 8)
    x = x[x[:, 0] > 0] / 1024
    np.testing.assert_allclose(token_mean[1:].numpy(), x[:, 1:].mean(axis=0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(token_deviation[1:].numpy(), x[:, 1:].std(axis=0), rtol=1e-3)
    assert token_mean[0] == token_deviation[0] == 0
    assert len(deviation) == len(FEATURES)


def small_panel(path, num_samples, num_sites=60):
    """A panel of mosaics."""
    alleles = mosaic_panel(np.random.default_rng(3), num_sites, 2 * num_samples)
    write_panel(path, [make_batch(alleles.reshape(num_sites, num_samples, 2))],
                samples=names(num_samples), genetic_map=FlatMap())  # fmt: skip
    return Panel.open(path)


def test_three_samples_are_enough(tmp_path):
    with small_panel(tmp_path / "p.h5", 3) as panel:
        data = make(panel, held_out=np.array([1]))
        batches = list(data.train_batches(0))
        assert len(batches) == data.num_train_batches(0)
        assert samples_of(panel, data.pool) == {0, 2}
        for _, left_out, kept in data.seen:
            assert samples_of(panel, kept) == {0, 2} - samples_of(panel, left_out)


def test_one_training_sample_is_refused(tmp_path):
    with (
        small_panel(tmp_path / "p.h5", 2) as panel,
        pytest.raises(PanelError, match="1 samples to train on") as caught,
    ):
        make(panel, held_out=np.array([0]))
    assert str(tmp_path / "p.h5") in caught.value.message
    assert "three at least" in caught.value.hint


def test_long_panels_are_cut_to_windows(panel, monkeypatch):
    monkeypatch.setattr(evidence_dataset, "_MAX_SITES", 1500)
    data = make(panel)
    parts = data.validation()
    for (window, left_out, _), part in zip(data.seen, parts, strict=True):
        assert window.num_sites == 1500
        assert len(part.label) + len(part.rest[0]) == len(left_out) * (
            1500 - len(window.typed_index)
        )
        assert set(part.position_cm) <= set(window.position_cm.astype(np.float32))
    starts = {float(window.position_cm[0]) for window, *_ in data.seen}
    assert len(starts) == 2


def test_short_arrays_lie_on_short_stretches(panel, monkeypatch):
    monkeypatch.setattr(evidence_dataset, "_SHORT_SITES", (300, 900))
    data = make(panel, overrides=["data.num_arrays=3", "data.short_arrays=2"])
    for epoch in range(3):
        data.examples(epoch)
    sizes = np.array([window.num_sites for window, *_ in data.seen]).reshape(3, 3)
    assert (sizes[:, 0] == panel.num_sites).all()
    assert ((sizes[:, 1:] >= 300) & (sizes[:, 1:] <= 900)).all()
    assert len(np.unique(sizes[:, 1:])) > 3
    starts = {float(window.position_cm[0]) for window, *_ in data.seen}
    assert len(starts) > 4


def test_the_number_of_pairs_is_bounded(panel):
    data = make(panel, overrides=["data.max_pairs=1000"])
    for part in data.examples(0):
        assert 0 < len(part.label) <= 1600  # whole haplotypes
        assert len(np.unique(part.haplotype)) < NUM_LEFT_OUT


def test_epochs_may_share_their_draws(panel):
    data = make(panel, overrides=["data.epochs_per_draw=2"])
    first = content(data, 0)
    assert content(data, 1) == first
    assert content(data, 2) != first
    order = [next(iter(data.train_batches(epoch)))["label_h1"] for epoch in (0, 1)]
    assert order[0].shape != order[1].shape or not torch.equal(*order)


def test_random_masks_hide_typed_alleles_too(panel):
    parts = "mask.parts=[{name: random, weight: 1, rate: 0.5}]"
    plain, masked = make(panel), make(panel, overrides=[parts])
    pairs = [sum(len(part.label) for part in data.examples(0)) for data in (plain, masked)]
    assert pairs[1] > 1.1 * pairs[0]  # less is observed, and hidden typed alleles are in doubt
    carried = panel.haplotypes(0, panel.num_sites).alleles()
    for part, (window, left_out, _) in zip(masked.examples(0), masked.seen, strict=True):
        cm = panel.position_cm.astype(np.float32)
        typed = np.isin(part.position_cm, np.setdiff1d(cm[window.typed_index],
                        np.delete(cm, window.typed_index)))  # fmt: skip
        assert typed.sum() > 20
        at = np.searchsorted(cm, part.position_cm[typed])
        minor = window.haplotypes.alt_is_minor[at]
        truth = carried[at, left_out[part.haplotype[typed]]] == minor
        np.testing.assert_array_equal(part.label[typed], truth)
    whole = [len(part.label) + len(part.rest[0]) for part in masked.validation()]
    assert whole == [len(part.label) + len(part.rest[0]) for part in plain.validation()]


def test_the_copying_and_the_quality_are_those_of_imputation(panel, data):
    """What the network sees is what it will see: each number is made as for an outside target."""
    (window, left_out, kept), part = data.seen[2], data.validation()[0]
    sample = panel.haplotype_sample[kept]
    parameters = fit_panel(window, sample, seed=1)
    quality = measure_sites(window, sample, parameters, seed=1)
    parameters = replace(parameters, site_mismatch_prob=quality.mismatch_prob)
    typed = panel.haplotypes(0, panel.num_sites).alleles(window.typed_index)[:, left_out]
    everyone = all_states(len(kept))
    prob = copy_haplotypes(
        window, np.ascontiguousarray(typed), parameters, states=lambda i: everyone
    )
    minor = window.haplotypes.alt_is_minor
    p = np.where(minor, prob, 1 - prob)
    untyped = np.setdiff1d(np.arange(panel.num_sites), window.typed_index)
    sums = p[:, untyped].sum()
    posterior = 1 / (1 + np.exp(-part.evidence[:, 0].astype(np.float64)))
    assert posterior.sum() + part.rest[0].sum() == pytest.approx(sums, rel=1e-4)
    first = FEATURES.index("quality_r2")
    rows = {row.tobytes() for row in np.asarray(quality.features, np.float16)}
    assert {row.tobytes() for row in part.evidence[:, first:].astype(np.float16)} <= rows


def test_several_panels_are_pooled(panel, data):
    other = make(panel, seed=2)
    pooled = PooledEvidenceBatches([data, other])
    assert content(pooled, 0) == content(data, 0) + content(other, 0)
    parts = [*data.validation(), *other.validation()]
    assert all(a is b for a, b in zip(pooled.validation(), parts, strict=True))
    labels = [
        batch[f"label_{h}"][batch[f"mask_{h}"]]
        for batch in pooled.train_batches(0)
        for h in ("h1", "h2")
    ]
    expected = np.concatenate([part.label for part in pooled.examples(0)])
    assert sum(map(len, labels)) == len(expected)
    assert int(torch.cat(labels).sum()) == expected.sum() > 0
    rest = sum(len(label) for _, label, _ in pooled.validation_rest())
    assert rest == sum(len(label) for d in (data, other) for _, label, _ in d.validation_rest())
    with pytest.raises(ValueError, match="no panel"):
        PooledEvidenceBatches([])


def test_pairs_that_stay_are_kept_for_validation_only(data):
    assert all(part.rest is None for part in data.examples(0))
    assert all(part.rest is not None for part in data.validation())
