"""The fields of imputed output: what they mean, and the header that declares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ragimpute import __version__
from ragimpute.errors import InputError


@dataclass(frozen=True)
class Field:
    """An INFO or FORMAT field as the header declares it."""

    name: str
    number: str
    type: str
    description: str
    digits: int | None = None  # decimals of an INFO float; None: 6 significant digits

    def line(self, kind: str) -> str:
        """The header line."""
        return (
            f"##{kind}=<ID={self.name},Number={self.number},Type={self.type},"
            f'Description="{self.description}">'
        )


FORMATS = {
    field.name: field
    for field in (
        Field(
            "GT",
            "1",
            "String",
            "Genotype, phased: as observed at typed sites, else the likelier allele of each "
            "haplotype",
        ),
        Field("DS", "A", "Float", "ALT dosage: the sum of P(ALT) over the haplotypes"),
        Field("GP", "G", "Float", "Probability of each genotype: of 0, 1, 2 (haploid: 0, 1) ALT"),
        Field("HDS", ".", "Float", "P(ALT) of each haplotype, in the order of GT"),
        Field("AP1", "A", "Float", "P(ALT) of the first haplotype"),
        Field("AP2", "A", "Float", "P(ALT) of the second haplotype; missing if haploid"),
        Field(
            "LDS",
            ".",
            "Float",
            "P(ALT) of each haplotype, imputed as if its allele at this site were not observed",
        ),
    )
}
CHOICES = ("GT", "DS", "GP", "HDS", "AP")  # what --format may name
INFOS = {
    field.name: field
    for field in (
        Field("AF", "A", "Float", "ALT frequency: the mean of P(ALT) over the target's haplotypes"),
        Field("MAF", "1", "Float", "Minor allele frequency: the lesser of AF and 1 - AF"),
        Field(
            "DR2",
            "A",
            "Float",
            "Dosage R2, estimated without truth: variance of P(ALT) over the haplotypes, divided "
            "by AF (1 - AF), calibrated as ragimpute_dr2 says where the header has it",
            digits=4,
        ),
        Field("R2", "A", "Float", "The same as DR2, under the name that Minimac uses", digits=4),
        Field(
            "ER2",
            "A",
            "Float",
            "Empirical R2, typed sites only: squared correlation of the observed alleles with "
            "P(ALT) imputed as if the site were not typed",
            digits=4,
        ),
        Field("PAF", "A", "Float", "ALT frequency in the panel"),
        Field("INFO", "A", "Float", "IMPUTE-style information score", digits=4),
        Field("CONC", "A", "Float", "Share of observed alleles that agree", digits=4),
        Field("AN", "1", "Integer", "Haplotypes of the target at this site"),
        # With AN and AF, what DR2 of several batches of samples follows from. Neither is a
        # difference of large numbers, so that 6 digits are enough.
        Field(
            "PSSD", "A", "Float", "Sum over haplotypes of the squared difference of P(ALT) from AF"
        ),
        Field("PVAR", "A", "Float", "Sum over haplotypes of P(ALT) (1 - P(ALT))"),
    )
}
FLAGS = (
    Field("IMP", "0", "Flag", "Imputed: the site is not typed in the target"),
    Field("TYPED", "0", "Flag", "Typed: the site is observed in the target"),
    Field("TYPED_ONLY", "0", "Flag", "Typed, but not in the panel: observed alleles as they are"),
)
IMPUTED, TYPED, TYPED_ONLY = range(3)  # which of FLAGS a site has


def check_fields(fields: Sequence[str]) -> list[str]:
    """FORMAT fields in order; "AP" becomes "AP1" and "AP2".

    Raises
    ------
    InputError
        If a field is unknown or given twice, there is none, or GT is not the first.
    """
    hint = f"choose from {', '.join(CHOICES)}"
    names: list[str] = []
    for field in fields:
        names += ["AP1", "AP2"] if field == "AP" else [field]
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise InputError(f"there is no output field {unknown[0]!r}", hint=hint)
    if not names:
        raise InputError("no output field was chosen", hint=hint)
    if len(set(names)) < len(names):
        raise InputError(f"an output field is given twice: {','.join(fields)}", hint=hint)
    if "GT" in names[1:]:
        raise InputError(f"GT must be the first of {','.join(fields)}: VCF wants it so")
    return names


def check_choice(fields: Sequence[str]) -> list[str]:
    """As :func:`check_fields`, for what a user may choose.

    Raises
    ------
    InputError
        If a field is none of ``CHOICES``, or as for :func:`check_fields`.
    """
    names = check_fields(fields)
    if "LDS" in names:
        raise InputError(
            "there is no output field 'LDS' beside imputed sites",
            hint="--empirical writes it to a file of its own",
        )
    return names


def header_text(
    *,
    samples: Sequence[str],
    contigs: Sequence[tuple[str, int | None]],
    formats: Sequence[str],
    command: str | None,
    header_lines: Sequence[str],
) -> str:
    """The header, the same for the same arguments: no date, no path."""
    lines = ["##fileformat=VCFv4.2", '##FILTER=<ID=PASS,Description="All filters passed">']
    lines.append(f"##source=ragimpute {__version__}")
    if command is not None:
        lines.append(f"##ragimpute_command={' '.join(command.split())}")
    for line in header_lines:
        if not line.startswith("##") or "\n" in line:
            raise ValueError(f"header line must begin with ## and be one line, found {line!r}")
        lines.append(line)
    for name, length in contigs:
        lines.append(f"##contig=<ID={name}" + (f",length={length}>" if length else ">"))
    lines += [field.line("INFO") for field in (*INFOS.values(), *FLAGS)]
    lines += [FORMATS[name].line("FORMAT") for name in formats]
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    lines.append("\t".join([*fixed, *(["FORMAT", *samples] if samples else [])]))
    return "\n".join(lines) + "\n"


def dictionary(formats: Sequence[str]) -> dict[str, int]:
    """Numbers of the names in a BCF's header: PASS, then in the order of :func:`header_text`."""
    names = ["PASS", *INFOS, *(flag.name for flag in FLAGS), *formats]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
