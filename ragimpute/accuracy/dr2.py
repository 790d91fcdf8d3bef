"""AF and DR2 of imputed sites: sums over haplotypes, the estimate of r2, and its correction.

:class:`DosageSums` adds up P(ALT) over one batch of samples or several, and estimates r2 as
var(p) / (mean p (1 - mean p)). :class:`Dr2Calibration` corrects this estimate, for two reasons.
A user can measure r2 only at sites where the truth varies among the targets, and there it is
larger than the estimate if the allele is rare: where one haplotype holds most of the E expected
minor alleles (E < 1), it is about sqrt(estimate / E). And posteriors are not perfect. So DR2 is
fitted to the true r2 of samples that were left out of panels (``dr2_fit``): the logit of the mean
true r2 is a sum of a few terms, of the estimate, of E, of both, of the number of targets, and of
what the panel lets one expect of rare alleles. DR2 never decreases where the estimate increases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.accuracy.coefficients import Coefficients, read_coefficients
from ragimpute.kernels.compile import inlined_reordered, kernel

#: The terms of the sum that targets give, and those that the panel gives; see :func:`terms` and
#: :func:`panel_terms`.
TARGET_TERMS = ("one", "given_one", "estimate", "few", "log_alleles", "few_of_many", "few_squared")
PANEL_TERMS = ("few_excess", "few_copies", "few_of_panel")
TERMS = (*TARGET_TERMS, *PANEL_TERMS)
#: The INFO fields of :meth:`DosageSums.info`, and those of them that say how good dosages are.
QUALITY_INFOS = ("DR2", "R2", "INFO")
SUMS_INFOS = ("AF", "MAF", *QUALITY_INFOS, "AN", "PSSD", "PVAR")
#: The INFO fields that say what the panel lets one expect, see :class:`PanelExpectation`.
PANEL_INFOS = ("PR2", "PADJ")
HEADER_KEY = "ragimpute_dr2"
FILE = "dr2.json"
_VERSION = "3"
# The terms that grow with the estimate: their coefficients are >= 0, so that DR2 does too.
_GROWING = (1, 2)
# With fewer haplotypes the estimate is mostly noise, and so is a measured r2: no correction then.
MIN_HAPLOTYPES = 20
# Smaller expected numbers of minor alleles are taken for this: they are only rounding and prior.
_LEAST_ALLELES = 0.05
# An allele that is expected once is rarer among many haplotypes than among few, and so is imputed
# worse. Outside this range of haplotypes nothing was measured.
_MANY, _NUM_RANGE = 200.0, (20.0, 1000.0)
# The same of the panel: its haplotypes, and copies of the minor allele, beyond which no more is
# gained.
_MANY_OF_PANEL, _PANEL_RANGE, _MOST_COPIES = 1000.0, (100.0, 5000.0), 100.0
#: Numbers of target haplotypes up to which what the panel lets one expect has all of its weight,
#: and from which it has none; see :func:`blend`.
FEW_TARGETS = (40.0, 100.0)
_PRIOR_HAPLOTYPES = 4.0
_ADJUSTMENT_DIGITS = 3  # as io.vcf.header writes INFO/PADJ
_EDGE = 1e-4  # the logit is taken of values within [_EDGE, 1 - _EDGE]
_STEPS = 60
# A smaller share of variance in P(ALT) is nothing but rounding: P(ALT) is constant.
_CONSTANT = 1e-12


def _logit(p: np.ndarray) -> np.ndarray:
    """ln(p / (1 - p)), finite."""
    kept = np.clip(p, _EDGE, 1 - _EDGE)
    out: np.ndarray = np.log(kept) - np.log1p(-kept)
    return out


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    out: np.ndarray = 0.5 * (1 + np.tanh(x / 2))
    return out


def terms(estimate: np.ndarray, minor: np.ndarray, num: np.ndarray) -> np.ndarray:
    """The terms of each site's sum.

    Parameters
    ----------
    estimate
        Shape (m,), in [0, 1]: var(p) / (mean p (1 - mean p)).
    minor
        Shape (m,), >= 0: E, the expected minor alleles among the targets.
    num
        Shape (m,), > 0: n, the haplotypes of the targets.

    Returns
    -------
    Shape (m, len(TARGET_TERMS)), float64: 1; the logit of r2 given that an allele is there,
    estimate^(1 - w / 2) / E^(w / 2) with w = 1 / (1 + E), so that it is sqrt(estimate / E) for
    small E and the estimate for large E; the logit of the estimate; w; ln(1 + E); w ln(n / 200);
    w^2.
    """
    raw = np.clip(np.asarray(estimate, np.float64), 0, 1)
    e = np.maximum(np.asarray(minor, np.float64), _LEAST_ALLELES)
    few = few_of(minor)
    with np.errstate(divide="ignore"):
        given = np.exp((1 - few / 2) * np.log(raw) - few / 2 * np.log(e))
    many = np.log(np.clip(np.asarray(num, np.float64), *_NUM_RANGE) / _MANY)
    return np.column_stack(
        [np.ones_like(raw), _logit(given), _logit(raw), few, np.log1p(e), few * many, few**2]
    )


def few_of(minor: np.ndarray) -> np.ndarray:
    """w = 1 / (1 + E) of each site, shape (m,), from E, shape (m,), >= 0."""
    out: np.ndarray = 1 / (1 + np.maximum(np.asarray(minor, np.float64), _LEAST_ALLELES))
    return out


def panel_terms(excess: float, copies: np.ndarray, num_haplotypes: int) -> np.ndarray:
    """The terms of each site that the panel gives, to be multiplied by w (:func:`few_of`).

    Parameters
    ----------
    excess
        By how much rare alleles of the panel's left-out samples are imputed better than usual, see
        :class:`ragimpute.evidence.rare_excess.LeftOutR2`.
    copies
        Shape (m,), >= 0: copies of the minor allele in the panel.
    num_haplotypes
        H of the panel, > 0.

    Returns
    -------
    Shape (m, len(PANEL_TERMS)), float64: ``excess``; the logarithm of the copies, of at most 100;
    ln(H / 1000).
    """
    log_copies = np.log(np.clip(np.asarray(copies, np.float64), 1, _MOST_COPIES))
    of_panel = np.log(np.clip(num_haplotypes, *_PANEL_RANGE) / _MANY_OF_PANEL)
    same = np.ones_like(log_copies)
    return np.column_stack([excess * same, log_copies, of_panel * same])


@dataclass(frozen=True)
class PanelExpectation:
    """What the panel lets one expect of m sites.

    Attributes
    ----------
    r2
        Shape (m,), float, in [0, 1]: the r2 of its left-out samples (INFO/PR2); NaN: not known.
    adjustment
        Shape (m,), float: what is added to the logit of DR2, times w (INFO/PADJ); see
        :meth:`Dr2Calibration.adjustment`.
    """

    r2: np.ndarray
    adjustment: np.ndarray

    def rows(self, rows: slice) -> PanelExpectation:
        """Some of the sites."""
        return PanelExpectation(self.r2[rows], self.adjustment[rows])


@dataclass(frozen=True)
class Dr2Calibration:
    """How DR2 follows from the estimate of r2; without coefficients, DR2 is the estimate.

    Attributes
    ----------
    coefficients
        One for each of ``TERMS``, or none.
    provenance
        What it was fitted on.
    """

    coefficients: tuple[float, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def adjustment(self, excess: float, copies: np.ndarray, num_haplotypes: int) -> np.ndarray:
        """What the panel adds to the logit of DR2, times w, shape (m,); see :func:`panel_terms`.

        It is rounded to the digits of INFO/PADJ, so that files that are merged have the DR2 of one
        run.
        """
        part = np.array(self.coefficients[len(TARGET_TERMS) :] or (0.0,) * len(PANEL_TERMS))
        out: np.ndarray = np.round(
            panel_terms(excess, copies, num_haplotypes) @ part, _ADJUSTMENT_DIGITS
        )
        return out

    def apply(
        self,
        estimate: np.ndarray,
        minor: np.ndarray,
        num: np.ndarray,
        adjustment: np.ndarray | float = 0.0,
    ) -> np.ndarray:
        """DR2 of m sites.

        Parameters
        ----------
        estimate, minor, num
            See :func:`terms`.
        adjustment
            Shape (m,): see :meth:`adjustment`.

        Returns
        -------
        Shape (m,), float32, in [0, 1], not decreasing with the estimate: 0 where that is 0, and
        the estimate itself where there are fewer than ``MIN_HAPLOTYPES``.
        """
        raw = np.clip(np.asarray(estimate, np.float64), 0, 1)
        if not self.coefficients:
            return raw.astype(np.float32)
        x = terms(raw, minor, num) @ np.array(self.coefficients[: len(TARGET_TERMS)])
        x += few_of(minor) * adjustment
        corrected = logistic(x)
        as_it_is = (raw == 0) | (np.asarray(num) < MIN_HAPLOTYPES)
        return np.where(as_it_is, raw, corrected).astype(np.float32)

    @property
    def header_lines(self) -> list[str]:
        """What a VCF's header says of it, so that batches of samples can be merged."""
        if not self.coefficients:
            return []
        return [f"##{HEADER_KEY}={_VERSION}:" + ":".join(f"{c!r}" for c in self.coefficients)]

    @classmethod
    def from_header(cls, text: str) -> Dr2Calibration:
        """The correction in a VCF's header; none if it has none, or one of another version."""
        for line in text.splitlines():
            if line.startswith(f"##{HEADER_KEY}="):
                version, *values = line.partition("=")[2].strip().split(":")
                if version == _VERSION and len(values) == len(TERMS):
                    return cls(tuple(float(value) for value in values))
        return cls()

    def as_json(self) -> str:
        """What :meth:`read` reads."""
        return Coefficients(self.coefficients, self.provenance).as_json(_VERSION, TERMS)

    @classmethod
    def read(cls, folder: Path) -> Dr2Calibration:
        """Read the correction in a folder; there is none if the folder lacks its file.

        Raises
        ------
        ModelError
            If the file is damaged, or of another version.
        """
        found = read_coefficients(
            folder / FILE, _VERSION, TERMS, lambda values: min(values[i] for i in _GROWING) >= 0
        )
        return cls() if found is None else cls(*found)


