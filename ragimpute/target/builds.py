"""Of which genome build a target is: by what its file says, and by the positions of its records.

Positions tell in three ways: a few SNPs whose positions in each build are known
(``io/known_sites.py``); rsIDs that the panel has elsewhere; and records that are all panel sites
once they are moved by one number, as builds differ over stretches of megabases.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ragimpute.contigs import chromosome, human_build
from ragimpute.io.known_sites import KNOWN_SITES, BuildByPositions, build_by_positions
from ragimpute.io.raw_text.vendor import build_of
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.records import VcfFile
from ragimpute.panel.reader import Panel
from ragimpute.sites import Sites

_UCSC = {"NCBI36": "hg18", "GRCh37": "hg19", "GRCh38": "hg38", "T2T-CHM13": "hs1"}
_REFERENCE = re.compile(r"^##(?:reference|assembly)=(.*)$|[<,]assembly=([^,>]+)", re.MULTILINE)
# With fewer rsIDs in common than this, nothing is said of them.
_FEW_IDS = 20
# Builds differ by up to 3 Mb on one chromosome; a stretch of 150 SNPs of an array spans 1 Mb.
_MOST_SHIFT, _STRETCH, _NUM_STRETCHES = 5_000_000, 150, 12
# As many of a stretch must fit at one shift, and twice as many as at the next best. That shows what
# chance makes: 12 of 150 records beside a panel with a SNP in 30 bp, all of them beside one whose
# sites are evenly spaced.
_FEWEST_FITTING, _SHARE_FITTING, _TIMES_NEXT = 20, 0.25, 2
_BASES = "ACGT"


class Shift(NamedTuple):
    """Records that are panel sites once they are moved.

    Attributes
    ----------
    shift_bp
        What is added to their positions, not 0.
    num_fitting, num_records
        How many of some neighbouring SNPs fit then, and how many these are.
    first_bp, last_bp
        Where these SNPs lie in the target.
    """

    shift_bp: int
    num_fitting: int
    num_records: int
    first_bp: int
    last_bp: int


def target_build(target: Target) -> str | None:
    """The human build of a target, such as "GRCh38"; None if nothing tells it.

    What counts is where known sites are, and then what its file says.
    """
    return positions_build(target).build or header_build(target)


def header_build(target: Target) -> str | None:
    """The human build of a target as its file says; None if it does not.

    What counts is the contig's length or accession number, then what a raw text says of itself, and
    then the reference that a VCF's header names.
    """
    found = human_build(target.sites.contig, target.contig_length)
    if found is None and target.facts is not None:
        found = target.facts.build
    if found is None and isinstance(target.file, VcfFile):
        named = (line[1] or line[2] for line in _REFERENCE.finditer(target.file.header.text))
        found = next((build for text in named if (build := build_of(text))), None)
    return found


def positions_build(target: Target) -> BuildByPositions:
    """The human build in which known sites have the positions that they have in a target."""
    if target.facts is not None and target.facts.known_sites:
        return build_by_positions(target.facts.known_sites)
    sites = target.sites
    return build_by_positions(
        _known_at(sites, chromosome(sites.contig, {sites.contig: target.contig_length}))
    )


def _known_at(sites: Sites, name: str) -> dict[str, int]:
    """Positions of the known sites of a chromosome that sites have under their rsIDs."""
    found: dict[str, int] = {}
    for rsid, (on, places) in KNOWN_SITES.items():
        if on != name:
            continue
        for bp in places:
            first, last = np.searchsorted(sites.position_bp, [bp, bp + 1])
            if rsid in sites.id[first:last]:
                found[rsid] = bp
    return found


def contradiction(target: Target) -> str | None:
    """What to say of a target whose header names another build than its known sites; or None."""
    told, found = header_build(target), positions_build(target)
    if not told or not found.build or told == found.build:
        return None
    return (
        f"the target's header says {told}, but {found.num_agree} of {found.num_known} well-known "
        f"sites in it are where {found.build} has them: it is taken for {found.build}"
    )


def panel_build(panel: Panel) -> str | None:
    """The human build of a panel by its contig's length, or by where known sites are; or None."""
    found = human_build(panel.contig, panel.contig_length)
    if found is None and panel.contig_length is None:
        found = build_by_positions(_known_at(panel.sites, chromosome(panel.contig))).build
    return found


