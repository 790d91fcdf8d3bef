"""Choose the copying model's parameters by leaving panel haplotypes out and imputing them.

The likelihood of the *typed* alleles asks for fewer switches than imputation wants: on 1000 Genomes
data its best rate is a third to an eighth of the rate that gives the best r2 at untyped sites (and
costs .0004 ... .002 of it). What counts is the likelihood of the alleles that are to be imputed, so
that is what is measured here.
"""

from __future__ import annotations

import numpy as np

from ragimpute.copying import CopyingParameters, Window, copy_haplotypes
from ragimpute.panel import Haplotypes
from ragimpute.panel_part import keep_haplotypes
from ragimpute.signatures import drawing_order

SWITCH_RATES = (0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
MISMATCH_PROBS = (3e-4, 1e-3, 3e-3, 1e-2)
_FLOOR = 1e-3


def select_sites(haplotypes: Haplotypes, index: np.ndarray) -> Haplotypes:
    """Some of the sites of a block, in the order of ``index`` (integers, shape (k,))."""
    count = np.diff(haplotypes.offsets)[index]
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    first = np.repeat(haplotypes.offsets[:-1][index] - offsets[:-1], count)
    carriers = haplotypes.carriers[first + np.arange(offsets[-1])]
    row = haplotypes.row[index]
    kept = row >= 0
    new_row = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    return Haplotypes(
        haplotypes.num_haplotypes,
        haplotypes.alt_is_minor[index],
        offsets,
        carriers,
        new_row,
        np.ascontiguousarray(haplotypes.bits[row[kept]]),
    )


def leave_one_out_log_likelihood(
    window: Window,
    alleles: np.ndarray,
    left_out: np.ndarray,
    haplotype_sample: np.ndarray,
    parameters: CopyingParameters,
    *,
    pool: np.ndarray,
    threads: int = 1,
) -> float:
    """Log likelihood of the untyped alleles of panel haplotypes, imputed without their own sample.

    Parameters
    ----------
    window
        The panel at T typed and M sites.
    alleles
        Shape (M, n), int8: true alleles of the haplotypes left out.
    left_out
        Shape (n,), int: those haplotypes.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to.
    parameters
        Switch rate for a panel of ``len(pool)`` haplotypes, and mismatch probability.
    pool
        Shape (k,), int: haplotypes that may be copied.
    threads
        See :func:`ragimpute.copying.copy_haplotypes`.

    Returns
    -------
    Sum over haplotypes and untyped sites of ln P(true allele), probabilities kept in
    [0.001, 0.999], so that a single surprise at a rare site does not decide.
    """

    def states(i: int) -> np.ndarray:
        own = haplotype_sample[pool] == haplotype_sample[left_out[i]]
        return pool[~own].astype(np.int32)[None]

    typed = alleles[window.typed_index]
    prob = copy_haplotypes(window, typed, parameters, states=states, threads=threads)
    true = alleles.T
    untyped = np.ones(window.num_sites, bool)
    untyped[window.typed_index] = False
    hit = np.where(true == 1, prob, 1 - prob)[:, untyped]
    return float(np.log(np.clip(hit, _FLOOR, 1 - _FLOOR), dtype=np.float64).sum())


def fit_parameters(
    window: Window,
    haplotype_sample: np.ndarray,
    *,
    seed: int = 1,
    num_left_out: int = 96,
    max_states: int = 2000,
    max_sites: int = 800,
    max_typed: int = 512,
    threads: int = 1,
) -> CopyingParameters:
    """The switch rate and mismatch probability under which the panel imputes itself best.

    A random sample of panel haplotypes is imputed from the rest, over a grid; a parabola through
    the best three rates gives the rate between grid points. Large panels, many sites and long
    windows are thinned for this; the rate, which falls as 1 / H, is scaled back to the full panel.

    Returns
    -------
    Parameters for the full panel. Where the panel cannot say (fewer than two typed sites, no
    untyped site, or no other sample), Beagle 5.4's defaults for imputation (ne 1e5, mismatch as
    for its data-dependent err, 1e-3) take their place.
    """
    num_panel = window.typed.num_haplotypes
    first = max(0, (window.typed.num_typed - max_typed) // 2)
    typed_index = window.typed_index[first : first + max_typed]
    few = len(typed_index) < 2 or len(np.unique(haplotype_sample)) < 2
    between = np.arange(typed_index[0], typed_index[-1] + 1) if not few else np.arange(0)
    untyped = np.setdiff1d(between, typed_index)
    if few or len(untyped) == 0:
        return CopyingParameters.from_ne(1e5, 1e-3, num_panel)
    rng = np.random.default_rng(seed)
    untyped = np.sort(rng.permutation(untyped)[:max_sites])
    signature = window.signature
    left_out = np.sort(drawing_order(signature, seed)[:num_left_out])
    pool = np.sort(drawing_order(signature, seed + 1)[:max_states])
    index = np.union1d(typed_index, untyped)
    # Without the other haplotypes, whose alleles would have to be passed by at every site.
    asked = np.zeros(num_panel, bool)
    asked[left_out] = asked[pool] = True
    haplotypes = keep_haplotypes(select_sites(window.haplotypes, index), asked)
    number = np.cumsum(asked) - 1
    left_out, pool = number[left_out], number[pool]
    haplotype_sample = haplotype_sample[asked]
    small = Window.build(haplotypes, window.position_cm[index], np.searchsorted(index, typed_index))
    alleles = haplotypes.alleles()[:, left_out]

    def measure(rate: float, err: float) -> float:
        return leave_one_out_log_likelihood(
            small, alleles, left_out, haplotype_sample, CopyingParameters(rate, err),
            pool=pool, threads=threads,
        )  # fmt: skip

    # Climb from the middle: the likelihood has one peak over the rate.
    seen: dict[int, float] = {}

    def at(i: int, err: float) -> float:
        if i not in seen:
            seen[i] = measure(SWITCH_RATES[i], err)
        return seen[i]

    def climb(i: int, err: float) -> int:
        while i + 1 < len(SWITCH_RATES) and at(i + 1, err) > at(i, err):
            i += 1
        while i > 0 and at(i - 1, err) > at(i, err):
            i -= 1
        return i

    err = 1e-3
    i = climb(3, err)
    scores = [measure(SWITCH_RATES[i], e) if e != err else at(i, err) for e in MISMATCH_PROBS]
    best_err = MISMATCH_PROBS[int(np.argmax(scores))]
    if best_err != err:
        seen.clear()
        err = best_err
        i = climb(i, err)
    log_rate = np.log(SWITCH_RATES[i])
    if 0 < i < len(SWITCH_RATES) - 1:
        below, here, above = at(i - 1, err), at(i, err), at(i + 1, err)
        curve = below - 2 * here + above
        if curve < 0:
            log_rate += np.log(2) * 0.5 * (below - above) / curve
    return CopyingParameters(float(np.exp(log_rate)) * len(pool) / num_panel, err)
