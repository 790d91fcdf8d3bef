"""Headers of VCF and BCF: read from a file, checked, and written for imputed output."""

from __future__ import annotations

import gzip
import re
import shlex
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from ragimpute import __version__
from ragimpute.commands import absence_hint, command_word, free_name, rename_samples_command
from ragimpute.contigs import Lengths
from ragimpute.errors import InputError
from ragimpute.io.foreign import foreign_format, xcf_error
from ragimpute.sites import Region, located

BGZF_EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_MAX_HEADER = 2**30
_PIECE_BYTES = 2**20
_FIXED = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]


@dataclass(frozen=True)
class VcfHeader:
    """The header of a VCF, VCF.gz or BCF.

    Attributes
    ----------
    path
        The file.
    is_bcf
        Whether the records are those of BCF.
    compression
        "none", "gzip" or "bgzf".
    samples
        Sample names in file order.
    contigs
        Lengths in bp of the declared contigs, or None, in file order.
    contig_numbers
        Names of the contigs by the numbers that stand for them in BCF records.
    formats, infos
        Names of the declared FORMAT and INFO fields.
    text
        The whole header as text.
    """

    path: Path
    is_bcf: bool
    compression: str
    samples: list[str]
    contigs: dict[str, int | None]
    contig_numbers: dict[int, str]
    formats: set[str] = field(default_factory=set)
    infos: set[str] = field(default_factory=set)
    text: str = ""

    @property
    def declared(self) -> dict[str, int | None]:
        """``contigs``, without the lengths that PLINK makes up of the last position."""
        made_up = "##source=PLINK" in self.text
        return {name: None if made_up else length for name, length in self.contigs.items()}

    @property
    def version(self) -> tuple[int, int]:
        """Version of the VCF specification that the first line names; (0, 0) if it names none."""
        found = re.match(r"##fileformat=VCFv(\d+)\.(\d+)", self.text)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def read_header(path: str | Path) -> VcfHeader:
    """Read a header and check what can be checked without reading records.

    Raises
    ------
    InputError
        If the file is missing, a folder, empty, truncated, or not a VCF/BCF; or has no samples,
        or the same sample twice.
    """
    path = Path(path)
    try:
        with _opened_regular(path) as raw:
            compression = _compression(path, raw)
            if compression == "bgzf":
                _check_end(path, raw)
            raw.seek(0)
            with _decompressed(raw, compression) as file:
                is_bcf, text = _header_text(path, file)
    except EOFError as error:
        raise InputError(f"{path} is truncated: it ends within its header", hint=_COPY) from error
    except (OSError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}", hint=_COPY) from error
    return _parse(path, is_bcf, compression, text)


_COPY = "copy or make the file again"
_NOT_VCF = "expected a VCF, VCF.gz or BCF"


def _opened_regular(path: Path) -> BinaryIO:
    """The file's bytes; whatever is no regular file is refused."""
    if not path.is_file():
        if path.is_dir():
            raise InputError(f"{path} is a folder", hint=_NOT_VCF)
        if path.exists():
            raise InputError(f"{path} is not a regular file", hint="write it to a file first")
        raise InputError(f"{path} does not exist", hint="check the path")
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def _compression(path: Path, raw: BinaryIO) -> str:
    """How the file is compressed, by its first bytes."""
    magic = raw.read(18)
    if not magic:
        raise InputError(f"{path} is empty", hint=_COPY)
    if magic[:2] != b"\x1f\x8b":
        return "none"
    return "bgzf" if len(magic) == 18 and magic[3] & 4 and magic[12:14] == b"BC" else "gzip"


def _check_end(path: Path, raw: BinaryIO) -> None:
    """Refuse a BGZF file without its end mark: htslib would stop there without an error."""
    size = raw.seek(0, 2)
    raw.seek(max(0, size - len(BGZF_EOF)))
    if raw.read() != BGZF_EOF:
        raise InputError(f"{path} is truncated: its BGZF end mark is missing", hint=_COPY)


def _decompressed(raw: BinaryIO, compression: str) -> BinaryIO:
    """The decompressed content of an open file, from its current position on."""
    return raw if compression == "none" else gzip.open(raw, "rb")  # type: ignore[return-value]


