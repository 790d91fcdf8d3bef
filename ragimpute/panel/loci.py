"""Panel sites that are ALTs of one place, of which a haplotype can carry one at most.

A panel has a site for each ALT. Sites of one position and REF form a *locus* if no haplotype of the
panel carries the ALTs of two of them: then no target haplotype can either. An insertion behind a
base and a substitution of this base may be spelled with the same position and REF, and still be on
one haplotype; the panel's haplotypes tell which sites exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ragimpute.panel.haplotypes import Haplotypes
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelView
from ragimpute.sites import Sites

_ALLELES_AT_ONCE = 2**24
# Groups of sites that are no farther apart than this are read together.
_NEAR = 4096


@dataclass(frozen=True)
class Loci:
    """Sites that exclude each other, in groups.

    Attributes
    ----------
    site
        Shape (S,), int64: the sites of all groups, those of a group next to each other, ascending.
    offsets
        Shape (G + 1,), int64: the first of each group's sites in ``site``, and the end.
    """

    site: np.ndarray
    offsets: np.ndarray

    @classmethod
    def none(cls) -> Loci:
        """No group."""
        return cls(np.zeros(0, np.int64), np.zeros(1, np.int64))

    @classmethod
    def of(cls, groups: list[list[int]]) -> Loci:
        """Groups of two sites or more."""
        if not groups:
            return cls.none()
        sizes = [len(group) for group in groups]
        return cls(np.concatenate([np.array(g, np.int64) for g in groups]), np.cumsum([0, *sizes]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[np.ndarray]:
        """The sites of each group."""
        for start, stop in pairwise(self.offsets.tolist()):
            yield self.site[start:stop]

    def take(self, which: np.ndarray) -> Loci:
        """Some of the groups: ``which`` has shape (G,), bool."""
        sizes = np.diff(self.offsets)
        ends = np.cumsum(sizes[which])
        return Loci(self.site[np.repeat(which, sizes)], np.concatenate([[0], ends]))

    def between(self, start: int, stop: int) -> Loci:
        """The groups within [start, stop), their sites counted from ``start``."""
        if not len(self):
            return self
        first, last = self.site[self.offsets[:-1]], self.site[self.offsets[1:] - 1]
        found = self.take((first >= start) & (last < stop))
        return Loci(found.site - start, found.offsets)

    def numbers(self, num_sites: int, *, most: int) -> np.ndarray:
        """The number of each site's group, shape (m,), int64; -1 where it is in none.

        Groups of more than ``most`` sites count as none.
        """
        out = np.full(num_sites, -1, np.int64)
        sizes = np.diff(self.offsets)
        out[self.site] = np.repeat(np.where(sizes > most, -1, np.arange(len(self))), sizes)
        return out

    def by_size(self) -> Iterator[np.ndarray]:
        """The groups of each size: shape (groups, size)."""
        sizes = np.diff(self.offsets)
        for size in sorted(set(sizes.tolist())):
            first = self.offsets[:-1][sizes == size]
            yield self.site[first[:, None] + np.arange(size)]


def sites_of_one_ref(sites: Sites, index: np.ndarray | None = None) -> Loci:
    """The groups of two or more sites that share position and REF.

    Parameters
    ----------
    sites
        Sorted by position.
    index
        Shape (k,), int, ascending: only these of the sites; None: all.
    """
    at = sites.position_bp if index is None else sites.position_bp[index]
    same = at[1:] == at[:-1]
    if not same.any():
        return Loci.none()
    shared = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
    number = shared if index is None else index[shared]
    groups: dict[tuple[int, str], list[int]] = {}
    for i, place, ref in zip(
        number.tolist(), at[shared].tolist(), sites.ref[number].tolist(), strict=True
    ):
        groups.setdefault((place, ref.upper()), []).append(i)
    return Loci.of([group for group in groups.values() if len(group) > 1])


def exclusive(groups: Loci, haplotypes: Haplotypes, start: int) -> Loci:
    """Those groups of whose sites no haplotype carries two ALTs.

    Of a group of three sites or more, those are left out that share haplotypes with most others,
    until no two are left that do.

    Parameters
    ----------
    groups
        Panel sites.
    haplotypes
        Of the panel sites from ``start`` on.
    """
    kept = np.zeros(len(groups), bool)
    mended: dict[int, list[int]] = {}
    step = max(1, _ALLELES_AT_ONCE // max(1, haplotypes.num_haplotypes))
    first = 0
    while first < len(groups):
        base = int(groups.offsets[first])
        last = int(np.searchsorted(groups.offsets, base + step, side="right")) - 1
        last = min(max(first + 1, last), len(groups))
        part = slice(base, int(groups.offsets[last]))
        alleles = haplotypes.alleles(groups.site[part] - start)
        count = np.add.reduceat(alleles, groups.offsets[first:last] - base, axis=0)
        kept[first:last] = (count <= 1).all(axis=1)
        for i in (first + np.flatnonzero(~kept[first:last])).tolist():
            rows = slice(int(groups.offsets[i]) - base, int(groups.offsets[i + 1]) - base)
            mended[i] = _compatible(groups.site[part][rows], alleles[rows])
        first = last
    if not mended:
        return groups
    found = [mended.get(i, group.tolist()) for i, group in enumerate(groups)]
    return Loci.of([group for group in found if len(group) > 1])


def _compatible(site: np.ndarray, alleles: np.ndarray) -> list[int]:
    """Those of k sites of which no haplotype of ``alleles`` (k, H) carries two."""
    carriers = alleles.astype(np.int32)
    shared = carriers @ carriers.T > 0  # (k, k)
    np.fill_diagonal(shared, False)
    left = list(range(len(site)))
    while shared[np.ix_(left, left)].any():
        left.pop(int(shared[np.ix_(left, left)].sum(axis=1).argmax()))
    return site[left].tolist()  # type: ignore[no-any-return]


def loci_of(panel: Panel, groups: Loci) -> Loci:
    """Those of the groups of panel sites that are loci, by the panel's haplotypes.

    Only the parts of the panel are read in which there is a group.

    Raises
    ------
    PanelError
        If the panel is damaged there.
    """
    found: list[list[int]] = []
    waiting: list[list[int]] = []

    def ask() -> None:
        start, stop = waiting[0][0], waiting[-1][-1] + 1
        stop = max(stop, *(group[-1] + 1 for group in waiting))
        some = exclusive(Loci.of(waiting), panel.haplotypes(start, stop), start)
        found.extend(group.tolist() for group in some)
        waiting.clear()

    for group in groups:
        if waiting and (
            group[0] - waiting[-1][-1] > _NEAR or group[-1] - waiting[0][0] > 4 * _NEAR
        ):
            ask()
        waiting.append(group.tolist())
    if waiting:
        ask()
    return Loci.of(found)


class PanelLoci(PanelView):
    """A panel that finds the loci of a stretch when its haplotypes are read for another purpose.

    Parameters
    ----------
    whole
        The panel.
    """

    def __init__(self, whole: Panel) -> None:
        super().__init__(whole)
        self._wanted = Loci.none()
        self._found: Loci | None = Loci.none()
        self._stretch = (0, 0)

    def want(self, start: int, stop: int) -> None:
        """Announce that the loci among the sites [start, stop) will be asked for."""
        self._stretch = (start, stop)
        self._wanted = sites_of_one_ref(self._whole.sites, np.arange(start, stop))
        self._found = None if len(self._wanted) else Loci.none()

    def wanted(self) -> Loci:
        """The loci that were announced, their sites counted from the panel's first one.

        Their part of the panel is read if it was not yet.
        """
        if self._found is None:
            self._found = loci_of(self._whole, self._wanted)
        return self._found

    def loci_between(self, start: int, stop: int) -> Loci:
        """See :meth:`ragimpute.panel.reader.Panel.loci_between`."""
        if (start, stop) == self._stretch:
            return self.wanted()
        return super().loci_between(start, stop)

    def know_loci(self, start: int, stop: int, loci: Loci) -> None:
        """See :meth:`ragimpute.panel.reader.Panel.know_loci`."""
        if (start, stop) == self._stretch:
            self._found = loci

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`ragimpute.panel.reader.Panel.haplotypes`."""
        read = self._whole.haplotypes(start, stop)
        site = self._wanted.site
        if self._found is None and start <= site.min() and site.max() < stop:
            self._found = exclusive(self._wanted, read, start)
        return read
