"""Which haplotypes of a panel its targets copy: all of a small one, the retrieved of a large one.

What retrieves is imported where a panel is large, and not else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.copying.window import pack_words

if TYPE_CHECKING:
    from ragimpute.retrieval.retriever import Retriever

# Panels up to this size are copied whole: retrieval would cost more accuracy than it saves time.
COPY_ALL_UP_TO = 6000


def is_copied_whole(num_haplotypes: int) -> bool:
    """Whether every haplotype of a panel of this size is a state."""
    return num_haplotypes <= COPY_ALL_UP_TO


def retriever_for(words: np.ndarray, *, seed: int, threads: int = 1) -> Retriever | None:
    """What finds states in a panel at its typed sites, shape (W, H), uint32.

    None where the panel is copied whole. ``seed``, ``threads``: see
    :class:`ragimpute.retrieval.retriever.Retriever`.
    """
    if is_copied_whole(words.shape[1]):
        return None
    from ragimpute.retrieval.retriever import Retriever

    return Retriever(words, seed=seed, threads=threads)


def states_for(
    retriever: Retriever | None,
    num_haplotypes: int,
    alleles: np.ndarray,
    *,
    own: Sequence[np.ndarray] | None = None,
    threads: int = 1,
) -> Callable[[int], np.ndarray]:
    """States of some target haplotypes, as :func:`ragimpute.copying.copy.copy_haplotypes` asks for
    them.

    Parameters
    ----------
    retriever
        Of the panel's typed sites; None: all ``num_haplotypes`` are states.
    alleles
        Shape (T, n), int8: the targets' typed alleles, negative where not observed.
    own
        For each target, the one or two haplotypes that it must not copy; None: there are none.
    threads
        See :meth:`ragimpute.retrieval.retriever.Retriever.states`.

    Returns
    -------
    Callable: states of target i, shape (1, K) or (W, K), int32.
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
    """States of targets, shape (n, W, K), int32; see :func:`states_for`."""
    exclude = None if own is None else np.array([[*mine, -1][:2] for mine in own])
    return retriever.states(pack_words(alleles)[0], exclude, threads=threads)


def _own(haplotype_sample: np.ndarray, left_out: np.ndarray) -> list[np.ndarray]:
    """For each of some haplotypes those of its sample."""
    return [np.flatnonzero(haplotype_sample == haplotype_sample[h]) for h in left_out]


def states_without_own(
    retriever: Retriever | None,
    haplotype_sample: np.ndarray,
    left_out: np.ndarray,
    alleles: np.ndarray,
    *,
    threads: int = 1,
) -> Callable[[int], np.ndarray]:
    """States of left-out haplotypes of the panel, without those of their own samples.

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
    Callable: states of left-out haplotype i, as :func:`ragimpute.copying.copy.copy_haplotypes`
    asks.
    """
    own = _own(haplotype_sample, left_out)
    return states_for(retriever, len(haplotype_sample), alleles, own=own, threads=threads)


def found_without_own(
    retriever: Retriever, haplotype_sample: np.ndarray, left_out: np.ndarray, alleles: np.ndarray
) -> np.ndarray:
    """As :func:`states_without_own` where states are retrieved: shape (n, W, K), int32, of all."""
    return _found(retriever, alleles, _own(haplotype_sample, left_out), 1)


@dataclass(frozen=True)
class BlockStates:
    """States of targets that are not in the panel, some targets at a time.

    Attributes
    ----------
    num_states
        K.
    by_word
        Whether each word of typed sites has its own, and each target; else all copy the same.
    find
        States of a range of targets: shape (b, W, K), int32; or, if not ``by_word``, of all of
        them: (1, K). It may be called from several threads, each with a room that the states may be
        put into, shape (>= b, W, K), or None.
    """

    num_states: int
    by_word: bool
    find: Callable[[range, np.ndarray | None], np.ndarray]


def block_states(
    retriever: Retriever | None, num_haplotypes: int, alleles: np.ndarray
) -> BlockStates:
    """States of targets that are not in the panel.

    Parameters
    ----------
    retriever, num_haplotypes, alleles
        As for :func:`states_for`.
    """
    if retriever is None:
        everyone = all_states(num_haplotypes)
        return BlockStates(num_haplotypes, False, lambda block, room: everyone)
    words = pack_words(alleles)[0]
    return BlockStates(
        retriever.num_slots,
        True,
        lambda block, room: retriever.states(words[block.start : block.stop], room=room),
    )


def all_states(num_haplotypes: int, exclude: np.ndarray | None = None) -> np.ndarray:
    """Every haplotype as a state at every word, shape (1, K), int32, without those excluded."""
    states = np.arange(num_haplotypes, dtype=np.int32)
    if exclude is not None:
        states = np.delete(states, exclude[exclude >= 0])
    return states[None]
