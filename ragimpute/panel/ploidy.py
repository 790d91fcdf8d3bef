"""Ploidy along a panel's contig: pseudo-autosomal parts, haploid males, and males written twice.

Males have one X chromosome outside the pseudo-autosomal regions (PAR). Some panels write them as
haploid there, some as homozygous diploids, which would count each of their haplotypes twice. Both
become the same here: stretches of the contig, each with the haplotypes that exist in it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
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
# A change of ploidy begins a stretch if the sample stays as it is for so many sites on both sides;
# shorter runs are single calls that went wrong.
_LASTING_SITES = 5
# So many changes of ploidy can be remembered, of all samples together (170 MB).
_MAX_CHANGES = 10_000_000
# A sample without heterozygotes is taken for a male if so many were to be expected: by chance this
# happens to one diploid sample in e^20.
_EXPECTED_HETS = 20.0
# A sample with so small a share of the expected heterozygotes, and so many standard deviations
# below, is not a female of this population. (Children of siblings have three quarters of them.)
_SHARE_OF_HETS, _DEVIATIONS = 0.4, 3.5
# ... if nearly all others have so many times its share.
_GAP = 1.5
# ... or if more samples than this have so few.
_USUAL_LOW = 0.2


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


def too_few_hets(hets: np.ndarray, expected: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Samples that have some heterozygotes outside the PAR, but too few to be a female.

    They are males whose genotypes were written as diploid and have errors. Samples that have none
    are not among them: a male whose one haplotype is written twice has no error. On a short stretch
    females may have few, too: where there is no gap between them and others, they are only
    found if they are more than elsewhere.

    Parameters
    ----------
    hets, expected
        Shape (N,): heterozygotes of each sample outside the PAR; how many its called sites let one
        expect, the sum of 2 p (1 - p).
    others
        Shape (n,): the first divided by the second, of other people, such as those of the panel.

    Returns
    -------
    Shape (N,), bool.
    """
    share = hets / np.maximum(expected, 1e-9)
    known = (hets > 0) & (expected >= _EXPECTED_HETS)
    low = known & (share < _SHARE_OF_HETS)
    low &= hets < expected - _DEVIATIONS * np.sqrt(np.maximum(expected, 0))
    rest = np.concatenate([share[known & ~low], others[others >= _SHARE_OF_HETS]])
    if low.any() and len(rest):
        # The share that most females have must lie well above.
        doubtful = np.concatenate([share[low], others[(others > 0) & (others < _SHARE_OF_HETS)]])
        if np.quantile(rest, 0.02) < _GAP * doubtful.max():
            # Without a gap, there must be many more of them than there are elsewhere.
            usual = max(_USUAL_LOW, float((others < _SHARE_OF_HETS).mean()) if len(others) else 0)
            num = int(known.sum())
            deviation = np.sqrt(num * usual * (1 - usual))
            if low.sum() < num * usual + _DEVIATIONS * deviation + 1:
                low[:] = False
    return np.asarray(low)


