"""By how much rare alleles of the panel's left-out samples are imputed better than usual.

How good dosages are at a site follows from the posteriors of the targets only in part. Where people
of one village share long stretches, as in panels of many small populations, a rare allele that is
there is found more often than the same posteriors mean elsewhere. Samples of the panel that were
left out show it: their posteriors imply an r2, as those of all panels do on average, and their own
alleles say what it truly is. DR2 takes in the difference (:mod:`ragimpute.accuracy.dr2`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ragimpute.accuracy.dr2 import few_of, logistic, panel_terms, terms

# The logit of the r2 that left-out samples have after Li-Stephens copying, as a sum of the terms of
# accuracy.dr2: those of the estimate, and those of the panel times w, of the haplotypes of the
# panel without w. ``calibrate`` of packaging/make_weights.py fits and prints them.
# The dr2.json of a model is fitted with these: renew both or none. With the panels of other species
# that today's weights have seen, they are .2730, .1474, .7408, -2.7868, .0152, -.2320, 4.4165,
# .3832, .1421 and .0083. Then the excess of 20 runs on ten data sets is less by .027 on average,
# which dr2.json would take back, with a standard deviation of .022: .0035 of DR2 where alleles are
# rarest, and nothing elsewhere. No dosage depends on it.
USUAL = (
    0.2250, 0.2224, 0.6879, -2.8014, 0.0227, -0.1894, 4.2276, 0.4124, 0.1273, 0.0069,
)  # fmt: skip
_PRIOR = 10.0  # weight, in sites of r2 one half that have few alleles, of there being no excess


@dataclass(frozen=True)
class LeftOutR2:
    """How well left-out samples are imputed at m untyped sites whose minor allele some of them has.

    Attributes
    ----------
    estimate, minor
        Shape (m,): see :func:`ragimpute.accuracy.dr2.terms`; the targets are the left-out samples.
    num
        Their haplotypes, > 0.
    copies
        Shape (m,), > 0: copies of the minor allele among the others.
    num_haplotypes
        Haplotypes of the panel, > 0.
    true
        Shape (m,), in [0, 1]: squared correlation of dosage and truth.
    """

    estimate: np.ndarray
    minor: np.ndarray
    num: int
    copies: np.ndarray
    num_haplotypes: int
    true: np.ndarray

    def terms(self) -> np.ndarray:
        """The terms of ``USUAL``, shape (m, 10)."""
        of_panel = panel_terms(0.0, self.copies, self.num_haplotypes)[:, 1:]
        of_targets = terms(self.estimate, self.minor, np.full(len(self.true), self.num))
        return np.hstack([of_targets, few_of(self.minor)[:, None] * of_panel, of_panel[:, 1:]])

    @property
    def rare_excess(self) -> float:
        """By how much rare alleles are imputed better than usual, on the scale of the logit.

        It is sum w (true - p) / (sum w p (1 - p) + prior), where p is the usual r2: one Newton step
        of the logistic regression of the true r2 on w; 0 without sites.
        """
        p = logistic(self.terms() @ np.array(USUAL))
        few = few_of(self.minor)
        return float(np.sum(few * (self.true - p)) / (np.sum(few * p * (1 - p)) + _PRIOR))
