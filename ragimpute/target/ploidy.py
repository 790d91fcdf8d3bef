"""Where each sample of a target is haploid, and the haplotypes that it has in a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.ploidy import par_regions
from ragimpute.panel.reader import Panel
from ragimpute.target.match import Match

_SAMPLES_AT_ONCE = 64


class TargetPloidy:
    """Where each sample is haploid.

    The number of alleles of a genotype tells the ploidy, unless both are missing: missing genotypes
    of males are written "./." as often as ".". Between two typed sites the ploidy is that of the
    first, or, behind a border that lies between them, that of the second.

    Parameters
    ----------
    panel_index
        Shape (T,), int64, ascending: panel sites that are typed.
    alleles
        Shape (T, N, 2), int8: 0, 1, -1 missing, -2 haploid fill.
    borders
        Panel sites at which the ploidy is expected to change: the first behind each border of a
        pseudo-autosomal region.
    """

    def __init__(
        self, panel_index: np.ndarray, alleles: np.ndarray, borders: Sequence[int] = ()
    ) -> None:
        self._panel_index = panel_index
        self._num_samples = alleles.shape[1]
        self._borders = np.array(sorted(borders), dtype=np.int64)
        self._haploid: np.ndarray | None = None  # (T, N) bool; None: all are diploid
        if (alleles[:, :, 1] == -2).any():
            place = np.searchsorted(self._borders, panel_index, side="right")
            self._haploid = _filled(alleles, np.flatnonzero(np.diff(place)) + 1)

    def haploid(self, start: int, stop: int) -> np.ndarray:
        """Which samples are haploid at the panel sites [start, stop), shape (m, N), bool."""
        if self._haploid is None:
            return np.zeros((stop - start, self._num_samples), bool)
        site = np.arange(start, stop)
        last = len(self._panel_index) - 1
        row = np.searchsorted(self._panel_index, site, side="right") - 1
        after = np.minimum(row + 1, last)
        row = np.maximum(row, 0)
        # The first border behind the typed site that precedes each site. It counts if it lies no
        # farther than the next typed site.
        place = np.searchsorted(self._borders, self._panel_index[row], side="right")
        border = np.append(self._borders, np.iinfo(np.int64).max)[place]
        behind = (border <= site) & (border <= self._panel_index[after])
        return self._haploid[np.where(behind, after, row)]


def _filled(alleles: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Haploid or not at each typed site, shape (T, N).

    A sample whose genotype is missing at a site is as at the last typed site before that has one,
    or else as at the next one. Sites on the same side of the borders are preferred, if any has a
    genotype; ``cuts`` are the typed sites that follow a border.
    """
    num_typed, num_samples, _ = alleles.shape
    haploid = np.zeros((num_typed, num_samples), bool)
    haploid[alleles[:, :, 1] == -2] = True
    edges = [0, *cuts.tolist(), num_typed]
    for first in range(0, num_samples, _SAMPLES_AT_ONCE):
        part = slice(first, first + _SAMPLES_AT_ONCE)
        known = (alleles[:, part] >= 0).any(axis=2)
        # Of a sample without any genotype, only the haploid fill can tell.
        known = np.logical_or(known, ~known.any(axis=0))
        source = _nearest(known)
        for start, stop in pairwise(edges):
            here = known[start:stop]
            there = here.any(axis=0)
            source[start:stop, there] = start + _nearest(here[:, there])
        haploid[:, part] = np.take_along_axis(haploid[:, part], source, axis=0)
    return haploid


def _nearest(known: np.ndarray) -> np.ndarray:
    """For each entry of (T, n) the last known row up to it, or else the first known row."""
    row = np.arange(len(known))[:, None]
    source = np.maximum.accumulate(np.where(known, row, -1), axis=0)
    return np.where(source < 0, known.argmax(axis=0), source)


@dataclass(frozen=True)
class Columns:
    """The haplotypes of a target in a window, one a column.

    Attributes
    ----------
    haploid
        Shape (m, N), bool: which samples are haploid at each site of the window's core.
    present
        Shape (N, 2), bool: which haplotypes exist at one of these sites or more.
    sample
        Shape (n,), int: the sample of each haplotype that exists, ascending.
    alleles
        Shape (T, n), int8: 0, 1, or -1 where nothing was observed, at the window's typed sites.
    """

    haploid: np.ndarray
    present: np.ndarray
    sample: np.ndarray
    alleles: np.ndarray

    @classmethod
    def of(cls, alleles: np.ndarray, haploid: np.ndarray) -> Columns:
        """Make columns of ``alleles`` (T, N, 2); ``haploid`` (m, N) is of the window's core."""
        present = np.ones((haploid.shape[1], 2), bool)
        if len(haploid):
            present[:, 1] = ~haploid.all(axis=0)
        chosen = np.ascontiguousarray(alleles[:, present])
        chosen[chosen == -2] = -1
        return cls(haploid, present, np.nonzero(present)[0], chosen)

    @property
    def num(self) -> int:
        """How many haplotypes there are, n."""
        return len(self.sample)

    @property
    def observed(self) -> np.ndarray:
        """Shape (n,), bool: haplotypes with an allele at some typed site of the window."""
        return np.asarray((self.alleles >= 0).any(axis=0))

    def absent(self, rows: slice) -> np.ndarray | None:
        """Which columns do not exist at which of the core's sites ``rows``: (m, n), bool.

        None if all exist everywhere.
        """
        haploid = self.haploid[rows]
        if not (haploid.any(axis=0) & self.present[:, 1]).any():
            return None
        second = np.nonzero(self.present)[1] == 1
        out: np.ndarray | None = haploid[:, self.sample] & second
        return out

    def restore(self, values: np.ndarray, rows: slice, fill: float) -> np.ndarray:
        """Put values (m, n) of the core's sites ``rows`` into an array (m, N, 2).

        The second haplotype of a haploid sample gets ``fill``.
        """
        haploid = self.haploid[rows]
        if self.present.all():
            full = values.reshape(len(values), *self.present.shape)
            if haploid.any():
                full = full.copy()
        else:
            full = np.full((len(values), *self.present.shape), fill, dtype=values.dtype)
            full[:, self.present] = values
        if haploid.any():
            full[:, :, 1][haploid] = fill
        return full


def ploidy_of(target: Target, panel: Panel, match: Match, par: str | None) -> TargetPloidy:
    """Find where the target's samples are haploid; ``par`` is as for :func:`par_regions`."""
    length = target.contig_length or panel.contig_length
    edges = [x for r in par_regions(panel.contig, length, par) for x in (r.start_bp, r.stop_bp)]
    borders = np.searchsorted(panel.sites.position_bp, edges).tolist()
    borders += panel.ploidy_start[1:].tolist()
    return TargetPloidy(match.panel_index, match.alleles, sorted(set(borders)))
