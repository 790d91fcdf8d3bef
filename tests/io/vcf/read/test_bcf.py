"""Genotypes of a BCF are those that htslib reads, and damage is told."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from vcf_fixtures import convert

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.io.vcf.bgzf import EOF_MARK, compress_block, inflate, read_blocks
from ragimpute.io.vcf.header import read_header
from ragimpute.io.vcf.read.bcf import BcfError, BcfReader
from ragimpute.io.vcf.read.genotypes import PanelStream
from ragimpute.io.vcf.read.records import RecordReader
from ragimpute.sites import Region

ROWS = [
    ("20", 5, "A", "G", "0|1", "1|1", "."),
    ("20", 5, "A", "C,T", "0/2", "1|2", "./."),
    ("20", 9, "AC", "A", "0|.", ".|1", "1"),
    ("20", 12, "A", ".", "0|0", "0|0", "0"),
    ("20", 70, "G" * 40, "T", "0/0", "1/0", "0|1"),
    ("20", 99, "A", ",".join("A" + "C" * i for i in range(1, 80)), "79|64", "63|1", "0"),
    ("20", 2**29 + 5, "A", "<DEL>", "0|1", "0|0", "1|0"),
]


def both_ways(path, region=None, threads=1):
    """Records as (site, alleles, phased), by this module and by htslib."""
    found = []
    for quick in (True, False):
        reader = RecordReader(path, region, threads, genotypes_only=quick)
        records = []
        for record in reader.records(sort_check=True):
            alleles = np.empty((len(reader.samples), 2), np.int8)
            phased = np.empty(len(reader.samples), bool)
            most = reader.genotypes(record, alleles, phased)
            site = (record.CHROM, record.POS, record.ID, record.REF, list(record.ALT),
                    record.FILTER is None)  # fmt: skip
            records.append((site, most, alleles.tolist(), phased.tolist(), type(record).__name__))
        found.append(records)
    return found


@pytest.mark.parametrize("threads", [1, 3])
def test_htslib_says_the_same(make_vcf, threads):
    path = convert(make_vcf(ROWS, ("a", "b", "c")), ".bcf")
    ours, theirs = both_ways(path, threads=threads)
    assert {record[4] for record in ours} == {"BcfRecord"}
    assert {record[4] for record in theirs} == {"Variant"}
    assert [record[:4] for record in ours] == [record[:4] for record in theirs]
    assert len(ours) == len(ROWS)


@pytest.mark.parametrize(
    "region", [None, "20", "20:2200000-2200500", "20:2899979-2899979", "20:1-1999999"]
)
def test_regions_of_a_real_panel(region):
    parsed = None if region is None else Region.parse(region)
    ours, theirs = both_ways(example.path("panel.bcf"), parsed)
    assert [record[:4] for record in ours] == [record[:4] for record in theirs]
    assert (len(ours) > 0) == (region != "20:1-1999999")


def test_filters_and_names(make_vcf, tmp_path):
    path = make_vcf(ROWS[:3], ("a", "b", "c"))
    lines = path.read_text().splitlines()
    lines.insert(1, '##FILTER=<ID=low,Description="x">')
    at = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    for i, (name, passes) in enumerate((("rs1", "low"), (".", "PASS"), ("b;c", "."))):
        cells = lines[at + i].split("\t")
        cells[2], cells[6] = name, passes
        lines[at + i] = "\t".join(cells)
    path.write_text("\n".join(lines) + "\n")
    ours, theirs = both_ways(convert(path, ".bcf"))
    assert [record[0] for record in ours] == [record[0] for record in theirs]
    assert [record[0][5] for record in ours] == [False, True, True]


def test_records_without_genotypes_and_of_too_many_alleles(make_vcf):
    path = convert(make_vcf([("20", 5, "A", "G", "0|1", "0|1|1")]), ".bcf")
    with pytest.raises(InputError, match="20:5: sample b has 3 alleles"):
        list(PanelStream(path))
    path = convert(make_vcf([("20", 5, "A", "G", "3", "4")], keys="DP", name="y.vcf",
                            formats='##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
                            '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="x">\n'),
                   ".bcf")  # fmt: skip
    with pytest.raises(InputError, match="20:5: the record has no GT"):
        list(PanelStream(path))


def rebuilt(path, out, change):
    """A BCF whose records ``change`` has altered, with blocks and checksums in order."""
    with path.open("rb") as file:
        raw = bytearray(b"".join(inflate(body) for _, body in read_blocks(file)))
    start = 9 + struct.unpack_from("<I", raw, 5)[0]
    change(raw, start)
    blocks = [compress_block(bytes(raw[i : i + 60_000])) for i in range(0, len(raw), 60_000)]
    out.write_bytes(b"".join(blocks) + EOF_MARK)
    return out


def read_all(path):
    header = read_header(path)
    reader = BcfReader(path, num_samples=len(header.samples), contigs=header.contig_numbers)
    records = list(reader.records())
    alleles, phased = (
        np.empty((len(header.samples), 2), np.int8),
        np.empty(len(header.samples), bool),
    )
    for record in records:
        if record.ploidy:
            record.decode(alleles, phased)
            assert alleles.min() >= -2
    return records


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, struct.pack("<I", 3), "lengths do not agree"),
        (4, struct.pack("<I", 2**31), "ends within a record"),
        (8, struct.pack("<i", 77), "malformed"),
        (28, struct.pack("<I", 2 << 24 | 9), "lengths do not agree"),
        (32, b"\x75", "text of a wrong type|lengths do not agree|malformed|wrong type"),
    ],
)
def test_what_htslib_never_writes_is_refused(tmp_path, make_vcf, at, value, message):
    path = convert(make_vcf(ROWS[:2], ("a", "b", "c")), ".bcf")

    def change(raw, start):
        raw[start + at : start + at + len(value)] = value

    with pytest.raises(BcfError, match=message):
        read_all(rebuilt(path, tmp_path / "y.bcf", change))


def test_random_changes_never_crash(tmp_path, make_vcf):
    path = convert(make_vcf(ROWS[:3], ("a", "b", "c")), ".bcf")
    rng = np.random.default_rng(7)
    outcomes = set()
    for _ in range(150):

        def change(raw, start):
            raw[int(rng.integers(start, len(raw)))] ^= 1 << int(rng.integers(8))

        try:
            outcomes.add(len(read_all(rebuilt(path, tmp_path / "y.bcf", change))))
        except BcfError:
            outcomes.add("refused")
    assert outcomes >= {"refused", 3}
