"""Accuracy of imputed dosages against the truth at untyped sites, by minor allele frequency.

Sites and frequencies are those of the panel, and dosages are counted in the allele that is minor
there, so that sites where ALT is the major allele do not inflate r2.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ragimpute.accuracy.metrics import count_minor
from ragimpute.accuracy.phase_errors import measure_phase
from ragimpute.accuracy.scores import BinScores, Evaluation, Sums, quality_curve
from ragimpute.commands import absence_hint, command_word, free_name, rename_samples_command
from ragimpute.contigs import Lengths, same_contig
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import (
    Dosages,
    VcfFile,
    read_dosages,
    read_target,
)
from ragimpute.panel.reader import Panel
from ragimpute.preparation.sources import is_to_prepare, open_source
from ragimpute.runtime.stages import Stage
from ragimpute.sites import Region, Sites, located
from ragimpute.symbolic import is_symbolic, split_name

__all__ = ["BinScores", "Evaluation", "evaluate"]

_BLOCK_PAIRS = 2**21  # (site, sample) pairs in float64 at a time
_TOLERANCE = 1e-3  # by which a rounded dosage may leave [0, ploidy]

Key = tuple[int, str, str]


def evaluate(
    truth: str | Path,
    imputed: str | Path,
    panel: str | Path,
    *,
    typed: str | Path | None = None,
    region: Region | str | None = None,
    threads: int = 1,
    jackknife: bool = False,
) -> Evaluation:
    """Compare imputed dosages with true genotypes at the panel's untyped sites.

    Where both files are phased, the phase of the typed sites is compared too.

    Parameters
    ----------
    truth, imputed
        VCF/BCF; every sample of ``truth`` must be in ``imputed``. Of ``truth`` FORMAT/GT is read,
        of ``imputed`` DS, or else HDS, AP1 and AP2, GP or GT (and these of ``truth`` where it has
        no GT). A site that ``imputed`` lacks, and a missing dosage, count as dosage 0 of ALT.
    panel
        panel.h5, or a VCF/BCF, M3VCF or scikit-allel HDF5, whose allele frequencies decide the bins
        and the minor allele.
    typed
        VCF/BCF of the sites that were typed, which are not scored; None: as INFO/TYPED or IMP of
        ``imputed`` say.
    region
        Sites to score; needed where ``panel`` is no panel.h5 and holds several contigs.
    threads
        For decompression, >= 1.
    jackknife
        Whether r2 without each sample is computed too, which tells the standard errors.

    Raises
    ------
    InputError
        If a file cannot be read, lacks samples of ``truth`` or the panel's contig, or if no untyped
        site is shared; the message holds names or ranges.
    PanelError
        If panel.h5 is damaged.
    """
    region = Region.of(region)
    notes: list[str] = []
    with Stage("read sites of the panel"):
        known = _read_panel(panel, region, threads, notes.append)
    true_file, given_file = VcfFile(truth), VcfFile(imputed)
    true = _read("truth", true_file, known, region, threads, genotypes=True)
    given = _read("imputed file", given_file, known, region, threads)
    sample_index = _match_samples(true, given, true_file, imputed)
    counts = {
        "samples": len(true.samples),
        "samples_without_truth": len(given.samples) - len(true.samples),
        "truth_records": true.num_records,
        "truth_further_alts": true.num_further_alts,
    }
    if typed is not None:
        array = VcfFile(typed)
        where = _region_of("typed file", array, known, region)
        given_sites = read_target(array, region=where, threads=threads, symbolic=known.has_symbolic)
        typed_keys = _both_ways(given_sites.sites.keys())
    else:
        typed_keys = set(given.sites.take(given.typed).keys())
        if not typed_keys:
            notes.append(
                f"{imputed} marks no site as typed (INFO/TYPED or IMP), so all sites are scored"
            )
    rows = _choose_sites(true, known, typed_keys, counts)
    if true.skipped:
        counts["left_out"] = sum(true.skipped.values())
        told = ", ".join(f"{n:,} {key.replace('_', ' ')}" for key, n in true.skipped.items())
        notes.append(f"{counts['left_out']:,} ALTs of the truth name no allele to score: {told}")
    if not len(rows):
        raise _nothing_shared("truth", truth, true.sites, known, counts)
    column = _rows_of(given.sites, true.sites.take(rows).keys())
    absent = column < 0
    counts["absent"] = int(absent.sum())
    if absent.all():
        raise _nothing_shared("imputed file", imputed, given.sites, known, counts)
    if absent.any():
        notes.append(
            f"{counts['absent']:,} of {len(rows):,} scored sites are absent from {imputed} and "
            "count as dosage 0"
        )
    hard = int(given.num_hard_calls[column[~absent]].sum())
    counts["hard_calls"] = hard
    if hard:
        notes.append(_said_of_hard_calls(imputed, hard, len(given.samples) * int((~absent).sum())))
    with Stage("score"):
        scored = _score(
            (str(truth), str(imputed), str(panel)), known, true, given,
            _Pairing(rows, column, sample_index), counts, notes, jackknife=jackknife,
        )  # fmt: skip
    if typed_keys and all(file.has_genotypes for file in (true_file, given_file)):
        with Stage("compare phase"):
            scored.phase = measure_phase(
                (true_file, _region_of("truth", true_file, known, region)),
                (given_file, _region_of("imputed file", given_file, known, region)),
                typed_keys, sample_index, threads=threads,
            )  # fmt: skip
    return scored


def _said_of_hard_calls(imputed: str | Path, hard: int, scored: int) -> str:
    """The note for imputed dosages that were counted from GT."""
    return (
        f"{hard:,} of {scored:,} imputed dosages are hard calls: {imputed} has GT there, but no "
        "DS, HDS, AP1 and AP2 or GP; r2 of hard calls is not that of dosages"
    )


@dataclass(frozen=True)
class _Pairing:
    """Which dosage belongs to which true genotype.

    Attributes
    ----------
    rows
        Scored rows of the truth, shape (m,), int64.
    column
        The row of each in the imputed file, shape (m,), int64; -1 where it is absent.
    sample_index
        The imputed file's column of each true sample, shape (N,), int64.
    """

    rows: np.ndarray
    column: np.ndarray
    sample_index: np.ndarray


@dataclass(frozen=True)
class _KnownSites:
    """The panel's sites: for each position, REF and ALT, its number of ALT and of all alleles."""

    path: str
    contig: str
    counts: dict[Key, tuple[int, int]]
    declared: Lengths  # contigs of its file, with their lengths

    @cached_property
    def has_symbolic(self) -> bool:
        """Whether any ALT is symbolic, such as <DEL>."""
        return any(is_symbolic(split_name(alt)[0]) for _, _, alt in self.counts)

    def bounds(self) -> tuple[int, int]:
        """The first and the last position; 1 and 1 if there are no sites."""
        positions = [key[0] for key in self.counts] or [1]
        return min(positions), max(positions)

    def span(self) -> str:
        """Where the sites lie."""
        positions = [key[0] for key in self.counts]
        return _span(self.contig, positions)


