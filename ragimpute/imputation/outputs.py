"""What an imputation run writes: the imputed sites, sites alone, and typed sites left out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from ragimpute.accuracy.dr2 import (
    PANEL_INFOS,
    QUALITY_INFOS,
    SUMS_INFOS,
    DosageSums,
    Dr2Calibration,
)
from ragimpute.commands import free_name, operand, rename_samples_command
from ragimpute.contigs import chromosome
from ragimpute.errors import InputError
from ragimpute.extras import require
from ragimpute.imputation.exclusion import OtherCarriers, round_loci
from ragimpute.imputation.listed_sites import ListedSites
from ragimpute.imputation.options import ImputeOptions, OutputOptions
from ragimpute.io.file_set import unfit_name
from ragimpute.io.imputed import (
    FILE_SETS,
    NO_CALL,
    ImputedBlock,
    ImputedWriter,
    output_kind,
    vcf_kind,
)
from ragimpute.io.vcf.header import FLAGS, IMPUTED, TYPED, TYPED_ONLY, Heading, check_choice
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.site_info import SITE_FIELDS, declared_fields
from ragimpute.io.vcf.write.joined import best_genotype, joinable
from ragimpute.io.vcf.write.sample_text import DIGITS
from ragimpute.io.vcf.write.writer import VcfWriter
from ragimpute.panel.reader import Panel
from ragimpute.retrieval.index_manifest import read_manifest
from ragimpute.runtime.outputs import check_output
from ragimpute.sites import Region, Sites
from ragimpute.symbolic import EXTENT_FIELDS
from ragimpute.target.inputs import InputFiles, Inputs
from ragimpute.target.match import FATES, Match
from ragimpute.target.ploidy import sexes_of

if TYPE_CHECKING:
    from ragimpute.io.pgen.writer import PgenOptions

_KNOWN_HAPLOID = ("X", "Y", "MT")  # plink2 knows where these are haploid
_NOT_OF_TYPED = {FLAGS[IMPUTED].name, FLAGS[TYPED_ONLY].name}
_LACKED = [FATES.index(fate) for fate in ("not_in_panel", "allele_mismatch")]


@dataclass(frozen=True)
class TypedOnly:
    """Records of a target that the panel lacks.

    Attributes
    ----------
    sites
        Where they are.
    alleles
        Shape (k, N, 2), int8, as read.
    num_unphased
        Genotypes whose phase is not known; they are written in the order of the file.
    """

    sites: Sites
    alleles: np.ndarray
    num_unphased: int = 0

    @classmethod
    def of(
        cls,
        target: Target,
        match: Match,
        region: Region | None,
        listed: ListedSites | None = None,
    ) -> TypedOnly:
        """The records of the region that have an ALT, and are listed if there is a list."""
        chosen = np.isin(match.fate, _LACKED) & (target.sites.alt != ".")
        if region is not None:
            position = target.sites.position_bp
            chosen &= (position >= region.start_bp) & (position < region.stop_bp)
        if listed is not None:
            chosen[np.flatnonzero(chosen)] = listed.also(target.sites.take(chosen))
        num_unphased = int((~target.phased[chosen]).sum())
        return cls(target.sites.take(chosen), target.alleles[chosen], num_unphased)

    def block(self, rows: slice) -> ImputedBlock:
        """Some of the records as rows; a missing allele is given the frequency of the others."""
        called = self.alleles[rows]
        prob = called.astype(np.float32)
        prob[called == -2] = np.nan
        observed = np.where(called >= 0, prob, np.nan).reshape(len(prob), -1)
        known = ~np.isnan(observed)
        af = np.nansum(observed, axis=1) / np.maximum(1, known.sum(axis=1))
        prob = np.where(called == -1, af[:, None, None].astype(np.float32), prob)
        sums = DosageSums.of(prob.reshape(len(prob), -1))
        info = sums.info(Dr2Calibration(), np.ones(len(prob), bool))
        for name in (*QUALITY_INFOS, "ER2", *PANEL_INFOS):  # nothing was imputed
            info[name] = np.full(len(prob), np.nan, np.float32)
        kind = np.full(len(prob), TYPED_ONLY)
        return ImputedBlock(self.sites.take(rows), prob, called, info, kind)


class Outputs:
    """The files of a run; a context manager.

    Parameters
    ----------
    main
        The writer of the imputed sites; closed with the others.
    heading
        Of the other files.
    options
        What else is written.
    typed_only
        Records to be put among the imputed sites, or None.
    listed
        The sites to write; None: all.
    resumable
        Whether the files are kept if the run is interrupted.
    restored
        What :meth:`checkpoint` returned in an interrupted run, in order, which this one resumes.

    Attributes
    ----------
    typed_only
        Records that are put among the imputed sites, or None.
    num_not_listed
        Sites that were left out as the list does not name them.
    low_r2
        Untyped sites that were left out for their DR2: their numbers among the sites of the run.
    num_no_calls
        Genotypes that were written as missing for their GP.
    """

    def __init__(
        self,
        main: ImputedWriter,
        heading: Heading,
        options: OutputOptions,
        typed_only: TypedOnly | None,
        *,
        listed: ListedSites | None = None,
        resumable: bool = False,
        restored: Sequence[Mapping[str, np.ndarray]] = (),
    ) -> None:
        self._main, self._options, self.typed_only = main, options, typed_only
        self._infos, self._listed = heading.infos, listed
        self._declarations = heading.declarations
        self._next = 0  # the typed-only record that is written next
        self._num_seen = 0  # sites of the run
        self.num_not_listed = self.num_no_calls = 0
        self._low_r2: list[np.ndarray] = []
        if restored:
            counts = restored[-1]["counts"].tolist()
            self._next, self._num_seen, self.num_not_listed, self.num_no_calls = counts
            self._low_r2 = [restored[-1]["low_r2"]]
        with ExitStack() as stack:
            stack.enter_context(main)
            typed = replace(heading, infos=set(heading.infos) - _NOT_OF_TYPED)
            others = (
                ("sites", options.sites, (), heading),
                ("empirical", options.empirical, ("GT", "LDS"), typed),
            )
            made = {
                name: stack.enter_context(
                    VcfWriter(
                        path,
                        said,
                        fields=fields,
                        digits=options.digits,
                        level=options.compression_level,
                        resumable=resumable,
                        restored=states_of(name, restored),
                    )
                )
                for name, path, fields, said in others
                if path is not None
            }
            self._sites, self._empirical = made.get("sites"), made.get("empirical")
            self._files = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._files.__exit__(kind, error, trace)

    @property
    def seconds(self) -> dict[str, float]:
        """Wall time by stage of writing the imputed sites."""
        return self._main.seconds

    @property
    def low_r2(self) -> np.ndarray:
        """Shape (k,), int64, increasing."""
        return np.concatenate([np.zeros(0, np.int64), *self._low_r2])

    def write(self, block: ImputedBlock, left_out: np.ndarray | None) -> None:
        """Append sites.

        Parameters
        ----------
        block
            Consecutive panel sites.
        left_out
            Shape (k, N, 2), float32: P(ALT) at the block's typed sites as if they were not typed,
            or None.
        """
        if self._options.digits < DIGITS and block.locus is not None:
            prob = round_loci(block.allele_prob, block.locus, self._options.digits)
            block = replace(block, allele_prob=prob)
        if not self._options.join_multiallelics:
            block = replace(block, locus=None)
        elif block.locus is not None:
            locus = joinable(block.locus, block.sites, self._declarations)
            block = replace(block, locus=locus)
        typed = np.asarray(block.typed) == TYPED
        if self._empirical is not None and left_out is not None:
            rows = block.take(typed)
            self._empirical.write(replace(rows, allele_prob=left_out, locus=None, both=None))
        last = block.sites.position_bp[-1:]
        keep = self._kept(block, typed)
        if not keep.all():
            block = block.take(keep)
        if self.typed_only is not None and len(last):
            stop = int(np.searchsorted(self.typed_only.sites.position_bp, last[0], side="right"))
            block = self._with_typed_only(block, stop)
        self._put(block)

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Flush all files to the disk; returns what is needed to resume them, by file and name."""
        counts = (self._next, self._num_seen, self.num_not_listed, self.num_no_calls)
        told = {"counts": np.array(counts), "low_r2": self.low_r2}
        files = {"main": self._main, "sites": self._sites, "empirical": self._empirical}
        for name, writer in files.items():
            if writer is not None:
                told |= {f"{name}.{key}": value for key, value in writer.checkpoint().items()}
        return told

    def close(self) -> None:
        """Write what is left and finish all files."""
        if self.typed_only is not None and self._next < len(self.typed_only.sites):
            rows = slice(self._next, len(self.typed_only.sites))
            block = self.typed_only.block(rows)
            declared = {name: v for name, v in block.info.items() if name in self._infos}
            self._put(replace(block, info=declared))
            self._next = rows.stop
        for writer in (self._empirical, self._sites, self._main):
            if writer is not None:
                writer.close()

    def other_carriers(self, panel_sites: Sites) -> OtherCarriers | None:
        """Carriers of the ALTs that the panel lacks; None if these are not written."""
        if self.typed_only is None:
            return None
        return OtherCarriers.of(panel_sites, self.typed_only.sites, self.typed_only.alleles)

    def _kept(self, block: ImputedBlock, typed: np.ndarray) -> np.ndarray:
        """Which of the next sites are written, shape (m,), bool; a joined record stays whole."""
        first = self._num_seen
        self._num_seen += len(typed)
        keep = np.ones(len(typed), bool)
        if self._listed is not None:
            at = self._listed.start + first
            keep = _whole_loci(self._listed.mask[at : at + len(typed)], block.locus)
            self.num_not_listed += int((~keep).sum())
        if self._options.min_r2 > 0:
            good = typed | (block.info["DR2"] >= self._options.min_r2)
            good = _whole_loci(good & keep, block.locus)
            self._low_r2.append(first + np.flatnonzero(keep & ~good))
            keep &= good
        return keep

    def _with_typed_only(self, block: ImputedBlock, stop: int) -> ImputedBlock:
        """Insert the next records that the panel lacks, up to number ``stop``, by position."""
        assert self.typed_only is not None
        if stop <= self._next:
            return block
        more = self.typed_only.block(slice(self._next, stop))
        self._next = stop
        order = np.argsort(
            np.concatenate([block.sites.position_bp, more.sites.position_bp]), kind="stable"
        )
        return ImputedBlock(
            Sites.joined([block.sites, more.sites]).take(order),
            np.concatenate([block.allele_prob, more.allele_prob])[order],
            np.concatenate([block.called, more.called])[order],
            {
                name: np.concatenate([values, more.info[name]])[order]
                for name, values in block.info.items()
            },
            np.concatenate([np.asarray(block.typed, np.int64), more.typed])[order],
            None
            if block.locus is None
            else np.concatenate([block.locus, np.full(len(more.sites), -1)])[order],
            None
            if block.both is None
            else np.concatenate([block.both, np.nan_to_num(more.allele_prob).prod(axis=2)])[order],
        )

    def _put(self, block: ImputedBlock) -> None:
        """Append sites as they are."""
        if len(block.sites) == 0:
            return
        if self._options.min_gp > 0:
            block, num = without_calls(block, self._options.min_gp, self._options.digits)
            self.num_no_calls += num
        self._main.write(block)
        if self._sites is not None:
            self._sites.write(
                replace(
                    block,
                    allele_prob=block.allele_prob[:, :0],
                    called=block.called[:, :0],
                    both=None,
                )
            )


