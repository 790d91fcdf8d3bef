"""Which target records are panel sites, their alleles as the panel counts them, or why few are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import exp, lgamma, log
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ragimpute.commands import absence_hint
from ragimpute.contigs import chromosome, same_contig
from ragimpute.errors import InputError
from ragimpute.io.fasta import Fasta
from ragimpute.io.known_sites import build_by_shift
from ragimpute.io.target_file import TargetFile, open_target
from ragimpute.io.vcf.read.genotypes import Target, VcfFile, read_target
from ragimpute.io.vcf.read.likelihoods import MOST
from ragimpute.panel.format import SITE_TYPES, SYMBOLIC
from ragimpute.panel.loci import Loci, loci_of, sites_of_one_ref
from ragimpute.panel.reader import Panel
from ragimpute.sites import Key, Region, other_strand
from ragimpute.symbolic import Extent, is_symbolic
from ragimpute.target.builds import (
    find_shift,
    header_build,
    lift_hint,
    moved_ids,
    panel_build,
    positions_build,
)
from ragimpute.target.indels import is_indel, known_bases, left_aligned, look_alikes, trimmed
from ragimpute.target.joint_calls import Calls, merge_calls, settle_loci
from ragimpute.target.likelihoods import (
    called_likelihoods,
    merge_likelihoods,
    turned_likelihoods,
)

# "reference": the row is a panel site within a reference block of a gVCF, no record of its own.
MATCHED = ("matched", "swapped", "flipped", "flipped_swapped", "reference")
LEFT_OUT = ("not_in_panel", "allele_mismatch", "ambiguous_strand", "duplicate", "invalid")
FATES = MATCHED + LEFT_OUT
PALINDROME_POLICIES = ("frequency", "keep", "drop")

_OF_PHRED = (10.0 ** (-0.1 * np.arange(MOST + 1))).astype(np.float32)
_NO_ROWS = np.zeros(0, np.int64)
_TURNED = ("swapped", "flipped_swapped")  # REF of the target is ALT of the panel
# Of a palindrome: what the record is on the panel's strand, and what it is on the other strand.
_OTHER_STRAND = {"matched": "flipped_swapped", "swapped": "flipped"}
# SNPs, REF and ALT, that read differently on the two strands.
_SURE_SNPS = {"AC", "AG", "CA", "CT", "GA", "GT", "TC", "TG"}
# Allele frequencies of target and panel are taken to differ as between populations of this FST.
_FST = 0.05
_SURE = 0.95
_FEW_MATCHES = 0.5  # share of records that are panel sites, below which it may be by chance
# An indel whose alleles seem swapped may be another variant, as TA>T and T>TA can both exist. It is
# taken for a swapped one only if a larger share of the file's sure matches than this are swapped.
_SWAPS_ARE_USUAL = 0.05
# By chance alone, about half of the panel's REF bases are among a record's two alleles; of the same
# build, nearly all are.
_SAME_BUILD, _OTHER_BUILD = 0.9, 0.75
_MOVED = 0.5  # share of rsIDs at other positions, above which the builds differ
_FEW = 20  # with fewer shared positions than this, their REF bases say nothing of the build
_MANY = 50  # fewer records than this are too few to tell chance matches from others
# Records of another build meet panel sites by chance. How often, the same records show a few bp to
# both sides; of those that meet one, half have its alleles, as two of three SNPs are transitions.
_SHIFTS = (11, 23, 47, 101, 211, 401, 809, 1601)
_SAME_ALLELES = 0.5
_SURELY_MORE = 0.001  # what chance makes less often is not taken for chance
_MOSTLY_CHANCE = 0.2  # see Match.chance_share
_FIXREF = "bcftools +fixref TARGET -- -f REF.fa -m flip"


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
        Shape (T,), int64: the row of the target that was matched to each of these panel sites.
    fate
        Shape (R,), uint8: what became of each of the target's rows, an index into ``FATES``.
    counts
        How many rows met each fate; "reference" is there only if there are some.
    palindromes
        Of the rows at panel sites that read the same on both strands, such as A/T and C/G: how many
        were "found", taken to be of the "other_strand", and "left_out".
    loci
        Which of the T sites are ALTs of one locus (:mod:`ragimpute.panel.loci`), two or more of
        each: on one haplotype, one of these at most is 1.
    ties
        Which of the T sites exclude each other: those of ``loci``, and those whose rows were split
        from one record. A group of both kinds comes once.
    other_rows
        Genotypes that are those of another row than ``row`` says: arrays of their site, sample and
        row.
    discordant
        Shape (R,), int64: genotypes in which a row contradicts earlier rows of the same panel site,
        so that they are missing.
    num_contradicting
        Genotypes that gave one haplotype two ALTs of a locus, so that they are missing.
    likelihoods
        Shape (T, N, 3), uint8, as in ``Target``, of 0, 1, 2 of the panel's ALT alleles; None if the
        target has genotypes alone. What was called is not in it: see :meth:`likelihoods_of`.
    """

    panel_index: np.ndarray
    alleles: np.ndarray
    phased: np.ndarray
    row: np.ndarray
    fate: np.ndarray
    counts: dict[str, int]
    palindromes: dict[str, int]
    loci: Loci = field(default_factory=Loci.none)
    ties: Loci = field(default_factory=Loci.none)
    other_rows: tuple[np.ndarray, np.ndarray, np.ndarray] = (_NO_ROWS, _NO_ROWS, _NO_ROWS)
    discordant: np.ndarray = field(default_factory=_NO_ROWS.copy)
    num_contradicting: int = 0
    look_alikes: dict[int, str] = field(default_factory=dict)
    likelihoods: np.ndarray | None = None

    def likelihoods_of(self, part: slice) -> np.ndarray:
        """P(reads and calls | genotype) at some of the T sites.

        A genotype that was called is as likely as its caller errs rarely: one allele in 1,000 is
        taken to be wrong. Where a sample has reads beside it, both count.

        Parameters
        ----------
        part
            Some of the T sites.

        Returns
        -------
        Shape (m, N, 3), float32, in [0, 1]: of 0, 1, 2 ALT alleles, 1 for the likeliest; 1, 1, 1
        where nothing is known. Of a haploid sample, the second says nothing.
        """
        phred = called_likelihoods(self.alleles[part]).astype(np.int32)
        if self.likelihoods is not None:
            phred += self.likelihoods[part]
        phred[self.alleles[part][..., 1] == -2, 1] = MOST
        phred -= phred.min(axis=2, keepdims=True)
        out: np.ndarray = _OF_PHRED[np.minimum(phred, MOST)]
        nothing = (phred[..., 0] == 0) & (phred[..., 2] == 0)
        out[nothing & (self.alleles[part][..., 1] == -2)] = 1
        return out

    def likelihoods_on(self, start: int, stop: int) -> np.ndarray:
        """P(reads and calls | genotype) at the panel sites [start, stop).

        Returns
        -------
        Shape (stop - start, N, 3), float32, as :meth:`likelihoods_of` gives it; 1, 1, 1 at sites
        that the target does not type.
        """
        out = np.ones((stop - start, self.alleles.shape[1], 3), np.float32)
        first, last = np.searchsorted(self.panel_index, [start, stop]).tolist()
        out[self.panel_index[first:last] - start] = self.likelihoods_of(slice(first, last))
        return out

    def has_reads(self) -> np.ndarray:
        """Where the reads of a sample say something, shape (T, N), bool."""
        if self.likelihoods is None:
            return np.zeros(self.phased.shape, bool)
        out: np.ndarray = (self.likelihoods[..., 0] > 0) | (self.likelihoods[..., 2] > 0)
        return out

    def of_rows(self, values: np.ndarray) -> np.ndarray:
        """What belongs to each of the genotypes, shape (T, N), of ``values`` (R, N) by rows."""
        found: np.ndarray = values[self.row]
        site, sample, row = self.other_rows
        found[site, sample] = values[row, sample]
        return found

    def settled(self) -> Match:
        """The match without a haplotype that has two ALTs of a locus, where phase is known."""
        if not len(self.loci):
            return self
        calls = Calls(self.alleles.copy(), self.phased.copy())
        wrong = settle_loci(calls, self.loci)
        return replace(
            self, alleles=calls.alleles, phased=calls.phased,
            num_contradicting=self.num_contradicting + wrong,
        )  # fmt: skip

    @property
    def num_records(self) -> int:
        """Rows of the target that are records, not within a reference block of a gVCF."""
        return len(self.fate) - self.counts.get("reference", 0)

    def of_records(self) -> Match:
        """The match without the panel sites within reference blocks of a gVCF."""
        if "reference" not in self.counts:
            return self
        kept = self.fate[self.row] != FATES.index("reference")
        return replace(
            self, panel_index=self.panel_index[kept], alleles=self.alleles[kept],
            phased=self.phased[kept], row=self.row[kept],
            likelihoods=None if self.likelihoods is None else self.likelihoods[kept],
        )  # fmt: skip

    @property
    def num_unphased(self) -> int:
        """Genotypes at panel sites whose phase is not known."""
        return int((~self.phased).sum())

    def chance_share(self, expected: float) -> float:
        """About which share of the matches is by chance, as between two genome builds; in [0, 1].

        By chance, half of the records at panel positions have other alleles than the panel's; of
        the others, half are of the other strand, and about a quarter are spelled in each of the
        four ways. Records that belong there nearly all have the panel's alleles, and most are of
        one strand, or spelled in one way. What is counted is drawn towards chance by the weight of
        two records, as few records prove little.

        Parameters
        ----------
        expected
            How many matches chance would make, see :func:`expected_by_chance`.
        """
        spelled = [fate for fate in MATCHED if fate != "reference"]
        matches = np.array([self.counts[fate] for fate in spelled], dtype=np.float64)
        num = matches.sum()
        if num == 0:
            return 1.0
        strand = max(matches[:2].sum(), matches[2:].sum())
        mixed = [
            (self.counts["allele_mismatch"] + 1) / (num + self.counts["allele_mismatch"] + 2) / 0.5,
            (1 - (strand + 1) / (num + 2)) / 0.5,
            (1 - (matches.max() + 0.6) / (num + 2)) / 0.7,
        ]
        by_density = 1.0 if _poisson_tail(int(num), expected) > _SURELY_MORE else expected / num
        return float(by_density * min(1.0, *mixed))