def few_hets_warning(
    samples: Sequence[str],
    hets: np.ndarray,
    expected: np.ndarray,
    contig: str,
    others: np.ndarray | None = None,
) -> str | None:
    """The line about the samples that :func:`too_few_hets` finds; None if there are none."""
    low = too_few_hets(hets, expected, np.zeros(0) if others is None else others)
    found = np.flatnonzero(low).tolist()
    if not found:
        return None
    named = [f"{samples[i]}: {hets[i]:,} where {expected[i]:,.0f} are expected" for i in found[:3]]
    more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
    return (
        f"{len(found):,} samples have too few heterozygotes on {contig} outside the "
        f"pseudo-autosomal regions to be female ({'; '.join(named)}{more}): males with genotyping "
        "errors? Their genotypes are kept as they are; in males, heterozygotes there are errors, "
        "and are better set to missing"
    )


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
    mixed
        What is to be said of samples that are haploid and diploid within a stretch, by index: how
        many calls are of the rarer ploidy there, and how often the ploidy changes.
    few_hets
        A line about samples that may be males with errors, or None.
    """

    start_bp: np.ndarray
    slots: np.ndarray
    males: list[str] = field(default_factory=list)
    mixed: dict[int, tuple[int, int]] = field(default_factory=dict)
    few_hets: str | None = None

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

    Stretches begin at the borders of ``par``, and where the ploidy of a sample changes and stays so
    for some sites. Within a stretch a sample has the ploidy of most of its calls; the others
    are counted, and :class:`OnceEach` makes them fit.

    A diploid sample is taken for a male whose one haplotype was written twice if it has no
    heterozygote outside ``par`` although 20 or more were to be expected. If ``par`` is empty, no
    sample is. ``vcf`` is the VCF or BCF of the stream; a message names how to mend it.

    Raises
    ------
    PanelError
        If the ploidy changes more often than can be remembered.
    """
    num_samples = len(stream.samples)
    edges = sorted({int(x) for r in par for x in (r.start_bp, r.stop_bp)})
    rows_before = np.zeros(len(edges), np.int64)  # sites that lie before each edge
    changes = _Changes(num_samples, vcf)
    hets = np.zeros(num_samples, np.int64)
    diploid = np.zeros(num_samples, bool)  # at some site outside the PAR
    expected = 0.0
    contig = ""
    for batch in stream:
        if len(batch.sites) == 0:
            continue
        contig, position = batch.sites.contig, batch.sites.position_bp
        rows_before += (position[:, None] < np.array(edges, np.int64)).sum(axis=0)
        changes.add(batch.alleles != -2, position, contig, stream.samples)
        if par:
            alleles = batch.alleles[outside(position, par)]
            first_allele, second = alleles[:, :, 0], alleles[:, :, 1]
            hets += ((first_allele != second) & (second >= 0)).sum(axis=0)
            diploid |= (alleles >= 0).all(axis=2).any(axis=0)
            num = (alleles >= 0).sum(axis=(1, 2))
            af = (alleles == 1).sum(axis=(1, 2)) / np.maximum(1, num)
            expected += float((2 * af * (1 - af)).sum())
    ploidy = changes.ploidy(dict(zip(rows_before.tolist(), edges, strict=True)))
    if expected < _EXPECTED_HETS:
        return ploidy
    males = (hets == 0) & diploid
    few = too_few_hets(hets, np.where(diploid, expected, 0.0), np.zeros(0))
    # If all samples are homozygous throughout, this says nothing of their sex: they may be inbred.
    if ((hets == 0) | few).all():
        return ploidy
    if few.any():
        line = few_hets_warning(stream.samples, hets, np.where(diploid, expected, 0.0), contig)
        ploidy = replace(ploidy, few_hets=line)
    return _without_copies(ploidy, males, par, stream.samples) if males.any() else ploidy


