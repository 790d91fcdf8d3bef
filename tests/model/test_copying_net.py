"""The residual of the copying fusion: zero at first, each site or sites in context."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ragimpute.model.copying_net import CopyingResidual

F, W, B, L = 5, 8, 3, 6


def make(context, *, started=False):
    torch.manual_seed(0)
    net = CopyingResidual(num_features=F, width=W, num_context_layers=context, num_heads=2)
    if started:  # away from zero, as after the first steps
        nn.init.normal_(net.last.weight)
    return net


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(1)
    pad = torch.zeros(B, L, dtype=torch.bool)
    pad[1, 4:] = True
    pad[2] = True
    return torch.randn(B, L, F, generator=g), torch.rand(B, L, generator=g).cumsum(1), pad


@pytest.mark.parametrize("context", [0, 2])
def test_starts_at_zero(inputs, context):
    assert (make(context)(*inputs) == 0).all()


def test_a_site_on_its_own_by_hand(inputs):
    evidence, *_ = inputs
    net = make(0, started=True)
    net.standardise(torch.arange(F) * 0.1, torch.tensor([0.0, 0.2, 1.0, 2.0, 5.0]))
    x = (evidence[0, 3] - torch.arange(F) * 0.1) / torch.tensor([0.3, 0.3, 1.0, 2.0, 5.0])
    for layer in (net.embed[0], net.hidden[0]):
        x = layer.weight @ x + layer.bias
        x = x * torch.sigmoid(x)
    expected = net.last.weight[0] @ x + net.last.bias[0]
    torch.testing.assert_close(net(evidence)[0, 3], expected)
    torch.testing.assert_close(net(evidence.reshape(-1, F)), net(evidence).reshape(-1))


def test_standardisation_is_saved():
    net = make(0)
    net.standardise(torch.ones(F), torch.full((F,), 2.0))
    other = make(0)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.mean, torch.ones(F))
    assert torch.equal(other.scale, torch.full((F,), 2.0))


def test_context_sees_neighbours_but_no_padding(inputs):
    evidence, cm, pad = inputs
    net = make(2, started=True)
    found = net(evidence, cm, pad)
    assert torch.isfinite(found).all()
    near = evidence.clone()
    near[0, 5] += 1
    assert (net(near, cm, pad)[0, :5] - found[0, :5]).abs().min() > 0
    elsewhere, moved = evidence.clone(), cm.clone()
    elsewhere[1, 4:], moved[1, 4:] = 50.0, 9.0
    torch.testing.assert_close(net(elsewhere, moved, pad)[1, :4], found[1, :4])
    torch.testing.assert_close(net(evidence[1:2, :4], cm[1:2, :4], pad[1:2, :4])[0], found[1, :4])


def test_far_sites_do_not_count():
    net = make(1, started=True)
    evidence = torch.randn(1, 2, F)
    pad = torch.zeros(1, 2, dtype=torch.bool)

    def first(gap, other):
        both = evidence.clone()
        both[0, 1] = other
        return net(both, torch.tensor([[0.0, gap]]), pad)[0, 0].item()

    here = abs(first(0.0, 1.0) - first(0.0, -1.0))
    assert here > 1e-4
    assert abs(first(500.0, 1.0) - first(500.0, -1.0)) < 1e-3 * here
    with pytest.raises(ValueError, match="need position_cm and pad"):
        net(evidence)


@pytest.mark.parametrize("context", [0, 2])
def test_gradients_reach_everything(inputs, context):
    net = make(context, started=True)
    evidence, cm, pad = inputs
    net(evidence, cm, pad)[~pad].square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name
    fresh = make(context)  # at zero only the last layer moves, then all the others
    (fresh(evidence, cm, pad)[~pad] - 1).square().sum().backward()
    assert fresh.last.weight.grad.abs().max() > 0