def match_sites(
    target: Target,
    panel: Panel,
    start: int,
    stop: int,
    *,
    palindromes: str = "frequency",
    fasta: Fasta | None = None,
) -> Match:
    """Find the target's records among the panel sites [start, stop) by POS, REF and ALT.

    A record may spell its alleles as the panel does ("matched"), with REF and ALT exchanged
    ("swapped"), on the other strand ("flipped"), or both. Longer alleles are compared without the
    bases that they share, and insertions and deletions where they are as far left as the reference
    allows, of which the panel's REF alleles tell a part. A record without ALT stands for the
    panel's only SNP there. A record of several ALTs is never swapped (its REF would be taken for
    more than one of them), and all of its rows are of one strand; an indel is swapped only where
    swaps are usual in the file. The calls of several records of one site are merged; where they
    contradict each other, the genotype is missing, and so are genotypes that give one haplotype two
    ALTs of a locus.

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
    fasta
        The reference, by which insertions and deletions are aligned as ``bcftools norm`` does.

    Returns
    -------
    The match; it may be empty (see :func:`require_overlap`).
    """
    if palindromes not in PALINDROME_POLICIES:
        raise ValueError(f"palindromes {palindromes!r} is not one of {PALINDROME_POLICIES}")
    snp = _sure_snps(target, panel, start, stop)
    finder = _Finder(target, panel, start, stop, fasta, np.flatnonzero(snp < 0))
    found = [
        finder.find(i) if site < 0 else (site, "matched", "") for i, site in enumerate(snp.tolist())
    ]
    sure = Counter(fate for site, fate, doubt in found if site >= 0 and not doubt)
    del sure["reference"]
    usual = sure["swapped"] + sure["flipped_swapped"] > _SWAPS_ARE_USUAL * sure.total()
    tally = {"found": 0, "other_strand": 0, "left_out": 0}
    strands = _strands_of_records(target.record, found)
    fates: list[str] = []
    turned = np.zeros(len(found), bool)
    rows_of: dict[int, list[int]] = {}
    for i, (site, fate, doubt) in enumerate(found):
        strand = strands.get(int(target.record[i]))
        if doubt == "indel" and not usual:
            fate = "allele_mismatch"
        elif doubt == "palindrome":
            tally["found"] += 1
            if target.record[i] >= 0 and palindromes == "frequency" and strand is not None:
                fate = fate if fate == strand else "allele_mismatch"
            elif fate == "flipped":
                fate = "allele_mismatch" if palindromes == "keep" else "ambiguous_strand"
            else:
                fate = _read_palindrome(fate, palindromes, sure, target.alleles[i], panel, site)
            if fate in _TURNED and target.record[i] >= 0:
                fate = "ambiguous_strand"  # a record of several ALTs is never swapped
            tally["other_strand"] += fate in ("flipped", "flipped_swapped")
            tally["left_out"] += fate == "ambiguous_strand"
        elif fate == "flipped" and strand == "matched":
            fate = "allele_mismatch"  # by its other ALTs, the record is of the panel's strand
        turned[i] = fate in _TURNED
        if fate in MATCHED:
            rows = rows_of.setdefault(site, [])
            # A reference block only says what no record does.
            if rows and target.reference[rows[0]]:
                rows.clear()
            if not rows or fate != "reference":
                rows.append(i)
                fate = "duplicate" if len(rows) > 1 else fate
        fates.append(fate)
    number = {fate: i for i, fate in enumerate(FATES)}
    counted = Counter(fates)
    counts = {fate: counted[fate] for fate in FATES if fate != "reference" or counted[fate]}
    fate_of = np.array([number[fate] for fate in fates], dtype=np.uint8)
    match = _joined(target, panel, rows_of, turned, Found(fate_of, counts, tally))
    lost = [i for i, fate in enumerate(fates) if fate in ("not_in_panel", "allele_mismatch")]
    alike = {i: other for i in lost if (other := finder.look_alike(i))}
    return replace(match, look_alikes=alike)


