"""Which target records are panel sites, and their alleles as the panel counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, lgamma, log
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target, contigs_of, read_target
from ragimpute.panel.reader import Panel
from ragimpute.sites import Key, Region, other_strand, same_contig
from ragimpute.target.overlap import compare_positions, no_overlap

MATCHED = ("matched", "swapped", "flipped", "flipped_swapped")
LEFT_OUT = ("not_in_panel", "allele_mismatch", "ambiguous_strand", "duplicate", "invalid")
FATES = MATCHED + LEFT_OUT
PALINDROME_POLICIES = ("frequency", "keep", "drop")

_TURNED = ("swapped", "flipped_swapped")  # REF of the target is ALT of the panel
_OTHER_STRAND = {"matched": "flipped_swapped", "swapped": "flipped"}  # a palindrome's two readings
# Frequencies of target and panel differ as between populations of this FST.
_FST = 0.05
_SURE = 0.95
_FEW_MATCHES = 0.5  # share of records that are panel sites, below which it may be by chance
# A swapped indel may be another variant (TA>T and T>TA can both be right), so that more than a
# few SNPs of the file have to be swapped before it is taken for one.
_SWAPS_ARE_USUAL = 0.05


@dataclass(frozen=True)
class Match:
    """Target records that are panel sites.

    Attributes
    ----------
    panel_index
        Shape (T,), int64, ascending: the panel sites that the target types.
    alleles
        Shape (T, N, 2), int8: 0 the panel's REF, 1 its ALT, -1 missing, -2 haploid fill.
    phased
        Shape (T, N), bool.
    row
        Shape (T,), int64: the target's row behind each.
    fate
        Shape (R,), uint8: what became of each of the target's rows, an index into ``FATES``.
    counts
        How many rows met each fate.
    palindromes
        A/T and C/G rows (and their like) at panel sites: how many were "found", taken to be of the
        "other_strand", and "left_out".
    """

    panel_index: np.ndarray
    alleles: np.ndarray
    phased: np.ndarray
    row: np.ndarray
    fate: np.ndarray
    counts: dict[str, int]
    palindromes: dict[str, int]

    @property
    def num_records(self) -> int:
        """Rows of the target."""
        return len(self.fate)

    @property
    def num_unphased(self) -> int:
        """Genotypes at panel sites whose phase is not known."""
        return int((~self.phased).sum())


def match_sites(
    target: Target, panel: Panel, start: int, stop: int, *, palindromes: str = "frequency"
) -> Match:
    """Find the target's records among the panel sites [start, stop) by POS, REF and ALT.

    A record may spell its alleles as the panel does ("matched"), with REF and ALT exchanged
    ("swapped"), on the other strand ("flipped"), or both. Longer alleles are compared without the
    bases that they share. A record without ALT stands for the panel's only SNP there. A record of
    several ALTs is never swapped (its REF would be taken for more than one of them), and an indel
    only where swaps are usual in the file. Of several records of one site the first is used.

    Parameters
    ----------
    target, panel
        Target records and panel.
    start, stop
        Panel sites to look among.
    palindromes
        What is done with A/T and C/G records, which read the same on both strands: "frequency"
        takes the strand that both the other records of the file and the allele frequencies speak
        for, and leaves the record out unless one strand is 95 % likely; "keep" takes all to be of
        the panel's strand; "drop" leaves all out.

    Returns
    -------
    The match; it may be empty (see :func:`require_overlap`).
    """
    if palindromes not in PALINDROME_POLICIES:
        raise ValueError(f"palindromes {palindromes!r} is not one of {PALINDROME_POLICIES}")
    finder = _Finder(target, panel, start, stop)
    found = [finder.find(i) for i in range(len(target.sites))]
    sure = Counter(fate for site, fate, doubt in found if site >= 0 and not doubt)
    usual = sure["swapped"] + sure["flipped_swapped"] > _SWAPS_ARE_USUAL * sure.total()
    tally = {"found": 0, "other_strand": 0, "left_out": 0}
    fates: list[str] = []
    taken: dict[int, int] = {}
    for i, (site, fate, doubt) in enumerate(found):
        if doubt == "indel" and not usual:
            fate = "allele_mismatch"
        elif doubt == "palindrome":
            tally["found"] += 1
            read = _read_palindrome(fate, palindromes, sure, target.alleles[i], panel, site)
            tally["other_strand"] += read == _OTHER_STRAND[fate]
            tally["left_out"] += read == "ambiguous_strand"
            fate = read
        if fate in MATCHED:
            if site in taken:
                fate = "duplicate"
            else:
                taken[site] = i
        fates.append(fate)
    panel_index = np.array(sorted(taken), dtype=np.int64)
    row = np.array([taken[site] for site in panel_index.tolist()], dtype=np.int64)
    alleles = target.alleles[row]
    turned = np.array([fates[i] in _TURNED for i in row.tolist()], dtype=bool)
    exchanged = alleles[turned]
    alleles[turned] = np.where(exchanged >= 0, 1 - exchanged, exchanged)
    number = {fate: i for i, fate in enumerate(FATES)}
    counted = Counter(fates)
    return Match(
        panel_index,
        alleles,
        target.phased[row],
        row,
        np.array([number[fate] for fate in fates], dtype=np.uint8),
        {fate: counted[fate] for fate in FATES},
        tally,
    )


class _Finder:
    """Finds target records among panel sites."""

    def __init__(self, target: Target, panel: Panel, start: int, stop: int) -> None:
        sites = target.sites
        upper = zip(sites.position_bp.tolist(), sites.ref, sites.alt, strict=True)
        self._keys = [_trimmed(p, ref.upper(), alt.upper()) for p, ref, alt in upper]
        self._multiallelic = target.multiallelic.tolist()
        position = panel.sites.position_bp[start:stop]
        wanted = np.array([key[0] for key in self._keys], dtype=np.int64)
        is_snp = panel.site_type[start:stop] == panel.site_types.index("SNP")
        near = np.isin(position, wanted) | np.isin(position, sites.position_bp)
        near |= ~is_snp  # these may be spelled with bases that both alleles share
        self._lookup: dict[Key, int] = {}
        self._snps_at: dict[int, list[int]] = {}
        index = np.flatnonzero(near)
        chosen = panel.sites.take(index + start)
        for i, key, snp in zip(index.tolist(), chosen.keys(), is_snp[index].tolist(), strict=True):
            self._lookup.setdefault(key if snp else _trimmed(*key), start + i)
            if snp:
                self._snps_at.setdefault(key[0], []).append(start + i)
        self._positions = set(chosen.position_bp.tolist())
        self._ref, self._alt = panel.sites.ref, panel.sites.alt

    def find(self, i: int) -> tuple[int, str, str]:
        """Panel site (-1: none), fate, and the doubt about it: "", "indel" or "palindrome"."""
        key = self._keys[i]
        if key[2] == ".":
            key = self._with_alt(key)
        for fate, spelled in _spellings(key, may_swap=not self._multiallelic[i]):
            site = self._lookup.get(spelled)
            if site is None:
                continue
            if fate != "flipped" and other_strand(key) == (key[0], key[2], key[1]):
                return site, fate, "palindrome"
            return site, fate, "indel" if fate == "swapped" and len(key[1]) != len(key[2]) else ""
        if not (set(key[1]) | set(key[2])) <= set("ACGT."):
            return -1, "invalid", ""
        return -1, "allele_mismatch" if key[0] in self._positions else "not_in_panel", ""

    def _with_alt(self, key: Key) -> Key:
        """A record without ALT with that of the panel's SNP, if there is one and it fits."""
        position, ref, _ = key
        at = self._snps_at.get(position, [])
        if len(at) != 1 or len(ref) != 1:
            return key
        alleles = (self._ref[at[0]], self._alt[at[0]])
        strand = other_strand((position, *alleles))
        for first, second in (alleles, strand[1:]):
            if ref in (first, second):
                return position, ref, second if ref == first else first
        return key


