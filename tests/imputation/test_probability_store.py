"""What is put by haplotypes comes back by sites, from memory and from disk."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.errors import InputError
from ragimpute.imputation.probability_store import Spool


@settings(deadline=None)
@given(
    num=st.integers(1, 9),
    sites=st.integers(1, 40),
    batch=st.integers(1, 10),
    width=st.integers(1, 30),
    tile_bytes=st.integers(1, 400),
    on_disk=st.booleans(),
)
def test_rows_come_back_as_columns(num, sites, batch, width, tile_bytes, on_disk):
    values = np.random.default_rng(num * sites).random((num, sites), np.float32)
    limit = 0 if on_disk else 4 * num * sites
    with Spool(num, sites, max_bytes=limit, tile_bytes=tile_bytes) as spool:
        assert spool.on_disk == on_disk
        for first in reversed(range(0, num, batch)):
            for site in reversed(range(0, sites, width)):
                spool.put(first, values[first : first + batch, site : site + width], site)
        tiles = [(*tile, spool.take(*tile)) for tile in spool.tiles]
    assert [t[0] for t in tiles] == [0, *(t[1] for t in tiles[:-1])]
    assert tiles[-1][1] == sites
    assert all(part.nbytes <= max(tile_bytes, 4 * num) for _, _, part in tiles)
    np.testing.assert_array_equal(np.concatenate([part for _, _, part in tiles]), values.T)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    pieces=st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(0, 19), st.integers(1, 20)),
        max_size=6,
    ),
    on_disk=st.booleans(),
)
def test_what_is_put_again_replaces_what_was_there(seed, pieces, on_disk):
    rng = np.random.default_rng(seed)

    def draw(shape):  # with zeros and ones, which take no room in the file
        return rng.choice([0.0, 0.25, 1.0], shape).astype(np.float32)

    values = draw((6, 20))
    with Spool(6, 20, max_bytes=0 if on_disk else 480, tile_bytes=100) as spool:
        spool.put(0, values)
        for first, num, site, width in pieces:
            part = draw(values[first : first + num, site : site + width].shape)
            spool.put(first, part, site)
            values[first : first + num, site : site + width] = part
        tiles = [spool.take(*tile) for tile in spool.tiles]
    np.testing.assert_array_equal(np.concatenate(tiles), values.T)


def test_the_file_has_no_name_and_is_gone_in_the_end(tmp_path):
    with Spool(10, 100, max_bytes=0, tile_bytes=400, folder=tmp_path) as spool:
        spool.put(0, np.zeros((10, 100), np.float32))
        assert list(tmp_path.iterdir()) == []
        descriptor = spool._file.fileno()
        assert os.fstat(descriptor).st_size == 10 * 10 * 16  # each tile's bits and counts
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_does_not_fit_is_refused():
    with Spool(4, 10, max_bytes=10**6, tile_bytes=100) as spool:
        with pytest.raises(ValueError, match="do not fit 4 x 10"):
            spool.put(3, np.zeros((2, 10), np.float32))
        with pytest.raises(ValueError, match="do not fit"):
            spool.put(0, np.zeros((2, 9), np.float32), 2)
        with pytest.raises(ValueError, match="at sites from -1 on do not fit"):
            spool.put(0, np.zeros((2, 9), np.float32), -1)
    with Spool(4, 10, max_bytes=0, tile_bytes=100) as spool:
        spool.put(0, np.zeros((2, 10), np.float32))
        with pytest.raises(ValueError, match="not all were put"):
            spool.take(*spool.tiles[0])


def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with (
        Spool(4, 10, max_bytes=0, tile_bytes=100, folder=tmp_path) as spool,
        pytest.raises(InputError, match="No space left on device") as caught,
    ):
        spool.put(0, np.zeros((2, 10), np.float32))
    assert str(tmp_path) in caught.value.message
    missing = tmp_path / "none"
    with pytest.raises(InputError, match="No such file"):
        Spool(4, 10, max_bytes=0, tile_bytes=100, folder=missing)
