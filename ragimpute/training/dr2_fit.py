"""Calibrate DR2: impute samples that were left out of panels, and compare with their alleles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ragimpute.accuracy.dr2 import (
    MIN_HAPLOTYPES,
    TERMS,
    DosageSums,
    Dr2Calibration,
    fit_calibration,
    panel_terms,
)
from ragimpute.accuracy.metrics import MAF_BINS, maf_bin, site_r2
from ragimpute.copying_model.imputer import CopyingImputer
from ragimpute.copying_model.panel_fit import FitOptions
from ragimpute.evidence.rare_excess import LeftOutR2
from ragimpute.io.vcf.write.sample_text import DIGITS
from ragimpute.model.checkpoint import LoadedModel, load_model
from ragimpute.model.folder import ModelFolder, is_copying, searches_index
from ragimpute.panel.reader import Panel
from ragimpute.panel.views import PanelLeftOut, PanelWithout
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Progress
from ragimpute.target.window import TargetWindow
from ragimpute.token_model.imputer import TokenImputer
from ragimpute.training.data.arrays import draw_array, draw_stretch

# A stretch has at most so many sites, and a group so many samples: memory holds a row of that many
# sites for each haplotype.
_MAX_SITES = 30_000
_MAX_SAMPLES = 250
_LEAST_SHARE, _MOST_SHARE = 0.1, 0.5  # share of a panel's samples that is drawn as a group
_ROWS = 2048  # sites that are compared at once
# A MAF bin of n sites has the weight _WEIGHT * n / sqrt(n + _FEW_SITES), so that large bins do not
# outweigh small ones. A site of a bin of 350 sites has the weight 1.
_WEIGHT, _FEW_SITES = 20.0, 50
# A panel's own samples are few. So coefficients leave those of the prior only if the gain in
# log-likelihood exceeds the squared distance from the prior times this.
_RIDGE_TO_PRIOR = 500.0
# The shipped prior is of copying models. Those of token models keep it as far as the samples leave
# it open: on 24 left-out people of 20:2-2.9 Mb this gave a mean distance of .067 from the true r2
# of others, by MAF bin, no prior .071, and the estimate as it is .084.
_RIDGE_OF_TOKEN_MODELS = 50.0
_MAX_TOKEN_SITES = 8_000  # which take some 100 times as long


@dataclass(frozen=True)
class ScoredSites:
    """Untyped sites of left-out samples, where the truth varies and the panel has both alleles.

    Attributes
    ----------
    estimate, minor, num
        Shape (m,): what :meth:`Dr2Calibration.apply` takes.
    panel
        Shape (m, 3): see :func:`ragimpute.accuracy.dr2.panel_terms`.
    true
        Shape (m,), squared correlation of dosage with truth, in [0, 1].
    maf
        Shape (m,), in the panel without the samples.
    left_out_r2
        How well samples of the rest of the panel were imputed; None: not measured.
    """

    estimate: np.ndarray
    minor: np.ndarray
    num: np.ndarray
    panel: np.ndarray
    true: np.ndarray
    maf: np.ndarray
    left_out_r2: LeftOutR2 | None = None

    def weight(self) -> np.ndarray:
        """Of each site, shape (m,), > 0."""
        return site_weights(self.maf)


def site_weights(maf: np.ndarray) -> np.ndarray:
    """How much each site of a group counts, shape (m,), > 0, by its MAF, shape (m,)."""
    group = maf_bin(maf)
    count = np.bincount(group + 1, minlength=len(MAF_BINS))[group + 1]
    out: np.ndarray = _WEIGHT / np.sqrt(count + _FEW_SITES)
    return out


def fit_dr2(
    panels: Sequence[Panel],
    model: ModelFolder | LoadedModel,
    *,
    groups: Sequence[np.ndarray] | None = None,
    prior: Dr2Calibration | None = None,
    num_draws: int = 2,
    seed: int = 1,
    threads: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Dr2Calibration:
    """Calibrate the DR2 of a model on samples left out of panels, with drawn arrays.

    Parameters
    ----------
    panels
        One or more, each of one ploidy.
    model
        A copying model, or a token model, whose probabilities are calibrated already.
    groups
        For each panel, the samples that are left out, shape (k,), int; None: drawn anew each time,
        a tenth to a half of the panel.
    prior
        The calibration to stay close to if the samples are few; None: the uncalibrated estimate,
        with a very small weight.
    num_draws
        Arrays for each panel, >= 1.
    seed, threads, device
        See :class:`ragimpute.imputation.options.ImputeOptions`.
    progress
        Called as ``progress("DR2", done, total)``.

    Returns
    -------
    The calibration; ``prior`` itself if fewer than ``MIN_HAPLOTYPES`` haplotypes can be left out of
    every panel.
    """
    parts = score_panels(
        panels, model, groups=groups, num_draws=num_draws, seed=seed, threads=threads,
        device=device, progress=progress,
    )  # fmt: skip
    ridge = _RIDGE_TO_PRIOR if is_copying(model.config) else _RIDGE_OF_TOKEN_MODELS
    checksums = [panel.checksum for panel in panels]
    return fit_scored(parts, checksums, prior=prior, seed=seed, ridge=ridge)


def score_panels(
    panels: Sequence[Panel],
    model: ModelFolder | LoadedModel,
    *,
    groups: Sequence[np.ndarray] | None = None,
    num_draws: int = 2,
    seed: int = 1,
    threads: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> list[ScoredSites]:
    """What :func:`fit_dr2` learns from; see there."""
    if not is_copying(model.config) and isinstance(model, ModelFolder):
        model = load_model(model)  # once for all draws
    parts = []
    with Stage("DR2", len(panels) * num_draws, progress=progress) as stage:
        for i, panel in enumerate(panels):
            for draw in range(num_draws):
                rng = np.random.default_rng([seed, 4, i, draw])
                group = groups[i] if groups is not None else _draw_group(panel, rng)
                parts += leave_samples_out(
                    panel, model, group, rng, seed=seed, threads=threads, device=device
                )
                stage.advance(1)
    return parts


def fit_scored(
    parts: Sequence[ScoredSites],
    checksums: Sequence[str],
    *,
    prior: Dr2Calibration | None = None,
    seed: int = 1,
    ridge: float = _RIDGE_TO_PRIOR,
) -> Dr2Calibration:
    """Calibrate DR2 on scored sites; ``checksums`` of the panels go into its provenance.

    ``ridge`` is the weight of the prior, if there is one.
    """
    num_sites = sum(len(part.true) for part in parts)
    if num_sites == 0:
        return prior or Dr2Calibration()
    columns = (
        np.concatenate(column)
        for column in zip(
            *((p.estimate, p.minor, p.num, p.panel, p.true, p.weight()) for p in parts),
            strict=True,
        )
    )
    near = {} if prior is None else {"prior": prior.coefficients, "ridge": ridge}
    found = fit_calibration(*columns, **near)  # type: ignore[arg-type]
    provenance = {
        "panels": list(checksums),
        "num_groups": len(parts),
        "num_sites": num_sites,
        "seed": seed,
        "terms": list(TERMS),
    }
    return Dr2Calibration(found, provenance)


def leave_samples_out(
    panel: Panel,
    model: ModelFolder | LoadedModel,
    samples: np.ndarray,
    rng: np.random.Generator,
    *,
    seed: int,
    threads: int = 1,
    device: str = "cpu",
) -> list[ScoredSites]:
    """Impute panel samples from the others with a drawn array.

    Parameters
    ----------
    panel, model
        See :func:`fit_dr2`.
    samples
        Shape (k,), int: samples that leave the panel together.
    rng
        Draws the stretch, the array and the part of the samples that is scored by itself.
    seed, threads, device
        See :class:`ragimpute.imputation.options.ImputeOptions`.

    Returns
    -------
    The sites, scored once over all of the samples and once over a quarter of them, as DR2 must hold
    for many and for few targets. A score over fewer than ``MIN_HAPLOTYPES`` haplotypes is left out.
    """
    most = _MAX_SITES if is_copying(model.config) else _MAX_TOKEN_SITES
    start, stop = draw_stretch(panel, most, rng)
    low, high = np.log(model.config.data.typed_per_mb)
    typed = draw_array(panel, start, stop, float(np.exp(rng.uniform(low, high))), rng)
    out = np.isin(panel.haplotype_sample, samples)
    owner = panel.haplotype_sample[out]
    quarter = np.isin(owner, rng.permutation(np.unique(owner))[: len(samples) // 4])
    choices = [which for which in (np.ones(len(owner), bool), quarter)
               if which.sum() >= MIN_HAPLOTYPES]  # fmt: skip
    if not choices:
        return []
    haplotypes = panel.haplotypes(start, stop)
    target = haplotypes.alleles(typed - start)[:, out]
    rest = PanelWithout(panel, ~out)
    if not is_copying(model.config):  # token models read frequencies
        rest = PanelLeftOut(panel, ~out, start, stop)
    imputer = _imputer(rest, typed, model, FitOptions(seed=seed, threads=threads, device=device))
    prob = np.empty((len(owner), stop - start), np.float32)

    def put(first: int, site: int, part: np.ndarray) -> None:
        prob[first : first + part.shape[0], site : site + part.shape[1]] = part

    window = TargetWindow(start, stop, (start, stop), typed, np.ascontiguousarray(target), owner)
    said = imputer.prepare(window).impute(batch=len(owner), put=put).left_out
    excess = 0.0 if said is None else said.rare_excess
    left_out_r2 = None if said is None else said.left_out_r2
    # A token model that has learned little gives a site nearly the same P(ALT) for all. What is
    # left of it in a file is a constant, though its last bits may go with the truth.
    digits = None if is_copying(model.config) else DIGITS
    untyped = np.setdiff1d(np.arange(start, stop), typed) - start
    found: list[list[ScoredSites]] = [[] for _ in choices]
    for first in range(0, len(untyped), _ROWS):
        rows = untyped[first : first + _ROWS]
        true = haplotypes.alleles(rows)[:, out]
        left = panel.alt_count[start + rows] - true.sum(axis=1, dtype=np.int64)
        copies = np.minimum(left, rest.num_haplotypes - left)
        by_panel = panel_terms(excess, copies, rest.num_haplotypes)
        if said is None:  # as in imputation, where DR2 then rests on the targets alone
            by_panel = np.zeros_like(by_panel)
        maf = copies / rest.num_haplotypes
        for which, sites in zip(choices, found, strict=True):
            given = prob[which][:, rows].T, true[:, which], owner[which], maf, by_panel
            sites.append(_score(*given, digits))
    names = ("estimate", "minor", "num", "panel", "true", "maf")
    scored = []
    for sites in found:
        columns = {name: np.concatenate([getattr(s, name) for s in sites]) for name in names}
        scored.append(ScoredSites(**columns, left_out_r2=left_out_r2))
    return scored


def _imputer(
    rest: PanelWithout, typed: np.ndarray, model: ModelFolder | LoadedModel, options: FitOptions
) -> CopyingImputer | TokenImputer:
    """What imputes from a panel without the samples that are left out."""
    if is_copying(model.config):
        return CopyingImputer(rest, typed, model, options)
    loaded = load_model(model) if isinstance(model, ModelFolder) else model
    index = None
    if searches_index(loaded.config):
        from ragimpute.retrieval.faiss_device import choose_searcher
        from ragimpute.retrieval.index import WindowIndex

        # Of the windows of a long panel, few lie in the stretch.
        searcher = choose_searcher(options.device)
        index = WindowIndex.build(rest, searcher=searcher, when_searched=True)
    return TokenImputer(rest, loaded, index, device=options.device, threads=options.threads)


def _draw_group(panel: Panel, rng: np.random.Generator) -> np.ndarray:
    """Draw the samples that are left out of a panel."""
    share = rng.uniform(_LEAST_SHARE, _MOST_SHARE)
    samples = np.unique(panel.haplotype_sample)
    return rng.permutation(samples)[: min(_MAX_SAMPLES, int(share * len(samples)))]


def _score(
    prob: np.ndarray,
    true: np.ndarray,
    owner: np.ndarray,
    maf: np.ndarray,
    panel: np.ndarray,
    digits: int | None = None,
) -> ScoredSites:
    """Compare P(ALT) with alleles, both of shape (m, n), of haplotypes of the samples ``owner``.

    With ``digits`` dosages count as they are written, and one that then does not vary has r2 0.
    """
    sums = DosageSums.of(prob)
    # A sample's haplotypes are neighbours.
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    dosage, count = (np.add.reduceat(x, starts, axis=1, dtype=np.float64) for x in (prob, true))
    if digits is not None:
        dosage = np.round(dosage, digits)
    r2 = site_r2(dosage, count)
    if digits is not None:
        r2[np.isnan(r2) & (np.ptp(count, axis=1) > 0)] = 0.0
    known = ~np.isnan(r2) & (maf > 0)
    return ScoredSites(
        sums.estimated_r2[known], (sums.maf * sums.num)[known], sums.num[known], panel[known],
        r2[known], maf[known],
    )  # fmt: skip
