"""Measure how long the stretch is that carriers of an allele share around it.

Carriers of a young allele inherited the stretch around it from a recent ancestor, so they agree far
to both sides. Carriers of an old allele, or of one that arose twice, agree only for short
stretches. If a target's match with a carrier is shorter than the carriers' matches with each other,
the target is less likely to carry the allele.
"""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

import numpy as np

from ragimpute.copying.carriers import SiteCarriers
from ragimpute.copying.window import Window
from ragimpute.evidence.features import SHARING, SHARING_FEATURES
from ragimpute.kernels.bits import WORD, leading_zeros, trailing_zeros
from ragimpute.kernels.compile import inlined, kernel
from ragimpute.runtime.threads import run_parts

# At most so many carriers are compared, each with each. If a site has more, those with the lowest
# signatures are taken: a random choice that depends on alleles only.
_MOST_CARRIERS = 8
# A match is followed for at most so many cM to either side.
_MOST_CM = 2.0


class AlleleSharing:
    """How far the carriers of each site's minor allele agree at the typed sites around it.

    A site is measured when it is first asked for, and its features are kept: in a large panel few
    sites are ever in doubt. Several threads may ask at the same time.

    Parameters
    ----------
    window
        The panel. Any of its M sites may be asked for, not only those of its core.
    threads
        Number of threads that the sites to measure are divided among.
    """

    def __init__(self, window: Window, *, threads: int = 1) -> None:
        self._window, self._threads = window, threads
        order = np.argsort(window.signature, kind="stable").astype(np.int32)
        rank = np.empty(len(order), np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        self._order, self._rank = order, rank
        self._known = np.zeros(window.num_sites, bool)
        self._out = np.zeros((window.num_sites, len(SHARING_FEATURES)), np.float32)
        self._lock = Lock()

    def __getitem__(self, sites: np.ndarray) -> np.ndarray:
        """Features of ``sites``, shape (n,): shape (n, len(SHARING_FEATURES)), float32, finite.

        To either side, a match ends at the first typed site at which the two carriers differ, at
        the last typed site of the window, or after 2 cM. The order of the panel's haplotypes does
        not matter.
        """
        with self._lock:
            new = np.unique(sites[~self._known[sites]])
            if len(new):
                self._measure(new)
                self._known[new] = True
        out: np.ndarray = self._out[sites]
        return out

    def _measure(self, sites: np.ndarray) -> None:
        """Measure ``sites``, which are ascending, and fill their rows."""
        window, typed = self._window, self._window.typed
        if not typed.num_typed:
            return
        panel = SharingPanel(
            window.carriers(), typed.rows, typed.position_cm,
            np.asarray(window.position_cm, np.float64), self._order, self._rank,
        )  # fmt: skip
        left = np.searchsorted(window.typed_index, sites)

        def run(part: range) -> None:
            here = slice(part.start, part.stop, part.step)
            which, before = np.ascontiguousarray(sites[here]), np.ascontiguousarray(left[here])
            found = np.empty(_MOST_CARRIERS, np.int32)
            best = np.empty((2, _MOST_CARRIERS), np.float64)
            _share(panel, which, before, found, best, self._out)

        run_parts(run, len(sites), self._threads)


class SharingPanel(NamedTuple):
    """A window of the panel, to compare the carriers of its sites with each other.

    Attributes
    ----------
    minor
        Who has the minor allele of each site.
    rows
        Shape (H, W), uint32: typed alleles by haplotype.
    typed_cm, position_cm
        Shapes (T,) and (M,), float64: positions of the typed sites, and of all sites.
    order, rank
        Shape (H,): the haplotypes in the order in which carriers are chosen, and each one's place
        in it.
    """

    minor: SiteCarriers
    rows: np.ndarray
    typed_cm: np.ndarray
    position_cm: np.ndarray
    order: np.ndarray
    rank: np.ndarray


@inlined
def _chosen(site, panel, found):
    """Put the carriers of lowest rank into ``found``, as many as fit; returns their number."""
    minor, rank = panel.minor, panel.rank
    most, num = found.shape[0], 0
    if minor.row[site] >= 0:
        for i in range(panel.order.shape[0]):
            h = panel.order[i]
            if (minor.bits[minor.row[site], h >> 6] >> np.uint64(h & 63)) & np.uint64(1):
                found[num] = h
                num += 1
                if num == most:
                    break
        return num
    for i in range(minor.offsets[site], minor.offsets[site + 1]):
        h = minor.carriers[i]
        if num == most and rank[h] > rank[found[num - 1]]:
            continue
        at = min(num, most - 1)
        while at > 0 and rank[found[at - 1]] > rank[h]:
            found[at] = found[at - 1]
            at -= 1
        found[at] = h
        num = min(num + 1, most)
    return num


@inlined
def _differs_left(a, b, stop, least):
    """The last typed site in [least, stop) at which rows a and b differ, or ``least - 1``."""
    word = (stop - 1) // WORD
    while word >= 0 and (word + 1) * WORD > least:
        differ = np.uint32(a[word] ^ b[word])
        if (word + 1) * WORD > stop:
            differ &= np.uint32((np.uint64(1) << np.uint64(stop - word * WORD)) - np.uint64(1))
        if differ:
            at = WORD - 1 - np.int64(leading_zeros(differ))
            return max(word * WORD + at, least - 1)
        word -= 1
    return least - 1


@inlined
def _differs_right(a, b, start, stop):
    """The first typed site in [start, stop) at which rows a and b differ, or ``stop``."""
    word = start // WORD
    while word * WORD < stop:
        differ = np.uint32(a[word] ^ b[word])
        if word * WORD < start:
            differ &= np.uint32(0xFFFFFFFF) << np.uint32(start - word * WORD)
        if differ:
            return min(word * WORD + np.int64(trailing_zeros(differ)), stop)
        word += 1
    return stop


@kernel
def _share(panel, which, left, found, best, out):
    """Write the features of the sites ``which`` (n,), ascending, into their rows of ``out``.

    ``left`` (n,): the number of typed sites before each site. ``found`` and ``best`` are buffers
    for the carriers of one site, and for the longest matches of each.
    """
    rows, typed_cm = panel.rows, panel.typed_cm
    num_typed = typed_cm.shape[0]
    # Typed sites [least, most) are those within the largest distance of the site.
    least, most = 0, 0
    for n in range(which.shape[0]):
        site = which[n]
        cm = panel.position_cm[site]
        while least < num_typed and typed_cm[least] < cm - _MOST_CM:
            least += 1
        while most < num_typed and typed_cm[most] <= cm + _MOST_CM:
            most += 1
        num = _chosen(site, panel, found)
        if num < 2:
            continue
        for i in range(num):
            best[0, i] = 0.0
            best[1, i] = 0.0
        for i in range(num - 1):
            for j in range(i + 1, num):
                a, b = rows[found[i]], rows[found[j]]
                low = _differs_left(a, b, left[n], least)
                high = _differs_right(a, b, left[n], most)
                # Lengths end at typed sites: beyond the last one nothing is known.
                from_cm = typed_cm[max(low, 0)]
                to_cm = typed_cm[min(high, num_typed - 1)]
                length = max(0.0, cm - max(from_cm, cm - _MOST_CM))
                length += max(0.0, min(to_cm, cm + _MOST_CM) - cm)
                sites = float(high - low - 1)
                for k in (i, j):
                    best[0, k] = max(best[0, k], length)
                    best[1, k] = max(best[1, k], sites)
        mean, shortest, of_sites = 0.0, np.inf, 0.0
        for i in range(num):
            length = np.log(best[0, i] + 1e-3)
            mean += length
            shortest = min(shortest, length)
            of_sites += np.log(1.0 + best[1, i])
        out[site, SHARING.sharing] = mean / num
        out[site, SHARING.sharing_least] = shortest
        out[site, SHARING.sharing_sites] = of_sites / num
