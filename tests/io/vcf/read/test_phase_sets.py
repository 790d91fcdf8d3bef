"""Phase sets are read the same, however a program writes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import run_bcftools, vcf_text

from ragimpute.io.vcf.read.genotypes import PanelStream, read_target
from ragimpute.io.vcf.read.phase_sets import NO_SET, PieceFinder, in_pieces

GT = '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'


def declared(name, kind, number="1"):
    return f'##FORMAT=<ID={name},Number={number},Type={kind},Description="Phase">\n'


def turned(order):
    return f"{order[0]}|{order[1]}"


def by_ps(order, label):
    return f"{turned(order)}:{label}"


def by_text(order, label):
    return f"{turned(order)}:{label}_A_G"


def by_psl(order, label):
    return f"{turned(order)}:{label},{label}"


def by_hp(order, label):
    """GATK and WhatsHap: GT is sorted and unphased, HP says the haplotype of each allele."""
    low, high = ("1", "2") if order[0] < order[1] else ("2", "1")
    return f"{min(order)}/{max(order)}:{label}-{low},{label}-{high}"


def by_pgt(order, label):
    return f"{min(order)}/{max(order)}:{turned(order)}:{label}_A_G"


# Each spelling: header lines, FORMAT, how a genotype with a set is written, and how one without.
SPELLINGS = {
    "PS": (declared("PS", "Integer"), "GT:PS", by_ps, ":."),
    "PS as text": (declared("PS", "String"), "GT:PS", by_text, ":."),
    "PS undeclared": ("", "GT:PS", by_ps, ""),
    "PSL": (declared("PSL", "String", "P"), "GT:PSL", by_psl, ":."),
    "HP": (declared("HP", "String", "."), "GT:HP", by_hp, ":."),
    "HP undeclared": ("", "GT:HP", by_hp, ":."),
    "PGT": (declared("PGT", "String") + declared("PID", "String"), "GT:PGT:PID", by_pgt, ":.:."),
    "PGT undeclared": ("", "GT:PGT:PID", by_pgt, ""),
}


def write(path, spelling, first, labels, alt="C"):
    """Heterozygous genotypes (T, N) of this first allele, in sets; label 0 means not phased."""
    header, keys, spell, rest = SPELLINGS[spelling]
    rows = []
    for i, (alleles, sets) in enumerate(zip(first.tolist(), labels.tolist(), strict=True)):
        cells = [
            spell((allele, 1 - allele), label) if label else f"0/1{rest}"
            for allele, label in zip(alleles, sets, strict=True)
        ]
        rows.append((10 + i, "A", alt, *cells))
    names = [f"s{i}" for i in range(first.shape[1])]
    path.write_text(vcf_text(rows, names, formats=GT + header, keys=keys))
    return path


def normal(sets):
    """Numbers of sets by first appearance in each sample, so that spellings can be compared."""
    out = np.full(sets.shape, NO_SET)
    for i, column in enumerate(sets.T):
        seen: dict[int, int] = {}
        out[:, i] = [NO_SET if x < 0 else seen.setdefault(x, len(seen)) for x in column.tolist()]
    return out


@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_every_spelling_says_the_same(tmp_path_factory, spelling, data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 3)))
    size = shape[0] * shape[1]
    draw = lambda most: np.array(  # noqa: E731
        data.draw(st.lists(st.integers(0, most), min_size=size, max_size=size))
    ).reshape(shape)
    first, labels = draw(1), draw(3)
    path = write(tmp_path_factory.mktemp("x") / "x.vcf", spelling, first, 100 * labels)
    read = [read_target(path)]
    if SPELLINGS[spelling][0]:
        # bcftools warns of a PS that is a text.
        run_bcftools("view", "-Ob", "-o", path.with_suffix(".bcf"), path)
        path = path.with_suffix(".bcf")
        read += [read_target(path), read_target(path, samples=read[0].samples)]
    for target in read:
        phased = labels > 0
        np.testing.assert_array_equal(target.phased, phased)
        np.testing.assert_array_equal(target.alleles[:, :, 0], np.where(phased, first, 0))
        if target.phase_set is None:
            assert not phased.any()
        else:
            np.testing.assert_array_equal(
                normal(target.phase_set), normal(np.where(phased, labels, NO_SET))
            )
        pieces = [len(set(column[column > 0].tolist())) > 1 for column in labels.T]
        found = in_pieces(target.alleles, target.phased, target.phase_set)
        np.testing.assert_array_equal(found, pieces)


@pytest.mark.parametrize(
    ("cell", "phased", "first"),
    [
        ("0/1:.:0|1:7_A_C:.", True, 0),
        ("0/1:.:1|0:7_A_C:.", True, 1),
        ("0/1:.:1|0:.:.", False, 0),  # no set is named
        ("0/1:.:2|0:7_A_C:.", False, 0),  # other alleles than GT
        ("0/1:.:0/1:7_A_C:.", False, 0),
        ("0/1:.:.:.:7-2,7-1", True, 1),
        ("0/1:.:.:.:7-1,8-2", False, 0),  # two sets
        ("0/1:.:.:.:7-1,7-1", False, 0),
        ("0/1:.:.:.:7", False, 0),
        ("0/1:7:.:.:.", False, 0),  # PS of an unphased genotype says nothing
        ("0/1", False, 0),
    ],
)
def test_what_does_not_fit_together_is_not_phased(tmp_path, cell, phased, first):
    path = tmp_path / "x.vcf"
    rows = [(5, "A", "C", cell), (9, "A", "C", "0/1:.:.:.:.")]
    path.write_text(vcf_text(rows, ["a"], keys="GT:PS:PGT:PID:HP"))
    target = read_target(path)
    assert target.phased[0, 0] == phased
    assert target.alleles[0, 0, 0] == first
    assert target.phase_set is None or (target.phase_set[0, 0] >= 0) == phased


def pieces(path):
    """Which samples are in pieces, read as a target and as a panel."""
    target = read_target(path)
    finder = PieceFinder(len(target.samples))
    for batch in PanelStream(path):
        finder.add(batch.alleles, batch.phased, batch.phase_set)
    one = in_pieces(target.alleles, target.phased, target.phase_set).tolist()
    return one, finder.in_pieces().tolist()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0|1:9:.:.", "1|0:9:.:.", "1|1:4:.:."], False),  # one set, whatever homozygotes say
        (["0|1:9:.:.", "1|0:.:.:.", "1|1:.:.:."], True),  # one set, and one genotype outside
        (["0|1:.:.:.", "1|0:9:.:."], True),
        (["0|1:9:.:.", "1|0:8:.:."], True),
        (["0|1:.:0|1:9_A_C", "1|0:.:1|0:8_A_C"], True),  # PID alone, and nothing else is phased
        (["0|1:.:0|1:9_A_C", "1|0:.:1|0:9_A_C"], False),
        (["0|1:.:0|1:9_A_C", "1|0:.:0|1:8_A_C", "0|1:.:.:."], False),  # remnants
        (["0|1:7:0|1:9_A_C", "1|0:7:1|0:8_A_C"], False),  # PS comes first
    ],
)
def test_samples_in_pieces(tmp_path, cells, expected):
    path = tmp_path / "x.vcf"
    rows = [(5 + i, "A", "C", cell) for i, cell in enumerate(cells)]
    path.write_text(vcf_text(rows, ["a"], keys="GT:PS:PGT:PID"))
    assert pieces(path) == ([expected], [expected])


def test_haplotype_caller_leaves_most_genotypes_unphased(tmp_path):
    path = tmp_path / "x.vcf"
    cells = ["0|1:.:0|1:9_A_C", "0|1:.:.:.", "0/1:.:.:."]
    rows = [(5 + i, "A", "C", cell) for i, cell in enumerate(cells)]
    path.write_text(vcf_text(rows, ["a"], keys="GT:PS:PGT:PID"))
    target = read_target(path)
    assert target.phase_set[0, 0] >= 0 > target.phase_set[1, 0]
    assert in_pieces(target.alleles, target.phased, target.phase_set).tolist() == [True]


def test_rows_of_one_record_share_its_sets(tmp_path):
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text([(5, "A", "C,G", "1|2:9", "0/1:.")], keys="GT:PS"))
    target = read_target(path)
    assert len(target.sites) == 2
    assert (target.phase_set[:, 0] >= 0).all()
    assert (target.phase_set[:, 1] == NO_SET).all()


def test_a_file_without_sets_has_none(tmp_path):
    path = tmp_path / "x.vcf"
    path.write_text(vcf_text([(5, "A", "C", "0|1", "0/1")]))
    assert read_target(path).phase_set is None


def test_sets_that_begin_late_in_a_panel_make_pieces():
    alleles = np.array([[[0, 1]]], np.int8)
    phased = np.ones((1, 1), bool)
    finder = PieceFinder(1)
    finder.add(alleles, phased, None)
    assert not finder.in_pieces().any()
    finder.add(alleles, phased, np.array([[3]], np.int32))
    assert finder.in_pieces().all()
