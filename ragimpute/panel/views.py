"""Some of a panel's haplotypes: their alleles, and panels in which the others do not exist."""

from __future__ import annotations

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.panel.haplotypes import Haplotypes, keep_haplotypes
from ragimpute.panel.reader import Panel


class PanelPart(Panel):
    """A panel with those of its haplotypes that exist in one stretch of its ploidy.

    Sites are numbered as in the whole panel; haplotypes are numbered anew.

    Attributes
    ----------
    start, stop
        The stretch: sites [start, stop).
    """

    def __init__(self, whole: Panel, stretch: int) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole = whole
        self._kept = whole.ploidy_present[stretch]
        self.start = int(whole.ploidy_start[stretch])
        self.stop = int([*whole.ploidy_start, whole.num_sites][stretch + 1])
        self.num_haplotypes = int(self._kept.sum())
        self.haplotype_sample = whole.haplotype_sample[self._kept]

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        return keep_haplotypes(self._whole.haplotypes(start, stop), self._kept)

    def bytes_per_site(self) -> float:
        """See :meth:`Panel.bytes_per_site`."""
        return self._whole.bytes_per_site()


class PanelWithout(Panel):
    """A panel without some of its samples, whose haplotypes are numbered anew.

    Sites, with their counts and frequencies, stay those of the whole panel.

    Parameters
    ----------
    whole
        The panel; all its haplotypes exist throughout.
    kept
        Shape (H,), bool: haplotypes that stay.
    """

    def __init__(self, whole: Panel, kept: np.ndarray) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole, self._kept = whole, kept
        self.num_haplotypes = int(kept.sum())
        self.haplotype_sample = whole.haplotype_sample[kept]

    def haplotypes(self, start: int, stop: int) -> Haplotypes:
        """See :meth:`Panel.haplotypes`."""
        return keep_haplotypes(self._whole.haplotypes(start, stop), self._kept)

    def bytes_per_site(self) -> float:
        """See :meth:`Panel.bytes_per_site`."""
        return self._whole.bytes_per_site()


def require_one_ploidy(panel: Panel, what: str) -> None:
    """Refuse a panel whose ploidy changes along the contig, for ``what`` cannot follow it.

    Raises
    ------
    PanelError
        If it does.
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
    First site, last site + 1 and the panel of each part, in order: the panel itself where all of
    its haplotypes exist throughout.
    """
    if len(panel.ploidy_start) == 1:
        return [(start, stop, panel)]
    parts = [PanelPart(panel, stretch) for stretch in range(len(panel.ploidy_start))]
    cut = [(max(start, part.start), min(stop, part.stop), part) for part in parts]
    return [(first, last, part) for first, last, part in cut if first < last]
