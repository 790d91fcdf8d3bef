"""What the residual network changes, and what it must leave alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_copying import mosaic_panel, window_of

from ragimpute import correction
from ragimpute.checkpoint import LoadedModel
from ragimpute.config import load_config
from ragimpute.correction import choose_device, correct, split_sequences
from ragimpute.errors import InputError
from ragimpute.evidence import NUM_FEATURES, empty_tokens
from ragimpute.model.bert_rag import build


def model_of(name="default", seed=1, *, last=0.3, overrides=()):
    """A copying model whose residual is not zero, unless ``last`` is."""
    config = load_config(name, overrides=overrides)
    torch.manual_seed(seed)
    model = build(config.model).eval()
    if model.residual is not None:
        torch.nn.init.normal_(model.residual.last.weight, std=last)
        torch.nn.init.normal_(model.residual.last.bias, std=last)
    return LoadedModel(name, config, model, trained=True)


def in_context(name):
    """What makes the sites in doubt of a haplotype see each other."""
    return ("model.copying.num_context_layers=1",) if name == "context" else ()


def case(seed, num_sites=40, num_targets=5, core=None):
    """A window, pairs in doubt, evidence and probabilities."""
    rng = np.random.default_rng(seed)
    alleles = mosaic_panel(rng, num_sites, 24)
    window = window_of(alleles, np.cumsum(rng.exponential(0.02, num_sites)), [3, 20, 30], core)
    size = window.core[1] - window.core[0]
    prob = rng.random((num_targets, size)).astype(np.float32)
    pairs = np.argwhere(rng.random(prob.shape) < 0.5).astype(np.int64)
    evidence = rng.normal(size=(len(pairs), NUM_FEATURES)).astype(np.float32)
    return window, pairs, evidence, prob


def tokens_of(pairs, seed=1, num_tokens=16):
    """States of pairs in doubt: all are there."""
    tokens = empty_tokens(len(pairs), num_tokens)
    tokens[:] = np.random.default_rng(seed).integers(-6000, 1000, tokens.shape)
    tokens[..., 0] = 1024
    return tokens


def logit(p):
    return np.log(p) - np.log1p(-p)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 20))
def test_sequences_hold_each_pair_once(haplotypes, max_length):
    haplotype = np.sort(np.array(haplotypes, dtype=np.int64))
    index = split_sequences(haplotype, max_length)
    assert index.shape[1] <= max_length
    there = [row[row >= 0] for row in index]
    assert np.concatenate([[], *there]).tolist() == list(range(len(haplotype)))
    lengths: dict[int, list[int]] = {}
    for row, kept in zip(index, there, strict=True):
        assert len(kept) > 0
        assert (row[: len(kept)] >= 0).all()
        assert len(set(haplotype[kept])) == 1
        lengths.setdefault(haplotype[kept[0]], []).append(len(kept))
    for pieces in lengths.values():  # as few as can be, and equally long
        assert max(pieces) - min(pieces) <= 1
        assert len(pieces) == -(-sum(pieces) // max_length)


@pytest.mark.parametrize("name", ["default", "context"])
def test_an_untrained_model_is_li_stephens_bit_for_bit(name):
    window, pairs, evidence, prob = case(1)
    after = prob.copy()
    correct(
        model_of(name, last=0.0, overrides=in_context(name)),
        window,
        pairs,
        evidence,
        after,
        tokens=tokens_of(pairs),
    )
    np.testing.assert_array_equal(after, prob)


def test_a_residual_moves_the_logit_of_the_minor_allele():
    loaded = model_of(last=0.0)
    torch.nn.init.constant_(loaded.model.residual.last.bias, 0.7)
    window, pairs, evidence, prob = case(2)
    after = prob.copy()
    correct(loaded, window, pairs, evidence, after)
    minor = window.haplotypes.alt_is_minor
    assert 0 < minor[pairs[:, 1]].mean() < 1
    for h, u in pairs:
        expected = logit(np.float64(prob[h, u])) + (0.7 if minor[u] else -0.7)
        assert logit(np.float64(after[h, u])) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["default", "context"])
def test_pairs_not_in_doubt_stay(name):
    window, pairs, evidence, prob = case(3)
    after = prob.copy()
    correct(
        model_of(name, overrides=in_context(name)),
        window,
        pairs,
        evidence,
        after,
        tokens=tokens_of(pairs),
    )
    changed = after != prob
    assert changed[pairs[:, 0], pairs[:, 1]].mean() > 0.95
    changed[pairs[:, 0], pairs[:, 1]] = False
    assert not changed.any()


def test_sites_are_those_of_the_core():
    loaded = model_of(last=0.0)
    torch.nn.init.constant_(loaded.model.residual.last.bias, 2.0)
    window, pairs, evidence, prob = case(4, core=(7, 25))
    assert prob.shape[1] == 18
    after = prob.copy()
    correct(loaded, window, pairs, evidence, after)
    up = after > prob
    for h, u in pairs:
        assert up[h, u] == window.haplotypes.alt_is_minor[7 + u]


@pytest.mark.parametrize("name", ["default", "context"])
def test_rows_at_once_do_not_matter(name, monkeypatch):
    loaded = model_of(name, overrides=in_context(name))
    window, pairs, evidence, prob = case(5)
    whole, parts = prob.copy(), prob.copy()
    tokens = tokens_of(pairs)
    correct(loaded, window, pairs, evidence, whole, tokens=tokens)
    monkeypatch.setattr(correction, "_ROWS_AT_ONCE", 7)
    correct(loaded, window, pairs, evidence, parts, tokens=tokens)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize("max_context", [2, 5, 64])
def test_sites_in_doubt_of_one_haplotype_see_each_other(max_context):
    layers = ("model.copying.num_context_layers=2", f"model.copying.max_context={max_context}")
    loaded = model_of("context", overrides=layers)
    window, pairs, evidence, prob = case(6)
    after = prob.copy()
    tokens = tokens_of(pairs)
    correct(loaded, window, pairs, evidence, after, tokens=tokens)
    residual = loaded.model.residual
    minor = window.haplotypes.alt_is_minor
    for h in range(len(prob)):
        mine = np.flatnonzero(pairs[:, 0] == h)
        num_pieces = -(-len(mine) // max_context)
        edges = [i * len(mine) // num_pieces for i in range(num_pieces + 1)]
        for piece in (mine[a:b] for a, b in pairwise(edges)):
            cm = torch.from_numpy(window.position_cm[pairs[piece, 1]].astype(np.float32))
            with torch.inference_mode():
                change = residual(
                    torch.from_numpy(evidence[piece])[None], cm[None],
                    torch.zeros(1, len(piece), dtype=torch.bool),
                    torch.from_numpy(tokens[piece])[None],
                )[0].double().numpy()  # fmt: skip
            u = pairs[piece, 1]
            moved = logit(prob[h, u].astype(np.float64)) + np.where(minor[u], change, -change)
            np.testing.assert_allclose(after[h, u], 1 / (1 + np.exp(-moved)), atol=2e-6)


@pytest.mark.parametrize("bias", [60.0, -60.0])
def test_probabilities_stay_within_limits(bias):
    loaded = model_of(last=0.0)
    torch.nn.init.constant_(loaded.model.residual.last.bias, bias)
    window, pairs, evidence, prob = case(7)
    prob[pairs[0, 0], pairs[0, 1]] = 0.0
    prob[pairs[1, 0], pairs[1, 1]] = 1.0
    correct(loaded, window, pairs, evidence, prob)
    assert np.isfinite(prob).all()
    assert prob.min() >= 0
    assert prob.max() <= 1


def test_no_pair_in_doubt():
    window, _, _, prob = case(8)
    before = prob.copy()
    nothing = np.zeros((0, 2), np.int64), np.zeros((0, NUM_FEATURES), np.float32)
    for name in ("default", "context"):
        correct(
            model_of(name, overrides=in_context(name)),
            window,
            *nothing,
            prob,
            tokens=empty_tokens(0, 16),
        )
    np.testing.assert_array_equal(prob, before)


def test_states_that_are_read_count():
    loaded = model_of("context")
    window, pairs, evidence, prob = case(10)
    one, two = prob.copy(), prob.copy()
    correct(loaded, window, pairs, evidence, one, tokens=tokens_of(pairs, 1))
    correct(loaded, window, pairs, evidence, two, tokens=tokens_of(pairs, 2))
    at = pairs[:, 0], pairs[:, 1]
    assert (one[at] != two[at]).mean() > 0.95
    with pytest.raises(ValueError, match="needs tokens"):
        correct(loaded, window, pairs, evidence, prob)


def test_a_token_model_has_nothing_to_add():
    window, pairs, evidence, prob = case(9)
    with pytest.raises(ValueError, match="no residual"):
        correct(model_of("v10-small"), window, pairs, evidence, prob)


def test_devices(monkeypatch):
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="sees 0 CUDA devices") as caught:
        choose_device("cuda")
    assert "--device cpu" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(InputError, match="sees 1 CUDA devices"):
        choose_device("cuda:1")
    for name in ("gpu", "meta", ""):
        with pytest.raises(InputError, match="there is no device"):
            choose_device(name)
