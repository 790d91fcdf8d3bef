"""Fusions, one class each, chosen by name: how retrieved haplotypes change the target's encoding.

Every fusion takes the target's encoded sites (B, L, D), those of its K retrieved haplotypes
(B, K, L, D) and allele frequencies, and returns (B, L, D). None depends on the order of the K
haplotypes, and a padded haplotype (one that retrieval could not fill) has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ragimpute.model.embedding import NUM_AF_FEATURES, af_features

_MIN_MAF = 1e-4


def maf_of(af: Tensor) -> Tensor:
    """Minor allele frequency of ALT frequencies, at least 1e-4."""
    return torch.minimum(af, 1 - af).clamp_min(_MIN_MAF)


def masked_softmax(score: Tensor, pad: Tensor, dim: int) -> Tensor:
    """Softmax over ``dim`` without padded entries; all zero where everything is padded."""
    score = score.masked_fill(pad, float("-inf"))
    everything = pad.all(dim=dim, keepdim=True)
    weight = torch.softmax(score.masked_fill(everything, 0.0), dim=dim)
    return weight.masked_fill(pad, 0.0)


def weighted_mean(x: Tensor, weight: Weight) -> Tensor:
    """Mean over K of x (B, K, L, D), weighted; 0 where everything is padded."""
    share = masked_softmax(weight.log_weight, weight.pad, dim=1)
    return (share * x).sum(dim=1)


class Weight(NamedTuple):
    """How much each retrieved haplotype counts at each site, before a fusion says more.

    ``log_weight`` (B, K, L or 1, 1) is the ln of its weight, up to a constant; ``pad``, of the same
    shape, is True where there is no haplotype.
    """

    log_weight: Tensor
    pad: Tensor


class Fusion(nn.Module):
    """Base of the fusions: shapes and padding are handled here."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(
        self,
        query: Tensor,
        refs: Tensor,
        af: Tensor,
        af_refs: Tensor,
        ref_pad: Tensor,
        log_weight: Tensor | None = None,
    ) -> Tensor:
        """Fuse.

        Parameters
        ----------
        query
            Shape (B, L, D): the target haplotype's sites.
        refs
            Shape (B, K, L, D): the retrieved haplotypes' sites.
        af
            Shape (B, L), float: ALT frequency in the panel.
        af_refs
            Shape (B, K, L), float: ALT frequency in each retrieved haplotype's population.
        ref_pad
            Shape (B, K) or (B, K, L), bool: True where there is no haplotype.
        log_weight
            Shape (B, K, L): ln of each retrieved haplotype's posterior, which is added to the
            scores of fusions that attend, and weighs the means of the others; None: all count
            alike.

        Returns
        -------
        Shape (B, L, D).
        """
        pad = ref_pad[..., None] if ref_pad.dim() == 3 else ref_pad[:, :, None, None]
        zero = torch.zeros_like(pad, dtype=refs.dtype)
        if log_weight is not None:
            pad = pad.expand(*log_weight.shape, 1)
            zero = log_weight[..., None].to(refs.dtype)
        return self.fuse(query, refs.masked_fill(pad, 0.0), af, af_refs, Weight(zero, pad))

    def fuse(
        self, query: Tensor, refs: Tensor, af: Tensor, af_refs: Tensor, weight: Weight
    ) -> Tensor:
        """The fusion itself; what ``weight`` pads is 0 in ``refs``."""
        raise NotImplementedError


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers with a GELU between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class EnhancedRareVariant(Fusion):
    """Attention over retrieved haplotypes, by frequency, and stronger at rare sites (v10).

    1. Cross-AF interaction: a network of the site's frequency in the panel and in the retrieved
       haplotype's population is added to the haplotype's vector: an allele that is rare in the
       panel but common where the haplotype comes from means something else.
    2. AF adapter: a gate in (0, 2) of the panel frequency scales it.
    3. Attention pooling over K: softmax of scaled dot products of target and haplotypes, by site.
    4. A concat-MLP of target and pool gives a correction, which is added with the weight
       ``residual_scale * min(1 / MAF, weight_max)``: at MAF 50 % a fifth of that at 10 % and below.
    """

    def __init__(self, *, dim: int, residual_scale: float = 0.1, weight_max: float = 10.0) -> None:
        super().__init__(dim=dim)
        self.residual_scale = residual_scale
        self.weight_max = weight_max
        self.cross_af = _mlp(NUM_AF_FEATURES, dim, dim)
        self.adapter = nn.Linear(NUM_AF_FEATURES, dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.mix = _mlp(2 * dim, 2 * dim, dim)

    def rare_weight(self, af: Tensor) -> Tensor:
        """Weight of the correction: af (B, L) -> (B, L)."""
        return (1 / maf_of(af)).clamp_max(self.weight_max)

    def fuse(
        self, query: Tensor, refs: Tensor, af: Tensor, af_refs: Tensor, weight: Weight
    ) -> Tensor:
        both = af_features(af[:, None].expand_as(af_refs), af_refs)  # (B, K, L, 4)
        refs = refs + self.cross_af(both)  # (B, K, L, D)
        refs = refs * 2 * torch.sigmoid(self.adapter(af_features(af, af)))[:, None]
        score = (self.query(query)[:, None] * self.key(refs)).sum(-1, keepdim=True)
        score = score / math.sqrt(self.dim) + weight.log_weight
        share = masked_softmax(score, weight.pad, dim=1)  # (B, K, L, 1)
        pooled = (share * self.value(refs)).sum(dim=1)  # (B, L, D)
        change = self.mix(torch.cat([query, pooled], dim=-1))  # (B, L, D)
        out: Tensor = query + self.residual_scale * self.rare_weight(af)[..., None] * change
        return out


class Log1pMaf(EnhancedRareVariant):
    """As ``enhanced_rare_variant``, with the weight ``log(1 + 1 / MAF)``, which never saturates."""

    def rare_weight(self, af: Tensor) -> Tensor:
        return torch.log1p(1 / maf_of(af))


class RareVariantAware(Fusion):
    """0.7 mean + 0.3 maximum over K of haplotypes transformed by frequency (v3).

    The maximum keeps an allele that a single retrieved haplotype carries from being averaged
    away; the AF-sensitive transform ``refs * (1 + tanh(W af))`` lets rare sites stand out.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__(dim=dim)
        self.transform = nn.Linear(NUM_AF_FEATURES, dim)
        self.mix = _mlp(2 * dim, 2 * dim, dim)

    def fuse(
        self, query: Tensor, refs: Tensor, af: Tensor, af_refs: Tensor, weight: Weight
    ) -> Tensor:
        both = af_features(af[:, None].expand_as(af_refs), af_refs)  # (B, K, L, 4)
        refs = refs * (1 + torch.tanh(self.transform(both)))  # (B, K, L, D)
        largest = refs.masked_fill(weight.pad, float("-inf")).amax(dim=1)  # (B, L, D)
        largest = largest.masked_fill(weight.pad.all(dim=1), 0.0)
        pooled = 0.7 * weighted_mean(refs, weight) + 0.3 * largest
        out: Tensor = query + self.mix(torch.cat([query, pooled], dim=-1))
        return out


class DynamicGate(Fusion):
    """A gate for each site and channel mixes the target with what was retrieved (v6).

    ``g = sigmoid(W [query, mean of refs, af])``; the result is ``g query + (1 - g) V mean``.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__(dim=dim)
        self.gate = nn.Linear(2 * dim + NUM_AF_FEATURES, dim)
        self.value = nn.Linear(dim, dim)

    def fuse(
        self, query: Tensor, refs: Tensor, af: Tensor, af_refs: Tensor, weight: Weight
    ) -> Tensor:
        pooled = weighted_mean(refs, weight)  # (B, L, D)
        gate = torch.sigmoid(self.gate(torch.cat([query, pooled, af_features(af, af)], dim=-1)))
        some = (~weight.pad).any(dim=1)  # (B, L or 1, 1)
        return torch.where(some, gate * query + (1 - gate) * self.value(pooled), query)


class CrossAttention(Fusion):
    """Multi-head attention of each site over its K haplotypes, biased by frequencies.

    Each head adds to its score a linear function of the site's frequency in the panel and in the
    retrieved haplotype's population, so that it can prefer, say, haplotypes from where ALT is
    common.
    """

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__(dim=dim)
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.bias = nn.Linear(NUM_AF_FEATURES, num_heads)
        self.out = nn.Linear(dim, dim)

    def fuse(
        self, query: Tensor, refs: Tensor, af: Tensor, af_refs: Tensor, weight: Weight
    ) -> Tensor:
        b, k, length, dim = refs.shape
        heads, each = self.num_heads, dim // self.num_heads
        q = self.query(query).view(b, 1, length, heads, each)  # (B, 1, L, A, D // A)
        key = self.key(refs).view(b, k, length, heads, each)  # (B, K, L, A, D // A)
        value = self.value(refs).view(b, k, length, heads, each)
        both = af_features(af[:, None].expand_as(af_refs), af_refs)  # (B, K, L, 4)
        score = (q * key).sum(-1) / math.sqrt(each) + self.bias(both)  # (B, K, L, A)
        share = masked_softmax(score + weight.log_weight, weight.pad, dim=1)
        pooled = (share[..., None] * value).sum(dim=1).reshape(b, length, dim)  # (B, L, D)
        out: Tensor = query + self.out(pooled)
        return out


class Concat(Fusion):
    """An MLP of the target's vector beside the mean of what was retrieved (v2, the baseline)."""

    mix: nn.Module

    def __init__(self, *, dim: int) -> None:
        super().__init__(dim=dim)
        self.mix = _mlp(2 * dim, 2 * dim, dim)

    def fuse(
        self, query: Tensor, refs: Tensor, af: Tensor, af_refs: Tensor, weight: Weight
    ) -> Tensor:
        out: Tensor = self.mix(torch.cat([query, weighted_mean(refs, weight)], dim=-1))
        return out


class FixedConcat(Concat):
    """One linear map of target and mean, at first their average: the simplest that can copy."""

    def __init__(self, *, dim: int) -> None:
        Fusion.__init__(self, dim=dim)
        mix = nn.Linear(2 * dim, dim)
        with torch.no_grad():
            half = 0.5 * torch.eye(dim)
            mix.weight.copy_(torch.cat([half, half], dim=1))
            mix.bias.zero_()
        self.mix = mix


#: Token fusions by name; each value makes one from (dim, num_heads, residual_scale, weight_max).
FUSIONS: dict[str, Callable[[int, int, float, float], Fusion]] = {
    "enhanced_rare_variant": lambda d, a, s, w: EnhancedRareVariant(
        dim=d, residual_scale=s, weight_max=w
    ),
    "log1p_maf": lambda d, a, s, w: Log1pMaf(dim=d, residual_scale=s, weight_max=w),
    "rare_variant_aware": lambda d, a, s, w: RareVariantAware(dim=d),
    "dynamic_gate": lambda d, a, s, w: DynamicGate(dim=d),
    "cross_attention": lambda d, a, s, w: CrossAttention(dim=d, num_heads=a),
    "concat": lambda d, a, s, w: Concat(dim=d),
    "fixed_concat": lambda d, a, s, w: FixedConcat(dim=d),
}
