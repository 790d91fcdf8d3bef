"""A real 1000 Genomes example that the package carries; README.md beside it names its source."""

from __future__ import annotations

from pathlib import Path

NAMES = ("panel.bcf", "target.vcf.gz", "truth.bcf", "chr20.b37.gmap.gz")


def path(name: str) -> Path:
    """Where one of the example's files lies: one of ``NAMES`` (or an index beside it).

    Raises
    ------
    ValueError
        If the example has no file of that name.
    """
    found = Path(__file__).parent / name
    if not found.is_file():
        raise ValueError(f"the example has no file {name!r}, only {', '.join(NAMES)}")
    return found
