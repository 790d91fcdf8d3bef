"""The files that a panel is made of: what they are, and their haplotypes in batches of sites."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ragimpute.commands import (
    absence_hint,
    command_word,
    free_name,
    sort_command,
    spellings_warning,
)
from ragimpute.contigs import Lengths
from ragimpute.errors import InputError
from ragimpute.io.foreign import foreign_format
from ragimpute.sites import Region, located

if TYPE_CHECKING:
    from ragimpute.io.m3vcf import M3vcfStream
    from ragimpute.io.vcf.read.genotypes import PanelStream
    from ragimpute.preparation.allel_stream import AllelStream


def is_to_prepare(path: Path) -> bool:
    """Whether a panel is something that ``prepare`` reads: the content decides, not the name.

    Raises
    ------
    InputError
        If it is a file of another tool, which the message names.
    """
    from ragimpute.panel.format import HDF5_MAGIC, is_of_ragimpute

    if not path.is_file():
        return path.name.endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"))
    with suppress(OSError), path.open("rb") as raw:
        start = raw.read(32)
        if start.startswith(HDF5_MAGIC):
            return not is_of_ragimpute(path)
        if path.suffix == ".h5":
            return False
        if start[:2] == b"\x1f\x8b" or start[:3] == b"BCF" or start[:2] == b"##":
            return True
        foreign = foreign_format(path, start)
        if foreign is not None:
            raise foreign
    return path.name.endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"))


def open_source(
    source: Path, region: Region | None, threads: int, warn: Callable[[str], None]
) -> tuple[str, AllelStream | M3vcfStream | PanelStream, str, Lengths]:
    """Open a panel's source: VCF/BCF, M3VCF or scikit-allel HDF5, whatever its name.

    Parameters
    ----------
    source, region
        The file; what to read of it, None for all of its only contig.
    threads
        For decompression, >= 1.
    warn
        Called with a line where contigs of the file look like the one that is read.

    Returns
    -------
    Kind ("VCF/BCF", "M3VCF" or "scikit-allel HDF5"), batches, contig, and the declared contigs with
    their lengths.

    Raises
    ------
    InputError
        If the file cannot be read, or does not hold the region, or holds several contigs and
        ``region`` is None.
    """
    from ragimpute.panel.format import HDF5_MAGIC

    if not source.is_file():
        problem = "is a folder" if source.is_dir() else "does not exist"
        raise InputError(f"panel {source} {problem}", hint="check the path")
    try:
        with source.open("rb") as raw:
            is_hdf5 = raw.read(8) == HDF5_MAGIC
    except OSError as error:
        raise InputError(f"panel {source} cannot be read: {error.strerror}") from error
    if is_hdf5:
        from ragimpute.preparation.allel_stream import AllelStream

        rows = AllelStream(source, region=region)
        return "scikit-allel HDF5", rows, rows.contig, {}
    from ragimpute.io.m3vcf import M3vcfStream, is_m3vcf

    if is_m3vcf(source):
        haplotypes = M3vcfStream(source, region=region)
        return "M3VCF", haplotypes, haplotypes.contig, {}

    from ragimpute.io.vcf.read.genotypes import PanelStream, VcfFile

    file = VcfFile(source)
    declared = file.header.declared
    chosen = _choose_region(source, list(file.contigs), declared, region)
    contig = chosen.contig
    warning = spellings_warning("panel", source, contig, file.contigs, declared)
    if warning is not None:
        warn(warning)
    if region is not None:
        region = chosen
    stream = PanelStream(file, region=region, threads=threads)
    return "VCF/BCF", stream, contig, file.header.contigs


def _choose_region(
    source: Path, contigs: list[str], declared: Lengths, region: Region | None
) -> Region:
    """The region with its contig as the file spells it, or the only contig."""
    if not contigs:
        raise InputError(f"panel {source} holds no records", hint="check how it was made")
    listed = ", ".join(contigs[:30])
    if region is None:
        if len(contigs) > 1:
            raise InputError(
                f"panel {source} holds {len(contigs)} contigs ({listed}); a panel file holds one",
                hint="choose one with --region",
            )
        return Region(contigs[0])
    found = located(region, contigs, declared=declared)
    if found is not None:
        return found
    raise InputError(
        f"panel {source} has no records on contig {region.contig}; it holds {listed}",
        hint=absence_hint(region.contig, contigs, "check --region", file=source, declared=declared),
    )


def is_vcf(source: Path) -> bool:
    """Whether a panel's source is a VCF or BCF, which bcftools can mend."""
    from ragimpute.io.m3vcf import is_m3vcf
    from ragimpute.panel.format import HDF5_MAGIC

    with suppress(OSError), source.open("rb") as raw:
        return raw.read(8) != HDF5_MAGIC and not is_m3vcf(source)
    return False


def sorting_hint(source: Path) -> str:
    """How to sort a panel's source."""
    if is_vcf(source):
        return f"sort it: {sort_command(source)}"
    return "write its sites again, sorted by position"


def sets_hint(source: Path) -> str:
    """What to do with a source that is phased only within phase sets."""
    out = shlex.quote(free_name(source, ".no_sets.vcf.gz"))
    return (
        "phase the panel as a whole first, e.g. with SHAPEIT or Beagle; if it is, remove what is "
        f"left of the sets (GT stays): bcftools annotate -x FORMAT {command_word(source)} -Oz -o "
        + out
    )
