"""Join batches of samples that were imputed apart; AF and DR2 are computed for all samples."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.accuracy.dr2 import (
    PANEL_INFOS,
    QUALITY_INFOS,
    SUMS_INFOS,
    DosageSums,
    Dr2Calibration,
    PanelExpectation,
    few_samples_warning,
)
from ragimpute.arguments import check_ranges
from ragimpute.commands import command_word, free_name, operand
from ragimpute.errors import InputError
from ragimpute.io.foreign import file_set_kind
from ragimpute.io.imputed import vcf_kind
from ragimpute.io.vcf.header import FLAGS, FORMATS, IMPUTED, TYPED, Heading
from ragimpute.io.vcf.read.genotypes import VcfFile
from ragimpute.io.vcf.read.records import RecordReader, genotype_array, site_table
from ragimpute.io.vcf.site_info import SiteInfoReader, kept_lines
from ragimpute.io.vcf.write.bcf import FLOAT_END, INT8_END
from ragimpute.io.vcf.write.writer import VcfWriter
from ragimpute.runtime.outputs import check_output
from ragimpute.runtime.stages import Stage, reporting
from ragimpute.runtime.timing import Progress
from ragimpute.sites import Region
from ragimpute.symbolic import EXTENT_FIELDS, full_names

log = logging.getLogger("ragimpute")

_SITES_AT_ONCE = 500
_EXTENTS = SiteInfoReader("", EXTENT_FIELDS)
_DIGITS = 2e-6  # AF and MAF are written with six


@dataclass
class MergeSummary:
    """What :func:`merge` wrote.

    Attributes
    ----------
    out
        The file.
    num_files, num_samples, num_sites, num_low_r2
        Files and their samples in all; sites written; sites left out for their DR2.
    warnings
        What a user should know, one line each.
    """

    out: str
    num_files: int
    num_samples: int
    num_sites: int = 0
    num_low_r2: int = 0
    warnings: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a summary."""
        low = f", {self.num_low_r2:,} of low DR2 left out" if self.num_low_r2 else ""
        return [
            ("output", self.out),
            ("files", f"{self.num_files:,}"),
            ("samples", f"{self.num_samples:,}"),
            ("sites", f"{self.num_sites:,}{low}"),
        ]


