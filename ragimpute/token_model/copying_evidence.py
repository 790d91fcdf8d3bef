"""What Li-Stephens copying says of target haplotypes, for token models that retrieve by site."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ragimpute.config import DataConfig
from ragimpute.copying.copy import copy_haplotypes
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window
from ragimpute.evidence.site_states import candidate_states, find_site_states
from ragimpute.evidence.site_states_kernel import STATE, STATE_FEATURES
from ragimpute.model.evidence import SITE_FEATURES

_LOGIT_LIMIT = 9.0


class CopyingEvidence(NamedTuple):
    """What copying says of n haplotypes at m sites.

    Attributes
    ----------
    ids
        Shape (n, K, m), int32: the most probable panel haplotypes of each site, -1 padded.
    states
        Shape (n, K, m, F), float32: how well each matches, see
        :class:`ragimpute.evidence.site_states_kernel.StateFeatures`.
    sites
        Shape (n, m, 4), float32: see :data:`ragimpute.model.evidence.SITE_FEATURES`. The first is
        the logit of ALT.
    """

    ids: np.ndarray
    states: np.ndarray
    sites: np.ndarray

    @classmethod
    def empty(cls, num: int, num_retrieved: int, num_sites: int) -> CopyingEvidence:
        """No states, and zeros, of ``num`` haplotypes."""
        shape = (num, num_retrieved, num_sites)
        return cls(
            np.full(shape, -1, np.int32),
            np.zeros((*shape, len(STATE_FEATURES)), np.float32),
            np.zeros((num, num_sites, len(SITE_FEATURES)), np.float32),
        )

    @staticmethod
    def bytes_of(num: int, num_retrieved: int, num_sites: int) -> int:
        """What ``num`` haplotypes take in memory."""
        of_state, of_site = 4 + 4 * len(STATE_FEATURES), 4 * len(SITE_FEATURES)
        return num * num_sites * (num_retrieved * of_state + of_site)

    def part(self, rows: slice | np.ndarray, sites: slice = slice(None)) -> CopyingEvidence:
        """That of some of the haplotypes, at some of the sites."""
        return CopyingEvidence(
            self.ids[..., sites][rows], self.states[:, :, sites][rows], self.sites[:, sites][rows]
        )

    def put(self, rows: slice, sites: slice, given: CopyingEvidence) -> None:
        """Write what is given of some of the haplotypes, at some of the sites."""
        self.ids[rows, :, sites] = given.ids
        self.states[rows, :, sites] = given.states
        self.sites[rows, sites] = given.sites

    @property
    def logit(self) -> np.ndarray:
        """The logit of ALT, shape (n, m)."""
        return self.sites[..., 0]

    @property
    def log_mass(self) -> np.ndarray:
        """The ln of the posterior of each state, shape (n, K, m)."""
        return self.states[..., STATE.mass]


def collect_copying(
    window: Window,
    alleles: np.ndarray,
    parameters: CopyingParameters | None,
    data: DataConfig,
    *,
    allowed: np.ndarray,
    own: np.ndarray,
    af: np.ndarray,
    threads: int = 1,
) -> CopyingEvidence:
    """Copy target haplotypes, and describe what they copy at a window's core sites.

    Parameters
    ----------
    window
        The panel; where it has no typed site, nothing is retrieved, and the logit is that of the
        allele frequency.
    alleles
        Shape (T, n), int8: the targets' typed alleles, negative where not observed.
    parameters
        Switch rate and mismatch probability; None only without typed sites.
    data
        ``num_retrieved``, ``num_carriers`` and ``max_states`` count.
    allowed
        Shape (a,), int32, ascending: panel haplotypes that may be copied.
    own
        Shape (n, k), int: of these, those that each target must not copy; -1: none.
    af
        Shape (m,), float: ALT frequency of the core sites.
    threads
        The result does not depend on it.
    """
    start, stop = window.core
    n = alleles.shape[1]
    out = CopyingEvidence.empty(n, data.num_retrieved, stop - start)
    if window.typed.num_typed == 0:
        out.logit[:] = _logit(af)
        return out
    assert parameters is not None
    states = candidate_states(window, alleles, allowed, own, data.max_states)
    prob = copy_haplotypes(
        window, alleles, parameters, states=lambda i: states[i][None], threads=threads
    )
    found = find_site_states(
        window, alleles, parameters, states=states, num=data.num_retrieved,
        num_carriers=data.num_carriers, threads=threads,
    )  # fmt: skip
    cm, typed_cm = window.position_cm[start:stop], window.typed.position_cm
    right = np.searchsorted(window.typed_index, np.arange(start, stop), side="right")
    to_left = cm - typed_cm[np.maximum(right - 1, 0)]
    to_right = typed_cm[np.minimum(right, len(typed_cm) - 1)] - cm
    out.sites[..., 0] = _logit(prob)
    for column, gap in ((1, to_left), (2, to_right)):
        out.sites[..., column] = np.log(np.maximum(gap, 0) + 1e-4)
    out.sites[..., 3] = np.log(found.num_states)
    return out._replace(ids=found.ids, states=found.features)


def _logit(prob: np.ndarray) -> np.ndarray:
    """The logit of a probability, within +-9."""
    p = np.clip(prob.astype(np.float64), 1e-9, 1 - 1e-9)
    out: np.ndarray = np.clip(np.log(p / (1 - p)), -_LOGIT_LIMIT, _LOGIT_LIMIT)
    return out