class Found(NamedTuple):
    """What became of each of the target's rows; see :class:`Match`."""

    fate: np.ndarray
    counts: dict[str, int]
    palindromes: dict[str, int]


def _strands_of_records(record: np.ndarray, found: list[tuple[int, str, str]]) -> dict[int, str]:
    """The strand of records with several ALTs, "matched" or "flipped", as their sure rows tell."""
    strands: dict[int, str] = {}
    for i in np.flatnonzero(record >= 0).tolist():
        site, fate, doubt = found[i]
        if site >= 0 and not doubt and strands.get(int(record[i])) != "matched":
            strands[int(record[i])] = fate
    return strands


def _joined(
    target: Target, panel: Panel, rows_of: dict[int, list[int]], turned: np.ndarray, found: Found
) -> Match:
    """The match of the target's rows by panel site: duplicates merged, loci settled."""
    panel_index = np.array(sorted(rows_of), dtype=np.int64)
    row = np.array([rows_of[site][0] for site in panel_index.tolist()], dtype=np.int64)
    calls = Calls(target.alleles[row], target.phased[row])
    calls.turn(turned[row])
    likelihoods = None
    if target.likelihoods is not None:
        likelihoods = turned_likelihoods(target.likelihoods[row], turned[row])
    others: list[tuple[np.ndarray, ...]] = []
    discordant = np.zeros(len(target.sites), np.int64)
    for place, site in enumerate(panel_index.tolist()):
        if len(rows_of[site]) == 1:
            continue
        rows = np.array(rows_of[site])
        of_rows = Calls(target.alleles[rows], target.phased[rows])
        of_rows.turn(turned[rows])
        merged, source, wrong = merge_calls(of_rows)
        calls.alleles[place], calls.phased[place] = merged.alleles[0], merged.phased[0]
        discordant[rows] += wrong
        if likelihoods is not None and target.likelihoods is not None:
            several = turned_likelihoods(target.likelihoods[rows], turned[rows])
            likelihoods[place] = merge_likelihoods(several)
        sample = np.flatnonzero(source > 0)
        others.append((np.full(len(sample), place), sample, rows[source[sample]]))
    groups = loci_of(panel, sites_of_one_ref(panel.sites, panel_index))
    loci = Loci(np.searchsorted(panel_index, groups.site), groups.offsets)
    match = Match(
        panel_index, calls.alleles, calls.phased, row, *found, loci=loci,
        ties=_with_records(loci, target.record[row]), discordant=discordant,
        likelihoods=likelihoods,
    )  # fmt: skip
    if others:
        site, sample, of = (np.concatenate(column) for column in zip(*others, strict=True))
        match = replace(match, other_rows=(site, sample, of))
    return match.settled()


