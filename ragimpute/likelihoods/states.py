"""Choose the states that a sample copies in a stretch of the chromosome, and its steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ragimpute.copying.parameters import switch_probs
from ragimpute.kernels.bits import WORD
from ragimpute.kernels.simd_floats import LANES
from ragimpute.likelihoods import diploid_kernel
from ragimpute.likelihoods.diploid_kernel import EVERY, Exchanges
from ragimpute.likelihoods.exchanges import exchanges_of
from ragimpute.likelihoods.haploid_kernel import Steps, haploid_posterior
from ragimpute.likelihoods.pattern_kernel import (
    PatternScratch,
    PatternSteps,
    pattern_posterior,
)
from ragimpute.likelihoods.patterns import (
    PatternedSites,
    Sites,
    columns,
    hash_haplotypes,
    number_keys,
)
from ragimpute.likelihoods.state_kernel import Members, minor_shares, unpack_states
from ragimpute.likelihoods.stretches import PairSettings
from ragimpute.retrieval.distinct_rows import join_halves

# The masses of groups are looked at in about so many places of a stretch.
_PLACES = 64
# Passes over at least so many groups of a large panel go over patterns.
_PATTERNS_OF_GROUPS = 2_000
# In so many places of these: each takes as long as it takes to get over a block.
_PATTERN_PLACES = 16


class Reads(NamedTuple):
    """One sample in one stretch.

    ``sites``, ``groups``: the panel, and all its groups. ``steps``: those of passes over all groups
    at all sites with reads, but for their emissions. ``seen`` (T,): sites with reads.
    ``cm``, ``af`` (m,): positions, frequencies of ALT. ``flip`` (W,), ``turned`` (m,): sites whose
    minor allele is REF.
    ``emission`` (m, P + 1): P(reads | number of ALT that are copied). ``rate``, ``exchange_rate``:
    switches and exchanges per cM. ``alike_words``: see
    :func:`ragimpute.likelihoods.exchanges.words_alike`.
    """

    sites: Sites
    groups: Groups
    steps: Steps | PatternSteps
    seen: np.ndarray
    cm: np.ndarray
    af: np.ndarray
    flip: np.ndarray
    turned: np.ndarray
    emission: np.ndarray
    rate: float
    exchange_rate: float
    alike_words: int


class Groups(NamedTuple):
    """Groups of haplotypes.

    ``first`` (C,), int64: one haplotype of each; ``of`` (H,), int64: the group of each haplotype,
    -1 where none; ``size`` (C,), float64.
    """

    first: np.ndarray
    of: np.ndarray
    size: np.ndarray

    @property
    def prior(self) -> np.ndarray:
        """Their weights as states, shape (C,), float32; they sum to 1."""
        out: np.ndarray = (self.size / self.size.sum()).astype(np.float32)
        return out

    def some(self, which: np.ndarray) -> Groups:
        """Some of the groups."""
        number = np.full(len(self.first) + 1, -1)
        number[which] = np.arange(len(which))
        return Groups(self.first[which], number[self.of], self.size[which])


def group_haplotypes(sites: Sites, seen: np.ndarray, own: np.ndarray) -> Groups:
    """Group the haplotypes that are alike at the sites ``seen``, bool (m,), but for ``own``."""
    key = hash_haplotypes(sites, as_bits(seen, -(-len(seen) // WORD)))
    usable = np.ones(len(key), bool)
    usable[own] = False
    index = np.flatnonzero(usable)
    first, size, number = number_keys(key[index])
    of = np.full(len(key), -1, np.int64)
    of[index] = number
    return Groups(index[first], of, size.astype(np.float64))


class GroupMass(NamedTuple):
    """Posteriors of groups in some places of a stretch: the largest and the mean, (C,), float32."""

    largest: np.ndarray
    mean: np.ndarray


def group_mass(steps: Steps | PatternSteps) -> GroupMass:
    """The posterior that each group has in some places."""
    num_groups = len(steps.prior)
    mass = np.empty(num_groups, np.float32)
    if isinstance(steps, PatternSteps):
        num_steps = len(steps.row)
        every = max(1, num_steps // _PATTERN_PLACES)
        place = np.arange(every // 2, num_steps, every)
        noted = np.zeros((3, num_groups), np.float32)
        scratch = PatternScratch.empty(int(np.diff(steps.start).max()), len(place))
        kept = np.empty(steps.of.shape, np.float32)
        pattern_posterior(steps, place, kept, mass, scratch, noted)
        return GroupMass(noted[0], noted[1] / len(place))
    num_steps = len(steps.site)
    every = max(1, num_steps // _PLACES)
    each = np.empty(((num_steps - every // 2 - 1) // every + 1, num_groups), np.float32)
    haploid_posterior(steps, every, each, mass)
    return GroupMass(each.max(axis=0), each.mean(axis=0))


def choose_groups(
    mass: GroupMass, num_steps: int, settings: PairSettings, *, rough: bool = False
) -> np.ndarray:
    """Choose the groups that are worth pairing; their numbers ascend.

    Parameters
    ----------
    mass
        Of all groups. Those come first that are likely somewhere, and likely on the whole.
    num_steps
        Sites with reads.
    settings
        How many.
    rough
        As many as are needed to find a likely pair.
    """
    if rough:
        num = settings.rough
        order = np.argsort(-mass.largest, kind="stable")
    else:
        height = mass.largest if settings.anywhere else mass.largest * mass.mean
        order = np.argsort(-height, kind="stable")
        covered = np.cumsum(mass.mean[order], dtype=np.float64)
        num = int(np.searchsorted(covered, (1 - settings.left_out) * covered[-1])) + 1
        most = int(np.clip(np.sqrt(settings.pair_steps / num_steps), settings.least, settings.most))
        num = int(np.clip(num, settings.least, most))
    return np.sort(order[: -(-num // LANES) * LANES])


def _minor(
    sites: Sites, flip: np.ndarray, groups: Groups, num_states: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which states have the minor allele of each site; see :func:`minor_shares`."""
    member = np.flatnonzero(groups.of >= 0)
    of = groups.of[member]
    order = np.argsort(of, kind="stable")
    member, of = member[order], of[order]
    size = np.ones(num_states, np.float32)
    size[: len(groups.size)] = groups.size
    counts = np.zeros((WORD, num_states), np.float32)
    start = np.zeros(WORD * len(flip) + 1, np.int64)
    state = np.empty(64 * WORD * len(flip), np.int32)
    share_of = np.empty(len(state), np.float32)
    num, w = 0, 0
    for words, member_of in _columns_of_groups(sites, member, of):
        part = slice(w, w + len(words))
        entries = start[WORD * part.start : WORD * part.stop + 1]
        while True:
            after = minor_shares(
                words, flip[part], member_of, size, counts, num, entries, state, share_of
            )
            if after <= len(state):
                break
            more = np.empty(after, np.int32)
            state = np.concatenate([state, more])
            share_of = np.concatenate([share_of, more.view(np.float32)])
        num, w = after, part.stop
    return start, state[:num], share_of[:num]


