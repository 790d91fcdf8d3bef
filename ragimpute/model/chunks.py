"""How many sequences an encoder takes at a time, so that what it holds fits into the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ragimpute.runtime.device_memory import idle_bytes

if TYPE_CHECKING:
    from ragimpute.model.encoder import Encoder

#: Share of a GPU's free memory that a chunk may take: the rest is for what the batch holds beside.
_FREE_SHARE = 0.25
# On a CPU the bytes are fixed, so that a run with dropout can be repeated on any machine: dropout
# is drawn chunk by chunk. More would not help: eight haplotypes of v10, forward and backward, take
# 3.6 s one by one, 3.7 to 4.3 s at once; and 96 MB each by the formula below, 104 MB as measured.
_CPU_BYTES = 2**28
# Numbers that a layer holds for each site, in units of its width: two norms, queries, keys and
# values, what attention gives, its projection, three sums and what dropout keeps; and what the MLP
# holds before and after its activation, in units of the MLP's width.
_WIDTHS, _MLP_WIDTHS = 12, 2
_BYTES = 4  # of a float32


def sequence_bytes(encoder: Encoder, length: int, *, keeps: bool) -> int:
    """Bytes that an encoder holds for one sequence, about.

    Parameters
    ----------
    encoder
        Its layers count.
    length
        Sites of the sequence, >= 1.
    keeps
        Whether what each layer computed is kept for the gradients.

    Returns
    -------
    Bytes: those of all layers where they are kept, else of one layer. The scores of attention are
    counted for one layer, as torch does not keep them.
    """
    layer = _WIDTHS * encoder.dim + _MLP_WIDTHS * encoder.hidden
    num_layers = len(encoder.layers)
    if not keeps:
        numbers = layer
    elif encoder.checkpointing:
        numbers = layer + num_layers * encoder.dim
    else:
        numbers = layer * num_layers
    return _BYTES * length * (numbers + encoder.num_heads * length)


def chunk_bytes_of(device: torch.device) -> int:
    """Bytes that a chunk may take: a share of what is free on a GPU, and a fixed size elsewhere."""
    if device.type != "cuda":
        return _CPU_BYTES
    return int(idle_bytes(device) * _FREE_SHARE)
