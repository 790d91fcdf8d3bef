"""From encoded sites to alleles and genotypes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AlleleHead(nn.Module):
    """Logit of ALT at each site of a haplotype: (B, L, D) -> (B, L)."""

    net: nn.Module

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x).squeeze(-1)
        return out


class ResidualHead(AlleleHead):
    """What is added to the logit of copying, through one more layer: 0 before training."""

    def __init__(self, *, dim: int) -> None:
        nn.Module.__init__(self)
        last = nn.Linear(2 * dim, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), last)


class GenotypeHead(nn.Module):
    """Logits of REF/REF, heterozygous and ALT/ALT of a sample, from its alleles and the panel.

    It reads six numbers of a site: the probabilities of the three genotypes if both haplotypes are
    what their logits say, whichever comes first, and the shares of the genotypes in the panel.
    """

    def __init__(self, *, hidden: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, hidden), nn.LeakyReLU(), nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, 3),
        )  # fmt: skip

    def forward(self, h1: Tensor, h2: Tensor, ref: Tensor, het: Tensor, hom: Tensor) -> Tensor:
        """Logits of ALT on both haplotypes, and shares of genotypes, (B, L) each -> (B, L, 3)."""
        p1, p2 = torch.sigmoid(h1), torch.sigmoid(h2)
        both = [(1 - p1) * (1 - p2), p1 * (1 - p2) + p2 * (1 - p1), p1 * p2]
        out: Tensor = self.net(torch.stack([*both, ref, het, hom], dim=-1))  # (B, L, 6)
        return out


class HaplotypeAttention(nn.Module):
    """At each site, each of a sample's two haplotypes attends to both.

    The attention is over two tokens only, so it costs one dot product a site; swapping the
    haplotypes swaps the outputs.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, h1: Tensor, h2: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, D) twice -> (B, L, D) twice."""
        both = torch.stack([h1, h2], dim=2)  # (B, L, 2, D)
        x = self.norm(both)
        score = self.query(x) @ self.key(x).transpose(-1, -2)  # (B, L, 2, 2)
        weight = torch.softmax(score / x.shape[-1] ** 0.5, dim=-1)
        both = both + self.out(weight @ self.value(x))  # (B, L, 2, D)
        return both[:, :, 0], both[:, :, 1]
