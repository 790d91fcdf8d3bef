"""Valid files that others read are read: GT without a header line, and VCF 4.4's prefixed phase."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import FORMATS, convert, vcf_text

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.dosages import read_dosages
from ragimpute.io.vcf.read.genotypes import PanelStream, read_target

ROWS = [(5, "A", "C", "0|1", "1"), (9, "A", "C,G", "1/2", "0"), (30, "A", "C", "./.", "1")]
NAMES = ("a", "b")
NO_FORMAT = vcf_text(ROWS, NAMES, formats="")


def same(path, other, **options):
    """The two files say the same, in every way of reading."""
    one, two = read_target(path, **options), read_target(other, **options)
    assert one.sites.keys() == two.sites.keys()
    assert one.samples == two.samples
    np.testing.assert_array_equal(one.alleles, two.alleles)
    np.testing.assert_array_equal(one.phased, two.phased)


def test_gt_needs_no_header_line(tmp_path):
    (tmp_path / "a.vcf").write_text(NO_FORMAT)
    (tmp_path / "b.vcf").write_text(vcf_text(ROWS, NAMES))
    for options in ({}, {"samples": ["b"]}, {"region": "20:6-40"}):
        same(tmp_path / "a.vcf", tmp_path / "b.vcf", **options)
    one, two = (read_dosages(tmp_path / f"{name}.vcf").dosage for name in "ab")
    np.testing.assert_array_equal(one, two)
    assert [len(batch.sites) for batch in PanelStream(tmp_path / "a.vcf")] == [4]


def test_a_file_without_gt_is_refused_as_before(tmp_path):
    path = tmp_path / "a.vcf"
    path.write_text(vcf_text([(5, "A", "C", "3")], ["a"], formats="", keys="DP"))
    for read in (read_target, PanelStream):
        with pytest.raises(InputError, match="declares no FORMAT/GT"):
            read(path)


SIGN = st.sampled_from("|/")
ALLELE = st.sampled_from("01.")


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_prefixed_phase_is_read_as_the_same_without(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("x")
    bare, prefixed = [], []
    for i in range(data.draw(st.integers(1, 6))):
        cells = []
        for _ in NAMES:
            plain = data.draw(ALLELE)
            if data.draw(st.booleans()):
                plain += data.draw(SIGN) + data.draw(ALLELE)
            cells.append((data.draw(st.sampled_from(["", "|", "/"])) + plain, plain))
        prefixed.append((5 + i, "A", "C", *(f"{cell}:|7" for cell, _ in cells)))
        bare.append((5 + i, "A", "C", *(f"{cell}:|7" for _, cell in cells)))
    formats = FORMATS + '##FORMAT=<ID=XX,Number=1,Type=String,Description="x">\n'
    for name, rows in (("a", bare), ("b", prefixed)):
        text = vcf_text(rows, NAMES, formats=formats, keys="GT:XX").replace("VCFv4.2", "VCFv4.4")
        (folder / f"{name}.vcf").write_text(text)
    a, b = folder / "a.vcf", folder / "b.vcf"
    for options in ({}, {"samples": ["b"]}, {"region": "20:5-7"}):
        same(a, b, **options)
    np.testing.assert_array_equal(read_dosages(a).dosage, read_dosages(b).dosage)


def prefixed_text(version):
    rows = [(5, "A", "C", "0|1"), (9, "A", "C", "|1|0"), (12, "A", "C", "/0/1")]
    return vcf_text(rows, ["a"]).replace("VCFv4.2", version)


def test_prefixed_phase_with_an_index_and_in_a_panel(tmp_path):
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text([(5, "A", "C", "0|1"), (9, "A", "C", "1|0"), (12, "A", "C", "0/1")],
                             ["a"]).replace("VCFv4.2", "VCFv4.4"))  # fmt: skip
    good = convert(path, ".vcf.gz")
    other = tmp_path / "y.vcf"
    other.write_text(prefixed_text("VCFv4.4"))
    for region in (None, "20", "20:6-10", "chr20:9-12"):
        same(other, good, region=region)
    batches = list(PanelStream(other))
    assert batches[0].alleles[:, 0].tolist() == [[0, 1], [1, 0], [0, 1]]
    assert batches[0].phased[:, 0].tolist() == [True, True, False]


def test_prefixed_phase_in_an_older_version_is_named(tmp_path):
    path = tmp_path / "x.vcf"
    path.write_text(prefixed_text("VCFv4.2"))
    with pytest.raises(InputError, match="begin with their phase") as caught:
        read_target(path)
    path.write_text(path.read_text().replace("VCFv4.2", "VCFv4.4"))
    assert "##fileformat=VCFv4.4" in caught.value.hint
    assert len(read_target(path).sites) == 3
    path.write_text(path.read_text().replace("|1|0", "|x|0"))
    with pytest.raises(InputError, match=r"damaged, truncated or malformed after 20:5"):
        read_target(path)
