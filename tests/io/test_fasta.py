"""Bases of a FASTA: of lines of any length, indexed or not, compressed or not."""

from __future__ import annotations

import gzip
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.errors import InputError
from ragimpute.io import fasta as module
from ragimpute.io.fasta import Fasta


def fasta_text(sequences, width, end="\n"):
    """A FASTA of names and bases, in lines of ``width`` bases."""
    lines = []
    for name, bases in sequences.items():
        lines.append(f">{name} and more")
        lines += [bases[i : i + width] for i in range(0, len(bases), width)]
    return end.join(lines) + end


@given(
    st.lists(st.text("ACGTNacgt", min_size=1, max_size=120), min_size=1, max_size=3),
    st.integers(1, 70), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_each_base_is_that_of_the_text(tmp_path_factory, bases, width, end, compressed, piece):
    sequences = {f"chr{i}": text for i, text in enumerate(bases)}
    path = tmp_path_factory.mktemp("fasta") / "x.fa"
    raw = fasta_text(sequences, width, end).encode()
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PIECE_BASES", piece)
        for i, text in enumerate(bases):
            found = Fasta(path, str(i))
            assert found.length == len(text)
            positions = range(len(text) + 2)
            assert [found.base(p) for p in positions] == ["", *text.upper(), ""]
            assert found.has(1, text.lower())
            assert not found.has(2, text)


def test_an_index_is_used_unless_it_is_older_or_nonsense(tmp_path):
    path, index = tmp_path / "x.fa", tmp_path / "x.fa.fai"
    path.write_text(">a\nACGT\nAC\n>20\nGGTT\nA\n")
    index.write_text("a\t6\t3\t4\t5\n20\t5\t15\t4\t5\n")
    assert [Fasta(path, "20").base(p) for p in (1, 3, 5, 6)] == ["G", "T", "A", ""]
    index.write_text("20\t2\t15\t4\t5\n")
    assert Fasta(path, "20").length == 2  # it is read
    os.utime(index, (1, 1))
    assert Fasta(path, "20").length == 5  # it is too old
    index.write_text("20\tx\n")
    assert Fasta(path, "20").length == 5
    index.write_text("20\t50\t15\t4\t5\n")
    with pytest.raises(InputError, match="does not fit its index"):
        Fasta(path, "20").base(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a FASTA"),
        (b"##fileformat=VCFv4.2\n", "is not a FASTA"),
        (gzip.compress(b"ACGT\n", mtime=0), "is not a FASTA"),
        (gzip.compress(b">20\n" + b"ACGT" * 999, mtime=0)[:-9], "cannot be read"),
        (b">a\nACGT\n>b\nA\n", "has no sequence 20; it has a, b"),
        (b">20\nACG\nACGT\nA\n", "unlike lengths"),
        (b">20\nACG\nA\nACG\n", "unlike lengths"),
    ],
)
def test_faults_are_told_of(content, message, tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Fasta(path, "20")
    with pytest.raises(InputError, match="cannot be read"):
        Fasta(tmp_path / "none.fa", "20")
