"""Reading VCF and BCF: alleles, regions, dosages, and one clear line for each fault."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.sites import Region
from ragimpute.vcf import PanelStream, contigs_of, read_dosages, read_target

FORMATS = (
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    '##FORMAT=<ID=DS,Number=A,Type=Float,Description="Dosage">\n'
)
INFOS = (
    '##INFO=<ID=DR2,Number=A,Type=Float,Description="r2">\n'
    '##INFO=<ID=IMP,Number=0,Type=Flag,Description="Imputed">\n'
)


def vcf_text(rows, samples=("a", "b"), *, contigs=("20",), formats=FORMATS, infos="", keys="GT"):
    """A VCF of ``rows``: (position, ref, alt, calls...), or with the contig before these."""
    text = "##fileformat=VCFv4.2\n" + infos + formats
    text += "".join(f"##contig=<ID={contig}>\n" for contig in contigs)
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    text += "\t".join([*fixed, *(["FORMAT", *samples] if samples else [])]) + "\n"
    for row in rows:
        contig, position, ref, alt, *calls = row if isinstance(row[0], str) else ("20", *row)
        cells = [contig, str(position), ".", ref, alt, ".", ".", "."]
        text += "\t".join([*cells, *([keys, *calls] if samples else [])]) + "\n"
    return text


@pytest.fixture
def made(tmp_path):
    """Writes a VCF and gives its path."""

    def make(rows, *args, name="x.vcf", **options):
        path = tmp_path / name
        path.write_text(vcf_text(rows, *args, **options))
        return path

    return make


def convert(path, suffix, *, index=True):
    """The same as .vcf.gz or .bcf, by bcftools."""
    out = path.with_name(path.name.removesuffix(".vcf") + suffix)
    kind = {".vcf.gz": "z", ".bcf": "b", ".u.bcf": "u"}[suffix]
    subprocess.run(
        ["bcftools", "view", "--no-version", f"-O{kind}", "-o", out, path],
        check=True,
        capture_output=True,
    )
    if index:
        option = "-t" if suffix == ".vcf.gz" else "-c"
        subprocess.run(["bcftools", "index", option, out], check=True, capture_output=True)
    return out


def test_genotypes(made):
    rows = [
        (10, "A", "G", "0|1", "1", "./.", "."),
        (11, "A", "G,T", "0/2", "0", ".|1", "2|1"),
        (12, "AT", "A", "1/0", ".", "1/1", "0|0"),
    ]
    target = read_target(made(rows, "abcd"))
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


def test_all_haploid(made):
    target = read_target(made([(10, "A", "G", "1", "0"), (11, "A", "G", ".", "1")]))
    assert target.alleles.tolist() == [[[1, -2], [0, -2]], [[-1, -2], [1, -2]]]
    assert target.phased.all()


def test_half_missing_keeps_its_phase(made):
    target = read_target(made([(10, "A", "G", "./1", ".|1")]))
    assert target.alleles.tolist() == [[[-1, 1], [-1, 1]]]
    assert target.phased.tolist() == [[False, True]]


def test_alleles_that_are_left_out(made):
    rows = [
        (10, "A", "<DEL>", "0|1", "0|0"),
        (11, "A", "G,*", "1|2", "0|0"),
        (12, "A", "G,<NON_REF>", "0|1", "0|2"),
        (13, "A", ".", "0|0", "0|0"),
        (14, "A", "A[20:99[", "0|1", "0|0"),
        (15, "a", "g", "0|1", "1|1"),
    ]
    path = made(rows)
    target = read_target(path)
    assert [key[0] for key in target.sites.keys()] == [11, 12, 15]
    assert target.alleles.tolist() == [[[1, 0], [0, 0]], [[0, 1], [0, 0]], [[0, 1], [1, 1]]]
    assert target.skipped == {"symbolic": 3, "star": 1, "no_alt": 1}
    assert target.multiallelic.tolist() == [True, True, False]
    assert read_dosages(path).skipped == target.skipped
    stream = PanelStream(path)
    (batch,) = stream
    assert len(batch.sites) == 7
    assert stream.skipped == {"no_alt": 1}
    assert stream.num_without_alt == 1


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf", ".u.bcf"])
def test_kinds_of_file_are_the_same(made, suffix):
    rows = [(p, "A", "G,C", "0|1", "2/1", "1") for p in range(1, 2_000)]
    path = made(rows, "abc")
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
def test_any_genotypes(made, calls):
    path = made([(i + 1, "A", "C,G", *row) for i, row in enumerate(calls)], "abc")
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
def test_regions(made, suffix, index):
    rows = [("19", 500, "A", "G", "0|1", "0|0")]
    rows += [("20", p, "A" * 30, "A", "0|1", "1|1") for p in range(100, 40_000, 100)]
    rows += [("21", 300, "A", "G", "0|1", "0|0")]
    path = made(rows, contigs=("19", "20", "21", "22"))
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


def test_an_index_that_is_older_than_its_file_is_not_used(made):
    rows = [(p, "A", "G", "0|1", "0|0") for p in range(1, 30_000, 7)]
    path = convert(made(rows), ".vcf.gz")
    stale = path.with_name(path.name + ".tbi")
    old = convert(
        made([("19", 5, "A", "G", "0|1", "0|0")], name="y.vcf", contigs=("19",)), ".vcf.gz"
    )
    shutil.copy(old.with_name(old.name + ".tbi"), stale)
    os.utime(stale, (1, 1))
    assert contigs_of(path) == {"20": None}
    assert len(read_target(path, region=Region("20", 8, 16)).sites) == 2


def test_dosages(made):
    rows = [
        (10, "A", "G", "0|1:0.9", "1:0.75"),
        (20, "A", "G,C", "0|2:0.25,1.5", "2:0.5,0.5"),
        (30, "A", "G", "0|1:.", "0:."),
        (40, "A", "G", "./.:.", "1:0.5"),
    ]
    path = made(rows, keys="GT:DS", infos=INFOS)
    body = path.read_text().replace("\t.\t.\t.\tGT", "\t.\t.\tDR2=0.5;IMP\tGT", 1)
    path.write_text(body.replace("\t.\t.\t.\tGT", "\t.\t.\tDR2=0.1,0.2\tGT", 1))
    found = read_dosages(path)
    expected = [[0.9, 0.75], [0.25, 0.5], [1.5, 0.5], [1, 0], [np.nan, 0.5]]
    np.testing.assert_allclose(found.dosage, expected, rtol=1e-6)
    assert found.dosage.dtype == np.float32
    assert found.ploidy.tolist() == [2, 1]
    np.testing.assert_allclose(found.dr2, [0.5, 0.1, 0.2, np.nan, np.nan], rtol=1e-6)
    assert found.typed.tolist() == [False, True, True, True, True]


def test_dosages_without_genotypes(made):
    formats = '##FORMAT=<ID=DS,Number=1,Type=Float,Description="d">\n'
    found = read_dosages(made([(10, "A", "G", "0.9", "2")], keys="DS", formats=formats))
    np.testing.assert_allclose(found.dosage, [[0.9, 2]], rtol=1e-6)
    assert np.isnan(found.dr2).all()
    two = made([(10, "A", "G,C", "0.9", "2")], keys="DS", formats=formats)
    with pytest.raises(InputError, match="20:10: DS is not one number for each ALT"):
        read_dosages(two)
    with pytest.raises(InputError, match="neither FORMAT/DS nor FORMAT/GT"):
        read_dosages(made([(10, "A", "G", "1", "2")], keys="XX", formats=""))


def test_panel_batches_are_bounded(made):
    rows = [(p, "A", "G", "0|1", "1|1") for p in range(1, 10_000)]
    path = convert(made(rows), ".bcf", index=False)
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
        subprocess.run(["bcftools", "concat", "-n", "-o", path, *parts], capture_output=True)
        tracemalloc.start()
        count = sum(len(batch.sites) for batch in PanelStream(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count == copies * 6_127
    assert peaks[1] < 1.5 * peaks[0]


GOOD = (10, "A", "G", "0|1", "0|0")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "holds no records"),
        ([GOOD, (9, "A", "G", "0|1", "0|0")], {}, "not sorted: 20:9 comes after 20:10"),
        ([GOOD], {"samples": ()}, "has no samples"),
        ([GOOD], {"samples": ("a", "a")}, "names sample a twice"),
        ([GOOD], {"formats": "", "keys": "XX"}, "declares no FORMAT/GT"),
        ([(10, "A", "G", "0.5", "1")], {"keys": "DS"}, "20:10: the record has no GT"),
        ([GOOD, (12, "A", "G", "0|1", "0|5")], {}, "20:12: sample b has allele 5"),
        ([(12, "A", "G", "0|1", "0/1/1")], {}, "20:12: sample b has 3 alleles"),
        ([GOOD, (12, "A", "G", "0|1")], {}, "malformed after 20:10"),
        ([GOOD, (12, "A", "G", "0|1", "0|x")], {}, "malformed after 20:10"),
        ([(12, "A", "G", "0|1", "zz")], {}, "malformed at its first record"),
    ],
)
def test_bad_files(made, capfd, rows, options, message):
    path = made(rows, **options)
    with pytest.raises(InputError) as caught:
        read_target(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    printed = capfd.readouterr()
    assert printed.err == printed.out == ""


def test_bad_paths(tmp_path):
    def refuse(path, message):
        for read in (read_target, read_dosages, contigs_of, PanelStream):
            with pytest.raises(InputError, match=message) as caught:
                read(path)
            assert str(path) in caught.value.message

    refuse(tmp_path / "none.vcf", "does not exist")
    refuse(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refuse(tmp_path / "pipe", "not a regular file")
    for content, message in [
        (b"", "is empty"),
        (b"hello\n", "is not a VCF or BCF"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is not a VCF or BCF"),
        (gzip.compress(b"hello"), "is not a VCF or BCF"),
        (b"##fileformat=VCFv4.2\n", "no header line"),
        (b"BCF\2\2\xff\xff\0\0##", "is truncated"),
        (b"BCF\4\1", "unknown version"),
    ]:
        path = tmp_path / "x.vcf"
        path.write_bytes(content)
        refuse(path, message)


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
