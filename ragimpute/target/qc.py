"""What a target looks like beside its panel: counts, records that are left out, and warnings."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ragimpute.commands import command_word, free_name
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import BlockCounts, Target
from ragimpute.io.vcf.read.phase_sets import in_pieces
from ragimpute.io.vcf.read.records import VcfFile
from ragimpute.panel.reader import Panel
from ragimpute.runtime.outputs import replacing
from ragimpute.sites import some_names
from ragimpute.symbolic import is_symbolic
from ragimpute.target.match import FATES, MATCHED, Match, compare_positions, likely_cause
from ragimpute.target.ploidy import ploidy_warnings

log = logging.getLogger("ragimpute")

_ROWS_AT_ONCE = 1024
NOTED = (
    "filter_set", "multiallelic", "not_snp", "monomorphic", "low_call_rate", "alt_above_half",
)  # fmt: skip
# Counts of a report that are not of the target's records by what became of them.
NOT_RECORDS = {
    "typed": "sites typed",
    "missing_alleles": "missing alleles",
    "discordant_calls": "calls made missing, as duplicates of a site contradict each other",
    "contradicting_calls": "calls made missing, as two ALTs are on one haplotype",
    "reference": "sites typed as REF by a gVCF's blocks",
    "typed_only": "records written that the panel lacks",
    "not_listed": "sites left out that --sites-file does not name",
    "below_min_gp": "genotypes written as missing for their GP",
    "below_min_r2": "untyped sites left out for their DR2",
}
LOW_SITE_CALL_RATE, LOW_SAMPLE_CALL_RATE = 0.9, 0.5

# For each reason why a record is left out, how to mend the record.
NORM = "bcftools norm -f REF.fa TARGET"
_FIXES = {
    "not_in_panel": "no mending: the panel lacks this site; --all-typed-sites keeps it in the "
    "output",
    "allele_mismatch": f"compare with the panel's alleles: {NORM}",
    "ambiguous_strand": "bring it to the forward strand, or give --palindromes keep",
    "duplicate": "no mending: merged with the first record of this site",
    "invalid": "write the alleles as bases, which the manifest of the array has",
    "reference_blocks": "no mending: it tells of no ALT",
    "symbolic": "no mending: the panel has no symbolic alleles, or --chain was given, which does "
    "not lift END",
    "star": "no mending: the allele * belongs to a deletion that starts before",
    "no_alt": "write the ALT that the array can see",
    "position_0": "no mending: a contig begins at position 1",
    "lift_unmapped": "no mending: the panel's genome build lacks this base",
    "lift_several": "no mending: the panel's genome build has this base at several places",
    "lift_other_contig": "impute that contig, from a target that has it there",
    "lift_broken": "no mending: REF is not in one piece in the panel's genome build",
    "lift_inverted_indel": "lift it over by bcftools +liftover, which needs both genomes",
    "vague_indel": "write bases for I and D: the panel has no indel at this position, or several",
    "no_call": "no mending: the vendor called no genotype",
    "repeated": "no mending: its carriers count as carriers of the same allele before it",
}
_LABELS = {
    "matched": "match",
    "swapped": "allele switch",
    "flipped": "strand flip",
    "flipped_swapped": "strand flip and allele switch",
    "reference": "REF, within a reference block",
    "not_in_panel": "not in the panel",
    "allele_mismatch": "other alleles than the panel",
    "ambiguous_strand": "A/T or C/G of uncertain strand",
    "duplicate": "duplicates, merged",
    "invalid": "invalid alleles",
    "reference_blocks": "reference blocks",
    "symbolic": "symbolic alleles",
    "star": "alleles *",
    "no_alt": "no ALT",
    "position_0": "at position 0",
    "lift_unmapped": "not in the panel's build",
    "lift_several": "at several places of the panel's build",
    "lift_other_contig": "on another contig in the panel's build",
    "lift_broken": "REF in pieces in the panel's build",
    "lift_inverted_indel": "indels on the other strand of the panel's build",
    "vague_indel": "I and D without an indel of the panel that they must be",
    "no_call": "no-calls where the panel has no SNP",
    "repeated": "ALT repeated in its record",
}
# INFO that imputation writes, and the words by which bcftools keeps what was typed.
_IMPUTED_INFOS = ("DR2", "R2", "INFO", "RAF")
_TYPED_FILTERS = {
    "TYPED": "-i INFO/TYPED=1", "IMP": "-e INFO/IMP=1", "IMPUTED": "-e INFO/IMPUTED=1",
}  # fmt: skip
_LOW_OVERLAP = 0.5


@dataclass(frozen=True)
class ReadSummary:
    """What the reads of a target with likelihoods say at the panel's sites.

    Attributes
    ----------
    fields
        The FORMAT fields that were read.
    share
        Of the genotypes at panel sites that the target has, those whose reads say something; NaN if
        there is no such site.
    mean_depth
        Mean of FORMAT/DP over all records and samples; NaN if no record has it.
    num_called
        Genotypes at panel sites that were called and have no likelihoods, as those of an array.
    without_reads
        Samples whose reads say nothing at any panel site.
    num_incomplete, num_indels
        See :class:`ragimpute.io.vcf.read.likelihoods.LikelihoodCounts`.
    """

    fields: tuple[str, ...]
    share: float
    mean_depth: float
    num_called: int
    without_reads: tuple[str, ...]
    num_incomplete: int
    num_indels: int

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        share, depth = self.share, self.mean_depth
        return [
            ("genotypes", f"by their likelihoods ({', '.join(self.fields) or 'given'})"),
            ("genotypes with reads, at panel sites", f"{share:.2%}" if share == share else "–"),
            ("genotypes called without likelihoods, at panel sites", f"{self.num_called:,}"),
            ("mean depth (DP)", f"{depth:.3g}" if depth == depth else "–"),
            ("samples without reads at panel sites", f"{len(self.without_reads):,}"),
            ("genotypes with a part of their likelihoods, not used", f"{self.num_incomplete:,}"),
            ("insertions and deletions whose likelihoods are not used", f"{self.num_indels:,}"),
        ]


@dataclass(frozen=True)
class QcSummary:
    """Counts of a target's records; the Michigan Imputation Server shows most of them too.

    Attributes
    ----------
    num_records, num_further_alts
        Records of the target's file on the contig (with a region: around it), and their ALTs beyond
        the first of each. Together they are ``num_alts`` and the reference blocks.
    overlap
        Share of the rows within the panel's range that are panel sites; NaN if there is none.
        Reference blocks are not among them.
    fates
        How many rows met each fate (``match.FATES``), and how many ALTs were left out when the file
        was read, by reason. "reference" counts panel sites within reference blocks.
    palindromes
        See :class:`ragimpute.target.match.Match`.
    discordant
        Genotypes that are missing since duplicates of one site contradict each other.
    contradicting
        Genotypes that are missing since two ALTs of one locus are said to be on one haplotype.
    noted
        How many rows are used but odd, for each name in ``NOTED``: "low_call_rate" means that less
        than 90 % of haplotypes were observed, "alt_above_half" that ALT is more frequent than 0.5.
    call_rate
        Share of each sample's haplotypes that were observed, by name.
    blocks
        The reference blocks of a gVCF.
    source
        What a file that is no VCF says of itself, by what a table calls it: its format and build,
        the samples' sex, and what was met while it was read.
    listed
        How many sites of a list a run would write, and what the others lack; "" without a list.
    reads
        What reads say where likelihoods are used, else None. Then "monomorphic", "low_call_rate"
        and "alt_above_half" are of the rows that have called genotypes, and ``call_rate`` is empty.
    """

    num_records: int
    overlap: float
    fates: dict[str, int]
    palindromes: dict[str, int]
    noted: dict[str, int]
    call_rate: dict[str, float] = field(default_factory=dict)
    discordant: int = 0
    contradicting: int = 0
    num_further_alts: int = 0
    blocks: BlockCounts = field(default_factory=BlockCounts)
    source: dict[str, str] = field(default_factory=dict)
    listed: str = ""
    reads: ReadSummary | None = None

    @property
    def num_alts(self) -> int:
        """Rows of the target (one for each ALT), and ALTs that could not become a row."""
        return sum(self.fates.values()) - self.fates.get("reference", 0)

    @property
    def low_samples(self) -> list[str]:
        """Samples with less than half of their haplotypes observed."""
        return [name for name, rate in self.call_rate.items() if rate < LOW_SAMPLE_CALL_RATE]

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table."""
        found = self.palindromes
        noted = self.noted
        return [
            *((f"target {name}", told) for name, told in self.source.items()),
            ("records", f"{self.num_records:,}"),
            *([("further ALTs of these records", f"{self.num_further_alts:,}")]
              if self.num_further_alts else []),
            *self._block_rows(),
            ("reference overlap", f"{self.overlap:.2%}" if self.overlap == self.overlap else "–"),
            *((_LABELS[fate], f"{self.fates[fate]:,}") for fate in MATCHED
              if fate != "reference"),
            ("A/T, C/G", f"{found['found']:,}"),
            ("A/T, C/G, turned to the panel's strand", f"{found['other_strand']:,}"),
            *((f"filtered: {_LABELS[reason]}", f"{n:,}")
              for reason, n in self.fates.items() if reason not in MATCHED),
            ("discordant calls of duplicates, now missing", f"{self.discordant:,}"),
            ("calls of two ALTs on one haplotype, now missing", f"{self.contradicting:,}"),
            ("noted: ALT frequency > 0.5", f"{noted['alt_above_half']:,}"),
            ("noted: FILTER set", f"{noted['filter_set']:,}"),
            ("noted: multiallelic", f"{noted['multiallelic']:,}"),
            ("noted: not SNPs", f"{noted['not_snp']:,}"),
            ("noted: monomorphic", f"{noted['monomorphic']:,}"),
            ("noted: call rate < 90 %", f"{noted['low_call_rate']:,}"),
            ("samples with call rate < 50 %", f"{len(self.low_samples):,}"),
            *([("--sites-file", self.listed)] if self.listed else []),
            *([] if self.reads is None else self.reads.rows()),
        ]  # fmt: skip

    def _block_rows(self) -> list[tuple[str, str]]:
        """Names and values of what a gVCF's reference blocks say; none if there are no blocks."""
        found = self.blocks
        if not found.num_blocks:
            return []
        return [
            ("gVCF: reference blocks", f"{found.num_blocks:,}"),
            ("gVCF: panel sites typed as REF by them", f"{self.fates.get('reference', 0):,}"),
            ("gVCF: panel sites of too low quality in them", f"{found.num_low:,}"),
            ("gVCF: panel sites with another REF than theirs", f"{found.num_other_ref:,}"),
        ]


