"""INFO that says what alleles are, such as END and SVTYPE: read from a panel, kept, and written.

Most of INFO is of the samples of its file (AC, AF) and would be wrong in another. The fields here
are of the alleles: those that the VCF specification has for structural variants and repeats, and
those of large releases of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ragimpute.io.vcf.header import Field
from ragimpute.symbolic import EXTENT_FIELDS, Extent, info_value, is_symbolic

_ONE = "1"
#: The fields that are kept, as the specification declares them where a header does not.
SITE_FIELDS = {
    name: Field(name, number, kind, description)
    for name, number, kind, description in (
        ("SVTYPE", _ONE, "String", "Type of structural variant"),
        ("END", _ONE, "Integer", "End position of the variant"),
        ("SVLEN", ".", "Integer", "Difference in length between REF and ALT alleles"),
        ("CIPOS", "2", "Integer", "Confidence interval around POS"),
        ("CIEND", "2", "Integer", "Confidence interval around END"),
        ("CILEN", "2", "Integer", "Confidence interval around the length"),
        ("IMPRECISE", "0", "Flag", "Imprecise structural variation"),
        ("PRECISE", "0", "Flag", "Precise structural variation"),
        ("NOVEL", "0", "Flag", "Novel structural variation"),
        ("HOMLEN", ".", "Integer", "Length of base pair identical micro-homology at breakpoints"),
        ("HOMSEQ", ".", "String", "Sequence of base pair identical micro-homology at breakpoints"),
        ("BKPTID", ".", "String", "ID of the assembled alternate allele in the assembly file"),
        ("MEINFO", "4", "String", "Mobile element info of the form NAME,START,END,POLARITY"),
        ("METRANS", "4", "String", "Mobile element transduction info"),
        ("DGVID", _ONE, "String", "ID of this element in Database of Genomic Variation"),
        ("DBVARID", _ONE, "String", "ID of this element in DBVAR"),
        ("DBRIPID", _ONE, "String", "ID of this element in DBRIP"),
        ("MATEID", ".", "String", "ID of mate breakends"),
        ("PARID", _ONE, "String", "ID of partner breakend"),
        ("EVENT", ".", "String", "ID of event associated to breakend"),
        ("EVENTTYPE", ".", "String", "Type of associated event"),
        ("SVCLAIM", ".", "String", "Claim made by the structural variant call"),
        ("CN", ".", "Integer", "Copy number of the allele"),
        ("CNADJ", ".", "Integer", "Copy number of adjacency"),
        ("CICN", "2", "Integer", "Confidence interval around copy number"),
        ("CHR2", _ONE, "String", "Contig of the other end"),
        ("POS2", _ONE, "Integer", "Position of the other end on CHR2"),
        ("END2", _ONE, "Integer", "Position of the other end on CHR2"),
        ("STRANDS", ".", "String", "Strands of the breakpoints"),
        ("CPX_TYPE", _ONE, "String", "Class of complex variant"),
        ("CPX_INTERVALS", ".", "String", "Genomic intervals of a complex variant"),
        ("INSLEN", _ONE, "Integer", "Length of the insertion"),
        ("INSSEQ", ".", "String", "Inserted sequence"),
        ("SVINSLEN", ".", "Integer", "Length of insertion"),
        ("SVINSSEQ", ".", "String", "Sequence of insertion"),
        ("LEFT_SVINSSEQ", ".", "String", "Known left side of an insertion of unknown length"),
        ("RIGHT_SVINSSEQ", ".", "String", "Known right side of an insertion of unknown length"),
        ("CS", _ONE, "String", "Source of the call set"),
        ("MC", ".", "String", "Merged calls"),
        ("TSD", _ONE, "String", "Target site duplication"),
        ("MSTART", _ONE, "Integer", "Start of the mitochondrial insertion"),
        ("MLEN", _ONE, "Integer", "Length of the mitochondrial insertion"),
        ("MEND", _ONE, "Integer", "End of the mitochondrial insertion"),
        ("START", _ONE, "Integer", "Start of the repeat"),
        ("PERIOD", _ONE, "Integer", "Length of the repeat unit"),
        ("RU", _ONE, "String", "Repeat unit"),
        ("RUS", ".", "String", "Repeat unit sequence"),
        ("RUL", ".", "Integer", "Repeat unit length"),
        ("RUC", ".", "Float", "Repeat unit count"),
        ("RL", _ONE, "Integer", "Length of the repeat in the reference"),
        ("RN", _ONE, "Integer", "Number of repeat sequences"),
        ("RB", ".", "Integer", "Bases of the repeat sequence"),
        ("CIRUC", ".", "Float", "Confidence interval around RUC"),
        ("CIRB", ".", "Integer", "Confidence interval around RB"),
        ("MOTIF", _ONE, "String", "Repeat motif"),
        ("MOTIFS", ".", "String", "Repeat motifs"),
        ("STRUC", _ONE, "String", "Structure of the repeat region"),
        ("TRID", _ONE, "String", "ID of the tandem repeat"),
        ("REPID", _ONE, "String", "ID of the repeat"),
        ("VARID", _ONE, "String", "ID of the variant"),
        ("BPDIFFS", "A", "Integer", "Difference in bp of each ALT from REF"),
        ("VNTR", "0", "Flag", "The locus is a variable number tandem repeat"),
        ("METHODS", _ONE, "String", "Methods that called the repeat"),
    )
}
# Fields of "Number=." that may have so many values for each ALT.
_EACH_ALT = {
    "SVLEN": 1, "CN": 1, "SVCLAIM": 1, "CIPOS": 2, "CIEND": 2, "CILEN": 2, "CICN": 2, "MEINFO": 4,
    "METRANS": 4, "RN": 1, "RUC": 1,
}  # fmt: skip
_DECLARED = re.compile(r"##(INFO|ALT)=<(.*)>\s*$")
_ID, _IDX = re.compile(r"(?:^|,)ID=([^,]+)"), re.compile(r",IDX=\d+$")


def kept_lines(header: str) -> list[str]:
    """The lines of a header's text that declare symbolic alleles and fields that are kept."""
    lines = []
    for line in header.split("\n"):
        found = _DECLARED.match(line.removesuffix("\r"))
        name = found and _ID.search(found[2])
        if not found or not name:
            continue
        if found[1] == "ALT" or name[1] in SITE_FIELDS:
            lines.append(f"##{found[1]}=<{_IDX.sub('', found[2])}>")
    return list(dict.fromkeys(lines))


