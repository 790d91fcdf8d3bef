"""Which target records are panel sites, and their alleles as the panel counts them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError
from ragimpute.panel import Panel
from ragimpute.sites import Region, Sites
from ragimpute.vcf import Target, contigs_of, read_target

_REASONS = (
    "matched", "swapped", "not_in_panel", "allele_mismatch", "ambiguous_strand", "duplicate",
)  # fmt: skip
_COMPLEMENT = {"A": "T", "C": "G", "G": "C", "T": "A"}


@dataclass(frozen=True)
class Match:
    """Target records that are panel sites.

    Attributes
    ----------
    panel_index
        Shape (T,), int64, ascending: the panel sites that the target types.
    alleles
        Shape (T, N, 2), int8: 0 the panel's REF, 1 its ALT, -1 missing, -2 haploid fill.
    phased
        Shape (T, N), bool.
    counts
        Target records by what became of them: "matched", "swapped", "not_in_panel",
        "allele_mismatch", "ambiguous_strand", "duplicate".
    """

    panel_index: np.ndarray
    alleles: np.ndarray
    phased: np.ndarray
    counts: dict[str, int]


def match_sites(target: Target, panel: Panel, start: int, stop: int) -> Match:
    """Find the target's records among the panel sites [start, stop) by POS, REF and ALT.

    A record whose REF and ALT are the panel's ALT and REF is matched with its alleles swapped,
    unless it has several ALTs (its REF would then be taken for more than one of them). An A/T or
    C/G record could be one of the other strand instead: it is swapped only if more records are
    surely swapped than are surely of the other strand. Of several records of one site the first is
    used. All others are counted by reason.

    Raises
    ------
    InputError
        If no record is a panel site; the message says what overlaps and the likely cause.
    """
    lookup = {key: start + i for i, key in enumerate(panel.sites.take(slice(start, stop)).keys())}
    positions = set(panel.sites.position_bp[start:stop].tolist())
    swaps = [
        _swapped_site(lookup, key, many)
        for key, many in zip(target.sites.keys(), target.multiallelic.tolist(), strict=True)
    ]
    same_strand = _swaps_are_sure(target, lookup, swaps)
    found: dict[int, tuple[int, bool]] = {}
    counts: Counter[str] = Counter(dict.fromkeys(_REASONS, 0))
    for i, key in enumerate(target.sites.keys()):
        swap = swaps[i] is not None
        site = swaps[i] if swap else lookup.get(key)
        if site is None:
            counts["allele_mismatch" if key[0] in positions else "not_in_panel"] += 1
        elif swap and not same_strand and _is_palindrome(key):
            counts["ambiguous_strand"] += 1
        elif site in found:
            counts["duplicate"] += 1
        else:
            found[site] = (i, swap)
            counts["swapped" if swap else "matched"] += 1
    if not found:
        raise _no_overlap(target.sites, panel, start, stop, counts)
    panel_index = np.array(sorted(found), dtype=np.int64)
    rows = np.array([found[site][0] for site in panel_index], dtype=np.int64)
    swapped = np.array([found[site][1] for site in panel_index], dtype=bool)
    alleles = target.alleles[rows]
    turned = swapped[:, None, None] & (alleles >= 0)
    alleles = np.where(turned, 1 - alleles, alleles).astype(np.int8)
    return Match(panel_index, alleles, target.phased[rows], dict(counts))


def _complement(key: tuple[int, str, str]) -> tuple[int, str, str]:
    """A site as the other strand spells it."""
    position, *alleles = key
    ref, alt = ("".join(_COMPLEMENT.get(base, base) for base in x[::-1]) for x in alleles)
    return position, ref, alt


def _is_palindrome(key: tuple[int, str, str]) -> bool:
    """Whether the other strand has the same alleles, with REF and ALT swapped (A/T, C/G)."""
    position, ref, alt = key
    return _complement(key) == (position, alt, ref)


def _swapped_site(
    lookup: dict[tuple[int, str, str], int], key: tuple[int, str, str], multiallelic: bool
) -> int | None:
    """The panel site that a record is with REF and ALT swapped, if it is none as it stands."""
    if multiallelic or key in lookup:
        return None
    position, ref, alt = key
    return lookup.get((position, alt, ref))


def _swaps_are_sure(
    target: Target, lookup: dict[tuple[int, str, str], int], swaps: list[int | None]
) -> bool:
    """Whether more records are surely swapped than are surely of the other strand."""
    swapped = flipped = 0
    for key, swap in zip(target.sites.keys(), swaps, strict=True):
        if swap is not None:
            swapped += not _is_palindrome(key)
        elif key not in lookup:
            position, ref, alt = _complement(key)
            flipped += (position, ref, alt) in lookup or (position, alt, ref) in lookup
    return swapped > flipped


def no_match(target: Target) -> Match:
    """The match of a target without records: T = 0."""
    num_samples = len(target.samples)
    return Match(
        np.zeros(0, dtype=np.int64),
        np.zeros((0, num_samples, 2), dtype=np.int8),
        np.zeros((0, num_samples), dtype=bool),
        dict.fromkeys(_REASONS, 0),
    )


def marker_mask(path: str | Path, panel: Panel) -> np.ndarray:
    """Which panel sites a VCF/BCF of an array types, shape (M,), bool.

    Raises
    ------
    InputError
        If the file cannot be read or shares no site with the panel.
    """
    region = target_region(path, panel, None)
    target = read_target(path, region=region)
    mask = np.zeros(panel.num_sites, dtype=bool)
    mask[match_sites(target, panel, 0, panel.num_sites).panel_index] = True
    return mask


def target_region(path: str | Path, panel: Panel, region: Region | None) -> Region:
    """The panel's part of a target file, in the target's own spelling of the contig.

    "20" and "chr20" are taken for the same contig.

    Raises
    ------
    InputError
        If the target holds no records on the panel's contig.
    """
    contigs = contigs_of(path)
    bare = panel.contig.removeprefix("chr")
    names = [name for name in contigs if name.removeprefix("chr") == bare]
    names.sort(key=lambda name: name != panel.contig)  # its own spelling first, if both are there
    if not names:
        shown = ", ".join(list(contigs)[:5]) + (", ..." if len(contigs) > 5 else "")
        raise InputError(
            f"target {path} has no records on the panel's contig {panel.contig}; it holds "
            f"{shown or 'none'}",
            hint="use the panel of the same chromosome, with positions of the same build",
        )
    if region is None:
        return Region(names[0])
    return Region(names[0], region.start_bp, region.stop_bp)


def _no_overlap(
    sites: Sites, panel: Panel, start: int, stop: int, counts: Counter[str]
) -> InputError:
    """The error for a target without a panel site, with the likely cause."""
    at = panel.sites.position_bp[start:stop]
    if len(sites) == 0:
        return InputError(
            f"the target has no record on {sites.contig} in the range asked for",
            hint="check --region against the target",
        )
    by_position = np.isin(sites.position_bp, at)
    share = by_position.mean()
    target_range = f"{sites.contig}:{sites.position_bp.min()}-{sites.position_bp.max()}"
    panel_range = f"{panel.contig}:{at.min()}-{at.max()}" if len(at) else f"{panel.contig}: no site"
    keys = set(panel.sites.take(slice(start, stop)).keys())
    flipped = 0
    for key in sites.keys():
        position, ref, alt = _complement(key)
        flipped += (position, ref, alt) in keys or (position, alt, ref) in keys
    if len(at) and (sites.position_bp.max() < at.min() or sites.position_bp.min() > at.max()):
        hint = "the ranges do not meet: check --region and that both use the same genome build"
    elif share < 0.5:
        hint = "few positions agree: the files are probably of different genome builds"
    elif flipped >= 0.5 * (counts["allele_mismatch"] + counts["ambiguous_strand"]):
        hint = "most alleles fit after a strand flip: bring the target to the forward strand first"
    else:
        hint = "positions agree but alleles do not: fix REF/ALT first (bcftools +fixref)"
    return InputError(
        f"no target record is a panel site: target {target_range} ({len(sites)} records), panel "
        f"{panel_range} ({stop - start} sites); {share:.0%} of records agree by position alone",
        hint=hint,
    )
