"""Panels and targets with several ALTs at a position, joined in one record or split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from panel_fixtures import names
from vcf_fixtures import vcf_text

BASES = "ACGT"


@dataclass(frozen=True)
class Records:
    """Records with one ALT or more.

    Attributes
    ----------
    sites
        (position, REF, list of ALTs) of each of m records.
    alleles
        Shape (m, N, 2), int: 0 REF, 1 the first ALT, ...
    """

    sites: list[tuple[int, str, list[str]]]
    alleles: np.ndarray

    def take(self, rows):
        """Some of the records."""
        rows = np.arange(len(self.sites))[rows]
        return Records([self.sites[i] for i in rows], self.alleles[rows])

    def of_samples(self, samples):
        """Some of the samples."""
        return Records(self.sites, self.alleles[:, samples])

    def joined(self, *, phased=True):
        """Rows of a VCF, a record each."""
        bar = "|" if phased else "/"
        return [
            (position, ref, ",".join(alts), *(bar.join(map(str, pair)) for pair in row))
            for (position, ref, alts), row in zip(self.sites, self.alleles.tolist(), strict=True)
        ]

    def split(self, *, phased=True, rng=None):
        """Rows of a VCF, one for each ALT, as ``bcftools norm -m -`` writes them; in any order."""
        bar, rows = "|" if phased else "/", []
        for (position, ref, alts), row in zip(self.sites, self.alleles, strict=True):
            order = range(len(alts)) if rng is None else rng.permutation(len(alts))
            for i in order:
                own = (row == i + 1).astype(int).tolist()
                rows.append((position, ref, alts[i], *(bar.join(map(str, pair)) for pair in own)))
        return rows

    def write(self, path, rows):
        """A VCF of such rows."""
        path.write_text(vcf_text(rows, names(self.alleles.shape[1])))
        return path


def mosaic_records(seed, num_records, num_samples, *, num_founders=8):
    """Mosaics of a few founders, which carry one of up to four alleles at each record."""
    rng = np.random.default_rng(seed)
    sites, founders = [], np.zeros((num_records, num_founders), int)
    for i in range(num_records):
        ref, *others = rng.permutation(list(BASES)).tolist()
        alts = others[: rng.integers(1, 4)]
        if i % 5 == 3:  # deletion and insertions of one anchor
            ref, alts = "CA", ["C", "CAA", "CAAA"][: rng.integers(1, 4)]
        sites.append((1_000_000 + 2_000 * i, ref, alts))
        founders[i] = rng.integers(0, len(alts) + 1, num_founders)
    alleles = np.empty((num_records, 2 * num_samples), int)
    for h in range(2 * num_samples):
        jump = rng.random(num_records) < 0.02
        source = rng.integers(0, num_founders, num_records)
        at = np.maximum.accumulate(np.where(jump, np.arange(num_records), 0))
        alleles[:, h] = founders[np.arange(num_records), source[at]]
    return Records(sites, alleles.reshape(num_records, num_samples, 2))
