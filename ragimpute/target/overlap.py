"""Why a target and a panel share few sites, or none: the likely cause, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.reader import Panel
from ragimpute.sites import bare_contig, other_strand

# Lengths of the human chromosomes, bp, in GRCh37 and GRCh38 (NCBI), which tell builds apart.
_LENGTHS = {
    "GRCh37": dict(zip(
        [*map(str, range(1, 23)), "X", "Y"],
        (249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022,
         141213431, 135534747, 135006516, 133851895, 115169878, 107349540, 102531392, 90354753,
         81195210, 78077248, 59128983, 63025520, 48129895, 51304566, 155270560, 59373566),
        strict=True,
    )),
    "GRCh38": dict(zip(
        [*map(str, range(1, 23)), "X", "Y"],
        (248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636,
         138394717, 133797422, 135086622, 133275309, 114364328, 107043718, 101991189, 90338345,
         83257441, 80373285, 58617616, 64444167, 46709983, 50818468, 156040895, 57227415),
        strict=True,
    )),
}  # fmt: skip
# By chance alone, about half of the panel's REF bases are among a record's two alleles; of the same
# build, nearly all are.
_SAME_BUILD, _OTHER_BUILD = 0.9, 0.75
_FEW = 20  # positions that agree, below which their REF bases say nothing
_CHANCE = 0.01  # share of records that are panel sites by chance, with a panel of usual density
_MANY = 50  # records, of which one would be a panel site by more than chance


def human_build(contig: str, length: int | None) -> str | None:
    """ "GRCh37" or "GRCh38" where a contig's length is that of a human chromosome, else None."""
    name = bare_contig(contig)
    return next((build for build, known in _LENGTHS.items() if known.get(name) == length), None)


@dataclass(frozen=True)
class Overlap:
    """What target and panel share, by position alone.

    Attributes
    ----------
    num_records, num_at_position
        Target records within the panel's range, and those of them at a panel position.
    num_comparable, num_ref_agree, num_other_strand
        Those of the latter that are SNPs; whose alleles hold the panel's REF base; and whose
        alleles are the panel's only on the other strand.
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

    def by_chance(self, num_matched: int) -> bool:
        """Whether so many panel sites among the records are what another build would have."""
        other = self.num_comparable >= _FEW and self.agree <= _OTHER_BUILD and self.few_positions
        return other or (self.num_records >= _MANY and num_matched < _CHANCE * self.num_records)


def compare_positions(target: Target, panel: Panel, start: int, stop: int) -> Overlap:
    """Compare a target's records with the panel sites [start, stop) by position."""
    at = panel.sites.position_bp[start:stop]
    position = target.sites.position_bp
    within = np.zeros(len(position), bool)
    if len(at):
        within = (position >= at[0]) & (position <= at[-1])
    here = np.isin(position, at)
    sites = panel.sites.take(start + np.flatnonzero(np.isin(at, position)))
    ref_at = dict(zip(sites.position_bp.tolist(), sites.ref, strict=True))
    keys = set(sites.keys())
    comparable = ref_agree = strand = 0
    for key in target.sites.take(here).keys():
        place, ref, alt = key[0], key[1].upper(), key[2].upper()
        panel_ref = ref_at[place]
        if len(ref) > 1 or len(panel_ref) > 1 or len(alt) > 1:
            continue
        comparable += 1
        ref_agree += panel_ref in (ref, alt)
        other = other_strand((place, ref, alt))
        strand += other in keys or (place, other[2], other[1]) in keys
    return Overlap(int(within.sum()), int(here.sum()), comparable, ref_agree, strand)


def likely_cause(target: Target, panel: Panel, found: Overlap) -> str:
    """Why few records are panel sites, and what to do about it."""
    builds = [
        human_build(panel.contig, length) for length in (target.contig_length, panel.contig_length)
    ]
    if all(builds) and builds[0] != builds[1]:
        return (
            f"by its header the target is of {builds[0]} and the panel of {builds[1]}: lift one "
            "over to the build of the other"
        )
    if found.few_positions:
        if found.num_comparable >= _FEW and found.agree >= _SAME_BUILD:
            return (
                "the positions that agree have the same bases, so the build is right: the panel "
                "lacks most of the array's sites"
            )
        if found.num_comparable < _FEW or found.agree <= _OTHER_BUILD:
            return "few positions agree: the files are probably of different genome builds"
        return "few positions agree: check that both files are of one genome build"
    if found.num_other_strand >= 0.5 * found.num_comparable > 0:
        return (
            "most alleles fit after a strand flip, but cannot be told from swaps: bring the target "
            "to the forward strand first (bcftools +fixref)"
        )
    return "positions agree but alleles do not: fix REF/ALT first (bcftools +fixref)"


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
        if (last < at.min() or first > at.max()) and "header" not in hint:
            hint = "the ranges do not meet: check --region and that both use the same genome build"
    share = found.num_at_position / len(sites)
    few = f"no more target records ({num_matched}) are panel sites than chance would make"
    return InputError(
        f"{few if num_matched else 'no target record is a panel site'}: target "
        f"{sites.contig}:{first}-{last} ({len(sites)} records), panel {panel_range} "
        f"({stop - start} sites); {share:.0%} of records agree by position alone",
        hint=hint,
    )
