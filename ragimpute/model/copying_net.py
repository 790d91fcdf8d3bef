"""The residual of the ``copying`` fusion: what a network adds to the Li-Stephens logit.

The last layer starts at zero, so that an untrained model *is* Li-Stephens, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragimpute.model.encoder import EncoderLayer, padding_bias
from ragimpute.model.site_net import hidden_layer, site_residual
from ragimpute.model.state_pool import StatePool

# A feature that is constant in one panel, such as the size of the panel, must not become huge in
# another: its standard deviation is taken to be at least this.
_MIN_SCALE = 0.3


class DistanceBias(nn.Module):
    """Attention bias of each head: a learned, never negative, decay with genetic distance."""

    def __init__(self, *, num_heads: int) -> None:
        super().__init__()
        # exp of these: decays of 1, 4, 16, ... per cM
        self.log_decay = nn.Parameter(torch.arange(num_heads) * 1.4)

    def forward(self, position_cm: Tensor) -> Tensor:
        """(B, L) in cM -> (B, A, L, L)."""
        gap = (position_cm[:, :, None] - position_cm[:, None, :]).abs()  # (B, L, L)
        return -self.log_decay.exp()[None, :, None, None] * gap[:, None]


class CopyingResidual(nn.Module):
    """A correction of the copying's logit at each site in doubt, from its evidence.

    Parameters
    ----------
    num_features
        F, the length of :data:`ragimpute.evidence.features.FEATURES`.
    width
        Hidden units.
    num_context_layers, num_heads
        Transformer layers over the sites in doubt of a haplotype, biased by genetic distance;
        0: each site on its own.
    states
        Reads the retrieved states of each pair beside its features; None: only the features count.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        num_features: int,
        width: int,
        num_context_layers: int = 0,
        num_heads: int = 4,
        states: StatePool | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))
        self.states = states
        num_read = num_features + (states.out_features if states is not None else 0)
        self.embed = nn.Sequential(nn.Linear(num_read, width))
        self.layers = nn.ModuleList(
            EncoderLayer(dim=width, num_heads=num_heads, mlp_ratio=2.0, dropout=0.0)
            for _ in range(num_context_layers)
        )
        self.distance = DistanceBias(num_heads=num_heads) if num_context_layers else None
        self.hidden = nn.Sequential(nn.Linear(width, width))
        self.last = nn.Linear(width, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def standardise(self, mean: Tensor, deviation: Tensor, *tokens: Tensor) -> None:
        """Set the features' mean and standard deviation, each of shape (F,), from the data.

        If the network reads states one by one, those of a token's numbers, (C,), follow.
        """
        self.mean.copy_(mean)
        self.scale.copy_(deviation.clamp_min(_MIN_SCALE))
        if self.states is not None:
            self.states.standardise(*tokens)

    def forward(
        self,
        evidence: Tensor,
        position_cm: Tensor | None = None,
        pad: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """The residual.

        Parameters
        ----------
        evidence
            Shape (..., F); (B, L, F) where there are context layers.
        position_cm, pad
            Shape (B, L), float and bool; needed by context layers only.
        tokens
            Shape (..., S, C), int16: see :mod:`ragimpute.evidence.state_set`; needed where the
            network reads states.

        Returns
        -------
        Shape (...), to be added to the logit.
        """
        x = (evidence - self.mean) / self.scale  # (..., F)
        if self.states is not None:
            if tokens is None:
                raise ValueError("a network that reads states needs tokens")
            pooled = self.states(x.flatten(0, -2), tokens.flatten(0, -3))  # (N, out_features)
            x = torch.cat([x, pooled.view(*x.shape[:-1], -1)], dim=-1)
        first, *rest = self.site_layers()
        if self.distance is None:
            return site_residual(x, [first, *rest], torch.sigmoid)
        x = hidden_layer(x, *first, torch.sigmoid)  # (..., D)
        if position_cm is None or pad is None:
            raise ValueError("context layers need position_cm and pad")
        bias = padding_bias(pad, x.dtype) + self.distance(position_cm)  # (B, A, L, L)
        for layer in self.layers:
            x = layer(x, bias)
        return site_residual(x, rest, torch.sigmoid)

    def site_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of the layers that are applied to each site alone, in order."""
        dense = (*self.embed, *self.hidden, self.last)
        return [(layer.get_parameter("weight"), layer.get_parameter("bias")) for layer in dense]
