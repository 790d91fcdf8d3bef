"""Choose the copying model's parameters by leaving panel haplotypes out and imputing them.

The likelihood of the *typed* alleles is largest at too low a switch rate: on 1000 Genomes data at a
third to an eighth of the rate that gives the best r2 at untyped sites, which costs .0004 to .002 of
r2. So what is maximised here is the likelihood of the *untyped* alleles, which imputation is for.

Nothing here knows a species. Among the panels that were tried, the best rate is .06 per cM in 400
haplotypes of a population of ne 500, and above 40 in 200 haplotypes of one of ne 300,000.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.line_search import climb
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.shared_states import SharedStates
from ragimpute.copying.states import is_copied_whole, retriever_for, states_without_own
from ragimpute.copying.window import Window
from ragimpute.panel.haplotypes import (
    drawing_order,
    haplotype_columns,
    keep_haplotypes,
    select_sites,
)
from ragimpute.runtime.stages import Stage

if TYPE_CHECKING:
    from ragimpute.retrieval.retriever import Retriever

#: Range of the switch rate, per cM, for a panel of 2,000 haplotypes or fewer.
SWITCH_RATES = (0.004, 100.0)
#: Range of the mismatch probability.
MISMATCH_PROBS = (1e-5, 0.1)
_FLOOR = 1e-4


class _Prior(NamedTuple):
    """What is thought of switch rate and mismatch probability before the panel is seen.

    Two amounts are taken off the logarithm of the likelihood: ``weight`` times the square of the
    number of doublings between a rate and ``centre``, and ``of_mismatch`` times the square of the
    number of steps between a mismatch probability and the usual one.
    """

    centre: float
    weight: float
    of_mismatch: float


# In a panel that is copied whole, the likelihoods of one rate and of twice that rate differ by 10
# to 10,000 units. The prior only keeps the rate away from the ends of the range where hardly any
# allele is in doubt.
_PRIOR_OF_WHOLE = _Prior(1.6, 0.1, 0.0)
# In large panels the likelihood depends little on the rate: from far below the best rate to twice
# that, it falls by only a few units. There the prior decides: it is the rate that fits ne 3.2e5.
# It may not depend on the mismatch probability at all: from 1e-5 to 0.1, it changes by .1 to .5
# units in 20,000 simulated haplotypes. Without a prior the search goes to either end of the range.
_PRIOR_OF_LARGE = _Prior(6.4, 1.0, 0.1)
_USUAL_MISMATCH = 1e-3
# Haplotypes that are left out; in large panels, where a haplotype takes longer to copy, fewer. The
# likelihood of these is then multiplied up to that of NUM_LEFT_OUT, so that the prior counts as
# much.
NUM_LEFT_OUT, NUM_LEFT_OUT_OF_LARGE = 96, 32
# The search begins with so many of the left-out haplotypes (a group of SIMD lanes), in coarse steps
# of the rate, and goes on with all of them in finer steps.
_FEW_HAPLOTYPES = 16
_COARSE_STEP, _RATE_STEP = math.log(4), math.log(2)
_MISMATCH_STEP = math.log(10) / 2
# So many pairs of rate and mismatch probability are tried, about; only progress bars use it.
_USUAL_TRIALS = 9
# Two samples are clones if their alleles differ at less than this share of the sites at which two
# samples usually differ. In a window shorter than _CLONE_CM, samples that have a recent ancestor in
# common look the same. If a sample has more than _MOST_CLONES, targets may have them, too.
_CLONE_DIFFERENCES = 0.02
_MOST_CLONES = 3
_CLONE_CM = 10.0


def num_typed_to_fit(num_haplotypes: int) -> int:
    """How many typed sites in the middle of a window :func:`fit_panel` uses.

    In panels from which states are retrieved, matches are long, and it takes more typed sites to
    tell good states from others.
    """
    return 512 if is_copied_whole(num_haplotypes) else 1024


def left_out_probs(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    *,
    states: Callable[[int], np.ndarray] | SharedStates,
    threads: int = 1,
) -> np.ndarray:
    """Probability of the untyped alleles of panel haplotypes, imputed without their own sample.

    Parameters
    ----------
    window
        The panel at T typed and M sites.
    alleles
        Shape (M, n), int8: true alleles of the haplotypes left out.
    parameters
        Switch rate for these states, and mismatch probability.
    states, threads
        See :func:`ragimpute.copying.copy.copy_haplotypes`; none are of haplotype i's own sample.

    Returns
    -------
    Shape (n, M - T), float32.
    """
    typed = alleles[window.typed_index]
    prob = copy_haplotypes(window, typed, parameters, states=states, threads=threads)
    true = alleles.T
    untyped = np.ones(window.num_sites, bool)
    untyped[window.typed_index] = False
    hit: np.ndarray = np.where(true == 1, prob, 1 - prob)[:, untyped]
    return hit


def log_likelihood(hit: np.ndarray) -> float:
    """Sum of ln P over alleles whose probabilities are ``hit``.

    Probabilities are clipped to [0.0001, 0.9999], so that no single unexpected allele at a rare
    site dominates the sum.
    """
    return float(np.log(np.clip(hit, _FLOOR, 1 - _FLOOR), dtype=np.float64).sum())


def _left_out(
    window: Window,
    index: np.ndarray,
    typed_index: np.ndarray,
    haplotype_sample: np.ndarray,
    *,
    num_left_out: int,
    max_states: int,
    retriever: Retriever | None,
    seed: int,
    threads: int,
) -> tuple[Window, np.ndarray, Callable[[int], np.ndarray]]:
    """Draw haplotypes to leave out; return a window to impute them in, their alleles and states.

    The window has the sites at ``index``, of which those at ``typed_index`` are typed.
    ``retriever`` finds states by these typed sites; None: one is made if the panel is not copied
    whole. A panel that is copied whole is thinned to about ``max_states`` haplotypes.
    """
    num_panel = window.typed.num_haplotypes
    left_out = np.sort(drawing_order(window.signature, seed)[:num_left_out])
    haplotypes = select_sites(window.haplotypes, index)
    position_cm = window.position_cm[index]
    if is_copied_whole(num_panel):
        pool = np.sort(drawing_order(window.signature, seed + 1)[:max_states])
        # Drop all other haplotypes: kernels would have to skip their alleles at every site.
        asked = np.zeros(num_panel, bool)
        asked[left_out] = asked[pool] = True
        number = np.cumsum(asked) - 1
        few = Window.build(keep_haplotypes(haplotypes, asked), position_cm, typed_index)

        kept_sample = haplotype_sample[asked]
        alleles = haplotype_columns(few.haplotypes, number[left_out]).T
        forbidden = clones(few, kept_sample, haplotype_sample[left_out])

        def states(i: int) -> np.ndarray:
            others = number[pool]
            out: np.ndarray = others[~np.isin(kept_sample[others], forbidden[i])].astype(np.int32)
            return out[None]

        return few, alleles, states
    small = Window.build(haplotypes, position_cm, typed_index)
    alleles = haplotype_columns(haplotypes, left_out).T
    if retriever is None:
        retriever = retriever_for(small.typed.words, seed=seed, threads=threads)
    observed = np.ascontiguousarray(alleles[typed_index])
    found = states_without_own(retriever, haplotype_sample, left_out, observed, threads=threads)
    return small, alleles, found


def fit_panel(
    window: Window,
    haplotype_sample: np.ndarray,
    *,
    retriever: Retriever | None = None,
    seed: int = 1,
    num_left_out: int | None = None,
    max_states: int = 2000,
    max_sites: int = 800,
    max_typed: int | None = None,
    threads: int = 1,
) -> CopyingParameters:
    """Find the switch rate and mismatch probability under which the panel imputes itself best.

    Randomly drawn panel haplotypes are imputed from the others. The search climbs over the rate,
    then over the mismatch probability, and then over the rate again; a parabola through the best
    trial and its neighbours gives a value between trials. In a window of 10 cM or more, samples
    that are clones of each other, such as an inbred line that the panel has twice, are left out
    together.

    To save time, sites and long windows are thinned, and so are panels that are copied whole. As
    the best rate is proportional to 1 / H, it is then scaled to the full panel. In larger panels
    states are retrieved as they are for targets. Most of these match the target for long, so the
    best rate is lower than among all haplotypes.

    ``retriever`` finds states by the window's typed sites. It is used if all typed sites are looked
    at, which saves making another one.

    Returns
    -------
    Parameters for the full panel. If the panel has fewer than two typed sites, no untyped site or
    only one sample, Beagle 5.4's defaults for imputation: ne 1e5, and 1e-3 for the mismatch
    probability, as its data-dependent err is for such data.
    """
    num_panel = window.typed.num_haplotypes
    whole = is_copied_whole(num_panel)
    if max_typed is None:
        max_typed = num_typed_to_fit(num_panel)
    if num_left_out is None:
        num_left_out = NUM_LEFT_OUT if whole else NUM_LEFT_OUT_OF_LARGE
    first = max(0, (window.typed.num_typed - max_typed) // 2)
    typed_index = window.typed_index[first : first + max_typed]
    few = len(typed_index) < 2 or len(np.unique(haplotype_sample)) < 2
    between = np.arange(typed_index[0], typed_index[-1] + 1) if not few else np.arange(0)
    untyped = np.setdiff1d(between, typed_index)
    if few or len(untyped) == 0:
        return CopyingParameters.from_ne(1e5, 1e-3, num_panel)
    rng = np.random.default_rng(seed)
    untyped = np.sort(rng.permutation(untyped)[:max_sites])
    index = np.union1d(typed_index, untyped)
    small, alleles, states = _left_out(
        window, index, np.searchsorted(index, typed_index), haplotype_sample,
        num_left_out=num_left_out, max_states=max_states,
        retriever=retriever if len(typed_index) == window.typed.num_typed else None,
        seed=seed, threads=threads,
    )  # fmt: skip
    to_panel = min(max_states, num_panel) / num_panel

    trials = _Trials(
        small, alleles, states, _PRIOR_OF_WHOLE if whole else _PRIOR_OF_LARGE,
        scale=1 if whole else to_panel, weight=0 if whole else NUM_LEFT_OUT, threads=threads,
    )  # fmt: skip
    with Stage("fit parameters", _USUAL_TRIALS * alleles.shape[1]):
        log_rate, log_mismatch = _search(trials)
    return CopyingParameters(float(np.exp(log_rate)) * to_panel, float(np.exp(log_mismatch)))


class _Trials:
    """Likelihoods of left-out haplotypes' untyped alleles under the parameters that were tried.

    Rates times ``scale`` are those that haplotypes are copied with. The likelihood is multiplied up
    to what ``weight`` haplotypes may have, if there are fewer.
    """

    def __init__(
        self,
        window: Window,
        alleles: np.ndarray,
        states: Callable[[int], np.ndarray],
        prior: _Prior,
        *,
        scale: float,
        weight: int,
        threads: int,
    ) -> None:
        self._window, self._alleles = window, alleles
        # Trials differ in parameters alone: what they share is found once.
        shared = SharedStates.find(states, alleles.shape[1], window.typed.num_haplotypes)
        self._states = states if shared is None else shared
        self._scale, self._threads = scale, threads
        self.prior, self.num_haplotypes = prior, alleles.shape[1]
        self._weight = max(weight, self.num_haplotypes)

    def height(self, log_rate: float, log_mismatch: float, *, num: int | None = None) -> float:
        """Log likelihood and log prior; ``num``: from so many of the haplotypes, or all of them.

        The likelihood of a few haplotypes is multiplied up to what all of them may have.
        """
        alleles = self._alleles if num is None else self._alleles[:, :num]
        parameters = CopyingParameters(math.exp(log_rate) * self._scale, math.exp(log_mismatch))
        hit = left_out_probs(
            self._window, alleles, parameters, states=self._states, threads=self._threads
        )
        doublings = (log_rate - math.log(self.prior.centre)) / math.log(2)
        found: float = log_likelihood(hit) * (self._weight / alleles.shape[1])
        steps = (log_mismatch - math.log(_USUAL_MISMATCH)) / _MISMATCH_STEP
        return found - self.prior.weight * doublings**2 - self.prior.of_mismatch * steps**2


def _search(trials: _Trials) -> tuple[float, float]:
    """Find the logarithms of the best switch rate and mismatch probability.

    The likelihood has one peak over each of them, and they depend little on each other. So one is
    searched after the other, and then the rate once more.
    """
    low, high = map(math.log, SWITCH_RATES)
    least, most = map(math.log, MISMATCH_PROBS)
    rate, mismatch = math.log(trials.prior.centre), math.log(_USUAL_MISMATCH)
    if trials.num_haplotypes >= 2 * _FEW_HAPLOTYPES:
        rate = climb(
            lambda rate: trials.height(rate, mismatch, num=_FEW_HAPLOTYPES), rate, low, high,
            step=_COARSE_STEP, tolerance=2 * _COARSE_STEP,
        )  # fmt: skip
    seen: dict[tuple[float, float], float] = {}

    def height(rate: float, mismatch: float) -> float:
        if (rate, mismatch) not in seen:
            seen[rate, mismatch] = trials.height(rate, mismatch)
        found: float = seen[rate, mismatch]
        return found

    rate, tip = _peak(lambda rate: height(rate, mismatch), rate, low, high, _RATE_STEP)
    before = mismatch
    mismatch, best_mismatch = _peak(
        lambda mismatch: height(rate, mismatch), mismatch, least, most, _MISMATCH_STEP
    )
    if mismatch != before:
        _, tip = _peak(lambda rate: height(rate, mismatch), rate, low, high, _RATE_STEP)
    return tip, best_mismatch


def _peak(
    height: Callable[[float], float], start: float, low: float, high: float, step: float
) -> tuple[float, float]:
    """Climb to a peak; return the highest place that was tried, and the tip of a parabola there."""
    seen: dict[float, float] = {}

    def at(place: float) -> float:
        seen[place] = height(place)
        return seen[place]

    # With this tolerance the bracket is not narrowed but where the climb took double steps.
    best = climb(at, start, low, high, step=step, tolerance=1.01 * step)
    below = max((x for x in seen if x < best), default=None)
    above = min((x for x in seen if x > best), default=None)
    if below is None or above is None:
        return best, best
    left, right = best - below, above - best
    rise, fall = left * (seen[best] - seen[above]), right * (seen[best] - seen[below])
    if not rise + fall > 0:
        return best, best
    tip: float = best + 0.5 * (right * fall - left * rise) / (rise + fall)
    return best, tip


def clones(window: Window, haplotype_sample: np.ndarray, samples: np.ndarray) -> list[np.ndarray]:
    """Find the samples whose alleles are those of a given sample all along a window.

    A panel may have an inbred line twice, or a sample that was sequenced twice. If one of them is
    left out, the other shows its every allele. A target has no such double in the panel.

    Parameters
    ----------
    window
        The panel. Only windows of 10 cM or more tell clones from relatives.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to.
    samples
        Shape (n,), int: the samples that are left out.

    Returns
    -------
    For each of ``samples`` itself and its clones; only itself if it has more than three clones or
    if they are half of the panel, as targets may then have clones in the panel, too.
    """
    if np.ptp(window.position_cm) < _CLONE_CM:
        return [np.array([sample]) for sample in samples]
    of, first = np.unique(haplotype_sample, return_index=True)
    count = np.bincount(np.searchsorted(of, haplotype_sample))
    # The number of ALT alleles on a sample's first haplotype, and on its other one.
    last = len(haplotype_sample) - 1 - np.unique(haplotype_sample[::-1], return_index=True)[1]
    one = haplotype_columns(window.haplotypes, first) == 1
    other = haplotype_columns(window.haplotypes, last) == 1
    dosage = one.astype(np.float32) + other
    square = (dosage**2).sum(axis=1)
    mine = np.searchsorted(of, samples)
    out = []
    for i in mine:
        distance = square + square[i] - 2 * dosage @ dosage[i]
        same = (distance <= _CLONE_DIFFERENCES * distance.mean()) & (count == count[i])
        if same.sum() > min(_MOST_CLONES + 1, len(of) // 2):
            same[:] = False
        same[i] = True
        out.append(of[same])
    return out
