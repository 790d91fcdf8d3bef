"""Reference blocks of gVCFs, in the spelling of each caller, against a look at every base."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import convert

from ragimpute.io.vcf.read.genotypes import ReferenceBlocks, read_dosages, read_target
from ragimpute.io.vcf.read.records import site_table
from ragimpute.sites import Region

# How callers write a block: its ALT, the FORMAT fields beside GT, and a quality as these show it.
CALLERS = {
    "gatk": ("<NON_REF>", "DP:GQ:MIN_DP:PL", lambda q: f"99:{q}:99:0,99,99"),
    "genotype-gvcfs": (".", "DP:RGQ", lambda q: f"99:{q}"),
    "deepvariant": ("<*>", "GQ:MIN_DP:PL", lambda q: f"{q}:1:0,1,2"),
    "strelka": (".", "GQX:DP:MIN_DP", lambda q: f"{q}:0:0"),
    "mpileup": ("<*>", "PL:DP", lambda q: f"0,{q},255:0"),
    "bcftools call": (".", "DP", lambda q: f"{q // 3}"),
    "old samtools": ("<X>", "GQ", lambda q: f"{q}"),
}
HEAD = (
    "##fileformat=VCFv4.2\n"
    '##ALT=<ID=NON_REF,Description="x">\n##ALT=<ID=*,Description="x">\n'
    '##INFO=<ID=END,Number=1,Type=Integer,Description="x">\n'
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
    '##FORMAT=<ID=PL,Number=G,Type=Integer,Description="x">\n'
    + "".join(
        f'##FORMAT=<ID={name},Number=1,Type=Integer,Description="x">\n'
        for name in ("DP", "GQ", "RGQ", "GQX", "MIN_DP")
    )
    + "##contig=<ID=20,length=1000>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t"
)
BASES = "ACGT"


def genome(position):
    """The base of the reference at a position."""
    return BASES[position * 7 // 3 % 4]


def panel_of(positions, *, indels=()):
    """A panel's sites: SNPs at ``positions``, deletions of two bases at ``indels``."""
    sites = [(p, genome(p), BASES[(BASES.index(genome(p)) + 1) % 4], ".") for p in positions]
    sites += [(p, genome(p) + genome(p + 1) + genome(p + 2), genome(p), ".") for p in indels]
    return site_table("chr20", *zip(*sorted(sites), strict=True))


def text_of(parts, caller, num_samples, *, calls=None, qualities=None):
    """A gVCF of (first, last, ALT or None for a block), with qualities and calls of each."""
    symbol, keys, cell = CALLERS[caller]
    lines = []
    for i, (first, last, alt) in enumerate(parts):
        quality = [60] * num_samples if qualities is None else qualities[i]
        call = ["0/0"] * num_samples if calls is None else calls[i]
        cells = [f"{c}:{cell(q)}" for c, q in zip(call, quality, strict=True)]
        row = ["20", first, ".", genome(first), symbol, ".", ".", f"END={last}", f"GT:{keys}"]
        if alt is not None:
            row[4], row[7] = alt if symbol == "." else f"{alt},{symbol}", "."
            row[8], cells = "GT", call
        lines.append("\t".join(map(str, [*row, *cells])) + "\n")
    return HEAD + "\t".join(f"s{i}" for i in range(num_samples)) + "\n" + "".join(lines)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("suffix", ["", ".vcf.gz", ".bcf"])
def test_blocks_of_each_caller(caller, suffix, tmp_path):
    parts = [(10, 19, None), (20, 20, "N"), (21, 40, None), (41, 60, None), (61, 62, None)]
    other = panel_of([20]).alt[0]
    parts[1] = (20, 20, other)
    qualities = [[60, 60], [60, 60], [60, 18], [3, 0], [60, 60]]
    calls = [["0/0", "0/0"], ["0/1", "0/0"], ["0/0", "0/0"], ["0/0", "0/0"], ["0/0", "./."]]
    path = tmp_path / "x.vcf"
    path.write_text(text_of(parts, caller, 2, calls=calls, qualities=qualities))
    if suffix:
        path = convert(path, suffix)
    sites = panel_of([5, 12, 20, 30, 45, 61, 70], indels=[18])
    target = read_target(path, keep_monomorphic=True, blocks=ReferenceBlocks(sites, 20))
    assert target.sites.position_bp.tolist() == [12, 20, 30, 61]
    assert target.reference.tolist() == [True, False, True, True]
    assert target.sites.contig == "20"
    assert target.sites.alt[1] == other
    assert not target.multiallelic.any()
    assert target.alleles[1, 0].tolist() == [0, 1]
    np.testing.assert_array_equal(
        target.alleles[[0, 2, 3]],
        [[[0, 0], [0, 0]], [[0, 0], [-1, -1]], [[0, 0], [-1, -1]]],
    )
    assert (target.num_records, target.num_further_alts, target.left_out) == (5, 0, [])
    found = target.blocks
    assert (found.num_blocks, found.num_typed, found.num_low) == (4, 3, 1)
    assert (found.num_compared, found.num_other_ref) == (1, 0)
    # A part of the file: the block from 21 to 40 begins before it.
    region = Region("20", 25, 60)
    part = read_target(
        path, region=region, keep_monomorphic=True, blocks=ReferenceBlocks(sites, 20)
    )
    assert part.sites.position_bp.tolist() == [30]
    assert (part.num_records, part.blocks.num_blocks) == (2, 2)
    # Who does not ask for blocks has them counted.
    plain = read_target(path)
    assert len(plain.sites) + len(plain.left_out) == plain.num_records == 5
    assert set(plain.skipped) <= {"reference_blocks", "no_alt"}
    assert read_dosages(path).skipped == plain.skipped


