"""info: every kind of file that it knows, damaged ones, and others."""

from __future__ import annotations

import gzip
import json
import re

import h5py
import numpy as np
import pytest
from m3vcf_fixtures import HAPLOTYPES, SITES, later_text
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import vcf_text

from ragimpute import example
from ragimpute.cli.describe import describe
from ragimpute.config import load_config
from ragimpute.errors import InputError, ModelError, PanelError
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.panel.ploidy import Ploidy
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.preparation.prepare import prepare
from ragimpute.presets import preset_names
from ragimpute.token_model.build_index import build_index
from tests.preparation.test_allel_hdf5 import write_call_set


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """The example's panel.h5."""
    out = tmp_path_factory.mktemp("info") / "panel.h5"
    prepare(example.path("panel.bcf"), out, genetic_map=example.path("chr20.b37.gmap.gz"))
    return out


@pytest.fixture
def model(tmp_path):
    """An untrained copying model's folder, and its number of parameters."""
    config = load_config("default")
    network = build(config.model)
    provenance = {"seed": 7, "num_sites": 12, "init": "", "versions": {"torch": "2", "numpy": "1"}}
    save_model(tmp_path / "model", network, config, provenance)
    return tmp_path / "model", network


def test_panel(panel):
    rows = dict(describe(panel))
    assert rows["kind"] == "panel"
    assert rows["contig"] == "20, 63,025,520 bp long"
    assert rows["samples"].startswith("250 (HG00096, ")
    assert rows["samples"].endswith("500 haplotypes")
    assert rows["sites"].startswith("6,127: ")
    assert rows["range"].startswith("2,000,021 - 2,899,979 bp, ")
    assert rows["source"] == "panel.bcf"
    assert len(rows["checksum"]) == 32


@pytest.mark.parametrize("form", ["2 distances", "MVCF"])
def test_panels_of_minimac(tmp_path, form):
    path = tmp_path / "x.mvcf.gz"
    text = later_text(SITES, HAPLOTYPES, [2, 2], [4], form=form)
    path.write_bytes(gzip.compress(text.encode()))
    rows = dict(describe(path))
    assert rows["kind"] == "panel of Minimac (M3VCF or MVCF)"
    assert (rows["contig"], rows["samples"]) == ("20", "2 (s0, s1)")
    assert f"ragimpute prepare {path} -o " in rows["panel"]


def test_files_of_other_tools_are_named(tmp_path):
    path = tmp_path / "x.bref3"
    path.write_bytes(b"\x7a\x88\x74\xf4" + bytes(40))
    with pytest.raises(InputError, match="a panel of Beagle"):
        describe(path)


def test_damaged_panel_is_said_to_be_one(panel, tmp_path):
    bad = tmp_path / "bad.h5"
    raw = bytearray(panel.read_bytes())
    raw[len(raw) // 2 :] = b""
    bad.write_bytes(raw)
    with pytest.raises(PanelError):
        describe(bad)


def test_scikit_allel(tmp_path):
    path = tmp_path / "calls.h5"
    with h5py.File(path, "w") as file:
        write_call_set(file)
    rows = dict(describe(path))
    assert rows["kind"] == "scikit-allel HDF5"
    assert rows["rows"] == "4"
    assert rows["samples"] == "3 (a, b, c)"


def test_index(panel, tmp_path):
    folder = tmp_path / "panel.index"
    done = build_index(panel, folder, sites=example.path("target.vcf.gz"))
    rows = dict(describe(folder))
    assert rows["kind"] == "index of a panel"
    assert rows["windows"] == str(done.num_windows)
    assert rows["haplotypes"] == "500"
    assert rows["sites searched"] == "689"
    assert rows["panel checksum"] == dict(describe(panel))["checksum"]
    assert "absent files" not in rows
    next(folder.glob("*.faiss")).unlink()
    assert dict(describe(folder))["absent files"].startswith("1 (window_")
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(PanelError, match="not an index"):
        describe(folder)


def test_model(model):
    folder, network = model
    rows = dict(describe(folder))
    tensors = {id(value): value.numel() for value in network.state_dict(keep_vars=True).values()}
    assert rows["kind"] == "model"
    assert rows["fusion"] == "copying"
    assert rows["parameters"] == f"{sum(tensors.values()):,}"
    assert rows["input"].startswith("evidence-")
    assert rows["seed"] == "7"
    assert rows["versions"] == "numpy 1, torch 2"
    assert "init" not in rows


def test_parts_of_a_model(model):
    folder, _ = model
    (folder / "provenance.json").unlink()
    assert "seed" not in dict(describe(folder))
    (folder / "config.yaml").unlink()
    rows = dict(describe(folder))
    assert "absent" in rows["config"]
    assert "parameters" in rows
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="neither an index nor a model"):
        describe(folder)


@pytest.mark.parametrize("name", preset_names())
def test_shipped_models(name):
    rows = dict(describe(name))
    is_model = name == "default"
    assert rows["kind"] == ("model" if is_model else "preset: the configuration of a model")
    assert rows["weights"].startswith("none: nothing can be imputed") != is_model
    assert rows["name"] == name


@pytest.mark.parametrize("keep", [4, 40, 4000, -1])
def test_damaged_weights(model, keep):
    file = model[0] / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged"):
        describe(model[0])


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_damaged_provenance(model, text):
    (model[0] / "provenance.json").write_text(text)
    with pytest.raises(ModelError, match=r"provenance\.json cannot be read"):
        describe(model[0])


