"""Which panel sites a user's list names, and what became of each of its rows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragimpute.contigs import same_contig
from ragimpute.errors import InputError
from ragimpute.io.site_list import Places, SiteList, read_site_list
from ragimpute.panel.reader import Panel
from ragimpute.runtime.outputs import replacing
from ragimpute.sites import Key, Sites, other_strand
from ragimpute.symbolic import Extent, in_capitals, is_symbolic, split_name
from ragimpute.target.indels import trimmed
from ragimpute.target.inputs import Inputs
from ragimpute.target.typed_sites import places_in

log = logging.getLogger("ragimpute")

_HEAD = (
    "#CHROM", "POS", "ID", "EFFECT", "OTHER", "WEIGHT", "LINE", "STATUS", "MATCH", "VARIANT",
    "COUNTED", "DR2",
)  # fmt: skip
# What becomes of a row, and how a summary says it; those of WRITTEN are in the output.
WRITTEN = ("typed", "imputed", "typed_only")
_STATUS = {
    "typed": "typed",
    "imputed": "imputed",
    "typed_only": "typed, which the panel lacks",
    "other_contig": "on another contig",
    "outside_region": "outside the region",
    "no_position": "without a position that is known",
    "not_in_panel": "not in the panel",
    "other_alleles": "with other alleles than the panel",
    "several_alts": "whose other allele is not named, where the panel has several ALTs",
    "below_min_r2": "below --min-r2",
}
# Of fewer rows than this within the panel's range, nothing is said of how many the panel has.
_FEW_ROWS = 20
_LOW_SHARE = 0.5


class _Row(NamedTuple):
    """Where a row of the list was found, or why not.

    ``site`` is an index of the sites that were searched, -1 if none; ``fate`` is how the alleles
    match ("same", "swapped", "flipped", "flipped_swapped", "by_position"), or a status of why they
    do not; ``counted`` is the row's effect allele, as these sites spell it.
    """

    number: int
    site: int
    fate: str
    counted: str = ""


class _Added(NamedTuple):
    """A site that the panel lacks: how the alleles match, its name, and what EFFECT is there."""

    fate: str
    name: str
    counted: str


@dataclass
class ListedSites:
    """The sites that a run writes, as a list names them.

    Attributes
    ----------
    wanted
        The list.
    sites
        The panel's.
    start, stop
        Panel sites of the run, [start, stop).
    contig
        The panel's contig as the output spells it.
    mask
        Shape (M,), bool: which panel sites the list names.
    rows
        At least one for each row of the list; several where it names a position without alleles.
    places
        Where its sites are in the panel's build.
    typed_only
        Sites that are written although the panel lacks them, by number of the row.
    """

    wanted: SiteList
    sites: Sites
    start: int
    stop: int
    contig: str
    mask: np.ndarray
    rows: list[_Row]
    places: Places
    typed_only: dict[int, _Added] = field(default_factory=dict)

    def count(self, start: int, stop: int) -> int:
        """How many of the panel sites [start, stop) are in the list."""
        return int(np.count_nonzero(self.mask[start:stop]))

    def also(self, sites: Sites) -> np.ndarray:
        """Which of other sites, that the panel lacks, the list names, shape (k,), bool."""
        lacking = [row.number for row in self.rows if row.fate in ("not_in_panel", "other_alleles")]
        chosen = np.zeros(len(sites), bool)
        for row in _find(self.wanted, self.places, sites, lacking):
            if row.site >= 0:
                chosen[row.site] = True
                name = _name(self.contig, _full_key(sites, row.site))
                self.typed_only[row.number] = _Added(row.fate, name, row.counted)
        return chosen

    def statuses(self, typed: np.ndarray, low_r2: np.ndarray) -> list[str]:
        """What became of each row.

        Parameters
        ----------
        typed
            Shape (stop - start,), bool: which of the run's sites are typed.
        low_r2
            Panel sites that were left out for their DR2, any order.
        """
        low = set(low_r2.tolist())
        out = []
        for row in self.rows:
            status = row.fate
            if row.site >= 0:
                status = "typed" if self._inside(row.site) and typed[row.site - self.start] else ""
                status = status or ("below_min_r2" if row.site in low else "imputed")
                status = status if self._inside(row.site) else "outside_region"
            elif row.number in self.typed_only:
                status = "typed_only"
            out.append(status)
        return out

    def told(self, statuses: Sequence[str]) -> str:
        """How many rows were found, and what the others lack, for a summary."""
        counts = Counter(statuses)
        there = ", ".join(f"{counts[key]:,} {_STATUS[key]}" for key in WRITTEN if counts[key])
        lost = [f"{counts[key]:,} {told}" for key, told in _STATUS.items() if counts[key]]
        lost = lost[sum(1 for key in WRITTEN if counts[key]) :]
        num = sum(counts[key] for key in WRITTEN)
        return f"{num:,} of {len(statuses):,} found" + (
            (f": {there}" if there else "") + (f"; missing: {', '.join(lost)}" if lost else "")
        )

    def warnings(self) -> Iterator[str]:
        """What a user should know of the list, one line each."""
        at = self.sites.position_bp
        position = self.places.position_bp[[row.number for row in self.rows]]
        here = np.array([row.fate not in ("other_contig", "no_position") for row in self.rows])
        here &= (position >= at[0]) & (position <= at[-1])
        num, found = int(here.sum()), int(np.isin(position[here], at).sum())
        if num >= _FEW_ROWS and found < _LOW_SHARE * num:
            yield (
                f"only {found:,} of the {num:,} sites of {self.wanted.path} within the panel's "
                "range are at positions of the panel: if its positions are of another genome "
                "build, take the file of the panel's build"
            )
        if not self.count(self.start, self.stop) and not self.typed_only:
            yield f"the output holds no site: {self.wanted.path} names none that the run has"

    def write(
        self, path: str | Path, statuses: Sequence[str], dr2: np.ndarray, typed: np.ndarray
    ) -> None:
        """Write a table of all rows.

        Parameters
        ----------
        path
            The table, of tab-separated columns: CHROM, POS, ID, EFFECT, OTHER, WEIGHT and LINE as
            the list has them; STATUS; MATCH, how the alleles match; VARIANT and COUNTED, the name
            CHROM:POS:REF:ALT in the output and the allele that is EFFECT there; DR2.
        statuses
            See :meth:`statuses`.
        dr2, typed
            Shape (stop - start,), float32 and bool, of the run's sites.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        path = Path(path)
        wanted, places = self.wanted, self.places
        try:
            with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
                file.write("\t".join(_HEAD) + "\n")
                for row, status in zip(self.rows, statuses, strict=True):
                    i = row.number
                    bp = int(places.position_bp[i])
                    cells = [
                        places.contig[i], str(bp) if bp else "", wanted.id[i], wanted.effect[i],
                        wanted.other[i], wanted.weight[i], str(wanted.line[i]), status,
                        *self._found(row, status, dr2, typed),
                    ]  # fmt: skip
                    file.write("\t".join(cell or "." for cell in cells) + "\n")
        except OSError as error:
            raise InputError(
                f"cannot write {path}: {error.strerror}", hint="choose a path"
            ) from error

    def _found(self, row: _Row, status: str, dr2: np.ndarray, typed: np.ndarray) -> list[str]:
        """The columns of a row that say where it was found."""
        if row.number in self.typed_only and row.site < 0:
            return [*self.typed_only[row.number], ""]
        if row.site < 0:
            return ["", "", "", ""]
        name = _name(self.contig, _full_key(self.sites, row.site))
        shown = ""
        if self._inside(row.site):
            shown = f"{dr2[row.site - self.start]:.4g}"
        return [row.fate, name, row.counted, shown]

    def _inside(self, site: int) -> bool:
        """Whether a panel site is one of the run's."""
        return self.start <= site < self.stop


