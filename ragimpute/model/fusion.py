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


def weighted_mean(x: Tensor, about: About) -> Tensor:
    """Mean over K of x (B, K, L, D), weighted; 0 where everything is padded."""
    share = masked_softmax(about.log_weight, about.pad, dim=1)
    return (share * x).sum(dim=1)


class About(NamedTuple):
    """What a fusion knows of sites and retrieved haplotypes beside their vectors.

    Attributes
    ----------
    af, af_p
        Shape (B, L): ALT frequency in the panel, and in the target's own population.
    af_refs
        Shape (B, K, L): ALT frequency in each retrieved haplotype's population.
    log_weight, pad
        Shape (B, K, L, 1) or (B, K, 1, 1): ln of how much each retrieved haplotype counts, up to a
        constant, before a fusion says more; and True where there is no haplotype.
    """

    af: Tensor
    af_p: Tensor
    af_refs: Tensor
    log_weight: Tensor
    pad: Tensor

    def af_features(self) -> Tensor:
        """The panel's frequency beside that of each haplotype's population: (B, K, L, 4)."""
        return af_features(self.af[:, None].expand_as(self.af_refs), self.af_refs)


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
        *,
        af_p: Tensor,
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
        af_p
            Shape (B, L), float: ALT frequency in the target's own population, see
            :meth:`ragimpute.token_model.windows.TokenWindows.batch`.
        log_weight
            Shape (B, K, L): ln of each retrieved haplotype's posterior, which is added to the
            scores of fusions that attend, and weighs the means of the others; None: all count
            alike.

        Returns
        -------
        Shape (B, L, D).
        """
        pad = ref_pad[..., None] if ref_pad.dim() == 3 else ref_pad[:, :, None, None]
        weight = torch.zeros_like(pad, dtype=refs.dtype)
        if log_weight is not None:
            pad = pad.expand(*log_weight.shape, 1)
            weight = log_weight[..., None].to(refs.dtype)
        about = About(af, af_p, af_refs, weight, pad)
        return self.fuse(query, refs.masked_fill(pad, 0.0), about)

    def fuse(self, query: Tensor, refs: Tensor, about: About) -> Tensor:
        """The fusion itself; padded ``refs`` are 0."""
        raise NotImplementedError


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two linear layers with a GELU between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


class CrossAF(nn.Module):
    """The target's frequencies as one vector a site: the original's cross-AF interaction.

    ``af + s * gate * encoded``, where ``gate`` (a small network that ends in a sigmoid) and
    ``encoded`` (linear, layer norm, GELU) both read the ALT frequency in the panel and in the
    target's population, and ``s`` is learned, from 0.1 on: an allele that is rare in the panel but
    common where the target comes from means something else.
    """

    def __init__(self, *, dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(2, hidden), nn.GELU(), nn.Linear(hidden, dim), nn.Sigmoid()
        )
        self.encoded = nn.Sequential(nn.Linear(2, dim), nn.LayerNorm(dim), nn.GELU())
        self.scale = nn.Parameter(torch.tensor(0.1))
        _start(self, bias=0.01)

    def forward(self, af: Tensor, af_p: Tensor) -> Tensor:
        """ALT frequency in the panel and the target's population, (B, L) twice -> (B, L, D)."""
        both = torch.stack([af, af_p], dim=-1)  # (B, L, 2)
        out: Tensor = af[..., None] + self.scale * self.gate(both) * self.encoded(both)
        return out


