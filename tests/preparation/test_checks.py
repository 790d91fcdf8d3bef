"""A panel that is unphased, incomplete or unsorted is refused, with counts and places."""

from __future__ import annotations

import gzip
import os
import re

import numpy as np
import pytest
from panel_fixtures import FlatMap, make_batch, names, random_alleles
from vcf_fixtures import bcftools, vcf_text

from ragimpute.errors import PanelError
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare


@pytest.fixture
def alleles():
    return random_alleles(np.random.default_rng(3), 40, 6)


def refused(tmp_path, batches):
    with pytest.raises(PanelError) as caught:
        write_panel(tmp_path / "p.h5", batches, samples=names(6), genetic_map=FlatMap())
    assert os.listdir(tmp_path) == []
    assert caught.value.hint
    return caught.value


def test_missing(tmp_path, alleles):
    alleles[3, 2, 0] = alleles[5, 4] = alleles[30, 0, 1] = alleles[31, 1, 1] = -1
    error = refused(tmp_path, [make_batch(alleles[:20]), make_batch(alleles[20:], first_bp=1_200)])
    assert "4 missing genotypes (20:1030 in s2, 20:1050 in s4, 20:1300 in s0, ...)" in error.message


def test_unphased(tmp_path, alleles):
    batch = make_batch(alleles)
    alleles[7, 3] = (0, 1)
    alleles[8, 3] = (1, 1)
    batch = make_batch(alleles)
    batch.phased[7, 3] = batch.phased[8, 3] = False
    error = refused(tmp_path, [batch])
    assert error.message.endswith("1 unphased heterozygotes (20:1070 in s3)")
    assert "phase the panel" in error.hint


def test_unphased_homozygotes_are_fine(tmp_path, alleles):
    alleles[:, 0] = 1
    batch = make_batch(alleles)
    batch.phased[:, 0] = False
    write_panel(tmp_path / "p.h5", [batch], samples=names(6), genetic_map=FlatMap())
    assert (tmp_path / "p.h5").is_file()


def test_a_panel_cut_into_phase_sets(tmp_path, alleles):
    alleles[:, 3] = (0, 1)
    sets = np.full(alleles.shape[:2], -1, np.int32)
    one = make_batch(alleles)
    one.phase_set = sets
    sets[:, 3] = 7
    write_panel(tmp_path / "p.h5", [one], samples=names(6), genetic_map=FlatMap())
    (tmp_path / "p.h5").unlink()
    sets[20:, 3] = 8
    error = refused(tmp_path, [one])
    assert error.message.endswith("1 samples that are phased only within phase sets (s3)")
    assert "bcftools annotate -x FORMAT " in error.hint


def test_the_command_of_the_hint_makes_a_panel_of_a_file_with_remnants_of_sets(tmp_path):
    given, bare = tmp_path / "a.vcf", tmp_path / "b.vcf"
    header = "".join(
        f'##FORMAT=<ID={name},Number={number},Type={kind},Description="x">\n'
        for name, number, kind in (("GT", "1", "String"), ("PS", "1", "Integer"))
    )
    rows = [(5 + i, "A", "C", f"0|1:{i // 3}", "1|0:.") for i in range(6)]
    given.write_text(vcf_text(rows, formats=header, keys="GT:PS"))
    with pytest.raises(PanelError, match="only within phase sets") as caught:
        prepare(given, tmp_path / "p.h5", cm_per_mb=1.0)
    command = re.search(r"bcftools (annotate -x \S+)", caught.value.hint)[1]
    bcftools(*command.split(), "--no-version", "-o", bare, given)
    prepare(bare, tmp_path / "p.h5", cm_per_mb=1.0)
    assert (tmp_path / "p.h5").is_file()


def test_unsorted_within_and_between_batches(tmp_path, alleles):
    position = np.arange(100, 140)
    position[5] = 50
    first = make_batch(alleles, position)
    second = make_batch(alleles, np.arange(138, 178))
    error = refused(tmp_path, [first, second])
    assert "2 unsorted sites (20:50 after 104, 20:138 after 139)" in error.message
    assert error.hint == "write its sites again, sorted by position"  # it is of no VCF


def test_peers_3_change_of_ploidy(tmp_path, alleles):
    alleles[:20, 1, 1] = -2
    error = refused(tmp_path, [make_batch(alleles)])
    assert (
        "20 changes of ploidy (20:1200 in s1, 20:1210 in s1, 20:1220 in s1, ...)" in error.message
    )
    assert "--par" in error.hint


def test_second_contig(tmp_path, alleles):
    error = refused(tmp_path, [make_batch(alleles), make_batch(alleles, contig="21")])
    assert "contig 21 after contig 20" in error.message


def test_all_faults_are_told(tmp_path, alleles):
    alleles[0, 0] = -1
    position = np.arange(100, 140)[::-1]
    error = refused(tmp_path, [make_batch(alleles, position)])
    assert "39 unsorted sites" in error.message
    assert "1 missing genotypes (20:139 in s0)" in error.message


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz"])
@pytest.mark.parametrize("before", ["0|1", "0|0"])
def test_sets_that_are_not_declared_and_begin_late(tmp_path, suffix, before):
    rows = [(5 + i, "A", "C", before, "1|0") for i in range(4200)]
    rows += [(5000 + i, "A", "C", "0|1:7", "1|1:.") for i in range(20)]
    text = vcf_text(rows)
    given = tmp_path / "a.vcf"
    given.write_text(re.sub(r"GT(?=\t...:)", "GT:PS", text))
    if suffix == ".vcf.gz":
        (tmp_path / "a.vcf.gz").write_bytes(gzip.compress(given.read_bytes()))
        given = tmp_path / "a.vcf.gz"
    if before == "0|0":  # one set is the whole of what is heterozygous
        prepare(given, tmp_path / "p.h5", cm_per_mb=1.0)
        return
    with pytest.raises(PanelError, match=r"1 samples that are phased only within phase sets \(a\)"):
        prepare(given, tmp_path / "p.h5", cm_per_mb=1.0)