def summarise(target: Target, panel: Panel, match: Match) -> QcSummary:
    """Count a target's records; frequencies are counted from genotypes, not read from INFO."""
    sites = target.sites
    at = panel.sites.position_bp
    within = 0
    if len(at):
        inside = (sites.position_bp >= at[0]) & (sites.position_bp <= at[-1])
        within = int((inside & ~target.reference).sum())
    noted = dict.fromkeys(NOTED, 0)
    noted |= {"filter_set": target.num_filtered, "multiallelic": int((target.record >= 0).sum())}
    noted["not_snp"] = sum(
        len(ref) > 1 or len(alt) > 1
        for ref, alt, own in zip(sites.ref, sites.alt, ~target.reference, strict=True)
        if own
    )
    observed = np.zeros(len(target.samples), dtype=np.int64)
    present = observed.copy()
    for first in range(0, len(sites), _ROWS_AT_ONCE):
        alleles = target.alleles[first : first + _ROWS_AT_ONCE]
        alleles = alleles.reshape(len(alleles), -1)  # (m, 2 N)
        called = alleles >= 0
        there = alleles != -2
        own = ~target.reference[first : first + _ROWS_AT_ONCE]
        num_called = np.count_nonzero(called, axis=1)
        if target.likelihoods is not None:
            own &= num_called > 0
        num_alt = np.count_nonzero(alleles == 1, axis=1)
        noted["monomorphic"] += int((((num_alt == 0) | (num_alt == num_called)) & own).sum())
        noted["alt_above_half"] += int((2 * num_alt > num_called).sum())
        rate = num_called / np.maximum(1, np.count_nonzero(there, axis=1))
        noted["low_call_rate"] += int(((rate < LOW_SITE_CALL_RATE) & own).sum())
        observed += np.count_nonzero(called, axis=0).reshape(-1, 2).sum(axis=1)
        present += np.count_nonzero(there, axis=0).reshape(-1, 2).sum(axis=1)
    rates = (observed / np.maximum(1, present)).tolist() if len(sites) else []
    if target.likelihoods is not None:
        rates = []
    return QcSummary(
        num_records=target.num_records,
        overlap=len(match.of_records().panel_index) / within if within else float("nan"),
        fates=match.counts | dict(Counter(alt.reason for alt in target.left_out)),
        palindromes=match.palindromes,
        noted=noted,
        call_rate=dict(zip(target.samples, rates, strict=False)),
        discordant=int(match.discordant.sum()),
        contradicting=match.num_contradicting,
        num_further_alts=target.num_further_alts,
        blocks=target.blocks,
        source={} if target.facts is None else dict(target.facts.rows()),
        reads=_read_summary(target, match),
    )


