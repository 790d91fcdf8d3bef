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
    module = FUSIONS[name](D, A, SCALE, LIMIT, 0.1).double().eval()
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


#: ALT frequency in each target's population.
AF_P = torch.rand(B, L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


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


def slow_norm(module: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    """Layer norm, number by number."""
    mean = sum(x.tolist()) / len(x)
    var = sum((v - mean) ** 2 for v in x.tolist()) / len(x)
    scaled = torch.stack([(v - mean) / math.sqrt(var + module.eps) for v in x])
    return scaled * module.weight + module.bias


def slow_gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU, number by number."""
    return torch.stack([v * 0.5 * (1 + math.erf(v.item() / math.sqrt(2))) for v in x])


def slow_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Sigmoid, number by number."""
    return torch.stack([1 / (1 + torch.exp(-v)) for v in x])


def weighted(refs: list[torch.Tensor], log_weight: list[float]) -> torch.Tensor:
    """The mean of a few vectors, weighted; 0 if there are none."""
    total = sum(math.exp(w) for w in log_weight)
    out = torch.zeros(D, dtype=torch.float64)
    for r, w in zip(refs, log_weight, strict=True):
        out = out + math.exp(w) / total * r
    return out


def slow_enhanced(name: str, m: Fusion, q: torch.Tensor, refs: list[torch.Tensor], af: float,
                  af_p: float, log_weight: list[float]) -> torch.Tensor:  # fmt: skip
    """The four steps of the rare-variant fusion's description, at one site."""
    # 1. The fused AF of the panel's frequency and that of the target's population.
    both = torch.tensor([af, af_p], dtype=torch.float64)
    hidden = slow_gelu(linear(m.cross_af.gate[0], both))
    gate = slow_sigmoid(linear(m.cross_af.gate[2], hidden))
    encoded = slow_gelu(slow_norm(m.cross_af.encoded[1], linear(m.cross_af.encoded[0], both)))
    fused_af = torch.stack(
        [af + m.cross_af.scale * g * e for g, e in zip(gate, encoded, strict=True)]
    )
    # 2. The AF adapter's weight of every channel.
    hidden = slow_gelu(linear(m.adapter[0], fused_af))
    weight = slow_sigmoid(linear(m.adapter[3], hidden))
    refs = [torch.stack([r[d] * weight[d] for d in range(D)]) for r in refs]
    # 3. One number of each weighted reference, and their mean by the softmax of these.
    scores = [
        sum(m.score.weight[0, d] * r[d] for d in range(D)) + w
        for r, w in zip(refs, log_weight, strict=True)
    ]
    pooled = torch.zeros(D, dtype=torch.float64)
    for share, r in zip(softmax(scores), refs, strict=True):
        pooled = pooled + share * r
    # 4. Concat-MLP with layer norm, and the residual's weight.
    hidden = slow_gelu(linear(m.mix[0], torch.cat([q, pooled])))
    change = slow_norm(m.mix[4], linear(m.mix[3], hidden))
    inverse = 1 / max(min(af, 1 - af), 1e-4)
    rare = min(inverse, LIMIT) if name == "enhanced_rare_variant" else math.log1p(inverse)
    return torch.stack([q[d] + m.residual_scale * rare * change[d] for d in range(D)])


def slow(name: str, m: Fusion, q: torch.Tensor, refs: list[torch.Tensor], af: float,
         af_refs: list[float], af_p: float,
         log_weight: list[float] | None = None) -> torch.Tensor:  # fmt: skip
    """What a fusion says about one site with the haplotypes that are there."""
    zero = torch.zeros(D, dtype=torch.float64)
    log_weight = [0.0] * len(refs) if log_weight is None else log_weight
    mean = weighted(refs, log_weight)
    if name in ("enhanced_rare_variant", "log1p_maf"):
        return slow_enhanced(name, m, q, refs, af, af_p, log_weight)
    if name == "rare_variant_aware":
        refs = [
            r * (1 + torch.tanh(linear(m.transform, features(af, a))))
            for r, a in zip(refs, af_refs, strict=True)
        ]
        mean = weighted(refs, log_weight)
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
                + x
                for r, a, x in zip(refs, af_refs, log_weight, strict=True)
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
        fused = module(*inputs, af_p=AF_P)
        for b in range(B):
            there = [k for k in range(K) if not pad[b, k]]
            for site in range(L):
                expected = slow(
                    name, module, query[b, site], [refs[b, k, site] for k in there],
                    af[b, site].item(), [af_refs[b, k, site].item() for k in there],
                    AF_P[b, site].item(),
                )  # fmt: skip
                torch.testing.assert_close(fused[b, site], expected, rtol=1e-9, atol=1e-9)


def by_site(inputs, seed=3):
    """Weights, and which haplotypes are there, by site: (B, K, L) each; nobody at one site."""
    g = torch.Generator().manual_seed(seed)
    log_weight = 3 * torch.randn(B, K, L, generator=g, dtype=torch.float64) - 5
    pad = torch.rand(B, K, L, generator=g) < 0.3
    pad[0, :, 2] = True
    pad[1, :, 3] = False
    return log_weight, pad


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_weights_and_padding_by_site_equal_the_slow_computation(name, inputs):
    module = make(name)
    query, refs, af, af_refs, _ = inputs
    log_weight, pad = by_site(inputs)
    with torch.no_grad():
        fused = module(query, refs, af, af_refs, pad, af_p=AF_P, log_weight=log_weight)
        for b in range(B):
            for site in range(L):
                there = [k for k in range(K) if not pad[b, k, site]]
                expected = slow(
                    name, module, query[b, site], [refs[b, k, site] for k in there],
                    af[b, site].item(), [af_refs[b, k, site].item() for k in there],
                    AF_P[b, site].item(), [log_weight[b, k, site].item() for k in there],
                )  # fmt: skip
                torch.testing.assert_close(fused[b, site], expected, rtol=1e-9, atol=1e-9)
        # A constant is nothing, the differences are something; what is not there does not leak.
        more = module(query, refs, af, af_refs, pad, af_p=AF_P, log_weight=log_weight + 2.0)
        torch.testing.assert_close(more, fused, rtol=1e-9, atol=1e-9)
        plain = module(query, refs, af, af_refs, pad, af_p=AF_P)
        alike = module(
            query, refs, af, af_refs, pad, af_p=AF_P, log_weight=torch.zeros_like(log_weight)
        )
        torch.testing.assert_close(plain, alike, rtol=1e-12, atol=1e-12)
        assert (plain - fused).abs().max() > 1e-3
        spoilt = [x.clone() for x in (refs, af_refs, log_weight)]
        for x, value in zip(spoilt, (math.nan, 0.123, 1e6), strict=True):
            x[pad] = value
        other = module(query, spoilt[0], af, spoilt[1], pad, af_p=AF_P, log_weight=spoilt[2])
        assert torch.equal(other, fused)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_gradients_stay_finite_where_nobody_is(name, inputs):
    module = make(name)
    query, refs, af, af_refs, _ = inputs
    log_weight, pad = by_site(inputs)
    refs.requires_grad_()
    out = module(query, refs, af, af_refs, pad, af_p=AF_P, log_weight=log_weight)
    out.square().sum().backward()
    assert torch.isfinite(refs.grad).all()
    assert (refs.grad[pad] == 0).all()
    assert refs.grad[~pad].abs().sum() > 0
    for key, p in module.named_parameters():
        assert torch.isfinite(p.grad).all(), key


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_no_haplotype_at_all(name, inputs):
    module = make(name)
    query, refs, af, af_refs, _ = inputs
    everything = torch.ones(B, K, dtype=torch.bool)
    with torch.no_grad():
        fused = module(query, refs, af, af_refs, everything, af_p=AF_P)
        for b in range(B):
            for site in range(L):
                expected = slow(
                    name, module, query[b, site], [], af[b, site].item(), [], AF_P[b, site].item()
                )
                torch.testing.assert_close(fused[b, site], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_order_of_the_haplotypes_is_nothing(name, inputs):
    module = make(name)
    query, refs, af, af_refs, pad = inputs
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        one = module(query, refs, af, af_refs, pad, af_p=AF_P)
        other = module(query, refs[:, order], af, af_refs[:, order], pad[:, order], af_p=AF_P)
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
            module(query, refs, af, af_refs, pad, af_p=AF_P),
            module(query, other_refs, af, other_af, pad, af_p=AF_P),
        )
        fewer = module(query[1:], refs[1:, :2], af[1:], af_refs[1:, :2], pad[1:, :2], af_p=AF_P[1:])
        torch.testing.assert_close(
            module(query, refs, af, af_refs, pad, af_p=AF_P)[1:], fewer, rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("name", sorted(FUSIONS))
def test_gradients_reach_everything(name, inputs):
    module = make(name)
    query, refs, af, af_refs, pad = inputs
    query.requires_grad_()
    refs.requires_grad_()
    module(query, refs, af, af_refs, pad, af_p=AF_P).square().sum().backward()
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


def test_the_rare_variant_fusion_starts_as_the_original():
    torch.manual_seed(0)
    module = FUSIONS["enhanced_rare_variant"](64, A, SCALE, LIMIT, 0.25)
    assert (module.residual_scale.item(), module.cross_af.scale.item()) == pytest.approx((0.1, 0.1))
    assert {p.p for p in module.modules() if isinstance(p, nn.Dropout)} == {0.25}
    for part, bias in (
        (module.adapter[0], 0.1),
        (module.mix[3], 0.1),
        (module.cross_af.gate[2], 0.01),
    ):
        assert (part.bias == bias).all()
        outputs, inputs = part.weight.shape
        assert part.weight.std().item() == pytest.approx((2 / (inputs + outputs)) ** 0.5, rel=0.1)
    refs, af = torch.randn(1, K, 3, 64), torch.tensor([[0.5, 0.2, 0.01]])
    args = (torch.zeros(1, 3, 64), refs, af, af[:, None].expand(1, K, 3))
    one, other = (
        module(*args, torch.zeros(1, K, dtype=torch.bool), af_p=x) for x in (af, af + 0.4)
    )
    assert (one - other).abs().amax() > 1e-3  # the frequency in the target's population counts


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
    module = FUSIONS["fixed_concat"](D, A, SCALE, LIMIT, 0.1).double()
    nothing = torch.zeros(B, K, dtype=torch.bool)
    torch.testing.assert_close(
        module(query, refs, af, af_refs, nothing, af_p=AF_P), (query + refs.mean(dim=1)) / 2
    )


def test_masked_softmax_sums_to_one_or_zero():
    score = torch.randn(3, 4)
    pad = torch.tensor([[False] * 4, [False, True, True, False], [True] * 4])
    weight = masked_softmax(score, pad, dim=1)
    torch.testing.assert_close(weight.sum(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    assert (weight[pad] == 0).all()


# Counted by hand from the docstrings, at D = 8 with 2 heads.
_CROSS_AF = (2 * 32 + 32 + 32 * 8 + 8) + (2 * 8 + 8 + 16) + 1
_ADAPTER, _MIX = 8 * 32 + 32 + 32 * 8 + 8, 16 * 32 + 32 + 32 * 8 + 8 + 16
COUNTS = {
    "enhanced_rare_variant": _CROSS_AF + _ADAPTER + 8 + _MIX + 1,
    "log1p_maf": _CROSS_AF + _ADAPTER + 8 + _MIX + 1,
    "rare_variant_aware": 40 + 272 + 136,
    "dynamic_gate": 20 * 8 + 8 + 72,
    "cross_attention": 4 * 72 + 4 * 2 + 2,
    "concat": 272 + 136,
    "fixed_concat": 16 * 8 + 8,
}


def test_parameter_counts_stay():
    assert {n: sum(p.numel() for p in make(n).parameters()) for n in FUSIONS} == COUNTS
