"""What the kernels that describe pairs in doubt read, write and hand each other.

Notation: H panel haplotypes, T typed sites in W words, M sites of a window, K states.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.copying.carriers import SiteCarriers
from ragimpute.copying.window import Flanks
from ragimpute.evidence.features import AGES, MAX_TOKENS, NUM_TOP, TOKEN_FEATURES
from ragimpute.evidence.likely_states_kernel import GROUPS, TABLE_WIDTH
from ragimpute.evidence.match_lengths_kernel import REACH
from ragimpute.kernels.simd_floats import LANES, rows_of_lanes


class WeightedColumns(NamedTuple):
    """The columns of ``Measuring.weighted``.

    ``weight`` is the sum of the states' posterior weights; the others are sums, weighted by them,
    of the logs of the lengths of matches to either side, in cM and in typed sites. ``root``,
    ``square`` and ``kin`` are sums of other weights: see the features ``share_root`` to
    ``share_kin``. ``younger`` is the first of the sums for each age of ``features.AGES``.
    """

    weight: int
    left: int
    right: int
    sites_left: int
    sites_right: int
    root: int
    square: int
    kin: int
    younger: int


WEIGHTED = WeightedColumns(*range(len(WeightedColumns._fields)))
WEIGHTED_WIDTH = WEIGHTED.younger + len(AGES)


class EvidencePanel(NamedTuple):
    """What is the same for all targets of a window.

    Attributes
    ----------
    rows
        Shape (H, W), uint32: the panel's words by haplotype.
    typed_cm, position_cm
        Shapes (T,) and (M,), float64: positions of the typed sites, and of all sites.
    near
        Switch probabilities to the typed sites beside each site.
    minor
        Who has the minor allele of each site.
    num_minor
        Shape (M,), int64: carriers of the minor allele in the panel.
    signature
        Shape (H,), uint64: a number for each haplotype, which decides between equals.
    """

    rows: np.ndarray
    typed_cm: np.ndarray
    position_cm: np.ndarray
    near: Flanks
    minor: SiteCarriers
    num_minor: np.ndarray
    signature: np.ndarray


class Measuring(NamedTuple):
    """The buffers of one thread, for blocks of up to n targets.

    Attributes
    ----------
    keys
        Shape (n, padded K), float32: f b of each target's states, and -1 where there is no state.
    few
        Four rows of 16 lanes, for finding the most probable states.
    top, ranks
        Shape (K,), int64: slots of the most probable states, and their ranks.
    table
        Shape (NUM_TOP, TABLE_WIDTH): the most probable states, in the order of ``top``.
    best, weighted
        Shape (2, 8) and (2, WEIGHTED_WIDTH), for carriers and for other states: the columns of
        ``describe_kernel.BEST`` and of ``WEIGHTED``.
    reach
        Shape (8,): how far one state reaches.
    stamp
        Shape (K,), int64: says of a slot whether, and where, it stands in the table.
    listed
        Shape (K,), int32: slots of a site's carriers.
    ends
        Shape (n, K, 4), int32: ends of matches of each target's states.
    lanes
        Shape (n,), int64: the lanes that have pairs in an interval.
    order
        Shape (3, NUM_TOP), int64: row 0 gets the rows of ``table`` ordered by rank; rows 1 and 2
        are for sorting.
    square
        Shape (16, 16): masses of 16 states of 16 lanes.
    kin
        Weights of states that only one target has, see ``Matched.kin``; (1,), 1, until they are
        measured.
    """

    keys: np.ndarray
    few: np.ndarray
    top: np.ndarray
    ranks: np.ndarray
    table: np.ndarray
    best: np.ndarray
    weighted: np.ndarray
    reach: np.ndarray
    stamp: np.ndarray
    listed: np.ndarray
    ends: np.ndarray
    lanes: np.ndarray
    order: np.ndarray
    square: np.ndarray
    kin: np.ndarray


class Evidence(NamedTuple):
    """The pairs to describe, what they are described by, and where the features go.

    Attributes
    ----------
    panel, measuring
        See there.
    slot_of
        Shape (H,), int32: each haplotype's slot among the states, or K if it is none.
    pairs
        Shape (n, 4), int64: the pairs in the order of the walk, from the last interval to the
        first, and by target within an interval. Their columns are named in ``doubt``.
    at
        Shape (2,), int64: how far the walk is. Its entries are named in ``doubt``.
    kept
        Sums over carriers that copying has computed for the sites of the interval at hand, see
        SharedSites; empty if none were kept.
    out
        Shape (rows, NUM_COPIED), float32.
    tokens
        Shape (rows, S, len(TOKEN_FEATURES)), int16, or (0, S, ...) if none are wanted.
    """

    panel: EvidencePanel
    measuring: Measuring
    slot_of: np.ndarray
    pairs: np.ndarray
    at: np.ndarray
    kept: np.ndarray
    out: np.ndarray
    tokens: np.ndarray


class Doubt(NamedTuple):
    """How pairs in doubt are found while copying.

    Attributes
    ----------
    limits
        Shape (2,), float32: a probability strictly between them is in doubt.
    typed_index
        Shape (T,), int64: which of the window's sites are typed.
    found
        Shape (room, 2), int64: gets column and site, counted from the first, of each pair. Pairs
        beyond its room are counted, but not described.
    """

    limits: np.ndarray
    typed_index: np.ndarray
    found: np.ndarray


class IntervalMasses(NamedTuple):
    """The masses of one target's states in the interval between two typed sites.

    ``key`` (padded K,) has the products f b, and -1 where there is no state; f and b are the
    columns ``lane`` of two arrays. ``scales`` are factors of f b, f and b: by them f b and f sum to
    1, and b to ``right_sum``. ``num_states`` is the number of states that the target may copy.
    """

    key: np.ndarray
    f: np.ndarray
    b: np.ndarray
    lane: int
    scales: tuple[float, float, float]
    right_sum: float
    num_states: np.float32


class Interval(NamedTuple):
    """What one target's pairs in an interval have in common.

    ``num_top`` rows of the table are filled, and stamped with ``stamp`` and the numbers after it.
    ``total`` is the sum of all scaled masses, ``effective`` the effective number of states,
    ``density`` the typed sites per cM around the interval.
    """

    num_top: int
    stamp: int
    total: float
    effective: float
    density: float


def measuring_scratch(num_states: int, num_targets: int) -> Measuring:
    """Allocate the buffers for blocks of up to ``num_targets`` targets with K states."""
    keys = rows_of_lanes(num_targets, padded(num_states) // LANES)
    return Measuring(
        keys=keys.reshape(num_targets, -1),
        few=rows_of_lanes(4),
        top=np.empty(num_states, np.int64),
        ranks=np.empty(num_states, np.int64),
        table=np.zeros((NUM_TOP, TABLE_WIDTH)),
        best=np.zeros((2, 8)),
        weighted=np.zeros((2, WEIGHTED_WIDTH)),
        reach=np.zeros(len(REACH)),
        stamp=np.empty(num_states, np.int64),
        listed=np.empty(num_states, np.int32),
        ends=np.empty((num_targets, num_states, 4), np.int32),
        lanes=np.zeros(num_targets, np.int64),
        order=np.empty((3, NUM_TOP), np.int64),
        square=rows_of_lanes(LANES),
        kin=np.ones(1, np.float32),
    )


def padded(num_states: int) -> int:
    """The length of an array of masses: ``num_states`` rounded up to a multiple of 32."""
    return -(-num_states // GROUPS) * GROUPS


def empty_tokens(num_pairs: int, num_tokens: int) -> np.ndarray:
    """Allocate the tokens of pairs in doubt, for :func:`collect_evidence` to fill.

    Parameters
    ----------
    num_pairs
        Pairs, >= 0.
    num_tokens
        Tokens of each pair, S: an even number in [2, MAX_TOKENS].

    Returns
    -------
    Shape (pairs, S, len(TOKEN_FEATURES)), int16, in multiples of TOKEN_UNIT, not initialised. The
    first S / 2 tokens are for carriers of the minor allele, the others for states with the other
    allele, the most probable first in either half.

    Raises
    ------
    ValueError
        If ``num_tokens`` is odd or outside [2, MAX_TOKENS].
    """
    if num_tokens % 2 or not 2 <= num_tokens <= MAX_TOKENS:
        raise ValueError(f"{num_tokens} tokens: an even number in [2, {MAX_TOKENS}] was expected")
    return np.empty((num_pairs, num_tokens, len(TOKEN_FEATURES)), np.int16)
