"""Decimals and compression: VCF and BCF say the same, and fields agree with each other."""

from __future__ import annotations

import gzip

import numpy as np
import pysam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imputed_blocks import ALL, random_block, write

from ragimpute.imputation.exclusion import exclude_alleles, round_loci
from ragimpute.panel.loci import Loci

SETTINGS = settings(max_examples=15, deadline=None)


def values(path):
    """For each record and sample: GT, DS, GP and HDS, as pysam reads them."""
    return [
        [
            (sample["GT"], sample["DS"], sample["GP"], sample["HDS"])
            for sample in row.samples.values()
        ]
        for row in pysam.VariantFile(str(path))
    ]


def rounded(tree, digits):
    """Numbers without what float32 adds to them."""
    if isinstance(tree, list | tuple):
        return [rounded(item, digits) for item in tree]
    return tree if tree is None or isinstance(tree, int) else round(tree, digits + 1)


@SETTINGS
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.sampled_from([(), (0,), (0, 1, 2)]))
def test_fields_agree_within_a_unit_of_the_last_decimal(tmp_path_factory, seed, digits, haploid):
    folder = tmp_path_factory.mktemp("digits")
    block = random_block(seed, 12, 3, haploid=haploid)
    unit = 10.0**-digits
    read = {}
    for kind in ("vcf", "vcf.gz", "bcf"):
        path = write(folder / f"x.{kind}", block, fields=ALL, digits=digits)
        read[kind] = rounded(values(path), digits)
    assert read["vcf"] == read["vcf.gz"] == read["bcf"]
    for i, row in enumerate(read["vcf"]):
        for j, (_, dosage, probs, each) in enumerate(row):
            exact = np.nansum(block.allele_prob[i, j].astype(float))
            dosage = dosage[0] if isinstance(dosage, list) else dosage
            assert abs(dosage - exact) <= unit / 2 + 1e-6
            assert abs(sum(probs) - 1) < 1e-6 or abs(sum(probs) - 1) <= unit + 1e-6
            assert abs(sum(k * p for k, p in enumerate(probs)) - dosage) <= 2 * unit + 1e-6
            assert abs(sum(x for x in each if x is not None) - dosage) <= unit + 1e-6
            for number in (dosage, *probs, *each):
                assert abs(number / unit - round(number / unit)) < 1e-2


@pytest.mark.parametrize("kind", ["vcf.gz", "bcf"])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_level_changes_the_size_and_nothing_else(tmp_path, kind, threads):
    block = random_block(3, 400, 30)
    sizes, content = [], set()
    for level in (1, 6, 12):
        path = write(tmp_path / f"{level}.{kind}", block, level=level, threads=threads)
        sizes.append(path.stat().st_size)
        content.add(gzip.decompress(path.read_bytes()))
        pysam.VariantFile(str(path), threads=2).close()
    assert len(content) == 1
    assert sizes[0] > sizes[1] > sizes[2]


def test_fewer_decimals_make_a_smaller_file(tmp_path):
    block = random_block(3, 400, 30)
    for kind in ("vcf", "vcf.gz", "bcf"):
        sizes = [
            write(tmp_path / f"{digits}.{kind}", block, digits=digits).stat().st_size
            for digits in (2, 3, 4)
        ]
        assert sizes == sorted(sizes), (kind, sizes)
        assert sizes[0] < sizes[2] or kind == "bcf"


def test_zero_dosages_are_a_single_zero(tmp_path):
    block = random_block(3, 50, 30)
    block.allele_prob[:] = np.where(block.called == 1, 1, 0)
    for digits in (2, 3, 4):
        text = write(tmp_path / "x.vcf", block, digits=digits).read_text()
        cells = {
            cell for line in text.splitlines() if line[0] != "#" for cell in line.split("\t")[9:]
        }
        assert cells <= {"0|0:0:1,0,0", "0|1:1:0,1,0", "1|0:1:0,1,0", "1|1:2:0,0,1"}


@SETTINGS
@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.floats(0.05, 4))
def test_alts_of_a_locus_do_not_exceed_one_in_any_number_of_decimals(seed, digits, power):
    rng = np.random.default_rng(seed)
    prob = (rng.random((6, 8)) ** power).astype(np.float32)
    prob[:, 7] = [0.335, 0.335, 0.33, 0.1, 0.9, 0.5]
    groups = [[0, 1, 2], [3, 4]]
    exclude_alleles(prob, np.full(prob.shape, -1, np.int8), Loci.of(groups))
    locus = np.array([4, 4, 4, 9, 9, -1])
    pairs = prob.reshape(6, 4, 2)
    found = round_loci(pairs, locus, digits)
    scale = 10**digits
    for group in groups:
        whole = np.floor(found[group].astype(float) * scale + 0.5)
        assert (whole.sum(axis=0) <= scale).all()
        dosage = np.floor(found[group].astype(float).sum(axis=2) * scale + 0.5)
        assert (dosage.sum(axis=0) <= 2 * scale).all()
    np.testing.assert_allclose(found, pairs, atol=1.01 / scale)
    np.testing.assert_array_equal(found[5], pairs[5])
    assert round_loci(pairs, np.full(6, -1), digits) is pairs
