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

import numpy as np

from ragimpute.arguments import check_ranges
from ragimpute.errors import InputError
from ragimpute.panel.reader import Panel
from ragimpute.sites import Region


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
    """

    region: str
    num_sites: int
    start_cm: float
    stop_cm: float


def plan_regions(
    contig: str, position_bp: np.ndarray, position_cm: np.ndarray, *, chunk_cm: float
) -> list[PlannedRegion]:
    """Cut a contig into regions of about equal length, so that each site is in exactly one.

    Parameters
    ----------
    contig
        As the panel spells it.
    position_bp, position_cm
        Shape (M,), int32 and float64, both non-decreasing. Sites of one position stay together.
    chunk_cm
        Length of the longest region, cM, > 0; longer only if sites of one position need it.

    Returns
    -------
    The regions in order. The first begins at the position of the first site, each of the others
    right after the one before it, and the last ends at the position of the last site.

    Raises
    ------
    ValueError
        If ``chunk_cm`` is not positive or there is no site.
    """
    if not chunk_cm > 0 or len(position_bp) == 0:
        raise ValueError(f"chunk_cm {chunk_cm} must be > 0, sites {len(position_bp)} >= 1")
    first_cm, span = float(position_cm[0]), float(position_cm[-1] - position_cm[0])
    num = max(1, int(np.ceil(span / chunk_cm)))
    wanted = first_cm + span * np.arange(1, num) / num
    cuts = np.searchsorted(position_cm, wanted, side="left")
    # Sites of one position stay together: move each cut before the first of them.
    cuts = np.searchsorted(position_bp, position_bp[cuts], side="left")
    edges = np.unique([0, *cuts.tolist(), len(position_bp)])
    regions = []
    for start, stop in pairwise(edges.tolist()):
        last = stop == len(position_bp)
        stop_bp = int(position_bp[-1]) + 1 if last else int(position_bp[stop])
        regions.append(
            PlannedRegion(
                str(Region(contig, int(position_bp[start]), stop_bp)),
                stop - start,
                round(float(position_cm[start]), 4),
                round(float(position_cm[stop - 1]), 4),
            )
        )
    return regions


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
            [r.region, str(r.num_sites), f"{r.start_cm:.4f}", f"{r.stop_cm:.4f}", *batch]
            for batch in batches
            for r in self.regions
        ]
        return "".join("\t".join(line) + "\n" for line in [columns, *lines])

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
    chunk_cm: float = 20.0,
    samples_per_batch: int | None = None,
    region: Region | None = None,
) -> Plan:
    """Plan the imputation of a target, or of any target, from a panel.

    Parameters
    ----------
    panel
        panel.h5
    target
        VCF/BCF whose samples are batched; None: no batches.
    chunk_cm
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
    check_ranges(chunk_cm=chunk_cm)
    if samples_per_batch is not None and target is None:
        raise InputError("--samples-per-batch needs a target", hint="name its VCF/BCF")
    with Panel.open(panel) as source:
        start, stop = source.site_range(region)
        if start == stop:
            where = f" in {region}" if region is not None else ""
            raise InputError(f"panel {panel} has no site{where}", hint="check --region")
        at, cm = source.sites.position_bp[start:stop], source.position_cm[start:stop]
        regions = plan_regions(source.contig, at, cm, chunk_cm=chunk_cm)
        checksum = source.checksum
    batches = None
    if target is not None:
        from ragimpute.io.vcf.header import read_header

        samples = read_header(target).samples
        batches = plan_batches(samples, samples_per_batch or len(samples))
    return Plan(Path(panel).name, checksum, regions, batches)


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
