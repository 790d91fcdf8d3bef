"""PGEN, its table of sites and its table of samples, read back by pgenlib."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from imputed_blocks import blocks, make_block, random_block

from ragimpute import extras
from ragimpute.errors import InputError, MissingPackageError
from ragimpute.io.imputed import part_path
from ragimpute.io.pgen.writer import PgenOptions, PgenWriter
from ragimpute.io.vcf.header import Heading, header_text

pgenlib = pytest.importorskip("pgenlib")
zstandard = pytest.importorskip("zstandard")
UNIT = 1 / 16384


def write(path, *blocks, options=None, samples=None, **more):
    options = options or PgenOptions()
    samples = samples or [f"s{i}" for i in range(blocks[0].called.shape[1])]
    with PgenWriter(path, Heading(samples, [("20", None)]), options, **more) as writer:
        for block in blocks:
            writer.write(block)
    return path


def read(path, num_sites, num_samples):
    """Dosages and genotypes, both (m, N); a genotype of -9 is missing."""
    reader = pgenlib.PgenReader(os.fsencode(path))
    assert (reader.get_variant_ct(), reader.get_raw_sample_ct()) == (num_sites, num_samples)
    dosages = np.empty((num_sites, num_samples), np.float32)
    genotypes = np.empty((num_sites, num_samples), np.int8)
    for i in range(num_sites):
        reader.read_dosages(i, dosages[i])
        reader.read(i, genotypes[i])
    reader.close()
    return dosages, genotypes


def doubled(block, digits=3):
    """Rounded dosages, those of haploid samples doubled."""
    a, b = np.moveaxis(block.allele_prob.astype(float), 2, 0)
    rounded = np.floor((a + np.nan_to_num(b)) * 10**digits + 0.5) / 10**digits
    return np.where(np.isnan(b), 2, 1) * rounded


def table(path):
    """The table of sites as text."""
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data).read()
    return data.decode()


def test_read_back(tmp_path):
    block = random_block(1, 300, 9, haploid=(2, 5))
    path = write(tmp_path / "x.pgen", block)
    dosages, genotypes = read(path, 300, 9)
    wanted = doubled(block)
    np.testing.assert_allclose(dosages, wanted, atol=0.51 * UNIT)
    near = np.abs(wanted - np.rint(wanted)) < 0.0999
    np.testing.assert_array_equal(genotypes[near], np.rint(wanted)[near])
    assert (genotypes[np.abs(wanted - np.rint(wanted)) > 0.1001] == -9).all()
    header, *rows = table(tmp_path / "x.pvar.zst").split("\n20\t")
    assert header + "\n" == header_text(Heading([], [("20", None)]), [])
    assert len(rows) == 300
    for i, row in enumerate(rows):
        position, name, ref, alt, _, passed, info = row.strip().split("\t")
        assert (position, ref, alt, passed) == (str(1_000 + 10 * i), "A", "G", "PASS")
        assert name == (f"rs{i}" if i % 2 else f"20:{position}:A:G")
        told = dict(pair.split("=") for pair in info.split(";")[:-1])
        assert float(told["AF"]) == pytest.approx(float(block.info["AF"][i]), rel=1e-5)
        assert info.endswith("TYPED" if block.typed[i] else "IMP")
        assert {"DR2", "MAF"} <= set(told)


@settings(max_examples=40, deadline=None)
@given(blocks())
def test_any_dosage_is_kept(tmp_path_factory, block):
    folder = tmp_path_factory.mktemp("pgen")
    path = write(folder / "x.pgen", block, options=PgenOptions("plain"))
    dosages, _ = read(path, *block.called.shape[:2])
    exact = np.nansum(block.allele_prob.astype(float), axis=2)
    exact *= np.where(np.isnan(block.allele_prob[:, :, 1]), 2, 1)
    assert np.abs(dosages - exact).max() < 0.00104
    np.testing.assert_allclose(dosages, doubled(block), atol=0.51 * UNIT)
    rows = [line for line in table(folder / "x.pvar").splitlines() if line[0] != "#"]
    assert len(rows) == len(block.sites)


def test_regenie_114_dosages_near_whole_numbers_are_explicit(tmp_path):
    """https://github.com/rgcgithub/regenie/issues/114: dosages are used where a PGEN has them."""
    small = np.array([0.001, 0.005, 0.02, 0.05])
    prob = np.stack([small, np.zeros(4)], axis=1)[None]
    prob = np.concatenate([prob, 1 - prob, 0.5 + np.abs(0.5 - prob)])
    block = make_block(prob)
    dosages, _ = read(write(tmp_path / "x.pgen", block), 3, 4)
    np.testing.assert_allclose(dosages, doubled(block), atol=0.51 * UNIT)
    assert len(np.unique(dosages[0])) == 4


