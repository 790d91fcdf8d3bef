"""BCF records: the same as the text."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from imputed_blocks import blocks, make_block, random_block, write
from vcf_fixtures import rows_of, view

from ragimpute.io.vcf.header import Heading
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.write.bcf import BcfEncoder, bcf_header


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(block=blocks(), fields=st.permutations(["DS", "GP", "HDS", "AP"]), count=st.integers(0, 4))
def test_vcf_equals_bcf(tmp_path, block, fields, count):
    chosen = ["GT", *fields[:count]]
    printed = []
    for suffix in (".vcf", ".bcf"):
        path = write(tmp_path / f"x{suffix}", block, fields=chosen)
        printed.append(view(path))
    assert printed[0] == printed[1]
    own = (tmp_path / "x.vcf").read_text()
    assert rows_of(own) == rows_of(printed[0])
    target = read_target(tmp_path / "x.bcf")
    seen = block.called >= 0
    np.testing.assert_array_equal(target.alleles[seen], block.called[seen])


def test_long_names_and_alleles(tmp_path):
    ref, alt = ["A" * 14, "C" * 15, "G" * 40_000], ["C" * 15, "T", "A" * 300]
    block = make_block(np.full((3, 2, 2), 0.25), ref=ref, alt=alt)
    block.sites.id[:] = [".", "rs" + "1" * 60, "x"]
    printed = rows_of(view(write(tmp_path / "x.bcf", block)))
    assert [row[2:5] for row in printed] == [
        [name, r, a] for name, r, a in zip(block.sites.id, ref, alt, strict=True)
    ]


def test_several_contigs_and_missing_info(tmp_path):
    blocks_of = []
    for contig in ("20", "X"):
        block = random_block(3, 4, 2, contig=contig, info={"AF": np.array([0.5, np.nan, 0.25, 1])})
        blocks_of.append(block)
    contigs = [("19", None), ("20", 99_999), ("X", None)]
    text, binary = (
        view(write(tmp_path / f"x{suffix}", *blocks_of, contigs=contigs))
        for suffix in (".vcf", ".bcf")
    )
    assert text == binary
    assert [row[7].startswith("AF=") for row in rows_of(binary)] == 2 * [True, False, True, True]


def test_header():
    raw = bcf_header("##fileformat=VCFv4.2\n")
    assert raw[:5] == b"BCF\2\2"
    assert struct.unpack("<I", raw[5:9])[0] == len(raw) - 9
    assert raw[9:] == b"##fileformat=VCFv4.2\n\0"


def test_numbers_that_are_no_probability():
    block = random_block(3, 2, 2)
    block.allele_prob[1, 1, 0] = 1.5
    encoder = BcfEncoder(Heading(["a", "b"], [("20", None)]), ["GT", "DS"], 2)
    with pytest.raises(ValueError, match="must be in"):
        encoder.encode(block.sites, block.allele_prob, block.called, {}, block.typed)
