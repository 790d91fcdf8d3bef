"""What the residual network changes, and what it must leave alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from slow_copying import mosaic_panel, window_of

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states
from ragimpute.copying_model.correction import correct, read_pairs
from ragimpute.copying_model.pair_network import PairNetwork
from ragimpute.evidence.doubt import in_doubt
from ragimpute.evidence.features import NUM_FEATURES, SITE_FEATURES, TOKEN_FEATURES
from ragimpute.evidence.kernel_arrays import empty_tokens
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import LoadedModel
from tests.model_configs import config_of


def model_of(name="default", seed=1, *, last=0.3, overrides=()):
    """A copying model whose residual is not zero, unless ``last`` is."""
    config = config_of(name, overrides)
    torch.manual_seed(seed)
    model = build(config.model).eval()
    if model.residual is not None:
        torch.nn.init.normal_(model.residual.last.weight, std=last)
        torch.nn.init.normal_(model.residual.last.bias, std=last)
    return LoadedModel(name, config, model, trained=True)


def network_of(*args, **options):
    """The network of such a model."""
    return PairNetwork.of_model(model_of(*args, **options))


def in_context(name):
    """What makes the sites in doubt of a haplotype see each other."""
    return ("model.copying.num_context_layers=1",) if name == "states" else ()


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


@pytest.mark.parametrize("name", ["default", "states"])
def test_an_untrained_model_is_li_stephens_bit_for_bit(name):
    window, pairs, evidence, prob = case(1)
    after = prob.copy()
    correct(
        network_of(name, last=0.0, overrides=in_context(name)),
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
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, after)
    minor = window.haplotypes.alt_is_minor
    assert 0 < minor[pairs[:, 1]].mean() < 1
    for h, u in pairs:
        expected = logit(np.float64(prob[h, u])) + (0.7 if minor[u] else -0.7)
        assert logit(np.float64(after[h, u])) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["default", "states"])
def test_pairs_not_in_doubt_stay(name):
    window, pairs, evidence, prob = case(3)
    after = prob.copy()
    correct(
        network_of(name, overrides=in_context(name)),
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
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, after)
    up = after > prob
    for h, u in pairs:
        assert up[h, u] == window.haplotypes.alt_is_minor[7 + u]


@pytest.mark.parametrize("name", ["default", "states"])
def test_rows_at_once_do_not_matter(name, monkeypatch):
    loaded = model_of(name, overrides=in_context(name))
    window, pairs, evidence, prob = case(5)
    whole, parts = prob.copy(), prob.copy()
    tokens = tokens_of(pairs)
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, whole, tokens=tokens)
    monkeypatch.setattr("ragimpute.copying_model.pair_network._ROWS_AT_ONCE", 7)
    monkeypatch.setattr("ragimpute.model.site_net.ROWS_AT_ONCE", 7)
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, parts, tokens=tokens)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


@pytest.mark.parametrize("max_context", [2, 5, 64])
def test_sites_in_doubt_of_one_haplotype_see_each_other(max_context):
    layers = ("model.copying.num_context_layers=2", f"model.copying.max_context={max_context}")
    loaded = model_of("states", overrides=layers)
    window, pairs, evidence, prob = case(6)
    after = prob.copy()
    tokens = tokens_of(pairs)
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, after, tokens=tokens)
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
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, prob)
    assert np.isfinite(prob).all()
    assert prob.min() >= 0
    assert prob.max() <= 1


def test_no_pair_in_doubt():
    window, _, _, prob = case(8)
    before = prob.copy()
    nothing = np.zeros((0, 2), np.int64), np.zeros((0, NUM_FEATURES), np.float32)
    for name in ("default", "states"):
        correct(
            network_of(name, overrides=in_context(name)),
            window,
            *nothing,
            prob,
            tokens=empty_tokens(0, 16),
        )
    np.testing.assert_array_equal(prob, before)


def test_states_that_are_read_count():
    loaded = model_of("states")
    window, pairs, evidence, prob = case(10)
    one, two = prob.copy(), prob.copy()
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, one, tokens=tokens_of(pairs, 1))
    correct(PairNetwork.of_model(loaded), window, pairs, evidence, two, tokens=tokens_of(pairs, 2))
    at = pairs[:, 0], pairs[:, 1]
    assert (one[at] != two[at]).mean() > 0.95
    with pytest.raises(ValueError, match="needs tokens"):
        correct(PairNetwork.of_model(loaded), window, pairs, evidence, prob)


def test_typed_alleles_are_in_no_doubt():
    window, _, _, prob = case(11, core=(2, 25))
    typed = [1, 18]  # sites 3 and 20, from the core's first; site 30 lies beyond it
    alleles = np.zeros((3, len(prob)), np.int8)
    alleles[1, 2] = -1  # site 20 of one haplotype was not observed
    prob[:] = 0.5
    prob[0, 4], prob[1, 5], prob[2, 6] = 0.019, 0.981, 0.021
    network = network_of(overrides=("model.copying.doubt=0.02",))
    expected = np.ones(prob.shape, bool)
    expected[:, typed] = False
    expected[2, 18] = True
    expected[0, 4] = expected[1, 5] = False
    found = in_doubt(window, alleles, prob, doubt=network.config.model.copying.doubt)
    np.testing.assert_array_equal(found, np.argwhere(expected))


def test_states_are_read_where_the_network_asks_for_them():
    window, pairs, _, _ = case(12)
    alleles = np.zeros((3, 5), np.int8)
    states = all_states(24)
    quality = np.random.default_rng(1).normal(size=(40, len(SITE_FEATURES)))
    options = {
        "states": lambda i: states, "quality": quality.astype(np.float32),
        "homolog_prob": np.full(len(pairs), np.nan, np.float32),
    }  # fmt: skip
    parameters = CopyingParameters(5, 3e-3)
    evidence, tokens = read_pairs(
        network_of("states"), window, alleles, parameters, pairs, **options
    )
    assert tokens.shape == (len(pairs), 16, len(TOKEN_FEATURES))
    assert (tokens != 0).mean() > 0.1
    alone, nothing = read_pairs(network_of(), window, alleles, parameters, pairs, **options)
    assert nothing is None
    np.testing.assert_array_equal(alone, evidence)
    np.testing.assert_array_equal(alone[:, -len(SITE_FEATURES) :], options["quality"][pairs[:, 1]])