def few_samples_warning(num_samples: int, *, expects_r2: bool) -> str | None:
    """The warning for sites that are left out for their DR2 if the samples are few, or None.

    ``expects_r2``: whether DR2 takes in what the panel lets one expect.
    """
    if num_samples >= MIN_HAPLOTYPES / 2:
        return None
    if expects_r2:
        said = "DR2 rests on what left-out samples of the panel show (INFO/PR2)"
    else:
        said = "DR2 is mostly noise, and 0 where they are all alike"
    return f"--min-r2 with {num_samples} samples: of so few, {said}"


def blend(
    estimate: np.ndarray, expected: np.ndarray, minor: np.ndarray, num: np.ndarray
) -> np.ndarray:
    """What targets and panel together say of r2, each by its information.

    Among few haplotypes the estimate rests on the E minor alleles that they are expected to have,
    and where E is near 0, all being alike, on nothing. Its weight is E / (E + K). K is 4 / n, and
    falls to 0 from 40 haplotypes to 100, among which the absence of an allele says as much as the
    panel does.

    Parameters
    ----------
    estimate
        Shape (m,), in [0, 1]: from the targets, calibrated.
    expected
        Shape (m,), in [0, 1]: by the panel; NaN where it is not known, and the estimate stays.
    minor, num
        See :func:`terms`.

    Returns
    -------
    Shape (m,), float64, in [0, 1], not decreasing with either.
    """
    n = np.maximum(np.asarray(num, np.float64), 1)
    few, many = FEW_TARGETS
    share = np.clip(np.log(many / n) / np.log(many / few), 0, 1)
    other = np.where(np.isnan(expected), 0, share * _PRIOR_HAPLOTYPES / n)
    weight = np.divide(minor, minor + other, out=np.ones_like(n), where=other > 0)
    out: np.ndarray = weight * estimate + (1 - weight) * np.nan_to_num(expected)
    return out


