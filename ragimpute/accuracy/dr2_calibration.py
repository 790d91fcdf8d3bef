"""DR2 as users read it: the estimate that posteriors imply, corrected by what left-out samples say.

The estimate var(p) / (mean p (1 - mean p)) is that of a site whether its alleles are there or not.
The squared correlation that a user could measure exists only where the truth varies among the
targets, and given that, it is larger at rare sites: where one haplotype holds most of the E minor
alleles that are expected (E < 1), it is about sqrt(estimate / E). On top of that, posteriors are
not perfect. So the logit of the mean true r2 is fitted as a sum of a few terms, of the estimate,
of E, of both and of the number of targets, on samples that were left out of panels (``dr2_fit``);
it grows with the estimate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ragimpute.errors import ModelError

#: The terms of the sum; see :func:`terms`.
TERMS = ("one", "given_one", "estimate", "few", "log_alleles", "few_of_many")
HEADER_KEY = "ragimpute_dr2"
FILE = "dr2.json"
_VERSION = "2"
# The terms that grow with the estimate: their coefficients are >= 0, so that DR2 does too.
_GROWING = (1, 2)
# Of fewer haplotypes the estimate is mostly noise, and r2 has hardly a meaning: as it is.
MIN_HAPLOTYPES = 20
# Expected minor alleles below this tell no more: dosages so small are rounding and prior.
_LEAST_ALLELES = 0.05
# An allele that is expected once is rarer, and imputed worse, among many haplotypes than among few;
# beyond these numbers nothing was measured.
_MANY, _NUM_RANGE = 200.0, (20.0, 1000.0)
_EDGE = 1e-4  # the logit is taken of values within [_EDGE, 1 - _EDGE]
_STEPS = 60


def _logit(p: np.ndarray) -> np.ndarray:
    """ln(p / (1 - p)), finite."""
    kept = np.clip(p, _EDGE, 1 - _EDGE)
    out: np.ndarray = np.log(kept) - np.log1p(-kept)
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
    Shape (m, len(TERMS)), float64: 1; the logit of r2 given that an allele is there, estimate^(1 -
    w / 2) / E^(w / 2) with w = 1 / (1 + E), so that it is sqrt(estimate / E) for small E and the
    estimate for large E; the logit of the estimate; w; ln(1 + E); w ln(n / 200).
    """
    raw = np.clip(np.asarray(estimate, np.float64), 0, 1)
    e = np.maximum(np.asarray(minor, np.float64), _LEAST_ALLELES)
    few = 1 / (1 + e)
    with np.errstate(divide="ignore"):
        given = np.exp((1 - few / 2) * np.log(raw) - few / 2 * np.log(e))
    many = np.log(np.clip(np.asarray(num, np.float64), *_NUM_RANGE) / _MANY)
    return np.column_stack(
        [np.ones_like(raw), _logit(given), _logit(raw), few, np.log1p(e), few * many]
    )


@dataclass(frozen=True)
class Dr2Calibration:
    """How DR2 follows from what posteriors imply; without coefficients it is the same.

    Attributes
    ----------
    coefficients
        One for each of ``TERMS``, or none.
    provenance
        What it was fitted on.
    """

    coefficients: tuple[float, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def apply(self, estimate: np.ndarray, minor: np.ndarray, num: np.ndarray) -> np.ndarray:
        """DR2 of m sites.

        Parameters
        ----------
        estimate, minor, num
            See :func:`terms`.

        Returns
        -------
        Shape (m,), float32, in [0, 1], not decreasing with the estimate: 0 where that is 0, and
        the estimate itself where there are fewer than ``MIN_HAPLOTYPES``.
        """
        raw = np.clip(np.asarray(estimate, np.float64), 0, 1)
        if not self.coefficients:
            return raw.astype(np.float32)
        x = terms(raw, minor, num) @ np.array(self.coefficients)
        corrected = 0.5 * (1 + np.tanh(x / 2))
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
        """What a VCF's header says; nothing of it, or of another version: no correction."""
        for line in text.splitlines():
            if line.startswith(f"##{HEADER_KEY}="):
                version, *values = line.partition("=")[2].strip().split(":")
                if version == _VERSION and len(values) == len(TERMS):
                    return cls(tuple(float(value) for value in values))
        return cls()

    def as_json(self) -> str:
        """What :meth:`read` reads."""
        about = {
            "version": _VERSION,
            "coefficients": dict(zip(TERMS, self.coefficients, strict=True)),
            "provenance": dict(self.provenance),
        }
        return json.dumps(about, indent=2) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Dr2Calibration:
        """That of a model's folder; without its file, no correction.

        Raises
        ------
        ModelError
            If the file is damaged, or of another version.
        """
        path = folder / FILE
        if not path.is_file():
            return cls()
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["version"] != _VERSION or set(about["coefficients"]) != set(TERMS):
                raise ValueError(f"it is of version {about['version']}, not {_VERSION}")
            values = tuple(float(about["coefficients"][name]) for name in TERMS)
            if not np.isfinite(values).all() or min(values[i] for i in _GROWING) < 0:
                raise ValueError("its coefficients are amiss")
            return cls(values, about.get("provenance", {}))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(
                f"{path} cannot be read: {error}", hint="copy the model folder again"
            ) from error


def fit_calibration(
    estimate: np.ndarray,
    minor: np.ndarray,
    num: np.ndarray,
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
    true
        Shape (m,), squared correlation of dosage with truth, in [0, 1].
    weight
        Shape (m,), > 0: in sites.
    prior
        Coefficients to stay close to where there are few sites; none: the estimate as it is.
    ridge
        Half of it, times the squared distance from the prior, counts against log likelihood; > 0.

    Returns
    -------
    One for each of ``TERMS``; those of terms that grow with the estimate are >= 0.

    References
    ----------
    Papke & Wooldridge 1996: quasi-likelihood of fractional outcomes; by Newton's method.
    """
    counts = np.asarray(estimate) > 0
    x, y = terms(estimate, minor, num)[counts], np.asarray(true, np.float64)[counts]
    w = np.asarray(weight, np.float64)[counts]
    start = np.array(prior or [float(name == "estimate") for name in TERMS])
    free = np.ones(len(TERMS), bool)
    while True:
        found = _maximise(x, y, w, start, free, ridge)
        negative = [i for i in _GROWING if found[i] < 0]
        if not negative:
            return tuple(found.tolist())
        free[negative] = False
        start = np.where(free, start, 0.0)


def _maximise(
    x: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    start: np.ndarray,
    free: np.ndarray,
    ridge: float,
) -> np.ndarray:
    """Penalised quasi-likelihood's maximum over the free coefficients; the others stay."""

    def loss(b: np.ndarray) -> float:
        z = x @ b
        return float(w @ (np.logaddexp(0, z) - y * z) + ridge / 2 * ((b - start) ** 2).sum())

    b, value = start.copy(), loss(start)
    for _ in range(_STEPS):
        p = 0.5 * (1 + np.tanh(x @ b / 2))
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
