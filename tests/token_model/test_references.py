"""Looked-up references are those that the model would encode, and memory stays bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel

from ragimpute.config import ModelConfig
from ragimpute.model.bert_rag import build
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.token_model.references import ReferenceTable
from ragimpute.token_model.windows import TokenWindows

RANGES = np.array([[0, 20], [20, 50], [50, 60]])
D, CPU = 8, torch.device("cpu")


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    """Three windows of a panel of two populations."""
    path = tmp_path_factory.mktemp("table") / "p.h5"
    alleles = mosaic_panel(np.random.default_rng(0), 60, 24).reshape(60, 12, 2)
    samples = names(12)
    write_panel(
        path, [make_batch(alleles)], samples=samples, genetic_map=FlatMap(),
        population_of={name: "east" if i < 5 else "west" for i, name in enumerate(samples)},
    )  # fmt: skip
    with Panel.open(path) as panel:
        yield TokenWindows(panel, RANGES)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = {
        "encoder": {"dim": D, "num_layers": 1, "num_heads": 2, "dropout": 0.3},
        "reference": {"mode": "precomputed"},
    }
    return build(ModelConfig.model_validate(config))


@pytest.fixture
def batch(windows):
    rng = np.random.default_rng(1)
    found = rng.integers(0, 24, (5, 2, 3)).astype(np.int32)
    found[1, 0, 2] = found[3] = -1
    alleles = rng.integers(0, 2, (5, 2, windows.length)).astype(np.int8)
    window = np.array([1, 0, 2, 1, 0])
    return windows.batch(window, alleles, rng.random((5, windows.length)) < 0.5, found)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3)])
def test_the_same_as_encoding_anew(windows, model, batch, dtype, tolerance):
    model.train()
    expected = model.tokens.frozen(
        batch["rag_seg_h1"], batch["pos"], batch["af"], batch["rag_af_h1"]
    )
    table = ReferenceTable(model, windows, CPU, dtype=dtype)
    found = table(batch["window"], batch["rag_id_h1"])
    assert found.shape == (5, 3, windows.length, D)
    assert found.dtype == torch.float32
    for b in range(5):
        n = int((~batch["pad"][b]).sum())
        assert (found[b, :, n:] == 0).all()
        for k in range(3):
            if batch["rag_id_h1"][b, k] < 0:
                assert (found[b, k] == 0).all()
            else:
                torch.testing.assert_close(
                    found[b, k, :n], expected[b, k, :n], atol=tolerance, rtol=tolerance
                )
    assert torch.equal(table(batch["window"], batch["rag_id_h1"]), found)


def test_a_model_with_a_table_answers_the_same(windows, model, batch):
    model.eval()
    expected = model(batch)
    model.tokens.table = ReferenceTable(model, windows, CPU, dtype=torch.float32)
    for name, value in model(batch).items():
        real = ~batch["pad"]
        torch.testing.assert_close(value[real], expected[name][real], atol=1e-5, rtol=1e-5)


def test_each_haplotype_is_encoded_once(windows, model, batch, monkeypatch):
    encoded = []
    plain = model.encode_references
    monkeypatch.setattr(
        model, "encode_references", lambda *a: (encoded.append(len(a[0])), plain(*a))[1]
    )
    table = ReferenceTable(model, windows, CPU)
    for h in ("h1", "h2", "h1"):
        table(batch["window"], batch[f"rag_id_{h}"])
    asked = {
        (int(w), int(i))
        for h in ("h1", "h2")
        for w, ids in zip(batch["window"], batch[f"rag_id_{h}"], strict=True)
        for i in ids
        if i >= 0
    }
    assert sum(encoded) == len(table) == len(asked)


def test_memory_is_bounded(windows, model, batch):
    whole = ReferenceTable(model, windows, CPU)
    limit = 4 * 30 * D * 2  # four haplotypes of the longest window, in float16
    table = ReferenceTable(model, windows, CPU, max_bytes=limit)
    for h in ("h1", "h2", "h1"):
        ids = batch[f"rag_id_{h}"]
        torch.testing.assert_close(
            table(batch["window"], ids), whole(batch["window"], ids), atol=4e-3, rtol=4e-3
        )
        assert sum(kept.nbytes for kept in table._kept.values()) <= limit
    assert 0 < len(table) < len(whole)


def test_looked_up_by_site(windows, model):
    """Each row asks for the haplotypes of one site: those of the whole window, there."""
    model.eval()
    rng = np.random.default_rng(5)
    window = torch.tensor([1, 0, 2, 1, 0, 1])
    ids = torch.from_numpy(rng.integers(-1, 24, (6, 3)))
    ids[4] = -1
    site = torch.tensor([29, 0, 9, 3, 19, 3])
    table = ReferenceTable(model, windows, CPU, dtype=torch.float32)
    found = table(window, ids, site)
    whole = ReferenceTable(model, windows, CPU, dtype=torch.float32)(window, ids)
    assert found.shape == (6, 3, D)
    for row in range(6):
        torch.testing.assert_close(found[row], whole[row, :, site[row]])
    assert (found[ids < 0] == 0).all()
    assert (found[ids >= 0].abs().sum(-1) > 0).all()


def test_references_without_frequencies_are_those_at_a_half(windows):
    """``reference.af: false``: what is looked up tells no frequency; the target's still counts."""
    config = {
        "encoder": {"dim": D, "num_layers": 1, "num_heads": 2, "dropout": 0.0},
        "reference": {"af": False},
    }
    torch.manual_seed(0)
    model = build(ModelConfig.model_validate(config)).eval()
    token = torch.randint(0, 2, (4, 20))
    cm, af = torch.linspace(0, 1, 20), torch.rand(20)
    found = model.encode_references(token, cm, af, torch.rand(4, 20))
    assert torch.equal(found, model.encode_references(token, cm, 1 - af, torch.rand(4, 20)))
    config["reference"] = {"af": True}
    other = build(ModelConfig.model_validate(config)).eval()
    other.load_state_dict(model.state_dict())
    half = torch.full((20,), 0.5)
    torch.testing.assert_close(found, other.encode_references(token, cm, half, half.expand(4, 20)))
    assert not torch.allclose(found, other.encode_references(token, cm, af, af.expand(4, 20)))
