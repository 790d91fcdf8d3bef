"""Pre-norm transformer over the sites of a window, and the encoder of retrieved haplotypes."""

from __future__ import annotations

import copy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ragimpute.model.chunks import chunk_bytes_of, sequence_bytes
from ragimpute.model.embedding import PAD, SiteEmbedding


class SelfAttention(nn.Module):
    """Multi-head attention among sites, with an optional additive bias."""

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend: x (B, L, D), bias (B, 1 or A, L or 1, L) added to the scores."""
        b, length, dim = x.shape
        qkv = self.qkv(x).view(b, length, 3, self.num_heads, dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, A, L, D // A)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, A, L, D // A)
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, length, dim))  # (B, L, D)
        return out


class EncoderLayer(nn.Module):
    """Attention and MLP, each after a layer norm and added to its input."""

    def __init__(self, *, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.norm_1 = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim=dim, num_heads=num_heads)
        self.norm_2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (B, L, D) -> (B, L, D)."""
        x = x + self.dropout(self.attention(self.norm_1(x), bias))
        out: Tensor = x + self.dropout(self.mlp(self.norm_2(x)))
        return out


def padding_bias(pad: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention bias that hides padded sites: pad (B, L) bool -> (B, 1, 1, L).

    A sequence that is padding throughout sees itself (its output is not used).
    """
    hidden = pad & ~pad.all(dim=1, keepdim=True)
    bias = torch.zeros(pad.shape, dtype=dtype, device=pad.device)
    return bias.masked_fill(hidden, float("-inf"))[:, None, None, :]


class Encoder(nn.Module):
    """A stack of layers and a last norm.

    Parameters
    ----------
    dim, num_layers, num_heads, mlp_ratio, dropout
        Size of the transformer.
    checkpointing
        Recompute layers in the backward pass instead of keeping their activations.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(dim=dim, num_heads=num_heads, mlp_ratio=mlp_ratio, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.dim, self.hidden, self.num_heads = dim, int(dim * mlp_ratio), num_heads
        self.checkpointing = checkpointing

    def forward(self, x: Tensor, pad: Tensor) -> Tensor:
        """Encode sites: x (B, L, D), pad (B, L) bool (True where padded) -> (B, L, D)."""
        bias = padding_bias(pad, x.dtype)  # (B, 1, 1, L)
        for layer in self.layers:
            if self.checkpointing and self.training:
                x = checkpoint(layer, x, bias, use_reentrant=False)
            else:
                x = layer(x, bias)
        out: Tensor = self.norm(x)
        return out


class ReferenceEncoder(nn.Module):
    """The window's own embedding and encoder, applied to the K retrieved haplotypes.

    Parameters
    ----------
    embedding, encoder
        Shared with the target's haplotypes.
    chunk
        ``max(1, chunk // L)`` haplotypes are encoded at a time, >= 1; None: as many as fit into
        ``chunk_bytes``. Without dropout the result does not depend on it.
    chunk_bytes
        Bytes that the haplotypes encoded at a time may take, >= 1; None: a share of what is free
        on the GPU when the first are encoded, and a fixed size on a CPU.
    checkpointing
        Recompute each chunk in the backward pass.
    use_af
        Whether haplotypes are encoded with allele frequencies; else all of these are taken as 0.5.
    """

    def __init__(
        self,
        *,
        embedding: SiteEmbedding,
        encoder: Encoder,
        chunk: int | None = None,
        chunk_bytes: int | None = None,
        checkpointing: bool = True,
        use_af: bool = True,
    ) -> None:
        super().__init__()
        self.use_af = use_af
        self.embedding = embedding
        self.encoder = encoder
        self.chunk = chunk
        self.chunk_bytes = chunk_bytes
        self.checkpointing = checkpointing
        # What was free when the first were encoded, by whether gradients are needed: a run that
        # looked again in each step would draw other dropout masks if its memory were shared.
        self._free_bytes: dict[bool, int] = {}

    def num_at_once(self, length: int, device: torch.device) -> int:
        """How many haplotypes of so many sites are encoded at a time on a device, >= 1."""
        if self.chunk is not None:
            return max(1, self.chunk // length)
        keeps = self.training and torch.is_grad_enabled()
        size = self.chunk_bytes
        if size is None:
            if keeps not in self._free_bytes:
                self._free_bytes[keeps] = chunk_bytes_of(device)
            size = self._free_bytes[keeps]
        return max(1, size // sequence_bytes(self.encoder, length, keeps=keeps))

    def _encode(self, token: Tensor, position_cm: Tensor, af: Tensor, af_own: Tensor) -> Tensor:
        """One chunk: (n, L) each -> (n, L, D)."""
        if not self.use_af:
            af = af_own = torch.full_like(af, 0.5)
        x = self.embedding(token, position_cm, af, af_own)
        out: Tensor = self.encoder(x, token == PAD)
        return out

    def forward(self, token: Tensor, position_cm: Tensor, af: Tensor, af_own: Tensor) -> Tensor:
        """Encode retrieved haplotypes.

        Parameters
        ----------
        token
            Shape (B, K, L), int64: true alleles, PAD where padded.
        position_cm, af
            Shape (B, L), float.
        af_own
            Shape (B, K, L), float: ALT frequency in each retrieved haplotype's own population.

        Returns
        -------
        Shape (B, K, L, D).
        """
        b, k, length = token.shape
        flat = token.reshape(b * k, length)  # (B K, L)
        cm = position_cm.repeat_interleave(k, dim=0)  # (B K, L)
        af_all = af.repeat_interleave(k, dim=0)  # (B K, L)
        own = af_own.reshape(b * k, length)  # (B K, L)
        size = self.num_at_once(length, token.device)
        parts = []
        for start in range(0, b * k, size):
            piece = [x[start : start + size] for x in (flat, cm, af_all, own)]
            if self.checkpointing and self.training:
                parts.append(checkpoint(self._encode, *piece, use_reentrant=False))
            else:
                parts.append(self._encode(*piece))
        return torch.cat(parts).view(b, k, length, -1)  # (B, K, L, D)


class FrozenReferences(nn.Module):
    """A copy of a reference encoder that is not trained; precomputed embeddings are made with it.

    It stays in evaluation mode. Its weights are buffers: they are saved with the model, so that a
    trained model encodes references as in training, and no optimiser changes them.
    """

    def __init__(self, references: ReferenceEncoder) -> None:
        super().__init__()
        self.references = copy.deepcopy(references)
        for module in self.references.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, weight.detach().clone())
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def refresh(self, references: ReferenceEncoder) -> None:
        """Take over the weights of a reference encoder of the same shape."""
        own = self.references.state_dict()
        for name, weight in references.state_dict().items():
            own[name].copy_(weight)

    @torch.no_grad()
    def forward(self, token: Tensor, position_cm: Tensor, af: Tensor, af_own: Tensor) -> Tensor:
        """See :meth:`ReferenceEncoder.forward`."""
        out: Tensor = self.references(token, position_cm, af, af_own)
        return out