def _read_summary(target: Target, match: Match) -> ReadSummary | None:
    """What the reads say of a target with likelihoods; None of others."""
    if target.likelihoods is None:
        return None
    seen = match.has_reads()
    called = (match.alleles >= 0).any(axis=2) & ~seen
    bare = ~seen.any(axis=0)
    counts = target.likelihood_counts
    return ReadSummary(
        fields=() if counts is None else counts.fields,
        share=float(seen.mean()) if seen.size else float("nan"),
        mean_depth=float("nan") if counts is None else counts.mean_depth,
        num_called=int(called.sum()),
        without_reads=tuple(target.samples[i] for i in np.flatnonzero(bare)),
        num_incomplete=0 if counts is None else counts.num_incomplete,
        num_indels=0 if counts is None else counts.num_indels,
    )


def excluded_rows(target: Target, panel: Panel, match: Match) -> Iterator[list[str]]:
    """The rows of :func:`write_excluded`, sorted by position."""
    left_out = np.flatnonzero(match.fate >= len(MATCHED))
    sites = target.sites.take(left_out)
    rows = []
    for i, key, id_ in zip(left_out.tolist(), sites.keys(), sites.id, strict=True):
        reason = FATES[match.fate[i]]
        fix = _fix(reason, match.look_alikes.get(i, ""))
        if is_symbolic(target.sites.alt[i]) and reason == "allele_mismatch":
            fix = "compare ALT, END and SVLEN with the panel's"
        if reason == "duplicate" and match.discordant[i]:
            fix += f"; discordant calls made missing: {match.discordant[i]}"
        rows.append((*key, id_, reason, fix))
    rows += [
        (alt.position_bp, alt.ref, alt.alt, alt.id, alt.reason, _fix(alt.reason))
        for alt in target.left_out
    ]
    near = np.isin(panel.sites.position_bp, [row[0] for row in rows])
    known: dict[int, list[str]] = {}
    for position, ref, alt in panel.sites.take(near).keys():
        known.setdefault(position, []).append(f"{ref}>{alt}")
    for position, ref, alt, id_, reason, fix in sorted(rows, key=lambda row: row[0]):
        lost = reason.startswith("lift_")  # its position is of another build
        here = "." if lost else ",".join(known.get(position, ["."]))
        yield [target.sites.contig, str(position), id_, ref, alt, reason, here, fix]


