"""How thoroughly a sample is imputed, and the stretches into which its chromosome is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ragimpute.kernels.bits import WORD
from ragimpute.likelihoods.patterns import PATTERNS_FROM

# In a stretch the copied haplotype changes about so often if reads tell all genotypes, and more
# often the less they tell, within two bounds.
_SWITCHES, _FEWEST_SWITCHES, _MOST_SWITCHES = 4.0, 5.0, 80.0
# Reads that tell more than this share need fewer states at most, but never fewer than so many: with
# 600 states instead of 288, 1 - r2 at 0.1x is 1 % lower, and that at 0.5x the same.
_TELLS_LITTLE, _LEAST_MOST = 0.03, 288
# In large panels, the share of the posterior that is left out, times the number of haplotypes.
_LEFT_OUT = 20.0
# Flanks, in stretches.
_FLANK = 0.2


@dataclass(frozen=True)
class PairSettings:
    """How many states are paired, and how far they reach.

    Attributes
    ----------
    left_out
        So many states are paired that those left out have at most this share of the posterior.
    least, most
        Numbers of states, multiples of 16.
    rough
        How many states are paired at first, to find a likely pair; a multiple of 16.
    pair_steps
        Pairs of states times steps in a stretch is at most about this; it bounds the time. If
        ``stretch_cm`` is None, it is for the shortest stretches, and grows with their length.
    stretch_cm
        States are chosen for stretches of about this length, in cM, with a flank of a fifth on
        each side; None: by what a sample's reads tell.
    anywhere
        Whether states come first that are likely in any place, not on the whole, too.
    """

    left_out: float = 0.01
    least: int = 96
    most: int = 608
    rough: int = 96
    pair_steps: float = 1.5e8
    stretch_cm: float | None = None
    anywhere: bool = False

    def for_panel(self, num_haplotypes: int) -> PairSettings:
        """The settings for a panel of so many haplotypes, which are others if it is large."""
        if num_haplotypes < PATTERNS_FROM:
            return self
        # What is left out is shared by many states, each of which matters somewhere. Of 20,000
        # simulated haplotypes 1 - r2 falls from .0063 to .0040 at 0.1x.
        return replace(self, left_out=min(self.left_out, _LEFT_OUT / num_haplotypes), anywhere=True)

    def by_reads(self, told: float, switch_rate: float) -> PairSettings:
        """The settings with stretches for a sample, if these are not given.

        Where reads tell little, they must be looked at in long stretches. Where they tell much,
        a short stretch has fewer likely states. With 3.5 switches per cM and the sites of
        600 Europeans stretches are about 23 cM long at 0.1x, 4 cM at 1x and 1.5 cM at 4x.

        Parameters
        ----------
        told
            Share of what there is to know of genotypes that the reads tell, in [0, 1]; see
            :func:`ragimpute.likelihoods.model.share_told`.
        switch_rate
            Changes of the copied haplotype per cM of a sample with one read a site, > 0.
        """
        if self.stretch_cm is not None:
            return self
        switches = min(max(_SWITCHES / max(told, 1e-9), _FEWEST_SWITCHES), _MOST_SWITCHES)
        steps = self.pair_steps * switches / _FEWEST_SWITCHES
        most = int(min(self.most, max(_LEAST_MOST, self.most * _TELLS_LITTLE / max(told, 1e-9))))
        return replace(self, stretch_cm=switches / switch_rate, pair_steps=steps, most=most)


class Stretch(NamedTuple):
    """Sites [low, high) that are imputed, and [first, stop) that are read; 32 divides ``first``."""

    first: int
    stop: int
    low: int
    high: int


def stretches(position_cm: np.ndarray, settings: PairSettings) -> list[Stretch]:
    """Cut a chromosome into stretches of about the same genetic length; one if none is given."""
    num_sites = len(position_cm)
    length = float(position_cm[-1] - position_cm[0]) if num_sites else 0.0
    stretch_cm = length if settings.stretch_cm is None else settings.stretch_cm
    num = max(1, round(length / stretch_cm)) if stretch_cm > 0 else 1
    flank = _FLANK * stretch_cm
    edges = position_cm[0] + length * np.arange(num + 1) / num if num_sites else np.zeros(2)
    cuts = np.searchsorted(position_cm, edges)
    cuts[0], cuts[-1] = 0, num_sites
    out = []
    for low, high in pairwise(cuts.tolist()):
        if low == high:
            continue
        first = np.searchsorted(position_cm, position_cm[low] - flank)
        stop = np.searchsorted(position_cm, position_cm[high - 1] + flank, "right")
        out.append(Stretch(int(first) // WORD * WORD, int(stop), low, high))
    return out
