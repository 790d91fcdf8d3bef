"""Of which genome build a target is: by what its file says, and by the rsIDs of its records."""

from __future__ import annotations

import re

import numpy as np

from ragimpute.contigs import human_build
from ragimpute.io.raw_text.vendor import build_of
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.records import VcfFile
from ragimpute.panel.reader import Panel

_UCSC = {"NCBI36": "hg18", "GRCh37": "hg19", "GRCh38": "hg38", "T2T-CHM13": "hs1"}
_REFERENCE = re.compile(r"^##(?:reference|assembly)=(.*)$|[<,]assembly=([^,>]+)", re.MULTILINE)
# With fewer rsIDs in common than this, nothing is said of them.
_FEW_IDS = 20


def target_build(target: Target) -> str | None:
    """The human build of a target, such as "GRCh38", as its file says; None if it does not.

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


def panel_build(panel: Panel) -> str | None:
    """The human build of a panel by its contig's length or accession number, or None."""
    return human_build(panel.contig, panel.contig_length)


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
