"""Ploidy along the X chromosome of a panel: PAR, haploid males, males written twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import write_genotypes

from ragimpute.errors import InputError, PanelError
from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.panel.ploidy import (
    PAR_BUILDS,
    OnceEach,
    few_hets,
    outside,
    par_regions,
    scan_ploidy,
)
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region

# 90 sites: 15 in PAR1, 60 outside, 15 in PAR2, as build 37 has them.
POSITION = np.concatenate([
    100_000 + 1000 * np.arange(15), 3_000_000 + 1000 * np.arange(60),
    154_950_000 + 1000 * np.arange(15),
])  # fmt: skip
MIDDLE = slice(15, 75)
MALES = [1, 4, 5]
LENGTH = PAR_BUILDS["b37"][0]


class Stream:
    """Batches of sites, as often as wanted."""

    def __init__(self, alleles, size=7):
        self.samples = names(alleles.shape[1])
        self._alleles, self._size = alleles, size

    def __iter__(self):
        for first in range(0, len(self._alleles), self._size):
            rows = slice(first, first + self._size)
            made = make_batch(self._alleles[rows], POSITION[rows], contig="X")
            yield SiteBatch(made.sites, made.alleles, made.phased)


@pytest.fixture
def alleles():
    """Alleles (90, 20, 2) of common SNPs, all diploid."""
    return np.random.default_rng(2).integers(0, 2, (90, 20, 2)).astype(np.int8)


def haploid(alleles):
    """Males with one X outside the PAR."""
    made = alleles.copy()
    made[MIDDLE, MALES, 1] = -2
    return made


def doubled(alleles):
    """Males with the same X twice outside the PAR."""
    made = alleles.copy()
    made[MIDDLE, MALES, 1] = made[MIDDLE, MALES, 0]
    return made


PAR = par_regions("X", LENGTH, None)


@pytest.mark.parametrize(("build", "length"), [(b, known[0]) for b, known in PAR_BUILDS.items()])
def test_par_by_name_and_length(build, length):
    for contig in ("X", "chrX", "23"):
        found = par_regions(contig, length, None)
        assert found == par_regions(contig, None, build)
        assert [r.stop_bp - 1 for r in found] == [last for _, last in PAR_BUILDS[build][1]]
        assert {r.contig for r in found} == {contig}
    assert par_regions("20", length, None) == []
    assert par_regions("X", None, None) == []
    assert par_regions("X", length, "none") == []


def test_par_of_other_species():
    found = par_regions("chrZ", 82_000_000, "Z:1-5000,chrZ:80000000-82000000")
    assert found[0] == Region("chrZ", 1, 5001)
    for wrong in ("Y:1-500", "b36", ","):
        with pytest.raises(InputError):
            par_regions("X", LENGTH, wrong)


def test_outside():
    assert outside(np.array([60_000, 60_001, 2_699_520, 2_699_521]), PAR).tolist() == [
        True, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("written", [haploid, doubled])
def test_peers_16_males_are_seen_and_count_once(alleles, written):
    stream = Stream(written(alleles))
    found = scan_ploidy(stream, PAR)
    assert found.males == ([] if written is haploid else ["s1", "s4", "s5"])
    slots = found.expected(POSITION)
    expected = np.ones((90, 20, 2), bool)
    expected[MIDDLE, MALES, 1] = False
    np.testing.assert_array_equal(slots, expected)
    read = np.concatenate([batch.alleles for batch in OnceEach(stream, found)])
    np.testing.assert_array_equal(read, haploid(alleles))


def test_who_is_no_male(alleles):
    assert scan_ploidy(Stream(alleles), PAR).males == []
    few = doubled(alleles)
    few[MIDDLE][3:] = 0  # too few heterozygotes are expected to say anything
    assert scan_ploidy(Stream(few), PAR).males == []
    assert scan_ploidy(Stream(doubled(alleles)), []).males == []  # the PAR is not known
    lines = alleles.copy()
    lines[:, :, 1] = lines[:, :, 0]  # all are homozygous: inbred lines
    assert scan_ploidy(Stream(lines), PAR).males == []


def test_males_with_errors_are_named_and_kept(alleles):
    """A male of whom a few genotypes are heterozygous is diploid, and the summary names him."""
    few = doubled(alleles)
    middle = np.arange(len(few))[MIDDLE]
    few[middle[:2], 1] = (0, 1)
    found = scan_ploidy(Stream(few), PAR)
    assert found.males == ["s4", "s5"]
    assert [text.split(",")[0] for text in found.few_hets] == ["s1: 2 heterozygotes"]
    assert found.expected(POSITION)[:, 1].all()
    assert scan_ploidy(Stream(alleles), PAR).few_hets == []
    assert scan_ploidy(Stream(few), []).few_hets == []  # the PAR is not known


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 400)), min_size=1, max_size=9))
def test_few_heterozygotes_have_both_bounds(pairs):
    hets, expected = (np.array(column) for column in zip(*pairs, strict=True))
    names = [str(i) for i in range(len(pairs))]
    named = {text.split(":")[0] for text in few_hets(names, hets, expected)}
    for i, (count, mean) in enumerate(pairs):
        assert (str(i) in named) == (mean >= 20 and 0 < count < 0.1 * mean)


def test_ploidy_that_comes_and_goes_is_a_fault(alleles):
    alleles[::3, 2, 1] = -2
    with pytest.raises(PanelError, match="changes 9 times or more, first at X:101000") as caught:
        scan_ploidy(Stream(alleles), PAR)
    assert "nowhere else" in caught.value.hint


@pytest.mark.parametrize("written", [haploid, doubled])
@pytest.mark.parametrize("first", [0, 20])  # whole, or from within the haploid part on
def test_a_panel_of_chrx(alleles, written, first, tmp_path):
    given = written(alleles)[first:]
    keys = [(int(p), "A", "G") for p in POSITION[first:]]
    source = write_genotypes(tmp_path / "x.vcf", keys, given, names(20), contig="X")
    text = source.read_text().replace("##contig=<ID=X>", f"##contig=<ID=X,length={LENGTH}>")
    source.write_text(text)
    done = prepare(source, tmp_path / "x.h5", cm_per_mb=1)
    assert any("taken for males" in line for line in done.warnings) == (written is doubled)
    once = haploid(alleles)[first:]
    with Panel.open(tmp_path / "x.h5") as panel:
        assert panel.num_haplotypes == 40
        assert panel.ploidy_start.tolist() == ([0, 55] if first else [0, 15, 75])
        np.testing.assert_array_equal(panel.alt_count, (once == 1).sum(axis=(1, 2)))
        np.testing.assert_array_equal(panel.haplotypes_at, (once >= 0).sum(axis=(1, 2)))
        np.testing.assert_allclose(panel.af, (once == 1).sum(axis=(1, 2)) / panel.haplotypes_at)
        stored = panel.haplotypes(0, panel.num_sites).alleles()
        np.testing.assert_array_equal(stored, np.maximum(once, 0).reshape(len(once), -1))
        panel.verify()


def test_the_same_panel_however_males_are_written(alleles, tmp_path):
    checksums = set()
    for i, written in enumerate((haploid, doubled)):
        stream = Stream(written(alleles))
        ploidy = scan_ploidy(stream, PAR)
        write_panel(
            tmp_path / f"{i}.h5", OnceEach(stream, ploidy), samples=names(20),
            genetic_map=FlatMap(), ploidy=ploidy,
        )  # fmt: skip
        with Panel.open(tmp_path / f"{i}.h5") as panel:
            checksums.add(panel.checksum)
            assert panel.ploidy_start.tolist() == [0, 15, 75]
    assert len(checksums) == 1


def test_without_par_a_change_of_ploidy_is_refused(alleles, tmp_path):
    keys = [(int(p), "A", "G") for p in POSITION]
    source = write_genotypes(tmp_path / "z.vcf", keys, haploid(alleles), names(20), contig="Z")
    with pytest.raises(PanelError, match="changes of ploidy") as caught:
        prepare(source, tmp_path / "z.h5", cm_per_mb=1)
    assert "--par" in caught.value.hint
    prepare(source, tmp_path / "z.h5", cm_per_mb=1, par="Z:1-200000,Z:154950000-154990000")
    with Panel.open(tmp_path / "z.h5") as panel:
        assert panel.ploidy_start.tolist() == [0, 15, 75]
