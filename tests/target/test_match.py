"""Target records and panel sites: what is matched, swapped or left out, and why few are shared."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import vcf_text, write_genotypes

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.read.records import site_table
from ragimpute.panel.format import SITE_TYPES, site_type
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region, Sites
from ragimpute.target import match
from ragimpute.target.match import (
    FATES,
    Overlap,
    compare_positions,
    expected_by_chance,
    likely_cause,
    marker_mask,
    match_sites,
    no_overlap,
    require_overlap,
    target_region,
)

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
        (100, "A", "G", "0|1", "./."),  # again
        (150, "A", "G", "0|1", "1|0"),  # no such position
        (200, "T", "C", "0|1", ".|0"),  # REF and ALT swapped
        (300, "G", "C", "0|0", "0|1"),  # the second ALT
        (400, "T", "TA", "1|0", "1|."),  # an insertion
        (500, "A", "G", "1|0", "1|1"),  # another ALT
    ])  # fmt: skip
    found = match_sites(target, panel, 0, panel.num_sites)
    assert found.panel_index.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(
        found.alleles,
        [[[0, 1], [1, 0]], [[1, 0], [-1, 1]], [[0, 0], [0, 1]], [[1, 0], [1, -1]]],
    )
    assert found.counts == {
        "matched": 3, "swapped": 1, "flipped": 0, "flipped_swapped": 0, "not_in_panel": 1,
        "allele_mismatch": 1, "ambiguous_strand": 0, "duplicate": 1, "invalid": 0,
    }  # fmt: skip
    assert [FATES[fate] for fate in found.fate] == [
        "matched", "duplicate", "not_in_panel", "swapped", "matched", "matched", "allele_mismatch",
    ]  # fmt: skip
    assert found.row.tolist() == [0, 3, 4, 5]
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


def test_all_rows_of_a_record_are_of_one_strand(tmp_path, read):
    """The other ALTs of a record tell the strand of a palindrome in it."""
    sites = [(100, "A", "T"), (100, "A", "G"), (200, "C", "T"), (200, "C", "G")]
    position, ref, alt = zip(*sites, strict=True)
    batch = make_batch(np.zeros((4, 4, 2)), position, ref=ref, alt=alt)
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    with Panel.open(tmp_path / "p.h5") as panel:
        forward = match_sites(read([(100, "A", "T,G", "1|2", "0|1")]), panel, 0, 4)
        assert forward.panel_index.tolist() == [0, 1]
        assert forward.alleles.tolist() == [[[1, 0], [0, 1]], [[0, 1], [0, 0]]]
        # G>A,C is C>T,G of the panel.
        other = match_sites(read([(200, "G", "A,C", "1|2", "0|1")]), panel, 0, 4)
        assert other.panel_index.tolist() == [2, 3]
        assert other.counts["flipped"] == 2
        # Nothing tells the strand: a record of several ALTs is never swapped.
        lone = match_sites(read([(100, "T", "A,TC", "1|2", "0|1")]), panel, 0, 4)
        assert lone.panel_index.tolist() == []
        assert lone.counts["ambiguous_strand"] == 1


def test_duplicated_probes_are_merged(panel, read):
    target = read([
        (100, "A", "G", "./.", "./."),
        (100, "A", "G", "0|1", "./."),
        (200, "C", "T", "0|1", "0/0"),
        (200, "T", "C", "1|0", "0|0"),  # swapped: 0|1 and 1|1
        (400, "T", "TA", "0/1", "1|0"),
        (400, "T", "TA", "1|0", "0|1"),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 7)
    assert found.panel_index.tolist() == [0, 1, 4]
    assert found.alleles.tolist() == [
        [[0, 1], [-1, -1]], [[0, 1], [-1, -1]], [[1, 0], [1, 0]],
    ]  # fmt: skip
    assert found.phased.tolist() == [[True, True], [True, True], [True, False]]
    assert found.discordant.tolist() == [0, 0, 0, 1, 0, 0]
    assert found.counts["duplicate"] == 3
    # What belongs to a genotype, such as its phase set, is that of the row it is of.
    rows = np.arange(6)[:, None] * [[1, 1]]
    assert found.of_rows(rows).tolist() == [[1, 0], [2, 2], [5, 4]]


# A panel of four loci, whose haplotypes carry one ALT each at most, and a site between.
LOCI = [(100, "A", "C"), (100, "A", "G"), (100, "A", "T"), (150, "C", "T"),
        (200, "G", "A"), (200, "G", "GT"), (300, "CA", "C"), (300, "CA", "CAA"),
        (400, "T", "A"), (400, "T", "C")]  # fmt: skip


@pytest.fixture(scope="module")
def loci_panel(tmp_path_factory):
    path = tmp_path_factory.mktemp("loci") / "p.h5"
    rng = np.random.default_rng(3)
    alleles = np.zeros((len(LOCI), 30, 2), np.int8)
    for position in sorted({site[0] for site in LOCI}):
        rows = [i for i, site in enumerate(LOCI) if site[0] == position]
        which = rng.integers(0, len(rows) + 1, (30, 2))
        for number, row in enumerate(rows):
            alleles[row] = which == number
    position, ref, alt = zip(*LOCI, strict=True)
    batch = make_batch(alleles, position, ref=ref, alt=alt)
    write_panel(path, [batch], samples=names(30), genetic_map=FlatMap())
    with Panel.open(path) as opened:
        yield opened


def record_text(alleles, phased, own):
    """A call of a record with several ALTs, or of its row of ALT ``own``, as bcftools splits it."""
    shown = alleles if own is None else [x if x is None else int(x == own) for x in alleles]
    return ("|" if phased else "/").join("." if x is None else str(x) for x in shown)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_split_and_joined_records_are_the_same(loci_panel, tmp_path_factory, data):
    joined, split = [], []
    for position in sorted({site[0] for site in LOCI}):
        alts = data.draw(st.permutations([s[2] for s in LOCI if s[0] == position]))
        ref = next(s[1] for s in LOCI if s[0] == position)
        calls = [
            data.draw(st.tuples(*[st.sampled_from([None, *range(len(alts) + 1)])] * 2))
            for _ in range(3)
        ]
        # A half call is missing, or its place is known.
        calls = [(None, None) if None in pair else pair for pair in calls]
        phased = [data.draw(st.booleans()) for _ in calls]
        texts = zip(calls, phased, strict=True)
        joined.append((position, ref, ",".join(alts), *(record_text(c, p, None) for c, p in texts)))
        rows = [
            (position, ref, alt,
             *(record_text(c, p, own) for c, p in zip(calls, phased, strict=True)))
            for own, alt in enumerate(alts, 1)
        ]  # fmt: skip
        split += data.draw(st.permutations(rows))
    found = []
    for name, rows in (("joined", joined), ("split", split)):
        path = tmp_path_factory.mktemp(name) / "t.vcf"
        path.write_text(vcf_text(rows, samples=("a", "b", "c")))
        found.append(match_sites(read_target(path), loci_panel, 0, len(LOCI)))
    one, two = found
    assert one.panel_index.tolist() == list(range(len(LOCI)))
    for name in ("panel_index", "alleles", "phased"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert {tuple(g) for g in one.ties} == {tuple(g) for g in two.ties}
    assert one.num_contradicting == two.num_contradicting == 0


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


def test_other_strand(panel, read):
    target = read([
        (100, "T", "C", "0|1", "0|0"),  # A>G
        (200, "A", "G", "0|1", "0|0"),  # C>T, swapped too
        (300, "C", "G,T", "1|2", "0|1"),  # G>C and G>A, in one record
        (400, "A", "AT", "0|1", "0|0"),  # T>TA: but an indel of the other strand moves
        (500, "A", "C", "1|0", "0|0"),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 7)
    assert found.panel_index.tolist() == [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(
        found.alleles[:4],
        [[[0, 1], [0, 0]], [[1, 0], [1, 1]], [[0, 1], [0, 0]], [[1, 0], [0, 1]]],
    )
    assert (found.counts["flipped"], found.counts["flipped_swapped"]) == (3, 1)
    assert found.counts["allele_mismatch"] == 1


def test_longer_spellings_of_one_variant(panel, read):
    # 400 T>TA, and 200 C>T as part of a longer haplotype; 101 is A>G of 100 with a base before it.
    target = read([
        (99, "CA", "CG", "0|1", "0|0"),
        (200, "CAA", "TAA,CAAA", "1|0", "2|0"),
        (400, "TCC", "TACC", "0|1", "0|0"),
        (500, "a", "c", "0|1", "0|0"),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 7)
    assert found.panel_index.tolist() == [0, 1, 4, 5]
    assert found.counts["matched"] == 4


def test_a_swapped_indel_counts_only_where_swaps_are_usual(panel, read):
    swapped = [(100, "G", "A"), (200, "T", "C"), (500, "C", "A")]
    straight = [(100, "A", "G"), (200, "C", "T"), (500, "A", "C")]
    for others, expected in ((swapped, "swapped"), (straight, "allele_mismatch")):
        rows = sorted([*others, (400, "TA", "T")])
        found = match_sites(read([(*row, "0|1", "0|0") for row in rows]), panel, 0, 7)
        assert FATES[found.fate[2]] == expected


def test_records_without_alt_stand_for_the_panels_snp(panel, tmp_path):
    rows = [
        (100, "A", ".", "0|0", "0|."),
        (200, "T", ".", "0|0", "0|0"),
        (300, "G", ".", "0|0", "0|0"),
        (400, "T", ".", "0|0", "0|0"),
        (500, "T", ".", "0|0", "0|0"),
        (501, "A", ".", "0|0", "0|0"),
    ]
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text(rows))
    target = read_target(path, keep_monomorphic=True)
    found = match_sites(target, panel, 0, 7)
    # REF as it stands; ALT of the panel; two SNPs and an indel there: unknown; the other strand.
    assert found.panel_index.tolist() == [0, 1, 5]
    np.testing.assert_array_equal(
        found.alleles, [[[0, 0], [0, -1]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]]
    )
    assert [FATES[fate] for fate in found.fate] == [
        "matched", "swapped", "allele_mismatch", "allele_mismatch", "flipped", "not_in_panel",
    ]  # fmt: skip


def test_alleles_that_are_no_bases(panel, read):
    rows = [
        (100, "A", "G", "0|1", "0|0"),
        (300, "N", "A", "0|1", "0|0"),
        (500, "A", "R", "0|1", "0|0"),
    ]
    assert match_sites(read(rows), panel, 0, 7).counts["invalid"] == 2


@pytest.fixture
def palindromes(tmp_path):
    """A panel of 20 A>T sites of ALT frequency 0.1, 20 of 0.45, and 60 A>G; and its keys."""
    rng = np.random.default_rng(7)
    af = np.repeat([0.1, 0.45, 0.3], [20, 20, 60])
    alleles = (rng.random((100, 50, 2)) < af[:, None, None]).astype(np.int8)
    keys = [(1000 + 10 * i, "A", "T" if i < 40 else "G") for i in range(100)]
    position, ref, alt = zip(*keys, strict=True)
    batch = make_batch(alleles, position, ref=ref, alt=alt)
    write_panel(tmp_path / "s.h5", [batch], samples=names(50), genetic_map=FlatMap())
    calls = (rng.random((100, 30, 2)) < af[:, None, None]).astype(np.int8)
    with Panel.open(tmp_path / "s.h5") as opened:
        yield opened, keys, calls


FLIP = str.maketrans("ACGT", "TGCA")


def spell(path, keys, calls, which, how):
    """A target in which the sites ``which`` are spelled otherwise, ``how`` of S(wap), F(lip)."""
    keys, calls = list(keys), calls.copy()
    for i in which:
        position, ref, alt = keys[i]
        if "S" in how:
            ref, alt, calls[i] = alt, ref, 1 - calls[i]
        if "F" in how:
            ref, alt = ref.translate(FLIP), alt.translate(FLIP)
        keys[i] = (position, ref, alt)
    samples = [f"t{i}" for i in range(calls.shape[1])]
    return read_target(write_genotypes(path, keys, calls, samples))


@pytest.mark.parametrize("policy", ["frequency", "keep", "drop"])
@pytest.mark.parametrize(
    ("which", "how"),
    [
        ([], ""),  # all as it should be
        (range(100), "S"),  # all swapped
        (range(100), "F"),  # all of the other strand
        (range(0, 100, 2), "F"),  # half of the other strand, as array software has it
        (range(0, 100, 3), "SF"),
        (range(10), "F"),  # palindromes alone: nothing but frequencies tells
    ],
)
def test_peers_37_palindromes_by_an_explicit_policy(palindromes, tmp_path, policy, which, how):
    panel, keys, calls = palindromes
    target = spell(tmp_path / "t.vcf", keys, calls, which, how)
    found = match_sites(target, panel, 0, 100, palindromes=policy)
    tally = found.palindromes
    assert tally["found"] == 40
    wrong = (found.alleles != calls[found.panel_index]).any(axis=(1, 2))
    assert not wrong[found.panel_index >= 40].any()  # A>G is certain
    if policy == "drop":
        assert tally["left_out"] == 40
        assert len(found.panel_index) == 60
    elif policy == "keep":
        assert tally["left_out"] == 0
        # The letters are believed, so that those of the other strand are read wrongly.
        flipped = [i for i in which if i < 40 and "F" in how]
        assert np.flatnonzero(wrong).tolist() == flipped
    else:
        assert not wrong.any()
        flipped = len([i for i in which if i < 20]) if "F" in how else 0
        assert tally["other_strand"] >= flipped  # ALT is rare there, so that frequencies tell
        assert len(found.panel_index) >= 80
        if not how or how == "S":
            assert (len(found.panel_index), tally["left_out"]) == (100, 0)


@st.composite
def _sites(draw):
    """Sites near each other: SNPs, longer spellings of SNPs, indels and others, in any case."""
    alleles = st.sampled_from(
        ["A", "C", "G", "T", "AC", "AT", "CT", "ACG", "a", "N", "TA"],
    )
    rows = draw(st.lists(st.tuples(st.integers(10, 18), alleles, alleles), min_size=1, max_size=12))
    return sorted(((p, ref, alt) for p, ref, alt in rows if ref != alt), key=lambda row: row[0])


@settings(deadline=None, max_examples=150)
@given(panel=_sites(), records=_sites())
def test_sure_snps_are_found_as_all_others_are(panel, records):
    """The short way and the long way give the same match."""
    if not panel or not records:
        return

    def table(rows):
        return site_table("20", *(list(x) for x in zip(*rows, strict=True)), ["."] * len(rows))

    types = [site_type(ref, alt) for _, ref, alt in panel]
    whole = SimpleNamespace(
        sites=table(panel), site_types=list(SITE_TYPES), site_type=np.array(types, np.uint8)
    )
    num = len(records)
    target = SimpleNamespace(
        sites=table(records), reference=np.zeros(num, bool), record=np.full(num, -1)
    )
    snp = match._sure_snps(target, whole, 0, len(panel))
    finder = match._Finder(target, whole, 0, len(panel), None, np.arange(num))
    for i in np.flatnonzero(snp >= 0).tolist():
        assert finder.find(i) == (snp[i], "matched", "")
    # What is left is found as if all were.
    rest = np.flatnonzero(snp < 0)
    fewer = match._Finder(target, whole, 0, len(panel), None, rest)
    places = [p for p, ref, alt in records if len(ref) != len(alt)]
    for i in rest.tolist():
        assert fewer.find(i) == finder.find(i), (places, records[i])


def test_most_snps_are_found_the_short_way(dense_panel):
    sites = dense_panel.sites
    target = SimpleNamespace(
        sites=sites, reference=np.zeros(len(sites), bool), record=np.full(len(sites), -1)
    )
    snp = match._sure_snps(target, dense_panel, 0, dense_panel.num_sites)
    palindrome = np.isin((sites.ref + sites.alt).astype(str), ["AT", "TA", "CG", "GC"])
    np.testing.assert_array_equal(snp >= 0, ~palindrome)
    assert (snp[~palindrome] == np.flatnonzero(~palindrome)).all()
    # Outside the range that is asked for there is none.
    part = match._sure_snps(target, dense_panel, 500, 700)
    assert (np.flatnonzero(part >= 0) == 500 + np.flatnonzero(~palindrome[500:700])).all()


def test_an_unknown_policy(panel, read):
    with pytest.raises(ValueError, match="'maybe' is not one of"):
        match_sites(read([(100, "A", "G", "0|1", "0|0")]), panel, 0, 7, palindromes="maybe")


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        ([(9000, "A", "G"), (9100, "A", "G")], "ranges do not meet"),
        ([(101, "A", "G"), (201, "A", "G"), (300, "T", "G")], "too few to tell why"),
        ([(100, "A", "T"), (200, "C", "A"), (300, "T", "A")], "alleles do not"),
    ],
)
def test_no_overlap_says_why(panel, read, rows, hint):
    target = read([(*row, "0|1", "0|0") for row in rows])
    with pytest.raises(InputError, match="no target record is a panel site") as caught:
        require_overlap(match_sites(target, panel, 0, panel.num_sites), target, panel, 0, 7)
    assert hint in caught.value.hint
    assert f"20:{rows[0][0]}-{rows[-1][0]} ({len(rows)} records)" in caught.value.message
    assert "20:100-600 (7 sites)" in caught.value.message


def test_no_record_at_all(panel, read):
    target = read([(100, "A", "G", "0|1", "0|0")])
    empty = type(target)(
        target.samples, target.sites.take(slice(0)), target.alleles[:0], target.phased[:0],
        target.record[:0], {},
    )  # fmt: skip
    with pytest.raises(InputError, match="no record on 20"):
        require_overlap(match_sites(empty, panel, 0, 7), empty, panel, 0, panel.num_sites)
    with pytest.raises(InputError, match=r"panel 20: no site \(0 sites\)"):
        require_overlap(match_sites(target, panel, 3, 3), target, panel, 3, 3)


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


BASES = "ACGT"


@pytest.fixture
def dense_panel(tmp_path):
    """2,000 SNPs, 10 bp apart, with a bp of play."""
    rng = np.random.default_rng(3)
    position = 10_000 + 10 * np.arange(2000) + rng.integers(0, 2, 2000)
    ref = rng.integers(0, 4, 2000)
    alt = (ref + rng.integers(1, 4, 2000)) % 4
    alleles = rng.integers(0, 2, (2000, 4, 2))
    batch = make_batch(alleles, position, ref=[BASES[b] for b in ref], alt=[BASES[b] for b in alt])
    write_panel(
        tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap(),
        contig_length=64_444_167,
    )  # fmt: skip
    with Panel.open(tmp_path / "p.h5") as opened:
        yield opened


def target_of(sites: Sites, length=None):
    """What the functions read of a target."""
    return SimpleNamespace(sites=sites, contig_length=length, file=None, facts=None)


def moved(sites: Sites, by: int) -> Sites:
    """The same sites somewhere else."""
    return Sites(sites.contig, sites.position_bp + by, sites.ref, sites.alt, sites.id)


def cause(sites, dense_panel, length=None, *, with_ids=False):
    if not with_ids:
        sites = replace(sites, id=np.full(len(sites), ".", object))
    target = target_of(sites, length)
    return likely_cause(
        target, dense_panel, compare_positions(target, dense_panel, 0, dense_panel.num_sites)
    )


def test_peers_1_another_build_by_the_headers(dense_panel):
    sites = moved(dense_panel.sites, 5)
    said = cause(sites, dense_panel, 63_025_520)
    assert "target is of GRCh37 and the panel of GRCh38" in said
    assert "build" in cause(sites, dense_panel)
    said = cause(sites, dense_panel, 64_444_167)
    assert "records from 20:10006 to 11495 fit the panel if moved by -5 bp" in said
    assert "different genome builds, though both headers say GRCh38: lift" in said
    said = cause(sites, dense_panel, 64_444_167, with_ids=True)
    assert "2,000 of 2,000 rsIDs that both files have are at other positions" in said
    assert "though both headers say GRCh38" in said


def test_another_build_by_the_bases(dense_panel):
    # Where positions agree by chance, the bases do not.
    said = cause(moved(dense_panel.sites, 11), dense_panel)
    assert "different genome builds" in said


def test_an_array_that_the_panel_lacks(dense_panel):
    some = dense_panel.sites.take(slice(0, 2000, 20))
    others = moved(dense_panel.sites.take(np.arange(2000) % 20 > 12), 4)
    position = np.concatenate([some.position_bp, others.position_bp])
    order = np.argsort(position, kind="stable")
    ref, alt = np.array([("A", "C"), ("A", "G"), ("A", "T"), ("C", "G")], object)[
        np.random.default_rng(1).integers(0, 4, len(others))
    ].T
    own = {"ref": ref, "alt": alt, "id": others.id}
    columns = [np.concatenate([getattr(some, x), own[x]]) for x in ("ref", "alt", "id")]
    sites = site_table("20", position[order], *(column[order] for column in columns))
    assert "the panel lacks most of the array's sites" in cause(sites, dense_panel)


def test_peers_34_alleles_that_do_not_fit(dense_panel):
    sites = dense_panel.sites
    other = {base: BASES[(i + 1) % 4] for i, base in enumerate(BASES)}
    turned = site_table(
        "20", sites.position_bp, [other[x] for x in sites.ref], [other[x] for x in sites.alt],
        sites.id,
    )  # fmt: skip
    assert "+fixref" in cause(turned, dense_panel)


def chance_target(panel, num, *, wrong_build, rng, of=40):
    """Records over the panel's range, few of them panel sites: by chance, or every ``of``-th."""
    at = panel.sites.position_bp
    if wrong_build:
        position = np.sort(rng.choice(np.arange(at[0], at[-1]), num, replace=False))
        ref = rng.integers(0, 4, num)
        # Two of three SNPs are transitions: A and G, C and T.
        step = np.where(rng.random(num) < 2 / 3, 2, rng.choice([1, 3], num))
        return position, [BASES[b] for b in ref], [BASES[b] for b in (ref + step) % 4]
    free = np.setdiff1d(np.arange(at[0], at[-1]), at)
    mine = np.sort(rng.choice(len(at), num // of, replace=False))
    position = np.concatenate([at[mine], rng.choice(free, num - len(mine), replace=False)])
    order = np.argsort(position)
    refs = [*panel.sites.ref[mine], *["A"] * (num - len(mine))]
    alts = [*panel.sites.alt[mine], *["C"] * (num - len(mine))]
    return position[order], [refs[i] for i in order], [alts[i] for i in order]


def read_chance(path, panel, columns, length=None):
    """The records as a target, and its match."""
    rows = [(int(p), r, a, "0|1", "0|0") for p, r, a in zip(*columns, strict=True)]
    text = vcf_text(rows)
    path.write_text(text.replace("ID=20>", f"ID=20,length={length}>") if length else text)
    target = read_target(path)
    return target, match_sites(target, panel, 0, panel.num_sites)


def sparse_panel(tmp_path, rng, per_bp, length=None):
    """A panel of SNPs, two of three of them transitions, with so many sites per bp."""
    position = np.flatnonzero(rng.random(100_000) < per_bp) + 10_000
    ref = rng.integers(0, 4, len(position))
    step = np.where(rng.random(len(ref)) < 2 / 3, 2, rng.choice([1, 3], len(ref)))
    alt = (ref + step) % 4
    batch = make_batch(
        rng.integers(0, 2, (len(ref), 2, 2)), position, ref=[BASES[b] for b in ref],
        alt=[BASES[b] for b in alt],
    )  # fmt: skip
    write_panel(
        tmp_path / "p.h5", [batch], samples=names(2), genetic_map=FlatMap(), contig_length=length
    )
    return Panel.open(tmp_path / "p.h5")


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**31), num=st.integers(60, 600), per_bp=st.sampled_from([0.005, 0.05, 0.2])
)
def test_chance_matches_are_refused_whatever_the_density(tmp_path, seed, num, per_bp):
    rng = np.random.default_rng(seed)
    with sparse_panel(tmp_path, rng, per_bp) as panel:
        columns = chance_target(panel, num, wrong_build=True, rng=rng)
        target, found = read_chance(tmp_path / "t.vcf", panel, columns)
        with pytest.raises(InputError, match=r"panel sites than chance|no target record") as caught:
            require_overlap(found, target, panel, 0, panel.num_sites)
        assert "build" in caught.value.hint


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31), num=st.integers(400, 900), per_bp=st.sampled_from([0.005, 0.05]))
def test_few_sites_of_the_right_build_are_used(tmp_path, seed, num, per_bp):
    rng = np.random.default_rng(seed)
    with sparse_panel(tmp_path, rng, per_bp) as panel:
        columns = chance_target(panel, num, wrong_build=False, rng=rng)
        target, found = read_chance(tmp_path / "t.vcf", panel, columns)
        assert 10 <= len(found.panel_index) < 0.05 * num
        require_overlap(found, target, panel, 0, panel.num_sites)