def _whole_loci(keep: np.ndarray, locus: np.ndarray | None) -> np.ndarray:
    """The sites to keep, and those that are written in one record with them, shape (m,), bool."""
    if locus is None:
        return keep
    joined = locus >= 0
    out: np.ndarray = keep | (joined & np.isin(locus, locus[keep & joined]))
    return out


def without_calls(block: ImputedBlock, min_gp: float, digits: int) -> tuple[ImputedBlock, int]:
    """A block whose genotypes are missing where the largest GP, as it is written, is below a limit.

    Observed genotypes stay.

    Parameters
    ----------
    block
        The sites. Of those that are joined to one record, GP is of all genotypes of the record.
    min_gp
        In (0, 1].
    digits
        Decimals of GP.

    Returns
    -------
    The block, and how many genotypes of its records are missing.
    """
    scale = 10**digits
    least = int(np.ceil(min_gp * scale - 1e-6))
    first, second = (block.allele_prob[..., side].astype(np.float64) for side in (0, 1))
    haploid = np.isnan(second)
    second = np.where(haploid, 0, second)
    none = np.floor((1 - first) * (1 - second) * scale + 0.5).astype(np.int64)
    both = first * second
    if block.both is not None:
        both = block.both.astype(np.float64)
        none = np.floor(np.clip(1 - first - second + both, 0, 1) * scale + 0.5).astype(np.int64)
    both = np.floor(both * scale + 0.5).astype(np.int64)
    one = np.floor(first * scale + 0.5).astype(np.int64)
    none = np.where(haploid, scale - one, none)
    largest = np.maximum(np.maximum(none, both), np.where(haploid, one, scale - none - both))
    counted = np.ones(len(block.sites), bool)
    if block.locus is not None:
        for number in np.unique(block.locus[block.locus >= 0]).tolist():
            rows = np.flatnonzero(block.locus == number)
            largest[rows] = best_genotype(
                block.allele_prob[rows], digits, None if block.both is None else block.both[rows]
            )
            counted[rows[1:]] = False
    observed = (block.called[..., 0] >= 0) & (haploid | (block.called[..., 1] >= 0))
    if block.both is not None:  # these are called by GP, but for records that the panel lacks
        observed &= (np.asarray(block.typed) == TYPED_ONLY)[:, None]
    low = (largest < least) & ~observed
    called = block.called.copy()
    called[low, 0] = NO_CALL
    called[..., 1][low & ~haploid & (called[..., 1] != -2)] = NO_CALL
    return replace(block, called=called), int(low[counted].sum())


