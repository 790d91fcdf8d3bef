"""Attention pooling over the retrieved states of a site in doubt, carriers and others apart.

What comes out does not depend on the order of the states within a half.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Columns of a token: whether there is a state, and the logarithm of its posterior.
_THERE, _MASS = 0, 1
_MIN_SCALE = 0.3
_LEAST_SHARE = 1e-4
# The carriers' share is a logit within +-9; divided by this it is as large as other inputs.
_LOGIT_SCALE = 3.0


class StatePool(nn.Module):
    """Pools the states of a pair by attention.

    Each head weighs the states by their posterior times a learned factor. It gives the probability
    of carriers under these weights, and the weighted means of carriers and of other states.

    Notation used for tensor shapes: S tokens, C numbers of each, F features of a site, D width of a
    token, A heads.

    Parameters
    ----------
    num_features, num_token_features
        F and C, the length of :data:`ragimpute.evidence.features.TOKEN_FEATURES`.
    unit
        What an integer of a token stands for.
    dim, num_heads
        D and A.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, *, num_features: int, num_token_features: int, unit: float, dim: int, num_heads: int
    ) -> None:
        super().__init__()
        self.unit = unit
        self.num_heads = num_heads
        self.out_features = 2 * num_heads * dim + 2 * num_heads
        self.register_buffer("mean", torch.zeros(num_token_features))
        self.register_buffer("scale", torch.ones(num_token_features))
        self.token = nn.Linear(num_token_features, dim)
        self.other = nn.Parameter(torch.zeros(dim))  # what is added to those that are no carriers
        self.site = nn.Linear(num_features, dim, bias=False)
        self.second = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, num_heads)

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Set the numbers' mean and standard deviation, each of shape (C,), from the data."""
        self.mean.copy_(mean)
        self.scale.copy_(deviation.clamp_min(_MIN_SCALE))

    def forward(self, site: Tensor, tokens: Tensor) -> Tensor:
        """Pool the states of each pair.

        Parameters
        ----------
        site
            Shape (N, F): standardised features.
        tokens
            Shape (N, S, C), int16: carriers in the first half, others in the second.

        Returns
        -------
        Shape (N, out_features).
        """
        n, s, c = tokens.shape
        there = tokens[..., _THERE] > 0  # (N, S)
        # Standardisation is part of the first layer: tokens are read once, as they are.
        weight = self.token.weight / self.scale  # (D, C)
        bias = self.token.bias - weight @ self.mean
        of_pair = torch.stack([self.site(site) + bias, self.site(site) + bias + self.other], dim=1)
        x = F.linear(tokens.to(weight.dtype).view(n * s, c), weight * self.unit)
        x = F.silu(x.view(n, 2, s // 2, -1) + of_pair[:, :, None])  # (N, 2, S / 2, D)
        x = F.silu(self.second(x)).view(n, s, -1)  # (N, S, D)
        score = self.score(x) + tokens[..., _MASS, None].to(x.dtype) * self.unit  # (N, S, A)
        score = score.masked_fill(~there[..., None], -1e4)
        # In half precision a share near 1 would be rounded to 1, whose logit below is infinite.
        exact = torch.promote_types(score.dtype, torch.float32)
        share = torch.softmax(score, dim=1, dtype=exact).transpose(1, 2)  # (N, A, S)
        share = share.reshape(n, self.num_heads, 2, s // 2).transpose(1, 2)  # (N, 2, A, S / 2)
        pooled = share @ x.view(n, 2, s // 2, -1)  # (N, 2, A, D)
        carriers = share[:, 0].sum(dim=-1)  # (N, A)
        logit = torch.logit(carriers, eps=_LEAST_SHARE) / _LOGIT_SCALE
        return torch.cat([pooled.flatten(1), carriers, logit], dim=1)
