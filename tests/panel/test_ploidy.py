"""Ploidy along the X chromosome of a panel: PAR, haploid males, males written twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import write_genotypes

from ragimpute.errors import InputError, PanelError
from ragimpute.io.vcf.read.genotypes import SiteBatch
from ragimpute.panel.ploidy import (
    MAX_STRETCHES,
    PAR_BUILDS,
    OnceEach,
    outside,
    par_regions,
    scan_ploidy,
    too_few_hets,
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


def test_a_haploid_call_amid_diploid_ones_begins_no_stretch(alleles):
    made = haploid(alleles)
    made[40, 2, 1] = -2  # of a female
    made[50, 4, 1] = 1 - made[50, 4, 0]  # of a male, heterozygous
    made[51, 4, 1] = made[51, 4, 0]
    stream = Stream(made)
    for par in (PAR, []):  # known, or found by where the males change for long
        found = scan_ploidy(stream, par)
        expected = np.ones((90, 20, 2), bool)
        expected[MIDDLE, MALES, 1] = False
        np.testing.assert_array_equal(found.expected(POSITION), expected)
        assert found.mixed == {2: (1, 2), 4: (2, 4)}
        once = OnceEach(stream, found)
        read = np.concatenate([batch.alleles for batch in once])
        as_it_is = haploid(alleles)
        as_it_is[40, 2, 1] = as_it_is[40, 2, 0]
        np.testing.assert_array_equal(read, as_it_is)
        assert once.num_lost == 1


def test_ploidy_that_comes_and_goes_is_kept(alleles):
    alleles[::3, 2, 1] = -2
    alleles[[k for k in range(72) if k % 12 > 6], 3, 1] = -2  # 12 flips, each for 5 or 7 sites
    found = scan_ploidy(Stream(alleles), PAR)
    assert len(found.start_bp) == 1
    assert found.slots.all()
    assert found.mixed == {2: (30, 59), 3: (30, 12)}


def test_ploidy_that_changes_everywhere_is_refused(alleles, monkeypatch):
    alleles[::2, 2:5, 1] = -2
    monkeypatch.setattr("ragimpute.panel.ploidy._MAX_CHANGES", 100)
    with pytest.raises(PanelError, match=r"of 3 samples changes [0-9]+ times or more") as caught:
        scan_ploidy(Stream(alleles), PAR)
    assert caught.value.hint == "haploid and diploid genotypes alternate almost everywhere"
    with pytest.raises(PanelError) as caught:
        scan_ploidy(Stream(alleles), PAR, vcf=Path("a b.vcf.gz"))
    assert "bcftools +fixploidy 'a b.vcf.gz' -Oz -o" in caught.value.hint


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.005, 0.05, 0.5]), par=st.booleans())
def test_every_call_is_kept_or_counted(seed, rate, par):
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 2, (90, 6, 2)).astype(np.int8)
    if rng.random() < 0.5:
        made[MIDDLE, 1, 1] = -2
    made[:, :, 1][rng.random((90, 6)) < rate] = -2
    stream = Stream(made)
    found = scan_ploidy(stream, PAR if par else [])
    assert len(found.start_bp) <= MAX_STRETCHES + 4
    once = OnceEach(stream, found)
    read = np.concatenate([batch.alleles for batch in once])
    assert ((read != -2) == found.expected(POSITION)).all()
    np.testing.assert_array_equal(read[:, :, 0], made[:, :, 0])
    changed = ((read != made).any(axis=2)).sum(axis=0)
    assert {i: num for i, (num, _) in found.mixed.items()} == {
        i: n for i, n in enumerate(changed.tolist()) if n
    }
    lost = (read[:, :, 1] == -2) & (made[:, :, 1] >= 0) & (made[:, :, 0] != made[:, :, 1])
    assert once.num_lost == lost.sum()


def test_males_with_errors_are_named(alleles, tmp_path):
    made = doubled(alleles)
    made[[20, 40], 4, 1] = 1 - made[[20, 40], 4, 0]
    found = scan_ploidy(Stream(made), PAR)
    assert found.males == ["s1", "s5"]
    assert "1 samples have too few heterozygotes on X" in found.few_hets
    assert "(s4: 2 where" in found.few_hets
    assert found.expected(POSITION)[MIDDLE, 4].all()
    keys = [(int(p), "A", "G") for p in POSITION]
    source = write_genotypes(tmp_path / "x.vcf", keys, made, names(20), contig="X")
    done = prepare(source, tmp_path / "x.h5", cm_per_mb=1, par="b37")
    assert any("too few heterozygotes" in line for line in done.warnings)


@pytest.mark.parametrize("contig", ["X", "20"])
def test_a_panel_with_calls_of_another_ploidy_is_made_and_warned_of(alleles, contig, tmp_path):
    alleles[::7, 2, 1] = -2
    alleles[33, 5, 1] = -2
    keys = [(int(p), "A", "G") for p in POSITION]
    source = write_genotypes(tmp_path / "x.vcf", keys, alleles, names(20), contig=contig)
    done = prepare(source, tmp_path / "x.h5", cm_per_mb=1)
    told = [line for line in done.warnings if "another ploidy" in line]
    assert len(told) == 1
    assert f"2 samples have 14 calls on {contig}" in told[0]
    assert "(s2: 13 calls, 25 changes; s5: 1 calls, 2 changes)" in told[0]
    with Panel.open(tmp_path / "x.h5") as panel:
        assert panel.ploidy_start.tolist() == [0]
        assert panel.num_haplotypes == 40


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


def test_without_par_a_lasting_change_of_ploidy_is_followed(alleles, tmp_path):
    keys = [(int(p), "A", "G") for p in POSITION]
    source = write_genotypes(tmp_path / "z.vcf", keys, haploid(alleles), names(20), contig="Z")
    done = prepare(source, tmp_path / "z.h5", cm_per_mb=1)
    told = "of 3 samples changes at Z:3000000, Z:154950000, and so it is kept; --par"
    assert any(told in line for line in done.warnings)
    prepare(source, tmp_path / "p.h5", cm_per_mb=1, par="Z:1-200000,Z:154950000-154990000")
    with Panel.open(tmp_path / "z.h5") as panel, Panel.open(tmp_path / "p.h5") as with_par:
        assert panel.ploidy_start.tolist() == [0, 15, 75]
        assert panel.checksum == with_par.checksum


def test_too_few_is_said_only_where_there_is_a_gap():
    expected = np.full(6, 100.0)
    hets = np.array([2, 0, 8, 80, 95, 110])
    none = np.zeros(0)
    assert too_few_hets(hets, expected, none).tolist() == [True, False, True, False, False, False]
    assert not too_few_hets(hets * 0.1, expected * 0.1, none).any()  # too few are expected
    between = np.array([2, 12, 27, 39, 45, 110])  # a short stretch: females have few, too
    assert not too_few_hets(between, expected, none).any()
    assert not too_few_hets(hets, expected, np.array([0.35, 0.45, 0.9])).any()
    alone = too_few_hets(hets[:1], expected[:1], np.array([0.0, 0.7, 0.9]))
    assert alone.all()
    many = np.concatenate([np.full(30, 10), np.linspace(30, 110, 40)])
    assert too_few_hets(many, np.full(70, 100.0), none)[:30].all()
    assert not too_few_hets(many, np.full(70, 100.0), np.linspace(0, 0.9, 50)).any()