def merge(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    min_r2: float = 0.0,
    threads: int = 1,
    output_type: str | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> MergeSummary:
    """Join files of the same sites and other samples side by side.

    AF, MAF, DR2, R2 and INFO are computed anew from the sums that ``impute`` writes (INFO/AN, AF,
    PSSD and PVAR), which have six digits there, so that DR2 may differ from that of one run in
    its last digit; in files without them, from FORMAT/HDS or AP1 and AP2. DR2 is calibrated as the
    headers of the files say, if all say the same. Genotypes, dosages and all else of the samples
    are copied. INFO/ER2 cannot be merged and is left out; of INFO/PR2 and PADJ, which no sample
    changes, the mean is taken.

    Parameters
    ----------
    paths
        Two or more VCF/BCF, as ``impute`` writes them; their samples are joined in this order.
    out
        .vcf, .vcf.gz or .bcf, or "-", unless ``output_type`` is given.
    min_r2
        Untyped sites of a lower DR2 in all samples together are left out.
    threads
        For compression, >= 1.
    output_type
        A letter of :data:`ragimpute.io.imputed.OUTPUT_TYPES`; None: as the suffix says.
    progress
        Called as ``progress("merge", done, total)``, in bp along the contigs; a total of 0 is
        unknown. None: as :func:`ragimpute.runtime.stages.reporting` says.
    command
        Recorded in the output's header.

    Raises
    ------
    InputError
        If a file cannot be read, a sample is in two of them, their sites or fields differ, or one
        holds neither sums nor haplotypes' dosages.
    """
    check_ranges(min_r2=min_r2)
    if len(paths) < 2:
        raise InputError("merge needs two files or more", hint="name the batches' files")
    for path in paths:
        _refuse_file_set(path, paths)
    kind = vcf_kind(out, output_type, written="merged batches", imported="dosage=DS")
    if str(out) != "-":
        check_output(out, {f"input {path}": path for path in paths})
    files = [VcfFile(path) for path in paths]
    lengths = files[0].contigs
    batches = [_Batch(file) for file in files]
    for file in files[1:]:
        if set(file.contigs) != set(lengths):
            raise InputError(
                f"{file} has records on {', '.join(file.contigs) or 'no contig'}, but {paths[0]} "
                f"on {', '.join(lengths) or 'no contig'}",
                hint="merge files of the same sites; contigs of other names are other contigs",
            )
    samples = _all_samples(batches)
    formats = batches[0].formats
    for batch in batches[1:]:
        if batch.formats != formats:
            raise InputError(
                f"{batch.path} has the fields {','.join(batch.formats)}, but {paths[0]} has "
                f"{','.join(formats)}",
                hint="impute all batches with the same --format",
            )
    summary = MergeSummary(str(out), len(paths), len(samples))
    calibration = _calibration_of(batches, summary)
    joined = _join_bcf if kind == "bcf" else _join_text
    flags = [
        flag.name
        for number, flag in enumerate(FLAGS)
        if number == IMPUTED or any(flag.name in batch.flags for batch in batches)
    ]
    expects_r2 = any(batch.panel_infos for batch in batches)
    infos = (*SUMS_INFOS, *(PANEL_INFOS if expects_r2 else ()), *flags)
    heading = Heading(
        samples, list(lengths.items()), command, calibration.header_lines, infos=infos,
        declarations=batches[0].declarations,
    )  # fmt: skip
    writer = VcfWriter(out, heading, fields=formats, threads=threads, output_type=output_type)
    with writer:
        with reporting(progress), Stage("merge", sum(n or 0 for n in lengths.values())) as stage:
            before = 0
            for contig, length in lengths.items():
                for rows in _in_step(batches, contig):
                    _write(rows, batches, writer, min_r2, summary, joined, calibration)
                    stage.reach(before + int(rows[0][-1].POS))
                before += length or 0
        writer.close()
    few = few_samples_warning(len(samples), expects_r2=expects_r2)
    if min_r2 > 0 and few is not None:
        summary.warnings.append(few)
    for line in summary.warnings:
        log.warning(line)
    return summary


def _refuse_file_set(path: str | Path, paths: Sequence[str | Path]) -> None:
    """Refuse a BGEN or PGEN, with the way to join such files."""
    kind = file_set_kind(path)
    if kind is None:
        return
    if kind == "bgen":
        files = " ".join(command_word(one) for one in paths)
        out = shlex.quote(free_name(path, ".joined.bgen"))
        regions = f"cat-bgen -g {files} -og {out}"
    else:
        # plink2 takes a blank for the end of a name.
        stems = ["_".join(operand(Path(one).with_suffix("")).split()) for one in paths]
        listed, out = free_name(path, ".list.txt"), free_name(path, ".joined")
        regions = (
            f"printf '%s\\n' {' '.join(map(shlex.quote, stems))} > {shlex.quote(listed)} && "
            f"plink2 --pmerge-list {shlex.quote(listed)} {_pfile(path)} --make-pgen vzs --out "
            f"{shlex.quote(out)}"
        )
        if any(str(one).split() != [str(one)] for one in paths):
            regions = f"(after giving the files names without blanks) {regions}"
    raise InputError(
        f"{path} is a {kind.upper()}, which merge does not read: it joins batches of samples, and "
        "needs INFO and the probabilities of a VCF or BCF for AF and DR2 of all of them",
        hint="impute batches of samples as .bcf, merge these, and let plink2 make the rest; "
        f"regions that follow one another are joined by: {regions}",
    )


def _pfile(path: str | Path) -> str:
    """What plink2 --pmerge-list is told of the tables of sites: that they are compressed."""
    return "pfile-vzs" if Path(path).with_suffix(".pvar.zst").exists() else "pfile"


class _Batch:
    """One of the files that are merged."""

    def __init__(self, file: VcfFile) -> None:
        # An index alone would tell that there are several contigs, each of which is read.
        first = next(iter(file.contigs), None)
        self._reader = RecordReader(file, None if first is None else Region(first), 1)
        self._reader.need_genotypes()
        self.path = self._reader.path
        self.samples = self._reader.samples
        declared = self._reader.header.formats
        self.formats = [name for name in FORMATS if name in declared]
        self.flags = self._reader.header.infos & {flag.name for flag in FLAGS}
        self.panel_infos = self._reader.header.infos & set(PANEL_INFOS)
        text = self._reader.header.text
        self.declarations = kept_lines(text)
        self._site_info = SiteInfoReader(text, only_declared=True)
        self.calibration = Dr2Calibration.from_header(self._reader.header.text)

    def told_of(self, variant: Any) -> str:
        """What INFO says of the allele of a record."""
        return self._site_info.of(variant, [0])[0]

    def records(self, contig: str) -> Iterator[Any]:
        """Records of a contig."""
        for variant in RecordReader(self._reader.file, Region(contig), 1).records(sort_check=True):
            if len(variant.ALT) > 1:
                raise InputError(
                    f"{self.path}, {variant.CHROM}:{variant.POS}: the record has "
                    f"{len(variant.ALT)} ALTs, expected one",
                    hint="merge batches that were imputed without --join-multiallelics",
                )
            yield variant

    def sums(self, variants: Sequence[Any]) -> DosageSums:
        """The sums of P(ALT) over the samples of this file, at some sites."""
        columns: list[tuple[float, float, float, float]] = []
        for variant in variants:
            given = [variant.INFO.get(name) for name in ("AN", "AF", "PSSD", "PVAR")]
            if any(value is None for value in given):
                found = DosageSums.of(self._haplotypes(variant))
                given = [found.num[0], found.af[0], found.between[0], found.within[0]]
            else:
                given[1] = _exact_af(given[1], variant.INFO.get("MAF"))
            columns.append(tuple(float(value) for value in given))  # type: ignore[arg-type]
        return DosageSums(*np.array(columns, np.float64).reshape(-1, 4).T)

    def _haplotypes(self, variant: Any) -> np.ndarray:
        """P(ALT) of each haplotype, shape (1, n), NaN where it does not exist."""
        for names in (("HDS",), ("AP1", "AP2")):
            if all(name in variant.FORMAT for name in names):
                return np.concatenate([variant.format(name).reshape(1, -1) for name in names], 1)
        raise InputError(
            f"{self.path}, {variant.CHROM}:{variant.POS}: there is neither INFO/AN, AF, PSSD and "
            "PVAR nor FORMAT/HDS, from which DR2 could be computed",
            hint="impute the batches with ragimpute, or with HDS",
        )


def _exact_af(af: float, maf: float | None) -> float:
    """AF with more digits: near 1, AF is written as .9999.., and INFO/MAF says 1 - AF exactly."""
    if maf is None or abs(1 - af - maf) > _DIGITS:
        return af
    return 1 - maf


def _all_samples(batches: Sequence[_Batch]) -> list[str]:
    """The samples of all files, in order; a sample in two files is refused."""
    first_in: dict[str, Path] = {}
    for batch in batches:
        for name in batch.samples:
            if name in first_in:
                raise InputError(
                    f"sample {name} is in {first_in[name]} and in {batch.path}",
                    hint="a sample may be in one batch only",
                )
            first_in[name] = batch.path
    return list(first_in)


def _calibration_of(batches: Sequence[_Batch], summary: MergeSummary) -> Dr2Calibration:
    """The calibration of DR2 that all files share; if they differ, none."""
    first = batches[0]
    other = next((b for b in batches if b.calibration != first.calibration), None)
    if other is None:
        return first.calibration
    summary.warnings.append(
        f"{first.path} and {other.path} were imputed with models that calibrate DR2 in different "
        "ways, so DR2 of all samples is not calibrated"
    )
    return Dr2Calibration()


def _in_step(batches: Sequence[_Batch], contig: str) -> Iterator[list[list[Any]]]:
    """Read all files side by side: for each file a list of records, at the same sites."""
    streams = [batch.records(contig) for batch in batches]
    rows: list[list[Any]] = [[] for _ in batches]
    while True:
        found = [next(stream, None) for stream in streams]
        if all(variant is None for variant in found):
            break
        first = _site(found[0])
        for batch, variant in zip(batches, found, strict=True):
            if _site(variant) != first:
                raise InputError(
                    f"the sites of {batches[0].path} and {batch.path} differ: where the one has "
                    f"{_shown(found[0])}, the other has {_shown(variant)}",
                    hint="merge files of one panel and region, imputed without --min-r2",
                )
        for row, variant in zip(rows, found, strict=True):
            row.append(variant)
        if len(rows[0]) == _SITES_AT_ONCE:
            yield rows
            rows = [[] for _ in batches]
    if rows[0]:
        yield rows


def _site(variant: Any) -> tuple[Any, ...] | None:
    """Contig, position and alleles of a record, by which records are compared."""
    return None if variant is None else (variant.CHROM, variant.POS, variant.REF, *_named(variant))


def _named(variant: Any) -> list[str]:
    """The ALTs of a record, symbolic ones with where they end."""
    alts = variant.ALT
    if not any(alt[:1] == "<" for alt in alts):
        return list(alts)
    return full_names(variant.POS, alts, ";".join(_EXTENTS.of(variant, [0])))


def _shown(variant: Any) -> str:
    """A record's site for a message."""
    if variant is None:
        return "no more site"
    return f"{variant.CHROM}:{variant.POS}:{variant.REF}:{','.join(_named(variant))}"


def _write(
    rows: list[list[Any]],
    batches: Sequence[_Batch],
    writer: VcfWriter,
    min_r2: float,
    summary: MergeSummary,
    joined: Callable[[list[list[Any]], list[str]], list[Any]],
    calibration: Dr2Calibration,
) -> None:
    """Merge some sites and write them."""
    first = rows[0]
    sums = batches[0].sums(first)
    for batch, variants in zip(batches[1:], rows[1:], strict=True):
        sums = sums.merged(batch.sums(variants))
    kind = np.array([_kind(variants) for variants in zip(*rows, strict=True)])
    info = sums.info(calibration, kind == TYPED, _expected(rows, batches))
    keep = (kind != IMPUTED) | (info["DR2"] >= min_r2)
    kept = np.flatnonzero(keep).tolist()
    summary.num_low_r2 += len(first) - len(kept)
    summary.num_sites += len(kept)
    if not kept:
        return
    chosen = [[variants[i] for i in kept] for variants in rows]
    sites = site_table(
        first[0].CHROM,
        [v.POS for v in chosen[0]],
        [v.REF for v in chosen[0]],
        [",".join(v.ALT) for v in chosen[0]],
        [v.ID or "." for v in chosen[0]],
        [batches[0].told_of(v) for v in chosen[0]],
    )
    info = {name: values[keep] for name, values in info.items()}
    for name in {*QUALITY_INFOS, *PANEL_INFOS} & set(info):
        info[name] = np.where(kind[keep] > TYPED, np.float32(np.nan), info[name])
    writer.write_samples(sites, info, kind[keep], joined(chosen, batches[0].formats))


def _expected(rows: list[list[Any]], batches: Sequence[_Batch]) -> PanelExpectation | None:
    """What the panel lets one expect, by the files that say it; or None."""
    if not any(batch.panel_infos for batch in batches):
        return None
    return PanelExpectation(*(_mean_info(name, rows, batches) for name in PANEL_INFOS))


def _mean_info(name: str, rows: list[list[Any]], batches: Sequence[_Batch]) -> np.ndarray:
    """The mean of an INFO field over the files that have it, shape (m,); NaN where none has."""
    having = [
        variants for variants, b in zip(rows, batches, strict=True) if name in b.panel_infos
    ] or [rows[0]]
    given = [[v.INFO.get(name, np.nan) for v in variants] for variants in having]
    values = np.array(given, np.float64)
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(1, known.sum(axis=0)), np.nan)


