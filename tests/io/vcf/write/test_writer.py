"""Imputed output: read back by cyvcf2 and bcftools; whole or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cyvcf2
import numpy as np
import pytest
from imputed_blocks import make_block, random_block, write
from vcf_fixtures import join, rows_of, view

from ragimpute.errors import InputError
from ragimpute.io.imputed import ImputedBlock
from ragimpute.io.vcf.header import Heading
from ragimpute.io.vcf.read.genotypes import read_dosages, read_target
from ragimpute.io.vcf.write.writer import VcfWriter


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_read_back(tmp_path, suffix):
    block = random_block(1, 300, 9, haploid=(2, 5))
    path = write(tmp_path / f"x{suffix}", block, fields=("GT", "DS", "GP", "HDS"))
    prob, called = block.allele_prob, block.called
    found = read_dosages(path)
    np.testing.assert_allclose(found.dosage, np.nansum(prob, axis=2), atol=5.1e-4)
    assert (found.ploidy == [2, 2, 1, 2, 2, 1, 2, 2, 2]).all()
    assert found.ploidy.shape == (300, 9)
    np.testing.assert_array_equal(found.typed, block.typed)
    np.testing.assert_allclose(found.dr2, block.info["DR2"], atol=5.1e-5)
    assert found.sites.keys() == block.sites.keys()
    assert found.sites.id.tolist() == block.sites.id.tolist()
    target = read_target(path)
    expected = np.where(called >= 0, called, prob > 0.5)
    expected[np.isnan(prob)] = -2
    np.testing.assert_array_equal(target.alleles, expected)
    assert target.phased.all()
    for i, record in enumerate(cyvcf2.VCF(str(path))):
        gp, hds = record.format("GP"), record.format("HDS")
        np.testing.assert_allclose(np.nansum(gp, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(np.nansum(hds, axis=1), found.dosage[i], atol=1.6e-3)
        expected_ds = gp[:, 1] + 2 * np.nan_to_num(gp[:, 2])
        np.testing.assert_allclose(expected_ds, found.dosage[i], atol=2.1e-3)
        assert np.float32(record.INFO["AF"]) == pytest.approx(block.info["AF"][i], rel=1e-5)
        assert record.FILTER is None


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
def test_peers_28_any_number_of_threads_and_blocks_gives_the_same_bytes(tmp_path, suffix):
    whole = random_block(2, 3_000, 40)
    made = []
    for threads, step in ((1, 3_000), (2, 3_000), (3, 700), (1, 1)):
        parts = [
            ImputedBlock(
                whole.sites.take(s),
                whole.allele_prob[s],
                whole.called[s],
                {name: values[s] for name, values in whole.info.items()},
                whole.typed[s],
            )
            for s in (slice(i, i + step) for i in range(0, 3_000, step))
        ]
        path = write(tmp_path / f"{threads}.{step}{suffix}", *parts, threads=threads)
        index = next(p for p in tmp_path.glob(f"{path.name}.*i"))
        made.append((path.read_bytes(), index.read_bytes()))
    assert all(pair == made[0] for pair in made)
    assert len(made[0][0]) > 3 * 65_536


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz"])
def test_rows_stay_as_they_are_until_they_are_written(tmp_path, monkeypatch, suffix):
    blocks = [
        random_block(seed, 150, 20, haploid=(3,), position=range(1 + 200 * seed, 151 + 200 * seed))
        for seed in range(12)
    ]
    expected = write(tmp_path / f"1{suffix}", *blocks).read_bytes()
    monkeypatch.setattr("ragimpute.io.vcf.write.writer._SLICE_BYTES", 10_000)  # a few rows
    for threads in (1, 2, 4):
        found = write(tmp_path / f"{threads}.few{suffix}", *blocks, threads=threads)
        assert found.read_bytes() == expected


def test_no_sites(tmp_path):
    for suffix in (".vcf", ".vcf.gz", ".bcf"):
        path = write(tmp_path / f"x{suffix}", samples=["a", "b"])
        assert rows_of(view(path)) == []
        if suffix != ".vcf":
            assert rows_of(view(path, "-r", "20:1-100")) == []


def test_naive_concatenation(tmp_path):
    whole = random_block(5, 2_000, 20)
    for suffix in (".vcf.gz", ".bcf"):
        paths = []
        for k, part_of in enumerate((slice(0, 900), slice(900, 2_000))):
            info = {name: values[part_of] for name, values in whole.info.items()}
            arrays = (getattr(whole, n)[part_of] for n in ("allele_prob", "called"))
            part = ImputedBlock(whole.sites.take(part_of), *arrays, info, whole.typed[part_of])
            paths.append(str(write(tmp_path / f"{k}{suffix}", part)))
        joined = str(tmp_path / f"joined{suffix}")
        join(joined, paths)
        write(tmp_path / f"whole{suffix}", whole)
        assert view(joined) == view(tmp_path / f"whole{suffix}")


def test_standard_output(tmp_path):
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from imputed_blocks import random_block, write
        write("-", random_block(6, 50, 3))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parents[3])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    write(tmp_path / "x.vcf", random_block(6, 50, 3))
    assert done.stdout == (tmp_path / "x.vcf").read_bytes()


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_an_exception_leaves_nothing_and_keeps_the_old_file(tmp_path, suffix):
    block = random_block(7, 500, 30)
    path = tmp_path / f"x{suffix}"

    def broken():
        with VcfWriter(
            path, Heading([f"s{i}" for i in range(30)], [("20", None)]), threads=2
        ) as writer:
            writer.write(block)
            assert not path.exists() or path.read_bytes() == old
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert os.listdir(tmp_path) == []
    write(path, random_block(8, 5, 30))
    old, listed = path.read_bytes(), sorted(os.listdir(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        broken()
    assert path.read_bytes() == old
    assert sorted(os.listdir(tmp_path)) == listed


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_full_disk(tmp_path, suffix):
    code = """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[1])
        from imputed_blocks import random_block, write
        from ragimpute.errors import InputError
        from ragimpute.io.vcf.write.sample_text import RowFormatter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        block = random_block(9, 3_000, 100)
        RowFormatter(["GT", "DS", "GP"])  # compiles; numba keeps a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            write(sys.argv[2], block, threads=2)
        except InputError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parents[3]), f"x{suffix}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"refused: cannot write x{suffix}: File too large"), done.stdout
    assert os.listdir(tmp_path) == []