def _fix(reason: str, look_alike: str = "") -> str:
    """How to mend a record that is left out; ``look_alike``: the panel's indel that it may be."""
    if not look_alike:
        return _FIXES[reason]
    return f"may be the panel's {look_alike}: give --fasta REF.fa, or {NORM}"


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


@dataclass(kw_only=True)
class TargetReport:
    """What is found out about a target before it is phased or imputed.

    Attributes
    ----------
    num_samples, num_haplotypes
        Target samples that are used; panel haplotypes.
    counts
        Target records by what became of them (see :class:`ragimpute.target.match.Match`), and
        genotypes.
    qc
        What the target looks like beside the panel.
    untyped_samples
        Samples without a genotype at any panel site, which are given the panel's frequencies.
    warnings
        What a user should know, one line each.
    """

    num_samples: int = 0
    num_haplotypes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    qc: QcSummary | None = None
    untyped_samples: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def record_rows(self) -> list[tuple[str, str]]:
        """What became of the target's records, and of a gVCF's blocks, for a run's summary."""
        told = [
            f"{n:,} {key.replace('_', ' ')}"
            for key, n in self.counts.items()
            if n and key not in NOT_RECORDS
        ]
        if self.qc is None:
            return [("target records", ", ".join(told))]
        blocks, more, reads = self.qc.blocks, self.qc.num_further_alts, self.qc.reads
        whole = f"{self.qc.num_records:,}" + (f" with {more:,} further ALTs" if more else "")
        rows = [("target records", f"{whole}: {', '.join(told)}" if told else whole)]
        rows = [*((f"target {name}", text) for name, text in self.qc.source.items()), *rows]
        if blocks.num_blocks:
            low = f"; {blocks.num_low:,} are of too low quality" if blocks.num_low else ""
            other = f"; {blocks.num_other_ref:,} have another REF" if blocks.num_other_ref else ""
            typed = self.qc.fates.get("reference", 0)
            rows.append(("gVCF", f"its blocks type {typed:,} panel sites as REF{low}{other}"))
        if reads is not None:
            rows += reads.rows()[:4]
        return rows


