"""Chunks of a panel's datasets, read without HDF5's filters."""

from __future__ import annotations

from itertools import count

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.panel import chunks
from ragimpute.panel.chunks import RowReader, read_numbers

# How datasets may be stored: the first as panels are, the others in other ways.
STORED = (
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"compression": "gzip", "shuffle": True},
    {"compression": "gzip"},
    {"compression": "lzf", "shuffle": True},
    {},
)

NUMBER = count()


def stored(values: np.ndarray, chunk: tuple[int, ...], how: dict) -> h5py.Dataset:
    """A dataset in a file in memory, which lives as long as the dataset."""
    file = h5py.File(f"made{next(NUMBER)}", "w", driver="core", backing_store=False)
    return file.create_dataset("values", data=values, chunks=chunk, **how)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 64), st.sampled_from(STORED), st.integers(0, 2**32 - 1),
    st.data(),
)  # fmt: skip
def test_columns_are_as_hdf5_reads_them(num, chunk, how, seed, data):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2 ** rng.integers(1, 33), num, dtype=np.uint32)
    start = data.draw(st.integers(0, num))
    stop = data.draw(st.integers(start, num))
    dataset = stored(values, (min(chunk, num),), how)
    found = read_numbers(dataset, start, stop)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, values[start:stop])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.uint16, np.uint32]), st.sampled_from(STORED), st.integers(1, 90),
    st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_rows_are_as_hdf5_reads_them(dtype, how, size, whole_rows, seed):
    rng = np.random.default_rng(seed)
    most = int(rng.integers(1, 1 << int(rng.integers(1, 17 if dtype == np.uint16 else 21))))
    values = rng.integers(0, most, (3, size)).astype(dtype)
    dataset = stored(values, (1, size if whole_rows else max(1, size // 2)), how)
    for row in range(3):
        found = RowReader(dataset).read(row, most)
        assert found.dtype == (np.uint16 if most <= 1 << 16 else np.uint32)
        np.testing.assert_array_equal(found, values[row])
    largest = int(values[0].max())
    with pytest.raises(ValueError, match="out of range"):
        RowReader(dataset).read(0, largest)


def test_numbers_above_16_bits_are_out_of_range_of_few_values():
    dataset = stored(np.full((1, 20), 1 << 16, np.uint32), (1, 20), STORED[0])
    with pytest.raises(ValueError, match="out of range"):
        RowReader(dataset).read(0, 5)


def test_chunks_of_panels_are_not_read_by_hdf5(monkeypatch):
    dataset = stored(np.arange(100, dtype=np.uint32), (32,), STORED[0])
    monkeypatch.setattr(type(dataset), "__getitem__", lambda *_: pytest.fail("HDF5 was asked"))
    np.testing.assert_array_equal(read_numbers(dataset, 3, 90), np.arange(3, 90))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_chunk_is_refused_or_read_as_it_was(place, change):
    values = (np.arange(4000, dtype=np.uint32) * 2654435761) % 977
    made = stored(values, (1000,), STORED[0])
    _, data = made.id.read_direct_chunk((1000,))
    octets = bytearray(data)
    octets[place % len(octets)] ^= change
    made.id.write_direct_chunk((1000,), bytes(octets))
    try:
        found = read_numbers(made, 900, 2100)
    except (OSError, ValueError):
        return
    np.testing.assert_array_equal(found, values[900:2100])


def test_a_chunk_of_another_length_is_refused():
    dataset = stored(np.arange(64, dtype=np.uint32), (32,), STORED[0])
    _, data = stored(np.arange(16, dtype=np.uint32), (16,), STORED[0]).id.read_direct_chunk((0,))
    dataset.id.write_direct_chunk((32,), data)
    with pytest.raises(ValueError, match="a chunk of /values"):
        read_numbers(dataset, 0, 64)
    assert chunks.read_numbers(dataset, 0, 32).tolist() == list(range(32))
