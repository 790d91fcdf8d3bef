"""Attention against loops; padding, chunks and checkpoints change nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ragimpute.model import chunks
from ragimpute.model.chunks import chunk_bytes_of, sequence_bytes
from ragimpute.model.embedding import PAD, SiteEmbedding
from ragimpute.model.encoder import (
    Encoder,
    FrozenReferences,
    ReferenceEncoder,
    SelfAttention,
    padding_bias,
)

D, A = 8, 2


def make_encoder(**options):
    torch.manual_seed(0)
    return Encoder(dim=D, num_layers=2, num_heads=A, **options).double()


def test_attention_by_loops():
    torch.manual_seed(1)
    attention = SelfAttention(dim=D, num_heads=A).double()
    x = torch.randn(2, 5, D, dtype=torch.float64)
    bias = torch.randn(2, A, 5, 5, dtype=torch.float64)
    found = attention(x, bias)
    for b in range(2):
        qkv = x[b] @ attention.qkv.weight.T + attention.qkv.bias
        q, k, v = qkv[:, :D], qkv[:, D : 2 * D], qkv[:, 2 * D :]
        for site in range(5):
            heads = []
            for a in range(A):
                part = slice(a * D // A, (a + 1) * D // A)
                score = [
                    (q[site, part] @ k[j, part] / math.sqrt(D // A) + bias[b, a, site, j]).exp()
                    for j in range(5)
                ]
                heads.append(sum(s * v[j, part] for j, s in enumerate(score)) / sum(score))
            expected = attention.out.weight @ torch.cat(heads) + attention.out.bias
            torch.testing.assert_close(found[b, site], expected)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="dim 8 is not a multiple of num_heads 3"):
        SelfAttention(dim=8, num_heads=3)


def test_padding_does_not_leak():
    encoder = make_encoder().eval()
    x = torch.randn(3, 7, D, dtype=torch.float64)
    pad = torch.zeros(3, 7, dtype=torch.bool)
    pad[1, 4:] = True
    pad[2, :] = True
    found = encoder(x, pad)
    assert torch.isfinite(found).all()
    other = x.clone()
    other[pad] = 1e3
    assert torch.equal(encoder(other, pad)[:2][~pad[:2]], found[:2][~pad[:2]])
    torch.testing.assert_close(encoder(x[1:2, :4], pad[1:2, :4]), found[1:2, :4])
    bias = padding_bias(pad, torch.float64)
    assert bias.shape == (3, 1, 1, 7)
    assert torch.isinf(bias[1, 0, 0, 4:]).all()
    assert (bias[2] == 0).all()


def test_sites_see_each_other():
    encoder = make_encoder().eval()
    x = torch.randn(1, 6, D, dtype=torch.float64, requires_grad=True)
    encoder(x, torch.zeros(1, 6, dtype=torch.bool))[0, 0].square().sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).all()


def test_checkpointing_gives_the_same_gradients():
    x = torch.randn(2, 6, D, dtype=torch.float64)
    pad = torch.zeros(2, 6, dtype=torch.bool)
    grads = []
    for checkpointing in (False, True):
        encoder = make_encoder(checkpointing=checkpointing).train()
        encoder(x, pad).square().sum().backward()
        grads.append([p.grad for p in encoder.parameters()])
    for one, two in zip(*grads, strict=True):
        torch.testing.assert_close(one, two)


def references(chunk, checkpointing, chunk_bytes=None):
    torch.manual_seed(0)
    embedding = SiteEmbedding(dim=D, position_cnn=True).double()
    return ReferenceEncoder(
        embedding=embedding, encoder=make_encoder(), chunk=chunk, chunk_bytes=chunk_bytes,
        checkpointing=checkpointing,
    )  # fmt: skip


@pytest.fixture
def retrieved():
    g = torch.Generator().manual_seed(3)
    token = torch.randint(0, 2, (2, 3, 10), generator=g)
    token[:, 2, 7:] = PAD
    token[1, 1] = PAD
    real = {"generator": g, "dtype": torch.float64}
    return (
        token,
        torch.rand(2, 10, **real).cumsum(1),
        torch.rand(2, 10, **real),
        torch.rand(2, 3, 10, **real),
    )


def test_each_haplotype_is_encoded_on_its_own(retrieved):
    token, cm, af, own = retrieved
    module = references(512, False).eval()
    found = module(*retrieved)
    assert found.shape == (2, 3, 10, D)
    for b in range(2):
        for k in range(3):
            x = module.embedding(token[b, k][None], cm[b][None], af[b][None], own[b, k][None])
            alone = module.encoder(x, (token[b, k] == PAD)[None])[0]
            torch.testing.assert_close(found[b, k], alone)


@pytest.mark.parametrize("chunk", [1, 10, 25, 40, 10_000])
@pytest.mark.parametrize("training", [False, True])
def test_chunks_change_nothing(retrieved, chunk, training):
    whole, parts = references(10_000, False), references(chunk, True)
    out = []
    for module in (whole, parts):
        module.train(training)
        y = module(*retrieved)
        y[0].square().sum().backward()
        out.append((y, [p.grad for p in module.parameters()]))
    torch.testing.assert_close(out[0][0], out[1][0])
    for one, two in zip(out[0][1], out[1][1], strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(("chunk", "sizes"), [(512, [6]), (25, [2, 2, 2]), (5, [1] * 6)])
def test_so_many_at_a_time(retrieved, chunk, sizes):
    module = references(chunk, False)
    seen = []
    module.encoder.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    module(*retrieved)
    assert seen == sizes


@settings(max_examples=20, deadline=None)
@given(
    data=st.data(),
    num=st.integers(1, 4),
    length=st.integers(1, 7),
    share=st.floats(0.01, 30),
    checkpointing=st.booleans(),
)
def test_bytes_change_nothing(data, num, length, share, checkpointing):
    """What fits into any memory gives the outputs and gradients of one call."""
    g = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    real = {"generator": g, "dtype": torch.float64}
    inputs = (
        torch.randint(0, 3, (2, num, length), generator=g),
        torch.rand(2, length, **real).cumsum(1),
        torch.rand(2, length, **real),
        torch.rand(2, num, length, **real),
    )
    plain = references(10_000, False).train()
    one = sequence_bytes(plain.encoder, length, keeps=True)
    fitted = references(None, checkpointing, max(1, int(share * one))).train()
    sizes = []
    fitted.encoder.register_forward_hook(lambda m, args, out: sizes.append(len(args[0])))
    out = []
    for module in (plain, fitted):
        y = module(*inputs)
        y.square().sum().backward()
        out.append((y, [p.grad for p in module.parameters()]))
    assert max(sizes) == min(2 * num, max(1, int(share * one) // one))
    torch.testing.assert_close(out[0][0], out[1][0])
    for a, b in zip(out[0][1], out[1][1], strict=True):
        torch.testing.assert_close(a, b)


def test_a_cpu_takes_as_many_on_any_machine(retrieved):
    module = references(None, False)
    assert chunk_bytes_of(torch.device("cpu")) == chunks._CPU_BYTES
    expected = chunks._CPU_BYTES // sequence_bytes(module.encoder, 10, keeps=True)
    assert module.train().num_at_once(10, torch.device("cpu")) == expected
    assert module.num_at_once(10_000, torch.device("cpu")) >= 1


def test_a_gpu_is_asked_for_its_free_memory_once(monkeypatch):
    """A share of what is free, and of what torch holds but does not use."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 << 20, 80 << 20))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 << 20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3 << 20)
    cuda = torch.device("cuda", 0)
    assert chunk_bytes_of(cuda) == 2 << 20
    module = references(None, False)
    kept = module.train().num_at_once(10, cuda)
    assert kept == (2 << 20) // sequence_bytes(module.encoder, 10, keeps=True)
    assert module.eval().num_at_once(10, cuda) > kept  # nothing is kept for gradients
    with torch.no_grad():
        assert module.train().num_at_once(10, cuda) > kept
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 80 << 20))
    assert module.num_at_once(10, cuda) == kept
    assert module.num_at_once(5, cuda) > kept  # shorter ones