def _read_panel(
    path: str | Path, region: Region | None, threads: int, warn: Callable[[str], None]
) -> _KnownSites:
    """The sites and allele counts of panel.h5, or of a file that ``prepare`` reads."""
    path = Path(path)
    if not is_to_prepare(path):
        with Panel.open(path) as panel:
            start, stop = panel.site_range(region)
            total = panel.haplotypes_at[start:stop].tolist()
            keys = panel.sites.take(slice(start, stop)).keys()
            counted = panel.alt_count[start:stop].tolist()
            found = dict(zip(keys, zip(counted, total, strict=True), strict=True))
            contig, declared = panel.contig, {panel.contig: panel.contig_length}
    else:
        _, stream, contig, lengths = open_source(path, region, threads, warn)
        found, declared = {}, dict(lengths)
        for batch in stream:
            alt = (batch.alleles == 1).sum(axis=(1, 2)).tolist()
            observed = (batch.alleles >= 0).sum(axis=(1, 2)).tolist()
            for key, count, total in zip(batch.sites.keys(), alt, observed, strict=True):
                if total:
                    found.setdefault(key, (count, total))
    if not found:
        where = f" in {region}" if region is not None else ""
        raise InputError(f"panel {path} has no sites{where}", hint="check --region")
    return _KnownSites(str(path), contig, found, declared)


def _region_of(name: str, file: VcfFile, known: _KnownSites, region: Region | None) -> Region:
    """What to read of a file, in its own spelling of the panel's contig."""
    declared = file.header.declared
    of = known.declared
    found = known.contig if list(declared) == [known.contig] else None
    if found is None:
        found = same_contig(known.contig, file.contigs, declared=declared, wanted_of=of)
    if found is None:
        contigs = list(file.contigs)
        listed = ", ".join(contigs[:5]) + (", ..." if len(contigs) > 5 else "")
        raise InputError(
            f"{name} {file} has no records on the panel's contig {known.contig}; it holds "
            f"{listed or 'none'}",
            hint=absence_hint(
                known.contig,
                contigs,
                "use files of one chromosome and genome build",
                file=file.path,
                declared=declared,
                wanted_of=of,
            ),
        )
    if region is None:
        return Region(found)
    here = located(region, [known.contig], declared=of) or region
    return Region(found, here.start_bp, here.stop_bp)