def infos_written(*, er2: bool, pr2: bool, typed_only: bool) -> list[str]:
    """The INFO fields and flags that a run's records may have.

    They depend on the options and the model, never on the region or on what the target holds: the
    headers of neighbouring regions are alike.

    Parameters
    ----------
    er2
        Whether the model can impute typed sites as if they were not typed.
    pr2
        Whether it leaves out samples of the panel, which say what r2 to expect.
    typed_only
        Whether records that the panel lacks are written.
    """
    flags = [IMPUTED, TYPED, *([TYPED_ONLY] if typed_only else [])]
    more = [*(["ER2"] if er2 else []), *(PANEL_INFOS if pr2 else [])]
    return [*SUMS_INFOS, *more, *(FLAGS[flag].name for flag in flags)]


def declarations_written(panel: Panel, target: Target, *, typed_only: bool) -> list[str]:
    """The header lines that declare symbolic alleles, and what INFO says of alleles.

    They are those of the panel. Of symbolic alleles that the panel lacks, END, SVLEN and SVTYPE are
    written.
    """
    lines = list(panel.declarations)
    if typed_only and (panel.has_symbolic or target.sites.info is not None):
        declared = declared_fields(lines)
        lines += [SITE_FIELDS[x].line("INFO") for x in EXTENT_FIELDS if x not in declared]
    return lines


