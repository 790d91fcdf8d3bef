"""Embeddings of panel haplotypes, computed at the first request and kept."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

from ragimpute.model.bert_rag import BERTWithRAG
from ragimpute.token_model.windows import TokenWindows

# The embeddings of a large panel do not fit into memory: 128 numbers for each of 5,000 haplotypes
# at 1,000,000 sites take 1.3 TB. So those used last are kept.
_MAX_BYTES = 2 * 2**30


class ReferenceTable:
    """A :data:`ragimpute.model.bert_rag.ReferenceLookup` over windows of a panel.

    Parameters
    ----------
    model
        A token model; its reference encoder must not change while the table is in use.
    windows
        Windows of the panel.
    device
        Where embeddings are made and kept.
    dtype
        Of what is kept: float16 halves the memory, float32 is exact.
    max_bytes
        Embeddings that were not used for longest are dropped beyond this size.
    """

    def __init__(
        self,
        model: BERTWithRAG,
        windows: TokenWindows,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float16,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._model = model
        self._windows = windows
        self._device = device
        self._dtype = dtype
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[int, int], Tensor] = OrderedDict()  # each (n, D)
        self._num_bytes = 0

    def __len__(self) -> int:
        """The number of embeddings that are kept."""
        return len(self._kept)

    def fill(self, window: int, index: np.ndarray) -> list[Tensor]:
        """Embeddings, each (n, D), of distinct haplotypes in a window of n sites."""
        missing = np.array([h for h in index.tolist() if (window, h) not in self._kept], np.int64)
        made: dict[int, Tensor] = {}
        if len(missing):
            block = self._windows.window(window)
            alleles, own = self._windows.references(window, missing)
            parts = (alleles.astype(np.int64), block.position_cm, block.af, own)
            token, cm, af, own_af = (torch.from_numpy(x).to(self._device) for x in parts)
            refs = self._model.encode_references(token, cm, af, own_af).to(self._dtype)
            made = dict(zip(missing.tolist(), refs, strict=True))
        out = []
        for h in index.tolist():
            key = (window, h)
            if h in made:
                # A copy, as a view would keep the whole batch in memory.
                self._kept[key] = made[h].clone()
                self._num_bytes += made[h].nbytes
            self._kept.move_to_end(key)
            out.append(self._kept[key])
        return out

    def _forget(self) -> None:
        """Drop the embeddings that were not used for longest, down to the limit."""
        while self._num_bytes > self._max_bytes and self._kept:
            self._num_bytes -= self._kept.popitem(last=False)[1].nbytes

    @torch.no_grad()
    def __call__(self, window: Tensor, ids: Tensor, site: Tensor | None = None) -> Tensor:
        """Look up embeddings.

        Parameters
        ----------
        window
            Shape (B,), int64.
        ids
            Shape (B, K), int64: haplotypes, -1 where there is none.
        site
            Shape (B,), int64: the site of the window that each row asks for; None: all L.

        Returns
        -------
        Shape (B, K, L, D), or (B, K, D) if sites are given, float32, L being the sites of the
        longest of all windows; 0 at padded sites and where there is no haplotype.
        """
        windows, haplotypes = window.cpu().numpy(), ids.cpu().numpy()
        assert self._model.tokens is not None
        dim = self._model.tokens.embedding.dim
        size = (*ids.shape, dim) if site is not None else (*ids.shape, self._windows.length, dim)
        out = torch.zeros(size, device=self._device)
        for w in np.unique(windows).tolist():
            rows = np.flatnonzero(windows == w)
            index = np.unique(haplotypes[rows])
            index = index[index >= 0]
            if len(index) == 0:
                continue
            kept = self.fill(w, index)
            # Mixed precision on a CPU stacks no float16.
            with torch.autocast(self._device.type, enabled=False):
                refs = torch.stack(kept).float()  # (u, n, D)
            b, k = np.nonzero(haplotypes[rows] >= 0)
            place = np.searchsorted(index, haplotypes[rows[b], k])
            if site is None:
                out[rows[b], k, : refs.shape[1]] = refs[place]
            else:
                out[rows[b], k] = refs[place, site.cpu().numpy()[rows[b]]]
        self._forget()
        return out