def _header_text(path: Path, file: BinaryIO) -> tuple[bool, str]:
    """Whether the file is a BCF, and its header's text."""
    start = file.read(9)
    if start[:3] == b"BCF":
        if start[3:5] != b"\x02\x02" and start[3:5] != b"\x02\x01":
            raise InputError(
                f"{path} is a BCF of an unknown version",
                hint="BCF 2 is read; for BCF 1: the bcftools of samtools 0.1.19 makes a VCF of it",
            )
        (length,) = struct.unpack("<I", start[5:9])
        if length > _MAX_HEADER:
            raise OSError(f"a header of {length:,} bytes is announced")
        return True, _take(file, length).rstrip(b"\0").decode(errors="surrogateescape")
    if not start.startswith(b"##file"):
        foreign = foreign_format(path, start + file.read(32))
        raise foreign or InputError(f"{path} is not a VCF or BCF", hint=_NOT_VCF)
    lines = [start + file.readline()]
    foreign = foreign_format(path, lines[0])
    if foreign is not None:
        raise foreign
    for line in file:
        if not line.startswith(b"#"):
            break
        lines.append(line)
    return False, b"".join(lines).decode(errors="surrogateescape")


def _take(file: BinaryIO, count: int) -> bytes:
    """Read exactly ``count`` bytes.

    They are read piece by piece, as a damaged file may announce far more bytes than it holds, or
    than fit into memory.

    Raises
    ------
    EOFError
        If there are fewer.
    """
    parts: list[bytes] = []
    while count:
        part = file.read(min(count, _PIECE_BYTES))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _lines(text: str) -> list[str]:
    """The lines of a header; str.splitlines would also cut at characters that names may have."""
    return [line.removesuffix("\r") for line in text.split("\n")]


def _check_names(path: Path, text: str) -> None:
    """Refuse names of samples and contigs that are not UTF-8: two of them might become one.

    ``text`` is the header, decoded with "surrogateescape". Descriptions may be in any encoding.
    """
    for line in _lines(text):
        if not line.startswith(("#CHROM", "##contig=")):
            continue
        strange = re.search(r"[^\t=,<>]*[\udc80-\udcff][^\t=,<>]*", line)
        if strange:
            shown = strange[0].encode(errors="surrogateescape").decode("latin-1")
            out = shlex.quote(free_name(path, ".utf8.vcf"))
            hint = (
                f"if it is, write it as UTF-8: bcftools view {command_word(path)} | "
                f"iconv -f ISO-8859-1 -t UTF-8 > {out}"
            )
            kind = "sample"
            if line.startswith("##"):
                kind, hint = "contig", "rename the contig: htslib, too, refuses such names"
            raise InputError(
                f"{path} has a name of a {kind} that is not UTF-8 ({shown}, if it is Latin-1)",
                hint=hint,
            )


def _parse(path: Path, is_bcf: bool, compression: str, text: str) -> VcfHeader:
    """Find in the header's text what :class:`VcfHeader` has."""
    contigs: dict[str, int | None] = {}
    numbers: dict[int, str] = {}
    names: dict[str, set[str]] = {"FORMAT": set(), "INFO": set()}
    columns: list[str] | None = None
    _check_names(path, text)
    text = text.encode(errors="surrogateescape").decode(errors="replace")
    for line in _lines(text):
        found = re.match(r"##(contig|FORMAT|INFO)=<(?:.*?,)?ID=([^,>]+)", line)
        if found and found[1] == "contig":
            length = re.search(r"[<,]length=(\d+)", line)
            number = re.search(r"[<,]IDX=(\d+)", line)
            numbers[int(number[1]) if number else len(contigs)] = found[2]
            contigs.setdefault(found[2], int(length[1]) if length else None)
        elif found:
            names[found[1]].add(found[2])
        elif line.startswith("#CHROM"):
            columns = line.split("\t")
    if columns is None or columns[:8] != _FIXED[:8]:
        raise InputError(
            f"{path} has no header line that begins with #CHROM, POS, ID", hint=_NOT_VCF
        )
    samples = columns[9:]
    if not samples and "SEEK" in names["INFO"]:
        raise xcf_error(path)
    if not samples:
        raise InputError(f"{path} has no samples: it holds sites only", hint="genotypes are needed")
    if len(set(samples)) < len(samples):
        twice = next(name for i, name in enumerate(samples) if name in samples[:i])
        hint = "write it again with a name of its own for each sample"
        if not is_bcf and compression != "gzip":  # bcftools reheader refuses the others
            suffix = ".vcf" if compression == "none" else ".vcf.gz"
            hint = rename_samples_command(path, suffix=suffix)
        raise InputError(f"{path} names sample {twice} twice", hint=hint)
    return VcfHeader(
        path, is_bcf, compression, samples, contigs, numbers, names["FORMAT"], names["INFO"], text
    )


