"""What runs on a GPU: training, imputation, and the search of an index.

Each test runs on the CPU too, where the ordinary suite keeps it from rotting; ``make gpu-test``
runs the same bodies on a CUDA device, and skips them with a reason where torch sees none.
"""

from __future__ import annotations

import json
from contextlib import contextmanager

import faiss
import numpy as np
import pytest
import torch
from faiss_stand_in import Library
from safetensors.torch import load_file
from vcf_fixtures import read_imputed

from ragimpute import example
from ragimpute.errors import ModelError
from ragimpute.imputation.impute import impute
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.retrieval.faiss_device import GpuSearcher, choose_searcher
from ragimpute.retrieval.index import WindowIndex
from ragimpute.sites import Region
from ragimpute.training.state import STATE
from ragimpute.training.trainer import train
from tests.model_configs import config_of

REGION = "20:2000000-2060000"
#: Token models on little windows: six steps of two batches each in an epoch.
TINY = ("data.max_sites=64", "data.windows_per_epoch=48", "data.max_validation_samples=4",
        "model.encoder.dim=16", "data.num_retrieved=2", "train.batch_size=4", "train.epochs=2",
        "train.accumulation=2", "optimizer.lr=5e-3", "schedule.warmup_steps=2",
        "train.checkpoint_every=1")  # fmt: skip
#: Token models that retrieve by site, with few states.
BY_SITE = (*TINY, "data.num_retrieved=4", "data.max_states=60", "data.buffer_cm=0.05")
#: Copying models on few left-out haplotypes.
FEW = ("data.num_arrays=1", "data.max_haplotypes=20", "data.typed_per_mb=[300, 300]",
       "data.max_validation_samples=4", "train.epochs=1", "train.batch_size=16",
       "train.accumulation=2", "schedule.warmup_steps=2")  # fmt: skip


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Where a test runs."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return request.param


@pytest.fixture(scope="module")
def panel_h5(tmp_path_factory):
    """A small part of the packaged 1000 Genomes panel, in several windows."""
    path = tmp_path_factory.mktemp("gpu") / "panel.h5"
    prepare(example.path("panel.bcf"), path, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse(REGION), window_cm=0.03)  # fmt: skip
    return path


class Stop(Exception):
    """Ends a run from without."""


