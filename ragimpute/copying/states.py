"""Choose the panel haplotypes that targets may copy, their states.

In a small panel these are all haplotypes, in a large panel those that the retriever finds. The
retriever is imported only if a panel is large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.copying.window import pack_words
from ragimpute.runtime.stages import Stage

if TYPE_CHECKING:
    from ragimpute.retrieval.nearest import Search
    from ragimpute.retrieval.retriever import Retriever

# Panels up to this size are copied whole: retrieval would cost more accuracy than it saves time.
COPY_ALL_UP_TO = 6000


def is_copied_whole(num_haplotypes: int) -> bool:
    """Whether every haplotype of a panel of this size is a state."""
    return num_haplotypes <= COPY_ALL_UP_TO


def retriever_for(words: np.ndarray, *, seed: int, threads: int = 1) -> Retriever | None:
    """Make the retriever that finds states in a panel, or return None if it is copied whole.

    ``words``: the panel's alleles at the typed sites, shape (W, H), uint32. ``seed``, ``threads``:
    see :class:`ragimpute.retrieval.retriever.Retriever`.
    """
    if is_copied_whole(words.shape[1]):
        return None
    from ragimpute.retrieval.retriever import Retriever

    with Stage("find states"):
        return Retriever(words, seed=seed, threads=threads)


def states_for(
    retriever: Retriever | None,
    num_haplotypes: int,
    alleles: np.ndarray,
    *,
    own: Sequence[np.ndarray] | None = None,
    threads: int = 1,
) -> Callable[[int], np.ndarray]:
    """States of some target haplotypes, in the form that ``copy_haplotypes`` takes.

    Parameters
    ----------
    retriever
        Finds states by the panel's typed sites. None: all ``num_haplotypes`` are states.
    alleles
        Shape (T, n), int8: the targets' typed alleles, negative where not observed.
    own
        For each target the one or two panel haplotypes that it must not copy. None: it may copy
        all.
    threads
        See :meth:`ragimpute.retrieval.retriever.Retriever.states`.

    Returns
    -------
    Callable that returns the states of target i: shape (1, K) if they are the same at all words of
    typed sites, else (W, K); int32.
    """
    if retriever is None:
        if own is None:
            everyone = all_states(num_haplotypes)
            return lambda i: everyone
        return lambda i: all_states(num_haplotypes, own[i])
    found = _found(retriever, alleles, own, threads)
    return lambda i: found[i]


def _found(
    retriever: Retriever, alleles: np.ndarray, own: Sequence[np.ndarray] | None, threads: int
) -> np.ndarray:
    """Retrieve the states of targets, shape (n, W, K), int32; see :func:`states_for`."""
    exclude = None if own is None else np.array([[*mine, -1][:2] for mine in own])
    return retriever.states(pack_words(alleles)[0], exclude, threads=threads)


def _own(haplotype_sample: np.ndarray, left_out: np.ndarray) -> list[np.ndarray]:
    """For each haplotype in ``left_out``, all haplotypes of its sample, itself included."""
    return [np.flatnonzero(haplotype_sample == haplotype_sample[h]) for h in left_out]


def states_without_own(
    retriever: Retriever | None,
    haplotype_sample: np.ndarray,
    left_out: np.ndarray,
    alleles: np.ndarray,
    *,
    threads: int = 1,
) -> Callable[[int], np.ndarray]:
    """States of left-out panel haplotypes, which must not copy the haplotypes of their own sample.

    Parameters
    ----------
    retriever, threads
        As for :func:`states_for`.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to.
    left_out
        Shape (n,), int: haplotypes of the panel.
    alleles
        Shape (T, n), int8: their typed alleles.

    Returns
    -------
    Callable that returns the states of left-out haplotype i, see :func:`states_for`.
    """
    own = _own(haplotype_sample, left_out)
    return states_for(retriever, len(haplotype_sample), alleles, own=own, threads=threads)


def found_without_own(
    retriever: Retriever, haplotype_sample: np.ndarray, left_out: np.ndarray, alleles: np.ndarray
) -> np.ndarray:
    """Retrieve the states of :func:`states_without_own` for all at once: (n, W, K), int32."""
    return _found(retriever, alleles, _own(haplotype_sample, left_out), 1)


def found_without(retriever: Retriever, alleles: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Retrieve the states of n targets, none of which may copy any of the haplotypes ``others``.

    Parameters
    ----------
    retriever, alleles
        As for :func:`states_for`.
    others
        Shape (k,), int: numbers of haplotypes, fewer than there are.

    Returns
    -------
    Shape (n, W, K), int32.
    """
    words = pack_words(alleles)[0]
    return retriever.states(words, np.tile(others.astype(np.int32), (len(words), 1)))


@dataclass(frozen=True)
class BlockStates:
    """Finds the states of targets that are not in the panel, for a block of targets at a time.

    Attributes
    ----------
    num_states
        Number of states, K.
    by_word
        True: each target has states of its own, at each word of typed sites. False: all targets
        copy the same states everywhere.
    find
        Returns the states of a range of b targets: shape (b, W, K), int32, if ``by_word``, else
        (1, K). Its second argument is an array of shape (>= b, W, K) that it may put the states
        into, or None. Several threads may call it, each with an array of its own.
    """

    num_states: int
    by_word: bool
    find: Callable[[range, np.ndarray | None], np.ndarray]


def block_states(
    retriever: Retriever | None,
    num_haplotypes: int,
    alleles: np.ndarray,
    search: Search | None = None,
) -> BlockStates:
    """Make what finds the states of targets that are not in the panel.

    Parameters
    ----------
    retriever, num_haplotypes, alleles
        As for :func:`states_for`.
    search
        See :meth:`ragimpute.retrieval.retriever.Retriever.states`.
    """
    if retriever is None:
        everyone = all_states(num_haplotypes)
        return BlockStates(num_haplotypes, False, lambda block, room: everyone)
    words = pack_words(alleles)[0]
    return BlockStates(
        retriever.num_slots,
        True,
        lambda block, room: retriever.states(
            words[block.start : block.stop], room=room, search=search
        ),
    )


def all_states(num_haplotypes: int, exclude: np.ndarray | None = None) -> np.ndarray:
    """All haplotypes but those in ``exclude`` as states at every word: shape (1, K), int32."""
    states = np.arange(num_haplotypes, dtype=np.int32)
    if exclude is not None:
        states = np.delete(states, exclude[exclude >= 0])
    return states[None]