def first_formats(header: VcfHeader) -> set[str]:
    """Names in the FORMAT column of the first record of a VCF; none of a BCF or an empty file."""
    if header.is_bcf:
        return set()
    for line in text_lines(header):
        columns = line.split(b"\t", 9)
        return set(columns[8].decode(errors="replace").split(":")) if len(columns) > 8 else set()
    return set()


def without_genotypes(header: VcfHeader) -> InputError:
    """The error for a file that has no GT, which says what it is and how to call genotypes."""
    path, out = header.path, shlex.quote(free_name(header.path, ".called.vcf.gz"))
    likelihoods = [name for name in ("PL", "GL") if name in header.formats]
    if not likelihoods:
        return InputError(f"{path} declares no FORMAT/GT", hint="genotypes are needed")
    blocks = "##ALT=<ID=*," in header.text or "<NON_REF>" in header.text
    kind = "a gVCF" if blocks and "END" in header.infos else "a file"
    if "QS" not in header.infos:
        return InputError(
            f"{path} declares no FORMAT/GT: it is {kind} of genotype likelihoods "
            f"({', '.join(likelihoods)}), and genotypes are needed",
            hint="call genotypes first, or impute with GLIMPSE2, which reads likelihoods",
        )
    option = " -g 0" if kind == "a gVCF" else ""
    return InputError(
        f"{path} declares no FORMAT/GT: it is {kind} of genotype likelihoods (PL), as bcftools "
        "mpileup writes, whose genotypes were not called yet",
        hint=f"call them: bcftools call -m{option} {command_word(path)} -Oz -o {out}",
    )


_DECLARED_INFO = re.compile(r"^##INFO=<ID=([^,>]+)", re.MULTILINE)
_NUMBER_FIELD = re.compile(
    r"^##FORMAT=<(?:.*?,)?ID=([^,>]+)(?:,.*?)?,Type=(Integer|Float)\b", re.MULTILINE
)
_LETTERS = re.compile(rb"[A-Za-z_]")
_NUMBERS_WITH_LETTERS = re.compile(rb"[+-]?(nan|inf|infinity|[\d.]+e[+-]?\d+)", re.IGNORECASE)


def _is_number(value: bytes) -> bool:
    """Whether a value has no letters but those that a number may have."""
    return not _LETTERS.search(value) or _NUMBERS_WITH_LETTERS.fullmatch(value) is not None


def mistyped_field(header: VcfHeader) -> InputError | None:
    """The error for the first FORMAT field of a VCF that is declared a number and holds a text.

    htslib does not read such a record. None if there is none.
    """
    kinds = {found[1].encode(): found[2] for found in _NUMBER_FIELD.finditer(header.text)}
    path, out = header.path, shlex.quote(free_name(header.path, ".declared.vcf"))
    for line in text_lines(header):
        columns = line.split(b"\t")
        names = columns[8].split(b":") if len(columns) > 8 else []
        if kinds.keys().isdisjoint(names):
            continue
        for sample, cell in zip(header.samples, columns[9:], strict=False):
            for name, value in zip(names, cell.split(b":"), strict=False):
                if name not in kinds or all(map(_is_number, value.split(b","))):
                    continue
                where = b":".join(columns[:2]).decode(errors="replace")
                field, kind = name.decode(), kinds[name]
                change = shlex.quote(f"/^##FORMAT=<ID={field},/s/Type={kind}/Type=String/")
                command = f"sed {change} {command_word(path)} > {out}"
                if header.compression != "none":
                    command = f"gzip -dc {command_word(path)} | sed {change} > {out}"
                return InputError(
                    f"{path}, {where}: FORMAT/{field} of sample {sample} is "
                    f"{value.decode(errors='replace')!r}, but the header declares {kind}",
                    hint=f"declare it as a text: {command}",
                )
    return None


