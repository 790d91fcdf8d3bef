"""From alleles, positions and frequencies to one vector a site.

Notation for tensor shapes: B batch, L sites, K retrieved haplotypes, A heads, D embedding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

REF, ALT, MASK, PAD = 0, 1, 2, 3
NUM_TOKENS = 4
NUM_AF_FEATURES = 4
_MIN_AF = 1e-4


def af_features(af: Tensor, af_other: Tensor) -> Tensor:
    """Two allele frequencies as network input.

    Parameters
    ----------
    af, af_other
        Shape (...), float, in [0, 1]: ALT frequency in the panel and in one population.

    Returns
    -------
    Shape (..., 4): both on [-1, 1], and the log10 of both minor allele frequencies, about 0.
    """
    parts = [2 * af - 1, 2 * af_other - 1]
    for f in (af, af_other):
        maf = torch.minimum(f, 1 - f).clamp_min(_MIN_AF)
        parts.append(torch.log10(maf) + 2)
    return torch.stack(parts, dim=-1)


def sinusoids(position: Tensor, dim: int, *, longest: float) -> Tensor:
    """Sines and cosines of a position at ``dim / 2`` wavelengths up to ``longest``.

    Parameters
    ----------
    position
        Shape (...), float.
    dim
        Even.
    longest
        Longest wavelength, in the unit of ``position``; the shortest is a ten-thousandth of it.

    Returns
    -------
    Shape (..., dim).

    References
    ----------
    Vaswani et al. 2017, section 3.5, with continuous positions.
    """
    step = torch.arange(dim // 2, device=position.device, dtype=position.dtype)
    wavelength = longest * 10_000 ** (-step / max(1, dim // 2 - 1))
    angle = 2 * math.pi * position[..., None] / wavelength
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class SiteEmbedding(nn.Module):
    """Allele token + genetic position + order + allele frequencies.

    Parameters
    ----------
    dim
        D, even.
    use_position, use_order, use_af
        Which parts are added to the token's vector.
    position_cnn
        Add a convolution (width 5) over the gaps between neighbouring sites, in cM.
    """

    def __init__(
        self,
        *,
        dim: int,
        use_position: bool = True,
        use_order: bool = True,
        use_af: bool = True,
        position_cnn: bool = False,
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim {dim} is odd")
        self.dim = dim
        self.use_order = use_order
        self.token = nn.Embedding(NUM_TOKENS, dim, padding_idx=PAD)
        self.position = nn.Linear(dim, dim) if use_position else None
        self.af = nn.Linear(NUM_AF_FEATURES, dim) if use_af else None
        self.gap_cnn = nn.Conv1d(1, dim, kernel_size=5, padding=2) if position_cnn else None
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, token: Tensor, position_cm: Tensor, af: Tensor, af_population: Tensor
    ) -> Tensor:
        """Embed sites.

        Parameters
        ----------
        token
            Shape (B, L), int64: 0 REF, 1 ALT, 2 MASK, 3 PAD.
        position_cm
            Shape (B, L), float, cM from the window's start.
        af, af_population
            Shape (B, L), float, in [0, 1].

        Returns
        -------
        Shape (B, L, D).
        """
        x = self.token(token)  # (B, L, D)
        if self.position is not None:
            x = x + self.position(sinusoids(position_cm, self.dim, longest=10.0))
        if self.use_order:
            order = torch.arange(token.shape[1], device=token.device, dtype=x.dtype)
            x = x + sinusoids(order, self.dim, longest=10_000.0)
        if self.af is not None:
            x = x + self.af(af_features(af, af_population))
        if self.gap_cnn is not None:
            pad = token == PAD
            gap = torch.diff(position_cm, dim=1, prepend=position_cm[:, :1])
            gap = torch.log10(gap.clamp_min(0) + 1e-6).add(4).masked_fill(pad, 0)
            x = x + self.gap_cnn(gap[:, None]).transpose(1, 2)  # (B, D, L) -> (B, L, D)
        out: Tensor = self.norm(x)
        return out
