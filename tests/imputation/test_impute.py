"""impute: what the output must be, whatever the order, split or spelling of the input."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel
from typer.main import get_command
from vcf_fixtures import bcftools, convert, join, read_imputed, rows_of, view, write_genotypes

from ragimpute import example
from ragimpute.cli.main import app
from ragimpute.config import load_config
from ragimpute.copying_model.imputer import CopyingImputer
from ragimpute.errors import InputError, ModelError, PanelError
from ragimpute.imputation.impute import _out_of_memory, impute
from ragimpute.imputation.imputer import make_imputer
from ragimpute.imputation.options import ImputeOptions
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.model.folder import CONFIG
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.presets import models_dir
from ragimpute.sites import Region
from ragimpute.token_model.build_index import build_index

TARGET = example.path("target.vcf.gz")
MAP = example.path("chr20.b37.gmap.gz")
REGION = Region.parse("20:2200000-2350000")
ALL = ("GT", "DS", "GP", "HDS", "AP")
# Chosen on the panel, rates would change with its samples. Networks are fitted where tests say so.
FIXED = {"ne": 1e5, "err": 1e-3, "fine_tune": False}


@pytest.fixture(scope="session", params=["default", "network"])
def model(request, tmp_path_factory):
    """The shipped model, and one whose network is there and changes what is in doubt."""
    if request.param == "default":
        return "default"
    config = load_config("default")
    torch.manual_seed(5)
    network = build(config.model).eval()
    torch.nn.init.normal_(network.residual.last.weight, std=0.05)
    folder = tmp_path_factory.mktemp("model") / "network"
    save_model(folder, network, config, {})
    return str(folder)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Alleles (60, 40) of a made-up panel of 20 samples, 1 cM long, and the panel."""
    alleles = mosaic_panel(np.random.default_rng(11), 60, 40)
    path = tmp_path_factory.mktemp("made") / "panel.h5"
    position = 1_000 + 17_000 * np.arange(60)
    batch = make_batch(alleles.reshape(60, 20, 2), position)
    write_panel(path, [batch], samples=names(20), genetic_map=FlatMap())
    with Panel.open(path) as panel:
        return alleles, path, panel.sites.keys()


def run(out, target=TARGET, panel=None, *, region=REGION, **options):
    """Impute and read back; rates and weights are given ones unless asked for otherwise."""
    impute(target, panel, out, region=region, fields=ALL, **{**FIXED, **options})
    return read_imputed(out)


def assert_same(found, expected, *, atol=0.0):
    """Two imputed files hold the same."""
    for name in ("samples", "keys", "ids"):
        assert getattr(found, name) == getattr(expected, name)
    np.testing.assert_array_equal(found.typed, expected.typed)
    for name, values in expected.values.items():
        np.testing.assert_allclose(found.values[name], values, atol=atol, rtol=0)
    if not atol:
        np.testing.assert_array_equal(found.genotypes, expected.genotypes)
        np.testing.assert_equal(found.info, expected.info)


def test_every_panel_site_with_what_was_typed(imputed_example):
    path, summary = imputed_example
    found, target = read_imputed(path), read_target(TARGET)
    panel = read_target(example.path("panel.bcf"))
    assert found.samples == target.samples
    assert found.keys == panel.sites.keys()
    assert found.ids == [None if name == "." else name for name in panel.sites.id]
    where = [found.keys.index(key) for key in target.sites.keys()]
    assert np.flatnonzero(found.typed).tolist() == where
    np.testing.assert_array_equal(found.genotypes[where], target.alleles)
    np.testing.assert_array_equal(found.dosage[where], target.alleles.sum(axis=2))
    truth = read_target(example.path("truth.bcf"))
    rest = ~found.typed
    common = rest & (found.info["MAF"] > 0.05)
    r2 = np.corrcoef(found.dosage[common].ravel(), truth.alleles.sum(axis=2)[common].ravel())
    assert r2[0, 1] ** 2 > 0.9
    assert (summary.num_samples, summary.num_haplotypes) == (50, 500)
    assert (summary.num_sites, summary.num_typed) == (6_127, 689)
    assert summary.counts["matched"] == 689
    assert summary.warnings == []
    np.testing.assert_array_equal(summary.typed, found.typed)
    np.testing.assert_allclose(summary.dr2, found.info["DR2"], atol=6e-5)