def lift_hint(source: str | None, other: str | None) -> str:
    """How to lift a target over, for a hint; the builds of target and panel, None if unknown."""
    if source in _UCSC and other in _UCSC and source != other:
        name = _UCSC[other]
        chain = f"{_UCSC[source]}To{name[0].upper()}{name[1:]}.over.chain.gz"
        return f"lift the target over by --chain {chain}, a file that UCSC offers"
    return "lift the target over by --chain FILE, a chain file from its build to the panel's"


def moved_ids(target: Target, panel: Panel) -> tuple[int, int]:
    """How many rsIDs target and panel share, and how many of these are at other positions.

    (0, 0) if they share too few to tell anything.
    """
    named = {
        name: int(bp)
        for name, bp in zip(target.sites.id, target.sites.position_bp, strict=True)
        if name.startswith("rs")
    }
    if len(named) < _FEW_IDS:
        return 0, 0
    shared = np.flatnonzero([name in named for name in panel.sites.id])
    if len(shared) < _FEW_IDS:
        return 0, 0
    sites = panel.sites.take(shared)
    moved = sum(
        named[name] != int(bp) for name, bp in zip(sites.id, sites.position_bp, strict=True)
    )
    return len(shared), moved


def find_shift(target: Target, panel: Panel) -> Shift | None:
    """Neighbouring SNPs of a target that are panel sites once all of them are moved.

    Parameters
    ----------
    target, panel
        Of one contig. Alleles count, but not their order and strand.

    Returns
    -------
    The stretch of SNPs that fits best; None if none fits far better than by chance, or only
    unmoved.
    """
    kinds = _kinds(panel.sites)
    at = [np.unique(panel.sites.position_bp[kinds == k]).astype(np.int64) for k in range(4)]
    whole = panel.sites.position_bp
    position = target.sites.position_bp.astype(np.int64)
    kind = _kinds(target.sites)
    near = (position >= int(whole[0]) - _MOST_SHIFT) & (position <= int(whole[-1]) + _MOST_SHIFT)
    rows = np.flatnonzero(near & (kind >= 0))
    rows = rows[np.unique(position[rows], return_index=True)[1]]
    counts = np.zeros(2 * _MOST_SHIFT + 1, np.uint16)
    best: Shift | None = None
    beyond = max(0, len(rows) - _STRETCH)
    num = min(_NUM_STRETCHES, 1 + -(-2 * beyond // _STRETCH))
    for start in np.linspace(0, beyond, num).astype(int).tolist():
        some = rows[start : start + _STRETCH]
        counts[:] = 0
        for place, k in zip(position[some].tolist(), kind[some].tolist(), strict=True):
            first, last = np.searchsorted(at[k], [place - _MOST_SHIFT, place + _MOST_SHIFT + 1])
            counts[at[k][first:last] - place + _MOST_SHIFT] += 1
        at_best = int(counts.argmax())
        num, counts[at_best] = int(counts[at_best]), 0
        least = max(_FEWEST_FITTING, _SHARE_FITTING * len(some), _TIMES_NEXT * int(counts.max()))
        if at_best != _MOST_SHIFT and num >= least and (best is None or num > best.num_fitting):
            ends = position[some[[0, -1]]].tolist()
            best = Shift(at_best - _MOST_SHIFT, num, len(some), *ends)
    return best


def _kinds(sites: Sites) -> np.ndarray:
    """0 to 3 for the four pairs of alleles that differ on any strand, else -1: shape (m,)."""
    number = {
        frozenset(pair): k
        for k, pairs in enumerate((("AG", "CT"), ("AC", "GT"), ("AT",), ("CG",)))
        for pair in pairs
    }
    return np.array(
        [
            number.get(frozenset((ref, alt)), -1) if ref in _BASES and alt in _BASES else -1
            for ref, alt in zip(sites.ref, sites.alt, strict=True)
        ],
        np.int8,
    )