def test_a_block_of_another_reference_types_no_site_and_is_counted(tmp_path):
    path = tmp_path / "x.vcf"
    path.write_text(text_of([(10, 10, None), (11, 15, None)], "gatk", 1))
    sites = panel_of([10, 11, 13])
    sites.ref[:2] = [BASES[(BASES.index(base) + 2) % 4] for base in sites.ref[:2]]
    target = read_target(path, blocks=ReferenceBlocks(sites))
    assert target.sites.position_bp.tolist() == [13]
    assert (target.blocks.num_compared, target.blocks.num_other_ref) == (2, 2)


def test_haploid_blocks_and_blocks_that_overlap(tmp_path):
    calls = [["0", "0"], ["0", "./."], ["0", "0/0"]]
    parts = [(10, 19, None), (20, 29, None), (20, 29, None)]
    path = tmp_path / "x.vcf"
    path.write_text(text_of(parts, "deepvariant", 2, calls=calls, qualities=[[9, 50]] * 3))
    target = read_target(path, blocks=ReferenceBlocks(panel_of([11, 25])))
    assert target.alleles.tolist() == [[[-1, -1], [0, -2]], [[-1, -1], [0, 0]]]


def test_a_block_without_any_quality_is_taken_as_it_is(make_vcf):
    path = make_vcf([(9, "A", "<NON_REF>", "0|0", "./.")])
    sites = site_table("20", [9], ["A"], ["T"], ["."])  # A/T: the block is of the panel's strand
    target = read_target(path, blocks=ReferenceBlocks(sites))
    assert target.alleles.tolist() == [[[0, 0], [-1, -1]]]


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    caller=st.sampled_from(sorted(CALLERS)),
    positions=st.sets(st.integers(1, 90), min_size=1, max_size=25),
    indels=st.sets(st.integers(91, 110), max_size=3),
    data=st.data(),
)
@settings(max_examples=60)
def test_what_blocks_type_is_what_a_look_at_every_base_finds(
    lengths, caller, positions, indels, data, tmp_path_factory
):
    parts, at = [], 80 - sum(lengths) // 2
    for length in lengths:
        is_variant = data.draw(st.integers(0, 4)) == 0
        length += caller == "bcftools call"  # of one base, it is an ordinary record without ALT
        last = at if is_variant else at + length - 1
        other = BASES[(BASES.index(genome(at)) + data.draw(st.integers(1, 3))) % 4]
        parts.append((at, last, other if is_variant else None))
        at = last + 1 + data.draw(st.integers(0, 1))
    pair = st.lists(st.sampled_from([0, 15, 21, 60]), min_size=2, max_size=2)
    qualities = [data.draw(pair) for _ in parts]
    call = st.lists(st.sampled_from(["0/0", "0/1", "./."]), min_size=2, max_size=2)
    calls = [data.draw(call) if part[2] else ["0/0", "0/0"] for part in parts]
    path = tmp_path_factory.mktemp("blocks") / "x.vcf"
    path.write_text(text_of(parts, caller, 2, calls=calls, qualities=qualities))
    sites = panel_of(sorted(positions), indels=sorted(indels))
    target = read_target(path, keep_monomorphic=True, blocks=ReferenceBlocks(sites, 20))
    expected = {}
    for position, ref, alt in sites.keys():
        for (first, last, other), quality in zip(parts, qualities, strict=True):
            inside = first <= position and position + len(ref) - 1 <= last
            looked_at = CALLERS[caller][0] != "." or len(ref) == len(alt)
            if inside and other is None and looked_at and max(quality) >= 20:
                expected[position, ref, alt] = [[0 if q >= 20 else -1] * 2 for q in quality]
    rows = np.flatnonzero(target.reference)
    found = dict(zip(target.sites.take(rows).keys(), target.alleles[rows].tolist(), strict=True))
    assert found == expected
    assert target.blocks.num_blocks == sum(part[2] is None for part in parts)
    own = (~target.reference).sum() + len(target.left_out)
    assert own + target.blocks.num_blocks == target.num_records == len(parts)
    assert (np.diff(target.sites.position_bp) >= 0).all()