@pytest.mark.parametrize("keeps", [False, True])
def test_bytes_of_a_sequence_are_what_torch_holds(keeps):
    """Within a factor of two of the tensors that autograd saves, or that a layer makes."""
    encoder = Encoder(dim=32, num_layers=3, num_heads=4).train()
    x = torch.randn(2, 40, 32)
    saved = {}

    def pack(tensor):
        saved[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encoder(x, torch.zeros(2, 40, dtype=torch.bool))
    weights = sum(4 * p.numel() for p in encoder.parameters())
    held = (sum(saved.values()) - weights) / 2
    found = sequence_bytes(encoder, 40, keeps=keeps)
    if keeps:
        assert 0.5 * held < found < 2 * held
    else:
        assert found < sequence_bytes(encoder, 40, keeps=True)
    assert sequence_bytes(encoder, 80, keeps=keeps) > 2 * found


def test_a_v10_batch_is_a_few_calls_on_a_gpu(monkeypatch):
    """Its 384 haplotypes of 1,020 sites were encoded one by one; 40 GB take all at once."""
    from ragimpute.config import load_config
    from ragimpute.model.bert_rag import build

    monkeypatch.setattr("ragimpute.model.encoder.chunk_bytes_of", lambda device: 10 << 30)
    cuda = torch.device("cuda")
    for overrides, least, most in (
        ([], 64, 400),
        (["model.reference.chunk=512"], 1, 1),
        (["model.reference.chunk_bytes=1000000000"], 5, 20),
    ):
        config = load_config("v10", overrides=overrides).model
        module = build(config).tokens.references.train()
        assert least <= module.num_at_once(1020, cuda) <= most


def test_frozen_references_stay_as_they_were():
    torch.manual_seed(0)
    live = ReferenceEncoder(
        embedding=SiteEmbedding(dim=D),
        encoder=Encoder(dim=D, num_layers=1, num_heads=A, dropout=0.5),
        chunk=1,
    )
    frozen = FrozenReferences(live)
    assert list(frozen.parameters()) == []
    assert frozen.state_dict().keys() == {f"references.{k}" for k in live.state_dict()}
    token = torch.tensor([[[0, 1, 1, PAD], [1, 1, 0, PAD]]])
    inputs = (token, torch.rand(1, 4), torch.rand(1, 4), torch.rand(1, 2, 4))
    expected = live.eval()(*inputs)
    nn.Sequential(live, frozen).train()  # its dropout stays off
    torch.testing.assert_close(frozen(*inputs), expected)
    assert not frozen(*inputs).requires_grad
    with torch.no_grad():
        for p in live.parameters():
            p.add_(0.1 * torch.randn_like(p))
    torch.testing.assert_close(frozen(*inputs), expected)
    changed = live.eval()(*inputs)
    assert (changed - expected).abs().max() > 1e-2
    frozen.refresh(live)
    torch.testing.assert_close(frozen(*inputs), changed)
