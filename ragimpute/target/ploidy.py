"""Where each sample of a target is haploid, and the haplotypes that it has in a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ragimpute.contigs import chromosome
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.ploidy import PAR_BUILDS, few_hets_warning, outside, par_regions
from ragimpute.panel.reader import Panel
from ragimpute.sites import Region, some_names
from ragimpute.target.match import Match

_SAMPLES_AT_ONCE = 64
# Ploidy changes at most so often along a male's X, at both ends of each of two regions.
_MOST_CHANGES = 4
# ... and stays so for so many calls at least.
_LASTING_CALLS = 5
# The panel's people are looked at in blocks of sites, and so many alleles in all.
_SITES_AT_ONCE = 1024
_ALLELES_OF_PANEL = 2**28
_LEAST_EXPECTED = 20.0


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


def inbred_samples(alleles: np.ndarray, af: np.ndarray) -> np.ndarray:
    """Which samples are diploid and homozygous wherever they have a genotype.

    Parameters
    ----------
    alleles
        Shape (T, N, 2), int8: 0, 1, -1 missing, -2 haploid fill.
    af
        Shape (T,), in [0, 1]: ALT frequency of the sites in the panel. Samples of which fewer than
        20 heterozygous genotypes are expected are not called inbred.

    Returns
    -------
    Shape (N,), bool.
    """
    same: np.ndarray = (alleles[:, :, 0] == alleles[:, :, 1]).all(axis=0)
    found = np.flatnonzero(same)
    if not len(found):
        return same
    _, expected = _heterozygotes(alleles[:, found], af, np.ones(len(alleles), bool))
    same[found[expected < _LEAST_EXPECTED]] = False
    return same


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


def sexes_of(target: Target, panel: Panel, match: Match, par: str | None) -> np.ndarray:
    """The sexes that genotypes on X and Y tell, for files that have a column for them.

    On X outside the pseudo-autosomal regions males are haploid, and females have about as many
    heterozygotes as the panel lets one expect. Of others, such as males that are written as
    diploid, nothing is said.

    Parameters
    ----------
    target, panel, match, par
        As for :func:`ploidy_warnings`.

    Returns
    -------
    Shape (N,), int64: 1 male, 2 female, 0 not known.
    """
    contig, length = panel.contig, target.contig_length or panel.contig_length
    sex = np.zeros(match.alleles.shape[1], np.int64)
    name = chromosome(contig, {contig: length})
    if name not in ("X", "Y"):
        return sex
    calls = _Calls.of(match.alleles)
    if name == "Y":
        sex[calls.haploid.any(axis=0)] = 1
        return sex
    regions = par_regions(contig, length, par)
    position = panel.sites.position_bp[match.panel_index]
    if not regions and par is None:
        regions = _fitting_regions(contig, position, calls)
    rows = outside(position, regions)
    haploid, mixed = calls.haploid[rows].any(axis=0), calls.mixed(rows)
    if mixed.any() and not regions:
        mixed &= ~calls.in_long_runs()
    sex[haploid & ~mixed] = 1
    hets, expected = _heterozygotes(match.alleles, panel.af[match.panel_index], rows)
    sex[~haploid & (expected >= _LEAST_EXPECTED) & (hets >= expected / 2)] = 2
    return sex


def ploidy_warnings(target: Target, panel: Panel, match: Match, par: str | None) -> list[str]:
    """Lines about samples whose ploidy is not what the contig lets one expect.

    Parameters
    ----------
    target, panel, match
        Genotypes, panel, and the target's rows that are panel sites, at least one.
    par
        As for :func:`ragimpute.panel.ploidy.par_regions`. Without it, on an X of unknown build, the
        regions of the build that fits the ploidy of all samples are taken.
    """
    contig, length = panel.contig, target.contig_length or panel.contig_length
    regions = par_regions(contig, length, par)
    is_x = chromosome(contig, {contig: length}) == "X"
    if not is_x and not (match.alleles[:, :, 1] == -2).any():
        return []
    position = panel.sites.position_bp[match.panel_index]
    calls = _Calls.of(match.alleles)
    if is_x and not regions and par is None:
        regions = _fitting_regions(contig, position, calls)
    rows = outside(position, regions)
    found = []
    mixed = calls.mixed(rows)
    known = bool(regions) or par is not None
    males = np.zeros_like(mixed) if known else mixed & calls.in_long_runs()
    if males.any():
        names = [target.samples[i] for i in np.flatnonzero(males).tolist()]
        found.append(
            f"{len(names):,} samples are diploid in one part of {contig} and haploid in another, "
            f"as males are on a sex chromosome ({some_names(names)}): --par names the "
            "pseudo-autosomal regions, so that ploidy changes there between typed sites, too"
        )
    odd = np.flatnonzero(mixed & ~males).tolist()
    if odd:
        haploid, diploid = calls.haploid[rows].sum(axis=0), calls.diploid[rows].sum(axis=0)
        named = [
            f"{target.samples[i]}: {haploid[i]:,} haploid, {diploid[i]:,} diploid" for i in odd[:3]
        ]
        more = f" and {len(odd) - 3:,} more" if len(odd) > 3 else ""
        where = " outside the pseudo-autosomal regions" if regions else ""
        found.append(
            f"{len(odd):,} samples have haploid and diploid genotypes{where} "
            f"({'; '.join(named)}{more}): they are kept as they are; --par names the regions where "
            "ploidy may change"
        )
    if is_x:
        hets, expected = _heterozygotes(match.alleles, panel.af[match.panel_index], rows)
        line = few_hets_warning(target.samples, hets, expected, contig)
        if line is not None:  # only then is it worth to look at the panel's people
            others = _shares_of_panel(panel, match.panel_index[rows])
            line = few_hets_warning(target.samples, hets, expected, contig, others)
        found += [line] if line else []
    return found


def _shares_of_panel(panel: Panel, sites: np.ndarray) -> np.ndarray:
    """Heterozygotes of the panel's diploid people at some sites, as a share of those expected.

    ``sites`` has shape (T,). Of a large panel some blocks of sites are taken. Shape (n,); n is 0 if
    too few heterozygotes are to be expected.
    """
    stretch = np.unique(np.searchsorted(panel.ploidy_start, sites, side="right") - 1)
    present = np.flatnonzero(panel.ploidy_present[stretch].all(axis=0))
    owner = panel.haplotype_sample[present]
    first = np.flatnonzero(owner[1:] == owner[:-1])  # of two haplotypes of one person
    if not len(first) or not len(sites):
        return np.zeros(0)
    blocks = np.arange(int(sites[0]), int(sites[-1]) + 1, _SITES_AT_ONCE)
    most = max(1, _ALLELES_OF_PANEL // (_SITES_AT_ONCE * panel.num_haplotypes))
    hets, expected = np.zeros(len(first)), 0.0
    for start in blocks[:: -(-len(blocks) // most)].tolist():
        inside = sites[(sites >= start) & (sites < start + _SITES_AT_ONCE)]
        stop = min(start + _SITES_AT_ONCE, panel.num_sites)
        alleles = panel.haplotypes(start, stop).alleles()[inside - start]
        hets += (alleles[:, present[first]] != alleles[:, present[first + 1]]).sum(axis=0)
        af = panel.af[inside].astype(np.float64)
        expected += float((2 * af * (1 - af)).sum())
    return hets / expected if expected >= _LEAST_EXPECTED else np.zeros(0)


def _heterozygotes(
    alleles: np.ndarray, af: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Heterozygotes of each sample in some rows of (T, N, 2), and how many to expect: both (N,)."""
    share = np.where(rows, 2.0 * af * (1.0 - af), 0.0)  # (T,)
    hets, expected = [], []
    for first in range(0, alleles.shape[1], _SAMPLES_AT_ONCE):
        one, other = np.moveaxis(alleles[:, first : first + _SAMPLES_AT_ONCE], 2, 0)
        called = (one >= 0) & (other >= 0)
        hets.append(np.count_nonzero(called & (one != other) & rows[:, None], axis=0))
        expected.append(share @ called)
    return np.concatenate(hets), np.concatenate(expected)


