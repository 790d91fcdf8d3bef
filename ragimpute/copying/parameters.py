"""Parameters of Li-Stephens copying, and the switch probabilities that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

# A pair (haplotype, site) is in doubt if its less probable allele is more probable than this.
DOUBT = 0.01


@dataclass(frozen=True)
class CopyingParameters:
    """Parameters of the copying model for one panel and one set of typed sites.

    Attributes
    ----------
    switch_rate
        Changes of the copied haplotype per cM, > 0: ``4 * ne / (100 * num_haplotypes)``.
    mismatch_prob
        Probability that a typed allele differs from the copied one, in (0, 0.5).
    site_mismatch_prob
        Shape (T,), float32, in (0, 0.5): the mismatch probability of each typed site of one
        window. None: ``mismatch_prob`` holds for all.
    """

    switch_rate: float
    mismatch_prob: float
    site_mismatch_prob: np.ndarray | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.switch_rate > 0 or not 0 < self.mismatch_prob < 0.5:
            raise ValueError(
                f"switch_rate {self.switch_rate} must be > 0 and mismatch_prob "
                f"{self.mismatch_prob} in (0, 0.5)"
            )

    @classmethod
    def from_ne(cls, ne: float, mismatch_prob: float, num_haplotypes: int) -> CopyingParameters:
        """Parameters from an effective diploid population size and the full panel's size."""
        return cls(4 * ne / (100 * num_haplotypes), mismatch_prob)

    def mismatch_probs(self, num_typed: int) -> np.ndarray:
        """The mismatch probability of each typed site: shape (T,), float32."""
        each = self.site_mismatch_prob
        if each is None:
            return np.full(num_typed, self.mismatch_prob, np.float32)
        if each.shape != (num_typed,):
            raise ValueError(f"{len(each)} mismatch probabilities for {num_typed} typed sites")
        return np.ascontiguousarray(each, np.float32)

    def scaled(self, fitted: int, num_haplotypes: int) -> CopyingParameters:
        """The same ne in a larger panel, if these parameters are for ``fitted`` haplotypes."""
        if fitted == num_haplotypes:
            return self
        return replace(self, switch_rate=self.switch_rate * fitted / num_haplotypes)

    def ne(self, num_haplotypes: int) -> float:
        """The effective population size that this switch rate stands for."""
        return self.switch_rate * 100 * num_haplotypes / 4


def switch_probs(position_cm: np.ndarray, *, switch_rate: float) -> np.ndarray:
    """Probability that the copied haplotype changes before each typed site.

    Parameters
    ----------
    position_cm
        Shape (T,), float64, cM, non-decreasing.
    switch_rate
        Changes per cM, > 0.

    Returns
    -------
    Shape (T,), float32, in [0, 1]. Entry 0 is 1: before the first typed site all states are equally
    likely.

    Raises
    ------
    ValueError
        If ``position_cm`` decreases.
    """
    gap = np.diff(position_cm)
    if (gap < 0).any():
        raise ValueError("position_cm decreases")
    # Between typed sites at the same position a switch stays possible, with probability 1e-7: with
    # 0 a state that mismatches could not be left there.
    rho = np.maximum(-np.expm1(-switch_rate * gap), 1e-7)
    return np.concatenate([np.ones(min(1, len(position_cm))), rho]).astype(np.float32)