def _with_records(loci: Loci, record: np.ndarray) -> Loci:
    """The loci, and the groups of sites whose rows were split from one ``record`` (T,)."""
    rows: dict[int, list[int]] = {}
    for i in np.flatnonzero(record >= 0).tolist():
        rows.setdefault(int(record[i]), []).append(i)
    groups = [tuple(group.tolist()) for group in loci]
    groups += [tuple(group) for group in rows.values() if len(group) > 1]
    return Loci.of([list(group) for group in dict.fromkeys(groups)])


def _sure_snps(target: Target, panel: Panel, start: int, stop: int) -> np.ndarray:
    """The panel sites of SNPs that are spelled as the panel does: shape (R,), int64; -1 for others.

    Most rows of most targets are such SNPs. They are found all at once here: at their place the
    panel has one site alone, neither they nor that site is spelled in another way, and their bases
    differ on the two strands.
    """
    sites, at = target.sites, panel.sites.position_bp[start:stop]
    place = np.searchsorted(at, sites.position_bp)
    last = np.searchsorted(at, sites.position_bp, side="right")
    single = (last - place == 1) & ~target.reference
    # A longer spelling of a SNP has alleles of one length.
    types = panel.site_type[start:stop]
    longer = start + np.flatnonzero((types != SITE_TYPES.index("SNP")) & (types != SYMBOLIC))
    keys = panel.sites.take(longer).keys()
    spelled = [trimmed(p, ref, alt)[0] for p, ref, alt in keys if len(ref) == len(alt)]
    if spelled:
        single &= ~np.isin(sites.position_bp, np.array(spelled))
    rows = np.flatnonzero(single)
    index = start + place[rows]
    ref, alt = sites.ref[rows], sites.alt[rows]
    same = (ref == panel.sites.ref[index]) & (alt == panel.sites.alt[index])
    sure = [bases in _SURE_SNPS for bases in (ref + alt).tolist()]
    out = np.full(len(sites), -1, np.int64)
    kept = same.astype(bool) & np.array(sure, bool)
    out[rows[kept]] = index[kept]
    return out