def check_numbers(found):
    """Every number is in its range, and fields agree as far as rounding to 0.001 lets them."""
    ds, gp, hds = found.dosage, found.values["GP"], found.values["HDS"]
    diploid = found.genotypes[0, :, 1] != -2
    ploidy = np.where(diploid, 2, 1)
    assert ((ds >= 0) & (ds <= ploidy)).all()
    assert ((np.nan_to_num(gp) >= 0) & (np.nan_to_num(gp) <= 1)).all()
    np.testing.assert_allclose(np.nansum(gp, axis=2), 1, atol=1e-6)
    weighted = gp[:, :, 1] + (2 * np.nan_to_num(gp[:, :, 2]) if gp.shape[2] == 3 else 0)
    np.testing.assert_allclose(ds, weighted, atol=2.1e-3)
    np.testing.assert_allclose(ds, np.nansum(hds, axis=2), atol=1.6e-3)
    np.testing.assert_array_equal(found.values["AP1"][:, :, 0], hds[:, :, 0])
    af = ds.sum(axis=1) / ploidy.sum()
    np.testing.assert_allclose(found.info["AF"], af, atol=6e-4)
    np.testing.assert_allclose(
        found.info["MAF"], np.minimum(found.info["AF"], 1 - found.info["AF"]), atol=1e-6
    )
    assert ((found.info["DR2"] >= 0) & (found.info["DR2"] <= 1)).all()
    assert (found.genotypes[:, :, 0] >= 0).all()
    assert (found.genotypes[:, diploid, 1] >= 0).all()


def test_numbers_agree(imputed_example, model, panel_h5, tmp_path):
    check_numbers(read_imputed(imputed_example[0]))
    check_numbers(run(tmp_path / "x.bcf", panel=panel_h5, model=model))