def test_paths_that_cannot_be_written(tmp_path):
    block = random_block(10, 2, 1)
    with pytest.raises(InputError, match=r"cannot write .*x\.bcf: No such file"):
        write(tmp_path / "none" / "x.bcf", block)
    (tmp_path / "f.vcf").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write(tmp_path / "f.vcf", block)
    for name in ("x", "x.txt", ".vcf", "x.h5", "x.gz"):
        with pytest.raises(InputError, match="no suffix"):
            write(tmp_path / name, block)
    assert os.listdir(tmp_path) == ["f.vcf"]


def test_an_old_index_does_not_outlive_its_file(tmp_path):
    path = tmp_path / "x.vcf.gz"
    (tmp_path / "x.vcf.gz.csi").write_bytes(b"old")
    write(path, random_block(11, 20, 2))
    assert sorted(os.listdir(tmp_path)) == ["x.vcf.gz", "x.vcf.gz.tbi"]


@pytest.mark.parametrize("suffix", [".vcf", ".bcf"])
def test_blocks_that_do_not_fit(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"

    def refuse(message, *made, samples=("a", "b")):
        with pytest.raises(ValueError, match=message):
            write(path, *made, samples=samples, contigs=[("20", None), ("21", None)])
        assert os.listdir(tmp_path) == []

    good = random_block(12, 4, 2)
    refuse("expected \\(4, 3, 2\\)", good, samples=("a", "b", "c"))
    refuse("not in the header", random_block(1, 4, 2, contig="7"))
    refuse("not sorted", good, random_block(1, 4, 2, position=[1_029, 1_030, 1_031, 1_032]))
    refuse("not sorted", random_block(1, 3, 2, position=[5, 4, 6]))
    refuse("not sorted", random_block(1, 3, 2, position=[0, 4, 6]))
    refuse("comes back", good, random_block(1, 1, 2, contig="21"), random_block(1, 1, 2))
    for wrong in (-0.1, 1.1, np.nan):
        prob = good.allele_prob.copy()
        prob[3, 1, 0] = wrong
        refuse("must be in \\[0, 1\\]", make_block(prob, info={}))
    refuse("INFO \\['XX'\\]", make_block(good.allele_prob, info={"XX": np.zeros(4)}))
    refuse("shape \\(3,\\)", make_block(good.allele_prob, info={"AF": np.zeros(3)}))