def _read(
    name: str, file: VcfFile, known: _KnownSites, region: Region | None, threads: int,
    *, genotypes: bool = False,
) -> Dosages:  # fmt: skip
    """Dosages on the panel's contig."""
    where = _region_of(name, file, known, region)
    first, last = known.bounds()
    with Stage(f"read {name}", last - first + 1) as stage:
        return read_dosages(
            file, region=where, threads=threads, genotypes=genotypes, symbolic=known.has_symbolic,
            reached=lambda position: stage.reach(position - first),
        )  # fmt: skip


def _match_samples(
    true: Dosages, given: Dosages, true_file: VcfFile, imputed: str | Path
) -> np.ndarray:
    """The column of each true sample in the imputed file."""
    column = {name: i for i, name in enumerate(given.samples)}
    missing = [name for name in true.samples if name not in column]
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise InputError(
            f"{len(missing)} of {len(true.samples)} samples of truth {true_file} are not in "
            f"{imputed}: {shown}",
            hint=_mend_samples(true_file, imputed, some=len(missing) < len(true.samples)),
        )
    return np.array([column[name] for name in true.samples], dtype=np.int64)


def _mend_samples(truth: VcfFile, imputed: str | Path, *, some: bool) -> str:
    """The command that leaves out the true samples that are not imputed, or renames them all."""
    path, header = truth.path, truth.header
    if some:
        listed = shlex.quote(free_name(imputed, ".names.txt"))
        return (
            f"leave them out of the truth: bcftools query -l {command_word(imputed)} > {listed} && "
            f"bcftools view --force-samples -S {listed} {command_word(path)} -Oz -o "
            + shlex.quote(free_name(path, ".some.vcf.gz"))
        )
    gzipped = header.compression == "gzip" and not header.is_bcf
    suffix = ".vcf" if header.compression == "none" else ".vcf.gz"
    return "if they are the same people, " + rename_samples_command(
        path, suffix=".bcf" if header.is_bcf or gzipped else suffix, convert=gzipped
    )


def _both_ways(keys: Sequence[Key]) -> set[Key]:
    """The keys, and the same keys with REF and ALT exchanged, as those sites are typed too."""
    return {*keys, *((position, alt, ref) for position, ref, alt in keys)}


def _choose_sites(
    true: Dosages, known: _KnownSites, typed: set[Key], counts: dict[str, int]
) -> np.ndarray:
    """Rows of the truth that are scored, ascending; the others are counted by reason."""
    reasons = dict.fromkeys(("scored", "typed", "not_in_panel", "duplicate"), 0)
    seen: set[Key] = set()
    rows = []
    for i, key in enumerate(true.sites.keys()):
        if key not in known.counts:
            reasons["not_in_panel"] += 1
        elif key in seen:
            reasons["duplicate"] += 1
        elif key in typed:
            reasons["typed"] += 1
        else:
            reasons["scored"] += 1
            rows.append(i)
        seen.add(key)
    counts |= reasons
    shared = reasons["scored"] + reasons["typed"]
    counts["not_in_truth"] = len(known.counts) - shared
    return np.array(rows, dtype=np.int64)


def _rows_of(sites: Sites, keys: list[Key]) -> np.ndarray:
    """The first row of each key in a site table, int64; -1 where there is none."""
    row: dict[Key, int] = {}
    for i, key in enumerate(sites.keys()):
        row.setdefault(key, i)
    return np.array([row.get(key, -1) for key in keys], dtype=np.int64)


def _nothing_shared(
    name: str, path: str | Path, sites: Sites, known: _KnownSites, counts: dict[str, int]
) -> InputError:
    """The error where no site can be scored."""
    if counts["typed"] and not counts["scored"]:
        return InputError(
            f"all {counts['typed']:,} sites that {name} {path} shares with panel {known.path} are "
            "typed, so none is left to score",
            hint="the truth must hold sites that the array lacks",
        )
    here = {key[0] for key in known.counts}
    positions = sites.position_bp.tolist()
    share = sum(p in here for p in positions) / len(positions)
    return InputError(
        f"{name} {path} and panel {known.path} share no site to score: "
        f"{_span(sites.contig, positions)} ({len(sites):,} sites) against {known.span()} "
        f"({len(known.counts):,} sites); {share:.0%} agree by position alone",
        hint="check that all files are of one genome build and region, with REF and ALT alike",
    )


