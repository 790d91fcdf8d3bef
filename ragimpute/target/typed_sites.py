"""Which panel sites an array types, by a file of its sites; and where sites of a list are."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragimpute.commands import absence_hint
from ragimpute.contigs import same_contig
from ragimpute.errors import InputError
from ragimpute.io.site_list import Places, SiteList, read_site_list
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.reader import Panel
from ragimpute.sites import Region, Sites
from ragimpute.symbolic import is_symbolic, split_name
from ragimpute.target.builds import panel_build
from ragimpute.target.inputs import TargetOptions, take_target
from ragimpute.target.match import match_sites
from ragimpute.target.qc import TargetReport

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_VCF = (b"##fileformat=VCF", b"BCF")
_COLUMNS_OF_SITES = 9  # of a VCF, with FORMAT
_GONE = ("not_in_panel", "allele_mismatch", "ambiguous_strand", "invalid")
_MOST_LINE = 1 << 20


@dataclass(frozen=True)
class TypedSites:
    """The panel sites that an array types.

    Attributes
    ----------
    panel_index
        Shape (T,), int64, ascending, at least one.
    num_records
        Records or lines of the file on the panel's contig, in the region that was read.
    left_out
        How many of these are no panel sites, by reason.
    """

    panel_index: np.ndarray
    num_records: int
    left_out: dict[str, int]


class _Row(NamedTuple):
    """A row of a list, on the panel's contig."""

    position: int
    alleles: tuple[str, ...]  # REF and ALT, or none if the list does not tell them


def typed_sites(
    path: str | Path, panel: Panel, region: Region | None, *, buffer_cm: float, threads: int = 1
) -> TypedSites:
    """Find the panel sites that an array types.

    Of a VCF or BCF with samples they are those that ``impute`` finds for it as a target. In other
    files, alleles that read the same on both strands are taken to be of the panel's.

    Parameters
    ----------
    path
        The file: one with samples, or a list that
        :func:`ragimpute.io.site_list.read_site_list` reads.
    panel
        The panel.
    region, buffer_cm
        Sites to impute (None: all); beyond them, sites are read up to so many cM away.
    threads
        For decompression.

    Raises
    ------
    InputError
        If the file cannot be read, or shares no site with the panel.
    """
    if _has_samples(Path(path)):
        report = TargetReport()
        _, match = take_target(
            path, panel, region, TargetOptions(), report, buffer_cm=buffer_cm, threads=threads
        )
        left_out = {name: match.counts.get(name, 0) for name in _GONE}
        return _some(TypedSites(match.panel_index, match.num_records, left_out), path)
    found = _listed(path, panel)
    if region is not None:
        start, stop = panel.site_range(region)
        cm = panel.position_cm
        first = np.searchsorted(cm, cm[start] - buffer_cm)
        last = np.searchsorted(cm, cm[stop - 1] + buffer_cm, side="right")
        index = found.panel_index
        found = replace(found, panel_index=index[(index >= first) & (index < last)])
    return _some(found, path)


def _some(found: TypedSites, path: str | Path) -> TypedSites:
    """What was found, if it is any site.

    Raises
    ------
    InputError
        If it is none.
    """
    if len(found.panel_index):
        return found
    told = ", ".join(f"{num:,} {name.replace('_', ' ')}" for name, num in found.left_out.items())
    raise InputError(
        f"none of the {found.num_records:,} sites of {path} is a panel site ({told})",
        hint="give the sites of the panel's contig, with positions of the same build",
    )


def places_in(wanted: SiteList, panel: Panel) -> Places:
    """Where a list's sites are in the panel's build, as far as builds are known.

    Rows without a position have that of the panel's site of the same ID, if there is one.

    Raises
    ------
    InputError
        If the list says that it is of another genome build than the panel.
    """
    build = panel_build(panel)
    fitting = [one for one in wanted.places if build is None or one.build in (None, build)]
    exact = [one for one in fitting if one.build == build]
    if not fitting:
        told = " and ".join(str(one.build) for one in wanted.places)
        raise InputError(
            f"the positions in {wanted.path} are of {told}, and the panel {panel.path} is of "
            f"{build}",
            hint=f"take the list's file of {build}; the PGS Catalog has harmonised scores of "
            "GRCh37 and GRCh38 (_hmPOS_GRCh37.txt.gz, _hmPOS_GRCh38.txt.gz)",
        )
    places = (exact or fitting)[0]
    return places if all(places.contig) else _placed_by_id(wanted, places, panel)