def _spellings(key: Key, *, may_swap: bool) -> Iterator[tuple[str, Key]]:
    """How the panel may spell a record, the likeliest first."""
    position, ref, alt = key
    yield "matched", key
    if may_swap:
        yield "swapped", (position, alt, ref)
    if len(ref) == len(alt):  # on the other strand an indel has another base before it
        _, ref, alt = other_strand(key)
        yield "flipped", (position, ref, alt)
        if may_swap:
            yield "flipped_swapped", (position, alt, ref)


def _trimmed(position: int, ref: str, alt: str) -> Key:
    """A site without the bases that both alleles share at the end, then at the start."""
    while len(ref) > 1 and len(alt) > 1 and ref[-1] == alt[-1]:
        ref, alt = ref[:-1], alt[:-1]
    while len(ref) > 1 and len(alt) > 1 and ref[0] == alt[0]:
        position, ref, alt = position + 1, ref[1:], alt[1:]
    return position, ref, alt


def _read_palindrome(
    fate: str, policy: str, sure: Counter[str], alleles: np.ndarray, panel: Panel, site: int
) -> str:
    """The fate of an A/T or C/G record whose fate is ``fate`` if it is of the panel's strand."""
    if policy == "keep":
        return fate
    if policy == "drop":
        return "ambiguous_strand"
    other = _OTHER_STRAND[fate]
    # Spelled as the panel has it, a record is of its strand in all but odd files; and software that
    # swaps alleles is commoner than software that flips strands.
    weight = 0.001 if fate == "matched" else 0.1
    prior = (sure[other] + weight) / (sure[fate] + sure[other] + 1)
    num, alt = int((alleles >= 0).sum()), int((alleles == 1).sum())
    if fate in _TURNED:
        alt = num - alt
    # Half an allele each way keeps a frequency of 0 from deciding alone.
    af = (int(panel.alt_count[site]) + 0.5) / (panel.num_haplotypes + 1)
    odds = log(prior / (1 - prior)) + _log_prob(num - alt, num, af) - _log_prob(alt, num, af)
    likely = 1 / (1 + exp(-min(max(odds, -700.0), 700.0)))
    if likely >= _SURE:
        return other
    return fate if likely <= 1 - _SURE else "ambiguous_strand"


