"""Indexes: of what was written, and of htslib, read and used."""

from __future__ import annotations

import gzip
import os
import shutil
import struct
from bisect import bisect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imputed_blocks import make_block, write
from vcf_fixtures import bcftools, convert, rows_of, view
from vcf_tools import run_bcftools

from ragimpute.io.vcf.header import read_header
from ragimpute.io.vcf.index import TBI_MAX_BP, bin_numbers, csi_depth, index_path, read_index
from ragimpute.io.vcf.read.genotypes import contigs_of, read_dosages, read_target
from ragimpute.sites import Region


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
@pytest.mark.parametrize("top", [2_000_000, 2**30])
def test_index(tmp_path, suffix, top):
    rng = np.random.default_rng(3)
    made = {}
    for contig in ("20", "X"):
        position = np.sort(rng.integers(1, top, size=2_500))
        ref = [
            "A" * int(n) for n in rng.choice([1, 2, 300, 40_000], 2_500, p=[0.9, 0.08, 0.01, 0.01])
        ]
        prob = rng.random((2_500, 4, 2))
        made[contig] = make_block(prob, position=position, contig=contig, ref=ref)
    contigs = [("19", None), ("20", None), ("21", 10), ("X", None)]
    path = write(tmp_path / f"x{suffix}", *made.values(), contigs=contigs)
    name = ".tbi" if suffix == ".vcf.gz" and top < 2**29 else ".csi"
    assert sorted(os.listdir(tmp_path)) == [path.name, path.name + name]
    assert contigs_of(path) == {"20": None, "X": None}
    for contig, block in made.items():
        begin = block.sites.position_bp.astype(np.int64)
        end = begin + [len(ref) for ref in block.sites.ref]  # half-open
        for start in [1, top - 10, *rng.integers(1, top, size=12).tolist()]:
            stop = start + int(rng.choice([0, 100, 20_000, top // 8]))
            inside = (begin <= stop) & (end > start)
            printed = rows_of(view(path, "-r", f"{contig}:{start}-{stop}"))
            assert [int(row[1]) for row in printed] == begin[inside].tolist()
    part = read_dosages(path, region=Region("chrX", top // 2, top // 2 + top // 8))
    position = made["X"].sites.position_bp
    keep = (position >= top // 2) & (position < top // 2 + top // 8)
    assert part.sites.position_bp.tolist() == position[keep].tolist()
    assert run_bcftools("index", "-n", path).stdout == "5000\n"  # it warns of a .csi of a BCF


def smallest_bin(begin, end, depth):
    """The CSI specification's reg2bin."""
    end -= 1
    shift, first = 14, ((1 << depth * 3) - 1) // 7
    for level in range(depth, 0, -1):
        if begin >> shift == end >> shift:
            return first + (begin >> shift)
        shift += 3
        first -= 1 << (level - 1) * 3
    return 0


@given(
    st.lists(st.tuples(st.integers(0, 2**29 - 70_000), st.integers(1, 70_000)), min_size=1),
    st.sampled_from([5, 6]),
)
def test_bins_are_those_of_the_specification(intervals, depth):
    begin, length = np.array(intervals, dtype=np.int64).T
    found = bin_numbers(begin, begin + length, depth)
    assert found.tolist() == [smallest_bin(b, b + n, depth) for b, n in intervals]


def test_depth():
    for max_bp, depth in ((1, 5), (TBI_MAX_BP, 5), (2**29, 6), (2**32 - 1, 6), (2**32, 7)):
        assert csi_depth(max_bp) == depth


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
@pytest.mark.parametrize("top", [500_000, 2**30])
def test_htslibs_own_index_finds_the_same(tmp_path, suffix, top):
    rng = np.random.default_rng(4)
    position = np.sort(rng.integers(1, top, size=3_000))
    block = make_block(rng.random((3_000, 3, 2)), position=position)
    path = write(tmp_path / f"x{suffix}", block, contigs=[("20", top)])
    (ours,) = tmp_path.glob("x.*.*i") if suffix == ".vcf.gz" else tmp_path.glob("x.*.csi")
    header = read_header(path)
    found = read_index(header)
    regions = [Region("20", a, a + int(top / 50)) for a in rng.integers(1, top, 30).tolist()]
    ranges = [found.byte_range("20", region) for region in regions]
    stats = bcftools("index", "--stats", path)
    ours.unlink()
    bcftools("index", "-t" if ours.name.endswith(".tbi") else "-c", path)
    theirs = read_index(header)
    assert theirs.min_shift == found.min_shift
    assert theirs.num_records == found.num_records == {"20": 3_000}
    # htslib joins small bins to larger ones: its ranges may be wider, never narrower.
    for region, (start, stop) in zip(regions, ranges, strict=True):
        low, high = theirs.byte_range("20", region)
        if (start, stop) != (0, 0):
            assert low <= start <= stop <= high
    assert bcftools("index", "--stats", path) == stats


def test_an_index_that_is_older_than_its_file_is_not_used(make_vcf):
    rows = [(p, "A", "G", "0|1", "0|0") for p in range(1, 30_000, 7)]
    path = convert(make_vcf(rows), ".vcf.gz")
    stale = path.with_name(path.name + ".tbi")
    old = convert(
        make_vcf([("19", 5, "A", "G", "0|1", "0|0")], name="y.vcf", contigs=("19",)), ".vcf.gz"
    )
    shutil.copy(old.with_name(old.name + ".tbi"), stale)
    os.utime(stale, (1, 1))
    assert contigs_of(path) == {"20": None}
    assert len(read_target(path, region=Region("20", 8, 16)).sites) == 2


def block_of_record(path):
    """Where the block starts in which a record does, by (contig, position)."""
    data, text = path.read_bytes(), b""
    at, starts, begins = 0, [], []
    while at < len(data):
        size = int.from_bytes(data[at + 16 : at + 18], "little") + 1
        starts.append(at)
        begins.append(len(text))
        text += gzip.decompress(data[at : at + size])
        at += size
    found, place = {}, 0
    for line in text.splitlines(keepends=True):
        contig, position = line.decode().split("\t")[:2] if line[:1] != b"#" else ("", "0")
        found.setdefault(
            (contig, int(position) if contig else 0), starts[bisect(begins, place) - 1]
        )
        place += len(line)
    return found


@pytest.mark.parametrize("option", ["-t", "-c"])
def test_the_byte_range_holds_the_region(make_vcf, option):
    rng = np.random.default_rng(1)
    positions = np.sort(rng.integers(1, 3_000_000, 6_000)).tolist()
    rows = [("19", 5, "A", "G", "0|1", "0|0")]
    rows += [("20", position, "A", "G", "0|1", "1|1") for position in positions]
    path = convert(make_vcf(rows, contigs=("19", "20")), ".vcf.gz", index=False)
    bcftools("index", option, path)
    index = read_index(read_header(path))
    assert list(index.chunks) == ["19", "20"]
    assert index.min_shift == 14
    block = block_of_record(path)
    assert len(set(block.values())) > 2
    for first in [1, 2_999_000, *rng.integers(1, 3_000_000, 20).tolist()]:
        last = first + int(rng.choice([0, 1_000, 50_000, 1_000_000]))
        inside = [block["20", p] for p in positions if first <= p <= last]
        low, high = index.byte_range("20", Region("20", first, last + 1))
        assert all(low <= at <= high for at in inside)
    low, high = index.byte_range("20", Region("20", 5_000_000, 5_000_001))
    assert low <= high


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
def test_indexes_that_cannot_be_used(make_vcf, suffix):
    path = convert(make_vcf([(p, "A", "G", "0|1", "0|0") for p in range(1, 500)]), suffix)
    header = read_header(path)
    (index,) = path.parent.glob(f"{path.name}.*i")
    assert index_path(header) == index
    assert list(read_index(header).chunks) == ["20"]
    whole = index.read_bytes()
    raw = gzip.decompress(whole)
    other_version = gzip.compress(b"TBI\2" + raw[4:])
    for damaged in (b"", b"x", whole[:40], other_version, gzip.compress(raw[:50])):
        index.write_bytes(damaged)
        assert read_index(header) is None
    index.unlink()
    assert index_path(header) is None
    assert read_index(header) is None
    other = path.with_name("x.txt")  # cyvcf2 would look for another index
    shutil.copy(path, other)
    other.with_name("x.txt.csi").write_bytes(whole)
    assert (index_path(read_header(other)) is None) == (suffix == ".bcf")


@pytest.mark.parametrize(
    ("option", "place", "value"),
    [
        ("-t", 32, -1),  # bytes of names
        ("-t", 39, -1),  # bins
        ("-t", 47, -1),  # chunks of a bin
        ("-t", -12, -(2**28)),  # windows of the linear index
        ("-c", 4, 60),  # log2 of the smallest bin
        ("-c", 8, 2**30),  # levels
        ("-c", 12, -1),  # bytes of names
    ],
)
def test_numbers_in_an_index_that_lie(make_vcf, option, place, value):
    """They would lead back within the file for hours, or to bins of any size."""
    path = convert(make_vcf([(5, "A", "G", "0|1", "0|0")]), ".vcf.gz", index=False)
    bcftools("index", option, path)
    index = path.with_name(path.name + (".tbi" if option == "-t" else ".csi"))
    raw = bytearray(gzip.decompress(index.read_bytes()))
    place = len(raw) + place if place < 0 else place
    if place == len(raw) - 12:  # its one window follows, and then the records without a contig
        place = len(raw) - 8 - 8 - 4
        assert struct.unpack_from("<i", raw, place) == (1,)
    struct.pack_into("<i", raw, place, value)
    index.write_bytes(gzip.compress(bytes(raw)))
    assert read_index(read_header(path)) is None
    assert contigs_of(path) == {"20": None}
