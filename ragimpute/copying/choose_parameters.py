"""Choose the copying model's parameters by leaving panel haplotypes out and imputing them.

The likelihood of the *typed* alleles is largest at too low a switch rate: on 1000 Genomes data at a
third to an eighth of the rate that gives the best r2 at untyped sites, which costs .0004 to .002 of
r2. So what is maximised here is the likelihood of the *untyped* alleles, which imputation is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import DOUBT, CopyingParameters
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

#: Switch rates to try, per cM, for a panel of 2,000 haplotypes or fewer.
SWITCH_RATES = (0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
MISMATCH_PROBS = (3e-4, 1e-3, 3e-3, 1e-2)
_USUAL_MISMATCH = 1e-3
_FLOOR = 1e-3
# In large panels the likelihood depends little on the rate: from far below the best rate to twice
# that, it falls by only a few units. There a prior decides. It takes off _PRIOR units times the
# square of the number of grid steps from _USUAL_RATE, the place of the rate that fits ne 3.2e5.
_USUAL_RATE, _PRIOR = 4, 1.0
# So many pairs of rate and mismatch probability are tried, about; only progress bars use it.
_USUAL_TRIALS = 8


@dataclass(frozen=True)
class PanelFit:
    """The copying parameters that suit a panel best.

    Attributes
    ----------
    parameters
        The best ones.
    in_doubt
        Share of the left-out haplotypes' untyped alleles whose probability is between 1 and 99 %
        with these parameters, and with the thinned panel if it was thinned. None: no haplotype
        could be left out.
    """

    parameters: CopyingParameters
    in_doubt: float | None = None


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
    states: Callable[[int], np.ndarray],
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

    Probabilities are clipped to [0.001, 0.999], so that no single unexpected allele at a rare site
    dominates the sum.
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

        def states(i: int) -> np.ndarray:
            others = pool[haplotype_sample[pool] != haplotype_sample[left_out[i]]]
            out: np.ndarray = number[others].astype(np.int32)[None]
            return out

        return few, haplotype_columns(few.haplotypes, number[left_out]).T, states
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
    num_left_out: int = 96,
    max_states: int = 2000,
    max_sites: int = 800,
    max_typed: int | None = None,
    threads: int = 1,
) -> PanelFit:
    """Find the switch rate and mismatch probability under which the panel imputes itself best.

    Randomly drawn panel haplotypes are imputed from the others, with each rate and mismatch
    probability of a grid. A parabola through the best rate and its neighbours gives a rate between
    grid points.

    To save time, sites and long windows are thinned, and so are panels that are copied whole. As
    the best rate is proportional to 1 / H, it is then scaled to the full panel. In larger panels
    states are retrieved as they are for targets. Most of these match the target for long, so the
    best rate is lower than among all haplotypes.

    ``retriever`` finds states by the window's typed sites. It is used if all typed sites are looked
    at, which saves making another one.

    Returns
    -------
    Parameters for the full panel, and how much they leave in doubt. If the panel has fewer than two
    typed sites, no untyped site or only one sample, Beagle 5.4's defaults for imputation: ne 1e5,
    and 1e-3 for the mismatch probability, as its data-dependent err is for such data.
    """
    num_panel = window.typed.num_haplotypes
    whole = is_copied_whole(num_panel)
    if max_typed is None:
        max_typed = num_typed_to_fit(num_panel)
    first = max(0, (window.typed.num_typed - max_typed) // 2)
    typed_index = window.typed_index[first : first + max_typed]
    few = len(typed_index) < 2 or len(np.unique(haplotype_sample)) < 2
    between = np.arange(typed_index[0], typed_index[-1] + 1) if not few else np.arange(0)
    untyped = np.setdiff1d(between, typed_index)
    if few or len(untyped) == 0:
        return PanelFit(CopyingParameters.from_ne(1e5, 1e-3, num_panel))
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

    in_doubt: dict[tuple[int, int], float] = {}

    @cache
    def at(i: int, k: int) -> float:
        rate = SWITCH_RATES[i] * (1 if whole else to_panel)
        prior = 0.0 if whole else _PRIOR * (i - _USUAL_RATE) ** 2
        hit = left_out_probs(
            small, alleles, CopyingParameters(rate, MISMATCH_PROBS[k]), states=states,
            threads=threads,
        )  # fmt: skip
        in_doubt[i, k] = float(((hit > DOUBT) & (hit < 1 - DOUBT)).mean())
        return log_likelihood(hit) - prior

    # The likelihood has one peak over the rate, and one over the mismatch probability.
    k = MISMATCH_PROBS.index(_USUAL_MISMATCH)
    with Stage("fit parameters", _USUAL_TRIALS * alleles.shape[1]):
        i = _climb(lambda i: at(i, k), 3 if whole else _USUAL_RATE, len(SWITCH_RATES))
        k = _climb(lambda k: at(i, k), k, len(MISMATCH_PROBS))
        i = _climb(lambda i: at(i, k), i, len(SWITCH_RATES))
        log_rate = np.log(SWITCH_RATES[i])
        if 0 < i < len(SWITCH_RATES) - 1:
            below, here, above = at(i - 1, k), at(i, k), at(i + 1, k)
            curve = below - 2 * here + above
            if curve < 0:
                log_rate += np.log(2) * 0.5 * (below - above) / curve
    parameters = CopyingParameters(float(np.exp(log_rate)) * to_panel, MISMATCH_PROBS[k])
    return PanelFit(parameters, in_doubt[i, k])


def _climb(height: Callable[[int], float], start: int, num: int) -> int:
    """Climb from ``start`` to a local peak in [0, num), trying larger numbers first."""
    at = start
    while at + 1 < num and height(at + 1) > height(at):
        at += 1
    while at > 0 and height(at - 1) > height(at):
        at -= 1
    return at