def _log_prob(count: int, num: int, af: float) -> float:
    """Beta-binomial log probability of ``count`` ALT of ``num``, up to a term in both of these.

    References
    ----------
    Balding & Nichols 1995: allele frequencies of a population at distance FST from another.
    """
    scale = (1 - _FST) / _FST
    a, b = af * scale, (1 - af) * scale
    choose = lgamma(num + 1) - lgamma(count + 1) - lgamma(num - count + 1)
    return choose + lgamma(count + a) + lgamma(num - count + b) - lgamma(num + a + b)


def no_match(target: Target) -> Match:
    """The match of a target without records: T = 0."""
    num_samples = len(target.samples)
    return Match(
        np.zeros(0, dtype=np.int64),
        np.zeros((0, num_samples, 2), dtype=np.int8),
        np.zeros((0, num_samples), dtype=bool),
        np.zeros(0, dtype=np.int64),
        np.zeros(0, dtype=np.uint8),
        dict.fromkeys(FATES, 0),
        {"found": 0, "other_strand": 0, "left_out": 0},
    )


def require_overlap(match: Match, target: Target, panel: Panel, start: int, stop: int) -> None:
    """Refuse a match without a single site, or with no more than files of two builds would have.

    Raises
    ------
    InputError
        If so; the message says what overlaps and the likely cause.
    """
    num = len(match.panel_index)
    if num == 0 or (
        num < _FEW_MATCHES * match.num_records
        and compare_positions(target, panel, start, stop).by_chance(num)
    ):
        raise no_overlap(target, panel, start, stop, num)


def marker_mask(path: str | Path, panel: Panel) -> np.ndarray:
    """Which panel sites a VCF/BCF of an array types, shape (M,), bool.

    Raises
    ------
    InputError
        If the file cannot be read or shares no site with the panel.
    """
    region = target_region(path, panel, None)
    target = read_target(path, region=region)
    found = match_sites(target, panel, 0, panel.num_sites)
    require_overlap(found, target, panel, 0, panel.num_sites)
    mask = np.zeros(panel.num_sites, dtype=bool)
    mask[found.panel_index] = True
    return mask


def target_region(path: str | Path, panel: Panel, region: Region | None) -> Region:
    """The panel's part of a target file, in the target's own spelling of the contig.

    "20", "chr20" and "Chr20" are taken for the same contig, and so are 23 and X.

    Raises
    ------
    InputError
        If the target holds no records on the panel's contig.
    """
    contigs = contigs_of(path)
    name = same_contig(panel.contig, list(contigs))
    if name is None:
        shown = ", ".join(list(contigs)[:5]) + (", ..." if len(contigs) > 5 else "")
        raise InputError(
            f"target {path} has no records on the panel's contig {panel.contig}; it holds "
            f"{shown or 'none'}",
            hint="use the panel of the same chromosome, with positions of the same build",
        )
    if region is None:
        return Region(name)
    return Region(name, region.start_bp, region.stop_bp)