def test_regenie_593_the_table_of_sites_may_be_plain(tmp_path):
    """https://github.com/rgcgithub/regenie/issues/593: .pvar.zst is not read."""
    block = random_block(2, 20, 2)
    write(tmp_path / "x.pgen", block)
    packed = table(tmp_path / "x.pvar.zst")
    write(tmp_path / "x.pgen", block, options=PgenOptions("plain"))
    assert sorted(os.listdir(tmp_path)) == ["x.pgen", "x.psam", "x.pvar"]  # none of an older set
    assert table(tmp_path / "x.pvar") == packed
    write(tmp_path / "x.pgen", block)
    assert sorted(os.listdir(tmp_path)) == ["x.pgen", "x.psam", "x.pvar.zst"]


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_decimals_are_those_of_a_vcf(tmp_path, digits):
    block = random_block(9, 100, 6, haploid=(1,))
    path = write(tmp_path / "x.pgen", block, options=PgenOptions("plain", 1, digits))
    dosages, _ = read(path, 100, 6)
    np.testing.assert_allclose(dosages, doubled(block, digits), atol=0.51 * UNIT)


def test_the_table_of_samples_is_one_that_regenie_reads(tmp_path):
    block = random_block(3, 3, 3)
    write(tmp_path / "x.pgen", block, samples=["a", "b", "c"], sexes=np.array([1, 2, 0]))
    assert (tmp_path / "x.psam").read_text() == "#FID\tIID\tSEX\n0\ta\t1\n0\tb\t2\n0\tc\t0\n"


def test_any_number_of_threads_and_blocks_gives_the_same_bytes(tmp_path):
    whole = random_block(4, 1_000, 40, haploid=(3,))
    made = []
    for threads, step in ((1, 1_000), (2, 1_000), (3, 300), (2, 50)):
        folder = tmp_path / f"{threads}-{step}"
        folder.mkdir()
        parts = [whole.take(np.arange(s, min(s + step, 1_000))) for s in range(0, 1_000, step)]
        write(folder / "x.pgen", *parts, threads=threads)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert set(made[0]) == {"x.pgen", "x.psam", "x.pvar.zst"}
    assert all(files == made[0] for files in made)


def test_a_file_is_gone_on_with(tmp_path):
    block = random_block(5, 300, 5)
    parts = [block.take(np.arange(s, s + 100)) for s in (0, 100, 200)]
    (tmp_path / "whole").mkdir()
    write(tmp_path / "whole" / "x.pgen", block)
    (tmp_path / "parts").mkdir()
    path = tmp_path / "parts" / "x.pgen"
    told = []
    heading = Heading([f"s{i}" for i in range(5)], [("20", None)])
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117, PT012
        with PgenWriter(path, heading, PgenOptions(), resumable=True) as writer:
            writer.write(parts[0])
            told.append(writer.checkpoint())
            writer.write(parts[1])
            raise ZeroDivisionError
    assert os.listdir(path.parent) == [part_path(path).name]
    write(path, *parts[1:], resumable=True, restored=told)
    assert len(os.listdir(path.parent)) == 3
    for one in (tmp_path / "whole").iterdir():
        assert (path.parent / one.name).read_bytes() == one.read_bytes()


def test_a_pgen_has_a_site(tmp_path):
    with pytest.raises(InputError, match=r"no site is left for .*x\.pgen") as found:
        write(tmp_path / "x.pgen", random_block(6, 0, 2, info={}))
    assert "--min-r2" in found.value.hint
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("prob", [1.5, -0.1, np.nan])
def test_what_is_no_probability(tmp_path, prob):
    with pytest.raises(ValueError, match="not in"):
        write(tmp_path / "x.pgen", make_block(np.full((1, 2, 2), prob), info={}))
    assert os.listdir(tmp_path) == []


def test_a_library_that_fails_is_an_error_of_one_line(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("SpgwInitPhase1() error 4")

    monkeypatch.setattr(pgenlib, "PgenWriter", broken)
    with pytest.raises(InputError, match=r"cannot write .*x\.pgen: pgenlib: SpgwInitPhase1"):
        write(tmp_path / "x.pgen", random_block(7, 2, 2))
    assert os.listdir(tmp_path) == []


def test_without_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="needs Pgenlib and zstandard") as found:
        write(tmp_path / "x.pgen", random_block(8, 2, 2))
    assert "ragimpute[pgen]" in found.value.hint
    with pytest.raises(MissingPackageError, match="needs Pgenlib, which"):
        write(tmp_path / "x.pgen", random_block(8, 2, 2), options=PgenOptions("plain"))