class _Finder:
    """Finds those of the target's records among the panel's sites that are in ``rows``."""

    def __init__(
        self,
        target: Target,
        panel: Panel,
        start: int,
        stop: int,
        fasta: Fasta | None,
        rows: np.ndarray,
    ) -> None:
        sites = target.sites.take(rows)
        upper = zip(sites.position_bp.tolist(), sites.ref, sites.alt, strict=True)
        keys = [
            (p, ref.upper(), alt) if is_symbolic(alt) else trimmed(p, ref.upper(), alt.upper())
            for p, ref, alt in upper
        ]
        self._info = sites.info
        self._given = sites
        self._row_of = {row: i for i, row in enumerate(rows.tolist())}
        self._fasta = fasta
        self._known: dict[int, str] = {}
        # Not np.unique: without other options it imports numpy.ma, which takes .01 s.
        places = np.array(sorted({key[0] for key in keys if is_indel(key)}), np.int64)
        if fasta is None:
            self._known = known_bases(panel.sites.take(slice(start, stop)), places)
        self._keys = dict(zip(rows.tolist(), map(self._aligned, keys), strict=True))
        self._multiallelic = (target.record >= 0).tolist()
        self._reference = target.reference.tolist()
        position = panel.sites.position_bp[start:stop]
        wanted = np.array([key[0] for key in self._keys.values()], dtype=np.int64)
        is_snp = panel.site_type[start:stop] == panel.site_types.index("SNP")
        near = np.isin(position, wanted) | np.isin(position, sites.position_bp)
        near |= ~is_snp  # these may be spelled with bases that both alleles share
        self._lookup: dict[Key, int] = {}  # by the shortest spelling
        self._exact: dict[Key, int] = {}  # by the panel's own, where that is another one
        self._snps_at: dict[int, list[int]] = {}
        # Sites with a symbolic ALT, by position and ALT.
        self._symbolic: dict[tuple[int, str], list[int]] = {}
        for i in (start + np.flatnonzero(panel.site_type[start:stop] == SYMBOLIC)).tolist():
            at = int(panel.sites.position_bp[i]), panel.sites.alt[i]
            self._symbolic.setdefault(at, []).append(i)
        self._panel_sites = panel.sites
        index = np.flatnonzero(near & (panel.site_type[start:stop] != SYMBOLIC))
        chosen = panel.sites.take(index + start)
        indels: list[Key] = []
        longer: list[tuple[Key, int]] = []
        for i, key, snp in zip(index.tolist(), chosen.keys(), is_snp[index].tolist(), strict=True):
            spelled: Key = (key[0], key[1].upper(), key[2].upper())
            if not snp:
                own, spelled = spelled, self._aligned(trimmed(*spelled))
                if own != spelled:
                    self._exact.setdefault(own, start + i)
                    longer.append((spelled, start + i))
                if len(places) and is_indel(spelled):
                    indels.append(spelled)
            if not longer or longer[-1][1] != start + i:
                self._lookup.setdefault(spelled, start + i)
            if snp:
                self._snps_at.setdefault(key[0], []).append(start + i)
        # Of sites that are one variant, such as a SNP and a repeat that differs in this base, a
        # record is the one that is spelled alike, else the shortest.
        for spelled, i in longer:
            self._lookup.setdefault(spelled, i)
        self._positions = set(position[near].tolist())
        self._ref, self._alt = panel.sites.ref, panel.sites.alt
        self._indels = sorted(indels)
        self._indel_at = np.array([key[0] for key in self._indels], dtype=np.int64)

    def _aligned(self, key: Key) -> Key:
        """An indel as far left as is known; other sites as they are."""
        if not is_indel(key):
            return key
        fasta = self._fasta
        if fasta is None:
            return left_aligned(key, lambda position: self._known.get(position, ""))
        if fasta.has(key[0], key[1]) or fasta.has(key[0], key[2]):
            return left_aligned(key, fasta.base)
        return key

    def look_alike(self, i: int) -> str:
        """The panel's indel that a record which it lacks may be, as text; "" if there is none."""
        key = self._keys[i]
        if self._fasta is not None or not is_indel(key):
            return ""
        for site in look_alikes(key, self._indels, self._indel_at, self._known):
            return f"{site[0]}:{site[1]}>{site[2]}"
        return ""

    def find(self, i: int) -> tuple[int, str, str]:
        """Panel site (-1: none), fate, and the doubt about it: "", "indel" or "palindrome"."""
        key = self._keys[i]
        exact = self._exact.get(self._own_key(i))
        if self._reference[i]:
            return self._lookup[key] if exact is None else exact, "reference", ""
        if exact is not None:
            alike = other_strand(key) == (key[0], key[2], key[1])
            return exact, "matched", "palindrome" if alike else ""
        if is_symbolic(key[2]):
            return self._find_symbolic(i, key)
        if key[2] == ".":
            key = self._with_alt(key)
        for fate, spelled in _spellings(key, may_swap=not self._multiallelic[i]):
            site = self._lookup.get(spelled)
            if site is None:
                continue
            alike = other_strand(key) == (key[0], key[2], key[1])
            # Where a record of two alleles is of the other strand, it was found as swapped already.
            if alike and (fate != "flipped" or self._multiallelic[i]):
                return site, fate, "palindrome"
            return site, fate, "indel" if fate == "swapped" and len(key[1]) != len(key[2]) else ""
        if not (set(key[1]) | set(key[2])) <= set("ACGT."):
            return -1, "invalid", ""
        return -1, "allele_mismatch" if key[0] in self._positions else "not_in_panel", ""

    def _own_key(self, i: int) -> Key:
        """A record as it is spelled in the target."""
        row, sites = self._row_of[i], self._given
        return int(sites.position_bp[row]), sites.ref[row].upper(), sites.alt[row].upper()

    def _find_symbolic(self, i: int, key: Key) -> tuple[int, str, str]:
        """What :meth:`find` does, for a symbolic ALT.

        The panel's has to be spelled alike, with a REF and ends that do not contradict it: callers
        may write N for the base of REF.
        """
        position, ref, alt = key
        info = "" if self._info is None else self._info[self._row_of[i]]
        extent = Extent.of(position, alt, info)
        found: list[tuple[bool, int]] = []
        for site in self._symbolic.get((position, alt), ()):
            panel_ref = self._ref[site].upper()
            told = "" if self._panel_sites.info is None else self._panel_sites.info[site]
            other = Extent.of(position, alt, told)
            if "N" in (ref, panel_ref) or ref == panel_ref:
                if extent == other:
                    found.append((ref == panel_ref, site))
                elif extent.agrees(other):
                    found.append((False, site))
        exact = [site for same, site in found if same]
        if exact or len(found) == 1:
            return exact[0] if exact else found[0][1], "matched", ""
        return -1, "allele_mismatch" if position in self._positions else "not_in_panel", ""

    def _with_alt(self, key: Key) -> Key:
        """A record without ALT, with the ALT of the panel's only SNP there, if its REF fits."""
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
    """The ways in which the panel may spell a record, each with its fate; the likeliest first."""
    position, ref, alt = key
    yield "matched", key
    if may_swap:
        yield "swapped", (position, alt, ref)
    # An indel is written with the base before it, which on the other strand is another base.
    if len(ref) == len(alt):
        _, ref, alt = other_strand(key)
        yield "flipped", (position, ref, alt)
        if may_swap:
            yield "flipped_swapped", (position, alt, ref)


