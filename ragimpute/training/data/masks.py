"""Which sites a training example hides.

A mask is a function of a window's sites, a number of sites to hide and a random generator, chosen
by name: ``random``, ``array_like``, ``maf_guided`` and ``ld_guided``. A config mixes several and
raises the hidden share as training goes on. :func:`draw_array` draws the sites of a whole array.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ragimpute.config import MaskConfig, MaskPart
from ragimpute.training.data.arrays import _MIN_TYPED, WindowSites, _array_sites, _largest

# Blocks are found from at most so many haplotypes, which takes about a second for 1,020 sites.
_MAX_HAPLOTYPES = 20_000


#: (sites, number of sites to hide in [1, L], generator) -> hidden, shape (L,), bool.
Mask = Callable[[WindowSites, int, np.random.Generator], np.ndarray]


def hide_random(sites: WindowSites, num_hidden: int, rng: np.random.Generator) -> np.ndarray:
    """Hide sites drawn uniformly."""
    return _chosen(rng.permutation(len(sites))[:num_hidden], len(sites))


def hide_array_like(sites: WindowSites, num_hidden: int, rng: np.random.Generator) -> np.ndarray:
    """Hide what an array would not type: the sites that stay are mostly common SNPs, spread out."""
    return ~_chosen(_array_sites(sites, len(sites) - num_hidden, rng), len(sites))


def hide_rare_first(sites: WindowSites, num_hidden: int, rng: np.random.Generator) -> np.ndarray:
    """Hide sites drawn without replacement, each with a weight of 1 / MAF."""
    key = rng.gumbel(size=len(sites)) - np.log(np.maximum(sites.maf, 1e-4))
    return _chosen(_largest(key, num_hidden), len(sites))


def hide_blocks(sites: WindowSites, num_hidden: int, rng: np.random.Generator) -> np.ndarray:
    """Hide whole blocks of linked sites, so that a hidden site's proxies are hidden too.

    Blocks are tried in random order. A block is skipped if the number of hidden sites would be
    farther from ``num_hidden`` with it than without. At least one block is hidden.
    """
    if sites.block is None:
        raise ValueError("the ld_guided mask needs the blocks of linked sites")
    _, member, size = np.unique(sites.block, return_inverse=True, return_counts=True)
    hidden = np.zeros(len(size), bool)
    total = 0
    for block in rng.permutation(len(size)).tolist():
        # Is the number of hidden sites at least as close to the goal with this block as without it?
        if 2 * (num_hidden - total) >= size[block]:
            hidden[block] = True
            total += int(size[block])
    if not hidden.any():
        hidden[int(np.argmin(size))] = True
    return hidden[member.reshape(-1)]


MASKS: dict[str, Mask] = {
    "random": hide_random,
    "array_like": hide_array_like,
    "maf_guided": hide_rare_first,
    "ld_guided": hide_blocks,
}


class MaskMixture:
    """The masks of a config, one drawn by weight for each example, and their curriculum.

    Attributes
    ----------
    level
        How often :meth:`add_level` was called; each time raises every part's share of hidden
        sites by ``curriculum.step``, up to ``curriculum.max_rate``.
    """

    def __init__(self, config: MaskConfig) -> None:
        self.config = config
        self.level = 0
        weight = np.array([part.weight for part in config.parts])
        self._share = weight / weight.sum()

    @property
    def needs_blocks(self) -> bool:
        """Whether a mask asks for blocks of linked sites."""
        names = {part.name for part in (*self.config.parts, self.config.validation)}
        return "ld_guided" in names

    def add_level(self) -> None:
        """Make the masks harder by one step."""
        self.level += 1

    def rate(self, part: MaskPart) -> float:
        """The share of sites that a part hides at this level; never below its own ``rate``."""
        curriculum = self.config.curriculum
        raised = min(curriculum.max_rate, part.rate + self.level * curriculum.step)
        return max(part.rate, raised)

    def draw(self, sites: WindowSites, rng: np.random.Generator) -> np.ndarray:
        """Draw a training mask: shape (L,), bool, True where hidden; at least one site is."""
        part = self.draw_part(rng)
        rate = self.rate(part) if part.typed_per_mb is None else _rate_of(part, sites, rng)
        return draw_mask(part.name, sites, rate, rng)

    def draw_part(self, rng: np.random.Generator) -> MaskPart:
        """One of the parts, by weight."""
        return self.config.parts[int(rng.choice(len(self._share), p=self._share))]

    def draw_validation(self, sites: WindowSites, rng: np.random.Generator) -> np.ndarray:
        """Draw a validation mask: shape (L,), bool; the curriculum does not change it."""
        part = self.config.validation
        rate = part.rate if part.typed_per_mb is None else _rate_of(part, sites, rng)
        return draw_mask(part.name, sites, rate, rng)


def draw_mask(name: str, sites: WindowSites, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Draw one mask.

    Parameters
    ----------
    name
        A key of ``MASKS``.
    sites
        L >= 1 sites.
    rate
        Share to hide, in [0, 1]; at least one site is hidden, so that there is something to learn.
    rng
        Source of every draw.

    Returns
    -------
    Shape (L,), bool, True where hidden: ``max(1, round(rate * L))`` sites, about as many for
    "ld_guided".
    """
    num_hidden = min(len(sites), max(1, round(rate * len(sites))))
    return MASKS[name](sites, num_hidden, rng)


def _rate_of(part: MaskPart, sites: WindowSites, rng: np.random.Generator) -> float:
    """The share to hide so that a number of sites in a Mb stays typed, drawn from the part's range.

    The number is uniform on a logarithmic scale. Two sites stay, and half of them at most.
    """
    assert part.typed_per_mb is not None
    density = float(np.exp(rng.uniform(*np.log(part.typed_per_mb))))
    span_mb = (int(sites.position_bp[-1]) - int(sites.position_bp[0]) + 1) * 1e-6
    num = len(sites)
    return 1 - min(max(density * span_mb, _MIN_TYPED), num / 2) / num


def linkage_blocks(alleles: np.ndarray, r2: float) -> np.ndarray:
    """Group sites by linkage: connected components of the graph that joins sites of high r2.

    Two sites of different blocks always have an r2 below the threshold. So if a block is hidden, no
    visible site tells that much of its alleles.

    Parameters
    ----------
    alleles
        Shape (L, H), 0 or 1; of more than 20,000 haplotypes, evenly spaced ones are used.
    r2
        Squared correlation from which two sites are linked, in [0, 1].

    Returns
    -------
    Shape (L,), int64: block numbers from 0; a site without variation is linked to no other.
    """
    num_haplotypes = alleles.shape[1]
    if num_haplotypes > _MAX_HAPLOTYPES:
        which = np.linspace(0, num_haplotypes - 1, _MAX_HAPLOTYPES).astype(np.int64)
        alleles = alleles[:, which]
    x = alleles.astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    varies = length[:, 0] > 1e-3
    x /= np.maximum(length, 1e-3)
    # Rounding must not bring the r2 of identical sites below 1.
    linked = (x @ x.T) ** 2 >= r2 - 1e-4
    linked &= varies[:, None] & varies
    first, second = np.nonzero(linked)
    graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=linked.shape)
    out: np.ndarray = connected_components(graph, directed=False)[1].astype(np.int64)
    return out


def _chosen(index: np.ndarray, size: int) -> np.ndarray:
    """Booleans of shape (size,), True at ``index``."""
    out = np.zeros(size, bool)
    out[index] = True
    return out
