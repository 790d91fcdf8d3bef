"""From what copying says of sites and of retrieved haplotypes to vectors, for token models."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragimpute.evidence.site_states_kernel import STATE_FEATURES
from ragimpute.model.embedding import ALT, NUM_AF_FEATURES, PAD, af_features

#: What copying says of a site of one haplotype: the logit of ALT, within +-9; ln of cM to the typed
#: sites on the left and on the right, + 1e-4; ln of the effective number of states.
SITE_FEATURES = ("logit", "gap_left", "gap_right", "num_states")

# Centre and spread of the features on panels of several species, roughly.
_SITE = ((-4.0, 4.0), (-4.5, 2.0), (-4.5, 2.0), (1.5, 1.5))
_STATE = ((-3.0, 3.0),) * 3 + ((-1.5, 2.0),) * 4


class _Features(nn.Module):
    """Features, scaled to about unit spread, through two linear layers with a GELU between.

    A layer norm makes the result as large as what it is added to.
    """

    scale: Tensor
    centre: Tensor

    def __init__(self, scaling: tuple[tuple[float, float], ...], extra: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.tensor([c for c, _ in scaling]), persistent=False)
        self.register_buffer("scale", torch.tensor([s for _, s in scaling]), persistent=False)
        self.net = nn.Sequential(
            nn.Linear(len(scaling) + extra, dim), nn.GELU(), nn.Linear(dim, dim), nn.LayerNorm(dim)
        )

    def scaled(self, features: Tensor) -> Tensor:
        """The features about 0."""
        return (features - self.centre) / self.scale


class SiteEvidence(_Features):
    """A vector of what copying says of each site, and of the site's frequencies."""

    def __init__(self, *, dim: int) -> None:
        super().__init__(_SITE, NUM_AF_FEATURES, dim)

    def forward(self, features: Tensor, af: Tensor, af_p: Tensor) -> Tensor:
        """Features (B, L, 4), and ALT frequencies (B, L) -> (B, L, D)."""
        out: Tensor = self.net(torch.cat([self.scaled(features), af_features(af, af_p)], dim=-1))
        return out


class StateEvidence(_Features):
    """A vector of how well each retrieved haplotype matches the target around each site.

    It reads the columns of :class:`ragimpute.evidence.site_states_kernel.StateFeatures`, and the
    haplotype's allele there: +1 for ALT, -1 for REF.
    """

    def __init__(self, *, dim: int) -> None:
        super().__init__(_STATE, 1, dim)
        assert len(_STATE) == len(STATE_FEATURES)

    def forward(self, features: Tensor, token: Tensor) -> Tensor:
        """Features (B, K, L, F) and tokens (B, K, L) -> (B, K, L, D)."""
        allele = (2.0 * (token == ALT) - 1.0).masked_fill(token == PAD, 0.0)
        x = torch.cat([self.scaled(features), allele[..., None].to(features.dtype)], dim=-1)
        out: Tensor = self.net(x)
        return out