def fit_calibration(
    estimate: np.ndarray,
    minor: np.ndarray,
    num: np.ndarray,
    panel: np.ndarray,
    true: np.ndarray,
    weight: np.ndarray,
    *,
    prior: Sequence[float] = (),
    ridge: float = 20.0,
) -> tuple[float, ...]:
    """Coefficients that bring DR2 to the mean true r2.

    Parameters
    ----------
    estimate, minor, num
        See :func:`terms`; sites of estimate 0 do not count.
    panel
        Shape (m, len(PANEL_TERMS)): see :func:`panel_terms`.
    true
        Shape (m,), squared correlation of dosage with truth, in [0, 1].
    weight
        Shape (m,), > 0: how many sites each counts for.
    prior
        Coefficients to stay close to where there are few sites; none: the estimate as it is.
    ridge
        Weight of the penalty, > 0: ``ridge / 2`` times the squared distance of the coefficients
        from the prior is subtracted from the log likelihood.

    Returns
    -------
    One for each of ``TERMS``; those of terms that grow with the estimate are >= 0.

    References
    ----------
    Papke & Wooldridge 1996: quasi-likelihood of fractional outcomes; by Newton's method.
    """
    counts = np.asarray(estimate) > 0
    x = np.hstack([terms(estimate, minor, num), few_of(minor)[:, None] * panel])[counts]
    y = np.asarray(true, np.float64)[counts]
    w = np.asarray(weight, np.float64)[counts]
    start = np.array(prior or [float(name == "estimate") for name in TERMS])
    free = np.ones(len(TERMS), bool)
    while True:
        found = maximise(x, y, w, start, free, ridge)
        negative = [i for i in _GROWING if found[i] < 0]
        if not negative:
            return tuple(found.tolist())
        free[negative] = False
        start = np.where(free, start, 0.0)


