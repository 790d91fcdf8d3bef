"""Calibrate the DR2 of targets with likelihoods, on left-out samples with simulated reads."""

from __future__ import annotations

import numpy as np

from ragimpute.accuracy.dr2 import MIN_HAPLOTYPES, DosageSums, panel_terms
from ragimpute.accuracy.metrics import site_r2
from ragimpute.copying.window import TypedSites
from ragimpute.likelihoods.fit import FitOptions, FittedPanel, simulate_reads
from ragimpute.likelihoods.joint import as_independent
from ragimpute.likelihoods.network import GenotypeNetwork
from ragimpute.panel.reader import Panel
from ragimpute.training.data.arrays import draw_stretch
from ragimpute.training.dr2_fit import ScoredSites

#: Depths are drawn between these, uniform on a logarithmic scale.
DEPTHS = (0.05, 8.0)
# A sample's mean depth differs from that of all by a log-normal factor of this sd.
_SAMPLE_SD = 0.15
# A stretch has at most so many sites and cM, and a group so many samples, as each takes its time.
_MAX_SITES, _MAX_CM, _MAX_SAMPLES = 3072, 3.0, 48
_LEAST_SHARE, _MOST_SHARE = 0.1, 0.4  # share of a panel's samples that is drawn as a group


def score_reads(
    panel: Panel, *, num_draws: int = 2, seed: int = 1, threads: int = 1
) -> list[ScoredSites]:
    """Impute samples that are left out of a panel from simulated reads, and score each site.

    Parameters
    ----------
    panel
        Of diploid samples; those with one haplotype are never drawn.
    num_draws
        Groups of samples, >= 1, each with a depth of its own.
    seed, threads
        For drawing; the result does not depend on ``threads``.

    Returns
    -------
    The sites of each group: once over all of its samples, and once over a quarter of them.
    """
    parts = []
    low, high = np.log(DEPTHS)
    for draw in range(num_draws):
        rng = np.random.default_rng([seed, 5, int(panel.checksum[:8], 16), draw])
        # Each draw has its own part of the range of depths, so that all of it is covered.
        depth = float(np.exp(low + (draw + rng.random()) / num_draws * (high - low)))
        parts += leave_out_with_reads(panel, depth, rng, seed=seed, threads=threads)
    return parts


def leave_out_with_reads(
    panel: Panel, depth: float, rng: np.random.Generator, *, seed: int = 1, threads: int = 1
) -> list[ScoredSites]:
    """Impute a group of a panel's samples from the others, with simulated reads.

    Parameters
    ----------
    panel
        Of diploid samples; those with one haplotype are never drawn.
    depth
        Mean number of reads at a site, > 0.
    rng
        Draws the stretch, the group and the reads.
    seed, threads
        See :class:`ragimpute.likelihoods.fit.FitOptions`.

    Returns
    -------
    The sites where the truth varies and the rest of the panel has both alleles, scored over all of
    the group and over a quarter of it, if that has ``MIN_HAPLOTYPES`` haplotypes. Nothing of a
    panel of fewer than twice that.
    """
    start, stop = draw_stretch(panel, _MAX_SITES, rng)
    cm = panel.position_cm[start:stop]
    stop = start + int(np.searchsorted(cm, cm[0] + _MAX_CM, side="right"))
    owner, count = np.unique(panel.haplotype_sample, return_counts=True)
    diploid = owner[count == 2]
    share = rng.uniform(_LEAST_SHARE, _MOST_SHARE)
    num = min(_MAX_SAMPLES, max(MIN_HAPLOTYPES // 2, int(share * len(diploid))))
    group = np.sort(rng.permutation(diploid)[:num])
    if len(diploid) < 2 * num:
        return []
    out = np.isin(panel.haplotype_sample, group)
    alleles = panel.haplotypes(start, stop).alleles(np.arange(stop - start))
    of = np.argsort(panel.haplotype_sample[out], kind="stable")
    true = alleles[:, out][:, of].reshape(len(alleles), num, 2).sum(axis=2).astype(np.int64)
    factor = np.exp(rng.normal(0, _SAMPLE_SD, num))
    reads = simulate_reads(true, depth * factor, rng)
    rest = np.ascontiguousarray(alleles[:, ~out])
    typed = TypedSites.pack(rest, panel.position_cm[start:stop])
    options = FitOptions(seed=seed, threads=threads, network=GenotypeNetwork.shipped())
    fitted = FittedPanel(typed, panel.haplotype_sample[~out], options)
    found = fitted.impute(reads)
    prob = np.stack([each.allele_prob for each in found], axis=1)  # (M, N, 2)
    both = np.stack([each.both for each in found], axis=1)
    num_alt = rest.sum(axis=1, dtype=np.int64)
    copies = np.minimum(num_alt, rest.shape[1] - num_alt)
    parts = [_score(prob, both, true, copies, rest.shape[1])]
    quarter = rng.permutation(num)[: num // 4]
    if 2 * len(quarter) >= MIN_HAPLOTYPES:
        parts.append(
            _score(prob[:, quarter], both[:, quarter], true[:, quarter], copies, rest.shape[1])
        )
    return parts


def _score(
    prob: np.ndarray, both: np.ndarray, true: np.ndarray, copies: np.ndarray, num_haplotypes: int
) -> ScoredSites:
    """Compare P(ALT), shape (M, N, 2), with ALT alleles (M, N); see :class:`ScoredSites`."""
    sums = DosageSums.of(as_independent(prob, both).reshape(len(prob), -1))
    r2 = site_r2(prob.sum(axis=2), true)
    known = ~np.isnan(r2) & (copies > 0)
    by_panel = panel_terms(0.0, copies, num_haplotypes)
    return ScoredSites(
        sums.estimated_r2[known], (sums.maf * sums.num)[known], sums.num[known], by_panel[known],
        r2[known], copies[known] / num_haplotypes,
    )  # fmt: skip