def test_ten_matches_of_369_where_chance_makes_eight(tmp_path):
    rng = np.random.default_rng(5)
    with sparse_panel(tmp_path, rng, 0.045) as panel:
        for _ in range(20):
            columns = chance_target(panel, 369, wrong_build=True, rng=rng)
            target, found = read_chance(tmp_path / "t.vcf", panel, columns)
            if len(found.panel_index) >= 10:
                break
        expected = expected_by_chance(target.sites.position_bp, panel.sites.position_bp)
        assert 5 < expected < 12
        assert len(found.panel_index) >= 10
        with pytest.raises(InputError, match="than chance would make") as caught:
            require_overlap(found, target, panel, 0, panel.num_sites)
        assert "different genome builds" in caught.value.hint


def test_headers_that_agree_and_few_records_are_not_said_to_be_of_two_builds(tmp_path):
    rng = np.random.default_rng(6)
    with sparse_panel(tmp_path, rng, 0.05, length=64_444_167) as panel:
        columns = chance_target(panel, 369, wrong_build=True, rng=rng)
        target, found = read_chance(tmp_path / "t.vcf", panel, columns, length=64_444_167)
        with pytest.raises(InputError, match="than chance would make") as caught:
            require_overlap(found, target, panel, 0, panel.num_sites)
        assert "both files are of GRCh38 by their contigs' lengths" in caught.value.hint
        everywhere = compare_positions(target, panel, 0, panel.num_sites)
        said = likely_cause(target, panel, everywhere)
        assert "both files are of GRCh38" in said
        assert "probably" not in said
        target, found = read_chance(tmp_path / "t.vcf", panel, columns, length=63_025_520)
        with pytest.raises(InputError, match="than chance would make") as caught:
            require_overlap(found, target, panel, 0, panel.num_sites)
        assert "target is of GRCh37 and the panel of GRCh38" in caught.value.hint
        five = [column[:5] for column in columns]
        target, found = read_chance(tmp_path / "t.vcf", panel, five)
        try:
            require_overlap(found, target, panel, 0, panel.num_sites)
            said = likely_cause(target, panel, compare_positions(target, panel, 0, len(columns[0])))
        except InputError as error:
            said = error.hint
        assert "probably" not in said


