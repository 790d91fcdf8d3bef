"""Targets without their phase, as arrays deliver them."""

from __future__ import annotations

import gzip
from pathlib import Path

from ragimpute.io.vcf.bgzf import BgzfWriter


def write_unphased(target: Path, out: Path) -> None:
    """Copy a .vcf.gz whose FORMAT begins with GT: alleles in ascending order, joined by "/"."""
    with gzip.open(target, "rt") as source, out.open("wb") as file:
        writer = BgzfWriter(file)
        for line in source:
            if line.startswith("#"):
                writer.write(line.encode())
                continue
            columns = line.rstrip("\n").split("\t")
            columns[9:] = [_turned(cell) for cell in columns[9:]]
            writer.write(("\t".join(columns) + "\n").encode())
        writer.finish()


def _turned(cell: str) -> str:
    """A sample's fields, the genotype without its phase."""
    genotype, *rest = cell.split(":")
    return ":".join(["/".join(sorted(genotype.replace("|", "/").split("/"))), *rest])
