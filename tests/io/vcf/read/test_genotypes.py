"""Reading targets and panels: alleles, regions, and one clear line for each fault."""

from __future__ import annotations

import gzip
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vcf_fixtures import convert, join

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import PanelStream, contigs_of, read_dosages, read_target
from ragimpute.sites import Region


def test_genotypes(make_vcf):
    rows = [
        (10, "A", "G", "0|1", "1", "./.", "."),
        (11, "A", "G,T", "0/2", "0", ".|1", "2|1"),
        (12, "AT", "A", "1/0", ".", "1/1", "0|0"),
    ]
    target = read_target(make_vcf(rows, "abcd"))
    assert target.samples == ["a", "b", "c", "d"]
    keys = [(10, "A", "G"), (11, "A", "G"), (11, "A", "T"), (12, "AT", "A")]
    assert target.sites.keys() == keys
    assert target.sites.contig == "20"
    assert target.alleles.dtype == np.int8
    assert target.alleles.tolist() == [
        [[0, 1], [1, -2], [-1, -1], [-1, -1]],  # a lone "." in a sample without haploid genotypes
        [[0, 0], [0, -2], [-1, 1], [0, 1]],
        [[0, 1], [0, -2], [-1, 0], [1, 0]],
        [[1, 0], [-1, -2], [1, 1], [0, 0]],
    ]
    assert target.phased.tolist() == [
        [True, True, True, True],
        [True, True, True, True],
        [False, True, True, True],
        [False, True, True, True],
    ]
    assert target.multiallelic.tolist() == [False, True, True, False]
    assert target.skipped == {}


def test_alts_that_say_the_same_are_one_allele(make_vcf):
    rows = [(10, "A", "G,g,C", "1|2", "2/3"), (20, "A", "a,T", "1|2", "0/1")]
    target = read_target(make_vcf(rows))
    assert target.sites.keys() == [(10, "A", "G"), (10, "A", "C"), (20, "A", "T")]
    assert target.alleles.tolist() == [
        [[1, 1], [1, 0]], [[0, 0], [0, 1]], [[0, 1], [0, 0]],
    ]  # fmt: skip
    assert target.record.tolist() == [0, 0, 1]
    assert target.skipped == {"repeated": 2}
    assert [(alt.alt, alt.reason) for alt in target.left_out] == [
        ("g", "repeated"), ("a", "repeated"),
    ]  # fmt: skip


def test_carriers_of_an_alt_that_is_no_sequence_are_missing_in_the_other_rows(make_vcf):
    target = read_target(make_vcf([(10, "A", "G,N,R,<DEL>", "1|2", "3|4", "0|1")], "abc"))
    assert target.sites.alt.tolist() == ["G", "N", "R"]
    assert target.alleles.tolist() == [
        [[1, -1], [-1, -1], [0, 1]],
        [[0, 1], [-1, -1], [0, 0]],
        [[0, -1], [1, -1], [0, 0]],
    ]
    assert target.skipped == {"symbolic": 1}


def test_all_haploid(make_vcf):
    target = read_target(make_vcf([(10, "A", "G", "1", "0"), (11, "A", "G", ".", "1")]))
    assert target.alleles.tolist() == [[[1, -2], [0, -2]], [[-1, -2], [1, -2]]]
    assert target.phased.all()


def test_half_missing_keeps_its_phase(make_vcf):
    target = read_target(make_vcf([(10, "A", "G", "./1", ".|1")]))
    assert target.alleles.tolist() == [[[-1, 1], [-1, 1]]]
    assert target.phased.tolist() == [[False, True]]


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf", ".u.bcf"])
def test_kinds_of_file_are_the_same(make_vcf, suffix):
    rows = [(p, "A", "G,C", "0|1", "2/1", "1") for p in range(1, 2_000)]
    path = make_vcf(rows, "abc")
    other = convert(path, suffix, index=False)
    for threads in (1, 2):
        found, expected = read_target(other, threads=threads), read_target(path)
        assert found.sites.keys() == expected.sites.keys()
        np.testing.assert_array_equal(found.alleles, expected.alleles)
        np.testing.assert_array_equal(found.phased, expected.phased)
    plain = path.with_suffix(".plain.gz")
    plain.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_target(plain).alleles, expected.alleles)


