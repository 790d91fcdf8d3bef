"""Rows that name alleles become genotypes of the panel's sites."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import make_batch
from plink_fixtures import write_bed
from raw_text_fixtures import HEADS, pack, raw_text

from ragimpute.io.plink.file_set import PlinkFile
from ragimpute.io.target_file import open_target
from ragimpute.sites import Region
from ragimpute.target.named_alleles import with_panel_alleles

COMPLEMENT = str.maketrans("ACGT", "TGCA")
# Position, REF, ALT, ID: a SNP, one of two ALTs, an A/T, a deletion, an insertion, two of a place.
PANEL = [
    (100, "A", "G", "rs1"), (110, "C", "A", "."), (110, "C", "T", "."), (120, "A", "T", "."),
    (130, "GTT", "G", "rs13"), (140, "C", "CA", "."), (150, "G", "GA", "."), (150, "G", "GAA", "."),
]  # fmt: skip


def panel_of(sites):
    columns = list(zip(*sites, strict=True))
    batch = make_batch(np.zeros((len(sites), 1, 2)), columns[0], ref=columns[1], alt=columns[2])
    batch.sites.id[:] = columns[3]
    return SimpleNamespace(sites=batch.sites)


def calls(rows, vendor="23andMe", panel=PANEL):
    """The target of rows (id, position, genotype) of chromosome 20, beside a panel."""
    with tempfile.TemporaryDirectory() as folder:
        text = raw_text(vendor, [(name, "20", *rest) for name, *rest in rows])
        target = open_target(pack(Path(folder, "x.txt"), text)).read(Region("20"))
    return with_panel_alleles(target, panel_of(panel))


def told(target):
    """Each row with its genotype."""
    return [
        (*key, *pair)
        for key, pair in zip(target.sites.keys(), target.alleles[:, 0].tolist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("genotype", "expected"),
    [
        ("AA", [(100, "A", "G", 0, 0)]),
        ("GA", [(100, "A", "G", 1, 0)]),
        ("GG", [(100, "A", "G", 1, 1)]),
        ("", [(100, "A", "G", -1, -1)]),
        ("TC", [(100, "T", "C", 0, 1)]),  # the other strand, which match.py turns
        ("CC", [(100, "T", "C", 1, 1)]),
        ("AC", [(100, "A", "C", 0, 1)]),  # of both strands: no allele of the panel's
    ],
)
def test_a_snp(genotype, expected):
    assert told(calls([("rs1", 100, genotype)])) == expected


@pytest.mark.parametrize(
    ("genotype", "expected"),
    [("CC", (0, 0, 0, 0)), ("AT", (1, 0, 0, 1)), ("TT", (0, 0, 1, 1)), ("CA", (0, 1, 0, 0))],
)
def test_several_alts(genotype, expected):
    target = calls([("a", 110, genotype)])
    assert told(target) == [(110, "C", "A", *expected[:2]), (110, "C", "T", *expected[2:])]
    assert target.record.tolist() == [0, 0]
    assert target.num_further_alts == 1
    pairs = target.alleles[:, 0]
    assert target.phased[:, 0].tolist() == (pairs[:, 0] == pairs[:, 1]).tolist()


@pytest.mark.parametrize(
    ("name", "position", "genotype", "expected"),
    [
        ("i1", 130, "DI", (130, "GTT", "G", 1, 0)),
        ("i1", 131, "DD", (130, "GTT", "G", 1, 1)),  # the first base that is deleted
        ("rs13", 131, "II", (130, "GTT", "G", 0, 0)),
        ("rs99", 131, "II", None),  # another variant
        ("i1", 140, "II", (140, "C", "CA", 1, 1)),
        ("rs14", 140, "DI", (140, "C", "CA", 0, 1)),
        ("i1", 150, "II", None),  # of two insertions nobody knows which
        ("i1", 100, "II", None),
        ("i1", 132, "II", None),
    ],
)
def test_indels(name, position, genotype, expected):
    target = calls([(name, position, genotype)])
    assert told(target) == ([] if expected is None else [expected])
    left = [(alt.position_bp, alt.reason) for alt in target.left_out]
    assert left == ([(position, "vague_indel")] if expected is None else [])
    assert target.facts.counts["insertions and deletions that the panel has"] == len(target.sites)


def test_no_calls_elsewhere_and_sites_that_the_panel_lacks():
    target = calls(
        [("a", 100, ""), ("b", 105, ""), ("c", 106, "AG"), ("d", 107, "CC"), ("e", 110, "")]
    )
    assert told(target) == [
        (100, "A", "G", -1, -1), (106, "A", "G", 0, 1), (107, "C", ".", 0, 0),
        (110, "C", "A", -1, -1), (110, "C", "T", -1, -1),
    ]  # fmt: skip
    assert [(alt.position_bp, alt.reason) for alt in target.left_out] == [(105, "no_call")]
    assert target.num_records + target.num_further_alts == len(target.sites) + len(target.left_out)


def test_i_and_d_of_plink(tmp_path):
    variants = [
        ("20", 131, "a", "I", "D"), ("20", 140, "b", "D", "I"), ("20", 141, "c", "0", "D"),
        ("20", 100, "s", "G", "A"), ("20", 300, "d", "I", "D"),
    ]  # fmt: skip
    alleles = [
        [[1, 1], [0, 1]],
        [[0, 1], [-1, -1]],
        [[1, 1], [1, 1]],
        [[0, 1], [1, 1]],
        [[0, 0]] * 2,
    ]
    file = PlinkFile(write_bed(tmp_path / "x", variants, alleles, ["a", "b"]))
    target = with_panel_alleles(file.read(Region("20")), panel_of(PANEL))
    assert target.sites.keys() == [
        (100, "G", "A"), (130, "GTT", "G"), (140, "C", "CA"), (140, "C", "CA"),
    ]  # fmt: skip
    assert target.alleles[:, 0].tolist() == [[0, 1], [1, 1], [0, 1], [0, 0]]
    assert target.alleles[:, 1].tolist() == [[1, 1], [0, 1], [-1, -1], [0, 0]]
    assert [alt.position_bp for alt in target.left_out] == [300]


def test_nothing_is_done_to_files_that_name_ref(tmp_path):
    file = PlinkFile(write_bed(tmp_path / "x", [("20", 100, "s", "G", "A")], [[[0, 1]]], ["a"]))
    target = file.read(Region("20"))
    assert with_panel_alleles(target, panel_of(PANEL)) is target


@st.composite
def sites_and_calls(draw):
    """Panel SNPs at distinct places, and a person's ALT counts there."""
    places = draw(st.lists(st.integers(1, 500), min_size=1, max_size=10, unique=True))
    sites = []
    for place in sorted(places):
        ref, alt = draw(st.permutations("ACGT"))[:2]
        sites.append((place, ref, alt, f"rs{place}"))
    return sites, [draw(st.sampled_from([(0, 0), (0, 1), (1, 0), (1, 1)])) for _ in sites]


@settings(max_examples=60, deadline=None)
@given(sites_and_calls(), st.sampled_from(list(HEADS)), st.booleans())
def test_a_person_of_the_panels_alleles_comes_back(given_sites, vendor, turned):
    """Written on either strand; a row on the other strand is spelled so."""
    sites, pairs = given_sites
    rows = []
    for (place, ref, alt, name), pair in zip(sites, pairs, strict=True):
        text = "".join((ref, alt)[code] for code in pair)
        rows.append((name, place, text.translate(COMPLEMENT) if turned else text))
    got = told(calls(rows, vendor, sites))
    for (place, ref, alt, _), pair, row in zip(sites, pairs, got, strict=True):
        other = (ref.translate(COMPLEMENT), alt.translate(COMPLEMENT))
        if turned and {ref, alt} != set(other):
            # A homozygous row may fit on both strands only where the SNP is A/T or C/G.
            assert row == (place, *other, *pair)
        elif not turned:
            assert row == (place, ref, alt, *pair)
