"""Ploidy along a panel's contig: pseudo-autosomal parts, haploid males, and males written twice.

Males have one X chromosome outside the pseudo-autosomal regions (PAR). Some panels write them as
haploid there, some as homozygous diploids, which would count each of their haplotypes twice. Both
become the same here: stretches of the contig, each with the haplotypes that exist in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ragimpute.commands import command_word, free_name
from ragimpute.contigs import chromosome, human_length, same_contig
from ragimpute.errors import InputError, PanelError
from ragimpute.sites import Region

if TYPE_CHECKING:
    from ragimpute.io.vcf.read.genotypes import SiteBatch

# PAR1 and PAR2 of the human X chromosome, 1-based and closed (Genome Reference Consortium; T2T),
# and the chromosome's length.
PAR_BUILDS = {
    "b37": (155_270_560, ((60_001, 2_699_520), (154_931_044, 155_260_560))),
    "b38": (156_040_895, ((10_001, 2_781_479), (155_701_383, 156_030_895))),
    "chm13": (154_259_566, ((1, 2_394_410), (153_925_835, 154_259_566))),
}
# The borders of the PAR make fewer stretches than this; more of them are a fault of the file.
MAX_STRETCHES = 8
# A sample without heterozygotes is taken for a male if so many were to be expected: by chance this
# happens to one diploid sample in e^20.
_EXPECTED_HETS = 20.0
# Share of the expected heterozygotes below which the genotypes are those of a male with errors.
_FEW_HETS = 0.1


class Batches(Protocol):
    """The source of a panel: batches of sites that can be read more than once."""

    samples: list[str]

    def __iter__(self) -> Iterator[SiteBatch]: ...


def par_regions(contig: str, length: int | None, option: str | None) -> list[Region]:
    """The pseudo-autosomal regions of a contig.

    Parameters
    ----------
    contig, length
        Name, and length in bp or None. The length of a human X tells the genome build.
    option
        What the user gave: "b37", "b38", "chm13", "none", or regions with commas between them,
        such as "X:1-5000,X:90000-99000"; None: decide by the contig's name and length.

    Raises
    ------
    InputError
        If ``option`` is none of these, or names another contig.
    """
    if option in PAR_BUILDS:
        return [Region(contig, first, last + 1) for first, last in PAR_BUILDS[option][1]]
    if option == "none":
        return []
    if option is not None:
        found = [Region.parse(text) for text in option.split(",") if text.strip()]
        declared = {contig: length}
        wrong = [
            str(r) for r in found if same_contig(r.contig, [contig], declared=declared) is None
        ]
        if wrong or not found:
            raise InputError(
                f"--par {option} names no region of contig {contig}",
                hint=f"write b37, b38, chm13, none, or regions such as {contig}:60001-2699520",
            )
        return [Region(contig, r.start_bp, r.stop_bp) for r in found]
    length = length or human_length(contig)
    if chromosome(contig, {contig: length}) == "X":
        for known, regions in PAR_BUILDS.values():
            if known == length:
                return [Region(contig, first, last + 1) for first, last in regions]
    return []


def outside(position_bp: np.ndarray, regions: list[Region]) -> np.ndarray:
    """Which positions lie in none of the regions, shape (m,), bool."""
    inside = np.zeros(len(position_bp), bool)
    for region in regions:
        inside |= (position_bp >= region.start_bp) & (position_bp < region.stop_bp)
    return ~inside


@dataclass(frozen=True)
class Ploidy:
    """Stretches of a contig, and which of each sample's two alleles exist in each.

    Attributes
    ----------
    start_bp
        Shape (S,), int64, ascending: where each stretch begins; the first begins at 0.
    slots
        Shape (S, N, 2), bool.
    males
        Samples that were written as diploid and are taken to be haploid outside the PAR.
    few_hets
        Other diploid samples with hardly a heterozygote outside the PAR: see :func:`few_hets`.
    """

    start_bp: np.ndarray
    slots: np.ndarray
    males: list[str] = field(default_factory=list)
    few_hets: list[str] = field(default_factory=list)

    def stretch_of(self, position_bp: np.ndarray) -> np.ndarray:
        """The stretch that each position lies in, shape (m,), int64."""
        return np.searchsorted(self.start_bp, position_bp, side="right") - 1

    def expected(self, position_bp: np.ndarray) -> np.ndarray:
        """The slots of each position, shape (m, N, 2), bool."""
        out: np.ndarray = self.slots[self.stretch_of(position_bp)]
        return out


def _diploid_hint(vcf: Path | None) -> str:
    """The command that makes all genotypes of a VCF or BCF diploid."""
    if vcf is None:
        return ""
    out = shlex.quote(free_name(vcf, ".diploid.vcf.gz"))
    return (
        "; this makes every genotype diploid, and haploid ones homozygous: bcftools +fixploidy "
        f"{command_word(vcf)} -Oz -o {out} -- -f 2"
    )


def scan_ploidy(stream: Batches, par: list[Region], *, vcf: Path | None = None) -> Ploidy:
    """Read a panel once to learn which haplotypes exist in which stretch.

    A diploid sample is taken for a male whose one haplotype was written twice if it has no
    heterozygote outside ``par`` although 20 or more were to be expected. If ``par`` is empty, no
    sample is. ``vcf`` is the VCF or BCF of the stream; a message names how to mend it.

    Raises
    ------
    PanelError
        If the ploidy changes more often than ``MAX_STRETCHES`` allows.
    """
    starts: list[int] = []
    patterns: list[np.ndarray] = []
    first: SiteBatch | None = None
    hets = np.zeros(len(stream.samples), np.int64)
    expected = 0.0
    for batch in stream:
        if len(batch.sites) == 0:
            continue
        first = first or batch
        present = batch.alleles != -2  # (m, N, 2)
        position = batch.sites.position_bp
        before = patterns[-1][None] if patterns else ~present[:1]
        changed = (present != np.concatenate([before, present[:-1]])).any(axis=(1, 2))
        for i in np.flatnonzero(changed).tolist():
            starts.append(int(position[i]))
            patterns.append(present[i].copy())
        if len(starts) > MAX_STRETCHES:
            shown = ", ".join(f"{batch.sites.contig}:{at}" for at in starts[1:4])
            raise PanelError(
                f"the ploidy of samples changes {len(starts) - 1} times or more, first at {shown}",
                hint="it may change at the borders of the pseudo-autosomal regions, and nowhere "
                "else" + _diploid_hint(vcf),
            )
        if par:
            alleles = batch.alleles[outside(position, par)]
            first_allele, second = alleles[:, :, 0], alleles[:, :, 1]
            hets += ((first_allele != second) & (second >= 0)).sum(axis=0)
            num = (alleles >= 0).sum(axis=(1, 2))
            af = (alleles == 1).sum(axis=(1, 2)) / np.maximum(1, num)
            expected += float((2 * af * (1 - af)).sum())
    if first is None:
        return Ploidy(np.zeros(1, np.int64), np.ones((1, len(stream.samples), 2), bool))
    slots = np.stack(patterns)
    start_bp = np.array([0, *starts[1:]], dtype=np.int64)
    males = np.zeros(len(stream.samples), bool)
    if expected >= _EXPECTED_HETS:
        males = (hets == 0) & slots[:, :, 1].all(axis=0)
    diploid = slots[:, :, 1].all(axis=0)
    named = few_hets(stream.samples, np.where(diploid, hets, 0), np.full(len(hets), expected))
    # If all samples are homozygous throughout, this says nothing of their sex: they may be inbred.
    if males.sum() + len(named) == len(males):
        return Ploidy(start_bp, slots)
    if not males.any():
        return Ploidy(start_bp, slots, few_hets=named)
    return replace(_without_copies(start_bp, slots, males, par, stream.samples), few_hets=named)


def few_hets(samples: Sequence[str], hets: np.ndarray, expected: np.ndarray) -> list[str]:
    """Samples that look like males with errors: "name: 3 heterozygotes, 104 to be expected".

    Parameters
    ----------
    samples
        Names, N of them.
    hets, expected
        Shape (N,): heterozygotes that each has outside the PAR, and that are to be expected by the
        frequencies of the sites. Named is who has one or more, less than a tenth of 20 or more.
    """
    few = (hets > 0) & (hets < _FEW_HETS * expected) & (expected >= _EXPECTED_HETS)
    return [
        f"{samples[i]}: {hets[i]:,} heterozygotes, {expected[i]:,.0f} to be expected"
        for i in np.flatnonzero(few).tolist()
    ]


def _without_copies(
    start_bp: np.ndarray,
    slots: np.ndarray,
    males: np.ndarray,
    par: list[Region],
    samples: list[str],
) -> Ploidy:
    """The ploidy in which males have one haplotype outside the PAR."""
    edges = {int(x) for r in par for x in (r.start_bp, r.stop_bp)} | set(start_bp.tolist())
    cut = np.array(sorted(edges), dtype=np.int64)
    made = slots[np.searchsorted(start_bp, cut, side="right") - 1].copy()
    haploid = outside(np.maximum(cut, 1), par)
    second = made[:, :, 1]  # a view
    second[np.ix_(haploid, males)] = False
    return Ploidy(cut, made, [name for name, male in zip(samples, males, strict=True) if male])


class OnceEach:
    """A panel's source in which haplotypes that were written twice appear once.

    Parameters
    ----------
    stream
        The source.
    ploidy
        What :func:`scan_ploidy` found in it.
    """

    def __init__(self, stream: Batches, ploidy: Ploidy) -> None:
        self.samples = stream.samples
        self._stream, self._ploidy = stream, ploidy

    def __iter__(self) -> Iterator[SiteBatch]:
        for batch in self._stream:
            present = self._ploidy.expected(batch.sites.position_bp)
            gone = ~present & (batch.alleles >= 0)
            yield replace(batch, alleles=np.where(gone, np.int8(-2), batch.alleles))