class _Changes:
    """The places at which the ploidy of each sample changes, of a panel that is read in batches."""

    def __init__(self, num_samples: int, vcf: Path | None) -> None:
        self._num_samples, self._vcf = num_samples, vcf
        self._num_rows = self._num_changes = 0
        self._last: np.ndarray | None = None  # (N, 2) bool: the alleles that exist at the last site
        # Of each change its row, sample, alleles from there on (n, 2) and position.
        self._found: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def add(
        self, present: np.ndarray, position: np.ndarray, contig: str, samples: Sequence[str]
    ) -> None:
        """Take the next sites: which alleles exist, shape (m, N, 2), bool."""
        before = ~present[:1] if self._last is None else self._last[None]
        changed = (present != np.concatenate([before, present[:-1]])).any(axis=2)
        row, sample = np.nonzero(changed)
        self._found.append((row + self._num_rows, sample, present[row, sample], position[row]))
        self._num_rows += len(present)
        self._last = present[-1].copy()
        self._num_changes += len(row)
        if self._num_changes > _MAX_CHANGES + self._num_samples:
            often = np.bincount(np.concatenate([x[1] for x in self._found])) - 1
            most = int(often.argmax())
            raise PanelError(
                f"the ploidy of {np.count_nonzero(often > 0):,} samples changes "
                f"{often.sum():,} times or more up to {contig}:{position[-1]} (most often that of "
                f"{samples[most]}: {often[most]:,} times)",
                hint="haploid and diploid genotypes alternate almost everywhere"
                + _diploid_hint(self._vcf),
            )

    def ploidy(self, edge_of: dict[int, int]) -> Ploidy:
        """Cut the contig; ``edge_of``: for the row behind each border of the PAR, its position."""
        if not self._found:
            return Ploidy(np.zeros(1, np.int64), np.ones((1, self._num_samples, 2), bool))
        row, sample, present, position = (np.concatenate(x) for x in zip(*self._found, strict=True))
        order = np.lexsort((row, sample))
        row, sample, present, position = (x[order] for x in (row, sample, present, position))
        last = np.append(sample[1:] != sample[:-1], True)
        stop = np.where(last, self._num_rows, np.append(row[1:], 0))
        places, which = np.unique(row, return_index=True)
        starts = dict(zip(places.tolist(), position[which].tolist(), strict=True)) | edge_of
        borders = self._borders(row, sample, stop - row, present)
        if len(row) > self._num_samples:  # some ploidy changes
            borders |= {r for r in edge_of if 0 < r < self._num_rows}
        cuts = [0, *sorted(borders), self._num_rows]
        slots, mixed = [], np.zeros(self._num_samples, np.int64)
        for first, end in pairwise(cuts):
            inside = np.clip(np.minimum(stop, end) - np.maximum(row, first), 0, None)
            num = np.stack(
                [np.bincount(sample, inside * present[:, k], self._num_samples) for k in (0, 1)],
                axis=1,
            ).astype(np.int64)  # (N, 2): sites at which each allele exists
            size = end - first
            slots.append(np.stack([2 * num[:, 0] >= size, 2 * num[:, 1] > size], axis=1))
            mixed += np.where(slots[-1], size - num, num).sum(axis=1)
        often = np.bincount(sample) - 1
        odd = {i: (int(mixed[i]), int(often[i])) for i in np.flatnonzero(mixed).tolist()}
        start_bp = [0, *(starts[cut] for cut in cuts[1:-1])]
        # A border at which no sample changes is none.
        kept = [i for i in range(len(slots)) if i == 0 or (slots[i] != slots[i - 1]).any()]
        chosen = np.array([start_bp[i] for i in kept], np.int64)
        return Ploidy(chosen, np.stack([slots[i] for i in kept]), mixed=odd)

    def _borders(
        self, row: np.ndarray, sample: np.ndarray, size: np.ndarray, present: np.ndarray
    ) -> set[int]:
        """Rows at which the ploidy of some sample changes for long; none if there are too many.

        The arguments are runs of one ploidy, sorted by sample and row.
        """
        enough = min(_LASTING_SITES, max(2, self._num_rows // 10))
        # Without the short runs, those beside them are one.
        kept = size >= enough
        row, sample, present = row[kept], sample[kept], present[kept]
        changed = (sample[1:] == sample[:-1]) & (present[1:] != present[:-1]).any(axis=1)
        at, num = np.unique(row[1:][changed], return_counts=True)
        if len(at) >= MAX_STRETCHES:  # those that many samples share
            at = at[2 * num >= num.max()]
        return set(at.tolist()) if len(at) < MAX_STRETCHES else set()


def _without_copies(
    ploidy: Ploidy, males: np.ndarray, par: list[Region], samples: list[str]
) -> Ploidy:
    """The ploidy in which males have one haplotype outside the PAR."""
    edges = {int(x) for r in par for x in (r.start_bp, r.stop_bp)} | set(ploidy.start_bp.tolist())
    cut = np.array(sorted(edges), dtype=np.int64)
    made = ploidy.expected(cut).copy()
    haploid = outside(np.maximum(cut, 1), par)
    second = made[:, :, 1]  # a view
    second[np.ix_(haploid, males)] = False
    named = [name for name, male in zip(samples, males, strict=True) if male]
    mixed = {i: found for i, found in ploidy.mixed.items() if not males[i]}
    return replace(ploidy, start_bp=cut, slots=made, males=named, mixed=mixed)


class OnceEach:
    """A panel's source in which each sample has the alleles that its ploidy has there.

    Haplotypes that were written twice appear once. Where a haploid call lies amid diploid ones, its
    allele stands for both haplotypes, as ``bcftools +fixploidy`` has it; where a diploid one lies
    amid haploid ones, its first allele is kept.

    Parameters
    ----------
    stream
        The source.
    ploidy
        What :func:`scan_ploidy` found in it.

    Attributes
    ----------
    num_lost
        Alleles so far that are not kept and differ from the one that is.
    """

    def __init__(self, stream: Batches, ploidy: Ploidy) -> None:
        self.samples = stream.samples
        self.num_lost = 0
        self._stream, self._ploidy = stream, ploidy

    def __iter__(self) -> Iterator[SiteBatch]:
        self.num_lost = 0
        for batch in self._stream:
            present = self._ploidy.expected(batch.sites.position_bp)
            alleles = batch.alleles
            other = alleles[:, :, ::-1]
            gone = ~present & (alleles >= 0)
            self.num_lost += int((gone & (other >= 0) & (other != alleles)).sum())
            made = np.where(gone, np.int8(-2), alleles)
            absent = present & (alleles == -2)
            yield replace(batch, alleles=np.where(absent, other, made))
