"""What is asked of a file that a target is read from, and what it tells beside the genotypes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np


class SourceFile(Protocol):
    """A file, or a set of files, that holds a target's genotypes."""

    @property
    def path(self) -> Path:
        """The file, as messages call it."""

    @property
    def samples(self) -> list[str]:
        """Names, in file order."""

    @property
    def contigs(self) -> dict[str, int | None]:
        """Contigs that hold records, in file order, with their lengths in bp as declared, or None.

        Parts of a chromosome that are read along with it, such as PLINK's XY, are not among them.
        """

    @property
    def num_records(self) -> Mapping[str, int] | None:
        """How many records each contig holds; None if only reading them all would tell."""

    @property
    def declared(self) -> Mapping[str, int | None]:
        """Contigs that the file declares, and their lengths in bp or None."""


@dataclass(frozen=True)
class SourceFacts:
    """What a file that is no VCF says of itself, for a report.

    Attributes
    ----------
    kind
        Its format, such as "PLINK 1 (bed, bim, fam)" or "raw text of 23andMe".
    build, build_by
        Its genome build, such as "GRCh37", or None; and what tells it.
    known_sites
        Positions of the well-known SNPs of all its contigs, by rsID, see
        :mod:`ragimpute.io.known_sites`.
    sex
        Of one sample: "male", "female" or "uncertain", and why; of several: how many of each. "" if
        nothing is told.
    sexes
        Shape (N,), int8: 1 male, 2 female, 0 unknown; None if the file says nothing.
    counts
        What was met while it was read, by what a table calls it.
    warnings
        What a user should know, one line each.
    names_alleles
        Whether its genotypes name the alleles of the sample, so that nobody knows which of them is
        REF, and what a homozygous sample's other allele would be.
    ordered
        Whether the file says which of two alleles is REF.
    """

    kind: str
    build: str | None = None
    build_by: str = "its header"
    sex: str = ""
    sexes: np.ndarray | None = None
    counts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    names_alleles: bool = False
    ordered: bool = True
    known_sites: Mapping[str, int] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        told = f", {self.build} by {self.build_by}" if self.build else ""
        rows = [("file", self.kind + told)]
        if self.sex:
            rows.append(("sex", self.sex))
        return rows + [(name, f"{count:,}") for name, count in self.counts.items() if count]