def _kind(variants: Sequence[Any]) -> int:
    """Which of ``FLAGS`` a site has; if the files do not agree, it counts as imputed."""
    names = [flag.name for flag in FLAGS]
    found = [
        next((i for i in range(len(names) - 1, -1, -1) if v.INFO.get(names[i])), IMPUTED)
        for v in variants
    ]
    return found[0] if len(set(found)) == 1 else IMPUTED


def _join_text(rows: list[list[Any]], formats: list[str]) -> list[bytes]:
    """The text of all samples of each site."""
    expected = ":".join(formats)
    made = []
    for variants in zip(*rows, strict=True):
        try:
            cells = [str(variant).rstrip("\n").split("\t", 9) for variant in variants]
        except UnicodeDecodeError as error:
            where = f"{variants[0].CHROM}:{variants[0].POS}"
            raise InputError(
                f"{where} has fields that are not text", hint="copy or make the files again"
            ) from error
        for cell, variant in zip(cells, variants, strict=True):
            _check_format(cell[8], expected, variant)
        made.append("\t".join(cell[9] for cell in cells).encode())
    return made


def _check_format(found: str, expected: str, variant: Any) -> None:
    """Refuse records whose fields are not those of the header, in this order."""
    if found != expected:
        raise InputError(
            f"{variant.CHROM}:{variant.POS} has FORMAT {found}, expected {expected}",
            hint="merge files as ragimpute writes them",
        )


