"""Indexes of what was written."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imputed_blocks import make_block, write
from vcf_fixtures import bcftools, rows_of, view
from vcf_tools import run_bcftools

from ragimpute.io.vcf.header import read_header
from ragimpute.io.vcf.index import TBI_MAX_BP, bin_numbers, csi_depth
from ragimpute.io.vcf.index_read import read_index
from ragimpute.io.vcf.read.genotypes import contigs_of, read_dosages
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
    # htslib joins small bins to larger ones: its ranges may be wider, never narrower.
    for region, (start, stop) in zip(regions, ranges, strict=True):
        low, high = theirs.byte_range("20", region)
        if (start, stop) != (0, 0):
            assert low <= start <= stop <= high
    assert bcftools("index", "--stats", path) == stats
