"""Heads: shapes, ranges and what does not depend on the order of two haplotypes."""

from __future__ import annotations

import math

import torch

from ragimpute.model.heads import AlleleHead, GenotypeHead, HaplotypeAttention, ReconstructionHead

D = 6


def pair():
    torch.manual_seed(0)
    return torch.randn(2, 4, D), torch.randn(2, 4, D)


def test_allele_and_reconstruction():
    x, _ = pair()
    allele, rebuilt = AlleleHead(dim=D), ReconstructionHead(dim=D)
    normed = (x - x.mean(-1, keepdim=True)) / (
        x.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    for head, y in ((allele, allele(x)), (rebuilt, torch.logit(rebuilt(x)))):
        linear = head.net[1]
        torch.testing.assert_close(y, normed @ linear.weight[0] + linear.bias, atol=1e-5, rtol=1e-5)
    assert allele(x).shape == (2, 4)
    assert ((rebuilt(x) > 0) & (rebuilt(x) < 1)).all()


def test_genotype_does_not_know_which_haplotype_is_first():
    h1, h2 = pair()
    head = GenotypeHead(dim=D)
    assert head(h1, h2).shape == (2, 4, 3)
    torch.testing.assert_close(head(h1, h2), head(h2, h1))
    assert (head(h1, h2) - head(h1, h1)).abs().max() > 1e-3


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