def _join_bcf(rows: list[list[Any]], formats: list[str]) -> list[tuple[str, np.ndarray]]:
    """The samples' values of each field, as BCF codes them."""
    expected = ":".join(formats)
    for variants in rows:
        for variant in variants:
            _check_format(":".join(variant.FORMAT), expected, variant)
    made = []
    for name in formats:
        read = _genotypes if name == "GT" else _floats
        parts = [[read(variant, name) for variant in variants] for variants in rows]
        width = max(part.shape[1] for file in parts for part in file)
        columns = [
            np.concatenate([_padded(part, width) for part in site])
            for site in zip(*parts, strict=True)
        ]
        made.append((name, np.stack(columns)))  # (m, N, width)
    return made


def _genotypes(variant: Any, name: str) -> np.ndarray:
    """GT as BCF codes it, shape (N, ploidy), uint8."""
    called = genotype_array(variant)
    alleles, phased = called[:, :-1], called[:, -1:]
    coded = ((alleles + 1) << 1).astype(np.uint8)
    coded[:, 1:] |= phased.astype(np.uint8)
    coded[alleles == -2] = INT8_END
    return coded


def _floats(variant: Any, name: str) -> np.ndarray:
    """A field of numbers, shape (N, numbers), float32 with the bits that BCF has."""
    return np.asarray(variant.format(name), dtype="<f4")


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    """Pad values with end-of-vector codes: a file of haploid samples alone has fewer a sample."""
    if values.shape[1] == width:
        return values
    if values.dtype == np.uint8:
        full = np.full((len(values), width), INT8_END, np.uint8)
    else:
        full = np.full((len(values), width), FLOAT_END, "<u4").view("<f4")
    full[:, : values.shape[1]] = values
    return full
