"""Model folders: what was written comes back whole, and what does not belong is refused."""

from __future__ import annotations

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ragimpute import __version__
from ragimpute.config import load_config
from ragimpute.errors import ConfigError, ModelError
from ragimpute.evidence.features import NUM_FEATURES, TOKEN_FEATURES
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import (
    load_model,
    load_weights,
    save_model,
    save_weights,
    write_text,
)
from ragimpute.model.folder import CONFIG, PROVENANCE, WEIGHTS, input_fingerprint, sort_header
from ragimpute.model.settings import FILE as SETTINGS
from tests.model_configs import config_of

NAMES = ["default", "states", "v10-small", "embedding-rag-small"]


def made(name="default", seed=1):
    """A config, and a model of it whose parameters are all random."""
    config = config_of(name)
    torch.manual_seed(seed)
    model = build(config.model)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(torch.rand_like(value))
    return config, model


def assert_same(a, b):
    """Equal tensors, bit for bit."""
    a, b = a.state_dict(), b.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_comes_back(tmp_path, name):
    config, model = made(name)
    folder = tmp_path / "model"
    save_model(folder, model, config, {"seed": 3, "panel": "abc"})
    loaded = load_model(folder)
    assert (loaded.name, loaded.config, loaded.trained) == (str(folder), config, True)
    assert loaded.provenance == {"seed": 3, "panel": "abc"}
    assert not loaded.model.training
    assert_same(loaded.model, model)
    assert sorted(os.listdir(folder)) == sorted([CONFIG, PROVENANCE, SETTINGS, WEIGHTS])


def test_shared_parts_are_stored_once(tmp_path):
    config, model = made("v10-small")
    save_weights(tmp_path / WEIGHTS, model, config)
    stored = load_file(tmp_path / WEIGHTS)
    unique = {id(value) for value in model.state_dict(keep_vars=True).values()}
    assert len(stored) == len(unique) < len(model.state_dict())
    assert sum(value.numel() for value in stored.values()) >= model.num_parameters()


def test_an_existing_folder_is_replaced(tmp_path):
    folder = tmp_path / "model"
    save_model(folder, made("v10-small")[1], made("v10-small")[0], {"seed": 1})
    config, model = made("default", seed=2)
    save_model(folder, model, config, {"seed": 2})
    loaded = load_model(folder)
    assert loaded.config.name == "default"
    assert loaded.provenance == {"seed": 2}
    assert_same(loaded.model, model)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    config, model = made()
    path = tmp_path / WEIGHTS
    save_weights(path, model, config)
    write_text(tmp_path / "note", "before")
    before = path.read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        save_weights(path, made(seed=2)[1], config)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "note", "after")
    assert path.read_bytes() == before
    assert (tmp_path / "note").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["note", WEIGHTS]


def test_shipped_models_load_by_name():
    loaded = load_model("default")
    assert loaded.name == "default"
    assert loaded.model.is_copying
    assert loaded.config == load_config("default")


def test_an_untrained_copying_model_is_li_stephens(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / CONFIG).write_text("extends: default\nname: mine\n")
    loaded = load_model(folder)
    assert not loaded.trained
    assert loaded.provenance == {}
    x = torch.randn(5, loaded.model.residual.mean.numel())
    assert torch.equal(loaded.model.residual(x), torch.zeros(5))


def test_a_token_model_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelError, match="token model knows nothing") as caught:
        load_model("v10-small")
    assert "ragimpute train" in caught.value.hint


@pytest.fixture
def folder(tmp_path):
    """A model folder to be damaged."""
    config, model = made()
    save_model(tmp_path / "m", model, config, {})
    return tmp_path / "m"


def rewrite(folder, *, change=None, **about):
    """Write the weights again, with other tensors or another header."""
    path = folder / WEIGHTS
    tensors = load_file(path)
    header = {"format": "1", "ragimpute": __version__, "input": input_fingerprint(made()[0])}
    if change is not None:
        change(tensors)
    save_file(tensors, path, metadata=header | about)


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_truncated_weights(folder, size):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:size])
    with pytest.raises(ModelError, match="cannot be read") as caught:
        load_model(folder)
    assert str(folder / WEIGHTS) in caught.value.message
    assert "\n" not in caught.value.message


def test_weights_that_are_unreadable(folder):
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\n" * 5)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(folder)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"format": "9", "ragimpute": "7.1"}, "made by ragimpute 7.1 for format 9"),
        ({"input": "evidence-3-abc"}, "for input evidence-3-abc"),
        ({"input": "tokens-1"}, "for input tokens-1"),
    ],
)
def test_weights_of_another_kind(folder, about, message):
    rewrite(folder, **about)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert message in caught.value.message
    assert "train the model again" in caught.value.hint