# A sign of phase before the first allele, as VCF 4.4 allows, in any of the samples' columns.
_PREFIXED = re.compile(rb"\t[|/](?=[0-9.])")


def has_prefixed_phase(header: VcfHeader) -> bool:
    """Whether any genotype of a VCF begins with its phase (VCF 4.4: ``|0|1``, ``/0/1``, ``|1``)."""
    if header.is_bcf:
        return False
    return any(_PREFIXED.search(line) is not None for line in text_lines(header))


def without_prefixes(line: bytes) -> bytes:
    """A record of a VCF whose genotypes do not begin with their phase, as in VCF 4.3.

    Nothing that is used is lost: a diploid genotype is phased if its second allele is, and a
    haploid one has nothing to be phased with.
    """
    columns = line.split(b"\t")
    names = columns[8].split(b":") if len(columns) > 8 else []
    if b"GT" not in names:
        return line
    place = names.index(b"GT")
    for i in range(9, len(columns)):
        parts = columns[i].split(b":")
        if place < len(parts) and parts[place][:1] in (b"|", b"/"):
            parts[place] = parts[place][1:]
            columns[i] = b":".join(parts)
    return b"\t".join(columns)


def text_lines(header: VcfHeader) -> Iterator[bytes]:
    """The records of a VCF as text, without their ends of line.

    Raises
    ------
    InputError
        If the file is truncated or damaged.
    """
    try:
        with header.path.open("rb") as raw, _decompressed(raw, header.compression) as file:
            for line in file:
                if not line.startswith(b"#") and line.strip():
                    yield line.rstrip(b"\r\n")
    except EOFError as error:
        raise InputError(f"{header.path} is truncated", hint=_COPY) from error
    except (OSError, zlib.error) as error:
        raise InputError(f"{header.path} is damaged: {error}", hint=_COPY) from error


def record_contigs(header: VcfHeader) -> Iterator[str]:
    """Read all records, and yield the contig of each run of records that share one.

    Raises
    ------
    InputError
        If the file is truncated or damaged.
    """
    try:
        # A pass of its own: the records are read by htslib, which opens the file by its name.
        with header.path.open("rb") as raw, _decompressed(raw, header.compression) as file:
            yield from _bcf_contigs(file, header) if header.is_bcf else _text_contigs(file)
    except EOFError as error:
        raise InputError(f"{header.path} is truncated", hint=_COPY) from error
    except (OSError, zlib.error) as error:
        raise InputError(f"{header.path} is damaged: {error}", hint=_COPY) from error


def _text_contigs(file: BinaryIO) -> Iterator[str]:
    """The contig of each run of records of a VCF."""
    last, name = b"", ""
    for line in file:
        if line.startswith(b"#") or not line.strip():
            continue
        first = line.partition(b"\t")[0]
        if first != last:
            last, name = first, first.decode(errors="replace")
            yield name


def _bcf_contigs(file: BinaryIO, header: VcfHeader) -> Iterator[str]:
    """The contig of each run of records of a BCF."""
    (length,) = struct.unpack("<I", file.read(9)[5:])
    _take(file, length)
    names = header.contig_numbers
    last = -1
    while head := file.read(12):
        if len(head) < 12:
            raise EOFError
        shared, individual, contig = struct.unpack("<IIi", head)
        if shared < 24:  # the bytes of the fields that each record has
            raise OSError("a record's lengths do not agree")
        _take(file, shared + individual - 4)
        if contig != last:
            last = contig
            yield names.get(contig, str(contig))


