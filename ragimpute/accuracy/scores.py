"""The figures of an evaluation: sums over blocks of sites, and what they amount to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ragimpute.accuracy.calibration import CalibrationAccumulator, calibrate_quality
from ragimpute.accuracy.jackknife import SampleSums, standard_error
from ragimpute.accuracy.metrics import MAF_BINS, R2Accumulator, maf_bin, site_r2
from ragimpute.accuracy.phase_errors import PhaseErrors

_QUALITY_BINS = 10


@dataclass(frozen=True)
class BinScores:
    """Figures of one MAF bin; NaN where undefined.

    Attributes
    ----------
    label
        "<=0.002", or "all".
    maf_low, maf_high
        The bin holds ``maf_low < maf <= maf_high`` (panel's MAF); "all" holds MAF 0 too.
    num_sites, num_varying
        Sites scored, and those of them where the truth varies among the samples.
    r2
        Squared correlation of dosage and truth, all sites and samples pooled, in [0, 1].
    mean_site_r2
        Mean squared correlation of varying sites; one that is imputed as constant counts 0.
    mean_dr2, true_r2, dr2_correlation
        Over varying sites that have INFO/DR2 (or R2): its mean, the mean of the true squared
        correlation, and Pearson's correlation of the two.
    concordance
        Share of right best guesses among pairs (site, sample) that carry the minor allele, truly
        or as called, in [0, 1].
    """

    label: str
    maf_low: float
    maf_high: float
    num_sites: int
    num_varying: int
    r2: float
    mean_site_r2: float
    mean_dr2: float
    true_r2: float
    dr2_correlation: float
    concordance: float


# What becomes of the ALTs of the truth's records, and how the summary's line calls it.
_FATES = {
    "scored": "scored",
    "typed": "typed",
    "not_in_panel": "not in panel",
    "duplicate": "duplicate",
    "left_out": "that name no allele",
}


@dataclass
class Evaluation:
    """How good an imputation is.

    Attributes
    ----------
    truth, imputed, panel
        The files.
    contig, first_bp, last_bp
        Where the scored sites lie.
    bins, overall
        Figures by MAF bin, and of all scored sites.
    calibration
        Shape (20, 3), float64, by dosage of the minor allele / ploidy, in equal intervals of
        [0, 1]: mean, observed frequency of the minor allele (NaN where empty), pairs.
    calibration_standard_error
        Shape (20,), float64: of the difference of the first two, by the spread over samples; NaN
        where fewer than two samples have any pair.
    calibration_error
        Mean absolute difference of the first two, weighted by pairs.
    quality
        Shape (10, 3), float64, by INFO/DR2 in equal intervals: mean, mean true r2 (NaN where
        empty), sites.
    counts
        What was scored and what was not: samples, scored sites, and the others by reason.
    notes
        What a reader should know before trusting the figures, one line each.
    phase
        How the phase of typed sites agrees, where both files have one.
    r2_without
        Shape (N, bins + 1), float64: r2 without each sample, by MAF bin and over all sites, in
        the order of the truth's samples; None unless it was asked for.
    """

    truth: str
    imputed: str
    panel: str
    contig: str
    first_bp: int
    last_bp: int
    bins: list[BinScores]
    overall: BinScores
    calibration: np.ndarray
    calibration_standard_error: np.ndarray
    calibration_error: float
    quality: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    phase: PhaseErrors | None = None
    r2_without: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything as lists, numbers and text for JSON; None where a figure is undefined.

        Of the jackknife it has ``r2_standard_error``, where it was asked for.
        """
        figures = {item.name: getattr(self, item.name) for item in fields(self)}
        del figures["r2_without"]
        if self.r2_without is not None:
            figures["r2_standard_error"] = standard_error(self.r2_without)
        out: dict[str, Any] = _plain(figures)
        return out

    def record_row(self) -> tuple[str, str]:
        """What became of the truth's records: counts behind the colon add up to those before."""
        counts = self.counts
        told = [f"{counts[key]:,} {words}" for key, words in _FATES.items() if counts.get(key)]
        more = counts["truth_further_alts"]
        whole = f"{counts['truth_records']:,}" + (f" with {more:,} further ALTs" if more else "")
        return "truth records", f"{whole}: {', '.join(told)}"

    def table(self) -> list[list[str]]:
        """A header, a row for each MAF bin and one of all sites; "-" where undefined.

        r2 and concordance are over all sites; mean site r2 and mean DR2 over those where the truth
        varies, whose number stands before them. The standard error of r2, "±", stands behind it,
        where it was asked for.
        """
        rows = [["MAF", "sites", "r2", "varying", "their r2", "their DR2", "concordance"]]
        errors = None if self.r2_without is None else standard_error(self.r2_without)
        if errors is not None:
            rows[0].insert(3, "±")
        for i, row in enumerate([*self.bins, self.overall]):
            low = f"{row.maf_low:g} - " if row.label != "all" else ""
            name = "all" if row.label == "all" else f"{low}{row.maf_high:g}"
            digits = 5 if row.label == "all" else 4
            of_all = [f"{row.num_sites:,}", _text(row.r2, digits)]
            of_all += [] if errors is None else [_text(float(errors[i]), digits)]
            varying = [f"{row.num_varying:,}", _text(row.mean_site_r2), _text(row.mean_dr2)]
            rows.append([name, *of_all, *varying, _text(row.concordance)])
        return rows


class Sums:
    """Everything that is added up over blocks of sites.

    Parameters
    ----------
    by_sample
        How many samples there are, if their sums are kept apart for the jackknife; else None.
    """

    def __init__(self, by_sample: int | None = None) -> None:
        self.r2 = R2Accumulator()
        self.by_sample = None if by_sample is None else SampleSums(by_sample)
        self.calibration = CalibrationAccumulator()
        self.right = np.zeros(len(MAF_BINS))
        self.carriers = np.zeros(len(MAF_BINS))

    def add(
        self, dosage: np.ndarray, truth: np.ndarray, maf: np.ndarray, ploidy: np.ndarray
    ) -> np.ndarray:
        """Add a block (m, N), counted in the minor allele; returns its site r2."""
        self.r2.update(dosage, truth, maf)
        if self.by_sample is not None:
            self.by_sample.update(dosage, truth, maf)
        group = maf_bin(maf)
        group = np.where(group < 0, len(MAF_BINS) - 1, group)
        best = np.rint(dosage)
        carrier = ~np.isnan(truth) & ((best > 0) | (truth > 0))
        np.add.at(self.carriers, group, carrier.sum(axis=1))
        np.add.at(self.right, group, (carrier & (best == truth)).sum(axis=1))
        share = truth / ploidy
        self.calibration.update(dosage / ploidy, np.where(np.isnan(share), -1, share))
        return site_r2(dosage, truth)

    def bin_scores(
        self, site: np.ndarray, dr2: np.ndarray, maf: np.ndarray
    ) -> tuple[list[BinScores], BinScores]:
        """Figures of each MAF bin and of all sites; true r2 and DR2, shape (M,), of every site."""
        binned = self.r2.result()
        checked = calibrate_quality(dr2, site, maf)
        group = maf_bin(maf)
        right = np.append(self.right[:-1], self.right.sum())
        carriers = np.append(self.carriers[:-1], self.carriers.sum())
        concordance = np.divide(
            right, carriers, out=np.full(len(right), np.nan), where=carriers > 0
        )
        rows = []
        for i, label in enumerate([*binned.labels(), "all"]):
            last = label == "all"
            here = site if last else site[group == i]
            here = here[~np.isnan(here)]
            rows.append(
                BinScores(
                    label=label,
                    maf_low=0.0 if last else binned.edges[i],
                    maf_high=binned.edges[-1] if last else binned.edges[i + 1],
                    num_sites=binned.num_sites_all if last else int(binned.num_sites[i]),
                    num_varying=len(here),
                    r2=binned.all if last else float(binned.r2[i]),
                    mean_site_r2=float(here.mean()) if len(here) else float("nan"),
                    mean_dr2=float(checked.mean_estimated[i]),
                    true_r2=float(checked.mean_true[i]),
                    dr2_correlation=float(checked.correlation[i]),
                    concordance=float(concordance[i]),
                )
            )
        return rows[:-1], rows[-1]


def quality_curve(dr2: np.ndarray, site: np.ndarray) -> np.ndarray:
    """Mean DR2, mean true r2 and number of sites by interval of DR2."""
    accumulator = CalibrationAccumulator(_QUALITY_BINS)
    accumulator.update(dr2, np.where(np.isnan(site), -1, site))
    return accumulator.result()


def _text(value: float, digits: int = 4) -> str:
    """A figure, or "-" where undefined."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(value: Any) -> Any:
    """Arrays, dataclasses and NaN as JSON can hold them."""
    if isinstance(value, BinScores):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, PhaseErrors):
        return value.as_dict()
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
