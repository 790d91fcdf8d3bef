"""Files of coefficients: read as they were written, and refused in one line if they are amiss."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.accuracy.coefficients import Coefficients, read_coefficients
from ragimpute.errors import ModelError

TERMS = ("slope", "rare")


def read(path):
    return read_coefficients(path, "2", TERMS, lambda values: values[0] > 0)


@given(slope=st.floats(1e-9, 1e9), rare=st.floats(-1e9, 1e9))
def test_what_is_written_is_read(tmp_path_factory, slope, rare):
    path = tmp_path_factory.mktemp("c") / "c.json"
    told = Coefficients((slope, rare), {"panels": 3})
    path.write_text(told.as_json("2", TERMS))
    assert read(path) == told


def test_a_folder_without_the_file(tmp_path):
    assert read(tmp_path / "c.json") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "1"}, "it is of version 1, not 2"),
        ({"coefficients": {"slope": 1.0}}, "its coefficients are of other terms"),
        ({"coefficients": {"slope": -1.0, "rare": 0.0}}, "its coefficients are amiss"),
        ({"coefficients": {"slope": float("nan"), "rare": 0.0}}, "its coefficients are amiss"),
        ({"coefficients": {"slope": "x", "rare": 0.0}}, "could not convert"),
        ({"coefficients": None}, "not iterable"),
    ],
)
def test_damaged_files(tmp_path, change, said):
    path = tmp_path / "c.json"
    about = json.loads(Coefficients((1.0, 2.0), {}).as_json("2", TERMS))
    path.write_text(json.dumps(about | change))
    with pytest.raises(ModelError, match=said) as refused:
        read(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', "{}"])
def test_other_texts(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ModelError, match="cannot be read"):
        read(path)