@pytest.mark.parametrize(
    "about",
    [
        {"a": {"dtype": "F32"}},
        {"a": {"shape": ["x"], "data_offsets": [0, 0]}},
        {"a": {"shape": [1.5], "data_offsets": [0, 0]}},
        {"__metadata__": {"seed": [1]}},
    ],
)
def test_weights_header_of_another_kind(model, about):
    file = model[0] / "weights.safetensors"
    head = json.dumps(about).encode()
    file.write_bytes(np.uint64(len(head)).tobytes() + head)
    with pytest.raises(ModelError, match="damaged"):
        describe(model[0])


def test_vcf_and_bcf():
    rows = dict(describe(example.path("target.vcf.gz")))
    assert rows["kind"] == "VCF, bgzipped"
    assert rows["samples"].startswith("50 (")
    assert rows["contig 20"].startswith("689 records, 2,0")
    assert rows["FORMAT"] == "GT"
    rows = dict(describe(example.path("panel.bcf")))
    assert rows["kind"] == "BCF, bgzipped"
    assert rows["contig 20"] == "6,127 records, 2,000,021 - 2,899,979 bp, 63,025,520 bp long"


def test_vcf_of_many_contigs(tmp_path):
    names = [f"c{i}" for i in range(8)]
    lines = ["##fileformat=VCFv4.2", *(f"##contig=<ID={name}>" for name in names)]
    lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tx")
    lines += [f"{name}\t{5 + i}\t.\tA\tC\t.\t.\t.\tGT\t0|1" for name in names for i in range(2)]
    lines.insert(1, '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">')
    path = tmp_path / "many.vcf"
    path.write_text("\n".join(lines) + "\n")
    rows = dict(describe(path))
    assert rows["kind"] == "VCF"
    assert rows["contig c5"] == "2 records, 5 - 6 bp"
    assert rows["more contigs"] == "2 (c6, c7)"
    assert rows["index"].startswith("none")


def test_large_files_are_not_counted(monkeypatch):
    monkeypatch.setattr("ragimpute.cli.describe._MAX_COUNTED_BYTES", 10)
    rows = dict(describe(example.path("panel.bcf")))
    assert rows["contig 20"] == "63,025,520 bp long"
    assert rows["records"].startswith("not counted")


def test_genetic_map(tmp_path):
    rows = dict(describe(example.path("chr20.b37.gmap.gz")))
    assert rows["kind"] == "genetic map"
    assert rows["contig 20"].startswith("2,011 positions, 1,751,411 - 3,147,762 bp, ")
    several = tmp_path / "several.map"
    several.write_text("1 . 0 100\n1 . 1 200\n2 . 0 100\n2 . 3 400\n")
    rows = dict(describe(several))
    assert "3.000 cM" in rows["contig 2"]
    assert "2 positions, 100 - 200 bp" in rows["contig 1"]
    unnamed = tmp_path / "unnamed.map"
    unnamed.write_text("position COMBINED_rate(cM/Mb) Genetic_Map(cM)\n100 1 0\n200 1 0.5\n")
    assert "2 positions" in dict(describe(unnamed))["contig not named"]


def test_what_it_is_not(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("some words\n")
    with pytest.raises(InputError, match="of no kind that is known") as error:
        describe(text)
    for kind in ("panel.h5", "VCF", "genetic map", "ragimpute index", "shipped models"):
        assert kind in error.value.hint
    with pytest.raises(InputError, match="does not exist"):
        describe(tmp_path / "none")
    with pytest.raises(InputError, match="neither an index nor a model"):
        describe(tmp_path)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress(b"x" * 1000)[:12])
    with pytest.raises(InputError, match="gzip"):
        describe(cut)


def test_a_panel_whose_ploidy_changes(tmp_path):
    alleles = np.random.default_rng(1).integers(0, 2, (30, 5, 2)).astype(np.int8)
    alleles[10:20, 2, 1] = -2
    slots = np.ones((3, 5, 2), bool)
    slots[1, 2, 1] = False
    batch = make_batch(alleles)
    at = batch.sites.position_bp
    write_panel(
        tmp_path / "x.h5", [batch], samples=names(5), genetic_map=FlatMap(),
        ploidy=Ploidy(np.array([0, at[10], at[20]]), slots),
    )  # fmt: skip
    rows = dict(describe(tmp_path / "x.h5"))
    assert rows["haplotypes"] == "10 from 1,000 on, 9 from 1,100 on, 10 from 1,200 on"


def test_positions_that_no_command_can_use(tmp_path):
    path = tmp_path / "x.vcf"
    rows = [("20", p, "A", "G", "0|1") for p in (5, 9, 2**31, 2**31 + 4)]
    path.write_text(vcf_text(rows, ["s"]))
    text = dict(describe(path))["contig 20"]
    assert text.startswith("2 records, 5 - 9 bp; 2 records more at positions above 2,147,483,647")
    region = re.search(r"--region '(.*)' leaves", text)[1]
    assert prepare(path, tmp_path / "p.h5", region=region, cm_per_mb=1.0).panel.num_sites == 2
    path.write_text(vcf_text(rows[2:], ["s"]))
    assert dict(describe(path))["contig 20"].startswith("0 records; 2 records more")
