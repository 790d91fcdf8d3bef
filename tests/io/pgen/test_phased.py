"""Phased dosages of a PGEN, read back by pgenlib and by plink2."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from imputed_blocks import blocks, make_block, random_block

from ragimpute import extras
from ragimpute.errors import MissingPackageError
from ragimpute.io.imputed import part_path
from ragimpute.io.pgen.phased import encode_phased, header, header_bytes, max_record_bytes
from ragimpute.io.pgen.writer import PgenOptions, PgenWriter
from ragimpute.io.vcf.header import Heading

PHASED = PgenOptions("plain", phased=True)
UNIT = 1 / 16384


def write(path, *blocks, options=PHASED, **more):
    samples = [f"s{i}" for i in range(blocks[0].called.shape[1])]
    with PgenWriter(path, Heading(samples, [("20", None)]), options, **more) as writer:
        for block in blocks:
            writer.write(block)
    return path


def read(path, num_sites, num_samples):
    """Dosages of samples and of haplotypes, and genotypes: (m, N), (m, N, 2) and (m, N)."""
    pgenlib = pytest.importorskip("pgenlib")
    dosages = np.empty((num_sites, num_samples), np.float32)
    by_haplotype = np.empty((num_sites, 2 * num_samples), np.float32)
    genotypes = np.empty((num_sites, num_samples), np.int8)
    with pgenlib.PgenReader(os.fsencode(path)) as reader:
        assert (reader.get_variant_ct(), reader.get_raw_sample_ct()) == (num_sites, num_samples)
        for i in range(num_sites):
            reader.read_dosages(i, dosages[i])
            reader.read_phased_dosages(i, by_haplotype[i])
            reader.read(i, genotypes[i])
    return dosages, by_haplotype.reshape(num_sites, num_samples, 2), genotypes


def as_pgen(prob):
    """P(ALT) of haplotypes, those of haploid samples twice."""
    return np.where(np.isnan(prob), prob[:, :, :1], prob)


def check(folder, block, digits=3):
    """Haplotypes are within the decimals, and samples as in a PGEN that pgenlib writes."""
    shape = block.called.shape[:2]
    found = read(write(folder / "p.pgen", block, options=PgenOptions("plain", 1, digits, True)),
                 *shape)  # fmt: skip
    usual = read(write(folder / "u.pgen", block, options=PgenOptions("plain", 1, digits)), *shape)
    np.testing.assert_array_equal(found[0], usual[0])
    np.testing.assert_array_equal(found[2], usual[2])
    assert np.abs(found[1] - as_pgen(block.allele_prob)).max() < 0.76 / 10**digits + UNIT


@settings(max_examples=60, deadline=None)
@given(blocks())
def test_any_haplotypes_are_kept(tmp_path_factory, block):
    pytest.importorskip("pgenlib")
    check(tmp_path_factory.mktemp("pgen"), block)


@pytest.mark.parametrize("num_samples", [1, 3, 4, 9, 72, 200, 255, 256, 257, 1_100])
def test_all_forms_of_genotypes(tmp_path, num_samples):
    """Rare and common alleles, all ALT, most in doubt: each has a form of its own."""
    pytest.importorskip("pgenlib")
    rng = np.random.default_rng(num_samples)
    parts = []
    for rare in (0, 0.002, 0.05, 0.3):
        prob = rng.random((12, num_samples, 2))
        prob[rng.random(prob.shape) >= rare] = 0
        half = np.clip(prob + 0.4, 0, 1)
        het = np.stack([1 - prob[:, :, 0], prob[:, :, 1]], axis=2)
        parts.append(prob[:, :, :1].repeat(2, axis=2))
        parts += [prob, 1 - prob, half, het, het[:, :, ::-1], np.rint(prob), np.rint(1 - prob)]
    prob = np.concatenate(parts)
    block = make_block(prob, info={})
    check(tmp_path, block)
    types = set((tmp_path / "p.pgen").read_bytes()[20 : 20 + len(prob)])
    if num_samples > 200:
        assert {kind & 7 for kind in types} == {0, 1, 4, 6, 7}
        assert {kind & 0xF0 for kind in types} >= {0, 0x10, 0x20, 0x60, 0xA0, 0xB0, 0xE0, 0xF0}


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_decimals(tmp_path, digits):
    pytest.importorskip("pgenlib")
    check(tmp_path, random_block(2, 80, 30, haploid=(4, 9)), digits)


def test_sure_haplotypes_take_no_room(tmp_path):
    """Whole numbers need no dosage: phased heterozygotes tell their haplotypes."""
    prob = np.random.default_rng(1).integers(0, 2, (50, 40, 2))
    write(tmp_path / "x.pgen", make_block(prob, info={}))
    assert (tmp_path / "x.pgen").stat().st_size < 20 + 50 * (3 + 10 + 6)


def test_more_variants_than_a_block_of_the_header_has(tmp_path):
    """The header keeps 65,536 variants together."""
    num = 2**16 + 3
    total = np.arange(2 * num, dtype=np.uint16).reshape(num, 2) % 32_769
    delta = (np.minimum(total, 32_768 - total) // 3).astype(np.int16)
    records, types = encode_phased(total, delta)
    length = np.array([len(record) for record in records])
    head = header(length, types, 2)
    assert len(head) == header_bytes(num, 2)
    (tmp_path / "x.pgen").write_bytes(head + b"".join(records))
    found = read(tmp_path / "x.pgen", num, 2)
    np.testing.assert_array_equal(found[0] / np.float32(UNIT), total)
    difference = found[1][:, :, 0] - found[1][:, :, 1]
    np.testing.assert_allclose(difference / UNIT, delta, atol=0.02)


def test_no_record_is_longer_than_its_bound():
    for num_samples in (1, 2, 7, 300, 5_000):
        rng = np.random.default_rng(num_samples)
        total = rng.integers(0, 32_769, (20, num_samples)).astype(np.uint16)
        delta = (np.minimum(total, 32_768 - total) // 2).astype(np.int16)
        records, _ = encode_phased(total, delta)
        assert max(map(len, records)) <= max_record_bytes(num_samples)


def test_threads_blocks_and_going_on_give_the_same_bytes(tmp_path):
    whole = random_block(4, 600, 40, haploid=(3,))
    parts = [whole.take(np.arange(s, s + 200)) for s in (0, 200, 400)]
    write(tmp_path / "whole.pgen", whole)
    write(tmp_path / "parts.pgen", *parts, threads=3)
    told = []
    path, heading = tmp_path / "on.pgen", Heading([f"s{i}" for i in range(40)], [("20", None)])
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117, PT012
        with PgenWriter(path, heading, PHASED, resumable=True) as writer:
            writer.write(parts[0])
            told.append(writer.checkpoint())
            writer.write(parts[1])
            raise ZeroDivisionError
    assert part_path(path).exists()
    write(path, *parts[1:], resumable=True, restored=told)
    assert not part_path(path).exists()
    made = [(tmp_path / f"{name}.pgen").read_bytes() for name in ("whole", "parts", "on")]
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("prob", [1.5, -0.1])
def test_what_is_no_probability(tmp_path, prob):
    with pytest.raises(ValueError, match="not in"):
        write(tmp_path / "x.pgen", make_block(np.full((1, 2, 2), prob), info={}))
    assert os.listdir(tmp_path) == []


def test_pgenlib_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    write(tmp_path / "x.pgen", random_block(8, 2, 2))
    with pytest.raises(MissingPackageError, match="needs zstandard, which"):
        write(tmp_path / "x.pgen", random_block(8, 2, 2), options=PgenOptions(phased=True))


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize("num_samples", [1, 12, 300])
def test_plink2_reads_the_haplotypes(tmp_path, num_samples):
    """plink2 finds no fault in the file, and writes the same haplotypes to a VCF."""
    block = random_block(5, 60, num_samples)
    block.allele_prob[::3] = np.where(block.allele_prob[::3] < 0.9, 0, block.allele_prob[::3])
    write(tmp_path / "x.pgen", block)
    for words in (["--validate"], ["--export", "vcf", "vcf-dosage=HDS-force"]):
        done = subprocess.run(
            ["plink2", "--pfile", "x", *words, "--out", "y"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Warning" not in done.stdout + done.stderr
    rows = [row.split("\t")[9:] for row in (tmp_path / "y.vcf").read_text().splitlines()
            if row[0] != "#"]  # fmt: skip
    found = np.array([[cell.split(":")[-1].split(",") for cell in row] for row in rows], float)
    assert np.abs(found - block.allele_prob).max() < 0.00076