def choose_region(header: VcfHeader, names: list[str], region: Region | None) -> Region:
    """What to read of the ``names`` in a VCF or BCF, see :func:`choose_among`."""
    return choose_among(header.path, names, region, header.declared)


def choose_among(path: Path, names: list[str], region: Region | None, declared: Lengths) -> Region:
    """What to read of the ``names`` in the file: the region in their spelling, or the only one.

    ``declared``: the contigs that the file declares, with their lengths.

    Raises
    ------
    InputError
        If there is no name, if the region's contig is not among them, or if there are several and
        no region.
    """
    if not names:
        raise InputError(f"{path} holds no records", hint="check how it was made")
    listed = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    if region is None:
        if len(names) > 1:
            raise InputError(
                f"{path} holds {len(names)} contigs ({listed}); one is read at a time",
                hint="choose one with --region",
            )
        return Region(names[0])
    found = located(region, names, declared=declared)
    if found is None:
        raise InputError(
            f"{path} has no records on contig {region.contig}; it holds {listed}",
            hint=absence_hint(region.contig, names, "check --region", file=path, declared=declared),
        )
    return found


@dataclass(frozen=True)
class Field:
    """An INFO or FORMAT field as the header declares it."""

    name: str
    number: str
    type: str
    description: str
    digits: int | None = None  # decimals of an INFO float; None: it has 6 significant digits

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
            "Dosage R2, estimated without truth: R2, calibrated as ragimpute_dr2 says where the "
            "header has it; of fewer than 100 haplotypes, which are too few to tell, blended with "
            "PR2 where the record has it; 1 where all alleles are observed",
            digits=4,
        ),
        Field(
            "R2",
            "A",
            "Float",
            "Rsq as Minimac computes it: variance of P(ALT) over the haplotypes, divided by "
            "AF (1 - AF), not calibrated; 0 where P(ALT) is 0 or 1 on all haplotypes",
            digits=4,
        ),
        Field(
            "INFO",
            "A",
            "Float",
            "Info as IMPUTE computes it: 1 - mean variance of each sample's ALT count / "
            "(ploidy AF (1 - AF)); 1 where P(ALT) is 0 or 1 on all haplotypes",
            digits=4,
        ),
        Field(
            "ER2",
            "A",
            "Float",
            "Empirical R2, typed sites only: squared correlation of the observed alleles with "
            "P(ALT) imputed as if the site were not typed",
            digits=4,
        ),
        Field(
            "PR2",
            "A",
            "Float",
            "R2 that the panel lets one expect: squared correlation of dosage and truth when "
            "samples of the panel are imputed from the others by the same typed sites",
            digits=4,
        ),
        Field(
            "PADJ",
            "A",
            "Float",
            "What the panel adds to the logit of DR2 of an allele that few haplotypes have",
            digits=3,
        ),
        Field("AN", "1", "Integer", "Haplotypes of the target at this site"),
        # From AN, AF and these two, ``merge`` computes the DR2 of several batches of samples.
        # Neither is a difference of large numbers, so 6 digits are enough.
        Field(
            "PSSD", "A", "Float", "Sum over haplotypes of the squared difference of P(ALT) from AF"
        ),
        Field("PVAR", "A", "Float", "Sum over haplotypes of P(ALT) (1 - P(ALT))"),
    )
}
# INFO fields that are of a record, not of one of its ALTs.
SINGLE_INFOS = ("AN",)
FLAGS = (
    Field("IMP", "0", "Flag", "Imputed: the site is not typed in the target"),
    Field("TYPED", "0", "Flag", "Typed: the site is observed in the target"),
    Field("TYPED_ONLY", "0", "Flag", "Typed, but not in the panel: observed alleles as they are"),
)
# Of records with several ALTs, these fields have other numbers, or an order that is to be told.
_JOINED = {
    field.name: field
    for field in (
        replace(INFOS["MAF"], number="A"),
        replace(
            FORMATS["GP"],
            description="Probability of each genotype, in the order of the VCF specification: 0/0, "
            "0/1, 1/1, 0/2, 1/2, 2/2, ... (haploid: of each allele)",
        ),
        replace(
            FORMATS["HDS"],
            description="P(ALT) of each haplotype, in the order of GT: those of the first ALT, of "
            "the second, ...",
        ),
        replace(FLAGS[1], description="Typed: one ALT or more is observed in the target"),
    )
}
IMPUTED, TYPED, TYPED_ONLY = range(3)  # the number of each of FLAGS; each site has one of them
_ALL_INFO = (*INFOS, *(flag.name for flag in FLAGS))


