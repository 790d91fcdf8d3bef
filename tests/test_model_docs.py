"""docs/model.md names the features, fusions and presets that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from ragimpute.config import FusionName
from ragimpute.evidence.features import FEATURES, TOKEN_FEATURES
from ragimpute.evidence.site_states_kernel import STATE_FEATURES
from ragimpute.model.evidence import SITE_FEATURES
from ragimpute.model.fusion import FUSIONS
from ragimpute.presets import preset_names

PAGE = Path(__file__).resolve().parent.parent / "docs" / "model.md"


def first_columns(header):
    """Names in the first column of the table that has this header."""
    lines = PAGE.read_text().splitlines()
    start = lines.index(header) + 2
    names = []
    for line in lines[start:]:
        if not line.startswith("|"):
            return names
        names += re.findall(r"`([\w-]+)`", line.split("|")[1])
    return names


def test_every_feature_is_explained():
    assert first_columns("| feature | meaning | unit |") == list(FEATURES)


def test_every_number_of_a_token_is_explained():
    assert first_columns("| number | meaning | unit |") == list(TOKEN_FEATURES)


def test_everything_that_copying_says_to_token_models_is_explained():
    assert first_columns("| state | meaning | unit |") == list(STATE_FEATURES)
    assert first_columns("| site | meaning | unit |") == list(SITE_FEATURES)


def test_every_fusion_is_explained():
    explained = first_columns("| fusion | what it computes | why |")
    assert sorted(explained) == sorted([*FUSIONS, "copying"]) == sorted(get_args(FusionName))


def test_every_preset_is_listed():
    assert sorted(first_columns("| preset | what |")) == preset_names()
