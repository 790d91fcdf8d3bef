"""What a target looks like beside its panel: counts to read first, and the records left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.reader import Panel
from ragimpute.runtime.outputs import replacing
from ragimpute.target.match import FATES, MATCHED, Match

_ROWS_AT_ONCE = 1024
NOTED = (
    "filter_set", "multiallelic", "not_snp", "monomorphic", "low_call_rate", "alt_above_half",
)  # fmt: skip
LOW_SITE_CALL_RATE, LOW_SAMPLE_CALL_RATE = 0.9, 0.5

# Reason: how to mend it.
_FIXES = {
    "not_in_panel": "no mending: the panel lacks this site; --typed-only keeps it in the output",
    "allele_mismatch": "compare with the panel's alleles: bcftools norm -f, or +fixref",
    "ambiguous_strand": "bring it to the forward strand, or give --palindromes keep",
    "duplicate": "keep one: bcftools norm -d exact",
    "invalid": "write the alleles as bases, e.g. plink2 --ref-from-fa",
    "symbolic": "no mending: a symbolic allele has no bases to match by",
    "star": "no mending: the allele * belongs to a deletion that starts before",
    "no_alt": "write the ALT that the array can see",
}
_LABELS = {
    "matched": "match",
    "swapped": "allele switch",
    "flipped": "strand flip",
    "flipped_swapped": "strand flip and allele switch",
    "not_in_panel": "not in the panel",
    "allele_mismatch": "other alleles than the panel",
    "ambiguous_strand": "A/T or C/G of uncertain strand",
    "duplicate": "duplicates",
    "invalid": "invalid alleles",
    "symbolic": "symbolic alleles",
    "star": "alleles *",
    "no_alt": "no ALT",
}


@dataclass(frozen=True)
class QcSummary:
    """Counts of a target's records, those that Michigan's imputation server shows among them.

    Attributes
    ----------
    num_records
        Rows of the target (one for each ALT), and ALTs that could not become one.
    overlap
        Share of the rows within the panel's range that are panel sites; NaN if there is none.
    fates
        Rows by what became of them (``match.FATES``), and ALTs left out when reading, by reason.
    palindromes
        See :class:`ragimpute.target.match.Match`.
    noted
        Rows that are used, but worth a look, for each name in ``NOTED``: "low_call_rate" is below
        90 % of haplotypes, "alt_above_half" an ALT frequency above 0.5.
    call_rate
        Share of each sample's haplotypes that were observed, by name.
    """

    num_records: int
    overlap: float
    fates: dict[str, int]
    palindromes: dict[str, int]
    noted: dict[str, int]
    call_rate: dict[str, float] = field(default_factory=dict)

    @property
    def low_samples(self) -> list[str]:
        """Samples with less than half of their haplotypes observed."""
        return [name for name, rate in self.call_rate.items() if rate < LOW_SAMPLE_CALL_RATE]

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        found = self.palindromes
        noted = self.noted
        return [
            ("records", f"{self.num_records:,}"),
            ("reference overlap", f"{self.overlap:.2%}" if self.overlap == self.overlap else "–"),
            *((_LABELS[fate], f"{self.fates[fate]:,}") for fate in MATCHED),
            ("A/T, C/G", f"{found['found']:,}"),
            ("A/T, C/G, turned to the panel's strand", f"{found['other_strand']:,}"),
            *((f"filtered: {_LABELS[reason]}", f"{n:,}")
              for reason, n in self.fates.items() if reason not in MATCHED),
            ("noted: ALT frequency > 0.5", f"{noted['alt_above_half']:,}"),
            ("noted: FILTER set", f"{noted['filter_set']:,}"),
            ("noted: multiallelic", f"{noted['multiallelic']:,}"),
            ("noted: not SNPs", f"{noted['not_snp']:,}"),
            ("noted: monomorphic", f"{noted['monomorphic']:,}"),
            ("noted: call rate < 90 %", f"{noted['low_call_rate']:,}"),
            ("samples with call rate < 50 %", f"{len(self.low_samples):,}"),
        ]  # fmt: skip


def summarise(target: Target, panel: Panel, match: Match) -> QcSummary:
    """Count a target's records; genotypes are counted, INFO is not read."""
    sites = target.sites
    at = panel.sites.position_bp
    within = 0
    if len(at):
        within = int(((sites.position_bp >= at[0]) & (sites.position_bp <= at[-1])).sum())
    noted = dict.fromkeys(NOTED, 0)
    noted |= {"filter_set": target.num_filtered, "multiallelic": int(target.multiallelic.sum())}
    noted["not_snp"] = sum(
        len(ref) > 1 or len(alt) > 1 for ref, alt in zip(sites.ref, sites.alt, strict=True)
    )
    observed = np.zeros(len(target.samples), dtype=np.int64)
    present = observed.copy()
    for first in range(0, len(sites), _ROWS_AT_ONCE):
        alleles = target.alleles[first : first + _ROWS_AT_ONCE]
        alleles = alleles.reshape(len(alleles), -1)  # (m, 2 N)
        called = alleles >= 0
        there = alleles != -2
        num_called = np.count_nonzero(called, axis=1)
        num_alt = np.count_nonzero(alleles == 1, axis=1)
        noted["monomorphic"] += int(((num_alt == 0) | (num_alt == num_called)).sum())
        noted["alt_above_half"] += int((2 * num_alt > num_called).sum())
        rate = num_called / np.maximum(1, np.count_nonzero(there, axis=1))
        noted["low_call_rate"] += int((rate < LOW_SITE_CALL_RATE).sum())
        observed += np.count_nonzero(called, axis=0).reshape(-1, 2).sum(axis=1)
        present += np.count_nonzero(there, axis=0).reshape(-1, 2).sum(axis=1)
    rates = (observed / np.maximum(1, present)).tolist() if len(sites) else []
    return QcSummary(
        num_records=len(sites) + len(target.left_out),
        overlap=len(match.panel_index) / within if within else float("nan"),
        fates=match.counts | dict(Counter(alt.reason for alt in target.left_out)),
        palindromes=match.palindromes,
        noted=noted,
        call_rate=dict(zip(target.samples, rates, strict=False)),
    )