def maximise(
    x: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    start: np.ndarray,
    free: np.ndarray,
    ridge: float,
) -> np.ndarray:
    """Maximise the penalised quasi-likelihood of fractional outcomes.

    Parameters
    ----------
    x, y, w
        Terms (m, k), outcomes (m,) in [0, 1] and weights (m,) > 0 of the rows.
    start, free
        Shape (k,): coefficients to stay close to, and which of them may leave it.
    ridge
        See :func:`fit_calibration`.

    Returns
    -------
    The coefficients, shape (k,).
    """

    def loss(b: np.ndarray) -> float:
        z = x @ b
        return float(w @ (np.logaddexp(0, z) - y * z) + ridge / 2 * ((b - start) ** 2).sum())

    b, value = start.copy(), loss(start)
    for _ in range(_STEPS):
        p = logistic(x @ b)
        slope = (x.T @ (w * (y - p)) - ridge * (b - start))[free]
        curve = ((x * (w * p * (1 - p))[:, None]).T @ x)[np.ix_(free, free)]
        step = np.zeros_like(b)
        step[free] = np.linalg.solve(curve + ridge * np.eye(len(slope)), slope)
        while loss(b + step) > value and np.abs(step).max() > 1e-9:
            step /= 2
        b, before, value = b + step, value, loss(b + step)
        if before - value < 1e-9 * max(1.0, abs(before)):
            break
    return b


