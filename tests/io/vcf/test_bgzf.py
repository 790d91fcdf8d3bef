"""BGZF."""

from __future__ import annotations

import gzip
import random

import numpy as np
import pysam
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragimpute.io.vcf.bgzf import BLOCK_BYTES, EOF_MARK, BgzfWriter, check_blocks, compress_block


def test_data_that_do_not_compress(tmp_path):
    data = np.random.default_rng(1).bytes(5 * BLOCK_BYTES + 77)
    for threads in (1, 2):
        path = tmp_path / f"{threads}.gz"
        with path.open("wb") as file:
            writer = BgzfWriter(file, threads=threads)
            for start in range(0, len(data), 40_000):
                writer.write(data[start : start + 40_000])
            writer.finish()
        assert gzip.decompress(path.read_bytes()) == data
        first, second, inside = writer.virtual_offsets(
            np.array([0, BLOCK_BYTES, BLOCK_BYTES + 5])
        ).tolist()
        assert first == 0
        assert inside - second == 5
        assert gzip.decompress(path.read_bytes()[second >> 16 :]) == data[BLOCK_BYTES:]


def compressed(path, data, *, threads=1, step=40_000):
    """A BGZF file of ``data``, written in pieces."""
    with path.open("wb") as file:
        writer = BgzfWriter(file, threads=threads)
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
        writer.finish()
    return path


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, 65_279, 65_280, 65_281, 200_000]), max_size=4),
    step=st.sampled_from([1_000, 65_280, 70_000, 10**9]),
)
def test_htslib_and_gzip_read_it(tmp_path, sizes, step):
    rng = random.Random(len(sizes))
    data = b"".join(bytes(rng.choices(b"ACGT\t", k=size)) for size in sizes)
    paths = [compressed(tmp_path / f"{n}.gz", data, threads=n, step=step) for n in (1, 3)]
    raw = paths[0].read_bytes()
    assert raw == paths[1].read_bytes()
    assert raw.endswith(EOF_MARK)
    assert gzip.decompress(raw) == data
    with pysam.BGZFile(paths[0]) as file:
        assert file.read() == data
    with paths[0].open("rb") as file:
        assert check_blocks(file, 0, len(raw))


def test_any_damage_is_seen(tmp_path):
    data = bytes(random.Random(1).choices(b"ACGT", k=150_000))
    path = compressed(tmp_path / "x.gz", data)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    # Not the time stamp, flags and system that a gzip header also holds: they mean nothing here.
    for place in rng.integers(18, len(whole) - 28, 60).tolist():
        raw = bytearray(whole)
        raw[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with path.open("rb") as file:
            good = check_blocks(file, 0, len(raw))
        if good:  # within the header of a later block
            assert gzip.decompress(raw) == data
        path.write_bytes(whole[:place])
        with path.open("rb") as file:
            assert not check_blocks(file, 0, len(whole))


def test_a_mark_ends_the_block(tmp_path):
    path = tmp_path / "x.gz"
    with path.open("wb") as file:
        writer = BgzfWriter(file)
        writer.write(b"head")
        writer.mark()
        writer.write(b"x" * (BLOCK_BYTES + 3))
        writer.finish()
        offsets = writer.virtual_offsets(np.array([0, 5, BLOCK_BYTES, BLOCK_BYTES + 3])).tolist()
    raw = path.read_bytes()
    first = int.from_bytes(raw[16:18], "little") + 1
    second = first + int.from_bytes(raw[first + 16 : first + 18], "little") + 1
    assert offsets == [first << 16, first << 16 | 5, second << 16, second << 16 | 3]
    assert gzip.decompress(raw[:first]) == b"head"


def test_nothing_is_written_after_an_end(tmp_path):
    path = tmp_path / "x.gz"
    with path.open("wb") as file:
        writer = BgzfWriter(file, threads=2)
        writer.write(bytes(10 * BLOCK_BYTES))
        writer.abort()
        size = file.tell()
    assert path.stat().st_size == size
    assert not path.read_bytes().endswith(EOF_MARK)


def test_blocks_are_of_at_most_64_kb():
    for data in (b"", b"A" * BLOCK_BYTES, np.random.default_rng(1).bytes(BLOCK_BYTES)):
        block = compress_block(data)
        assert len(block) <= 65_536
        assert int.from_bytes(block[16:18], "little") == len(block) - 1
        assert gzip.decompress(block) == data
