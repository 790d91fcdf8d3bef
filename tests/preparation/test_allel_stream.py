"""scikit-allel HDF5 files, read in a process of its own."""

from __future__ import annotations

import os
import time

import h5py
import numpy as np
import pytest

from ragimpute.errors import InputError
from ragimpute.io.counts import RecordCounts
from ragimpute.preparation.allel_hdf5 import AllelReader
from ragimpute.preparation.allel_stream import AllelStream
from ragimpute.sites import Region
from tests.preparation.test_allel_hdf5 import collect, write_call_set


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_call_set(file)
    return tmp_path / "x.h5"


def test_it_gives_what_the_reader_gives(path):
    reader = AllelReader(path)
    expected = collect(reader)
    stream = AllelStream(path, batch_bytes=12)
    assert (stream.samples, stream.contig, stream.num_sites) == (["a", "b", "c"], "20", 4)
    for _ in range(2):
        keys, alleles = collect(stream)
        assert keys == expected[0]
        np.testing.assert_array_equal(alleles, expected[1])
    assert stream.counts == reader.counts == RecordCounts(4, 1, {"no_alt": 1})
    next(iter(stream))  # and no further
    assert collect(stream)[0] == expected[0]
    assert AllelStream(path, region=Region("20", 150, 250)).num_sites == 1


def test_its_errors_are_the_readers(path):
    with pytest.raises(InputError, match="has no contig 3; it holds 20"):
        AllelStream(path, region=Region("3"))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="cannot be read as HDF5") as caught:
        AllelStream(path)
    assert "allel.vcf_to_hdf5" in caught.value.hint


def hang(pipe, *_):
    pipe.send(("value", None))
    pipe.send(("alive", None))
    time.sleep(3600)  # until it is killed


def crash(pipe, *_):
    pipe.send(("value", None))
    os.abort()


def hang_later(pipe, *_):
    pipe.send(("value", None))
    pipe.send(("value", (["a"], "20", 1)))
    time.sleep(3600)  # until it is killed


@pytest.mark.parametrize(
    ("serve", "patience_s", "said"),
    [(hang, 0.1, r"nothing came for 0\.1 s"), (crash, 3600.0, "ended without a word")],
)
def test_a_library_that_does_not_come_back(path, monkeypatch, serve, patience_s, said):
    monkeypatch.setattr("ragimpute.preparation.allel_stream._serve", serve)
    with pytest.raises(InputError, match=said):
        AllelStream(path, patience_s=patience_s)


def test_a_library_that_stops_half_way(path, monkeypatch):
    monkeypatch.setattr("ragimpute.preparation.allel_stream._serve", hang_later)
    stream = AllelStream(path)
    stream.patience_s = 0.1
    with pytest.raises(InputError, match=r"nothing came for 0\.1 s"):
        list(stream)
    assert not stream._process.is_alive()