genotype = st.from_regex(r"[.012]([|/][.012])?", fullmatch=True)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(genotype, min_size=3, max_size=3), min_size=1, max_size=5))
def test_any_genotypes(make_vcf, calls):
    path = make_vcf([(i + 1, "A", "C,G", *row) for i, row in enumerate(calls)], "abc")
    target = read_target(path)
    stream = [batch for batch in PanelStream(path)]
    alleles = np.concatenate([batch.alleles for batch in stream])
    haploid_called = [any(row[j] in ("0", "1", "2") for row in calls) for j in range(3)]
    for i, row in enumerate(calls):
        for j, call in enumerate(row):
            codes = [-1 if c == "." else int(c) for c in call.replace("/", "|").split("|")]
            for alt in (1, 2):
                expected = [c if c == -1 else int(c == alt) for c in codes]
                raw = expected + [-2] * (2 - len(expected))
                assert alleles[2 * i + alt - 1, j].tolist() == raw
                if call == "." and not haploid_called[j]:
                    raw = [-1, -1]
                assert target.alleles[2 * i + alt - 1, j].tolist() == raw
                ordered = raw[0] == raw[1] or raw[1] == -2 or "|" in call
                assert target.phased[2 * i + alt - 1, j] == ordered


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
@pytest.mark.parametrize("index", [True, False])
def test_regions(make_vcf, suffix, index):
    rows = [("19", 500, "A", "G", "0|1", "0|0")]
    rows += [("20", p, "A" * 30, "A", "0|1", "1|1") for p in range(100, 40_000, 100)]
    rows += [("21", 300, "A", "G", "0|1", "0|0")]
    path = make_vcf(rows, contigs=("19", "20", "21", "22"))
    if suffix != ".vcf":
        path = convert(path, suffix, index=index)
    assert contigs_of(path) == {"19": None, "20": None, "21": None}
    for name in ("20", "chr20"):
        target = read_target(path, region=Region(name, 510, 20_001))
        assert target.sites.position_bp.tolist() == list(range(600, 20_001, 100))
        assert target.sites.contig == "20"
    assert len(read_dosages(path, region=Region("chr21")).sites) == 1
    stream = PanelStream(path, region=Region("20"))
    assert sum(len(batch.sites) for batch in stream) == 399
    assert stream.contigs == ["19", "20", "21"]
    for read in (read_target, read_dosages):
        with pytest.raises(InputError, match=r"3 contigs \(19, 20, 21\)") as caught:
            read(path)
        assert "--region" in caught.value.hint
        with pytest.raises(InputError, match="no records on contig 22; it holds 19, 20, 21"):
            read(path, region=Region("22"))
        with pytest.raises(InputError, match="no usable records in 20:50000-60000"):
            read(path, region=Region("20", 50_000, 60_001))
    with pytest.raises(InputError, match="3 contigs"):
        list(PanelStream(path))


def test_panel_batches_are_bounded(make_vcf):
    rows = [(p, "A", "G", "0|1", "1|1") for p in range(1, 10_000)]
    path = convert(make_vcf(rows), ".bcf", index=False)
    sizes = [len(batch.sites) for batch in PanelStream(path)]
    assert sum(sizes) == 9_999
    assert max(sizes) <= 5_000
    stream = PanelStream(path)
    assert sum(len(batch.sites) for batch in stream) == sum(len(b.sites) for b in stream) == 9_999


def test_memory_of_a_stream_does_not_grow(tmp_path):
    peaks = []
    for copies in (1, 4):
        parts = [str(example.path("panel.bcf"))] * copies
        path = tmp_path / f"{copies}.bcf"
        join(path, parts)
        tracemalloc.start()
        count = sum(len(batch.sites) for batch in PanelStream(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == copies * 6_127
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("name", ["target.vcf.gz", "panel.bcf"])
def test_truncated_files(tmp_path, capfd, name):
    whole = example.path(name).read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / name
    for size in [1, 17, 18, 28, len(whole) - 28, len(whole) - 1, *rng.integers(30, len(whole), 20)]:
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            read_target(path)
        path.write_bytes(whole[:size] + whole[-28:])  # with an end mark all the same
        if size != len(whole) - 28:
            with pytest.raises(InputError):
                read_target(path)
    plain = tmp_path / "plain.vcf.gz"
    packed = gzip.compress(gzip.decompress(example.path("target.vcf.gz").read_bytes()))
    plain.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="truncated"):
        read_target(plain)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["target.vcf.gz", "panel.bcf"])
@pytest.mark.parametrize("index", [True, False])
def test_damaged_files(tmp_path, name, index):
    whole = example.path(name).read_bytes()
    expected = read_target(example.path(name)).alleles
    path = tmp_path / name
    rng = np.random.default_rng(2)
    refused = 0
    for place in rng.integers(0, len(whole) - 28, 25).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        if index:
            suffix = ".tbi" if name.endswith("gz") else ".csi"
            path.with_name(name + suffix).write_bytes(example.path(name + suffix).read_bytes())
        try:
            found = read_target(path, region=Region("20") if index else None)
        except InputError:
            refused += 1
        else:
            np.testing.assert_array_equal(found.alleles, expected)
    assert refused >= 20
