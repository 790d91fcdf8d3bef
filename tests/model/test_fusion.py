"""Each fusion against a slow computation by loops; padding, order and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ragimpute.model.fusion import FUSIONS, Fusion, masked_softmax

B, K, L, D, A = 2, 4, 5, 8, 2
SCALE, LIMIT = 0.1, 10.0


def make(name: str) -> Fusion:
    torch.manual_seed(0)
    module = FUSIONS[name](D, A, SCALE, LIMIT).double().eval()
    for p in module.parameters():  # away from zero and identity, so that every term counts
        nn.init.normal_(p, std=0.5)
    return module


@pytest.fixture
def inputs() -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    query = torch.randn(B, L, D, generator=g, dtype=torch.float64)
    refs = torch.randn(B, K, L, D, generator=g, dtype=torch.float64)
    af = torch.rand(B, L, generator=g, dtype=torch.float64)
    af[0, 0], af[0, 1], af[1, 2] = 0.0, 1.0, 0.003  # monomorphic and rare
    af_refs = torch.rand(B, K, L, generator=g, dtype=torch.float64)
    pad = torch.zeros(B, K, dtype=torch.bool)
    pad[1, 2:] = True
    return query, refs, af, af_refs, pad


def features(a: float, b: float) -> torch.Tensor:
    """The four numbers that two frequencies become."""
    logs = [math.log10(max(min(x, 1 - x), 1e-4)) + 2 for x in (a, b)]
    return torch.tensor([2 * a - 1, 2 * b - 1, *logs], dtype=torch.float64)


def mlp(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Linear, GELU, linear, written out."""
    first, last = module[0], module[2]  # type: ignore[index]
    h = first.weight @ x + first.bias
    return last.weight @ (0.5 * h * (1 + torch.erf(h / math.sqrt(2)))) + last.bias


