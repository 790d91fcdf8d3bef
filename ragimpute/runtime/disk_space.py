"""Whether the disk has room for a run, before the run is begun."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ragimpute.errors import InputError

# Bytes of a genotype by format and field, and of a site's other columns ("site"), as measured on
# the packaged example, plain copying: 6,127 sites of 50 samples. How well probabilities compress
# depends on the data, by a factor of two or so.
_BYTES = {
    "vcf": {"site": 112, "GT": 4.0, "DS": 3.0, "GP": 8.0, "HDS": 5.2, "AP": 5.3},
    "vcf.gz": {"site": 28, "GT": 0.4, "DS": 0.7, "GP": 0.8, "HDS": 0.7, "AP": 0.7},
    "bcf": {"site": 26, "GT": 0.4, "DS": 0.8, "GP": 1.5, "HDS": 1.0, "AP": 1.1},
}


def output_bytes(kind: str, fields: Sequence[str], num_sites: int, num_samples: int) -> int:
    """About what an output will take.

    Parameters
    ----------
    kind, fields
        See :func:`ragimpute.io.vcf.write.writer.output_kind`; of GT, DS, GP, HDS, AP.
    num_sites, num_samples
        To be written, >= 0.
    """
    cost = _BYTES[kind]
    return int(num_sites * (cost["site"] + num_samples * sum(cost[name] for name in fields)))


def check_space(folder: str | Path, *, output: int, temporary: int) -> str | None:
    """Compare what a run will write with what its folder has free.

    Parameters
    ----------
    folder
        Where it writes.
    output
        About what the output will take, in bytes: an estimate.
    temporary
        What waits on disk at once, in bytes, beside the output: exact.

    Returns
    -------
    A warning, where the estimate does not fit.

    Raises
    ------
    InputError
        If what is exact does not fit.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # not every file system says
        return None
    if temporary > free:
        raise InputError(
            f"a window's probabilities will take {_size(temporary)} of disk, but {folder} has "
            f"{_size(free)} free",
            hint="make room there, or give a smaller --chunk-cm, a larger --max-memory, or fewer "
            "samples at a time",
        )
    if output + temporary > free:
        also = f", and {_size(temporary)} for the time being" if temporary else ""
        return (
            f"the output will take about {_size(output)}{also}, but {folder} has {_size(free)} "
            "free; with --resume, a run that fills the disk can be gone on with"
        )
    return None


def _size(num_bytes: int) -> str:
    """A size as a person reads it."""
    unit, name = (2**30, "GiB") if num_bytes >= 2**29 else (2**20, "MiB")
    return f"{num_bytes / unit:,.1f} {name}"
