"""Ploidy by sex of targets whose format writes haploid genotypes as homozygous ones."""

from __future__ import annotations

import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plink_fixtures import write_bed

from ragimpute.io.plink.file_set import PlinkFile
from ragimpute.sites import Region
from ragimpute.target.sex import make_haploid, settle_ploidy, sure_males

B37 = 155_270_560  # length of X
MALE, FEMALE, UNKNOWN = 1, 2, 0


def genotypes(rng, num_sites, sexes, *, het_errors=0.0):
    """Alleles (m, N, 2) of common SNPs: homozygous in males, apart from errors."""
    alleles = rng.integers(0, 2, (num_sites, len(sexes), 2)).astype(np.int8)
    for i, sex in enumerate(sexes):
        if sex == MALE:
            alleles[:, i, 1] = alleles[:, i, 0]
            wrong = rng.random(num_sites) < het_errors
            alleles[wrong, i] = [0, 1]
    return np.sort(alleles, axis=2)


def settled(alleles, told, *, contig="X", length=B37, name="X", first=5_000_000, par=None):
    """The target that a bed of these genotypes gives beside a panel of ``contig``."""
    positions = range(first, first + len(alleles))
    variants = [(name, p, ".", "A", "C") for p in positions]
    samples = [f"s{i}" for i in range(alleles.shape[1])]
    panel = SimpleNamespace(contig=contig, contig_length=length)
    with tempfile.TemporaryDirectory() as folder:
        file = PlinkFile(write_bed(f"{folder}/x", variants, alleles, samples, sex=told))
        return settle_ploidy(file.read(Region(name)), panel, par)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([MALE, FEMALE]), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["X", "23", "chrX"]),
    st.booleans(),
)
def test_males_are_found_by_their_genotypes(sexes, seed, name, told):
    alleles = genotypes(np.random.default_rng(seed), 300, sexes, het_errors=0.005)
    target = settled(alleles, sexes if told else [UNKNOWN] * len(sexes), name=name)
    male = np.array(sexes) == MALE
    assert (target.alleles[:, male, 1] == -2).all()
    np.testing.assert_array_equal(target.alleles[:, ~male], alleles[:, ~male])
    hets = alleles[:, :, 0] != alleles[:, :, 1]
    assert (target.alleles[:, male, 0] == -1).sum() == hets[:, male].sum()
    lost = target.facts.counts["heterozygous calls where haploid, now missing"]
    assert lost == hets[:, male].sum()
    assert target.phased[:, male].all()


def test_the_par_stays_diploid():
    alleles = genotypes(np.random.default_rng(1), 300, [MALE])
    for length, first, par in (
        (B37, 2_000_000, None),
        (None, 2_000_000, None),  # of an unknown build: inside PAR1 of each
        (None, 5_000_000, "X:5000000-6000000"),
    ):
        target = settled(alleles, [MALE], length=length, first=first, par=par)
        np.testing.assert_array_equal(target.alleles, alleles)
    target = settled(alleles, [MALE], length=B37, first=2_699_421)  # 100 sites inside
    assert (target.alleles[:, 0, 1] == -2).tolist() == [False] * 100 + [True] * 200


def test_a_contradicted_sex_is_told_and_not_believed():
    rng = np.random.default_rng(2)
    target = settled(genotypes(rng, 300, [FEMALE]), [MALE])
    assert (target.alleles >= 0).all()
    assert "calls male have heterozygous genotypes on X" in target.facts.warnings[0]
    alleles = genotypes(rng, 300, [MALE])
    np.testing.assert_array_equal(settled(alleles, [FEMALE]).alleles, alleles)


def test_few_calls_make_no_male_that_the_file_does_not_name():
    alleles = genotypes(np.random.default_rng(3), 12, [MALE, MALE])
    target = settled(alleles, [MALE, UNKNOWN])
    assert (target.alleles[:, :, 1] == -2).all(axis=0).tolist() == [True, False]


@pytest.mark.parametrize(
    ("contig", "length", "name"),
    [("20", None, "20"), ("X", 139_009_144, "X"), ("Z", None, "Z"), ("23", 52_498_615, "23")],
)
def test_other_contigs_and_species_stay_as_they_are(contig, length, name):
    """X of cattle, and chromosome 23 of cattle, are none of humans."""
    alleles = genotypes(np.random.default_rng(4), 100, [MALE])
    target = settled(alleles, [MALE], contig=contig, length=length, name=name)
    np.testing.assert_array_equal(target.alleles, alleles)


@pytest.mark.parametrize(("contig", "name"), [("Y", "24"), ("MT", "26"), ("chrM", "MT")])
def test_y_and_mt_are_haploid_in_all(contig, name):
    alleles = np.array([[[0, 0], [1, 1]], [[0, 1], [-1, -1]]], np.int8)
    target = settled(alleles, [MALE, FEMALE], contig=contig, length=None, name=name)
    assert target.alleles.tolist() == [[[0, -2], [1, -2]], [[-1, -2], [-1, -2]]]


def test_haploid_genotypes_may_be_there_already():
    alleles = np.array([[[0, -2]], [[1, -2]]] * 30, np.int8)
    assert sure_males(alleles, np.array([UNKNOWN])).tolist() == [True]
    phased = np.ones((60, 1), bool)
    every = np.ones(60, bool)
    assert make_haploid(alleles, phased, every, np.array([True])) == 0
    assert alleles[:2].tolist() == [[[0, -2]], [[1, -2]]]
