"""What the copying says at each untyped site in doubt, as numbers for a network.

Only pairs (target haplotype, site) whose Li-Stephens posterior is in doubt are described. For each,
the forward and backward rows of the copying model are walked once more, and the states that matter
there (the most probable ones, and the carriers of the minor allele where they are few) are
measured: how far they match the target to each side, exactly and with one mismatch. No other
haplotype of the panel is touched.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ragimpute.copying import CopyingParameters, Window, pack_words, run_parts, switch_probs
from ragimpute.copying_kernel import WORD
from ragimpute.evidence_kernel import evidence_haplotype, haplotype_signatures

DOUBT = 0.01

#: Meaning and unit of each feature; "minor" is the allele that is rarer in the panel.
FEATURES = (
    "posterior",  # logit of the Li-Stephens probability of the minor allele, within +-9
    "posterior_left",  # the same from typed sites on the left alone
    "posterior_right",  # the same from typed sites on the right alone
    "maf",  # logit of the minor allele's frequency in the panel without the target's own sample
    "num_carriers",  # ln(1 + carriers among the states)
    "gap_left",  # ln of cM to the typed site on the left, + 1e-4
    "gap_right",  # the same on the right
    "carrier_match",  # ln of the longest match of a carrier, cM + 1e-3, both sides added
    "carrier_match_short",  # ln of the longest shorter side of a carrier's match
    "carrier_match_1",  # as carrier_match, past one mismatch on each side
    "carrier_match_short_1",  # as carrier_match_short, past one mismatch on each side
    "other_match",  # the same four of states that carry the other allele
    "other_match_short",
    "other_match_1",
    "other_match_short_1",
    "carrier_left",  # posterior-weighted mean ln length of carriers' matches to the left
    "carrier_right",
    "other_left",
    "other_right",
    "num_states",  # ln of the effective number of states, 1 / sum p^2
    "top_posterior",  # posterior of the most probable state, in (0, 1]
    "top_share",  # posterior of the most probable states together, in (0, 1]
    "top_carriers",  # share of the most probable states that are carriers, in [0, 1]
    "best_rank",  # ln(1 + states more probable than any carrier), NUM_TOP if none is among them
    "panel_size",  # ln of the number of states
    "density",  # ln of typed sites per cM around the site
)
NUM_FEATURES = len(FEATURES)


def pairs_in_doubt(prob: np.ndarray, typed: np.ndarray, *, doubt: float = DOUBT) -> np.ndarray:
    """Pairs (haplotype, site) whose allele the copying leaves open.

    Parameters
    ----------
    prob
        Shape (n, m), float32: Li-Stephens probability of ALT.
    typed
        Shape (n, m), bool: observed alleles, which are never in doubt.
    doubt
        Least probability of the less likely allele, in (0, 0.5).

    Returns
    -------
    Shape (pairs, 2), int64: haplotype and site, by haplotype and then site.
    """
    return np.argwhere((prob > doubt) & (prob < 1 - doubt) & ~typed)


def collect_evidence(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters,
    pairs: np.ndarray,
    *,
    states: Callable[[int], np.ndarray],
    own: Callable[[int], np.ndarray] | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Features of pairs in doubt.

    Parameters
    ----------
    window, alleles, parameters, states, threads
        As for :func:`ragimpute.copying.copy_haplotypes`.
    pairs
        Shape (pairs, 2), int64: column of ``alleles`` and core site, sorted.
    own
        For target haplotype i, the panel haplotypes of its own sample, which a left-out haplotype
        must not see: they do not count in the frequency either (it would give the answer away).
        None: no target is in the panel.

    Returns
    -------
    Shape (pairs, len(FEATURES)), float32; all are finite and about the minor allele.
    """
    out = np.empty((len(pairs), NUM_FEATURES), dtype=np.float32)
    if len(pairs) == 0:
        return out
    target, observed = pack_words(alleles)
    rho = switch_probs(window.typed.position_cm, switch_rate=parameters.switch_rate)
    near = window.flank_switch_probs(parameters.switch_rate)
    err = np.float32(parameters.mismatch_prob)
    words, compact = window.typed.words, window.compact()
    interval = np.searchsorted(window.typed_index, np.arange(window.num_sites), side="right") - 1
    num_minor = window.num_minor()
    signature = haplotype_signatures(window.typed.num_haplotypes, *compact)
    nobody = np.zeros(0, np.int32)
    edges = np.searchsorted(pairs[:, 0], np.arange(alleles.shape[1] + 1))
    sites = np.ascontiguousarray(pairs[:, 1] + window.core[0])

    def run(part: range) -> None:
        scratch: tuple[np.ndarray, ...] | None = None
        for i in part:
            low, high = edges[i], edges[i + 1]
            if low == high:
                continue
            state = states(i)
            k = state.shape[1]
            if scratch is None or scratch[2].shape[0] != k:
                scratch = _scratch(len(words), k)
                slot_of = np.full(window.typed.num_haplotypes, k, dtype=np.int32)
            evidence_haplotype(
                words, state, target[i], observed[i], rho, err, near, compact, window.position_cm,
                window.typed.position_cm, interval, num_minor, signature,
                nobody if own is None else own(i), sites[low:high], slot_of, scratch,
                out[low:high],
            )  # fmt: skip

    run_parts(run, alleles.shape[1], threads)
    return out


def _scratch(num_words: int, k: int) -> tuple[np.ndarray, ...]:
    """Buffers of one haplotype's walk."""
    return (
        np.empty((num_words + 1, k), np.float32),
        np.empty((WORD, k), np.float32),
        np.empty(k, np.float32),
        np.empty(k, np.uint32),
        np.zeros((3, k + 1), np.float32),
        np.empty((num_words + 1, k, 2), np.int32),
        np.empty((k, 2), np.int32),
        np.empty(k, np.int64),
    )
