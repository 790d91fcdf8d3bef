"""Imputed genotypes on their way into a file: blocks of sites, what writes them, and formats."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from ragimpute.commands import command_word, operand
from ragimpute.errors import InputError
from ragimpute.sites import Sites

#: Formats by the letters that bcftools gives them; "u" is BCF that is not compressed.
OUTPUT_TYPES = {
    "v": "vcf", "z": "vcf.gz", "b": "bcf", "u": "bcf", "bgen": "bgen", "pgen": "pgen",
}  # fmt: skip
_SUFFIXES = {
    ".vcf": "vcf", ".vcf.gz": "vcf.gz", ".vcf.bgz": "vcf.gz", ".bcf": "bcf", ".bgen": "bgen",
    ".pgen": "pgen",
}  # fmt: skip
#: In ``ImputedBlock.called``: the genotype is written as missing.
NO_CALL = -3
#: Formats that are sets of files, whose names are made of that of the main one.
FILE_SETS = ("bgen", "pgen")


@dataclass(frozen=True)
class ImputedBlock:
    """Imputed genotypes at consecutive sites of one contig.

    Attributes
    ----------
    sites
        m sites, sorted by position, none before those of the last block.
    allele_prob
        Shape (m, N, 2), float32, P(ALT) of each haplotype in [0, 1]; NaN in [..., 1] where the
        sample is haploid.
    called
        Shape (m, N, 2), int8: observed alleles, 0 or 1, which stay as GT; -1 where there is none;
        -2 in [..., 1] where the sample is haploid; ``NO_CALL`` in [..., 0] where GT is to be
        missing, since no genotype is likely enough, and in [..., 1] of diploid samples then, too.
    info
        For each INFO field (of ``INFOS`` in ``io/vcf/header``) to be written, shape (m,), float32;
        NaN where it is to be left out.
    typed
        Shape (m,): bool, True where the site is flagged TYPED, else IMP; or integers, the number of
        the site's flag in ``FLAGS`` of ``io/vcf/header``.
    locus
        Shape (m,), int: sites with the same number >= 0, of one position and REF, are written as
        one record with several ALTs; -1: alone. None: all alone.
    """

    sites: Sites
    allele_prob: np.ndarray
    called: np.ndarray
    info: dict[str, np.ndarray]
    typed: np.ndarray
    locus: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> ImputedBlock:
        """Some of the sites: shape (m,), bool, or their numbers."""
        return ImputedBlock(
            self.sites.take(rows),
            self.allele_prob[rows],
            self.called[rows],
            {name: values[rows] for name, values in self.info.items()},
            np.asarray(self.typed)[rows],
            None if self.locus is None else self.locus[rows],
        )


class ImputedWriter(Protocol):
    """What a run of ``impute`` hands its blocks to; a context manager.

    The file is written under a temporary name in its folder, renamed by :meth:`close` and removed
    if the ``with`` block ends in an exception. The bytes are the same for any number of threads.
    There are three: of VCF and BCF, of BGEN, and of PGEN.

    Attributes
    ----------
    seconds
        Wall time so far of "format" and of "compress".
    """

    seconds: dict[str, float]

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def write(self, block: ImputedBlock) -> None:
        """Append sites; an error of the system is an InputError."""
        ...

    def checkpoint(self) -> Mapping[str, np.ndarray]:
        """Make sure that all is on the disk; returns what a later process needs to go on."""
        ...

    def close(self) -> None:
        """Finish the file and the files beside it, and give all their final names."""
        ...


def output_kind(path: str | Path, output_type: str | None = None) -> str:
    """The format of an output: "vcf", "vcf.gz", "bcf", "bgen" or "pgen".

    Parameters
    ----------
    path
        Its suffix says the format; "-", standard output, is "vcf".
    output_type
        A key of ``OUTPUT_TYPES``, for a path without such a suffix; None: none was given.

    Raises
    ------
    InputError
        If the suffix is unknown and no type was given, the type is unknown, or they disagree; or
        files that go by their suffix have another one.
    """
    name = Path(path).name
    found = [kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix) and name != suffix]
    if output_type is not None:
        if output_type not in OUTPUT_TYPES:
            raise InputError(
                f"output type {output_type!r} is not known",
                hint="choose v (VCF), z (compressed VCF), b (BCF), u (uncompressed BCF), bgen or "
                "pgen",
            )
        wanted = OUTPUT_TYPES[output_type]
        if found and found[0] != wanted:
            raise InputError(
                f"--output-type {output_type} is {wanted}, but the output {path} has the suffix of "
                f"{found[0]}",
                hint="change one of them, or leave out --output-type",
            )
        if wanted in FILE_SETS and not found:
            shown = "standard output" if str(path) == "-" else str(path)
            raise InputError(
                f"{wanted.upper()} cannot be written to {shown}: it is a set of files beside one "
                "another, which tools find by their names",
                hint=f"end the output in .{wanted}",
            )
        return wanted
    if str(path) == "-":
        return "vcf"
    if found:
        return found[0]
    raise InputError(
        f"the output {path} has no suffix that is known",
        hint="end it in .vcf.gz, .bcf, .vcf, .bgen or .pgen, name its format by -O, or write - for "
        "standard output",
    )


def vcf_kind(
    path: str | Path, output_type: str | None = None, *, written: str, imported: str | None = None
) -> str:
    """The format of an output that must be a VCF or BCF: "vcf", "vcf.gz" or "bcf".

    Parameters
    ----------
    path, output_type
        See :func:`output_kind`.
    written
        What the file holds, for a message: "phased genotypes".
    imported
        What plink2 must be told to read of the VCF in place of GT, such as "dosage=DS", for the
        hint; None: the hint does not name plink2.

    Raises
    ------
    InputError
        As :func:`output_kind`; and if the format is another one.
    """
    kind = output_kind(path, output_type)
    if kind not in FILE_SETS:
        return kind
    vcf = Path(path).with_suffix(".vcf.gz")
    hint = f"write {command_word(vcf)}"
    if imported is not None:
        stem = shlex.quote(operand(vcf.with_name(vcf.name.removesuffix(".vcf.gz"))))
        export = "--make-pgen vzs" if kind == "pgen" else "--export bgen-1.2 ref-first bits=8"
        read = f"{command_word(vcf)} {imported}".rstrip()
        hint += f", and make the other of it: plink2 --vcf {read} {export} --out {stem}"
    raise InputError(
        f"{written} are written as VCF or BCF, but the output {path} has the suffix of {kind}",
        hint=hint,
    )


def part_path(path: str | Path) -> Path:
    """Where a resumable output is until it is complete: beside it."""
    return Path(path).with_name(f".{Path(path).name}.part")