def linear(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """One linear layer, written out."""
    return module.weight @ x + module.bias


def softmax(scores: list[torch.Tensor]) -> list[torch.Tensor]:
    """Softmax of a few numbers."""
    total = sum(torch.exp(s) for s in scores)
    return [torch.exp(s) / total for s in scores]


def slow(name: str, m: Fusion, q: torch.Tensor, refs: list[torch.Tensor], af: float,
         af_refs: list[float]) -> torch.Tensor:  # fmt: skip
    """What a fusion says about one site with the haplotypes that are there."""
    zero = torch.zeros(D, dtype=torch.float64)
    mean = sum(refs, zero) / max(1, len(refs))
    if name in ("enhanced_rare_variant", "log1p_maf"):
        gate = 2 / (1 + torch.exp(-linear(m.adapter, features(af, af))))
        refs = [
            (r + mlp(m.cross_af, features(af, a))) * gate
            for r, a in zip(refs, af_refs, strict=True)
        ]
        scores = [linear(m.query, q) @ linear(m.key, r) / math.sqrt(D) for r in refs]
        pooled = zero
        for w, r in zip(softmax(scores), refs, strict=True):
            pooled = pooled + w * linear(m.value, r)
        inverse = 1 / max(min(af, 1 - af), 1e-4)
        weight = min(inverse, LIMIT) if name != "log1p_maf" else math.log1p(inverse)
        return q + SCALE * weight * mlp(m.mix, torch.cat([q, pooled]))
    if name == "rare_variant_aware":
        refs = [
            r * (1 + torch.tanh(linear(m.transform, features(af, a))))
            for r, a in zip(refs, af_refs, strict=True)
        ]
        mean = sum(refs, zero) / max(1, len(refs))
        top = torch.stack(refs).max(dim=0).values if refs else zero
        return q + mlp(m.mix, torch.cat([q, 0.7 * mean + 0.3 * top]))
    if name == "dynamic_gate":
        if not refs:
            return q
        gate = 1 / (1 + torch.exp(-linear(m.gate, torch.cat([q, mean, features(af, af)]))))
        return gate * q + (1 - gate) * linear(m.value, mean)
    if name == "cross_attention":
        each = D // A
        out = zero.clone()
        for head in range(A):
            part = slice(head * each, (head + 1) * each)
            scores = [
                linear(m.query, q)[part] @ linear(m.key, r)[part] / math.sqrt(each)
                + linear(m.bias, features(af, a))[head]
                for r, a in zip(refs, af_refs, strict=True)
            ]
            for w, r in zip(softmax(scores), refs, strict=True):
                out[part] += w * linear(m.value, r)[part]
        return q + linear(m.out, out)
    if name == "concat":
        return mlp(m.mix, torch.cat([q, mean]))
    assert name == "fixed_concat"
    return linear(m.mix, torch.cat([q, mean]))


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_equals_the_slow_computation(name, inputs):
    module = make(name)
    query, refs, af, af_refs, pad = inputs
    with torch.no_grad():
        fused = module(*inputs)
        for b in range(B):
            there = [k for k in range(K) if not pad[b, k]]
            for site in range(L):
                expected = slow(
                    name, module, query[b, site], [refs[b, k, site] for k in there],
                    af[b, site].item(), [af_refs[b, k, site].item() for k in there],
                )  # fmt: skip
                torch.testing.assert_close(fused[b, site], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_no_haplotype_at_all(name, inputs):
    module = make(name)
    query, refs, af, af_refs, _ = inputs
    everything = torch.ones(B, K, dtype=torch.bool)
    with torch.no_grad():
        fused = module(query, refs, af, af_refs, everything)
        for b in range(B):
            for site in range(L):
                expected = slow(name, module, query[b, site], [], af[b, site].item(), [])
                torch.testing.assert_close(fused[b, site], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_order_of_the_haplotypes_is_nothing(name, inputs):
    module = make(name)
    query, refs, af, af_refs, pad = inputs
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        one = module(query, refs, af, af_refs, pad)
        other = module(query, refs[:, order], af, af_refs[:, order], pad[:, order])
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_padded_haplotypes_do_not_leak(name, inputs):
    module = make(name)
    query, refs, af, af_refs, pad = inputs
    other_refs, other_af = refs.clone(), af_refs.clone()
    other_refs[pad] = 1e6
    other_refs[1, 3] = float("nan")
    other_af[pad] = 0.123
    with torch.no_grad():
        assert torch.equal(
            module(query, refs, af, af_refs, pad), module(query, other_refs, af, other_af, pad)
        )
        fewer = module(query[1:], refs[1:, :2], af[1:], af_refs[1:, :2], pad[1:, :2])
        torch.testing.assert_close(
            module(query, refs, af, af_refs, pad)[1:], fewer, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_gradients_reach_everything(name, inputs):
    module = make(name)
    query, refs, af, af_refs, pad = inputs
    query.requires_grad_()
    refs.requires_grad_()
    module(query, refs, af, af_refs, pad).square().sum().backward()
    for key, p in module.named_parameters():
        grad = p.grad
        assert grad is not None, key
        assert torch.isfinite(grad).all(), key
        # A constant added to every key moves all scores alike, so softmax is blind to it.
        if key not in ("key.bias", "bias.bias"):
            assert grad.abs().max() > 1e-8, key
    assert query.grad is not None
    assert refs.grad is not None
    assert torch.isfinite(refs.grad).all()
    assert (refs.grad[pad] == 0).all()
    assert refs.grad[~pad].abs().sum(dim=-1).min() > 0


def test_rare_sites_weigh_more():
    af = torch.tensor([[0.5, 0.9, 0.05, 0.001, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(
        make("enhanced_rare_variant").rare_weight(af),
        torch.tensor([[2.0, 10.0, 10.0, 10.0, 10.0]], dtype=torch.float64),
    )
    torch.testing.assert_close(
        make("log1p_maf").rare_weight(af),
        torch.log(torch.tensor([[3.0, 11.0, 21.0, 1001.0, 10001.0]], dtype=torch.float64)),
    )


def test_fixed_concat_starts_as_the_average(inputs):
    query, refs, af, af_refs, _ = inputs
    module = FUSIONS["fixed_concat"](D, A, SCALE, LIMIT).double()
    nothing = torch.zeros(B, K, dtype=torch.bool)
    torch.testing.assert_close(
        module(query, refs, af, af_refs, nothing), (query + refs.mean(dim=1)) / 2
    )


def test_masked_softmax_sums_to_one_or_zero():
    score = torch.randn(3, 4)
    pad = torch.tensor([[False] * 4, [False, True, True, False], [True] * 4])
    weight = masked_softmax(score, pad, dim=1)
    torch.testing.assert_close(weight.sum(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    assert (weight[pad] == 0).all()


# Counted by hand from the docstrings, at D = 8 with 2 heads.
COUNTS = {
    "enhanced_rare_variant": (4 * 8 + 8 + 8 * 8 + 8) + (4 * 8 + 8) + 3 * 72 + (272 + 136),
    "log1p_maf": (4 * 8 + 8 + 8 * 8 + 8) + (4 * 8 + 8) + 3 * 72 + (272 + 136),
    "rare_variant_aware": 40 + 272 + 136,
    "dynamic_gate": 20 * 8 + 8 + 72,
    "cross_attention": 4 * 72 + 4 * 2 + 2,
    "concat": 272 + 136,
    "fixed_concat": 16 * 8 + 8,
}


def test_parameter_counts_stay():
    assert {n: sum(p.numel() for p in make(n).parameters()) for n in FUSIONS} == COUNTS
