"""Checks of a panel while it is read: it must be sorted, of one contig, phased and complete."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.errors import PanelError
from ragimpute.io.vcf.read.phase_sets import PieceFinder
from ragimpute.preparation.sources import sets_hint, sorting_hint
from ragimpute.sites import Sites, some_names
from ragimpute.symbolic import is_symbolic

if TYPE_CHECKING:
    from ragimpute.io.vcf.read.genotypes import SiteBatch
    from ragimpute.panel.ploidy import Ploidy

logger = logging.getLogger(__name__)

IN_PIECES = "samples that are phased only within phase sets"
NUM_NAMED = 3  # sites that a message names before it says how many more there are
_PLOIDY = "changes of ploidy"
_NUCLEOTIDES = re.compile(r"[ACGTN]+", re.IGNORECASE)


class PloidyChanges(PanelError):
    """Nothing is wrong with a panel but that the ploidy of samples changes along it."""


class PanelChecks:
    """Checks one batch after another, and counts faults and sites that are left out.

    Attributes
    ----------
    source
        The file that the panel is made of, which messages name.
    contig
        The panel's contig; "" before the first batch.
    slots
        Shape (N, 2), bool: which of each sample's two alleles are haplotypes, as the first site
        has it; shape (0, 2) before that.
    faults
        For each reason to refuse the panel, how many genotypes or sites there were.
    dropped, dropped_examples
        For each reason to leave a site out ("ref_is_alt", "duplicate", "no_allele"), how many, and
        the first few as ``contig:position:REF:ALT``.
    """

    def __init__(
        self, samples: Sequence[str], ploidy: Ploidy | None = None, source: Path = Path()
    ) -> None:
        """``ploidy``: which alleles exist where; None: everywhere those that the first site has."""
        self.source = source
        self.samples = samples
        self.ploidy = ploidy
        self.contig = ""
        self.slots: np.ndarray = np.zeros((0, 2), dtype=bool)
        self.faults: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.dropped_examples: dict[str, list[str]] = {}
        self._fault_examples: dict[str, list[str]] = {}
        self._last_bp = 0
        self._seen: set[tuple[str, str]] = set()  # alleles at _last_bp
        self._pieces = PieceFinder(len(samples))

    def check(self, batch: SiteBatch) -> tuple[Sites, np.ndarray]:
        """Check the next sites.

        Returns
        -------
        The sites to keep, and their alleles, shape (m, N, 2), int8. They may be used only while
        ``faults`` is empty. Faults are raised at the end, when all of them are counted.

        Raises
        ------
        PanelError
            If a second contig begins or a sample has no haplotype.
        """
        sites, alleles, phased = batch.sites, batch.alleles, batch.phased
        if len(sites) == 0:
            return sites, alleles
        self._check_contig(sites.contig)
        self._check_order(sites)
        keep = self._kept_sites(sites)
        if not keep.all():
            sites, alleles, phased = sites.take(keep), alleles[keep], phased[keep]
        if len(sites):
            if len(self.slots) == 0:
                self._fix_ploidy(alleles[0])
            self._check_genotypes(sites, alleles, phased)
            sets = batch.phase_set
            self._pieces.add(alleles, phased, sets if sets is None or keep.all() else sets[keep])
        return sites, alleles

    def raise_faults(self) -> None:
        """Refuse the panel if anything was wrong, with counts and the first places.

        Raises
        ------
        PanelError
            If ``faults`` is not empty, or samples are phased only within phase sets.
        PloidyChanges
            If only the ploidy is at fault.
        """
        cut = np.flatnonzero(self._pieces.in_pieces()).tolist()
        if cut:
            named = [self.samples[i] for i in cut[:NUM_NAMED]]
            self._fault(IN_PIECES, len(cut), named)
        if not self.faults:
            return
        found = "; ".join(
            f"{count:,} {reason} ({', '.join(self._fault_examples[reason])}"
            f"{', ...' if count > len(self._fault_examples[reason]) else ''})"
            for reason, count in self.faults.items()
        )
        kind = PloidyChanges if list(self.faults) == [_PLOIDY] else PanelError
        what = f"{self.source} is " if self.source.name else ""
        raise kind(f"{what}not a phased, complete, sorted panel: {found}", hint=self._hint())

    def _fix_ploidy(self, first: np.ndarray) -> None:
        """Take the haplotypes from the first site's alleles, shape (N, 2)."""
        self.slots = first != -2
        if self.ploidy is not None:
            self.slots = np.asarray(self.ploidy.slots.any(axis=0))
        without = np.flatnonzero(~self.slots.any(axis=1))
        if len(without):
            names = [self.samples[i] for i in without.tolist()]
            raise PanelError(f"samples without a haplotype: {some_names(names)}")

    def _fault(self, reason: str, count: int, examples: Sequence[str]) -> None:
        """Remember what will be refused once everything is counted."""
        if reason != _PLOIDY and self.faults.keys() <= {_PLOIDY}:
            logger.warning("%s: %s; reading on to count them all", examples[0], reason)
        self.faults[reason] = self.faults.get(reason, 0) + count
        named = self._fault_examples.setdefault(reason, [])
        named.extend(examples[: NUM_NAMED - len(named)])

    def _check_contig(self, contig: str) -> None:
        """Refuse a second contig."""
        self.contig = self.contig or contig
        if contig != self.contig:
            raise PanelError(
                f"the panel holds sites of contig {contig} after contig {self.contig}; "
                "a panel file holds one contig",
                hint="choose one with --region",
            )

    def _check_order(self, sites: Sites) -> None:
        """Note sites that lie before the site that precedes them."""
        position = sites.position_bp.astype(np.int64)
        before = np.concatenate([[self._last_bp], position[:-1]])
        wrong = np.flatnonzero(position < before)
        if len(wrong):
            named = [f"{sites.contig}:{position[i]} after {before[i]}" for i in wrong[:NUM_NAMED]]
            self._fault("unsorted sites", len(wrong), named)

    def _kept_sites(self, sites: Sites) -> np.ndarray:
        """Which sites to keep, shape (m,), bool; the others are counted by reason."""
        keep = np.ones(len(sites), dtype=bool)
        for i, (position, ref, alt) in enumerate(sites.keys()):
            if position != self._last_bp:
                self._last_bp = position
                self._seen.clear()
            key = (ref.upper(), alt)  # of a symbolic ALT, with where it ends
            is_sequence = _NUCLEOTIDES.fullmatch(alt) is not None
            if is_sequence:
                key = (key[0], alt.upper())
            if not (_NUCLEOTIDES.fullmatch(ref) and (is_sequence or is_symbolic(sites.alt[i]))):
                reason = "no_allele"
            elif key[0] == key[1]:
                reason = "ref_is_alt"
            elif key in self._seen:
                reason = "duplicate"
            else:
                self._seen.add(key)
                continue
            keep[i] = False
            self.dropped[reason] = self.dropped.get(reason, 0) + 1
            named = self.dropped_examples.setdefault(reason, [])
            if len(named) < NUM_NAMED:
                named.append(f"{sites.contig}:{position}:{ref}:{alt}")
        return keep

    def _check_genotypes(self, sites: Sites, alleles: np.ndarray, phased: np.ndarray) -> None:
        """Note missing, unphased and ploidy-changing genotypes."""
        slots = self._slots_at(sites)
        checks = []
        if not slots.all() or alleles.min() < 0:
            checks.append(("missing genotypes", (alleles == -1).any(axis=2)))
            checks.append((_PLOIDY, ((alleles != -2) != slots).any(axis=2)))
        if not phased.all():
            differ = alleles[:, :, 0] != alleles[:, :, 1]
            checks.append(("unphased heterozygotes", differ & ~phased & (alleles >= 0).all(axis=2)))
        for reason, wrong in checks:
            count = int(np.count_nonzero(wrong))
            if count:
                named = [
                    f"{sites.contig}:{sites.position_bp[i]} in {self.samples[j]}"
                    for i, j in np.argwhere(wrong)[:NUM_NAMED]
                ]
                self._fault(reason, count, named)

    def _slots_at(self, sites: Sites) -> np.ndarray:
        """Which alleles are haplotypes, shape (N, 2) or (m, N, 2), bool."""
        return self.slots if self.ploidy is None else self.ploidy.expected(sites.position_bp)

    def _hint(self) -> str:
        """How to mend the first kind of fault."""
        return {
            "unsorted sites": sorting_hint(self.source),
            "missing genotypes": "a panel is complete: impute them first, or leave out these sites "
            "or samples",
            _PLOIDY: "name the pseudo-autosomal regions with --par, if this is a sex chromosome",
            "unphased heterozygotes": "phase the panel first, e.g. with SHAPEIT or Beagle",
            IN_PIECES: sets_hint(self.source),
        }[next(iter(self.faults))]
