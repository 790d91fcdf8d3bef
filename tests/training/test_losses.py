"""Losses against their formulas, number by number."""

from __future__ import annotations

import math

import pytest
import torch

from ragimpute.config import LossConfig
from ragimpute.model.probability import gamma_at
from ragimpute.training.losses import compute_loss, focal_loss, genotype_loss, rare_weight

B, L, D = 3, 7, 4


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    out = {f"label_{h}": torch.randint(-1, 2, (B, L), generator=g) for h in ("h1", "h2")}
    out["mask"] = torch.rand(B, L, generator=g) < 0.7
    out["pad"] = torch.zeros(B, L, dtype=torch.bool)
    out["pad"][1, 5:] = True
    out["af"] = torch.rand(B, L, generator=g)
    out["af"][0, :3] = torch.tensor([0.0, 1.0, 0.002])
    return out


@pytest.fixture
def outputs():
    g = torch.Generator().manual_seed(1)
    out = {f"{h}_{p}": 3 * torch.randn(B, L, generator=g) for h in ("h1", "h2")
           for p in ("fused", "ori")}  # fmt: skip
    out["genotype"] = 2 * torch.randn(B, L, 3, generator=g)
    out |= {f"{h}_{when}": torch.randn(B, L, D, generator=g) for h in ("h1", "h2")
            for when in ("before", "after")}  # fmt: skip
    return out


def prob(logit, label):
    """P(label) of a logit of ALT."""
    p = 1 / (1 + math.exp(-logit))
    return p if label else 1 - p


def weight_of(af, config):
    """Weight of one site."""
    inverse = 1 / max(min(af, 1 - af), 1e-4)
    if config.rare_weight == "inverse_maf":
        return min(inverse, config.rare_weight_max)
    return math.log(1 + inverse) if config.rare_weight == "log1p" else 1.0


def slow(outputs, batch, config, gamma):
    """The parts of the loss by loops."""
    sums = {}

    def add(name, loss, weight):
        total = sums.setdefault(name, [0.0, 0.0])
        total[0] += loss * weight
        total[1] += weight

    for b in range(B):
        for site in range(L):
            if not batch["mask"][b, site] or batch["pad"][b, site]:
                continue
            w = weight_of(batch["af"][b, site].item(), config)
            label = [batch[f"label_{h}"][b, site].item() for h in ("h1", "h2")]
            for h, y in zip(("h1", "h2"), label, strict=True):
                if y < 0:
                    continue
                for part in ("fused", "ori"):
                    p = prob(outputs[f"{h}_{part}"][b, site].item(), y)
                    add(f"haplotype_{part}", -((1 - p) ** gamma) * math.log(p), w)
                pairs = zip(
                    outputs[f"{h}_before"][b, site].tolist(),
                    outputs[f"{h}_after"][b, site].tolist(),
                    strict=True,
                )
                add(f"reconstruction_{h}", sum((x - y) ** 2 for x, y in pairs) / D, 1.0)
            if min(label) >= 0:
                e = [math.exp(x) for x in outputs["genotype"][b, site].tolist()]
                p = e[sum(label)] / sum(e)
                add("genotype", -((1 - p) ** gamma) * math.log(p), w)
    summed = config.reduction == "sum"
    parts = {name: total if summed else total / weight for name, (total, weight) in sums.items()}
    means = [sums[f"reconstruction_{h}"] for h in ("h1", "h2")]
    parts = {name: value for name, value in parts.items() if not name.startswith("recon")}
    return {**parts, "reconstruction": sum(total / weight for total, weight in means)}


