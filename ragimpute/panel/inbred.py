"""Find the inbred lines of a panel: samples that are homozygous nearly everywhere."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ragimpute.panel.haplotypes import haplotype_columns
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelDraw

# The panel is read in blocks of so many sites. In most panels the first block tells, which has only
# as many sites as it takes to expect enough heterozygotes.
_SITES_AT_ONCE = 1024
# Where fewer heterozygotes of a sample are expected, that there are none says nothing.
_LEAST_EXPECTED = 20.0
# Inbred lines have at most this share of the expected heterozygotes: of 363 rice lines 354 have
# less than a hundredth, and they are errors or left from the last crosses. While only part of the
# panel is read, samples with up to _MOST_SO_FAR of them stay in the race.
_MOST_HETS, _MOST_SO_FAR = 0.01, 0.1
# In panels of more than so many samples, a few are looked at first: most panels have no lines.
_MANY_SAMPLES, _FEW_SAMPLES = 16_384, 4096
# Alleles of samples that are unpacked at once.
_ALLELES_AT_ONCE = 1 << 24


def second_haplotypes(panel: Panel, start: int, stop: int) -> np.ndarray:
    """Which haplotypes are as good as repeats of the other one of their sample.

    Parameters
    ----------
    panel
        The panel, or a part of it. The haplotypes of a sample are next to each other.
    start, stop
        The sites [start, stop) that will be read.

    Returns
    -------
    Shape (H,), bool: the second haplotypes of inbred samples, which are heterozygous at a hundredth
    of the sites at which they were expected to be, or fewer. None if these are fewer than half
    of the samples that have two haplotypes, or if fewer than 20 heterozygous sites are expected.
    """
    of = panel.haplotype_sample
    none = np.zeros(len(of), bool)
    second = np.flatnonzero(of[1:] == of[:-1]) + 1
    af = panel.af[start:stop].astype(np.float64)
    expected = np.cumsum(2 * af * (1 - af))
    if len(second) == 0 or len(expected) == 0 or expected[-1] < _LEAST_EXPECTED:
        return none
    hets = np.zeros(len(second), np.int64)
    begin = min(_SITES_AT_ONCE, 1 + int(np.searchsorted(expected, 2 * _LEAST_EXPECTED)))
    edges = [start, *range(min(start + begin, stop), stop, _SITES_AT_ONCE), stop]
    if len(second) > _MANY_SAMPLES:
        # Half of these would be inbred, too.
        few = second[np.linspace(0, len(second) - 1, _FEW_SAMPLES).astype(int)]
        some = np.zeros(len(of), bool)
        some[few] = some[few - 1] = True
        if not second_haplotypes(PanelDraw(panel, some), start, stop).any():
            return none
    for first, last in pairwise(edges):
        haplotypes = panel.haplotypes(first, last)
        step = max(1, _ALLELES_AT_ONCE // max(1, last - first))
        for low in range(0, len(second), step):
            here = second[low : low + step]
            pair = haplotype_columns(haplotypes, np.stack([here - 1, here], axis=1).ravel())
            hets[low : low + step] += (pair[0::2] != pair[1::2]).sum(axis=1)
        so_far = max(_LEAST_EXPECTED, float(expected[last - start - 1]))
        if 2 * (hets <= _MOST_SO_FAR * so_far).sum() < len(second):
            return none
    inbred = hets <= _MOST_HETS * expected[-1]
    if 2 * inbred.sum() < len(second):
        return none
    out = none
    out[second[inbred]] = True
    return out