def _columns_of_groups(
    sites: Sites, member: np.ndarray, of: np.ndarray
) -> Iterator[tuple[np.ndarray, Members]]:
    """Words, and which groups their columns stand for: all, or those of each block of patterns.

    ``member``, ``of``: haplotypes, and the group of each, ascending.
    """
    if not isinstance(sites, PatternedSites):
        yield sites.words, Members(member, of, np.ones(len(member), np.float32))
        return
    group = of.astype(np.uint32)
    for b, words in enumerate(sites.words):
        pattern = sites.patterns.of[b][member].view(np.uint32)
        first, size, _ = join_halves(group, pattern)
        yield words, Members(pattern[first].astype(np.int64), of[first], size.astype(np.float32))


def beside(emission: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Emission of one haplotype's allele where the other has ALT with probability ``other``."""
    out = np.empty((len(emission), 2), np.float32)
    for a in range(2):
        out[:, a] = (1 - other) * emission[:, a] + other * emission[:, a + 1]
    return out


def as_bits(flags: np.ndarray, num_words: int) -> np.ndarray:
    """Flags (m,) as bits of so many words of 32."""
    padded = np.zeros(num_words * WORD, bool)
    padded[: len(flags)] = flags
    out: np.ndarray = np.packbits(padded, bitorder="little").view(np.uint32)
    return out


def group_steps(
    sites: Sites, groups: Groups, seen: np.ndarray, cm: np.ndarray, rate: float
) -> Steps | PatternSteps:
    """The steps of passes over all groups, at the sites ``seen`` (T,), without emissions."""
    prior = groups.prior
    emission = np.empty((0, 2), np.float32)
    rho = switch_probs(cm[seen], switch_rate=rate)
    if isinstance(sites, PatternedSites) and len(prior) >= _PATTERNS_OF_GROUPS:
        return sites.steps(groups.first, seen, emission, rho, prior)
    return Steps(columns(sites, groups.first), seen, emission, rho, prior)


def observed(reads: Reads, emission: np.ndarray) -> Steps | PatternSteps:
    """The steps of a haploid pass over all groups, with ``emission`` (m, 2)."""
    return reads.steps._replace(emission=np.ascontiguousarray(emission[reads.seen]))


class Walk(NamedTuple):
    """The steps over chosen states: where they differ, and enough others for one anchor.

    ``at`` (T',): the sites of steps, of which the last ones may only fill up, from step ``num`` on.
    ``alleles``, ``bits``, ``rho``, ``exchanges``: see :class:`Pairs`. ``sites``: what anchors say
    of them. ``nearest`` (m,): the nearest anchor of each site.
    """

    at: np.ndarray
    num: int
    alleles: np.ndarray
    bits: np.ndarray
    rho: np.ndarray
    exchanges: Exchanges
    sites: diploid_kernel.Sites
    nearest: np.ndarray

    def pad(self, emission: np.ndarray) -> np.ndarray:
        """Emissions (m, G) at the steps; those that fill up say nothing."""
        out: np.ndarray = emission[self.at]
        out[self.num :] = 1
        return out


def walk_over(reads: Reads, groups: Groups) -> Walk:
    """Steps at those of the sites with reads where the states differ; at least one anchor."""
    num = len(groups.first)
    num_states = -(-num // LANES) * LANES
    # Of no weight, and a copy of another: its masses stay as small as those of that one.
    states = np.full(num_states, groups.first[0], np.int64)
    states[:num] = groups.first
    seen, cm = reads.seen, reads.cm
    alleles = np.empty((len(seen), num_states), np.uint8)
    bits = np.empty((len(seen), num_states // LANES), np.uint64)
    words = columns(reads.sites, states)
    unpack_states(words, seen, np.arange(num_states), alleles, bits)
    held = alleles[:, :num].sum(axis=1, dtype=np.int64)
    differ = np.flatnonzero((held > 0) & (held < num))
    num_steps = len(differ)
    differ = np.concatenate([differ, np.full(max(0, EVERY - num_steps), max([0, *differ[-1:]]))])
    at = seen[differ]
    anchor = at[EVERY // 2 :: EVERY]
    m = len(cm)
    left = np.clip(np.searchsorted(anchor, np.arange(m), side="right") - 1, 0, None)
    right = np.minimum(left + 1, len(anchor) - 1)
    gap = np.maximum(cm[anchor[right]] - cm[anchor[left]], 1e-9)
    weight = np.clip((cm[anchor[right]] - cm) / gap, 0, 1).astype(np.float32)
    nearest = np.where(weight >= 0.5, left, right)
    nearest[: anchor[0]] = 0
    start, state, share_of = _minor(reads.sites, reads.flip, groups, num_states)
    first = np.concatenate([[0], anchor, [m]]).astype(np.int64)
    return Walk(
        at, num_steps, alleles[differ], bits[differ],
        switch_probs(cm[at], switch_rate=reads.rate),
        exchanges_of(
            words, cm, np.arange(num_states), at[:num_steps], len(at), reads.exchange_rate,
            reads.alike_words,
        ),
        diploid_kernel.Sites(first, weight, start[: m + 1], state, share_of), nearest,
    )  # fmt: skip


def haploid_shares(reads: Reads, groups: Groups, walk: Walk) -> np.ndarray:
    """P(the minor allele is copied) of a haploid sample at each site, shape (m,), float32."""
    num, sites = len(groups.first), walk.sites
    steps = Steps(
        columns(reads.sites, groups.first), walk.at, walk.pad(reads.emission),
        walk.rho, groups.prior,
    )  # fmt: skip
    num_anchors = len(sites.first) - 2
    kept = np.empty((num_anchors, num), np.float32)
    haploid_posterior(steps, EVERY, kept, np.empty(num, np.float32))
    num_entries = sites.start[-1]
    state, share_of = sites.state[:num_entries], sites.share[:num_entries]
    entry_site = np.repeat(np.arange(len(sites.weight)), np.diff(sites.start))
    left = np.clip(np.searchsorted(sites.first[1:-1], entry_site, side="right") - 1, 0, None)
    right = np.minimum(left + 1, num_anchors - 1)
    weight = np.where(entry_site < sites.first[1], 1, sites.weight[entry_site])
    mass = weight * kept[left, state] + (1 - weight) * kept[right, state]
    out: np.ndarray = np.bincount(entry_site, mass * share_of, len(sites.weight))
    return out.astype(np.float32)