def _read_palindrome(
    fate: str, policy: str, sure: Counter[str], alleles: np.ndarray, panel: Panel, site: int
) -> str:
    """Decide the fate of an A/T or C/G record; it is ``fate`` if of the panel's strand."""
    if policy == "keep":
        return fate
    if policy == "drop":
        return "ambiguous_strand"
    other = _OTHER_STRAND[fate]
    # A record that is spelled as in the panel is nearly always of the panel's strand. Other records
    # usually are too, as software that swaps alleles is commoner than software that flips strands.
    weight = 0.001 if fate == "matched" else 0.1
    prior = (sure[other] + weight) / (sure[fate] + sure[other] + 1)
    num, alt = int((alleles >= 0).sum()), int((alleles == 1).sum())
    if fate in _TURNED:
        alt = num - alt
    # Half an allele is added on both sides, so that a frequency of 0 does not decide alone.
    af = (int(panel.alt_count[site]) + 0.5) / (panel.num_haplotypes + 1)
    odds = log(prior / (1 - prior)) + _log_prob(num - alt, num, af) - _log_prob(alt, num, af)
    likely = 1 / (1 + exp(-min(max(odds, -700.0), 700.0)))
    if likely >= _SURE:
        return other
    return fate if likely <= 1 - _SURE else "ambiguous_strand"