@pytest.mark.parametrize("rare", ["none", "inverse_maf", "log1p"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("kind", "gamma"), [("cross_entropy", 0), ("focal", 0), ("focal", 5)])
def test_equals_the_formulas(batch, outputs, kind, gamma, rare, reduction):
    config = LossConfig(kind=kind, gamma=gamma, haplotype_fused=1, haplotype_ori=0.5, genotype=2,
                        reconstruction=0.25, rare_weight=rare, reduction=reduction)  # fmt: skip
    total, parts = compute_loss(outputs, batch, config, 0)
    expected = slow(outputs, batch, config, gamma)
    assert {k: v.item() for k, v in parts.items()} == pytest.approx(expected, rel=1e-4)
    assert total.item() == pytest.approx(
        sum(getattr(config, name) * value for name, value in expected.items()), rel=1e-4
    )


def test_what_does_not_count_has_no_gradient(batch, outputs):
    for value in outputs.values():
        value.requires_grad_()
    config = LossConfig(gamma=2, reconstruction=1)
    total, _ = compute_loss(outputs, batch, config, 0)
    total.backward()
    hidden = batch["mask"] & ~batch["pad"]
    for h in ("h1", "h2"):
        counts = hidden & (batch[f"label_{h}"] >= 0)
        for part in ("fused", "ori", "before", "after"):
            grad = outputs[f"{h}_{part}"].grad
            changes = grad != 0 if grad.ndim == 2 else (grad != 0).any(-1)
            assert (changes == counts).all()
    both = hidden & (batch["label_h1"] >= 0) & (batch["label_h2"] >= 0)
    assert ((outputs["genotype"].grad != 0).any(-1) == both).all()


def test_parts_of_weight_zero_or_without_a_head_are_left_out(batch, outputs):
    _, parts = compute_loss(outputs, batch, LossConfig(haplotype_ori=0, genotype=0), 0)
    assert set(parts) == {"haplotype_fused"}
    del outputs["genotype"]
    _, parts = compute_loss(outputs, batch, LossConfig(), 0)
    assert set(parts) == {"haplotype_fused", "haplotype_ori"}
    nothing = LossConfig(haplotype_fused=0, haplotype_ori=0, genotype=1)
    with pytest.raises(ValueError, match="every loss has weight 0"):
        compute_loss(outputs, batch, nothing, 0)


def test_fields_of_each_haplotype_go_first(batch, outputs):
    # Copying models give each haplotype its own sites; the shared fields must not be looked at.
    own = {f"{name}_{h}": batch[name] for name in ("mask", "pad", "af") for h in ("h1", "h2")}
    own |= {k: v for k, v in batch.items() if k.startswith("label")}
    own["mask_h2"] = torch.zeros_like(own["mask_h2"])
    config = LossConfig(haplotype_ori=0, genotype=0, rare_weight="log1p")
    total, _ = compute_loss(outputs, own, config, 0)
    batch["label_h2"] = torch.full_like(batch["label_h2"], -1)
    assert total.item() == pytest.approx(compute_loss(outputs, batch, config, 0)[0].item())


def test_nothing_hidden_is_zero(batch, outputs):
    batch["mask"][:] = False
    total, parts = compute_loss(outputs, batch, LossConfig(), 0)
    assert total.item() == 0
    assert all(part.item() == 0 for part in parts.values())


def test_gamma_follows_its_schedule(batch, outputs):
    config = LossConfig(gamma=5, gamma_schedule=(2, 3, 4))
    assert [gamma_at(config, epoch) for epoch in range(5)] == [2, 3, 4, 4, 4]
    assert gamma_at(LossConfig(gamma=5), 9) == 5
    found = [compute_loss(outputs, batch, config, epoch)[0].item() for epoch in range(4)]
    fixed = [compute_loss(outputs, batch, LossConfig(gamma=g), 0)[0].item() for g in (2, 3, 4, 4)]
    assert found == fixed


def test_extremes_stay_finite():
    logit = torch.tensor([200.0, -200.0, 0.0], requires_grad=True)
    loss = focal_loss(logit, torch.tensor([1.0, 1.0, 0.0]), gamma=5)
    loss.sum().backward()
    assert torch.isfinite(logit.grad).all()
    torch.testing.assert_close(loss, torch.tensor([0.0, 200.0, math.log(2) / 32]))
    sure = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
    genotype_loss(sure, torch.tensor([0]), gamma=0.5).sum().backward()
    assert torch.isfinite(sure.grad).all()
    weights = rare_weight(torch.tensor([0.0, 1.0]), LossConfig(rare_weight="log1p"))
    torch.testing.assert_close(weights, torch.full((2,), math.log(10_001)))


@pytest.mark.parametrize(
    ("rare", "reduction"), [("none", "mean"), ("inverse_maf", "mean"), ("log1p", "sum")]
)
def test_shares_of_a_batch_average_to_the_whole(batch, outputs, rare, reduction):
    for value in outputs.values():
        value.requires_grad_()
    config = LossConfig(reconstruction=0.3, rare_weight=rare, reduction=reduction)
    whole, _ = compute_loss(outputs, batch, config, 0)
    whole.backward()
    expected = {name: value.grad.clone() for name, value in outputs.items()}
    for value in outputs.values():
        value.grad = None
    rows = [torch.tensor([0, 2]), torch.tensor([1])]  # as two processes would share them
    shares = [
        ({k: v[i] for k, v in outputs.items()}, {k: v[i] for k, v in batch.items()}) for i in rows
    ]
    sums: list[list[torch.Tensor]] = []
    for share in shares:
        sums.append([])
        compute_loss(
            *share, config, 0, mean_weight=lambda w: sums[-1].append(w) or w, num_processes=2
        )
    assert sums[0] != sums[1]
    means = [torch.stack(pair).mean() for pair in zip(*sums, strict=True)]
    losses = []
    for share in shares:
        given = iter(means)
        loss, _ = compute_loss(
            *share, config, 0, mean_weight=lambda w, g=given: next(g), num_processes=2
        )
        losses.append(loss)
    mean = torch.stack(losses).mean()
    mean.backward()
    torch.testing.assert_close(mean, whole)
    for name, value in outputs.items():
        torch.testing.assert_close(value.grad, expected[name])