def check_outputs(out: str | Path, files: InputFiles, options: ImputeOptions) -> None:
    """Refuse outputs that are inputs, or one another, or cannot be written.

    Raises
    ------
    InputError
        If ``out`` or a file beside it is one of these; a FORMAT field or a suffix is not known; or
        standard output is to be resumed.
    """
    kind = output_kind(out, options.output_options.output_type)
    check_choice(options.fields)
    _check_min_gp(out, kind, options)
    _check_format(out, kind, options)
    known = files.named() | options.files_read()
    if str(out) != "-":
        check_output(out, known)
        known["imputed output"] = out
    for name, beside in _side_files(out, kind, options.output_options).items():
        check_output(beside, known)
        known[f"{name} of {out}"] = beside
    for name, path in options.files_written().items():
        if path is not None:
            if name == "array fit" and Path(path).is_dir():
                read_manifest(path)  # an index, which grows
                continue
            check_output(path, known)
            if name == "array fit":
                check_folder(Path(path), files.target, files.panel)
            known[f"{name} output"] = path
    if (
        options.output_options.sites_status is not None
        and options.output_options.sites_file is None
    ):
        raise InputError(
            "--sites-status says what became of the rows of a list of sites, and none is given",
            hint="name the list by --sites-file, or leave --sites-status out",
        )
    if options.output_options.sites is not None:
        vcf_kind(options.output_options.sites, written="sites without samples")
    if options.output_options.empirical is not None:
        vcf_kind(options.output_options.empirical, written="typed sites as if they were not typed")
    if options.resume and str(out) == "-":
        raise InputError("standard output cannot be resumed", hint="name a file, or no --resume")


def _check_min_gp(out: str | Path, kind: str, options: ImputeOptions) -> None:
    """Refuse a least GP where no GT is written."""
    if not options.output_options.min_gp > 0:
        return
    if kind in FILE_SETS:
        raise InputError(
            f"--min-gp makes genotypes (GT) missing, and {out}, a {kind.upper()}, holds "
            + ("probabilities" if kind == "bgen" else "dosages"),
            hint="leave it out, or write a VCF or BCF",
        )
    if "GT" not in options.fields:
        raise InputError(
            "--min-gp makes genotypes (GT) missing, which --format leaves out",
            hint="add GT to --format, or leave --min-gp out",
        )


