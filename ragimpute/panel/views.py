"""Views of a panel: one that lacks some haplotypes, one that has some sites read in advance.

A view holds the panel that it looks at. It passes on every question but those that it answers
differently, so that it can be used wherever a panel can.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.panel.compact import CompactHaplotypes, join_sites
from ragimpute.panel.haplotypes import Haplotypes, drawing_order, keep_haplotypes
from ragimpute.panel.reader import Panel
from ragimpute.runtime.threads import Task
from ragimpute.runtime.threads import start as begin

if TYPE_CHECKING:
    from ragimpute.panel.loci import Loci

# A panel of which some haplotypes are drawn is read in pieces that would take so many bytes.
_COMPACT_BYTES = 1 << 28


class PanelView(Panel):
    """A panel that asks another one; its subclasses change some of the answers.

    Parameters
    ----------
    whole
        The panel that is asked.
    """

    def __init__(self, whole: Panel) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        """Attributes that the view has not: those of the whole panel."""
        if name == "_whole":  # not set yet, while a copy of the view is being made
            raise AttributeError(name)
        return getattr(self._whole, name)

    def close(self) -> None:
        """See :meth:`Panel.close`: the whole panel is closed."""
        self._whole.close()

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        return self._whole.haplotypes(start, stop)

    def compact(self, start: int, stop: int) -> CompactHaplotypes:
        """See :meth:`Panel.compact`."""
        return self._whole.compact(start, stop)

    def loci_between(self, start: int, stop: int) -> Loci:
        """See :meth:`Panel.loci_between`: those of all of the panel's haplotypes."""
        return self._whole.loci_between(start, stop)

    def know_loci(self, start: int, stop: int, loci: Loci) -> None:
        """See :meth:`Panel.know_loci`."""
        self._whole.know_loci(start, stop, loci)

    def will_read(self, stretches: Collection[tuple[int, int]]) -> None:
        """See :meth:`Panel.will_read`."""
        self._whole.will_read(stretches)

    def bytes_per_site(self, *, compact: bool = False) -> float:
        """See :meth:`Panel.bytes_per_site`: those of the whole panel, which are read at first."""
        return self._whole.bytes_per_site(compact=compact)

    def af_population(self, start: int, stop: int) -> np.ndarray:
        """See :meth:`Panel.af_population`: that of all of the panel's haplotypes."""
        return self._whole.af_population(start, stop)

    def genotype_freq(self, start: int, stop: int) -> np.ndarray:
        """See :meth:`Panel.genotype_freq`: that of all of the panel's samples."""
        return self._whole.genotype_freq(start, stop)

    def verify(self) -> None:
        """See :meth:`Panel.verify`."""
        self._whole.verify()


def _signatures(names: list[str]) -> np.ndarray:
    """A number for each name: shape (n,), uint64."""
    data = "\n".join(names).encode() + b"\n"
    octets = np.frombuffer(data, np.uint8)
    start = np.concatenate([[0], np.flatnonzero(octets == ord("\n"))[:-1] + 1])
    place = np.arange(len(octets)) - np.repeat(start, np.diff(start, append=len(octets)))
    factors = np.random.default_rng(0).integers(1, 2**63, int(place.max()) + 1, dtype=np.uint64)
    out: np.ndarray = np.add.reduceat(octets * factors[place], start)
    return out