def _placed_by_id(wanted: SiteList, places: Places, panel: Panel) -> Places:
    """The places, where rows without a position have that of the panel's site of the same ID."""
    contig, position = list(places.contig), places.position_bp.copy()
    lacking: dict[str, list[int]] = {}
    for i, name in enumerate(contig):
        if not name and wanted.id[i]:
            lacking.setdefault(wanted.id[i], []).append(i)
    if lacking:
        for bp, name in zip(panel.sites.position_bp.tolist(), panel.sites.id, strict=True):
            for i in lacking.get(name, ()):
                contig[i], position[i] = panel.contig, bp
    return Places(places.build, contig, position)


def _has_samples(path: Path) -> bool:
    """Whether a file holds genotypes, or is damaged: the reader of those says how."""
    try:
        start = next(_pieces(path), b"")
        if not start.startswith(_VCF):
            return not start.startswith(_ZSTD) and (b"\0" in start or not start)
        for line in _pieces(path):
            if line.startswith(b"#CHROM"):
                return len(line.strip(b"\0\r\n").split(b"\t")) > _COLUMNS_OF_SITES
    except (OSError, EOFError, zlib.error):
        pass
    return True


def _pieces(path: Path) -> Iterator[bytes]:
    """The lines of a file, decompressed."""
    with path.open("rb") as plain:
        packed = plain.read(2) == _GZIP
        plain.seek(0)
        with gzip.open(plain) if packed else plain as file:
            while line := file.readline(_MOST_LINE):
                yield line


def _listed(path: str | Path, panel: Panel) -> TypedSites:
    """The panel sites of a list."""
    listed = read_site_list(path)
    places = places_in(listed, panel)
    names = dict.fromkeys(name for name in places.contig if name)
    length = {panel.contig: panel.contig_length}
    name = same_contig(panel.contig, list(names), wanted_of=length)
    if name is None:
        shown = ", ".join(list(names)[:5]) + (", ..." if len(names) > 5 else "")
        raise InputError(
            f"list of sites {path} has no site on the panel's contig {panel.contig}; it has "
            f"{shown or 'no site whose position is known'}",
            hint=absence_hint(
                panel.contig, names,
                "give the sites of the panel's contig, by columns CHROM, POS, REF and ALT",
                file=path, wanted_of=length,
            ),
        )  # fmt: skip
    here = sorted(
        (
            _Row(int(bp), _two([listed.other[i], listed.effect[i]]))
            for i, bp in enumerate(places.position_bp.tolist())
            if places.contig[i] == name
        ),
        key=lambda row: row.position,
    )
    by_position = [row.position for row in here if not row.alleles]
    at = panel.sites.position_bp
    alone = np.flatnonzero(np.isin(at, np.unique(by_position).astype(np.int64)))
    lacking = len(by_position) - int(np.isin(by_position, at).sum())
    match = match_sites(
        _without_samples([row for row in here if row.alleles], panel.contig), panel, 0,
        panel.num_sites, palindromes="keep",
    )  # fmt: skip
    left_out = {name: match.counts.get(name, 0) for name in _GONE}
    left_out["not_in_panel"] += lacking
    index = np.union1d(match.panel_index, alone).astype(np.int64)
    return TypedSites(index, len(here), left_out)


def _without_samples(rows: Sequence[_Row], contig: str) -> Target:
    """Sites whose alleles are known, sorted by position, as a target without samples."""
    pairs = [row.alleles for row in rows]
    none = np.array(["."] * len(rows), dtype=object)
    ref, alt = (np.array([pair[i] for pair in pairs], dtype=object) for i in (0, 1))
    info = np.array([""] * len(rows), dtype=object)
    for i, name in enumerate(alt.tolist()):  # where a symbolic ALT ends stands behind it
        alt[i], extent = split_name(name)
        info[i] = extent.text()
    position = np.array([row.position for row in rows], np.int32)
    sites = Sites(contig, position, ref, alt, none, info)
    num = len(rows)
    return Target(
        [], sites, np.zeros((num, 0, 2), np.int8), np.zeros((num, 0), bool),
        np.full(num, -1, np.int32), {}, num_records=num,
    )  # fmt: skip


def _two(alleles: Sequence[str]) -> tuple[str, ...]:
    """Two alleles in capitals; none if they are not two that name their bases or are symbolic."""
    if is_symbolic(split_name(alleles[1])[0]):
        return alleles[0].upper(), alleles[1]
    upper = tuple(allele.upper() for allele in alleles)
    named = len(set(upper)) == 2 and all(allele and set(allele) <= set("ACGT") for allele in upper)
    return upper if named else ()
