"""Chain files: where bases of one build are in another."""

from __future__ import annotations

import gzip
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from chain_fixtures import chain_text, inverse
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.errors import InputError
from ragimpute.io.chain import ChainFile

PIECES = [
    (0, 100, "chr20", 50, "+"),
    (100, 200, "chr20", 300, "-"),  # inverted
    (220, 250, "chr7", 0, "+"),  # behind a gap, on another contig
    (240, 250, "chr20", 800, "+"),  # at two places
]


@pytest.fixture
def chain(tmp_path):
    (tmp_path / "x.chain").write_text("##matrix=16\n\n" + chain_text(PIECES))
    return ChainFile(tmp_path / "x.chain")


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (1, ("chr20", 51, False)),
        (100, ("chr20", 150, False)),
        (101, ("chr20", 400, True)),
        (200, ("chr20", 301, True)),
        (210, 0),
        (221, ("chr7", 1, False)),
        (241, 2),
        (999, 0),
        (0, 0),
        (1001, 0),
        (5000, 0),
    ],
)
def test_places(chain, position, expected):
    got = chain.lift("chr20", np.array([position]))
    if isinstance(expected, int):
        assert got.num_places.tolist() == [expected]
        assert got.contig.tolist() == [-1]
    else:
        name = got.contigs[got.contig[0]]
        assert (name, got.position_bp[0], got.minus[0]) == expected


@st.composite
def layouts(draw):
    """Pieces that overlap in neither build, in any order and on either strand."""
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=6))
    gaps = draw(st.lists(st.integers(0, 20), min_size=len(sizes), max_size=len(sizes)))
    order = draw(st.permutations(range(len(sizes))))
    other, at = {}, 0
    for i in order:
        other[i], at = at, at + sizes[i] + gaps[i]
    pieces, start = [], 0
    for i, size in enumerate(sizes):
        strand = draw(st.sampled_from("+-"))
        pieces.append((start, start + size, "chr20", other[i], strand))
        start += size + gaps[-1 - i]
    return pieces


@settings(max_examples=60, deadline=None)
@given(layouts(), st.booleans())
def test_there_and_back(pieces, packed):
    with tempfile.TemporaryDirectory() as folder:
        there, back = Path(folder, "a.chain"), Path(folder, "b.chain")
        for path, text in ((there, chain_text(pieces)), (back, chain_text(inverse(pieces)))):
            path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        every = np.arange(1, 1001)
        first = ChainFile(there).lift("chr20", every)
        inside = np.zeros(1000, bool)
        for start, stop, *_ in pieces:
            inside[start:stop] = True
        np.testing.assert_array_equal(first.num_places, inside)
        second = ChainFile(back).lift("chr20", first.position_bp[inside])
    np.testing.assert_array_equal(second.position_bp, every[inside])
    np.testing.assert_array_equal(second.minus, first.minus[inside])


def test_blocks_of_one_chain(tmp_path):
    (tmp_path / "x").write_text("chain 9 20 500 + 10 40 20 600 + 100 135 7\n10 5 10\n15\n")
    chain = ChainFile(tmp_path / "x")
    assert chain.source_sizes == {"20": 500}
    assert chain.other_sizes == {"20": 600}
    got = chain.lift("20", np.array([11, 20, 21, 26, 40]))
    assert got.position_bp.tolist() == [101, 110, 0, 121, 135]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is no chain file"),
        (b"##fileformat=VCFv4.2\n#CHROM\n20\t1\n", "is no chain file"),
        (b"chain 1\n", "damaged or truncated"),
        (chain_text(PIECES[:1]).encode()[:-6], "damaged or truncated"),
        (b"chain 9 20 500 + 10 40 20 600 + 100 135 7\n10 5 10\n16\n", "damaged or truncated"),
        (b"chain 9 20 500 - 10 40 20 600 + 100 130 7\n30\n", "damaged or truncated"),
        (b"chain 9 20 x + 10 40 20 600 + 100 130 7\n30\n", "damaged or truncated"),
        (gzip.compress(b"chain 9 20 500 + 10 40 20 600 + 100 130 7\n30\n", mtime=0)[:-9], "x"),
        (None, "cannot be read: No such file"),
    ],
)
def test_faults_are_one_clear_line(tmp_path, text, message):
    if text is not None:
        (tmp_path / "x").write_bytes(text)
    with pytest.raises(InputError, match=message) as caught:
        ChainFile(tmp_path / "x")
    assert caught.value.hint
    assert "\n" not in caught.value.message


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_gives_a_chain_or_one_error(data):
    raw = bytearray(chain_text(PIECES).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, suppress(InputError):
        path = Path(folder, "x")
        path.write_bytes(raw)
        chain = ChainFile(path)
        for name in chain.source_sizes:
            chain.lift(name, np.arange(1, 300))
