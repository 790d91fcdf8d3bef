"""P(ALT) of a token model: what its loss makes of a logit, and the calibration of its folder.

The sigmoid of a logit is a probability only if the cross-entropy taught it. The focal loss pulls
logits toward 0, the more so the larger its gamma is. :func:`posterior_logit` undoes this exactly,
and :class:`Probabilities` is all that it takes to read a model: the gamma of its weights, and what
``training/probability_fit`` found on samples that were held out: by how much to multiply what the
model adds to the logit of copying, and a few coefficients.

Torch is imported where it is used, so that folders can be checked without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragimpute.accuracy.coefficients import Coefficients, read_coefficients
from ragimpute.model.trust import EDGES

if TYPE_CHECKING:
    from torch import Tensor

    from ragimpute.config import LossConfig

FILE, TRUST_FILE = "probabilities.json", "trust.json"
#: The terms of the calibrated logit; see :func:`calibration_terms`.
TERMS = ("logit", "logit_rare", "frequency")
_VERSION = "1"
#: The classes of minor allele frequency in ``trust.json``, see :mod:`ragimpute.model.trust`.
CLASSES = (*(f"MAF <= {edge:g}" for edge in EDGES), f"MAF > {EDGES[-1]:g}")
# The calibration takes larger logits for this one: beyond it hardly a held-out allele is wrong.
_MOST_LOGIT = 12.0
# Allele frequencies beyond these are taken for them. Of MAF 1e-4, ``rarity`` is 1.
_LEAST_AF = 1e-4
_RARITY_UNIT = -math.log(2 * _LEAST_AF)


def gamma_at(config: LossConfig, epoch: int) -> float:
    """Gamma of the loss in an epoch, counted from 0: that of cross-entropy is 0.

    After the end of a schedule its last value stays.
    """
    if config.kind == "cross_entropy":
        return 0.0
    if not config.gamma_schedule:
        return config.gamma
    return config.gamma_schedule[min(epoch, len(config.gamma_schedule) - 1)]


def posterior_logit(logit: Tensor, gamma: float) -> Tensor:
    """The logit of the probability that a network trained with the focal loss means by a logit.

    Where an allele is ALT with probability p, the expected loss of predicting q is
    ``p f(q) + (1 - p) f(1 - q)`` with ``f(q) = -(1 - q)^gamma ln q``. At its minimum
    ``p f'(q) = (1 - p) f'(1 - q)``, so that with x the logit of q, ``s(x) = ln(1 + exp(x))``, and
    ``r(x) = s(x) exp(-x)``, ::

        logit p = (gamma + 1) x + ln(1 + gamma r(x)) - ln(1 + gamma r(-x))

    That is x for gamma 0. Weights of sites and the other parts of a loss do not move this minimum.

    Parameters
    ----------
    logit
        Any shape, floating point: x.
    gamma
        Of the loss, >= 0.

    Returns
    -------
    Same shape, float32 or float64: an odd, increasing function of ``logit``, finite where it is.

    References
    ----------
    Charoenphakdee et al. 2021, On focal loss for class-posterior probability estimation.
    """
    import torch

    if gamma < 0:
        raise ValueError(f"gamma {gamma} is below 0")
    x = logit if logit.dtype == torch.float64 else logit.float()
    if gamma == 0:
        return x
    size = x.abs()
    t = torch.exp(-size)
    log = torch.log1p(t)
    # r(|x|) and r(-|x|); the latter is log1p(t) / t, which tends to 1.
    above, below = (size + log) * t, torch.where(t > 1e-6, log / t.clamp_min(1e-6), 1 - t / 2)
    gain = torch.log1p(gamma * above) - torch.log1p(gamma * below)
    return torch.copysign((gamma + 1) * size + gain, x)


def calibration_terms(logit: Tensor, af: Tensor) -> tuple[Tensor, ...]:
    """The terms of the calibrated logit, one for each of ``TERMS``, which turn with the alleles.

    Parameters
    ----------
    logit
        Of P(ALT), any shape.
    af
        ALT frequency in the panel, of a shape that broadcasts to that of ``logit``.

    Returns
    -------
    The logit z, within 12 of 0; z times the rarity of the site, ln(2 MAF) / ln(2e-4), in [0, 1];
    and the logit of ``af``. Exchanging REF and ALT changes the sign of each.
    """
    import torch

    z = logit.clamp(-_MOST_LOGIT, _MOST_LOGIT)
    known = af.to(z.dtype).clamp(_LEAST_AF, 1 - _LEAST_AF)
    rarity = -torch.log(2 * torch.minimum(known, 1 - known)) / _RARITY_UNIT
    return z, z * rarity, torch.logit(known).expand_as(z)


@dataclass(frozen=True)
class Probabilities:
    """How P(ALT) follows from the logit of a model.

    Attributes
    ----------
    gamma
        Of the focal loss that the weights come from, >= 0; 0: the cross-entropy.
    coefficients
        One for each of ``TERMS``, or none: not calibrated.
    provenance
        What the coefficients, and the trust, were fitted on.
    trust
        For each of ``CLASSES`` what the model's difference from the logit of copying is multiplied
        by, >= 0; or none: it is taken as it is.
    """

    gamma: float = 0.0
    coefficients: tuple[float, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)
    trust: tuple[float, ...] = ()

    def logit(self, logit: Tensor, af: Tensor, offset: Tensor | None = None) -> Tensor:
        """The logit of P(ALT).

        Parameters
        ----------
        logit
            Of the model, any shape.
        af
            ALT frequency in the panel, of a shape that broadcasts to that of ``logit``.
        offset
            The logit of copying, of the shape of ``logit``, if the model starts from it.

        Returns
        -------
        The shape of ``logit``, float32 or float64, not decreasing with it.
        """
        z = posterior_logit(logit, self.gamma)
        if self.trust and offset is not None:
            z = offset + self._share(af) * (z - offset)
        if not self.coefficients:
            return z
        terms = calibration_terms(z, af)
        out = self.coefficients[0] * terms[0]
        for value, term in zip(self.coefficients[1:], terms[1:], strict=True):
            out = out + value * term
        return out

    def of(self, logit: Tensor, af: Tensor, offset: Tensor | None = None) -> Tensor:
        """P(ALT), in [0, 1]; see :meth:`logit`."""
        import torch

        return torch.sigmoid(self.logit(logit, af, offset))

    def _share(self, af: Tensor) -> Tensor:
        """What differences from copying are multiplied by at sites of these ALT frequencies."""
        import torch

        maf = torch.minimum(af, 1 - af)
        edges, share = (torch.tensor(x, dtype=af.dtype, device=af.device)
                        for x in (EDGES, self.trust))  # fmt: skip
        return share[torch.bucketize(maf, edges)]

    def files(self) -> dict[str, str]:
        """The names and texts of the files that :meth:`with_files` reads, where there is a need.

        Gamma is in the header of the weights.
        """
        parts = ((FILE, self.coefficients, TERMS), (TRUST_FILE, self.trust, CLASSES))
        return {
            name: Coefficients(values, self.provenance).as_json(_VERSION, terms)
            for name, values, terms in parts
            if values
        }

    def with_files(self, folder: Path) -> Probabilities:
        """The same gamma with the calibration and trust of a model's folder, as far as it has them.

        Raises
        ------
        ModelError
            If a file is damaged, of another version, or would turn probabilities around.
        """
        found = read_coefficients(folder / FILE, _VERSION, TERMS, is_increasing)
        trust = read_coefficients(
            folder / TRUST_FILE, _VERSION, CLASSES, lambda values: min(values) >= 0
        )
        coefficients, about = found or ((), {} if trust is None else trust.provenance)
        return Probabilities(self.gamma, coefficients, about, () if trust is None else trust.values)


def is_increasing(coefficients: tuple[float, ...]) -> bool:
    """Whether the calibrated logit increases with the logit at sites of every frequency."""
    slope, rare, _ = coefficients
    return slope > 0 and slope + rare > 0