def test_weights_without_a_header(folder):
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)
    with pytest.raises(ModelError, match=r"made by ragimpute \(unknown\) for format None"):
        load_model(folder)


def _drop(tensors):
    del tensors["residual.last.bias"]


def _add(tensors):
    tensors["residual.more"] = torch.zeros(1)


def _reshape(tensors):
    tensors["residual.last.weight"] = torch.zeros(1, 3)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (_drop, "residual.last.bias"),
        (_add, "residual.more"),
        (_reshape, "residual.last.weight"),
    ],
)
def test_weights_that_do_not_fit(folder, change, name):
    rewrite(folder, change=change)
    with pytest.raises(ModelError, match=f"1 tensors differ, e.g. {name}") as caught:
        load_model(folder)
    assert CONFIG in caught.value.hint


def test_weights_of_another_config(folder):
    (folder / CONFIG).write_text("extends: default\nmodel: {copying: {width: 32}}\n")
    with pytest.raises(ModelError, match="do not fit their config"):
        load_model(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    def spoil(tensors):
        tensors["residual.hidden.0.weight"][1, 2] = value

    rewrite(folder, change=spoil)
    with pytest.raises(ModelError, match=r"not finite, in residual\.hidden\.0\.weight"):
        load_model(folder)


def test_refused_weights_change_nothing(folder):
    config, model = made(seed=5)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def spoil(tensors):
        tensors["residual.last.bias"][0] = float("nan")

    rewrite(folder, change=spoil)
    with pytest.raises(ModelError):
        load_weights(folder / WEIGHTS, model, config)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_provenance_that_is_no_json(folder):
    (folder / PROVENANCE).write_text("{")
    with pytest.raises(ModelError, match=r"provenance\.json cannot be read"):
        load_model(folder)


def test_what_is_not_a_model(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no config\.yaml, so it is not a model"):
        load_model(tmp_path / "empty")
    with pytest.raises(ModelError, match="is a file") as caught:
        load_model(folder / WEIGHTS)
    assert "folder that holds it" in caught.value.hint
    with pytest.raises(ModelError, match="there is no model defualt") as caught:
        load_model("defualt")
    assert "default" in caught.value.hint
    (folder / CONFIG).write_text("modle: {}\n")
    with pytest.raises(ConfigError, match="modle is not a setting"):
        load_model(folder)


def test_fingerprints_tell_inputs_apart(monkeypatch):
    copying, tokens = (input_fingerprint(load_config(name)) for name in ("default", "v10"))
    assert tokens == "tokens-2"
    reads_states = input_fingerprint(config_of("states"))
    assert reads_states.startswith(f"evidence-{NUM_FEATURES + len(TOKEN_FEATURES)}-")
    without = config_of("states", ["model.copying.num_set_tokens=0"])
    assert input_fingerprint(without) == copying != reads_states
    monkeypatch.setattr("ragimpute.evidence.features.FEATURES", ("posterior", "maf"))
    other = input_fingerprint(load_config("default"))
    assert other.startswith("evidence-2-")
    assert other != copying


def test_provenance_is_sorted_json(folder):
    config, model = made()
    save_model(folder, model, config, {"b": 1, "a": {"d": None, "c": [1]}})
    text = (folder / PROVENANCE).read_text()
    assert json.loads(text) == {"a": {"c": [1], "d": None}, "b": 1}
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


@settings(max_examples=30, deadline=None)
@given(
    about=st.dictionaries(st.text(max_size=6), st.text(max_size=9), max_size=8),
    shapes=st.dictionaries(st.text(min_size=1, max_size=6), st.integers(0, 9), max_size=8),
)
def test_equal_content_makes_equal_bytes(tmp_path_factory, about, shapes):
    """The library writes metadata in an order that changes from one file to the next."""
    shapes.pop("__metadata__", None)
    folder = tmp_path_factory.mktemp("equal")
    tensors = {name: torch.arange(size) for name, size in shapes.items()}
    content = set()
    for i in range(4):
        path = folder / f"{i}.safetensors"
        save_file(tensors, str(path), metadata=about or None)
        sort_header(path)
        content.add(path.read_bytes())
    assert len(content) == 1
    with safe_open(str(path), framework="pt") as file:
        assert (file.metadata() or {}) == about
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {
            name: value.tolist() for name, value in tensors.items()
        }


@pytest.mark.parametrize("name", NAMES)
def test_equal_models_make_equal_folders(tmp_path, name):
    config, model = made(name)
    for i in range(3):
        save_model(tmp_path / str(i), model, config, {"b": 1, "a": {"d": 2, "c": 3}})
    for file in (WEIGHTS, CONFIG, PROVENANCE):
        assert len({(tmp_path / str(i) / file).read_bytes() for i in range(3)}) == 1