def tell_listed(inputs: Inputs, sites_file: str | Path, table: str | Path | None) -> str:
    """What a run would find of a list, before anything is imputed, for a summary.

    Parameters
    ----------
    inputs
        The panel, and which of its sites the target types.
    sites_file, table
        The list; a table of its rows to be written, or None. DR2 is nan there.

    Raises
    ------
    InputError
        If the list cannot be read, is of another genome build, or the table cannot be written.
    """
    start, stop = inputs.start, inputs.stop
    wanted = read_site_list(sites_file)
    listed = list_sites(wanted, inputs.panel, start, stop, contig=inputs.contig)
    at = inputs.match.panel_index
    typed = np.zeros(stop - start, bool)
    typed[at[(at >= start) & (at < stop)] - start] = True
    statuses = listed.statuses(typed, np.zeros(0, np.int64))
    for line in listed.warnings():
        log.warning(line)
    if table is not None:
        listed.write(table, statuses, np.full(stop - start, np.nan, np.float32), typed)
    return f"{sites_file}: {listed.told(statuses)}"


def list_sites(
    wanted: SiteList, panel: Panel, start: int, stop: int, *, contig: str
) -> ListedSites:
    """Find the sites of a list in a panel.

    A/T and C/G sites are taken as they stand: the list is taken to be of the panel's strand, but
    for SNPs whose alleles only the other strand has.

    Parameters
    ----------
    wanted
        The list.
    panel, start, stop
        The panel, and its sites of the run, [start, stop).
    contig
        The panel's contig as the output spells it.

    Raises
    ------
    InputError
        If the list says that it is of another genome build than the panel.
    """
    places = places_in(wanted, panel)
    here = {
        name
        for name in set(places.contig)
        if name and same_contig(name, [panel.contig], declared={panel.contig: panel.contig_length})
    }
    inside = [i for i, name in enumerate(places.contig) if name in here or name == panel.contig]
    found: dict[int, list[_Row]] = {}
    for row in _find(wanted, places, panel.sites, inside):
        found.setdefault(row.number, []).append(row)
    rows: list[_Row] = []
    for i, name in enumerate(places.contig):
        rows += found.get(i) or [_Row(i, -1, "other_contig" if name else "no_position")]
    mask = np.zeros(panel.num_sites, bool)
    mask[[row.site for row in rows if row.site >= 0]] = True
    return ListedSites(wanted, panel.sites, start, stop, contig, mask, rows, places)


