"""Counts of a target beside its panel, and the table of records that are left out."""

from __future__ import annotations

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import vcf_text

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.target.match import match_sites, no_match
from ragimpute.target.qc import (
    QcSummary,
    TargetReport,
    excluded_rows,
    summarise,
    warn_of_target,
    write_excluded,
)

PANEL = [(100, "A", "G"), (200, "C", "T"), (300, "G", "A"), (300, "G", "C"), (400, "T", "TA"),
         (500, "A", "C"), (600, "A", "T"), (700, "G", "T"), (800, "C", "A")]  # fmt: skip
ROWS = [
    (90, "A", "G", "0|1", "1|0"),
    (100, "A", "G", "1|1", "1|1"),  # ALT above half, monomorphic
    (100, "A", "G", "1|1", "1|1"),  # again
    (200, "T", "C", "0|1", "1|."),  # swapped, call rate of 75 %
    (300, "G", "A,<DEL>", "0|2", "0|1"),
    (400, "T", "TA", "1|0", "0|0"),  # no SNP
    (500, "T", "G", "1|0", "0|0"),  # the other strand
    (600, "A", "T", "1|0", "0|0"),  # A/T
    (700, "A", "C", "1|0", "0|0"),  # both
    (750, "A", "*", "1|0", "0|0"),
    (800, "C", "G", "1|0", "0|0"),  # another ALT
    (900, "D", "I", "1|0", "0|0"),
]  # fmt: skip


@pytest.fixture
def inputs(tmp_path):
    """A target of every kind of record, its panel, and their match."""
    position, ref, alt = zip(*PANEL, strict=True)
    alleles = np.random.default_rng(0).integers(0, 2, (len(PANEL), 4, 2))
    batch = make_batch(alleles, position, ref=ref, alt=alt)
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    text = vcf_text(ROWS).replace("20\t200\t.\tT\tC\t.\t.", "20\t200\trs2\tT\tC\t.\tlow")
    text = text.replace("##FORMAT", '##FILTER=<ID=low,Description="x">\n##FORMAT', 1)
    (tmp_path / "t.vcf").write_text(text)
    target = read_target(tmp_path / "t.vcf", keep_monomorphic=True)
    with Panel.open(tmp_path / "p.h5") as panel:
        yield target, panel, match_sites(target, panel, 0, panel.num_sites)


def test_the_counts_of_the_imputation_server(inputs):
    qc = summarise(*inputs)
    assert qc.fates == {
        "matched": 3, "swapped": 1, "flipped": 1, "flipped_swapped": 1, "not_in_panel": 1,
        "allele_mismatch": 1, "ambiguous_strand": 1, "duplicate": 1, "invalid": 1, "symbolic": 1,
        "star": 1,
    }  # fmt: skip
    assert sum(qc.fates.values()) == qc.num_records + qc.num_further_alts == qc.num_alts == 13
    assert qc.num_records == 12
    assert qc.overlap == pytest.approx(6 / 9)  # of the records from 100 to 800
    assert qc.palindromes == {"found": 1, "other_strand": 0, "left_out": 1}
    assert qc.noted == {
        "filter_set": 1, "multiallelic": 1, "not_snp": 1, "monomorphic": 2, "alt_above_half": 3,
        "low_call_rate": 2,
    }  # fmt: skip
    shown = dict(qc.rows())
    assert shown["reference overlap"] == "66.67%"
    assert shown["strand flip and allele switch"] == "1"
    assert shown["filtered: duplicates, merged"] == "1"
    assert shown["noted: call rate < 90 %"] == "2"


def test_samples_below_half_are_low():
    rates = {"none": 0.0, "below": 0.49, "half": 0.5, "all": 1.0}
    qc = QcSummary(4, 1.0, {}, {}, {}, rates)
    assert qc.low_samples == ["none", "below"]


def test_peers_33_excluded_sites_with_reason_and_fix(inputs, tmp_path):
    path = tmp_path / "excluded.tsv"
    assert write_excluded(path, *inputs) == 7
    head, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert head == ["#CHROM", "POS", "ID", "REF", "ALT", "REASON", "PANEL", "FIX"]
    assert [row[:7] for row in rows] == [
        ["20", "90", ".", "A", "G", "not_in_panel", "."],
        ["20", "100", ".", "A", "G", "duplicate", "A>G"],
        ["20", "300", ".", "G", "<DEL>", "symbolic", "G>A,G>C"],
        ["20", "600", ".", "A", "T", "ambiguous_strand", "A>T"],
        ["20", "750", ".", "A", "*", "star", "."],
        ["20", "800", ".", "C", "G", "allele_mismatch", "C>A"],
        ["20", "900", ".", "D", "I", "invalid", "."],
    ]
    assert all(len(row[7]) > 10 for row in rows)
    assert sorted(p.name for p in tmp_path.glob("*excluded*")) == ["excluded.tsv"]
    with pytest.raises(InputError, match="cannot write"):
        write_excluded(tmp_path / "none" / "x.tsv", *inputs)