def fit(panel, out, device, preset, settings, **options):
    """Train, and check what holds wherever it runs."""
    config = config_of(preset, settings)
    result = train([panel], config, out, device=device, calibrate=False, **options)
    assert json.loads((out / "provenance.json").read_text())["device"].startswith(device)
    for row in result.history:
        assert np.isfinite([row["train_loss"], row["val_loss"], row["f1"]]).all()
    for tensor in load_file(out / "weights.safetensors").values():
        assert torch.isfinite(tensor).all()
    return result


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_token_model_trains(panel_h5, tmp_path, device, precision):
    """In half precision, with gradients accumulated over two batches: the loss falls.

    A CPU does fp16 in full precision, see ``train.precision``; the broken run below does so too.
    """
    preset = {"cpu": "v10-small", "cuda": "v10"}[device]
    settings = [*TINY, f"train.precision={precision}"]
    result = fit(panel_h5, tmp_path / "m", device, preset, settings)
    assert result.steps == 12
    first, last = result.history
    assert last["train_loss"] < first["train_loss"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_residual_on_li_stephens_trains(panel_h5, tmp_path, device, precision):
    preset = {"cpu": "v10-rag-small", "cuda": "v10-rag"}[device]
    settings = [*BY_SITE, f"train.precision={precision}"]
    result = fit(panel_h5, tmp_path / "m", device, preset, settings)
    assert result.steps == 12
    for row in result.history:
        assert row["r2_all"] == pytest.approx(row["ls_r2_all"], abs=0.1)


@pytest.mark.parametrize("preset", ["default", "states"])
def test_a_copying_model_trains(panel_h5, tmp_path, device, preset):
    result = fit(panel_h5, tmp_path / "m", device, preset, [*FEW, "train.precision=bf16"])
    assert result.steps >= 1


def test_a_broken_run_goes_on(panel_h5, tmp_path, device):
    """To the weights of an unbroken one: exactly on a CPU, closely on a GPU."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(panel_h5, whole, device, "v10-small", TINY)
    steps = []

    def stop_at_eight(stage, done, total):
        steps.append(stage)
        if sum(stage.startswith("epoch") for stage in steps) == 8:
            raise Stop

    with pytest.raises(Stop):
        fit(panel_h5, broken, device, "v10-small", TINY, progress=stop_at_eight)
    assert (broken / STATE).is_file()
    result = fit(panel_h5, broken, device, "v10-small", TINY, resume=True)
    assert result.steps == 12
    expected, found = (load_file(out / "weights.safetensors") for out in (whole, broken))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        tolerance = {"cpu": 0, "cuda": 1e-3}[device]
        torch.testing.assert_close(found[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def token_model(panel_h5, tmp_path_factory):
    """A token model that was trained a little, on the CPU."""
    out = tmp_path_factory.mktemp("tokens") / "model"
    fit(panel_h5, out, "cpu", "v10-small", TINY)
    return out


@pytest.mark.parametrize("name", ["tokens", "by site", "states"])
def test_imputation_is_that_of_the_cpu(panel_h5, token_model, tmp_path, device, name):
    model = token_model
    if name == "states":
        model = tmp_path / "states"
        fit(panel_h5, model, "cpu", "states", FEW)
    elif name == "by site":
        model = tmp_path / "by_site"
        fit(panel_h5, model, "cpu", "v10-rag-small", BY_SITE)
    found = {}
    for where in ("cpu", device):
        out = tmp_path / f"{where}.vcf"
        done = impute(
            example.path("target.vcf.gz"), panel_h5, out, model=model, device=where,
            region=Region.parse(REGION), fields=("GT", "DS", "HDS"),
        )  # fmt: skip
        assert not [line for line in done.warnings if "does nothing" in line]
        found[where] = read_imputed(out)
    assert len(found["cpu"].keys) > 200
    np.testing.assert_allclose(found[device].dosage, found["cpu"].dosage, atol=0.01)
    differs = found[device].genotypes != found["cpu"].genotypes
    assert differs.mean() < {"cpu": 1e-9, "cuda": 1e-3}[device]


@contextmanager
def too_little_memory(device):
    """Settings for which memory runs out: a GPU's is limited, a CPU's is asked for a petabyte."""
    if device == "cpu":
        yield ["model.encoder.dim=16777216"]
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        yield ["model.encoder.dim=256", "data.max_sites=1020", "train.batch_size=64"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_advice_where_memory_runs_out(panel_h5, tmp_path, device):
    with too_little_memory(device) as settings, pytest.raises(ModelError) as caught:
        fit(panel_h5, tmp_path / "m", device, "v10", [*TINY, *settings])
    assert caught.value.message.startswith("out of memory with train.batch_size=")
    assert "data.num_retrieved=2" in caught.value.message
    assert caught.value.hint.startswith("lower train.batch_size (and raise train.accumulation)")


@pytest.fixture
def searcher(device):
    """What searches on a GPU; on a CPU, with a stand-in for FAISS's calls."""
    if device == "cpu":
        return GpuSearcher(0, library=Library())
    if not hasattr(faiss, "GpuIndexBinaryFlat"):
        pytest.skip("this build of faiss has no part for GPUs (faiss-gpu has)")
    found = choose_searcher(device, missing="fail")
    assert found is not None
    return found


@pytest.mark.parametrize("kinds", [1, 40, 6000])
def test_the_index_is_searched_as_on_the_cpu(searcher, kinds):
    """Nearest first, and ties in the same order."""
    rng = np.random.default_rng(kinds)
    codes = rng.integers(0, 256, (kinds, 255), dtype=np.uint8)[rng.integers(0, kinds, 6000)]
    queries = codes[::500] ^ (rng.random((12, 255)) < 0.05)
    made = searcher.build_flat(codes)
    plain = faiss.IndexBinaryFlat(8 * 255)
    plain.use_heap = False
    plain.add(codes)
    for k in (1, 3, 100, 2048, 4000):
        expected = plain.search(queries, k)
        for index in (plain, made):
            for one, other in zip(searcher.search(index, queries, k), expected, strict=True):
                np.testing.assert_array_equal(one, other)
    assert not searcher._failed


def test_a_panels_index_is_the_same(panel_h5, tmp_path, searcher):
    with Panel.open(panel_h5) as panel:
        by_cpu = WindowIndex.build(panel)
        by_gpu = WindowIndex.build(panel, searcher=searcher)
        assert by_cpu.description.kind == "flat"
        folders = [tmp_path / "cpu", tmp_path / "gpu"]
        for index, folder in zip((by_cpu, by_gpu), folders, strict=True):
            index.save(folder)
        one, other = ({x.name: x.read_bytes() for x in folder.iterdir()} for folder in folders)
        assert one == other
        start, stop = panel.windows[0].tolist()
        query = panel.haplotypes(start, stop).alleles()[:, :30].T.astype(np.int8)
        query[:, ::2] = -1
        np.testing.assert_array_equal(by_gpu.search(0, query, 40), by_cpu.search(0, query, 40))
    assert not searcher._failed
