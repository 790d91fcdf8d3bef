"""A copying model's network as imputation uses it: from memory, from a folder, without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.copying_model.pair_network import PairNetwork, needs_torch, split_sequences
from ragimpute.errors import ModelError
from ragimpute.model.checkpoint import load_model, save_model
from ragimpute.model.folder import CONFIG, WEIGHTS, open_folder
from ragimpute.presets import models_dir
from tests.copying_model.test_correction import case, in_context, model_of, network_of, tokens_of


def assert_same(one, two):
    """Networks of the same numbers, bit for bit."""
    assert vars(one.config.model.copying) == vars(two.config.model.copying)
    np.testing.assert_array_equal(one.site.mean, two.site.mean)
    np.testing.assert_array_equal(one.site.scale, two.site.scale)
    assert len(one.site.layers) == len(two.site.layers) == 3
    for a, b in zip(one.site.layers, two.site.layers, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


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


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), False),
        (("model.copying.num_set_tokens=16",), True),
        (("model.copying.num_context_layers=1",), True),
    ],
)
def test_torch_is_for_what_is_more_than_site_by_site(overrides, expected):
    assert needs_torch(load_config("default", overrides=overrides)) is expected


@pytest.mark.parametrize("name", ["default", "states"])
def test_a_folder_is_its_model(name, tmp_path):
    where = folder_of(name, tmp_path)
    one, two = PairNetwork.of_folder(open_folder(where)), PairNetwork.of_model(load_model(where))
    assert_same(one, two)
    assert (one.residual is None) == (name == "default")
    window, pairs, evidence, _ = case(1)
    tokens = tokens_of(pairs) if one.num_tokens else None
    assert one.num_tokens == (16 if name == "states" else 0)
    change = one.change(window, pairs, evidence, tokens)
    assert np.abs(change).mean() > 0.01
    np.testing.assert_array_equal(two.change(window, pairs, evidence, tokens), change)


def test_a_model_in_memory_is_copied():
    loaded = model_of()
    network = PairNetwork.of_model(loaded)
    window, pairs, evidence, _ = case(2)
    before = network.change(window, pairs, evidence, None)
    for value in loaded.model.state_dict().values():
        value.zero_()
    np.testing.assert_array_equal(network.change(window, pairs, evidence, None), before)
    assert (PairNetwork.of_model(loaded).site.layers[0][0] == 0).all()


@pytest.mark.parametrize("kind", ["default", "states", "see each other"])
def test_threads_and_batches_do_not_matter(kind, monkeypatch):
    name = "default" if kind == "default" else "states"
    network = network_of(name, overrides=() if kind == "states" else in_context(name))
    window, pairs, evidence, _ = case(3)
    tokens = tokens_of(pairs) if network.num_tokens else None
    whole = network.change(window, pairs, evidence, tokens)
    monkeypatch.setattr(
        "ragimpute.copying_model.pair_network._ROWS_AT_ONCE", 1024
    )  # 16 rows with states
    several = network.change(window, pairs, evidence, tokens)
    np.testing.assert_allclose(several, whole, atol=1e-5)
    shared = replace(network, threads=3).change(window, pairs, evidence, tokens)
    np.testing.assert_array_equal(shared, several)


@pytest.mark.parametrize("name", ["default", "states"])
def test_tuning_moves_the_layers_of_sites_alone(name):
    network = network_of(name)
    window, pairs, evidence, _ = case(4)
    tokens = tokens_of(pairs) if network.num_tokens else None
    y = (np.random.default_rng(1).random(len(pairs)) < 0.5).astype(np.float32)
    tuned = network.tuned(evidence, tokens, y)
    assert tuned.residual is network.residual
    for (w, b), (u, c) in zip(network.site.layers, tuned.site.layers, strict=True):
        assert (w != u).any()
        assert (b != c).any()
    change = [x.change(window, pairs, evidence, tokens) for x in (network, tuned)]
    assert (change[0] != change[1]).mean() > 0.9
    np.testing.assert_allclose(change[1], change[0], atol=0.5)


def test_sites_that_see_each_other_are_not_tuned():
    assert network_of().can_be_tuned
    assert network_of("states").can_be_tuned
    assert not network_of("states", overrides=in_context("states")).can_be_tuned


def test_a_token_model_has_no_such_network():
    with pytest.raises(ValueError, match="no residual"):
        PairNetwork.of_model(model_of("v10-small"))


def folder_of(name, tmp_path):
    """A copy of the shipped model, or a folder of one that reads states."""
    if name == "states":
        loaded = model_of("states")
        save_model(tmp_path / "model", loaded.model, loaded.config, {})
    else:
        (tmp_path / "model").mkdir()
        for file in (CONFIG, WEIGHTS):
            shutil.copy(models_dir() / name / file, tmp_path / "model" / file)
    return tmp_path / "model"


@pytest.fixture(params=["default", "states"])
def folder(request, tmp_path):
    """A model's folder, one for each way to read it; to be damaged."""
    return folder_of(request.param, tmp_path)


def rewrite(folder, change):
    """Write the weights again with other tensors."""
    path = folder / WEIGHTS
    with safe_open(path, framework="numpy") as file:
        about = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=about)


def refused(folder, found):
    """The line that says why weights are refused."""
    with pytest.raises(ModelError) as caught:
        PairNetwork.of_folder(found)
    assert str(folder / WEIGHTS) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("size", [None, 0, 100, -1])
def test_damaged_weights(folder, size):
    found = open_folder(folder)
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    if size is not None:
        (folder / WEIGHTS).write_bytes(content[:size])
    assert "cannot be read" in refused(folder, found)


def _drop(tensors):
    del tensors["residual.last.bias"]


def _add(tensors):
    tensors["residual.more"] = np.zeros(1, np.float32)


def _reshape(tensors):
    tensors["residual.embed.0.weight"] = np.zeros((64, 3), np.float32)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_drop, "residual.last.bias"),
        (_add, "residual.more"),
        (_reshape, "residual.embed.0.weight"),
    ],
)
def test_weights_that_do_not_fit(folder, change, name):
    rewrite(folder, change)
    message = refused(folder, open_folder(folder))
    assert f"do not fit their config: 1 tensors differ, e.g. {name}" in message


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_weights_that_are_not_finite(folder, value):
    def spoil(tensors):
        tensors["residual.hidden.0.bias"][3] = value

    rewrite(folder, spoil)
    message = refused(folder, open_folder(folder))
    assert message.endswith("hold numbers that are not finite, in residual.hidden.0.bias")


def test_the_default_model_imputes_without_torch(panel_h5, tmp_path):
    code = (
        "import sys\n"
        "from ragimpute.imputation.impute import impute\n"
        "done = impute(*sys.argv[1:], fine_tune=True)\n"
        "assert done.settings['correction'] == 'network', done.settings\n"
        "assert 'fine-tune' in done.seconds and 'network' in done.seconds, done.seconds\n"
        "assert 'torch' not in sys.modules\n"
        "print('imputed', done.num_sites)\n"
    )
    arguments = [example.path("target.vcf.gz"), panel_h5, tmp_path / "x.bcf"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["imputed", "6127"]


def test_a_model_that_was_trained_here_is_read_without_torch(tmp_path):
    made = model_of(seed=4)
    save_model(tmp_path / "model", made.model, made.config, {})
    assert_same(PairNetwork.of_folder(open_folder(tmp_path / "model")), PairNetwork.of_model(made))
