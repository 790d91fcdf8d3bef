"""Typed sites as an array would have them, drawn at random for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.panel.reader import Panel

# MAF / (MAF + .05) as weight gives the frequencies of a real array. On the packaged example 7 % and
# 82 % of the Omni 2.5's sites have a MAF below 1 % and above 5 %; drawn like this, 8 % and 82 %.
_HALF_MAF = 0.05

# A quarter of an array's sites are drawn one from each of equally long stretches, the rest from
# anywhere. The median gap between sites is then .61 of the mean gap; it is .59 for the Omni 2.5,
# and would be .75 if half of the sites were drawn from stretches.
_EVEN_SHARE = 0.25

_MIN_TYPED = 2


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


def draw_stretch(panel: Panel, max_sites: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a stretch [start, stop) of a panel's sites: all, or ``max_sites`` at a random place."""
    start = 0
    if panel.num_sites > max_sites:
        start = int(rng.integers(panel.num_sites - max_sites + 1))
    return start, min(panel.num_sites, start + max_sites)


def draw_length(least: int, most: int, rng: np.random.Generator) -> int:
    """Draw a number of sites between ``least`` and ``most``, uniform on a logarithmic scale."""
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
    # Indels and sites that do not vary are drawn only if the SNPs that vary are too few.
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
    """Indices of the ``count`` largest keys."""
    return np.argsort(-key, kind="stable")[:count]
