"""docs/training.md names every setting with its default, and nothing that is not there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from ragimpute.config import MaskPart, RunConfig, load_config
from ragimpute.model.bert_rag import build
from ragimpute.model.fusion import FUSIONS
from ragimpute.presets import preset_names
from ragimpute.training.data.masks import MASKS

PAGE = Path(__file__).parents[1] / "docs" / "training.md"


def settings(model: type[BaseModel], values: BaseModel, prefix: str = ""):
    """(name, default, annotation) of every setting that is not a group."""
    for name, field in model.model_fields.items():
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            yield from settings(type(value), value, f"{prefix}{name}.")
        elif name == "parts":
            yield from settings(MaskPart, MaskPart(), f"{prefix}{name}[].")
        else:
            yield f"{prefix}{name}", value, field.annotation


SETTINGS = {name: (value, kind) for name, value, kind in settings(RunConfig, RunConfig())}


def written(value: Any) -> str:
    """A default as the table writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(map(written, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'


@pytest.fixture(scope="module")
def page():
    """The page's text."""
    return PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page):
    """Name, default and meaning of each row of the tables of settings."""
    found = re.findall(r"^\| `([a-z_0-9.\[\]]+)` \| `([^`]*)` \| (.+) \|$", page, re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in found}


def test_every_setting_has_one_row(page, rows):
    assert list(rows) == list(SETTINGS)
    for name in SETTINGS:
        assert page.count(f"| `{name}` |") == 1, name


def test_defaults_are_right(rows):
    on_page = {name: default for name, (default, _) in rows.items()}
    assert on_page == {name: written(value) for name, (value, _) in SETTINGS.items()}
    for name, (_, kind) in SETTINGS.items():
        for choice in (c for c in get_args(kind) if isinstance(c, str)):
            assert f"`{choice}`" in rows[name][1], f"{name}: {choice}"


def test_commands_parse(page):
    from typer.testing import CliRunner

    from ragimpute.cli.main import app

    commands = re.findall(
        r"^(?:(?:torchrun|accelerate launch) .*-m )?ragimpute (.+)$", page, re.MULTILINE
    )
    assert len(commands) >= 10
    seen = set()
    for command in commands:
        words = shlex.split(command, comments=True)
        seen.add(words[0])
        # Every option exists: asking for help after it parses those before.
        result = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200"})
        for word in words[1:]:
            if word.startswith("--") or re.fullmatch("-[a-z]", word):
                assert re.search(rf"(?<![\w-]){word}(?![\w-])", result.output), command
    assert {"prepare", "train", "impute", "evaluate"} <= seen


def test_overrides_are_accepted(page):
    overrides = re.findall(r"--set '?([^\s'`]+)'?", page)
    assert len(overrides) >= 4
    for override in overrides:
        load_config("default", overrides=[override])


def test_configurations_load(page, tmp_path):
    found = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(found) >= 2
    for number, text in enumerate(found):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        assert load_config(path).name == "mine"


def test_the_number_of_parameters_is_that_of_the_preset(page):
    presets = ("default", "v10-small", "v10-rag-small")
    sizes = {build(load_config(name).model).num_parameters() for name in presets}
    on_page = set(re.findall(r"^ parameters +([\d,]+)$", page, re.MULTILINE))
    assert on_page == {f"{size:,}" for size in sizes}


def test_names_are_those_of_the_registries(page):
    for name in [*MASKS, *FUSIONS, "copying"]:
        assert f"`{name}`" in page
    for name in preset_names():
        assert f"`{name.removesuffix('-small')}`" in page


def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page):
        assert link.startswith("https://") or (PAGE.parent / link).exists(), link