def imputed_before(target: Target) -> str | None:
    """What to say of a target that an imputation wrote, by the fields of its header; or None."""
    file = target.file
    if not isinstance(file, VcfFile) or target.likelihoods is not None:
        return None
    infos = file.header.infos
    if not {"DS", "HDS"} & file.header.formats or not {*_IMPUTED_INFOS, *_TYPED_FILTERS} & infos:
        return None
    told = (
        f"the target {file.path} seems to be imputed already (FORMAT/DS): its genotypes (GT) are "
        "taken for observed ones, and its dosages are not used; impute what was typed"
    )
    words = next((words for name, words in _TYPED_FILTERS.items() if name in infos), None)
    if words is None:
        return told
    out = command_word(free_name(file.path, ".typed.vcf.gz"))
    return f"{told}: bcftools view {words} {command_word(file.path)} -Oz -o {out}"


def warn_of_target(
    report: TargetReport,
    target: Target,
    panel: Panel,
    shared: Match,
    start: int,
    stop: int,
    par: str | None = None,
) -> None:
    """Add warnings about records and samples to a report, and log them.

    ``start``, ``stop``: the panel sites [start, stop) that are reported. ``par``: the
    pseudo-autosomal regions, as for :func:`ragimpute.panel.ploidy.par_regions`.
    """
    counts, warn = shared.counts, report.warnings.append
    if target.sites.contig != panel.contig:
        warn(
            f"contig {panel.contig} of the panel is {target.sites.contig} in the target, and so in "
            "the output"
        )
    if not len(shared.panel_index):
        what = "no record" if shared.num_records == 0 else "no record that the panel has"
        warn(
            f"the target has {what} in the region and its buffer, which has {stop - start} "
            "panel sites: every sample is given the panel's frequencies, and DR2 is 0"
        )
    if counts["swapped"] and (target.facts is None or target.facts.ordered):
        warn(
            f"{counts['swapped']} target records have REF and ALT swapped against the panel; "
            "their alleles were recoded"
        )
    flipped = counts["flipped"] + counts["flipped_swapped"]
    if flipped:
        warn(
            f"{flipped} target records are of the other strand than the panel "
            f"({counts['flipped_swapped']} of them swapped too); their alleles were recoded"
        )
    if counts["ambiguous_strand"]:
        warn(
            f"{counts['ambiguous_strand']} A/T or C/G records are of uncertain strand and were "
            "left out (--palindromes keep takes them as they stand)"
        )
    num_discordant = int(shared.discordant.sum())
    if num_discordant:
        warn(
            f"{num_discordant} genotypes are missing, since {counts['duplicate']} records repeat "
            "a site and contradict the record before (--excluded-sites lists them)"
        )
    if shared.num_contradicting:
        warn(
            f"{shared.num_contradicting} genotypes are missing, since they have two ALTs of one "
            "position and REF on one haplotype, or more ALTs than haplotypes"
        )
    if shared.look_alikes:
        warn(
            f"{len(shared.look_alikes)} insertions and deletions that the panel lacks may be some "
            f"that it has in another place: give --fasta REF.fa, or {NORM}"
        )
    qc = report.qc
    if qc is not None and shared.num_records and qc.overlap < _LOW_OVERLAP:
        records = target.of_records()
        found = compare_positions(records, panel, 0, panel.num_sites)
        cause = likely_cause(records, panel, found)
        if qc.blocks.num_blocks:
            cause = cause.replace("array's sites", "target's variants")
        num_found = len(shared.of_records().panel_index)
        warn(
            f"only {num_found} of the {found.num_records} target records within the panel's range "
            f"are panel sites; {cause}"
        )
    _warn_of_samples(report, target, panel, shared)
    if len(shared.panel_index):
        report.warnings += ploidy_warnings(target, panel, shared, par)
    inside = (shared.panel_index >= start) & (shared.panel_index < stop)
    report.counts["typed"] = int(inside.sum())
    if num_discordant:
        report.counts["discordant_calls"] = num_discordant
    if shared.num_contradicting:
        report.counts["contradicting_calls"] = shared.num_contradicting
    missing = (shared.alleles == -1) & ~shared.has_reads()[..., None]
    report.counts["missing_alleles"] = int(missing.sum())
    for line in report.warnings:
        log.warning(line)