def declared_fields(lines: Iterable[str]) -> dict[str, Field]:
    """The INFO fields that header lines declare, by name."""
    fields = {}
    for line in lines:
        found = re.match(
            r"##INFO=<.*?ID=([^,>]+),.*?Number=([^,>]+),.*?Type=(\w+)(?:,.*?Description=\"(.*)\")?",
            line,
        )
        if found:
            described = found[4] or SITE_FIELDS[found[1]].description
            fields[found[1]] = Field(found[1], found[2], found[3], described)
    return fields


def alt_lines(lines: Iterable[str], alts: Collection[str]) -> list[str]:
    """Those of the lines that declare symbolic alleles which are among ``alts`` ("<DEL>")."""
    found = []
    for line in lines:
        name = line.startswith("##ALT=") and _ID.search(line[len("##ALT=<") :])
        if name and f"<{name[1].rstrip('>')}>" in alts:
            found.append(line)
    return found


def used_lines(declared: Sequence[str], infos: Iterable[str], alts: Collection[str]) -> list[str]:
    """The header lines that sites need: of the symbolic alleles and the fields that they have.

    Parameters
    ----------
    declared
        Lines of the header that they come from; a field that it lacks is declared as the
        specification does.
    infos
        INFO of the sites, as text.
    alts
        Their ALTs.
    """
    names = dict.fromkeys(
        part.partition("=")[0] for info in infos if info for part in info.split(";")
    )
    lines = {name: line for line in declared for name in declared_fields([line])}
    used = [line for name, line in lines.items() if name in names]
    used += [SITE_FIELDS[name].line("INFO") for name in names if name not in lines]
    return [*alt_lines(declared, alts), *used]


