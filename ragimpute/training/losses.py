"""Losses over the hidden sites of a batch, each weighted by the config."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ragimpute.config import LossConfig
from ragimpute.model.fusion import maf_of
from ragimpute.model.probability import gamma_at

#: Takes this process's sum of weights, a scalar; returns the mean of all processes' sums.
MeanWeight = Callable[[Tensor], Tensor]


def focal_loss(logit: Tensor, label: Tensor, *, gamma: float) -> Tensor:
    """Cross-entropy times ``(1 - P(truth)) ** gamma``; cross-entropy itself where gamma is 0.

    Parameters
    ----------
    logit, label
        Same shape; labels 0 or 1.
    gamma
        >= 0: how much less those sites count that are predicted well already.

    Returns
    -------
    Same shape, >= 0.

    References
    ----------
    Lin et al. 2017, Focal loss for dense object detection.
    """
    loss = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
    if gamma == 0:
        return loss
    return loss * (1 - torch.exp(-loss)).clamp_min(1e-8) ** gamma


def genotype_loss(logits: Tensor, genotype: Tensor, *, gamma: float) -> Tensor:
    """Focal loss over three genotypes: logits (..., 3), genotype (...) in 0, 1, 2 -> (...)."""
    loss = F.cross_entropy(logits.reshape(-1, 3), genotype.reshape(-1), reduction="none")
    loss = loss.view(genotype.shape)
    if gamma == 0:
        return loss
    return loss * (1 - torch.exp(-loss)).clamp_min(1e-8) ** gamma


def _change(before: Tensor, after: Tensor) -> Tensor:
    """Mean squared difference of a site's vectors: (B, L, D) twice -> (B, L)."""
    return (before.float() - after.float()).square().mean(dim=-1)


def rare_weight(af: Tensor, config: LossConfig) -> Tensor:
    """Weight of each site: 1, min(1 / MAF, max), or log(1 + 1 / MAF)."""
    if config.rare_weight == "inverse_maf":
        return (1 / maf_of(af)).clamp_max(config.rare_weight_max)
    if config.rare_weight == "log1p":
        return torch.log1p(1 / maf_of(af))
    return torch.ones_like(af)


def field(batch: Mapping[str, Tensor], name: str, haplotype: str) -> Tensor:
    """A field of a batch: a haplotype's own if it has one, else the one that both share."""
    own = f"{name}_{haplotype}"
    return batch[own] if own in batch else batch[name]


def scored_sites(batch: Mapping[str, Tensor], haplotype: str) -> Tensor:
    """Sites that count: hidden, with a known allele, not padding; bool (B, L)."""
    hidden = field(batch, "mask", haplotype) & ~field(batch, "pad", haplotype)
    return hidden & (batch[f"label_{haplotype}"] >= 0)


def weighted_mean(
    loss: Tensor, weight: Tensor, keep: Tensor, mean_weight: MeanWeight | None = None
) -> Tensor:
    """Mean of ``loss`` over ``keep``, weighted; 0 where nothing is kept."""
    weight = weight * keep
    total = weight.sum() if mean_weight is None else mean_weight(weight.sum())
    return (loss * weight).sum() / total.clamp_min(1e-8)


def compute_loss(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    config: LossConfig,
    epoch: int,
    *,
    mean_weight: MeanWeight | None = None,
    num_processes: int = 1,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The training loss of a batch.

    Parameters
    ----------
    outputs, batch
        What the model returned, and what it was given.
    config
        Kinds and weights; a part of weight 0 is left out.
    epoch
        Counted from 0; the gamma schedule follows it.
    mean_weight, num_processes
        Needed if several processes share a batch, as their rows hold unequal numbers of scored
        sites. With them the mean over processes of the losses, and of their gradients, is that of
        the whole batch.

    Returns
    -------
    The weighted sum, and its parts before weighting: "haplotype_fused", "haplotype_ori" and
    "genotype", means over the sites that count, or sums with ``reduction: sum``; and
    "reconstruction", a mean for each haplotype, both added.
    """
    gamma = gamma_at(config, epoch)
    parts: dict[str, Tensor] = {}
    keep = {h: scored_sites(batch, h) for h in ("h1", "h2")}
    label = {h: batch[f"label_{h}"].clamp_min(0) for h in ("h1", "h2")}
    weight = {h: rare_weight(field(batch, "af", h), config) for h in ("h1", "h2")}

    def reduced(loss: Tensor, weight: Tensor, keep: Tensor) -> Tensor:
        if config.reduction == "sum":
            return num_processes * (loss * weight * keep).sum()
        return weighted_mean(loss, weight, keep, mean_weight)

    def over_haplotypes(loss: dict[str, Tensor]) -> Tensor:
        return reduced(*(torch.cat([x["h1"], x["h2"]]) for x in (loss, weight, keep)))

    for part in ("fused", "ori"):
        if getattr(config, f"haplotype_{part}") > 0:
            parts[f"haplotype_{part}"] = over_haplotypes(
                {
                    h: focal_loss(outputs[f"{h}_{part}"], label[h].float(), gamma=gamma)
                    for h in ("h1", "h2")
                }
            )
    if config.genotype > 0 and "genotype" in outputs:
        loss = genotype_loss(outputs["genotype"], label["h1"] + label["h2"], gamma=gamma)
        both = keep["h1"] & keep["h2"]
        parts["genotype"] = reduced(loss, weight["h1"], both)
    if config.reconstruction > 0 and "h1_before" in outputs:
        change = {h: _change(outputs[f"{h}_before"], outputs[f"{h}_after"]) for h in keep}
        parts["reconstruction"] = torch.stack(
            [weighted_mean(change[h], torch.ones_like(weight[h]), keep[h], mean_weight)
             for h in keep]
        ).sum()  # fmt: skip
    if not parts:
        raise ValueError("every loss has weight 0, or the model lacks the heads for the others")
    total = sum((getattr(config, name) * loss for name, loss in parts.items()), torch.tensor(0.0))
    assert isinstance(total, Tensor)
    return total, parts
