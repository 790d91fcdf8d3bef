"""Which sites a training example hides.

A mask is a function of a window's sites, a number of sites to hide and a random generator, chosen
by name: ``random``, ``array_like``, ``maf_guided`` and ``ld_guided``. A config mixes several and
raises the hidden share as training goes on. :func:`draw_array` draws the sites of a whole array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ragimpute.config import MaskConfig, MaskPart
from ragimpute.panel import Panel

# MAF / (MAF + .05) as weight gives the frequencies of a real array. On the packaged example 7 % and
# 82 % of the Omni 2.5's sites have a MAF below 1 % and above 5 %; drawn like this, 8 % and 82 %.
_HALF_MAF = 0.05
# A quarter of an array's sites come one from each of equal stretches, the rest from anywhere: the
# median gap is .61 of the mean one there, and the Omni 2.5's .59; with a half it is .75.
_EVEN_SHARE = 0.25
_MIN_TYPED = 2
# Blocks are found on no more haplotypes than this: 1,020 sites take about a second then.
_MAX_HAPLOTYPES = 20_000


@dataclass(frozen=True)
class WindowSites:
    """What a mask may know of the L sites of a window.

    Attributes
    ----------
    position_bp
        Shape (L,), int, ascending.
    maf
        Shape (L,), float, in [0, 0.5]: the panel's.
    is_snp
        Shape (L,), bool.
    block
        Shape (L,), int: the block of linked sites that each belongs to, see
        :func:`linkage_blocks`; or None where no mask needs them.
    """

    position_bp: np.ndarray
    maf: np.ndarray
    is_snp: np.ndarray
    block: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.position_bp)


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

    Blocks come in random order; one that would take the number of hidden sites farther from
    ``num_hidden`` is passed over. At least one is hidden.
    """
    if sites.block is None:
        raise ValueError("the ld_guided mask needs the blocks of linked sites")
    _, member, size = np.unique(sites.block, return_inverse=True, return_counts=True)
    hidden = np.zeros(len(size), bool)
    total = 0
    for block in rng.permutation(len(size)).tolist():
        # Closer to the goal, or as close, with this block than without?
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
        """The share of sites that a part hides at this level; never below its own."""
        curriculum = self.config.curriculum
        raised = min(curriculum.max_rate, part.rate + self.level * curriculum.step)
        return max(part.rate, raised)

    def draw(self, sites: WindowSites, rng: np.random.Generator) -> np.ndarray:
        """A training mask: hidden sites, shape (L,), bool; one at least."""
        part = self.draw_part(rng)
        return draw_mask(part.name, sites, self.rate(part), rng)

    def draw_part(self, rng: np.random.Generator) -> MaskPart:
        """One of the parts, by weight."""
        return self.config.parts[int(rng.choice(len(self._share), p=self._share))]

    def draw_validation(self, sites: WindowSites, rng: np.random.Generator) -> np.ndarray:
        """A validation mask: shape (L,), bool; the curriculum does not change it."""
        part = self.config.validation
        return draw_mask(part.name, sites, part.rate, rng)


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


def linkage_blocks(alleles: np.ndarray, r2: float) -> np.ndarray:
    """Blocks of sites tied together by linkage: the components of the graph "r2 of at least".

    Two sites of different blocks have a lower r2 than the threshold, so a hidden block leaves no
    proxy of that strength in sight.

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
    # Sites that are each other's copy must count as r2 = 1 in spite of rounding.
    linked = (x @ x.T) ** 2 >= r2 - 1e-4
    linked &= varies[:, None] & varies
    first, second = np.nonzero(linked)
    graph = coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=linked.shape)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def draw_stretch(panel: Panel, max_sites: int, rng: np.random.Generator) -> tuple[int, int]:
    """Sites [start, stop) of a panel: all of them, or ``max_sites`` in a row from anywhere."""
    start = 0
    if panel.num_sites > max_sites:
        start = int(rng.integers(panel.num_sites - max_sites + 1))
    return start, min(panel.num_sites, start + max_sites)


def draw_length(least: int, most: int, rng: np.random.Generator) -> int:
    """A number of sites from ``least`` to ``most``, log-uniform."""
    return min(most, int(np.exp(rng.uniform(np.log(least), np.log(most + 1)))))


def draw_array(
    panel: Panel, start: int, stop: int, density: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the sites that an array types: mostly common SNPs, spread out.

    Parameters
    ----------
    panel
        The panel.
    start, stop
        Its sites to draw from, half-open, not empty.
    density
        Typed sites per Mb, > 0.
    rng
        Source of every draw.

    Returns
    -------
    Panel site indices, ascending, int64: about ``density`` a Mb, at least two where there are two,
    and no more than there are polymorphic SNPs or than half of the sites (but for those two), so
    that there is something left to impute.
    """
    if not 0 <= start < stop <= panel.num_sites or density <= 0:
        raise ValueError(f"sites [{start}, {stop}) of {panel.num_sites}, density {density}")
    sites = panel_sites(panel, start, stop)
    span_mb = (int(sites.position_bp[-1]) - int(sites.position_bp[0]) + 1) * 1e-6
    able = int((sites.is_snp & (sites.maf > 0)).sum())
    count = min(round(density * span_mb), able, len(sites) // 2)
    count = min(len(sites), max(_MIN_TYPED, count))
    return start + np.sort(_array_sites(sites, count, rng))


def panel_sites(
    panel: Panel, start: int, stop: int, *, block: np.ndarray | None = None
) -> WindowSites:
    """What masks may know of the panel sites [start, stop)."""
    af = panel.af[start:stop]
    return WindowSites(
        position_bp=panel.sites.position_bp[start:stop],
        maf=np.minimum(af, 1 - af),
        is_snp=panel.site_type[start:stop] == panel.site_types.index("SNP"),
        block=block,
    )


def _array_sites(sites: WindowSites, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sites that an array of ``count`` sites types, shape (count,), int64, in no order."""
    weight = sites.maf / (sites.maf + _HALF_MAF)
    # Anything else than a SNP, or a site that does not vary, only where there is nothing better.
    weight = np.where(sites.is_snp & (sites.maf > 0), weight, 1e-12 * (1 + weight))
    # The largest of log weight + Gumbel noise is a draw in proportion to the weights.
    key = np.log(weight) + rng.gumbel(size=len(sites))
    num_stretches = round(_EVEN_SHARE * count)
    chosen = np.zeros(0, np.int64)
    if num_stretches > 0:
        at = sites.position_bp.astype(np.float64)
        stretch = (at - at[0] + rng.random()) / (at[-1] - at[0] + 1) * num_stretches
        stretch = np.minimum(stretch.astype(np.int64), num_stretches - 1)
        order = np.lexsort((-key, stretch))
        chosen = order[np.flatnonzero(np.diff(stretch[order], prepend=-1))]
        key[chosen] = -np.inf
    return np.concatenate([chosen, _largest(key, count - len(chosen))])


def _largest(key: np.ndarray, count: int) -> np.ndarray:
    """Places of the ``count`` largest keys."""
    return np.argsort(-key, kind="stable")[:count]


def _chosen(index: np.ndarray, size: int) -> np.ndarray:
    """Booleans of shape (size,), True at ``index``."""
    out = np.zeros(size, bool)
    out[index] = True
    return out
