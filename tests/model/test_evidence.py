"""What copying says as vectors: of each site alone, and of every number that is read."""

from __future__ import annotations

import pytest
import torch

from ragimpute.evidence.site_states_kernel import STATE_FEATURES
from ragimpute.model.embedding import ALT, PAD, REF
from ragimpute.model.evidence import SITE_FEATURES, SiteEvidence, StateEvidence

B, K, L, D = 2, 3, 5, 8


def site_parts():
    g = torch.Generator().manual_seed(0)
    return (3 * torch.randn(B, L, len(SITE_FEATURES), generator=g) - 4,
            torch.rand(B, L, generator=g), torch.rand(B, L, generator=g))  # fmt: skip


def state_parts():
    g = torch.Generator().manual_seed(1)
    return (2 * torch.randn(B, K, L, len(STATE_FEATURES), generator=g) - 3,
            torch.randint(0, 2, (B, K, L), generator=g))  # fmt: skip


def make(kind):
    torch.manual_seed(2)
    return kind(dim=D)


def test_every_number_of_a_site_counts_there_alone():
    net, (features, af, af_p) = make(SiteEvidence), site_parts()
    plain = net(features, af, af_p)
    assert plain.shape == (B, L, D)
    for column in range(len(SITE_FEATURES)):
        other = features.clone()
        other[1, 3, column] += 1
        changed = (net(other, af, af_p) - plain).abs().amax(-1) > 1e-5
        assert changed.nonzero().tolist() == [[1, 3]], SITE_FEATURES[column]
    for i in range(2):
        frequencies = [af.clone(), af_p.clone()]
        frequencies[i][0, 2] = 1 - frequencies[i][0, 2]
        changed = (net(features, *frequencies) - plain).abs().amax(-1) > 1e-5
        assert changed.nonzero().tolist() == [[0, 2]]


def test_every_number_of_a_state_counts_there_alone():
    net, (features, token) = make(StateEvidence), state_parts()
    plain = net(features, token)
    assert plain.shape == (B, K, L, D)
    for column in range(len(STATE_FEATURES)):
        other = features.clone()
        other[1, 2, 3, column] += 1
        changed = (net(other, token) - plain).abs().amax(-1) > 1e-5
        assert changed.nonzero().tolist() == [[1, 2, 3]], STATE_FEATURES[column]
    seen = []
    for allele in (REF, ALT, PAD):
        other = token.clone()
        other[0, 1, 2] = allele
        seen.append(net(features, other)[0, 1, 2])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (seen[i] - seen[j]).abs().max() > 1e-5


@pytest.mark.parametrize("kind", [SiteEvidence, StateEvidence])
def test_learned_weights_are_all_that_a_file_keeps(kind):
    """Centres and spreads are those of the program, and extremes do not overflow."""
    net = make(kind)
    assert set(net.state_dict()) == {name for name, _ in net.named_parameters()}
    features, *rest = site_parts() if kind is SiteEvidence else state_parts()
    for value in (-20.0, 20.0):
        out = net(torch.full_like(features, value), *rest)
        assert torch.isfinite(out).all()
        out.square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad.abs().max() > 0, name
