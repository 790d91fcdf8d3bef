"""From encoded sites to alleles, genotypes and reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AlleleHead(nn.Module):
    """Logit of ALT at each site of a haplotype: (B, L, D) -> (B, L).

    With ``starts_at_zero`` it is 0 before training.
    """

    def __init__(self, *, dim: int, starts_at_zero: bool = False) -> None:
        super().__init__()
        last = nn.Linear(dim, 1)
        if starts_at_zero:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.net = nn.Sequential(nn.LayerNorm(dim), last)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x).squeeze(-1)
        return out


class GenotypeHead(nn.Module):
    """Logits of REF/REF, heterozygous and ALT/ALT from both haplotypes, whichever comes first.

    Sum and absolute difference of the two vectors do not depend on their order.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(2 * dim), nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, 3)
        )

    def forward(self, h1: Tensor, h2: Tensor) -> Tensor:
        """(B, L, D) twice -> (B, L, 3)."""
        out: Tensor = self.net(torch.cat([h1 + h2, (h1 - h2).abs()], dim=-1))
        return out


class ReconstructionHead(nn.Module):
    """The allele as a number in [0, 1], of a haplotype before fusion: (B, L, D) -> (B, L)."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x).squeeze(-1)
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