def _span(contig: str, positions: Sequence[int]) -> str:
    """Contig and range of positions."""
    return f"{contig}:{min(positions)}-{max(positions)}"


def _score(
    paths: tuple[str, str, str],
    known: _KnownSites,
    true: Dosages,
    given: Dosages,
    pairing: _Pairing,
    counts: dict[str, int],
    notes: list[str],
    *,
    jackknife: bool,
) -> Evaluation:
    """Add up all scored sites, block by block."""
    rows, column, sample_index = pairing.rows, pairing.column, pairing.sample_index
    keys = true.sites.take(rows).keys()
    pairs = np.array([known.counts[key] for key in keys], dtype=np.int64)  # (m, 2)
    alt_count, total = pairs.T
    maf = np.minimum(alt_count, total - alt_count) / total
    alt_is_minor = 2 * alt_count <= total
    highest = _highest_where_haploid(true, given, pairing)
    sums = Sums(len(true.samples) if jackknife else None)
    site, dr2 = [], np.full(len(rows), np.nan)
    dr2[column >= 0] = given.dr2[column[column >= 0]]
    counts |= {"missing_truth": 0, "missing_dosage": 0, "out_of_range": 0}
    step = max(1, _BLOCK_PAIRS // len(true.samples))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        truth = true.dosage[rows[block]].astype(np.float64)
        ploidy = true.ploidy[rows[block]]  # (m, N)
        dosage = given.dosage[column[block]][:, sample_index].astype(np.float64)
        dosage *= _ploidy_scale(ploidy, given.ploidy[column[block]][:, sample_index], highest)
        present = column[block, None] >= 0
        missing, low, high = np.isnan(dosage), -_TOLERANCE, ploidy + _TOLERANCE
        counts["missing_truth"] += int(np.isnan(truth).sum())
        counts["missing_dosage"] += int((missing & present).sum())
        counts["out_of_range"] += int((((dosage < low) | (dosage > high)) & present).sum())
        dosage = np.clip(np.where(present & ~missing, dosage, 0.0), 0.0, ploidy)
        flip = alt_is_minor[block]
        dosage, truth = (count_minor(x, flip, ploidy) for x in (dosage, truth))
        site.append(sums.add(dosage, truth, maf[block], ploidy))
    for name, what in (
        ("missing_truth", "true genotypes are missing and are not scored"),
        ("missing_dosage", "imputed dosages are missing and count as 0"),
        ("out_of_range", "imputed dosages are outside [0, ploidy] and were cut to it"),
    ):
        if counts[name]:
            notes.append(f"{counts[name]:,} {what}")
    position = true.sites.position_bp[rows]
    true_r2 = np.concatenate(site)
    bins, overall = sums.bin_scores(true_r2, dr2, maf)
    return Evaluation(
        *paths,
        contig=known.contig,
        first_bp=int(position.min()),
        last_bp=int(position.max()),
        bins=bins,
        overall=overall,
        calibration=sums.calibration.result(),
        calibration_standard_error=sums.calibration.standard_error(),
        calibration_error=sums.calibration.expected_error(),
        quality=quality_curve(dr2, true_r2),
        counts=counts,
        notes=notes,
        r2_without=None if sums.by_sample is None else sums.by_sample.r2_without(),
    )


def _highest_where_haploid(true: Dosages, given: Dosages, pairing: _Pairing) -> np.ndarray:
    """The highest dosage that each sample is given where it is truly haploid, shape (N,)."""
    rows, column, sample_index = pairing.rows, pairing.column, pairing.sample_index
    highest = np.zeros(len(true.samples))
    step = max(1, _BLOCK_PAIRS // len(true.samples))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        single = (true.ploidy[rows[block]] == 1) & (column[block, None] >= 0)
        if single.any():
            dosage = given.dosage[column[block]][:, sample_index]
            found = np.nanmax(np.where(single, dosage, 0.0), axis=0, initial=0.0)
            highest = np.maximum(highest, found)
    return highest


def _ploidy_scale(ploidy: np.ndarray, found: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Factor (m, N) that brings imputed dosages to the truth's ploidy.

    A haploid sample may be imputed as homozygous diploid. A file without GT says no ploidy: there,
    a sample whose dosages never exceed 1 is taken as it is. ``ploidy`` and ``found`` are the
    truth's and the imputed file's, ``highest`` (N,) is of :func:`_highest_where_haploid`.
    """
    doubled = (ploidy == 1) & (found == 2) & (highest > 1 + _TOLERANCE)
    halved = (ploidy == 2) & (found == 1)
    return np.where(doubled, 0.5, np.where(halved, 2.0, 1.0))
