"""BGEN, its index and its .sample file, read back by another reader and by bgenix."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
from imputed_blocks import make_block, random_block

from ragimpute.errors import MissingPackageError
from ragimpute.io.bgen.writer import BgenOptions, BgenWriter
from ragimpute.io.imputed import part_path
from ragimpute.io.vcf.header import Heading


def write(path, *blocks, options=None, samples=None, **more):
    options = options or BgenOptions()
    samples = samples or [f"s{i}" for i in range(blocks[0].called.shape[1])]
    with BgenWriter(path, Heading(samples, [("20", None)]), options, **more) as writer:
        for block in blocks:
            writer.write(block)
    return path


def read(path):
    """Names of samples and all variants of a BGEN, by the package bgen."""
    bgen = pytest.importorskip("bgen")
    with bgen.BgenReader(path) as reader:
        found = [
            SimpleNamespace(
                chrom=one.chrom, pos=one.pos, alleles=one.alleles, varid=one.varid, rsid=one.rsid,
                is_phased=one.is_phased, probabilities=np.array(one.probabilities),
            )
            for one in reader
        ]  # fmt: skip
        return reader.samples, found


def expected(block, *, phased):
    """Probabilities as readers give them: of genotypes (m, N, 3), or of haplotypes (m, N, 4)."""
    a, b = np.moveaxis(block.allele_prob.astype(float), 2, 0)
    haploid = np.isnan(b)
    if phased:
        return np.stack([1 - a, a, 1 - b, b], axis=2)
    diploid = np.stack([(1 - a) * (1 - b), a * (1 - b) + b * (1 - a), a * b], axis=2)
    single = np.stack([1 - a, a, np.full_like(a, np.nan)], axis=2)
    return np.where(haploid[:, :, None], single, diploid)


@pytest.mark.parametrize("phased", [False, True])
@pytest.mark.parametrize(
    ("bits", "compression"),
    [(1, "none"), (7, "zlib"), (8, "zlib"), (8, "none"), (8, "zstd"), (13, "zlib"), (16, "zstd")],
)
def test_read_back(tmp_path, bits, compression, phased):
    if compression == "zstd":
        pytest.importorskip("zstandard")
    block = random_block(1, 200, 9, haploid=(2, 5))
    options = BgenOptions(bits, compression, phased=phased)
    samples, variants = read(write(tmp_path / "x.bgen", block, options=options))
    assert samples == [f"s{i}" for i in range(9)]
    assert len(variants) == 200
    sites = block.sites
    for i, variant in enumerate(variants):
        name = f"20:{sites.position_bp[i]}:A:G"
        assert (variant.chrom, variant.pos, variant.alleles) == ("20", 1_000 + 10 * i, ["A", "G"])
        assert variant.varid == name
        assert variant.rsid == (f"rs{i}" if i % 2 else name)
        assert variant.is_phased == phased
    found = np.stack([variant.probabilities for variant in variants])
    probs = expected(block, phased=phased)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(probs))
    np.testing.assert_allclose(found, probs, atol=0.667 / (2**bits - 1) + 1e-6)


def test_regenie_320_small_dosages_are_kept(tmp_path):
    """https://github.com/rgcgithub/regenie/issues/320: GWAS of genotypes in place of dosages."""
    pytest.importorskip("bgen")
    small = np.linspace(0.001, 0.02, 20)
    prob = np.stack([small, np.zeros(20)], axis=1)[None]
    prob = np.concatenate([prob, 1 - prob])
    _, variants = read(write(tmp_path / "x.bgen", make_block(prob)))
    for variant, dosage in zip(variants, prob.sum(axis=2), strict=True):
        found = variant.probabilities @ [0, 1, 2]
        np.testing.assert_allclose(found, dosage, atol=1 / 255)
        assert len(set(np.round(found, 4))) >= 5  # no rounding to whole numbers
    _, variants = read(write(tmp_path / "y.bgen", make_block(prob), options=BgenOptions(bits=16)))
    for variant, dosage in zip(variants, prob.sum(axis=2), strict=True):
        np.testing.assert_allclose(variant.probabilities @ [0, 1, 2], dosage, atol=2 / 65535)


def test_any_number_of_threads_and_blocks_gives_the_same_bytes(tmp_path):
    whole = random_block(2, 2_000, 40, haploid=(3,))
    made = []
    for threads, step in ((1, 2_000), (2, 2_000), (3, 700), (2, 50)):
        folder = tmp_path / f"{threads}-{step}"
        folder.mkdir()
        parts = [whole.take(np.arange(s, min(s + step, 2_000))) for s in range(0, 2_000, step)]
        write(folder / "x.bgen", *parts, threads=threads)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert set(made[0]) == {"x.bgen", "x.bgen.bgi", "x.sample"}
    assert all(files == made[0] for files in made)