def excluded_rows(target: Target, panel: Panel, match: Match) -> Iterator[list[str]]:
    """The records that are not used, by position: the columns of :func:`write_excluded`."""
    left_out = np.flatnonzero(match.fate >= len(MATCHED))
    rows = [
        (*key, id_, FATES[fate])
        for fate, key, id_ in zip(
            match.fate[left_out].tolist(),
            target.sites.take(left_out).keys(),
            target.sites.id[left_out],
            strict=True,
        )
    ]
    rows += [(alt.position_bp, alt.ref, alt.alt, alt.id, alt.reason) for alt in target.left_out]
    near = np.isin(panel.sites.position_bp, [row[0] for row in rows])
    known: dict[int, list[str]] = {}
    for position, ref, alt in panel.sites.take(near).keys():
        known.setdefault(position, []).append(f"{ref}>{alt}")
    for position, ref, alt, id_, reason in sorted(rows, key=lambda row: row[0]):
        here = ",".join(known.get(position, ["."]))
        fix = _FIXES[reason]
        yield [target.sites.contig, str(position), id_, ref, alt, reason, here, fix]


def write_excluded(path: str | Path, target: Target, panel: Panel, match: Match) -> int:
    """Write the records that are not used, with the reason and how to mend it.

    Parameters
    ----------
    path
        A table of tab-separated columns: CHROM, POS, ID, REF, ALT, REASON, PANEL (the panel's
        alleles at this position), FIX.
    target, panel, match
        Records, panel, and what :func:`ragimpute.target.match.match_sites` found.

    Returns
    -------
    How many records there are.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    head = ["#CHROM", "POS", "ID", "REF", "ALT", "REASON", "PANEL", "FIX"]
    lines = ["\t".join(row) for row in [head, *excluded_rows(target, panel, match)]]
    path = Path(path)
    try:
        with replacing(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", hint="choose a path") from error
    return len(lines) - 1
