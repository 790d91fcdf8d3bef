"""Which haplotypes of a panel its targets copy: all of a small one, the retrieved of a large one.

What retrieves is imported where a panel is large, and not else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.copying import COPY_ALL_UP_TO, all_states, pack_words

# Of hits, which are looked up for many targets at once.
_HITS_BYTES = 8 * 2**20

if TYPE_CHECKING:
    from ragimpute.retrieval import Retriever


def is_copied_whole(num_haplotypes: int) -> bool:
    """Whether every haplotype of a panel of this size is a state."""
    return num_haplotypes <= COPY_ALL_UP_TO


def retriever_for(words: np.ndarray, *, seed: int, threads: int = 1) -> Retriever | None:
    """What finds states in a panel at its typed sites, shape (W, H), uint32.

    None where the panel is copied whole. ``seed``, ``threads``: see
    :class:`ragimpute.retrieval.Retriever`.
    """
    if is_copied_whole(words.shape[1]):
        return None
    from ragimpute.retrieval import Retriever

    return Retriever(words, seed=seed, threads=threads)


def states_for(
    retriever: Retriever | None,
    num_haplotypes: int,
    alleles: np.ndarray,
    *,
    own: Sequence[np.ndarray] | None = None,
) -> Callable[[int], np.ndarray]:
    """States of some target haplotypes, as :func:`ragimpute.copying.copy_haplotypes` asks for them.

    Parameters
    ----------
    retriever
        Of the panel's typed sites; None: all ``num_haplotypes`` are states.
    alleles
        Shape (T, n), int8: the targets' typed alleles, negative where not observed.
    own
        For each target, the one or two haplotypes that it must not copy; None: there are none.

    Returns
    -------
    Callable: states of target i, shape (1, K) or (W, K), int32.
    """
    if retriever is None:
        if own is None:
            everyone = all_states(num_haplotypes)
            return lambda i: everyone
        return lambda i: all_states(num_haplotypes, own[i])
    exclude = None if own is None else np.array([[*mine, -1][:2] for mine in own])
    found = retriever.states(pack_words(alleles)[0], exclude)
    return lambda i: found[i]


def states_by_batch(
    retriever: Retriever | None, num_haplotypes: int, alleles: np.ndarray, step: int
) -> Iterator[tuple[int, Callable[[int], np.ndarray]]]:
    """As :func:`states_for`, for ``step`` targets at a time.

    Parameters
    ----------
    retriever, num_haplotypes, alleles
        As for :func:`states_for`; no target is in the panel.

    Yields
    ------
    The first target of a batch, and the states of the batch's target i.
    """
    n = alleles.shape[1]
    if retriever is None:
        everyone = all_states(num_haplotypes)
        for first in range(0, n, step):
            yield first, lambda i: everyone
        return
    words = pack_words(alleles)[0]
    at_once = max(1, _HITS_BYTES // (retriever.hit_bytes * step)) * step
    for start in range(0, n, at_once):
        hits = retriever.search(words[start : start + at_once])
        for first in range(0, len(hits), step):
            found = retriever.states_of(hits[first : first + step])
            yield start + first, lambda i, found=found: found[i]  # type: ignore[misc]