def test_saige_36_the_layout_that_association_tools_read(tmp_path):
    """https://github.com/saigegit/SAIGE/issues/36: BGEN with dosages; 8 bits, zlib, unphased."""
    path = write(tmp_path / "x.bgen", random_block(3, 5, 3))
    data = path.read_bytes()
    offset, length, num_variants, num_samples, magic, flags = struct.unpack("<IIII4sI", data[:24])
    assert (length, num_variants, num_samples, magic) == (20, 5, 3, b"bgen")
    assert flags & 3 == 1  # zlib
    assert flags >> 2 & 15 == 2  # layout
    assert flags >> 31 == 1  # names
    block, num_names = struct.unpack("<II", data[24:32])
    assert offset == length + block
    assert num_names == 3


def test_the_index_is_that_of_bgenix(tmp_path):
    path = write(tmp_path / "x.bgen", random_block(4, 50, 3), samples=["a", "b", "ü"])
    with closing(sqlite3.connect(tmp_path / "x.bgen.bgi")) as base:
        rows = base.execute("SELECT * FROM Variant ORDER BY position").fetchall()
        about = base.execute("SELECT * FROM Metadata").fetchall()
        names = [column[0] for column in base.execute("SELECT * FROM Variant").description]
    assert names == ["chromosome", "position", "rsid", "number_of_alleles", "allele1", "allele2",
                     "file_start_position", "size_in_bytes"]  # fmt: skip
    data = path.read_bytes()
    assert about == [("x.bgen", len(data), 0, data[:1_000], 0)]
    at = 4 + int.from_bytes(data[:4], "little")
    for i, row in enumerate(rows):
        assert row[:6] == ("20", 1_000 + 10 * i, f"rs{i}" if i % 2 else f"20:{1_000 + 10 * i}:A:G",
                           2, "A", "G")  # fmt: skip
        assert row[6] == at
        at += row[7]
    assert at == len(data)


def test_the_table_of_samples_has_sexes(tmp_path):
    block = random_block(5, 3, 3)
    write(tmp_path / "x.bgen", block, samples=["a", "b", "c"], sexes=np.array([1, 2, 0]))
    assert (tmp_path / "x.sample").read_text() == (
        "ID_1 ID_2 missing sex\n0 0 0 D\na a 0 1\nb b 0 2\nc c 0 0\n"
    )


def test_a_file_without_sites(tmp_path):
    path = write(tmp_path / "x.bgen", random_block(6, 0, 2, info={}))
    assert read(path)[1] == []


def test_a_file_is_gone_on_with(tmp_path):
    block = random_block(7, 300, 5)
    parts = [block.take(np.arange(s, s + 100)) for s in (0, 100, 200)]
    (tmp_path / "whole").mkdir()
    write(tmp_path / "whole" / "x.bgen", block)
    (tmp_path / "parts").mkdir()
    path = tmp_path / "parts" / "x.bgen"
    heading = Heading([f"s{i}" for i in range(5)], [("20", None)])
    told = []
    for threads, first in ((2, 0), (1, 1)):
        with pytest.raises(ZeroDivisionError):  # noqa: SIM117, PT012
            with BgenWriter(path, heading, BgenOptions(), threads=threads, resumable=True,
                            restored=told) as writer:  # fmt: skip
                writer.write(parts[first])
                told.append(writer.checkpoint())
                writer.write(parts[first + 1])
                raise ZeroDivisionError
        assert os.listdir(path.parent) == [part_path(path).name]
    write(path, parts[2], resumable=True, restored=told)
    for one in (tmp_path / "whole").iterdir():
        assert (path.parent / one.name).read_bytes() == one.read_bytes()
    assert len(os.listdir(path.parent)) == 3
    part_path(path).write_bytes(b"")
    with pytest.raises(ValueError, match="is shorter"):
        write(path, parts[2], resumable=True, restored=told)


def test_zstd_without_its_package(tmp_path, monkeypatch):
    from ragimpute import extras

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="--bgen-compression zstd needs zstandard"):
        write(tmp_path / "x.bgen", random_block(8, 2, 2), options=BgenOptions(compression="zstd"))


@pytest.mark.needs_program("bgenix")
def test_bgenix_finds_a_region_by_the_index(tmp_path):
    path = write(tmp_path / "x.bgen", random_block(9, 50, 3))
    done = subprocess.run(
        ["bgenix", "-g", path, "-incl-range", "20:1100-1140", "-list"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("\t") for line in done.stdout.splitlines() if line[0] != "#"]
    assert [row[3] for row in rows[1:]] == ["1100", "1110", "1120", "1130", "1140"]
    made = subprocess.run(
        ["bgenix", "-g", path, "-incl-range", "20:1100-1140"], capture_output=True, check=True
    )
    (tmp_path / "y.bgen").write_bytes(made.stdout)
    assert [variant.pos for variant in read(tmp_path / "y.bgen")[1]] == [*range(1_100, 1_150, 10)]
