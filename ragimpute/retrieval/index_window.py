"""The FAISS index of one window: alleles become codes, which are indexed and searched."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragimpute.retrieval.faiss_device import GpuSearcher
from ragimpute.retrieval.faiss_library import faiss
from ragimpute.retrieval.faiss_threads import threads_for

_RECALL_QUERIES = 64
_RECALL_K = 10


def code_alleles(alleles: np.ndarray) -> np.ndarray:
    """Two bits a site: ALT, REF; neither where the allele is hidden.

    Parameters
    ----------
    alleles
        Shape (n, L), int8: 0, 1, or negative where hidden.

    Returns
    -------
    Shape (n, max(1, ceil(2 L / 8))), uint8.
    """
    bits = np.zeros((alleles.shape[0], max(1, alleles.shape[1]), 2), dtype=bool)
    bits[:, : alleles.shape[1], 0] = alleles == 1
    bits[:, : alleles.shape[1], 1] = alleles == 0
    return np.packbits(bits.reshape(alleles.shape[0], -1), axis=1, bitorder="little")


def tie_order(num_haplotypes: int, window: int) -> np.ndarray:
    """The order in which a window's haplotypes are stored: equal distances come in it."""
    return np.random.default_rng((window, num_haplotypes)).permutation(num_haplotypes)


def search_window(
    index: Any, codes: np.ndarray, k: int, searcher: GpuSearcher | None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest codes to each query.

    Parameters
    ----------
    index
        Of one window.
    codes
        Queries, shape (B, bytes), uint8.
    k
        Codes to find, in [1, H].
    searcher
        Searches an exhaustive index on a GPU; None: on the CPU.

    Returns
    -------
    Distances and slots, shape (B, k) both; slots are -1 where lists held fewer.
    """
    if searcher is not None:
        return searcher.search(index, codes, k)
    with threads_for(len(codes) * index.ntotal):
        out: tuple[np.ndarray, np.ndarray] = index.search(codes, k)
        return out


def build_window(
    codes: np.ndarray, kind: str, num_lists: int, num_probes: int, searcher: GpuSearcher | None
) -> tuple[faiss.IndexBinary, float]:
    """The index of one window's haplotypes and its recall at 10.

    Parameters
    ----------
    codes
        Shape (H, bytes), uint8, in the order of :func:`tie_order`.
    kind
        "flat" (exhaustive) or "ivf" (inverted lists).
    num_lists, num_probes
        Lists that "ivf" makes, and how many of them a search looks through.
    searcher
        Makes and searches exhaustive indexes on a GPU; None: on the CPU.
    """
    exact: Any
    if searcher is not None:
        exact = searcher.build_flat(codes)
    else:
        exact = faiss.IndexBinaryFlat(8 * codes.shape[1])
        exact.use_heap = False  # up to 4 times faster
        exact.add(codes)
    if kind == "flat":
        return exact, 1.0
    quantizer: Any = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index = faiss.IndexBinaryIVF(quantizer, 8 * codes.shape[1], num_lists)
    index.own_fields = True
    quantizer.this.disown()
    index.train(codes)
    index.add(codes)
    index.nprobe = num_probes
    queries = codes[:: max(1, len(codes) // _RECALL_QUERIES)][:_RECALL_QUERIES]
    k = min(_RECALL_K, len(codes))
    true, _ = search_window(exact, queries, k, searcher)
    found, ids = index.search(queries, k)
    # Ties make ids ambiguous: a hit is a neighbour no farther than the exact k-th.
    return index, float(((found <= true[:, -1:]) & (ids >= 0)).mean())