def _start(module: nn.Module, *, bias: float) -> None:
    """Begin as the original does: normal Xavier weights, and a constant bias."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.constant_(part.bias, bias)


class EnhancedRareVariant(Fusion):
    """References weighted by frequency, pooled, and added the more the rarer the site is (v10).

    1. Cross-AF interaction: the *fused AF* (:class:`CrossAF`) of the ALT frequencies in the panel
       and in the target's population.
    2. AF adapter: an MLP of the fused AF, ending in a sigmoid, weights every channel of all
       references of the site.
    3. Pooling over K: a linear layer makes one number of each weighted reference, and the weighted
       references are averaged by the softmax of these numbers.
    4. Concat-MLP of target and pool, with layer norm. Its result is added to the target with the
       weight ``residual_scale * min(1 / MAF, weight_max)``, where ``residual_scale`` is learned:
       at MAF 50 % a fifth of that at 10 % and below.
    """

    def __init__(
        self,
        *,
        dim: int,
        residual_scale: float = 0.1,
        weight_max: float = 10.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dim=dim)
        self.weight_max = weight_max
        self.adapter = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim),
            nn.Sigmoid(),
        )  # fmt: skip
        # Without a bias, to which a softmax is blind.
        self.score = nn.Linear(dim, 1, bias=False)
        self.mix = nn.Sequential(
            nn.Linear(2 * dim, 4 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * dim, dim),
            nn.LayerNorm(dim),
        )  # fmt: skip
        _start(self, bias=0.1)
        self.cross_af = CrossAF(dim=dim)
        self.residual_scale = nn.Parameter(torch.tensor(float(residual_scale)))

    def rare_weight(self, af: Tensor) -> Tensor:
        """Weight of the correction: af (B, L) -> (B, L)."""
        return (1 / maf_of(af)).clamp_max(self.weight_max)

    def fuse(self, query: Tensor, refs: Tensor, about: About) -> Tensor:
        gate = self.adapter(self.cross_af(about.af, about.af_p))
        refs = refs * gate[:, None]  # (B, K, L, D)
        score = self.score(refs) + about.log_weight  # (B, K, L, 1)
        pooled = (masked_softmax(score, about.pad, dim=1) * refs).sum(dim=1)  # (B, L, D)
        change = self.mix(torch.cat([query, pooled], dim=-1))  # (B, L, D)
        out: Tensor = query + self.residual_scale * self.rare_weight(about.af)[..., None] * change
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

    def fuse(self, query: Tensor, refs: Tensor, about: About) -> Tensor:
        refs = refs * (1 + torch.tanh(self.transform(about.af_features())))  # (B, K, L, D)
        largest = refs.masked_fill(about.pad, float("-inf")).amax(dim=1)  # (B, L, D)
        largest = largest.masked_fill(about.pad.all(dim=1), 0.0)
        pooled = 0.7 * weighted_mean(refs, about) + 0.3 * largest
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

    def fuse(self, query: Tensor, refs: Tensor, about: About) -> Tensor:
        pooled = weighted_mean(refs, about)  # (B, L, D)
        af = af_features(about.af, about.af)
        gate = torch.sigmoid(self.gate(torch.cat([query, pooled, af], dim=-1)))
        some = (~about.pad).any(dim=1)  # (B, L or 1, 1)
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

    def fuse(self, query: Tensor, refs: Tensor, about: About) -> Tensor:
        b, k, length, dim = refs.shape
        heads, each = self.num_heads, dim // self.num_heads
        q = self.query(query).view(b, 1, length, heads, each)  # (B, 1, L, A, D // A)
        key = self.key(refs).view(b, k, length, heads, each)  # (B, K, L, A, D // A)
        value = self.value(refs).view(b, k, length, heads, each)
        score = (q * key).sum(-1) / math.sqrt(each)  # (B, K, L, A)
        score = score + self.bias(about.af_features())
        share = masked_softmax(score + about.log_weight, about.pad, dim=1)
        pooled = (share[..., None] * value).sum(dim=1).reshape(b, length, dim)  # (B, L, D)
        out: Tensor = query + self.out(pooled)
        return out


class Concat(Fusion):
    """An MLP of the target's vector beside the mean of what was retrieved (v2, the baseline)."""

    mix: nn.Module

    def __init__(self, *, dim: int) -> None:
        super().__init__(dim=dim)
        self.mix = _mlp(2 * dim, 2 * dim, dim)

    def fuse(self, query: Tensor, refs: Tensor, about: About) -> Tensor:
        out: Tensor = self.mix(torch.cat([query, weighted_mean(refs, about)], dim=-1))
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


#: Token fusions by name; each value makes one from (dim, num_heads, residual_scale, weight_max,
#: dropout).
FUSIONS: dict[str, Callable[[int, int, float, float, float], Fusion]] = {
    "enhanced_rare_variant": lambda d, a, s, w, p: EnhancedRareVariant(
        dim=d, residual_scale=s, weight_max=w, dropout=p
    ),
    "log1p_maf": lambda d, a, s, w, p: Log1pMaf(dim=d, residual_scale=s, weight_max=w, dropout=p),
    "rare_variant_aware": lambda d, a, s, w, p: RareVariantAware(dim=d),
    "dynamic_gate": lambda d, a, s, w, p: DynamicGate(dim=d),
    "cross_attention": lambda d, a, s, w, p: CrossAttention(dim=d, num_heads=a),
    "concat": lambda d, a, s, w, p: Concat(dim=d),
    "fixed_concat": lambda d, a, s, w, p: FixedConcat(dim=d),
}
