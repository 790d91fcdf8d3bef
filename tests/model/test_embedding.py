"""Site embedding: features, wavelengths and the parts that may be left out."""

from __future__ import annotations

import math

import pytest
import torch

from ragimpute.model.embedding import PAD, SiteEmbedding, af_features, sinusoids


def test_frequencies_as_features():
    found = af_features(torch.tensor([0.0, 0.25, 1.0]), torch.tensor([0.5, 0.001, 0.9]))
    log = math.log10
    expected = [
        [-1, 0, -2, log(0.5) + 2],
        [-0.5, -0.998, log(0.25) + 2, -1],
        [1, 0.8, -2, 1],
    ]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-5, rtol=1e-5)


def test_wavelengths():
    at = torch.tensor([0.0, 0.7, 10.7], dtype=torch.float64)
    found = sinusoids(at, 6, longest=10.0)
    for row, x in zip(found, at.tolist(), strict=True):
        angles = [2 * math.pi * x / wave for wave in (10, 0.1, 0.001)]
        expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(found[1, [0, 3]], found[2, [0, 3]])  # one turn of the longest wave
    assert sinusoids(at, 2, longest=10.0).shape == (3, 2)


@pytest.fixture
def sites():
    g = torch.Generator().manual_seed(0)
    token = torch.randint(0, 3, (2, 9), generator=g)
    cm = torch.rand(2, 9, generator=g).cumsum(1)
    return token, cm, torch.rand(2, 9, generator=g), torch.rand(2, 9, generator=g)


PARTS = ("use_position", "use_order", "use_af", "position_cnn")


@pytest.mark.parametrize("part", PARTS)
def test_each_part_counts_and_may_be_left_out(sites, part):
    token, cm, af, af_p = sites
    torch.manual_seed(0)
    only = {name: name == part for name in PARTS}
    embed = SiteEmbedding(dim=8, **only).eval()
    changed = {
        "use_position": lambda: embed(token, cm * 1.1, af, af_p),
        "position_cnn": lambda: embed(token, cm * 1.1, af, af_p),
        "use_af": lambda: embed(token, cm, af, af_p.flip(1)),
        "use_order": lambda: embed(token[:, :1].expand_as(token), cm, af, af_p)[:, 1:],
    }[part]()
    base = embed(token, cm, af, af_p)
    other = base[:, :1].expand_as(changed) if part == "use_order" else base
    assert (changed - other).abs().max() > 1e-3
    without = SiteEmbedding(dim=8, **dict.fromkeys(PARTS, False))
    torch.testing.assert_close(
        without(token, cm, af, af_p), without(token, cm * 3, af.flip(1), af_p * 0.5)
    )
    assert sum(p.numel() for p in without.parameters()) == 4 * 8 + 16


def test_all_parts_by_loops(sites):
    """Each site's vector, written out: sum of the parts, then the layer norm."""
    token, cm, af, af_p = sites
    token[1, 7:] = PAD
    torch.manual_seed(0)
    embed = SiteEmbedding(dim=8, position_cnn=True).eval()
    found = embed(token, cm, af, af_p)
    kernel, bias = embed.gap_cnn.weight[:, 0], embed.gap_cnn.bias  # (8, 5), (8,)
    for b in range(2):
        gaps = [0.0] * 9  # what the convolution reads: log10 of cM to the site before
        for site in range(9):
            if token[b, site] != PAD:
                gap = (cm[b, site] - cm[b, site - 1]).item() if site else 0.0
                gaps[site] = math.log10(gap + 1e-6) + 4
        for site in range(9):
            x = embed.token.weight[token[b, site]]
            x = x + embed.position.weight @ sinusoids(cm[b, site], 8, longest=10.0)
            x = x + embed.position.bias
            x = x + sinusoids(torch.tensor(float(site)), 8, longest=10_000.0)
            x = x + embed.af.weight @ af_features(af[b, site], af_p[b, site]) + embed.af.bias
            x = x + bias
            for k in range(5):
                if 0 <= site + k - 2 < 9:
                    x = x + kernel[:, k] * gaps[site + k - 2]
            x = (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()
            torch.testing.assert_close(found[b, site], x, atol=1e-5, rtol=1e-5)


def test_padding_does_not_leak(sites):
    token, cm, af, af_p = sites
    torch.manual_seed(0)
    embed = SiteEmbedding(dim=8, position_cnn=True).eval()
    short = embed(*(x[:, :6] for x in sites))
    padded = token.clone()
    padded[:, 6:] = PAD
    for scale in (0.0, 7.0):
        other = cm.clone()
        other[:, 6:] *= scale
        torch.testing.assert_close(embed(padded, other, af, af_p)[:, :6], short)


def test_odd_dim():
    with pytest.raises(ValueError, match="dim 7 is odd"):
        SiteEmbedding(dim=7)
