"""Raw text of one person's genotypes, as 23andMe, AncestryDNA, MyHeritage and FTDNA write it.

Each row names a marker, its chromosome and position, and the two alleles of the person. It does not
say which allele is REF, and of a homozygous person not what the other allele would be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ragimpute.contigs import HUMAN_LENGTHS
from ragimpute.errors import InputError
from ragimpute.io.known_sites import KNOWN_SITES, build_by_positions
from ragimpute.io.raw_text.container import read_text, text_start
from ragimpute.io.raw_text.vendor import Layout, cells_of, header_columns, layout_of
from ragimpute.io.source import SourceFacts
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.records import LeftOut, site_table
from ragimpute.sites import MAX_BP, Region

_NUMBERS = {"23": "X", "24": "Y", "25": "XY", "26": "MT", "M": "MT", "PAR": "XY"}
_NUMBERS |= {"PAR1": "XY", "PAR2": "XY"}
_ALLELES = frozenset("ACGTID")
_MISSING = frozenset("-0?.N")
_SUFFIX = re.compile(r"(\.(txt|csv|tsv|gz|zip))+$", re.IGNORECASE)
_COPY = "copy the file again, or download it once more"
# Heterozygotes among the calls on X of arrays, the pseudo-autosomal regions included: males have
# less than the first, females more than the second.
_MALE_HETS, _FEMALE_HETS, _LEAST_CALLS = 0.025, 0.06, 200


def is_raw_text(path: Path) -> bool:
    """Whether a file holds a raw text of a vendor, plain or compressed."""
    return path.is_file() and layout_of(text_start(path)) is not None


class RawTextFile:
    """A raw text of one person's genotypes, which is read once.

    Parameters
    ----------
    path
        The text, plain, gzipped, or alone in a zip archive.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._name = str(path)

    def __str__(self) -> str:
        return self._name

    @cached_property
    def layout(self) -> Layout:
        """Its vendor and columns."""
        found = layout_of(text_start(self.path))
        if found is None:
            raise InputError(f"{self.path} is no raw text of genotypes", hint=_COPY)
        return found

    @property
    def kind(self) -> str:
        """What it is, for a report."""
        return f"raw text of {self.layout.vendor}"

    def about(self) -> list[tuple[str, str]]:
        """Its genome build and the sex of the person, as names and values."""
        build, told = self._build
        return [("build", f"{build}, by {told}" if build else "not named"), ("sex", self.sex[1])]

    @cached_property
    def _known_sites(self) -> dict[str, int]:
        """Positions of the well-known SNPs of all chromosomes, by rsID."""
        found = {}
        for rows in self._rows.values():
            for _, line in rows:
                name, _, _ = line.partition(self.layout.separator or " ")
                name = name.strip('" ')
                if name in KNOWN_SITES:
                    position = cells_of(line, self.layout.separator)[2]
                    if position.isdecimal():
                        found[name] = int(position)
        return found

    @cached_property
    def _build(self) -> tuple[str | None, str]:
        """The build, and what tells it: the positions of well-known sites, or the comments."""
        found = build_by_positions(self._known_sites)
        if found.build is None:
            return self.layout.build, "its header"
        sites = f"{found.num_agree} of {found.num_known} well-known sites"
        return found.build, f"the positions of {sites}"

    @property
    def samples(self) -> list[str]:
        """One name: that of the file, without suffixes such as .txt.gz."""
        return [_SUFFIX.sub("", self.path.name) or self.path.name]

    @cached_property
    def _rows(self) -> dict[str, list[tuple[int, str]]]:
        """The rows of each chromosome, as 1 to 22, X, XY, Y and MT, with their line numbers.

        Raises
        ------
        InputError
            If the file cannot be read, has no rows, or a row lacks columns.
        """
        layout = self.layout
        separator, width = layout.separator, layout.width
        rows: dict[str, list[tuple[int, str]]] = {}
        for number, line in enumerate(read_text(self.path).split("\n"), start=1):
            if not line or line[0] == "#" or not line.strip():
                continue
            cells = line.split(separator, 2)
            found = len(line.split()) if separator is None else line.count(separator) + 1
            if found != width:
                raise InputError(
                    f"{self.path}, line {number}: {found} columns, expected {width}",
                    hint=f"the file may be cut short: {_COPY}",
                )
            if not line.isascii():
                raise InputError(
                    f"{self.path}, line {number}: a letter that is not ASCII, in {line[:40]!r}",
                    hint=_COPY,
                )
            name = cells[1].strip(' "').upper()
            if name.startswith("CHR"):
                if header_columns(line, separator):  # again where files of one person were joined
                    continue
                name = name[3:]
            rows.setdefault(_NUMBERS.get(name, name), []).append((number, line))
        if not rows:
            raise InputError(f"{self.path} holds no genotypes", hint=_COPY)
        return rows

    @cached_property
    def contigs(self) -> dict[str, int | None]:
        """Chromosomes that the file has rows of, with their lengths in its build."""
        lengths = HUMAN_LENGTHS.get(self._build[0] or "", {})
        names = [name for name in self._rows if name not in ("0", "XY")]
        if "XY" in self._rows and "X" not in names:
            names.append("X")
        return {name: lengths.get(name) for name in names}

    @property
    def declared(self) -> dict[str, int | None]:
        """The same as ``contigs``."""
        return self.contigs

    @property
    def num_records(self) -> dict[str, int]:
        """How many rows each of ``contigs`` has; those of XY are not counted."""
        return {name: len(self._rows.get(name, [])) for name in self.contigs}

    @cached_property
    def sex(self) -> tuple[int, str]:
        """1 male, 2 female or 0 uncertain, and why: by the heterozygotes on X."""
        num = hets = single = 0
        for _, line in self._rows.get("X", []):
            pair = self._alleles(line)
            if len(pair) == 1:
                single += pair[0] in _ALLELES
            elif len(pair) == 2 and _ALLELES.issuperset(pair):
                num += 1
                hets += pair[0] != pair[1]
        if single > num and single >= _LEAST_CALLS:
            return 1, f"male: {single:,} genotypes on X are haploid"
        if num < _LEAST_CALLS:
            return 0, f"uncertain: {num:,} diploid genotypes on X are too few"
        share = hets / num
        told = f"{share:.1%} of {num:,} diploid genotypes on X are heterozygous"
        if share < _MALE_HETS:
            return 1, f"male: {told}"
        if share > _FEMALE_HETS:
            return 2, f"female: {told}"
        return 0, f"uncertain: {told}"

    def _alleles(self, line: str) -> str:
        """The alleles that a row names, one or two letters."""
        cells = line.replace('"', "").split(self.layout.separator)
        return "".join(cell.strip() for cell in cells[3:]).upper()

    def read(
        self,
        region: Region,
        *,
        samples: Sequence[str] | None = None,
        reached: Callable[[int], None] | None = None,
    ) -> Target:
        """Read the genotypes of one chromosome, or of a part of it.

        Parameters
        ----------
        region
            A contig of ``contigs``, and which positions.
        samples, reached
            Not used: there is one sample, and reading takes a moment.

        Returns
        -------
        The target. REF is the first allele that a row names and ALT the second, "." if that is
        the same; both are "." where none was called. ``I`` and ``D`` stand for the alleles of
        an insertion or deletion.

        Raises
        ------
        InputError
            If the file cannot be read, or a position is no number.
        """
        taken = _Taken()
        for number, line in self._rows.get(region.contig, []):
            self._take(taken, number, line, region, in_par=False)
        if region.contig == "X":
            for number, line in self._rows.get("XY", []):
                self._take(taken, number, line, region, in_par=True)
        order = np.argsort(taken.position, kind="stable")
        sites = site_table(region.contig, taken.position, taken.ref, taken.alt, taken.id)
        alleles = np.array(taken.alleles, np.int8).reshape(-1, 1, 2)
        first, second = alleles[:, :, 0], alleles[:, :, 1]
        in_par = np.array(taken.in_par, bool)
        target = Target(
            samples=self.samples, sites=sites, alleles=alleles,
            phased=(first == second) | (second == -2),
            record=np.full(len(sites), -1, np.int32), skipped={}, left_out=taken.left_out,
            num_records=taken.num_records, contig_length=self.contigs.get(region.contig),
            file=self, in_par=in_par if in_par.any() else None, facts=self._facts(taken),
        )  # fmt: skip
        return target.take(order)

    def _take(self, taken: _Taken, number: int, line: str, region: Region, *, in_par: bool) -> None:
        """Add a row of the file to those of a target, if it lies in the region."""
        cells = cells_of(line, self.layout.separator)
        if not (cells[2].isascii() and cells[2].isdecimal()) or int(cells[2]) > MAX_BP:
            raise InputError(
                f"{self.path}, line {number}: position {cells[2]!r} is no whole number up to "
                f"{MAX_BP:,}",
                hint=_COPY,
            )
        position = int(cells[2])
        if position < 1:
            taken.num_unplaced += 1
            return
        if not region.start_bp <= position < region.stop_bp:
            return
        taken.num_records += 1
        pair = "".join(cells[3:]).upper()
        autosome = region.contig.isdecimal()
        known = _ALLELES.issuperset(pair)
        mixed = known and len({letter in "ID" for letter in pair}) > 1
        if (
            len(pair) not in (1, 2)
            or mixed
            or not (known or (_ALLELES | _MISSING).issuperset(pair))
        ):
            ref, alt = pair[:1] or ".", pair[1:] or "."
            taken.left_out.append(LeftOut(position, cells[0] or ".", ref, alt, "invalid"))
            return
        ref, alt, alleles = ".", ".", (-1, -1)
        if known and len(pair) == 1:
            if autosome:  # a row that is cut short
                known = False
            else:
                ref, alleles = pair, (0, -2)
        elif known:
            ref = pair[0]
            alt = "." if pair[1] == ref else pair[1]
            alleles = (0, int(pair[1] != ref))
        elif len(pair) == 1 and not autosome:
            alleles = (-1, -2)
        taken.num_no_calls += not known
        taken.num_indels += ref in ("I", "D")
        taken.position.append(position)
        taken.id.append(cells[0] or ".")
        taken.ref.append(ref)
        taken.alt.append(alt)
        taken.alleles.append(alleles)
        taken.in_par.append(in_par)

    def _facts(self, taken: _Taken) -> SourceFacts:
        """What the file says of itself."""
        sex, told = self.sex
        build, build_by = self._build
        named = self.layout.build
        warnings: tuple[str, ...] = ()
        if named and named != build:
            warnings = (
                f"{self.path} says {named} in its comments, but is of {build} by {build_by}",
            )
        return SourceFacts(
            self.kind, build=build, build_by=build_by, sex=told, known_sites=self._known_sites,
            warnings=warnings,
            sexes=np.array([sex], np.int8), names_alleles=True, ordered=False,
            counts={
                "no-calls": taken.num_no_calls,
                "insertions and deletions (I, D)": taken.num_indels,
                "rows at no position (0)": taken.num_unplaced,
            },
        )  # fmt: skip


@dataclass
class _Taken:
    """The rows of a target, as they are found, and what was counted meanwhile."""

    position: list[int] = field(default_factory=list)
    id: list[str] = field(default_factory=list)
    ref: list[str] = field(default_factory=list)
    alt: list[str] = field(default_factory=list)
    alleles: list[tuple[int, int]] = field(default_factory=list)
    in_par: list[bool] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    num_records: int = 0
    num_no_calls: int = 0
    num_indels: int = 0
    num_unplaced: int = 0