def _log_prob(count: int, num: int, af: float) -> float:
    """Beta-binomial log probability of ``count`` ALT among ``num``, apart from a constant.

    The constant is the same for ``count`` and ``num - count``, which are compared.

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
        {fate: 0 for fate in FATES if fate != "reference"},
        {"found": 0, "other_strand": 0, "left_out": 0},
        likelihoods=None if target.likelihoods is None else target.likelihoods[:0],
    )


def require_overlap(match: Match, target: Target, panel: Panel, start: int, stop: int) -> None:
    """Refuse a match without any site, or with no more sites than two genome builds would share.

    Raises
    ------
    InputError
        If the match is refused; the message says what overlaps, and the hint the likely cause.
    """
    num = len(match.panel_index)
    if num == 0 or (
        num < _FEW_MATCHES * match.num_records and _by_chance(match, target, panel, start, stop)
    ):
        raise no_overlap(target, panel, start, stop, num)


def _by_chance(match: Match, target: Target, panel: Panel, start: int, stop: int) -> bool:
    """Whether the matches may well be by chance; from few records, nothing can be told."""
    if match.num_records < _MANY:
        return False
    expected = expected_by_chance(target.sites.position_bp, panel.sites.position_bp[start:stop])
    return match.chance_share(expected) > _MOSTLY_CHANCE


def _poisson_tail(num: int, mean: float) -> float:
    """How often a Poisson count of this mean is ``num`` or more."""
    if mean <= 0:
        return float(num == 0)
    below = (exp(i * log(mean) - mean - lgamma(i + 1)) for i in range(num))
    return max(0.0, 1.0 - sum(below))


def expected_by_chance(position_bp: np.ndarray, panel_bp: np.ndarray) -> float:
    """How many records would match panel sites if their positions had nothing to do with these.

    The panel's density is not the same everywhere, so the records are counted that meet a panel
    site after all of them are moved by a few bp.

    Parameters
    ----------
    position_bp, panel_bp
        Positions of the records and of the panel's sites, shapes (R,) and (M,), sorted.
    """
    if len(panel_bp) == 0:
        return 0.0
    position = position_bp.astype(np.int64)
    met = 0
    for shift in (*_SHIFTS, *(-shift for shift in _SHIFTS)):
        moved = position + shift
        place = np.minimum(np.searchsorted(panel_bp, moved), len(panel_bp) - 1)
        met += int((panel_bp[place] == moved).sum())
    return _SAME_ALLELES * met / (2 * len(_SHIFTS))


def marker_mask(path: str | Path, panel: Panel) -> np.ndarray:
    """Which panel sites are typed by the array whose sites a VCF/BCF holds, shape (M,), bool.

    Raises
    ------
    InputError
        If the file cannot be read or shares no site with the panel.
    """
    file = VcfFile(path)
    where = target_region(file, panel, None)
    target = read_target(file, region=where, symbolic=panel.has_symbolic)
    found = match_sites(target, panel, 0, panel.num_sites)
    require_overlap(found, target, panel, 0, panel.num_sites)
    mask = np.zeros(panel.num_sites, dtype=bool)
    mask[found.panel_index] = True
    return mask


def target_region(source: str | Path | TargetFile, panel: Panel, region: Region | None) -> Region:
    """The panel's part of a target file, in the target's own spelling of the contig.

    "20", "chr20" and "NC_000020.11" are taken for the same contig, and so are 23 and X in files
    that may be human: see :func:`ragimpute.contigs.same_contig`.

    Raises
    ------
    InputError
        If the target holds no records on the panel's contig.
    """
    file = open_target(source) if isinstance(source, str | Path) else source
    contigs, declared = file.contigs, file.declared
    panel_of = {panel.contig: panel.contig_length}
    name = same_contig(panel.contig, contigs, declared=declared, wanted_of=panel_of)
    if name is None:
        otherwise = "use the panel of the same chromosome, with positions of the same build"
        shown = ", ".join(list(contigs)[:5]) + (", ..." if len(contigs) > 5 else "")
        raise InputError(
            f"target {file} has no records on the panel's contig {panel.contig}; it holds "
            f"{shown or 'none'}",
            hint=absence_hint(
                panel.contig, contigs, otherwise, file=file.path, declared=declared,
                wanted_of=panel_of,
            ) if isinstance(file, VcfFile) else otherwise,
        )  # fmt: skip
    if region is None:
        return Region(name)
    return Region(name, region.start_bp, region.stop_bp)


@dataclass(frozen=True)
class Overlap:
    """What target and panel share, by position alone.

    Attributes
    ----------
    num_records, num_at_position
        How many target records lie within the panel's range, and how many of these are at the
        position of a panel site.
    num_comparable, num_ref_agree, num_other_strand
        How many records at a panel position are SNPs; how many SNPs have the panel's REF base as
        one allele; and how many have the panel's alleles if read on the other strand.
    """

    num_records: int
    num_at_position: int
    num_comparable: int
    num_ref_agree: int
    num_other_strand: int

    @property
    def agree(self) -> float:
        """Share of comparable records whose alleles hold the panel's REF base."""
        return self.num_ref_agree / max(1, self.num_comparable)

    @property
    def few_positions(self) -> bool:
        """Whether less than half of the records are at panel positions."""
        return self.num_at_position < 0.5 * self.num_records


def compare_positions(target: Target, panel: Panel, start: int, stop: int) -> Overlap:
    """Compare a target's records with the panel sites [start, stop) by position."""
    at = panel.sites.position_bp[start:stop]
    position = target.sites.position_bp
    within = np.zeros(len(position), bool)
    if len(at):
        within = (position >= at[0]) & (position <= at[-1])
    here = np.isin(position, at)
    shared = np.isin(at, position) & (panel.site_type[start:stop] != SYMBOLIC)
    sites = panel.sites.take(start + np.flatnonzero(shared))
    ref_at = dict(zip(sites.position_bp.tolist(), sites.ref, strict=True))
    keys = set(sites.keys())
    comparable = ref_agree = strand = 0
    for key in target.sites.take(here).keys():
        place, ref, alt = key[0], key[1].upper(), key[2].upper()
        panel_ref = ref_at.get(place, "")
        if not panel_ref or len(ref) > 1 or len(panel_ref) > 1 or len(alt) > 1:
            continue
        comparable += 1
        ref_agree += panel_ref in (ref, alt)
        other = other_strand((place, ref, alt))
        strand += other in keys or (place, other[2], other[1]) in keys
    return Overlap(int(within.sum()), int(here.sum()), comparable, ref_agree, strand)


