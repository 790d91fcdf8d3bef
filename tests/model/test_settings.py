"""Settings beside config.yaml: the same values, read only while that is the same."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ragimpute.config import load_config
from ragimpute.errors import ConfigError
from ragimpute.model.checkpoint import load_model, save_model
from ragimpute.model.folder import CONFIG, WEIGHTS, open_folder
from ragimpute.model.settings import FILE, read_settings, write_settings
from ragimpute.presets import models_dir, preset_names


def tree(value):
    """What :func:`read_settings` gives, as JSON would hold it."""
    if isinstance(value, SimpleNamespace):
        return {key: tree(item) for key, item in vars(value).items()}
    return [tree(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", preset_names())
def test_values_are_those_of_the_config(name, tmp_path):
    config = load_config(name)
    (tmp_path / CONFIG).write_text("any text")
    write_settings(tmp_path / FILE, config, b"any text")
    assert tree(read_settings(tmp_path, CONFIG)) == config.model_dump(mode="json")


def test_every_shipped_model_has_them():
    shipped = [name for name in preset_names() if (models_dir() / name / WEIGHTS).is_file()]
    for name in shipped:
        found = read_settings(models_dir() / name, CONFIG)
        assert found is not None, "make them anew: packaging/make_weights.py"
        assert tree(found) == load_config(name).model_dump(mode="json")
        assert open_folder(name).config == load_config(name)


def test_a_config_that_was_changed_is_read_and_checked(tmp_path):
    loaded = load_model("default")
    save_model(tmp_path, loaded.model, loaded.config, {})
    assert read_settings(tmp_path, CONFIG) is not None
    text = (tmp_path / CONFIG).read_text()
    (tmp_path / CONFIG).write_text(text.replace("doubt: 0.01", "doubt: 0.02", 1))
    assert read_settings(tmp_path, CONFIG) is None
    assert open_folder(tmp_path).settings.model.copying.doubt == 0.02
    (tmp_path / CONFIG).write_text(text + "nonsense: 1\n")
    with pytest.raises(ConfigError, match="nonsense is not a setting"):
        open_folder(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"\xff", b'{"version": "0"}', b"null", b"[" * 100_000]
)
def test_what_cannot_be_read_is_left_alone(content, tmp_path):
    loaded = load_model("default")
    save_model(tmp_path, loaded.model, loaded.config, {})
    (tmp_path / FILE).write_bytes(content)
    assert read_settings(tmp_path, CONFIG) is None
    assert open_folder(tmp_path).settings == loaded.config
    (tmp_path / FILE).unlink()
    assert open_folder(tmp_path).settings == loaded.config


def test_a_shipped_model_is_opened_without_pydantic():
    code = (
        "import sys\n"
        "from ragimpute.model.folder import open_folder\n"
        "assert open_folder('default').is_copying\n"
        "print([name for name in ('pydantic', 'torch') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.replace("'", '"')) == []