def _find(wanted: SiteList, places: Places, sites: Sites, numbers: Sequence[int]) -> Iterator[_Row]:
    """Find rows of a list among sites of their contig: at least one result for each number."""
    position = places.position_bp[np.array(numbers, np.int64)]
    keys = [
        _trimmed(int(bp), wanted.other[i], wanted.effect[i])
        for i, bp in zip(numbers, position, strict=True)
    ]
    asked = np.unique(np.concatenate([position, np.array([key[0] for key in keys], np.int64)]))
    near = np.isin(sites.position_bp, asked)
    near |= np.array(
        [len(a) > 1 and len(b) > 1 for a, b in zip(sites.ref, sites.alt, strict=True)], bool
    )
    at: dict[int, list[int]] = {}
    known: dict[Key, int] = {}
    for i in np.flatnonzero(near).tolist():
        bp, ref, alt = _key(sites, i)
        at.setdefault(bp, []).append(i)
        known.setdefault(_trimmed(bp, ref.upper(), in_capitals(alt)), i)
    for number, bp, key in zip(numbers, position.tolist(), keys, strict=True):
        here = at.get(bp, [])
        if is_symbolic(split_name(wanted.effect[number])[0]):
            yield from _by_name(number, wanted.effect[number], sites, here)
        elif wanted.other[number] and wanted.effect[number]:
            yield _by_alleles(number, key, known, here, sites)
        elif wanted.effect[number]:
            yield _by_effect(number, wanted.effect[number], sites, here)
        elif here:
            for i in here:
                yield _Row(number, i, "by_position", sites.alt[i])
        else:
            yield _Row(number, -1, "not_in_panel")


def _trimmed(position: int, ref: str, alt: str) -> Key:
    """A site without the bases that both alleles share; a symbolic one as it is."""
    if alt[:1] == "<" or not alt.isalpha():
        return position, ref, alt
    return trimmed(position, ref, alt)


def _by_name(number: int, effect: str, sites: Sites, here: list[int]) -> Iterator[_Row]:
    """Find a row whose effect allele is symbolic: all sites that its name and ends allow."""
    alt, extent = split_name(effect)
    found = False
    for i in here:
        if sites.alt[i] != alt:
            continue
        told = "" if sites.info is None else sites.info[i]
        if extent == Extent() or extent.agrees(Extent.of(int(sites.position_bp[i]), alt, told)):
            found = True
            yield _Row(number, i, "same", alt)
    if not found:
        yield _Row(number, -1, "other_alleles" if here else "not_in_panel")


def _by_alleles(
    number: int, key: Key, known: dict[Key, int], here: list[int], sites: Sites
) -> _Row:
    """Find a row that names both alleles; ``key`` has the effect allele as ALT."""
    position, other, effect = key
    flipped = other_strand(key)
    spellings = [("same", key, True), ("swapped", (position, effect, other), False)]
    if len(other) == len(effect) == 1 and flipped[1:] != (effect, other):
        spellings += [
            ("flipped", flipped, True),
            ("flipped_swapped", (position, flipped[2], flipped[1]), False),
        ]
    for fate, spelled, counts_alt in spellings:
        if spelled in known:
            site = known[spelled]
            return _Row(number, site, fate, (sites.alt if counts_alt else sites.ref)[site])
    return _Row(number, -1, "other_alleles" if here else "not_in_panel")


def _by_effect(number: int, effect: str, sites: Sites, here: list[int]) -> _Row:
    """Find a row that names the effect allele alone, among the sites of its position."""
    for i in here:
        if sites.alt[i].upper() == effect:
            return _Row(number, i, "same", sites.alt[i])
    of_ref = [i for i in here if sites.ref[i].upper() == effect]
    if len(of_ref) == len(here) == 1:
        return _Row(number, of_ref[0], "swapped", sites.ref[of_ref[0]])
    if of_ref:
        return _Row(number, -1, "several_alts")
    return _Row(number, -1, "other_alleles" if here else "not_in_panel")


def _key(sites: Sites, i: int) -> Key:
    """Position and alleles of a site."""
    return int(sites.position_bp[i]), sites.ref[i], sites.alt[i]


def _full_key(sites: Sites, i: int) -> Key:
    """Position and alleles of a site, with where a symbolic one ends."""
    return sites.take(slice(i, i + 1)).keys()[0]


def _name(contig: str, key: Key) -> str:
    """A site's name, as plink2 makes it by ``--set-all-var-ids @:#:$r:$a``."""
    position, ref, alt = key
    return f"{contig}:{position}:{ref}:{alt}"
