"""Rows that name alleles without saying which is REF, written with the panel's alleles.

A raw text names the two alleles of a person. Beside the panel's sites of its position they become
genotypes of each ALT there. An insertion or deletion that arrays name I and D becomes the panel's,
where the panel has one alone that it can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.records import LeftOut, site_table
from ragimpute.panel.reader import Panel
from ragimpute.sites import Key, other_strand
from ragimpute.symbolic import is_symbolic, split_name

VAGUE_INDEL, NO_CALL = "vague_indel", "no_call"
_LETTERS = ("I", "D")


class _Site(NamedTuple):
    """A site of the panel."""

    position_bp: int
    ref: str
    alt: str
    id: str


@dataclass
class _Rows:
    """The rows of the new target: which row each is made of, and with which alleles."""

    source: list[int] = field(default_factory=list)
    key: list[Key] = field(default_factory=list)
    codes: list[tuple[int, int]] = field(default_factory=list)
    record: list[int] = field(default_factory=list)

    def add(self, source: int, key: Key, codes: tuple[int, int], record: int = -1) -> None:
        """Add a row; ``codes``: what 0 and 1 of the source are in it."""
        self.source.append(source)
        self.key.append(key)
        self.codes.append(codes)
        self.record.append(record)


def with_panel_alleles(target: Target, panel: Panel) -> Target:
    """A target whose rows name the panel's REF and ALT, where they name alleles of these.

    Parameters
    ----------
    target
        With ``facts``; its positions are of the panel's build.
    panel
        The panel.

    Returns
    -------
    The target itself if it says which allele is REF and names none I or D. Rows that fit no site of
    the panel stay as they are; genotypes that were not called become missing ones of the
    panel's sites, or are left out, and so are I and D without an indel of the panel.
    """
    facts = target.facts
    if facts is None or not len(target.sites):
        return target
    keys = target.sites.keys()
    named = facts.names_alleles
    if not named and not any(ref in _LETTERS or alt in _LETTERS for _, ref, alt in keys):
        return target
    at = _sites_near(panel, target.sites.position_bp)
    rows = _Rows()
    left_out: list[LeftOut] = []
    num_further = num_records = num_found = 0
    for i, (key, name) in enumerate(zip(keys, target.sites.id, strict=True)):
        position, ref, alt = key
        if ref in _LETTERS or alt in _LETTERS:
            found = _indel(key, name, at)
            if found is None:
                left_out.append(LeftOut(position, name, ref, alt, VAGUE_INDEL))
                continue
            site, codes = found
            num_found += 1
            rows.add(i, (site.position_bp, site.ref, site.alt), codes)
            continue
        sites = _snps(at.get(position, [])) if named else []
        spelled = _spelled(ref, alt, sites)
        if not spelled and ref == "." and named:
            left_out.append(LeftOut(position, name, ref, alt, NO_CALL))
            continue
        if not spelled:
            rows.add(i, key, (0, 1), int(target.record[i]))
            continue
        for place, codes in spelled:
            rows.add(i, place, codes, num_records if len(spelled) > 1 else -1)
        num_records += len(spelled) > 1
        num_further += len(spelled) - 1
    out = _made(target, rows)
    counts = facts.counts | {"insertions and deletions that the panel has": num_found}
    return replace(
        out, facts=replace(facts, counts=counts),
        left_out=sorted([*target.left_out, *left_out], key=lambda one: one.position_bp),
        num_further_alts=target.num_further_alts + num_further,
    )  # fmt: skip


def require_ref(target: Target) -> None:
    """Refuse to write records that the panel lacks where the target does not tell their REF.

    Raises
    ------
    InputError
        If the target names a sample's alleles only.
    """
    if target.facts is not None and target.facts.names_alleles:
        raise InputError(
            f"{target.file} does not say which of two alleles is REF, so that records that the "
            "panel lacks cannot be written",
            hint="leave out --all-typed-sites",
        )


def _sites_near(panel: Panel, position_bp: np.ndarray) -> dict[int, list[_Site]]:
    """The panel's sites at some positions, and one before each, by position."""
    wanted = np.concatenate([position_bp, position_bp - 1])
    index = np.flatnonzero(np.isin(panel.sites.position_bp, wanted))
    sites = panel.sites.take(index)
    found: dict[int, list[_Site]] = {}
    for (position, ref, alt), name in zip(sites.keys(), sites.id, strict=True):
        if is_symbolic(split_name(alt)[0]):
            continue
        found.setdefault(position, []).append(_Site(position, ref.upper(), alt.upper(), name))
    return found


def _snps(sites: Sequence[_Site]) -> list[_Site]:
    """The SNPs among the panel's sites of a position, of the REF that the first of them has."""
    snps = [site for site in sites if len(site.ref) == len(site.alt) == 1]
    return [site for site in snps if site.ref == snps[0].ref]


def _spelled(ref: str, alt: str, sites: Sequence[_Site]) -> list[tuple[Key, tuple[int, int]]]:
    """A row's alleles as genotypes of SNPs: key and codes of each; none if they do not fit.

    Alleles that fit on the other strand only are spelled so, since whoever matches the
    rows counts strands.
    """
    if not sites:
        return []
    letters = {letter for letter in (ref, alt) if letter != "."}
    for turned in (False, True):
        keys = [(site.position_bp, site.ref, site.alt) for site in sites]
        if turned:
            keys = [other_strand(key) for key in keys]
        if letters <= {keys[0][1], *(key[2] for key in keys)}:
            return [(key, (int(ref == key[2]), int(alt == key[2]))) for key in keys]
    return []


def _indel(key: Key, name: str, at: dict[int, list[_Site]]) -> tuple[_Site, tuple[int, int]] | None:
    """The panel's indel that a row of I and D can be, if it is one alone, and the row's codes.

    Vendors give the position of the base before an indel, or of the first base after that.
    """
    position, ref, alt = key
    if not {ref, alt} <= {*_LETTERS, "."}:
        return None
    sites = [site for place in (position - 1, position) for site in at.get(place, [])]
    indels = [site for site in sites if len(site.ref) != len(site.alt)]
    if len(indels) != 1:
        return None
    site = indels[0]
    if name.startswith("rs") and site.id.startswith("rs") and name not in site.id.split(";"):
        return None
    longer = "I"
    spelled = {longer: int(len(site.alt) > len(site.ref)), "D": int(len(site.alt) < len(site.ref))}
    first = spelled[ref] if ref in spelled else 1 - spelled[alt]
    return site, (first, 1 - first)


def _made(target: Target, rows: _Rows) -> Target:
    """The target of new rows, sorted by position."""
    source = np.array(rows.source, np.int64)
    codes = np.array(rows.codes, np.int8).reshape(-1, 2)
    part = target.take(source)
    alleles = part.alleles
    changed = np.where(alleles == 0, codes[:, None, :1], codes[:, None, 1:])
    alleles = np.where(alleles >= 0, changed, alleles).astype(np.int8)
    position, ref, alt = ([key[i] for key in rows.key] for i in range(3))
    sites = site_table(target.sites.contig, position, ref, alt, list(part.sites.id))
    # Alleles that are equal have no order.
    known = part.phased | (alleles[:, :, 0] == alleles[:, :, 1])
    made = replace(
        part, sites=sites, alleles=alleles, phased=known, record=np.array(rows.record, np.int32)
    )
    return made.take(np.argsort(sites.position_bp, kind="stable"))
