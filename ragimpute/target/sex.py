"""Ploidy by sex, for formats that write haploid genotypes as homozygous diploid ones.

PLINK and most vendors of genotypes write a male's X as homozygous. A sample is taken for a male
only where its genotypes leave no doubt: a female has more heterozygotes than homozygotes of the
rarer kind, and a male has none but errors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ragimpute.contigs import bare_contig, chromosome, is_human
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.ploidy import PAR_BUILDS, outside, par_regions
from ragimpute.panel.reader import Panel
from ragimpute.sites import Region, some_names

_MALE, _FEMALE = 1, 2
# A sample whose file calls it a male, or says nothing, is one if the heterozygotes outside the PAR
# are so small a share of the rarer homozygotes (of a female's: 1 and more), of which there are
# enough.
_MALE_SHARE, _LEAST_HOMOZYGOTES = 0.1, 20


def sex_chromosome(panel: Panel) -> str:
    """X or Y if the panel is of these and may be of humans, MT of any species, or else ""."""
    declared = {panel.contig: panel.contig_length}
    name = chromosome(panel.contig, declared)
    if name == "MT" or bare_contig(panel.contig) == "MT":
        return "MT"
    return name if name in ("X", "Y") and is_human(declared) is not False else ""


def settle_ploidy(target: Target, panel: Panel, par: str | None) -> Target:
    """A target that was read as diploid, with haploid genotypes where its samples are haploid.

    All samples are haploid on Y and MT, and those that are surely males on X outside its
    pseudo-autosomal regions. Heterozygous genotypes there become missing, and are counted. Where
    the regions are not known, a male is haploid outside those of all builds.

    Parameters
    ----------
    target
        With ``facts``; its positions are of the panel's build.
    panel, par
        The panel, and the regions as for :func:`ragimpute.panel.ploidy.par_regions`.

    Returns
    -------
    The target itself where nothing changes; ``facts`` says what was done.
    """
    kind, facts = sex_chromosome(panel), target.facts
    if not kind or facts is None or not len(target.sites):
        return target
    num = len(target.samples)
    rows = np.ones(len(target.sites), bool)
    samples = np.ones(num, bool)
    lines: list[str] = []
    if kind == "X":
        rows = _outside_par(target, panel, par)
        sex = np.zeros(num, np.int8) if facts.sexes is None else facts.sexes
        samples = sure_males(target.alleles[rows], sex)
        doubtful = np.flatnonzero((sex == _MALE) & ~samples)
        if len(doubtful):
            names = some_names([target.samples[i] for i in doubtful.tolist()])
            lines.append(
                f"{len(doubtful):,} samples that {target.file} calls male have heterozygous "
                f"genotypes on {panel.contig} as females have ({names}): they are kept diploid"
            )
    alleles, phased = target.alleles.copy(), target.phased.copy()
    lost = make_haploid(alleles, phased, rows, samples)
    counts = facts.counts | {
        f"samples made haploid on {panel.contig}": int(samples.sum()),
        "heterozygous calls where haploid, now missing": lost,
    }
    told = replace(facts, counts=counts, warnings=(*facts.warnings, *lines))
    return replace(target, alleles=alleles, phased=phased, facts=told)


def _outside_par(target: Target, panel: Panel, par: str | None) -> np.ndarray:
    """Rows that lie outside the pseudo-autosomal regions of X, shape (T,), bool."""
    regions = par_regions(panel.contig, panel.contig_length, par)
    if not regions and par is None:
        regions = [
            Region(panel.contig, first, last + 1)
            for _, known in PAR_BUILDS.values()
            for first, last in known
        ]
    rows = outside(target.sites.position_bp, regions)
    return rows if target.in_par is None else rows & ~target.in_par


def sure_males(alleles: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """Samples that are males by their genotypes on X outside the PAR, and no females by the file.

    Parameters
    ----------
    alleles
        Shape (m, N, 2), int8: 0, 1, -1 missing, -2 haploid fill; any of 0 and 1 may be rarer.
    sex
        Shape (N,): 1 male, 2 female, 0 unknown, as the file says.

    Returns
    -------
    Shape (N,), bool.
    """
    first, second = alleles[:, :, 0], alleles[:, :, 1]
    same = (first == second) | (second == -2)
    hets = np.count_nonzero((first >= 0) & (second >= 0) & ~same, axis=0)
    ones = np.count_nonzero((first == 1) & same, axis=0)
    zeros = np.count_nonzero((first == 0) & same, axis=0)
    rarer = np.minimum(ones, zeros)
    alike = (hets <= _MALE_SHARE * rarer) & (rarer >= _LEAST_HOMOZYGOTES)
    # With few calls the file's word counts, unless a heterozygote contradicts it.
    told = (sex == _MALE) & (hets == 0)
    return np.asarray((sex != _FEMALE) & (alike | told))


def make_haploid(
    alleles: np.ndarray, phased: np.ndarray, rows: np.ndarray, samples: np.ndarray
) -> int:
    """Make genotypes haploid in place; heterozygous ones become missing.

    Parameters
    ----------
    alleles, phased
        As in :class:`ragimpute.io.vcf.read.genotypes.Target`, shapes (T, N, 2) and (T, N).
    rows, samples
        Shapes (T,) and (N,), bool: which genotypes.

    Returns
    -------
    How many heterozygous genotypes there were.
    """
    where = np.ix_(np.flatnonzero(rows), np.flatnonzero(samples))
    part = alleles[where]  # (t, n, 2), a copy
    het = (part[:, :, 0] != part[:, :, 1]) & (part[:, :, 1] != -2)
    num = int(np.count_nonzero(het & (part >= 0).all(axis=2)))
    part[het] = -1
    part[:, :, 1] = -2
    alleles[where] = part
    phased[where] = True
    return num
