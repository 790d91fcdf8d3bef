"""Fields and the header."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace

import numpy as np
import pytest
from imputed_blocks import ALL, random_block, write
from vcf_fixtures import bcftools

from ragimpute.errors import InputError
from ragimpute.io.vcf.fields import (
    FLAGS,
    FORMATS,
    INFOS,
    check_choice,
    check_fields,
    dictionary,
    header_text,
)


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


@pytest.mark.parametrize("fields", [("GT",), ("GT", "AP", "GP"), ALL])
def test_numbers_of_names_are_htslibs(tmp_path, fields):
    names = check_fields(fields)
    header = header_text(
        samples=["a"], contigs=[("20", None)], formats=names, command=None, header_lines=()
    )
    (tmp_path / "x.vcf").write_text(header)
    bcftools("view", "-Ob", "-o", tmp_path / "x.bcf", tmp_path / "x.vcf")
    raw = gzip.decompress((tmp_path / "x.bcf").read_bytes()).decode(errors="replace")
    found = dict(re.findall(r"##(?:FILTER|INFO|FORMAT)=<ID=(\w+),.*IDX=(\d+)>", raw))
    assert {name: int(number) for name, number in found.items()} == dictionary(names)


def test_peers_35_69_descriptions_say_what_is_counted_and_what_gt_is():
    said = {name: field.description for name, field in (FORMATS | INFOS).items()}
    assert "likelier allele of each haplotype" in said["GT"]  # not the likeliest genotype
    for name in ("DS", "HDS", "GP", "AF"):
        assert "ALT" in said[name], name