def check_fields(fields: Sequence[str]) -> list[str]:
    """Check the FORMAT fields of an output, and return them with "AP1" and "AP2" for "AP".

    Raises
    ------
    InputError
        If a field is unknown or given twice, there is no field, or GT is not the first.
    """
    hint = f"choose from {', '.join(CHOICES)}"
    names: list[str] = []
    for name in fields:
        names += ["AP1", "AP2"] if name == "AP" else [name]
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
    """Check the fields that a user chose, which :func:`check_fields` does, but LDS is no choice.

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


@dataclass(frozen=True)
class Heading:
    """What the header of an output says, apart from its fields.

    Attributes
    ----------
    samples
        Names, N of them.
    contigs
        Name and length in bp, or None, of each contig.
    command
        For ``##ragimpute_command``; left out if None.
    header_lines
        More header lines, each of which begins with "##".
    joined
        Whether records may have several ALTs.
    infos
        INFO fields and flags that records may have, of ``INFOS`` and ``FLAGS``. No others are
        declared: a filter on a field that is declared and in no record would keep nothing, without
        a word.
    declarations
        Lines of the panel that declare its symbolic alleles and the fields of ``Sites.info``.
    """

    samples: Sequence[str]
    contigs: Sequence[tuple[str, int | None]]
    command: str | None = None
    header_lines: Sequence[str] = ()
    joined: bool = False
    infos: Collection[str] = _ALL_INFO
    declarations: Sequence[str] = ()

    def declared_infos(self) -> list[Field]:
        """The fields and flags of ``infos``, in the order of ``INFOS`` and ``FLAGS``.

        Raises
        ------
        ValueError
            If one of the names is of neither.
        """
        unknown = set(self.infos) - set(_ALL_INFO)
        if unknown:
            raise ValueError(f"INFO {sorted(unknown)} not in {list(_ALL_INFO)}")
        return [field for field in (*INFOS.values(), *FLAGS) if field.name in self.infos]


def header_text(heading: Heading, formats: Sequence[str]) -> str:
    """The header of an output with these FORMAT fields; without fields it names no samples.

    It is the same for the same arguments: it holds no date and no path.

    Raises
    ------
    ValueError
        If one of the header lines does not begin with "##", or is more than one line; or if the
        heading names an unknown INFO field.
    """
    lines = ["##fileformat=VCFv4.2", '##FILTER=<ID=PASS,Description="All filters passed">']
    lines.append(f"##source=ragimpute {__version__}")
    if heading.command is not None:
        lines.append(f"##ragimpute_command={' '.join(heading.command.split())}")
    for line in heading.header_lines:
        if not line.startswith("##") or "\n" in line:
            raise ValueError(f"header line must begin with ## and be one line, found {line!r}")
        lines.append(line)
    for name, length in heading.contigs:
        lines.append(f"##contig=<ID={name}" + (f",length={length}>" if length else ">"))
    other = _JOINED if heading.joined else {}
    lines += [other.get(one.name, one).line("INFO") for one in heading.declared_infos()]
    lines += heading.declarations
    lines += [other.get(name, FORMATS[name]).line("FORMAT") for name in formats]
    fixed = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
    lines.append("\t".join([*fixed, *(["FORMAT", *heading.samples] if formats else [])]))
    return "\n".join(lines) + "\n"


def dictionary(heading: Heading, formats: Sequence[str]) -> dict[str, int]:
    """The number that stands for each name in BCF records.

    PASS is 0, and the fields have numbers in the order in which :func:`header_text` declares them.
    """
    told = _DECLARED_INFO.findall("\n".join(heading.declarations))
    names = ["PASS", *(field.name for field in heading.declared_infos()), *told, *formats]
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
