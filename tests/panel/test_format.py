"""The file of a panel: opened and created, its text columns, its windows."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute.errors import InputError, PanelError
from ragimpute.panel.format import (
    Column,
    RawFile,
    create,
    cut_windows,
    decode_text,
    encode_text,
    new_file,
    open_file,
    reading,
)


def test_columns_grow_by_any_steps(tmp_path):
    values = np.arange(1_000, dtype="<i4")
    digests = []
    for step in (1, 7, 64, 1_000):
        with new_file(tmp_path / "x.h5") as raw, create(raw) as file:
            column = Column(file, "a/b", "<i4", chunk=64)
            for start in range(0, 1_000, step):
                column.append(values[start : start + step])
            digests.append(column.close())
            np.testing.assert_array_equal(file["a/b"][:], values)
            assert file["a/b"].attrs["digest"].decode() == digests[-1]
    assert len(set(digests)) == 1


def test_a_failed_file_is_removed_and_keeps_its_cause(tmp_path):
    with pytest.raises(ZeroDivisionError), new_file(tmp_path / "x.h5"):
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="of another kind"), new_file(tmp_path / "x.h5"):
        raise RuntimeError("of another kind")

    def fill_the_disk():
        with new_file(tmp_path / "x.h5") as raw:
            raw.error = OSError(28, "No space left on device")
            raise RuntimeError("what HDF5 says after a failed write")

    with pytest.raises(InputError, match="No space left"):
        fill_the_disk()
    assert os.listdir(tmp_path) == []


def test_raw_file_keeps_the_first_error():
    with (
        open("/dev/full", "rb+", buffering=0) as full,
        RawFile(full.fileno(), closefd=False) as raw,
    ):
        raw.check()
    with RawFile("/dev/full", "w") as raw:
        assert raw.write(b"1234") == 4
        assert raw.write(b"56") == 2
        with pytest.raises(OSError, match="No space left"):
            raw.check()


def test_only_panels_are_opened(tmp_path):
    path = tmp_path / "x.h5"
    with new_file(path) as raw, create(raw) as file:
        file.attrs["format"] = np.bytes_("other")
    with pytest.raises(PanelError, match="not a panel") as caught:
        open_file(path)
    assert "ragimpute prepare" in caught.value.hint


def test_reading_names_the_panel(tmp_path):
    with (
        pytest.raises(PanelError, match=r"p\.h5 is damaged: bad thing"),
        reading(tmp_path / "p.h5"),
    ):
        raise OSError("bad thing\nand more")


@given(st.lists(st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=5)))
def test_text(values):
    assert decode_text(encode_text(values)).tolist() == values


@given(
    st.lists(st.floats(0, 0.7), min_size=1, max_size=300),
    st.floats(0.05, 3),
    st.sampled_from([1, 20]),
)
def test_windows(steps, window_cm, times):
    position_cm = np.cumsum(np.repeat(steps, times) / times)
    windows = cut_windows(position_cm, window_cm)
    bounds = np.append(windows[:, 0], len(position_cm))
    assert bounds[0] == 0
    np.testing.assert_array_equal(windows[:, 1], bounds[1:])
    assert (np.diff(bounds) > 0).all()
    assert np.diff(bounds).max() <= 1_020
    spans = position_cm[windows[:, 1] - 1] - position_cm[windows[:, 0]]
    assert spans.max() <= window_cm * (1 + 1e-9)


@pytest.mark.parametrize("num_sites", [1, 1_020, 1_021])
def test_windows_without_recombination(num_sites):
    windows = cut_windows(np.zeros(num_sites), 1.0)
    assert len(windows) == -(-num_sites // 1_020)
