"""Cut a panel into regions, and a target into batches, that are imputed independently.

A region is imputed from typed sites in it and in a buffer beyond both its ends, which ``impute``
reads for itself. So regions need not overlap, each panel site is written by exactly one of them,
and the outputs of neighbours join end to end (``bcftools concat --naive``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.arguments import check_ranges
from ragimpute.contigs import same_contig
from ragimpute.errors import InputError
from ragimpute.panel.compact import COMPACT_ABOVE
from ragimpute.panel.reader import Panel
from ragimpute.runtime.memory import job_memory_mb, window_site_bytes
from ragimpute.sites import Region

if TYPE_CHECKING:
    from ragimpute.io.target_file import TargetFile

#: Length of the longest region if none is asked for, cM.
CHUNK_CM = 20.0
#: What ``impute`` reads beyond both ends of a region, cM (its ``--buffer-cm``).
BUFFER_CM = 2.0
# The part of a panel's sites that is taken for typed where a target's index does not say how many
# records it has: more than an array has of a large panel.
_TYPED_SHARE = 0.15


@dataclass(frozen=True)
class PlannedRegion:
    """A region of a plan.

    Attributes
    ----------
    region
        ``CHROM:START-STOP``, 1-based and closed.
    num_sites
        Panel sites in it, >= 1.
    start_cm, stop_cm
        Where its first and last site stand, cM.
    memory_mb
        Memory to ask a scheduler for, MiB, see :func:`ragimpute.runtime.memory.job_memory_mb`.
    """

    region: str
    num_sites: int
    start_cm: float
    stop_cm: float
    memory_mb: int


def plan_regions(
    contig: str,
    position_bp: np.ndarray,
    position_cm: np.ndarray,
    *,
    chunk_cm: float | None = None,
    chunk_mb: float | None = None,
    site_bytes: float = 0,
    wide: bool = False,
) -> list[PlannedRegion]:
    """Cut a contig into regions of about equal length, so that each site is in exactly one.

    Parameters
    ----------
    contig
        As the panel spells it.
    position_bp, position_cm
        Shape (M,), int32 and float64, both non-decreasing. Sites of one position stay together.
    chunk_cm, chunk_mb
        Length of the longest region from its first site to its last, cM and Mb, > 0; longer only if
        sites of one position need it. If both are given, both hold; if neither is, 20 cM.
    site_bytes
        Bytes of memory that a site takes, >= 0
        (:func:`ragimpute.runtime.memory.window_site_bytes`).
    wide
        Whether the panel is so large that it is read in compact form.

    Returns
    -------
    The regions in order. The first begins at the position of the first site, each of the others
    right after the one before it, and the last ends at the position of the last site.

    Raises
    ------
    ValueError
        If ``chunk_cm`` or ``chunk_mb`` is not positive or there is no site.
    """
    if chunk_cm is None and chunk_mb is None:
        chunk_cm = CHUNK_CM
    for name, length in (("chunk_cm", chunk_cm), ("chunk_mb", chunk_mb)):
        if (length is not None and not length > 0) or len(position_bp) == 0:
            raise ValueError(f"{name} {length} must be > 0, sites {len(position_bp)} >= 1")
    edges = [0, len(position_bp)]
    if chunk_cm is not None:
        edges = _cut_evenly(position_cm, edges, chunk_cm)
    if chunk_mb is not None:
        edges = _cut_evenly(position_bp.astype(np.float64), edges, chunk_mb * 1e6)
    # Sites of one position stay together: move each cut before the first of them.
    first_of = np.searchsorted(position_bp, position_bp[edges[:-1]], side="left")
    edges = np.unique([*first_of.tolist(), len(position_bp)]).tolist()
    buffered = np.searchsorted(position_cm, position_cm[edges[:-1]] - BUFFER_CM, side="left")
    last_cm = position_cm[np.array(edges[1:]) - 1]
    ends = np.searchsorted(position_cm, last_cm + BUFFER_CM, side="right")
    regions = []
    for number, (start, stop) in enumerate(pairwise(edges)):
        last = stop == len(position_bp)
        stop_bp = int(position_bp[-1]) + 1 if last else int(position_bp[stop])
        regions.append(
            PlannedRegion(
                str(Region(contig, int(position_bp[start]), stop_bp)),
                stop - start,
                round(float(position_cm[start]), 4),
                round(float(position_cm[stop - 1]), 4),
                job_memory_mb(site_bytes * int(ends[number] - buffered[number]), wide=wide),
            )
        )
    return regions


def _cut_evenly(position: np.ndarray, edges: list[int], longest: float) -> list[int]:
    """Cut each run of sites between two edges into the fewest even ones, none longer.

    ``position`` is non-decreasing, shape (M,), in the unit of ``longest``. Sites of one position
    may be cut apart.
    """
    cuts = list(edges)
    for start, stop in pairwise(edges):
        first, span = float(position[start]), float(position[stop - 1] - position[start])
        num = max(1, int(np.ceil(span / longest)))
        wanted = first + span * np.arange(1, num) / num
        cuts += (start + np.searchsorted(position[start:stop], wanted, side="left")).tolist()
    return sorted(set(cuts))


def plan_batches(samples: Sequence[str], samples_per_batch: int) -> list[list[str]]:
    """Cut samples, in order, into batches of about equal size, of at most ``samples_per_batch``."""
    if samples_per_batch < 1:
        raise ValueError(f"samples_per_batch {samples_per_batch} must be >= 1")
    num = max(1, -(-len(samples) // samples_per_batch))
    edges = np.linspace(0, len(samples), num + 1).round().astype(int).tolist()
    return [list(samples[start:stop]) for start, stop in pairwise(edges)]


@dataclass(frozen=True)
class Plan:
    """What :func:`make_plan` found.

    Attributes
    ----------
    panel, checksum
        The panel's file name without its folder, and its checksum.
    regions
        See :func:`plan_regions`.
    batches
        See :func:`plan_batches`; None where no target was given.
    """

    panel: str
    checksum: str
    regions: list[PlannedRegion]
    batches: list[list[str]] | None

    def as_tsv(self) -> str:
        """The plan as a table: a line for each job, which is a region, or a batch in a region."""
        columns = ["region", "num_sites", "start_cm", "stop_cm"]
        batches: list[list[str]] = [[]]
        if self.batches is not None:
            columns += ["batch", "num_samples", "first_sample", "last_sample"]
            batches = [
                [str(number), str(len(names)), names[0], names[-1]]
                for number, names in enumerate(self.batches, start=1)
            ]
        lines = [
            [r.region, str(r.num_sites), f"{r.start_cm:.4f}", f"{r.stop_cm:.4f}", *batch,
             str(r.memory_mb)]
            for batch in batches
            for r in self.regions
        ]  # fmt: skip
        return "".join("\t".join(line) + "\n" for line in [[*columns, "memory_mb"], *lines])

    def as_json(self) -> str:
        """The plan as JSON, with the names of all samples."""
        tree = {
            "panel": self.panel,
            "checksum": self.checksum,
            "regions": [asdict(region) for region in self.regions],
        }
        if self.batches is not None:
            tree["batches"] = [
                {"batch": number, "samples": names}
                for number, names in enumerate(self.batches, start=1)
            ]
        return json.dumps(tree, indent=2) + "\n"


def make_plan(
    panel: str | Path,
    target: str | Path | None = None,
    *,
    chunk_cm: float | None = None,
    chunk_mb: float | None = None,
    samples_per_batch: int | None = None,
    region: Region | None = None,
) -> Plan:
    """Plan the imputation of a target, or of any target, from a panel.

    Parameters
    ----------
    panel
        panel.h5
    target
        A target as impute takes it, whose samples are batched. How many sites it may type, on which
        the memory depends, the index of a VCF/BCF tells, or the file itself. None: no batches.
    chunk_cm, chunk_mb
        See :func:`plan_regions`.
    samples_per_batch
        Most samples in a batch; None: all in one.
    region
        What to cover; None: the whole panel.

    Raises
    ------
    InputError, PanelError
        If a file cannot be used, ``samples_per_batch`` comes without a target, or the region has
        no site.
    """
    check_ranges(chunk_cm=chunk_cm, chunk_mb=chunk_mb)
    if samples_per_batch is not None and target is None:
        raise InputError("--samples-per-batch needs a target", hint="name its file")
    with Panel.open(panel) as source:
        start, stop = source.site_range(region)
        if start == stop:
            where = f" in {region}" if region is not None else ""
            raise InputError(f"panel {panel} has no site{where}", hint="check --region")
        at, cm = source.sites.position_bp[start:stop], source.position_cm[start:stop]
        file = None if target is None else _opened(target)
        typed_share = _TYPED_SHARE if file is None else _typed_share(file, source)
        wide = source.num_haplotypes > COMPACT_ABOVE
        site_bytes = window_site_bytes(
            source.bytes_per_site(compact=wide), num_haplotypes=source.num_haplotypes,
            typed_share=typed_share, wide=wide,
        )  # fmt: skip
        regions = plan_regions(
            source.contig, at, cm, chunk_cm=chunk_cm, chunk_mb=chunk_mb, site_bytes=site_bytes,
            wide=wide,
        )  # fmt: skip
        checksum = source.checksum
    batches = None
    if file is not None:
        samples = file.samples
        batches = plan_batches(samples, samples_per_batch or len(samples))
    return Plan(Path(panel).name, checksum, regions, batches)


def _opened(target: str | Path) -> TargetFile:
    """A target's file; what reads it is imported only where there is one."""
    from ragimpute.io.target_file import open_target

    return open_target(target)


def _typed_share(file: TargetFile, panel: Panel) -> float:
    """The part of the panel's sites that may be typed in a target, in [0, 1]."""
    counts = file.num_records
    if counts is None:
        return _TYPED_SHARE
    name = same_contig(panel.contig, counts, declared=file.declared)
    if name is None:
        return _TYPED_SHARE
    return min(1.0, counts[name] / max(1, panel.num_sites))


def write_batches(plan: Plan, folder: Path, *, force: bool = False) -> None:
    """Write the sample names of each batch, one a line, to ``1.txt``, ``2.txt`` ... in a folder.

    Raises
    ------
    InputError
        If the folder holds files and ``force`` is not set, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not force:
            raise InputError(f"folder {folder} is not empty", hint="choose another, or add --force")
        for number, names in enumerate(plan.batches or [], start=1):
            text = "".join(f"{name}\n" for name in names)
            (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from error