class SiteInfoReader:
    """Reads what a record's INFO says of its alleles.

    Parameters
    ----------
    header
        Text of the file's header.
    names
        The fields to read; None: all of ``SITE_FIELDS``.
    only_declared
        Whether END, SVLEN and SVTYPE are read only if the header has them, and END is not computed
        of SVLEN where it is missing.
    """

    def __init__(
        self,
        header: str,
        names: Collection[str] | None = None,
        *,
        only_declared: bool = False,
    ) -> None:
        fields = declared_fields(kept_lines(header))
        self._fields = [
            (name, field) for name, field in fields.items() if names is None or name in names
        ]
        known = {name for name, _ in self._fields}
        self._derives_end = not only_declared
        # Some files do not declare these; they are read where an allele is symbolic, or INFO says
        # more of it.
        self._lacking = [
            (name, SITE_FIELDS[name])
            for name in EXTENT_FIELDS
            if name not in known and not only_declared
        ]

    def of(self, variant: Any, alts: Sequence[int]) -> list[str]:
        """The text for each of some ALTs, given by their numbers from 0; "" where there is none."""
        parts: list[list[str]] = [[] for _ in alts]
        self._add(parts, self._fields, variant, alts)
        is_named = any(is_symbolic(variant.ALT[i]) for i in alts if i >= 0)
        if self._lacking and (is_named or any(parts)):
            self._add(parts, self._lacking, variant, alts)
        infos = [";".join(part) for part in parts]
        lacks_end = is_named and len(infos) == len(variant.ALT) == 1
        if lacks_end and self._derives_end and info_value(infos[0], "END") is None:
            end = Extent.of(variant.POS, variant.ALT[0], infos[0]).end_bp
            if end is not None:  # as files of VCF 4.4 and later leave it to SVLEN
                infos[0] += f";END={end}"
        return infos

    def _add(
        self,
        parts: list[list[str]],
        wanted: Sequence[tuple[str, Field]],
        variant: Any,
        alts: Sequence[int],
    ) -> None:
        """Append the values of some fields to the ``parts`` of each ALT."""
        if not wanted:
            return
        num_alts, info = len(variant.ALT), variant.INFO
        for name, field in wanted:
            value = None
            with suppress(KeyError):
                value = info.get(name)
            if value is None:
                continue
            if field.type == "Flag":
                for part in parts:
                    part.append(name)
                continue
            values = _texts(value)
            for part, alt in zip(parts, alts, strict=True):
                own = _own(field, values, alt, num_alts)
                if any(x != "." for x in own):
                    part.append(f"{name}={','.join(own)}")


def _texts(value: Any) -> list[str]:
    """The values of a field as text."""
    if value is True:  # there, but without a value
        return ["."]
    if isinstance(value, str):
        return value.split(",")
    values = value if isinstance(value, tuple | list) else (value,)
    return ["." if x is None else f"{x:.6g}" if isinstance(x, float) else str(x) for x in values]


def _own(field: Field, values: list[str], alt: int, num_alts: int) -> list[str]:
    """Those of a record's values that are of one ALT."""
    if num_alts < 2 or alt < 0:
        return values
    if field.number == "R" and len(values) == num_alts + 1:
        return [values[0], values[alt + 1]]
    width = 1 if field.number == "A" else _EACH_ALT.get(field.name, 0)
    if width and len(values) == width * num_alts:
        return values[width * alt : width * (alt + 1)]
    return values


def joined_info(infos: Sequence[str], fields: dict[str, Field]) -> str | None:
    """INFO of a record with several ALTs of that of each; None if they say different things.

    Parameters
    ----------
    infos
        The text for each ALT.
    fields
        How the fields are declared.
    """
    if not any(infos):
        return ""
    tables = [_table(info) for info in infos]
    parts = []
    for name in dict.fromkeys(name for table in tables for name in table):
        values = _joined_values(fields.get(name), name, [table.get(name) for table in tables])
        if values is None:
            return None
        parts.append(f"{name}={values}" if values else name)
    return ";".join(parts)


def _table(info: str) -> dict[str, str]:
    """The values of the fields in the text of INFO, "" of flags."""
    cut = (part.partition("=") for part in info.split(";") if part)
    return {name: value for name, _, value in cut}


def _joined_values(field: Field | None, name: str, values: list[str | None]) -> str | None:
    """The values of a field of which each ALT has its own; None if they contradict each other."""
    number = (field or SITE_FIELDS[name]).number
    alike = len(set(values)) == 1
    width = 1 if number == "A" else _EACH_ALT.get(name, 0) if number == "." else 0
    if number == "R" and all(value is not None and value.count(",") == 1 for value in values):
        pairs = [value.split(",") for value in values if value is not None]
        if len({first for first, _ in pairs}) > 1:
            return None
        return ",".join([pairs[0][0], *(second for _, second in pairs)])
    if width and not (alike and number == "." and name != "SVLEN"):
        lists = [",".join(["."] * width) if value is None else value for value in values]
        if all(one.count(",") == width - 1 for one in lists):
            return ",".join(lists)
    return values[0] if alike else None
