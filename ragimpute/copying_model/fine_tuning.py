"""Fit a network to the panel at hand: some of its people are imputed from the others.

They are left out of the panel altogether, as targets are: were their alleles counted in the
frequencies and in the quality of sites, these would give the answers away.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import retriever_for, states_for
from ragimpute.copying.window import Window
from ragimpute.copying_model.correction import read_pairs
from ragimpute.copying_model.pair_network import PairNetwork
from ragimpute.evidence.doubt import in_doubt
from ragimpute.evidence.other_haplotype import homolog_probs, homologs_of
from ragimpute.evidence.site_quality import SiteQuality, measure_sites
from ragimpute.panel.haplotypes import haplotype_columns, keep_haplotypes
from ragimpute.panel.signatures import draw_samples

# Of fewer people too little is seen, and the rest of the panel would shrink too much.
MIN_SAMPLES = 40
# By fewer pairs in doubt a network moves at random.
MIN_PAIRS = 8_000
_SHARE, _MAX_SAMPLES = 0.2, 100
_MAX_PAIRS = 100_000


def num_left_out(num_samples: int) -> int:
    """How many people of so many are left out."""
    return min(_MAX_SAMPLES, int(_SHARE * num_samples))


def adapt_network(
    network: PairNetwork,
    window: Window,
    haplotype_sample: np.ndarray,
    parameters: CopyingParameters,
    *,
    seed: int = 1,
    threads: int = 1,
) -> tuple[PairNetwork, SiteQuality | None]:
    """Train a network a little on the panel's own people, at the target's typed sites.

    Parameters
    ----------
    network
        Of a copying model.
    window
        A stretch of the panel; all its sites count, whatever its core.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to; its haplotypes are neighbours.
    parameters
        Switch rate and mismatch probability for this panel.
    seed
        Chooses the people, and the order of what is learned.
    threads
        See :func:`ragimpute.copying.copy.copy_haplotypes`.

    Returns
    -------
    The network, as it came where the panel has fewer than ``MIN_SAMPLES`` people or fewer than
    ``MIN_PAIRS`` pairs are in doubt; and what the rest of the panel says of the window's sites, if
    it was asked.
    """
    # Others than those that the quality of sites is measured by.
    samples = draw_samples(window.signature, haplotype_sample, seed + 1)
    if len(samples) < MIN_SAMPLES or not network.can_be_tuned:
        return network, None
    num = num_left_out(len(samples))
    out = np.isin(haplotype_sample, samples[:num])
    left_out = np.flatnonzero(out).astype(np.int32)
    # In an order that is not the panel's: that of the pairs decides what is learned.
    left_out = left_out[np.argsort(window.signature[left_out], kind="stable")]
    others = Window.build(
        keep_haplotypes(window.haplotypes, ~out), window.position_cm, window.typed_index
    )
    retriever = retriever_for(others.typed.words, seed=seed, threads=threads)
    quality = measure_sites(
        others, haplotype_sample[~out], parameters,
        retriever=retriever, seed=seed, threads=threads,
    )  # fmt: skip
    parameters = replace(parameters, site_mismatch_prob=quality.mismatch_prob)
    alleles = haplotype_columns(window.haplotypes, left_out).T
    observed = np.ascontiguousarray(alleles[window.typed_index])
    states = states_for(retriever, others.typed.num_haplotypes, observed, threads=threads)
    prob = copy_haplotypes(others, observed, parameters, states=states, threads=threads)
    pairs = in_doubt(others, observed, prob, doubt=network.config.model.copying.doubt)
    if len(pairs) < MIN_PAIRS:
        return network, quality
    if len(pairs) > _MAX_PAIRS:
        rng = np.random.default_rng(seed)
        pairs = pairs[np.sort(rng.choice(len(pairs), _MAX_PAIRS, replace=False))]
    homolog = homologs_of(haplotype_sample[left_out])
    evidence, tokens = read_pairs(
        network, others, observed, parameters, pairs, states=states, quality=quality.features,
        homolog_prob=homolog_probs(prob, homolog, pairs),
    )  # fmt: skip
    h, u = pairs[:, 0], pairs[:, 1]
    y = (alleles[u, h] == others.haplotypes.alt_is_minor[u]).astype(np.float32)
    return network.tuned(evidence, tokens, y, seed=seed), quality
