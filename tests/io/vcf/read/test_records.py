"""Records: what is left out, and what is refused by name."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from vcf_fixtures import convert, vcf_text

from ragimpute.errors import InputError
from ragimpute.io.vcf.bgzf import EOF_MARK, compress_block
from ragimpute.io.vcf.read.genotypes import PanelStream, read_dosages, read_target
from ragimpute.io.vcf.read.records import LeftOut, RecordReader, VcfFile, site_table
from ragimpute.sites import Region


def test_alleles_that_are_left_out(make_vcf):
    rows = [
        (10, "A", "<DEL>", "0|1", "0|0"),
        (11, "A", "G,*", "1|2", "0|0"),
        (12, "A", "G,<NON_REF>", "0|1", "0|2"),
        (13, "A", ".", "0|0", "0|0"),
        (14, "A", "A[20:99[", "0|1", "0|0"),
        (15, "a", "g", "0|1", "1|1"),
        (16, "D", "I", "0|1", "1|1"),
    ]
    path = make_vcf(rows)
    target = read_target(path)
    assert [key[0] for key in target.sites.keys()] == [11, 12, 15]
    # Who carries an allele that is left out is not known to carry REF.
    assert target.alleles.tolist() == [[[1, -1], [0, 0]], [[0, 1], [0, -1]], [[0, 1], [1, 1]]]
    assert target.skipped == {"symbolic": 2, "star": 1, "no_alt": 1, "invalid": 1}
    assert target.left_out[0] == LeftOut(10, ".", "A", "<DEL>", "symbolic")
    assert [(x.position_bp, x.alt, x.reason) for x in target.left_out[1:]] == [
        (11, "*", "star"), (13, ".", "no_alt"),
        (14, "A[20:99[", "symbolic"), (16, "I", "invalid"),
    ]  # fmt: skip
    assert target.multiallelic.tolist() == [True, False, False]
    # Each record, and each further ALT but <NON_REF>, is a row or is left out.
    num_rows = len(target.sites) + len(target.left_out)
    assert target.num_records + target.num_further_alts == num_rows == 8
    assert read_dosages(path).skipped == target.skipped
    stream = PanelStream(path)
    (batch,) = stream
    assert len(batch.sites) == 8
    assert stream.counts.skipped == {"no_alt": 1}


def test_monomorphic_records_are_kept_on_request(make_vcf):
    path = make_vcf([(10, "A", ".", "0|0", ".|0"), (11, "A", "G,*", "0|1", "0|2")])
    for file in (path, convert(path, ".bcf"), convert(path, ".vcf.gz", index=False)):
        target = read_target(file, keep_monomorphic=True)
        assert target.sites.keys() == [(10, "A", "."), (11, "A", "G")]
        assert target.alleles.tolist() == [[[0, 0], [-1, 0]], [[0, 1], [0, -1]]]
        assert target.skipped == {"star": 1}


def test_filters_are_counted_and_samples_chosen(tmp_path, make_vcf):
    path = make_vcf(
        [(10, "A", "G", "0|1", "0|0", "1|1"), (11, "C", "T", "0|1", "1|0", "0|0")], "abc"
    )
    text = path.read_text().replace("##FORMAT", '##FILTER=<ID=low,Description="x">\n##FORMAT', 1)
    path.write_text(text.replace("C\tT\t.\t.", "C\tT\t.\tlow"))
    for file in (path, convert(path, ".bcf"), convert(path, ".vcf.gz", index=False)):
        target = read_target(file, samples=["c", "a"])
        assert target.samples == ["a", "c"]  # in the order of the file
        assert target.alleles.tolist() == [[[0, 1], [1, 1]], [[0, 1], [0, 0]]]
        assert target.num_filtered == read_target(file).num_filtered == 1
        assert len(target.sites) == 2


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
def test_bad_files(make_vcf, capfd, rows, options, message):
    path = make_vcf(rows, **options)
    with pytest.raises(InputError) as caught:
        read_target(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    printed = capfd.readouterr()
    assert printed.err == printed.out == ""


def test_one_contig_is_chosen(make_vcf):
    rows = [("19", 5, "A", "G", "0|1", "0|0"), ("20", 7, "A", "G", "0|1", "0|0")]
    path = make_vcf(rows, contigs=("19", "20"))
    reader = RecordReader(path, Region("chr20"), 1)
    assert [(v.CHROM, v.POS) for v in reader.records(sort_check=True)] == [("20", 7)]
    assert reader.contig == "20"
    with pytest.raises(InputError, match="2 contigs"):
        list(RecordReader(path, None, 1).records(sort_check=True))
    with pytest.raises(InputError, match="no records on contig 7"):
        list(RecordReader(path, Region("7"), 1).records(sort_check=True))
    with pytest.raises(ValueError, match="threads must be >= 1"):
        RecordReader(path, None, 0)


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
@pytest.mark.parametrize("index", [True, False])
def test_records_that_start_in_the_region(make_vcf, suffix, index):
    rows = [(p, "A" * 50, "A", "0|1", "1|1") for p in range(10, 5_000, 10)]
    path = make_vcf(rows)
    if suffix != ".vcf":
        path = convert(path, suffix, index=index)
    for start, stop in ((1, 11), (20, 21), (995, 1_501), (4_990, 10_000)):
        reader = RecordReader(path, Region("20", start, stop), 2)
        found = [variant.POS for variant in reader.records(sort_check=True)]
        assert found == [p for p in range(10, 5_000, 10) if start <= p < stop]


def test_contigs_with_records(make_vcf):
    path = make_vcf([("X", 5, "A", "G", "0|1", "0|0")], contigs=("20", "X"))
    assert list(VcfFile(path).contigs) == ["X"]
    assert list(VcfFile(convert(path, ".bcf")).contigs) == ["X"]


def test_site_table():
    sites = site_table("20", [3, 4], ["A", "C"], ["G", "T"], [".", "rs1"])
    assert sites.position_bp.dtype == np.int32
    assert sites.keys() == [(3, "A", "G"), (4, "C", "T")]
    assert sites.id.tolist() == [".", "rs1"]


@pytest.mark.parametrize("cells", ["20", "20\t5", "20\t5\trs1", "", "SVLEN=-9"])
def test_a_row_without_alleles(make_vcf, cells):
    """cyvcf2 would crash when asked for its REF."""
    path = make_vcf([(3, "A", "G", "0|1", "0|0"), (4, "A", ".", "0|0", "0|0")])
    path.write_text(path.read_text() + cells + "\n")
    for read in (read_target, read_dosages, lambda path: list(PanelStream(path))):
        with pytest.raises(InputError, match=r"malformed after 20:4"):
            read(path)


@pytest.mark.parametrize("column", [0, 3, 4])
def test_bytes_that_are_no_text(make_vcf, column):
    path = make_vcf([(3, "A", "G", "0|1", "0|0"), (4, "C", "T", "0|0", "0|0")])
    *head, last = path.read_bytes().splitlines()
    cells = last.split(b"\t")
    cells[column] = b"\xb0"
    path.write_bytes(b"\n".join([*head, b"\t".join(cells)]) + b"\n")
    with pytest.raises(InputError, match=r"malformed after 20:3"):
        read_target(path)


def test_samples_whose_cells_end_before_gt(make_vcf):
    """Asked for such a GT, htslib would end the process without a word."""
    path = make_vcf([(3, "A", "G", "0|1", "0|0"), (4, "A", "G", "0|1", "0|0")])
    text = path.read_text()
    path.write_text(text + "20\t5\t.\tA\tG\t.\t.\t.\tDS:GT\t1\t1\n")
    for read in (read_target, read_dosages, lambda path: list(PanelStream(path))):
        with pytest.raises(InputError, match=r"malformed after 20:4"):
            read(path)
    path.write_text(text + "20\t5\t.\tA\tG\t.\t.\t.\tDS:GT\t1\t1:1|0\n")
    assert read_target(path).alleles[2].tolist()[1] == [1, 0]


def coded_genotypes(data):
    """Where a BCF of 0|1 and 0|0 has these: two int8 for each sample."""
    # bcftools sets the bit of phase in the second alleles, and since 1.22 in the first ones too.
    forms = [bytes([0x21, 2, 5, 2, 3]), bytes([0x21, 3, 5, 3, 3])]
    (found,) = [form for form in forms if data.count(form) == 1]
    return found


def test_a_bcf_whose_gt_has_no_alleles(make_vcf, tmp_path):
    """cyvcf2 would crash when asked for them."""
    good = convert(make_vcf([(3, "A", "G", "0|1", "0|0")], infos=""), ".u.bcf", index=False)
    data = gzip.decompress(good.read_bytes())
    genotypes = coded_genotypes(data)
    path = tmp_path / "none.bcf"
    path.write_bytes(data.replace(genotypes, b"\x01" + genotypes[1:]))
    for read in (read_target, read_dosages):
        with pytest.raises(InputError, match="no GT"):
            read(path)


@pytest.mark.parametrize("kind", [0, 4, 5, 7])
def test_a_bcf_whose_gt_is_of_a_wrong_type(make_vcf, tmp_path, kind):
    """htslib would end the process when asked for it."""
    good = convert(make_vcf([(3, "A", "G", "0|1", "0|0")], infos=""), ".bcf", index=False)
    data = gzip.decompress(good.read_bytes())
    genotypes = coded_genotypes(data)
    path = tmp_path / "wrong.bcf"
    path.write_bytes(
        compress_block(data.replace(genotypes, bytes([0x20 | kind]) + genotypes[1:])) + EOF_MARK
    )
    for read in (read_target, read_dosages, lambda path: read_target(path, samples=["a"])):
        with pytest.raises(InputError, match="damaged, truncated or malformed at its first"):
            read(path)


@pytest.mark.parametrize("contig", ["[20:1[", "[x"])
def test_contigs_of_names_that_no_vcf_may_have(tmp_path, contig):
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text([(contig, 5, "A", "C", "0|1", "0|0")], contigs=()))
    for read in (read_target, lambda path: list(PanelStream(path)), read_dosages):
        with pytest.raises(InputError, match="which is no name that a VCF may have") as caught:
            read(path)
        assert str(path) in caught.value.message
        assert contig in caught.value.message


@pytest.mark.parametrize("contig", ["20", "HLA-A*01:01", "a=b", "NC_000020.11"])
@pytest.mark.parametrize("cell", ["x", "\u202e", "0|1|", "0/y"])
@pytest.mark.parametrize("row", [0, 1])
def test_a_bad_genotype_of_a_contig_that_is_not_declared(tmp_path, contig, cell, row):
    """cyvcf2 would crash."""
    cells = ["0|1", "0|1"]
    cells[row] = cell
    rows = [(contig, 5 + i, "A", "C", text, "0|0") for i, text in enumerate(cells)]
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text(rows, contigs=()))
    for read in (read_target, lambda path: list(PanelStream(path)), read_dosages):
        with pytest.raises(InputError, match="damaged, truncated or malformed"):
            read(path)
    path.write_text(vcf_text([r for i, r in enumerate(rows) if i != row], contigs=()))
    assert read_target(path).sites.contig == contig