@dataclass(frozen=True)
class DosageSums:
    """Sums of P(ALT) over haplotypes at m sites, from which AF and DR2 follow.

    Attributes
    ----------
    num
        Shape (m,), float64: haplotypes (INFO/AN).
    af
        Shape (m,), float64: the mean of P(ALT); 0 where there is no haplotype.
    between
        Shape (m,), float64: sum of (P(ALT) - af)^2 (INFO/PSSD).
    within
        Shape (m,), float64: sum of P(ALT) (1 - P(ALT)) (INFO/PVAR).
    """

    num: np.ndarray
    af: np.ndarray
    between: np.ndarray
    within: np.ndarray

    @classmethod
    def of(cls, allele_prob: np.ndarray) -> DosageSums:
        """Sums of P(ALT), shape (m, n), in [0, 1]; NaN where a haplotype does not exist."""
        num = np.empty(len(allele_prob))
        total, squares = np.empty_like(num), np.empty_like(num)
        _add_up(np.ascontiguousarray(allele_prob), num, total, squares)
        af = total / np.maximum(num, 1)
        # In double precision the difference of the two is good to 1e-13 of a million haplotypes.
        between = np.maximum(squares - total * af, 0)
        return cls(num, af, between, np.maximum(total - squares, 0))

    def merged(self, other: DosageSums) -> DosageSums:
        """The sums of both batches together.

        References
        ----------
        Chan, Golub & LeVeque 1979: updating of sums of squares.
        """
        num = self.num + other.num
        safe = np.maximum(num, 1)
        step = other.af - self.af
        between = self.between + other.between + step**2 * self.num * other.num / safe
        return DosageSums(
            num, self.af + step * other.num / safe, between, self.within + other.within
        )

    @property
    def maf(self) -> np.ndarray:
        """Shape (m,), in [0, 0.5]."""
        out: np.ndarray = np.minimum(self.af, 1 - self.af)
        return out

    @property
    def estimated_r2(self) -> np.ndarray:
        """Squared correlation of dosage with truth, as estimated from posteriors alone.

        Shape (m,), float32, in [0, 1]: var(p) / (var(p) + mean p (1 - p)), which is
        var(p) / (mean p (1 - mean p)); 0 where p does not vary. This is Minimac's Rsq (Li et al.
        2010) over haplotypes (INFO/R2).
        """
        total = self.between + self.within
        r2 = np.divide(self.between, total, out=np.zeros_like(total), where=self._varies)
        r2[r2 < _CONSTANT] = 0
        out: np.ndarray = np.clip(r2, 0, 1).astype(np.float32)
        return out

    @property
    def _varies(self) -> np.ndarray:
        """Shape (m,), bool: whether ALT is neither impossible nor certain on all haplotypes."""
        out: np.ndarray = self.between + self.within > 1e-9 * self.num
        return out

    @property
    def info_score(self) -> np.ndarray:
        """IMPUTE's measure of information (INFO/INFO), shape (m,), float32, in [0, 1].

        1 - sum of Var(G) / sum of ploidy AF (1 - AF), over samples, where Var(G) is the posterior
        variance of a sample's ALT count; 1 where AF is 0 or 1. As P(ALT) of a sample's haplotypes
        are independent here, Var(G) is the sum of P(ALT) (1 - P(ALT)), and INFO equals
        :attr:`estimated_r2` wherever AF is neither 0 nor 1.

        References
        ----------
        Marchini & Howie 2010, "Genotype imputation for genome-wide association studies",
        supplementary information S3; AF 0 and 1 as bcftools +impute-info has them.
        """
        out: np.ndarray = np.where(self._varies, self.estimated_r2, np.float32(1))
        return out

    def dr2(
        self,
        calibration: Dr2Calibration,
        typed: np.ndarray,
        expected: PanelExpectation | None = None,
    ) -> np.ndarray:
        """INFO/DR2, shape (m,), float32.

        Parameters
        ----------
        calibration
            What corrects :attr:`estimated_r2` at untyped sites.
        typed
            Shape (m,), bool: what was observed stands as it is, and is 1 where every allele was.
        expected
            What the panel lets one expect of the sites; None: not known. :func:`blend` takes in
            its r2 where haplotypes are few.
        """
        estimate = self.estimated_r2
        minor = self.maf * self.num
        added = 0.0 if expected is None else np.nan_to_num(expected.adjustment.astype(np.float64))
        corrected = calibration.apply(estimate, minor, self.num, added)
        if expected is not None:
            corrected = blend(corrected, expected.r2.astype(np.float64), minor, self.num)
        observed = (self.within <= 1e-9 * self.num) & (self.num > 0)
        out: np.ndarray = np.where(typed, np.where(observed, 1, estimate), corrected)
        return out.astype(np.float32)

    def info(
        self,
        calibration: Dr2Calibration,
        typed: np.ndarray,
        expected: PanelExpectation | None = None,
    ) -> dict[str, np.ndarray]:
        """``SUMS_INFOS``, and ``PANEL_INFOS`` if given: float32, shape (m,); see :meth:`dr2`."""
        dr2 = self.dr2(calibration, typed, expected)
        columns = (
            self.af, self.maf, dr2, self.estimated_r2, self.info_score, self.num, self.between,
            self.within,
        )  # fmt: skip
        made = dict(zip(SUMS_INFOS, columns, strict=True))
        if expected is not None:
            made |= {"PR2": expected.r2, "PADJ": expected.adjustment}
        return {name: values.astype(np.float32) for name, values in made.items()}


@inlined_reordered
def _add_row(prob):
    """Count, sum and sum of squares of a row without its NaN."""
    count = 0
    total = 0.0
    squares = 0.0
    for j in range(prob.shape[0]):
        x = np.float64(prob[j])
        known = x == x
        p = x if known else 0.0
        count += known
        total += p
        squares += p * p
    return count, total, squares


@kernel
def _add_up(prob, num, total, squares):
    """Count, sum and sum of squares of each row of (m, n) without its NaN."""
    for i in range(prob.shape[0]):
        num[i], total[i], squares[i] = _add_row(prob[i])