def _side_files(out: str | Path, kind: str, options: OutputOptions) -> dict[str, Path]:
    """The files that an output has beside it and that are found by its name."""
    if kind == "bgen":
        from ragimpute.io.bgen.writer import side_files

        return side_files(out)
    if kind == "pgen":
        from ragimpute.io.pgen.writer import side_files as pgen_files

        return pgen_files(out, options.pvar)
    return {}


def _check_format(out: str | Path, kind: str, options: ImputeOptions) -> None:
    """Refuse options that say nothing of the format of the output, and packages that lack."""
    default, extra = ImputeOptions(), options.output_options
    given = {
        name: getattr(extra, name) != getattr(default.output_options, name)
        for name in (
            "bgen_bits",
            "bgen_compression",
            "bgen_phased",
            "pvar",
            "pgen_phased",
            "digits",
        )
    }
    for name, of in (
        ("bgen_bits", "bgen"), ("bgen_compression", "bgen"), ("bgen_phased", "bgen"),
        ("pvar", "pgen"), ("pgen_phased", "pgen"),
    ):  # fmt: skip
        if given[name] and kind != of:
            option = f"--{name.replace('_', '-')}"
            raise InputError(
                f"{option} says how a {of.upper()} is written, but the output {out} is {kind}",
                hint=f"leave it out, or end the output in .{of}",
            )
    if kind not in FILE_SETS:
        return
    holds = "probabilities of genotypes or, with --bgen-phased, of haplotypes"
    if kind == "pgen":
        holds = (
            "dosages, with --pgen-phased those of haplotypes, too, and genotypes where these are "
            "within 0.1 of a whole number"
        )
    if tuple(options.fields) != default.fields:
        raise InputError(
            f"--format names fields of a VCF, but the output {out} is a {kind.upper()}, which "
            f"holds {holds}",
            hint="leave --format out, or write a VCF",
        )
    if given["digits"] and kind == "bgen":
        raise InputError(
            f"--digits counts decimals, which the output {out}, a BGEN, does not have",
            hint="leave it out: --bgen-bits says how exact probabilities are",
        )
    if extra.join_multiallelics:
        raise InputError(
            f"--join-multiallelics makes records with several ALTs, and {out}, a {kind.upper()}, "
            "has a variant for each ALT: most association tools read no others",
            hint="leave it out, or write a VCF",
        )
    _check_choices(extra)
    if kind == "pgen":
        from ragimpute.io.pgen.writer import needed

        require("pgen", f"the output {out}", packages=needed(_in_pgen(extra)))
    elif extra.bgen_compression == "zstd":
        require("pgen", "--bgen-compression zstd", packages=["zstandard"])


def _in_pgen(options: OutputOptions) -> PgenOptions:
    """How a PGEN is written."""
    from ragimpute.io.pgen.writer import PgenOptions

    return PgenOptions(options.pvar, options.compression_level, options.digits, options.pgen_phased)


def _check_choices(options: OutputOptions) -> None:
    """Refuse words that are no choice of an option; the command line does so itself."""
    for name, known in (
        ("bgen_compression", ("zlib", "zstd", "none")), ("pvar", ("zst", "plain")),
    ):  # fmt: skip
        found = getattr(options, name)
        if found not in known:
            raise InputError(f"{name} is {found!r}", hint=f"choose one of {', '.join(known)}")


def check_samples(out: str | Path, inputs: Inputs, options: ImputeOptions) -> str | None:
    """Refuse names of samples that the files beside a BGEN or PGEN cannot hold.

    Returns
    -------
    A warning, if samples are haploid where no reader of a PGEN expects it; else None.

    Raises
    ------
    InputError
        If there is such a name.
    """
    kind = output_kind(out, options.output_options.output_type)
    found = unfit_name(inputs.target.samples) if kind in FILE_SETS else None
    if found is None:
        name = chromosome(inputs.contig, {inputs.contig: inputs.panel.contig_length})
        haploid = (inputs.match.alleles[:, :, 1] == -2).any(axis=0)
        if kind != "pgen" or name in _KNOWN_HAPLOID or not haploid.any():
            return None
        return (
            f"{int(haploid.sum()):,} samples are haploid on {inputs.contig}: a PGEN holds twice "
            "their dosage, from 0 to 2, as it does for homozygous diploids"
        )
    name, why = found
    beside = ".sample" if kind == "bgen" else ".psam"
    target, hint = inputs.files.target, "write a VCF or BCF, or rename the sample"
    if not isinstance(target, Target):
        suffix = next((end for end in (".bcf", ".vcf") if str(target).endswith(end)), ".vcf.gz")
        hint = f"write a VCF or BCF; or {rename_samples_command(target, suffix=suffix)}"
    raise InputError(
        f"the name of sample {name!r} {why}, which {beside}, beside {out}, cannot hold", hint=hint
    )


