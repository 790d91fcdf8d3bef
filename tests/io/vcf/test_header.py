"""Headers that are read and written, paths that hold none, fields and contigs."""

from __future__ import annotations

import gzip
import os
import re
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from imputed_blocks import ALL, random_block, write
from vcf_fixtures import bcftools, convert

from ragimpute.errors import InputError
from ragimpute.io.vcf.header import (
    FLAGS,
    FORMATS,
    INFOS,
    Heading,
    VcfHeader,
    check_choice,
    check_fields,
    choose_region,
    dictionary,
    header_text,
    read_header,
    record_contigs,
)
from ragimpute.io.vcf.read.genotypes import PanelStream, contigs_of, read_dosages, read_target
from ragimpute.sites import Region


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
        (gzip.compress(b"hello", mtime=0), "is not a VCF or BCF"),
        (b"##fileformat=VCFv4.2\n", "no header line"),
        (b"BCF\2\2\xff\xff\0\0##", "is truncated"),
        (b"BCF\4\1", "unknown version"),
    ]:
        path = tmp_path / "x.vcf"
        path.write_bytes(content)
        refuse(path, message)


def test_what_a_header_says(make_vcf):
    infos = (
        '##INFO=<ID=AF,Number=A,Type=Float,Description="a, b > c, ID=none">\n'
        "##contig=<ID=7,assembly=b37,length=159138663>\n"
        "##contig=<ID=HLA:1>\n"
    )
    path = make_vcf([("7", 5, "A", "G", "0|1", "0|0")], infos=infos)
    for name, compression in (("x.vcf", "none"), ("x.vcf.gz", "bgzf"), ("x.bcf", "bgzf")):
        if name != "x.vcf":
            convert(path, name.removeprefix("x"), index=False)
        header = read_header(path.with_name(name))
        assert header.is_bcf == name.endswith("bcf")
        assert header.compression == compression
        assert header.samples == ["a", "b"]
        assert header.contigs == {"7": 159_138_663, "HLA:1": None, "20": None}
        assert [header.contig_numbers[i] for i in range(3)] == ["7", "HLA:1", "20"]
        assert header.formats == {"GT", "DS"}
        assert header.infos == {"AF"}
    plain = path.with_name("plain.vcf.gz")
    plain.write_bytes(gzip.compress(path.read_bytes()))
    assert read_header(plain).compression == "gzip"


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf", ".u.bcf"])
def test_contigs_of_records(make_vcf, suffix):
    rows = [(c, p, "A", "G", "0|1", "0|0") for c in ("X", "19") for p in range(1, 2_000)]
    path = make_vcf(rows, contigs=("19", "20", "X"))
    if suffix != ".vcf":
        path = convert(path, suffix, index=False)
    header = read_header(path)
    assert list(record_contigs(header)) == ["X", "19"]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    if suffix != ".vcf":  # half a text is a text
        with pytest.raises(InputError, match=r"truncated|damaged"):
            list(record_contigs(header))


def test_contigs_by_other_names():
    header = VcfHeader(Path("x.vcf"), False, "none", [], {}, {})
    assert choose_region(header, ["20"], None) == Region("20")
    assert choose_region(header, ["19", "chr20"], Region("20", 5, 9)) == Region("chr20", 5, 9)
    for names, region, message in (
        ([], None, "holds no records"),
        (["1", "2"], None, r"2 contigs \(1, 2\)"),
        (["1", "2"], Region("3"), "no records on contig 3; it holds 1, 2"),
        ([str(i) for i in range(40)], None, r"29, \.\.\."),
    ):
        with pytest.raises(InputError, match=message):
            choose_region(header, names, region)


def record(shared, individual, size):
    """The head of a BCF record of contig 0, and ``size`` bytes after its contig."""
    return struct.pack("<IIi", shared, individual, 0) + bytes(size)


