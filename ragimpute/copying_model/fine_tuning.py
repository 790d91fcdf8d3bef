"""Fit a network to the panel at hand, by imputing some of its samples from the others.

These samples are removed from the panel altogether, as if they were targets. If allele frequencies
and the quality of sites counted their alleles, they would give the answers away.
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
from ragimpute.panel.haplotypes import draw_samples, haplotype_columns, keep_haplotypes
from ragimpute.runtime.stages import Stage

# In a panel with fewer samples, those left out would give too few pairs, and the rest of the panel
# would be too small.
MIN_SAMPLES = 40
# With fewer pairs in doubt, training would move the network at random.
MIN_PAIRS = 8_000
_SHARE, _MAX_SAMPLES = 0.2, 100
_MAX_PAIRS = 100_000


def num_left_out(num_samples: int) -> int:
    """How many of a panel's samples are left out to fit the network."""
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
    """Train a network a little on the panel's own samples, at the target's typed sites.

    Parameters
    ----------
    network
        The network of a copying model.
    window
        A stretch of the panel. All its sites are used, not only those of its core.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to. The haplotypes of a sample must
        be next to each other.
    parameters
        Switch rate and mismatch probability for this panel.
    seed
        Seed for drawing the samples and for the order in which pairs are learned from.
    threads
        See :func:`ragimpute.copying.copy.copy_haplotypes`.

    Returns
    -------
    The network, and the quality of the window's sites in the rest of the panel. The network is
    unchanged if the panel has fewer than ``MIN_SAMPLES`` samples, if fewer than ``MIN_PAIRS`` pairs
    are in doubt, or if it cannot be tuned; the quality is None if it was not measured.
    """
    # Another seed: these must not be the samples by which the quality of sites is measured.
    samples = draw_samples(window.signature, haplotype_sample, seed + 1)
    if len(samples) < MIN_SAMPLES or not network.can_be_tuned:
        return network, None
    num = num_left_out(len(samples))
    out = np.isin(haplotype_sample, samples[:num])
    left_out = np.flatnonzero(out).astype(np.int32)
    # The order of pairs decides what is learned, and it must not depend on the panel's order.
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
    with Stage("collect evidence", 2 * len(left_out)):
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
