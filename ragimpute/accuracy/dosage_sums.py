"""Sums over haplotypes from which AF and DR2 follow, for one batch of samples or several."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.accuracy.dr2_calibration import Dr2Calibration
from ragimpute.kernels.compile import inlined_reordered, kernel

# Below this, P(ALT) does not vary but by rounding.
_CONSTANT = 1e-12


@dataclass(frozen=True)
class DosageSums:
    """What is known of P(ALT) at m sites.

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
        """Shape (m,), float32, as :func:`ragimpute.accuracy.metrics.estimated_r2` has it."""
        total = self.between + self.within
        r2 = np.divide(self.between, total, out=np.zeros_like(total), where=total > 1e-9 * self.num)
        r2[r2 < _CONSTANT] = 0
        out: np.ndarray = np.clip(r2, 0, 1).astype(np.float32)
        return out

    def dr2(self, calibration: Dr2Calibration, typed: np.ndarray) -> np.ndarray:
        """INFO/DR2, shape (m,), float32.

        Parameters
        ----------
        calibration
            What corrects :attr:`estimated_r2` at untyped sites.
        typed
            Shape (m,), bool: what was observed stands as it is.
        """
        estimate = self.estimated_r2
        corrected = calibration.apply(estimate, self.maf * self.num, self.num)
        return np.where(typed, estimate, corrected)

    def info(self, calibration: Dr2Calibration, typed: np.ndarray) -> dict[str, np.ndarray]:
        """The INFO fields that hold them, float32, each of shape (m,); see :meth:`dr2`."""
        columns = {
            "AF": self.af,
            "MAF": self.maf,
            "DR2": self.dr2(calibration, typed),
            "AN": self.num,
            "PSSD": self.between,
            "PVAR": self.within,
        }
        return {name: values.astype(np.float32) for name, values in columns.items()}


@inlined_reordered
def _add_row(prob):
    """Count, sum and sum of squares of a row but for NaN."""
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
    """Count, sum and sum of squares of each row of (m, n) but for NaN."""
    for i in range(prob.shape[0]):
        num[i], total[i], squares[i] = _add_row(prob[i])
