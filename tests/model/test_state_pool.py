"""Pooling of retrieved states: by hand, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ragimpute.model.copying_net import CopyingResidual
from ragimpute.model.state_pool import StatePool

F, C, S, D, A, N, UNIT = 5, 4, 6, 8, 2, 3, 2.0**-4


def make(seed=0):
    torch.manual_seed(seed)
    return StatePool(num_features=F, num_token_features=C, unit=UNIT, dim=D, num_heads=A)


@pytest.fixture
def inputs():
    """Sites, and tokens of which the last of each half are missing at the second pair."""
    g = torch.Generator().manual_seed(1)
    tokens = torch.randint(-60, 60, (N, S, C), generator=g, dtype=torch.int16)
    tokens[..., 0] = 16
    tokens[1, [2, 4, 5]] = 0
    return torch.randn(N, F, generator=g), tokens


def by_hand(net, site, tokens):
    """One pair's numbers, in plain loops."""
    silu = torch.nn.functional.silu
    vectors, scores, carrier = [], [], []
    for i, token in enumerate(tokens):
        if token[0] == 0:
            continue
        x = net.token((token * UNIT - net.mean) / net.scale) + net.site(site)
        x = silu(net.second(silu(x + net.other if i >= S // 2 else x)))
        vectors.append(x)
        scores.append(net.score(x) + token[1] * UNIT)
        carrier.append(i < S // 2)
    share = torch.softmax(torch.stack(scores), dim=0)  # (there, A)
    pooled = torch.zeros(2, A, D)
    of_carriers = torch.zeros(A)
    for x, w, is_carrier in zip(vectors, share, carrier, strict=True):
        pooled[0 if is_carrier else 1] += w[:, None] * x
        of_carriers += w * is_carrier
    p = of_carriers.clamp(1e-4, 1 - 1e-4)
    return torch.cat([pooled.flatten(), of_carriers, torch.log(p / (1 - p)) / 3])


def test_by_hand(inputs):
    net = make()
    nn.init.normal_(net.other)
    net.standardise(torch.tensor([0.0, -2.0, 1.0, 0.5]), torch.tensor([0.0, 3.0, 0.1, 2.0]))
    assert net.scale.tolist() == pytest.approx([0.3, 3.0, 0.3, 2.0])
    site, tokens = inputs
    found = net(site, tokens)
    assert found.shape == (N, net.out_features)
    for i in range(N):
        torch.testing.assert_close(found[i], by_hand(net, site[i], tokens[i]), atol=1e-5, rtol=1e-5)


def test_order_within_a_half_is_nothing(inputs):
    net = make()
    nn.init.normal_(net.other)
    site, tokens = inputs
    found = net(site, tokens)
    torch.testing.assert_close(net(site, tokens[:, [2, 0, 1, 5, 4, 3]]), found)
    swapped = net(site, tokens[:, [3, 4, 5, 0, 1, 2]])  # but carriers are not others
    assert (swapped - found).abs().max() > 1e-2


def test_no_state_at_all_is_finite(inputs):
    site, tokens = inputs
    found = make()(site, torch.zeros_like(tokens))
    assert torch.isfinite(found).all()
    one = tokens.clone()
    one[:, 1:] = 0
    carriers = make()(site, one)[:, -2 * A : -A]
    torch.testing.assert_close(carriers, torch.ones(N, A))


@pytest.mark.parametrize("context", [0, 1])
def test_a_residual_that_reads_states(inputs, context):
    torch.manual_seed(0)
    net = CopyingResidual(
        num_features=F, width=8, num_context_layers=context, num_heads=2, states=make()
    )
    site, tokens = inputs
    cm, pad = torch.arange(N)[None] * 0.01, torch.zeros(1, N, dtype=torch.bool)
    args = (site[None], cm, pad, tokens[None])
    assert (net(*args) == 0).all()
    with pytest.raises(ValueError, match="needs tokens"):
        net(*args[:3])
    (net(*args) - 1).square().sum().backward()
    assert net.last.weight.grad.abs().max() > 0
    nn.init.normal_(net.last.weight)
    net(*args).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad.abs().max() > 0, name
    other = tokens.clone()
    other[0, 0, 2] += 100
    moved = (net(site[None], cm, pad, other[None]) - net(*args))[0].abs()
    assert moved[0] > 1e-4
    assert (moved[1:].max() > 1e-7) == (context > 0)
    net.standardise(torch.ones(F), torch.full((F,), 2.0), torch.full((C,), 3.0), torch.ones(C))
    assert net.states is not None
    assert net.mean.eq(1).all()
    assert net.states.mean.eq(3).all()
    assert net.states.scale.eq(1).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite_where_all_states_are_carriers(inputs, dtype):
    """Their share is 1, whose logit must stay within its bounds, and so must its gradient."""
    net, (site, tokens) = make(), inputs
    tokens[:, S // 2 :] = 0
    site.requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        found = net(site, tokens)
    torch.testing.assert_close(found.float(), net(site, tokens), rtol=0.1, atol=0.1)
    found.float().sum().backward()
    assert torch.isfinite(site.grad).all()