def check_folder(path: Path, target: object, panel: str | Path) -> None:
    """Refuse a file in place of the index folder of ``--array-fit``.

    Raises
    ------
    InputError
        If it is one. The hint makes an index of the target's sites and the panel.
    """
    if not path.exists() or path.is_dir():
        return
    typed = str(target) if isinstance(target, str | Path) else "TARGET.vcf.gz"
    words = [
        "ragimpute", "index", operand(panel), f"--typed-sites={typed}",
        "-o", free_name(path, ".index"),
    ]  # fmt: skip
    raise InputError(
        f"--array-fit {path} is a file, as older versions of ragimpute made it; it is now an index "
        "folder",
        hint=f"make one, and give its name: {shlex.join(words)}",
    )


def open_outputs(
    out: str | Path,
    inputs: Inputs,
    heading: Heading,
    options: ImputeOptions,
    *,
    listed: ListedSites | None,
    resumable: bool,
    restored: Sequence[Mapping[str, np.ndarray]],
) -> Outputs:
    """Begin, or go on with, all files of a run.

    Parameters
    ----------
    out
        The file of the imputed sites.
    inputs
        The target, of which records that the panel lacks may be written too.
    heading
        Of all files.
    options
        What is written, and in how many threads it is compressed.
    listed, resumable, restored
        See :class:`Outputs`.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    extra = options.output_options
    lacked = None
    if extra.typed_only:
        lacked = TypedOnly.of(inputs.target, inputs.match, options.region, listed)
    if listed is not None and output_kind(out, extra.output_type) == "pgen":
        num = listed.count(listed.start, listed.stop) + (0 if lacked is None else len(lacked.sites))
        if not num:
            raise InputError(
                f"{listed.wanted.path} names no site that this run has, and a PGEN, such as {out}, "
                "has one at least",
                hint="write a VCF or BGEN, which may be empty, or leave this region out",
            )
    writer = _open_main(
        out, inputs, heading, options, resumable=resumable, restored=states_of("main", restored)
    )
    return Outputs(
        writer, heading, extra, lacked, listed=listed, resumable=resumable, restored=restored
    )


def _open_main(
    out: str | Path,
    inputs: Inputs,
    heading: Heading,
    options: ImputeOptions,
    *,
    resumable: bool,
    restored: Sequence[Mapping[str, np.ndarray]],
) -> ImputedWriter:
    """What writes the imputed sites, by the format of the output."""
    extra = options.output_options
    kind = output_kind(out, extra.output_type)
    if kind not in FILE_SETS:
        return VcfWriter(
            out, heading, fields=tuple(options.fields), threads=options.threads,
            digits=extra.digits, level=extra.compression_level, output_type=extra.output_type,
            resumable=resumable, restored=restored,
        )  # fmt: skip
    sexes = sexes_of(inputs.target, inputs.panel, inputs.match, options.target_options.par)
    if kind == "pgen":
        from ragimpute.io.pgen.writer import PgenWriter

        return PgenWriter(
            out, heading, _in_pgen(extra), sexes=sexes, threads=options.threads,
            resumable=resumable, restored=restored,
        )  # fmt: skip
    from ragimpute.io.bgen.writer import BgenOptions, BgenWriter

    how = BgenOptions(
        extra.bgen_bits, extra.bgen_compression, extra.compression_level, extra.bgen_phased
    )
    return BgenWriter(
        out, heading, how, sexes=sexes, threads=options.threads, resumable=resumable,
        restored=restored,
    )  # fmt: skip


def states_of(
    name: str, restored: Sequence[Mapping[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """The part of each checkpoint that is about one file: "main", "sites" or "empirical"."""
    start = f"{name}."
    return [
        {key.removeprefix(start): value for key, value in told.items() if key.startswith(start)}
        for told in restored
    ]