@pytest.mark.parametrize(
    ("header_bytes", "records", "message"),
    [
        (2**31, b"", "a header of 2,147,483,648 bytes is announced"),
        (2**20, b"", "truncated"),
        (None, record(0, 0, 40), "damaged: a record's lengths do not agree"),
        (None, record(2**32 - 1, 2**32 - 1, 40), "truncated"),
    ],
)
def test_lengths_that_lie(tmp_path, make_vcf, header_bytes, records, message):
    """Neither read with a negative length, nor given the memory that they ask for."""
    raw = convert(make_vcf([(1, "A", "G", "0|1", "0|0")]), ".u.bcf", index=False)
    data = gzip.decompress(raw.read_bytes())
    (length,) = struct.unpack_from("<I", data, 5)
    told = length if header_bytes is None else header_bytes
    path = tmp_path / "lies.bcf"
    path.write_bytes(data[:5] + struct.pack("<I", told) + data[9 : 9 + length] + records)
    tracemalloc.start()
    with pytest.raises(InputError, match=message):
        list(record_contigs(read_header(path)))
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["GT", "GL"], "no output field 'GL'"),
        ([], "no output field was chosen"),
        (["GT", "DS", "DS"], "given twice"),
        (["AP", "AP1"], "given twice"),
        (["DS", "GT"], "GT must be the first"),
    ],
)
def test_fields_that_cannot_be(fields, message):
    with pytest.raises(InputError, match=message):
        check_fields(fields)
    assert [*check_fields(ALL), "LDS"] == list(FORMATS)


def test_the_field_of_left_out_dosages_cannot_be_chosen():
    assert check_fields(["GT", "LDS"]) == ["GT", "LDS"]
    assert check_choice(["GT", "AP"]) == ["GT", "AP1", "AP2"]
    with pytest.raises(InputError, match="no output field 'LDS'") as caught:
        check_choice(["GT", "LDS"])
    assert "--empirical" in caught.value.hint


def test_a_file_of_sites_alone(tmp_path):
    block = random_block(5, 3, 0, info={"AF": np.zeros(3)})
    for suffix in (".vcf", ".vcf.gz", ".bcf"):
        path = write(tmp_path / f"x{suffix}", block)
        text = bcftools("view", "--no-version", path)
        head = next(line for line in text.splitlines() if line.startswith("#CHROM"))
        assert head.split("\t")[-1] == "INFO"
        assert bcftools("query", "-f", "%POS\n", path).split() == [
            str(x) for x in block.sites.position_bp
        ]


def test_three_kinds_of_sites(tmp_path):
    block = random_block(6, 3, 2)
    block = replace(block, typed=np.array([0, 2, 1]), info={"AN": np.full(3, 4.0)})
    for suffix in (".vcf", ".bcf"):
        path = write(tmp_path / f"x{suffix}", block)
        said = bcftools("query", "-f", "%INFO\n", path).split()
        assert said == ["AN=4;IMP", "AN=4;TYPED_ONLY", "AN=4;TYPED"]


def test_header(tmp_path):
    block = random_block(4, 3, 2)
    lines = ["##panel=x.h5"]
    path = write(tmp_path / "x.vcf", block, command="ragimpute  impute\n--x", header_lines=lines)
    header = [line for line in path.read_text().splitlines() if line.startswith("##")]
    assert "##ragimpute_command=ragimpute impute --x" in header
    assert "##panel=x.h5" in header
    assert "##contig=<ID=20,length=63025520>" in header
    declared = [line for line in header if line.startswith(("##INFO", "##FORMAT"))]
    assert len(declared) == len(INFOS) + len(FLAGS) + 3
    assert all('Description="' in line for line in declared)
    with pytest.raises(ValueError, match="must begin with ##"):
        write(tmp_path / "y.vcf", block, header_lines=["panel"])


@pytest.mark.parametrize("infos", [(*INFOS, "IMP", "TYPED"), ("TYPED",), ("DR2", "TYPED_ONLY")])
@pytest.mark.parametrize("fields", [("GT",), ("GT", "AP", "GP"), ALL])
def test_numbers_of_names_are_htslibs(tmp_path, fields, infos):
    names = check_fields(fields)
    heading = Heading(["a"], [("20", None)], infos=infos)
    header = header_text(heading, names)
    (tmp_path / "x.vcf").write_text(header)
    bcftools("view", "-Ob", "-o", tmp_path / "x.bcf", tmp_path / "x.vcf")
    raw = gzip.decompress((tmp_path / "x.bcf").read_bytes()).decode(errors="replace")
    found = dict(re.findall(r"##(?:FILTER|INFO|FORMAT)=<ID=(\w+),.*IDX=(\d+)>", raw))
    assert {name: int(number) for name, number in found.items()} == dictionary(heading, names)
    assert set(found) == {"PASS", *infos, *names}


def test_peers_35_69_descriptions_say_what_is_counted_and_what_gt_is():
    said = {name: field.description for name, field in (FORMATS | INFOS).items()}
    assert "likelier allele of each haplotype" in said["GT"]  # not the likeliest genotype
    for name in ("DS", "HDS", "GP", "AF"):
        assert "ALT" in said[name], name