def likely_cause(target: Target, panel: Panel, found: Overlap) -> str:
    """Why few records are panel sites, and what to do about it."""
    known = positions_build(target)
    builds = (known.build or header_build(target), panel_build(panel))
    if all(builds) and builds[0] != builds[1]:
        by = f"the positions of {known.num_agree} well-known sites" if known.build else "its header"
        told = f"by {by} the target is of {builds[0]} and the panel of {builds[1]}"
        return f"{told}: {lift_hint(*builds)}"
    apart = found.num_records == 0
    shared, moved = moved_ids(target, panel)
    if apart or found.few_positions or moved > _MOVED * shared:
        told = ""
        if moved > _MOVED * shared:
            told = f"{moved:,} of {shared:,} rsIDs that both files have are at other positions in "
            told += "the panel"
        if cause := _by_shift(target, panel, builds, told):
            return cause
    if apart:
        return "the ranges do not meet: check --region and that both use the same genome build"
    if found.few_positions:
        if found.num_comparable >= _FEW and found.agree >= _SAME_BUILD:
            return (
                "the positions that agree have the same bases, so the build is right: the panel "
                "lacks most of the array's sites"
            )
        if all(builds):
            return (
                f"both files are of {builds[0]} by their contigs' lengths: the panel lacks most of "
                "the target's sites, or a file's positions are of another build than its header"
            )
        if len(target.sites) < _MANY:
            return "the records are too few to tell why: check that both files are of one build"
        if found.num_comparable < _FEW or found.agree <= _OTHER_BUILD:
            return (
                "few positions agree: the files are probably of different genome builds; "
                + lift_hint(*builds)
            )
        return "few positions agree: check that both files are of one genome build"
    if found.num_other_strand >= 0.5 * found.num_comparable > 0:
        return (
            "most alleles fit after a strand flip, but cannot be told from swaps: bring the target "
            f"to the forward strand first ({_FIXREF})"
        )
    return f"positions agree but alleles do not: fix REF/ALT first ({_FIXREF})"


def _by_shift(
    target: Target, panel: Panel, builds: tuple[str | None, str | None], told: str
) -> str | None:
    """What to say if records are panel sites once they are moved, or if ``told`` is said already.

    None if there is nothing to say; ``builds`` are those of target and panel, as far as known.
    """
    shift = find_shift(target, panel)
    if shift is None and not told:
        return None
    source = None
    if shift is not None:
        fit = (
            f"{shift.num_fitting} of {shift.num_records} neighbouring records from "
            f"{target.sites.contig}:{shift.first_bp} to {shift.last_bp} fit the panel if moved by "
            f"{shift.shift_bp:+,} bp"
        )
        if abs(shift.shift_bp) == 1:
            return (
                f"{fit}: the positions of one file count from 0 and not from 1, as those of a VCF"
            )
        told = told or fit
        name = chromosome(panel.contig, {panel.contig: panel.contig_length})
        source = build_by_shift(name, builds[1], shift.shift_bp)
    looks = "they are of different genome builds"
    if source is not None:
        looks = f"the target looks like {source}, the panel is {builds[1]}"
    if builds[0] and builds[0] == builds[1]:
        looks += f", though both headers say {builds[0]}"
    return f"{told}, so {looks}: {lift_hint(source, builds[1])}"


def no_overlap(
    target: Target, panel: Panel, start: int, stop: int, num_matched: int = 0
) -> InputError:
    """The error for a target with no panel site, or as many as by chance, with the likely cause."""
    sites, at = target.sites, panel.sites.position_bp[start:stop]
    if len(sites) == 0:
        return InputError(
            f"the target has no record on {sites.contig} in the range asked for",
            hint="check --region against the target",
        )
    found = compare_positions(target, panel, start, stop)
    first, last = sites.position_bp.min(), sites.position_bp.max()
    panel_range = f"{panel.contig}: no site"
    hint = likely_cause(target, panel, found)
    if len(at):
        panel_range = f"{panel.contig}:{at.min()}-{at.max()}"
    share = found.num_at_position / len(sites)
    few = f"no more target records ({num_matched}) are panel sites than chance would make"
    return InputError(
        f"{few if num_matched else 'no target record is a panel site'}: target "
        f"{sites.contig}:{first}-{last} ({len(sites)} records), panel {panel_range} "
        f"({stop - start} sites); {share:.0%} of records agree by position alone",
        hint=hint,
    )