class PanelAhead(PanelView):
    """A panel of which one stretch is read in advance, by a thread that has nothing else to do.

    The first call of :meth:`haplotypes` that asks for the same sites returns what was read, or
    raises the error that was met. Other stretches are read when they are asked for. What
    :meth:`will_read` does not name is not kept.

    Parameters
    ----------
    whole
        The panel.
    start, stop
        The stretch: sites [start, stop).
    """

    def __init__(self, whole: Panel, start: int, stop: int) -> None:
        super().__init__(whole)
        self._ahead: tuple[tuple[int, int], Task[Haplotypes]] | None = (
            (start, stop), begin(partial(whole.haplotypes, start, stop), is_long=True),
        )  # fmt: skip

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        ahead = self._ahead
        if ahead is None or ahead[0] != (start, stop):
            return self._whole.haplotypes(start, stop)
        self._ahead = None
        return ahead[1].result()

    def will_read(self, stretches: Collection[tuple[int, int]]) -> None:
        """See :meth:`Panel.will_read`: what is of no use then is not kept."""
        if self._ahead is not None and self._ahead[0] not in stretches:
            self.forget()

    def forget(self) -> None:
        """Drop what was read. Nothing is read any more then, so that the file may be closed."""
        if self._ahead is not None:
            self._ahead[1].drop()
            self._ahead = None


class PanelWithout(PanelView):
    """A panel without some of its haplotypes; those that stay are numbered anew.

    Sites, with their counts and frequencies, stay those of the whole panel.

    Parameters
    ----------
    whole
        The panel.
    kept
        Shape (H,), bool: haplotypes that stay. They exist at all sites that will be asked for.
    """

    def __init__(self, whole: Panel, kept: np.ndarray) -> None:
        super().__init__(whole)
        self._kept = kept
        self.num_haplotypes = int(kept.sum())
        self.haplotype_sample = whole.haplotype_sample[kept]

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        return keep_haplotypes(self._whole.haplotypes(start, stop), self._kept)

    def compact(self, start: int, stop: int) -> CompactHaplotypes:
        """See :meth:`Panel.compact`."""
        return self._whole.compact(start, stop).without(self._kept)


class PanelDraw(PanelWithout):
    """Some of a large panel's haplotypes, read without unpacking the others.

    Parameters
    ----------
    whole, kept
        See :class:`PanelWithout`.

    Attributes
    ----------
    drawn
        Shape (k,), int64, ascending: which haplotypes of the whole panel they are.
    """

    def __init__(self, whole: Panel, kept: np.ndarray) -> None:
        super().__init__(whole, kept)
        self.drawn = np.flatnonzero(kept)

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        kept = self.drawn
        step = max(1, int(_COMPACT_BYTES / max(1.0, self._whole.bytes_per_site())))
        edges = [*range(start, stop, step), stop]
        parts = [self._whole.compact(first, last).select(kept) for first, last in pairwise(edges)]
        return join_sites(parts) if parts else self._whole.compact(start, stop).select(kept)


def draw_panel(whole: Panel, most: int, seed: int) -> Panel:
    """A view of some of a panel's samples, or the panel itself if it is not larger.

    Parameters
    ----------
    whole
        The panel.
    most
        Haplotypes of the samples that are drawn, at most.
    seed
        Of the draw, which depends on the names of the samples but not on their order.
    """
    of = whole.haplotype_sample
    if len(of) <= most:
        return whole
    size = np.bincount(of, minlength=len(whole.samples))
    order = drawing_order(_signatures(whole.samples), seed)
    drawn = np.zeros(len(size), bool)
    drawn[order[np.cumsum(size[order]) <= most]] = True
    return PanelDraw(whole, drawn[of])