@dataclass(frozen=True)
class _Calls:
    """Where a target has haploid and diploid genotypes, each of shape (T, N), bool."""

    haploid: np.ndarray
    diploid: np.ndarray

    @classmethod
    def of(cls, alleles: np.ndarray) -> _Calls:
        """Those of alleles (T, N, 2)."""
        known, single = alleles[:, :, 0] >= 0, alleles[:, :, 1] == -2
        return cls(known & single, known & (alleles[:, :, 1] >= 0))

    def mixed(self, rows: np.ndarray) -> np.ndarray:
        """Samples with both kinds of genotypes in some of the rows, shape (N,), bool."""
        out: np.ndarray = self.haploid[rows].any(axis=0) & self.diploid[rows].any(axis=0)
        return out

    def in_long_runs(self) -> np.ndarray:
        """Samples whose ploidy changes seldom and lasts, as at the borders of the PAR: (N,)."""
        out = np.ones(self.haploid.shape[1], bool)
        for i in np.flatnonzero(self.mixed(np.ones(len(self.haploid), bool))).tolist():
            calls = self.haploid[self.haploid[:, i] | self.diploid[:, i], i]
            edges = [0, *(np.flatnonzero(np.diff(calls)) + 1).tolist(), len(calls)]
            shortest = int(np.diff(edges).min())
            out[i] = len(edges) <= _MOST_CHANGES + 2 and shortest >= _LASTING_CALLS
        return out


def _fitting_regions(contig: str, position_bp: np.ndarray, calls: _Calls) -> list[Region]:
    """The pseudo-autosomal regions of the build that explains where ploidy changes; or none.

    It must explain most of the samples that have haploid and diploid genotypes: outside the regions
    they have one ploidy, and if that is haploid, none of them is haploid within the regions.
    """
    num_odd = int(calls.mixed(np.ones(len(position_bp), bool)).sum())
    best: list[Region] = []
    fewest = num_odd / 2
    for build in PAR_BUILDS:
        regions = par_regions(contig, None, build)
        rows = outside(position_bp, regions)
        odd = int((calls.mixed(rows) | calls.mixed(~rows)).sum())
        if odd < fewest:
            best, fewest = regions, odd
    return best