def _warn_of_pieces(report: TargetReport, target: Target, shared: Match) -> None:
    """Add a warning about samples that look phased, but are phased only within phase sets."""
    if target.phase_set is None:
        return
    cut = in_pieces(shared.alleles, shared.phased, target.phase_set[shared.row])
    cut &= shared.phased.all(axis=0)
    if cut.any():
        names = [target.samples[i] for i in np.flatnonzero(cut).tolist()]
        report.warnings.append(
            f"{len(names):,} samples are phased only within phase sets ({some_names(names)}): "
            "their sets are put in order against the panel"
        )


def _warn_of_reads(report: TargetReport, reads: ReadSummary) -> None:
    """Add warnings about likelihoods that look unusable to a report."""
    warn = report.warnings.append
    if reads.share == 0:
        warn(
            "the target's likelihoods are flat at all panel sites: they say nothing of any genotype"
            " (--likelihoods never uses called genotypes, if there are some)"
        )
    if "GP" in reads.fields:
        warn(
            "GP is used as likelihoods: it holds what its program took to be likely before it saw "
            "the reads, which then counts twice"
        )
    if reads.num_incomplete:
        warn(
            f"{reads.num_incomplete:,} genotypes have some of their likelihoods, but not those of "
            "REF/REF, REF/ALT and ALT/ALT; they say nothing"
        )


def _warn_of_samples(report: TargetReport, target: Target, panel: Panel, shared: Match) -> None:
    """Add warnings about samples to a report."""
    both = sorted(set(target.samples).intersection(panel.samples))
    if both:
        report.warnings.append(
            f"{len(both)} target samples are in the panel too ({some_names(both)}): they will copy "
            "themselves"
        )
    if not len(shared.panel_index):
        return
    _warn_of_pieces(report, target, shared)
    typed = (shared.alleles >= 0).any(axis=0).any(axis=-1) | shared.has_reads().any(axis=0)
    if report.qc is not None and report.qc.reads is not None:
        _warn_of_reads(report, report.qc.reads)
    bare = [target.samples[i] for i in np.flatnonzero(~typed)]
    if bare:
        report.warnings.append(
            f"{len(bare)} samples have no genotype"
            + ("" if target.likelihoods is None else " and no read")
            + f" at any panel site ({some_names(bare)}): they are given the panel's frequencies"
        )
        report.untyped_samples = bare
    low = [] if report.qc is None else [x for x in report.qc.low_samples if x not in bare]
    if low:
        report.warnings.append(
            f"{len(low)} samples have less than half of their genotypes ({some_names(low)}): "
            "expect poor imputation of these"
        )