class PanelLeftOut(PanelWithout):
    """A panel without some of its samples, whose frequencies leave them out, too.

    Models that read frequencies would else be told the alleles of samples that are imputed from
    the rest. Beyond one stretch, frequencies are those of the whole panel.

    Parameters
    ----------
    whole, kept
        See :class:`PanelWithout`.
    start, stop
        The stretch: sites [start, stop).
    """

    def __init__(self, whole: Panel, kept: np.ndarray, start: int, stop: int) -> None:
        super().__init__(whole, kept)
        self._stretch = start, stop
        alleles = self.haplotypes(start, stop).alleles()
        self.af = whole.af.copy()
        self.af[start:stop] = alleles.mean(axis=1)
        home = whole.population[self.haplotype_sample]
        self._of_population = super().af_population(start, stop)
        for group in np.unique(home).tolist():
            self._of_population[group] = alleles[:, home == group].mean(axis=1)
        _, first, num = np.unique(self.haplotype_sample, return_index=True, return_counts=True)
        dose = np.add.reduceat(alleles, first, axis=1, dtype=np.int64)  # (m, samples)
        kinds = (dose == 0, (dose > 0) & (dose < num), dose == num)
        self._of_genotype = np.stack([kind.mean(axis=1) for kind in kinds], axis=1)

    def _place(self, start: int, stop: int) -> tuple[slice, slice]:
        """Where sites [start, stop) and the stretch meet, counted from the start of either."""
        low, high = max(start, self._stretch[0]), min(stop, self._stretch[1])
        high = max(low, high)
        return slice(low - start, high - start), slice(
            low - self._stretch[0], high - self._stretch[0]
        )

    def af_population(self, start: int, stop: int) -> np.ndarray:
        """See :meth:`Panel.af_population`."""
        out = super().af_population(start, stop).copy()
        to, of = self._place(start, stop)
        out[:, to] = self._of_population[:, of]
        return out

    def genotype_freq(self, start: int, stop: int) -> np.ndarray:
        """See :meth:`Panel.genotype_freq`."""
        out = super().genotype_freq(start, stop).copy()
        to, of = self._place(start, stop)
        out[to] = self._of_genotype[of]
        return out


class PanelPart(PanelWithout):
    """A panel with only those haplotypes that exist in one stretch of its ploidy.

    Sites are numbered as in the whole panel.

    Parameters
    ----------
    whole
        The panel.
    stretch
        Index into its ``ploidy_start``.
    kept
        Shape (H,), bool: which of these haplotypes are wanted; None: all.

    Attributes
    ----------
    start, stop
        The stretch: sites [start, stop).
    """

    def __init__(self, whole: Panel, stretch: int, kept: np.ndarray | None = None) -> None:
        present = whole.ploidy_present[stretch]
        super().__init__(whole, present if kept is None else present & kept)
        self.start = int(whole.ploidy_start[stretch])
        self.stop = int([*whole.ploidy_start, whole.num_sites][stretch + 1])
        self._stretch = stretch

    def without(self, left_out: np.ndarray) -> PanelPart:
        """The same part without more of its haplotypes; ``left_out`` (H,), bool, says which."""
        kept = self._kept.copy()
        kept[self._kept] = ~left_out
        return PanelPart(self._whole, self._stretch, kept)


def require_one_ploidy(panel: Panel, what: str) -> None:
    """Refuse a panel whose ploidy changes along the contig.

    Parameters
    ----------
    panel
        The panel.
    what
        The work that needs one ploidy throughout, as the message calls it.

    Raises
    ------
    PanelError
        If the ploidy changes.
    """
    if len(panel.ploidy_start) > 1:
        at = ", ".join(
            f"{panel.contig}:{panel.sites.position_bp[i]}" for i in panel.ploidy_start[1:]
        )
        raise PanelError(
            f"the ploidy of panel {panel.path} changes at {at}, and {what} cannot follow that",
            hint="prepare the parts of the contig apart, with --region; or use a copying model, "
            "such as default, to impute",
        )


def parts_of(panel: Panel, start: int, stop: int) -> list[tuple[int, int, Panel]]:
    """Cut the sites [start, stop) where the panel's ploidy changes.

    Returns
    -------
    For each part, in order: its first site, its last site + 1, and a view of the panel with the
    haplotypes that exist there; or the panel itself if its ploidy never changes.
    """
    if len(panel.ploidy_start) == 1:
        return [(start, stop, panel)]
    parts = [PanelPart(panel, stretch) for stretch in range(len(panel.ploidy_start))]
    cut = [(max(start, part.start), min(stop, part.stop), part) for part in parts]
    return [(first, last, part) for first, last, part in cut if first < last]
