"""Choose the switch rate and the mismatch probability of phasing on the haplotypes at hand.

Some haplotypes are drawn of all that may be copied, of the panel and of the targets as they are
phased so far. What is maximised is the Li-Stephens likelihood of their typed alleles, each copied
from all haplotypes but those of its own sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ragimpute.copying.likelihood_kernel import TypedLikelihood
from ragimpute.copying.line_search import climb
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.kernels.bits import WORD

#: Switch rates per cM among which the best is sought.
RATES = (0.004, 100.0)
#: Mismatch probabilities among which the best is sought.
MISMATCH_PROBS = (1e-4, 2e-2)
#: Phasing is best with about this many times the likeliest rate: so it is in panels of humans,
#: cattle and simulated salmon.
TIMES_LIKELIEST = 2.0
# The likelihood of neighbouring alleles counts the same mistake many times, and phasing depends
# little on the mismatch probability. So the likelihood must gain this much to move it by e, and
# four times as much to move it by e squared.
_USUAL_MISMATCH, _PRIOR = 1e-3, 8.0
_MAX_DRAWN, _MAX_HAPLOTYPES, _MAX_WORDS = 32, 1000, 16


@dataclass(frozen=True)
class FitChoice:
    """What is to be chosen on the data: ``rate`` and ``mismatch``; the rest is given by the user.

    Attributes
    ----------
    rate, mismatch
        Whether to choose the switch rate, and the mismatch probability.
    """

    rate: bool = True
    mismatch: bool = True

    def __bool__(self) -> bool:
        return self.rate or self.mismatch


@dataclass
class ParametersToFit:
    """Parameters that phasing fits anew as it goes on.

    Attributes
    ----------
    parameters
        Those of now, for a panel of the size of ``haplotype_sample``.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype of the panel belongs to.
    choice
        What is fitted.
    """

    parameters: CopyingParameters
    haplotype_sample: np.ndarray
    choice: FitChoice = FitChoice()

    def fit(
        self,
        words: np.ndarray,
        position_cm: np.ndarray,
        target_group: np.ndarray,
        *,
        seed: int = 1,
    ) -> None:
        """Fit the parameters to the panel, and to targets that stand behind it.

        Parameters
        ----------
        words, position_cm, seed
            See :func:`fit_copied`; the haplotypes of the panel, then two for each target.
        target_group
            Shape (n,), int, >= 0: for each target a number that it shares with its duplicates.
        """
        num_panel, num_all = len(self.haplotype_sample), words.shape[1]
        sample = np.unique(self.haplotype_sample, return_inverse=True)[1].ravel()
        everyone = np.concatenate([sample, num_panel + np.repeat(target_group, 2)])
        rate = self.parameters.switch_rate * num_panel / num_all
        start = replace(self.parameters, switch_rate=rate)
        found = fit_copied(words, position_cm, everyone, start, choice=self.choice, seed=seed)
        self.parameters = replace(found, switch_rate=found.switch_rate * num_all / num_panel)


def fit_copied(
    words: np.ndarray,
    position_cm: np.ndarray,
    haplotype_sample: np.ndarray,
    start: CopyingParameters,
    *,
    choice: FitChoice = FitChoice(),
    seed: int = 1,
) -> CopyingParameters:
    """Find the parameters with which haplotypes copy each other best for phasing.

    At most 32 haplotypes are copied from at most 1,000, over at most 512 typed sites in the middle.
    As the best rate is proportional to 1 / H, it is then scaled to the number of haplotypes.

    Parameters
    ----------
    words
        Shape (W, H), uint32: alleles at T typed sites, one bit for each, ``WORD`` sites to a word.
    position_cm
        Shape (T,), float64, cM, non-decreasing.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to. Haplotypes of one group, such as
        a person who was typed twice, may share a number.
    start
        Where the search begins; the rate is for all H haplotypes.
    choice
        What is to be chosen.
    seed
        Seed for drawing haplotypes.

    Returns
    -------
    The parameters, for all H haplotypes; ``start`` if there are fewer than two typed sites or
    two samples, or if there is nothing to choose.
    """
    num_haplotypes = words.shape[1]
    if not choice or len(position_cm) < 2 or len(np.unique(haplotype_sample)) < 2:
        return start
    first = max(0, (len(words) - _MAX_WORDS) // 2)
    here = slice(first * WORD, (first + _MAX_WORDS) * WORD)
    cm = position_cm[here]
    rng = np.random.default_rng(seed)
    pool = rng.permutation(num_haplotypes)[:_MAX_HAPLOTYPES]
    drawn = pool[:_MAX_DRAWN]
    sample = haplotype_sample[pool]
    few = np.ascontiguousarray(words[first : first + _MAX_WORDS, pool])
    states = [np.flatnonzero(sample != haplotype_sample[h]).astype(np.int32) for h in drawn]
    target = np.ascontiguousarray(few[:, : len(drawn)].T)
    observed = np.full(target.shape, 2**WORD - 1, np.uint32)
    copied = TypedLikelihood(few, cm, target, observed, states)

    def likelihood(rate: float, mismatch: float) -> float:
        return float(sum(copied.at(rate, mismatch).tolist()))

    to_few = num_haplotypes / len(pool)
    times = TIMES_LIKELIEST if choice.rate else 1.0
    low, high = np.log(np.array(RATES) * to_few / TIMES_LIKELIEST)
    log_rate = float(np.log(start.switch_rate * to_few / times))
    log_err = float(np.log(start.mismatch_prob))

    def best_rate(mismatch: float, near: float, step: float) -> float:
        return climb(
            lambda x: likelihood(np.exp(x), mismatch), near, low, high, step=step, tolerance=0.2
        )

    mismatch = _USUAL_MISMATCH if choice.mismatch else start.mismatch_prob
    if choice.rate:
        log_rate = best_rate(mismatch, log_rate, 1.0)
    if choice.mismatch:
        usual = float(np.log(_USUAL_MISMATCH))
        ends = np.log(MISMATCH_PROBS)
        log_err = climb(
            lambda x: likelihood(np.exp(log_rate), np.exp(x)) - _PRIOR * (x - usual) ** 2,
            usual, float(ends[0]), float(ends[1]), step=1.0, tolerance=0.3,
        )  # fmt: skip
        if choice.rate:
            log_rate = best_rate(float(np.exp(log_err)), log_rate, 0.5)
    return replace(
        start,
        switch_rate=float(np.exp(log_rate)) * times / to_few if choice.rate else start.switch_rate,
        mismatch_prob=float(np.exp(log_err)) if choice.mismatch else start.mismatch_prob,
    )
