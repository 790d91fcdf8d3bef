"""Imputation to arrays: the same numbers as in the file that the command line writes."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from panel_fixtures import names
from slow_copying import mosaic_panel
from vcf_fixtures import read_imputed, write_genotypes

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.errors import InputError, PanelError
from ragimpute.imputation import arrays
from ragimpute.imputation.arrays import Imputer
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import ImputeOptions
from ragimpute.io.vcf.read.dosages import read_dosages
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.runtime.memory import MemoryPlan
from ragimpute.sites import Region
from ragimpute.token_model.build_index import build_index

TARGET = example.path("target.vcf.gz")
MAP = example.path("chr20.b37.gmap.gz")
REGION = "20:2200000-2350000"


def thousandths(values):
    """As they are written: the nearest thousandth."""
    return (np.floor(np.asarray(values, np.float64) * 1000 + 0.5) / 1000).astype(np.float32)


def assert_as_written(found, path):
    """Arrays are what a file holds, but for its rounding."""
    written = read_dosages(path)
    assert found.samples == written.samples
    assert found.sites.contig == written.sites.contig
    assert found.sites.keys() == written.sites.keys()
    assert found.sites.id.tolist() == written.sites.id.tolist()
    exact = np.nansum(found.allele_probs.astype(np.float64), axis=2)
    np.testing.assert_array_equal(thousandths(exact), written.dosage)
    np.testing.assert_allclose(found.dosages, written.dosage, atol=5.01e-4, rtol=0)
    np.testing.assert_allclose(found.dr2, written.dr2, atol=5.01e-5, rtol=0)
    np.testing.assert_array_equal(found.typed, written.typed)
    file = read_imputed(path)
    np.testing.assert_allclose(found.af, file.info["AF"], rtol=1e-5)
    # The file's three add up to exactly 1: what rounding leaves is put upon the second.
    np.testing.assert_allclose(found.probabilities, file.values["GP"], atol=1.01e-3, rtol=0)


def assert_same(found, expected):
    """Arrays are the same to the last bit."""
    assert found.samples == expected.samples
    assert found.sites.keys() == expected.sites.keys()
    for name in ("allele_probs", "dosages", "probabilities", "dr2", "af", "typed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def joined(pieces):
    """Pieces put together in order."""
    columns = ("allele_probs", "dr2", "af", "typed")
    first = pieces[0]
    index = {key: i for i, key in enumerate(k for piece in pieces for k in piece.sites.keys())}
    assert len(index) == sum(len(piece.sites) for piece in pieces)
    sites = {
        name: np.concatenate([getattr(piece.sites, name) for piece in pieces])
        for name in ("position_bp", "ref", "alt", "id")
    }
    return arrays.ImputedArrays(
        first.samples, type(first.sites)(first.sites.contig, **sites),
        *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in columns),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(panel_h5):
    """The example, imputed to arrays."""
    with Imputer(panel_h5) as imputer:
        return imputer.impute(TARGET)


def test_arrays_are_what_the_command_writes(whole, imputed_example):
    assert_as_written(whole, imputed_example[0])
    assert (~whole.typed).mean() > 0.5
    num_sites, num_samples = len(whole.sites), len(whole.samples)
    columns = ("allele_probs", "dosages", "probabilities", "dr2", "af", "typed")
    found = {name: getattr(whole, name) for name in columns}
    shapes = {name: (values.shape, values.dtype) for name, values in found.items()}
    assert shapes == {
        "allele_probs": ((num_sites, num_samples, 2), np.float32),
        "dosages": ((num_sites, num_samples), np.float32),
        "probabilities": ((num_sites, num_samples, 3), np.float32),
        "dr2": ((num_sites,), np.float32),
        "af": ((num_sites,), np.float32),
        "typed": ((num_sites,), bool),
    }
    np.testing.assert_allclose(whole.probabilities.sum(axis=2), 1, atol=1e-6)
    expected = whole.probabilities[..., 1] + 2 * whole.probabilities[..., 2]
    np.testing.assert_allclose(whole.dosages, expected, atol=1e-6)


def test_observed_genotypes_stay(whole):
    known = {key: i for i, key in enumerate(whole.sites.keys())}
    target = read_target(TARGET)
    rows = [i for i, key in enumerate(target.sites.keys()) if key in known]
    assert len(rows) > 50
    here = [known[target.sites.keys()[i]] for i in rows]
    assert whole.typed[here].all()
    observed = target.alleles[rows]
    seen = observed >= 0
    np.testing.assert_array_equal(whole.allele_probs[here][seen], observed[seen])


@pytest.mark.parametrize("region", [REGION, Region.parse(REGION), "chr" + REGION])
def test_a_region_is_what_the_command_writes_of_it(panel_h5, plain_copying, tmp_path, region):
    out = tmp_path / "x.vcf"
    impute(TARGET, panel_h5, out, model=plain_copying, region=Region.parse(REGION))
    with Imputer(panel_h5, plain_copying, threads=2) as imputer:
        found = imputer.impute(TARGET, region=region)
    assert_as_written(found, out)
    position = found.sites.position_bp
    assert 2_200_000 <= position[0] < position[-1] <= 2_350_000


def test_an_open_panel_is_left_open(panel_h5, plain_copying):
    with Panel.open(panel_h5) as panel:
        with Imputer(panel, plain_copying) as imputer:
            found = imputer.impute(TARGET, region=REGION)
        with Imputer(panel_h5, str(plain_copying)) as imputer:
            assert_same(imputer.impute(str(TARGET), region=REGION), found)
        assert panel.haplotypes(0, 1) is not None


def test_a_panel_vcf_is_prepared_once_and_goes(panel_h5, plain_copying, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Imputer(example.path("panel.bcf"), plain_copying, genetic_map=MAP) as imputer:
        found = imputer.impute(TARGET, region=REGION)
        assert len(list(tmp_path.rglob("panel.h5"))) == 1
    assert not list(tmp_path.iterdir())
    with Imputer(panel_h5, plain_copying) as imputer:
        assert_same(imputer.impute(TARGET, region=REGION), found)


def test_one_imputer_takes_several_targets(panel_h5, plain_copying, tmp_path):
    known = read_target(TARGET)
    half = tmp_path / "half.vcf"
    write_genotypes(half, known.sites.keys(), known.alleles[:, :20], known.samples[:20])
    with Imputer(panel_h5, plain_copying) as imputer:
        first = imputer.impute(TARGET, region=REGION)
        second = imputer.impute(half, region=REGION)
        assert_same(imputer.impute(TARGET, region=REGION), first)
    assert second.samples == known.samples[:20]
    np.testing.assert_array_equal(second.allele_probs, first.allele_probs[:, :20])


def test_unphased_genotypes_are_phased_first(panel_h5, plain_copying, tmp_path):
    text = gzip.decompress(TARGET.read_bytes()).decode()
    loose = tmp_path / "loose.vcf"
    loose.write_text(text.replace("0|1", "0/1").replace("1|0", "0/1"))
    out = tmp_path / "x.vcf"
    impute(loose, panel_h5, out, model=plain_copying, region=Region.parse(REGION))
    with Imputer(panel_h5, plain_copying) as imputer:
        assert_as_written(imputer.impute(loose, region=REGION), out)


def test_a_target_that_was_read_gives_what_its_file_gives(panel_h5, plain_copying, tmp_path):
    text = gzip.decompress(TARGET.read_bytes()).decode()
    loose = tmp_path / "loose.vcf"  # unphased genotypes and half calls
    loose.write_text(text.replace("0|1", "0/1").replace("1|1", "./1", 40))
    with Imputer(panel_h5, plain_copying) as imputer:
        for path in (TARGET, loose):
            target = read_target(path)
            before = (target.alleles.copy(), target.phased.copy())
            assert (target.phased.all(), (target.alleles == -1).any()) == (
                (True, False) if path == TARGET else (False, True)
            )
            for region in (REGION, None):
                assert_same(
                    imputer.impute(target, region=region), imputer.impute(path, region=region)
                )
            assert_same(joined(list(imputer.windows(target))), imputer.impute(path))
            np.testing.assert_array_equal(target.alleles, before[0])
            np.testing.assert_array_equal(target.phased, before[1])
        part = read_target(TARGET, region="20:2200000-2250000")
        known = imputer.impute(part, region="20:2300000-2310000")  # in the buffer of the region
        assert known.dr2.max() > 0
        other = replace(target, sites=replace(target.sites, contig="21"))
        with pytest.raises(InputError, match="of contig 21, but the panel is of contig 20"):
            imputer.impute(other)


def strange_target(path):
    """A target that a user is warned of: before it is imputed, and by what comes of it."""
    known = read_target(TARGET)
    alleles = known.alleles.copy()
    alleles[:, 0] = -1  # a sample without genotypes
    common = np.flatnonzero(np.abs(alleles[:, 1:].mean(axis=(1, 2)) - 0.5) < 0.1)[3]
    alleles[common, 1:] = 1 - alleles[common, 1:]  # a site with wrong alleles
    return write_genotypes(path, known.sites.keys(), alleles, known.samples)


def test_warnings_are_those_of_the_command(panel_h5, plain_copying, tmp_path, caplog, monkeypatch):
    target = strange_target(tmp_path / "t.vcf")
    done = impute(target, panel_h5, tmp_path / "x.vcf", model=plain_copying)
    for told in ("have no genotype", "1 typed sites run against"):
        assert len([line for line in done.warnings if told in line]) == 1
    monkeypatch.setattr(arrays, "ImputeOptions", partial(ImputeOptions, window_cm=0.2))
    with Imputer(panel_h5, plain_copying) as imputer:
        caplog.clear()
        assert imputer.impute(target).warnings == done.warnings
        assert [record.getMessage() for record in caplog.records] == done.warnings
        assert imputer.impute(TARGET).warnings == []
        pieces = imputer.windows(read_target(target))
        first = next(pieces)
        assert first.warnings == done.warnings[:1]  # what is known so far
        last = list(pieces)[-1]
        assert first.warnings is last.warnings
        assert last.warnings == done.warnings


def test_warnings_of_a_panel_that_is_prepared_are_told(plain_copying):
    with Imputer(example.path("panel.bcf"), plain_copying, genetic_map=MAP) as imputer:
        (line,) = imputer.impute(TARGET, region=REGION).warnings
    assert "was prepared for this run only" in line


def test_windows_put_together_are_the_whole(panel_h5, plain_copying, tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "ImputeOptions", partial(ImputeOptions, window_cm=0.2))
    out = tmp_path / "x.vcf"
    impute(TARGET, panel_h5, out, model=plain_copying, window_cm=0.2)
    with Imputer(panel_h5, plain_copying) as imputer:
        whole = imputer.impute(TARGET)
        pieces = list(imputer.windows(TARGET))
    assert len(pieces) > 2
    assert_as_written(whole, out)
    assert_same(joined(pieces), whole)
    for before, after in pairwise(pieces):
        assert before.sites.position_bp[-1] <= after.sites.position_bp[0]


@pytest.mark.parametrize("threads", [1, 2])
def test_large_windows_come_in_pieces(panel_h5, plain_copying, monkeypatch, threads):
    with Imputer(panel_h5, plain_copying, threads=threads) as imputer:
        whole = imputer.impute(TARGET, region=REGION)
        plan = MemoryPlan(2**30, 2**29, 2**27, 2**16, 2**15)  # P(ALT) waits on disk
        monkeypatch.setattr(Imputer, "_memory", lambda self, uses_torch: plan)
        pieces = list(imputer.windows(TARGET, region=REGION))
        assert_same(imputer.impute(TARGET, region=REGION), whole)
    assert len(pieces) > 5
    assert max(piece.allele_probs.nbytes for piece in pieces) <= 2**15
    assert_same(joined(pieces), whole)


def test_windows_need_not_be_gone_through_to_the_end(panel_h5, plain_copying, monkeypatch):
    monkeypatch.setattr(arrays, "ImputeOptions", partial(ImputeOptions, window_cm=0.2))
    with Imputer(panel_h5, plain_copying) as imputer:
        first = next(imputer.windows(TARGET))
    assert 0 < len(first.sites) == len(first.dr2)


@pytest.fixture(scope="module")
def chrx(tmp_path_factory):
    """A panel and a target of chrX outside the PAR, of which two of four samples are haploid."""
    folder = tmp_path_factory.mktemp("x")
    alleles = mosaic_panel(np.random.default_rng(3), 90, 48, num_founders=6, switches=0.01)
    alleles = alleles.reshape(90, 24, 2).astype(np.int8)
    alleles[:, 1::2, 1] = -2
    keys = [(2_800_000 + 500 * i, "A", "G") for i in range(90)]
    write_genotypes(folder / "p.vcf", keys, alleles[:, :20], names(20), contig="X")
    prepare(folder / "p.vcf", folder / "p.h5", cm_per_mb=1)
    target = folder / "t.vcf"
    write_genotypes(target, keys[::3], alleles[::3, 20:], list("abcd"), contig="X")
    return folder / "p.h5", target


def test_haploid_samples_have_two_probabilities(chrx, plain_copying, tmp_path):
    panel, target = chrx
    out = tmp_path / "x.vcf"
    impute(target, panel, out, model=plain_copying)
    with Imputer(panel, plain_copying) as imputer:
        found = imputer.impute(target)
    assert_as_written(found, out)
    haploid = np.isnan(found.allele_probs[:, :, 1])
    np.testing.assert_array_equal(haploid, np.tile([False, True, False, True], (90, 1)))
    np.testing.assert_array_equal(np.isnan(found.probabilities[:, :, 2]), haploid)
    np.testing.assert_allclose(np.nansum(found.probabilities, axis=2), 1, atol=1e-6)
    assert found.dosages[haploid].max() <= 1 < found.dosages.max()


def test_a_token_model_gives_what_the_command_writes(panel_h5, tmp_path):
    config = load_config("v2-small")
    torch.manual_seed(3)
    save_model(tmp_path / "model", build(config.model), config, {})
    out, index, region = tmp_path / "x.vcf", tmp_path / "index", "20:2200000-2215000"
    build_index(panel_h5, index)
    options = {"model": tmp_path / "model", "index": index}
    impute(TARGET, panel_h5, out, region=Region.parse(region), **options)
    with Imputer(panel_h5, **options) as imputer:
        assert_as_written(imputer.impute(TARGET, region=region), out)


def test_arrays_that_no_memory_holds_are_refused(panel_h5, plain_copying, monkeypatch):
    with Imputer(panel_h5, plain_copying) as imputer:
        num = len(imputer.impute(TARGET, region=REGION).sites)
        monkeypatch.setattr(arrays, "free_bytes", lambda: 24 * num * 50 - 1)
        with pytest.raises(InputError, match=rf"arrays of 50 samples at {num:,} sites") as error:
            imputer.impute(TARGET, region=REGION)
        assert "windows(target)" in error.value.hint
        assert sum(len(piece.sites) for piece in imputer.windows(TARGET, region=REGION)) == num


def test_max_memory_is_that_of_the_process(panel_h5, plain_copying):
    with (
        Imputer(panel_h5, plain_copying, max_memory=2**20) as imputer,
        pytest.raises(InputError, match="too little"),
    ):
        imputer.windows(TARGET, region=REGION)


def test_what_cannot_be_used_is_refused_at_the_call(panel_h5, plain_copying, tmp_path):
    with pytest.raises(PanelError, match="absent"):
        Imputer(tmp_path / "absent.h5")
    with pytest.raises(ValueError, match="threads must be at least 1, found 0"):
        Imputer(panel_h5, threads=0)
    copy = tmp_path / "panel.h5"
    shutil.copy(panel_h5, copy)
    with Imputer(copy, plain_copying) as imputer:
        with pytest.raises(InputError, match=r"no site in region 20:1-10"):
            imputer.windows(TARGET, region="20:1-10")
        with pytest.raises(InputError, match="region 21:5-9 is on contig 21"):
            imputer.windows(TARGET, region="21:5-9")
        with pytest.raises(InputError, match="absent"):
            imputer.windows(tmp_path / "absent.vcf")


def test_wrong_types_are_named(panel_h5):
    said = r"Imputer\(\) argument 'panel': expected str, Path or Panel, found int: 5"
    with pytest.raises(TypeError, match=said):
        Imputer(5)
    with Imputer(panel_h5) as imputer:
        said = r"Imputer\.impute\(\) argument 'target': expected str, Path or Target, found ndarray"
        with pytest.raises(TypeError, match=said):
            imputer.impute(np.zeros(3))
        said = r"Imputer\.windows\(\) argument 'region': expected Region, str such as"
        with pytest.raises(TypeError, match=said):
            imputer.windows(TARGET, region=20)
