"""Find targets that resemble the panel far more than its own samples resemble each other.

A cross of a few founders, or the offspring of parents that are in the panel: such targets are
mosaics of long stretches of its haplotypes. Panel samples that are left out are not, and what
suits them, above all how often the copied haplotype changes, misleads for these targets. Their own
typed alleles tell which targets these are, and what suits them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ragimpute.copying.likelihood_kernel import TypedLikelihood
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import all_states
from ragimpute.copying.window import Window, pack_words
from ragimpute.copying_model.target_mismatch import Group, at_places
from ragimpute.copying_model.twins import Imputed, Put
from ragimpute.panel.haplotypes import drawing_order, haplotype_columns

# In larger panels a cross of all founders would be a rare thing, and looking for it would take
# longer than a hundredth of the time of imputing.
MOST_HAPLOTYPES = 400
# So many panel haplotypes are left out to see what the likelihood of a sample of the panel gains.
_NUM_LEFT_OUT = 32
# Rates are tried down from that of the panel, by these factors, coarsely and then finely.
_COARSE, _FINE = 4.0, 2.0
_LEAST_RATE = 0.004
_USUAL_MISMATCH = 1e-3
_MISMATCH_PROBS = (1e-3, 1e-2)
# The likelihood of typed alleles is largest at too low a rate for untyped ones.
_UNTYPED_FACTOR = 2.0
# A target's haplotype must gain so much more than one of the panel: units of ln P, and standard
# deviations among those of the panel.
_LEAST_GAIN, _DEVIATIONS = 10.0, 4.0


@dataclass(frozen=True)
class Mosaics:
    """Which targets are mosaics of the panel.

    Attributes
    ----------
    number
        Shape (k,), int64: the place of each target's parameters in ``parameters``, or -1 if those
        of the panel suit it. The two haplotypes of a sample have the same.
    parameters
        Each once.
    """

    number: np.ndarray
    parameters: tuple[CopyingParameters, ...]

    def with_own(self, mismatch: np.ndarray) -> np.ndarray:
        """Mismatch probabilities of typed sites, with those of mosaics in place of the panel's.

        Parameters
        ----------
        mismatch
            Shape (T,), of all targets, or (T, k), of each.

        Returns
        -------
        Float32, of the shape of ``mismatch`` if no target is a mosaic, else (T, k).
        """
        if (self.number < 0).all():
            return mismatch
        own = np.array([p.mismatch_prob for p in self.parameters] + [0.0], np.float32)[self.number]
        each = mismatch if mismatch.ndim == 2 else mismatch[:, None]
        out: np.ndarray = np.where(self.number < 0, each, own)
        return out

    def others(self, imputed: Imputed, parameters: CopyingParameters, put: Put) -> Group:
        """The targets that are no mosaics, perhaps none; ``parameters`` are the panel's."""
        where = np.flatnonzero(self.number < 0)
        if len(where) == len(self.number):
            return Group(imputed, parameters, put)
        return Group(imputed.take(where), parameters, at_places(where, put))

    def groups(self, imputed: Imputed, put: Put) -> Iterator[Group]:
        """The targets that are mosaics, by their parameters; see ``target_mismatch.groups_of``."""
        for i, parameters in enumerate(self.parameters):
            where = np.flatnonzero(self.number == i)
            yield Group(imputed.take(where), parameters, at_places(where, put))


def find_mosaics(
    window: Window,
    haplotype_sample: np.ndarray,
    imputed: Imputed,
    parameters: CopyingParameters,
    *,
    seed: int = 1,
) -> Mosaics:
    """Find the targets that are mosaics of the panel's haplotypes, and their parameters.

    Parameters
    ----------
    window
        The panel, of which all haplotypes are copied.
    haplotype_sample
        Shape (H,), int: the sample that each haplotype belongs to.
    imputed
        The targets.
    parameters
        What suits the panel's own samples.
    seed
        Of the draw of panel haplotypes.

    Returns
    -------
    What becomes of a sample depends on no other sample. Panels of more than ``MOST_HAPLOTYPES``
    have no mosaics, nor have those of one sample.
    """
    num = imputed.alleles.shape[1]
    none = Mosaics(np.full(num, -1), ())
    num_panel = window.typed.num_haplotypes
    if num_panel > MOST_HAPLOTYPES or len(np.unique(haplotype_sample)) < 2:
        return none
    left_out = np.sort(drawing_order(window.signature, seed)[:_NUM_LEFT_OUT])
    alleles = haplotype_columns(window.haplotypes, left_out).T[window.typed_index]
    own = [np.flatnonzero(haplotype_sample == haplotype_sample[h]) for h in left_out]
    panel = _likelihood(window, alleles, [all_states(num_panel, x)[0] for x in own])
    everyone = all_states(num_panel)[0]
    targets = _likelihood(window, imputed.alleles, [everyone] * num)
    first = (parameters.switch_rate, parameters.mismatch_prob)
    of_panel, of_targets = panel.at(*first), targets.at(*first)
    other = np.where(imputed.homolog >= 0, imputed.homolog, np.arange(num))
    both = np.where(other == np.arange(num), 1, 2)

    def gains(rate: float, err: float, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What a target's haplotype gains, and by how much that is more than the panel tells."""
        gain = np.zeros(num)
        gain[which] = targets.at(rate, err, which)[which] - of_targets[which]
        gain = np.where(both == 2, (gain + gain[other]) / 2, gain)
        usual = panel.at(rate, err) - of_panel
        limit = max(0.0, float(usual.mean() + _DEVIATIONS * usual.std())) + _LEAST_GAIN
        return gain, gain - limit

    everything = np.arange(num)
    is_mosaic = np.zeros(num, bool)
    rates = _rates(parameters.switch_rate, _COARSE)
    for rate in rates:
        is_mosaic |= gains(rate, _USUAL_MISMATCH, everything)[1] > 0
    which = np.flatnonzero(is_mosaic)
    if not len(which):
        return none
    points = [(r, e) for r in _rates(parameters.switch_rate, _FINE) for e in _MISMATCH_PROBS]
    best = np.stack([gains(*point, which)[0] for point in points]).argmax(axis=0)
    number = np.where(is_mosaic, best, -1)
    used, number[which] = np.unique(number[which], return_inverse=True)
    return Mosaics(
        number,
        tuple(CopyingParameters(_UNTYPED_FACTOR * points[i][0], points[i][1]) for i in used),
    )


def _rates(highest: float, factor: float) -> list[float]:
    """Rates from ``highest`` down to _LEAST_RATE, each ``factor`` times lower than the last."""
    num = max(1, 1 + int(np.log(highest / _LEAST_RATE) / np.log(factor)))
    return [highest / factor**i for i in range(num)]


def _likelihood(window: Window, alleles: np.ndarray, states: list[np.ndarray]) -> TypedLikelihood:
    """That of haplotypes' typed alleles (T, n), negative where not observed."""
    packed = pack_words(np.ascontiguousarray(alleles))
    return TypedLikelihood(window.typed.words, window.typed.position_cm, *packed, states)
