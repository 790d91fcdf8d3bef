"""Read FORMAT/PS: which genotypes of a sample were phased together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragimpute.io.vcf.read.records import RecordReader, VcfFile
from ragimpute.sites import Region, Sites


def read_phase_sets(
    path: str | Path | VcfFile, sites: Sites, samples: Sequence[str], *, threads: int = 1
) -> np.ndarray | None:
    """Phase sets of a file's genotypes.

    Parameters
    ----------
    path
        VCF, VCF.gz or BCF that :func:`ragimpute.io.vcf.read.genotypes.read_target` could read.
    sites
        The T rows wanted, sorted, of one contig in the file's spelling.
    samples
        The N samples wanted, in the order of the file.
    threads
        For decompression, >= 1.

    Returns
    -------
    Shape (T, N), int32: the number of each genotype's phase set, -1 if it is in none. If several
    records are of one site, the first counts. None if no genotype is in a phase set.
    """
    if len(sites) == 0:
        return None
    at = sites.position_bp
    region = Region(sites.contig, int(at[0]), int(at[-1]) + 1)
    file = VcfFile.of(path)
    if "PS" not in file.header.formats:
        return None
    # A second pass over the records: only unphased targets need it, which is known after the first.
    reader = RecordReader(file, region, threads, samples=samples)
    row = {key: i for i, key in reversed(list(enumerate(sites.keys())))}
    out = np.full((len(sites), len(samples)), -1, np.int32)
    seen: set[int] = set()
    for variant in reader.records(sort_check=False):
        found = variant.format("PS")
        for alt in variant.ALT:
            i = row.get((variant.POS, variant.REF, alt), -1)
            if i < 0 or i in seen:
                continue
            seen.add(i)
            if found is not None:
                # Missing and padding are negative.
                out[i] = np.maximum(reader.chosen(np.asarray(found))[:, 0].astype(np.int64), -1)
    return out if (out >= 0).any() else None
