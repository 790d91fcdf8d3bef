"""Target records and panel sites: what is matched, swapped, left out, and what is said."""

from __future__ import annotations

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import vcf_text

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.match import marker_mask, match_sites, target_region
from ragimpute.panel import Panel, write_panel
from ragimpute.prepare import prepare
from ragimpute.sites import Region
from ragimpute.vcf import read_target

# Panel sites of contig 20; at 300 two ALTs of one position.
PANEL = [(100, "A", "G"), (200, "C", "T"), (300, "G", "A"), (300, "G", "C"), (400, "T", "TA"),
         (500, "A", "C"), (600, "A", "T")]  # fmt: skip


@pytest.fixture
def panel(tmp_path):
    position, ref, alt = zip(*PANEL, strict=True)
    alleles = np.random.default_rng(0).integers(0, 2, (len(PANEL), 4, 2))
    batch = make_batch(alleles, position, ref=ref, alt=alt)
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    with Panel.open(tmp_path / "p.h5") as opened:
        yield opened


@pytest.fixture
def read(tmp_path):
    """Reads rows (position, ref, alt, calls of a and b) as a target."""

    def make(rows, contig="20"):
        path = tmp_path / "t.vcf"
        path.write_text(vcf_text(rows, contigs=(contig,)).replace("\n20\t", f"\n{contig}\t"))
        return read_target(path)

    return make


def test_each_record_is_matched_or_counted(panel, read):
    target = read([
        (100, "A", "G", "0|1", "1|0"),
        (100, "A", "G", "1|1", "1|1"),  # again
        (150, "A", "G", "0|1", "1|0"),  # no such position
        (200, "T", "C", "0|1", ".|0"),  # REF and ALT swapped
        (300, "G", "C", "0|0", "0|1"),  # the second ALT
        (400, "T", "TA", "1|0", "1|."),  # an insertion
        (500, "A", "T", "1|0", "1|1"),  # another ALT
    ])  # fmt: skip
    found = match_sites(target, panel, 0, panel.num_sites)
    assert found.panel_index.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(
        found.alleles,
        [[[0, 1], [1, 0]], [[1, 0], [-1, 1]], [[0, 0], [0, 1]], [[1, 0], [1, -1]]],
    )
    assert found.counts == {
        "matched": 3, "swapped": 1, "not_in_panel": 1, "allele_mismatch": 1, "duplicate": 1,
        "ambiguous_strand": 0,
    }  # fmt: skip
    assert sum(found.counts.values()) == len(target.sites)
    assert found.phased.shape == (4, 2)


def test_only_sites_in_the_range(panel, read):
    target = read([(p, r, a, "0|1", "1|0") for p, r, a in PANEL])
    found = match_sites(target, panel, 2, 5)
    assert found.panel_index.tolist() == [2, 3, 4]
    assert found.counts["not_in_panel"] == 4


def test_haploid_fill_stays(panel, read):
    found = match_sites(read([(200, "T", "C", "1", "0|1")]), panel, 0, 7)
    np.testing.assert_array_equal(found.alleles, [[[0, -2], [1, 0]]])


def test_multiallelic_records(panel, read):
    found = match_sites(read([(300, "G", "A,C", "1|2", "0|2")]), panel, 0, 7)
    assert found.panel_index.tolist() == [2, 3]
    np.testing.assert_array_equal(found.alleles, [[[1, 0], [0, 0]], [[0, 1], [0, 1]]])
    # 500 A>C in the panel. Swapping C>A of C>A,G would make a carrier of G one of C.
    found = match_sites(
        read([(100, "A", "G", "0|1", "0|0"), (500, "C", "A,G", "1|2", "0|2")]), panel, 0, 7
    )
    assert found.panel_index.tolist() == [0]
    assert found.counts["allele_mismatch"] == 2
    assert found.counts["swapped"] == 0


def test_swap_gives_the_same_result_as_no_swap(panel, read):
    rng = np.random.default_rng(1)
    calls = rng.integers(0, 2, (len(PANEL), 4))
    straight = [(p, r, a, f"{w}|{x}", f"{y}|{z}")
                for (p, r, a), (w, x, y, z) in zip(PANEL, calls, strict=True)]  # fmt: skip
    turned = [(p, a, r, f"{w}|{x}", f"{y}|{z}")
              for (p, r, a), (w, x, y, z) in zip(PANEL, 1 - calls, strict=True)]  # fmt: skip
    one, two = (match_sites(read(rows), panel, 0, 7) for rows in (straight, turned))
    np.testing.assert_array_equal(one.panel_index, two.panel_index)
    np.testing.assert_array_equal(one.alleles, two.alleles)
    assert (one.counts["matched"], two.counts["swapped"]) == (7, 7)