def test_peers_24_call_rates_count_haplotypes(tmp_path, inputs):
    _, panel, _ = inputs
    rows = [(100, "A", "G", "1", "0|1", "."), (200, "C", "T", "0", ".|.", "."),
            (500, "A", "C", "1", "./.", "1|0"), (700, "G", "T", "0", ".|.", ".")]  # fmt: skip
    (tmp_path / "x.vcf").write_text(vcf_text(rows, "abc"))
    target = read_target(tmp_path / "x.vcf")
    qc = summarise(target, panel, match_sites(target, panel, 0, panel.num_sites))
    assert qc.call_rate == {"a": 1.0, "b": 0.25, "c": 0.25}  # a is haploid, not half missing
    assert qc.low_samples == ["b", "c"]
    assert dict(qc.rows())["samples with call rate < 50 %"] == "2"


def test_a_target_without_records(inputs, tmp_path):
    given, panel, _ = inputs
    empty = type(given)(
        given.samples, given.sites.take(slice(0)), given.alleles[:0], given.phased[:0],
        given.record[:0], {},
    )  # fmt: skip
    match = no_match(empty)
    qc = summarise(empty, panel, match)
    assert (qc.num_records, qc.low_samples) == (0, [])
    assert dict(qc.rows())["reference overlap"] == "–"
    assert write_excluded(tmp_path / "x.tsv", empty, panel, match) == 0


def test_the_real_example_is_clean(panel_h5):
    target = read_target(example.path("target.vcf.gz"), keep_monomorphic=True)
    with Panel.open(panel_h5) as panel:
        qc = summarise(target, panel, match_sites(target, panel, 0, panel.num_sites))
    assert qc.overlap == 1
    assert qc.fates["matched"] == qc.num_records == 689
    assert qc.palindromes["left_out"] == qc.palindromes["other_strand"] == 0
    assert qc.palindromes["found"] > 0
    assert min(qc.call_rate.values()) == 1


def test_discordant_duplicates_are_counted_and_listed(tmp_path, inputs):
    _, panel, _ = inputs
    position, ref, alt = panel.sites.keys()[0]
    rows = [(position, ref, alt, "0|0", "0|1"), (position, ref, alt, "0|1", "0/1")]
    path = tmp_path / "twice.vcf"
    path.write_text(vcf_text(rows))
    target = read_target(path)
    match = match_sites(target, panel, 0, panel.num_sites)
    qc = summarise(target, panel, match)
    assert (qc.discordant, qc.fates["duplicate"]) == (1, 1)
    assert dict(qc.rows())["discordant calls of duplicates, now missing"] == "1"
    (row,) = excluded_rows(target, panel, match)
    assert row[5] == "duplicate"
    assert row[7].endswith("discordant calls made missing: 1")
    report = TargetReport(qc=qc, counts=dict(match.counts))
    warn_of_target(report, target, panel, match, 0, panel.num_sites)
    assert report.counts["discordant_calls"] == 1
    assert any(line.startswith("1 genotypes are missing") for line in report.warnings)


def test_calls_with_more_alts_than_haplotypes_are_counted(tmp_path):
    alleles = np.zeros((2, 4, 2), np.int8)
    alleles[0, 0, 0] = alleles[1, 1, 1] = 1
    batch = make_batch(alleles, [100, 100], ref=["A", "A"], alt=["C", "G"])
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text([(100, "A", "C", "1/1", "0|1"), (100, "A", "G", "0/1", "1|0")]))
    with Panel.open(tmp_path / "p.h5") as panel:
        target = read_target(path)
        match = match_sites(target, panel, 0, 2)
        qc = summarise(target, panel, match)
        report = TargetReport(qc=qc, counts=dict(match.counts))
        warn_of_target(report, target, panel, match, 0, 2)
    assert match.alleles.tolist() == [[[-1, -1], [0, 1]], [[-1, -1], [1, 0]]]
    assert qc.contradicting == report.counts["contradicting_calls"] == 1
    assert any("two ALTs of one position" in line for line in report.warnings)