def test_positions_are_compared(dense_panel):
    sites = dense_panel.sites.take(slice(0, 10))
    found = compare_positions(target_of(sites), dense_panel, 0, 2000)
    assert (found.num_records, found.num_at_position, found.num_ref_agree) == (10, 10, 10)
    assert isinstance(found, Overlap)
    assert compare_positions(target_of(sites), dense_panel, 5, 2000).num_at_position == 5
    assert compare_positions(target_of(sites), dense_panel, 5, 5).num_records == 0


def test_the_error_names_both_ranges(dense_panel):
    error = no_overlap(target_of(moved(dense_panel.sites, 100_000)), dense_panel, 0, 2000)
    assert "target 20:110" in error.message
    assert "panel 20:10" in error.message
    assert "0% of records agree by position" in error.message
    assert "rsIDs that both files have are at other positions" in error.hint
    far = moved(dense_panel.sites, 100_000)
    far.id[:] = "."
    error = no_overlap(target_of(far.take(slice(0, 10))), dense_panel, 0, 2000)
    assert "ranges do not meet" in error.hint
    error = no_overlap(target_of(far), dense_panel, 0, 2000)
    assert "fit the panel if moved by -100,000 bp" in error.hint
    error = no_overlap(
        target_of(moved(dense_panel.sites, 100_000), 63_025_520), dense_panel, 0, 2000
    )
    assert "GRCh37" in error.hint
    error = no_overlap(target_of(dense_panel.sites.take(slice(0))), dense_panel, 0, 2000)
    assert "no record on" in error.message


def test_a_snp_and_a_repeat_that_differs_in_its_base(tmp_path):
    """Of two panel sites that are one variant, a record is the one that is spelled alike."""
    sites = [(100, "CACACA", "CACGCA"), (103, "A", "G"), (200, "TACACA", "TACACACA")]
    position, ref, alt = zip(*sites, strict=True)
    alleles = np.random.default_rng(0).integers(0, 2, (3, 4, 2))
    batch = make_batch(alleles, position, ref=ref, alt=alt)
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    expected = [[1], [0], [1], [2], [2]]
    rows = [(103, "A", "G"), (100, "CACACA", "CACGCA"), (102, "CAC", "CGC"),
            (200, "TACACA", "TACACACA"), (200, "T", "TAC")]  # fmt: skip
    with Panel.open(tmp_path / "p.h5") as panel:
        for row, found in zip(rows, expected, strict=True):
            (tmp_path / "t.vcf").write_text(vcf_text([(*row, "0|1", "1|1")]))
            match = match_sites(read_target(tmp_path / "t.vcf"), panel, 0, 3)
            assert match.panel_index.tolist() == found
            assert match.counts["matched"] == 1
