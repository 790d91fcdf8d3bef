"""The text files of a PLINK file set: variants (bim, pvar) and samples (fam, psam)."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from ragimpute.errors import InputError
from ragimpute.extras import require

MALE, FEMALE, UNKNOWN = 1, 2, 0
_SEXES = {"1": MALE, "m": MALE, "male": MALE, "2": FEMALE, "f": FEMALE, "female": FEMALE}
_ZSTD = b"\x28\xb5\x2f\xfd"
_BIM = ("chromosome", "id", "cM", "position", "A1", "A2")
_FAM = ("family", "sample", "father", "mother", "sex", "phenotype")
_COPY = "copy or make the file again"
_CONTIG = re.compile(r"##contig=<(?:.*?,)?ID=([^,>]+)")
_LENGTH = re.compile(r"[<,]length=(\d+)")


@dataclass(frozen=True)
class Variant:
    """A row of a bim or pvar.

    Attributes
    ----------
    position_bp
        1-based; may be 0 or less where PLINK has no position.
    id, ref, alts
        As in the file; ``alts`` is empty where it names no other allele than REF. Of a bim, A2 is
        REF and A1 is ALT. "0" and "." are no alleles.
    filtered
        Whether FILTER is neither PASS nor missing.
    info
        INFO of a pvar; "" where there is none.
    """

    position_bp: int
    id: str
    ref: str
    alts: tuple[str, ...]
    filtered: bool = False
    info: str = ""


@dataclass(frozen=True)
class VariantTable:
    """The variants of a bim or pvar, of which only those that are asked for are taken apart.

    Attributes
    ----------
    path
        The file.
    columns
        Where chromosome, position, ID, REF, ALT, FILTER and INFO stand; -1: not there.
    lines, first_line
        The rows, and the number of the first in the file, from 1.
    rows
        By contig, in file order: which rows are of it.
    declared
        Contigs that a pvar's header declares, and their lengths in bp or None.
    has_header
        Whether a line names the columns; it does in a pvar, whose variants may have several ALTs.
    """

    path: Path
    columns: dict[str, int]
    lines: list[str]
    first_line: int
    rows: dict[str, np.ndarray]
    declared: dict[str, int | None] = field(default_factory=dict)
    has_header: bool = False

    def variant(self, row: int) -> Variant:
        """One of the variants.

        Raises
        ------
        InputError
            If its position is no number, or an allele is missing.
        """
        cells, at = self.lines[row].split(), self.columns
        text = cells[at["position"]]
        try:
            position = int(text)
        except ValueError:
            raise InputError(
                f"{self.path}, line {row + self.first_line}: position {text!r} is no whole number",
                hint=_COPY,
            ) from None
        kind = cells[at["filter"]] if at["filter"] >= 0 else "."
        named = cells[at["alt"]].split(",") if self.has_header else [cells[at["alt"]]]
        alts = tuple(alt for alt in named if alt not in ("0", "."))
        return Variant(
            position, cells[at["id"]], cells[at["ref"]], alts, kind not in (".", "PASS"),
            cells[at["info"]] if at["info"] >= 0 else "",
        )  # fmt: skip

    def num_alleles(self) -> np.ndarray:
        """How many alleles each variant has, at least 2, shape (V,), uint64."""
        if not self.has_header:
            return np.full(len(self.lines), 2, np.uint64)
        place = self.columns["alt"]
        return np.array(
            [2 + line.split(None, place + 1)[place].count(",") for line in self.lines], np.uint64
        )


@dataclass(frozen=True)
class SampleTable:
    """The samples of a fam or psam.

    Attributes
    ----------
    path
        The file.
    names
        Of each sample, N of them: its own name where no other has it, else FAMILY_NAME.
    sex
        Shape (N,), int8: ``MALE``, ``FEMALE`` or ``UNKNOWN``.
    """

    path: Path
    names: list[str]
    sex: np.ndarray


def read_variants(path: Path) -> VariantTable:
    """Read a bim or pvar, which may be compressed by zstd.

    Raises
    ------
    InputError
        If the file cannot be read, is no text, or a row lacks columns.
    MissingPackageError
        If it is compressed, and the package that decompresses it is not installed.
    """
    lines = _text_lines(path)
    declared: dict[str, int | None] = {}
    num_heading = 0
    names: list[str] | None = None
    for line in lines:
        if not line.startswith("#"):
            break
        num_heading += 1
        found = _CONTIG.match(line)
        if found:
            length = _LENGTH.search(line)
            declared[found[1]] = int(length[1]) if length else None
        elif line.startswith("#CHROM"):
            names = line[1:].split()
    lines = lines[num_heading:]
    if not lines:
        raise InputError(f"{path} holds no variants", hint=_COPY)
    width, columns = _variant_columns(path, names, len(lines[0].split()))
    rows: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        cells = line.split(None, width)
        if len(cells) < width or (names is None and len(cells) > width):
            _wrong_width(path, number + num_heading + 1, line, width)
        rows.setdefault(cells[0], []).append(number)
    found_rows = {name: np.array(index, np.int64) for name, index in rows.items() if name != "0"}
    return VariantTable(
        path, columns, lines, num_heading + 1, found_rows, declared, has_header=names is not None
    )


def _variant_columns(path: Path, names: list[str] | None, width: int) -> tuple[int, dict[str, int]]:
    """How many columns a row has, and where each stands."""
    if names is None:
        if width not in (5, 6):
            raise InputError(
                f"{path}, line 1: {width} columns, expected 6 ({', '.join(_BIM)})", hint=_COPY
            )
        more = width - 5  # some programs leave the column of cM out
        at = {"id": 1, "position": 2 + more, "alt": 3 + more, "ref": 4 + more}
        return width, at | {"filter": -1, "info": -1}
    needed = {"position": "POS", "id": "ID", "ref": "REF", "alt": "ALT"}
    lacking = [name for name in needed.values() if name not in names]
    if lacking:
        raise InputError(
            f"{path} has no column {lacking[0]}; its header names {' '.join(names)}", hint=_COPY
        )
    columns = {key: names.index(name) for key, name in needed.items()}
    for key, name in (("filter", "FILTER"), ("info", "INFO")):
        columns[key] = names.index(name) if name in names else -1
    return len(names), columns


def read_samples(path: Path) -> SampleTable:
    """Read a fam or psam.

    Raises
    ------
    InputError
        If the file cannot be read, is no text, a row lacks columns, or a name is there twice.
    """
    lines = _text_lines(path)
    numbered = [(i, line) for i, line in enumerate(lines, start=1) if not line.startswith("##")]
    names: Sequence[str] = ("FID", "IID", "PAT", "MAT", "SEX", "PHENO1")
    if numbered and numbered[0][1].startswith("#"):
        names = numbered.pop(0)[1][1:].split()
        least = len(names)
    else:
        least = len(_FAM)
    if not numbered:
        raise InputError(f"{path} names no samples", hint=_COPY)
    if "IID" not in names:
        raise InputError(
            f"{path} has no column IID; its header names {' '.join(names)}", hint=_COPY
        )
    own, family, sex = [], [], []
    for number, line in numbered:
        cells = line.split()
        if len(cells) < least:
            _wrong_width(path, number, line, least)
        row = dict(zip(names, cells, strict=False))
        own.append(row["IID"])
        family.append(row.get("FID", "0"))
        sex.append(_SEXES.get(row.get("SEX", "").lower(), UNKNOWN))
    return SampleTable(path, _unique_names(path, own, family), np.array(sex, np.int8))


def _unique_names(path: Path, own: list[str], family: list[str]) -> list[str]:
    """Names of samples that differ from each other: with the family's where that is needed."""
    counts: dict[str, int] = {}
    for name in own:
        counts[name] = counts.get(name, 0) + 1
    names = [
        name if counts[name] == 1 else f"{of}_{name}" for name, of in zip(own, family, strict=True)
    ]
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(
            f"{path} names sample {twice} twice", hint="give each sample a name of its own"
        )
    return names


def _wrong_width(path: Path, number: int, line: str, width: int) -> NoReturn:
    """Refuse a row of a wrong number of columns."""
    found = len(line.split())
    raise InputError(
        f"{path}, line {number}: {found} columns, expected {width}",
        hint="columns are separated by blanks or tabs, and no cell may be empty or hold a blank",
    )


def _text_lines(path: Path) -> list[str]:
    """The lines of a text that are not empty, which may be compressed by zstd."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint=_COPY) from error
    if data.startswith(_ZSTD):
        data = _decompressed(path, data)
    if not data.strip():
        raise InputError(f"{path} is empty", hint=_COPY)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no text in UTF-8: byte {error.start + 1} cannot be decoded", hint=_COPY
        ) from None
    return [line.removesuffix("\r") for line in text.split("\n") if line.strip()]


def _decompressed(path: Path, data: bytes) -> bytes:
    """What zstd compressed."""
    require("pgen", f"{path}", packages=["zstandard"])
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(data), read_across_frames=True
        ) as reader:
            return b"".join(iter(lambda: reader.read(2**20), b""))
    except zstandard.ZstdError as error:
        raise InputError(f"{path} is damaged: {error}", hint=_COPY) from error
