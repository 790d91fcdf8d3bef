"""Heads: shapes, ranges and what does not depend on the order of two haplotypes."""

from __future__ import annotations

import math

import pytest
import torch

from ragimpute.model.heads import AlleleHead, GenotypeHead, HaplotypeAttention

D = 6


def pair():
    torch.manual_seed(0)
    return torch.randn(2, 4, D), torch.randn(2, 4, D)


def test_allele():
    x, _ = pair()
    head = AlleleHead(dim=D)
    normed = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    linear = head.net[1]
    expected = normed @ linear.weight[0] + linear.bias
    torch.testing.assert_close(head(x), expected, atol=1e-5, rtol=1e-5)
    assert head(x).shape == (2, 4)


def test_genotype_reads_both_haplotypes_and_the_panels_shares():
    torch.manual_seed(0)
    h1, h2, shares = torch.randn(2, 4), torch.randn(2, 4), torch.rand(3, 2, 4)
    head = GenotypeHead(dropout=0.5).eval()
    out = head(h1, h2, *shares)
    assert out.shape == (2, 4, 3)
    torch.testing.assert_close(out, head(h2, h1, *shares))  # whichever comes first
    assert (out - head(h1, h1, *shares)).abs().max() > 1e-3
    for i in range(3):
        other = shares.clone()
        other[i] += 0.5
        assert (out - head(h1, h2, *other)).abs().min() > 1e-5
    # What it reads, at one site.
    p, q = (1 / (1 + math.exp(-h[1, 2].item())) for h in (h1, h2))
    read = [(1 - p) * (1 - q), p * (1 - q) + q * (1 - p), p * q, *shares[:, 1, 2].tolist()]
    assert sum(read[:3]) == pytest.approx(1)
    torch.testing.assert_close(out[1, 2], head.net(torch.tensor(read)))


def test_haplotypes_see_each_other():
    h1, h2 = pair()
    between = HaplotypeAttention(dim=D)
    one, two = between(h1, h2)
    swapped = between(h2, h1)
    torch.testing.assert_close((two, one), swapped)
    assert (between(h1, h2 + 1.5 * h1)[0] - one).abs().max() > 1e-4
    # By loops, at one site of one sample.
    x = [between.norm(h[1, 2]) for h in (h1, h2)]
    q, k, v = ([f(y) for y in x] for f in (between.query, between.key, between.value))
    e = [torch.exp(q[0] @ key / math.sqrt(D)) for key in k]
    pooled = (e[0] * v[0] + e[1] * v[1]) / (e[0] + e[1])
    torch.testing.assert_close(one[1, 2], h1[1, 2] + between.out(pooled))