def test_palindromes_are_swapped_only_where_that_is_sure(panel, read):
    swapped, flipped = (200, "T", "C", "0|1", "0|0"), (100, "T", "C", "0|1", "0|0")
    palindrome = (600, "T", "A", "0|1", "1|1")  # A>T in the panel: swapped, or of the other strand
    plain = (500, "A", "C", "0|1", "0|0")
    for rows, matched, ambiguous in (
        ([swapped, palindrome], [1, 6], 0),
        ([flipped, plain, palindrome], [5], 1),
        ([flipped, swapped, palindrome], [1], 1),
        ([plain, palindrome], [5], 1),
    ):
        found = match_sites(read(sorted(rows)), panel, 0, 7)
        assert found.panel_index.tolist() == matched
        assert found.counts["ambiguous_strand"] == ambiguous
        assert sum(found.counts.values()) == len(rows)
    with pytest.raises(InputError, match="no target record is a panel site") as caught:
        match_sites(read([flipped, palindrome]), panel, 0, 7)
    assert "strand flip" in caught.value.hint


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        ([(9000, "A", "G"), (9100, "A", "G")], "ranges do not meet"),
        ([(100, "T", "C"), (200, "G", "A")], "strand flip"),
        ([(101, "A", "G"), (201, "A", "G"), (300, "T", "G")], "different genome builds"),
        ([(100, "A", "T"), (200, "C", "A"), (300, "T", "A")], "alleles do not"),
    ],
)
def test_no_overlap_says_why(panel, read, rows, hint):
    target = read([(*row, "0|1", "0|0") for row in rows])
    with pytest.raises(InputError, match="no target record is a panel site") as caught:
        match_sites(target, panel, 0, panel.num_sites)
    assert hint in caught.value.hint
    assert f"20:{rows[0][0]}-{rows[-1][0]} ({len(rows)} records)" in caught.value.message
    assert "20:100-600 (7 sites)" in caught.value.message


def test_no_record_at_all(panel, read):
    target = read([(100, "A", "G", "0|1", "0|0")])
    empty = type(target)(
        target.samples, target.sites.take(slice(0)), target.alleles[:0], target.phased[:0],
        target.multiallelic[:0], {},
    )  # fmt: skip
    with pytest.raises(InputError, match="no record on 20"):
        match_sites(empty, panel, 0, panel.num_sites)
    with pytest.raises(InputError, match=r"panel 20: no site \(0 sites\)"):
        match_sites(target, panel, 3, 3)


@pytest.mark.parametrize("contig", ["20", "chr20"])
def test_contig_with_or_without_chr(panel, read, tmp_path, contig):
    rows = [(100, "A", "G", "0|1", "0|0"), (600, "A", "T", "0|1", "0|0")]
    target = read(rows, contig)
    assert match_sites(target, panel, 0, 7).panel_index.tolist() == [0, 6]
    path = tmp_path / "t.vcf"
    assert target_region(path, panel, None) == Region(contig)
    assert target_region(path, panel, Region("20", 5, 10)) == Region(contig, 5, 10)
    np.testing.assert_array_equal(np.flatnonzero(marker_mask(path, panel)), [0, 6])


def test_other_contig(panel, read, tmp_path):
    read([(100, "A", "G", "0|1", "0|0")], "chr2")
    with pytest.raises(InputError, match=r"contig 20; it holds chr2$") as caught:
        marker_mask(tmp_path / "t.vcf", panel)
    assert "same chromosome" in caught.value.hint


def test_real_target(tmp_path):
    prepare(example.path("panel.bcf"), tmp_path / "p.h5", cm_per_mb=1)
    with Panel.open(tmp_path / "p.h5") as panel:
        target = read_target(example.path("target.vcf.gz"))
        found = match_sites(target, panel, 0, panel.num_sites)
        at = {key: i for i, key in enumerate(target.sites.keys())}
        matched = panel.sites.take(found.panel_index).keys()
    assert found.counts["matched"] == len(found.panel_index) > 100
    for key, alleles in zip(matched, found.alleles, strict=True):
        np.testing.assert_array_equal(alleles, target.alleles[at[key]])