def test_bcftools_and_cyvcf2_read_it_without_a_warning(imputed_example, tmp_path):
    path, _ = imputed_example
    assert len(rows_of(view(path))) == 6_127
    assert len(rows_of(view(path, "-r", "20:2500000-2600000"))) > 100
    names = ",".join(bcftools("query", "-l", path).split())
    counted = rows_of(view(path, "-s", names))  # a choice of samples is counted anew, in AC and AN
    assert all("AN=100;" in row[7] + ";" for row in counted)
    code = (
        "import sys, cyvcf2\n"
        "for v in cyvcf2.VCF(sys.argv[1]):\n"
        "    v.format('GP'), v.format('AP2'), v.genotypes, dict(v.INFO)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True)
    assert done.stderr == b""


def test_peers_20_51_samples_threads_and_format_do_not_matter(panel_h5, model, tmp_path):
    expected = run(tmp_path / "a.bcf", panel=panel_h5, model=model)
    assert_same(run(tmp_path / "a.vcf", panel=panel_h5, model=model), expected)
    order = np.random.default_rng(1).permutation(50)
    samples = [expected.samples[i] for i in order]
    target = tmp_path / "t.bcf"
    bcftools("view", "-s", ",".join(samples), "-Ob", "-o", target, TARGET)
    found = run(tmp_path / "b.bcf", target, panel_h5, model=model)
    np.testing.assert_array_equal(found.values["GP"], expected.values["GP"][:, order])
    np.testing.assert_array_equal(found.genotypes, expected.genotypes[:, order])
    bcftools("view", "-s", samples[0], "-Ob", "-o", target, TARGET)
    found = run(tmp_path / "c.bcf", target, panel_h5, model=model)  # one sample, other batches
    np.testing.assert_allclose(
        found.values["HDS"][:, 0], expected.values["HDS"][:, order[0]], atol=1.1e-3
    )
    for threads, name in ((1, "a.vcf.gz"), (2, "b.vcf.gz")):
        options = {"threads": threads, "fine_tune": model == "default"}
        run(tmp_path / name, panel=panel_h5, model=model, **options)
    assert (tmp_path / "a.vcf.gz").read_bytes() == (tmp_path / "b.vcf.gz").read_bytes()
    indexes = [(tmp_path / f"{x}.vcf.gz.tbi").read_bytes() for x in "ab"]
    assert indexes[0] == indexes[1]


def test_order_of_the_panel_does_not_matter(panel_h5, model, tmp_path):
    expected = run(tmp_path / "a.bcf", panel=panel_h5, model=model)
    with Panel.open(panel_h5) as panel:
        order = np.random.default_rng(2).permutation(panel.samples)
    bcftools(
        "view", "-s", ",".join(order), "-Ob", "-o", tmp_path / "p.bcf", example.path("panel.bcf")
    )
    prepare(tmp_path / "p.bcf", tmp_path / "p.h5", genetic_map=MAP)
    found = run(tmp_path / "b.bcf", panel=tmp_path / "p.h5", model=model)
    # Sums come in another order, by which states of all but one posterior mass may change places
    # among the most probable 24: at a pair in some ten thousand others are described.
    assert_same(found, expected, atol=0.05)
    off = np.abs(found.dosage - expected.dosage)
    assert (off > 1.1e-3).mean() < (1e-4 if model == "default" else 1e-3)
    assert off.mean() < 1e-5


def test_a_copy_of_the_panel_comes_back(panel_h5, tmp_path):
    alleles = np.random.default_rng(12).integers(0, 2, (60, 40)).astype(np.int8)
    batch = make_batch(alleles.reshape(60, 20, 2), 1_000 * np.arange(1, 61))
    write_panel(tmp_path / "p.h5", [batch], samples=names(20), genetic_map=FlatMap())
    keys = [(1_000 * i, "A", "G") for i in range(1, 61)]
    copies = alleles[:, [3, 30, 17, 8]].reshape(60, 2, 2)  # pairs that are no panel sample
    target = write_genotypes(tmp_path / "t.vcf", keys[::2], copies[::2], "ab")
    found = run(tmp_path / "x.vcf", target, tmp_path / "p.h5", region=None, ne=1e3, err=1e-4)
    np.testing.assert_array_equal(found.genotypes, copies)
    np.testing.assert_allclose(found.dosage, copies.sum(axis=2), atol=0.01)
    with Panel.open(panel_h5) as panel:
        samples = panel.samples[::40]
    source = example.path("panel.bcf")
    for name, options in (("truth.bcf", []), ("target.bcf", ["-T", TARGET])):
        chosen = ["-s", ",".join(samples), *options]
        bcftools("view", *chosen, "-Ob", "-o", tmp_path / name, source)
    found = run(
        tmp_path / "y.bcf", tmp_path / "target.bcf", panel_h5, region=None, ne=1e4, err=1e-4
    )
    truth = read_target(tmp_path / "truth.bcf").alleles
    assert (found.genotypes != truth).mean() < 1e-4
    error = np.abs(found.dosage - truth.sum(axis=2))
    assert (error > 0.01).mean() < 0.01


def test_peers_63_one_window_is_many_stitched(panel_h5, model, tmp_path):
    fits = ((False, 7e-4), (True, 1e-3)) if model == "default" else ((False, 7e-4),)
    for fine_tune, most in fits:
        options = {"panel": panel_h5, "model": model, "fine_tune": fine_tune}
        whole = run(tmp_path / "a.bcf", **options)
        cut = run(tmp_path / "b.bcf", window_cm=0.1, buffer_cm=1.5, **options)
        assert cut.keys == whole.keys
        # What lies beyond 1.5 cM still tells a little, and more where a match is long; each window
        # leaves out samples of its own to measure its sites, and the network of many windows is
        # not fitted to what lies beyond the first and the last typed site. Which carriers of a
        # common allele are compared depends on the window, too.
        error = np.abs(cut.dosage - whole.dosage)
        assert error.mean() < most
        assert (error > 0.02).mean() < 0.015
    wide = run(tmp_path / "c.bcf", window_cm=0.1, buffer_cm=99, **options)
    assert_same(wide, whole, atol=1.1e-3)


@pytest.mark.parametrize("trained", [False, True])
def test_haploid_is_half_of_homozygous_diploid(panel_h5, model, tmp_path, trained):
    if not trained:
        shutil.copy(models_dir() / "default" / CONFIG, tmp_path / CONFIG)
        model = str(tmp_path)
    given = read_target(TARGET, region=Region(REGION.contig, 2_000_000, 2_600_000))
    both = given.alleles[:, :6].copy()
    both[:, :, 1] = both[:, :, 0]
    single = both.copy()
    single[:, :4, 1] = -2  # the others stay diploid, so that ploidy is mixed
    found = []
    for name, alleles in (("d", both), ("h", single)):
        target = write_genotypes(tmp_path / f"{name}.vcf", given.sites.keys(), alleles, "abcdef")
        found.append(run(tmp_path / f"{name}.bcf", target, panel_h5, model=model))
        check_numbers(found[-1])
    diploid, haploid = found
    assert (haploid.genotypes[:, :4, 1] == -2).all()
    error = np.abs(haploid.dosage[:, :4] - diploid.dosage[:, :4] / 2)
    np.testing.assert_array_equal(haploid.dosage[:, 4:], diploid.dosage[:, 4:])
    if not trained:
        np.testing.assert_array_equal(haploid.genotypes[:, :, 0], diploid.genotypes[:, :, 0])
        assert error.max() < 1.1e-3
        return
    # A network reads what copying says of a diploid sample's other haplotype.
    assert (haploid.genotypes[:, :, 0] != diploid.genotypes[:, :, 0]).mean() < 1e-3
    assert error.mean() < 1e-3
    assert (error > 0.02).mean() < 0.01


def test_design7_4_missing_genotypes_are_imputed(panel_h5, tmp_path):
    given = read_target(TARGET, region=Region(REGION.contig, 2_000_000, 2_600_000))
    hidden = given.alleles.copy()
    away = np.random.default_rng(4).random(hidden.shape) < 0.1  # halves of genotypes too
    hidden[away] = -1
    target = write_genotypes(tmp_path / "t.vcf", given.sites.keys(), hidden, given.samples)
    found = run(tmp_path / "x.bcf", target, panel_h5)
    check_numbers(found)
    here = [
        i for i, key in enumerate(given.sites.keys()) if REGION.start_bp <= key[0] < REGION.stop_bp
    ]
    where = [found.keys.index(given.sites.keys()[i]) for i in here]
    assert found.typed[where].all()
    called, before, gone = found.genotypes[where], given.alleles[here], away[here]
    np.testing.assert_array_equal(called[~gone], before[~gone])
    assert (called[gone] == before[gone]).mean() > 0.9
    assert (before[gone] == 1).sum() > 50  # so that REF everywhere would not do
    assert (called[gone & (before == 1)] == 1).mean() > 0.75


def test_adjacent_regions_join(panel_h5, tmp_path):
    whole = run(tmp_path / "whole.bcf", panel=panel_h5)
    for suffix in (".vcf.gz", ".bcf"):
        parts = []
        for name in ("20:2200000-2280000", "20:2280001-2350000"):
            parts.append(tmp_path / f"{name}{suffix}")
            run(parts[-1], panel=panel_h5, region=Region.parse(name))
        joined = tmp_path / f"joined{suffix}"
        join(joined, parts)
        found = read_imputed(joined)
        assert found.keys == whole.keys
        np.testing.assert_array_equal(found.typed, whole.typed)
        np.testing.assert_allclose(found.dosage, whole.dosage, atol=0.3)
        assert np.abs(found.dosage - whole.dosage).mean() < 1e-3


def test_a_panel_vcf_and_an_index_give_the_same(panel_h5, model, tmp_path):
    expected = run(tmp_path / "a.bcf", panel=panel_h5, model=model)
    source = example.path("panel.bcf")
    found = run(tmp_path / "b.bcf", panel=source, genetic_map=MAP, model=model)
    assert_same(found, expected)
    build_index(panel_h5, tmp_path / "index")
    found = run(tmp_path / "c.bcf", panel=panel_h5, index=tmp_path / "index", model=model)
    assert_same(found, expected)
    assert sorted(p.name for p in tmp_path.glob("*.h5")) == []


def test_a_panel_vcf_of_several_contigs(tmp_path):
    rng = np.random.default_rng(3)
    alleles = mosaic_panel(rng, 40, 12).reshape(40, 6, 2)
    keys = [(100 + 1000 * i, "A", "G") for i in range(40)]
    one, two = (
        write_genotypes(tmp_path / f"{c}.vcf", keys, alleles, names(6), contig=c)
        for c in ("20", "21")
    )
    joined = tmp_path / "both.vcf"
    extra = [line for line in two.read_text().splitlines() if not line.startswith("#")]
    header = one.read_text().replace("##contig=<ID=20>", "##contig=<ID=20>\n##contig=<ID=21>")
    joined.write_text(header + "\n".join(extra) + "\n")
    target = write_genotypes(tmp_path / "t.vcf", keys[::4], alleles[::4, :2], "ab", contig="chr21")
    found = run(
        tmp_path / "x.vcf", target, joined, region=Region.parse("21:1-20000"), cm_per_mb=1.0
    )
    assert set(found.contig) == {"chr21"}  # as the target spells it
    assert found.keys == keys[:20]
    with pytest.raises(InputError, match="holds 2 contigs") as caught:
        run(tmp_path / "y.vcf", target, joined, region=None)
    assert "--region" in caught.value.hint


def test_design7_5_other_spelling_and_swapped_alleles(panel_h5, tmp_path):
    expected = run(tmp_path / "a.bcf", panel=panel_h5)
    given = read_target(TARGET)
    keys, alleles = given.sites.keys(), given.alleles.copy()
    for i in range(0, len(keys), 2):
        keys[i] = (keys[i][0], keys[i][2], keys[i][1])
        alleles[i] = 1 - alleles[i]
    target = write_genotypes(tmp_path / "t.vcf", keys, alleles, given.samples, contig="chr20")
    summary = impute(target, panel_h5, tmp_path / "b.bcf", region=REGION, fields=ALL, **FIXED)
    found = read_imputed(tmp_path / "b.bcf")
    assert set(found.contig) == {"chr20"}
    assert_same(found, expected)
    assert summary.counts["swapped"] > 40
    assert any("swapped" in line for line in summary.warnings)
    assert any("contig 20 of the panel is chr20 in the target" in line for line in summary.warnings)


def test_few_or_no_typed_sites(panel_h5, made, plain_copying, tmp_path):
    alleles, path, keys = made
    target = write_genotypes(tmp_path / "one.vcf", keys[9:10], [[[0, 1]]], ["a"])
    for options in (FIXED, {"ne": None, "err": None}):
        found = run(tmp_path / "x.vcf", target, path, region=None, model=plain_copying, **options)
        check_numbers(found)
        assert found.keys == keys
        assert found.genotypes[9, 0].tolist() == [0, 1]
        switch = 1 - np.exp(-4 * 1e5 / 40 * np.abs(np.arange(60) - 9) * 0.017 / 100)
        for haplotype, allele in enumerate((0, 1)):  # Li-Stephens, in one step from the typed site
            weight = np.where(alleles[9] == allele, 1 - 1e-3, 1e-3)
            copied = alleles @ weight / weight.sum()
            expected = (1 - switch) * copied + switch * alleles.mean(axis=1)
            expected[9] = allele
            np.testing.assert_allclose(found.values["HDS"][:, 0, haplotype], expected, atol=2e-3)
    gap = Region.parse("20:2000021-2000500")
    summary = impute(TARGET, panel_h5, tmp_path / "gap.vcf", region=gap, buffer_cm=0.0)
    found = read_imputed(tmp_path / "gap.vcf")
    assert len(found.keys) == 3
    with Panel.open(panel_h5) as panel:
        np.testing.assert_allclose(found.info["AF"], panel.af[:3], atol=1e-6)
    assert (found.info["DR2"] == 0).all()
    assert (summary.num_sites, summary.num_typed) == (3, 0)
    assert any("no record in the region" in line for line in summary.warnings)
    near = run(tmp_path / "near.vcf", panel=panel_h5, region=gap)  # its buffer has some
    assert not near.typed.any()
    assert near.info["DR2"].max() > 0.1


def test_design7_7_one_haplotype_and_a_panel_of_28_samples(tmp_path):
    source = example.path("panel.bcf")
    samples = read_target(source).samples[:28]
    bcftools("view", "-s", ",".join(samples), "-Ob", "-o", tmp_path / "p.bcf", source)
    prepare(tmp_path / "p.bcf", tmp_path / "p.h5", genetic_map=MAP)
    given = read_target(TARGET)
    single = given.alleles[:, :1].copy()
    single[:, :, 1] = -2
    target = write_genotypes(tmp_path / "t.vcf", given.sites.keys(), single, ["x"])
    found = run(
        tmp_path / "x.vcf", convert(target, ".bcf"), tmp_path / "p.h5", region=None, ne=None
    )
    check_numbers(found)
    assert len(found.keys) == 6_127
    truth = read_target(example.path("truth.bcf")).alleles[:, 0, 0]
    assert (found.genotypes[:, 0, 0] == truth).mean() > 0.95


def test_inputs_that_do_not_belong_together(panel_h5, made, tmp_path):
    _, other, _ = made
    build_index(other, tmp_path / "index")
    with pytest.raises(PanelError, match="made from another panel"):
        run(tmp_path / "x.vcf", panel=panel_h5, index=tmp_path / "index")
    with pytest.raises(InputError, match="holds one already"):
        run(tmp_path / "x.vcf", panel=panel_h5, genetic_map=MAP)
    with pytest.raises(InputError, match="no device 'gpu'"):
        run(tmp_path / "x.vcf", panel=panel_h5, device="gpu")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def _exhausted(kind):
    """Raises what a library raises when memory runs out."""
    if kind == "numpy":
        np.empty(2**58, np.uint8)
    if kind == "torch":
        torch.empty(2**58, dtype=torch.uint8)
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("kind", ["numpy", "torch", "cuda"])
@pytest.mark.parametrize("more", [(), ("--max-memory", "4096M", "--sites-output", "sites.vcf")])
def test_a_run_without_enough_memory_says_what_to_lower(
    panel_h5, tmp_path, command_line, monkeypatch, kind, more
):
    """In its second window, when it has written the first one: nothing is left of it."""
    calls = []
    plain = CopyingImputer.impute

    def hungry(self, *args, **kwargs):
        calls.append(0)
        if len(calls) == 2:
            _exhausted(kind)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(CopyingImputer, "impute", hungry)
    monkeypatch.chdir(tmp_path)
    words = ("-r", "20:2200000-2300000", "--chunk-cm", "0.05", "--no-fine-tune", "-q")
    code, out, err = command_line("impute", TARGET, "-p", panel_h5, "-o", "x.vcf.gz", *words, *more)
    assert (code, out, len(calls)) == (1, "", 2)
    message, hint = err.splitlines()
    where = "the GPU is out of memory" if kind == "cuda" else "out of memory"
    assert message.startswith(f"Error: {where} with --")
    assert ("--max-memory 4096M" in message) == bool(more)
    assert ("lower --max-memory" if more else "give --max-memory") in hint
    assert ("--device cpu" in hint) == (kind == "cuda")
    assert ("--chunk-cm 0.05" in message) == (kind != "cuda")
    has = {name for option in get_command(app).commands["impute"].params for name in option.opts}
    assert set(re.findall(r"--[a-z-]+", err)) <= has
    assert list(tmp_path.iterdir()) == []


def test_a_token_model_keeps_to_the_memory(panel_h5, tmp_path):
    """Its batches are as small as --max-memory wants them, and give the same but for rounding."""
    config = load_config("v2-small", overrides=["model.encoder.dim=16"])
    torch.manual_seed(3)
    save_model(tmp_path / "model", build(config.model), config, {})
    with Panel.open(panel_h5) as panel:
        sizes = {
            size: make_imputer(
                tmp_path / "model", panel, np.arange(3), max_memory=size
            )._sites_at_once
            for size in (None, 2**30, 2**22, 2**18)
        }
    assert sizes[None] == sizes[2**30] > sizes[2**22] > sizes[2**18] >= 1


def test_options_that_bound_memory_are_named_as_the_command_has_them():
    assert "--max-memory" in _out_of_memory(ImputeOptions(), False).hint
    given = _out_of_memory(ImputeOptions(threads=3, max_memory=2**20 * 700), True)
    assert "--max-memory 700M" in given.message
    assert isinstance(given, ModelError)
